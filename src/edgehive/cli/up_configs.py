"""The configuration files that `edgehive up` writes: KubeEdge's own formats, one file a process."""

import contextlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgehive.cli.up_layout import Layout, Ports
from edgehive.kit.errors import UserError

_HEADER = "# Written by `edgehive up` at every start; edits are lost. All keys: {program} --defaultconfig\n"


def to_yaml(data: Mapping[str, Any], indent: int = 0) -> str:
    """Print nested mappings as YAML; scalars and lists in JSON's form, which is YAML too."""
    lines: list[str] = []
    for key, value in data.items():
        pad = "  " * indent
        if isinstance(value, Mapping) and value:
            lines.append(f"{pad}{key}:\n{to_yaml(value, indent + 1)}")
        else:
            lines.append(f"{pad}{key}: {_scalar(value)}\n")
    return "".join(lines)


def _scalar(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def cloudcore_config(layout: Layout, ports: Ports, *, authorization: bool = False) -> dict[str, Any]:
    """``cloudcore.yaml`` for this machine alone."""
    pki = layout.cloud / "pki"  # absent files: cloudcore keeps its CA and key in Secrets
    return {
        "apiVersion": "cloudcore.config.kubeedge.io/v1alpha1",
        "kind": "CloudCore",
        "commonConfig": {"monitorServer": {"bindAddress": f"127.0.0.1:{ports.metrics}"}},
        "featureGates": {"requireAuthorization": authorization},
        "kubeAPIConfig": {"kubeConfig": str(layout.cloud / "kubeconfig")},
        "modules": {
            "cloudHub": {
                "advertiseAddress": ["127.0.0.1"],
                "dnsNames": ["localhost"],
                "tlsCAFile": str(pki / "ca.crt"),
                "tlsCAKeyFile": str(pki / "ca.key"),
                "tlsCertFile": str(pki / "server.crt"),
                "tlsPrivateKeyFile": str(pki / "server.key"),
                "websocket": {"enable": True, "address": "127.0.0.1", "port": ports.hub},
                "https": {"enable": True, "address": "127.0.0.1", "port": ports.https},
                "unixsocket": {"enable": False, "address": f"unix://{layout.run}/kubeedge.sock"},
            },
            "cloudStream": {"enable": True, "streamPort": ports.stream, "tunnelPort": ports.tunnel},
            "dynamicController": {"enable": True},
            "router": {"enable": False},
        },
    }


def _dummy_server(endpoint: str, index: int, port: int) -> str:
    """The address that pods with a network of their own reach MetaServer at; one for each edge of this machine."""
    return "" if endpoint.startswith("process://") else f"169.254.30.{10 + index}:{port}"


def edgecore_config(
    layout: Layout, ports: Ports, node: str, index: int, *, runtime_endpoint: str, authorization: bool = False
) -> dict[str, Any]:
    """``edgecore.yaml`` of one node."""
    home = layout.edge(node)
    first = ports.edge(index)
    certificates = {
        "tlsCaFile": str(home / "ca" / "rootCA.crt"),
        "tlsCertFile": str(home / "certs" / "server.crt"),
        "tlsPrivateKeyFile": str(home / "certs" / "server.key"),
    }
    return {
        "apiVersion": "edgecore.config.kubeedge.io/v1alpha2",
        "kind": "EdgeCore",
        "featureGates": {"requireAuthorization": authorization},
        "database": {"dataSource": str(home / "edgecore.db")},
        "modules": {
            "edgeHub": {
                "enable": True,
                "heartbeat": 15,
                "messageQPS": 300,  # KubeEdge's 30 are meant for thin lines: a report takes one
                "messageBurst": 600,
                "httpServer": f"https://127.0.0.1:{ports.https}",
                **certificates,
                "token": "",
                "websocket": {"enable": True, "server": f"127.0.0.1:{ports.hub}"},
            },
            "edged": {
                "enable": True,
                "hostnameOverride": node,
                "reportEvent": True,
                "rootDirectory": str(home / "root"),
                "tailoredKubeletConfig": {
                    "address": "127.0.0.1",
                    "readOnlyPort": first,
                    "containerRuntimeEndpoint": runtime_endpoint,
                    "imageServiceEndpoint": runtime_endpoint,
                    "staticPodPath": str(home / "manifests"),
                    "podLogsDir": str(home / "pod-logs"),
                },
            },
            "edgeStream": {
                "enable": True,
                "server": f"127.0.0.1:{ports.tunnel}",
                "tlsTunnelCAFile": certificates["tlsCaFile"],
                "tlsTunnelCertFile": certificates["tlsCertFile"],
                "tlsTunnelPrivateKeyFile": certificates["tlsPrivateKeyFile"],
            },
            "eventBus": {
                "enable": True,
                "mqttMode": 0,
                "mqttServerInternal": f"tcp://127.0.0.1:{ports.mqtt(index)}",
            },
            "metaManager": {
                "enable": True,
                "metaServer": {
                    "enable": True,
                    "server": f"127.0.0.1:{first + 1}",
                    "dummyServer": _dummy_server(runtime_endpoint, index, first + 1),
                    "certificateDirectory": str(home / "metaserver"),
                    "serviceAccountKeyFiles": [str(layout.control_plane / "pki" / "sa.pub")],
                },
            },
            "deviceTwin": {"enable": True, "dmiSockPath": str(dmi_directory(layout, node))},
            "serviceBus": {"enable": False, "port": first + 2},
        },
    }


_SOCKET_ROOM = 80
"""Longest directory, in bytes, whose sockets (``dmi.sock``, those of mappers) still have usable paths."""


def dmi_directory(layout: Layout, node: str) -> Path:
    """Where a node's edgecore and its mappers have their sockets.

    Beside the node's other files; below the directory for temporary files where that path is too long for a socket.
    """
    beside = layout.edge(node) / "dmi"
    if len(os.fsencode(beside)) <= _SOCKET_ROOM:
        return beside
    import hashlib  # a short path is the rule

    mark = hashlib.sha256(os.fsencode(beside)).hexdigest()[:12]
    return Path("/tmp") / f"edgehive-{os.getuid()}-{mark}"  # noqa: S108 - see make_private


def remove_if_elsewhere(layout: Layout, node: str) -> None:
    """Leave nothing outside of the data directory, unless a mapper still has its socket there."""
    directory = dmi_directory(layout, node)
    if not directory.is_relative_to(layout.root):
        with contextlib.suppress(OSError):
            directory.rmdir()


def make_private(directory: Path) -> None:
    """Make a directory that nobody else can use.

    Raises:
        UserError: somebody else has it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        there = directory.lstat()
        if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid() or there.st_mode & 0o022:
            raise PermissionError("it belongs to somebody else")
    except OSError as exc:
        raise UserError(
            f"the directory {directory} cannot be used: {exc.strerror or exc}",
            hint="remove it, or use a shorter --data-dir",
        ) from exc


def write_config(path: Path, program: str, data: Mapping[str, Any]) -> None:
    """Write one file, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, _HEADER.format(program=program) + to_yaml(data))


def write_private(path: Path, text: str) -> None:
    """Replace `path` atomically, mode 0600."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def containerd_sockets() -> Sequence[str]:
    """Where container runtimes usually listen."""
    return (
        "/run/containerd/containerd.sock",
        "/run/crio/crio.sock",
        "/run/k3s/containerd/containerd.sock",
        "/var/run/cri-dockerd.sock",
    )
