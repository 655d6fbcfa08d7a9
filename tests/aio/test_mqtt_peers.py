"""The embedded broker on real sockets: paho (3.1.1 and 5.0), aiomqtt, mosquitto's programs, and hostile clients."""

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgehive.aio.mqtt_broker import MqttServer, _Connection
from edgehive.aio.mqtt_client import MqttClient
from edgehive.wire.mqtt_broker import Broker, Inbound
from edgehive.wire.mqtt_client import ClientOptions, MqttLink, Received
from edgehive.wire.mqtt_codec import encode_packet
from edgehive.wire.mqtt_limits import BrokerLimits
from edgehive.wire.mqtt_packets import (
    BAD_ALIAS,
    TOPIC_ALIAS,
    V5,
    V311,
    Connect,
    Disconnect,
    Publish,
    Subscribe,
    Subscription,
)
from edgehive.wire.mqtt_properties import MAX_ITEMS
from tests.support.mqtt import HAVE_MOSQUITTO, mosquitto, mosquitto_pub, mosquitto_sub

PROTOCOLS = [paho.MQTTv31, paho.MQTTv311, paho.MQTTv5]


class Lab:
    def __init__(self, rate: float, limits: BrokerLimits) -> None:
        now = asyncio.get_running_loop().time()
        self.broker = Broker(now=now, new_id=lambda: os.urandom(6).hex(), limits=limits)
        self.inbound: list[Inbound] = []
        self.accepts: bool | None = True
        self.server = MqttServer(broker=self.broker, handler=self._take, rate=rate)
        self.port = 0

    def _take(self, messages: Sequence[Inbound]) -> bool | None:
        self.inbound += messages
        return self.accepts


@asynccontextmanager
async def running(rate: float = float("inf"), **limits: Any) -> AsyncIterator[Lab]:
    lab = Lab(rate, BrokerLimits(**limits))
    lab.port = await lab.server.listen("127.0.0.1", 0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(lab.server.run())
        try:
            yield lab
        finally:
            task.cancel()


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with running() as made:
        yield made


async def eventually(met: Callable[[], Any], timeout: float = 20.0) -> Any:
    async with asyncio.timeout(timeout):
        while not (found := met()):
            await asyncio.sleep(0.01)
    return found


class Paho:
    """A paho client on a thread of its own."""

    def __init__(self, lab: Lab, protocol: int = paho.MQTTv311, client_id: str = "", **more: Any) -> None:
        if protocol != paho.MQTTv5 and client_id:
            more.setdefault("clean_session", False)
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTProtocolVersion(protocol),
            **more,
        )
        self.messages: list[paho.MQTTMessage] = []
        self.connected = threading.Event()
        self.session_present = False
        self.reasons: list[Any] = []
        self.subscribed: list[Any] = []
        self.client.on_message = lambda c, u, message: self.messages.append(message)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = lambda c, u, flags, reason, properties: self.reasons.append(reason)
        self.client.on_subscribe = lambda c, u, mid, codes, properties: self.subscribed.append(codes)
        self.port = lab.port

    def _on_connect(self, client: Any, user: Any, flags: Any, reason: Any, properties: Any) -> None:
        self.session_present = flags.session_present
        self.connected.set()

    async def start(self, **more: Any) -> "Paho":
        await asyncio.to_thread(lambda: self.client.connect("127.0.0.1", self.port, **more))
        self.client.loop_start()
        await eventually(self.connected.is_set)
        return self

    async def subscribe(self, *topics: tuple[str, int]) -> None:
        known = len(self.subscribed)
        self.client.subscribe(list(topics))
        await eventually(lambda: len(self.subscribed) > known)

    async def stop(self) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_paho_publishes_and_receives_with_every_qos(lab: Lab, protocol: int) -> None:
    one, two = await Paho(lab, protocol, "one").start(), await Paho(lab, protocol, "two").start()
    await two.subscribe(("a/+", 2), ("b/#", 1))
    for number in range(300):
        one.client.publish("a/x", str(number), qos=number % 3)
    await eventually(lambda: len(two.messages) == 300)
    for qos in range(3):
        numbers = [int(m.payload) for m in two.messages if m.qos == qos]
        assert numbers == [n for n in range(300) if n % 3 == qos]
    one.client.publish("b/y", b"\0\xff" * 10_000, qos=2, retain=True)
    last = await eventually(lambda: next((m for m in two.messages if m.topic == "b/y"), None))
    assert (last.payload, last.qos) == (b"\0\xff" * 10_000, 1)
    await one.stop()
    await two.stop()
    assert lab.broker.stats.dropped == 0


async def test_a_burst_reaches_a_subscriber_that_keeps_up_a_little_later() -> None:
    """The publisher is held up for moments; nothing is dropped though the queue is far smaller than the burst."""
    async with running(patience=60.0, pace=1) as lab:  # how fast a busy machine is does not matter here
        await burst(lab)


async def burst(lab: Lab) -> None:
    one, two = await Paho(lab, client_id="one").start(), await Paho(lab, client_id="two").start()
    await two.subscribe(("a", 2))
    sender = await Raw.open(lab)
    count = 20_000
    for start in range(0, count, 1000):
        numbers = range(start, start + 1000)
        sender.writer.write(
            b"".join(
                encode_packet(Publish("a", b"%d" % n, n % 2, packet_id=(n % 60_000 + 1) * (n % 2)), V311)
                for n in numbers
            )
        )
        await sender.writer.drain()
    await eventually(lambda: len(two.messages) + lab.broker.stats.dropped >= count, 30)
    assert lab.broker.stats.dropped == 0
    for qos in range(2):
        assert [int(m.payload) for m in two.messages if m.qos == qos] == list(range(qos, count, 2))
    await one.stop()
    await two.stop()
    sender.writer.close()


@pytest.mark.parametrize("protocol", [paho.MQTTv311, paho.MQTTv5])
async def test_a_session_of_paho_lasts(lab: Lab, protocol: int) -> None:
    more: dict[str, Any] = {}
    if protocol == paho.MQTTv5:
        more["properties"] = Properties(PacketTypes.CONNECT)
        more["properties"].SessionExpiryInterval = 100
        more["clean_start"] = False
    first = await Paho(lab, protocol, "lasting").start(**more)
    await first.subscribe(("t", 1))
    await first.stop()
    for number in range(5):
        lab.server.publish("t", b"%d" % number, qos=1, retain=False)
    again = await Paho(lab, protocol, "lasting").start(**more)
    await eventually(lambda: len(again.messages) == 5)
    assert again.session_present
    assert [m.payload for m in again.messages] == [b"0", b"1", b"2", b"3", b"4"]
    await again.stop()


async def test_paho_s_will_is_published_and_its_id_is_taken_over(lab: Lab) -> None:
    watcher = await Paho(lab, paho.MQTTv5).start()
    await watcher.subscribe(("will/#", 1))
    first = Paho(lab, paho.MQTTv5, "same")
    first.client.will_set("will/x", "gone", qos=1)
    await first.start()
    second = await Paho(lab, paho.MQTTv5, "same").start()
    await eventually(lambda: watcher.messages)
    assert watcher.messages[0].payload == b"gone"
    await eventually(lambda: first.reasons)
    assert "taken over" in str(first.reasons[0]).lower()
    first.client.loop_stop()
    for client in (second, watcher):
        await client.stop()


@pytest.mark.real
async def test_aiomqtt_and_mosquitto_s_programs(lab: Lab) -> None:
    if not HAVE_MOSQUITTO:
        pytest.skip("no mosquitto on PATH")
    async with aiomqtt.Client("127.0.0.1", lab.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe("up/#", qos=2)
        async with mosquitto_sub(
            lab.port, ["down/#"], "-q", "2", "-V", "5", "-c", "-i", "ms", "-x", "60"
        ) as sub:
            await client.publish("down/1", "hello", qos=2)
            await sub.until("down/1 hello")
        for version in ("mqttv31", "mqttv311", "5"):
            await mosquitto_pub(lab.port, f"up/{version}", version, "-q", "2", "-V", version)
        found = []
        async with asyncio.timeout(10):
            async for message in client.messages:
                found.append(str(message.topic))
                if len(found) == 3:
                    break
    assert found == ["up/mqttv31", "up/mqttv311", "up/5"]


async def test_an_acknowledgement_follows_the_handler_and_not_its_failure(lab: Lab) -> None:
    lab.broker.own_filters(["up"])
    client = await Paho(lab, client_id="c").start()
    info = client.client.publish("up", b"1", qos=1)
    await eventually(info.is_published)
    assert [m.payload for m in lab.inbound] == [b"1"]
    lab.accepts = False
    info = client.client.publish("up", b"2", qos=1)
    await eventually(lambda: client.reasons)
    assert not info.is_published()
    lab.accepts = True
    await eventually(info.is_published)  # paho comes back and sends it again
    lab.accepts = None
    other = await Paho(lab).start()
    await other.subscribe(("#", 1))
    info = client.client.publish("up", b"3", qos=1)
    await eventually(lambda: other.messages)
    assert lab.inbound[-1].payload == b"3"
    assert not info.is_published(), "others have it, its sender waits"
    lab.server.done(True)
    await eventually(info.is_published)
    info = client.client.publish("up", b"4", qos=1)
    await eventually(lambda: len(other.messages) == 2)
    lab.server.done(False)
    lab.accepts = True
    await eventually(info.is_published)
    assert [m.payload for m in lab.inbound[-2:]] == [b"4", b"4"]
    await client.stop()
    await other.stop()


class Raw:
    """A client by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, lab: Lab, client_id: str = "", *, limit: int = 1 << 16) -> "Raw":
        raw = cls(*await asyncio.open_connection("127.0.0.1", lab.port, limit=limit))
        raw.writer.write(encode_packet(Connect(client_id, keepalive=0), V311))
        assert (await raw.reader.readexactly(4))[3] == 0
        return raw

    async def ended(self) -> None:
        async with asyncio.timeout(15):
            while await self.reader.read(1 << 16):
                pass
        self.writer.close()


async def bystanders(lab: Lab) -> "tuple[Paho, Paho, Callable[[], Any]]":
    """Two clients that talk to each other, and a check that they still can, promptly."""
    one, two = await Paho(lab).start(), await Paho(lab).start()
    await two.subscribe(("calm", 1))

    async def check() -> None:
        two.messages.clear()
        for number in range(20):
            one.client.publish("calm", str(number), qos=1)
            await eventually(lambda n=number: len(two.messages) > n, 5)  # type: ignore[misc]

    return one, two, check


async def test_hostile_bytes_end_their_connection_and_no_other(lab: Lab) -> None:
    one, two, check = await bystanders(lab)
    rng = random.Random(7)
    connect = encode_packet(Connect("h"), V311)
    bad = [
        os.urandom(100),
        b"\x00" * 50,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10\xff\xff\xff\xff",
        b"\x30\xff\xff\xff\x7f",
        connect * 2,
    ]
    for at in range(200):
        data = bytearray(connect + encode_packet(Publish("t", b"x" * 30, 1, packet_id=1), V311))
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        bad.append(bytes(data) + b"\xff" * (at % 3))
    for data in bad:
        _, writer = await asyncio.open_connection("127.0.0.1", lab.port)
        writer.write(data)
        writer.close()
        await writer.wait_closed()
    await check()
    await eventually(lambda: lab.broker.connections == 2)
    assert lab.broker.stats.refused > 50
    await one.stop()
    await two.stop()


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_reader_that_is_slow_costs_bounded_memory_and_nobody_else_anything(qos: int) -> None:
    async with running(stall_timeout=2.0) as lab:
        one, two, check = await bystanders(lab)
        slow = await Raw.open(lab)
        slow.writer.write(encode_packet(Subscribe(1, (Subscription("flood", qos),)), V311))
        await slow.reader.readexactly(5)
        assert isinstance(slow.writer.transport, asyncio.Transport)
        slow.writer.transport.pause_reading()
        before = psutil.Process().memory_info().rss
        sender = await Raw.open(lab)
        payload = b"x" * 50_000
        for number in range(2_000):  # 100 MB
            sender.writer.write(
                encode_packet(Publish("flood", payload, number % 2, packet_id=number % 2), V311)
            )
            await sender.writer.drain()
            assert lab.broker.stats.waiting_bytes <= lab.broker.limits.queue_bytes
        await check()
        await eventually(lambda: lab.broker.stats.received >= 2_000)
        assert lab.broker.stats.dropped > 500
        assert psutil.Process().memory_info().rss - before < 40 << 20
        if (
            not qos
        ):  # its socket took nothing for too long. With QoS 1 it only owes acknowledgements, and may stay
            await eventually(lambda: lab.broker.connections == 3)
            assert lab.broker.stats.waiting_bytes == 0
        for client in (one, two):
            await client.stop()
        slow.writer.transport.abort()
        sender.writer.close()


async def test_a_client_that_goes_on_sending_still_reads_why_it_is_disconnected(lab: Lab) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
    writer.write(encode_packet(Connect("c", version=V5), V5))
    await reader.read(100)
    bad = encode_packet(Publish("t", properties=((TOPIC_ALIAS, 1),)), V5)
    for _ in range(100):
        writer.write(bad * 100)
        await asyncio.sleep(0)
    assert (await reader.read(100)).endswith(encode_packet(Disconnect(BAD_ALIAS), V5))
    writer.close()


async def test_a_flood_is_slowed_down_and_counted() -> None:
    async with running(rate=20_000.0) as lab:
        one, two, check = await bystanders(lab)
        flooder = await Raw.open(lab)
        frame = encode_packet(Publish("x", b"y"), V311) * 1_000
        stop = asyncio.Event()

        async def flood() -> None:
            while not stop.is_set():
                flooder.writer.write(frame)
                await flooder.writer.drain()

        async with asyncio.TaskGroup() as group:
            group.create_task(flood())
            await eventually(lambda: lab.server.throttled > 3)
            await check()
            await eventually(lambda: lab.server.throttled > 6)
            stop.set()
            flooder.writer.transport.abort()
        await one.stop()
        await two.stop()


async def test_too_many_connections_are_refused_and_room_comes_back() -> None:
    async with running(clients=5, connect_timeout=0.5) as lab:
        silent = [await asyncio.open_connection("127.0.0.1", lab.port) for _ in range(5)]
        reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
        assert await reader.read() == b""
        writer.close()
        client = (
            await Raw.open(lab) if await eventually(lambda: lab.broker.connections == 0) is True else None
        )
        assert client is not None
        client.writer.close()
        for _, other in silent:
            other.close()


async def test_our_client_on_our_broker_over_a_restart_of_it() -> None:
    received: list[Received] = []

    def handler(messages: Sequence[Received]) -> bool:
        received.extend(messages)
        return True

    lab = Lab(float("inf"), BrokerLimits())
    lab.broker.own_filters(["up"])
    port = lab.port = await lab.server.listen("127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    link = MqttLink(options=ClientOptions("c", reconnect=0.05), now=loop.time(), rng=random.random)
    client = MqttClient(link=link, host="127.0.0.1", port=port, handler=handler)
    client.subscribe_to(["down/#"])
    async with asyncio.TaskGroup() as group:
        client_task = group.create_task(client.run())
        for round_ in range(3):
            server_task = group.create_task(lab.server.run())
            client.publish("up", b"%d" % round_)
            await eventually(lambda n=round_: len(lab.inbound) > n)  # type: ignore[misc]
            await eventually(lambda: link.waiting == 0)
            lab.server.publish("down/x", b"%d" % round_, qos=1, retain=False)
            await eventually(lambda n=round_: len(received) > n)  # type: ignore[misc]
            server_task.cancel()
            await asyncio.wait([server_task])
            assert await lab.server.listen("127.0.0.1", port) == port
        client_task.cancel()
        await lab.server.close()
    assert [m.payload for m in lab.inbound] == [m.payload for m in received] == [b"0", b"1", b"2"]


@pytest.mark.real
async def test_a_mosquitto_bridges_both_ways(lab: Lab, tmp_path: Path) -> None:
    """It first asks for a private version of the protocol, is told that there is none, and takes the standard."""
    if not HAVE_MOSQUITTO:
        pytest.skip("no mosquitto on PATH")
    bridge = [
        "connection edge",
        f"address 127.0.0.1:{lab.port}",
        "topic up/# out 2",
        "topic down/# in 2",
        "restart_timeout 1",
        "notifications false",
    ]
    async with mosquitto(tmp_path / "bridge", *bridge) as broker:
        client = await Paho(lab).start()
        await client.subscribe(("up/#", 2))
        await eventually(lambda: lab.broker.connections == 2)
        async with mosquitto_sub(broker.port, ["down/#"], "-q", "2") as sub:
            async with asyncio.timeout(20):
                while not client.messages:
                    await mosquitto_pub(broker.port, "up/1", "one", "-q", "2")
                    await asyncio.sleep(0.1)
            lab.server.publish("down/1", b"two", qos=2, retain=False)
            await sub.until("down/1 two")
        await client.stop()


class Stuck(asyncio.Transport):
    """A socket that takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = 0
        self.aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return self.buffer

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.buffer += len(data)

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


async def test_answers_that_nobody_reads_are_kept_within_bounds(lab: Lab) -> None:
    buffer = memoryview(bytearray(1 << 20))
    stuck = Stuck()
    connection = _Connection(lab.server, buffer)
    connection.connection_made(stuck)

    def send(data: bytes) -> None:
        buffer[: len(data)] = data
        connection.buffer_updated(len(data))

    send(encode_packet(Connect("c", version=V311), V311))
    connection.pause_writing()
    many = encode_packet(Subscribe(1, tuple(Subscription("t", 0) for _ in range(MAX_ITEMS))), V311)
    for _ in range(600):
        if stuck.aborted:
            break
        send(many)
    assert stuck.aborted
    assert stuck.buffer < 3 << 20
    connection.connection_lost(None)
    assert lab.broker.connections == 0


async def test_sockets_that_nobody_reads_share_a_bounded_memory() -> None:
    async with running(memory=4 << 20, clients=40) as lab:
        writers = []
        for number in range(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", lab.port, limit=1)
            writer.write(encode_packet(Connect(f"deaf-{number}", version=V311), V311))
            writer.write(encode_packet(Subscribe(1, (Subscription("big", 0),)), V311))
            await reader.readexactly(4 + 5)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writers.append(writer)
        async with aiomqtt.Client("127.0.0.1", lab.port) as client:
            await client.subscribe("small")
            sent = 0
            while lab.broker.stats.dropped < 100:  # the kernel takes some megabytes for each
                lab.server.publish("big", bytes(900_000), qos=0, retain=False)
                lab.server.publish("small", str(sent).encode(), qos=0, retain=False)
                async with asyncio.timeout(10):
                    message = await anext(aiter(client.messages))
                assert message.payload == str(sent).encode()
                sent += 1
                unread = sum(p.pending + p.out_bytes for p in lab.server._connections)
                assert unread <= 4 << 20
                assert lab.broker.stats.waiting_bytes <= 4 << 20
        for writer in writers:
            writer.transport.abort()
        await eventually(lambda: not lab.broker.connections)
        assert lab.broker.stats.waiting_bytes == 0
