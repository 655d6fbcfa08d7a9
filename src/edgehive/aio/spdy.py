"""kubectl's streams over SPDY, the server's end: exec with ``vN.channel.k8s.io``, port forwarding."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from edgehive.aio.http import RawConnection, Request, Response
from edgehive.aio.remotecommand import ERROR, STDERR, STDOUT, Command, Session, serve
from edgehive.kit.errors import ProtocolError
from edgehive.wire.spdy import Data, GoneAway, Opened, Pinged, Reset, SpdyConnection

Connect = Callable[[int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

_COMMAND_PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_FORWARD_PROTOCOL: Final = "portforward.k8s.io"
_STREAMS_WITHIN: Final = 30.0
_CHANNELS: Final = {"stdout": STDOUT, "stderr": STDERR, "error": ERROR}
_PENDING: Final = 32
_MAX_FORWARDS: Final = 256


def _upgrade_headers(request: Request, known: tuple[str, ...]) -> dict[str, str] | None:
    values = request.header_values("x-stream-protocol-version")
    offered = [p.strip() for value in values for p in value.split(",")]
    chosen = next((p for p in known if p in offered), None)
    if chosen is None:
        return None
    return {"connection": "Upgrade", "upgrade": "SPDY/3.1", "x-stream-protocol-version": chosen}


class SpdySession(Session):
    """Exec over SPDY: one stream for each channel, named by its ``streamtype`` header."""

    def __init__(self, connection: RawConnection, wanted: Mapping[str, bool]) -> None:
        super().__init__()
        self._connection = connection
        self._spdy = SpdyConnection()
        self._streams: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._expected = {"error", *(name for name in ("stdin", "stdout", "stderr") if wanted[name])}
        if wanted["tty"]:
            self._expected.add("resize")
        self.complete = asyncio.Event()

    async def write(self, channel: int, data: bytes) -> None:
        """Send output."""
        for name, number in _CHANNELS.items():
            if number == channel and name in self._streams:
                await self._connection.write(self._spdy.data(self._streams[name], data))

    async def finish(self, status: bytes) -> None:
        """Say how it ended, and end every stream."""
        await self.write(ERROR, status)
        for name, stream in self._streams.items():
            if name in _CHANNELS:
                await self._connection.write(self._spdy.data(stream, b"", fin=True))

    async def read(self) -> None:
        """Take the client's frames until it is gone."""
        with contextlib.suppress(ProtocolError):
            while data := await self._connection.read():
                for event in self._spdy.receive(data):
                    await self._handle(event)

    async def _handle(self, event: object) -> None:
        match event:
            case Opened(stream, headers, fin):
                name = headers.get("streamtype", "")
                if name in self._streams or name not in {"error", "stdin", "stdout", "stderr", "resize"}:
                    await self._connection.write(self._spdy.reset(stream))
                    return
                self._streams[name], self._names[stream] = stream, name
                await self._connection.write(self._spdy.accept(stream))
                if fin and name == "stdin":
                    await self.take_input(b"")
                if self._expected <= set(self._streams):
                    self.complete.set()
            case Data(stream, data, fin):
                if self._names.get(stream) == "stdin":
                    if data:
                        await self.take_input(data)
                    if fin:
                        await self.take_input(b"")
                elif self._names.get(stream) == "resize" and data:
                    for line in data.splitlines():
                        self.resize(line)
            case Pinged(reply):
                await self._connection.write(reply)


def spdy_command_response(request: Request, command: Command, wanted: Mapping[str, bool]) -> Response | None:
    """Accept a SPDY client of exec; None when it offers no protocol we speak."""
    headers = _upgrade_headers(request, _COMMAND_PROTOCOLS)
    if headers is None:
        return None

    async def upgrade(connection: RawConnection) -> None:
        session = SpdySession(connection, wanted)

        async def run(_: Session) -> int:
            try:
                async with asyncio.timeout(_STREAMS_WITHIN):
                    await session.complete.wait()
            except TimeoutError as exc:
                raise ConnectionAbortedError("the client did not open its streams") from exc
            return await command(session)

        await serve(session, session.read, run, session.finish)

    return Response(101, headers=headers, upgrade=upgrade)


class Forwarder:
    """Port forwarding: pairs of streams (``error``, ``data``) with the same ``requestid``."""

    def __init__(self, connection: RawConnection, connect: Connect) -> None:
        self._connection = connection
        self._connect = connect
        self._spdy = SpdyConnection()
        self._errors: dict[str, int] = {}
        self._inputs: dict[int, asyncio.Queue[bytes | None]] = {}

    async def run(self) -> None:
        """Serve until the client is gone."""
        async with asyncio.TaskGroup() as group:
            forwards: set[asyncio.Task[None]] = set()
            try:
                while data := await self._connection.read():
                    for event in self._spdy.receive(data):
                        task = await self._handle(event, group)
                        if task is not None:
                            forwards.add(task)
                            task.add_done_callback(forwards.discard)
            except (ProtocolError, ConnectionError):
                pass
            for task in forwards:
                task.cancel()

    async def _handle(self, event: object, group: asyncio.TaskGroup) -> "asyncio.Task[None] | None":
        match event:
            case Opened(stream, headers):
                return await self._open(stream, headers, group)
            case Data(stream, data, fin):
                queue = self._inputs.get(stream)
                if queue is not None and data:
                    await queue.put(data)
                if queue is not None and fin:
                    await queue.put(None)
            case Reset(stream):
                queue = self._inputs.pop(stream, None)
                if queue is not None:
                    await queue.put(None)
            case Pinged(reply):
                await self._connection.write(reply)
            case GoneAway():
                pass
        return None

    async def _open(
        self, stream: int, headers: Mapping[str, str], group: asyncio.TaskGroup
    ) -> "asyncio.Task[None] | None":
        kind, request, port = headers.get("streamtype"), headers.get("requestid", ""), headers.get("port", "")
        if len(self._inputs) >= _MAX_FORWARDS or not (port.isdigit() and 0 < int(port) < 1 << 16):
            await self._connection.write(self._spdy.reset(stream))
            return None
        await self._connection.write(self._spdy.accept(stream))
        if kind == "error":
            self._errors[request] = stream
            return None
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_PENDING)
        self._inputs[stream] = queue
        error = self._errors.pop(request, 0)
        return group.create_task(self._forward(stream, error, int(port), queue), name="port-forward")

    async def _forward(
        self, stream: int, error: int, port: int, queue: "asyncio.Queue[bytes | None]"
    ) -> None:
        problem = b""
        try:
            reader, writer = await self._connect(port)
            try:
                await self._copy(stream, queue, reader, writer)
            finally:
                writer.close()
        except OSError as exc:
            problem = f"error forwarding port {port}: {exc.strerror or exc}".encode()
        finally:
            self._inputs.pop(stream, None)
        with contextlib.suppress(ConnectionError):
            await self._connection.write(self._spdy.data(stream, b"", fin=True))
            if error:
                await self._connection.write(self._spdy.data(error, problem, fin=True))

    async def _copy(
        self,
        stream: int,
        queue: "asyncio.Queue[bytes | None]",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        async def copy_in() -> None:
            with contextlib.suppress(OSError):
                while (data := await queue.get()) is not None:
                    writer.write(data)
                    await writer.drain()
                if writer.can_write_eof():
                    writer.write_eof()
            while await queue.get() is not None:
                pass  # the port takes no more; what still comes is dropped

        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(copy_in(), name="port-forward-in")
            try:
                while data := await reader.read(32 << 10):
                    await self._connection.write(self._spdy.data(stream, data))
            finally:
                feeding.cancel()


def port_forward_response(request: Request, *, connect: Connect) -> Response | None:
    """Accept a SPDY client of port forwarding; None when it offers no protocol we speak."""
    if request.headers.get("upgrade", "").lower() != "spdy/3.1":
        return None
    headers = _upgrade_headers(request, (_FORWARD_PROTOCOL,))
    if headers is None:
        return None

    async def upgrade(connection: RawConnection) -> None:
        await Forwarder(connection, connect).run()

    return Response(101, headers=headers, upgrade=upgrade)
