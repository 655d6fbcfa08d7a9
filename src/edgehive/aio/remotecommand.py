"""The server's end of kubectl's exec and attach: ``vN.channel.k8s.io`` over WebSocket or SPDY.

Whatever the transport, a `Session` has a standard input, two outputs, resize messages and one final status.
"""

import asyncio
import base64
import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from wsproto.frame_protocol import CloseReason, Frame, FrameDecoder, FrameProtocol, Opcode, ParseFailed

from edgehive.aio.http import RawConnection, Request, Response
from edgehive.kit.errors import ProtocolError

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
_CLOSE: Final = 255
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_MESSAGE: Final = 1 << 20
_INPUTS: Final = 16
_PARTING: Final = 5.0
WEBSOCKET_PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")


class Session(ABC):
    """What the command's side sees of the client. Input arrives in `stdin` (``b""`` at its end) and `resizes`."""

    def __init__(self) -> None:
        self.stdin: asyncio.Queue[bytes] = asyncio.Queue(_INPUTS)
        self.resizes: asyncio.Queue[tuple[int, int]] = asyncio.Queue(_INPUTS)
        self.gone = asyncio.Event()
        """The client is not there any more."""
        self._over = False

    @abstractmethod
    async def write(self, channel: int, data: bytes) -> None:
        """Send output; waits while the client does not read. Raises `ConnectionError`."""

    async def take_input(self, data: bytes) -> None:
        """Keep input for the command; waits while it does not take it."""
        if not self._over:
            await self.stdin.put(data)

    def drop_input(self) -> None:
        """The command has ended: nobody takes input any more."""
        self._over = True
        while not self.stdin.empty():
            self.stdin.get_nowait()

    def resize(self, data: bytes) -> None:
        """Take a resize message (``{"Width":80,"Height":24}``); a flood of them is thinned."""
        try:
            size = msgspec.json.decode(data)
            pair = (int(size["Height"]), int(size["Width"]))
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
            return
        if all(0 < value < 1 << 16 for value in pair):
            if self.resizes.full():
                self.resizes.get_nowait()
            self.resizes.put_nowait(pair)


Command = Callable[[Session], Awaitable[int]]
"""Serves a session and returns the exit code."""


def status_of(code: int) -> bytes:
    """The final status: success, or the exit code as kubectl wants to hear it."""
    if code == 0:
        return msgspec.json.encode({"metadata": {}, "status": "Success"})
    return msgspec.json.encode(
        {
            "metadata": {},
            "status": "Failure",
            "message": f"command terminated with non-zero exit code: exit status {code}",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        }
    )


def failure(text: str) -> bytes:
    """The final status of a command that could not be run."""
    return msgspec.json.encode(
        {"metadata": {}, "status": "Failure", "message": text, "reason": "InternalError", "code": 500}
    )


class WebSocketSession(Session):
    """Channels by the first byte of binary messages."""

    def __init__(self, connection: RawConnection, *, closes: bool) -> None:
        """`closes`: the client can close its input (``v5``)."""
        super().__init__()
        self._connection = connection
        self._closes = closes
        self._in = FrameDecoder(client=False)
        self._out = FrameProtocol(client=False, extensions=[])
        self._message = bytearray()

    async def write(self, channel: int, data: bytes) -> None:
        """Send output."""
        await self._connection.write(bytes(self._out.send_data(bytes((channel,)) + data, fin=True)))

    async def finish(self, status: bytes) -> None:
        """Say how it ended, and close."""
        await self.write(ERROR, status)
        await self._connection.write(bytes(self._out.close(CloseReason.NORMAL_CLOSURE)))

    async def read(self) -> None:
        """Take the client's messages until it is gone."""
        try:
            while data := await self._connection.read():
                self._in.receive_bytes(data)
                while (frame := self._in.process_buffer()) is not None:
                    if not await self._handle(frame):
                        return
        except (ParseFailed, ProtocolError):
            pass
        finally:
            self.gone.set()

    async def _handle(self, frame: Frame) -> bool:
        payload = frame.payload
        assert isinstance(payload, bytes)
        if frame.opcode is Opcode.CLOSE:
            return False
        if frame.opcode is Opcode.PING:
            await self._connection.write(bytes(self._out.pong(payload)))
        if frame.opcode.iscontrol():
            return True
        if len(self._message) + len(payload) > _MAX_MESSAGE:
            raise ProtocolError("a message is too large")
        self._message += payload
        if frame.frame_finished and frame.message_finished:
            message = bytes(self._message)
            self._message.clear()
            await self._take(message)
        return True

    async def _take(self, message: bytes) -> None:
        if not message:
            return
        channel, data = message[0], message[1:]
        if channel == STDIN and data:
            await self.take_input(data)
        elif channel == RESIZE:
            self.resize(data)
        elif channel == _CLOSE and self._closes and data[:1] == bytes((STDIN,)):
            await self.take_input(b"")


def websocket_response(request: Request, command: Command) -> Response | None:
    """Accept a WebSocket client; None when it offers no protocol we speak."""
    offered = [
        p.strip() for value in request.header_values("sec-websocket-protocol") for p in value.split(",")
    ]
    chosen = next((p for p in WEBSOCKET_PROTOCOLS if p in offered), None)
    key = request.headers.get("sec-websocket-key", "")
    if chosen is None or not key or request.headers.get("sec-websocket-version") != "13":
        return None
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()

    async def upgrade(connection: RawConnection) -> None:
        session = WebSocketSession(connection, closes=chosen == WEBSOCKET_PROTOCOLS[0])
        await serve(session, session.read, command, session.finish)

    headers = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-accept": base64.b64encode(digest).decode(),
        "sec-websocket-protocol": chosen,
    }
    return Response(101, headers=headers, upgrade=upgrade)


async def serve(
    session: Session,
    read: Callable[[], Awaitable[None]],
    command: Command,
    finish: Callable[[bytes], Awaitable[None]],
) -> None:
    """Run `command` while the client is there, tell it how that ended, and let it close first."""

    async def listen() -> None:
        try:
            await read()
        finally:
            session.gone.set()

    async def run() -> None:
        try:
            status = status_of(await command(session))
        except OSError as exc:
            status = failure(exc.strerror or str(exc))
        await finish(status)

    async def watch(work: "asyncio.Task[None]") -> None:
        await session.gone.wait()
        work.cancel()

    try:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(run(), name="remote-command")
            others = [
                group.create_task(listen(), name="remote-client"),
                group.create_task(watch(work), name="remote-watch"),
            ]
            await asyncio.wait((work,))
            if not work.cancelled() and work.exception() is None:
                await _part(session)
            for task in others:
                task.cancel()
    except* ConnectionError:
        pass  # the client is gone, which is no news to anybody


async def _part(session: Session) -> None:
    """Wait for the client to close, but not for long.

    A connection that is closed with input unread is reset, and what the client has not received yet is lost.
    """
    session.drop_input()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PARTING):
            await session.gone.wait()
