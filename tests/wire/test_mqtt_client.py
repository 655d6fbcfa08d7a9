"""The client without sockets: connecting, publishing over cuts, subscriptions, a broker that misbehaves."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_client import ClientOptions, Dial, Down, MqttLink, NotSubscribed, Received, Up
from edgehive.wire.mqtt_codec import PacketReader, decode_packet, encode_packet
from edgehive.wire.mqtt_packets import V5, V311, Ack, Connack, Connect, Packet, Publish


class Other:
    """The broker's side, by hand."""

    def __init__(self, **options: Any) -> None:
        self.now = 0.0
        self.version = V311
        self.link = MqttLink(options=ClientOptions("me", **options), now=0.0, rng=lambda: 0.5)

    def dial(self) -> Connect:
        self.now += 100.0
        self.link.handle_timer(self.now)
        assert self.link.events()[-1] == Dial()
        self.link.receive_connected(self.now)
        (connect,) = self.packets()
        assert isinstance(connect, Connect)
        self.version = connect.version
        return connect

    def connect(self, **connack: Any) -> None:
        self.dial()
        self.say(Connack(**connack))

    def say(self, *packets: Packet) -> None:
        self.link.receive_data(b"".join(encode_packet(p, self.version) for p in packets), self.now)

    def packets(self) -> list[Packet]:
        data = self.link.data_to_send()
        version = self.version
        found: list[Packet] = []
        for first, body in PacketReader(mp.MAX_REMAINING).feed(data):
            packet = decode_packet(first, body, version)
            version = packet.version if isinstance(packet, Connect) else version
            found.append(packet)
        return found

    def published(self) -> list[Publish]:
        return [p for p in self.packets() if isinstance(p, Publish)]


def test_it_connects_subscribes_and_acknowledges_what_was_taken_care_of() -> None:
    other = Other(username="u", password="p")
    other.link.subscribe_to(["a", "b"], 1)
    connect = other.dial()
    assert (connect.client_id, connect.clean, connect.username, connect.password) == ("me", True, "u", b"p")
    assert not other.link.up
    other.say(Connack())
    assert other.link.events() == [Up()]
    (subscribe,) = other.packets()
    assert isinstance(subscribe, mp.Subscribe)
    assert [(s.filter, s.qos) for s in subscribe.subscriptions] == [("a", 1), ("b", 1)]
    other.say(mp.Suback(subscribe.packet_id, (1, 0x80)))
    other.say(Publish("a", b"0"), Publish("a", b"1", 1, packet_id=7))
    refused, zero, one = other.link.events()
    assert refused == NotSubscribed("b")
    assert (zero, one) == (Received("a", b"0", 0, 0), Received("a", b"1", 1, 7))
    assert other.packets() == []
    assert isinstance(one, Received)
    other.link.acknowledge(one)
    assert other.packets() == [Ack(mp.PUBACK, 7)]
    other.link.subscribe_to(["b", "c"], 1)
    unsubscribe, more = other.packets()
    assert isinstance(unsubscribe, mp.Unsubscribe)
    assert unsubscribe.filters == ("a",)
    assert isinstance(more, mp.Subscribe)
    assert [s.filter for s in more.subscriptions] == ["c"]


def test_subscriptions_are_made_again_at_every_connection() -> None:
    other = Other()
    other.link.subscribe_to(["a"], 1)
    for _ in range(2):
        other.connect()
        (subscribe,) = other.packets()
        assert isinstance(subscribe, mp.Subscribe)
        assert [s.filter for s in subscribe.subscriptions] == ["a"]
        other.link.receive_closed("cut", other.now)


def test_qos_2_comes_once() -> None:
    other = Other()
    other.connect()
    message = Publish("a", b"x", 2, packet_id=3)
    other.say(message)
    _, received = other.link.events()
    assert isinstance(received, Received)
    other.link.acknowledge(received)
    other.say(message)
    assert other.link.events() == []
    assert other.packets() == [Ack(mp.PUBREC, 3)] * 2
    other.say(Ack(mp.PUBREL, 3))
    assert other.packets() == [Ack(mp.PUBCOMP, 3)]


def test_what_was_not_acknowledged_is_published_again_in_order() -> None:
    other = Other(in_flight=2)
    for number in range(4):
        other.link.publish("t", b"%d" % number, qos=1)
    other.connect()
    first = other.published()
    assert [p.payload for p in first] == [b"0", b"1"]
    other.say(Ack(mp.PUBACK, first[0].packet_id))
    assert [p.payload for p in other.published()] == [b"2"]
    other.link.receive_closed("cut", other.now)
    other.connect()
    assert [p.payload for p in other.published()] == [b"1", b"2"]
    assert other.link.waiting == 3


def test_messages_for_an_absent_broker_are_bounded_and_counted() -> None:
    other = Other(queue=5, queue_bytes=1_000)
    for number in range(8):
        other.link.publish("t", b"%d" % number, qos=1)
    assert (other.link.waiting, other.link.dropped) == (5, 3)
    other.link.publish("t", b"x" * 800, qos=1)
    assert (other.link.waiting, other.link.dropped) == (1, 8)
    other.link.publish("t", b"x" * 2_000, qos=1)
    assert other.link.dropped == 10
    other.connect()
    assert other.published() == []


@given(st.lists(st.sampled_from(["publish", "take", "ack", "cut"]), max_size=60))
def test_nothing_is_lost_over_cuts(steps: list[str]) -> None:
    other = Other(in_flight=3)
    other.connect()
    sent, seen, unanswered = 0, [], []
    for step in [*steps, *("cut", "take", "ack") * 30]:
        if step == "publish":
            other.link.publish("t", b"%d" % sent, qos=1)
            sent += 1
        elif step == "take":
            found = other.published()
            seen += [int(p.payload) for p in found]
            unanswered += [p.packet_id for p in found]
        elif step == "ack":
            other.say(*(Ack(mp.PUBACK, n) for n in unanswered))
            unanswered.clear()
        else:
            unanswered.clear()
            other.link.receive_closed("cut", other.now)
            other.connect()
    assert list(dict.fromkeys(seen)) == list(range(sent))
    assert (other.link.waiting, other.link.published) == (0, sent)


def test_a_refused_version_is_asked_in_the_other() -> None:
    other = Other()
    assert other.dial().version == V311
    other.say(Connack(False, 1))
    assert other.dial().version == V5
    properties: mp.Properties = (
        (mp.SERVER_KEEP_ALIVE, 4),
        (mp.RECEIVE_MAXIMUM, 1),
        (mp.MAXIMUM_PACKET_SIZE, 60),
    )
    other.say(Connack(properties=properties))
    assert other.link.up
    other.link.publish("t", b"x" * 100, qos=1)
    other.link.publish("t", b"1", qos=1)
    other.link.publish("t", b"2", qos=1)
    assert [p.payload for p in other.published()] == [b"1"]
    assert other.link.dropped == 1
    assert (other.link.deadline() or 0) - other.now == 2.0
    other.say(mp.Disconnect(0x8B))
    assert isinstance(other.link.events()[-1], Down)


@pytest.mark.parametrize(
    ("code", "word"), [(2, "client id"), (4, "password"), (5, "authorized"), (77, "0x4d")]
)
def test_a_refusal_is_said(code: int, word: str) -> None:
    other = Other()
    other.dial()
    other.say(Connack(False, code))
    (down,) = other.link.events()
    assert isinstance(down, Down)
    assert word in down.reason


def test_a_silent_broker_is_pinged_and_given_up() -> None:
    other = Other(keepalive=30)
    other.connect()
    other.link.events()
    other.now += 15
    other.link.handle_timer(other.now)
    assert other.packets() == [mp.Pingreq()]
    other.say(mp.Pingresp())
    other.now += 15
    other.link.handle_timer(other.now)
    other.now += 10
    other.link.handle_timer(other.now)
    assert other.link.events() == [Down("the broker does not answer")]


def test_a_dial_or_a_greeting_that_does_not_end_is_given_up() -> None:
    other = Other()
    other.link.handle_timer(0.0)
    other.link.handle_timer(30.0)
    assert isinstance(other.link.events()[-1], Down)
    other.dial()
    other.now += 10
    other.link.handle_timer(other.now)
    assert isinstance(other.link.events()[-1], Down)
    delays = []
    for _ in range(8):
        delays.append((other.link.deadline() or 0) - other.now)
        other.now = other.link.deadline() or 0
        other.link.handle_timer(other.now)
        other.link.receive_closed("refused", other.now)
    assert delays == sorted(delays)
    assert delays[-1] == 30.0


@pytest.mark.parametrize(
    "data", [b"\x30\x00", b"\x00\x00", b"\x20\x02\x00\x00", b"\x30\xff\xff\xff\x7f", b"\xd0\x01\x00"]
)
def test_nonsense_ends_the_connection(data: bytes) -> None:
    other = Other()
    other.connect()
    other.link.events()
    other.link.receive_data(data, other.now)
    (down,) = other.link.events()
    assert isinstance(down, Down)
    assert not other.link.up


def test_a_first_packet_that_is_no_connack_ends_the_connection() -> None:
    other = Other()
    other.dial()
    other.say(mp.Pingresp())
    assert isinstance(other.link.events()[-1], Down)


def test_a_broker_that_sends_and_does_not_read_is_left() -> None:
    other = Other(queue=10)
    other.connect()
    other.link.events()
    for number in range(1, 30):
        other.say(Ack(mp.PUBREL, number))
    assert not other.link.up


def test_qos_0_goes_once_and_a_goodbye_is_said_while_connected() -> None:
    other = Other(keepalive=0)
    assert other.link.goodbye() == b""
    other.link.publish("t", b"0", qos=0)
    other.connect()
    assert other.link.deadline() is None
    assert other.published() == [Publish("t", b"0")]
    assert (other.link.waiting, other.link.published) == (0, 1)
    assert other.link.goodbye() == encode_packet(mp.Disconnect(), V311)
    other.link.handle_timer(other.now + 1_000)
    assert other.link.up


def test_what_comes_at_the_wrong_time_is_ignored() -> None:
    other = Other()
    other.link.receive_connected(0.0)
    other.link.receive_data(b"\x20\x02\x00\x00", 0.0)
    other.link.receive_closed("again", 0.0)
    assert other.link.events() == []
    assert other.link.data_to_send() == b""
    other.connect()
    other.link.acknowledge(Received("t", b"", 0, 0))
    other.say(mp.Unsuback(1), mp.Pingresp(), Ack(mp.PUBACK, 9))
    assert other.packets() == []
    other.link.handle_timer(other.now + 15)
    assert (other.link.deadline() or 0) == other.now + 25


def test_a_broker_that_releases_nothing_is_left() -> None:
    other = Other(queue=3)
    other.connect()
    for number in range(1, 5):
        other.say(Publish("t", b"", 2, packet_id=number))
    assert not other.link.up
