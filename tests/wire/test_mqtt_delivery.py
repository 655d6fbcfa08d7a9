"""What the broker does with a message: QoS, repetition, queues, subscribers that match twice."""

from typing import Any

import pytest
from mqtt_world import VERSIONS, World

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_codec import encode_packet
from edgehive.wire.mqtt_packets import V5, V311, Ack, Connack, Publish, Subscription


@pytest.mark.parametrize("version", VERSIONS)
def test_a_message_reaches_its_subscribers_once_with_the_lower_qos(world: World, version: int) -> None:
    sender, other = world.open(version), world.open(version)
    assert other.subscribe("a/+", "a/#", "b", qos=1) == (1, 1, 1)
    sender.take()
    sender.publish("a/b", b"1", qos=2, packet_id=9)
    assert sender.take() == [Ack(mp.PUBREC, 9)]
    sender.send(Ack(mp.PUBREL, 9))
    assert sender.take() == [Ack(mp.PUBCOMP, 9)]
    (message,) = other.messages()
    assert (message.topic, message.payload, message.qos, message.retain) == ("a/b", b"1", 1, False)
    sender.publish("a/b", b"0")
    assert [m.qos for m in other.messages()] == [0]
    other.send(mp.Unsubscribe(3, ("a/+", "a/#", "nope")))
    codes = (0, 0, 0x11) if version == V5 else ()
    assert other.take() == [mp.Unsuback(3, codes)]
    sender.publish("a/b")
    assert not other.messages()


def test_a_duplicate_of_qos_2_is_passed_on_once(world: World) -> None:
    sender, other = world.open(), world.open()
    other.subscribe("t", qos=2)
    for dup in (False, True, True):
        sender.publish("t", qos=2, packet_id=5, dup=dup)
    assert len(other.messages()) == 1
    sender.send(Ack(mp.PUBREL, 5))
    sender.publish("t", qos=2, packet_id=5)
    assert len(other.messages()) == 1


def test_qos_2_is_finished_by_its_four_steps_and_survives_a_cut_at_each(world: World) -> None:
    client = world.open(client_id="c", clean=False)
    client.subscribe("t", qos=2)
    world.publish("t", b"1", qos=2)
    (first,) = client.messages()
    client.hang_up()
    client = world.open(client_id="c", clean=False)
    (connack, again) = world.inboxes[client.peer]
    assert connack == Connack(True, 0)
    assert isinstance(again, Publish)
    assert again.dup
    assert again.packet_id == first.packet_id
    client.send(Ack(mp.PUBREC, first.packet_id))
    client.hang_up()
    client = world.open(client_id="c", clean=False)
    assert world.inboxes[client.peer][1:] == [Ack(mp.PUBREL, first.packet_id)]
    client.send(Ack(mp.PUBCOMP, first.packet_id))
    client.hang_up()
    client = world.open(client_id="c", clean=False)
    assert world.inboxes[client.peer] == [Connack(True, 0)]
    assert world.broker.stats.waiting_bytes == 0


def test_mqtt_5_options_ids_and_properties(world: World) -> None:
    client, sender = world.open(V5), world.open(V5)
    (answer,) = client.take()
    assert isinstance(answer, Connack)
    told = dict(answer.properties)
    assert told[mp.ASSIGNED_CLIENT_ID].startswith("auto-")  # type: ignore[union-attr]
    assert told[mp.SHARED_AVAILABLE] == 0
    assert mp.TOPIC_ALIAS_MAXIMUM not in told
    client.subscribe("a/#", number=5)
    client.subscribe(Subscription("a/b", 0, no_local=True, retain_as_published=True), number=6)
    kept: mp.Properties = (
        (mp.CONTENT_TYPE, "json"),
        (mp.USER_PROPERTY, ("k", "2")),
        (mp.USER_PROPERTY, ("k", "1")),
    )
    sender.publish("a/b", b"1", retain=True, properties=kept)
    (message,) = client.messages()
    assert message.retain
    assert sorted(v for k, v in message.properties if k == mp.SUBSCRIPTION_ID) == [5, 6]  # type: ignore[type-var]
    assert tuple(p for p in message.properties if p[0] != mp.SUBSCRIPTION_ID) == kept
    client.publish("a/b", b"2")
    (own,) = client.messages()
    assert [v for k, v in own.properties if k == mp.SUBSCRIPTION_ID] == [5]
    client.subscribe(Subscription("a/b", retain_handling=2))
    client.subscribe(Subscription("a/b", retain_handling=1))
    assert client.messages() == []
    client.subscribe(Subscription("+/b", retain_handling=1))
    assert client.payloads() == [b"1"]
    assert client.subscribe("$share/g/t", "a#") == (mp.NO_SHARED_SUBSCRIPTIONS, mp.BAD_FILTER)


def test_messages_expire(world: World) -> None:
    lasting: dict[str, Any] = {"client_id": "c", "clean": False, "properties": ((mp.SESSION_EXPIRY, 500),)}
    client, sender = world.open(V5, **lasting), world.open(V5, keepalive=0)
    client.subscribe("t", qos=1)
    client.hang_up()
    for seconds in (10, 100):
        properties: mp.Properties = ((mp.MESSAGE_EXPIRY, seconds),)
        sender.publish("t", b"%d" % seconds, qos=1, packet_id=1, properties=properties, retain=True)
    world.pass_time(30)
    client = world.open(V5, **lasting)
    (message,) = client.messages()
    assert (message.payload, message.properties) == (b"100", ((mp.MESSAGE_EXPIRY, 70),))
    world.pass_time(100)
    assert world.broker.retained == 0


def test_a_client_says_how_much_it_takes(world: World) -> None:
    properties: mp.Properties = ((mp.RECEIVE_MAXIMUM, 2), (mp.MAXIMUM_PACKET_SIZE, 100))
    client = world.open(V5, properties=properties)
    client.subscribe("t", qos=1)
    for number in range(4):
        world.publish("t", b"%d" % number, qos=1)
    world.publish("t", b"x" * 200, qos=1)
    first = client.messages()
    assert [m.payload for m in first] == [b"0", b"1"]
    client.send(Ack(mp.PUBACK, first[0].packet_id))
    assert client.payloads() == [b"2"]
    client.send(Ack(mp.PUBACK, first[1].packet_id))
    client.send(Ack(mp.PUBACK, 3))
    assert client.payloads() == [b"3"]
    assert world.broker.stats.dropped == 1


def test_own_filters_see_what_clients_publish_and_not_what_the_broker_does(world: World) -> None:
    world.broker.own_filters(["up/#"])
    client = world.open(will=mp.Will("up/will", b"w"))
    client.publish("up/1", b"1", qos=1, packet_id=1)
    client.publish("down", b"2")
    world.publish("up/2", b"3")
    client.hang_up()
    found = [(m.topic, m.payload, m.qos) for m in world.broker.inbound]
    assert found == [("up/1", b"1", 1), ("up/will", b"w", 0)]


def test_a_sender_whose_message_could_not_be_stored_gets_no_ack(world: World) -> None:
    world.broker.own_filters(["up"])
    client = world.open(V5)
    client.take()
    world.broker.receive(client.peer, encode_packet(Publish("up", qos=1, packet_id=1), V5), world.now)
    world.broker.fail(client.peer, "disk full")
    world.flush()
    assert client.take() == [mp.Disconnect(mp.SERVER_BUSY)]


def test_acknowledgements_that_fit_nothing(world: World) -> None:
    client = world.open(V5)
    client.subscribe("t", qos=2)
    client.send(Ack(mp.PUBREC, 77))
    assert client.take() == [Ack(mp.PUBREL, 77, 0x92)]
    client.send(Ack(mp.PUBACK, 77), Ack(mp.PUBCOMP, 77), Ack(mp.PUBREC, 77, 0x80))
    assert client.take() == []
    world.publish("t", qos=2)
    (message,) = client.messages()
    client.send(Ack(mp.PUBACK, message.packet_id))
    assert world.broker.stats.waiting_bytes > 0, "that is the wrong acknowledgement for QoS 2"
    client.send(Ack(mp.PUBREC, message.packet_id, 0x80))
    assert world.broker.stats.waiting_bytes == 0, "refused, and thereby done"
    client.send(mp.Pingreq())
    assert client.take() == [mp.Pingresp()]


def test_an_acknowledgement_of_the_former_connection_ends_the_repetition() -> None:
    world = World(in_flight=2)
    client = world.open(client_id="c", clean=False)
    client.subscribe("t", qos=1)
    for number in range(2):
        world.publish("t", b"%d" % number, qos=1)
    ids = [m.packet_id for m in client.messages()]
    client.hang_up()
    client = world.open(
        V5, client_id="c", clean=False, properties=((mp.RECEIVE_MAXIMUM, 1), (mp.SESSION_EXPIRY, 9))
    )
    assert [m.packet_id for m in client.messages()] == ids[:1]
    client.send(Ack(mp.PUBACK, ids[1]))
    client.send(Ack(mp.PUBACK, ids[0]))
    assert client.messages() == []
    assert world.broker.stats.waiting_bytes == 0


def test_overlapping_subscriptions_give_the_best_qos_once(world: World) -> None:
    for order in ((("a/+", 0), ("a/#", 2)), (("a/+", 2), ("a/#", 0))):
        client = world.open()
        for name, qos in order:
            client.subscribe(name, qos=qos)
        world.publish("a/b", qos=2)
        assert [m.qos for m in client.messages()] == [2]
        client.hang_up()


def test_no_local_keeps_the_own_messages_out(world: World) -> None:
    client, other = world.open(V5), world.open(V5)
    client.subscribe(Subscription("t", no_local=True))
    client.publish("t", b"own")
    other.publish("t", b"other")
    assert client.payloads() == [b"other"]


def test_a_packet_id_in_use_is_not_given_again(world: World) -> None:
    client = world.open()
    client.subscribe("t", qos=1)
    world.publish("t", b"held", qos=1)
    (held,) = client.messages()
    seen = set()
    for _ in range(0xFFFF + 5):
        world.publish("t", qos=1)
        (message,) = client.messages()
        seen.add(message.packet_id)
        client.send(Ack(mp.PUBACK, message.packet_id))
    assert held.packet_id not in seen
    assert len(seen) == 0xFFFF - 1


def test_two_subscribers_share_one_encoding(world: World) -> None:
    clients = [world.open(), world.open(), world.open(V5)]
    for client in clients:
        client.subscribe("t")
    world.publish("t", b"same")
    assert [client.payloads() for client in clients] == [[b"same"]] * 3
    world.publish("long/" + "x" * 300, b"not cached")
    assert world.broker.stats.sent == 3


def test_a_message_of_qos_2_that_was_not_stored_is_new_when_it_comes_again(world: World) -> None:
    world.broker.own_filters(["up"])
    client = world.open(client_id="c", clean=False)
    again = Publish("up", b"1", qos=2, packet_id=1)
    for ended_before in (False, True):
        world.broker.inbound.clear()
        world.broker.receive(client.peer, encode_packet(again, V311), world.now)
        assert [m.payload for m in world.broker.inbound] == [b"1"]
        if ended_before:  # the client did not wait for the disk
            client.hang_up()
        world.broker.fail(client.peer, "disk full")
        world.flush()
        assert not any(isinstance(p, Ack) for p in client.take())
        client = world.open(client_id="c", clean=False)
    world.broker.inbound.clear()
    client.publish("up", b"1", qos=2, packet_id=1, dup=True)
    assert [m.payload for m in world.broker.inbound] == [b"1"], "it was nowhere yet"
