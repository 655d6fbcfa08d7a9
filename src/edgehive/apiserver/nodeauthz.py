"""What a node may do: its own Node, Lease, pods and devices, and the objects that those pods refer to."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from edgehive.aio.storage import Storage
from edgehive.apiserver.codec import decode
from edgehive.apiserver.context import User
from edgehive.kube.rules import READ, WRITE, Attributes, Rule
from edgehive.kube.status import ApiStatus

MIRROR: Final = "kubernetes.io/config.mirror"
_NODE_RULES = (
    Rule(("create", "get", "list", "watch", "update", "patch"), ("",), ("nodes", "nodes/status")),
    Rule(READ, ("",), ("services",)),
    Rule(READ, ("discovery.k8s.io",), ("endpointslices",)),
    Rule(("create", "update", "patch"), ("", "events.k8s.io"), ("events",)),
    Rule((*WRITE, "delete"), ("coordination.k8s.io",), ("leases",), namespaces=("kube-node-lease",)),
    Rule((*READ, "create", "delete"), ("",), ("pods",)),
    Rule(("get", "update", "patch"), ("",), ("pods/status",)),
    Rule(("create",), ("",), ("pods/eviction",)),
    Rule(("get", "list", "watch"), ("",), ("configmaps", "secrets")),
    Rule(("get",), ("",), ("persistentvolumes", "persistentvolumeclaims")),
    Rule(("get",), ("storage.k8s.io",), ("volumeattachments",)),
    Rule(("get", "patch"), ("devices.kubeedge.io",), ("devicestatuses",)),
    Rule(("get",), ("devices.kubeedge.io",), ("devices",)),
    Rule(("get",), ("",), ("serviceaccounts",)),
    Rule(("create",), ("",), ("serviceaccounts/token",)),
    Rule(("get", "list", "watch"), ("storage.k8s.io",), ("csidrivers", "storageclasses")),
    Rule(("get", "list", "watch"), ("node.k8s.io",), ("runtimeclasses",)),
    Rule(("create", "get", "list", "watch"), ("certificates.k8s.io",), ("certificatesigningrequests",)),
    Rule(("create",), ("authentication.k8s.io",), ("tokenreviews",)),
    Rule(("create",), ("authorization.k8s.io",), ("subjectaccessreviews",)),
)


@dataclass(slots=True)
class NodeAuthorizer:
    """``system:node:NAME`` in group ``system:nodes``: its own node, pods, and what those refer to."""

    storage: Storage
    rules: tuple[Rule, ...] = field(default=_NODE_RULES)

    def allows(self, user: User, a: Attributes) -> bool:
        """Tell whether a node may do it."""
        node = node_name(user)
        if not node or not any(rule.allows(a) for rule in self.rules):
            return False
        match a.resource:
            case "nodes" if a.verb in {"update", "patch", "create"} or a.subresource:
                return a.name in {node, ""} if a.verb == "create" else a.name == node
            case "leases":
                return a.name == node or (a.verb == "create" and not a.name)
            case "pods":
                return self._pod(node, a)
            case "configmaps" | "secrets":
                return bool(a.name) and self._uses(node, a)
            case "persistentvolumeclaims":
                return bool(a.name) and self._claims(node, a.namespace, a.name)
            case "persistentvolumes":
                return self._volume(node, a.name)
            case "volumeattachments":
                return self._spec("volumeattachments.storage.k8s.io", a.name).get("nodeName") == node
            case "devices" | "devicestatuses":  # a DeviceStatus has the name of its Device
                return (
                    self._spec("devices.devices.kubeedge.io", f"{a.namespace}/{a.name}").get("nodeName")
                    == node
                )
            case "serviceaccounts":
                return any(_account(pod) == a.name for pod in self._pods(node, a.namespace))
            case _:
                return True

    def _pod(self, node: str, a: Attributes) -> bool:
        if a.verb in {"list", "watch"} and not a.name:
            return a.field_node == node
        if a.verb == "create" and not a.subresource:
            return True  # a mirror pod: `check_mirror` looks at the body
        record = self.storage.get("pods", f"{a.namespace}/{a.name}")
        return record is None or (decode(record.value).get("spec") or {}).get("nodeName") == node

    def _pods(self, node: str, namespace: str) -> Iterator[dict[str, Any]]:
        """Yield the pods the node was given; its mirror pods, which it makes itself, give it rights to nothing."""
        mark = b'"nodeName":"%b"' % node.encode()
        for _, record in self.storage.scan("pods", f"{namespace}/"):
            if mark in record.value:
                pod = decode(record.value)
                if (pod.get("spec") or {}).get("nodeName") == node and not is_mirror(pod):
                    yield pod

    def _spec(self, resource: str, name: str) -> dict[str, Any]:
        record = self.storage.get(resource, name) if name else None
        return decode(record.value).get("spec") or {} if record is not None else {}

    def _claims(self, node: str, namespace: str, name: str) -> bool:
        return any(name in claims(pod) for pod in self._pods(node, namespace))

    def _volume(self, node: str, name: str) -> bool:
        """Whether the volume is bound to a claim of one of the node's pods."""
        claim = self._spec("persistentvolumes", name).get("claimRef") or {}
        namespace, claimed = str(claim.get("namespace") or ""), str(claim.get("name") or "")
        return bool(namespace and claimed) and self._claims(node, namespace, claimed)

    def _uses(self, node: str, a: Attributes) -> bool:
        if any((a.resource, a.name) in set(references(pod)) for pod in self._pods(node, a.namespace)):
            return True
        return a.resource == "secrets" and any(
            self._volume(node, name) for name in self._volumes_with(a.namespace, a.name)
        )

    def _volumes_with(self, namespace: str, secret: str) -> Iterator[str]:
        """Yield the volumes whose CSI driver is given this secret on the node."""
        for name, record in self.storage.scan("persistentvolumes", ""):
            if b'SecretRef"' in record.value:
                csi = (decode(record.value).get("spec") or {}).get("csi") or {}
                wanted = (csi.get("nodeStageSecretRef") or {}, csi.get("nodePublishSecretRef") or {})
                if any((one.get("namespace"), one.get("name")) == (namespace, secret) for one in wanted):
                    yield name


def node_name(user: User) -> str:
    """The node that a user is, or ``""``."""
    prefix = "system:node:"
    if "system:nodes" in user.groups and user.name.startswith(prefix):
        return user.name.removeprefix(prefix)
    return ""


def check_mirror(user: User, pod: dict[str, Any]) -> None:
    """A node may create only mirror pods, bound to itself, that use nothing secret.

    Raises:
        ApiStatus: 403.
    """
    node = node_name(user)
    if not node:
        return
    spec = pod.get("spec") or {}
    problem = ""
    if not is_mirror(pod):
        problem = "pod does not have the mirror annotation, a node can only create mirror pods"
    elif spec.get("nodeName") != node:
        problem = f'node "{node}" can only create pods with spec.nodeName set to itself'
    elif spec.get("serviceAccountName") or spec.get("serviceAccount"):
        problem = "a mirror pod may not refer to a service account"
    elif any(True for _ in references(pod)) or any(True for _ in claims(pod)):
        problem = "a mirror pod may not refer to secrets, configmaps or persistentvolumeclaims"
    if problem:
        raise ApiStatus(403, "Forbidden", f"pods is forbidden: {problem}", {"kind": "pods"})


def is_mirror(pod: dict[str, Any]) -> bool:
    """Whether a pod only shows a static one of its node."""
    return MIRROR in ((pod.get("metadata") or {}).get("annotations") or {})


def claims(pod: dict[str, Any]) -> Iterator[str]:
    """Yield the name of every claim that a pod mounts; a generic ephemeral volume's is made of two names."""
    name = str((pod.get("metadata") or {}).get("name") or "")
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        claim = volume.get("persistentVolumeClaim")
        if isinstance(claim, dict):
            yield str(claim.get("claimName") or "")
        elif volume.get("ephemeral"):
            yield f"{name}-{volume.get('name')}"


def _account(pod: dict[str, Any]) -> str:
    return str((pod.get("spec") or {}).get("serviceAccountName") or "default")


def references(pod: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (resource, name) of every configmap and secret that a pod refers to."""
    spec = pod.get("spec") or {}
    for secret in spec.get("imagePullSecrets") or ():
        yield "secrets", str(secret.get("name", ""))
    for volume in spec.get("volumes") or ():
        for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            yield from _volume_references(source)
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            for entry in (*(container.get("env") or ()), *(container.get("envFrom") or ())):
                yield from _env_references({**entry, **(entry.get("valueFrom") or {})})


def _volume_references(source: dict[str, Any]) -> Iterator[tuple[str, str]]:
    secret, config = source.get("secret") or {}, source.get("configMap") or {}
    if secret:
        yield "secrets", str(secret.get("secretName") or secret.get("name") or "")
    if config:
        yield "configmaps", str(config.get("name", ""))
    if inline := (source.get("csi") or {}).get("nodePublishSecretRef"):
        yield "secrets", str(inline.get("name", ""))


def _env_references(source: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, resource in (
        ("secretKeyRef", "secrets"),
        ("secretRef", "secrets"),
        ("configMapKeyRef", "configmaps"),
        ("configMapRef", "configmaps"),
    ):
        if source.get(key):
            yield resource, str(source[key].get("name", ""))
