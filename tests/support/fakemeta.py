"""A metadata manager for tests of edged: objects in dicts, a cloud that can go away."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from edgehive.edge.metaclient import Change, Failed, Ok, PodChange, Reply, offline
from edgehive.kube.status import not_found


class FakeMeta:
    """`MetaClient` over dicts; keeps what was sent to the cloud."""

    def __init__(self) -> None:
        self.connected = True
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.patches: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.created: list[dict[str, Any]] = []
        self.node_uid = ""
        self.events: list[Mapping[str, Any]] = []
        self.tokens = 0
        self.token_seconds = 3600
        self._pods: list[Callable[[PodChange], None]] = []
        self._objects: list[Callable[[str, str, str], None]] = []
        self._connections: list[Callable[[], None]] = []

    # --- the test's side

    def put_pod(self, pod: dict[str, Any]) -> None:
        meta = pod["metadata"]
        self.rows[meta["namespace"], meta["name"]] = pod
        self._tell(PodChange(Change.UPDATE, meta["namespace"], meta["name"], json.dumps(pod).encode()))

    def remove_pod(self, namespace: str, name: str) -> None:
        self.tell_removed(self.rows.pop((namespace, name)))

    def tell_removed(self, pod: dict[str, Any]) -> None:
        """Say that `pod` is gone; the next one of its name may be here already."""
        meta = pod["metadata"]
        self._tell(PodChange(Change.REMOVE, meta["namespace"], meta["name"], json.dumps(pod).encode()))

    def mark_deleted(self, namespace: str, name: str, grace: int = 5) -> None:
        pod = self.rows[namespace, name]
        pod["metadata"] |= {
            "deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": grace,
        }
        self.put_pod(pod)

    def put_object(self, kind: str, namespace: str, name: str, **body: Any) -> None:
        self.objects[kind, namespace, name] = {"metadata": {"name": name, "namespace": namespace}} | body
        for callback in self._objects:
            callback(kind, namespace, name)

    def connect(self) -> None:
        self.connected = True
        for callback in self._connections:
            callback()

    def status(self, namespace: str, name: str) -> dict[str, Any]:
        return self.rows[namespace, name].get("status", {})

    def reasons(self) -> list[str]:
        return [str(event["reason"]) for event in self.events]

    def _tell(self, change: PodChange) -> None:
        for callback in self._pods:
            callback(change)

    # --- MetaClient

    def pods(self) -> list[bytes]:
        return [json.dumps(pod).encode() for pod in self.rows.values()]

    def pod(self, namespace: str, name: str) -> bytes | None:
        row = self.rows.get((namespace, name))
        return json.dumps(row).encode() if row else None

    def subscribe_pods(self, callback: Callable[[PodChange], None]) -> None:
        self._pods.append(callback)

    def subscribe_objects(self, callback: Callable[[str, str, str], None]) -> None:
        self._objects.append(callback)

    def subscribe_connection(self, callback: Callable[[], None]) -> None:
        self._connections.append(callback)

    async def configmap(self, namespace: str, name: str) -> Reply:
        return self._object("configmap", namespace, name)

    async def secret(self, namespace: str, name: str) -> Reply:
        return self._object("secret", namespace, name)

    async def persistent_volume_claim(self, namespace: str, name: str) -> Reply:
        return self._object("persistentvolumeclaim", namespace, name)

    async def persistent_volume(self, name: str) -> Reply:
        return self._object("persistentvolume", "", name)

    async def volume_attachment(self, name: str) -> Reply:
        return self._object("volumeattachment", "", name)

    async def runtime_class(self, name: str) -> Reply:
        return self._object("runtimeclass", "", name)

    async def csi_driver(self, name: str) -> Reply:
        return self._object("csidriver", "", name)

    def _object(self, kind: str, namespace: str, name: str) -> Reply:
        found = self.objects.get((kind, namespace, name))
        if found is not None:
            return Ok(json.dumps(found).encode())
        return Failed(not_found(f"{kind}s", name)) if self.connected else offline(f"{kind} {name}")

    async def token(
        self, namespace: str, service_account: str, request: Mapping[str, Any], pod_uid: str
    ) -> Reply:
        if not self.connected and not self.tokens:
            return offline("token")
        self.tokens += 1
        body = {"status": {"token": f"token-{self.tokens}", "expirationTimestamp": "2100-01-01T00:00:00Z"}}
        return Ok(json.dumps(dict(request) | body).encode())

    async def patch_pod_status(self, namespace: str, name: str, uid: str, status_patch: bytes) -> Reply:
        row = self.rows.get((namespace, name))
        if row is None or row["metadata"]["uid"] != uid:
            return Failed(not_found("pods", name))
        patch = json.loads(status_patch)
        self.patches.append(patch)
        status = row.setdefault("status", {})
        for key, value in patch["status"].items():
            if value is None:
                status.pop(key, None)
            else:
                status[key] = value
        return Ok(json.dumps(row).encode()) if self.connected else offline("pod status")

    async def delete_pod(self, namespace: str, name: str, uid: str) -> Reply:
        self.deleted.append(uid)
        if self.connected and (namespace, name) in self.rows:
            self.remove_pod(namespace, name)
        return Ok()

    async def create_pod(self, raw: bytes) -> Reply:
        pod = json.loads(raw)
        meta = pod["metadata"]
        if not self.connected:
            return offline("pod")
        self.created.append(pod)
        meta["uid"] = f"mirror-{len(self.created)}"
        self.rows[meta["namespace"], meta["name"]] = pod
        return Ok(json.dumps(pod).encode())

    def forget_tokens(self, pod_uid: str) -> None:
        pass

    def report_event(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)

    async def node(self) -> Reply:
        if self.node_uid:
            return Ok(json.dumps({"metadata": {"name": "edge1", "uid": self.node_uid}}).encode())
        return offline("node")

    async def create_node(self, raw: bytes) -> Reply:
        return Ok(raw)

    async def patch_node_status(self, patch: bytes) -> Reply:
        return Ok(patch)

    async def lease(self) -> Reply:
        return offline("lease")

    async def create_lease(self, raw: bytes) -> Reply:
        return Ok(raw)

    async def update_lease(self, raw: bytes) -> Reply:
        return Ok(raw)


def make_pod(name: str, *containers: dict[str, Any], uid: str = "", **spec: Any) -> dict[str, Any]:
    """A pod on node ``edge1`` as the API server would send it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": uid or f"uid-{name}",
            "labels": {"app": name},
        },
        "spec": {
            "nodeName": "edge1",
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 1,
            "containers": list(containers),
            "securityContext": {},
        }
        | spec,
        "status": {"phase": "Pending"},
    }


def container(name: str, script: str, **more: Any) -> dict[str, Any]:
    """A container that runs a shell script from an image that is there."""
    return {
        "name": name,
        "image": "docker.io/library/busybox:1.36",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
    } | more
