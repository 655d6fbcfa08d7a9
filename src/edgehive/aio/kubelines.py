"""Cutting lists and watch streams into raw objects, and pacing requests. No IO of its own."""

from collections.abc import Iterator

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.api import ListPage, WatchEvent
from edgehive.kube.status import ApiStatus

_LONGEST_LINE = 64 << 20  # etcd holds objects of 1.5 MB; this only stops a server gone mad


class LineSplitter:
    """Cuts a stream into lines of any length, looking at every byte once."""

    def __init__(self, limit: int = _LONGEST_LINE) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._limit = limit

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that `chunk` completes, empty ones left out.

        Raises:
            ProtocolError: a line is longer than the limit.
        """
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            line = b"".join((*self._parts, chunk[start:end]))
            self._parts, self._size = [], 0
            start = end + 1
            if line.strip():
                yield line
        if start < len(chunk):
            self._size += len(chunk) - start
            if self._size > self._limit:
                raise ProtocolError("a line of a watch is too long")
            self._parts.append(chunk[start:])


class _WatchLine(msgspec.Struct, gc=False):
    type: str
    object: msgspec.Raw


class _ListMeta(msgspec.Struct, rename="camel", gc=False):
    resource_version: str = ""
    next: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct, rename="camel", gc=False):
    kind: str = ""
    api_version: str = ""
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)
    items: list[msgspec.Raw] | None = None


class _Typed(msgspec.Struct, rename="camel", gc=False):
    kind: str = ""
    api_version: str = ""


_lines = msgspec.json.Decoder(_WatchLine)
_lists = msgspec.json.Decoder(_List)
_typed = msgspec.json.Decoder(_Typed)


def decode_watch_line(line: bytes) -> WatchEvent:
    """Decode one line.

    Raises:
        ApiStatus: it is an ERROR event.
        ProtocolError: it is not a watch event.
    """
    try:
        event = _lines.decode(line)
        if event.type == "ERROR":
            raise ApiStatus.from_dict(msgspec.json.decode(event.object, type=dict))
    except MALFORMED as exc:
        raise ProtocolError(f"unreadable line of a watch: {exc}") from exc
    match event.type:
        case "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" as kind:
            return WatchEvent(kind, bytes(event.object))
        case _:
            raise ProtocolError("a watch event of an unknown type")


def decode_page(body: bytes) -> ListPage:
    """Cut a list into its items; every item is given the kind and apiVersion that a real server leaves out.

    Raises:
        ProtocolError: it is not a list.
    """
    try:
        page = _lists.decode(body)
        kind = page.kind.removesuffix("List")
        head = b'{"kind":%b,"apiVersion":%b' % (
            msgspec.json.encode(kind),
            msgspec.json.encode(page.api_version),
        )
        items = [_with_kind(bytes(raw), head) for raw in page.items or ()]
    except MALFORMED as exc:
        raise ProtocolError(f"unreadable list: {exc}") from exc
    return ListPage(items, page.metadata.resource_version, page.metadata.next)


def _with_kind(raw: bytes, head: bytes) -> bytes:
    typed = _typed.decode(raw)
    if typed.kind and typed.api_version:
        return raw
    rest = raw[1:].lstrip()
    return head + (b"," if rest != b"}" else b"") + rest


class TokenBucket:
    """Limits to `rate` a second with bursts of `burst`."""

    def __init__(self, *, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> float:
        """Take one token; return how many seconds to wait first."""
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)
