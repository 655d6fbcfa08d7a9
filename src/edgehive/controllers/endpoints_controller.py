"""Keeps the Endpoints and EndpointSlices of services with a selector."""

from typing import Any

import msgspec

from edgehive.controllers.context import Context
from edgehive.controllers.endpoints import (
    MANAGED_LABEL,
    MANAGER,
    SERVICE_LABEL,
    SKIP_MIRROR,
    Endpoint,
    Service,
    decode_service,
    endpoints_of,
    same_content,
    selected,
    slices,
    subsets,
)
from edgehive.controllers.objects import decode_pod
from edgehive.controllers.runtime import Workers, by_namespace
from edgehive.kube.reflector import CachedObject, Change, Key
from edgehive.kube.refs import GVR, PODS, SERVICES
from edgehive.kube.selectors import LabelSelector
from edgehive.kube.status import ApiStatus

ENDPOINTS = GVR("", "v1", "endpoints")
ENDPOINTSLICES = GVR("discovery.k8s.io", "v1", "endpointslices")


class EndpointsController:
    """Reconciles services."""

    name = "endpoints"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._services = context.informers.full(SERVICES)
        self._pods = context.informers.full(PODS)
        self._endpoints = context.informers.full(ENDPOINTS)
        self._slices = context.informers.full(ENDPOINTSLICES)
        self._services.add_index("namespace", by_namespace)
        self._pods.add_index("namespace", by_namespace)
        self._slices.add_index("service", _service_of)
        self._workers: Workers[Key] = Workers(
            name=self.name, reconcile=self._reconcile, counters=context.counters, count=2
        )
        self._services.subscribe(lambda change: self._workers.add(change.object.key))
        self._pods.subscribe(self._pod_changed)
        self._slices.subscribe(self._slice_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        for informer in (self._services, self._pods, self._endpoints, self._slices):
            await informer.synced()
        await self._workers.run()

    def _pod_changed(self, change: Change) -> None:
        labels = [obj.meta.labels for obj in (change.old, change.new) if obj is not None]
        for cached in self._services.by_index("namespace", change.object.meta.namespace):
            selector = LabelSelector.from_labels(decode_service(cached.raw).spec.selector)
            if any(selector.matches(entry) for entry in labels):
                self._workers.add(cached.key)

    def _slice_changed(self, change: Change) -> None:
        if change.type == "DELETED":
            for service in _service_of(change.object):
                namespace, _, name = service.partition("/")
                self._workers.add((namespace, name))

    async def _reconcile(self, key: Key) -> None:
        cached = self._services.get(*key)
        if cached is None or cached.meta.deletion_timestamp is not None:
            return
        service = decode_service(cached.raw)
        if not selected(service):
            return
        selector = LabelSelector.from_labels(service.spec.selector)
        pods = [
            decode_pod(obj.raw)
            for obj in self._pods.by_index("namespace", key[0])
            if selector.matches(obj.meta.labels)
        ]
        found = endpoints_of(service, pods)
        await self._write_endpoints(service, found)
        await self._write_slices(service, found)

    async def _write_endpoints(self, service: Service, found: list[Endpoint]) -> None:
        meta = service.metadata
        wanted = {"subsets": subsets(found)}
        cached = self._endpoints.get(meta.namespace, meta.name)
        if cached is None:
            owner = {"apiVersion": "v1", "kind": "Service", "name": meta.name, "uid": meta.uid}
            labels = {**(meta.labels or {}), SKIP_MIRROR: "true"}
            about = {"name": meta.name, "labels": labels, "ownerReferences": [owner]}
            body = {"apiVersion": "v1", "kind": "Endpoints", "metadata": about, **wanted}
            await self._context.create(ENDPOINTS, meta.namespace, body)
        elif not same_content(msgspec.json.decode(cached.raw), wanted, ("subsets",)):
            await self._context.patch(ENDPOINTS, cached.meta, {"subsets": wanted["subsets"] or None})

    async def _write_slices(self, service: Service, found: list[Endpoint]) -> None:
        meta = service.metadata
        wanted = slices(service, found)
        for cached in self._slices.by_index("service", f"{meta.namespace}/{meta.name}"):
            if (cached.meta.labels or {}).get(MANAGED_LABEL) != MANAGER:
                continue
            body = wanted.pop(cached.meta.name, None)
            if body is None:
                await self._context.delete(ENDPOINTSLICES, cached)
            elif not same_content(msgspec.json.decode(cached.raw), body, ("endpoints", "ports")):
                change: dict[str, Any] = {key: body[key] for key in ("endpoints", "ports")}
                await self._context.patch(ENDPOINTSLICES, cached.meta, change)
        for body in wanted.values():
            try:
                await self._context.create(ENDPOINTSLICES, meta.namespace, body)
            except ApiStatus as exc:
                if exc.reason != "AlreadyExists":
                    raise


def _service_of(obj: CachedObject) -> tuple[str, ...]:
    name = (obj.meta.labels or {}).get(SERVICE_LABEL, "")
    return (f"{obj.meta.namespace}/{name}",) if name else ()
