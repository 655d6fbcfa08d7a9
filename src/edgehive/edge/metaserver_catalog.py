"""What kinds of objects there are, as the cloud's discovery says; kept, so that it is known offline too.

Documents are asked for when somebody needs them and looked at again after a while. Tables of built-in kinds are those
of the embedded API server; a custom kind's columns come from its definition when that is here.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from edgehive.edge.metaserver_store import Replica
from edgehive.edge.metaserver_sync import Follower
from edgehive.kit.errors import Unreachable
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.crd import infos_from_crd
from edgehive.kube.refs import CRDS, GVR
from edgehive.kube.resources import Column, ResourceInfo
from edgehive.kube.schema import Schema
from edgehive.kube.status import ApiStatus
from edgehive.wire import application as apps
from edgehive.wire.application import ResourceKey
from edgehive.wire.kinds import kind_to_resource

log = logging.getLogger(__name__)

_FRESH: Final = 1.0  # seconds for which a document is not asked for again: one client asks for many
_LEARNT: Final = 300.0  # the same for what has been found in one


class Catalog:
    """Resources of the cluster."""

    def __init__(self, *, follower: Follower, replica: Replica, now: Callable[[], float]) -> None:
        self._follower = follower
        self._replica = replica
        self._now = now
        self._asked: dict[str, float] = {}
        self._rows: dict[tuple[str, str], dict[str, ResourceInfo]] = {}
        self._builtin: dict[GVR, ResourceInfo] | None = None

    # documents

    async def document(self, path: str) -> bytes:
        """What the API server answers on a pass-through path: asked now, or as it was last.

        Raises:
            ApiStatus: it refused.
            Unreachable: there is no cloud, and it was never asked.
        """
        held = self._replica.document(path)
        asked = self._asked.get(path)
        if held is not None and asked is not None and self._now() - asked < _FRESH:
            return held
        wait = self._follower.hope if held is None else self._follower.patience
        try:
            if not wait:
                raise Unreachable("the cloud is not reachable")
            body = await self._follower.ask(self._follower.application(path, apps.GET), wait)
        except Unreachable:
            if held is None:
                raise
            return held
        except ApiStatus as exc:
            if held is None or not exc.retryable:
                raise
            return held
        self._asked[path] = self._now()
        if body != held:
            self._replica.keep_document(path, body)
            self._rows = {k: v for k, v in self._rows.items() if GVR(*k, "").prefix != path}
        return body

    def renew(self) -> None:
        """Ask for every document again when it is needed: a kind has been made or removed."""
        self._asked.clear()

    # resources

    def find(self, group: str, version: str, resource: str) -> ResourceInfo | None:
        """Return a resource that `learn` has found."""
        return self._rows.get((group, version), {}).get(resource)

    async def learn(self, gvr: GVR) -> ResourceInfo:
        """Find out about a resource; it can be `find` afterwards.

        Raises:
            ApiStatus: there is no such resource.
            Unreachable: it cannot be known now.
        """
        info = self.find(gvr.group, gvr.version, gvr.resource)
        if info is not None and self._now() - self._asked.get(gvr.prefix, -_LEARNT) < _LEARNT:
            return info
        try:
            rows = await self._version(gvr)
        except Unreachable:
            return self._guess(gvr)
        if gvr.resource in rows:
            return rows[gvr.resource]
        raise ApiStatus(404, "NotFound", "the server could not find the requested resource")

    async def _version(self, gvr: GVR) -> dict[str, ResourceInfo]:
        body = await self.document(gvr.prefix)
        rows = self._rows.get((gvr.group, gvr.version))
        if rows is None:
            rows = {info.gvr.resource: info for info in self._parse(gvr.group, gvr.version, body)}
            self._rows[gvr.group, gvr.version] = rows
        return rows

    def _parse(self, group: str, version: str, body: bytes) -> Iterator[ResourceInfo]:
        try:
            rows = msgspec.json.decode(body, type=_ResourceList).resources
        except MALFORMED as exc:
            log.warning("the list of resources of %s/%s cannot be read: %s", group, version, exc)
            return
        parts: dict[str, set[str]] = {}
        for row in rows:
            name, _, part = row.name.partition("/")
            if part:
                parts.setdefault(name, set()).add(part)
        for row in rows:
            if "/" in row.name or not row.kind:
                continue
            gvr = GVR(group, version, row.name)
            yield self._info(gvr, row, frozenset(parts.get(row.name, ())))

    def _info(self, gvr: GVR, row: "_Row", parts: frozenset[str]) -> ResourceInfo:
        columns, custom = self._columns(gvr, row.kind)
        return ResourceInfo(
            gvr=gvr,
            kind=row.kind,
            namespaced=row.namespaced,
            singular=row.singular_name,
            list_kind=row.kind + "List",
            short_names=tuple(row.short_names),
            verbs=tuple(row.verbs),
            subresources=parts,
            columns=columns,
            custom=custom,
        )

    def _columns(self, gvr: GVR, kind: str) -> tuple[tuple[Column, ...], bool]:
        builtin = self._built_in(gvr)
        if builtin is not None and builtin.kind == kind:
            return builtin.columns, False
        held = self._replica.get(ResourceKey(CRDS, name=str(gvr)))
        if held is not None:
            for info in infos_from_crd(msgspec.json.decode(held.raw)):
                if info.gvr == gvr:
                    return info.columns, True
        return (), "." in gvr.group and not gvr.group.endswith(".k8s.io")

    def schema(self, gvr: GVR) -> Schema | None:
        """The schema of a built-in resource."""
        info = self._built_in(gvr)
        return info.schema if info is not None else None

    def of_kind(self, group: str, version: str, kind: str) -> GVR | None:
        """The resource of a kind, if its version has been looked at."""
        rows = self._rows.get((group, version), {}).values()
        return next((info.gvr for info in rows if info.kind == kind), None)

    async def fetch_columns(self, info: ResourceInfo) -> None:
        """Get the definition of a custom kind, for its columns; that it cannot be had is no failure."""
        if not info.custom or info.columns or not self._follower.connected:
            return
        key = ResourceKey(CRDS, name=str(info.gvr))
        if self._replica.get(key) is not None:
            return
        try:
            raw = await self._follower.ask(self._follower.application(key, apps.GET), self._follower.patience)
            self._replica.put(CRDS, [raw])
        except (ApiStatus, Unreachable) as exc:
            log.debug("no columns for %s: %s", info.gvr, exc)
            return
        self._rows.pop((info.gvr.group, info.gvr.version), None)
        await self.learn(info.gvr)

    def _built_in(self, gvr: GVR) -> ResourceInfo | None:
        if self._builtin is None:
            from edgehive.kube.builtin import BUILTIN

            self._builtin = {info.gvr: info for info in BUILTIN}
        return self._builtin.get(gvr)

    def _guess(self, gvr: GVR) -> ResourceInfo:
        """A resource nobody has told us about, from what is known of Kubernetes or from an object that is here.

        Raises:
            Unreachable: nothing is known.
        """
        info = self._built_in(gvr)
        if info is None:
            for short, record in self._replica.scan(gvr):
                kind = str(msgspec.json.decode(record.value).get("kind") or "")
                if kind_to_resource(kind) == gvr.resource:
                    info = ResourceInfo(gvr, kind, "/" in short, list_kind=kind + "List", custom=True)
                break
        if info is None:
            raise Unreachable("the cloud is not reachable, and this kind was never asked for")
        self._rows.setdefault((gvr.group, gvr.version), {})[gvr.resource] = info
        return info


class _Row(msgspec.Struct, rename="camel"):
    name: str = ""
    singular_name: str = ""
    namespaced: bool = False
    kind: str = ""
    verbs: list[str] = msgspec.field(default_factory=list)
    short_names: list[str] = msgspec.field(default_factory=list)


class _ResourceList(msgspec.Struct):
    resources: list[_Row] = msgspec.field(default_factory=list)
