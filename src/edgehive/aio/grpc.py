"""A small gRPC client over a unix socket: unary calls and server streams on one HTTP/2 connection.

Over h2 alone: grpclib costs 1.7 MB more and grpcio 10 MB and seven threads. The connection is made when first needed
and again after it broke; a call on a broken connection fails with `Unreachable` and the caller decides.
"""

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from edgehive.aio.oserrors import reason_of
from edgehive.kit.errors import EdgehiveError, ProtocolError, Unreachable

log = logging.getLogger(__name__)

_WINDOW = 1 << 20
_MAX_MESSAGE = 16 << 20
_STREAM_BACKLOG = 256

OK = 0
CANCELLED = 1
UNKNOWN = 2
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
ALREADY_EXISTS = 6
UNIMPLEMENTED = 12
UNAVAILABLE = 14


_MOST_CALLS = 64  # at once on one connection; more wait for their turn, also when the server allows fewer


class GrpcError(EdgehiveError):
    """The server answered with a status other than OK."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message or f"gRPC status {code}")
        self.code = code
        self.message = message


@dataclass(slots=True, eq=False)
class _Call:
    """One stream: what has arrived of it and whether it has ended."""

    messages: asyncio.Queue[bytes | None]
    buffer: bytearray = field(default_factory=bytearray)
    headers: dict[str, str] = field(default_factory=dict)
    error: EdgehiveError | None = None
    window: asyncio.Event = field(default_factory=asyncio.Event)

    def receive(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= 5:
            compressed, size = struct.unpack_from(">BI", self.buffer)
            if compressed or size > _MAX_MESSAGE:
                raise ProtocolError("a gRPC message is compressed or too long")
            if len(self.buffer) < 5 + size:
                return
            self.messages.put_nowait(bytes(self.buffer[5 : 5 + size]))
            del self.buffer[: 5 + size]

    def end(self, error: EdgehiveError | None) -> None:
        self.error = self.error or error
        self.window.set()
        if self.messages.full():
            self.messages.get_nowait()  # the reader is behind and this stream is over: make room for the end
        self.messages.put_nowait(None)

    def status(self) -> EdgehiveError | None:
        """The error that the trailers tell of."""
        text = self.headers.get("grpc-status", "")
        if not text.isdigit():
            return ProtocolError(f"no gRPC status; HTTP status {self.headers.get(':status', '?')[:8]}")
        code = int(text)
        return None if code == OK else GrpcError(code, unquote(self.headers.get("grpc-message", "")))


class _Connection(asyncio.Protocol):
    """One HTTP/2 connection: feeds h2, spreads its events over the calls."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.calls: dict[int, _Call] = {}
        self.closed = False
        self.slots = asyncio.Semaphore(_MOST_CALLS)
        self._ended = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.h2.initiate_connection()
        self.h2.update_settings(
            {
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
            }
        )
        self.h2.increment_flow_control_window(_WINDOW)
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self.h2.receive_data(data):
                self._handle(event)
        except (h2.exceptions.ProtocolError, ProtocolError, asyncio.QueueFull) as exc:
            if self.h2.state_machine.state is h2.connection.ConnectionState.CLOSED:
                # A server that stops sends a PING right after its GOAWAY, for which h2 has no state.
                self._fail(Unreachable("the gRPC server is closing the connection"))
            self._fail(ProtocolError(f"the gRPC server broke HTTP/2: {type(exc).__name__}"))
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Unreachable(f"the connection to the gRPC server was lost ({exc or 'closed'})"))

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self._fail(Unreachable("the connection to the gRPC server was closed"))

    async def room(self) -> None:
        """Wait until the server lets us open one more stream."""
        while not self.closed and self.h2.open_outbound_streams >= self._most():
            self._ended.clear()
            await self._ended.wait()
        if self.closed:
            raise Unreachable("the connection to the gRPC server was closed")

    def _most(self) -> int:
        return max(1, self.h2.remote_settings.max_concurrent_streams)

    def forget(self, stream: int) -> "_Call | None":
        """The call is over."""
        self._ended.set()
        return self.calls.pop(stream, None)

    def _fail(self, error: EdgehiveError) -> None:
        self.closed = True
        for call in self.calls.values():
            call.end(error)
        self.calls.clear()
        self._ended.set()
        if self._transport is not None:
            self._transport.close()

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
                if (call := self.calls.get(event.stream_id or 0)) is not None:
                    call.receive(event.data or b"")
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                if (call := self.calls.get(event.stream_id or 0)) is not None:
                    call.headers.update((str(k), str(v)) for k, v in event.headers or ())
            case h2.events.StreamEnded():
                if (call := self.forget(event.stream_id or 0)) is not None:
                    call.end(call.status())
            case h2.events.StreamReset():
                if (call := self.forget(event.stream_id or 0)) is not None:
                    call.end(Unreachable(f"the gRPC server reset the call ({event.error_code})"))
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for call in self.calls.values():
                    call.window.set()
            case h2.events.ConnectionTerminated():
                self._fail(Unreachable("the gRPC server is closing the connection"))
            case _:
                pass


class GrpcClient:
    """A channel to the gRPC server at the unix socket `path`, or at host `path` if a `port` is given."""

    def __init__(self, path: str, *, port: int = 0, connect_timeout: float = 5.0) -> None:
        self._path = path
        self._port = port
        self._connect_timeout = connect_timeout
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def call(self, method: str, request: bytes, *, timeout: float | None) -> bytes:
        """Make a unary call.

        Raises:
            GrpcError: The server answered with an error.
            Unreachable: There is no server, or it went away; whether it did the work is unknown.
        """
        answer = None
        try:
            async with asyncio.timeout(timeout):
                async for part in self._exchange(method, request, timeout):
                    answer = part
        except TimeoutError as exc:
            raise GrpcError(DEADLINE_EXCEEDED, f"no answer within {timeout:g} s") from exc
        if answer is None:
            raise ProtocolError("the call ended without an answer")
        return answer

    async def stream(self, method: str, request: bytes) -> AsyncGenerator[bytes, None]:
        """Yield the messages of a server stream until it ends; raises as `call`."""
        async for answer in self._exchange(method, request, None):
            yield answer

    async def close(self) -> None:
        """Close the connection; calls under way fail."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _exchange(
        self, method: str, request: bytes, timeout: float | None
    ) -> AsyncGenerator[bytes, None]:
        connection = await self._connected()
        async with connection.slots:
            await connection.room()
            async for answer in self._on(connection, method, request, timeout):
                yield answer

    async def _on(
        self, connection: _Connection, method: str, request: bytes, timeout: float | None
    ) -> AsyncGenerator[bytes, None]:
        stream = connection.h2.get_next_available_stream_id()
        call = _Call(asyncio.Queue(_STREAM_BACKLOG))
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "edgehive"),
        ]
        if timeout is not None:
            headers.append(("grpc-timeout", f"{max(1, int(timeout * 1000))}m"))
        try:
            connection.h2.send_headers(stream, headers)
            connection.calls[stream] = call
            connection.flush()
            await self._send(connection, stream, call, struct.pack(">BI", 0, len(request)) + request)
            while (answer := await call.messages.get()) is not None:
                yield answer
            if call.error is not None:
                raise call.error
        except h2.exceptions.ProtocolError as exc:
            raise Unreachable(f"the connection to the gRPC server broke: {exc}") from exc
        finally:
            if connection.forget(stream) is not None:
                with contextlib.suppress(h2.exceptions.ProtocolError):
                    connection.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
                connection.flush()

    @staticmethod
    async def _send(connection: _Connection, stream: int, call: _Call, data: bytes) -> None:
        while data and call.error is None:
            room = min(connection.h2.local_flow_control_window(stream), connection.h2.max_outbound_frame_size)
            if room <= 0:
                call.window.clear()
                await call.window.wait()
                continue
            connection.h2.send_data(stream, data[:room])
            data = data[room:]
            connection.flush()
        if call.error is None:
            connection.h2.end_stream(stream)
            connection.flush()

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._connection is None or self._connection.closed:
                loop = asyncio.get_running_loop()
                make: Callable[[], _Connection] = _Connection
                try:
                    async with asyncio.timeout(self._connect_timeout):
                        if self._port:
                            _, self._connection = await loop.create_connection(make, self._path, self._port)
                        else:
                            _, self._connection = await loop.create_unix_connection(make, self._path)
                except OSError as exc:  # TimeoutError is one
                    raise Unreachable(f"no gRPC server at {self._path}: {reason_of(exc)}") from exc
            return self._connection
