"""One HTTP/1.1 request over bytes that are already connected, and what proxies need: the answer, or the upgrade."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable

import httptools

from edgehive.aio.http import RawConnection, Response
from edgehive.aio.oserrors import reason_of
from edgehive.aio.tunnel import ByteStream
from edgehive.kit.errors import ProtocolError, Unreachable
from edgehive.kit.names import plain_host

_READ = 64 << 10
_MAX_HEAD = 512 << 10  # with the first of the body behind it
_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "content-length"}
)
_MEASURED = frozenset({"content-length", "transfer-encoding"})
"""With one of these a body says by itself where it ends."""


class _Reader(asyncio.StreamReader):
    """What came before a connection broke can still be read."""

    def set_exception(self, exc: Exception) -> None:
        del exc
        self.feed_eof()


class SocketStream:
    """A TCP or TLS connection as a `ByteStream`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
        timeout: float = 10.0,
    ) -> "SocketStream":
        """Connect; raises `Unreachable`."""
        name = (server_name or host) if tls else None
        if name and isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
            name = plain_host(name)  # uvloop insists on a plain str, and has no use for this
        loop = asyncio.get_running_loop()
        reader = _Reader()
        try:
            async with asyncio.timeout(timeout):
                transport, protocol = await loop.create_connection(
                    lambda: asyncio.StreamReaderProtocol(reader), host, port, ssl=tls, server_hostname=name
                )
                return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        except TimeoutError as exc:
            raise Unreachable(f"{host}:{port} did not answer within {timeout:g} s") from exc
        except OSError as exc:
            raise Unreachable(f"{host}:{port}: {reason_of(exc)}") from exc

    async def read(self) -> bytes:
        """The next bytes, ``b""`` at the end, however it ended."""
        try:
            return await self._reader.read(_READ)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send; waits while the peer does not read."""
        self._writer.write(data)
        await self._writer.drain()

    def post(self, data: bytes) -> None:
        """Send without waiting; nothing happens when the connection is closed."""
        if not self._writer.is_closing():
            self._writer.write(data)

    def close(self) -> None:
        """Close after what was written has gone out."""
        self._writer.close()


class Answer:
    """An HTTP answer whose head has been read."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[str, str]] = []
        self._chunks: list[bytes] = []
        self._head_size = 0
        self._in_body = False
        self._complete = False
        self.rest = b""
        """After an upgrade: bytes that came behind the head."""

    @property
    def status(self) -> int:
        return int(self._parser.get_status_code())

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names in lower case."""
        return self._headers

    def on_header(self, name: bytes, value: bytes) -> None:
        """For the parser."""
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """For the parser."""
        self._in_body = True

    def on_body(self, data: bytes) -> None:
        """For the parser."""
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        """For the parser."""
        self._complete = True

    async def read_head(self) -> None:
        """Read up to the body; raises `Unreachable` or `ProtocolError`."""
        while not self._in_body:
            data = await self._stream.read()
            if not data:
                raise Unreachable("the connection ended without an answer")
            self._head_size += len(data)
            if self._head_size > _MAX_HEAD:
                raise ProtocolError("the head of an answer has no end")
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self.rest = data[exc.args[0] :]
            self._in_body = True
        except httptools.HttpParserError as exc:
            raise ProtocolError("the answer is not HTTP") from exc

    async def body(self) -> AsyncIterator[bytes]:
        """The body as it comes; the stream is closed at its end.

        Raises:
            ConnectionError: the connection ended before the body did.
            ProtocolError: it is not HTTP.
        """
        try:
            while True:
                chunks, self._chunks = self._chunks, []
                for chunk in chunks:
                    yield chunk
                if self._complete:
                    return
                data = await self._stream.read()
                if not data:
                    if any(name in _MEASURED for name, _ in self._headers):
                        raise ConnectionResetError("the answer was cut short")
                    return  # a body that the end of the connection ends
                self._feed(data)
        finally:
            self._stream.close()

    def response(self) -> Response:
        """The answer passed on: its body streamed, or its upgrade joined to the client's connection."""
        if self.status == 101:
            return Response(101, headers=dict_headers(self._headers), upgrade=self._join)
        kept = [(name, value) for name, value in self._headers if name not in _HOP and name != "date"]
        return Response(self.status, headers=dict_headers(kept), stream=self.body(), patient=True)

    async def _join(self, client: RawConnection) -> None:
        try:
            if self.rest:
                await client.write(self.rest)
            await splice(client, self._stream)
        finally:
            self._stream.close()


def dict_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers as a dictionary, repeated ones joined."""
    found: dict[str, str] = {}
    for name, value in pairs:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def request_head(method: str, target: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """The head of a request; a CR or LF inside a value cannot split it."""
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}".replace("\r", " ").replace("\n", " ") for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


async def ask(
    stream: ByteStream, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes = b""
) -> Answer:
    """Send a request and read the head of the answer; the stream is closed if that fails.

    Raises:
        Unreachable: the connection is lost.
        ProtocolError: the answer is not HTTP.
    """
    answer = Answer(stream)
    try:
        await stream.write(request_head(method, target, headers) + body)
        await answer.read_head()
    except OSError as exc:
        stream.close()
        raise Unreachable(f"the connection was lost: {exc}") from exc
    except BaseException:
        stream.close()
        raise
    return answer


async def splice(one: ByteStream, other: ByteStream) -> None:
    """Move bytes both ways until either end is done, and all that it has said was passed on."""

    async def copy(source: ByteStream, sink: ByteStream) -> bool:
        """Whether the source has ended; if the sink has, there may be last words of it to be copied."""
        with contextlib.suppress(OSError):
            while data := await source.read():
                try:
                    await sink.write(data)
                except OSError:
                    return False
        return True

    async with asyncio.TaskGroup() as group:
        copies = {
            group.create_task(copy(one, other), name="copy"),
            group.create_task(copy(other, one), name="copy"),
        }
        while copies:
            done, copies = await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            if any(task.result() for task in done):
                break
        for task in copies:
            task.cancel()
