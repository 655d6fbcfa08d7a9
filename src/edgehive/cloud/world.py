"""What the cluster looks like from its watch caches, as the per-node cores and the edge controller ask for it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

import msgspec

from edgehive.aio.informer import Informer
from edgehive.cloud.location import LocationIndex
from edgehive.cloud.requested import Requested
from edgehive.kit.errors import EdgehiveError, ProtocolError
from edgehive.kube.api import KubeApi, WriteOptions
from edgehive.kube.reflector import CachedObject as Cached
from edgehive.kube.reflector import Key, decode_cached
from edgehive.kube.refs import CLUSTEROBJECTSYNCS, CONFIGMAPS, GVR, NODES, OBJECTSYNCS, PODS, SECRETS
from edgehive.kube.status import ApiStatus
from edgehive.wire.cloudnode import CachedObject, Missing, Unknown
from edgehive.wire.objectsync import SyncKey, SyncRecord, parse_sync, sync_object

_KINDS: Final = {PODS: "Pod", CONFIGMAPS: "ConfigMap", SECRETS: "Secret", NODES: "Node"}
_BY_KIND: Final = {kind: gvr for gvr, kind in _KINDS.items()}


def compact_sync(raw: bytes) -> bytes:
    """What is worth keeping of an ObjectSync; whatever is not one of ours is kept as it is."""
    try:
        record = parse_sync(raw)
    except ProtocolError:
        return raw
    body = sync_object(record)
    body["metadata"]["resourceVersion"] = record.resource_version
    body["status"] = {"objectResourceVersion": record.version}
    return msgspec.json.encode(body)


class Caches:
    """The informers of cloudcore; run each of `all()` as a service. `more` are those of modules that are on."""

    def __init__(self, *, api: KubeApi, more: tuple[Informer, ...] = ()) -> None:
        self._more = more
        self.pods: Final = Informer(api=api, gvr=PODS)
        self.configmaps: Final = Informer(api=api, gvr=CONFIGMAPS)
        self.secrets: Final = Informer(api=api, gvr=SECRETS)
        self.nodes: Final = Informer(api=api, gvr=NODES)
        self.syncs: Final = Informer(api=api, gvr=OBJECTSYNCS, keep=compact_sync)
        self.cluster_syncs: Final = Informer(api=api, gvr=CLUSTEROBJECTSYNCS, keep=compact_sync)

    def all(self) -> tuple[Informer, ...]:
        """Every informer."""
        own = (self.nodes, self.pods, self.configmaps, self.secrets, self.syncs, self.cluster_syncs)
        return (*own, *self._more)

    @property
    def has_synced(self) -> bool:
        """Whether every cache is complete."""
        return all(informer.has_synced for informer in self.all())

    async def synced(self) -> None:
        """Wait until every cache is complete."""
        for informer in self.all():
            await informer.synced()

    def by_resource(self) -> dict[GVR, Informer]:
        """The informers of what is delivered to edges."""
        return {gvr: self.of(gvr) for gvr in _KINDS}

    def of(self, gvr: GVR) -> Informer:
        """The informer of one of the four kinds that are delivered to edges."""
        return {PODS: self.pods, CONFIGMAPS: self.configmaps, SECRETS: self.secrets, NODES: self.nodes}[gvr]


class SyncRecords:
    """The ObjectSync records by node, kept current by the caches."""

    def __init__(self, *, follow: Requested | None = None) -> None:
        """`follow` is told of every record."""
        self._nodes: dict[str, dict[SyncKey, SyncRecord]] = {}
        self._follow = follow

    def put(self, record: SyncRecord) -> None:
        """Note a record."""
        if self._follow is not None:
            self._follow.note(record)
        self._nodes.setdefault(record.key.node, {})[record.key] = record

    def remove(self, record: SyncRecord) -> None:
        """Forget a record."""
        if self._follow is not None:
            self._follow.forget(record)
        records = self._nodes.get(record.key.node)
        if records is not None:
            records.pop(record.key, None)
            if not records:
                del self._nodes[record.key.node]

    def of(self, node: str) -> tuple[SyncRecord, ...]:
        """The records of `node`."""
        return tuple(self._nodes.get(node, {}).values())

    def all(self) -> Iterator[SyncRecord]:
        """Every record."""
        for records in self._nodes.values():
            yield from records.values()

    def __len__(self) -> int:
        return sum(map(len, self._nodes.values()))


class ObjectView(Protocol):
    """What a module of its own (devices, policies) knows of the objects that it brings to edges."""

    @property
    def types(self) -> frozenset[str]:
        """Their types, as they stand in resource strings."""
        ...

    def knows(self, record: SyncRecord) -> bool: ...
    def find(self, record: SyncRecord) -> CachedObject | Missing | Unknown: ...
    async def fetch(self, record: SyncRecord) -> CachedObject | Missing | Unknown: ...
    def assigned(self, node: str) -> Iterable[CachedObject]: ...
    def meant_for(self, kind: str, key: Key) -> Iterable[str]: ...
    def wanted_version(self, kind: str, key: Key) -> str: ...


class ClusterView:
    """Speaks `wire.cloudnode.World` over the caches."""

    def __init__(
        self,
        *,
        api: KubeApi,
        caches: Caches,
        location: LocationIndex,
        records: SyncRecords,
        requested: Requested | None = None,
        views: Sequence[ObjectView] = (),
    ) -> None:
        """`views` are those of the modules that are on."""
        self._api = api
        self._views = tuple(views)
        self._caches = caches
        self._location = location
        self._records = records
        self._requested = requested

    def find(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        """The object that `record` stands for."""
        for view in self._views:
            if view.knows(record):
                return view.find(record)
        if self._requested is not None and self._requested.knows(record):
            return self._requested.find(record)
        gvr = _BY_KIND.get(record.kind) if record.api_version == "v1" else None
        if gvr is None:
            return Unknown()
        informer = self._caches.of(gvr)
        if not informer.has_synced:
            return Unknown()
        found = informer.get(record.key.namespace or "", record.object_name)
        return self._convert(gvr, found) if found is not None else Missing()

    def assigned(self, node: str) -> Iterable[CachedObject]:
        """The Node object, what its pods refer to, and its pods, in this order; then its devices."""
        found = self._caches.nodes.get("", node)
        if found is not None:
            yield self._convert(NODES, found)
        for kind, namespace, name in self._location.references(node):
            gvr = CONFIGMAPS if kind == "configmap" else SECRETS
            found = self._caches.of(gvr).get(namespace, name)
            if found is not None:
                yield self._convert(gvr, found)
        for key in self._location.pods(node):
            found = self._caches.pods.get(*key)
            if found is not None:
                yield self._convert(PODS, found)
        for view in self._views:
            yield from view.assigned(node)

    def records(self, node: str) -> Iterable[SyncRecord] | None:
        """The node's records; ``None`` while they are not known."""
        if not (self._caches.syncs.has_synced and self._caches.cluster_syncs.has_synced):
            return None
        return self._records.of(node)

    async def fetch(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        """Ask the API server itself for the object of `record`; `Unknown` if it cannot be asked."""
        for view in self._views:
            if view.knows(record):
                return await view.fetch(record)
        if self._requested is not None and self._requested.knows(record):
            return await self._requested.fetch(record)
        gvr = _BY_KIND.get(record.kind) if record.api_version == "v1" else None
        if gvr is None:
            return Unknown()
        options = WriteOptions(namespace=record.key.namespace)
        try:
            return self._convert(gvr, decode_cached(await self._api.get(gvr, record.object_name, options)))
        except ApiStatus as exc:
            return Missing() if exc.code == 404 else Unknown()
        except EdgehiveError:
            return Unknown()

    def raw(self, gvr: GVR, namespace: str, name: str) -> bytes | None:
        """An object as the API server sent it."""
        found = self._caches.of(gvr).get(namespace, name)
        return found.raw if found is not None else None

    def raw_node(self, name: str) -> bytes | None:
        """A Node as the API server sent it."""
        return self.raw(NODES, "", name)

    def meant_for(self, kind: str, namespace: str, name: str) -> Iterable[str]:
        """The nodes that should have an object of a kind that is delivered to edges."""
        match kind:
            case "node":
                return (name,)
            case "pod":
                node = self.node_of(namespace, name)
                return (node,) if node else ()
            case "configmap" | "secret":
                return self._location.nodes((kind, namespace, name))
        return next((v.meant_for(kind, (namespace, name)) for v in self._views if kind in v.types), ())

    def wanted_version(self, kind: str, namespace: str, name: str) -> str:
        """The version that those nodes should have; "" for an object that does not exist."""
        for view in self._views:
            if kind in view.types:
                return view.wanted_version(kind, (namespace, name))
        gvr = _BY_KIND.get({"configmap": "ConfigMap"}.get(kind, kind.capitalize()))
        found = self._caches.of(gvr).get(namespace, name) if gvr is not None else None
        return self._convert(gvr, found).version if gvr is not None and found is not None else ""

    def node_of(self, namespace: str, name: str) -> str | None:
        """The node a pod is on; ``None`` when it is not known."""
        place = self._location.place((namespace, name))
        return place.node if place is not None else None

    def _convert(self, gvr: GVR, found: Cached) -> CachedObject:
        meta = found.meta
        version = meta.resource_version
        if gvr == PODS:
            place = self._location.place(found.key)
            # A pod's own status reports do not make it newer for the edge that sent them.
            version = place.version if place is not None else version
        return CachedObject(
            api_version=gvr.api_version,
            kind=_KINDS[gvr],
            namespace=meta.namespace or None,
            name=meta.name,
            uid=meta.uid,
            version=version,
            raw=found.raw,
        )
