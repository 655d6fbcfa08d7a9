"""What the broker bounds, and whom it disconnects."""

import pytest
from mqtt_world import VERSIONS, World

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_packets import V5, Ack, Connack, Subscription
from edgehive.wire.mqtt_properties import MAX_ITEMS


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


def test_who_says_nothing_is_disconnected(world: World) -> None:
    silent = world.dial()
    world.pass_time(11)
    assert silent.ended
    assert world.broker.deadline() is None


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


def unwritten(world: World) -> int:
    return sum(peer.out_bytes + peer.pending for peer in world.readers if not peer.ended)


def test_what_nobody_reads_is_bounded_for_all_and_a_reader_gets_everything() -> None:
    world = World(memory=1 << 20, clients=50)
    deaf = [world.open(keepalive=0) for _ in range(40)]
    for client in deaf:
        client.subscribe("big", "small")
        client.stop_reading()
    reader, other = world.open(keepalive=0), world.open(keepalive=0)
    reader.subscribe("big")
    other.subscribe("small")
    for number in range(30):
        world.publish("big", b"%02d" % number + bytes(100_000))
        world.publish("small", b"%02d" % number)
        assert unwritten(world) <= 1 << 20
        assert world.broker.stats.waiting_bytes <= 1 << 20
    assert other.payloads() == [b"%02d" % n for n in range(30)]
    for _ in range(10):  # who keeps others waiting is let go before his minute is over
        world.pass_time(3.0)
    assert sum(client.ended for client in deaf) >= 20
    assert reader.messages(), "and then there was memory for it"
    for _ in range(25):
        world.pass_time(3.0)
    assert [client.ended for client in deaf] == [True] * 40
    assert not reader.ended
    reader.messages()
    for number in range(30):
        world.publish("big", b"%02d" % number + bytes(100_000))
    assert [m.payload[:2] for m in reader.messages()] == [b"%02d" % n for n in range(30)]
    assert unwritten(world) == 0
    assert world.broker.stats.waiting_bytes == 0


def test_a_small_message_reaches_a_reader_while_others_use_up_the_memory() -> None:
    world = World(memory=1 << 20, clients=10)
    for _ in range(8):
        client = world.open(keepalive=0)
        client.subscribe("big")
        client.stop_reading()
    reader = world.open()
    reader.subscribe("small")
    for _ in range(20):
        world.publish("big", bytes(100_000))
    for number in range(5):
        world.publish("small", b"%d" % number)
        assert reader.payloads() == [b"%d" % number], "at once"


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_large_message_to_many_readers_needs_its_memory_once(version: int, qos: int) -> None:
    world = World(memory=1 << 20, clients=50)
    readers = [world.open(version) for _ in range(40)]
    for client in readers:
        client.subscribe("t", qos=qos)
    for number in range(4):  # 16 MB to deliver, 1 MB to do it with
        world.publish("t", b"%d" % number + bytes(100_000), qos=qos)
    for client in readers:
        assert [m.payload[:1] for m in client.messages()] == [b"0", b"1", b"2", b"3"]
    assert world.broker.stats.dropped == 0
    assert world.broker.stats.waiting_bytes <= 4 * (100_300 + 40 * 200)


def test_who_takes_a_little_now_and_then_is_not_let_go(world: World) -> None:
    client = world.open(keepalive=0)
    client.subscribe("t")
    client.stop_reading()
    world.publish("t", bytes(100_000))
    for taken in range(1, 100):
        world.broker.progress(client.peer, world.now + 30, 100_000 - taken)
        world.pass_time(30.0)
    assert not client.ended
    world.pass_time(30.0)
    world.pass_time(31.0)
    assert client.ended


def test_properties_count_as_the_memory_they_take() -> None:
    world = World(queue_bytes=300_000)
    client = world.open(V5, client_id="c", clean=False, properties=((mp.SESSION_EXPIRY, 100),))
    client.subscribe("t", qos=1)
    client.hang_up()
    sender = world.open(V5)
    pair = (mp.USER_PROPERTY, ("k" * 60_000, "v" * 60_000))
    for number in range(1, 6):
        sender.publish("t", qos=1, packet_id=number, properties=(pair,))
    assert world.broker.stats.dropped == 3
    assert 240_000 < world.broker.stats.waiting_bytes < 300_000
    will = mp.Will("w", b"", properties=(pair,))
    refused = world.open(V5, will=will)
    (answer,) = refused.take()
    assert isinstance(answer, Connack)
    assert answer.code == mp.PACKET_TOO_LARGE


def test_filters_are_bounded_in_characters_together() -> None:
    world = World(filters=1_000)
    first, other = world.open(V5), world.open(V5)
    assert first.subscribe("a" * 600, "b" * 600) == (0, mp.QUOTA_EXCEEDED)
    assert first.subscribe("a" * 600) == (0,), "that one it has already"
    assert other.subscribe("c" * 600) == (mp.QUOTA_EXCEEDED,)
    first.send(mp.Unsubscribe(8, ("a" * 600,)))
    assert other.subscribe("c" * 600) == (0,)
    other.hang_up()
    assert first.subscribe("b" * 600) == (0,)


def test_filters_and_properties_count_as_work_and_too_many_are_not_decoded(world: World) -> None:
    client = world.open(V5)
    pairs = tuple((mp.USER_PROPERTY, ("k", str(n))) for n in range(100))
    for packet in (
        mp.Publish("t", b"", properties=pairs),
        mp.Subscribe(3, tuple(Subscription(f"s/{n}", 0) for n in range(100))),
        mp.Unsubscribe(4, tuple(f"s/{n}" for n in range(100))),
        Ack(mp.PUBACK, 9, 0, pairs),
    ):
        before = client.peer.messages
        client.send(packet)
        assert client.peer.messages - before == 101
    many = tuple((mp.USER_PROPERTY, ("", "")) for _ in range(MAX_ITEMS + 1))
    for packet in (
        mp.Publish("t", b"", properties=many),
        mp.Subscribe(3, tuple(Subscription("s", 0) for _ in range(MAX_ITEMS + 1))),
        mp.Unsubscribe(4, ("s",) * (MAX_ITEMS + 1)),
    ):
        hostile = world.open(V5)
        hostile.take()
        hostile.send(packet)
        assert hostile.ended
        assert hostile.take() == [mp.Disconnect(mp.QUOTA_EXCEEDED)]
    assert not client.ended
