"""Built-in kinds other than pods: what they must fulfil, and what of them may not change."""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from edgehive.kube import fielderror as err
from edgehive.kube import validation_access as access
from edgehive.kube.crd_check import crd_changes, validate_crd
from edgehive.kube.fielderror import FieldError
from edgehive.kube.names import (
    is_ip,
    name_problem,
    port_name_problem,
    qualified_name_problem,
)
from edgehive.kube.quantity import is_quantity
from edgehive.kube.selectors import LabelSelector
from edgehive.kube.status import ApiStatus
from edgehive.kube.validation_parts import Object, immutable, is_port, objects, spec_of
from edgehive.kube.validation_pod import (
    pod_changes,
    validate_config_keys,
    validate_pod,
    validate_pod_spec,
)
from edgehive.kube.validation_workloads import (
    selector_changes,
    validate_daemonset,
    validate_deployment,
    validate_workload,
)

_DATA_LIMIT = 1024 * 1024


def _validate_configmap(obj: Object) -> list[FieldError]:
    errors = validate_config_keys(obj.get("data"), "data") + validate_config_keys(
        obj.get("binaryData"), "binaryData"
    )
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    errors += [
        err.invalid_value(f"binaryData[{key}]", key, "duplicate of key present in data")
        for key in binary
        if key in data
    ]
    size = sum(len(str(v).encode()) for v in data.values()) + sum(
        len(str(v)) * 3 // 4 for v in binary.values()
    )
    if size > _DATA_LIMIT:
        errors.append(err.too_long("", _DATA_LIMIT))
    return errors


def _frozen_data(obj: Object, old: Object) -> list[FieldError]:
    if old.get("immutable") is not True:
        return []
    errors = []
    if obj.get("immutable") is not True:
        errors.append(err.forbidden("immutable", "field is immutable when `immutable` is set"))
    errors += [
        err.forbidden(key, "field is immutable when `immutable` is set")
        for key in ("data", "binaryData")
        if (obj.get(key) or {}) != (old.get(key) or {})
    ]
    return errors


_SECRET_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def _validate_secret(obj: Object) -> list[FieldError]:
    data = obj.get("data") or {}
    errors = validate_config_keys(data, "data")
    size = 0
    for key, text in data.items():
        try:
            size += len(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError, TypeError):
            errors.append(err.invalid_value(f"data[{key}]", "<secret contents redacted>", "must be base64"))
    if size > _DATA_LIMIT:
        errors.append(err.too_long("data", _DATA_LIMIT))
    kind = obj.get("type")
    errors += [err.required(f"data[{key}]") for key in _SECRET_KEYS.get(str(kind), ()) if key not in data]
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    if kind == "kubernetes.io/service-account-token" and not annotations.get(
        "kubernetes.io/service-account.name"
    ):
        errors.append(err.required("metadata.annotations[kubernetes.io/service-account.name]"))
    return errors


def _secret_changes(obj: Object, old: Object) -> list[FieldError]:
    errors = _frozen_data(obj, old)
    if obj.get("type") != old.get("type"):
        errors.append(immutable("type", obj.get("type")))
    return errors


def _validate_service(obj: Object) -> list[FieldError]:
    spec = spec_of(obj)
    kind = spec.get("type")
    errors: list[FieldError] = []
    types = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if kind not in types:
        errors.append(err.not_supported("spec.type", kind, types))
    if kind == "ExternalName":
        if problem := name_problem("subdomain", str(spec.get("externalName") or "").rstrip(".")):
            errors.append(err.invalid_value("spec.externalName", spec.get("externalName") or "", problem))
    elif not spec.get("ports") and spec.get("clusterIP") != "None":
        errors.append(err.required("spec.ports"))
    cluster_ip = spec.get("clusterIP")
    if cluster_ip and cluster_ip != "None" and not is_ip(str(cluster_ip)):
        errors.append(
            err.invalid_value(
                "spec.clusterIPs[0]",
                cluster_ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            )
        )
    if spec.get("sessionAffinity") not in ("ClientIP", "None"):
        errors.append(
            err.not_supported("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"))
        )
    return errors + _validate_service_ports(spec)


def _validate_service_ports(spec: Object) -> list[FieldError]:
    errors: list[FieldError] = []
    ports = objects(spec.get("ports"))
    names: set[Any] = set()
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        name = port.get("name")
        if len(ports) > 1 and not name:
            errors.append(err.required(f"{path}.name"))
        if name:
            if problem := name_problem("label", str(name)):
                errors.append(err.invalid_value(f"{path}.name", name, problem))
            elif name in names:
                errors.append(err.duplicate(f"{path}.name", name))
            names.add(name)
        if not is_port(port.get("port")):
            errors.append(
                err.invalid_value(
                    f"{path}.port", port.get("port") or 0, "must be between 1 and 65535, inclusive"
                )
            )
        if port.get("protocol") not in ("SCTP", "TCP", "UDP"):
            errors.append(err.not_supported(f"{path}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP")))
        errors += _target_port(port.get("targetPort"), f"{path}.targetPort")
        key = (port.get("port"), port.get("protocol"))
        if key in seen:
            errors.append(err.duplicate(path, {"port": key[0], "protocol": key[1]}))
        seen.add(key)
        node_port = port.get("nodePort")
        if node_port and spec.get("type") in ("ClusterIP", "ExternalName"):
            errors.append(
                err.forbidden(f"{path}.nodePort", f"may not be used when `type` is '{spec.get('type')}'")
            )
    return errors


def _target_port(value: Any, path: str) -> list[FieldError]:
    if isinstance(value, str) and (problem := port_name_problem(value)):
        return [err.invalid_value(path, value, problem)]
    if isinstance(value, int) and not is_port(value):
        return [err.invalid_value(path, value, "must be between 1 and 65535, inclusive")]
    return []


def _service_changes(obj: Object, old: Object) -> list[FieldError]:
    new_spec, old_spec = spec_of(obj), spec_of(old)
    before, after = old_spec.get("clusterIP"), new_spec.get("clusterIP")
    external = "ExternalName" in (new_spec.get("type"), old_spec.get("type"))
    if before and after != before and not external:
        return [err.invalid_value("spec.clusterIPs[0]", after or "", "may not change once set")]
    return []


def _validate_node(obj: Object) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[tuple[Any, Any]] = set()
    for index, taint in enumerate(objects(spec_of(obj).get("taints"))):
        path = f"spec.taints[{index}]"
        if problem := qualified_name_problem(str(taint.get("key") or "")):
            errors.append(err.invalid_value(f"{path}.key", taint.get("key"), problem))
        effects = ("NoExecute", "NoSchedule", "PreferNoSchedule")
        if taint.get("effect") not in effects:
            errors.append(err.not_supported(f"{path}.effect", taint.get("effect"), effects))
        key = (taint.get("key"), taint.get("effect"))
        if key in seen:
            errors.append(err.duplicate(path, {"key": key[0], "effect": key[1]}))
        seen.add(key)
    return errors


def _node_changes(obj: Object, old: Object) -> list[FieldError]:
    errors = []
    for key in ("podCIDR", "providerID"):
        before, after = spec_of(old).get(key), spec_of(obj).get(key)
        if before and after != before:
            errors.append(
                err.forbidden(f"spec.{key}", 'node updates may not change this field except from "" to valid')
            )
    return errors


def _validate_lease(obj: Object) -> list[FieldError]:
    seconds = spec_of(obj).get("leaseDurationSeconds")
    errors = []
    if isinstance(seconds, int) and seconds <= 0:
        errors.append(err.invalid_value("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    transitions = spec_of(obj).get("leaseTransitions")
    if isinstance(transitions, int) and transitions < 0:
        errors.append(
            err.invalid_value("spec.leaseTransitions", transitions, "must be greater than or equal to 0")
        )
    return errors


def _validate_event(obj: Object) -> list[FieldError]:
    ref = obj.get("involvedObject")
    ref = ref if isinstance(ref, Mapping) else {}
    namespace = (obj.get("metadata") or {}).get("namespace")
    wanted = ref.get("namespace") or "default"
    if namespace != wanted and not (not ref.get("namespace") and namespace == "kube-system"):
        return [
            err.invalid_value(
                "involvedObject.namespace", ref.get("namespace") or "", "does not match event.namespace"
            )
        ]
    return []


def _validate_template(obj: Object) -> list[FieldError]:
    template = obj.get("template")
    spec = template.get("spec") if isinstance(template, Mapping) else None
    return (
        validate_pod_spec(spec, "template.spec")
        if isinstance(spec, Mapping)
        else [err.required("template.spec")]
    )


def _validate_binding(obj: Object) -> list[FieldError]:
    target = obj.get("target")
    target = target if isinstance(target, Mapping) else {}
    if target.get("kind") not in (None, "", "Node"):
        return [err.not_supported("target.kind", target["kind"], ("Node", "<empty>"))]
    return [] if target.get("name") else [err.required("target.name")]


_VALUE_LIMIT = 1_000_000_000


def _validate_priority(obj: Object) -> list[FieldError]:
    name, value = str((obj.get("metadata") or {}).get("name") or ""), obj.get("value") or 0
    errors = []
    if not name.startswith("system-") and isinstance(value, int) and value > _VALUE_LIMIT:
        errors.append(
            err.forbidden("value", f"maximum allowed value of a user defined priority is {_VALUE_LIMIT}")
        )
    policies = ("Never", "PreemptLowerPriority")
    if obj.get("preemptionPolicy") not in policies:
        errors.append(err.not_supported("preemptionPolicy", obj.get("preemptionPolicy"), policies))
    return errors


def _fixed(*keys: str) -> Callable[[Object, Object], list[FieldError]]:
    return lambda obj, old: [immutable(key, obj.get(key)) for key in keys if obj.get(key) != old.get(key)]


def _validate_slice(obj: Object) -> list[FieldError]:
    kinds = ("FQDN", "IPv4", "IPv6")
    errors = (
        []
        if obj.get("addressType") in kinds
        else [err.not_supported("addressType", obj.get("addressType"), kinds)]
    )
    errors += [
        err.required(f"endpoints[{index}].addresses", "must contain at least one address")
        for index, endpoint in enumerate(objects(obj.get("endpoints")))
        if not endpoint.get("addresses")
    ]
    return errors


def _validate_volume(obj: Object) -> list[FieldError]:
    spec = spec_of(obj)
    errors = []
    storage = (spec.get("capacity") or {}).get("storage")
    if storage is None:
        errors.append(err.required("spec.capacity"))
    elif not is_quantity(storage):
        errors.append(err.invalid_value("spec.capacity[storage]", storage, "must be a quantity"))
    if not spec.get("accessModes"):
        errors.append(err.required("spec.accessModes"))
    return errors


def _validate_claim(obj: Object) -> list[FieldError]:
    spec = spec_of(obj)
    errors = (
        []
        if spec.get("accessModes")
        else [err.required("spec.accessModes", "at least 1 access mode is required")]
    )
    requests = (spec.get("resources") or {}).get("requests") or {}
    if "storage" not in requests:
        errors.append(err.required("spec.resources[storage]"))
    try:
        LabelSelector.from_object(spec.get("selector"))
    except ApiStatus as exc:
        errors.append(err.invalid_value("spec.selector", spec["selector"], exc.message))
    return errors


def _validate_storageclass(obj: Object) -> list[FieldError]:
    return [] if obj.get("provisioner") else [err.required("provisioner")]


KIND_CHECKS: Mapping[str, Callable[[Object], list[FieldError]]] = {
    "Binding": _validate_binding,
    "CSIDriver": access.validate_csi_driver,
    "CSINode": access.validate_csi_node,
    "ClusterRole": access.validate_cluster_role,
    "ClusterRoleBinding": access.validate_binding,
    "ConfigMap": _validate_configmap,
    "CustomResourceDefinition": validate_crd,
    "DaemonSet": validate_daemonset,
    "Deployment": validate_deployment,
    "EndpointSlice": _validate_slice,
    "Event": _validate_event,
    "Lease": _validate_lease,
    "Node": _validate_node,
    "PersistentVolume": _validate_volume,
    "PersistentVolumeClaim": _validate_claim,
    "Pod": validate_pod,
    "PodTemplate": _validate_template,
    "PriorityClass": _validate_priority,
    "ReplicaSet": validate_workload,
    "Role": access.validate_role,
    "RoleBinding": access.validate_binding,
    "RuntimeClass": access.validate_runtime_class,
    "Secret": _validate_secret,
    "Service": _validate_service,
    "StorageClass": _validate_storageclass,
    "VolumeAttachment": access.validate_attachment,
}
"""Checks of one object, by kind."""

UPDATE_CHECKS: Mapping[str, Callable[[Object, Object], list[FieldError]]] = {
    "CertificateSigningRequest": access.spec_is_fixed,
    "ClusterRoleBinding": access.role_ref_changes,
    "ConfigMap": _frozen_data,
    "CustomResourceDefinition": crd_changes,
    "DaemonSet": selector_changes,
    "Deployment": selector_changes,
    "EndpointSlice": _fixed("addressType"),
    "Node": _node_changes,
    "Pod": pod_changes,
    "PriorityClass": _fixed("value", "preemptionPolicy"),
    "ReplicaSet": selector_changes,
    "RoleBinding": access.role_ref_changes,
    "RuntimeClass": access.handler_changes,
    "Secret": _secret_changes,
    "Service": _service_changes,
    "StorageClass": _fixed("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"),
    "VolumeAttachment": access.spec_is_fixed,
}
"""Checks of new object against old, by kind."""
