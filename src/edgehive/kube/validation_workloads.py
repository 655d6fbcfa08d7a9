"""Deployments, replica sets, daemon sets: templates, selectors, roll-out strategies."""

import re
from collections.abc import Mapping
from typing import Any

from edgehive.kube import fielderror as err
from edgehive.kube.fielderror import FieldError
from edgehive.kube.selectors import LabelSelector
from edgehive.kube.status import ApiStatus
from edgehive.kube.validation_parts import Object, immutable, spec_of
from edgehive.kube.validation_pod import validate_pod_spec


def validate_workload(obj: Object) -> list[FieldError]:
    """Return what is wrong with what deployments, replica sets and daemon sets share."""
    spec = spec_of(obj)
    errors: list[FieldError] = []
    for key in ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        value = spec.get(key)
        if isinstance(value, int) and value < 0:
            errors.append(err.invalid_value(f"spec.{key}", value, "must be greater than or equal to 0"))
    template = spec.get("template")
    template = template if isinstance(template, Mapping) else {}
    selector = spec.get("selector")
    if not isinstance(selector, Mapping):
        errors.append(err.required("spec.selector"))
    elif not selector.get("matchLabels") and not selector.get("matchExpressions"):
        errors.append(
            err.invalid_value("spec.selector", selector, "empty selector is invalid for deployment")
        )
    else:
        errors += _selector_matches(selector, template)
    pod_spec = template.get("spec")
    if not isinstance(pod_spec, Mapping):
        errors.append(err.required("spec.template.spec"))
        return errors
    errors += validate_pod_spec(pod_spec, "spec.template.spec")
    if pod_spec.get("restartPolicy") not in (None, "Always"):
        errors.append(
            err.not_supported("spec.template.spec.restartPolicy", pod_spec["restartPolicy"], ("Always",))
        )
    if pod_spec.get("activeDeadlineSeconds") is not None:
        errors.append(
            err.forbidden(
                "spec.template.spec.activeDeadlineSeconds",
                "activeDeadlineSeconds in ReplicaSet is not Supported",
            )
        )
    return errors


def _selector_matches(selector: Object, template: Object) -> list[FieldError]:
    labels = (template.get("metadata") or {}).get("labels") or {}
    try:
        parsed = LabelSelector.from_object(selector)
    except ApiStatus as error:
        return [err.invalid_value("spec.selector", selector, error.message)]
    if parsed.matches(labels):
        return []
    return [
        err.invalid_value(
            "spec.template.metadata.labels", labels, "`selector` does not match template `labels`"
        )
    ]


_PERCENT = re.compile(r"[0-9]+%")


def _amount(value: Any, path: str, errors: list[FieldError]) -> float | None:
    """Check an int-or-percent; return its number (percent as a fraction below one)."""
    if isinstance(value, str):
        if _PERCENT.fullmatch(value) is None:
            detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
            errors.append(err.invalid_value(path, value, detail))
            return None
        return int(value[:-1]) / 100
    if isinstance(value, int) and value < 0:
        errors.append(err.invalid_value(path, value, "must be greater than or equal to 0"))
        return None
    return value if isinstance(value, int) else None


def validate_deployment(obj: Object) -> list[FieldError]:
    """Return what is wrong with a Deployment."""
    errors = validate_workload(obj)
    strategy = spec_of(obj).get("strategy")
    strategy = strategy if isinstance(strategy, Mapping) else {}
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind not in ("Recreate", "RollingUpdate"):
        errors.append(err.not_supported("spec.strategy.type", kind, ("Recreate", "RollingUpdate")))
    elif kind == "Recreate" and rolling is not None:
        errors.append(
            err.forbidden(
                "spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'"
            )
        )
    elif isinstance(rolling, Mapping):
        path = "spec.strategy.rollingUpdate"
        surge = _amount(rolling.get("maxSurge"), f"{path}.maxSurge", errors)
        unavailable = _amount(rolling.get("maxUnavailable"), f"{path}.maxUnavailable", errors)
        if surge == 0 and unavailable == 0:
            errors.append(
                err.invalid_value(
                    f"{path}.maxUnavailable", rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0"
                )
            )
    spec = spec_of(obj)
    deadline, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds") or 0
    if isinstance(deadline, int) and deadline <= ready:
        errors.append(
            err.invalid_value(
                "spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"
            )
        )
    return errors


def validate_daemonset(obj: Object) -> list[FieldError]:
    """Return what is wrong with a DaemonSet."""
    errors = validate_workload(obj)
    strategy = spec_of(obj).get("updateStrategy")
    strategy = strategy if isinstance(strategy, Mapping) else {}
    kind = strategy.get("type")
    if kind not in ("OnDelete", "RollingUpdate"):
        errors.append(err.not_supported("spec.updateStrategy.type", kind, ("OnDelete", "RollingUpdate")))
    rolling = strategy.get("rollingUpdate")
    if kind == "RollingUpdate" and isinstance(rolling, Mapping):
        path = "spec.updateStrategy.rollingUpdate"
        surge = _amount(rolling.get("maxSurge"), f"{path}.maxSurge", errors)
        unavailable = _amount(rolling.get("maxUnavailable"), f"{path}.maxUnavailable", errors)
        if not surge and not unavailable:
            errors.append(
                err.invalid_value(
                    f"{path}.maxUnavailable", rolling.get("maxUnavailable"), "cannot be 0 when maxSurge is 0"
                )
            )
        if surge and unavailable:
            errors.append(
                err.invalid_value(
                    f"{path}.maxSurge",
                    rolling.get("maxSurge"),
                    "may not be set when maxUnavailable is non-zero",
                )
            )
    return errors


def selector_changes(obj: Object, old: Object) -> list[FieldError]:
    """Return an error when the selector changed."""
    after = spec_of(obj).get("selector")
    return [] if after == spec_of(old).get("selector") else [immutable("spec.selector", after)]
