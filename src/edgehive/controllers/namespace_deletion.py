"""A namespace on its way out: everything in it is deleted, then its finalizer ``kubernetes`` is taken off."""

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from edgehive.controllers.context import Context
from edgehive.controllers.objects import Condition
from edgehive.controllers.replicas import conditions_json, set_condition
from edgehive.controllers.resources import Served, ServedResources
from edgehive.controllers.runtime import Workers
from edgehive.kit.errors import EdgehiveError
from edgehive.kube.api import ListOptions, WriteOptions
from edgehive.kube.meta import Partial, decode_partial
from edgehive.kube.reflector import Change
from edgehive.kube.refs import NAMESPACES, PODS
from edgehive.kube.status import ApiStatus

log = logging.getLogger(__name__)

_FINALIZER = "kubernetes"
_PAGE = 500
_LOOK_AGAIN = 1.0
_LOOK_AGAIN_PODS = 2.0


class _Spec(msgspec.Struct, gc=False):
    finalizers: list[str] | None = None


class _Status(msgspec.Struct, gc=False):
    phase: str = ""
    conditions: tuple[Condition, ...] | None = None


class _Namespace(msgspec.Struct, gc=False):
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class NamespaceDeletion:
    """Empties and finalizes namespaces that carry a deletion timestamp."""

    name = "namespace"

    def __init__(self, context: Context, resources: ServedResources) -> None:
        self._context = context
        self._resources = resources
        self._namespaces = context.informers.full(NAMESPACES)
        self._workers: Workers[str] = Workers(
            name=self.name, reconcile=self._reconcile, counters=context.counters, count=2
        )
        self._namespaces.subscribe(self._namespace_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._namespaces.synced()
        await self._workers.run()

    def _namespace_changed(self, change: Change) -> None:
        if change.object.meta.deletion_timestamp is not None:
            self._workers.add(change.object.meta.name)

    async def _reconcile(self, name: str) -> float | None:
        cached = self._namespaces.get("", name)
        if cached is None or cached.meta.deletion_timestamp is None:
            return None
        namespace = msgspec.json.decode(cached.raw, type=_Namespace)
        if _FINALIZER not in (namespace.spec.finalizers or ()):
            return None
        left: dict[str, int] = {}
        failures: list[str] = []
        held: dict[str, int] = {}
        for served in self._in_order():
            try:
                count = await self._empty(served, name, held)
            except EdgehiveError as exc:
                if isinstance(exc, ApiStatus) and exc.code in (404, 405):
                    continue  # the kind is not served any more
                failures.append(f"{served.gvr}: {exc}")
                continue
            if count:
                left[str(served.gvr)] = count
        if not left and not failures:
            await self._finalize(name, cached.raw, namespace)
            return None
        await self._say_why(name, left, held, failures)
        return _LOOK_AGAIN_PODS if str(PODS) in left else _LOOK_AGAIN

    def _in_order(self) -> Sequence[Served]:
        """Controllers' objects first, pods after them, so that nothing is made anew meanwhile."""
        kinds = [s for s in self._resources.all() if s.namespaced]
        return sorted(kinds, key=lambda s: (s.gvr.resource == "events", s.gvr == PODS, s.gvr.group == ""))

    async def _empty(self, served: Served, namespace: str, held: dict[str, int]) -> int:
        """Delete what is there of one kind; return how much was found."""
        found, token = 0, ""
        while True:
            page = await self._context.api.list(
                served.gvr, ListOptions(namespace=namespace, limit=_PAGE, continue_token=token)
            )
            for raw in page.items:
                partial = decode_partial(raw)
                found += await self._remove(served, partial)
                for finalizer in partial.metadata.finalizers or ():
                    held[finalizer] = held.get(finalizer, 0) + 1
            token = page.continue_token
            if not token:
                return found

    async def _remove(self, served: Served, partial: Partial) -> int:
        """Delete one object; return 1 if it may still be there."""
        meta = partial.metadata
        if meta.deletion_timestamp is not None:
            return 1
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": meta.uid},
        }
        options = WriteOptions(namespace=meta.namespace)
        try:
            await self._context.api.delete(served.gvr, meta.name, options, msgspec.json.encode(body))
        except ApiStatus as exc:
            if exc.code not in (404, 409):
                raise
        return 1

    async def _finalize(self, name: str, raw: bytes, namespace: _Namespace) -> None:
        body = msgspec.json.decode(raw)
        finalizers = [f for f in namespace.spec.finalizers or () if f != _FINALIZER]
        body.setdefault("spec", {})["finalizers"] = finalizers
        options = WriteOptions(subresource="finalize")
        try:
            await self._context.api.update(NAMESPACES, name, msgspec.json.encode(body), options)
        except ApiStatus as exc:
            if exc.code != 404:
                raise
        log.info("namespace %s is empty and gone", name)

    async def _say_why(
        self, name: str, left: dict[str, int], held: dict[str, int], failures: list[str]
    ) -> None:
        """Keep the conditions that ``kubectl describe namespace`` shows."""
        cached = self._namespaces.get("", name)
        if cached is None:
            return
        status = msgspec.json.decode(cached.raw, type=_Namespace).status
        resources = ", ".join(f"{r} has {n} resource instances" for r, n in sorted(left.items()))
        finalizers = ", ".join(f"{f} in {n} resource instances" for f, n in sorted(held.items()))
        wanted = (
            _condition(
                "NamespaceDeletionContentFailure", failures and "; ".join(failures), "ContentDeletionFailed"
            ),
            _condition(
                "NamespaceContentRemaining",
                resources,
                "SomeResourcesRemain",
                "Some resources are remaining: ",
            ),
            _condition(
                "NamespaceFinalizersRemaining",
                finalizers,
                "SomeFinalizersRemain",
                "Some content in the namespace has finalizers remaining: ",
            ),
        )
        conditions = tuple(status.conditions or ())
        before = {(c.type, c.status, c.message) for c in conditions}
        if before >= {(c.type, c.status, c.message) for c in wanted}:
            return
        for entry in wanted:
            conditions = set_condition(conditions, entry, self._context.clock())
        change = {"status": {"conditions": conditions_json(conditions)}}
        try:
            await self._context.patch(NAMESPACES, cached.meta, change, subresource="status")
        except ApiStatus as exc:
            log.debug("namespace %s: %s", name, exc)


_GOOD = {
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


def _condition(kind: str, problem: str | list[str], reason: str, prefix: str = "") -> Condition:
    if problem:
        return Condition(type=kind, status="True", reason=reason, message=f"{prefix}{problem}"[:1000])
    good, message = _GOOD[kind]
    return Condition(type=kind, status="False", reason=good, message=message)
