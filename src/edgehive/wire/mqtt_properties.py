"""Properties of MQTT 5.0: the table of what may stand where, and their bytes (2.2.2)."""

from collections.abc import Iterable
from typing import Final

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_packets import PROTOCOL_VIOLATION, MqttError, Properties, Value

BYTE, SHORT, LONG, VARINT, BINARY, TEXT, PAIR = range(7)

WILL: Final = 0
"""The will's properties are a list of their own inside CONNECT; 0 is no packet type."""

_ACKS = (mp.PUBACK, mp.PUBREC, mp.PUBREL, mp.PUBCOMP, mp.SUBACK, mp.UNSUBACK)
_MESSAGE = frozenset({mp.PUBLISH, WILL})

_TABLE: Final[dict[int, tuple[int, frozenset[int]]]] = {
    mp.PAYLOAD_FORMAT: (BYTE, _MESSAGE),
    mp.MESSAGE_EXPIRY: (LONG, _MESSAGE),
    mp.CONTENT_TYPE: (TEXT, _MESSAGE),
    mp.RESPONSE_TOPIC: (TEXT, _MESSAGE),
    mp.CORRELATION_DATA: (BINARY, _MESSAGE),
    mp.SUBSCRIPTION_ID: (VARINT, frozenset({mp.PUBLISH, mp.SUBSCRIBE})),
    mp.SESSION_EXPIRY: (LONG, frozenset({mp.CONNECT, mp.CONNACK, mp.DISCONNECT})),
    mp.ASSIGNED_CLIENT_ID: (TEXT, frozenset({mp.CONNACK})),
    mp.SERVER_KEEP_ALIVE: (SHORT, frozenset({mp.CONNACK})),
    mp.AUTH_METHOD: (TEXT, frozenset({mp.CONNECT, mp.CONNACK, mp.AUTH})),
    mp.AUTH_DATA: (BINARY, frozenset({mp.CONNECT, mp.CONNACK, mp.AUTH})),
    mp.REQUEST_PROBLEM: (BYTE, frozenset({mp.CONNECT})),
    mp.WILL_DELAY: (LONG, frozenset({WILL})),
    mp.REQUEST_RESPONSE: (BYTE, frozenset({mp.CONNECT})),
    mp.RESPONSE_INFORMATION: (TEXT, frozenset({mp.CONNACK})),
    mp.SERVER_REFERENCE: (TEXT, frozenset({mp.CONNACK, mp.DISCONNECT})),
    mp.REASON_STRING: (TEXT, frozenset({mp.CONNACK, mp.DISCONNECT, mp.AUTH, *_ACKS})),
    mp.RECEIVE_MAXIMUM: (SHORT, frozenset({mp.CONNECT, mp.CONNACK})),
    mp.TOPIC_ALIAS_MAXIMUM: (SHORT, frozenset({mp.CONNECT, mp.CONNACK})),
    mp.TOPIC_ALIAS: (SHORT, frozenset({mp.PUBLISH})),
    mp.MAXIMUM_QOS: (BYTE, frozenset({mp.CONNACK})),
    mp.RETAIN_AVAILABLE: (BYTE, frozenset({mp.CONNACK})),
    mp.USER_PROPERTY: (PAIR, frozenset(range(16)) - {mp.PINGREQ, mp.PINGRESP}),
    mp.MAXIMUM_PACKET_SIZE: (LONG, frozenset({mp.CONNECT, mp.CONNACK})),
    mp.WILDCARD_AVAILABLE: (BYTE, frozenset({mp.CONNACK})),
    mp.SUBSCRIPTION_ID_AVAILABLE: (BYTE, frozenset({mp.CONNACK})),
    mp.SHARED_AVAILABLE: (BYTE, frozenset({mp.CONNACK})),
}

_NOT_ZERO = frozenset({mp.SUBSCRIPTION_ID, mp.RECEIVE_MAXIMUM, mp.MAXIMUM_PACKET_SIZE, mp.TOPIC_ALIAS})


MAX_ITEMS: Final = 5_000
"""Filters, or properties, in one packet: what 10 ms suffice for. A packet of 1 MiB could hold 200,000 of them."""


class Cursor:
    """Reads fields off a packet's body; every method raises `MqttError` where the body ends too early."""

    __slots__ = ("_items", "at", "data", "end")

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end is None else end
        self._items = 0

    @property
    def more(self) -> bool:
        """Whether anything is left."""
        return self.at < self.end

    def item(self) -> bool:
        """Whether another filter or property follows.

        Raises:
            MqttError: there are more than one packet should have.
        """
        if self.at >= self.end:
            return False
        self._items += 1
        if self._items > MAX_ITEMS:
            raise MqttError(f"a packet has more than {MAX_ITEMS} filters or properties", mp.QUOTA_EXCEEDED)
        return True

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        at = self.at + count
        if at > self.end:
            raise MqttError("the packet ends within a field")
        taken = self.data[self.at : at]
        self.at = at
        return taken

    def byte(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def short(self) -> int:
        """Two bytes, big end first."""
        return int.from_bytes(self.take(2), "big")

    def long(self) -> int:
        """Four bytes, big end first."""
        return int.from_bytes(self.take(4), "big")

    def varint(self) -> int:
        """A variable byte integer (1.5.5)."""
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise MqttError("a length has more bytes than it needs")
                return value
        raise MqttError("a length has more than four bytes")

    def binary(self) -> bytes:
        """Bytes behind their length."""
        return self.take(self.short())

    def text(self) -> str:
        """A UTF-8 string; no U+0000, no surrogates (1.5.4)."""
        try:
            text = self.binary().decode()
        except UnicodeDecodeError as exc:
            raise MqttError("a string is not UTF-8") from exc
        if "\0" in text:
            raise MqttError("a string contains U+0000")
        return text

    def done(self) -> None:
        """Refuse bytes that nobody asked for."""
        if self.at != self.end:
            raise MqttError("the packet is longer than its fields")


def read_properties(cursor: Cursor, packet: int) -> Properties:
    """Read the property list of a packet of type `packet` (or `WILL`).

    Raises:
        MqttError: unknown, misplaced, repeated or impossible properties.
    """
    length = cursor.varint()
    if not length:
        return ()
    part = Cursor(cursor.data, cursor.at, cursor.at + length)
    cursor.take(length)
    found: list[tuple[int, Value]] = []
    seen: set[int] = set()
    while part.item():
        key = part.varint()
        rule = _TABLE.get(key)
        if rule is None or packet not in rule[1]:
            raise MqttError(f"property {key} does not belong into this packet")
        repeats = key == mp.USER_PROPERTY or (key == mp.SUBSCRIPTION_ID and packet == mp.PUBLISH)
        if key in seen and not repeats:
            raise MqttError(f"property {key} occurs twice", PROTOCOL_VIOLATION)
        seen.add(key)
        found.append((key, _checked(key, _read_value(part, rule[0]))))
    return tuple(found)


def _read_value(cursor: Cursor, kind: int) -> Value:
    match kind:
        case 0:  # BYTE; every one of them is a truth value or the QoS 0 or 1
            value = cursor.byte()
            if value > 1:
                raise MqttError("a property is neither 0 nor 1", PROTOCOL_VIOLATION)
            return value
        case 1:
            return cursor.short()
        case 2:
            return cursor.long()
        case 3:
            return cursor.varint()
        case 4:
            return cursor.binary()
        case 5:
            return cursor.text()
        case _:
            return cursor.text(), cursor.text()


def _checked(key: int, value: Value) -> Value:
    if value == 0 and key in _NOT_ZERO:
        reason = mp.BAD_ALIAS if key == mp.TOPIC_ALIAS else PROTOCOL_VIOLATION
        raise MqttError(f"property {key} is 0", reason)
    if key == mp.RESPONSE_TOPIC and isinstance(value, str) and (not value or "+" in value or "#" in value):
        raise MqttError("a response topic is not a topic", mp.BAD_TOPIC)
    return value


def encode_properties(properties: Properties) -> bytes:
    """The property list with its length."""
    if not properties:
        return b"\0"
    body = join_properties(properties)
    return varint(len(body)) + body


def join_properties(properties: Iterable[tuple[int, Value]]) -> bytes:
    """The property list without its length."""
    return b"".join(_encode(key, value) for key, value in properties)


def _encode(key: int, value: Value) -> bytes:
    kind = _TABLE[key][0]
    head = bytes((key,))
    if isinstance(value, int):
        if kind == VARINT:
            return head + varint(value)
        return head + value.to_bytes((1, 2, 4)[kind], "big")
    if isinstance(value, bytes):
        return head + binary(value)
    if isinstance(value, str):
        return head + text(value)
    return head + text(value[0]) + text(value[1])


def varint(value: int) -> bytes:
    """A variable byte integer."""
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    if value < 0x200000:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    if value > mp.MAX_REMAINING:
        raise MqttError(f"{value} bytes are more than a packet can have", mp.PACKET_TOO_LARGE)
    return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14 & 0x7F | 0x80, value >> 21))


def binary(value: bytes) -> bytes:
    """Bytes behind their length."""
    if len(value) > 0xFFFF:
        raise MqttError(f"a field of {len(value)} bytes is too long", mp.PACKET_TOO_LARGE)
    return len(value).to_bytes(2, "big") + value


def text(value: str) -> bytes:
    """A string behind its length."""
    try:
        return binary(value.encode())
    except UnicodeEncodeError as exc:
        raise MqttError("a string is not UTF-8") from exc
