"""Short HTTP/1.1 requests to one server over kept connections.

The one thing it does better than a general client is to be cheap: a request costs a write, a read and a future.
cloudcore makes one for every record it writes; with aiohttp those were a third of its CPU time. Everything else
(lists, watches, proxies, compression) stays with aiohttp.
"""

import asyncio
import ssl
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final, cast

import httptools

from edgehive.kit.errors import ProtocolError

_BUFFER: Final = 64 << 10
_MAX_BODY: Final = 32 << 20


@dataclass(slots=True)
class HttpAnswer:
    """A whole answer; header names are in lower case."""

    status: int = 0
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class _Connection(asyncio.BufferedProtocol):
    """One connection; one request at a time."""

    def __init__(self, pool: "HttpPool") -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._answer = HttpAnswer()
        self._body: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[HttpAnswer] | None = None
        self._transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self.usable = False

    async def request(self, data: bytes, timeout: float) -> HttpAnswer:
        """Write a request and wait for its answer.

        Raises:
            TimeoutError: there is none within `timeout` seconds.
            OSError: the connection was lost.
            ProtocolError: the answer is not HTTP.
        """
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        self._answer, self._body, self._size = HttpAnswer(), [], 0
        self._waiter = loop.create_future()
        # A timer of our own: `asyncio.timeout` costs ten times as much.
        timer = loop.call_later(timeout, self._fail, TimeoutError(f"no answer within {timeout:g} s"))
        self._transport.write(data)
        try:
            return await self._waiter
        except BaseException:
            self.close()  # whatever comes now belongs to nobody
            raise
        finally:
            timer.cancel()
            self._waiter = None

    def close(self) -> None:
        """Drop it."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's classes
        self.usable = True

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._pool.buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self._parser.feed_data(self._pool.buffer[:nbytes])
        except (httptools.HttpParserError, ProtocolError) as exc:
            self._fail(ProtocolError(f"the answer is not HTTP: {exc}"))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._fail(exc or ConnectionResetError("the server closed the connection"))

    def _fail(self, exc: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc)
        self.close()

    # -- httptools

    def on_status(self, status: bytes) -> None:
        self._answer.reason += status.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > _MAX_BODY:
            raise ProtocolError("it is too long")
        self._body.append(bytes(body))

    def on_message_complete(self) -> None:
        status = int(self._parser.get_status_code())
        if 100 <= status < 200:
            return
        answer = self._answer
        answer.status, answer.body = status, b"".join(self._body)
        if not self._parser.should_keep_alive():
            self.usable = False
        if self._waiter is None or self._waiter.done():
            self.close()  # an answer nobody asked for
        else:
            self._waiter.set_result(answer)


class HttpPool:
    """The connections to one server; the caller bounds how many requests it makes at once."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        server_hostname: str = "",
        idle_timeout: float = 20.0,
        connect_timeout: float = 10.0,
    ) -> None:
        """Prepare; connections idle for `idle_timeout` are not used again, since the server may be closing them."""
        self._host = host
        self._port = port
        self._tls = tls
        self._server_hostname = server_hostname or None
        self._idle_timeout = idle_timeout
        self._connect_timeout = connect_timeout
        self._idle: deque[_Connection] = deque()
        self._closed = False
        self.buffer: Final = memoryview(bytearray(_BUFFER))
        """Shared by all connections: it is emptied in the callback that fills it."""

    async def request(self, data: bytes, timeout: float = 30.0) -> HttpAnswer:
        """Send one whole request, as bytes.

        Raises:
            OSError: no connection, or it was lost.
            TimeoutError: no connection in time, or no answer within `timeout` seconds.
            ProtocolError: the answer is not HTTP.
        """
        connection = self._take() or await self._connect()
        answer = await connection.request(data, timeout)
        if connection.usable and not self._closed:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Drop idle connections, and the others when their answers are there."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> _Connection | None:
        """The connection used last; those that have been idle for too long are dropped."""
        oldest = time.monotonic() - self._idle_timeout
        while self._idle and (not self._idle[0].usable or self._idle[0].idle_since < oldest):
            self._idle.popleft().close()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_timeout):
            _, connection = await loop.create_connection(
                lambda: _Connection(self),
                self._host,
                self._port,
                ssl=self._tls,
                server_hostname=self._server_hostname if self._tls is not None else None,
            )
        return connection
