"""One small HTTP/1.1 server: httptools for the grammar, a buffered protocol for the bytes.

It serves the embedded API server, cloudcore's enrolment port and the metrics ports. What it promises:

* memory per connection is bounded in both directions: a client that does not read is disconnected, a body is
  read only as far as the handler asks for, headers and pipelined requests are limited;
* a peer that is slow on purpose (headers, body, reading) runs into a deadline;
* cancelling `run` stops accepting, ends streams with a proper last chunk, lets short requests finish and then
  closes everything.

A handler is cancelled when its client goes away, as in every HTTP server with request contexts.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING

from edgehive.aio.fewlines import FewLines, host_of
from edgehive.aio.http_connection import Connection
from edgehive.aio.http_messages import BODY_LIMIT, HttpError, RawConnection, Request, Response
from edgehive.aio.listening import listening_socket

if TYPE_CHECKING:
    from edgehive.aio.gate import GateLimits

__all__ = ["BODY_LIMIT", "Handler", "HttpError", "HttpServer", "RawConnection", "Request", "Response"]

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]

_READ_BUFFER = 64 * 1024


class HttpServer:
    """Listens on any number of addresses and answers every request with one handler."""

    def __init__(
        self,
        handler: Handler,
        *,
        name: str,
        tls: ssl.SSLContext | None = None,
        max_header: int = 64 * 1024,
        idle_timeout: float = 120.0,
        header_timeout: float = 15.0,
        body_timeout: float = 60.0,
        stall_timeout: float = 30.0,
        drain_timeout: float = 5.0,
        max_connections: int = 8192,
        tick: float = 1.0,
        gate: "GateLimits | None" = None,
    ) -> None:
        """Wire up; times in seconds. `gate` bounds the connections whose TLS handshake is not done."""
        self.handler = handler
        self.name = name
        self.max_header = max_header
        self.idle_timeout = idle_timeout
        self.header_timeout = header_timeout
        self.body_timeout = body_timeout
        self.stall_timeout = stall_timeout
        self.draining = False
        self.date = ""
        self.lines = FewLines(log)
        self._drain_timeout = drain_timeout
        self._max_connections = max_connections
        self._tick = tick  # how often deadlines are looked at
        self._tls = tls
        self._gate = gate if tls is not None else None
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.AbstractServer] = []
        self._connections: set[Connection] = set()
        self._group: asyncio.TaskGroup | None = None
        self._quiet = asyncio.Event()
        self._loop_time: Callable[[], float] = time.monotonic

    async def listen(self, host: str, port: int, *, shared: bool = False) -> int:
        """Bind; clients may connect at once, `run` answers them. Return the bound port.

        `shared`: other processes listen there too, and the kernel deals the connections out.

        Raises:
            OSError: the address is in use or not ours.
        """
        sock = await listening_socket(host, port, shared=shared)
        self._sockets.append(sock)
        return int(sock.getsockname()[1])

    async def run(self) -> None:
        """Serve until cancelled, then drain."""
        loop = asyncio.get_running_loop()
        self._loop_time = loop.time
        buffer = memoryview(bytearray(_READ_BUFFER))  # one for all: it is emptied in the same callback
        async with asyncio.TaskGroup() as group:
            self._group = group
            gates: list[asyncio.Task[None]] = []
            try:
                if self._gate is not None:
                    gates += [group.create_task(self._guard(sock, buffer)) for sock in self._sockets]
                    self._sockets.clear()
                while self._sockets:
                    server = await loop.create_server(
                        lambda: Connection(self, buffer),
                        sock=self._sockets.pop(),
                        ssl=self._tls,
                        ssl_handshake_timeout=10.0 if self._tls else None,
                        backlog=512,
                        start_serving=False,  # so that a cancellation finds it in the list
                    )
                    self._servers.append(server)
                    await server.start_serving()
                while True:
                    self.date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
                    await asyncio.sleep(self._tick)
                    self._check()
            finally:
                for task in gates:
                    task.cancel()
                await self._drain()
                self._group = None

    async def _guard(self, sock: socket.socket, buffer: memoryview) -> None:
        """Accept through a gate until cancelled."""
        from edgehive.aio.gate import Gate

        assert self._tls is not None
        assert self._gate is not None
        gate = Gate(
            sock=sock,
            tls=self._tls,
            protocol=lambda arrived: Connection(self, buffer, arrived),
            limits=self._gate,
        )
        try:
            await gate.run()
        finally:
            gate.close()

    async def close(self) -> None:
        """Release the sockets of a server that was never run (or has ended)."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def _drain(self) -> None:
        self.draining = True
        await self.close()
        for connection in list(self._connections):
            connection.stop(force=False)
        self.finished()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_timeout):
                await self._quiet.wait()
        for connection in list(self._connections):
            connection.stop(force=True)
        for _ in range(3):  # let the transports say goodbye before the loop may close
            await asyncio.sleep(0)

    def _check(self) -> None:
        now = self.now()
        for connection in list(self._connections):
            connection.check(now)

    # -- for connections

    def now(self) -> float:
        """The loop's clock."""
        return self._loop_time()

    def admit(self, connection: Connection) -> bool:
        """Count a new connection in, or refuse it."""
        if self.draining or len(self._connections) >= self._max_connections:
            self.lines.warning(
                f"{self.name}: connections refused, there are too many",
                host_of(connection.remote),
                "%s: connection of %s refused, there are too many",
                self.name,
                connection.remote,
            )
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)

    def finished(self) -> None:
        """A request has been answered; the last one lets a drain go on."""
        if self.draining and not any(c.busy for c in self._connections):
            self._quiet.set()

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run one request's work in the server's task group."""
        assert self._group is not None
        return self._group.create_task(work)
