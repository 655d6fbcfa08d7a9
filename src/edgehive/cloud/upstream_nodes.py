"""What an edge does to its own Node and lease: register, report, renew.

The hub has made sure that a request about a Node or a node lease comes from that very node.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from edgehive.cloud.csinodes import CsiNodes
from edgehive.cloud.edgerequest import Answers, EdgeRequest, version_of
from edgehive.cloud.ownership import OWNER_ANNOTATION
from edgehive.kube.api import MERGE_PATCH, STRATEGIC_PATCH, KubeApi
from edgehive.kube.refs import LEASES, NODES, is_dns_subdomain
from edgehive.kube.status import ApiStatus, bad_request
from edgehive.wire import resource as res

_GPU = "nvidia.com/gpu"
_GPU_STATUS = "huawei.com/gpu-status"


class NodeRequests:
    """Handlers for Node, node status and Lease."""

    def __init__(
        self,
        *,
        api: KubeApi,
        address: str,
        lookup: Callable[[str], bytes | None],
        exists: Callable[[str], None],
        now: Callable[[], str],
        stale_after: Callable[[str], bool],
    ) -> None:
        """Wire up.

        `lookup` reads the watch cache; `exists` is told of a node that registers although it is registered, which
        is what an edge with an empty database does; `now` gives RFC 3339; `stale_after` tells whether a condition's
        heartbeat is too old to be kept.
        """
        self._api = api
        self._csi = CsiNodes(api=api)
        self._address = address
        self._lookup = lookup
        self._exists = exists
        self._now = now
        self._stale = stale_after

    async def create(self, request: EdgeRequest) -> Answers:
        """Register: an ``ObjectResp`` with the Node."""
        body = request.body()
        return request.object_answer(await self._create(request, body), version=False)

    async def _create(self, request: EdgeRequest, body: dict[str, Any]) -> bytes:
        meta = body.setdefault("metadata", {})
        if not isinstance(meta, dict):
            raise bad_request("metadata must be an object")
        meta["name"] = request.name
        for field in ("resourceVersion", "uid", "creationTimestamp", "managedFields"):
            meta.pop(field, None)
        annotations, labels = _strings(meta, "annotations"), _strings(meta, "labels")
        meta["annotations"] = annotations | {OWNER_ANNOTATION: self._address}
        later: dict[str, str] = {}
        if request.impersonate:
            # A node may not give itself labels of the kubernetes.io domain; cloudcore adds them in its own name.
            later = {key: value for key, value in labels.items() if _reserved(key)}
        meta["labels"] = {key: value for key, value in labels.items() if key not in later}
        body |= {"apiVersion": "v1", "kind": "Node"}
        try:
            raw = await self._api.create(NODES, msgspec.json.encode(body), request.options())
        except ApiStatus as exc:
            if exc.reason == "AlreadyExists":
                self._exists(request.node)
            raise
        if later:
            patch = msgspec.json.encode({"metadata": {"labels": later}})
            raw = await self._api.patch(NODES, request.name, patch, MERGE_PATCH)
        return raw

    async def query(self, request: EdgeRequest) -> Answers:
        """The Node itself."""
        raw = None if request.impersonate else self._lookup(request.name)
        return request.query_answer(raw or await self._api.get(NODES, request.name, request.options()))

    async def update(self, request: EdgeRequest) -> Answers:
        """Lay the given labels and annotations over the Node's: ``OK`` with its new version."""
        meta = request.body().get("metadata")
        given = meta if isinstance(meta, dict) else {}
        patch = {"labels": _strings(given, "labels"), "annotations": _strings(given, "annotations")}
        body = msgspec.json.encode({"metadata": patch})
        raw = await self._api.patch(NODES, request.name, body, MERGE_PATCH, request.options())
        return request.ok(version=version_of(raw))

    async def patch_status(self, request: EdgeRequest) -> Answers:
        """Strategic merge patch of the status: an ``ObjectResp``."""
        raw = await self._api.patch(
            NODES, request.name, request.data(), STRATEGIC_PATCH, request.options(subresource="status")
        )
        await self._csi.follow(request.data(), raw)
        return request.object_answer(raw)

    async def old_register(self, request: EdgeRequest) -> Answers:
        """``nodestatus`` insert of old edges: register unless registered; ``OK``."""
        request = request.at(res.format_resource(None, res.NODE, request.name))
        try:
            await self._api.get(NODES, request.name, request.options())
        except ApiStatus as exc:
            if exc.code != 404:
                raise
            await self._create(request, request.body())
        return request.ok()

    async def old_status(self, request: EdgeRequest) -> Answers:
        """``nodestatus`` update of old edges: replace the status; ``OK``."""
        given = request.body()
        request = request.at(res.format_resource(None, res.NODE, request.name))
        status = given.get("Status", given.get("status"))
        if not isinstance(status, dict):
            raise bad_request("a node status needs Status")
        node = msgspec.json.decode(await self._api.get(NODES, request.name, request.options()))
        stored = node.get("status") or {}
        now = self._now()
        for condition in status.get("conditions") or []:
            if isinstance(condition, dict) and self._stale(str(condition.get("lastHeartbeatTime") or "")):
                condition["lastHeartbeatTime"] = now
        if stored.get("volumesAttached"):
            status["volumesAttached"] = stored["volumesAttached"]
        endpoints = stored.get("daemonEndpoints")
        if isinstance(endpoints, dict) and (endpoints.get("kubeletEndpoint") or {}).get("Port"):
            status["daemonEndpoints"] = endpoints
        annotations = _extend_annotations(given.get("ExtendResources"))
        if annotations:
            patch = msgspec.json.encode({"metadata": {"annotations": annotations}})
            node = msgspec.json.decode(
                await self._api.patch(NODES, request.name, patch, MERGE_PATCH, request.options())
            )
        node["status"] = status
        raw = await self._api.update(
            NODES, request.name, msgspec.json.encode(node), request.options(subresource="status")
        )
        return request.ok(version=version_of(raw))

    async def write_lease(self, request: EdgeRequest) -> Answers:
        """Create or renew a lease: an ``ObjectResp``."""
        body = request.body()
        options = request.options(request.namespace)
        if request.message.operation == "insert":
            raw = await self._api.create(LEASES, _typed(body, "Lease"), options)
        else:
            # An original edge may leave the name out of the resource of an update.
            name = request.target.name or str((body.get("metadata") or {}).get("name") or "")
            if not is_dns_subdomain(name):
                raise bad_request("lease needs a name")
            raw = await self._api.update(LEASES, name, _typed(body, "Lease"), options)
        return request.object_answer(raw, version=False)

    async def query_lease(self, request: EdgeRequest) -> Answers:
        """An ``ObjectResp`` with the lease."""
        raw = await self._api.get(LEASES, request.name, request.options(request.namespace))
        return request.object_answer(raw, version=False)


def _typed(body: dict[str, Any], kind: str) -> bytes:
    body |= {"apiVersion": LEASES.api_version, "kind": kind}
    return msgspec.json.encode(body)


def _strings(meta: dict[str, Any], field: str) -> dict[str, str]:
    found = meta.get(field)
    return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


def _reserved(label: str) -> bool:
    domain, slash, _ = label.rpartition("/")
    return bool(slash) and (domain == "kubernetes.io" or domain.endswith(".kubernetes.io"))


def _extend_annotations(resources: Any) -> dict[str, str]:
    annotations: dict[str, str] = {}
    if not isinstance(resources, dict):
        return annotations
    for name, entries in resources.items():
        found = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
        annotations[str(name)] = msgspec.json.encode(found).decode()
        if name == _GPU:
            healthy = [{"ID": e.get("name", ""), "Healthy": True} for e in found]
            annotations[_GPU_STATUS] = msgspec.json.encode(healthy).decode()
    return annotations
