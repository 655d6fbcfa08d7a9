"""Who has subscribed to what at the broker, and who gets a message."""

from collections.abc import Iterable
from typing import Final

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_limits import BrokerLimits
from edgehive.wire.mqtt_packets import Subscription
from edgehive.wire.mqtt_session import Session
from edgehive.wire.mqtt_topics import TopicTree, is_filter, matches

_CACHE: Final = 512
_CACHED_TOPIC: Final = 256

Target = tuple[Session, Subscription, int]
"""A session, its subscription that matches, and that one's id or 0."""


class Subscriptions:
    """The filters of all sessions in one tree, and the broker's own; bounded in number, levels and characters."""

    def __init__(self, limits: BrokerLimits) -> None:
        self._limits = limits
        self._tree: TopicTree[Session, tuple[Subscription, int]] = TopicTree()
        self._characters = 0
        self._own: tuple[str, ...] = ()
        self._cache: dict[str, tuple[list[Target], bool]] = {}

    def own_filters(self, filters: Iterable[str]) -> None:
        """What the broker itself listens to."""
        self._own = tuple(filters)
        self._cache.clear()

    def add(self, session: Session, subscription: Subscription, number: int) -> int:
        """Subscribe; return the code for a 5.0 client, which is the QoS or says what is wrong."""
        name = subscription.filter
        code = self._refusal(session, name)
        if code:
            return code
        known = name in session.subscriptions
        self._characters += 0 if known else len(name)
        session.subscriptions[name] = (subscription, number)
        self._tree.put(name, session, (subscription, number))
        self._cache.clear()
        handling = subscription.retain_handling
        if handling == 0 or (handling == 1 and not known):
            session.asked[name] = (subscription, number)
        return subscription.qos

    def _refusal(self, session: Session, name: str) -> int:
        limits = self._limits
        if name.startswith("$share/"):
            return mp.NO_SHARED_SUBSCRIPTIONS
        if not is_filter(name) or len(name) > limits.filter:
            return mp.BAD_FILTER
        if name in session.subscriptions:
            return 0
        full = len(session.subscriptions) >= limits.subscriptions or self._tree.nodes >= limits.nodes
        return mp.QUOTA_EXCEEDED if full or self._characters + len(name) > limits.filters else 0

    def remove(self, session: Session, name: str) -> int:
        """Unsubscribe; return the code for a 5.0 client."""
        if session.subscriptions.pop(name, None) is None:
            return mp.NO_SUBSCRIPTION
        session.asked.pop(name, None)
        self._take_out(session, name)
        return mp.SUCCESS

    def forget(self, session: Session) -> None:
        """A session is over."""
        for name in session.subscriptions:
            self._take_out(session, name)
        session.subscriptions.clear()
        self._cache.clear()

    def _take_out(self, session: Session, name: str) -> None:
        self._characters -= len(name)
        self._tree.remove(name, session)
        self._cache.clear()

    def match(self, topic: str) -> tuple[list[Target], bool]:
        """The subscriptions that match, and whether the broker's own filters do."""
        found = self._cache.get(topic)
        if found is None:
            targets = [(session, *value) for session, value in self._tree.match(topic)]
            found = (targets, any(matches(name, topic) for name in self._own))
            if len(topic) <= _CACHED_TOPIC:
                if len(self._cache) >= _CACHE:
                    self._cache.clear()
                self._cache[topic] = found
        return found
