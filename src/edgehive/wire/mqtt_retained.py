"""Retained messages, and which of them a client gets for its subscriptions."""

from collections.abc import Iterator, Mapping

from edgehive.wire.mqtt_limits import BrokerLimits, BrokerStats
from edgehive.wire.mqtt_packets import Subscription
from edgehive.wire.mqtt_routed import Routed
from edgehive.wire.mqtt_topics import TopicTree


class Retained:
    """The last message of each topic that was to be kept, within the broker's limits."""

    def __init__(self, limits: BrokerLimits, stats: BrokerStats) -> None:
        self._limits = limits
        self._stats = stats
        self._messages: dict[str, Routed] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def keep(self, routed: Routed) -> None:
        """Keep a message instead of the one before; one without payload, or without room, only removes that."""
        self._remove(routed.topic)
        if not routed.payload:
            return
        limits = self._limits
        if len(self) >= limits.retained or self._bytes + routed.size > limits.retained_bytes:
            self._stats.not_retained += 1
            return
        self._messages[routed.topic] = routed
        self._bytes += routed.size

    def expire(self, now: float) -> None:
        """Forget what is too old."""
        for topic in [t for t, m in self._messages.items() if m.expires is not None and m.expires <= now]:
            self._remove(topic)

    def matching(
        self, asked: Mapping[str, tuple[Subscription, int]]
    ) -> Iterator[tuple[Routed, int, tuple[int, ...]]]:
        """Yield what matches, once, with the best QoS and the ids of the subscriptions; one pass for all of them."""
        tree: TopicTree[str, tuple[Subscription, int]] = TopicTree()
        for name, value in asked.items():
            tree.put(name, name, value)
        for topic, message in self._messages.items():
            found = [value for _, value in tree.match(topic)]
            if found:
                qos = max(min(subscription.qos, message.qos) for subscription, _ in found)
                yield message, qos, tuple(number for _, number in found if number)

    def _remove(self, topic: str) -> None:
        old = self._messages.pop(topic, None)
        if old is not None:
            self._bytes -= old.size
