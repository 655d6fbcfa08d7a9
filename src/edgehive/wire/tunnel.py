"""The tunnel's protocol without sockets: frames, connect payloads, and the state of one multiplexed connection.

A frame is one WebSocket TEXT message of raw bytes, ``uvarint(id) uvarint(type) data``: KubeEdge's format, which has
no flow control. Two ends of edgehive add one: both name a window when the tunnel opens, and then a connection has
at most so many bytes on the way; what the reader has taken is granted anew with `Kind.CREDIT` frames. A peer that
names no window is never sent one, and a connection of its that is not read ends instead of stopping the others.
"""

import enum
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgehive.kit.errors import ProtocolError

PATH = "/v1/kubeedge/connect"
NODE_HEADER = "SessionHostNameOverride"
ADDRESS_HEADER = "SessionInternalIP"
WINDOW_HEADER = "X-Edgehive-Tunnel-Window"

WINDOW = 256 << 10
"""Bytes of one connection on the way when both ends are ours."""

BACKLOG = 1 << 20
"""Bytes of one connection that are kept for a slow reader when the peer knows no windows."""

CHUNK = 16 << 10
"""Bytes of DATA in a frame; an original reads at most a megabyte of one."""

_MAX_WINDOW = 16 << 20
_UVARINT_BYTES = 10


class Kind(enum.IntEnum):
    """Frame types; 0 to 6 are KubeEdge's."""

    LOGS = 0
    EXEC = 1
    METRIC = 2
    DATA = 3
    REMOVE = 4
    CLOSE = 5
    ATTACH = 6
    CREDIT = 32


CONNECTS = frozenset({Kind.LOGS, Kind.EXEC, Kind.METRIC, Kind.ATTACH})


def encode_uvarint(value: int) -> bytes:
    """Seven bits a byte, the low ones first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_uvarint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at `at` and where it ends; raises `ProtocolError`."""
    value = 0
    for index in range(_UVARINT_BYTES):
        if at + index >= len(data):
            raise ProtocolError("a tunnel frame is cut short")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >> 64:
                break
            return value, at + index + 1
    raise ProtocolError("a tunnel frame has a number over 64 bits")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the tunnel; `kind` is an int when it is not known."""

    id: int
    kind: int
    data: bytes = b""

    def encode(self) -> bytes:
        """The bytes of the WebSocket message."""
        return encode_uvarint(self.id) + encode_uvarint(self.kind) + self.data


def decode_frame(message: bytes) -> Frame:
    """Read a message; raises `ProtocolError`."""
    connection, at = decode_uvarint(message, 0)
    kind, at = decode_uvarint(message, at)
    return Frame(connection, kind, message[at:])


class _Url(msgspec.Struct, rename="pascal", kw_only=True):
    """Go's ``url.URL`` as its JSON package prints it."""

    scheme: str = "http"
    opaque: str = ""
    user: None = None
    host: str = "127.0.0.1:10350"
    path: str = ""
    raw_path: str = ""
    omit_host: bool = False
    force_query: bool = False
    raw_query: str = ""
    fragment: str = ""
    raw_fragment: str = ""


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """What the cloud wants from the node's kubelet API. `path` is percent-decoded, `raw_path` as it came."""

    id: int
    kind: Kind
    path: str
    query: str = ""
    method: str = "GET"
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    raw_path: str = ""

    def frame(self) -> Frame:
        """The frame that asks for it, in KubeEdge's spelling."""
        body: dict[str, Any] = {
            "MessID": self.id,
            "url": _Url(path=self.path, raw_path=self.raw_path, raw_query=self.query),
            "header": {name: list(values) for name, values in self.headers.items()},
        }
        if self.kind in (Kind.EXEC, Kind.ATTACH):
            body["method"] = self.method
        return Frame(self.id, self.kind, msgspec.json.encode(body))


def parse_connect(frame: Frame) -> ConnectRequest:
    """Read a connect frame. Names are matched whatever their case, as Go does; raises `ProtocolError`."""
    try:
        body = _fold(msgspec.json.decode(frame.data))
        url = _fold(body.get("url"))
        header = body.get("header") or {}
        headers = {
            str(name): [str(value) for value in values]
            for name, values in header.items()
            if isinstance(values, list)
        }
        path = url.get("path") or "/"
        query = url.get("rawquery") or ""
        raw_path = url.get("rawpath") or ""
        method = body.get("method") or "GET"
    except (msgspec.MsgspecError, AttributeError) as exc:
        raise ProtocolError("a tunnel connect frame is no JSON object of the right form") from exc
    texts = (path, query, raw_path, method)
    if not all(isinstance(text, str) for text in texts) or not method.isalpha() or path[:1] != "/":
        raise ProtocolError("a tunnel connect frame has a wrong path, query or method")
    if any(char in text for text in (query, raw_path) for char in " \r\n"):
        raise ProtocolError("a tunnel connect frame has a query that is no query")
    return ConnectRequest(frame.id, Kind(frame.kind), path, query, method, headers, raw_path)


def _fold(value: Any) -> dict[str, Any]:
    return {str(name).lower(): item for name, item in value.items()}


def parse_window(text: str | None) -> int:
    """The window that the peer names in its header; 0 when it knows none."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 10):
        return 0
    return min(int(text), _MAX_WINDOW)


class Channel:
    """One connection in the tunnel: what has come in and what may go out. It is ended once, from either side."""

    __slots__ = ("_allowed", "_granting", "_inbound", "_limit", "_size", "_windowed", "closed", "ended", "id")

    def __init__(self, connection: int, *, peer_window: int) -> None:
        """`peer_window`: how much the peer takes at once; 0 when it knows no windows."""
        self.id = connection
        self.ended = False
        """The peer is done (or gone): nothing more comes."""
        self.closed = False
        """We are done: nothing more goes out."""
        self._windowed = peer_window > 0
        self._allowed = peer_window
        self._granting = 0
        self._inbound: deque[bytes] = deque()
        self._size = 0
        # The peer may have sent a window, and another one granted in between.
        self._limit = 2 * WINDOW if self._windowed else BACKLOG

    # inbound

    def receive(self, data: bytes) -> bool:
        """Keep data for the reader; False when there is too much of it and the connection must end."""
        if self.ended or self.closed or not data:
            return True
        if self._size + len(data) > self._limit:
            return False
        self._inbound.append(data)
        self._size += len(data)
        return True

    def end(self) -> None:
        """The peer has removed the connection; what came before is still to be read."""
        self.ended = True

    @property
    def readable(self) -> bool:
        """Something, or the end, is there to be read."""
        return bool(self._inbound) or self.ended or self.closed

    def take(self) -> tuple[bytes, Frame | None]:
        """The next bytes, ``b""`` at the end; and what the peer is to be told."""
        if not self._inbound:
            return b"", None
        data = b"".join(self._inbound)
        self._inbound.clear()
        self._size = 0
        self._granting += len(data)
        if not self._windowed or self.ended or self.closed or self._granting < WINDOW // 4:
            return data, None
        grant, self._granting = self._granting, 0
        return data, Frame(self.id, Kind.CREDIT, encode_uvarint(grant))

    # outbound

    @property
    def allowance(self) -> int:
        """Bytes that may be sent now."""
        if self.closed or self.ended:
            return 0
        return self._allowed if self._windowed else BACKLOG

    def credit(self, data: bytes) -> None:
        """The peer has taken bytes; raises `ProtocolError`."""
        amount, _ = decode_uvarint(data, 0)
        if self._allowed + amount > _MAX_WINDOW:
            raise ProtocolError("a tunnel peer grants more than there can be")
        self._allowed += amount

    def send(self, data: bytes) -> Iterator[Frame]:
        """The frames of `data`, of which there may be no more than `allowance`."""
        if self._windowed:
            self._allowed -= len(data)
        for at in range(0, len(data), CHUNK):
            yield Frame(self.id, Kind.DATA, data[at : at + CHUNK])

    def close(self) -> Frame | None:
        """End it from here: the one REMOVE that the peer is sent, unless it knows already."""
        if self.closed:
            return None
        self.closed = True
        self._inbound.clear()
        self._size = 0
        return None if self.ended else Frame(self.id, Kind.REMOVE)
