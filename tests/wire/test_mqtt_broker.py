"""The broker without sockets: sessions, QoS, retained messages, wills, limits; 3.1.1 and 5.0."""

import itertools
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_broker import Broker
from edgehive.wire.mqtt_codec import PacketReader, decode_packet, encode_packet
from edgehive.wire.mqtt_packets import V5, V311, Ack, Connack, Connect, Packet, Publish, Subscription
from edgehive.wire.mqtt_session import BrokerLimits, Peer

VERSIONS = [V311, V5]


class World:
    """A broker, a clock, and clients that speak packets."""

    def __init__(self, **limits: Any) -> None:
        self.now = 100.0
        numbers = itertools.count(1)
        self.broker = Broker(now=self.now, new_id=lambda: str(next(numbers)), limits=BrokerLimits(**limits))
        self.inboxes: dict[Peer, list[Packet]] = {}
        self.readers: dict[Peer, PacketReader] = {}

    def open(self, version: int = V311, **connect: Any) -> "Client":
        client = self.dial(version)
        client.send(Connect(connect.pop("client_id", ""), version=version, **connect))
        return client

    def dial(self, version: int = V311) -> "Client":
        peer = self.broker.opened("test", self.now)
        self.inboxes[peer] = []
        self.readers[peer] = PacketReader(mp.MAX_REMAINING)
        self.flush()
        return Client(self, peer, version)

    def flush(self) -> None:
        while peers := self.broker.flush():
            for peer in peers:
                data = b"".join(peer.out)
                peer.out.clear()
                peer.out_bytes = 0
                if peer in self.readers:
                    self.inboxes[peer] += [
                        decode_packet(first, body, peer.version)
                        for first, body in self.readers[peer].feed(data)
                    ]
                self.broker.written(peer, self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.broker.handle_timer(self.now)
        self.flush()

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 0, retain: bool = False) -> None:
        self.broker.publish(topic, payload, qos=qos, retain=retain, now=self.now)
        self.flush()


class Client:
    def __init__(self, world: World, peer: Peer, version: int) -> None:
        self.world, self.peer, self.version = world, peer, version

    def send(self, *packets: Packet) -> None:
        data = b"".join(encode_packet(packet, self.version) for packet in packets)
        self.world.broker.receive(self.peer, data, self.world.now)
        self.world.flush()

    def subscribe(self, *filters: str | Subscription, qos: int = 0, number: int = 0) -> tuple[int, ...]:
        wanted = tuple(Subscription(f, qos) if isinstance(f, str) else f for f in filters)
        properties: mp.Properties = ((mp.SUBSCRIPTION_ID, number),) if number else ()
        self.send(mp.Subscribe(7, wanted, properties))
        (answer,) = [p for p in self.take() if isinstance(p, mp.Suback)][-1:]
        return answer.codes

    def publish(self, topic: str, payload: bytes = b"x", **more: Any) -> None:
        self.send(Publish(topic, payload, **more))

    def take(self) -> list[Packet]:
        """What came since the last call; retained messages of a subscribe stay for the next one."""
        inbox = self.world.inboxes[self.peer]
        found = list(inbox)
        inbox.clear()
        inbox += [p for p in found if isinstance(p, Publish) and any(isinstance(q, mp.Suback) for q in found)]
        return [p for p in found if p not in inbox]

    def messages(self) -> list[Publish]:
        inbox = self.world.inboxes[self.peer]
        found = [p for p in inbox if isinstance(p, Publish)]
        inbox.clear()
        return found

    def payloads(self) -> list[bytes]:
        return [p.payload for p in self.messages()]

    def hang_up(self) -> None:
        self.world.broker.closed(self.peer, self.world.now)
        self.world.flush()

    @property
    def ended(self) -> bool:
        return self.peer.ended


@pytest.fixture
def world() -> World:
    return World()


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


def test_a_slow_reader_has_a_bounded_queue_and_disturbs_nobody() -> None:
    world = World(queue=10, queue_bytes=2_000)
    slow, quick = world.open(), world.open()
    slow.subscribe("t", qos=1)
    quick.subscribe("t", qos=1)
    slow.peer.stalled = world.now
    for number in range(200):
        world.publish("t", b"%03d" % number, qos=number % 2)
        messages = quick.messages()
        assert [m.payload for m in messages] == [b"%03d" % number]
        quick.send(*(Ack(mp.PUBACK, m.packet_id) for m in messages if m.qos))
        assert world.broker.stats.waiting_bytes <= 2_000
    assert slow.messages() == []
    waiting = 2_000 // 204
    assert world.broker.stats.dropped == 200 - waiting
    world.broker.writable(slow.peer, world.now)
    world.flush()
    found = slow.payloads()
    assert found == sorted(found)
    assert found[-1] == b"199"
    assert {int(p) % 2 for p in found} == {1}, "those of QoS 0 went first"


def test_publishers_are_held_up_for_who_gets_on_and_not_for_long() -> None:
    world = World(queue=10, in_flight=1)
    sender, other = world.open(client_id="s"), world.open(client_id="o", keepalive=0)
    other.subscribe("t", qos=1)
    for number in range(1, 13):
        assert world.broker.crowded(sender.peer, world.now) == []
        sender.publish("t", qos=1, packet_id=number)
    (session,) = world.broker.crowded(sender.peer, world.now)
    assert session.client_id == "o"
    assert session.crowded(world.now)
    for number in range(13, 17):
        sender.publish("t", qos=1, packet_id=number)
    assert world.broker.crowded(other.peer, world.now) == [], "it has to be read: it owes acknowledgements"
    world.now += 1.0
    assert not session.crowded(world.now), "nothing has moved for a second"
    for message in other.messages():
        other.send(Ack(mp.PUBACK, message.packet_id))
    assert not session.crowded(world.now), "one message a second is not worth waiting for"
    world.now += 5.0
    for message in other.messages():
        other.send(Ack(mp.PUBACK, message.packet_id))
    assert session.crowded(world.now), "it gets another chance after a pause"
    other.hang_up()
    assert not session.crowded(world.now)


def test_a_client_that_takes_nothing_is_disconnected_in_the_end(world: World) -> None:
    client = world.open(keepalive=0)
    client.peer.stalled = world.now
    world.pass_time(59)
    assert not client.ended
    world.pass_time(2)
    assert client.ended


def test_limits_of_clients_sessions_subscriptions_and_retained_messages() -> None:
    world = World(clients=3, sessions=4, subscriptions=2, nodes=8, retained=2, filter=50)
    clients = [world.open(client_id=f"c{n}", clean=False) for n in range(3)]
    refused = world.dial()
    assert refused.ended
    assert world.broker.stats.refused == 1
    assert clients[0].subscribe("a", "b", "c", "a") == (0, 0, 0x80, 0)
    assert clients[1].subscribe("1/2/3/4/5/6", "x" * 51) == (0, 0x80)
    assert clients[2].subscribe("y") == (0x80,)
    for client in clients:
        client.hang_up()
    for number in range(10):
        world.open(client_id=f"d{number}", clean=False).hang_up()
    assert world.broker.sessions == 4
    for number in range(5):
        world.publish(f"r/{number}", retain=True)
    assert (world.broker.retained, world.broker.stats.not_retained) == (2, 3)


def test_a_first_packet_that_is_no_connect_is_not_answered(world: World) -> None:
    client = world.dial()
    client.send(mp.Pingreq())
    assert client.ended
    assert client.take() == []
    client.send(mp.Pingreq())  # nothing is read any more
    client.hang_up()
    assert world.broker.connections == 0


def test_who_says_nothing_is_disconnected(world: World) -> None:
    silent = world.dial()
    world.pass_time(11)
    assert silent.ended
    assert world.broker.deadline() is None


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


def test_too_many_unreleased_messages_end_the_connection() -> None:
    world = World(receive_maximum=3)
    client = world.open(V5)
    client.take()
    for number in range(1, 5):
        client.publish("t", qos=2, packet_id=number)
    assert client.ended
    assert client.take()[-1] == mp.Disconnect(mp.RECEIVE_MAXIMUM_EXCEEDED)


def test_half_packets_of_all_clients_together_are_bounded() -> None:
    world = World(memory=10_000)
    clients = [world.open() for _ in range(20)]
    for client in clients:
        world.broker.receive(client.peer, b"\x30\xff\x7f" + b"x" * 1_500, world.now)
    assert sum(c.ended for c in clients) == 14
    for client in clients:
        client.hang_up()
    late = world.open()
    world.broker.receive(late.peer, b"\x30\xff\x7f" + b"x" * 9_000, world.now)
    assert not late.ended


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


def test_a_queue_is_bounded_in_bytes_and_all_queues_together() -> None:
    world = World(queue_bytes=3_000, memory=5_000)
    for name in ("a", "b", "c"):
        client = world.open(client_id=name, clean=False)
        client.subscribe("t", qos=1)
        client.hang_up()
    world.publish("t", b"x" * 4_000, qos=1)
    assert (world.broker.stats.dropped, world.broker.stats.waiting_bytes) == (3, 0)
    for number in range(5):
        world.publish("t", b"%d" % number + b"x" * 1_000, qos=1)
    assert world.broker.stats.waiting_bytes <= 5_000
    client = world.open(client_id="a", clean=False)
    assert [p[:1] for p in client.payloads()] == [b"3", b"4"]


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


def test_messages_of_qos_0_do_not_wait_for_an_absent_client(world: World) -> None:
    client = world.open(client_id="c", clean=False)
    client.subscribe("t", qos=1)
    client.peer.stalled = world.now
    for qos in (0, 1, 0, 1):
        world.publish("t", b"%d" % qos, qos=qos)
    client.hang_up()
    assert world.open(client_id="c", clean=False).payloads() == [b"1", b"1"]


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


class Delivery(RuleBasedStateMachine):
    """QoS 1 and 2 to a session that comes and goes: nothing is lost or overtaken, QoS 2 arrives once."""

    @initialize(version=st.sampled_from(VERSIONS), qos=st.integers(1, 2))
    def begin(self, version: int, qos: int) -> None:
        self.world = World(queue=10_000, in_flight=3)
        self.version, self.qos = version, qos
        self.sent = 0
        self.seen: list[int] = []
        self.known: set[int] = set()
        self.client: Client | None = None
        self.connect()
        assert self.client is not None
        self.client.subscribe("t", qos=qos)

    @rule()
    def connect(self) -> None:
        if self.client is None or self.client.ended:
            properties: mp.Properties = ((mp.SESSION_EXPIRY, 1000),) if self.version == V5 else ()
            self.client = self.world.open(
                self.version, client_id="c", clean=False, keepalive=0, properties=properties
            )

    @rule(count=st.integers(1, 8))
    def publish(self, count: int) -> None:
        for _ in range(count):
            self.world.publish("t", b"%d" % self.sent, qos=2)
            self.sent += 1

    @rule(count=st.integers(1, 20))
    def answer(self, count: int) -> None:
        if self.client is None:
            return
        inbox = self.world.inboxes[self.client.peer]
        for _ in range(min(count, len(inbox))):
            packet = inbox.pop(0)
            if isinstance(packet, Publish):
                new = not packet.dup if self.qos == 1 else packet.packet_id not in self.known
                if new or self.qos == 1:
                    self.seen.append(int(packet.payload))
                self.known.add(packet.packet_id)
                self.client.send(Ack(mp.PUBACK if self.qos == 1 else mp.PUBREC, packet.packet_id))
            elif isinstance(packet, Ack) and packet.kind == mp.PUBREL:
                self.known.discard(packet.packet_id)
                self.client.send(Ack(mp.PUBCOMP, packet.packet_id))

    @rule()
    def cut(self) -> None:
        if self.client is not None:
            self.client.hang_up()
            self.client = None

    @rule(stalled=st.booleans())
    def stall(self, stalled: bool) -> None:
        if self.client is not None and stalled:
            self.client.peer.stalled = self.world.now
        elif self.client is not None:
            self.world.broker.writable(self.client.peer, self.world.now)
            self.world.flush()

    @invariant()
    def nothing_is_overtaken(self) -> None:
        if not hasattr(self, "seen"):
            return
        first = list(dict.fromkeys(self.seen))
        assert first == list(range(len(first)))
        if self.qos == 2:
            assert len(first) == len(self.seen)

    def teardown(self) -> None:
        if not hasattr(self, "seen"):
            return
        self.connect()
        self.stall(False)
        for _ in range(10_000):
            assert self.client is not None
            if not self.world.inboxes[self.client.peer]:
                break
            self.answer(50)
        assert set(self.seen) == set(range(self.sent))
        self.nothing_is_overtaken()
        assert self.world.broker.stats.waiting_bytes == 0


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


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


def test_what_is_retained_is_looked_up_once_however_often_it_is_asked_for(world: World) -> None:
    for number in range(80):
        world.publish(f"r/{number}", b"v", retain=True)
    client = world.open()
    client.take()
    before = client.peer.messages
    asked = [mp.Subscribe(7, (Subscription("r/#", 0), Subscription("r/+", 1))) for _ in range(50)]
    client.send(*asked, mp.Unsubscribe(8, ("r/+",)))
    assert len([p for p in client.take() if isinstance(p, Publish)] + client.messages()) == 80
    assert client.peer.messages - before == 51 + 100 + 10, "packets, filters, and a look at what is retained"
