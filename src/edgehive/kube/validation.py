"""What objects must fulfil beyond their schema, with Kubernetes' field paths and messages.

`kube.validation_pod` has the pods, `kube.validation_kinds` the other built-in kinds; this module has the
metadata, which custom kinds share, and the dispatch.
"""

from collections.abc import Mapping
from typing import Any

from edgehive.kube import fielderror
from edgehive.kube import validation_ephemeral as ephemeral
from edgehive.kube.fielderror import FieldError
from edgehive.kube.names import label_value_problem, name_problem, path_name_problem, qualified_name_problem
from edgehive.kube.resources import ResourceInfo
from edgehive.kube.validation_devices import CHECKS as DEVICE_CHECKS
from edgehive.kube.validation_kinds import KIND_CHECKS, UPDATE_CHECKS

_ANNOTATIONS_LIMIT = 256 * 1024
_PREFIX_KINDS = frozenset(("Namespace", "Service"))
_FREE_NAMES = frozenset(("Event",))
_PATH_NAMES = frozenset(("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"))
"""Kinds whose names may be anything that can stand between two slashes, such as ``system:node``."""
_IMMUTABLE_META = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


def validate(
    info: ResourceInfo, obj: dict[str, Any], *, old: dict[str, Any] | None = None, subresource: str = ""
) -> list[FieldError]:
    """Return what is wrong with `obj` (defaults filled in); with `old`, also what may not change.

    For custom kinds this checks metadata only, their schema does the rest (`Schema.validate`); KubeEdge's devices
    have rules of their own, which a specification that stays as it is need not fulfil.
    """
    errors = validate_meta(info, obj)
    if old is not None:
        errors += _meta_changes(obj, old)
    if not info.custom and subresource in ("", ephemeral.PART):
        check = KIND_CHECKS.get(info.kind)
        if check is not None:
            errors += check(obj)
        update = ephemeral.ephemeral_changes if subresource else UPDATE_CHECKS.get(info.kind)
        if update is not None and old is not None:
            errors += update(obj, old)
    custom = DEVICE_CHECKS.get(info.gvr) if info.custom and not subresource else None
    if custom is not None and (old is None or old.get("spec") != obj.get("spec")):
        errors += custom(obj)
    return errors


def validate_meta(info: ResourceInfo, obj: Mapping[str, Any]) -> list[FieldError]:
    """Return what is wrong with ``metadata``."""
    meta = obj.get("metadata")
    if not isinstance(meta, Mapping):
        return [fielderror.required("metadata")]
    errors: list[FieldError] = []
    name = meta.get("name") or ""
    if not name and not meta.get("generateName"):
        errors.append(fielderror.required("metadata.name", "name or generateName is required"))
    elif name and (problem := _name_problem(info, str(name))):
        errors.append(fielderror.invalid_value("metadata.name", name, problem))
    namespace = meta.get("namespace")
    if info.namespaced and not namespace:
        errors.append(fielderror.required("metadata.namespace"))
    elif namespace and not info.namespaced:
        errors.append(fielderror.forbidden("metadata.namespace", "not allowed on this type"))
    elif namespace and (problem := name_problem("label", str(namespace))):
        errors.append(fielderror.invalid_value("metadata.namespace", namespace, problem))
    errors += validate_labels(meta.get("labels"), "metadata.labels")
    errors += _validate_annotations(meta.get("annotations"))
    errors += _validate_owners(meta.get("ownerReferences"))
    errors += _validate_finalizers(meta.get("finalizers"))
    return errors


def _name_problem(info: ResourceInfo, name: str) -> str:
    if info.kind in _PATH_NAMES and not info.custom:
        return path_name_problem(name)
    if info.custom or info.kind not in (_PREFIX_KINDS | _FREE_NAMES):
        return name_problem("subdomain", name)
    if info.kind == "Service":
        return name_problem("label1035", name)
    return name_problem("label", name) if info.kind == "Namespace" else name_problem("subdomain", name)


def validate_labels(labels: Any, path: str) -> list[FieldError]:
    """Return what is wrong with a map of labels."""
    errors = []
    for key, value in (labels or {}).items() if isinstance(labels, Mapping) else ():
        if problem := qualified_name_problem(key):
            errors.append(fielderror.invalid_value(path, key, problem))
        if problem := label_value_problem(str(value)):
            errors.append(fielderror.invalid_value(path, value, problem))
    return errors


def _validate_annotations(annotations: Any) -> list[FieldError]:
    if not isinstance(annotations, Mapping):
        return []
    errors = [
        fielderror.invalid_value("metadata.annotations", key, problem)
        for key in annotations
        if (problem := qualified_name_problem(key.lower()))
    ]
    if sum(len(str(k).encode()) + len(str(v).encode()) for k, v in annotations.items()) > _ANNOTATIONS_LIMIT:
        errors.append(fielderror.too_long("metadata.annotations", _ANNOTATIONS_LIMIT))
    return errors


def _validate_owners(owners: Any) -> list[FieldError]:
    errors: list[FieldError] = []
    controllers = 0
    for index, owner in enumerate(owners if isinstance(owners, list) else ()):
        path = f"metadata.ownerReferences[{index}]"
        if not isinstance(owner, Mapping):
            continue
        errors.extend(
            fielderror.invalid_value(f"{path}.{key}", owner.get(key) or "", f"{key} must not be empty")
            for key in ("apiVersion", "kind", "name", "uid")
            if not owner.get(key)
        )
        controllers += owner.get("controller") is True
    if controllers > 1:
        detail = "Only one reference can have Controller set to true"
        errors.append(fielderror.invalid_value("metadata.ownerReferences", controllers, detail))
    return errors


def _validate_finalizers(finalizers: Any) -> list[FieldError]:
    return [
        fielderror.invalid_value(f"metadata.finalizers[{index}]", text, problem)
        for index, text in enumerate(finalizers if isinstance(finalizers, list) else ())
        if (problem := qualified_name_problem(str(text)))
    ]


def _meta_changes(obj: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    new_meta, old_meta = obj.get("metadata") or {}, old.get("metadata") or {}
    errors = [
        fielderror.invalid_value(f"metadata.{key}", new_meta.get(key), "field is immutable")
        for key in _IMMUTABLE_META
        if new_meta.get(key) != old_meta.get(key)
    ]
    if old_meta.get("deletionTimestamp"):
        added = set(new_meta.get("finalizers") or ()) - set(old_meta.get("finalizers") or ())
        if added:
            detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {sorted(added)}"
            errors.append(fielderror.forbidden("metadata.finalizers", detail))
    return errors
