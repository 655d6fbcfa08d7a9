"""Defaults of built-in types that depend on other fields, in place; constant ones stand in the tables.

Each function is the hook of one type and runs after the type's own constant defaults and those below it.
"""

import base64
from collections.abc import Mapping
from typing import Any

from edgehive.kube.schema import Hook

_VOLUME_EXTRAS = frozenset(("name",))


def pull_policy(image: str) -> str:
    """Return ``Always`` for an image without tag or with ``latest``, else ``IfNotPresent``."""
    if "@" in image:
        return "IfNotPresent"
    _, _, last = image.rpartition("/")
    _, colon, tag = last.partition(":")
    return "Always" if not colon or tag == "latest" else "IfNotPresent"


def _container(obj: dict[str, Any]) -> None:
    if not obj.get("imagePullPolicy"):
        obj["imagePullPolicy"] = pull_policy(str(obj.get("image") or ""))


def _pod(obj: dict[str, Any]) -> None:
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return
    for container in _dicts(spec.get("containers")) + _dicts(spec.get("initContainers")):
        resources = container.get("resources")
        limits = resources.get("limits") if isinstance(resources, dict) else None
        if isinstance(resources, dict) and isinstance(limits, dict) and limits:
            requests = resources.setdefault("requests", {})
            if isinstance(requests, dict):
                for name, amount in limits.items():
                    requests.setdefault(name, amount)


def _pod_spec(obj: dict[str, Any]) -> None:
    account = obj.get("serviceAccountName") or obj.get("serviceAccount")
    if account:
        obj["serviceAccountName"] = obj["serviceAccount"] = account
    if obj.get("hostNetwork") is True:
        for key in ("containers", "initContainers"):
            for container in _dicts(obj.get(key)):
                for port in _dicts(container.get("ports")):
                    if "containerPort" in port and not port.get("hostPort"):
                        port["hostPort"] = port["containerPort"]
    for flag in ("hostNetwork", "hostPID", "hostIPC"):
        if obj.get(flag) is False:
            del obj[flag]


def _volume(obj: dict[str, Any]) -> None:
    if not any(key not in _VOLUME_EXTRAS for key in obj):
        obj["emptyDir"] = {}


def _image_volume(obj: dict[str, Any]) -> None:
    if not obj.get("pullPolicy"):
        obj["pullPolicy"] = pull_policy(str(obj.get("reference") or ""))


def _service_spec(obj: dict[str, Any]) -> None:
    kind = obj.get("type")
    for port in _dicts(obj.get("ports")):
        if not port.get("targetPort") and "port" in port:
            port["targetPort"] = port["port"]
    if obj.get("sessionAffinity") == "ClientIP":
        config = obj.setdefault("sessionAffinityConfig", {})
        if isinstance(config, dict):
            client = config.setdefault("clientIP", {})
            if isinstance(client, dict):
                client.setdefault("timeoutSeconds", 10800)
    if kind in ("NodePort", "LoadBalancer"):
        obj.setdefault("externalTrafficPolicy", "Cluster")
    if kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        obj.setdefault("internalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        obj.setdefault("allocateLoadBalancerNodePorts", True)


def _secret(obj: dict[str, Any]) -> None:
    texts = obj.pop("stringData", None)
    if isinstance(texts, dict) and texts:
        data = obj.get("data")
        data = obj["data"] = dict(data) if isinstance(data, dict) else {}
        for key, text in texts.items():
            data[key] = base64.b64encode(str(text).encode()).decode()


def _namespace(obj: dict[str, Any]) -> None:
    meta = obj.get("metadata")
    if isinstance(meta, dict) and meta.get("name"):
        labels = meta.get("labels")
        labels = meta["labels"] = dict(labels) if isinstance(labels, dict) else {}
        labels.setdefault("kubernetes.io/metadata.name", meta["name"])


def _node_status(obj: dict[str, Any]) -> None:
    if not obj.get("allocatable") and isinstance(obj.get("capacity"), dict) and obj["capacity"]:
        obj["allocatable"] = dict(obj["capacity"])


def _deployment_strategy(obj: dict[str, Any]) -> None:
    if obj.get("type") == "RollingUpdate":
        rolling = obj.setdefault("rollingUpdate", {})
        if isinstance(rolling, dict):
            rolling.setdefault("maxUnavailable", "25%")
            rolling.setdefault("maxSurge", "25%")


def _daemonset_strategy(obj: dict[str, Any]) -> None:
    if obj.get("type") == "RollingUpdate":
        rolling = obj.setdefault("rollingUpdate", {})
        if isinstance(rolling, dict):
            rolling.setdefault("maxUnavailable", 1)
            rolling.setdefault("maxSurge", 0)


def _claim_spec(obj: dict[str, Any]) -> None:
    if isinstance(obj.get("dataSource"), dict) and "dataSourceRef" not in obj:
        obj["dataSourceRef"] = dict(obj["dataSource"])


def _crd_names(obj: dict[str, Any]) -> None:
    kind = obj.get("kind")
    if isinstance(kind, str) and kind:
        if not obj.get("singular"):
            obj["singular"] = kind.lower()
        if not obj.get("listKind"):
            obj["listKind"] = kind + "List"


def _crd_webhook(obj: dict[str, Any]) -> None:
    service = obj.get("service")
    if isinstance(service, dict):
        service.setdefault("port", 443)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


_RBAC = "rbac.authorization.k8s.io"


def _role_ref(obj: dict[str, Any]) -> None:
    if not obj.get("apiGroup"):
        obj["apiGroup"] = _RBAC


def _subject(obj: dict[str, Any]) -> None:
    if not obj.get("apiGroup") and obj.get("kind") in ("User", "Group"):
        obj["apiGroup"] = _RBAC


HOOKS: Mapping[str, Hook] = {
    "RoleRef": _role_ref,
    "Subject": _subject,
    "Container": _container,
    "EphemeralContainer": _container,
    "Pod": _pod,
    "PodSpec": _pod_spec,
    "Volume": _volume,
    "ImageVolumeSource": _image_volume,
    "ServiceSpec": _service_spec,
    "Secret": _secret,
    "Namespace": _namespace,
    "NodeStatus": _node_status,
    "DeploymentStrategy": _deployment_strategy,
    "DaemonSetUpdateStrategy": _daemonset_strategy,
    "PersistentVolumeClaimSpec": _claim_spec,
    "CustomResourceDefinitionNames": _crd_names,
    "WebhookClientConfig": _crd_webhook,
}
"""By the short name of the type."""
