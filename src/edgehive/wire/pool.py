"""What still has to reach one node over one session: newest version per object, several objects in flight.

Rules: one message in flight per object *name* (a new incarnation waits for the delete of the old one); the newest
version wins; a delete is never overtaken by a stale update; nothing older than what this session has already
sent goes out again; an unanswered message is repeated with identical bytes every 5 s, five sends a round, and a
stubborn object backs off without holding up the others.

One in flight per object is not only for the sake of retries: an original edge handles every message in its own
goroutine, so two messages about one object on the wire at once may be applied in either order.
"""

import heapq
from collections import deque
from dataclasses import dataclass
from enum import Enum

from edgehive.wire.lane import Flight, Lane, Verdict
from edgehive.wire.outbound import Outbound

__all__ = ["Delivered", "GivenUp", "LaneTrace", "NodeMessagePool", "PoolLimits", "PoolStats", "Verdict"]

_GRAVES = 1_000
"""Deleted objects whose high-water mark is remembered, so that a late update cannot bring them back."""


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds and timers of a pool (seconds)."""

    window: int = 32
    """Objects in flight at once; those that were sent more than once count only beyond four windows."""
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


@dataclass(frozen=True, slots=True)
class Delivered:
    """The edge has acknowledged `message`; record it."""

    message: Outbound
    latency: float
    """Seconds from the first send of it to the ACK."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A query answer that nobody at the edge acknowledges (its requester is gone); nothing is recorded."""

    message: Outbound


@dataclass(slots=True)
class PoolStats:
    """Counters of one session."""

    sent: int = 0
    resent: int = 0
    acked: int = 0
    given_up: int = 0
    dropped: int = 0
    """Fire-once messages lost to a full queue."""


@dataclass(frozen=True, slots=True)
class LaneTrace:
    """Where one object stands in one session."""

    uid: str
    sent: int
    """The version that was last put on the wire and is not acknowledged; 0: nothing is in flight."""
    sends: int
    """How often that message was sent."""
    acknowledged: int
    queued: tuple[int, ...]
    """Versions that wait behind it."""
    deleted: str
    """"": it exists; ``sent`` or ``acknowledged``: so is its delete."""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "uid": self.uid,
            "inFlight": self.sent,
            "sends": self.sends,
            "acknowledged": self.acknowledged,
            "queued": list(self.queued),
            "deleted": self.deleted,
        }


class _Turn(Enum):
    ACK = "ack"
    ONCE = "once"


class NodeMessagePool:
    """The queues of one session. Bounded; see `PoolLimits` for what happens when full."""

    __slots__ = (
        "_active",
        "_by_id",
        "_graves",
        "_lanes",
        "_limits",
        "_once",
        "_ready",
        "_resend",
        "_stalled",
        "_tick",
        "_timers",
        "needs_resync",
        "stats",
    )

    def __init__(self, *, limits: PoolLimits | None = None) -> None:
        self._limits = limits or PoolLimits()
        self._lanes: dict[str, Lane] = {}
        self._ready: dict[str, Lane] = {}  # an ordered set: first come, first served
        self._by_id: dict[str, Lane] = {}
        self._resend: dict[str, Flight] = {}
        self._once: deque[Outbound] | None = None  # most sessions never need one
        self._timers: list[tuple[float, int, Flight]] = []
        self._tick = 0
        self._active = 0
        self._stalled = 0
        self._graves: dict[str, None] = {}
        self.needs_resync = False
        """Set when something was refused for lack of room; cleared by `resynced()`."""
        self.stats = PoolStats()

    @property
    def depth(self) -> int:
        """Objects waiting or in flight."""
        return self._active

    @property
    def in_flight(self) -> int:
        """Objects sent and not acknowledged yet."""
        return len(self._by_id)

    @property
    def waiting(self) -> int:
        """Fire-once messages not written yet."""
        return len(self._once) if self._once else 0

    def offer(self, message: Outbound, now: float) -> Verdict:
        """Queue `message`, or say why not."""
        if not message.ack:
            return self._offer_once(message)
        if message.version == 0 and not message.deleting and not message.is_response:
            return Verdict.NO_VERSION
        key = message.message.resource
        lane = self._lanes.get(key)
        if (lane is None or lane.idle) and self._active >= self._limits.objects:
            self.needs_resync = True
            return Verdict.FULL
        if lane is None:
            lane = self._lanes[key] = Lane(key)
        idle = lane.idle
        verdict = lane.offer(message)
        if idle and not lane.idle:
            self._active += 1
        if lane.flight is None and lane.queue:
            self._ready.setdefault(key, lane)
        return verdict

    def receive_ack(self, message_id: str, now: float) -> Delivered | None:
        """Note the ACK of `message_id`; unknown ids are normal and give ``None``."""
        lane = self._by_id.get(message_id)
        if lane is None or lane.flight is None:
            return None
        flight = lane.flight
        self._land(lane, flight)
        lane.acknowledge(flight.message)
        self.stats.acked += 1
        self._settle(lane)
        return Delivered(flight.message, now - flight.first)

    def handle_timer(self, now: float) -> list[GivenUp]:
        """Schedule resends that are due; returns the answers given up."""
        given_up: list[GivenUp] = []
        while self._timers and self._timers[0][0] <= now:
            due, _, flight = heapq.heappop(self._timers)
            if flight.lane.flight is flight and flight.due == due:
                self._overdue(flight, now, given_up)
        return given_up

    def deadline(self) -> float | None:
        """When `handle_timer` wants to be called next."""
        while self._timers:
            due, _, flight = self._timers[0]
            if flight.lane.flight is flight and flight.due == due:
                return due
            heapq.heappop(self._timers)
        return None

    def take(self, now: float, limit: int = 64) -> list[Outbound]:
        """The next messages to write, at most `limit`; call again until empty, only while the socket takes data."""
        taken: list[Outbound] = []
        turn = _Turn.ACK
        while len(taken) < limit:
            message = self._take_ack(now) if turn is _Turn.ACK else self._take_once()
            turn = _Turn.ONCE if turn is _Turn.ACK else _Turn.ACK
            if message is None:
                message = self._take_ack(now) if turn is _Turn.ACK else self._take_once()
                if message is None:
                    break
            taken.append(message)
        return taken

    def mark(self, resource: str, uid: str) -> int:
        """The newest version of the object that this session was given as an update or has acknowledged; 0: none."""
        lane = self._lanes.get(resource)
        return lane.version if lane is not None and lane.uid == uid and not lane.left else 0

    def has_left(self, resource: str, uid: str) -> bool:
        """Whether the object has been taken from the node in this session, and not come back."""
        lane = self._lanes.get(resource)
        return lane is not None and lane.uid == uid and lane.left

    def trace(self, resource: str) -> LaneTrace | None:
        """Where an object stands; ``None`` if this session was never given it."""
        lane = self._lanes.get(resource)
        if lane is None:
            return None
        flight = lane.flight
        return LaneTrace(
            uid=lane.uid,
            sent=flight.message.version if flight is not None else 0,
            sends=flight.sends if flight is not None else 0,
            acknowledged=lane.acked,
            queued=tuple(message.version for message in lane.queue),
            deleted=("acknowledged" if lane.acked_gone else "sent") if lane.gone else "",
        )

    def pending_once(self) -> list[Outbound]:
        """The fire-once messages that were never written (for a backlog, when the session ends)."""
        return list(self._once or ())

    def wants_to_send(self) -> bool:
        """Whether `take` would give something now."""
        return bool(self._resend or self._once or (self._ready and self._open_window()))

    @property
    def ready_for_resync(self) -> bool:
        """Something was refused for lack of room, and there is room again."""
        return self.needs_resync and self._active <= self._limits.objects // 2

    def resynced(self) -> None:
        """A reconcile of the node has been offered; forget `needs_resync`."""
        self.needs_resync = False

    def _offer_once(self, message: Outbound) -> Verdict:
        if self._once is None:
            self._once = deque()
        if len(self._once) >= self._limits.unacked:
            self._once.popleft()
            self.stats.dropped += 1
        self._once.append(message)
        return Verdict.QUEUED

    def _take_once(self) -> Outbound | None:
        if not self._once:
            return None
        self.stats.sent += 1
        return self._once.popleft()

    def _take_ack(self, now: float) -> Outbound | None:
        while self._resend:
            key = next(iter(self._resend))
            flight = self._resend.pop(key)
            if flight.lane.flight is not flight:
                continue
            if not flight.stalled:
                self._stalled += 1
                flight.stalled = True
            flight.sends += 1
            self._arm(flight, now + self._limits.resend_gap)
            self.stats.resent += 1
            return flight.message
        if not self._ready or not self._open_window():
            return None
        key = next(iter(self._ready))
        lane = self._ready.pop(key)
        message = lane.queue.pop(0)
        flight = Flight(lane=lane, message=message, first=now)
        lane.flight = flight
        lane.sent_uid = message.uid
        self._by_id[message.message.id] = lane
        self._arm(flight, now + self._limits.resend_gap)
        self.stats.sent += 1
        return message

    def _open_window(self) -> bool:
        window = self._limits.window
        fresh = len(self._by_id) - self._stalled
        return fresh + max(0, self._stalled - 4 * window) < window

    def _arm(self, flight: Flight, due: float) -> None:
        self._tick += 1
        flight.due = due
        heapq.heappush(self._timers, (due, self._tick, flight))

    def _overdue(self, flight: Flight, now: float, given_up: list[GivenUp]) -> None:
        """Decide what follows a send that was not answered in time."""
        lane, message = flight.lane, flight.message
        limits = self._limits
        if lane.superseded:
            self._abandon(lane, flight, given_up)
        elif flight.sends < limits.sends:
            self._resend[lane.key] = flight
            flight.due = -1.0
        elif message.is_response:
            self._abandon(lane, flight, given_up)
        elif flight.sends == limits.sends:
            flight.sends += 1  # one more than a round: the pause
            pause = min(limits.backoff * 2**flight.rounds, limits.backoff_max)
            self._arm(flight, now + pause)
        else:
            flight.rounds = min(flight.rounds + 1, 32)
            flight.sends = 0
            self._resend[lane.key] = flight
            flight.due = -1.0

    def _abandon(self, lane: Lane, flight: Flight, given_up: list[GivenUp]) -> None:
        self._land(lane, flight)
        if flight.message.is_response:
            self.stats.given_up += 1
            given_up.append(GivenUp(flight.message))
        self._settle(lane)

    def _land(self, lane: Lane, flight: Flight) -> None:
        lane.flight = None
        self._by_id.pop(flight.message.message.id, None)
        self._resend.pop(lane.key, None)
        if flight.stalled:
            self._stalled -= 1

    def _settle(self, lane: Lane) -> None:
        """Let the lane go on, or put it to rest."""
        if lane.queue:
            self._ready.setdefault(lane.key, lane)
            return
        self._active -= 1
        if lane.gone:
            self._graves.pop(lane.key, None)
            self._graves[lane.key] = None
            if len(self._graves) > _GRAVES:
                oldest = next(iter(self._graves))
                del self._graves[oldest]
                buried = self._lanes.get(oldest)
                if buried is not None and buried.gone and buried.idle:
                    del self._lanes[oldest]
