"""CloudHub: the WebSocket port that edges connect to.

Identity, path and room are checked before the 101 and refused with an HTTP answer; the certificate decides who a
node is. A frame that is no message ends the connection, as in the original; it is logged once and counted.
"""

import logging
import socket
import ssl
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from edgehive.aio.fewlines import FewLines, host_of
from edgehive.aio.gate import BACKLOG, GateLimits, GateStats
from edgehive.aio.listening import literal_socket
from edgehive.cloud.config import Admission
from edgehive.cloud.gated import Entrance, GatedConnection, Terms, serve_gated
from edgehive.cloud.link import NodeLink
from edgehive.cloud.nodes import NodeTable
from edgehive.cloud.tls import time_problem
from edgehive.kit.errors import ProtocolError
from edgehive.kit.text import safe_label
from edgehive.wire.endpoint import (
    NODE_HEADER,
    PROJECT_HEADER,
    USE_HEADER,
    Hello,
    Room,
    Subject,
    check_upgrade,
)
from edgehive.wire.held import HOLDINGS_HEADER
from edgehive.wire.message import MAX_FRAME
from edgehive.wire.refusal import Refused

log = logging.getLogger(__name__)

_HEADERS: Final = (NODE_HEADER, PROJECT_HEADER, USE_HEADER, HOLDINGS_HEADER)
_CLOSE_TIMEOUT = 2.0


class QuietLogger(logging.LoggerAdapter[logging.Logger]):
    """The library's log at DEBUG: a port scanner must not fill ours; what matters is logged here."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        kwargs.pop("exc_info", None)
        super().log(min(level, logging.DEBUG), msg, *args, **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


class HubConnection(GatedConnection):
    """A connection, and who it was found to be before the 101."""

    hello: Hello | None = None

    def push(self, messages: Sequence[bytes]) -> bool:
        """Write text messages in one piece, without waiting; False when the connection is closed.

        The library's `send` does the same with a lock and a context for each, since its users may send fragments.
        """
        if self.protocol.state is not State.OPEN or self.transport.is_closing():
            return False
        parts: list[bytes] = []
        for message in messages:
            parts += (_text_head(len(message)), message)
        self.transport.write(b"".join(parts))
        return True


def _text_head(size: int) -> bytes:
    """The head of an unmasked, final text frame (RFC 6455, 5.2)."""
    if size < 126:
        return bytes((0x81, size))
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


@dataclass(slots=True)
class HubStats:
    """Counters."""

    refused: int = 0
    malformed: int = 0


class CloudHub:
    """Accepts connections of edges and hands their frames to the node table."""

    def __init__(
        self,
        *,
        nodes: NodeTable,
        tls: ssl.SSLContext,
        node_limit: int,
        wall: Callable[[], float],
        admission: Admission,
    ) -> None:
        """Wire up; `admission` says how a crowd is let in."""
        self._nodes = nodes
        self._tls = tls
        self._limit = node_limit
        self._wall = wall
        self._admission = admission
        self._socket: socket.socket | None = None
        self._lines = FewLines(log)
        self.gate = GateStats()
        """How it goes at the gate."""
        self.stats: Final = HubStats()

    def listen(self, host: str, port: int, *, shared: bool = False) -> int:
        """Bind and return the port; connections are taken once `run` runs.

        `shared`: other processes listen there too, and the kernel deals the connections out.

        Raises:
            OSError: the address is in use or not ours.
        """
        sock = literal_socket(host, port, shared=shared, backlog=BACKLOG)
        self._socket = sock
        return int(sock.getsockname()[1])

    async def run(self) -> None:
        """Serve until cancelled, then close every connection."""
        assert self._socket is not None, "listen comes first"
        await serve_gated(
            self._serve,
            entrance=Entrance(
                self._socket, self._tls, GateLimits(self._admission.parallel, self._admission.outside)
            ),
            terms=Terms(
                connection=HubConnection,
                check=self._check,
                answer=self._invite,
                max_size=MAX_FRAME,
                logger=QuietLogger(logging.getLogger(f"{__name__}.websockets")),
            ),
            on_gate=self._watch_gate,
        )

    def _watch_gate(self, stats: GateStats) -> None:
        self.gate = stats

    def close(self) -> None:
        """Release the port of a hub that was never run."""
        if self._socket is not None:
            self._socket.close()

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        headers = {name.lower(): values[0] for name in _HEADERS if (values := request.headers.get_all(name))}
        certificate = connection.transport.get_extra_info("peercert")
        problem = time_problem(certificate, self._wall())
        node = headers.get(NODE_HEADER.lower(), "")
        others = self._nodes.connected_nodes - self._nodes.connected(node)
        try:
            hello = check_upgrade(
                path=request.path,
                headers=headers,
                subject=peer_subject(certificate),
                problem=problem,
                room=Room(others, self._limit),
            )
        except Refused as exc:
            self.stats.refused += 1
            remote = _remote(connection)
            self._lines.warning(
                "connections refused",
                host_of(remote),
                "connection of node %s from %s refused: %s",
                safe_label(node or "?"),
                remote,
                safe_label(exc.text),
            )
            return connection.respond(exc.status, f"{exc.text}\n")
        assert isinstance(connection, HubConnection)
        connection.hello = hello
        return None

    @staticmethod
    def _invite(connection: ServerConnection, _request: Request, response: Response) -> None:
        """Tell an edge that can say what it holds that we want to hear it."""
        assert isinstance(connection, HubConnection)
        if connection.hello is not None and connection.hello.tells:
            response.headers[HOLDINGS_HEADER] = "1"

    @staticmethod
    def _slim(connection: ServerConnection) -> None:
        """Drop what the library keeps of the handshake: some kilobytes for each of thousands of nodes."""
        for part in (connection.request, connection.response):
            if part is not None:
                part.headers.clear()

    async def _serve(self, connection: ServerConnection) -> None:
        assert isinstance(connection, HubConnection)
        assert connection.hello is not None, "checked before the 101"
        hello = connection.hello
        link = self._nodes.connect(
            node=hello.node, socket=connection, remote=_remote(connection), tells=hello.tells
        )
        self._slim(connection)
        connection.leave_gate()
        reason = "shutting down"
        try:
            await self._read(connection, link)
        except ConnectionClosed as exc:
            reason = _why(exc)
        except ProtocolError as exc:
            self.stats.malformed += 1
            reason = f"protocol error: {exc}"
            self._lines.warning(
                "frames that are no message",
                host_of(link.remote),
                "node %s from %s: %s",
                link.node,
                link.remote,
                safe_label(str(exc), 300),
            )
            link.abort()
        except Exception:
            reason = "internal error"
            log.exception("node %s from %s: connection handler crashed", link.node, link.remote)
            link.abort()
        finally:
            self._nodes.disconnect(link, reason)

    async def _read(self, connection: HubConnection, link: NodeLink) -> None:
        while True:
            frame = await connection.recv(decode=False)
            self._nodes.receive(link, frame)
            if link.upstream.full:
                await link.upstream.room()


def peer_subject(certificate: dict[str, Any] | None) -> Subject | None:
    """Who the verified certificate of the transport names."""
    if not certificate:
        return None
    organizations: list[str] = []
    names: list[str] = []
    for relative in certificate.get("subject", ()):
        for key, value in relative:
            if key == "organizationName":
                organizations.append(value)
            elif key == "commonName":
                names.append(value)
    return Subject(tuple(organizations), tuple(names))


def _remote(connection: ServerConnection) -> str:
    address = connection.remote_address
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "?"


def _why(exc: ConnectionClosed) -> str:
    if exc.sent is not None and exc.sent.code == 1009:
        return f"a message over {MAX_FRAME} bytes"
    if exc.rcvd is not None:
        return f"closed by the edge ({exc.rcvd.code})"
    return "the connection was lost"
