"""What every namespace gets: a default service account and the cluster's CA."""

from collections.abc import Callable
from typing import Any

import msgspec

from edgehive.controllers.context import Context
from edgehive.controllers.runtime import Workers
from edgehive.kube.reflector import CachedObject, Change
from edgehive.kube.refs import CONFIGMAPS, GVR, NAMESPACES, SERVICEACCOUNTS
from edgehive.kube.status import ApiStatus

ROOT_CA = "kube-root-ca.crt"


class EveryNamespace:
    """Keeps one object of a fixed name in every living namespace."""

    def __init__(
        self,
        context: Context,
        *,
        name: str,
        gvr: GVR,
        content: dict[str, Any],
        intact: Callable[[CachedObject], bool] = lambda _: True,
    ) -> None:
        self.name = name
        self._context = context
        self._gvr = gvr
        self._content = content
        self._object = content["metadata"]["name"]
        self._intact = intact
        self._namespaces = context.informers.full(NAMESPACES)
        self._objects = context.informers.full(gvr)
        self._workers: Workers[str] = Workers(
            name=name, reconcile=self._reconcile, counters=context.counters, count=1
        )
        self._namespaces.subscribe(lambda change: self._workers.add(change.object.meta.name))
        self._objects.subscribe(self._object_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._namespaces.synced()
        await self._objects.synced()
        await self._workers.run()

    def _object_changed(self, change: Change) -> None:
        if change.object.meta.name == self._object:
            self._workers.add(change.object.meta.namespace)

    async def _reconcile(self, namespace: str) -> None:
        owner = self._namespaces.get("", namespace)
        if owner is None or owner.meta.deletion_timestamp is not None:
            return
        found = self._objects.get(namespace, self._object)
        if found is not None:
            if not self._intact(found):
                await self._context.patch(self._gvr, found.meta, {"data": self._content["data"]})
            return
        try:
            await self._context.create(self._gvr, namespace, self._content)
        except ApiStatus as exc:
            if exc.reason != "AlreadyExists":
                raise


def default_service_accounts(context: Context) -> EveryNamespace:
    """Every namespace has a service account ``default``."""
    content = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    return EveryNamespace(context, name="serviceaccount", gvr=SERVICEACCOUNTS, content=content)


def root_ca_publisher(context: Context, ca_pem: bytes) -> EveryNamespace:
    """Every namespace has the cluster's CA in a ConfigMap, for the pods' service-account volume."""
    data = {"ca.crt": ca_pem.decode("ascii")}
    about = (
        "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints."
    )
    content = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": ROOT_CA, "annotations": {"kubernetes.io/description": about}},
        "data": data,
    }

    def intact(found: CachedObject) -> bool:
        has = msgspec.json.decode(found.raw, type=_ConfigMap).data
        return has == data

    return EveryNamespace(context, name="root-ca", gvr=CONFIGMAPS, content=content, intact=intact)


class _ConfigMap(msgspec.Struct, gc=False):
    data: dict[str, str] | None = None
