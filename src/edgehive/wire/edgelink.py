"""The edge's end of the link, without the socket: when to dial, what to send, what came in, when it is dead.

The original notices a lost link only when a write fails, then sleeps 30 s, and loses the message whose write
failed. Here a closed socket is noticed at once, a silent one within seconds by WebSocket pings, the next attempt
follows after about a jittered second, and what was not answered is sent again.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edgehive.wire.message import Message
from edgehive.wire.outbox import Entry, Outbox, Settled
from edgehive.wire.session import Stamp


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Timers (seconds) and rates of the link."""

    heartbeat: float = 15.0
    """Keepalive period (`modules.edgeHub.heartbeat`)."""
    ping: float = 5.0
    """A WebSocket ping is sent after this long without anything from the cloud."""
    dead_after: float = 15.0
    """The link is given up after this long without anything from the cloud, pongs included."""
    dial_timeout: float = 30.0
    """`modules.edgeHub.websocket.handshakeTimeout`."""
    reconnect: float = 1.0
    reconnect_max: float = 30.0
    reconnect_jitter: float = 0.5
    stable_after: float = 10.0
    """A link that lived this long resets the back-off."""
    rate: float = 30.0
    """`messageQPS`; keepalives and ACKs are not held back."""
    burst: int = 60
    """`messageBurst`."""
    queue: int = 1_000
    """Unkept messages (requests, events) waiting to be written; when full the oldest event is dropped."""
    requests: int = 1_000
    """Requests awaiting an answer; when full, a new one fails at once."""


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a connection now; then call `receive_connected` or `receive_closed`."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The link is up."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The link is down; close the socket if it is still open."""

    reason: str


@dataclass(frozen=True, slots=True)
class SendPing:
    """Send a WebSocket ping now."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message without a waiting request: for MetaManager, devicetwin, the buses, the task manager (by group)."""

    message: Message


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to the request `request_id`. It has NOT been acknowledged: store it first, then `send_ack` it."""

    request_id: str
    message: Message


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """No answer to `request_id` will come: timed out, link lost, or no room."""

    request_id: str
    reason: str


LinkEvent = Dial | Connected | Disconnected | SendPing | Incoming | Answered | RequestFailed | Settled


class EdgeLink:
    """One edge's link, over all its connections."""

    up: bool

    def __init__(
        self,
        *,
        now: float,
        stamp: Stamp,
        rng: Callable[[], float],
        outbox: Outbox,
        options: LinkOptions = LinkOptions(),
    ) -> None:
        raise NotImplementedError

    def receive_connected(self, now: float) -> None:
        """The dial succeeded (the 101 has been read)."""
        raise NotImplementedError

    def receive_closed(self, reason: str, now: float) -> None:
        """The dial failed or the socket is gone."""
        raise NotImplementedError

    def receive_frame(self, data: bytes, now: float) -> None:
        """Take one WebSocket message.

        Raises:
            ProtocolError: it is not a message; the link has already been put down, close the socket.
        """
        raise NotImplementedError

    def receive_pong(self, now: float) -> None:
        """Any sign of life that is not a message."""
        raise NotImplementedError

    def send_request(self, message: Message, now: float, timeout: float = 60.0) -> str:
        """Send a request; its id comes back in `Answered` or `RequestFailed` (at once when the link is down)."""
        raise NotImplementedError

    def send_kept(self, message: Message, now: float, *, replace: bool = False) -> Entry:
        """Put `message` into the outbox; it is sent when the link allows, until answered (`Settled`).

        Raises:
            StorageError: it could not be kept.
        """
        raise NotImplementedError

    def send_once(self, message: Message, now: float) -> bool:
        """Send without keeping (events, uploads nobody answers); False: dropped, since the queue is full."""
        raise NotImplementedError

    def send_ack(self, message: Message, now: float) -> None:
        """Acknowledge `message` (dropped when the link is down: the cloud sends again)."""
        raise NotImplementedError

    def send_now(self, message: Message, now: float) -> None:
        """Send an `error` or another answer past the rate limit; dropped when the link is down."""
        raise NotImplementedError

    def reconnect(self, reason: str, now: float) -> None:
        """Drop the link and dial again (new certificate)."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> None:
        """Dial, keepalive, ping, time-outs, whatever is due."""
        raise NotImplementedError

    def deadline(self) -> float | None:
        """When `handle_timer` wants to be called next."""
        raise NotImplementedError

    def data_to_send(self, now: float, limit: int = 64) -> list[bytes]:
        """Frames to write as TEXT, at most `limit`; ask again until empty, only while the socket takes data."""
        raise NotImplementedError

    def events(self) -> list[LinkEvent]:
        """What has happened since the last call, in order."""
        raise NotImplementedError
