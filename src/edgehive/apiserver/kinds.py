"""What is special about some kinds: the parts of an object that the server, not the client, decides."""

import base64
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from edgehive.apiserver.codec import Object
from edgehive.kube.quantity import parse_quantity
from edgehive.kube.resources import ResourceInfo

_GENERATION_GROUPS = frozenset({"apps", "batch", "policy", "networking.k8s.io", "apiextensions.k8s.io"})
_STATUS_ON_CREATE = frozenset({"nodes", "persistentvolumes"})
NAMESPACE_LABEL = "kubernetes.io/metadata.name"


def tracks_generation(info: ResourceInfo) -> bool:
    """Tell whether ``metadata.generation`` counts changes of the specification."""
    return info.custom or info.gvr.group in _GENERATION_GROUPS or str(info.gvr) == "pods"


def has_status(info: ResourceInfo) -> bool:
    """Tell whether status is written through its own subresource."""
    return "status" in info.subresources


def wanted(obj: Mapping[str, Any], info: ResourceInfo) -> dict[str, Any]:
    """The part of an object whose change makes a new generation."""
    skip = {"metadata", "kind", "apiVersion"} | ({"status"} if has_status(info) or not info.custom else set())
    return {key: value for key, value in obj.items() if key not in skip}


def prepare_create(info: ResourceInfo, obj: Object) -> None:
    """Set what the server decides about a new object."""
    if has_status(info) and info.gvr.resource not in _STATUS_ON_CREATE:
        obj.pop("status", None)
    if tracks_generation(info):
        obj["metadata"]["generation"] = 1
    special = _CREATE.get(str(info.gvr))
    if special is not None:
        special(obj)


def prepare_update(info: ResourceInfo, old: Mapping[str, Any], new: Object, subresource: str) -> Object:
    """Return the object that an update makes of `old`: each door lets only its own part through."""
    if subresource in {"status", "finalize", "approval", "ephemeralcontainers"}:
        return _through_subresource(info, old, new, subresource)
    if has_status(info) and subresource != "binding":
        _keep(old, new, "status")
    special = _UPDATE.get(str(info.gvr))
    if special is not None:
        special(old, new)
    return new


def _keep(old: Mapping[str, Any], new: Object, key: str) -> None:
    if key in old:
        new[key] = old[key]
    else:
        new.pop(key, None)


def _through_subresource(info: ResourceInfo, old: Mapping[str, Any], new: Object, subresource: str) -> Object:
    result: Object = dict(old)
    meta = dict(old["metadata"])
    given = new.get("metadata") or {}
    if not info.custom and info.gvr.resource in {"pods", "nodes"} and subresource == "status":
        for key in ("labels", "annotations"):
            _keep(given, meta, key)
    for key in ("managedFields", "resourceVersion"):
        if key in given:
            meta[key] = given[key]
    result["metadata"] = meta
    if subresource == "finalize":
        spec = dict(old.get("spec") or {})
        _keep(new.get("spec") or {}, spec, "finalizers")
        result["spec"] = spec
    elif subresource == "approval":
        # Whoever approves does not sign: only what is decided passes this door.
        status = dict(old.get("status") or {})
        _keep(new.get("status") or {}, status, "conditions")
        result["status"] = status
    elif subresource == "ephemeralcontainers":
        spec = dict(old.get("spec") or {})
        _keep(new.get("spec") or {}, spec, "ephemeralContainers")
        result["spec"] = spec
    elif new.get("status") is not None:
        result["status"] = new["status"]
    else:
        result.pop("status", None)
    if str(info.gvr) == "pods" and isinstance(result.get("status"), dict):
        result["status"].setdefault("qosClass", qos_class(result.get("spec") or {}))
    return result


# -- pods


def qos_class(spec: Mapping[str, Any]) -> str:
    """``Guaranteed``, ``Burstable`` or ``BestEffort``, from cpu and memory of every container."""
    limits_everywhere, anything = True, False
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            limit, request = _amount(limits.get(name)), _amount(requests.get(name))
            anything = anything or bool(limit) or bool(request)
            if not limit or (requests.get(name) is not None and request != limit):
                limits_everywhere = False
    if not anything:
        return "BestEffort"
    return "Guaranteed" if limits_everywhere else "Burstable"


def _amount(value: Any) -> Any:
    try:
        return parse_quantity(value) if value is not None else 0
    except ValueError:
        return 0


def _create_pod(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    obj["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}


# -- others


def _create_namespace(obj: Object) -> None:
    meta = obj["metadata"]
    obj["spec"] = {"finalizers": ["kubernetes"]}
    obj["status"] = {"phase": "Active"}
    if meta.get("name"):
        meta["labels"] = {**(meta.get("labels") or {}), NAMESPACE_LABEL: meta["name"]}


def _update_namespace(old: Mapping[str, Any], new: Object) -> None:
    _keep(old, new, "spec")
    meta = new["metadata"]
    meta["labels"] = {**(meta.get("labels") or {}), NAMESPACE_LABEL: old["metadata"]["name"]}


def _secret_text(obj: Object) -> None:
    """``stringData`` is write-only: it is merged into ``data``."""
    text = obj.pop("stringData", None)
    if isinstance(text, dict):
        given = {k: base64.b64encode(str(v).encode()).decode() for k, v in text.items()}
        obj["data"] = {**(obj.get("data") or {}), **given}


def _update_secret(old: Mapping[str, Any], new: Object) -> None:
    _secret_text(new)
    if not new.get("type"):
        _keep(old, new, "type")


def _update_service(old: Mapping[str, Any], new: Object) -> None:
    """A client that leaves out what was allocated means to keep it."""
    before, spec = old.get("spec") or {}, new.get("spec")
    if not isinstance(spec, dict) or spec.get("type") == "ExternalName":
        return
    for key in ("clusterIP", "clusterIPs"):
        if not spec.get(key) and before.get(key):
            spec[key] = before[key]


_CREATE: Mapping[str, Callable[[Object], None]] = MappingProxyType(
    {"pods": _create_pod, "namespaces": _create_namespace, "secrets": _secret_text}
)
_UPDATE: Mapping[str, Callable[[Mapping[str, Any], Object], None]] = MappingProxyType(
    {"namespaces": _update_namespace, "secrets": _update_secret, "services": _update_service}
)
