"""One message on its way through the broker."""

from typing import Final

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_codec import publish_flags
from edgehive.wire.mqtt_packets import V5, Properties, Publish, Will
from edgehive.wire.mqtt_properties import join_properties, text, varint

OVERHEAD: Final = 200
"""What a waiting message costs besides its text, in bytes, roughly."""


def properties_size(properties: Properties) -> int:
    """About how much memory properties take, in bytes."""
    size = 0
    for _, value in properties:
        if isinstance(value, tuple):
            size += 2 * OVERHEAD + len(value[0]) + len(value[1])
        elif not isinstance(value, int):
            size += OVERHEAD + len(value)
    return size


class Routed:
    """One message on its way to any number of sessions; it keeps its encoded parts."""

    __slots__ = (
        "_fixed",
        "_head",
        "_plain",
        "expires",
        "holders",
        "payload",
        "properties",
        "qos",
        "retain",
        "size",
        "topic",
    )

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
        self.size = OVERHEAD + len(topic) + len(payload)
        if properties:
            self.size += properties_size(properties)
        self.holders = 0
        """Queues it waits in; its text is in memory once."""
        self._fixed: bytes | None = None
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

    def frame_with(self, first: int, packet_id: int, ids: tuple[int, ...], now: float) -> bytes:
        """The PUBLISH of 5.0 with subscription ids and the sender's properties; `packet_id` is 0 with QoS 0."""
        if self._fixed is None:  # once for all subscribers: there may be thousands of user properties
            self._fixed = join_properties(p for p in self.properties if p[0] != mp.MESSAGE_EXPIRY)
        own: Properties = tuple((mp.SUBSCRIPTION_ID, number) for number in ids)
        if self.expires is not None:
            own += ((mp.MESSAGE_EXPIRY, max(0, int(self.expires - now))),)
        listed = join_properties(own) + self._fixed
        parts = (
            text(self.topic),
            packet_id.to_bytes(2, "big") if packet_id else b"",
            varint(len(listed)),
            listed,
            self.payload,
        )
        return b"".join((bytes((first,)), varint(sum(map(len, parts))), *parts))


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
