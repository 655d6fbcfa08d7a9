"""A broker, a clock, and clients that speak packets."""

import itertools
from typing import Any

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_broker import Broker
from edgehive.wire.mqtt_codec import PacketReader, decode_packet, encode_packet
from edgehive.wire.mqtt_limits import BrokerLimits
from edgehive.wire.mqtt_packets import V5, V311, Connect, Packet, Publish, Subscription
from edgehive.wire.mqtt_peer import Peer

VERSIONS = [V311, V5]


class World:
    """A broker, a clock, and clients that speak packets."""

    def __init__(self, **limits: Any) -> None:
        self.now = 100.0
        numbers = itertools.count(1)
        self.broker = Broker(now=self.now, new_id=lambda: str(next(numbers)), limits=BrokerLimits(**limits))
        self.inboxes: dict[Peer, list[Packet]] = {}
        self.readers: dict[Peer, PacketReader] = {}
        self.deaf: set[Peer] = set()
        """Those whose sockets take nothing."""

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
                data = peer.take()
                if peer in self.deaf:
                    if data and peer.stalled is None:
                        peer.stalled = self.now
                    self.broker.written(peer, self.now, peer.pending)
                    if peer.ended:  # nothing gets through to it any more; the shell gives it a second
                        self.broker.closed(peer, self.now)
                    continue
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

    def stop_reading(self) -> "Client":
        self.world.deaf.add(self.peer)
        return self

    @property
    def ended(self) -> bool:
        return self.peer.ended
