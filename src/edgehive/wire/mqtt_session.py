"""One client's session at the broker: what it waits for, what is on the way to it, what it has acknowledged.

A session outlives its connections where the client asked for that. Messages leave at once while the client reads;
otherwise they wait in a queue with two bounds, messages and bytes. When it is full, the oldest message of QoS 0 goes,
and where there is none the oldest of all, and is counted: of a device's values the newest counts. Before that comes to
pass for a client that is there and getting on, those who publish to it are held up for a moment (`crowded`).
"""

from collections import deque
from dataclasses import dataclass, field

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_codec import publish_flags
from edgehive.wire.mqtt_limits import BrokerLimits, BrokerStats
from edgehive.wire.mqtt_packets import V5, Ack, Subscription, Will
from edgehive.wire.mqtt_peer import Peer
from edgehive.wire.mqtt_routed import OVERHEAD, Routed


@dataclass(slots=True)
class Shared:
    """What all parts of one broker have in common."""

    limits: BrokerLimits
    stats: BrokerStats
    now: float
    crowded: "dict[Session, None]" = field(default_factory=dict)
    """Sessions whose queues have grown long since the shell last looked."""
    held: "dict[Session, None]" = field(default_factory=dict)
    """Sessions whose clients read, and for whose next message there is no memory."""


_Entry = tuple[Routed, int, bool, tuple[int, ...]]
"""Message, QoS, retain flag and subscription ids for one subscriber."""


class _Flying:
    """A message with QoS 1 or 2 that the client has not acknowledged; `released`: it has, but not finished (QoS 2)."""

    __slots__ = ("entry", "released")

    def __init__(self, entry: _Entry) -> None:
        self.entry = entry
        self.released = False


class Session:
    """The state that belongs to a client id."""

    def __init__(self, client_id: str, shared: Shared) -> None:
        self.client_id = client_id
        self.peer: Peer | None = None
        self.expiry: float = 0
        """Seconds it outlives its connection."""
        self.expires: float | None = None
        """When it ends, while its client is absent."""
        self.subscriptions: dict[str, tuple[Subscription, int]] = {}
        self.asked: dict[str, tuple[Subscription, int]] = {}
        """Subscriptions whose retained messages have not been looked up yet."""
        self.received: set[int] = set()
        """Packet ids of incoming QoS 2 messages that have been passed on and not released."""
        self.will_due: tuple[float, Will] | None = None
        self._shared = shared
        self._queue: deque[_Entry] = deque()
        self._replay: dict[str, tuple[Routed, int, tuple[int, ...]]] = {}
        self._flying: dict[int, _Flying] = {}
        self._again: deque[int] = deque()
        self._window = shared.limits.in_flight
        self._last_id = 0
        self._progress = shared.now
        self._moved = 0
        self._moved_since = shared.now
        self._brisk = True
        self.waiting_bytes = 0

    @property
    def waiting(self) -> int:
        """Messages in the queue."""
        return len(self._queue)

    @property
    def in_flight(self) -> int:
        """Messages that the client has not acknowledged."""
        return len(self._flying)

    def crowded(self, now: float) -> bool:
        """Whether it is worth while to publish more slowly: the client is there, getting on, and behind."""
        limits = self._shared.limits
        if self.peer is None or now >= self._progress + limits.patience:
            return False
        seconds = now - self._moved_since
        if seconds >= 1.0:
            self._brisk = seconds > 2.0 or self._moved >= limits.pace * seconds
            self._moved, self._moved_since = 0, now
        if not self._brisk:
            return False
        return len(self._queue) > limits.queue or self.waiting_bytes > limits.queue_bytes // 2

    # the client comes and goes

    def attach(self, peer: Peer, receive_maximum: int) -> None:
        """A connection took the session over; what was not acknowledged is sent again by `pump`."""
        self.peer = peer
        self._progress = self._shared.now
        self.expires = None
        self.will_due = None
        self._window = min(self._shared.limits.in_flight, receive_maximum)
        self._again = deque(self._flying)

    def detach(self) -> None:
        """The connection is gone; messages of QoS 0 that wait go with it."""
        self.peer = None
        self.asked.clear()
        self._replay.clear()
        kept = deque(entry for entry in self._queue if entry[1])
        for entry in self._queue:
            if not entry[1]:
                self._let_go(entry[0])
        self._queue = kept
        self._shared.held.pop(self, None)

    def clear(self) -> None:
        """Forget everything; the session is over."""
        for entry in self._queue:
            self._let_go(entry[0])
        for flying in self._flying.values():
            if not flying.released:
                self._let_go(flying.entry[0])
        self._queue.clear()
        self._flying.clear()
        self._again.clear()
        self._replay.clear()
        self.received.clear()

    # messages to the client

    def deliver(self, routed: Routed, qos: int, retain: bool, ids: tuple[int, ...]) -> None:
        """Send a message now or later, at most once for QoS 0, until acknowledged otherwise."""
        peer = self.peer
        if peer is None:
            if qos:
                self._enqueue((routed, qos, retain, ids))
            return
        if not self._queue and peer.writable and self._fits(peer, routed):
            if not qos:
                self._write(peer, (routed, 0, retain, ids), 0)
                return
            if len(self._flying) - len(self._again) < self._window and not self._again:
                self._launch(peer, (routed, qos, retain, ids))
                return
        self._enqueue((routed, qos, retain, ids))

    def replay(self, retained: Routed, qos: int, ids: tuple[int, ...]) -> None:
        """Send a retained message as soon as the client reads; it costs no queue, only a reference."""
        self._replay[retained.topic] = (retained, qos, ids)

    def pump(self) -> None:
        """Send what waits, as far as the client reads and acknowledges."""
        peer = self.peer
        if peer is None:
            return
        while peer.writable:
            entry = self._next()
            if entry is None or not self._fits(peer, entry[0]):
                return
            room = len(self._flying) - len(self._again) < self._window
            if self._again:
                if not room:
                    return
                self._resend(peer, self._again.popleft())
            elif self._queue:
                if self._queue[0][1] and not room:
                    return
                self._queue.popleft()
                self._let_go(entry[0])
                self._launch(peer, entry)
            else:
                if entry[1] and not room:
                    return
                del self._replay[entry[0].topic]
                self._launch(peer, entry)

    def _next(self) -> _Entry | None:
        """What `pump` would send now; nothing is taken out."""
        while self._again and self._again[0] not in self._flying:
            self._again.popleft()
        if self._again:
            return self._flying[self._again[0]].entry
        if self._queue:
            return self._queue[0]
        for retained, qos, ids in self._replay.values():
            return retained, qos, True, ids
        return None

    def _fits(self, peer: Peer, routed: Routed) -> bool:
        if peer.fits(routed.size):
            return True
        self._shared.held[self] = None
        return False

    def acknowledged(self, ack: Ack) -> None:
        """PUBACK, PUBREC or PUBCOMP came; those to nothing of ours are ignored, but a PUBREC is answered."""
        flying = self._flying.get(ack.packet_id)
        if ack.kind == mp.PUBREC:
            if flying is not None and ack.reason < mp.UNSPECIFIED and flying.entry[1] == 2:
                if not flying.released:
                    self._let_go(flying.entry[0])
                flying.released = True
                self._release(ack.packet_id, 0)
                return
            if flying is None and ack.reason < mp.UNSPECIFIED:
                self._release(ack.packet_id, 0x92)  # Packet Identifier not found
                return
        if flying is None or flying.entry[1] != (1 if ack.kind == mp.PUBACK else 2):
            return
        if not flying.released:
            self._let_go(flying.entry[0])
        del self._flying[ack.packet_id]
        if self._again and ack.packet_id in self._again:
            self._again.remove(ack.packet_id)
        self.pump()

    def _release(self, packet_id: int, reason: int) -> None:
        if self.peer is not None:
            self.peer.send(Ack(mp.PUBREL, packet_id, reason if self.peer.version == V5 else 0))

    def _launch(self, peer: Peer, entry: _Entry) -> None:
        expires = entry[0].expires
        if expires is not None and expires <= self._shared.now:
            self._shared.stats.expired += 1
            return
        if not entry[1]:
            self._write(peer, entry, 0)
            return
        packet_id = self._next_id()
        if self._write(peer, entry, packet_id):
            self._flying[packet_id] = _Flying(entry)
            self._hold(entry[0])

    def _resend(self, peer: Peer, packet_id: int) -> None:
        flying = self._flying.get(packet_id)
        if flying is None:
            return
        if flying.released:
            self._release(packet_id, 0)
        else:
            self._write(peer, flying.entry, packet_id, dup=True)

    def _write(self, peer: Peer, entry: _Entry, packet_id: int, *, dup: bool = False) -> bool:
        routed, qos, retain, ids = entry
        if peer.version == V5 and (ids or routed.properties):
            first = publish_flags(qos, retain, dup)
            frame = routed.frame_with(first, packet_id, ids, self._shared.now)
        else:
            frame = routed.frame(peer.version, qos, retain, dup, packet_id)
        if len(frame) > peer.largest:
            self._shared.stats.dropped += 1  # the client said it does not take it (3.1.2.11.4)
            return False
        peer.write(frame)
        self._progress = self._shared.now
        self._moved += 1
        self._shared.stats.sent += 1
        return True

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % 0xFFFF + 1
            if self._last_id not in self._flying:
                return self._last_id

    def _enqueue(self, entry: _Entry) -> None:
        limits, stats, size = self._shared.limits, self._shared.stats, entry[0].size
        if len(self._queue) >= (limits.queue if self.peer is None else limits.queue_present):
            self._drop_one()
        while self._queue and self.waiting_bytes + size > limits.queue_bytes:
            self._drop_one()
        more = OVERHEAD if entry[0].holders else size
        if self.waiting_bytes + size > limits.queue_bytes or stats.waiting_bytes + more > limits.memory:
            stats.dropped += 1
            return
        self._queue.append(entry)
        self._hold(entry[0])
        if len(self._queue) > limits.queue or self.waiting_bytes > limits.queue_bytes // 2:
            self._shared.crowded[self] = None

    def _drop_one(self) -> None:
        at = next((i for i, entry in enumerate(self._queue) if not entry[1]), 0)
        entry = self._queue[at]
        del self._queue[at]
        self._let_go(entry[0])
        self._shared.stats.dropped += 1

    def _hold(self, routed: Routed) -> None:
        """Count a message that waits: whole for its session, once for the broker, however many wait for it."""
        self.waiting_bytes += routed.size
        self._shared.stats.waiting_bytes += OVERHEAD if routed.holders else routed.size
        routed.holders += 1

    def _let_go(self, routed: Routed) -> None:
        self.waiting_bytes -= routed.size
        routed.holders -= 1
        self._shared.stats.waiting_bytes -= OVERHEAD if routed.holders else routed.size
