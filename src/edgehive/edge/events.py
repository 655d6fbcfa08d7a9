"""Events of this node on their way to the cluster: counted, combined, rate-limited, bounded.

The same event again becomes a patch of its count; a flood of events that differ only in their text is
combined into one; an object that has used up its allowance is not heard of for a while. Events are told
once and never kept: they are lost rather than late.
"""

import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from edgehive.edge.node_status import timestamp
from edgehive.wire import resource as res
from edgehive.wire.message import INSERT, PATCH, Message, Stamp
from edgehive.wire.resource import format_resource

log = logging.getLogger(__name__)

_REMEMBERED = 512
_COMBINE_AFTER = 10
_COMBINE_WITHIN = 600.0
_OBJECT_BURST = 25
_OBJECT_REFILL = 1 / 300
_COMBINED = "(combined from similar events): "

V = TypeVar("V")
_Key = tuple[str, ...]


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float

    def take(self, now: float, burst: float, rate: float) -> bool:
        self.tokens = min(burst, self.tokens + max(0.0, now - self.at) * rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(slots=True)
class _Similar:
    """How many different texts of one kind of event came lately."""

    texts: set[str]
    since: float


class EventReporter:
    """Turns ``v1.Event`` objects into messages for the cloud.

    `send` gets a message and tells whether there was room for it.
    """

    def __init__(
        self,
        *,
        node: str,
        send: Callable[[Message], bool],
        stamp: Stamp,
        wall: Callable[[], float],
        rate: float = 50.0,
        burst: float = 100.0,
        enabled: bool = True,
    ) -> None:
        self._node = node
        self._send = send
        self._stamp = stamp
        self._wall = wall
        self._rate = rate
        self._burst = burst
        self._enabled = enabled
        self._all = _Bucket(burst, wall())
        self._objects: OrderedDict[_Key, _Bucket] = OrderedDict()
        self._similar: OrderedDict[_Key, _Similar] = OrderedDict()
        self._sent: OrderedDict[_Key, dict[str, Any]] = OrderedDict()
        self._numbers = itertools.count()
        self.dropped = 0

    def report(self, event: Mapping[str, Any]) -> None:
        """Report one event; `involvedObject`, `reason`, `message` and `type` are what it needs."""
        if not self._enabled:
            return
        now = self._wall()
        about = event.get("involvedObject") or {}
        subject = tuple(str(about.get(k, "")) for k in ("kind", "namespace", "name", "uid"))
        bucket = _remember(self._objects, subject, lambda: _Bucket(_OBJECT_BURST, now))
        if not bucket.take(now, _OBJECT_BURST, _OBJECT_REFILL):
            self._drop()
            return
        kind = (
            *subject,
            str(about.get("fieldPath", "")),
            str(event.get("type", "")),
            str(event.get("reason", "")),
        )
        text = self._combine(kind, str(event.get("message", "")), now)
        # A combined event is one event whatever its latest text is.
        key = (*kind, _COMBINED if text.startswith(_COMBINED) else text)
        if not self._all.take(now, self._burst, self._rate):
            self._drop()
            return
        earlier = self._sent.get(key)
        if earlier is None:
            self._insert(key, event, text, now)
        else:
            self._count(key, earlier, text, now)

    def _combine(self, kind: _Key, text: str, now: float) -> str:
        similar = _remember(self._similar, kind, lambda: _Similar(set(), now))
        if not 0 <= now - similar.since <= _COMBINE_WITHIN:
            similar.texts, similar.since = set(), now
        if text in similar.texts:
            return text
        if len(similar.texts) >= _COMBINE_AFTER:
            return _COMBINED + text
        similar.texts.add(text)
        return text

    def _insert(self, key: _Key, event: Mapping[str, Any], text: str, now: float) -> None:
        about = event.get("involvedObject") or {}
        metadata = dict(event.get("metadata") or {})
        namespace = metadata.get("namespace") or about.get("namespace") or "default"
        unique = f"{int(now * 1e9) + next(self._numbers):x}"
        body = {
            **event,
            "metadata": metadata
            | {"name": f"{about.get('name', self._node)}.{unique}", "namespace": namespace},
            "message": text,
            "firstTimestamp": timestamp(now),
            "lastTimestamp": timestamp(now),
            "count": 1,
            "source": event.get("source") or {"component": "kubelet", "host": self._node},
            "reportingComponent": event.get("reportingComponent") or "kubelet",
            "reportingInstance": self._node,
        }
        if self._post(INSERT, body, body):
            self._sent[key] = body
            while len(self._sent) > _REMEMBERED:
                self._sent.popitem(last=False)

    def _count(self, key: _Key, earlier: dict[str, Any], text: str, now: float) -> None:
        changes = {"count": earlier["count"] + 1, "lastTimestamp": timestamp(now), "message": text}
        body = earlier | changes
        content = {"event": body, "patchData": msgspec.json.encode(changes).decode()}
        if self._post(PATCH, body, content):
            self._sent[key] = body
            self._sent.move_to_end(key)

    def _post(self, operation: str, event: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
        new_id, moment = self._stamp()
        metadata = event["metadata"]
        sent = self._send(
            Message(
                id=new_id,
                timestamp=moment,
                operation=operation,
                resource=format_resource(metadata["namespace"], res.EVENT, metadata["name"]),
                content=msgspec.json.encode(content),
                source="edged",
                group="meta",
            )
        )
        if not sent:
            self._drop()
        return sent

    def _drop(self) -> None:
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # 1, 2, 4, 8, ...
            log.info("events dropped so far: %d", self.dropped)


def _remember(known: OrderedDict[_Key, V], key: _Key, make: Callable[[], V]) -> V:
    """Look up or make an entry, forgetting those not used for longest."""
    value = known.get(key)
    if value is None:
        value = known[key] = make()
        while len(known) > _REMEMBERED:
            known.popitem(last=False)
    else:
        known.move_to_end(key)
    return value
