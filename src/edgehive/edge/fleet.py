"""A fleet of simulated edges in one process, over the real wire: TLS, WebSocket, registration, leases, ACKs.

Cheap for each node: one TLS socket with a shared read buffer, one timer, no task.
"""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, cast

from edgehive.edge.fleet_certificates import FleetCertificates
from edgehive.edge.fleet_node import FleetNode, FleetStats, Observer, Samples
from edgehive.edge.link_ws import Alive, Closing, Opened, Received, WebSocketClient
from edgehive.kit.errors import EdgehiveError
from edgehive.wire.endpoint import DEFAULT_PROJECT, upgrade_headers, upgrade_path
from edgehive.wire.held import HOLDINGS_HEADER

log = logging.getLogger(__name__)

_BUFFER: Final = 256 << 10
_TICK: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """Where to, and how the nodes behave; periods in seconds, 0 switches one off."""

    host: str
    port: int
    parallel: int = 64
    """Dials at once."""
    keepalive: float = 15.0
    register: bool = True
    lease: float = 10.0
    status: float = 0.0
    pod_status: float = 0.0
    tells: bool = True
    """Say at each connect what is there, as our edgecore does; the original's does not."""
    redial: tuple[float, float] = (0.5, 1.5)
    """A lost node comes back after a random time between these."""
    dial_timeout: float = 30.0


class _Seat:
    """One node's place: its core, its socket while there is one, when it has to speak next."""

    __slots__ = ("busy", "keepalive", "lease", "node", "pods", "retired", "socket", "status")

    def __init__(self, node: FleetNode) -> None:
        self.node = node
        self.socket: _Socket | None = None
        self.busy = self.retired = False
        self.keepalive = self.lease = self.status = self.pods = 0.0


class _Socket(asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self, *, fleet: "Fleet", seat: _Seat, opened: asyncio.Future[None]) -> None:
        self._fleet = fleet
        self._seat = seat
        self._opened = opened
        self._ws = WebSocketClient()
        self.transport: asyncio.Transport | None = None
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self.transport = made = cast(asyncio.Transport, transport)
        name, where = self._seat.node.name, self._fleet.settings
        request = self._ws.request(
            host=f"{where.host}:{where.port}",
            path=upgrade_path(DEFAULT_PROJECT, name),
            headers=upgrade_headers(DEFAULT_PROJECT, name, tells=where.tells),
        )
        made.write(request)

    def get_buffer(self, sizehint: int) -> memoryview:
        # Not a bytearray: asyncio fills it by slices, which would be copies.
        return self._fleet.buffer  # emptied before anybody else gets it

    def buffer_updated(self, nbytes: int) -> None:
        now = self._fleet.now()
        try:
            for event in self._ws.receive(bytes(self._fleet.buffer[:nbytes])):
                match event:
                    case Received(data):
                        self._seat.node.receive(data, now)
                    case Alive(reply):
                        self._write(reply)
                    case Opened(headers):
                        self._open(HOLDINGS_HEADER.lower() in headers)
                    case Closing(_, reply):
                        self._write(reply)
                        self.close()
        except EdgehiveError as exc:
            self._fail(exc)
            return
        self.flush()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError("the cloud closed the connection"))
        self._fleet.lost(self._seat, self)

    def flush(self) -> None:
        """Send what the node has to say."""
        frames = self._seat.node.take()
        if frames and self.is_open:
            self._write(b"".join(map(self._ws.text, frames)))

    def close(self) -> None:
        """Drop the connection."""
        self.is_open = False
        if self.transport is not None:
            self.transport.abort()

    def _open(self, wants_holdings: bool) -> None:
        if self._opened.done():
            self.close()  # too late: whoever dialled has given up
            return
        self.is_open = True
        self._opened.set_result(None)
        self._fleet.opened(self._seat, self, wants_holdings)

    def _fail(self, exc: Exception) -> None:
        if not self._opened.done():
            self._opened.set_exception(exc)
        self.close()

    def _write(self, data: bytes) -> None:
        if data and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)


class Fleet:
    """All nodes; an async context manager that holds the dialling tasks."""

    def __init__(
        self,
        *,
        settings: FleetSettings,
        names: list[str],
        certificates: FleetCertificates,
        tell: Observer | None = None,
    ) -> None:
        self.settings: Final = settings
        self.stats: Final = FleetStats()
        self.buffer = memoryview(bytearray(_BUFFER))
        self.connects = Samples()
        """Seconds from dialling to the accepted upgrade."""
        self.lost_links = 0
        self.refused = 0
        """Dials that failed."""
        self._certificates = certificates
        self._seats = [_Seat(self._node(name, tell)) for name in names]
        self._queue: asyncio.Queue[_Seat] = asyncio.Queue()
        self._connected = 0
        self._stack = AsyncExitStack()
        self._closing = False
        self._problem = ""

    def _node(self, name: str, tell: Observer | None) -> FleetNode:
        return FleetNode(name=name, stats=self.stats, stamp=self._stamp, wall=time.time, tell=tell)

    @staticmethod
    def _stamp() -> tuple[str, int]:
        return str(uuid.uuid4()), int(time.time() * 1000)

    async def __aenter__(self) -> Self:
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._tasks = [group.create_task(self._dial_queue()) for _ in range(self.settings.parallel)]
        self._tasks.append(group.create_task(self._tick()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        for task in self._tasks:
            task.cancel()
        self.disconnect()
        await self._stack.__aexit__(kind, exc, trace)

    # -- driving

    @property
    def size(self) -> int:
        """How many nodes there are."""
        return len(self._seats)

    @property
    def connected(self) -> int:
        """How many have their link."""
        return self._connected

    @property
    def registered(self) -> int:
        """How many have a Node."""
        return sum(seat.node.registered for seat in self._seats)

    @property
    def problem(self) -> str:
        """Why the latest dial failed."""
        return self._problem

    def connect(self, first: int = 0, last: int | None = None) -> None:
        """Dial with the nodes from `first` to `last`, as fast as the settings allow."""
        for seat in self._seats[first:last]:
            if seat.socket is None and not seat.busy:
                seat.busy = True
                self._queue.put_nowait(seat)

    def disconnect(self, first: int = 0, last: int | None = None) -> None:
        """Drop the links of the nodes from `first` to `last`; they come back by themselves."""
        for seat in self._seats[first:last]:
            if seat.socket is not None:
                seat.socket.close()

    def retire(self, index: int) -> None:
        """Drop one node's link for good."""
        seat = self._seats[index]
        seat.retired = True
        if seat.socket is not None:
            seat.socket.close()

    def each(self, act: Callable[[FleetNode, float], None]) -> None:
        """Have every connected node do something: ``fleet.each(FleetNode.report_status)``."""
        now = self.now()
        for seat in self._seats:
            if seat.socket is not None:
                act(seat.node, now)
                seat.socket.flush()

    async def until(self, reached: Callable[[], bool], *, seconds: float, what: str) -> float:
        """Wait until `reached()`; returns how long it took.

        Raises:
            TimeoutError: not within `seconds`.
        """
        begun = self.now()
        while not reached():
            if self.now() - begun > seconds:
                raise TimeoutError(f"{what}: not within {seconds:.0f} s {self._problem}".rstrip())
            await asyncio.sleep(0.005)
        return self.now() - begun

    @staticmethod
    def now() -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()

    # -- called by the sockets

    def opened(self, seat: _Seat, socket: "_Socket", wants_holdings: bool) -> None:
        """A link is usable."""
        seat.socket = socket
        self._connected += 1
        now, settings = self.now(), self.settings
        seat.node.opened(wants_holdings=wants_holdings)
        # Spread over the period, or two thousand nodes would speak in one breath.
        seat.keepalive = now + settings.keepalive
        seat.lease = now if settings.lease else 0.0
        seat.status = now + random.random() * settings.status if settings.status else 0.0  # noqa: S311
        seat.pods = now + random.random() * settings.pod_status if settings.pod_status else 0.0  # noqa: S311
        if settings.register and not seat.node.registered:
            seat.node.register(now)
        if settings.lease:
            seat.node.renew_lease(now)
            seat.lease = now + settings.lease * (0.5 + random.random())  # noqa: S311

    def lost(self, seat: _Seat, socket: "_Socket") -> None:
        """A link ended."""
        if seat.socket is not socket:
            return
        seat.socket = None
        self._connected -= 1
        self.lost_links += 1
        if not self._closing:
            self._again(seat)

    def _again(self, seat: _Seat) -> None:
        if seat.retired:
            return
        low, high = self.settings.redial
        seat.busy = True
        delay = low + random.random() * (high - low)  # noqa: S311 - jitter
        asyncio.get_running_loop().call_later(delay, self._queue.put_nowait, seat)

    async def _dial_queue(self) -> None:
        while True:
            seat = await self._queue.get()
            try:
                await self._dial(seat)
            except (OSError, EdgehiveError, TimeoutError) as exc:
                self.refused += 1
                self._problem = f"{type(exc).__name__}: {exc}"
                self._again(seat)
            else:
                seat.busy = False
                if seat.socket is None and not self._closing:
                    self._again(seat)  # lost again already

    async def _dial(self, seat: _Seat) -> None:
        loop, settings = asyncio.get_running_loop(), self.settings
        opened: asyncio.Future[None] = loop.create_future()
        opened.add_done_callback(lambda f: f.cancelled() or f.exception())
        begun = loop.time()
        async with asyncio.timeout(settings.dial_timeout):
            transport, _ = await loop.create_connection(
                lambda: _Socket(fleet=self, seat=seat, opened=opened),
                settings.host,
                settings.port,
                ssl=self._certificates.context(seat.node.name),
            )
            try:
                await opened
            except BaseException:
                transport.close()
                raise
        self.connects.add(loop.time() - begun)

    async def _tick(self) -> None:
        settings = self.settings
        while True:
            await asyncio.sleep(_TICK)
            now = self.now()
            for seat in self._seats:
                if seat.socket is None:
                    continue
                node = seat.node
                if now >= seat.keepalive:
                    node.keepalive()
                    seat.keepalive = now + settings.keepalive
                if seat.lease and now >= seat.lease:
                    node.renew_lease(now)
                    seat.lease = now + settings.lease
                if seat.status and now >= seat.status:
                    node.report_status(now)
                    seat.status = now + settings.status
                if seat.pods and now >= seat.pods:
                    node.report_pods(now)
                    seat.pods = now + settings.pod_status
                seat.socket.flush()
