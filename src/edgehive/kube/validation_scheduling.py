"""What a pod says about where it runs: node selectors, affinity, tolerations, spreading."""

from collections.abc import Iterator, Mapping

from edgehive.kube import fielderror as err
from edgehive.kube.fielderror import FieldError
from edgehive.kube.names import label_value_problem, qualified_name_problem
from edgehive.kube.validation_parts import Object, choice, objects

_OPERATORS = ("DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn")
_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")


def validate_scheduling(spec: Object, path: str, errors: list[FieldError]) -> None:
    """Append what is wrong with where a pod wants to run."""
    for key, value in (spec.get("nodeSelector") or {}).items():
        problems = (qualified_name_problem(key), label_value_problem(str(value)))
        errors.extend(err.invalid_value(f"{path}.nodeSelector", f"{key}={value}", p) for p in problems if p)
    for index, toleration in enumerate(objects(spec.get("tolerations"))):
        _validate_toleration(toleration, f"{path}.tolerations[{index}]", errors)
    for where, term in _node_terms(spec, path):
        for index, expression in enumerate(objects(term.get("matchExpressions"))):
            _validate_expression(expression, f"{where}.matchExpressions[{index}]", errors)
    for index, spread in enumerate(objects(spec.get("topologySpreadConstraints"))):
        where = f"{path}.topologySpreadConstraints[{index}]"
        if not isinstance(spread.get("maxSkew"), int) or spread["maxSkew"] <= 0:
            errors.append(
                err.invalid_value(f"{where}.maxSkew", spread.get("maxSkew"), "must be greater than zero")
            )
        if not spread.get("topologyKey"):
            errors.append(err.required(f"{where}.topologyKey", "can not be empty"))
        choice(spread, "whenUnsatisfiable", where, ("DoNotSchedule", "ScheduleAnyway"), errors)


def _validate_toleration(toleration: Object, path: str, errors: list[FieldError]) -> None:
    operator = toleration.get("operator") or "Equal"
    problems = []
    if operator not in ("Equal", "Exists"):
        errors.append(err.not_supported(f"{path}.operator", operator, ("Equal", "Exists")))
    if operator == "Exists" and toleration.get("value"):
        problems.append("value must be empty when `operator` is 'Exists'")
    if not toleration.get("key") and operator != "Exists":
        problems.append(
            'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        )
    errors.extend(err.invalid_value(f"{path}.operator", operator, problem) for problem in problems)
    if toleration.get("effect"):
        choice(toleration, "effect", path, _EFFECTS, errors)
    if toleration.get("tolerationSeconds") is not None and toleration.get("effect") != "NoExecute":
        detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        errors.append(err.invalid_value(f"{path}.effect", toleration.get("effect") or "", detail))


def _node_terms(spec: Object, path: str) -> Iterator[tuple[str, Object]]:
    affinity = spec.get("affinity")
    node = affinity.get("nodeAffinity") if isinstance(affinity, Mapping) else None
    if not isinstance(node, Mapping):
        return
    base = f"{path}.affinity.nodeAffinity"
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    if isinstance(required, Mapping):
        for index, term in enumerate(objects(required.get("nodeSelectorTerms"))):
            yield f"{base}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[{index}]", term
    for index, preferred in enumerate(objects(node.get("preferredDuringSchedulingIgnoredDuringExecution"))):
        if isinstance(preferred.get("preference"), Mapping):
            yield (
                f"{base}.preferredDuringSchedulingIgnoredDuringExecution[{index}].preference",
                preferred["preference"],
            )


def _validate_expression(expression: Object, path: str, errors: list[FieldError]) -> None:
    operator = expression.get("operator")
    values = expression.get("values") or []
    if operator not in _OPERATORS:
        errors.append(err.not_supported(f"{path}.operator", operator, _OPERATORS))
    elif operator in ("In", "NotIn") and not values:
        errors.append(err.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist") and values:
        errors.append(
            err.forbidden(
                f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            )
        )
    elif operator in ("Gt", "Lt") and len(values) != 1:
        errors.append(
            err.required(f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
        )
    if problem := qualified_name_problem(str(expression.get("key") or "")):
        errors.append(err.invalid_value(f"{path}.key", expression.get("key"), problem))
