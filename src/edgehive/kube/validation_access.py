"""Checks of roles, bindings, runtime classes and the objects about CSI drivers."""

from collections.abc import Mapping
from typing import Any, Final

from edgehive.kube import fielderror as err
from edgehive.kube.fielderror import FieldError
from edgehive.kube.names import path_name_problem
from edgehive.kube.refs import is_dns_label, is_dns_subdomain
from edgehive.kube.validation_parts import Object, immutable, objects, spec_of

_GROUP: Final = "rbac.authorization.k8s.io"
_SUBJECTS: Final = ("ServiceAccount", "User", "Group")
_FS_POLICIES: Final = ("ReadWriteOnceWithFSType", "File", "None")
_MODES: Final = ("Persistent", "Ephemeral")


def validate_role(obj: Object) -> list[FieldError]:
    """A Role: every rule has verbs, and is about resources."""
    return [e for i, rule in enumerate(objects(obj.get("rules"))) for e in _rule(rule, f"rules[{i}]", True)]


def validate_cluster_role(obj: Object) -> list[FieldError]:
    """A ClusterRole: a rule may also be about paths, but not about both."""
    errors = [
        e for i, rule in enumerate(objects(obj.get("rules"))) for e in _rule(rule, f"rules[{i}]", False)
    ]
    aggregation = obj.get("aggregationRule")
    if isinstance(aggregation, Mapping) and not aggregation.get("clusterRoleSelectors"):
        detail = "at least one clusterRoleSelector required if aggregationRule is non-nil"
        errors.append(err.required("aggregationRule.clusterRoleSelectors", detail))
    return errors


def _rule(rule: Object, path: str, namespaced: bool) -> list[FieldError]:
    errors = []
    if not rule.get("verbs"):
        errors.append(err.required(f"{path}.verbs", "verbs must contain at least one value"))
    if paths := rule.get("nonResourceURLs"):
        where = f"{path}.nonResourceURLs"
        if namespaced:
            errors.append(
                err.invalid_value(where, paths, "namespaced rules cannot apply to non-resource URLs")
            )
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            detail = "rules cannot apply to both regular resources and non-resource URLs"
            errors.append(err.invalid_value(where, paths, detail))
        return errors
    if not rule.get("apiGroups"):
        errors.append(err.required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
    if not rule.get("resources"):
        errors.append(err.required(f"{path}.resources", "resource rules must supply at least one resource"))
    return errors


def validate_binding(obj: Object) -> list[FieldError]:
    """A RoleBinding or ClusterRoleBinding."""
    kinds = ("ClusterRole",) if obj.get("kind") == "ClusterRoleBinding" else ("Role", "ClusterRole")
    ref = obj.get("roleRef")
    ref = ref if isinstance(ref, Mapping) else {}
    errors = []
    if ref.get("apiGroup") != _GROUP:
        errors.append(err.not_supported("roleRef.apiGroup", ref.get("apiGroup"), (_GROUP,)))
    if ref.get("kind") not in kinds:
        errors.append(err.not_supported("roleRef.kind", ref.get("kind"), kinds))
    errors += _path_name(ref.get("name"), "roleRef.name")
    for index, subject in enumerate(objects(obj.get("subjects"))):
        errors += _subject(subject, f"subjects[{index}]", kinds == ("ClusterRole",))
    return errors


def _path_name(name: Any, path: str) -> list[FieldError]:
    if not name:
        return [err.required(path)]
    problem = path_name_problem(str(name))
    return [err.invalid_value(path, name, problem)] if problem else []


def _subject(subject: Object, path: str, cluster: bool) -> list[FieldError]:
    kind, group = subject.get("kind"), subject.get("apiGroup") or ""
    errors = [] if subject.get("name") else [err.required(f"{path}.name")]
    if kind not in _SUBJECTS:
        return [*errors, err.not_supported(f"{path}.kind", kind, _SUBJECTS)]
    wanted = "" if kind == "ServiceAccount" else _GROUP
    if group != wanted:
        errors.append(err.not_supported(f"{path}.apiGroup", group, (wanted,)))
    if kind == "ServiceAccount":
        if not subject.get("namespace") and cluster:
            errors.append(err.required(f"{path}.namespace"))
        if subject.get("namespace") and not is_dns_label(str(subject["namespace"])):
            errors.append(err.invalid_value(f"{path}.namespace", subject["namespace"], "must be a namespace"))
    return errors


def role_ref_changes(obj: Object, old: Object) -> list[FieldError]:
    """What a binding grants may not change: whoever wants that makes another one."""
    if obj.get("roleRef") == old.get("roleRef"):
        return []
    return [err.invalid_value("roleRef", obj.get("roleRef"), "cannot change roleRef")]


def validate_runtime_class(obj: Object) -> list[FieldError]:
    """A RuntimeClass."""
    handler = obj.get("handler") or ""
    if is_dns_label(str(handler)):
        return []
    return [err.invalid_value("handler", handler, "must be a lowercase RFC 1123 label")]


def handler_changes(obj: Object, old: Object) -> list[FieldError]:
    """The handler of a RuntimeClass is fixed."""
    return [immutable("handler", obj.get("handler"))] if obj.get("handler") != old.get("handler") else []


def validate_csi_driver(obj: Object) -> list[FieldError]:
    """A CSIDriver."""
    spec = spec_of(obj)
    errors = []
    if spec.get("fsGroupPolicy") not in (None, *_FS_POLICIES):
        errors.append(err.not_supported("spec.fsGroupPolicy", spec["fsGroupPolicy"], _FS_POLICIES))
    errors += [
        err.not_supported("spec.volumeLifecycleModes", mode, _MODES)
        for mode in spec.get("volumeLifecycleModes") or ()
        if mode not in _MODES
    ]
    return errors


def validate_csi_node(obj: Object) -> list[FieldError]:
    """A CSINode: each driver once, with the name it gives the node."""
    errors, seen = [], set()
    for index, driver in enumerate(objects(spec_of(obj).get("drivers"))):
        path, name = f"spec.drivers[{index}]", driver.get("name") or ""
        if not is_dns_subdomain(str(name).lower()):
            errors.append(err.invalid_value(f"{path}.name", name, "must be a DNS subdomain"))
        if name in seen:
            errors.append(err.duplicate(f"{path}.name", name))
        seen.add(name)
        if not driver.get("nodeID"):
            errors.append(err.required(f"{path}.nodeID"))
    return errors


def validate_attachment(obj: Object) -> list[FieldError]:
    """A VolumeAttachment."""
    spec = spec_of(obj)
    errors = [err.required(f"spec.{key}") for key in ("attacher", "nodeName") if not spec.get(key)]
    source = spec.get("source")
    named = [key for key in ("persistentVolumeName", "inlineVolumeSpec") if (source or {}).get(key)]
    if len(named) != 1:
        detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        errors.append(
            err.required("spec.source", detail)
            if not named
            else err.invalid_value("spec.source", source, detail)
        )
    return errors


def spec_is_fixed(obj: Object, old: Object) -> list[FieldError]:
    """The spec may not change."""
    return [immutable("spec", obj.get("spec"))] if obj.get("spec") != old.get("spec") else []
