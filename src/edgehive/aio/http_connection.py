"""One connection of the HTTP server: bytes in, requests handled in order, bytes out."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import httptools

from edgehive.aio.fewlines import host_of
from edgehive.aio.gone import GONE
from edgehive.aio.http_messages import (
    BodyReader,
    HttpError,
    RawConnection,
    Request,
    Response,
    encode_head,
    error_response,
    status_response,
)
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.text import safe_label
from edgehive.kube.status import ApiStatus

if TYPE_CHECKING:
    from edgehive.aio.http import HttpServer

log = logging.getLogger(__name__)

_WRITE_HIGH = 64 * 1024
_MAX_PIPELINED = 32
_LINGER = 2.0  # seconds we go on reading a body nobody wants, so that the answer is not lost in a reset


class Connection(asyncio.BufferedProtocol):
    """One client connection; at most one request is handled at a time, in order."""

    def __init__(
        self, server: "HttpServer", buffer: memoryview, arrived: Callable[[], None] | None = None
    ) -> None:
        """`arrived` is called when the connection is there, or will not be."""
        self._arrived = arrived
        self._server = server
        self._buffer = buffer
        self.transport: asyncio.Transport
        self.parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._version = "1.1"
        self.remote = ""
        self.peer_cert: bytes | None = None
        self.peer_subject: tuple[str, tuple[str, ...]] | None = None
        self.streaming = False
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._head_bytes = 0
        self._in_head = False
        self._pending: list[tuple[Request, BodyReader, bool]] = []
        self._body: BodyReader | None = None
        self._raw: RawConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._deadline: float | None = None
        self._writable = True
        self._drained: asyncio.Future[None] | None = None
        self._reading = True
        self._last = False
        self._patient = False

    # -- transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._arrive()
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.remote = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.peer_cert = tls.getpeercert(True) or None
            self.peer_subject = _subject(tls.getpeercert()) if self.peer_cert else None
        if not self._server.admit(self):
            self.transport.abort()
            return
        self.transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self._expect(self._server.idle_timeout)

    def _arrive(self) -> None:
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            arrived()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrive()
        self._server.forget(self)
        self._deadline = None
        self.pause_ended()
        if self._body is not None:
            self._body.fail(HttpError(400, "the client went away"))
        if self._raw is not None:
            self._raw.feed_eof()
        if self._task is not None:
            self._task.cancel()
        self._let_go()

    def _let_go(self) -> None:
        """Cut what would keep the TLS state of a closed connection until the rare collection of all cycles.

        The parser, bodies and raw bytes know this object; the handler may still run, and finds the peer gone.
        """
        self.parser = self._body = self._raw = None
        self._pending.clear()
        self.transport = GONE

    def eof_received(self) -> bool:
        if self._raw is not None:
            self._raw.feed_eof()
            # TLS has no half-open connections: asyncio would only complain that it cannot keep this one.
            return self.transport.get_extra_info("ssl_object") is None
        return False

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._buffer[:nbytes])
        if self._raw is not None:
            self._raw.feed(data)
            return
        if (
            self.parser is None or self._last
        ):  # nothing more is wanted on this connection; the rest is read and dropped
            return
        if self._in_head or not self._head_bytes:
            self._head_bytes += nbytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._begin_upgrade(data[exc.args[0] if exc.args else nbytes :])
        except HttpError as exc:
            self._refuse(exc)
        except httptools.HttpParserError as exc:
            self._refuse(
                _refusal(exc)
            )  # in no variable of a frame that the error has passed: that is a cycle
        else:
            if self._in_head and self._head_bytes > self._server.max_header:
                self._refuse(HttpError(431, "request header fields too large"))
        self._flow()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self.pause_ended()

    def pause_ended(self) -> None:
        """Wake whoever waits for the peer to read."""
        self._writable = True
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # -- parser callbacks

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._in_head = True
        if not self._head_bytes:
            self._head_bytes = 1
        if self._task is None:
            self._expect(self._server.header_timeout)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1").strip()))

    def on_headers_complete(self) -> None:
        self._in_head = False
        assert self.parser is not None  # it is calling
        size = len(self._url) + sum(len(n) + len(v) + 4 for n, v in self._headers)
        if size > self._server.max_header:
            raise HttpError(431, "request header fields too large")
        if len(self._pending) >= _MAX_PIPELINED:
            raise HttpError(400, "too many pipelined requests")
        body = BodyReader(self._body_wanted)
        request = self._make_request(self.parser, body)
        self._body = body
        body.expects_continue = request.headers.get("expect", "").lower() == "100-continue"
        length = request.headers.get("content-length", "")
        body.declared = int(length) if length.isascii() and length.isdigit() else None
        self._version = self.parser.get_http_version()
        self._pending.append((request, body, bool(self.parser.should_keep_alive())))
        if self._task is None:
            self._start_next()

    def on_body(self, data: bytes) -> None:
        if self._body is not None:
            self._body.feed(data)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        if self._body is not None:
            self._body.finish()
            self._body = None
        if self._task is not None:
            self._deadline = None

    # -- requests

    def _make_request(self, parser: httptools.HttpRequestParser, body: BodyReader) -> Request:
        method = parser.get_method().decode("ascii")
        try:
            if method == "CONNECT":  # its target is host:port, which is no URL
                raw_path, raw_query = self._url.decode("ascii"), ""
            else:
                url = httptools.parse_url(self._url)
                raw_path = (url.path or b"/").decode("ascii")
                raw_query = (url.query or b"").decode("ascii")
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError) as exc:
            raise HttpError(400, "malformed request target") from exc
        return Request(
            method=method,
            path=unquote(raw_path),
            raw_path=raw_path,
            raw_query=raw_query,
            headers=dict(self._headers),
            header_list=self._headers,
            remote=self.remote,
            peer_cert=self.peer_cert,
            peer_subject=self.peer_subject,
            reader=body,
        )

    def _start_next(self) -> None:
        request, body, keep_alive = self._pending.pop(0)
        if body.complete:
            self._deadline = None
        else:
            self._expect(self._server.body_timeout)
        self._task = self._server.start(self._handle(request, body, keep_alive))

    async def _handle(self, request: Request, body: BodyReader, keep_alive: bool) -> None:
        """Answer one request; the per-connection boundary: nothing but cancellation leaves it."""
        try:
            response = await self._answer(request)
            await self._send(request, response, body, keep_alive)
        except (ConnectionError, HttpError):
            self.transport.abort()
        except EdgehiveError as exc:
            path = safe_label(request.path)
            self._say("answers broken off", "%s: %s %s broke off: %s", request.method, path, exc)
            self.transport.abort()
        except Exception:
            log.exception("%s: %s %s broke off", self._server.name, request.method, safe_label(request.path))
            self.transport.abort()
        finally:
            self.streaming = self._patient = False
            self._task = None
            body.forget()
            self._server.finished()
        self._after(body)

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._server.handler(request)
        except ApiStatus as exc:
            return status_response(exc)
        except HttpError as exc:
            return error_response(exc)
        except EdgehiveError as exc:
            path = safe_label(request.path)
            self._say("requests that failed", "%s: %s %s: %s", request.method, path, exc)
            return status_response(ApiStatus(500, "InternalError", f"Internal error occurred: {exc}"))
        except Exception:
            log.exception("%s: %s %s failed", self._server.name, request.method, safe_label(request.path))
            return status_response(ApiStatus(500, "InternalError", "Internal error occurred"))

    def _say(self, kind: str, text: str, *args: object) -> None:
        """Write what a client can bring about as often as it likes."""
        name = self._server.name
        self._server.lines.warning(f"{name}: {kind}", host_of(self.remote), text, name, *args)

    async def _send(self, request: Request, response: Response, body: BodyReader, keep_alive: bool) -> None:
        if response.upgrade is not None:
            await self._run_upgrade(response)
            return
        self._patient = response.patient
        keep_alive = keep_alive and body.complete and not self._server.draining and self._raw is None
        chunked = response.stream is not None and self._version != "1.0"
        keep_alive = keep_alive and (response.stream is None or chunked)
        self._last = self._last or not keep_alive
        head = encode_head(response, keep_alive=keep_alive, chunked=chunked, date=self._server.date)
        if response.stream is None:
            self.transport.write(head if request.method == "HEAD" else head + response.body)
        else:
            self.transport.write(head)
            if request.method != "HEAD":
                await self._send_stream(response.stream, chunked)
        await self.drain()

    async def _send_stream(self, stream: AsyncIterator[bytes], chunked: bool) -> None:
        self.streaming = True
        try:
            async for chunk in stream:
                if not chunk:
                    continue
                await self.drain()
                self.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
        except asyncio.CancelledError:
            if chunked and not self.transport.is_closing():
                self.transport.write(b"0\r\n\r\n")
            self.transport.close()
            raise
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
        if chunked:
            self.transport.write(b"0\r\n\r\n")

    async def drain(self) -> None:
        """Wait until the peer has read enough.

        Raises:
            ConnectionError: it did not within the stall timeout, or it is gone.
        """
        if self.transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        if self._writable:
            return
        self._drained = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(None if self._patient else self._server.stall_timeout):
                await self._drained
        except TimeoutError as exc:
            name, text = self._server.name, "%s: %s does not read, disconnected"
            kind = f"{name}: clients that do not read"
            self._server.lines.info(kind, host_of(self.remote), text, name, self.remote)
            raise ConnectionAbortedError("the client does not read") from exc
        finally:
            self._drained = None
        if self.transport.is_closing():
            raise ConnectionResetError("the connection is closed")

    def _after(self, body: BodyReader) -> None:
        if self.transport.is_closing():
            return
        if self._last:
            if body.complete:
                self.transport.close()
            else:  # a body is still arriving: read it away for a moment, then close
                body.discard()
                self._reading_on()
                self._expect(_LINGER)
                self._half_close()
            return
        if self._pending:
            self._start_next()
        else:
            self._expect(self._server.header_timeout if self._in_head else self._server.idle_timeout)
        self._flow()

    def _half_close(self) -> None:
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # -- upgrades

    def _begin_upgrade(self, leftover: bytes) -> None:
        self._raw = RawConnection(self.drain, self._write_raw, self._flow, self._close_raw)
        if leftover:
            self._raw.feed(leftover)

    def _write_raw(self, data: bytes) -> None:
        self.transport.write(data)

    def _close_raw(self) -> None:
        self.transport.close()

    async def _run_upgrade(self, response: Response) -> None:
        self._last = self._patient = True
        if self._raw is None:
            raise HttpError(400, "this is not an upgrade request")
        assert response.upgrade is not None
        self.streaming = True
        self.transport.write(encode_head(response, keep_alive=True, chunked=False, date=self._server.date))
        try:
            await response.upgrade(self._raw)
        finally:
            self.transport.close()

    # -- flow and time

    def _body_wanted(self, body: BodyReader) -> None:
        if body.expects_continue and not body.complete and not self.transport.is_closing():
            body.expects_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._flow()

    def _flow(self) -> None:
        """Read on, or not: stop while bodies or pipelined requests pile up, never otherwise (EOF is news)."""
        if self.transport.is_closing():
            return
        full = bool(self._pending) or (self._body is not None and self._body.full)
        full = full or (self._raw is not None and self._raw.full)
        if full and self._reading:
            self._reading = False
            self.transport.pause_reading()
        elif not full:
            self._reading_on()

    def _reading_on(self) -> None:
        if not self._reading and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    def _refuse(self, error: HttpError) -> None:
        self._last = True
        self._pending.clear()
        if self._body is not None:
            self._body.fail(error)
        if self._task is None and not self.transport.is_closing():
            response = error_response(error)
            head = encode_head(response, keep_alive=False, chunked=False, date=self._server.date)
            self.transport.write(head + response.body)
            self.transport.close()

    def _expect(self, seconds: float) -> None:
        self._deadline = self._server.now() + seconds

    def check(self, now: float) -> None:
        """End the connection when its deadline has passed."""
        if self._deadline is None or now < self._deadline:
            return
        self._deadline = None
        if self._last:
            self.transport.abort()
        elif self._body is not None:
            self._refuse(HttpError(408, "the request body did not arrive in time"))
        elif self._in_head:
            self._refuse(HttpError(408, "the request did not arrive in time"))
        else:
            self.transport.close()

    def stop(self, *, force: bool) -> None:
        """Drain: close when idle, end a stream; `force` ends everything."""
        if self._task is None:
            self.transport.close()
        elif force or self.streaming:
            self._task.cancel()

    @property
    def busy(self) -> bool:
        """A request is being answered."""
        return self._task is not None


def _refusal(error: httptools.HttpParserError) -> HttpError:
    """What a callback of ours has refused, or else the grammar."""
    cause = error.__context__
    return cause if isinstance(cause, HttpError) else HttpError(400, "malformed HTTP request")


def _subject(certificate: Mapping[str, Any] | None) -> tuple[str, tuple[str, ...]]:
    """Return (common name, organizations) of what ``ssl`` says about a verified certificate."""
    pairs = [pair for part in (certificate or {}).get("subject", ()) for pair in part]
    names = [value for key, value in pairs if key == "commonName"]
    return names[0] if len(names) == 1 else "", tuple(v for k, v in pairs if k == "organizationName")
