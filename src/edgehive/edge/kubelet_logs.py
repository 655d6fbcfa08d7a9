"""Container logs for `kubectl logs`, of files in the CRI's form: a line is ``TIME STREAM P|F TEXT``.

Other lines are passed on as they are.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_BLOCK = 64 << 10
_POLL = 0.2
_MAX_LINE = 1 << 20
_MAX_TAIL = 100_000


class BadQuery(ValueError):
    """A parameter is wrong; the text says which."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """The parameters of ``PodLogOptions``."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since: str = ""
    """RFC 3339 in UTC; lines of that time and later."""
    tail: int | None = None
    limit: int | None = None
    stream: str = ""
    """``stdout``, ``stderr`` or both."""


def parse_query(query: Mapping[str, list[str]], now: float) -> LogQuery:
    """Read the parameters; raises `BadQuery`."""

    def text(name: str) -> str:
        return (query.get(name) or [""])[0]

    def number(name: str, least: int) -> int | None:
        value = text(name)
        if not value:
            return None
        if not (value.isascii() and value.isdigit() and len(value) < 19) or int(value) < least:
            raise BadQuery(f"{name} must be a number of at least {least}")
        return int(value)

    since = ""
    seconds = number("sinceSeconds", 1)
    if seconds is not None:
        since = _stamp(max(now - seconds, 0.0))
    elif text("sinceTime"):
        try:
            moment = datetime.fromisoformat(text("sinceTime"))
        except ValueError as exc:
            raise BadQuery("sinceTime must be a time as of RFC 3339") from exc
        since = _stamp(moment.timestamp())
    stream = text("stream").lower()
    return LogQuery(
        follow=text("follow") == "true",
        previous=text("previous") == "true",
        timestamps=text("timestamps") == "true",
        since=since,
        tail=number("tailLines", 0),
        limit=number("limitBytes", 1),
        stream="" if stream == "all" else stream,
    )


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


class LineFormat:
    """From the lines of a file to the bytes that a client sees; empty for those it does not see."""

    def __init__(self, query: LogQuery) -> None:
        self._query = query
        self._partial = False

    def apply(self, line: bytes) -> bytes:
        """Format one line."""
        parts = line.split(b" ", 3)
        if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr"):
            return line
        moment, stream, tags, text = parts
        query = self._query
        if query.stream and query.stream != stream.decode():
            return b""
        if query.since and _comparable(moment) < query.since:
            return b""
        continued, self._partial = self._partial, tags.startswith(b"P")
        if self._partial:
            text = text.removesuffix(b"\n")
        return moment + b" " + text if query.timestamps and not continued else text


def _comparable(moment: bytes) -> str:
    """A CRI time in the form of `_stamp`, cut to microseconds; it usually is in UTC."""
    text = moment.decode("ascii", "replace")
    if not text.endswith("Z"):
        try:
            return _stamp(datetime.fromisoformat(text).timestamp())
        except ValueError:
            return text
    return text[:-1]


def last_lines(path: Path, count: int) -> int:
    """Where the last `count` lines of a file begin."""
    with path.open("rb") as file:
        at = file.seek(0, os.SEEK_END)
        seen = 0
        first = True
        while at > 0:
            size = min(_BLOCK, at)
            at -= size
            file.seek(at)
            block = file.read(size)
            end = len(block)
            if first and block.endswith(b"\n"):
                end -= 1
            first = False
            while (found := block.rfind(b"\n", 0, end)) >= 0:
                seen += 1
                if seen >= count:
                    return at + found + 1
                end = found
        return 0


def rotated(path: Path) -> list[Path]:
    """The older parts of a log that were rotated away and not compressed, oldest first."""
    found = [p for p in path.parent.glob(f"{path.name}.*") if p.suffix not in (".gz", ".tmp")]
    return sorted(found)


def _read_lines(path: Path, start: int) -> Iterator[tuple[bytes, int]]:
    with path.open("rb") as file:
        file.seek(start)
        while line := file.readline(_MAX_LINE):
            yield line, file.tell()


async def read_log(
    path: Path, query: LogQuery, *, running: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """The log, formatted, in pieces; while the container is `running` a follower gets what comes."""
    left = query.limit
    async for piece in _pieces(path, query, running=running):
        if left is not None:
            piece = piece[:left]
            left -= len(piece)
        if piece:
            yield piece
        if left == 0:
            return


async def _pieces(
    path: Path, query: LogQuery, *, running: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    form = LineFormat(query)
    first, position = _beginning(path, query, form)
    yield first
    if query.tail is None:
        for older in rotated(path):
            for line, _ in _read_lines(older, 0):
                yield form.apply(line)
    identity = 0
    while True:
        alive = query.follow and await running()
        if path.exists():
            status = path.stat()
            if status.st_size < position or (identity and status.st_ino != identity):
                position = 0  # truncated or rotated
            identity = status.st_ino
            for piece, end in _grown(path, position, form, growing=alive):
                position = end
                yield piece
        if not alive:
            return
        await asyncio.sleep(_POLL)


def _beginning(path: Path, query: LogQuery, form: LineFormat) -> tuple[bytes, int]:
    """What `tail` and `since` want of what is there: formatted bytes, and where to read on."""
    if not path.exists():
        return b"", 0
    size = path.stat().st_size
    if query.tail is None:
        return b"", 0
    if not (query.since or query.stream):
        return b"", last_lines(path, query.tail) if query.tail else size
    kept: deque[bytes] = deque(maxlen=min(query.tail, _MAX_TAIL))
    position = 0
    for line, end in _read_lines(path, 0):
        position = end
        if shown := form.apply(line):
            kept.append(shown)
    return b"".join(kept), position


def _grown(path: Path, position: int, form: LineFormat, *, growing: bool) -> Iterator[tuple[bytes, int]]:
    """The lines from `position` on in pieces, each with its end; one still being written is left."""
    out = bytearray()
    for line, end in _read_lines(path, position):
        if not line.endswith(b"\n") and growing and len(line) < _MAX_LINE:
            break
        position = end
        out += form.apply(line)
        if len(out) >= _BLOCK:
            yield bytes(out), position
            out.clear()
    yield bytes(out), position
