"""Events: what controllers tell the person who runs ``kubectl describe``.

Repeats of the same event within ten minutes become a count on the first one.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from edgehive.controllers.runtime import Clock
from edgehive.controllers.times import format_time
from edgehive.kit.errors import EdgehiveError
from edgehive.kube.api import MERGE_PATCH, KubeApi, WriteOptions
from edgehive.kube.meta import Meta
from edgehive.kube.refs import EVENTS

log = logging.getLogger(__name__)

_WINDOW = 600.0
_REMEMBERED = 512
_WAITING = 256


@dataclass(frozen=True, slots=True)
class Subject:
    """The object an event is about."""

    api_version: str
    kind: str
    meta: Meta


@dataclass(frozen=True, slots=True)
class EventWrite:
    """One write to make: create `body`, or patch `name` with it."""

    namespace: str
    name: str
    body: dict[str, Any]
    create: bool


@dataclass(slots=True)
class _Seen:
    name: str
    count: int
    last: float


@dataclass(slots=True)
class EventBook:
    """Remembers recent events and turns repeats into counts; pure."""

    component: str
    seen: "OrderedDict[tuple[str, ...], _Seen]" = field(default_factory=OrderedDict)
    _serial: int = 0

    def record(self, subject: Subject, kind: str, reason: str, message: str, now: float) -> EventWrite:
        """Return what to write for this event."""
        meta = subject.meta
        namespace = meta.namespace or "default"
        identity = (subject.kind, namespace, meta.name, meta.uid, kind, reason, message)
        known = self.seen.pop(identity, None)
        stamp = format_time(now)
        if known is not None and now - known.last < _WINDOW:
            known.count += 1
            known.last = now
            self.seen[identity] = known
            return EventWrite(
                namespace, known.name, {"count": known.count, "lastTimestamp": stamp}, create=False
            )
        self._serial += 1
        name = f"{meta.name[:220]}.{int(now * 1e6) * 1000 + self._serial % 1000:x}"
        self.seen[identity] = _Seen(name, 1, now)
        while len(self.seen) > _REMEMBERED:
            self.seen.popitem(last=False)
        reference = {
            "apiVersion": subject.api_version,
            "kind": subject.kind,
            "name": meta.name,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        } | ({"namespace": meta.namespace} if meta.namespace else {})
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": reference,
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": self.component},
            "reportingComponent": self.component,
            "reportingInstance": "",
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
        return EventWrite(namespace, name, body, create=True)


class EventSink:
    """Writes events in the background; when it cannot keep up the oldest are dropped."""

    def __init__(self, *, api: KubeApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._writes: deque[EventWrite] = deque(maxlen=_WAITING)
        self._wake = asyncio.Event()

    def recorder(self, component: str) -> "Recorder":
        """Return a recorder that signs as `component`."""
        return Recorder(book=EventBook(component), sink=self, clock=self._clock)

    def put(self, write: EventWrite) -> None:
        """Queue one write."""
        self._writes.append(write)
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled; an event that cannot be written is given up."""
        while True:
            self._wake.clear()
            while self._writes:
                write = self._writes.popleft()
                try:
                    await self._write(write)
                except EdgehiveError as exc:
                    log.debug("event %s: %s", write.name, exc)
            await self._wake.wait()

    async def _write(self, write: EventWrite) -> None:
        body = msgspec.json.encode(write.body)
        options = WriteOptions(namespace=write.namespace)
        if write.create:
            await self._api.create(EVENTS, body, options)
        else:
            await self._api.patch(EVENTS, write.name, body, MERGE_PATCH, options)


class Recorder:
    """Records the events of one component."""

    def __init__(self, *, book: EventBook, sink: EventSink, clock: Clock) -> None:
        self._book = book
        self._sink = sink
        self._clock = clock

    def event(self, subject: Subject, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Tell something about `subject`; never blocks, never fails."""
        self._sink.put(self._book.record(subject, kind, reason, message, self._clock()))
