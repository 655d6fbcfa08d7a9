"""One client's session at the broker: what it waits for, what is on the way to it, what it has acknowledged.

A session outlives its connections where the client asked for that. Messages leave at once while the client reads;
otherwise they wait in a queue with two bounds, messages and bytes. When it is full, the oldest message of QoS 0 goes,
and where there is none the oldest of all, and is counted: of a device's values the newest counts. Before that comes to
pass for a client that is there and getting on, those who publish to it are held up for a moment (`crowded`).
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_codec import PacketReader, encode_packet, publish_flags
from edgehive.wire.mqtt_packets import V5, Ack, Packet, Properties, Publish, Subscription, Will
from edgehive.wire.mqtt_properties import encode_properties, text, varint

_OUT_HIGH: Final = 256 << 10
"""Bytes waiting to be written to one client's socket, from which on messages wait in its queue."""
_PATIENCE: Final = 1.0
"""Seconds without progress after which nobody is held up for a client."""
_PACE: Final = 500
"""Messages a second that a client has to take to be waited for: one that drips along slows nobody down further."""
_OVERHEAD: Final = 200
"""What a waiting message costs besides its text, in bytes, roughly."""


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """Bounds; sizes in bytes, times in seconds."""

    packet: int = 1 << 20
    """Largest packet a client may send."""
    clients: int = 500
    sessions: int = 1_000
    """Sessions of connected and absent clients together; the absent one that expires next makes room."""
    subscriptions: int = 1_000
    """Of one client."""
    nodes: int = 50_000
    """Levels of all filters together."""
    filter: int = 4_096
    will: int = 16 << 10
    client_id: int = 512
    queue: int = 100
    """Messages that wait for one absent client; for a present one, from where on publishers are held up
    (`mqttSessionQueueSize`)."""
    queue_present: int = 5_000
    """Messages that wait for one present client."""
    queue_bytes: int = 4 << 20
    memory: int = 32 << 20
    """Bytes of all queues, and of all packets that have not come whole, each."""
    in_flight: int = 100
    """Messages with QoS 1 or 2 sent to one client and not acknowledged."""
    receive_maximum: int = 100
    """Messages with QoS 2 of one client that it has not released."""
    retained: int = 2_000
    retained_bytes: int = 8 << 20
    connect_timeout: float = 10.0
    stall_timeout: float = 60.0
    """A client that takes no data for so long is disconnected."""
    session_expiry: int = 86_400
    """An absent client's session ends after this at the latest."""


@dataclass(slots=True)
class BrokerStats:
    """Counters since the start, and the bytes that wait now."""

    received: int = 0
    """Messages from clients."""
    sent: int = 0
    """Messages to clients."""
    dropped: int = 0
    """Messages lost to a full queue."""
    expired: int = 0
    not_retained: int = 0
    """Retained messages delivered but not kept: there was no room."""
    refused: int = 0
    """Connections refused or ended for breaking the protocol or a limit."""
    waiting_bytes: int = 0


class Routed:
    """One message on its way to any number of sessions; it keeps its encoded parts."""

    __slots__ = ("_head", "_plain", "expires", "payload", "properties", "qos", "retain", "size", "topic")

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        *,
        properties: Properties = (),
        expires: float | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties
        self.expires = expires
        self.size = _OVERHEAD + len(topic) + len(payload)
        if properties:
            self.size += sum(_OVERHEAD + len(value) for _, value in properties if not isinstance(value, int))
        self._head: bytes | None = None
        self._plain: bytes | None = None

    def frame(self, version: int, qos: int, retain: bool, dup: bool, packet_id: int) -> bytes:
        """The PUBLISH for one subscriber; 5.0 without properties."""
        plain = not (qos or retain or version == V5)
        if plain and self._plain is not None:
            return self._plain
        if self._head is None:
            self._head = text(self.topic)
        head = self._head
        tail = b"\0" if version == V5 else b""
        if qos:
            tail = packet_id.to_bytes(2, "big") + tail
        length = varint(len(head) + len(tail) + len(self.payload))
        made = b"".join((bytes((publish_flags(qos, retain, dup),)), length, head, tail, self.payload))
        if plain:
            self._plain = made
        return made

    def frame_with(self, properties: Properties, qos: int, retain: bool, dup: bool, packet_id: int) -> bytes:
        """The PUBLISH of 5.0 with properties."""
        body = (
            text(self.topic)
            + (packet_id.to_bytes(2, "big") if qos else b"")
            + encode_properties(properties)
            + self.payload
        )
        return bytes((publish_flags(qos, retain, dup),)) + varint(len(body)) + body


@dataclass(slots=True)
class Shared:
    """What all parts of one broker have in common."""

    limits: BrokerLimits
    stats: BrokerStats
    now: float
    crowded: "dict[Session, None]" = field(default_factory=dict)
    """Sessions whose queues have grown long since the shell last looked."""


class Peer:
    """One connection, from the broker's side. The shell moves its bytes: `out` to the socket, `ended` to a close."""

    __slots__ = (
        "_dirty",
        "buffered",
        "cause",
        "ended",
        "explained",
        "heard",
        "keepalive",
        "largest",
        "messages",
        "name",
        "out",
        "out_bytes",
        "reader",
        "received",
        "session",
        "stalled",
        "version",
        "will",
    )

    def __init__(self, name: str, shared: Shared, dirty: "dict[Peer, None]") -> None:
        self.name = name
        self.reader = PacketReader(shared.limits.packet)
        self.buffered = 0
        """Bytes of its unfinished packet, as the broker last counted them."""
        self.session: Session | None = None
        self.received: set[int] = set()
        """Its session's, also when it has left that."""
        self.version = mp.V311
        self.keepalive = 0
        self.largest = mp.MAX_REMAINING
        """Largest packet the client takes (5.0, Maximum Packet Size)."""
        self.will: Will | None = None
        self.heard = shared.now
        self.out: list[bytes] = []
        self.out_bytes = 0
        self.messages = 0
        """Packets it has sent; the shell's rate limit looks at it."""
        self.stalled: float | None = None
        """Since when the socket takes nothing; ``None`` while it does."""
        self.ended = False
        """Nothing more is read; the shell closes after writing `out`."""
        self.cause = ""
        self.explained = False
        """The last packet says why it ended: the client should get to read it."""
        self._dirty = dirty

    @property
    def writable(self) -> bool:
        """Whether a message may be sent now."""
        return self.stalled is None and self.out_bytes < _OUT_HIGH

    def write(self, data: bytes) -> None:
        """Queue bytes for the socket."""
        self.out.append(data)
        self.out_bytes += len(data)
        self._dirty[self] = None

    def send(self, packet: Packet) -> None:
        """Queue a packet for the socket."""
        self.write(encode_packet(packet, self.version))

    def explain(self, packet: Packet) -> None:
        """Queue the packet that says why the connection ends."""
        self.send(packet)
        self.explained = True

    def touch(self) -> None:
        """Make the shell look at this connection."""
        self._dirty[self] = None


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
        if self.peer is None or now >= self._progress + _PATIENCE:
            return False
        seconds = now - self._moved_since
        if seconds >= 1.0:
            self._brisk = seconds > 2.0 or self._moved >= _PACE * seconds
            self._moved, self._moved_since = 0, now
        if not self._brisk:
            return False
        limits = self._shared.limits
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
                self._count(-entry[0].size)
        self._queue = kept

    def clear(self) -> None:
        """Forget everything; the session is over."""
        self._count(-self.waiting_bytes)
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
        if not self._queue and peer.writable:
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
            room = len(self._flying) - len(self._again) < self._window
            if self._again:
                if not room:
                    return
                self._resend(peer, self._again.popleft())
            elif self._queue:
                if self._queue[0][1] and not room:
                    return
                entry = self._queue.popleft()
                self._count(-entry[0].size)
                self._launch(peer, entry)
            elif self._replay:
                topic = next(iter(self._replay))
                retained, qos, ids = self._replay[topic]
                if qos and not room:
                    return
                del self._replay[topic]
                self._launch(peer, (retained, qos, True, ids))
            else:
                return

    def acknowledged(self, ack: Ack) -> None:
        """PUBACK, PUBREC or PUBCOMP came; those to nothing of ours are ignored, but a PUBREC is answered."""
        flying = self._flying.get(ack.packet_id)
        if ack.kind == mp.PUBREC:
            if flying is not None and ack.reason < mp.UNSPECIFIED and flying.entry[1] == 2:
                self._count(-flying.entry[0].size if not flying.released else 0)
                flying.released = True
                self._release(ack.packet_id, 0)
                return
            if flying is None and ack.reason < mp.UNSPECIFIED:
                self._release(ack.packet_id, 0x92)  # Packet Identifier not found
                return
        if flying is None or flying.entry[1] != (1 if ack.kind == mp.PUBACK else 2):
            return
        if not flying.released:
            self._count(-flying.entry[0].size)
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
            self._count(entry[0].size)

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
            properties = self._properties(routed, ids)
            frame = routed.frame_with(properties, qos, retain, dup, packet_id)
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

    def _properties(self, routed: Routed, ids: tuple[int, ...]) -> Properties:
        found: Properties = tuple((mp.SUBSCRIPTION_ID, number) for number in ids)
        for key, value in routed.properties:
            if key == mp.MESSAGE_EXPIRY and routed.expires is not None:
                found += ((key, max(0, int(routed.expires - self._shared.now))),)
            else:
                found += ((key, value),)
        return found

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
        if self.waiting_bytes + size > limits.queue_bytes or stats.waiting_bytes + size > limits.memory:
            stats.dropped += 1
            return
        self._queue.append(entry)
        self._count(size)
        if len(self._queue) > limits.queue or self.waiting_bytes > limits.queue_bytes // 2:
            self._shared.crowded[self] = None

    def _drop_one(self) -> None:
        at = next((i for i, entry in enumerate(self._queue) if not entry[1]), 0)
        entry = self._queue[at]
        del self._queue[at]
        self._count(-entry[0].size)
        self._shared.stats.dropped += 1

    def _count(self, size: int) -> None:
        self.waiting_bytes += size
        self._shared.stats.waiting_bytes += size


def forwarded(properties: Properties) -> Properties:
    """Those properties of a message that travel on to subscribers."""
    return tuple(
        (key, value)
        for key, value in properties
        if key not in (mp.TOPIC_ALIAS, mp.SUBSCRIPTION_ID, mp.WILL_DELAY)
    )


def routed_message(source: Publish | Will, now: float) -> Routed:
    """A message as it is passed on."""
    properties = forwarded(source.properties) if source.properties else ()
    seconds = mp.find_int(properties, mp.MESSAGE_EXPIRY, -1) if properties else -1
    expires = now + seconds if seconds >= 0 else None
    return Routed(
        source.topic, source.payload, source.qos, source.retain, properties=properties, expires=expires
    )
