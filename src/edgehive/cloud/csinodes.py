"""CSINode objects of edge nodes: a kubelet writes its own, KubeEdge's edge keeps it to itself, so cloudcore does it.

Without one an external attacher does not know what a driver calls the node, and a provisioner does not know where it is.
"""

import logging
from typing import Any, Final

import msgspec

from edgehive.kit.errors import EdgehiveError
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label
from edgehive.kube.api import KubeApi, WriteOptions
from edgehive.kube.refs import GVR
from edgehive.kube.status import ApiStatus

log = logging.getLogger(__name__)

CSI_NODES: Final = GVR("storage.k8s.io", "v1", "csinodes")
NODE_IDS: Final = "csi.volume.kubernetes.io/nodeid"
"""Name and node id of each driver, as every kubelet tells them."""
DRIVERS: Final = "edgehive.io/csi-drivers"
"""The ``spec.drivers`` of a CSINode, from edges of ours."""
_OPTIONS: Final = WriteOptions(field_manager="cloudcore")
_MAX_DRIVERS: Final = 64


class _Allocatable(msgspec.Struct, omit_defaults=True):
    count: int | None = None


class Driver(
    msgspec.Struct, rename={"node_id": "nodeID", "topology_keys": "topologyKeys"}, omit_defaults=True
):
    """One entry of ``spec.drivers``."""

    name: str
    node_id: str
    topology_keys: list[str] | None = None
    allocatable: _Allocatable | None = None


class _Meta(msgspec.Struct):
    name: str
    uid: str = ""
    annotations: dict[str, str] | None = None


class _Node(msgspec.Struct):
    metadata: _Meta


def drivers_of(annotations: dict[str, str]) -> list[Driver]:
    """Return what a node's annotations say of its drivers, sorted by name; nothing when it cannot be read."""
    try:
        if DRIVERS in annotations:
            found = msgspec.json.decode(annotations[DRIVERS].encode(), type=list[Driver])
        else:
            ids = msgspec.json.decode(annotations.get(NODE_IDS, "{}").encode(), type=dict[str, str])
            found = [Driver(name, node_id) for name, node_id in ids.items()]
    except MALFORMED:
        return []
    return sorted(found, key=lambda one: one.name)[:_MAX_DRIVERS]


class CsiNodes:
    """Writes CSINodes."""

    def __init__(self, *, api: KubeApi) -> None:
        self._api = api
        self._problem = ""

    async def follow(self, patch: bytes, node: bytes) -> None:
        """Bring the CSINode of `node`, as it is after `patch`, up to date if the patch was about its drivers."""
        if NODE_IDS.encode() not in patch:
            return
        try:
            await self._write(msgspec.json.decode(node, type=_Node).metadata)
        except (EdgehiveError, *MALFORMED) as exc:
            problem = safe_label(str(exc), 300)
            if problem != self._problem:  # once: cloudcore's account may have no right to it
                self._problem = problem
                log.warning("a CSINode cannot be written: %s", problem)

    async def _write(self, meta: _Meta) -> None:
        spec = {"drivers": msgspec.to_builtins(drivers_of(meta.annotations or {}))}
        owner = {"apiVersion": "v1", "kind": "Node", "name": meta.name, "uid": meta.uid}
        body: dict[str, Any] = {
            "apiVersion": CSI_NODES.api_version,
            "kind": "CSINode",
            "metadata": {"name": meta.name, "ownerReferences": [owner]},
            "spec": spec,
        }
        try:
            old = msgspec.json.decode(await self._api.get(CSI_NODES, meta.name, _OPTIONS))
        except ApiStatus as exc:
            if exc.code != 404:
                raise
            if spec["drivers"]:
                await self._api.create(CSI_NODES, msgspec.json.encode(body), _OPTIONS)
            return
        if (old.get("spec") or {}).get("drivers") != spec["drivers"]:
            # A driver's entry cannot be changed, only replaced: the API server takes the list as a whole.
            await self._api.update(CSI_NODES, meta.name, msgspec.json.encode(old | {"spec": spec}), _OPTIONS)
