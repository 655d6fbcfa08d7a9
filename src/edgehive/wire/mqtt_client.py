"""A client's connection to an MQTT broker, without the socket: when to dial, what to send, what came in.

Messages to publish wait in a bounded queue while there is no broker; the oldest goes for a new one, and is counted.
With QoS 1 a message stays until the broker has acknowledged it: it may arrive twice, it is not lost with a connection.
Sessions are clean, as KubeEdge's are; the wanted subscriptions are made again at every connection.

3.1.1 is spoken, which every 5.0 broker understands; one that refuses the version is asked in 5.0 next time.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from edgehive.kit.backoff import Backoff
from edgehive.kit.text import safe_label
from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_codec import PacketReader, decode_packet, encode_packet
from edgehive.wire.mqtt_packets import (
    V5,
    V311,
    Ack,
    Connack,
    Connect,
    Disconnect,
    MqttError,
    Packet,
    Pingreq,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsubscribe,
    find_int,
)

_BATCH: Final = 64  # filters in one SUBSCRIBE
_OVERHEAD: Final = 100
_REFUSALS: Final = {
    1: "it does not speak this version of MQTT",
    2: "it does not take this client id",
    3: "it is not available",
    4: "user name or password is wrong",
    5: "we are not authorized",
    mp.UNSUPPORTED_VERSION: "it does not speak this version of MQTT",
    mp.BAD_CLIENT_ID: "it does not take this client id",
    mp.BAD_CREDENTIALS: "user name or password is wrong",
    mp.NOT_AUTHORIZED: "we are not authorized",
}


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Who we are, and bounds; times in seconds, sizes in bytes."""

    client_id: str
    username: str = ""
    password: str = field(default="", repr=False)
    keepalive: int = 30
    answer_timeout: float = 10.0
    """For CONNACK and PINGRESP."""
    dial_timeout: float = 30.0
    queue: int = 1_000
    queue_bytes: int = 4 << 20
    in_flight: int = 32
    packet: int = 4 << 20
    """Largest packet we take."""
    reconnect: float = 1.0
    reconnect_max: float = 30.0
    reconnect_jitter: float = 0.5
    stable_after: float = 10.0


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a connection now; then call `receive_connected` or `receive_closed`."""


@dataclass(frozen=True, slots=True)
class Up:
    """The broker has accepted us."""


@dataclass(frozen=True, slots=True)
class Down:
    """The connection is over; close the socket if it is still open."""

    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """A message came. Once it has been taken care of, call `acknowledge`."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int


@dataclass(frozen=True, slots=True)
class NotSubscribed:
    """The broker refused a filter."""

    filter: str


ClientEvent = Dial | Up | Down | Received | NotSubscribed


class _State(Enum):
    WAITING = "waiting"
    DIALING = "dialing"
    GREETING = "greeting"
    UP = "up"


@dataclass(frozen=True, slots=True)
class _Waiting:
    topic: str
    payload: bytes
    qos: int
    retain: bool

    @property
    def size(self) -> int:
        return _OVERHEAD + len(self.topic) + len(self.payload)


class MqttLink:
    """One client over all its connections; after every call the shell asks `events`, `data_to_send`, `deadline`."""

    def __init__(self, *, options: ClientOptions, now: float, rng: Callable[[], float]) -> None:
        self.options: Final = options
        self._state = _State.WAITING
        self._backoff = Backoff(
            options.reconnect, options.reconnect_max, jitter=options.reconnect_jitter, rng=rng
        )
        self._version = V311
        self._next_dial = now
        self._limit = 0.0
        """By when the dial or the CONNACK is due."""
        self._heard = self._asked = self._up_since = now
        self._keepalive = options.keepalive
        self._window = options.in_flight
        self._largest = mp.MAX_REMAINING
        self._reader = PacketReader(options.packet)
        self._out: list[bytes] = []
        self._queue: deque[_Waiting] = deque()
        self._queue_bytes = 0
        self._flying: dict[int, _Waiting] = {}
        self._last_id = 0
        self._wanted: dict[str, int] = {}
        self._subscribed: dict[str, int] = {}
        self._asking: dict[int, tuple[str, ...]] = {}
        self._unreleased: set[int] = set()
        self._events: list[ClientEvent] = []
        self.dropped = 0
        """Messages lost to a full queue, or larger than the broker takes."""
        self.published = 0
        """Messages the broker has acknowledged, or that were sent with QoS 0."""

    @property
    def up(self) -> bool:
        """Whether the broker is connected."""
        return self._state is _State.UP

    @property
    def waiting(self) -> int:
        """Messages that the broker has not acknowledged."""
        return len(self._queue) + len(self._flying)

    # what others call

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> None:
        """Publish now or when there is a broker; `topic` is a valid topic, `qos` 0 or 1."""
        entry = _Waiting(topic, payload, qos, retain)
        limits = self.options
        while self._queue and (
            self.waiting >= limits.queue or self._queue_bytes + entry.size > limits.queue_bytes
        ):
            self._queue_bytes -= self._queue.popleft().size
            self.dropped += 1
        if self._queue_bytes + entry.size > limits.queue_bytes:
            self.dropped += 1
            return
        self._queue.append(entry)
        self._queue_bytes += entry.size

    def subscribe_to(self, filters: Iterable[str], qos: int) -> None:
        """Want exactly these valid filters from now on."""
        self._wanted = dict.fromkeys(filters, qos)
        if self._state is _State.UP:
            self._subscribe()

    def acknowledge(self, message: Received) -> None:
        """The message has been taken care of."""
        if self._state is _State.UP and message.qos:
            self._send(Ack(mp.PUBACK if message.qos == 1 else mp.PUBREC, message.packet_id))

    # the connection

    def receive_connected(self, now: float) -> None:
        """The dial succeeded."""
        if self._state is not _State.DIALING:
            return
        options = self.options
        self._state = _State.GREETING
        self._limit = now + options.answer_timeout
        self._heard = self._asked = now
        self._reader = PacketReader(options.packet)
        self._out.clear()
        self._send(
            Connect(
                options.client_id,
                clean=True,
                keepalive=options.keepalive,
                version=self._version,
                username=options.username or None,
                # As there: a password goes with a user name only.
                password=options.password.encode() if options.username and options.password else None,
            )
        )

    def receive_closed(self, reason: str, now: float) -> None:
        """The dial failed or the socket is gone."""
        if self._state is _State.WAITING:
            return
        if self._state is _State.UP and now - self._up_since >= self.options.stable_after:
            self._backoff.reset()
        self._state = _State.WAITING
        self._next_dial = now + self._backoff.next()
        self._out.clear()
        self._queue.extendleft(reversed(self._flying.values()))
        self._queue_bytes += sum(entry.size for entry in self._flying.values())
        self._flying.clear()
        self._subscribed.clear()
        self._asking.clear()
        self._unreleased.clear()
        self._events.append(Down(reason))

    def receive_data(self, data: bytes, now: float) -> None:
        """Bytes came from the broker; what breaks the protocol ends the connection."""
        if not self._open():
            return
        self._heard = now
        try:
            for first, body in self._reader.feed(data):
                self._packet(decode_packet(first, body, self._version), now)
                if not self._open():
                    return
        except MqttError as exc:
            self.receive_closed(f"the broker broke the protocol: {safe_label(str(exc))}", now)

    # the clock

    def handle_timer(self, now: float) -> None:
        """Dial, ping, time-outs, whatever is due."""
        if self._state is _State.WAITING:
            if now >= self._next_dial:
                self._state = _State.DIALING
                self._limit = now + self.options.dial_timeout
                self._events.append(Dial())
        elif self._state is not _State.UP:
            if now >= self._limit:
                self.receive_closed("the broker did not answer in time", now)
        elif self._keepalive:
            if self._asked > self._heard and now >= self._asked + self.options.answer_timeout:
                self.receive_closed("the broker does not answer", now)
            elif self._asked <= self._heard and now >= self._heard + self._keepalive / 2:
                self._asked = now
                self._send(Pingreq())

    def deadline(self) -> float | None:
        """When `handle_timer` wants to be called next."""
        if self._state is _State.WAITING:
            return self._next_dial
        if self._state is not _State.UP:
            return self._limit
        if not self._keepalive:
            return None
        if self._asked > self._heard:
            return self._asked + self.options.answer_timeout
        return self._heard + self._keepalive / 2

    def events(self) -> list[ClientEvent]:
        """What has happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> bytes:
        """What to write now; ask only while the socket takes data."""
        if self._state is _State.UP:
            while self._queue and (not self._queue[0].qos or len(self._flying) < self._window):
                self._launch(self._queue.popleft())
        data = b"".join(self._out)
        self._out.clear()
        return data

    def goodbye(self) -> bytes:
        """What to write before the socket is closed on purpose."""
        return encode_packet(Disconnect(), self._version) if self._state is _State.UP else b""

    # packets

    def _open(self) -> bool:
        return self._state in (_State.GREETING, _State.UP)

    def _packet(self, packet: Packet, now: float) -> None:
        if self._state is _State.GREETING:
            if not isinstance(packet, Connack):
                raise MqttError("its first packet is no CONNACK", mp.PROTOCOL_VIOLATION)
            self._greeted(packet, now)
            return
        if len(self._out) > self.options.queue:
            raise MqttError("it sends and does not read")
        match packet:
            case Publish():
                self._message(packet)
            case Ack():
                self._acknowledged(packet)
            case Suback(packet_id, codes):
                names = self._asking.pop(packet_id, ())
                refused = [name for name, code in zip(names, codes, strict=False) if code >= 0x80]
                self._events.extend(NotSubscribed(name) for name in refused)
            case Disconnect(reason):
                self.receive_closed(f"the broker disconnects us (reason 0x{reason:02x})", now)
            case Connack():
                raise MqttError("a second CONNACK", mp.PROTOCOL_VIOLATION)
            case _:
                pass  # PINGRESP, UNSUBACK

    def _greeted(self, packet: Connack, now: float) -> None:
        if packet.code:
            unknown = packet.code in (1, mp.UNSUPPORTED_VERSION)
            if unknown:
                self._version = V5 if self._version == V311 else V311
            why = _REFUSALS.get(packet.code, f"code 0x{packet.code:02x}")
            self.receive_closed(f"the broker refuses us: {why}", now)
            return
        self._state = _State.UP
        self._up_since = now
        self._keepalive = find_int(packet.properties, mp.SERVER_KEEP_ALIVE, self.options.keepalive)
        offered = find_int(packet.properties, mp.RECEIVE_MAXIMUM, self.options.in_flight)
        self._window = min(self.options.in_flight, offered)
        self._largest = find_int(packet.properties, mp.MAXIMUM_PACKET_SIZE, mp.MAX_REMAINING)
        self._events.append(Up())
        self._subscribe()

    def _message(self, packet: Publish) -> None:
        if packet.qos == 2:
            if packet.packet_id in self._unreleased:
                self._send(Ack(mp.PUBREC, packet.packet_id))
                return
            if len(self._unreleased) >= self.options.queue:
                raise MqttError("too many messages are not released", mp.RECEIVE_MAXIMUM_EXCEEDED)
            self._unreleased.add(packet.packet_id)
        self._events.append(Received(packet.topic, packet.payload, packet.qos, packet.packet_id))

    def _acknowledged(self, packet: Ack) -> None:
        if packet.kind == mp.PUBREL:
            self._unreleased.discard(packet.packet_id)
            self._send(Ack(mp.PUBCOMP, packet.packet_id))
        elif packet.kind == mp.PUBACK and self._flying.pop(packet.packet_id, None) is not None:
            self.published += 1

    def _launch(self, entry: _Waiting) -> None:
        self._queue_bytes -= entry.size
        packet_id = self._next_id() if entry.qos else 0
        frame = encode_packet(
            Publish(entry.topic, entry.payload, entry.qos, entry.retain, packet_id=packet_id), self._version
        )
        if len(frame) > self._largest:
            self.dropped += 1
            return
        if entry.qos:
            self._flying[packet_id] = entry
        else:
            self.published += 1
        self._out.append(frame)

    def _subscribe(self) -> None:
        gone = tuple(name for name in self._subscribed if name not in self._wanted)
        for at in range(0, len(gone), _BATCH):
            self._send(Unsubscribe(self._next_id(), gone[at : at + _BATCH]))
        new = tuple(name for name, qos in self._wanted.items() if self._subscribed.get(name) != qos)
        for at in range(0, len(new), _BATCH):
            names = new[at : at + _BATCH]
            packet_id = self._next_id()
            self._asking[packet_id] = names
            self._send(Subscribe(packet_id, tuple(Subscription(name, self._wanted[name]) for name in names)))
        self._subscribed = dict(self._wanted)

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % 0xFFFF + 1
            if self._last_id not in self._flying and self._last_id not in self._asking:
                return self._last_id

    def _send(self, packet: Packet) -> None:
        self._out.append(encode_packet(packet, self._version))
