"""`edgehive mapper`: write a new mapper, or run one that ships."""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgehive.cli.console import Console
from edgehive.cli.up_layout import Layout
from edgehive.cli.up_lock import lock_holder
from edgehive.cli.up_options import add_data_dir

_SHIPPED = {
    "virtual": "VirtualDriver",
    "modbus": "ModbusDriver",
    "http": "HttpDriver",
    "mqtt": "MqttDriver",
    "opcua": "OpcuaDriver",
}


def run_mapper_command(argv: Sequence[str]) -> int:
    """`edgehive mapper new NAME` or `edgehive mapper run KIND ...`."""
    arguments = parsers()[0].parse_args(argv)
    if arguments.command == "run":
        return _run(arguments.kind, arguments.rest)
    layout = Layout(arguments.data_dir.expanduser().absolute())
    return _new(arguments.name, arguments.directory or Path(arguments.name), layout, arguments.node)


def parsers() -> list[argparse.ArgumentParser]:
    """The parser of `edgehive mapper`, and those of its subcommands."""
    parser = argparse.ArgumentParser(
        prog="edgehive mapper", description="Write a mapper, or run one that ships.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    new = commands.add_parser("new", help="write a project for a new mapper", allow_abbrev=False)
    new.add_argument("name", metavar="NAME", help="the protocol's name, such as my-sensor")
    new.add_argument("--directory", metavar="DIR", type=Path, help="where to; default: ./NAME")
    add_data_dir(new)
    new.add_argument("--node", metavar="NODE", help="the edge node of its first device; default: the first")
    run = commands.add_parser("run", help="run a mapper that ships", allow_abbrev=False)
    run.add_argument(
        "kind", metavar="KIND", choices=sorted(_SHIPPED), help="one of " + ", ".join(sorted(_SHIPPED))
    )
    run.add_argument(
        "rest", metavar="OPTION", nargs=argparse.REMAINDER, help="of that mapper; KIND --help lists them"
    )
    return [parser, new, run]


def _run(kind: str, rest: Sequence[str]) -> int:
    from edgehive.mapper.app import main

    module = importlib.import_module(f"edgehive.mapper.{kind}")
    return main(getattr(module, _SHIPPED[kind]), rest, program=f"edgehive mapper run {kind}")


def _new(name: str, directory: Path, layout: Layout, node: str | None) -> int:
    """Write a project for the edgecore of `edgehive up`, if one runs here, or for one in /etc/kubeedge."""
    from edgehive.mapper.project import write_project

    console = Console()
    where: dict[str, Any] = {"node": node} if node else {}
    if lock_holder(layout):
        from edgehive.cli.demo import dmi_socket, first_node

        where["node"] = node or first_node(layout)
        where["sockets"] = dmi_socket(layout, where["node"]).parent
    for path in write_project(name, directory, **where):
        console.line(f"  {path}")
    if "sockets" in where:
        console.line(f"  for edgecore of node {where['node']}: {where['sockets']}/dmi.sock")
    console.done(f"a mapper for {name}; {directory / 'README.md'} says how to run it")
    return 0
