"""What still has to reach one node over one session: newest version per object, several objects in flight.

Rules: one message in flight per object *name* (a new incarnation waits for the delete of the old one); the newest
version wins; a delete is never overtaken by a stale update; nothing older than what this session has already
sent goes out again; an unanswered message is repeated with identical bytes every 5 s, five sends a round, and a
stubborn object backs off without holding up the others.
"""

from dataclasses import dataclass
from enum import Enum

from edgehive.wire.outbound import Outbound


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds and timers of a pool (seconds)."""

    window: int = 32
    """Objects in flight at once."""
    objects: int = 10_000
    """Objects waiting or in flight; when full, the node needs a resync and nothing more is queued."""
    unacked: int = 1_000
    """Fire-once messages waiting to be written; when full the oldest is dropped."""
    resend_gap: float = 5.0
    sends: int = 5
    """Sends a round: at 0, 5, 10, 15 and 20 s."""
    backoff: float = 1.0
    """Pause after a round, doubled each round."""
    backoff_max: float = 300.0


class Verdict(Enum):
    """What became of an offered message."""

    QUEUED = "queued"
    REPLACED = "replaced"
    """Queued in place of an older version that had not been sent."""
    STALE = "stale"
    """This session already sent the same or a newer version, or the delete."""
    NO_VERSION = "no-version"
    """An update without a resourceVersion: the original drops it too."""
    FULL = "full"
    """No room; `NodeMessagePool.needs_resync` is set."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The edge has acknowledged `message` (or a newer incarnation made it moot); record it."""

    message: Outbound
    latency: float
    """Seconds from the first send of it to the ACK."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A query answer that nobody at the edge acknowledges any more (its requester is gone)."""

    message: Outbound


class NodeMessagePool:
    """The queues of one session. Bounded; see `PoolLimits` for what happens when full."""

    needs_resync: bool
    """Set when something was refused for lack of room; cleared by `resynced()`."""

    def __init__(self, *, limits: PoolLimits = PoolLimits()) -> None:
        raise NotImplementedError

    def offer(self, message: Outbound, now: float) -> Verdict:
        """Queue `message`, or say why not."""
        raise NotImplementedError

    def receive_ack(self, message_id: str, now: float) -> Delivered | None:
        """Note the ACK of `message_id`; unknown ids are normal and give ``None``."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> list[GivenUp]:
        """Schedule resends that are due; returns the answers given up."""
        raise NotImplementedError

    def deadline(self) -> float | None:
        """When `handle_timer` wants to be called next."""
        raise NotImplementedError

    def take(self, now: float, limit: int = 64) -> list[Outbound]:
        """The next messages to write, at most `limit`; call again until empty, only while the socket takes data."""
        raise NotImplementedError

    def resynced(self) -> None:
        """A reconcile of the node has been offered; forget `needs_resync`."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """Objects waiting or in flight."""
        raise NotImplementedError

    @property
    def in_flight(self) -> int:
        """Objects sent and not acknowledged yet."""
        raise NotImplementedError
