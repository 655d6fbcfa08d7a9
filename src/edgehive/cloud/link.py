"""The socket of one connected node, around its `NodeSession`."""

import asyncio
import logging
from typing import Final, Protocol

from websockets.exceptions import ConnectionClosed

from edgehive.cloud.keyed import KeyedQueue
from edgehive.wire.message import Message
from edgehive.wire.session import NodeSession

log = logging.getLogger(__name__)


class Socket(Protocol):
    """What is used of a WebSocket connection."""

    @property
    def transport(self) -> asyncio.Transport:
        """The TLS transport."""
        ...

    async def send(self, message: bytes, *, text: bool | None = None) -> None:
        """Write one message; waits while the peer does not read."""
        ...


class LinkStats:
    """Counters of all links together."""

    __slots__ = ("bytes_in", "bytes_out", "frames_in", "frames_out", "stalled")

    def __init__(self) -> None:
        self.frames_in = 0
        self.frames_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.stalled = 0
        """Connections given up because the edge did not read."""


class NodeLink:
    """One connection of one node."""

    __slots__ = (
        "_flushing",
        "_socket",
        "_stats",
        "_write_timeout",
        "remote",
        "session",
        "upstream",
        "warned",
    )

    def __init__(
        self,
        *,
        session: NodeSession,
        socket: Socket,
        remote: str,
        upstream: KeyedQueue[Message],
        stats: LinkStats,
        write_timeout: float,
    ) -> None:
        self.session: Final = session
        self.remote: Final = remote
        self.upstream: Final = upstream
        self.warned: set[str] = set()
        """What has been complained about already in this session."""
        self._socket = socket
        self._stats = stats
        self._write_timeout = write_timeout
        self._flushing = False

    @property
    def node(self) -> str:
        """The node's name."""
        return self.session.node

    def frames(self, now: float) -> list[bytes]:
        """What should be written now, if nobody is writing; the caller then runs `write`."""
        if self._flushing:
            return []
        frames = self.session.data_to_send(now)
        self._flushing = bool(frames)
        return frames

    async def write(self, frames: list[bytes]) -> None:
        """Write `frames` and whatever has come up meanwhile."""
        loop = asyncio.get_running_loop()
        try:
            while frames:
                async with asyncio.timeout(self._write_timeout):
                    for frame in frames:
                        await self._socket.send(frame, text=True)
                        self._stats.bytes_out += len(frame)
                self._stats.frames_out += len(frames)
                frames = self.session.data_to_send(loop.time())
        except TimeoutError:
            self._stats.stalled += 1
            self.session.close(f"the edge did not read for {self._write_timeout:g} s")
        except ConnectionClosed:
            self.session.close("the connection was lost")
        finally:
            self._flushing = False

    def abort(self) -> None:
        """Drop the connection, as the original does."""
        self._socket.transport.abort()
