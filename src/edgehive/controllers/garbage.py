"""The garbage collector: deletes what has lost its owners, for every kind that is served."""

import functools
import logging
from collections import OrderedDict
from typing import Any

import msgspec

from edgehive.controllers.context import Context
from edgehive.controllers.gc_graph import FOREGROUND, ORPHAN, Graph, Item, OwnerState, item_of
from edgehive.controllers.resources import Served, ServedResources
from edgehive.controllers.runtime import Workers
from edgehive.kit.errors import Transient
from edgehive.kube.api import WriteOptions
from edgehive.kube.meta import OwnerReference, decode_partial
from edgehive.kube.reflector import Change
from edgehive.kube.refs import EVENTS
from edgehive.kube.status import ApiStatus

log = logging.getLogger(__name__)

_REMEMBERED_ABSENT = 1000
_SETTLE = 2.0  # an owner may reach us later than its dependents


class UnknownOwner(Transient):
    """The kind of an owner is not served, so that nobody can say whether it exists."""


class GarbageCollector:
    """Follows all kinds by their metadata."""

    name = "garbage-collector"

    def __init__(self, context: Context, resources: ServedResources) -> None:
        self._context = context
        self._resources = resources
        self._graph = Graph()
        self._absent: OrderedDict[str, None] = OrderedDict()
        self._ready = False
        self._workers: Workers[str] = Workers(
            name=self.name, reconcile=self._reconcile, counters=context.counters
        )
        resources.subscribe(self._kind_changed)

    async def run(self) -> None:
        """Collect until cancelled."""
        await self._context.informers.synced()
        self._ready = True
        for uid in set(self._graph.homeless()):
            self._workers.add(uid)
        await self._workers.run()

    def _kind_changed(self, old: Served | None, new: Served | None) -> None:
        if old is not None:
            self._context.informers.remove(old.gvr)
            for item in self._graph.of_kind(old):
                self._graph.remove(item.uid)
                if new is None:  # the definition is gone, and every object of it
                    self._lost(item.uid)
        if new is not None and new.gvr != EVENTS:
            informer = self._context.informers.metadata(new.gvr)
            informer.subscribe(functools.partial(self._changed, new))

    def _changed(self, served: Served, change: Change) -> None:
        if change.new is None:
            uid = change.object.meta.uid
            item = self._graph.remove(uid)
            self._lost(uid)
            for owner in item.owners if item else ():  # it may have been the last that held its owner
                found = self._graph.get(owner.uid)
                if found is not None and found.holds_foreground:
                    self._workers.add(owner.uid)
            return
        item = item_of(served, change.new.meta)
        old = self._graph.put(item)
        self._absent.pop(item.uid, None)
        if item.holds_foreground or item.holds_orphan:
            self._workers.add(item.uid)
        if not self._ready or not item.owners or (old is not None and old.owners == item.owners):
            return
        for owner in item.owners:
            found = self._graph.get(owner.uid)
            if found is None or found.holds_foreground:
                self._workers.add_after(item.uid, _SETTLE)

    def _lost(self, uid: str) -> None:
        self._absent[uid] = None
        while len(self._absent) > _REMEMBERED_ABSENT:
            self._absent.popitem(last=False)
        for item in self._graph.dependents(uid):
            self._workers.add(item.uid)

    async def _reconcile(self, uid: str) -> None:
        item = self._graph.get(uid)
        if item is None:
            return
        if item.holds_orphan:
            await self._orphan(item)
        elif item.holds_foreground:
            await self._hold(item)
        elif item.owners and not item.deleting:
            await self._check(item)

    async def _orphan(self, item: Item) -> None:
        for dependent in self._graph.dependents(item.uid):
            await self._drop_owners(dependent, {item.uid})
        await self._drop_finalizer(item, ORPHAN)

    async def _hold(self, item: Item) -> None:
        blocking = self._graph.blocking(item.uid)
        if not blocking:
            await self._drop_finalizer(item, FOREGROUND)
        for dependent in self._graph.dependents(item.uid):
            if not dependent.deleting:
                self._workers.add(dependent.uid)

    async def _check(self, item: Item) -> None:
        states: dict[str, OwnerState] = {}
        for owner in item.owners:
            state = self._graph.owner_state(item, owner)
            if state is OwnerState.UNKNOWN:
                state = await self._ask(item, owner)
            states[owner.uid] = state
        verdict = self._graph.judge(item, states)
        if verdict.delete:
            await self._delete(item, verdict.delete)
        elif verdict.drop:
            await self._drop_owners(item, set(verdict.drop))

    async def _ask(self, item: Item, owner: OwnerReference) -> OwnerState:
        """Ask the server for an owner that the graph does not have."""
        if owner.uid in self._absent:
            return OwnerState.ABSENT
        group, _, _ = owner.api_version.rpartition("/")
        served = self._resources.find(group, owner.kind)
        if served is None:
            raise UnknownOwner(f"no kind {owner.kind} in {owner.api_version} to look for an owner")
        if served.namespaced and not item.namespace:
            return OwnerState.SOLID
        try:
            raw = await self._context.api.get(
                served.gvr, owner.name, WriteOptions(namespace=item.namespace if served.namespaced else None)
            )
        except ApiStatus as exc:
            if exc.code != 404:
                raise
        else:
            if decode_partial(raw).metadata.uid == owner.uid:
                return OwnerState.SOLID
        self._absent[owner.uid] = None
        return OwnerState.ABSENT

    async def _delete(self, item: Item, policy: str) -> None:
        informer = self._context.informers.find(item.served.gvr)
        cached = informer.get(item.namespace, item.name) if informer is not None else None
        if cached is None or cached.meta.uid != item.uid:
            return
        log.debug("deleting %s %s/%s: its owners are gone", item.served.kind, item.namespace, item.name)
        try:
            await self._context.delete(item.served.gvr, cached, propagationPolicy=policy)
        except ApiStatus as exc:
            if exc.code != 405:
                raise
        self._context.counters["garbage_deleted"] += 1

    async def _drop_owners(self, item: Item, uids: set[str]) -> None:
        rest = [msgspec.to_builtins(owner) for owner in item.owners if owner.uid not in uids]
        if len(rest) < len(item.owners):
            await self._patch(item, {"ownerReferences": rest or None})

    async def _drop_finalizer(self, item: Item, finalizer: str) -> None:
        rest = [f for f in item.finalizers if f != finalizer]
        await self._patch(item, {"finalizers": rest or None})

    async def _patch(self, item: Item, metadata: dict[str, Any]) -> None:
        """Change metadata of exactly the version we decided on; 409 brings us back with a newer one."""
        informer = self._context.informers.find(item.served.gvr)
        cached = informer.get(item.namespace, item.name) if informer is not None else None
        if cached is None or cached.meta.uid != item.uid:
            return
        try:
            await self._context.patch(item.served.gvr, cached.meta, {"metadata": metadata}, locked=True)
        except ApiStatus as exc:
            if exc.code != 404:
                raise
