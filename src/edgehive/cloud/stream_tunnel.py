"""The tunnel's server: edges connect here, and what is asked of them travels through.

A session belongs to the node that its certificate names. Names and addresses of nodes find it; the newest session
of a node wins, and a session that ends is forgotten.
"""

import asyncio
import contextlib
import itertools
import logging
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from edgehive.aio.fewlines import FewLines
from edgehive.aio.gate import GateLimits
from edgehive.aio.listening import literal_socket
from edgehive.aio.tunnel import TunnelMux, TunnelStream
from edgehive.cloud.gated import Entrance, GatedConnection, Terms, serve_gated
from edgehive.cloud.hub import QuietLogger, peer_subject
from edgehive.kit.errors import EdgehiveError, Unreachable
from edgehive.kit.text import safe_label
from edgehive.kube.names import is_ip
from edgehive.wire.tunnel import (
    ADDRESS_HEADER,
    NODE_HEADER,
    PATH,
    WINDOW,
    WINDOW_HEADER,
    ConnectRequest,
    parse_window,
)

log = logging.getLogger(__name__)

_MAX_MESSAGE = 2 << 20


class TunnelSession:
    """One edge's tunnel."""

    def __init__(self, connection: ServerConnection, hello: "Greeting") -> None:
        self.hello: Final = hello
        self.started: Final = time.monotonic()
        """The same clock in all processes of a machine."""
        self._connection = connection
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()  # one REMOVE a connection, no more
        self.mux: Final = TunnelMux(send=self._send, post=self._outbox.put_nowait, peer_window=hello.window)

    @property
    def ours(self) -> bool:
        """Whether the edge knows what edgehive adds to the protocol."""
        return self.mux.peer_window > 0

    async def ask(self, request: ConnectRequest) -> TunnelStream:
        """Open a connection to the node's kubelet API; raises `Unreachable`."""
        stream = self.mux.open(request.id)
        try:
            await self.mux.send(request.frame())
        except OSError as exc:
            stream.close()
            raise Unreachable(str(exc)) from exc
        return stream

    async def run(self) -> None:
        """Read until the edge is gone.

        Raises:
            ProtocolError: it sends what is no frame.
            Unreachable: it closes the tunnel with a reason.
        """
        with contextlib.suppress(ConnectionClosed, ConnectionResetError):
            try:
                async with asyncio.TaskGroup() as tasks:
                    writer = tasks.create_task(self._write(), name=f"tunnel-{self.hello.node}")
                    try:
                        while True:
                            message = await self._connection.recv(decode=False)
                            self.mux.receive(message)
                    finally:
                        self.mux.end()
                        writer.cancel()
            except BaseExceptionGroup as group:
                first: BaseException = group
                while isinstance(first, BaseExceptionGroup):
                    first = first.exceptions[0]
                raise first from None

    async def close(self) -> None:
        """End it: another session of the node has come."""
        self.mux.end()
        await self._connection.close()

    async def _send(self, message: bytes) -> None:
        try:
            await self._connection.send(message, text=True)
        except ConnectionClosed as exc:
            raise ConnectionResetError("the tunnel is closed") from exc

    async def _write(self) -> None:
        while True:
            await self._send(await self._outbox.get())


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who an edge is, from its certificate and its request."""

    node: str
    address: str
    window: int


class TunnelConnection(GatedConnection):
    """A connection, and who it was found to be before the 101."""

    hello: Greeting | None = None


class TunnelServer:
    """Takes tunnels of edges and finds them by the node's name or address."""

    def __init__(self, *, tls: ssl.SSLContext, on_open: Callable[[str], None] | None = None) -> None:
        """Take the certificates; `on_open` is told of every node whose tunnel was opened."""
        self._tls = tls
        self._on_open = on_open
        self._lines = FewLines(log)
        self._sessions: dict[str, TunnelSession] = {}
        self._ids = itertools.count(1)
        self._socket: socket.socket | None = None

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes with a tunnel."""
        return tuple(self._sessions)

    def find(self, key: str) -> TunnelSession | None:
        """The session of a node, by name or by address."""
        found = self._sessions.get(key)
        if found is not None:
            return found
        return next((s for s in self._sessions.values() if s.hello.address == key), None)

    async def look_up(self, key: str) -> TunnelSession | None:
        """The same, for those who may have to ask elsewhere."""
        return self.find(key)

    def new_id(self) -> int:
        """An id that no other connection of any node has."""
        return next(self._ids)

    def listen(self, host: str, port: int, *, shared: bool = False) -> int:
        """Bind and return the port, which other processes may listen on too if it is `shared`; raises `OSError`."""
        self._socket = sock = literal_socket(host, port, shared=shared)
        return int(sock.getsockname()[1])

    async def run(self) -> None:
        """Serve until cancelled."""
        assert self._socket is not None, "listen comes first"
        await serve_gated(
            self._serve,
            entrance=Entrance(self._socket, self._tls, GateLimits()),
            terms=Terms(
                connection=TunnelConnection,
                check=self._check,
                answer=self._answer,
                max_size=_MAX_MESSAGE,
                logger=QuietLogger(logging.getLogger(f"{__name__}.websockets")),
                ping_interval=20.0,
                ping_timeout=40.0,
            ),
        )

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        headers = request.headers
        node = headers.get(NODE_HEADER, "")
        subject = peer_subject(connection.transport.get_extra_info("peercert"))
        remote = str((connection.remote_address or ("",))[0])
        if request.path.rstrip("/") != PATH:
            return connection.respond(404, "not found\n")
        if subject is None or subject.node != node:
            self._lines.warning(
                "tunnels refused",
                remote,
                "tunnel of node %s from %s refused: its certificate is another's",
                safe_label(node),
                remote,
            )
            return connection.respond(403, "the certificate is not this node's\n")
        assert isinstance(connection, TunnelConnection)
        window = parse_window(headers.get(WINDOW_HEADER))
        # An address and nothing else: one that is another node's name would lead that node's commands here.
        address = headers.get(ADDRESS_HEADER, "").strip()
        connection.hello = Greeting(node, address if is_ip(address) else remote, window)
        return None

    @staticmethod
    def _answer(connection: ServerConnection, request: Request, response: Response) -> None:
        if WINDOW_HEADER in request.headers:
            response.headers[WINDOW_HEADER] = str(WINDOW)

    async def _serve(self, connection: ServerConnection) -> None:
        assert isinstance(connection, TunnelConnection)
        assert connection.hello is not None, "checked before the 101"
        connection.leave_gate()
        hello = connection.hello
        session = TunnelSession(connection, hello)
        older = self._sessions.pop(hello.node, None)
        self._sessions[hello.node] = session
        log.info("tunnel of node %s from %s is open", hello.node, hello.address)
        if self._on_open is not None:
            self._on_open(hello.node)
        if older is not None:
            await older.close()
        try:
            await session.run()
        except EdgehiveError as exc:
            text = safe_label(str(exc), 300)
            self._lines.warning(
                "tunnels broken off", hello.address, "tunnel of node %s: %s", hello.node, text
            )
        except Exception:
            log.exception("tunnel of node %s crashed", hello.node)
        finally:
            if self._sessions.get(hello.node) is session:
                del self._sessions[hello.node]
            log.info("tunnel of node %s is closed", hello.node)
