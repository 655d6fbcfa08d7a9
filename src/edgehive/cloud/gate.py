"""The gate of the hub: how many connections are let in at once, so that a herd cannot starve who is inside.

A TLS handshake is a millisecond of one core. If ten thousand edges come back together and all are let in, the loop
does nothing else for ten seconds: keepalives are not read, timers fire late, nodes that never left are dropped and
come back too. So at most `parallel` connections are on their way in at once; the others wait in the kernel's accept
queue, where they cost nothing. Queue policy: first come, first served, up to the backlog; beyond that the kernel
drops the SYN and the client's kernel sends it again after 1, 3, 7 s. Nobody is refused for the crowd's sake.

A connection that dawdles (a slow link, or somebody who opens sockets and says nothing) gives up its place after
`patience` and goes on without; only then does it count against `dawdlers`, and at that many nobody is let in until
some are through or have run into the handshake's time-out.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT: Final = 15.0
BACKLOG: Final = 1024
"""What may wait in the kernel; it caps this by net.core.somaxconn."""
_ESTABLISHED: Final = 1

_PATIENCE: Final = 1.0
_DAWDLERS: Final = 1024
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE: Final = 0.5

Protocol = Callable[[Callable[[], None]], asyncio.BaseProtocol]
"""Makes the protocol of one connection; it calls its argument once when it is inside, or has been refused."""


@dataclass(slots=True)
class GateStats:
    """Counters."""

    accepted: int = 0
    entering: int = 0
    """On their way in now."""
    most: int = 0
    """The most that were on their way in at once."""
    failed: int = 0
    """Handshakes that came to nothing."""
    late: int = 0
    """Connections whose other end had given up before their turn came."""


class _Place:
    """What one connection holds: a place among those let in at once, until it is in or has dawdled."""

    __slots__ = ("_free", "inside")

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._free: Callable[[], None] | None = slots.release
        self.inside: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def arrived(self) -> None:
        """It is in, or refused, or gone."""
        self.release()
        if not self.inside.done():
            self.inside.set_result(None)

    def release(self) -> None:
        """Let the next one in."""
        free, self._free = self._free, None
        if free is not None:
            free()


class Gate:
    """Accepts from a listening socket; close it through its server, which waits for the connections."""

    def __init__(
        self,
        *,
        sock: socket.socket,
        tls: ssl.SSLContext,
        protocol: Protocol,
        parallel: int,
        patience: float = _PATIENCE,
        dawdlers: int = _DAWDLERS,
    ) -> None:
        self._socket = sock
        self._tls = tls
        self._protocol = protocol
        self._patience = patience
        self._slots = asyncio.Semaphore(parallel)
        self._room = asyncio.Semaphore(parallel + dawdlers)
        self._loop = asyncio.get_running_loop()
        self._open = True
        self.stats: Final = GateStats()

    async def run(self) -> None:
        """Let connections in until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._room.acquire()
                await self._slots.acquire()
                sock = await self._accept()
                while _is_given_up(sock):
                    self.stats.late += 1
                    sock.close()
                    sock = await self._accept()
                self.stats.accepted += 1
                group.create_task(self._admit(sock))

    async def _accept(self) -> socket.socket:
        complained = False
        while True:
            try:
                sock, _ = await self._loop.sock_accept(self._socket)
            except OSError as exc:
                if exc.errno in _NO_DESCRIPTORS:
                    if not complained:
                        log.warning(
                            "no connection can be taken: %s; raise the limit of open files", exc.strerror
                        )
                    complained = True
                    await asyncio.sleep(_PAUSE)
                continue  # anything else was that connection's own trouble
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock

    async def _admit(self, sock: socket.socket) -> None:
        place = _Place(self._slots)
        stats = self.stats
        stats.entering += 1
        stats.most = max(stats.most, stats.entering)
        dawdling = self._loop.call_later(self._patience, place.release)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT + 1.0):
                await self._loop.connect_accepted_socket(
                    lambda: self._protocol(place.arrived),
                    sock,
                    ssl=self._tls,
                    ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
                )
                await place.inside
        except (OSError, TimeoutError, EOFError) as exc:
            stats.failed += 1
            log.debug("a connection came to nothing: %s: %s", type(exc).__name__, exc)
        finally:
            dawdling.cancel()
            place.release()
            stats.entering -= 1
            self._room.release()

    # -- what a WebSocket server wants of the server under it

    async def opened(self) -> Any:
        """Itself, in place of a server made by the loop."""
        return self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop it runs in."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether it has not been closed."""
        return self._open

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket."""
        return (self._socket,) if self._open else ()

    def close(self) -> None:
        """Take nobody any more."""
        if self._open:
            self._open = False
            self._socket.close()

    async def wait_closed(self) -> None:
        """Done with `close`; the connections are their owner's."""


def _is_given_up(sock: socket.socket) -> bool:
    """Whether the peer has closed already, though what it had sent may still lie there."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except (OSError, AttributeError):  # not Linux
        return False
    return info[0] != _ESTABLISHED
