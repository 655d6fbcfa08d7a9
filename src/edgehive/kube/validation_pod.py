"""Pods and pod templates: what their spec must fulfil, and what of it may change."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from edgehive.kube import fielderror as err
from edgehive.kube.fielderror import FieldError
from edgehive.kube.names import (
    config_key_problem,
    is_ip,
    name_problem,
)
from edgehive.kube.validation_container import validate_container
from edgehive.kube.validation_parts import Object, choice, inner_path_problem, objects
from edgehive.kube.validation_scheduling import validate_scheduling
from edgehive.kube.validation_security import validate_dns, validate_security

_VOLUME_KINDS = frozenset(
    [
        "awsElasticBlockStore",
        "azureDisk",
        "azureFile",
        "cephfs",
        "cinder",
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "fc",
        "flexVolume",
        "flocker",
        "gcePersistentDisk",
        "gitRepo",
        "glusterfs",
        "hostPath",
        "image",
        "iscsi",
        "nfs",
        "persistentVolumeClaim",
        "photonPersistentDisk",
        "portworxVolume",
        "projected",
        "quobyte",
        "rbd",
        "scaleIO",
        "secret",
        "storageos",
        "vsphereVolume",
    ]
)
_HOST_PATH_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)


def validate_pod_spec(spec: Object, path: str) -> list[FieldError]:
    """Return what is wrong with a pod spec whose defaults are filled in."""
    errors: list[FieldError] = []
    volumes = _validate_volumes(spec, path, errors)
    if not spec.get("containers"):
        errors.append(err.required(f"{path}.containers"))
    names: set[str] = set()
    for where, container, init in _containers(spec, path):
        validate_container(container, where, volumes, names, errors, init=init)
    choice(spec, "restartPolicy", path, ("Always", "OnFailure", "Never"), errors)
    choice(spec, "dnsPolicy", path, ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"), errors)
    _validate_numbers(spec, path, errors)
    validate_scheduling(spec, path, errors)
    for key, form in (
        ("nodeName", "subdomain"),
        ("serviceAccountName", "subdomain"),
        ("hostname", "label"),
        ("subdomain", "label"),
        ("priorityClassName", "subdomain"),
        ("runtimeClassName", "subdomain"),
    ):
        if (value := spec.get(key)) and (problem := name_problem(form, str(value))):
            errors.append(err.invalid_value(f"{path}.{key}", value, problem))
    for index, alias in enumerate(objects(spec.get("hostAliases"))):
        if not is_ip(str(alias.get("ip") or "")):
            errors.append(
                err.invalid_value(
                    f"{path}.hostAliases[{index}].ip", alias.get("ip"), "must be a valid IP address"
                )
            )
    validate_dns(spec, path, errors)
    validate_security(spec, path, errors)
    return errors


def _containers(spec: Object, path: str) -> Iterator[tuple[str, Object, bool]]:
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(objects(spec.get(key))):
            yield f"{path}.{key}[{index}]", container, key == "initContainers"


def _validate_numbers(spec: Object, path: str, errors: list[FieldError]) -> None:
    grace = spec.get("terminationGracePeriodSeconds")
    if isinstance(grace, int) and grace < 0:
        errors.append(
            err.invalid_value(
                f"{path}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0"
            )
        )
    deadline = spec.get("activeDeadlineSeconds")
    if isinstance(deadline, int) and not 1 <= deadline < 2**31:
        errors.append(
            err.invalid_value(
                f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive"
            )
        )


def _validate_volumes(spec: Object, path: str, errors: list[FieldError]) -> dict[str, Object]:
    volumes: dict[str, Object] = {}
    for index, volume in enumerate(objects(spec.get("volumes"))):
        where = f"{path}.volumes[{index}]"
        name = volume.get("name")
        if not name:
            errors.append(err.required(f"{where}.name"))
        elif problem := name_problem("label", str(name)):
            errors.append(err.invalid_value(f"{where}.name", name, problem))
        elif name in volumes:
            errors.append(err.duplicate(f"{where}.name", name))
        volumes[str(name)] = volume
        kinds = [key for key in volume if key in _VOLUME_KINDS]
        if not kinds:
            errors.append(err.required(where, "must specify a volume type"))
        detail = "may not specify more than 1 volume type"
        errors.extend(err.forbidden(f"{where}.{extra}", detail) for extra in kinds[1:])
        for kind in kinds:
            if isinstance(volume[kind], Mapping):
                _validate_volume_source(kind, volume[kind], f"{where}.{kind}", errors)
    return volumes


def _validate_volume_source(kind: str, source: Object, path: str, errors: list[FieldError]) -> None:
    needed = {
        "configMap": ("name",),
        "secret": ("secretName",),
        "hostPath": ("path",),
        "persistentVolumeClaim": ("claimName",),
        "nfs": ("server", "path"),
        "csi": ("driver",),
    }.get(kind, ())
    errors.extend(err.required(f"{path}.{key}") for key in needed if not source.get(key))
    if kind == "hostPath":
        choice(source, "type", path, _HOST_PATH_TYPES, errors)
        if ".." in str(source.get("path") or "").split("/"):
            errors.append(err.invalid_value(f"{path}.path", source["path"], "must not contain '..'"))
    mode = source.get("defaultMode")
    if isinstance(mode, int) and not 0 <= mode <= 0o777:
        errors.append(
            err.invalid_value(
                f"{path}.defaultMode", mode, "must be a number between 0 and 0777 (octal), both inclusive"
            )
        )
    for index, item in enumerate(objects(source.get("items"))):
        where = f"{path}.items[{index}]"
        if kind != "downwardAPI" and not item.get("key"):
            errors.append(err.required(f"{where}.key"))
        if not item.get("path"):
            errors.append(err.required(f"{where}.path"))
        elif problem := inner_path_problem(item["path"]):
            errors.append(err.invalid_value(f"{where}.path", item["path"], problem))


def validate_pod(pod: Object) -> list[FieldError]:
    """Return what is wrong with a Pod's spec."""
    spec = pod.get("spec")
    return validate_pod_spec(spec, "spec") if isinstance(spec, Mapping) else [err.required("spec")]


def pod_changes(pod: Object, old: Object) -> list[FieldError]:
    """Return what may not change in a Pod: all but images, tolerations (added), deadline, grace when negative."""
    new_spec, old_spec = pod.get("spec") or {}, old.get("spec") or {}
    if new_spec == old_spec:
        return []
    comparable = copy.deepcopy(dict(new_spec))
    for key in ("containers", "initContainers"):
        olds = {c.get("name"): c for c in objects(old_spec.get(key))}
        for container in _copies(comparable.get(key)):
            before = olds.get(container.get("name"))
            if before is not None:
                container["image"] = before.get("image")
    errors: list[FieldError] = []
    _deadline_change(new_spec, old_spec, errors)
    tolerations = new_spec.get("tolerations") or []
    if any(toleration not in tolerations for toleration in old_spec.get("tolerations") or []):
        errors.append(
            err.forbidden(
                "spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"
            )
        )
    for key in (
        "activeDeadlineSeconds",
        "tolerations",
        "terminationGracePeriodSeconds",
        "schedulingGates",
    ):
        if key == "terminationGracePeriodSeconds" and not (
            isinstance(old_spec.get(key), int) and old_spec[key] < 0 and new_spec.get(key) == 1
        ):
            continue
        _carry(comparable, old_spec, key)
    if comparable != old_spec:
        errors.append(
            err.forbidden(
                "spec",
                "pod updates may not change fields other than `spec.containers[*].image`, "
                "`spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to "
                "existing tolerations), `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
                "previously negative)",
            )
        )
    return errors


def _copies(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _carry(target: dict[str, Any], source: Object, key: str) -> None:
    if key in source:
        target[key] = source[key]
    else:
        target.pop(key, None)


def _deadline_change(new: Object, old: Object, errors: list[FieldError]) -> None:
    before, after = old.get("activeDeadlineSeconds"), new.get("activeDeadlineSeconds")
    if isinstance(before, int) and (not isinstance(after, int) or after > before):
        detail = (
            "must be less than or equal to previous value"
            if after is not None
            else "must not update from a positive integer to nil value"
        )
        errors.append(err.invalid_value("spec.activeDeadlineSeconds", after, detail))


def validate_config_keys(data: Any, path: str) -> list[FieldError]:
    """Return what is wrong with the keys of a ConfigMap or Secret."""
    return [
        err.invalid_value(f"{path}[{key}]", key, problem)
        for key in (data if isinstance(data, Mapping) else ())
        if (problem := config_key_problem(key))
    ]
