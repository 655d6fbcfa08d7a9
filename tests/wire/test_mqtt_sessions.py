"""What outlives a connection at the broker: sessions, retained messages, wills."""

from typing import Any

import pytest
from mqtt_world import VERSIONS, Client, World

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_packets import V5, V311, Ack, Connack, Publish, Subscription


@pytest.mark.parametrize("version", VERSIONS)
def test_an_absent_session_keeps_qos_1_in_order_and_not_qos_0(world: World, version: int) -> None:
    lasting: dict[str, Any] = (
        {"clean": False} if version == V311 else {"clean": False, "properties": ((mp.SESSION_EXPIRY, 60),)}
    )
    client = world.open(version, client_id="c", **lasting)
    client.subscribe("t", qos=1)
    client.hang_up()
    for number in range(40):
        world.publish("t", b"%d" % number, qos=number % 2)
    client = world.open(version, client_id="c", **lasting)
    found: list[bytes] = []
    while messages := client.messages():
        found += [m.payload for m in messages]
        client.send(*(Ack(mp.PUBACK, m.packet_id) for m in messages))
    assert found == [b"%d" % n for n in range(40) if n % 2]
    client.send(mp.Disconnect())
    world.pass_time(61 if version == V5 else 86_401)
    assert world.broker.sessions == 0


def test_a_clean_session_ends_with_its_connection(world: World) -> None:
    client = world.open(client_id="c")
    client.subscribe("t", qos=1)
    client.hang_up()
    world.publish("t", qos=1)
    again = world.open(client_id="c", clean=False)
    assert world.inboxes[again.peer] == [Connack(False, 0)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_id_is_taken_over(world: World, version: int) -> None:
    first = world.open(version, client_id="c")
    first.take()
    second = world.open(version, client_id="c")
    assert first.ended
    assert not second.ended
    assert first.take() == ([mp.Disconnect(mp.TAKEN_OVER)] if version == V5 else [])
    first.hang_up()
    assert world.broker.connections == 1
    assert second.subscribe("t") == (0,)


def test_retained_messages(world: World) -> None:
    world.publish("r/1", b"old", retain=True)
    world.publish("r/1", b"one", qos=1, retain=True)
    world.publish("r/2", b"two", retain=True)
    client = world.open()
    client.subscribe("r/#", qos=1)
    assert sorted((m.payload, m.qos, m.retain) for m in client.messages()) == [
        (b"one", 1, True),
        (b"two", 0, True),
    ]
    world.publish("r/1", b"now", retain=True)
    assert [(m.payload, m.retain) for m in client.messages()] == [(b"now", False)]
    world.publish("r/1", b"", retain=True)
    assert client.payloads() == [b""]
    assert world.broker.retained == 1


def test_more_retained_messages_than_the_queue_holds_arrive_all(world: World) -> None:
    for number in range(1000):
        world.publish(f"r/{number}", b"v" * 2000, qos=1, retain=True)
    client = world.open()
    client.subscribe("#", qos=1)
    found = 0
    while messages := client.messages():
        found += len(messages)
        client.send(*(Ack(mp.PUBACK, m.packet_id) for m in messages))
    assert found == 1000
    assert world.broker.stats.dropped == 0


def test_a_will_goes_out_without_a_goodbye_only(world: World) -> None:
    watcher = world.open()
    watcher.subscribe("will")
    will = mp.Will("will", b"gone")
    world.open(will=will).hang_up()
    assert watcher.payloads() == [b"gone"]
    client = world.open(will=will)
    client.send(mp.Disconnect())
    client.hang_up()
    assert watcher.payloads() == []
    with_will = world.open(V5, will=will)
    with_will.send(mp.Disconnect(mp.DISCONNECT_WITH_WILL))
    assert watcher.payloads() == [b"gone"]
    silent = world.open(will=will, keepalive=10)
    silent.subscribe("x")
    for _ in range(16):
        watcher.send(mp.Pingreq())
        world.pass_time(1)
    assert silent.ended
    assert watcher.payloads() == [b"gone"]


def test_a_delayed_will_waits_for_the_client_to_come_back(world: World) -> None:
    watcher = world.open(keepalive=0)
    watcher.subscribe("will")
    properties: mp.Properties = ((mp.SESSION_EXPIRY, 100),)
    will = mp.Will("will", b"gone", properties=((mp.WILL_DELAY, 10),))

    def connect() -> Client:
        return world.open(V5, client_id="c", clean=False, will=will, properties=properties)

    connect().hang_up()
    world.pass_time(5)
    client = connect()
    world.pass_time(20)
    assert watcher.payloads() == []
    client.hang_up()
    world.pass_time(11)
    assert watcher.payloads() == [b"gone"]


def test_a_clean_start_ends_the_session_before_and_its_delayed_will_goes_out(world: World) -> None:
    watcher = world.open(keepalive=0)
    watcher.subscribe("will", "t")
    lasting: dict[str, Any] = {"client_id": "c", "properties": ((mp.SESSION_EXPIRY, 100),)}
    will = mp.Will("will", b"gone", properties=((mp.WILL_DELAY, 50),))
    client = world.open(V5, clean=False, will=will, **lasting)
    client.subscribe("t", qos=1)
    client.hang_up()
    world.publish("t", b"for the old one", qos=1)
    assert watcher.payloads() == [b"for the old one"]
    again = world.open(V5, clean=True, **lasting)
    assert watcher.payloads() == [b"gone"]
    (connack,) = world.inboxes[again.peer]
    assert isinstance(connack, Connack)
    assert not connack.session_present
    assert world.broker.stats.waiting_bytes == 0


def test_a_goodbye_may_change_how_long_the_session_lasts_and_the_longest_is_told(world: World) -> None:
    client = world.open(V5, client_id="c", clean=False, properties=((mp.SESSION_EXPIRY, 2**32 - 1),))
    (connack,) = client.take()
    assert isinstance(connack, Connack)
    assert dict(connack.properties)[mp.SESSION_EXPIRY] == 86_400
    client.send(mp.Disconnect(0, ((mp.SESSION_EXPIRY, 5),)))
    world.pass_time(4)
    assert world.broker.sessions == 1
    world.pass_time(2)
    assert world.broker.sessions == 0


def test_everybody_is_told_when_the_broker_stops(world: World) -> None:
    old, new = world.open(), world.open(V5)
    old.take()
    new.take()
    world.broker.shut_down(world.now)
    world.flush()
    assert old.ended
    assert old.take() == []
    assert new.take() == [mp.Disconnect(mp.SHUTTING_DOWN)]


def test_messages_of_qos_0_do_not_wait_for_an_absent_client(world: World) -> None:
    client = world.open(client_id="c", clean=False)
    client.subscribe("t", qos=1)
    client.peer.stalled = world.now
    for qos in (0, 1, 0, 1):
        world.publish("t", b"%d" % qos, qos=qos)
    client.hang_up()
    assert world.open(client_id="c", clean=False).payloads() == [b"1", b"1"]


def test_what_is_retained_is_looked_up_once_however_often_it_is_asked_for(world: World) -> None:
    for number in range(80):
        world.publish(f"r/{number}", b"v", retain=True)
    client = world.open()
    client.take()
    before = client.peer.messages
    asked = [mp.Subscribe(7, (Subscription("r/#", 0), Subscription("r/+", 1))) for _ in range(50)]
    client.send(*asked, mp.Unsubscribe(8, ("r/+",)))
    assert len([p for p in client.take() if isinstance(p, Publish)] + client.messages()) == 80
    assert client.peer.messages - before == 51 + 101 + 10, "packets, filters, and a look at what is retained"
