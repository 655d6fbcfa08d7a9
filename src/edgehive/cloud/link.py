"""The socket of one connected node, around its `NodeSession`."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from edgehive.cloud.keyed import KeyedQueue
from edgehive.wire.message import Message, outline
from edgehive.wire.session import NodeSession

log = logging.getLogger(__name__)

_TOGETHER: Final = 16 << 10
"""Bytes that are copied together before they are written."""


class Socket(Protocol):
    """What is used of a WebSocket connection."""

    @property
    def transport(self) -> asyncio.Transport:
        """The TLS transport."""
        ...

    @property
    def paused(self) -> bool:
        """Whether the peer reads more slowly than we write."""
        ...

    def push(self, messages: Sequence[bytes]) -> bool:
        """Write text messages without waiting; False when the connection is closed."""
        ...

    async def drain(self) -> None:
        """Wait while it is `paused`; raises `OSError` when the connection is lost."""
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
        "_left",
        "_socket",
        "_stats",
        "_waiting",
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
        upstream: "KeyedQueue[tuple[NodeLink, Message]]",
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
        self._waiting = False
        self._left: list[bytes] = []

    @property
    def node(self) -> str:
        """The node's name."""
        return self.session.node

    def flush(self, now: float) -> bool:
        """Write what is to be sent for as long as the socket takes it; True: it does not, and the caller runs `wait`.

        At once and without a task: with timeout, lock and switch each message cost a fifth more.
        """
        if self._waiting:
            return False
        while frames := self._left or self.session.data_to_send(now):
            count = _few(frames)
            self._left = frames[count:]
            batch = frames[:count]
            if not self._socket.push(batch):
                self._left = []
                self.session.close("the connection was lost")
                return False
            if log.isEnabledFor(logging.DEBUG):
                for frame in batch:
                    log.debug("node %s > %s", self.node, outline(frame))
            self._stats.frames_out += count
            self._stats.bytes_out += sum(map(len, batch))
            if self._socket.paused:
                self._waiting = True
                return True
        return False

    async def wait(self) -> None:
        """Until the socket takes more; an edge that does not read for long loses its session."""
        try:
            async with asyncio.timeout(self._write_timeout):
                await self._socket.drain()
        except TimeoutError:
            self._stats.stalled += 1
            self.session.close(f"the edge did not read for {self._write_timeout:g} s")
        except OSError:
            self.session.close("the connection was lost")
        finally:
            self._waiting = False

    def abort(self) -> None:
        """Drop the connection, as the original does."""
        self._socket.transport.abort()


def _few(frames: list[bytes]) -> int:
    """How many of them are written at once: together they are one record of TLS, or it is a single large one."""
    size = 0
    for count, frame in enumerate(frames):
        size += len(frame)
        if size > _TOGETHER and count:
            return count
    return len(frames)
