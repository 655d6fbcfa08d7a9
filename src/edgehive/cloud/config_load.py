"""Reading, checking and printing cloudcore's configuration file. The file is never written."""

import socket
from pathlib import Path
from typing import Any, Final

import msgspec

from edgehive.aio.configfile import ConfigFile, dump_yaml, refuse_failed
from edgehive.cloud.config import KIND, CloudCoreConfig, CloudStream
from edgehive.kit.text import safe_label
from edgehive.kube.names import is_ip

_GATES = ("requireAuthorization", "moduleRestart", "disableNodeTaskV1alpha2")
_PROGRAM = "cloudcore"


def with_local_defaults(config: CloudCoreConfig) -> CloudCoreConfig:
    """Fill in what depends on the machine: the address edges reach us by."""
    hub = config.modules.cloud_hub
    if any(hub.advertise_address):
        return config
    hub = msgspec.structs.replace(hub, advertise_address=(local_address(),))
    return msgspec.structs.replace(config, modules=msgspec.structs.replace(config.modules, cloud_hub=hub))


def local_address() -> str:
    """The address of the interface with the default route; loopback on a machine that has none."""
    for family, probe in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect((probe, 9))  # a datagram socket: chooses the source address, sends nothing
                return str(sock.getsockname()[0])
            except OSError:
                continue
    return "127.0.0.1"


def split_address(text: str) -> tuple[str, int] | None:
    """Split ``IP:port`` or ``[IPv6]:port``; ``None`` when it is not that."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not is_ip(host) or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        return None
    return host, int(port)


def _validate(config: CloudCoreConfig, origin: str) -> list[str]:
    hub = config.modules.cloud_hub
    kubeconfig = config.kube_api_config.kube_config
    bind = config.common_config.monitor_server.bind_address
    checks = [
        (config.kind in ("", KIND), "kind", f"must be {KIND}, not {safe_label(config.kind)}"),
        (
            not kubeconfig or Path(kubeconfig).is_absolute(),
            "kubeAPIConfig.kubeConfig",
            f"must be an absolute path, not {safe_label(kubeconfig)}",
        ),
        (
            not kubeconfig or Path(kubeconfig).is_file(),
            "kubeAPIConfig.kubeConfig",
            f"there is no file {safe_label(kubeconfig)}",
        ),
        (
            split_address(bind) is not None,
            "commonConfig.monitorServer.bindAddress",
            f"must be IP:port, not {safe_label(bind)}",
        ),
        (
            hub.unixsocket.address.startswith("unix://"),
            "modules.cloudHub.unixsocket.address",
            "must start with unix://",
        ),
        (not hub.enable or hub.websocket.enable, "modules.cloudHub.websocket.enable", "must be true"),
        (
            not hub.quic.enable,
            "modules.cloudHub.quic.enable",
            "the QUIC link of KubeEdge is not spoken; use websocket",
        ),
    ]
    checks += [
        (is_ip(part.address), f"modules.cloudHub.{name}.address", f"{safe_label(part.address)} is not an IP")
        for name, part in (("websocket", hub.websocket), ("https", hub.https), ("quic", hub.quic))
    ]
    checks += [
        (is_ip(a), "modules.cloudHub.advertiseAddress", f"{safe_label(a)} is not an IP; names go to dnsNames")
        for a in hub.advertise_address
    ]
    checks += [
        (gate in _GATES, "featureGates", f"there is no gate {safe_label(gate)}; known: {', '.join(_GATES)}")
        for gate in config.feature_gates
    ]
    checks += _stream_checks(config.modules.cloud_stream)
    refuse_failed(checks, origin=origin, program=_PROGRAM)
    modules = config.modules
    absent = {
        "router": modules.router.enable,
        "taskManager": modules.task_manager.enable,
    }
    return [
        f"modules.{name}.enable: this cloudcore does not have the module; it stays off"
        for name, enabled in absent.items()
        if enabled
    ]


def _stream_checks(stream: CloudStream) -> list[tuple[bool, str, str]]:
    """Files at KubeEdge's own places may be absent: nothing has to be made by hand. Others were meant."""
    usual = CloudStream()
    files = {
        "tlsStreamCAFile": (stream.tls_stream_ca_file, usual.tls_stream_ca_file),
        "tlsStreamCertFile": (stream.tls_stream_cert_file, usual.tls_stream_cert_file),
        "tlsStreamPrivateKeyFile": (stream.tls_stream_private_key_file, usual.tls_stream_private_key_file),
    }
    return [
        (
            not stream.enable or path in ("", default) or Path(path).is_file(),
            f"modules.cloudStream.{key}",
            f"there is no file {path}",
        )
        for key, (path, default) in files.items()
    ]


def _plain(config: CloudCoreConfig) -> Any:
    return msgspec.to_builtins(config)


def default_config_yaml() -> str:
    """Every key with its default."""
    header = "# Every key of cloudcore with its default value; KubeEdge's own names.\n"
    return header + dump_yaml(_plain(with_local_defaults(CloudCoreConfig())))


def min_config_yaml() -> str:
    """The keys one usually sets."""
    config = _plain(with_local_defaults(CloudCoreConfig()))
    modules, hub = config["modules"], config["modules"]["cloudHub"]
    keys = ("tlsCAFile", "tlsCAKeyFile", "tlsCertFile", "tlsPrivateKeyFile", "advertiseAddress")
    small = {"nodeLimit": 1000} | {key: hub[key] for key in (*keys, "unixsocket", "websocket", "https")}
    header = (
        "# cloudcore: set advertiseAddress to what edges reach this machine by, then start it.\n"
        "# All keys: cloudcore --defaultconfig\n"
    )
    return header + dump_yaml(
        {
            "apiVersion": config["apiVersion"],
            "kind": config["kind"],
            "kubeAPIConfig": {key: config["kubeAPIConfig"][key] for key in ("master", "kubeConfig")},
            "modules": {
                "cloudHub": small,
                "router": modules["router"],
                "iptablesManager": modules["iptablesManager"],
            },
        }
    )


_FILE: Final = ConfigFile(
    program=_PROGRAM, kind=CloudCoreConfig, complete=with_local_defaults, check=_validate
)
load_config: Final = _FILE.load
parse_config: Final = _FILE.parse
