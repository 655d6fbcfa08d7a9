"""The table of subcommands; each one's code is imported only when it is called."""

import argparse
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand: `arguments` and `run` are ``module:function``."""

    name: str
    help: str
    run: str
    arguments: str = ""
    passes_all: bool = False
    """The command line is handed over as it is."""
    hidden: bool = False
    all_parsers: str = ""
    """With `passes_all`: ``module:function`` that gives its parser and those below it, for completions."""

    def parsers(self, program: str) -> list[argparse.ArgumentParser]:
        """Its parser and those of its subcommands, as far as there are any."""
        if self.passes_all:
            return list(_load(self.all_parsers)()) if self.all_parsers else []
        return [self.parser(program)]

    def parser(self, program: str) -> argparse.ArgumentParser:
        """Build its parser."""
        parser = argparse.ArgumentParser(
            prog=f"{program} {self.name}", description=self.help, allow_abbrev=False
        )
        if self.arguments:
            _load(self.arguments)(parser)
        return parser

    def call(self, program: str, argv: Sequence[str]) -> int:
        """Parse `argv` and run it."""
        run: Callable[[Any], int] = _load(self.run)
        return run(list(argv) if self.passes_all else self.parser(program).parse_args(argv))


def _load(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(f"edgehive.cli.{module}"), name)


COMMANDS = (
    Command(
        "up",
        "Start control plane, cloudcore and edges on this machine",
        "up:run_up",
        "up_options:add_up_arguments",
    ),
    Command("down", "Stop what `edgehive up` started", "up_manage:run_down", "up_options:add_down_arguments"),
    Command("status", "Show what `edgehive up` runs", "up_manage:run_status", "up_options:add_data_dir"),
    Command("kubectl", "Run kubectl against it", "kubectl:run_kubectl", passes_all=True),
    Command("gettoken", "Print a token for new edges", "gettoken:run_gettoken", "gettoken:add_arguments"),
    Command(
        "control-plane",
        "Run the embedded control plane alone",
        "control_plane:run_control_plane",
        "control_plane:add_arguments",
    ),
    Command(
        "manifests",
        "Print what cloudcore needs on a Kubernetes cluster: definitions, account, rights",
        "manifests:run_manifests",
        "manifests:add_arguments",
    ),
    Command("fleet", "Simulate many edges, to load a cloudcore", "fleet:run_fleet", "fleet:add_arguments"),
    Command(
        "trace",
        "Show where an object stands on its way to the edges",
        "trace:run_trace",
        "trace:add_arguments",
    ),
    Command(
        "mapper",
        "Write or run a device mapper",
        "mapper:run_mapper_command",
        passes_all=True,
        all_parsers="mapper:parsers",
    ),
    Command(
        "demo",
        "Try devices out on a running `edgehive up`",
        "demo:run_demo",
        "demo:add_arguments",
    ),
    Command(
        "cloudcore",
        "Run cloudcore",
        "daemons:run_cloudcore",
        passes_all=True,
        all_parsers="daemons:cloudcore_parsers",
    ),
    Command(
        "edgecore",
        "Run edgecore",
        "daemons:run_edgecore",
        passes_all=True,
        all_parsers="daemons:edgecore_parsers",
    ),
    Command(
        "completion",
        "Print a completion script for bash, zsh or fish",
        "completion:run_completion",
        "completion:add_arguments",
    ),
    Command("version", "Print the version", "version:run_version", "version:add_arguments"),
    Command(
        "cri-check",
        "Tell whether a CRI runtime works",
        "cri_check:run_check",
        "cri_check:add_arguments",
        hidden=True,
    ),
)


def find_command(name: str) -> Command | None:
    """The command of that name."""
    return next((command for command in COMMANDS if command.name == name), None)
