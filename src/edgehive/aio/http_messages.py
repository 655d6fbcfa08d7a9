"""Requests, responses, bodies and raw (upgraded) connections of the HTTP server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs

import msgspec

from edgehive.kit.errors import EdgehiveError
from edgehive.kube.status import ApiStatus

BODY_LIMIT = 3 * 1024 * 1024  # what a Kubernetes API server takes in one request
_PREFETCH = 64 * 1024  # of a body that nobody has asked for yet
_RAW_HIGH = 256 * 1024
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))


class HttpError(EdgehiveError):
    """The request is refused with a plain-text `status` below the API (bad grammar, too large, too slow)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BodyReader:
    """The bytes of one request body, kept only as far as somebody wants them."""

    __slots__ = (
        "_chunks",
        "_error",
        "_limit",
        "_on_wanted",
        "_size",
        "_waiter",
        "complete",
        "declared",
        "expects_continue",
    )

    def __init__(self, on_wanted: Callable[["BodyReader"], None]) -> None:
        self._on_wanted = on_wanted
        self._chunks: list[bytes] | None = []
        self._size = 0
        self._limit = _PREFETCH
        self._waiter: asyncio.Future[None] | None = None
        self._error: EdgehiveError | None = None
        self.complete = False
        self.declared: int | None = None
        self.expects_continue = False

    @property
    def full(self) -> bool:
        """Reading must pause: nobody wants more of it now."""
        return self._size > self._limit and self._chunks is not None and self._waiter is None

    def feed(self, data: bytes) -> None:
        """Take bytes off the wire."""
        self._size += len(data)
        if self._chunks is None:
            return
        self._chunks.append(data)
        if self._waiter is not None and self._size > self._limit:
            self.fail(_too_large(self._limit))

    def finish(self) -> None:
        """All of it is here."""
        self.complete = True
        self._wake()

    def fail(self, error: EdgehiveError) -> None:
        """It will never be complete."""
        self._error = self._error or error
        self._chunks = None
        self._wake()

    def discard(self) -> None:
        """Nobody wants it: drop what is here and what comes."""
        self._chunks = None

    def forget(self) -> None:
        """Nobody reads it any more: an error that was raised here knows its frames, and through them this object."""
        self._error = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self, limit: int) -> bytes:
        """Return the whole body; see `Request.body`."""
        if (self.declared or 0) > limit or self._size > limit:
            self.discard()
            raise _too_large(limit)
        self._limit = limit
        if not self.complete and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            self._on_wanted(self)
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._error is not None:
            raise self._error
        data = b"".join(self._chunks or ())
        self._chunks = [data]
        return data


def _too_large(limit: int) -> ApiStatus:
    return ApiStatus(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


@dataclass(slots=True)
class Request:
    """One HTTP request. Header names are lower-case; of a repeated header `headers` has the last."""

    method: str
    path: str
    """Percent-decoded."""
    raw_query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    remote: str = ""
    """``address:port`` of the peer."""
    peer_cert: bytes | None = None
    """DER of the client certificate that was presented and verified against the context's CAs."""
    peer_subject: tuple[str, tuple[str, ...]] | None = None
    """Common name and organizations of that certificate."""
    raw_path: str = ""
    header_list: list[tuple[str, str]] = field(default_factory=list)
    reader: BodyReader | None = None
    content: bytes = b""
    """The body, when there is no `reader` (a request made by hand)."""
    _query: dict[str, list[str]] | None = None

    @property
    def query(self) -> dict[str, list[str]]:
        """The decoded query; a key without value has ``""``."""
        if self._query is None:
            self._query = parse_qs(self.raw_query, keep_blank_values=True) if self.raw_query else {}
        return self._query

    def param(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else default

    def flag(self, name: str) -> bool:
        """Whether a query parameter is true, in any spelling that Go's `strconv.ParseBool` takes."""
        return self.param(name) in _TRUE

    def header_values(self, name: str) -> list[str]:
        """Every value of a repeatable header."""
        if not self.header_list:
            return [self.headers[name]] if name in self.headers else []
        return [value for key, value in self.header_list if key == name]

    async def body(self, limit: int = BODY_LIMIT) -> bytes:
        """Read the whole body, also of a GET.

        Raises:
            ApiStatus: 413, it is larger than `limit`.
            HttpError: it did not arrive in time, or is malformed.
        """
        if self.reader is None:
            if len(self.content) > limit:
                raise _too_large(limit)
            return self.content
        return await self.reader.read(limit)


class RawConnection:
    """The bytes of a connection after ``101 Switching Protocols``."""

    def __init__(
        self,
        drain: Callable[[], Awaitable[None]],
        write: Callable[[bytes], None],
        flow: Callable[[], None],
        close: Callable[[], None],
    ) -> None:
        self._drain = drain
        self._write = write
        self._flow = flow
        self._close = close
        self._data = bytearray()
        self._eof = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """Reading must pause."""
        return len(self._data) > _RAW_HIGH

    def feed(self, data: bytes) -> None:
        """Take bytes off the wire."""
        self._data += data
        self._wake()

    def feed_eof(self) -> None:
        """The peer is done."""
        self._eof = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self) -> bytes:
        """Return the next bytes, ``b""`` at the end."""
        while not self._data and not self._eof:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = bytes(self._data)
        self._data.clear()
        self._flow()
        return data

    async def write(self, data: bytes) -> None:
        """Send; waits while the peer does not read.

        Raises:
            ConnectionError: the peer is gone or does not read.
        """
        await self._drain()
        self._write(data)

    def close(self) -> None:
        """Close after what was written has gone out."""
        self._close()


@dataclass(slots=True)
class Response:
    """One HTTP response: `body`, or `stream` (sent in chunks), or `upgrade` (status 101)."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None
    upgrade: Callable[[RawConnection], Awaitable[None]] | None = None
    """Takes the connection over after the head was sent; the connection ends when it returns."""
    patient: bool = False
    """The client may stop reading for as long as it likes (somebody reads a log page by page)."""
    repeated: tuple[tuple[str, str], ...] = ()
    """Headers that may occur more than once (``Warning``)."""


def status_response(status: ApiStatus) -> Response:
    """A Kubernetes ``Status`` as a response."""
    code = status.code if 200 <= status.code <= 599 else 500
    headers = {"content-type": "application/json"}
    retry = status.details.get("retryAfterSeconds")
    if isinstance(retry, int):
        headers["retry-after"] = str(retry)
    return Response(code, msgspec.json.encode(status.to_dict()) + b"\n", headers)


def error_response(error: HttpError) -> Response:
    """A refusal in plain text."""
    return Response(error.status, f"{error}\n".encode(), {"content-type": "text/plain; charset=utf-8"})


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"


def encode_head(response: Response, *, keep_alive: bool, chunked: bool, date: str) -> bytes:
    """The status line and headers as bytes; a CR or LF inside a value cannot split the head."""
    lines = [f"HTTP/1.1 {response.status} {_phrase(response.status)}"]
    pairs = [*response.headers.items(), *response.repeated]
    lines += [f"{k}: {v}".replace("\r", " ").replace("\n", " ") for k, v in pairs]
    if date:
        lines.append(f"date: {date}")
    if response.upgrade is None:
        if chunked:
            lines.append("transfer-encoding: chunked")
        elif response.stream is None and response.status not in {204, 304}:
            lines.append(f"content-length: {len(response.body)}")
        if not keep_alive:
            lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace")
