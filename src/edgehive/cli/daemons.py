"""The programs `cloudcore` and `edgecore`: KubeEdge's command lines over our own processes."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgehive import __version__
from edgehive.cli.daemon import drop_waste, run_daemon
from edgehive.cli.logs import configure_logging
from edgehive.cli.notify import Notifier

if TYPE_CHECKING:
    import argparse

    from edgehive.cli.logs import Format

log = logging.getLogger(__name__)

_EDGECORE_CONFIG = "/etc/kubeedge/config/edgecore.yaml"
_DEFAULT_VERBOSITY = 2

# Flags that unit files written for KubeEdge may carry; its logging library's, without a meaning here.
_IGNORED_FLAGS = (
    "--add-dir-header", "--alsologtostderr", "--log-backtrace-at", "--log-dir", "--log-file",
    "--log-file-max-size", "--log-flush-frequency", "--logtostderr", "--one-output", "--skip-headers",
    "--skip-log-headers", "--stderrthreshold", "--vmodule",
)  # fmt: skip


def daemon_parser(program: str, what: str, config: str) -> "argparse.ArgumentParser":
    """The flags that both programs have."""
    import argparse

    parser = argparse.ArgumentParser(prog=program, description=what, allow_abbrev=False)
    parser.add_argument(
        "--config", metavar="FILE", type=Path, default=Path(config), help="default: %(default)s"
    )
    parser.add_argument("--minconfig", action="store_true", help="print a small configuration and exit")
    parser.add_argument(
        "--defaultconfig", action="store_true", help="print every key with its default and exit"
    )
    parser.add_argument(
        "-v",
        "--v",
        dest="verbosity",
        type=int,
        default=_DEFAULT_VERBOSITY,
        metavar="LEVEL",
        help="log level, 4 shows messages",
    )
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument(
        "--version", nargs="?", const="true", metavar="raw", help="print the version and exit"
    )
    return parser


def parse_daemon(parser: "argparse.ArgumentParser", argv: Sequence[str]) -> "argparse.Namespace":
    """Parse; logging flags of the original are dropped, with their value where it is a word of its own."""
    arguments, rest = parser.parse_known_args(list(argv))
    unknown: list[str] = []
    skip_value = False
    for word in rest:
        name, has_value, _ = word.partition("=")
        if name.replace("_", "-") in _IGNORED_FLAGS:
            skip_value = not has_value
        elif skip_value and not word.startswith("-"):
            skip_value = False
        else:
            unknown.append(word)
    if unknown:
        parser.error(f"unknown argument: {' '.join(unknown)}")
    return arguments


def cloudcore_parsers() -> "tuple[argparse.ArgumentParser]":
    """The parser of `cloudcore`."""
    import argparse

    parser = daemon_parser("cloudcore", "The cloud side of KubeEdge.", "/etc/kubeedge/config/cloudcore.yaml")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that share the ports (default: 1)"
    )
    parser.add_argument("--worker", type=_worker, help=argparse.SUPPRESS)
    return (parser,)


def edgecore_parsers() -> "tuple[argparse.ArgumentParser]":
    """The parser of `edgecore`."""
    return (daemon_parser("edgecore", "The edge side of KubeEdge.", _EDGECORE_CONFIG),)


def run_cloudcore(argv: Sequence[str]) -> int:
    """`cloudcore`."""
    (parser,) = cloudcore_parsers()
    arguments = parse_daemon(parser, argv)
    if arguments.workers < 1:
        parser.error("--workers must be at least 1")
    if arguments.version:
        return _print_version("cloudcore")
    from edgehive.cloud.config_load import default_config_yaml, load_config, min_config_yaml

    if arguments.defaultconfig or arguments.minconfig:
        sys.stdout.write(min_config_yaml() if arguments.minconfig else default_config_yaml())
        return 0
    configure_logging(arguments.log_format, arguments.verbosity)
    loaded = load_config(arguments.config)
    _start_log("cloudcore", loaded.warnings)

    async def serve(notifier: Notifier) -> None:
        if arguments.worker is not None:
            from edgehive.cloud.workers import run_worker

            await run_worker(loaded.config, *arguments.worker)
        elif arguments.workers > 1:
            from edgehive.cloud.workers import WorkerPool, worker_arguments

            passed_on = worker_arguments(arguments.config, arguments.verbosity, arguments.log_format)
            await WorkerPool(
                loaded.config, count=arguments.workers, arguments=passed_on, on_ready=notifier.ready
            ).run()
        else:
            from edgehive.cloud.app import CloudCore

            await CloudCore(loaded.config, on_ready=notifier.ready).run()

    return run_daemon("cloudcore", serve, fast_loop=True)


def _worker(text: str) -> tuple[int, int, Path]:
    """``INDEX:DESCRIPTOR:FOLDER``, given by the parent of the workers."""
    index, descriptor, folder = text.split(":", 2)
    return int(index), int(descriptor), Path(folder)


def run_edgecore(argv: Sequence[str]) -> int:
    """`edgecore`."""
    started = plain_start(argv)
    if started is None:
        (parser,) = edgecore_parsers()
        arguments = parse_daemon(parser, argv)
        if arguments.version:
            return _print_version("edgecore")
        if arguments.defaultconfig or arguments.minconfig:
            from edgehive.edge.config_load import default_config_yaml, min_config_yaml

            sys.stdout.write(min_config_yaml() if arguments.minconfig else default_config_yaml())
            return 0
        started = Start(arguments.config, arguments.verbosity, arguments.log_format)
    from edgehive.edge.config_load import load_config

    configure_logging(started.log_format, started.verbosity)
    loaded = load_config(started.config)
    _start_log("edgecore", loaded.warnings)

    async def serve(notifier: Notifier) -> None:
        from edgehive.edge.app import EdgeCore

        def ready(status: str) -> None:
            drop_waste()
            notifier.ready(status)

        drop_waste()
        await EdgeCore(loaded.config, config_file=started.config, on_ready=ready).run()

    return run_daemon("edgecore", serve)


class Start(NamedTuple):
    """What a daemon is started with."""

    config: Path
    verbosity: int
    log_format: "Format"


def plain_start(argv: Sequence[str]) -> Start | None:
    """Read the few words that edgecore is nearly always started with; None for anything else.

    ``argparse`` is 0.6 MB of an edge's memory, for as long as edgecore runs.
    """
    config, verbosity = _EDGECORE_CONFIG, _DEFAULT_VERBOSITY
    log_format: Format = "text"
    words = iter(argv)
    for word in words:
        name, has_value, value = word.partition("=")
        if not has_value:
            value = next(words, "")
        if value[:1] in ("", "-"):
            return None
        if name == "--config":
            config = value
        elif name in ("-v", "--v") and value.isascii() and value.isdigit():
            verbosity = int(value)
        elif name == "--log-format" and value == "json":
            log_format = "json"
        elif name == "--log-format" and value == "text":
            log_format = "text"
        else:
            return None
    return Start(Path(config), verbosity, log_format)


def _print_version(program: str) -> int:
    print(f"{program} {__version__} (edgehive)")
    return 0


def _start_log(program: str, warnings: Sequence[str]) -> None:
    log.info("%s %s starts", program, __version__)
    for warning in warnings:
        log.warning("configuration: %s", warning)
