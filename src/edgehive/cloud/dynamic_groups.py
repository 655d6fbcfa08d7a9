"""Services that stay within a group of nodes: an edge is shown the endpoints of its own group alone.

A Service with the annotation ``apps.kubeedge.io/service-topology: range-nodegroup`` is one. Nodes are in the same
group when their labels ``apps.kubeedge.io/belonging-to`` are equal, also if neither has one. What other services' endpoints
are is shown to everybody. A change of the annotation shows with the next change of the endpoints, as in the original.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec

from edgehive.aio.informer import Informer
from edgehive.cloud.keyed import Start
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.api import KubeApi
from edgehive.kube.meta import decode_partial
from edgehive.kube.refs import GVR, SERVICES

log = logging.getLogger(__name__)

TOPOLOGY: Final = "apps.kubeedge.io/service-topology"
RANGE: Final = "range-nodegroup"
GROUP_LABEL: Final = "apps.kubeedge.io/belonging-to"
_SERVICE_LABEL: Final = "kubernetes.io/service-name"
_FILTERED: Final = frozenset({("", "endpoints"), ("discovery.k8s.io", "endpointslices")})
_SYNC_WAIT: Final = 10.0

Labels = Callable[[str], dict[str, str]]
"""The labels of a node; empty when it is not known."""


def keep_topology(raw: bytes) -> bytes:
    """What is worth keeping of a Service: its name, and whether it stays within a group."""
    meta = decode_partial(raw).metadata
    kept = {k: v for k, v in (meta.annotations or {}).items() if k == TOPOLOGY}
    shown = {"namespace": meta.namespace, "name": meta.name, "uid": meta.uid, "annotations": kept}
    return msgspec.json.encode({"metadata": shown | {"resourceVersion": meta.resource_version}})


class NodeGroups:
    """Filters endpoints; the watch of Services begins when endpoints are first asked for."""

    def __init__(self, *, api: KubeApi, labels: Labels, start: Start) -> None:
        self._labels = labels
        self._start = start
        self._services = Informer(api=api, gvr=SERVICES, keep=keep_topology)
        self._begun = False

    async def prepare(self, gvr: GVR) -> None:
        """Know the services, where that matters; what cannot be known in time is shown whole."""
        if (gvr.group, gvr.resource) not in _FILTERED:
            return
        if not self._begun:
            self._begun = True
            self._start(self._services.run())
        try:
            async with asyncio.timeout(_SYNC_WAIT):
                await self._services.synced()
        except TimeoutError:
            log.warning("services cannot be listed; edges see the endpoints of all node groups for now")

    def variant(self, node: str, gvr: GVR, raw: bytes) -> str:
        """Nodes with the same answer are shown the same object."""
        if (gvr.group, gvr.resource) not in _FILTERED or not self._stays(gvr, raw):
            return ""
        return f"group {self._group(node)}"

    def shown(self, node: str, gvr: GVR, raw: bytes) -> bytes:
        """An object as `node` sees it."""
        if (gvr.group, gvr.resource) not in _FILTERED or not self._stays(gvr, raw):
            return raw
        obj = msgspec.json.decode(raw)
        return msgspec.json.encode(self._filtered(node, gvr, obj))

    def shown_item(self, node: str, gvr: GVR, item: dict[str, Any]) -> dict[str, Any]:
        """An item of a list as `node` sees it."""
        if (gvr.group, gvr.resource) not in _FILTERED or not self._is_local(*_service(gvr, item)):
            return item
        return self._filtered(node, gvr, item)

    def filters(self, gvr: GVR) -> bool:
        """Whether objects of this resource may be filtered at all."""
        return (gvr.group, gvr.resource) in _FILTERED

    def _stays(self, gvr: GVR, raw: bytes) -> bool:
        try:
            meta = decode_partial(raw).metadata
        except MALFORMED:
            return False
        labels = meta.labels or {}
        return self._is_local(meta.namespace, labels.get(_SERVICE_LABEL, "") if gvr.group else meta.name)

    def _is_local(self, namespace: str, name: str) -> bool:
        found = self._services.get(namespace, name)
        return found is not None and (found.meta.annotations or {}).get(TOPOLOGY) == RANGE

    def _filtered(self, node: str, gvr: GVR, obj: dict[str, Any]) -> dict[str, Any]:
        if gvr.group:
            endpoints = [e for e in obj.get("endpoints") or () if self._near(node, e.get("nodeName"))]
            return obj | {"endpoints": endpoints}
        subsets = []
        for subset in obj.get("subsets") or ():
            kept = {
                key: [a for a in subset.get(key) or () if self._near(node, a.get("nodeName"))]
                for key in ("addresses", "notReadyAddresses")
            }
            if any(kept.values()):
                subsets.append(subset | {key: value for key, value in kept.items() if key in subset})
        return obj | {"subsets": subsets}

    def _near(self, node: str, other: object) -> bool:
        if not isinstance(other, str) or not other:
            return False  # nobody knows where it is
        return other == node or self._group(other) == self._group(node)

    def _group(self, node: str) -> str:
        return self._labels(node).get(GROUP_LABEL, "")


def _service(gvr: GVR, item: dict[str, Any]) -> tuple[str, str]:
    meta = item.get("metadata") or {}
    name = (meta.get("labels") or {}).get(_SERVICE_LABEL) if gvr.group else meta.get("name")
    return str(meta.get("namespace") or ""), str(name or "")
