"""Where `edgehive up` keeps its files, and which ports its processes use.

DATA_DIR/
    kubeconfig              for kubectl: administrator, readable by its owner only
    control-plane/          the cluster's database and keys
    cloud/                  cloudcore.yaml and its kubeconfig
    edge/NODE/              edgecore.yaml, certificates, edgecore.db, volumes and sandboxes
    logs/                   one file a process
    run/                    what is running now
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgehive.kit.errors import UserError


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """``$EDGEHIVE_DATA_DIR``, else the XDG place for state."""
    if environ.get("EDGEHIVE_DATA_DIR"):
        return Path(environ["EDGEHIVE_DATA_DIR"])
    home = Path(environ.get("HOME") or "/root")
    state = Path(environ["XDG_STATE_HOME"]) if environ.get("XDG_STATE_HOME") else home / ".local" / "state"
    return state / "edgehive"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one data directory."""

    root: Path

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def control_plane(self) -> Path:
        return self.root / "control-plane"

    @property
    def cloud(self) -> Path:
        return self.root / "cloud"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        return self.root / "run"

    def edge(self, node: str) -> Path:
        """Everything of one node."""
        return self.root / "edge" / node

    def log(self, process: str) -> Path:
        """The log of one process."""
        return self.logs / f"{process}.log"

    def make(self) -> None:
        """Create the directories.

        Raises:
            UserError: the place cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in (self.control_plane, self.cloud, self.root / "edge", self.logs, self.run):
                path.mkdir(exist_ok=True, mode=0o700)
            if not os.access(self.run, os.W_OK):
                raise PermissionError(f"{self.run} is not writable")
        except OSError as exc:
            raise UserError(
                f"the data directory {self.root} cannot be used: {exc.strerror or exc}",
                hint="choose another one with --data-dir",
            ) from exc


@dataclass(frozen=True, slots=True)
class PortUse:
    """One port, who listens there and which flag moves it."""

    number: int
    purpose: str
    flag: str


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of one installation: the API server's, and a block that starts at `base`."""

    api: int
    base: int

    @property
    def hub(self) -> int:
        return self.base

    @property
    def https(self) -> int:
        return self.base + 2

    @property
    def stream(self) -> int:
        return self.base + 3

    @property
    def tunnel(self) -> int:
        return self.base + 4

    @property
    def metrics(self) -> int:
        return self.base + 91

    def edge(self, index: int) -> int:
        """First of the ten ports of edge number `index`."""
        return self.base + 100 + 10 * index

    def mqtt(self, index: int) -> int:
        """Where the MQTT broker of edge number `index` listens."""
        return self.edge(index) + 3

    def uses(self, nodes: int) -> list[PortUse]:
        """What will be listened on."""
        block = "--ports-from"
        return [
            PortUse(self.api, "the API server", "--api-port"),
            PortUse(self.hub, "cloudcore's hub", block),
            PortUse(self.https, "cloudcore's certificate service", block),
            PortUse(self.stream, "cloudcore's stream server", block),
            PortUse(self.tunnel, "cloudcore's tunnel", block),
            PortUse(self.metrics, "cloudcore's metrics", block),
            *(PortUse(self.edge(i), f"the kubelet port of edge {i + 1}", block) for i in range(nodes)),
            *(PortUse(self.mqtt(i), f"the MQTT broker of edge {i + 1}", block) for i in range(nodes)),
        ]

    def check(self, nodes: int) -> None:
        """Refuse impossible numbers.

        Raises:
            UserError: out of range, or the two overlap.
        """
        last = self.edge(nodes - 1) + 9
        if not 1 <= self.api <= 65535:
            raise UserError(f"--api-port {self.api} is not a port number", hint="use 1 to 65535")
        if self.base < 1 or last > 65535:
            raise UserError(
                f"--ports-from {self.base} does not leave room for the ports up to {last}",
                hint="use a number from 1024 to 65000",
            )
        if self.base <= self.api <= last:
            raise UserError(
                f"--api-port {self.api} lies in the block {self.base} to {last} of --ports-from",
                hint="choose numbers that do not overlap",
            )


_NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def node_names(first: str, count: int) -> list[str]:
    """The names of the nodes: `first` alone, or numbered from 1.

    Raises:
        UserError: not a node name.
    """
    if not 1 <= count <= 100:
        raise UserError(f"--nodes {count} is not possible", hint="use 1 to 100")
    if len(first) > 240 or not _NODE_NAME.fullmatch(first):
        raise UserError(
            f"--node-name {first!r} is not a node name",
            hint="use lower case letters, digits, - and . such as edge-1",
        )
    return [first] if count == 1 else [f"{first}-{i + 1}" for i in range(count)]
