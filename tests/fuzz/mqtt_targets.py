"""MQTT's two ends: a broker that a client speaks to, and a client that a broker speaks to."""

from collections.abc import Callable, Sequence

from edgehive.wire import mqtt_client
from edgehive.wire.mqtt_broker import Broker
from edgehive.wire.mqtt_limits import BrokerLimits


def targets() -> dict[
    str, tuple[Callable[[bytes], object], tuple[type[BaseException], ...], Sequence[bytes]]
]:
    """Each with what it may raise, which is nothing, and examples."""
    old, new = (b"\x10\x0d\0\x04MQTT%c\2\0\0\0\1a" % 4, b"\x10\x0e\0\x04MQTT%c\2\0\0\0\0\1a" % 5)
    talk = (
        b"\x82\x08\0\1\0\3a/+\2", b"\x30\5\0\3a/bx", b"\x32\7\0\3a/b\0\1x", b"\x34\7\0\3a/b\0\2x", b"\x62\2\0\2",
        b"\x40\2\0\1", b"\x50\2\0\1", b"\x70\2\0\1", b"\xa2\7\0\1\0\3a/+", b"\xc0\0", b"\xe0\0",
    )  # fmt: skip
    talk5 = (
        b"\x82\x0b\0\1\2\x0b\5\0\3a/+\2", b"\x30\x0d\0\3a/b\7\x26\0\1k\0\1vx", b"\x32\x0d\0\3a/b\0\1\5\2\0\0\0\1x",
        b"\x40\4\0\1\0\0", b"\xe0\7\0\5\x11\0\0\0\1", b"\xf0\0",
    )  # fmt: skip

    def broker_target(data: bytes) -> None:
        broker = Broker(now=0.0, new_id=lambda: "x", limits=BrokerLimits(queue=5, memory=5_000, in_flight=2))
        broker.own_filters(["a/#"])
        peer = broker.opened("fuzz", 0.0)
        broker.receive(peer, data[: len(data) // 2], 0.0)
        broker.receive(peer, data[len(data) // 2 :], 1.0)
        broker.publish("a/b", b"x", qos=2, retain=True, now=1.0)
        broker.handle_timer(100.0)
        broker.closed(peer, 100.0)
        broker.handle_timer(1e6)
        assert broker.sessions == broker.connections == broker.stats.waiting_bytes == 0

    def client_target(data: bytes) -> None:
        options = mqtt_client.ClientOptions("c", queue=5)
        link = mqtt_client.MqttLink(options=options, now=0.0, rng=lambda: 0.5)
        link.subscribe_to(["a/#"], 1)
        link.handle_timer(0.0)
        link.receive_connected(0.0)
        link.publish("a", b"x", qos=1)
        for now, part in enumerate((b"\x20\2\0\0", data)):
            link.receive_data(part, float(now))
            for event in link.events():
                if isinstance(event, mqtt_client.Received):
                    link.acknowledge(event)
            link.data_to_send()
        link.receive_closed("over", 3.0)
        assert link.waiting <= 1

    down = (b"\x90\3\0\1\1", b"\x40\2\0\1", *talk[1:5], b"\xd0\0", b"\x20\2\0\0")
    return {
        "mqtt-broker": (
            broker_target,
            (),
            [old + b"".join(talk), new + b"".join(talk5), *(old + t for t in talk)],
        ),
        "mqtt-client": (client_target, (), [b"".join(down), *down]),
    }
