"""Entry points of the three programs: `edgehive`, `cloudcore`, `edgecore`.

Nothing heavy is imported here: edgecore's memory starts with this module.
"""

import os
import sys
from collections.abc import Callable, Sequence

from edgehive.cli.console import for_a_person, leaves_of, own_command, print_error

_USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """`edgehive COMMAND ...`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return _guarded("edgehive", lambda: _dispatch(arguments))


def cloudcore(argv: Sequence[str] | None = None) -> int:
    """`cloudcore --config FILE`."""
    from edgehive.cli.daemons import run_cloudcore

    arguments = list(sys.argv[1:] if argv is None else argv)
    return _guarded("cloudcore", lambda: run_cloudcore(arguments))


def edgecore(argv: Sequence[str] | None = None) -> int:
    """`edgecore --config FILE`."""
    _import_lean()
    from edgehive.cli.daemons import run_edgecore

    arguments = list(sys.argv[1:] if argv is None else argv)
    return _guarded("edgecore", lambda: run_edgecore(arguments))


def _import_lean() -> None:
    """Import msgspec so that it takes from `typing` what it would take from typing_extensions: 0.4 MiB for an edge."""
    extensions = "typing_extensions"
    if extensions in sys.modules:
        return
    sys.modules[extensions] = None  # type: ignore[assignment] # Python's way to say that it is not there
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules[extensions]


def _dispatch(arguments: list[str]) -> int:
    from edgehive.cli.commands import COMMANDS, find_command

    if not arguments or arguments[0] in ("-h", "--help", "help"):
        if len(arguments) > 1 and not arguments[1].startswith("-"):
            wanted = find_command(arguments[1])
            return wanted.call("edgehive", ["--help"]) if wanted else _unknown(arguments[1])
        width = max(len(command.name) for command in COMMANDS)
        lines = [f"  {c.name:<{width}}  {c.help}" for c in COMMANDS if not c.hidden]
        print("usage: edgehive COMMAND ...\n\nKubernetes-native edge computing, from one command.\n")
        print("\n".join(lines))
        print("\nedgehive COMMAND --help says more.")
        return 0 if arguments else _USAGE_ERROR
    name = "version" if arguments[0] == "--version" else arguments[0]
    command = find_command(name)
    if command is not None:
        return command.call("edgehive", arguments[1:])
    return _unknown(name)


def _unknown(name: str) -> int:
    sys.stderr.write(f"edgehive: error: there is no command {name!r}{_suggestion(name)}\n")
    sys.stderr.write(f"  {own_command()} --help lists the commands\n")
    return _USAGE_ERROR


def _suggestion(name: str) -> str:
    import difflib

    from edgehive.cli.commands import COMMANDS

    close = difflib.get_close_matches(name, [c.name for c in COMMANDS if not c.hidden], n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _guarded(program: str, run: Callable[[], int]) -> int:
    """Turn every error into one sentence and an exit code; a person never sees a traceback."""
    try:
        return run()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away, as in `edgehive ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as exc:  # noqa: BLE001 - the boundary of the process
        said = for_a_person(exc)
        if said is not None:
            for one in said:
                print_error(program, one)
            if os.environ.get("EDGEHIVE_DEBUG"):
                import traceback

                traceback.print_exc()
            return 1
        return _report_bug(program, exc)


def _report_bug(program: str, error: Exception) -> int:
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    if os.environ.get("EDGEHIVE_DEBUG"):
        sys.stderr.write(text)
    leaf = leaves_of(error)[0]
    said = (str(leaf).splitlines() or [""])[0]
    sys.stderr.write(f"{program}: error: unexpected {type(leaf).__name__}: {said}\n")
    with tempfile.NamedTemporaryFile(
        "w", prefix=f"{program}-crash-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        file.write(f"{program} {sys.argv[1:]}\n{text}")
    sys.stderr.write(f"  this is a bug in edgehive; the details are in {file.name}\n")
    return 1
