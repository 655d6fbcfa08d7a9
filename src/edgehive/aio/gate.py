"""The gate of a TLS port: how many connections are let in at once, so that a herd cannot starve who is inside.

A TLS handshake is a millisecond of one core. If ten thousand edges come back together and all are let in, the loop
does nothing else for ten seconds: keepalives are not read, timers fire late, nodes that never left are dropped and
come back too. So at most `parallel` connections are on their way in at once; the others wait in the kernel's accept
queue, where they cost nothing. Queue policy: first come, first served, up to the backlog; beyond that the kernel
drops the SYN and the client's kernel sends it again after 1, 3, 7 s. Nobody is refused for the crowd's sake.

A connection has no place before its first byte is there: who opens sockets and says nothing holds up nobody. One that
dawdles after that, on a slow link or on purpose, gives its place up after `patience` and goes on without. Of those
without a place, silent or dawdling, so many are kept (`GateLimits.outside`); then the oldest is dropped. A silent one
costs a descriptor and no TLS state.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT: Final = 15.0
BACKLOG: Final = 1024
"""What may wait in the kernel; it caps this by net.core.somaxconn."""
_ESTABLISHED: Final = 1

_PATIENCE: Final = 1.0
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE: Final = 0.5

Protocol = Callable[[Callable[[], None]], asyncio.BaseProtocol]
"""Makes the protocol of one connection; it calls its argument once when it is inside, or has been refused."""


@dataclass(frozen=True, slots=True)
class GateLimits:
    """How many connections there may be before they are in."""

    parallel: int = 16
    """On their way in at once."""
    outside: int = 512
    """Silent or dawdling, without a place."""


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
    outside: int = 0
    """Silent or dawdling, without a place."""
    dropped: int = 0
    """Connections of those that made room for others."""


class _Place:
    """What one connection holds: a place among those let in at once, until it is in or has dawdled."""

    __slots__ = ("_free", "inside")

    def __init__(self, free: Callable[[], None]) -> None:
        self._free: Callable[[], None] | None = free
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
        limits: GateLimits,
        patience: float = _PATIENCE,
    ) -> None:
        self._socket = sock
        self._tls = tls
        self._protocol = protocol
        self._patience = patience
        self._limit = limits.outside
        self._places = asyncio.Semaphore(limits.parallel)
        # Who is off the kernel's queue, has spoken and waits for a place.
        self._next = asyncio.Semaphore(limits.parallel)
        self._outside: dict[asyncio.Timeout, None] = {}  # by what ends their patience, oldest first
        self._loop = asyncio.get_running_loop()
        self._open = True
        self.stats: Final = GateStats()

    async def run(self) -> None:
        """Let connections in until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                sock = await self._accept()
                said = _has_spoken(sock)
                if said is None:
                    self.stats.late += 1
                    sock.close()
                elif said:
                    await self._queue_up(sock)
                    group.create_task(self._alone(self._enter(sock)))
                else:
                    group.create_task(self._alone(self._hear(sock)))

    async def _queue_up(self, sock: socket.socket) -> None:
        try:
            await self._next.acquire()
        except BaseException:
            sock.close()
            raise

    @staticmethod
    async def _alone(work: Coroutine[Any, Any, None]) -> None:
        """Whatever goes wrong with one connection is its own affair."""
        try:
            await work
        except Exception:
            log.exception("a connection's way in crashed")

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
                elif not self._open:
                    raise
                continue  # anything else was that connection's own trouble
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock

    async def _hear(self, sock: socket.socket) -> None:
        """Wait for the first byte, without a place."""
        heard: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(sock, _resolve, heard)
        is_next = False
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT) as deadline:
                self._outside_with(deadline)
                try:
                    await heard
                    self._loop.remove_reader(sock)
                    is_next = await self._next.acquire()
                finally:
                    self._inside_with(deadline)
        except TimeoutError:
            self.stats.failed += 1
            return
        finally:
            if not is_next:
                self._loop.remove_reader(sock)
                sock.close()
        await self._enter(sock)

    async def _enter(self, sock: socket.socket) -> None:
        """Take a place, unless the peer gives up before there is one."""
        try:
            await self._places.acquire()
        except BaseException:
            sock.close()
            raise
        finally:
            self._next.release()
        if _has_spoken(sock) is None:
            self._places.release()
            self.stats.late += 1
            sock.close()
        else:
            await self._admit(sock)

    async def _admit(self, sock: socket.socket) -> None:
        """Shake hands, in a place that is its own for as long as it does not dawdle."""
        stats = self.stats
        stats.accepted += 1
        stats.entering += 1
        stats.most = max(stats.most, stats.entering)
        place = _Place(self._leave)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT) as deadline:
                await self._shake_hands(sock, place, deadline)
        except (OSError, TimeoutError, EOFError) as exc:
            stats.failed += 1
            log.debug("a connection came to nothing: %s: %s", type(exc).__name__, exc)
        finally:
            place.release()

    async def _shake_hands(self, sock: socket.socket, place: _Place, deadline: asyncio.Timeout) -> None:
        def dawdles() -> None:
            place.release()
            self._outside_with(deadline)

        dawdling = self._loop.call_later(self._patience, dawdles)
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._protocol(place.arrived),
                sock,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
            )
            await place.inside
        finally:
            dawdling.cancel()
            self._inside_with(deadline)

    def _leave(self) -> None:
        self.stats.entering -= 1
        self._places.release()

    def _outside_with(self, deadline: asyncio.Timeout) -> None:
        """Count a connection among those without a place; beyond the limit the oldest's time is up."""
        self._outside[deadline] = None
        if len(self._outside) > self._limit:
            oldest = next(iter(self._outside))
            del self._outside[oldest]
            if not oldest.expired():
                oldest.reschedule(self._loop.time())
            self.stats.dropped += 1
        self.stats.outside = len(self._outside)

    def _inside_with(self, deadline: asyncio.Timeout) -> None:
        self._outside.pop(deadline, None)
        self.stats.outside = len(self._outside)

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


def _has_spoken(sock: socket.socket) -> bool | None:
    """Whether the peer has sent something; ``None``: it has given up, though what it had sent may still lie there."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED:
            return None
    try:
        return True if sock.recv(1, socket.MSG_PEEK) else None
    except BlockingIOError:
        return False
    except OSError:
        return None


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
