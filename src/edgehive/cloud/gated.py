"""A WebSocket server behind a gate."""

import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

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


async def serve_gated(
    handler: Callable[[ServerConnection], Awaitable[None]],
    *,
    sock: socket.socket,
    tls: ssl.SSLContext,
    limits: GateLimits,
    connection: Callable[..., _Connection],
    logger: "logging.LoggerAdapter[logging.Logger] | logging.Logger",
    max_size: int,
    process_request: Callable[[ServerConnection, Request], Response | None],
    process_response: Callable[[ServerConnection, Request, Response], None],
    on_gate: Callable[[GateStats], None] = lambda _: None,
    ping_interval: float | None = None,
    ping_timeout: float | None = None,
) -> None:
    """Serve until cancelled, then close every connection. `on_gate` is given the gate's counters.

    No extension is negotiated. A peer that does not answer a ping within `ping_timeout` seconds is dropped.
    """
    server: Server = serve(
        handler,
        process_request=process_request,
        process_response=process_response,
        ping_interval=None,
        open_timeout=HANDSHAKE_TIMEOUT,
        server_header=None,
        logger=logger,
    )

    def protocol(arrived: Callable[[], None]) -> _Connection:
        made = connection(
            ServerProtocol(max_size=max_size, logger=logger),
            server,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=_CLOSE_TIMEOUT,
            max_queue=_QUEUE,
        )
        made.arrived = arrived
        return made

    gate = Gate(sock=sock, tls=tls, protocol=protocol, limits=limits)
    on_gate(gate.stats)
    starting: Any = server
    starting.create_server = gate.opened
    await starting
    try:
        await gate.run()
    finally:
        server.close()
        await server.wait_closed()
