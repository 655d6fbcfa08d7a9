"""A mapper's configuration: KubeEdge's mapper-framework file, and what the command line changes of it."""

import argparse
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgehive.aio.tls import trusting
from edgehive.kit.errors import UserError

_DIRECTORY = "/etc/kubeedge"


@dataclass(frozen=True, slots=True)
class MapperConfig:
    """Where a mapper listens and whom it talks to."""

    name: str
    protocol: str
    version: str = "v1.0.0"
    socket: Path = Path(_DIRECTORY)
    edgecore_socket: Path = Path(_DIRECTORY) / "dmi.sock"
    http_address: str = "127.0.0.1"
    http_port: int = 7777
    """0 switches the REST API and the metrics off."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """Clients of the REST API need a certificate of this authority."""
    verbosity: int = 2

    def tls(self) -> ssl.SSLContext | None:
        """What the REST API is served with; None is plain HTTP.

        Raises:
            UserError: a file cannot be used.
        """
        if self.tls_certificate is None:
            return None
        try:
            context = trusting(purpose=ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(self.tls_certificate, self.tls_key)
            if self.tls_client_ca is not None:
                context.load_verify_locations(self.tls_client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as exc:
            raise UserError(f"the certificate of the REST API cannot be used: {exc}") from exc
        return context


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every mapper."""
    parser.add_argument("--config-file", metavar="FILE", type=Path, help="YAML, in mapper-framework's form")
    parser.add_argument("--name", help="the mapper's name")
    parser.add_argument("--socket", metavar="PATH", type=Path, help="where this mapper listens")
    parser.add_argument("--edgecore-sock", metavar="PATH", type=Path, help="edgecore's dmi.sock")
    parser.add_argument("--http-port", metavar="N", type=int, help="REST API and metrics; 0: none")
    parser.add_argument("--tls-cert-file", metavar="FILE", type=Path, help="serve the REST API with TLS")
    parser.add_argument("--tls-private-key-file", metavar="FILE", type=Path, help="of --tls-cert-file")
    parser.add_argument("--tls-ca-file", metavar="FILE", type=Path, help="ask its clients for a certificate")
    parser.add_argument(
        "-v", "--v", dest="verbosity", metavar="N", type=int, default=2, help="from 4: details"
    )


def read_arguments(parser: argparse.ArgumentParser, argv: Sequence[str], *, protocol: str) -> MapperConfig:
    """Parse the command line and the file it names.

    Raises:
        UserError: the file cannot be read or has something of the wrong type.
    """
    arguments = parser.parse_args(argv)
    data = _load(arguments.config_file) if arguments.config_file is not None else {}
    common, server = _section(data, "common"), _section(data, "grpc_server")
    name = arguments.name or _text(common, "name") or f"{protocol}-mapper"
    port = common.get("http_port", 7777) if arguments.http_port is None else arguments.http_port
    if isinstance(port, str) and port.isdigit():
        port = int(port)
    if not isinstance(port, int) or not 0 <= port <= 65535:
        raise UserError(f"http_port {port!r} is not a port number")
    return MapperConfig(
        name=name,
        protocol=_text(common, "protocol") or protocol,
        version=_text(common, "version") or "v1.0.0",
        socket=arguments.socket or Path(_text(server, "socket_path") or f"{_DIRECTORY}/{name}.sock"),
        edgecore_socket=arguments.edgecore_sock
        or Path(_text(common, "edgecore_sock") or f"{_DIRECTORY}/dmi.sock"),
        http_address=_text(common, "address") or "127.0.0.1",
        http_port=port,
        tls_certificate=arguments.tls_cert_file,
        tls_key=arguments.tls_private_key_file,
        tls_client_ca=arguments.tls_ca_file,
        verbosity=arguments.verbosity,
    )


def _load(path: Path) -> Mapping[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise UserError(f"{path} cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise UserError(f"{path} is not YAML: {exc}") from exc
    if not isinstance(data, dict):
        raise UserError(f"{path} is not a mapping")
    return data


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = data.get(name) or {}
    if not isinstance(section, dict):
        raise UserError(f"{name} is not a mapping")
    return section


def _text(section: Mapping[str, Any], name: str) -> str:
    value = section.get(name, "")
    if not isinstance(value, str):
        raise UserError(f"{name} is not a string")
    return value
