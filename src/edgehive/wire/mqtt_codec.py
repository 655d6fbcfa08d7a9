"""Bytes of MQTT 3.1.1 and 5.0 to packets and back; broker and client share it.

`PacketReader` cuts a stream into packets, `decode_packet` reads one, `encode_packet` writes one. Whatever arrives,
only `MqttError` comes out.
"""

from collections.abc import Callable
from typing import Final

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_packets import (
    PROTOCOL_VIOLATION,
    V5,
    V31,
    V311,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    MqttError,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from edgehive.wire.mqtt_properties import (
    WILL,
    Cursor,
    binary,
    encode_properties,
    read_properties,
    text,
    varint,
)

_NAMES: Final = {V31: "MQIsdp", V311: "MQTT", V5: "MQTT"}


class PacketReader:
    """Cuts a byte stream into packets of at most `limit` bytes."""

    __slots__ = ("_rest", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._rest = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished packet."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes; return the first byte and the body of every packet that is complete.

        Raises:
            MqttError: a packet is too large, or its length is nonsense. Nothing after it can be read.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < _needs(self._rest, self.limit):
                return []
            data = bytes(self._rest)
            self._rest.clear()
        packets: list[tuple[int, bytes]] = []
        at, end = 0, len(data)
        while end - at >= 2:
            length, body = data[at + 1], at + 2
            if length >= 0x80:
                found = _length(data, at + 1)
                if found is None:
                    break
                length, body = found
            if length > self.limit:
                raise MqttError(f"a packet of {length} bytes is over the limit", mp.PACKET_TOO_LARGE)
            if body + length > end:
                break
            packets.append((data[at], data[body : body + length]))
            at = body + length
        if at < end:
            self._rest += data[at:]
        return packets


def _length(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """The remaining length at `at` and where the body begins; ``None`` where it is not complete."""
    value = 0
    for count in range(4):
        if at + count >= len(data):
            return None
        byte = data[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, at + count + 1
    raise MqttError("a length has more than four bytes")


def _needs(data: bytearray, limit: int) -> int:
    """How many bytes the first packet has, as far as one can tell."""
    found = _length(data, 1) if len(data) > 1 else None
    if found is None:
        return len(data) + 1
    if found[0] > limit:
        raise MqttError(f"a packet of {found[0]} bytes is over the limit", mp.PACKET_TOO_LARGE)
    return found[1] + found[0]


# reading


def decode_packet(first: int, body: bytes, version: int) -> Packet:
    """Read one packet; `version` is that of the connection (anything before CONNECT).

    Raises:
        MqttError: it is malformed.
    """
    kind = first >> 4
    if kind == mp.PUBLISH:
        return _publish(first, body, version)
    wanted = 2 if kind in (mp.PUBREL, mp.SUBSCRIBE, mp.UNSUBSCRIBE) else 0
    if first & 0x0F != wanted:
        raise MqttError("reserved bits are set")
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise MqttError(f"there is no packet of type {kind}")
    return decoder(kind, Cursor(body), version)


def _publish(first: int, body: bytes, version: int) -> Publish:
    qos = first >> 1 & 3
    dup = bool(first & 8)
    if qos == 3 or (dup and not qos):
        raise MqttError("a message has QoS 3, or is a duplicate with QoS 0")
    end = 2 + (body[0] << 8 | body[1]) if len(body) >= 2 else 2
    if end > len(body):
        raise MqttError("the packet ends within a field")
    try:
        topic = body[2:end].decode()
    except UnicodeDecodeError as exc:
        raise MqttError("a topic is not UTF-8") from exc
    if "\0" in topic or "+" in topic or "#" in topic:
        raise MqttError("a topic contains a wildcard or U+0000", mp.BAD_TOPIC)
    packet_id = 0
    if qos:
        if end + 2 > len(body):
            raise MqttError("the packet ends within a field")
        packet_id = body[end] << 8 | body[end + 1]
        end += 2
        if not packet_id:
            raise MqttError("a packet id is 0", PROTOCOL_VIOLATION)
    if version < V5:
        if not topic:
            raise MqttError("a message has no topic", mp.BAD_TOPIC)
        return Publish(topic, body[end:], qos, bool(first & 1), dup, packet_id)
    cursor = Cursor(body, end)
    properties = read_properties(cursor, mp.PUBLISH)
    if not topic and not any(key == mp.TOPIC_ALIAS for key, _ in properties):
        raise MqttError("a message has neither topic nor alias", PROTOCOL_VIOLATION)
    return Publish(topic, body[cursor.at :], qos, bool(first & 1), dup, packet_id, properties)


def _connect(_kind: int, cursor: Cursor, _version: int) -> Connect:
    name, version = cursor.text(), cursor.byte()
    if _NAMES.get(version) != name:
        raise MqttError("the protocol's name or level is not known", mp.UNSUPPORTED_VERSION)
    flags, keepalive = cursor.byte(), cursor.short()
    if flags & 1:
        raise MqttError("reserved bits are set")
    properties = read_properties(cursor, mp.CONNECT) if version == V5 else ()
    client_id = cursor.text()
    will = _will(flags, cursor, version)
    username = cursor.text() if flags & 0x80 else None
    if flags & 0x40 and not flags & 0x80 and version < V5:
        raise MqttError("a password without a user name")
    password = cursor.binary() if flags & 0x40 else None
    cursor.done()
    return Connect(client_id, bool(flags & 2), keepalive, version, will, username, password, properties)


def _will(flags: int, cursor: Cursor, version: int) -> Will | None:
    qos = flags >> 3 & 3
    if not flags & 4:
        if flags & 0x38:
            raise MqttError("will flags without a will")
        return None
    if qos == 3:
        raise MqttError("the will has QoS 3")
    properties = read_properties(cursor, WILL) if version == V5 else ()
    topic = cursor.text()
    if not topic or "+" in topic or "#" in topic:
        raise MqttError("the will's topic is not a topic", mp.BAD_TOPIC)
    return Will(topic, cursor.binary(), qos, bool(flags & 0x20), properties)


def _connack(_kind: int, cursor: Cursor, version: int) -> Connack:
    flags, code = cursor.byte(), cursor.byte()
    if flags > 1:
        raise MqttError("reserved bits are set")
    properties = read_properties(cursor, mp.CONNACK) if version == V5 and cursor.more else ()
    cursor.done()
    return Connack(bool(flags), code, properties)


def _ack(kind: int, cursor: Cursor, version: int) -> Ack:
    packet_id = _packet_id(cursor)
    reason, properties = _reason(kind, cursor) if version == V5 else (0, ())
    cursor.done()
    return Ack(kind, packet_id, reason, properties)


def _reason(kind: int, cursor: Cursor) -> tuple[int, mp.Properties]:
    """Reason and properties may be left out when they say nothing (3.4.2.1)."""
    reason = cursor.byte() if cursor.more else 0
    return reason, read_properties(cursor, kind) if cursor.more else ()


def _packet_id(cursor: Cursor) -> int:
    packet_id = cursor.short()
    if not packet_id:
        raise MqttError("a packet id is 0", PROTOCOL_VIOLATION)
    return packet_id


def _subscribe(_kind: int, cursor: Cursor, version: int) -> Subscribe:
    packet_id = _packet_id(cursor)
    properties = read_properties(cursor, mp.SUBSCRIBE) if version == V5 else ()
    subscriptions: list[Subscription] = []
    while cursor.item():
        name, options = cursor.text(), cursor.byte()
        qos, handling = options & 3, options >> 4 & 3
        if qos == 3 or handling == 3 or options & (0xC0 if version == V5 else 0xFC):
            raise MqttError("a subscription has impossible options", PROTOCOL_VIOLATION)
        subscriptions.append(Subscription(name, qos, bool(options & 4), bool(options & 8), handling))
    if not subscriptions:
        raise MqttError("a SUBSCRIBE without a filter", PROTOCOL_VIOLATION)
    return Subscribe(packet_id, tuple(subscriptions), properties)


def _unsubscribe(_kind: int, cursor: Cursor, version: int) -> Unsubscribe:
    packet_id = _packet_id(cursor)
    properties = read_properties(cursor, mp.UNSUBSCRIBE) if version == V5 else ()
    filters: list[str] = []
    while cursor.item():
        filters.append(cursor.text())
    if not filters:
        raise MqttError("an UNSUBSCRIBE without a filter", PROTOCOL_VIOLATION)
    return Unsubscribe(packet_id, tuple(filters), properties)


def _suback(_kind: int, cursor: Cursor, version: int) -> Suback:
    packet_id = _packet_id(cursor)
    properties = read_properties(cursor, mp.SUBACK) if version == V5 else ()
    return Suback(packet_id, tuple(cursor.take(cursor.end - cursor.at)), properties)


def _unsuback(_kind: int, cursor: Cursor, version: int) -> Unsuback:
    packet_id = _packet_id(cursor)
    properties = read_properties(cursor, mp.UNSUBACK) if version == V5 else ()
    codes = tuple(cursor.take(cursor.end - cursor.at)) if version == V5 else ()
    cursor.done()
    return Unsuback(packet_id, codes, properties)


def _ping(kind: int, cursor: Cursor, _version: int) -> Pingreq | Pingresp:
    cursor.done()
    return Pingreq() if kind == mp.PINGREQ else Pingresp()


def _disconnect(kind: int, cursor: Cursor, version: int) -> Disconnect:
    reason, properties = _reason(kind, cursor) if version == V5 else (0, ())
    cursor.done()
    return Disconnect(reason, properties)


def _auth(kind: int, cursor: Cursor, version: int) -> Auth:
    if version != V5:
        raise MqttError("AUTH exists in MQTT 5.0 only")
    reason, properties = _reason(kind, cursor)
    cursor.done()
    return Auth(reason, properties)


_DECODERS: Final[dict[int, Callable[[int, Cursor, int], Packet]]] = {
    mp.CONNECT: _connect,
    mp.CONNACK: _connack,
    mp.PUBACK: _ack,
    mp.PUBREC: _ack,
    mp.PUBREL: _ack,
    mp.PUBCOMP: _ack,
    mp.SUBSCRIBE: _subscribe,
    mp.SUBACK: _suback,
    mp.UNSUBSCRIBE: _unsubscribe,
    mp.UNSUBACK: _unsuback,
    mp.PINGREQ: _ping,
    mp.PINGRESP: _ping,
    mp.DISCONNECT: _disconnect,
    mp.AUTH: _auth,
}


# writing


def encode_packet(packet: Packet, version: int) -> bytes:
    """Write one packet for a connection of `version` (a CONNECT carries its own).

    Raises:
        MqttError: a field is too long for the wire.
    """
    first, body = _encode(packet, version)
    return bytes((first,)) + varint(len(body)) + body


def _encode(packet: Packet, version: int) -> tuple[int, bytes]:
    five = version == V5
    match packet:
        case Publish():
            properties = encode_properties(packet.properties) if five else b""
            head = text(packet.topic) + (packet.packet_id.to_bytes(2, "big") if packet.qos else b"")
            return publish_flags(packet.qos, packet.retain, packet.dup), head + properties + packet.payload
        case Ack(kind, packet_id, reason, properties):
            tail = _encode_reason(reason, properties) if five else b""
            return kind << 4 | (2 if kind == mp.PUBREL else 0), packet_id.to_bytes(2, "big") + tail
        case Connect():
            return mp.CONNECT << 4, _encode_connect(packet)
        case Connack(present, code, properties):
            tail = encode_properties(properties) if five else b""
            return mp.CONNACK << 4, bytes((present, code)) + tail
        case Pingreq():
            return mp.PINGREQ << 4, b""
        case Pingresp():
            return mp.PINGRESP << 4, b""
        case Disconnect(reason, properties):
            return mp.DISCONNECT << 4, _encode_reason(reason, properties) if five else b""
        case Auth(reason, properties):
            return mp.AUTH << 4, _encode_reason(reason, properties)
        case _:
            return _encode_subscription(packet, five)


def _encode_subscription(
    packet: Subscribe | Suback | Unsubscribe | Unsuback, five: bool
) -> tuple[int, bytes]:
    head = packet.packet_id.to_bytes(2, "big") + (encode_properties(packet.properties) if five else b"")
    match packet:
        case Subscribe():
            body = b"".join(text(s.filter) + bytes((_options(s),)) for s in packet.subscriptions)
            return mp.SUBSCRIBE << 4 | 2, head + body
        case Suback():
            return mp.SUBACK << 4, head + bytes(packet.codes)
        case Unsubscribe():
            return mp.UNSUBSCRIBE << 4 | 2, head + b"".join(map(text, packet.filters))
        case Unsuback():
            return mp.UNSUBACK << 4, head + (bytes(packet.codes) if five else b"")


def publish_flags(qos: int, retain: bool, dup: bool = False) -> int:
    """The first byte of a PUBLISH."""
    return mp.PUBLISH << 4 | dup << 3 | qos << 1 | retain


def _options(subscription: Subscription) -> int:
    s = subscription
    return s.qos | s.no_local << 2 | s.retain_as_published << 3 | s.retain_handling << 4


def _encode_reason(reason: int, properties: mp.Properties) -> bytes:
    if properties:
        return bytes((reason,)) + encode_properties(properties)
    return bytes((reason,)) if reason else b""


def _encode_connect(packet: Connect) -> bytes:
    will, five = packet.will, packet.version == V5
    flags = packet.clean << 1
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
    flags |= (packet.username is not None) << 7 | (packet.password is not None) << 6
    parts = [
        text(_NAMES[packet.version]),
        bytes((packet.version, flags)),
        packet.keepalive.to_bytes(2, "big"),
        encode_properties(packet.properties) if five else b"",
        text(packet.client_id),
    ]
    if will is not None:
        parts += [encode_properties(will.properties) if five else b"", text(will.topic), binary(will.payload)]
    if packet.username is not None:
        parts.append(text(packet.username))
    if packet.password is not None:
        parts.append(binary(packet.password))
    return b"".join(parts)
