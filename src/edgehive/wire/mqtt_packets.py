"""The packets of MQTT 3.1.1 and 5.0 as values, and the numbers of the two standards.

Sections named here and in the neighbouring modules are those of OASIS MQTT 5.0. A packet that exists in both versions
is one type; what only 5.0 has stays empty in 3.1.1.
"""

from typing import Final

import msgspec

from edgehive.kit.errors import ProtocolError

V31, V311, V5 = 3, 4, 5
"""Protocol levels. 3 is MQTT 3.1 ("MQIsdp"), which differs from 3.1.1 in its name alone as far as we care."""

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = 8, 9, 10, 11, 12, 13, 14, 15

MAX_REMAINING: Final = 268_435_455
"""The largest length four bytes of seven bits can say (1.5.5)."""

# Reason codes (2.4) that we send or look at.
SUCCESS = 0x00
DISCONNECT_WITH_WILL = 0x04
NO_SUBSCRIPTION = 0x11
UNSPECIFIED = 0x80
MALFORMED_PACKET = 0x81
PROTOCOL_VIOLATION = 0x82
IMPLEMENTATION = 0x83
UNSUPPORTED_VERSION = 0x84
BAD_CLIENT_ID = 0x85
BAD_CREDENTIALS = 0x86
NOT_AUTHORIZED = 0x87
SERVER_UNAVAILABLE = 0x88
SERVER_BUSY = 0x89
SHUTTING_DOWN = 0x8B
BAD_AUTH_METHOD = 0x8C
KEEPALIVE_TIMEOUT = 0x8D
TAKEN_OVER = 0x8E
BAD_FILTER = 0x8F
BAD_TOPIC = 0x90
RECEIVE_MAXIMUM_EXCEEDED = 0x93
BAD_ALIAS = 0x94
PACKET_TOO_LARGE = 0x95
RATE_TOO_HIGH = 0x96
QUOTA_EXCEEDED = 0x97
NO_SHARED_SUBSCRIPTIONS = 0x9E

# Property identifiers (2.2.2.2).
PAYLOAD_FORMAT = 0x01
MESSAGE_EXPIRY = 0x02
CONTENT_TYPE = 0x03
RESPONSE_TOPIC = 0x08
CORRELATION_DATA = 0x09
SUBSCRIPTION_ID = 0x0B
SESSION_EXPIRY = 0x11
ASSIGNED_CLIENT_ID = 0x12
SERVER_KEEP_ALIVE = 0x13
AUTH_METHOD = 0x15
AUTH_DATA = 0x16
REQUEST_PROBLEM = 0x17
WILL_DELAY = 0x18
REQUEST_RESPONSE = 0x19
RESPONSE_INFORMATION = 0x1A
SERVER_REFERENCE = 0x1C
REASON_STRING = 0x1F
RECEIVE_MAXIMUM = 0x21
TOPIC_ALIAS_MAXIMUM = 0x22
TOPIC_ALIAS = 0x23
MAXIMUM_QOS = 0x24
RETAIN_AVAILABLE = 0x25
USER_PROPERTY = 0x26
MAXIMUM_PACKET_SIZE = 0x27
WILDCARD_AVAILABLE = 0x28
SUBSCRIPTION_ID_AVAILABLE = 0x29
SHARED_AVAILABLE = 0x2A

Value = int | str | bytes | tuple[str, str]
Properties = tuple[tuple[int, Value], ...]
"""Properties in the order of the wire: user properties repeat, and their order is theirs to keep (3.3.2.3.7)."""


class MqttError(ProtocolError):
    """The peer broke the protocol or a limit; `reason` is the reason code that says so to it."""

    def __init__(self, message: str, reason: int = MALFORMED_PACKET) -> None:
        super().__init__(message)
        self.reason = reason


class Will(msgspec.Struct, frozen=True, gc=False):
    """What the broker publishes when the client is gone without a goodbye."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = ()


class Connect(msgspec.Struct, frozen=True, gc=False):
    """`clean` is Clean Session of 3.1.1 and Clean Start of 5.0; `keepalive` in seconds, 0 is off."""

    client_id: str
    clean: bool = True
    keepalive: int = 60
    version: int = V311
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None
    properties: Properties = ()


class Connack(msgspec.Struct, frozen=True, gc=False):
    """`code` is a return code in 3.1.1 (0 to 5) and a reason code in 5.0."""

    session_present: bool = False
    code: int = 0
    properties: Properties = ()


class Publish(msgspec.Struct, frozen=True, gc=False):
    """An application message; `packet_id` is 0 with QoS 0."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties = ()


class Ack(msgspec.Struct, frozen=True, gc=False):
    """PUBACK, PUBREC, PUBREL or PUBCOMP, by `kind`."""

    kind: int
    packet_id: int
    reason: int = 0
    properties: Properties = ()


class Subscription(msgspec.Struct, frozen=True, gc=False):
    """One topic filter with its options (3.8.3.1); 3.1.1 knows `qos` only."""

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


class Subscribe(msgspec.Struct, frozen=True, gc=False):
    """A request for one or more subscriptions."""

    packet_id: int
    subscriptions: tuple[Subscription, ...]
    properties: Properties = ()


class Suback(msgspec.Struct, frozen=True, gc=False):
    """Granted QoS or a code from 0x80 on, one for each filter."""

    packet_id: int
    codes: tuple[int, ...]
    properties: Properties = ()


class Unsubscribe(msgspec.Struct, frozen=True, gc=False):
    """A request to end subscriptions."""

    packet_id: int
    filters: tuple[str, ...]
    properties: Properties = ()


class Unsuback(msgspec.Struct, frozen=True, gc=False):
    """`codes` exist in 5.0 only."""

    packet_id: int
    codes: tuple[int, ...] = ()
    properties: Properties = ()


class Pingreq(msgspec.Struct, frozen=True, gc=False):
    """A sign of life."""


class Pingresp(msgspec.Struct, frozen=True, gc=False):
    """Its answer."""


class Disconnect(msgspec.Struct, frozen=True, gc=False):
    """The goodbye; in 5.0 the broker says it too."""

    reason: int = 0
    properties: Properties = ()


class Auth(msgspec.Struct, frozen=True, gc=False):
    """Enhanced authentication of 5.0."""

    reason: int = 0
    properties: Properties = ()


Packet = (
    Connect
    | Connack
    | Publish
    | Ack
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)


def find_int(properties: Properties, identifier: int, default: int) -> int:
    """The number of the first property `identifier`, or `default`."""
    for key, value in properties:
        if key == identifier and isinstance(value, int):
            return value
    return default
