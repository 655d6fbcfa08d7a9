"""The flags of `edgehive up`: given now, else as given last time for this data directory, else the default."""

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from edgehive.cli.up_configs import write_private
from edgehive.cli.up_layout import Layout, Ports, default_data_dir, node_names

RuntimeChoice = Literal["auto", "cri", "process"]


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What an installation is made of; remembered in its data directory."""

    api_port: int = 6443
    ports_from: int = 10000
    node_name: str = ""
    nodes: int = 1
    runtime: RuntimeChoice = "auto"
    cri_socket: str = ""
    require_authorization: bool = False

    @property
    def ports(self) -> Ports:
        return Ports(self.api_port, self.ports_from)

    @property
    def names(self) -> list[str]:
        """The nodes' names; without --node-name they are edge-1, edge-2 and so on."""
        if self.node_name:
            return node_names(self.node_name, self.nodes)
        return node_names("edge-1", 1) if self.nodes == 1 else node_names("edge", self.nodes)


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """The flag that names an installation."""
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        type=Path,
        default=default_data_dir(os.environ),
        help="where everything is kept (default: %(default)s)",
    )


def add_down_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `edgehive down`."""
    add_data_dir(parser)
    parser.add_argument(
        "--pods",
        action="store_true",
        help="end the pods, too; without it they keep running, as on a node whose edgecore is stopped",
    )


def add_up_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_data_dir(parser)
    new = argparse.SUPPRESS  # absent means: as last time
    parser.add_argument(
        "--api-port", type=int, metavar="PORT", default=new, help="port of the API server (default: 6443)"
    )
    parser.add_argument(
        "--ports-from",
        type=int,
        metavar="PORT",
        default=new,
        help="first of the other ports: B hub, B+2 certificates, B+3 stream, B+4 tunnel, B+91 metrics, "
        "from B+100 ten for each edge (default: 10000)",
    )
    parser.add_argument("--node-name", metavar="NAME", default=new, help="name of the node (default: edge-1)")
    parser.add_argument(
        "--nodes", type=int, metavar="N", default=new, help="edges on this machine, numbered (default: 1)"
    )
    parser.add_argument(
        "--runtime",
        choices=("auto", "cri", "process"),
        default=new,
        help="what runs the pods: a CRI runtime such as containerd, or plain host processes "
        "(default: auto, a working CRI runtime if there is one)",
    )
    parser.add_argument("--cri-socket", metavar="PATH", default=new, help="socket of the CRI runtime")
    parser.add_argument(
        "--require-authorization",
        action=argparse.BooleanOptionalAction,
        default=new,
        help="let the API at the edge ask who its clients are, by TLS, tokens and RBAC; pods then find it as they "
        "find any API server (default: no, it serves this machine alone)",
    )
    parser.add_argument(
        "--detach", action="store_true", help="return once the node is Ready; stop with `edgehive down`"
    )
    parser.add_argument(
        "-v", dest="verbosity", type=int, metavar="LEVEL", default=2, help="log level, 4 shows messages"
    )
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="form of the log files (default: text)"
    )


def resolve_options(layout: Layout, given: argparse.Namespace) -> UpOptions:
    """Lay the flags over what this data directory remembers."""
    options = remembered_options(layout)
    known = {field.name for field in fields(UpOptions)}
    return replace(options, **{key: value for key, value in vars(given).items() if key in known})


def remembered_options(layout: Layout) -> UpOptions:
    """The flags of the last start; the defaults if there was none."""
    try:
        saved: Any = json.loads((layout.root / "up.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        saved = None
    if not isinstance(saved, Mapping):
        return UpOptions()
    default = asdict(UpOptions())
    return UpOptions(
        **{key: saved[key] for key, value in default.items() if type(saved.get(key)) is type(value)}
    )


def remember_options(layout: Layout, options: UpOptions) -> None:
    """Keep the flags for the next start."""
    write_private(layout.root / "up.json", json.dumps(asdict(options), indent=1) + "\n")
