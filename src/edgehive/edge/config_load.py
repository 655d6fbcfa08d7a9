"""Reading, checking and printing edgecore's configuration file.

The file is never rewritten, with one exception that
KubeEdge makes too: a join token that was used is blanked (`forget_token`), here without touching any
other byte.
"""

import logging
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from edgehive.aio.configfile import ConfigFile, dump_yaml, refuse_failed
from edgehive.edge.config import API_VERSION, KIND, EdgeCoreConfig
from edgehive.edge.enroll_files import write_atomically
from edgehive.kit.errors import UserError
from edgehive.kit.text import safe_label
from edgehive.kube.refs import is_dns_subdomain

log = logging.getLogger(__name__)

_PROGRAM = "edgecore"
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)")


def _with_local_defaults(config: EdgeCoreConfig) -> EdgeCoreConfig:
    """Fill in what depends on the machine: the node's name."""
    edged = config.modules.edged
    if edged.hostname_override:
        return config
    edged = msgspec.structs.replace(edged, hostname_override=local_hostname())
    return msgspec.structs.replace(config, modules=msgspec.structs.replace(config.modules, edged=edged))


def local_hostname() -> str:
    """The host name as a node name; KubeEdge's fallback when it cannot be one."""
    name = socket.gethostname().lower()
    return name if is_dns_subdomain(name) else "default-edge-node"


def _validate(config: EdgeCoreConfig, origin: str) -> list[str]:
    modules = config.modules
    hub, edged, kubelet = modules.edge_hub, modules.edged, modules.edged.tailored_kubelet_config
    checks = [
        (config.kind == KIND, "kind", f"must be {KIND}, not {safe_label(config.kind)}"),
        (config.api_version == API_VERSION, "apiVersion", f"must be {API_VERSION}"),
        (
            is_dns_subdomain(edged.hostname_override),
            "modules.edged.hostnameOverride",
            f"{safe_label(edged.hostname_override)} is not a node name (lower case letters, digits, - and .)",
        ),
        (
            kubelet.cgroup_driver in ("cgroupfs", "systemd"),
            "modules.edged.tailoredKubeletConfig.cgroupDriver",
            "must be cgroupfs or systemd",
        ),
        (
            not hub.quic.enable,
            "modules.edgeHub.quic.enable",
            "the QUIC link of KubeEdge is not spoken; use websocket",
        ),
        (hub.websocket.enable, "modules.edgeHub.websocket.enable", "must be true: it is the only link"),
        (_is_address(hub.websocket.server), "modules.edgeHub.websocket.server", "must be HOST:PORT"),
        (
            hub.http_server.startswith("https://"),
            "modules.edgeHub.httpServer",
            "must start with https://",
        ),
        (
            kubelet.container_runtime_endpoint.startswith(("unix://", "process://", "/")),
            "modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint",
            "must be unix://SOCKET (a CRI runtime) or process:// (host processes)",
        ),
        (
            config.database.driver_name == "sqlite3",
            "database.driverName",
            "must be sqlite3",
        ),
        (bool(config.database.data_source), "database.dataSource", "must be the path of the database"),
    ]
    refuse_failed(checks, origin=origin, program=_PROGRAM)
    return [
        f"modules.edged.nodeLabels: {label} is set by edgecore itself"
        for label in edged.node_labels
        if label in ("node-role.kubernetes.io/edge", "node-role.kubernetes.io/agent")
    ]


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 65536


def split_address(text: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[v6]:port``."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def parse_duration(text: str) -> float:
    """Read a Go duration (``1m30s``) as seconds."""
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def read_token(config: EdgeCoreConfig, bootstrap: Path) -> str:
    """The join token: the bootstrap file wins over the configuration, as in KubeEdge."""
    try:
        text = bootstrap.read_text(encoding="utf-8").strip()
    except OSError:
        text = ""
    return text or config.modules.edge_hub.token


def forget_token(path: Path, token: str) -> bool:
    """Blank a used `token` in the file at `path`; tell whether it is gone from there.

    Only the one line is edited, and only if the file then means the same but for the token; the new file
    takes the old one's place atomically, with its mode.
    """
    try:
        text = path.read_text(encoding="utf-8")
        line = re.compile(rf"""^([ \t]*token:[ \t]*)(["']?){re.escape(token)}\2[ \t]*(#.*)?$""", re.MULTILINE)
        edited, count = line.subn(r'\1""', text)
        if not token or count != 1:
            return token not in text
        before, after = parse_config(text).config, parse_config(edited).config
        hub = msgspec.structs.replace(before.modules.edge_hub, token="")
        modules = msgspec.structs.replace(before.modules, edge_hub=hub)
        if after != msgspec.structs.replace(before, modules=modules):
            return False
        write_atomically(path, edited.encode(), mode=path.stat().st_mode & 0o777)
    except (OSError, UserError) as exc:
        log.warning("the used token stays in %s: %s", path, exc)
        return False
    return True


def bootstrap_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where ``keadm join`` leaves the token; the variable is for edges that do not run as root."""
    return Path(environ.get("EDGECORE_BOOTSTRAP_FILE", "/etc/kubeedge/bootstrap-edgecore.conf"))


def _plain(value: object) -> Any:
    return msgspec.to_builtins(value)


def default_config_yaml() -> str:
    """Every key with its default."""
    header = "# Every key of edgecore with its default value; KubeEdge's own names.\n"
    return header + dump_yaml(_plain(_with_local_defaults(EdgeCoreConfig())))


def min_config_yaml() -> str:
    """The keys one usually sets; usable as it is, unlike the original's, which turns modules off."""
    config = _plain(_with_local_defaults(EdgeCoreConfig()))
    modules = config["modules"]
    wanted = {
        "edgeHub": (
            [
                "enable",
                "heartbeat",
                "httpServer",
                "tlsCaFile",
                "tlsCertFile",
                "tlsPrivateKeyFile",
                "token",
                "websocket",
            ]
        ),
        "edged": ["enable", "hostnameOverride", "nodeIP", "rootDirectory", "podSandboxImage"],
        "eventBus": ["enable", "mqttMode", "mqttServerInternal", "mqttServerExternal"],
        "metaManager": ["enable"],
        "deviceTwin": ["enable"],
    }
    small = {module: {key: modules[module][key] for key in keys} for module, keys in wanted.items()}
    small["edgeHub"]["websocket"] = {
        key: modules["edgeHub"]["websocket"][key] for key in ("enable", "server")
    }
    kubelet = modules["edged"]["tailoredKubeletConfig"]
    small["edged"]["tailoredKubeletConfig"] = {
        key: kubelet[key] for key in ("cgroupDriver", "containerRuntimeEndpoint", "staticPodPath")
    }
    header = (
        "# edgecore: fill in the cloud's address and the token, then start it.\n"
        "# All keys: edgecore --defaultconfig\n"
    )
    return header + dump_yaml(
        {
            "apiVersion": config["apiVersion"],
            "kind": config["kind"],
            "database": {"dataSource": config["database"]["dataSource"]},
            "modules": small,
        }
    )


_FILE: Final = ConfigFile(
    program=_PROGRAM, kind=EdgeCoreConfig, complete=_with_local_defaults, check=_validate
)
load_config: Final = _FILE.load
parse_config: Final = _FILE.parse
