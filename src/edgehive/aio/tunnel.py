"""Connections multiplexed over one tunnel, for asyncio: the same on the cloud's end and on the edge's."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from edgehive.kit.errors import ProtocolError, Unreachable
from edgehive.wire.tunnel import Channel, Frame, Kind, decode_frame

log = logging.getLogger(__name__)


class ByteStream(Protocol):
    """Bytes both ways: a socket, an upgraded connection, a connection in the tunnel."""

    async def read(self) -> bytes:
        """The next bytes, ``b""`` at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send; waits while the peer does not read. Raises `ConnectionError` when it is gone."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class TunnelStream:
    """One connection in the tunnel, as a `ByteStream`."""

    def __init__(self, mux: "TunnelMux", channel: Channel) -> None:
        self.channel = channel
        self._mux = mux
        self._changed = asyncio.Event()
        self._lost = False

    async def read(self) -> bytes:
        """The next bytes, ``b""`` when the peer is done; cancelled, it has taken nothing.

        Raises:
            ConnectionError: the tunnel is lost, so that what has come may not be all.
        """
        while not self.channel.readable:
            await self._wait()
        data, grant = self.channel.take()
        if grant is not None:
            self._mux.grant(grant)
        if not data and self._lost:
            raise ConnectionResetError("the tunnel was lost")
        return data

    async def write(self, data: bytes) -> None:
        """Send; waits while the other end has not taken what it was sent. Raises `ConnectionError`."""
        view = memoryview(data)
        while view:
            if self.channel.ended or self.channel.closed:
                raise ConnectionResetError("the connection in the tunnel has ended")
            size = min(self.channel.allowance, len(view))
            if size <= 0:
                await self._wait()
                continue
            for frame in self.channel.send(bytes(view[:size])):
                await self._mux.send(frame)
            view = view[size:]

    def close(self) -> None:
        """End it."""
        self._mux.close(self)
        self.wake()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        """Something has changed."""
        self._changed.set()

    def lose(self) -> None:
        """The tunnel is gone."""
        if not self.channel.ended:
            self._lost = True
            self.channel.end()
        self.wake()


class TunnelMux:
    """The connections of one tunnel. `send` writes one message; `post` does so without waiting."""

    def __init__(
        self,
        *,
        send: Callable[[bytes], Awaitable[None]],
        post: Callable[[bytes], None],
        peer_window: int,
        on_connect: Callable[[Frame, TunnelStream], None] | None = None,
    ) -> None:
        self._send = send
        self._post = post
        self._on_connect = on_connect
        self._streams: dict[int, TunnelStream] = {}
        self.peer_window = peer_window
        self.ended = False

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, connection: int) -> TunnelStream:
        """A new connection under an id that is not in use; raises `Unreachable`."""
        if self.ended:
            raise Unreachable("the tunnel is closed")
        if connection in self._streams:
            raise ProtocolError("the tunnel has a connection of this id")
        stream = TunnelStream(self, Channel(connection, peer_window=self.peer_window))
        self._streams[connection] = stream
        return stream

    async def send(self, frame: Frame) -> None:
        """Send one frame; raises `ConnectionError`."""
        if self.ended:
            raise ConnectionResetError("the tunnel is closed")
        await self._send(frame.encode())

    def grant(self, frame: Frame) -> None:
        """Let the peer send more. It is small, and there is one for many bytes that came in, so it need not wait."""
        if not self.ended:
            self._post(frame.encode())

    def close(self, stream: TunnelStream) -> None:
        """End a connection and forget it; the peer is told once."""
        frame = stream.channel.close()
        self._streams.pop(stream.channel.id, None)
        if frame is not None and not self.ended:
            self._post(frame.encode())

    def receive(self, message: bytes) -> None:
        """Take one message of the peer.

        Raises:
            ProtocolError: it is no frame.
            Unreachable: the peer has closed the tunnel.
        """
        frame = decode_frame(message)
        if frame.kind == Kind.CLOSE:
            text = frame.data[:200].decode("utf-8", "replace")
            raise Unreachable(f"the peer closed the tunnel: {text}")
        if self._on_connect is not None and frame.kind in (Kind.LOGS, Kind.EXEC, Kind.METRIC, Kind.ATTACH):
            self._on_connect(frame, self.open(frame.id))
            return
        stream = self._streams.get(frame.id)
        if stream is None:
            return  # it has just ended here; the peer knows or will know
        match frame.kind:
            case Kind.DATA:
                if not stream.channel.receive(frame.data):
                    log.warning("connection %d in the tunnel is not read and ends", frame.id)
                    stream.close()
            case Kind.REMOVE:
                stream.channel.end()
                self._streams.pop(frame.id, None)
            case Kind.CREDIT:
                stream.channel.credit(frame.data)
            case _:
                return
        stream.wake()

    def end(self) -> None:
        """The tunnel is gone: every connection in it ends."""
        self.ended = True
        for stream in list(self._streams.values()):
            stream.lose()
        self._streams.clear()
