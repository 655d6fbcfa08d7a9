"""Objects that an edge has asked for and must go on hearing of: volumes, claims, attachments, access lists.

Nothing says which node needs one of them but the record that its answer left behind. So a kind is watched from the
moment there is a record of it until there has been none for a while; a cluster whose edges never mount a claim pays
nothing. What has a record is kept current and its delete is brought, like anything else that has one.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgehive.aio.informer import Informer
from edgehive.kit.errors import EdgehiveError
from edgehive.kube.api import KubeApi, WriteOptions
from edgehive.kube.reflector import CachedObject as Cached
from edgehive.kube.reflector import Change, decode_cached
from edgehive.kube.refs import GVR
from edgehive.kube.status import ApiStatus
from edgehive.wire import classify as cls
from edgehive.wire.desired import CachedObject, Missing, Unknown, delete_message, object_message
from edgehive.wire.message import Stamp
from edgehive.wire.objectsync import SyncKey, SyncRecord
from edgehive.wire.outbound import Outbound

log = logging.getLogger(__name__)

_LINGER: Final = 300.0


@dataclass(frozen=True, slots=True)
class _Kind:
    gvr: GVR
    kind: str
    namespaced: bool
    source: str = cls.EDGE_CONTROLLER


_ALL: Final = (
    _Kind(GVR("", "v1", "persistentvolumes"), "PersistentVolume", False),
    _Kind(GVR("", "v1", "persistentvolumeclaims"), "PersistentVolumeClaim", True),
    # The edge names a namespace for attachments, so that their records have one; they themselves have none.
    _Kind(GVR("storage.k8s.io", "v1", "volumeattachments"), "VolumeAttachment", False),
    _Kind(
        GVR("policy.kubeedge.io", "v1alpha1", "serviceaccountaccesses"),
        "ServiceAccountAccess",
        True,
        cls.POLICY_CONTROLLER,
    ),
)
_KINDS: Final = {(kind.gvr.api_version, kind.kind): kind for kind in _ALL}

_Name = tuple[str, str]


class _Feed:
    """The watch of one kind, and who wants what of it."""

    def __init__(self, kind: _Kind, informer: Informer) -> None:
        self.kind: Final = kind
        self.informer: Final = informer
        self.task: asyncio.Task[None] | None = None
        self.wanted: dict[_Name, dict[SyncKey, SyncRecord]] = {}
        self.idle_since: float | None = None

    def place(self, record: SyncRecord) -> _Name:
        """Where the object of `record` is in the cache."""
        return ((record.key.namespace or "") if self.kind.namespaced else "", record.object_name)


class Requested:
    """Follows what records ask for; `run` drives it."""

    def __init__(
        self,
        *,
        api: KubeApi,
        connected: Callable[[str], bool],
        send: Callable[[str, Outbound], None],
        stamp: Stamp,
        now: Callable[[], float],
        linger: float = _LINGER,
        left_out: Callable[[SyncRecord], bool] = lambda record: False,
    ) -> None:
        """Wire up; `left_out` tells of the records whose objects a module of their own follows."""
        self._left_out = left_out
        self._api = api
        self._connected = connected
        self._send = send
        self._stamp = stamp
        self._now = now
        self._linger = linger
        self._feeds: dict[GVR, _Feed] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Watch what is wanted, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for feed in self._feeds.values():
                    self._start(feed)
                while True:
                    await asyncio.sleep(self._linger / 10)
                    self.tidy()
            finally:
                self._group = None

    async def settled(self, timeout: float) -> None:
        """Wait until what is watched is known, but no longer than `timeout`: a kind may not be served here."""
        try:
            async with asyncio.timeout(timeout):
                for feed in tuple(self._feeds.values()):
                    await feed.informer.synced()
        except TimeoutError:
            log.info("some of what edges have asked for is not known yet")

    @property
    def watched(self) -> tuple[GVR, ...]:
        """The kinds that are watched now."""
        return tuple(self._feeds)

    # -- records

    def note(self, record: SyncRecord) -> None:
        """There is a record."""
        kind = self._kind(record)
        if kind is None:
            return
        feed = self._feeds.get(kind.gvr)
        if feed is None:
            feed = self._feeds[kind.gvr] = _Feed(kind, Informer(api=self._api, gvr=kind.gvr))
            feed.informer.subscribe(lambda change: self._changed(feed, change))
            self._start(feed)
        feed.idle_since = None
        feed.wanted.setdefault(feed.place(record), {})[record.key] = record

    def forget(self, record: SyncRecord) -> None:
        """A record is gone."""
        kind = self._kind(record)
        feed = self._feeds.get(kind.gvr) if kind is not None else None
        if feed is None:
            return
        place = feed.place(record)
        records = feed.wanted.get(place, {})
        records.pop(record.key, None)
        if not records:
            feed.wanted.pop(place, None)
        if not feed.wanted and feed.idle_since is None:
            feed.idle_since = self._now()

    def tidy(self) -> None:
        """Watch no longer what nobody has had a record of for a while."""
        for gvr, feed in tuple(self._feeds.items()):
            if feed.idle_since is not None and self._now() - feed.idle_since >= self._linger:
                if feed.task is not None:
                    feed.task.cancel()
                del self._feeds[gvr]

    # -- what `world.ClusterView` asks

    def knows(self, record: SyncRecord) -> bool:
        """Whether the object of `record` is of a kind that is followed here."""
        return self._kind(record) is not None

    def find(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        """The object of `record` in the cache."""
        kind = self._kind(record)
        feed = self._feeds.get(kind.gvr) if kind is not None else None
        if kind is None or feed is None or not feed.informer.has_synced:
            return Unknown()
        found = feed.informer.get(*feed.place(record))
        return _convert(kind, record, found) if found is not None else Missing()

    async def fetch(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        """The object of `record`, asked of the API server itself."""
        kind = self._kind(record)
        if kind is None:
            return Unknown()
        options = WriteOptions(namespace=record.key.namespace if kind.namespaced else None)
        try:
            raw = await self._api.get(kind.gvr, record.object_name, options)
        except ApiStatus as exc:
            # A whole kind that is not served (any more) says nothing about its objects.
            gone = exc.code == 404 and exc.details.get("name") == record.object_name
            return Missing() if gone else Unknown()
        except EdgehiveError:
            return Unknown()
        return _convert(kind, record, decode_cached(raw))

    # -- helpers

    def _kind(self, record: SyncRecord) -> _Kind | None:
        kind = _KINDS.get((record.api_version, record.kind))
        return kind if kind is not None and not self._left_out(record) else None

    def _start(self, feed: _Feed) -> None:
        if self._group is not None and feed.task is None:
            feed.task = self._group.create_task(feed.informer.run())

    def _changed(self, feed: _Feed, change: Change) -> None:
        if change.type == "ADDED":
            return  # the list with which a watch begins; who has asked has just been answered
        found = change.object
        for record in tuple(feed.wanted.get((found.meta.namespace, found.meta.name), {}).values()):
            if not self._connected(record.key.node):
                continue  # found by comparison when it connects
            if change.type == "DELETED":
                if record.key.uid == found.meta.uid:
                    self._send(record.key.node, delete_message(record, stamp=self._stamp))
            elif record.key.uid == found.meta.uid:
                cached = _convert(feed.kind, record, found)
                self._send(record.key.node, object_message(cached, first=False, stamp=self._stamp))


def _convert(kind: _Kind, record: SyncRecord, found: Cached) -> CachedObject:
    return CachedObject(
        api_version=kind.gvr.api_version,
        kind=kind.kind,
        namespace=record.key.namespace,
        name=found.meta.name,
        uid=found.meta.uid,
        version=found.meta.resource_version,
        raw=found.raw,
        source=kind.source,
    )
