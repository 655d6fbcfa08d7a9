"""SPDY/3.1 frames as kubectl's streams use them: streams of bytes in one connection, no flow control.

Header blocks are compressed with one zlib stream a direction, primed with SPDY's dictionary.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from edgehive.kit.errors import ProtocolError

_WORDS: Final = (  # noqa: SIM905 - one word a line would be a page
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age "
    "allow authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
).split()
_MORE_WORDS: Final = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_TAIL: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY: Final = (
    b"".join(len(word).to_bytes(4, "big") + word.encode() for word in (*_WORDS, *_MORE_WORDS))
    + _TAIL.encode()
)

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
_DATA: Final = 0
_FIN: Final = 1
_VERSION: Final = 0x8003
_CANCEL: Final = 5
_MAX_FRAME: Final = 1 << 20
_MAX_HEADERS: Final = 64 << 10
_CHUNK: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer opens a stream."""

    stream: int
    headers: Mapping[str, str] = field(default_factory=dict)
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """The peer has accepted a stream of ours."""

    stream: int


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream; `fin` for its last ones."""

    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The peer wants nothing of this stream any more."""

    stream: int


@dataclass(frozen=True, slots=True)
class Pinged:
    """The answer to a ping, to be sent."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer opens no more streams."""


Event = Opened | Accepted | Data | Reset | Pinged | GoneAway


class SpdyConnection:
    """One end of a connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take bytes; raises `ProtocolError`."""
        self._buffer += data
        while len(self._buffer) >= 8:
            size = int.from_bytes(self._buffer[5:8], "big")
            if size > _MAX_FRAME:
                raise ProtocolError("a SPDY frame is too large")
            if len(self._buffer) < 8 + size:
                return
            head, payload = bytes(self._buffer[:8]), bytes(self._buffer[8 : 8 + size])
            del self._buffer[: 8 + size]
            event = self._event(head, payload)
            if event is not None:
                yield event

    def _event(self, head: bytes, payload: bytes) -> Event | None:
        fin = bool(head[4] & _FIN)
        if not head[0] & 0x80:
            return Data(int.from_bytes(head[:4], "big"), payload, fin)
        if int.from_bytes(head[:2], "big") != _VERSION:
            raise ProtocolError("not SPDY/3")
        kind = int.from_bytes(head[2:4], "big")
        stream = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        match kind:
            case 1:
                return Opened(stream, self._headers(payload[10:]), fin)
            case 2:
                self._headers(payload[4:])
                return Accepted(stream)
            case 3:
                return Reset(stream)
            case 6:
                return Pinged(head + payload)
            case 7:
                return GoneAway()
            case 8:
                self._headers(payload[4:])  # the compression's state is shared
        return None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, _MAX_HEADERS)
        except zlib.error as exc:
            raise ProtocolError("SPDY headers are not compressed as they should be") from exc
        if self._inflate.unconsumed_tail:
            raise ProtocolError("SPDY headers are too large")
        at = 4
        texts: list[str] = []
        for _ in range(2 * int.from_bytes(plain[:4], "big")):
            size = int.from_bytes(plain[at : at + 4], "big")
            if at + 4 + size > len(plain):
                raise ProtocolError("SPDY headers are cut short")
            texts.append(plain[at + 4 : at + 4 + size].decode("utf-8", "replace"))
            at += 4 + size
        return {name.lower(): value for name, value in zip(texts[::2], texts[1::2], strict=True)}

    def _block(self, headers: Mapping[str, str]) -> bytes:
        plain = len(headers).to_bytes(4, "big")
        for text in (text for pair in headers.items() for text in pair):
            plain += len(text.encode()).to_bytes(4, "big") + text.encode()
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def open(self, stream: int, headers: Mapping[str, str]) -> bytes:
        """Open a stream."""
        return _control(SYN_STREAM, stream.to_bytes(4, "big") + bytes(6) + self._block(headers))

    def accept(self, stream: int) -> bytes:
        """Accept a stream."""
        return _control(SYN_REPLY, stream.to_bytes(4, "big") + self._block({}))

    @staticmethod
    def data(stream: int, data: bytes, *, fin: bool = False) -> bytes:
        """Bytes of a stream, in frames."""
        if not data:
            return _frame(stream, b"", fin=fin)
        parts = [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)]
        return b"".join(
            _frame(stream, part, fin=fin and index == len(parts) - 1) for index, part in enumerate(parts)
        )

    @staticmethod
    def reset(stream: int) -> bytes:
        """Want nothing of a stream any more."""
        return _control(RST_STREAM, stream.to_bytes(4, "big") + _CANCEL.to_bytes(4, "big"))


def _control(kind: int, payload: bytes) -> bytes:
    return (
        _VERSION.to_bytes(2, "big")
        + kind.to_bytes(2, "big")
        + b"\0"
        + len(payload).to_bytes(3, "big")
        + payload
    )


def _frame(stream: int, data: bytes, *, fin: bool) -> bytes:
    return stream.to_bytes(4, "big") + bytes((_FIN if fin else 0,)) + len(data).to_bytes(3, "big") + data
