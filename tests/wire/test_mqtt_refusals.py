"""What the broker does not take: packets out of place, connects it refuses."""

import pytest
from mqtt_world import World

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_codec import encode_packet
from edgehive.wire.mqtt_packets import V5, V311, Connack, Connect, Packet, Publish


def test_a_first_packet_that_is_no_connect_is_not_answered(world: World) -> None:
    client = world.dial()
    client.send(mp.Pingreq())
    assert client.ended
    assert client.take() == []
    client.send(mp.Pingreq())  # nothing is read any more
    client.hang_up()
    assert world.broker.connections == 0


@pytest.mark.parametrize(
    ("version", "connect", "answer"),
    [
        (V311, Connect("", clean=False), 2),
        (V5, Connect("x" * 600, version=V5), mp.BAD_CLIENT_ID),
        (V311, Connect("x", will=mp.Will("t", b"x" * 20_000)), 3),
        (V5, Connect("x", version=V5, will=mp.Will("/" * 100, b"")), mp.BAD_TOPIC),
        (V5, Connect("x", version=V5, properties=((mp.AUTH_METHOD, "m"),)), mp.BAD_AUTH_METHOD),
    ],
)
def test_refused_connects(world: World, version: int, connect: Connect, answer: int) -> None:
    client = world.dial(version)
    client.send(connect)
    assert client.ended
    assert client.take() == [Connack(False, answer)]


def test_an_unknown_version_is_told_so(world: World) -> None:
    client = world.dial()
    data = bytearray(encode_packet(Connect("x"), V311))
    data[8] = 6
    world.broker.receive(client.peer, bytes(data), world.now)
    world.flush()
    assert client.ended
    assert client.take() == [Connack(False, 1)]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (Connect("x", version=V5), mp.PROTOCOL_VIOLATION),
        (mp.Suback(1, (0,)), mp.PROTOCOL_VIOLATION),
        (mp.Auth(), mp.BAD_AUTH_METHOD),
        (Publish("t", properties=((mp.TOPIC_ALIAS, 1),)), mp.BAD_ALIAS),
        (Publish("t", properties=((mp.SUBSCRIPTION_ID, 1),)), mp.PROTOCOL_VIOLATION),
        (Publish("/" * 100), mp.BAD_TOPIC),
        (mp.Disconnect(0, ((mp.SESSION_EXPIRY, 5),)), mp.PROTOCOL_VIOLATION),
    ],
)
def test_what_is_out_of_place_ends_that_connection_alone(world: World, packet: Packet, reason: int) -> None:
    client, other = world.open(V5), world.open(V5)
    client.take()
    client.send(packet, Publish("t"))
    assert client.ended
    assert client.take() == [mp.Disconnect(reason)]
    assert other.subscribe("t") == (0,)
    assert other.messages() == []
