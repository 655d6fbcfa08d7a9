"""A WebSocket server behind a gate."""

import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from edgehive.aio.gate import HANDSHAKE_TIMEOUT, Gate, GateLimits, GateStats
from edgehive.aio.gone import GONE

_CLOSE_TIMEOUT = 2.0
_QUEUE = 16


def _nothing() -> None:
    """There is nothing to pause any more."""


class GatedConnection(ServerConnection):
    """A connection that tells the gate when it is in; whoever serves it says so with `leave_gate`."""

    arrived: Callable[[], None] | None = None
    """Tells the gate that this connection is in, or will not be."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone, perhaps before anything else."""
        self.leave_gate()
        super().connection_lost(exc)
        self._let_go()

    def _let_go(self) -> None:
        """Cut what would keep the TLS state of a closed connection until the rare collection of all cycles.

        The library's objects refer to each other: 20 KiB for each time an edge comes back.
        """
        self.recv_messages.pause = self.recv_messages.resume = _nothing
        self.protocol.parser.close()
        self.transport = GONE

    def leave_gate(self) -> None:
        """Make room for the next one."""
        arrived, self.arrived = self.arrived, None
        if arrived is not None:
            arrived()


_Connection = TypeVar("_Connection", bound=GatedConnection)


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where connections come in, and how many at once. The socket listens already."""

    sock: socket.socket
    tls: ssl.SSLContext
    limits: GateLimits


@dataclass(frozen=True, slots=True)
class Terms(Generic[_Connection]):
    """On what terms a connection is had."""

    connection: Callable[..., _Connection]
    """Its class."""
    check: Callable[[ServerConnection, Request], Response | None]
    """Refuses with a response, before the 101."""
    answer: Callable[[ServerConnection, Request, Response], None]
    """May add headers to the 101."""
    max_size: int
    """Bytes of a message."""
    logger: logging.LoggerAdapter[logging.Logger] | logging.Logger
    """For what the library has to say."""
    ping_interval: float | None = None
    """Seconds between pings; None: there are none."""
    ping_timeout: float | None = None
    """A peer that does not answer a ping within so many seconds is dropped."""


async def serve_gated(
    handler: Callable[[ServerConnection], Awaitable[None]],
    *,
    entrance: Entrance,
    terms: Terms[_Connection],
    on_gate: Callable[[GateStats], None] = lambda _: None,
) -> None:
    """Serve until cancelled, then close every connection. `on_gate` is given the gate's counters.

    No extension is negotiated.
    """
    server: Server = serve(
        handler,
        process_request=terms.check,
        process_response=terms.answer,
        ping_interval=None,
        open_timeout=HANDSHAKE_TIMEOUT,
        server_header=None,
        logger=terms.logger,
    )

    def protocol(arrived: Callable[[], None]) -> _Connection:
        made = terms.connection(
            ServerProtocol(max_size=terms.max_size, logger=terms.logger),
            server,
            ping_interval=terms.ping_interval,
            ping_timeout=terms.ping_timeout,
            close_timeout=_CLOSE_TIMEOUT,
            max_queue=_QUEUE,
        )
        made.arrived = arrived
        return made

    gate = Gate(sock=entrance.sock, tls=entrance.tls, protocol=protocol, limits=entrance.limits)
    on_gate(gate.stats)
    starting: Any = server
    starting.create_server = gate.opened
    await starting
    try:
        await gate.run()
    finally:
        server.close()
        await server.wait_closed()
