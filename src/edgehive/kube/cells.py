"""Cells of the built-in ``kubectl get`` tables; each function gets the object and the time."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from edgehive.kube.cells_pod import (
    pod_gates,
    pod_ip,
    pod_node,
    pod_nominated,
    pod_ready,
    pod_restarts,
    pod_status,
)
from edgehive.kube.durations import NONE, UNKNOWN, age_text
from edgehive.kube.selectors import LabelSelector
from edgehive.kube.status import ApiStatus

Object = Mapping[str, Any]
Cell = Callable[[Object, datetime], Any]

_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE_LABEL = "kubernetes.io/role"


def dig(obj: Any, *keys: str) -> Any:
    """Return the value below `keys`, or None."""
    for key in keys:
        obj = obj.get(key) if isinstance(obj, Mapping) else None
    return obj


def items(value: Any) -> list[Object]:
    """Return the objects of a list, or an empty list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, Sequence) else []


def _age(obj: Object, now: datetime) -> str:
    return age_text(dig(obj, "metadata", "creationTimestamp"), now)


def _number(*keys: str) -> Cell:
    return lambda obj, _now: dig(obj, *keys) or 0


def _text(*keys: str, absent: str = "") -> Cell:
    return lambda obj, _now: str(dig(obj, *keys) or absent)


def _labels_text(labels: Any) -> str:
    if not isinstance(labels, Mapping) or not labels:
        return NONE
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _template_names(key: str, field: str) -> Cell:
    def cell(obj: Object, _now: datetime) -> str:
        spec = dig(obj, "spec", "template", "spec") or dig(obj, "template", "spec")
        return ",".join(str(c.get(field, "")) for c in items(dig(spec, key)))

    return cell


def _label_selector(obj: Object, _now: datetime) -> str:
    selector = dig(obj, "spec", "selector")
    try:
        text = str(LabelSelector.from_object(selector))
    except ApiStatus:
        return "<error>"
    return text or NONE


def _node_status(obj: Object, _now: datetime) -> str:
    states = {c.get("type"): c.get("status") for c in items(dig(obj, "status", "conditions"))}
    ready = {None: "Unknown", "True": "Ready"}.get(states.get("Ready"), "NotReady")
    words = [ready]
    if dig(obj, "spec", "unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _node_roles(obj: Object, _now: datetime) -> str:
    roles = set()
    for key, value in (dig(obj, "metadata", "labels") or {}).items():
        if key.startswith(_ROLE_PREFIX) and len(key) > len(_ROLE_PREFIX):
            roles.add(key.removeprefix(_ROLE_PREFIX))
        elif key == _ROLE_LABEL and value:
            roles.add(value)
    return ",".join(sorted(roles)) or NONE


def _node_address(kind: str) -> Cell:
    def cell(obj: Object, _now: datetime) -> str:
        found = (a.get("address") for a in items(dig(obj, "status", "addresses")) if a.get("type") == kind)
        return next((str(address) for address in found), NONE)

    return cell


def _service_cluster_ip(obj: Object, _now: datetime) -> str:
    if dig(obj, "spec", "type") == "ExternalName":
        return NONE
    return str(dig(obj, "spec", "clusterIP") or NONE)


def _service_external_ip(obj: Object, _now: datetime) -> str:
    spec = dig(obj, "spec") or {}
    external = [str(ip) for ip in spec.get("externalIPs") or ()]
    match spec.get("type"):
        case "ExternalName":
            return str(spec.get("externalName") or "")
        case "LoadBalancer":
            ingress = items(dig(obj, "status", "loadBalancer", "ingress"))
            found = [str(i.get("ip") or i.get("hostname") or "") for i in ingress]
            return ",".join([*found, *external]) or "<pending>"
    return ",".join(external) or NONE


def _service_ports(obj: Object, _now: datetime) -> str:
    texts = []
    for port in items(dig(obj, "spec", "ports")):
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        texts.append(f"{port.get('port')}{node}/{port.get('protocol') or 'TCP'}")
    return ",".join(texts) or NONE


def _endpoints(obj: Object, _now: datetime) -> str:
    found = []
    for subset in items(obj.get("subsets")):
        addresses = [str(a.get("ip")) for a in items(subset.get("addresses"))]
        ports = items(subset.get("ports"))
        found += [f"{a}:{p.get('port')}" for p in ports for a in addresses] if ports else addresses
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more or NONE


def _slice_ports(obj: Object, _now: datetime) -> str:
    ports = [str(port.get("port") or "*") for port in items(obj.get("ports"))]
    more = f" + {len(ports) - 3} more..." if len(ports) > 3 else ""
    return ",".join(ports[:3]) + more or "<unset>"


def _slice_endpoints(obj: Object, _now: datetime) -> str:
    found = [str(a) for endpoint in items(obj.get("endpoints")) for a in endpoint.get("addresses") or ()]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more or "<unset>"


def _event_last_seen(obj: Object, now: datetime) -> str:
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    series = dig(obj, "series", "lastObservedTime")
    last = series or obj.get("lastTimestamp") or first
    return age_text(last, now)


def _event_first_seen(obj: Object, now: datetime) -> str:
    return age_text(obj.get("firstTimestamp") or obj.get("eventTime"), now)


def _event_object(obj: Object, _now: datetime) -> str:
    ref = obj.get("involvedObject") or {}
    return f"{str(ref.get('kind') or '').lower()}/{ref.get('name') or ''}"


def _event_source(obj: Object, _now: datetime) -> str:
    source = obj.get("source") or {}
    component = source.get("component") or obj.get("reportingComponent") or ""
    host = source.get("host") or obj.get("reportingInstance") or ""
    return f"{component}, {host}" if host else str(component)


def _event_count(obj: Object, _now: datetime) -> int:
    count = dig(obj, "series", "count") or obj.get("count")
    return int(count) if isinstance(count, int) and count else 1


def _event_message(obj: Object, _now: datetime) -> str:
    return re.sub(r"\s+$", "", str(obj.get("message") or ""))


def _phase_or_terminating(obj: Object, _now: datetime) -> str:
    if dig(obj, "metadata", "deletionTimestamp"):
        return "Terminating"
    return str(dig(obj, "status", "phase") or "")


def _csr_condition(obj: Object, _now: datetime) -> str:
    decided = [str(c.get("type")) for c in dig(obj, "status", "conditions") or ()]
    issued = ["Issued"] if dig(obj, "status", "certificate") else []
    return ",".join([*decided, *issued]) or "Pending"


_MODES = (
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
)


def _modes(*keys: str) -> Cell:
    return lambda obj, _now: ",".join(short for long, short in _MODES if long in (dig(obj, *keys) or ()))


def _volume_claim(obj: Object, _now: datetime) -> str:
    ref = dig(obj, "spec", "claimRef")
    return f"{ref.get('namespace')}/{ref.get('name')}" if isinstance(ref, Mapping) else ""


def _claim_capacity(obj: Object, _now: datetime) -> str:
    return str(dig(obj, "status", "capacity", "storage") or "") if dig(obj, "spec", "volumeName") else ""


def _storageclass_name(obj: Object, _now: datetime) -> str:
    default = dig(obj, "metadata", "annotations", "storageclass.kubernetes.io/is-default-class") == "true"
    return f"{dig(obj, 'metadata', 'name')}{' (default)' if default else ''}"


def _ready_of_wanted(obj: Object, _now: datetime) -> str:
    return f"{dig(obj, 'status', 'readyReplicas') or 0}/{dig(obj, 'spec', 'replicas') or 0}"


def _binding_role(obj: Object, _now: datetime) -> str:
    return f"{dig(obj, 'roleRef', 'kind') or ''}/{dig(obj, 'roleRef', 'name') or ''}"


def _subjects(kind: str) -> Cell:
    def cell(obj: Object, _now: datetime) -> str:
        found = [subject for subject in items(obj.get("subjects")) if subject.get("kind") == kind]
        spaced = kind == "ServiceAccount"
        return ", ".join(
            f"{subject.get('namespace')}/{subject.get('name')}" if spaced else str(subject.get("name"))
            for subject in found
        )

    return cell


def _driver_tokens(obj: Object, _now: datetime) -> str:
    found = items(dig(obj, "spec", "tokenRequests"))
    return ",".join(str(request.get("audience") or "") for request in found) or "<unset>"


CELLS: Mapping[str, Cell] = {
    "age": _age,
    "pod_ready": pod_ready,
    "pod_status": pod_status,
    "pod_restarts": pod_restarts,
    "pod_ip": pod_ip,
    "pod_node": pod_node,
    "pod_nominated": pod_nominated,
    "pod_gates": pod_gates,
    "template_containers": _template_names("containers", "name"),
    "template_images": _template_names("containers", "image"),
    "template_labels": lambda obj, _now: _labels_text(dig(obj, "template", "metadata", "labels")),
    "label_selector": _label_selector,
    "node_status": _node_status,
    "node_roles": _node_roles,
    "node_internal_ip": _node_address("InternalIP"),
    "node_external_ip": _node_address("ExternalIP"),
    "node_os_image": _text("status", "nodeInfo", "osImage", absent=UNKNOWN),
    "node_kernel": _text("status", "nodeInfo", "kernelVersion", absent=UNKNOWN),
    "node_runtime": _text("status", "nodeInfo", "containerRuntimeVersion", absent=UNKNOWN),
    "configmap_size": lambda obj, _now: str(len(obj.get("data") or ()) + len(obj.get("binaryData") or ())),
    "data_size": lambda obj, _now: len(obj.get("data") or ()),
    "secret_count": lambda obj, _now: len(obj.get("secrets") or ()),
    "service_cluster_ip": _service_cluster_ip,
    "service_external_ip": _service_external_ip,
    "service_ports": _service_ports,
    "service_selector": lambda obj, _now: _labels_text(dig(obj, "spec", "selector")),
    "endpoints": _endpoints,
    "slice_ports": _slice_ports,
    "slice_endpoints": _slice_endpoints,
    "event_last_seen": _event_last_seen,
    "event_first_seen": _event_first_seen,
    "event_object": _event_object,
    "event_subobject": _text("involvedObject", "fieldPath"),
    "event_source": _event_source,
    "event_message": _event_message,
    "event_count": _event_count,
    "ready_of_wanted": _ready_of_wanted,
    "updated_replicas": lambda obj, _now: str(dig(obj, "status", "updatedReplicas") or 0),
    "available_replicas": lambda obj, _now: str(dig(obj, "status", "availableReplicas") or 0),
    "wanted_replicas": _number("spec", "replicas"),
    "current_replicas": _number("status", "replicas"),
    "ready_replicas": _number("status", "readyReplicas"),
    "daemon_desired": _number("status", "desiredNumberScheduled"),
    "daemon_current": _number("status", "currentNumberScheduled"),
    "daemon_ready": _number("status", "numberReady"),
    "daemon_updated": _number("status", "updatedNumberScheduled"),
    "daemon_available": _number("status", "numberAvailable"),
    "daemon_node_selector": lambda obj, _now: _labels_text(
        dig(obj, "spec", "template", "spec", "nodeSelector")
    ),
    "priority_value": _number("value"),
    "priority_default": lambda obj, _now: bool(obj.get("globalDefault")),
    "storageclass_name": _storageclass_name,
    "storageclass_expansion": lambda obj, _now: bool(obj.get("allowVolumeExpansion")),
    "volume_capacity": _text("spec", "capacity", "storage"),
    "volume_modes": _modes("spec", "accessModes"),
    "volume_claim": _volume_claim,
    "claim_capacity": _claim_capacity,
    "claim_modes": _modes("status", "accessModes"),
    "volume_attributes_class": _text("spec", "volumeAttributesClassName", absent="<unset>"),
    "phase_or_terminating": _phase_or_terminating,
    "csr_condition": _csr_condition,
    "binding_role": _binding_role,
    "binding_users": _subjects("User"),
    "binding_groups": _subjects("Group"),
    "binding_accounts": _subjects("ServiceAccount"),
    "driver_tokens": _driver_tokens,
    "driver_modes": lambda obj, _now: ",".join(map(str, dig(obj, "spec", "volumeLifecycleModes") or ())),
    "attached": lambda obj, _now: bool(dig(obj, "status", "attached")),
    "csi_drivers": lambda obj, _now: len(dig(obj, "spec", "drivers") or ()),
}
"""By the name a `Column` gives in `cell`."""
