"""How the broker answers a CONNECT: what it refuses, what it grants."""

from typing import Final

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_limits import BrokerLimits
from edgehive.wire.mqtt_packets import V5, Connect, Properties, find_int
from edgehive.wire.mqtt_routed import properties_size
from edgehive.wire.mqtt_topics import is_topic

_REJECTED_ID: Final = 2
_UNAVAILABLE: Final = 3
_NOT_AUTHORIZED: Final = 5

_OLD_CODES: Final = {
    mp.BAD_CLIENT_ID: _REJECTED_ID,
    mp.BAD_AUTH_METHOD: _NOT_AUTHORIZED,
    mp.BAD_TOPIC: _UNAVAILABLE,
    mp.PACKET_TOO_LARGE: _UNAVAILABLE,
}


class Refused(mp.MqttError):
    """The CONNECT is well-formed and not accepted; `code` goes into the CONNACK."""

    def __init__(self, message: str, reason: int, version: int) -> None:
        super().__init__(message, reason)
        self.code = reason if version == V5 else _OLD_CODES.get(reason, _UNAVAILABLE)


def check_connect(packet: Connect, limits: BrokerLimits) -> None:
    """Refuse what cannot be had here.

    Raises:
        Refused: with the code for the client.
    """
    version = packet.version
    if len(packet.client_id) > limits.client_id:
        raise Refused("the client id is too long", mp.BAD_CLIENT_ID, version)
    if not packet.client_id and not packet.clean and version < V5:
        raise Refused("a session to keep needs a client id", mp.BAD_CLIENT_ID, version)
    if any(key == mp.AUTH_METHOD for key, _ in packet.properties):
        raise Refused("there is no enhanced authentication here", mp.BAD_AUTH_METHOD, version)
    will = packet.will
    if will is not None:
        if not is_topic(will.topic):
            raise Refused("the will's topic has too many levels", mp.BAD_TOPIC, version)
        if len(will.payload) + properties_size(will.properties) > limits.will:
            raise Refused("the will is too long", mp.PACKET_TOO_LARGE, version)


def session_expiry(packet: Connect, limits: BrokerLimits) -> int:
    """Seconds the session outlives its connection."""
    if packet.version < V5:
        return 0 if packet.clean else limits.session_expiry
    return min(find_int(packet.properties, mp.SESSION_EXPIRY, 0), limits.session_expiry)


def answer_properties(packet: Connect, name: str, expiry: int, limits: BrokerLimits) -> Properties:
    """What a 5.0 client is told in the CONNACK."""
    told: Properties = (
        (mp.RECEIVE_MAXIMUM, limits.receive_maximum),
        (mp.MAXIMUM_PACKET_SIZE, limits.packet),
        (mp.SHARED_AVAILABLE, 0),
    )
    if not packet.client_id:
        told += ((mp.ASSIGNED_CLIENT_ID, name),)
    if find_int(packet.properties, mp.SESSION_EXPIRY, 0) != expiry:
        told += ((mp.SESSION_EXPIRY, expiry),)
    return told
