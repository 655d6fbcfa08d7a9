"""EdgeHub: the shell around `wire.edgelink`.

It dials when the link says so, moves frames both ways, and hands what comes in to whoever it is meant for.
Requests are coroutines; kept messages are reported when the cloud has answered them. One task drives the
link, a second one delivers incoming messages; when the receivers do not keep up, the socket is not read.
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgehive.edge.hub_socket import CloudConnection
from edgehive.kit.errors import ProtocolError, Unreachable
from edgehive.kit.text import safe_label
from edgehive.wire.edgelink import (
    Answered,
    Connected,
    Dial,
    Disconnected,
    EdgeLink,
    GivenUp,
    Incoming,
    LinkEvent,
    RequestFailed,
    SendPing,
)
from edgehive.wire.endpoint import upgrade_headers, upgrade_path
from edgehive.wire.message import Message, Stamp, outline
from edgehive.wire.outbox import Entry, Settled

if TYPE_CHECKING:  # edgecore without MQTT does not load it
    from edgehive.wire.uploads import Uploads

log = logging.getLogger(__name__)

_PAUSE_AT = 256
_RESUME_AT = 64

CONNECT = "connect"
CONNECTION_RESOURCE = "node/connection"
"""Operation and resource of the notice that tells other modules of the link; it never crosses the wire."""

Route = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the cloud is and who we are there; times in seconds."""

    host: str
    port: int
    project: str
    node: str
    handshake_timeout: float = 30.0
    write_deadline: float = 15.0


class EdgeHub:
    """The link to the cloud, as the rest of edgecore sees it.

    `tls` is called for every dial, so that a renewed certificate is used from then on.
    """

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        link: EdgeLink,
        tls: Callable[[], ssl.SSLContext],
        now: Callable[[], float],
        stamp: Stamp,
        route: Route,
    ) -> None:
        self._endpoint = endpoint
        self._link = link
        self._tls = tls
        self._now = now
        self._stamp = stamp
        self._route = route
        self._wake = asyncio.Event()
        self._arrived = asyncio.Event()
        self._inbound: deque[Message] = deque()
        self.paused = False
        """Whether the socket is not read because the receivers do not keep up."""
        self._connection: CloudConnection | None = None
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._on_connection: list[Callable[[bool], None]] = []
        self._on_settled: list[Callable[[Settled], None]] = []
        self._on_given_up: list[Callable[[Entry], None]] = []
        self.last_problem = ""
        """Why the link is down, for people."""
        self.connected = False
        self.wants_holdings = False
        """Whether the cloud we are connected to wants to hear what this edge holds."""
        self.local_address = ""
        """Our address on the last connection to the cloud."""

    # what the others call

    async def request(self, message: Message, timeout: float = 60.0) -> Message:
        """Send a request and return its answer, which the caller stores and then acknowledges.

        Raises:
            Unreachable: the link is down or was lost, or no answer came in time.
        """
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        request_id = self._link.send_request(message, self._now(), timeout)
        self._waiting[request_id] = answer
        self._wake.set()
        try:
            return await answer
        finally:
            self._waiting.pop(request_id, None)

    def send_kept(self, message: Message, *, replace: bool = False, durable: bool = True) -> Entry:
        """Keep `message` until the cloud has answered it, if `durable` across restarts; `on_settled` then tells.

        Raises:
            StorageError: it could not be kept.
        """
        entry = self._link.send_kept(message, self._now(), replace=replace, durable=durable)
        self._wake.set()
        return entry

    def forget_kept(self, resource: str) -> None:
        """Let go of kept messages about an object that is gone."""
        self._link.outbox.forget(resource)

    def send_once(self, message: Message) -> bool:
        """Send without keeping; tell whether there was room."""
        sent = self._link.send_once(message, self._now())
        self._wake.set()
        return sent

    def keep_uploads(self, uploads: "Uploads") -> None:
        """Send what `uploads` keeps; before this, `send_uploads` does not work."""
        self._link.uploads = uploads

    def send_uploads(self, messages: Sequence[Message]) -> None:
        """Keep messages that the cloud does not answer, across restarts, until they have arrived there.

        Raises:
            StorageError: they could not be kept, none of them.
        """
        self._link.send_uploads(messages)
        self._wake.set()

    def send_ack(self, message: Message) -> None:
        """Acknowledge what the cloud sent; call it only after the effect is durable."""
        self._link.send_ack(message, self._now())
        self._wake.set()

    def send_now(self, message: Message) -> None:
        """Send an ``error`` past the rate limit."""
        self._link.send_now(message, self._now())
        self._wake.set()

    def reconnect(self, reason: str) -> None:
        """Drop the connection and dial again; nothing that waits is lost."""
        self._link.reconnect(reason, self._now())
        self._wake.set()

    def on_connection(self, callback: Callable[[bool], None]) -> None:
        """Call `callback` with True when the link is up, with False when it is down."""
        self._on_connection.append(callback)

    def on_settled(self, callback: Callable[[Settled], None]) -> None:
        """Call `callback` when the cloud has answered a kept message."""
        self._on_settled.append(callback)

    def on_given_up(self, callback: Callable[[Entry], None]) -> None:
        """Call `callback` when a kept message is not sent again although the cloud has not answered it."""
        self._on_given_up.append(callback)

    async def run(self) -> None:
        """Keep the link up until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._deliver(), name="hub-deliver")
                await self._drive(tasks)
        finally:
            if self._connection is not None:
                self._connection.say_goodbye()
                self._connection.end("edgecore is stopping")
                self._connection = None

    # driving the link

    async def _drive(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._wake.clear()
            now = self._now()
            if self.paused:
                self._link.receive_pong(now)  # what the cloud says waits unread: that is no silence
            self._link.handle_timer(now)
            self._handle_all(tasks)
            self._flush(now)
            self._handle_all(tasks)  # a ping that is to prove what was just written
            deadline = self._link.deadline()
            delay = None if deadline is None else max(0.0, deadline - self._now())
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _handle_all(self, tasks: asyncio.TaskGroup) -> None:
        while events := self._link.events():
            for event in events:
                self._handle(event, tasks)

    def _handle(self, event: LinkEvent, tasks: asyncio.TaskGroup) -> None:
        match event:
            case Incoming(message):
                self._inbound.append(message)
                self._arrived.set()
                if len(self._inbound) >= _PAUSE_AT:
                    self._pause(True)
            case Answered(request_id, message):
                self._answer(request_id, message)
            case RequestFailed(request_id, reason):
                waiting = self._waiting.pop(request_id, None)
                if waiting is not None and not waiting.done():
                    waiting.set_exception(Unreachable(reason))
            case Settled():
                for settled in self._on_settled:
                    settled(event)
            case GivenUp(entry):
                for given_up in self._on_given_up:
                    given_up(entry)
            case Dial():
                tasks.create_task(self._dial(), name="hub-dial")
            case SendPing() | Connected() | Disconnected():
                self._handle_state(event)

    def _handle_state(self, event: SendPing | Connected | Disconnected) -> None:
        match event:
            case SendPing(payload):
                if self._connection is not None:
                    self._connection.ping(payload)
            case Connected():
                self._connection_changed(True, f"connected to {self._endpoint.host}:{self._endpoint.port}")
            case Disconnected(reason):
                self._connection_changed(False, reason)

    def _answer(self, request_id: str, message: Message) -> None:
        waiting = self._waiting.pop(request_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)
        else:
            # Nobody waits any more; unacknowledged, the cloud would send it again and again.
            self._link.send_ack(message, self._now())

    def _flush(self, now: float) -> None:
        connection = self._connection
        while connection is not None and connection.writable:
            frames = self._link.data_to_send(now)
            if not frames:
                return
            for frame in frames:
                connection.send(frame)
                if log.isEnabledFor(logging.DEBUG):
                    log.debug("> %s", outline(frame))

    def _connection_changed(self, up: bool, reason: str) -> None:
        if up:
            log.info("cloud link: %s", reason)
            self.last_problem = ""
        else:
            self._complain(reason)
        if not up and self._connection is not None:
            connection, self._connection = self._connection, None
            connection.end(reason)
        if up == self.connected:
            return
        self.connected = up
        self._inbound.append(self._connection_notice(up))
        self._arrived.set()
        for changed in self._on_connection:
            changed(up)

    def _complain(self, reason: str) -> None:
        """Log why the link is down, once until the reason changes."""
        if reason != self.last_problem:
            log.warning("cloud link: %s", safe_label(reason, 300))
            self.last_problem = reason

    def _connection_notice(self, up: bool) -> Message:
        new_id, timestamp = self._stamp()
        return Message(
            id=new_id,
            timestamp=timestamp,
            operation=CONNECT,
            resource=CONNECTION_RESOURCE,
            content=b'"cloud_connected"' if up else b'"cloud_disconnected"',
            source="edgehub",
        )

    async def _dial(self) -> None:
        endpoint = self._endpoint
        authority = (
            f"[{endpoint.host}]:{endpoint.port}"
            if ":" in endpoint.host
            else f"{endpoint.host}:{endpoint.port}"
        )
        connection = CloudConnection(
            listener=self,
            authority=authority,
            path=upgrade_path(endpoint.project, endpoint.node),
            headers=upgrade_headers(endpoint.project, endpoint.node, tells=True),
            write_deadline=endpoint.write_deadline,
        )
        self._connection = connection
        try:
            await connection.dial(
                endpoint.host, endpoint.port, self._tls(), timeout=endpoint.handshake_timeout
            )
        except (Unreachable, OSError) as exc:
            connection.end(str(exc))

    # hub_socket.Listener; a connection that was given up is not listened to

    def connection_opened(self, connection: CloudConnection) -> None:
        """The 101 came."""
        if connection is not self._connection:
            connection.end("given up")
            return
        self.local_address = connection.local_address
        self.wants_holdings = connection.wants_holdings
        self._link.receive_connected(self._now())
        self._pause(self.paused)
        self._wake.set()

    def connection_received(self, connection: CloudConnection, data: bytes) -> None:
        """One message came."""
        if connection is not self._connection:
            return
        if log.isEnabledFor(logging.DEBUG):
            log.debug("< %s", outline(data))
        try:
            self._link.receive_frame(data, self._now())
        except ProtocolError as exc:
            connection.end(f"the cloud broke the protocol: {exc}")
        self._wake.set()

    def connection_alive(self, connection: CloudConnection, pong: bytes) -> None:
        """A ping came, or a pong with that payload."""
        if connection is self._connection:
            self._link.receive_pong(self._now(), pong)
            self._wake.set()

    def connection_writable(self, connection: CloudConnection) -> None:
        """The socket takes data again."""
        self._wake.set()

    def connection_lost(self, connection: CloudConnection, reason: str) -> None:
        """The connection is gone, perhaps before it was open."""
        if connection is self._connection:
            self._connection = None
            if not self.connected:
                self._complain(reason)
            self._link.receive_closed(reason, self._now())
            self._wake.set()

    # incoming messages

    async def _deliver(self) -> None:
        while True:
            if not self._inbound:
                self._arrived.clear()
                await self._arrived.wait()
            await self._route(self._inbound.popleft())
            if self.paused and len(self._inbound) <= _RESUME_AT:
                self._pause(False)

    def _pause(self, paused: bool) -> None:
        self.paused = paused
        if self._connection is not None:
            self._connection.pause(paused)
