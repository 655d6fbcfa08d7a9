"""The cloud's end of one node connection, without the socket.

A shell feeds frames in and writes frames out; everything worth knowing comes out as events. Sessions are objects,
not names: closing an old one cannot touch the new session of the same node.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edgehive.wire.message import Message
from edgehive.wire.outbound import Outbound
from edgehive.wire.pool import Delivered, GivenUp, PoolLimits, Verdict

KEEPALIVE_TIMEOUT = 30.0
"""Seconds without any valid message after which a session is dead (an edge sends a keepalive every 15)."""

MAX_FRAME = 32 << 20
"""Largest message we accept, in bytes; the original has no limit on WebSocket and 32 MiB on QUIC."""

Stamp = Callable[[], tuple[str, int]]
"""Makes a new message id and the wall clock in milliseconds."""


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The edge's heartbeat; never answered."""


@dataclass(frozen=True, slots=True)
class EdgeFailure:
    """Operation ``error``: the edge could not do what `message.parent_id` asked; log it, it is not an ACK."""

    message: Message


@dataclass(frozen=True, slots=True)
class Upload:
    """Operation ``upload`` of group ``user``: for the router."""

    message: Message


@dataclass(frozen=True, slots=True)
class TaskReport:
    """A node job or task reports its state."""

    message: Message


@dataclass(frozen=True, slots=True)
class CaRequest:
    """The edge asks for the Kubernetes CA; answer with `answer_ca`."""

    message: Message


@dataclass(frozen=True, slots=True)
class VolumeReply:
    """An answer to a CSI volume operation, matched by `message.parent_id`."""

    message: Message


@dataclass(frozen=True, slots=True)
class Upstream:
    """A request or report for a controller: `target` says which group the original routes it to."""

    target: str
    """``edgecontroller``, ``devicecontroller`` or ``dynamiccontroller``."""
    message: Message


@dataclass(frozen=True, slots=True)
class Closed:
    """The session ended; close the socket. Last event of a session."""

    reason: str


SessionEvent = (
    Keepalive
    | EdgeFailure
    | Upload
    | TaskReport
    | CaRequest
    | VolumeReply
    | Upstream
    | Delivered
    | GivenUp
    | Closed
)


class NodeSession:
    """One connection of one node, from the 101 to its end."""

    node: str
    closed: str | None
    """Why the session ended, ``None`` while it lives."""

    def __init__(
        self,
        *,
        node: str,
        now: float,
        stamp: Stamp,
        keepalive: float = KEEPALIVE_TIMEOUT,
        limits: PoolLimits = PoolLimits(),
    ) -> None:
        raise NotImplementedError

    def receive_frame(self, data: bytes, now: float) -> None:
        """Take one WebSocket message (text or binary).

        Raises:
            ProtocolError: it is not a message; close the connection, as the original does.
        """
        raise NotImplementedError

    def send(self, message: Outbound, now: float) -> Verdict:
        """Queue a message for the node; a Node object's delete ends the session instead."""
        raise NotImplementedError

    def send_answer_ca(self, request: Message, pem: str, now: float) -> None:
        """Answer a `CaRequest` with the Kubernetes CA."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> None:
        """Resend what is due, notice a silent edge."""
        raise NotImplementedError

    def deadline(self) -> float | None:
        """When `handle_timer` wants to be called next; ``None`` once closed."""
        raise NotImplementedError

    def data_to_send(self, now: float, limit: int = 64) -> list[bytes]:
        """Frames to write as TEXT, at most `limit`; ask again until empty, only while the socket takes data."""
        raise NotImplementedError

    def events(self) -> list[SessionEvent]:
        """What has happened since the last call, in order."""
        raise NotImplementedError

    def close(self, reason: str) -> None:
        """End the session (socket lost, replaced, shutting down); idempotent."""
        raise NotImplementedError
