"""A Kubernetes API in memory: enough semantics for cloudcore (versions, watches, conflicts, status, tokens)."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from edgehive.kit.errors import Unreachable
from edgehive.kube.api import ANYWHERE, CLUSTER, ListOptions, ListPage, WatchEvent, WriteOptions
from edgehive.kube.refs import (
    CLUSTEROBJECTSYNCS,
    CONFIGMAPS,
    CRDS,
    EVENTS,
    GVR,
    LEASES,
    NAMESPACES,
    NODES,
    OBJECTSYNCS,
    PODS,
    SECRETS,
    SERVICEACCOUNTS,
)
from edgehive.kube.status import ApiStatus, already_exists, conflict, expired, not_found

KINDS = {
    CONFIGMAPS: "ConfigMap",
    CRDS: "CustomResourceDefinition",
    EVENTS: "Event",
    LEASES: "Lease",
    NAMESPACES: "Namespace",
    NODES: "Node",
    PODS: "Pod",
    SECRETS: "Secret",
    SERVICEACCOUNTS: "ServiceAccount",
    GVR("", "v1", "persistentvolumes"): "PersistentVolume",
    GVR("", "v1", "persistentvolumeclaims"): "PersistentVolumeClaim",
    GVR("storage.k8s.io", "v1", "volumeattachments"): "VolumeAttachment",
    GVR("certificates.k8s.io", "v1", "certificatesigningrequests"): "CertificateSigningRequest",
}

Key = tuple[GVR, str, str]


def _merge(doc: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    doc = dict(doc) if isinstance(doc, dict) else {}
    for key, value in patch.items():
        if value is None:
            doc.pop(key, None)
        else:
            doc[key] = _merge(doc.get(key), value)
    return doc


class FakeApi:
    """Speaks `kube.api.KubeApi`."""

    def __init__(self) -> None:
        self.kinds = dict(KINDS)
        self.objects: dict[Key, dict[str, Any]] = {}
        self.log: list[tuple[GVR, str, str, dict[str, Any]]] = []  # (gvr, key ns/name, type, object)
        self.requests: list[tuple[str, GVR, str]] = []
        self.options: list[WriteOptions] = []
        self.version = 100
        self.oldest = 0
        self.fail: Callable[[str, GVR, str], Exception | None] = lambda verb, gvr, name: None
        self.may: Callable[[dict[str, str]], bool] = lambda attributes: True
        self._changed = asyncio.Event()

    # -- for tests

    def put(self, gvr: GVR, obj: dict[str, Any]) -> dict[str, Any]:
        """Create or replace, as some administrator would."""
        meta = obj.setdefault("metadata", {})
        key = (gvr, meta.get("namespace", ""), meta["name"])
        old = self.objects.get(key)
        meta.setdefault("uid", old["metadata"]["uid"] if old else str(uuid.uuid4()))
        obj |= {"apiVersion": gvr.api_version, "kind": self.kinds[gvr]}
        return self._store(key, obj, "MODIFIED" if old else "ADDED")

    def drop(self, gvr: GVR, namespace: str, name: str) -> None:
        """Delete at once."""
        obj = self.objects.pop((gvr, namespace, name))
        self.version += 1
        obj = json.loads(json.dumps(obj))
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._record((gvr, namespace, name), "DELETED", obj)

    def find(self, gvr: GVR, namespace: str, name: str) -> dict[str, Any] | None:
        """An object, decoded."""
        found = self.objects.get((gvr, namespace, name))
        return json.loads(json.dumps(found)) if found else None

    def count(self, verb: str, gvr: GVR) -> int:
        """How many requests of a verb were made."""
        return sum(1 for v, g, _ in self.requests if v == verb and g == gvr)

    def all(self, gvr: GVR) -> list[dict[str, Any]]:
        """Every object of a kind."""
        return [obj for (g, _, _), obj in self.objects.items() if g == gvr]

    async def until(self, condition: Callable[[], bool], timeout: float = 5.0) -> None:
        """Wait until something is true of the objects."""
        async with asyncio.timeout(timeout):
            while not condition():
                changed = self._changed
                await changed.wait()

    # -- KubeApi

    def _ask(self, verb: str, gvr: GVR, name: str, options: WriteOptions = CLUSTER) -> None:
        self.requests.append((verb, gvr, name))
        self.options.append(options)
        problem = self.fail(verb, gvr, name)
        if problem is not None:
            raise problem
        if gvr not in self.kinds:
            raise ApiStatus(404, "NotFound", "the server could not find the requested resource")

    async def get(self, gvr: GVR, name: str, options: WriteOptions = CLUSTER) -> bytes:
        self._ask("get", gvr, name, options)
        return _encode(self._find(gvr, name, options))

    def _find(self, gvr: GVR, name: str, options: WriteOptions) -> dict[str, Any]:
        found = self.objects.get((gvr, options.namespace or "", name))
        if found is None:
            raise not_found(gvr.resource, name, gvr.group)
        return found

    async def list(self, gvr: GVR, options: ListOptions = ANYWHERE) -> ListPage:
        self._ask("list", gvr, "")
        items = [
            _encode(obj)
            for (g, ns, _), obj in self.objects.items()
            if g == gvr and (options.namespace is None or ns == options.namespace)
        ]
        return ListPage(items, str(self.version))

    async def watch(
        self, gvr: GVR, options: ListOptions, timeout: float = 300.0
    ) -> AsyncIterator[WatchEvent]:
        self._ask("watch", gvr, "")
        since = int(options.resource_version or 0)
        if since < self.oldest:
            raise expired("too old")
        position = next(
            (i for i, e in enumerate(self.log) if int(e[3]["metadata"]["resourceVersion"]) > since),
            len(self.log),
        )
        while True:
            changed = self._changed
            while position < len(self.log):
                g, _, kind, obj = self.log[position]
                position += 1
                if g == gvr:
                    yield WatchEvent(kind, _encode(obj))  # type: ignore[arg-type]
            problem = self.fail("watching", gvr, "")
            if problem is not None:
                raise problem
            await changed.wait()

    async def create(self, gvr: GVR, body: bytes, options: WriteOptions = CLUSTER, name: str = "") -> bytes:
        obj = json.loads(body)
        if gvr.resource == "selfsubjectaccessreviews":
            return _encode(obj | {"status": {"allowed": self.may(obj["spec"]["resourceAttributes"])}})
        meta = obj.setdefault("metadata", {}) if obj.get("metadata") is not None else {}
        self._ask("create", gvr, name or meta.get("name", ""), options)
        if options.subresource == "token":
            self._find(gvr, name, options)
            return _encode(
                obj | {"status": {"token": f"token-of-{name}", "expirationTimestamp": "2030-01-01T00:00:00Z"}}
            )
        namespace = options.namespace or ""
        key = (gvr, namespace, meta["name"])
        if key in self.objects:
            raise already_exists(gvr.resource, meta["name"], gvr.group)
        if namespace:
            meta["namespace"] = namespace
        meta["uid"] = str(uuid.uuid4())
        if gvr in (OBJECTSYNCS, CLUSTEROBJECTSYNCS):
            obj.pop("status", None)
        if gvr == CRDS:
            spec = obj["spec"]
            served = GVR(spec["group"], spec["versions"][0]["name"], spec["names"]["plural"])
            self.kinds[served] = spec["names"]["kind"]
        return _encode(self._store(key, obj, "ADDED"))

    async def update(self, gvr: GVR, name: str, body: bytes, options: WriteOptions = CLUSTER) -> bytes:
        self._ask("update", gvr, name, options)
        old = self._find(gvr, name, options)
        obj = json.loads(body)
        sent = obj["metadata"].get("resourceVersion")
        if sent and sent != old["metadata"]["resourceVersion"]:
            raise conflict(gvr.resource, name, "the object has been modified")
        new = {**old, "status": obj.get("status")} if options.subresource == "status" else obj
        new["metadata"] = {**new["metadata"], "uid": old["metadata"]["uid"]}
        return _encode(self._store((gvr, options.namespace or "", name), new, "MODIFIED"))

    async def patch(
        self, gvr: GVR, name: str, body: bytes, content_type: str, options: WriteOptions = CLUSTER
    ) -> bytes:
        self._ask("patch", gvr, name, options)
        old = self._find(gvr, name, options)
        patch = json.loads(body)
        uid = (patch.get("metadata") or {}).get("uid")
        if uid and uid != old["metadata"]["uid"]:
            raise conflict(gvr.resource, name, "the UID does not match")
        if options.subresource == "status":
            patch = {"status": patch.get("status")}
        return _encode(self._store((gvr, options.namespace or "", name), _merge(old, patch), "MODIFIED"))

    async def delete(
        self, gvr: GVR, name: str, options: WriteOptions = CLUSTER, body: bytes | None = None
    ) -> bytes:
        self._ask("delete", gvr, name, options)
        old = self._find(gvr, name, options)
        wanted = (json.loads(body) if body else {}).get("preconditions", {}).get("uid")
        if wanted and wanted != old["metadata"]["uid"]:
            raise conflict(gvr.resource, name, "the UID in the precondition does not match")
        self.drop(gvr, options.namespace or "", name)
        return _encode(old)

    def _store(self, key: Key, obj: dict[str, Any], kind: str) -> dict[str, Any]:
        self.version += 1
        obj = json.loads(json.dumps(obj))
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = obj
        self._record(key, kind, obj)
        return obj

    def _record(self, key: Key, kind: str, obj: dict[str, Any]) -> None:
        self.log.append((key[0], f"{key[1]}/{key[2]}", kind, obj))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def unreachable() -> Unreachable:
    """The API server is gone."""
    return Unreachable("connection refused")


def _encode(obj: dict[str, Any]) -> bytes:
    return json.dumps(obj).encode()
