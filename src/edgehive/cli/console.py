"""What a person sees on the terminal: steps with a tick, one sentence for an error."""

import sys
import time
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


def is_for_a_person(error: BaseException) -> bool:
    """Whether every leaf is one of our own errors, whose text explains itself."""
    return all(isinstance(leaf, EdgehiveError) for leaf in leaves_of(error))
