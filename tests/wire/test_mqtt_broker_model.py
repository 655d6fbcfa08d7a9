"""Deliveries at the broker against a model: any order of steps, cuts and losses."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from mqtt_world import VERSIONS, Client, World

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_packets import V5, Ack, Publish


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
