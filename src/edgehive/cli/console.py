"""What a person sees on the terminal: steps with a tick, one sentence for an error."""

import errno
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from edgehive.kit.errors import EdgehiveError, UserError


def _can_encode(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


class Console:
    """Writes progress; colours only on a terminal, ASCII where the terminal knows no other."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._colour = self._stream.isatty()
        unicode = _can_encode(self._stream, "✓")
        self._marks = {"done": "✓", "wait": "…", "warn": "!"} if unicode else dict.fromkeys(("wait",), "...")
        self._started = time.monotonic()

    def line(self, text: str = "") -> None:
        """Print one line at once, also into a pipe."""
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (BrokenPipeError, ValueError):  # the reader went away; what we do does not depend on it
            pass

    def done(self, text: str) -> None:
        """A step that succeeded, with the seconds since the start."""
        self._step(self._marks.get("done", "ok"), "32", text)

    def warn(self, text: str) -> None:
        """Something a person should know."""
        self._step(self._marks.get("warn", "!"), "33", text)

    def step(self, text: str) -> None:
        """A step that has begun."""
        self._step(self._marks["wait"], "2", text)

    def _step(self, mark: str, colour: str, text: str) -> None:
        seconds = f"{time.monotonic() - self._started:5.1f}s"
        self.line(f"{self._paint(mark, colour)} {self._paint(seconds, '2')}  {text}")

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text


def print_error(program: str, error: BaseException, stream: TextIO | None = None) -> None:
    """Say what is wrong in one sentence, and below it what to do."""
    out = stream or sys.stderr
    if isinstance(error, UserError):
        text, hint = error.message, error.hint
    else:
        text, hint = str(error) or type(error).__name__, ""
    out.write(f"{program}: error: {text}\n")
    for line in hint.splitlines():
        out.write(f"  {line}\n")
    out.flush()


def leaves_of(error: BaseException) -> list[BaseException]:
    """Flatten exception groups: what really went wrong, in order."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves_of(inner)]
    return [error]


def for_a_person(error: BaseException) -> list[BaseException] | None:
    """What to print: our own errors, whose text explains itself, and those of the machine. None for a bug."""
    said = [leaf if isinstance(leaf, EdgehiveError) else _of_the_machine(leaf) for leaf in leaves_of(error)]
    found: list[BaseException] = [one for one in said if one is not None]
    return found if len(found) == len(said) else None


_HINTS = {
    errno.ENOSPC: "make room on that disk; `df` shows how full it is",
    errno.EDQUOT: "make room: a quota is used up",
    errno.EROFS: "it is mounted read-only; use another place, or look for the reason with `dmesg`",
    errno.EIO: "the disk is failing; look for the reason with `dmesg`",
    errno.EACCES: "change its owner or mode, or run this as another user",
    errno.EPERM: "change its owner or mode, or run this as another user",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "this machine is out of memory",
}


_NEED_A_PLACE = (errno.EACCES, errno.EPERM)  # without one they say nothing, and may be a mistake of ours


def _of_the_machine(error: BaseException) -> UserError | None:
    """A full disk, a missing right: nothing that a traceback explains."""
    if not isinstance(error, OSError) or error.errno not in _HINTS:
        return None
    where = error.filename if isinstance(error.filename, str) else ""
    if not where and error.errno in _NEED_A_PLACE:
        return None
    text = os.strerror(error.errno or 0)
    return UserError(f"{where}: {text}" if where else text, hint=_HINTS[error.errno])


def own_command() -> str:
    """How a person calls this program where they stand: ``edgehive``, or the path they used."""
    path = Path(sys.argv[0])
    if path.name in ("cloudcore", "edgecore"):
        path = path.with_name("edgehive")
    if is_on_path("edgehive"):
        return "edgehive"
    from shlex import quote

    return quote(os.path.relpath(path)) if path.name == "edgehive" else f"{quote(sys.executable)} -m edgehive"


def is_on_path(program: str) -> bool:
    """`shutil.which`, without the compression libraries that `shutil` loads."""
    places: Iterable[str] = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return any(os.access(os.path.join(place, program), os.X_OK) for place in places if place)  # noqa: PTH118
