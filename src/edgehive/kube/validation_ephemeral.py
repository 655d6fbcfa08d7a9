"""Ephemeral containers: the one part of a pod that only its subresource ``ephemeralcontainers`` writes."""

from collections.abc import Mapping

from edgehive.kube import fielderror as err
from edgehive.kube.fielderror import FieldError
from edgehive.kube.validation_parts import Object, objects

PART = "ephemeralcontainers"
_FIELD = "ephemeralContainers"
_MIRROR = "kubernetes.io/config.mirror"
_NEVER = (
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "startupProbe",
)
"""They are there for a while, beside what the pod was given: nothing waits for them, and they have no share of their own."""


def ephemeral_changes(pod: Object, old: Object) -> list[FieldError]:
    """Return what is wrong with a Pod's new ephemeral containers; those that are there stay as they are."""
    spec, before = pod.get("spec") or {}, old.get("spec") or {}
    given = objects(spec.get(_FIELD))
    names = {one.get("name") for key in ("containers", "initContainers") for one in objects(spec.get(key))}
    errors: list[FieldError] = []
    for index, one in enumerate(given):
        where = f"spec.{_FIELD}[{index}]"
        errors += [
            err.forbidden(f"{where}.{key}", "cannot be set for an Ephemeral Container")
            for key in (*_NEVER, "restartPolicy")
            if one.get(key)
        ]
        errors += [
            err.forbidden(f"{where}.volumeMounts[{number}].{key}", "cannot be set for an Ephemeral Container")
            for number, mount in enumerate(objects(one.get("volumeMounts")))
            for key in ("subPath", "subPathExpr")
            if mount.get(key)
        ]
        target = one.get("targetContainerName")
        if target and target not in names:
            errors.append(err.not_found(f"{where}.targetContainerName", target))
    found = {one.get("name"): one for one in given}
    for one in objects(before.get(_FIELD)):
        name = one.get("name")
        if name not in found:
            errors.append(
                err.forbidden(f"spec.{_FIELD}", f'existing ephemeral container "{name}" may not be removed')
            )
        elif found[name] != one:
            errors.append(
                err.forbidden(f"spec.{_FIELD}", f'existing ephemeral container "{name}" may not be changed')
            )
    annotations = (pod.get("metadata") or {}).get("annotations")
    if isinstance(annotations, Mapping) and _MIRROR in annotations and given:
        errors.append(err.forbidden("", "static pods do not support ephemeral containers"))
    return errors
