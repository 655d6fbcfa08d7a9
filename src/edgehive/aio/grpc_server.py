"""A small gRPC server on a unix socket: unary calls, over h2 alone.

The counterpart of `aio.grpc`; edgecore and the mappers both serve with it. What one peer may cost is bounded: message
size, calls under way, connections, and the time of a call (the smaller of the peer's `grpc-timeout` and ours).
"""

import asyncio
import contextlib
import logging
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from edgehive.aio.fewlines import FewLines
from edgehive.aio.grpc import DEADLINE_EXCEEDED, OK, UNIMPLEMENTED, UNKNOWN, GrpcError
from edgehive.aio.unix_socket import bind_unix
from edgehive.kit.errors import EdgehiveError, ProtocolError, UserError
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)

INVALID_ARGUMENT = 3
RESOURCE_EXHAUSTED = 8
INTERNAL = 13

GrpcHandler = Callable[[bytes], Awaitable[bytes]]

_WINDOW = 1 << 20
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_MAX_CALLS = 64  # under way on one connection
_ENCODINGS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
"""What requests may be compressed with (grpc-java and grpcio offer both); answers are not."""


@dataclass(slots=True, eq=False)
class _Call:
    """One request as it arrives."""

    path: str
    timeout: float
    limit: int
    encoding: str = ""
    body: bytearray = field(default_factory=bytearray)
    task: asyncio.Task[None] | None = None
    window: asyncio.Event = field(default_factory=asyncio.Event)

    def message(self) -> bytes:
        """The one message of a unary call.

        Raises:
            GrpcError: it is compressed in a way we do not know, or too large.
            ProtocolError: it is truncated or there are several.
        """
        if len(self.body) < 5:
            raise ProtocolError("the request has no message")
        compressed, size = struct.unpack_from(">BI", self.body)
        if size != len(self.body) - 5:
            raise ProtocolError("the request is truncated or has several messages")
        body = bytes(self.body[5:])
        return _unpacked(body, self.encoding, self.limit) if compressed else body


class _Connection(asyncio.Protocol):
    """One peer: feeds h2, runs a task for each complete request."""

    def __init__(self, server: "GrpcServer") -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self._server = server
        self._calls: dict[int, _Call] = {}
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._server.admit(self):
            transport.abort()
            return
        self.h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: _MAX_CALLS,
            },
        )
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(_WINDOW)
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self.h2.receive_data(data):
                self._handle(event)
        except (h2.exceptions.ProtocolError, UnicodeDecodeError) as exc:
            name = self._server.name
            text = "%s: a client broke HTTP/2: %s"
            self._server.lines.warning(f"{name}: clients broke HTTP/2", "", text, name, safe_label(str(exc)))
            self.flush()
            self.close()
        else:
            self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self)
        self._writable.set()
        for call in self._calls.values():
            if call.task is not None:
                call.task.cancel()
        self._calls.clear()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Say goodbye and close."""
        if self._transport is not None and not self._transport.is_closing():
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self.h2.close_connection()
                self.flush()
            self._transport.close()

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                headers = {str(k): str(v) for k, v in event.headers or ()}
                self._calls[event.stream_id or 0] = _Call(
                    headers.get(":path", ""),
                    min(_timeout(headers.get("grpc-timeout", "")), self._server.max_time),
                    self._server.max_message,
                    headers.get("grpc-encoding", ""),
                )
            case h2.events.DataReceived():
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
                if (call := self._calls.get(event.stream_id or 0)) is not None:
                    self._receive(event.stream_id or 0, call, event.data or b"")
            case h2.events.StreamEnded():
                stream = event.stream_id or 0
                if (call := self._calls.get(stream)) is not None:
                    call.task = self._server.start(self._answer(stream, call))
            case h2.events.StreamReset():
                if (
                    call := self._calls.pop(event.stream_id or 0, None)
                ) is not None and call.task is not None:
                    call.task.cancel()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for call in self._calls.values():
                    call.window.set()
            case h2.events.ConnectionTerminated():
                self.close()
            case _:
                pass

    def _receive(self, stream: int, call: _Call, data: bytes) -> None:
        call.body += data
        if len(call.body) > call.limit + 5:
            del self._calls[stream]
            self._finish(stream, RESOURCE_EXHAUSTED, f"the message is larger than {call.limit} bytes")
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self.h2.reset_stream(stream, h2.errors.ErrorCodes.NO_ERROR)

    async def _answer(self, stream: int, call: _Call) -> None:
        answer, code, text = b"", OK, ""
        try:
            async with asyncio.timeout(call.timeout):
                answer = await self._server.dispatch(call.path, call.message())
        except TimeoutError:
            code, text = DEADLINE_EXCEEDED, f"not done within {call.timeout:g} s"
        except GrpcError as exc:
            code, text = exc.code, exc.message
        except ProtocolError as exc:
            code, text = INVALID_ARGUMENT, str(exc)
        except EdgehiveError as exc:
            code, text = UNKNOWN, str(exc)
        except Exception:
            # The boundary of one call: a fault in a handler is that caller's problem, not the server's.
            log.exception("%s: %s failed", self._server.name, safe_label(call.path))
            code, text = INTERNAL, "internal error"
        try:
            if code == OK:
                self.h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
                await self._send(stream, call, struct.pack(">BI", 0, len(answer)) + answer)
            self._finish(stream, code, text, headers_sent=code == OK)
        except h2.exceptions.ProtocolError:
            pass  # the client cancelled the call or went away
        finally:
            self._calls.pop(stream, None)

    async def _send(self, stream: int, call: _Call, data: bytes) -> None:
        while data:
            await self._writable.wait()
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room <= 0:
                call.window.clear()
                self.flush()
                await call.window.wait()
                continue
            self.h2.send_data(stream, data[:room])
            data = data[room:]
            self.flush()

    def _finish(self, stream: int, code: int, text: str, *, headers_sent: bool = False) -> None:
        headers = [("grpc-status", str(code))]
        if code == UNIMPLEMENTED:
            headers.append(("grpc-accept-encoding", ",".join(_ENCODINGS)))
        if text:
            headers.append(("grpc-message", quote(text[:1024], safe=" !#$&'()*+,/:;=?@[]-._~")))
        if not headers_sent:
            headers[:0] = [(":status", "200"), ("content-type", "application/grpc")]
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self.h2.send_headers(stream, headers, end_stream=True)
        self.flush()


def _unpacked(data: bytes, encoding: str, limit: int) -> bytes:
    """A compressed message as it was; it never takes more than `limit` bytes of memory."""
    window = _ENCODINGS.get(encoding)
    if window is None:
        known = ", ".join(_ENCODINGS)
        raise GrpcError(UNIMPLEMENTED, f"the compression {encoding[:40]!r} is not known here, only {known}")
    unpacker = zlib.decompressobj(window)
    try:
        message = unpacker.decompress(data, limit + 1)
    except zlib.error as exc:
        raise ProtocolError(f"the request is not {encoding}") from exc
    if len(message) > limit:
        raise GrpcError(RESOURCE_EXHAUSTED, f"the message is larger than {limit} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise ProtocolError(f"the request is not whole {encoding}")
    return message


def _timeout(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdigit()) or len(number) > 8:
        return float("inf")
    return int(number) * _UNITS[unit]


class GrpcServer:
    """Serves `methods` (full path to handler of encoded messages) at the unix socket `path`, mode 0600."""

    def __init__(
        self,
        path: Path,
        methods: Mapping[str, GrpcHandler],
        *,
        name: str,
        max_message: int = 4 << 20,
        max_time: float = 60.0,
        max_connections: int = 128,
        sock: socket.socket | None = None,
    ) -> None:
        """Wire up; `sock` is a socket that is bound to `path` already."""
        self.name = name
        self.max_message = max_message
        self.max_time = max_time
        self.lines = FewLines(log)
        self._path = path
        self._methods = dict(methods)
        self._max_connections = max_connections
        self._connections: set[_Connection] = set()
        self._socket = sock
        self._group: asyncio.TaskGroup | None = None

    async def listen(self) -> None:
        """Take over the socket's path and bind; a file that is no socket is left alone.

        Raises:
            UserError: the path cannot be used.
        """
        try:
            self._socket = bind_unix(self._path)
        except OSError as exc:
            raise UserError(f"the socket {self._path} cannot be used: {exc.strerror or exc}") from exc

    async def run(self) -> None:
        """Serve until cancelled; calls under way are then cancelled and the socket removed."""
        if self._socket is None:
            await self.listen()
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        inode = self._path.lstat().st_ino
        async with asyncio.TaskGroup() as group:
            self._group = group
            server = await loop.create_unix_server(lambda: _Connection(self), sock=self._socket)
            try:
                await loop.create_future()
            finally:
                server.close()
                self._socket = self._group = None
                for connection in list(self._connections):
                    connection.close()
                with contextlib.suppress(OSError):
                    if self._path.lstat().st_ino == inode:
                        self._path.unlink()

    async def dispatch(self, path: str, request: bytes) -> bytes:
        """Call the handler of `path`.

        Raises:
            GrpcError: there is none.
        """
        handler = self._methods.get(path)
        if handler is None:
            raise GrpcError(UNIMPLEMENTED, f"unknown method {path[:200]}")
        return await handler(request)

    def admit(self, connection: _Connection) -> bool:
        """Count a new connection in, or refuse it."""
        if self._group is None or len(self._connections) >= self._max_connections:
            text = "%s: a connection is refused, there are too many"
            self.lines.warning(f"{self.name}: connections refused, there are too many", "", text, self.name)
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: _Connection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None] | None:
        """Run one call in the server's task group; a server that is ending takes none."""
        if self._group is None:
            work.close()
            return None
        return self._group.create_task(work)
