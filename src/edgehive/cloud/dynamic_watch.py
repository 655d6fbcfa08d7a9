"""What edges watch: one upstream watch for each resource, shared by every edge that wants something of it.

A watch of an edge is an Application with a selection. It outlives the edge's connection: when the node comes back it
is sent what happened meanwhile, from a bounded record of changes. The edge's watch-sync message then says what it
still wants.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from edgehive.aio.informer import Informer
from edgehive.cloud.dynamic_filter import for_edges
from edgehive.cloud.dynamic_groups import Labels, NodeGroups
from edgehive.kit.errors import EdgehiveError, ProtocolError
from edgehive.kit.text import safe_label
from edgehive.kube.api import KubeApi, ListOptions
from edgehive.kube.reflector import CachedObject, Change, Key
from edgehive.kube.refs import GVR
from edgehive.kube.selectors import FieldSelector, LabelSelector
from edgehive.kube.status import ApiStatus
from edgehive.wire.application import Application, event_message
from edgehive.wire.message import DELETE, INSERT, UPDATE, Stamp
from edgehive.wire.outbound import Outbound

log = logging.getLogger(__name__)

MAX_PER_NODE: Final = 256
"""Watches one node may have; each costs cloudcore a look at every change."""
_HISTORY = 2048  # changes of one resource that are remembered
_OVERLAP = 120.0  # seconds before a disconnect in which what was sent may not have arrived
_LINGER = 300.0  # how long the watch of a resource nobody wants any more is kept
_GONE = 3600.0  # how long the watches of an absent node are kept
_SYNC_WAIT = 20.0

Allowed = Callable[[Application], Awaitable[None]]
"""Raises `ApiStatus` when the node may not watch this."""


def _unlabelled(_node: str) -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class _Listener:
    application: Application
    namespace: str
    labels: LabelSelector
    fields: FieldSelector
    gvr: GVR

    def matches(self, obj: CachedObject) -> bool:
        meta = obj.meta
        if self.namespace and meta.namespace != self.namespace:
            return False
        if not self.labels.matches(meta.labels):
            return False
        return not self.fields.terms or self.fields.matches(msgspec.json.decode(obj.raw), self.gvr)


@dataclass(frozen=True, slots=True)
class _Past:
    when: float
    change: Change


@dataclass(slots=True)
class _Feed:
    """One resource: its informer, who listens, what has happened."""

    gvr: GVR
    informer: Informer
    task: asyncio.Task[None] | None
    unsubscribe: Callable[[], None] = lambda: None
    nodes: dict[str, dict[str, _Listener]] = field(default_factory=dict)
    past: deque[_Past] = field(default_factory=lambda: deque(maxlen=_HISTORY))
    idle_since: float = 0.0


class Watches:
    """The watches of all nodes; `run` drives it."""

    def __init__(
        self,
        *,
        api: KubeApi,
        shared: Callable[[], Mapping[GVR, Informer]],
        allowed: Allowed,
        send: Callable[[str, Outbound], None],
        connected: Callable[[str], bool],
        stamp: Stamp,
        labels: Labels = _unlabelled,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wire up; `shared` are informers that run anyway and are used instead of own ones, `labels` those of nodes."""
        self.groups = NodeGroups(api=api, labels=labels, start=self.start)
        self._api = api
        self._shared = shared
        self._allowed = allowed
        self._send = send
        self._connected = connected
        self._stamp = stamp
        self._now = now
        self._feeds: dict[GVR, _Feed] = {}
        self._opening: dict[GVR, asyncio.Lock] = {}
        self._absent: dict[str, float] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Mirror what is watched, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                while True:
                    await asyncio.sleep(30.0)
                    self._tidy()
            finally:
                self._group = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` among the tasks of `run`; it is dropped when that does not run."""
        if self._group is None:
            work.close()
            return
        self._group.create_task(work)

    def __len__(self) -> int:
        return sum(len(watches) for feed in self._feeds.values() for watches in feed.nodes.values())

    @property
    def resources(self) -> int:
        """How many resources are watched upstream for edges."""
        return len(self._feeds)

    # what edges want

    async def add(self, application: Application) -> None:
        """Begin a watch; what it selects now is sent unless its option has ``sendInitialEvents: false``.

        Raises:
            ApiStatus: it cannot be watched, or not by this node.
        """
        listener = _listener(application)
        node = application.node
        await self._allowed(application)
        if sum(len(f.nodes.get(node, ())) for f in self._feeds.values()) >= MAX_PER_NODE:
            raise ApiStatus(429, "TooManyRequests", f"a node may have {MAX_PER_NODE} watches")
        feed = await self._feed(listener.gvr)
        await self.groups.prepare(listener.gvr)
        feed.nodes.setdefault(node, {})[application.id] = listener
        if application.options().get("sendInitialEvents") is not False:
            for obj in feed.informer.items():
                if listener.matches(obj):
                    self._send(node, self._event(INSERT, feed.gvr, obj, node))

    async def sync(self, node: str, wanted: Mapping[str, Application]) -> list[Application]:
        """Make the watches of `node` those of `wanted`; return the ones that could not be begun."""
        for feed in self._feeds.values():
            held = feed.nodes.get(node, {})
            for key in held.keys() - wanted.keys():
                self._drop(feed, node, key)
        failed: list[Application] = []
        for key, application in wanted.items():
            if any(key in feed.nodes.get(node, ()) for feed in self._feeds.values()):
                continue
            try:
                await self.add(application)
            except ApiStatus as exc:
                failed.append(application.rejected(exc))
            except EdgehiveError as exc:
                failed.append(application.rejected(ApiStatus(503, "ServiceUnavailable", str(exc))))
        return failed

    def node_connected(self, node: str) -> None:
        """Send a node that has come back what it may have missed: of each object where it stands now.

        What it was between would be seen once more by those who have seen it, and objects that are gone would be
        back for a moment.
        """
        since = self._absent.pop(node, self._now())
        for feed in self._feeds.values():
            watches = feed.nodes.get(node)
            if not watches:
                continue
            missed: dict[Key, list[Change]] = {}
            for past in feed.past:
                if past.when >= since - _OVERLAP:
                    key = past.change.object.key
                    changes = missed[key] = missed.pop(key, [])  # in the order of the last changes
                    changes.append(past.change)
            for changes in missed.values():
                seen = [c.old is not None and _any(watches.values(), c.old) for c in changes]
                self._tell(feed, node, changes[-1], {}, before=any(seen))

    def _drop(self, feed: _Feed, node: str, key: str) -> None:
        watches = feed.nodes[node]
        watches.pop(key, None)
        if not watches:
            del feed.nodes[node]
        if not feed.nodes:
            feed.idle_since = self._now()

    # upstream

    async def _feed(self, gvr: GVR) -> _Feed:
        lock = self._opening.setdefault(gvr, asyncio.Lock())
        async with lock:
            feed = self._feeds.get(gvr)
            if feed is None:
                feed = await self._open(gvr)
        try:
            async with asyncio.timeout(_SYNC_WAIT):
                await feed.informer.synced()
        except TimeoutError:
            raise ApiStatus(503, "ServiceUnavailable", f"{gvr} cannot be watched at the moment") from None
        return feed

    async def _open(self, gvr: GVR) -> _Feed:
        shared = self._shared().get(gvr)
        if shared is not None:
            feed = _Feed(gvr, shared, None, idle_since=self._now())
        else:
            # An informer would try for ever; an edge that asks for what does not exist is told so.
            await self._api.list(gvr, ListOptions(limit=1))
            if self._group is None:
                raise ApiStatus(503, "ServiceUnavailable", "cloudcore is starting or stopping")
            informer = Informer(api=self._api, gvr=gvr)
            task = self._group.create_task(informer.run(), name=f"watch {gvr} for edges")
            feed = _Feed(gvr, informer, task, idle_since=self._now())
        feed.unsubscribe = feed.informer.subscribe(lambda change: self._changed(feed, change), replay=False)
        self._feeds[gvr] = feed
        log.info("watching %s for edges", gvr)
        return feed

    def _tidy(self) -> None:
        now = self._now()
        for feed in list(self._feeds.values()):
            for node in list(feed.nodes):
                if self._connected(node):
                    continue
                if now - self._absent.setdefault(node, now) > _GONE:
                    for key in list(feed.nodes[node]):
                        self._drop(feed, node, key)
            if not feed.nodes and now - feed.idle_since > _LINGER:
                self._close(feed)
        for node in [n for n, since in self._absent.items() if now - since > 2 * _GONE]:
            del self._absent[node]

    def _close(self, feed: _Feed) -> None:
        feed.unsubscribe()
        if feed.task is not None:
            feed.task.cancel()
        del self._feeds[feed.gvr]
        self._opening.pop(feed.gvr, None)
        log.info("no edge watches %s any more", feed.gvr)

    # downstream

    def _changed(self, feed: _Feed, change: Change) -> None:
        feed.past.append(_Past(self._now(), change))
        made: dict[str, Outbound] = {}
        for node in feed.nodes:
            if self._connected(node):
                self._tell(feed, node, change, made)
            else:
                self._absent.setdefault(node, self._now())

    def _tell(
        self, feed: _Feed, node: str, change: Change, made: dict[str, Outbound], *, before: bool = False
    ) -> None:
        """Send one change to one node; `made` keeps messages that are the same for every node.

        `before`: the node may have had the object at some time, whatever it was just before the change.
        """
        watches = feed.nodes[node].values()
        before = before or (change.old is not None and _any(watches, change.old))
        after = change.new is not None and _any(watches, change.new)
        if not (before or after):
            return
        operation = DELETE if not after else UPDATE if before else INSERT
        key = f"{operation} {self.groups.variant(node, feed.gvr, change.object.raw)}"
        if key not in made:
            made[key] = self._event(operation, feed.gvr, change.object, node)
        self._send(node, made[key])

    def _event(self, operation: str, gvr: GVR, obj: CachedObject, node: str) -> Outbound:
        raw = for_edges(gvr, self.groups.shown(node, gvr, obj.raw))
        return Outbound(event_message(operation, gvr, raw, stamp=self._stamp))


def _any(listeners: Iterable[_Listener], obj: CachedObject) -> bool:
    return any(listener.matches(obj) for listener in listeners)


def _listener(application: Application) -> _Listener:
    """Read what a watch selects.

    Raises:
        ApiStatus: 400.
    """
    target = application.target
    try:
        options = application.options()
    except ProtocolError as exc:
        raise ApiStatus(400, "BadRequest", str(exc)) from exc
    fields = FieldSelector.parse(str(options.get("fieldSelector") or ""))
    if target.name:
        fields = FieldSelector((*fields.terms, ("metadata.name", True, target.name)))
    if not (target.gvr.version and target.gvr.resource):
        raise ApiStatus(400, "BadRequest", f"{safe_label(application.key)} names no resource")
    return _Listener(
        application=application,
        namespace=target.namespace,
        labels=LabelSelector.parse(str(options.get("labelSelector") or "")),
        fields=fields,
        gvr=target.gvr,
    )
