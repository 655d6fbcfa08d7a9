"""`edgehive mapper`: write a new mapper, or run one that ships."""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from edgehive.cli.console import Console

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
    return _new(arguments.name, arguments.directory or Path(arguments.name))


def parsers() -> list[argparse.ArgumentParser]:
    """The parser of `edgehive mapper`, and those of its subcommands."""
    parser = argparse.ArgumentParser(
        prog="edgehive mapper", description="Write a mapper, or run one that ships.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    new = commands.add_parser("new", help="write a project for a new mapper", allow_abbrev=False)
    new.add_argument("name", metavar="NAME", help="the protocol's name, such as my-sensor")
    new.add_argument("--directory", metavar="DIR", type=Path, help="where to; default: ./NAME")
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


def _new(name: str, directory: Path) -> int:
    from edgehive.mapper.project import write_project

    console = Console()
    for path in write_project(name, directory):
        console.line(f"  {path}")
    console.done(f"a mapper for {name}; {directory / 'README.md'} says how to run it")
    return 0
