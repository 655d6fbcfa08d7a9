"""Whether a CustomResourceDefinition is sound, its structural schemas included."""

import re
from collections.abc import Mapping
from typing import Any

from edgehive.kube import fielderror as err
from edgehive.kube.builtin import TYPES
from edgehive.kube.fielderror import FieldError
from edgehive.kube.jsonpath import BadPath, check_path
from edgehive.kube.names import name_problem
from edgehive.kube.patterns import PatternError, check_pattern
from edgehive.kube.schema import Schema

Object = Mapping[str, Any]

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_LIST_TYPES = ("atomic", "map", "set")
_APPROVED = "api-approved.kubernetes.io"
_DEEPEST = 100


def validate_crd(crd: Object) -> list[FieldError]:
    """Return what is wrong with a CRD (defaults filled in)."""
    spec = crd.get("spec")
    if not isinstance(spec, Mapping):
        return [err.required("spec")]
    group = str(spec.get("group") or "")
    errors: list[FieldError] = []
    if problem := name_problem("subdomain", group):
        errors.append(
            err.invalid_value("spec.group", group, problem) if group else err.required("spec.group")
        )
    elif "." not in group:
        errors.append(err.invalid_value("spec.group", group, "should be a domain with at least one dot"))
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        if spec.get("scope"):
            errors.append(err.not_supported("spec.scope", spec["scope"], ("Cluster", "Namespaced")))
        else:
            errors.append(err.required("spec.scope"))
    names = spec.get("names")
    errors += _validate_names(names if isinstance(names, Mapping) else {})
    meta = crd.get("metadata") or {}
    wanted = f"{(names or {}).get('plural')}.{group}"
    if meta.get("name") != wanted:
        errors.append(
            err.invalid_value(
                "metadata.name",
                meta.get("name"),
                'must be spec.names.plural+"."+spec.group'.replace('"."', '"."'),
            )
        )
    protected = re.search(r"(^|\.)(k8s|kubernetes)\.io$", group)
    if protected and _APPROVED not in (meta.get("annotations") or {}):
        detail = "protected groups must have approval annotation"
        errors.append(err.required(f"metadata.annotations[{_APPROVED}]", detail))
    if spec.get("preserveUnknownFields") is True:
        detail = "must be false in order to use defaults in the schema; set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        errors.append(err.invalid_value("spec.preserveUnknownFields", True, detail))
    errors += _validate_conversion(spec.get("conversion"))
    return errors + _validate_versions(spec.get("versions"))


def _validate_conversion(conversion: Any) -> list[FieldError]:
    strategy = conversion.get("strategy") if isinstance(conversion, Mapping) else None
    if strategy in (None, "None"):
        return []
    if strategy == "Webhook":
        return [
            err.forbidden(
                "spec.conversion.strategy", "this server has no conversion webhooks; only None is served"
            )
        ]
    return [err.not_supported("spec.conversion.strategy", strategy, ("None", "Webhook"))]


def _validate_names(names: Object) -> list[FieldError]:
    errors = []
    for key in ("plural", "singular", "kind", "listKind"):
        value = names.get(key)
        path = f"spec.names.{key}"
        if not value:
            if key != "singular":
                errors.append(err.required(path))
        elif problem := name_problem("label1035", str(value).lower() if "ind" in key else str(value)):
            errors.append(err.invalid_value(path, value, problem))
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        errors.append(
            err.invalid_value(
                "spec.names.listKind", names["listKind"], "kind and listKind may not be the same"
            )
        )
    for key in ("shortNames", "categories"):
        for index, value in enumerate(names.get(key) or ()):
            if problem := name_problem("label1035", str(value)):
                errors.append(err.invalid_value(f"spec.names.{key}[{index}]", value, problem))
    return errors


def _validate_versions(versions: Any) -> list[FieldError]:
    if not isinstance(versions, list) or not versions:
        return [err.required("spec.versions", "must have at least one version")]
    errors: list[FieldError] = []
    seen: set[Any] = set()
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        if not isinstance(version, Mapping):
            continue
        name = version.get("name")
        if problem := name_problem("label1035", str(name or "")):
            errors.append(err.invalid_value(f"{path}.name", name or "", problem))
        if name in seen:
            errors.append(err.duplicate(f"{path}.name", name))
        seen.add(name)
        root = (version.get("schema") or {}).get("openAPIV3Schema")
        where = f"{path}.schema.openAPIV3Schema"
        if not isinstance(root, Mapping):
            errors.append(err.required(where, "schemas are required"))
        else:
            errors += validate_structural(root, where)
        errors += _validate_columns(
            version.get("additionalPrinterColumns"), f"{path}.additionalPrinterColumns"
        )
        errors += _validate_subresources(version.get("subresources"), f"{path}.subresources")
    stored = sum(isinstance(v, Mapping) and v.get("storage") is True for v in versions)
    if stored != 1:
        errors.append(
            err.invalid_value(
                "spec.versions", stored, "must have exactly one version marked as storage version"
            )
        )
    return errors


def _validate_columns(columns: Any, path: str) -> list[FieldError]:
    errors = []
    for index, column in enumerate(columns if isinstance(columns, list) else ()):
        where = f"{path}[{index}]"
        if not isinstance(column, Mapping):
            continue
        if not column.get("name"):
            errors.append(err.required(f"{where}.name"))
        if column.get("type") not in _COLUMN_TYPES:
            errors.append(
                err.invalid_value(
                    f"{where}.type", column.get("type") or "", "must be one of " + ",".join(_COLUMN_TYPES)
                )
            )
        errors += _validate_path(column.get("jsonPath"), f"{where}.jsonPath")
    return errors


def _validate_path(path: Any, where: str) -> list[FieldError]:
    if not path:
        return [err.required(where)]
    try:
        check_path(str(path))
    except BadPath as error:
        return [err.invalid_value(where, path, str(error))]
    return []


def _validate_subresources(subresources: Any, path: str) -> list[FieldError]:
    scale = subresources.get("scale") if isinstance(subresources, Mapping) else None
    if not isinstance(scale, Mapping):
        return []
    errors = []
    for key, under in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        value = scale.get(key)
        if not value:
            errors.append(err.required(f"{path}.scale.{key}"))
        elif not str(value).startswith(under):
            errors.append(
                err.invalid_value(
                    f"{path}.scale.{key}", value, f"should be a json path under {under.strip('.')}"
                )
            )
    return errors


def validate_structural(root: Object, path: str) -> list[FieldError]:
    """Return why `root` is not a structural schema; defaults must fit their own schema."""
    errors: list[FieldError] = []
    if root.get("type") != "object":
        errors.append(err.invalid_value(f"{path}.type", root.get("type") or "", "must be object at the root"))
    _structural(root, path, 0, errors)
    if not errors:
        _check_defaults(Schema.from_openapi(root), path, errors)
    return errors


def _structural(node: Object, path: str, depth: int, errors: list[FieldError]) -> None:
    if depth > _DEEPEST:
        errors.append(err.forbidden(path, f"schemas may be nested {_DEEPEST} deep at most"))
        return
    if not _open_parts_are_schemas(node, path, errors):
        return
    _check_type(node, path, depth, errors)
    _check_keywords(node, path, errors)
    _check_lists(node, path, errors)
    _check_pattern(node, path, errors)
    for key, sub in (node.get("properties") or {}).items():
        if isinstance(sub, Mapping):
            _structural(sub, f"{path}.properties[{key}]", depth + 1, errors)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), Mapping):
            _structural(node[key], f"{path}.{key}", depth + 1, errors)
    for key in ("allOf", "anyOf", "oneOf", "not"):
        subs = node.get(key)
        for index, sub in enumerate(
            subs if isinstance(subs, list) else [subs] if isinstance(subs, Mapping) else []
        ):
            _value_validation(sub, f"{path}.{key}[{index}]" if key != "not" else f"{path}.not", node, errors)


def _open_parts_are_schemas(node: Object, path: str, errors: list[FieldError]) -> bool:
    """Check the types in the parts that the API leaves open: they may also be a list, or a boolean."""
    before = len(errors)
    for key in ("items", "additionalProperties"):
        part = node.get(key)
        if isinstance(part, Mapping):
            errors += TYPES.get("JSONSchemaProps").validate(part, f"{path}.{key}")
        elif part is not None and not (key == "additionalProperties" and isinstance(part, bool)):
            errors.append(err.invalid_value(f"{path}.{key}", part, "must be a schema"))
    return len(errors) == before


def _check_keywords(node: Object, path: str, errors: list[FieldError]) -> None:
    errors.extend(
        err.forbidden(f"{path}.{key}", f"{key} is not supported")
        for key in ("$ref", "definitions", "dependencies", "patternProperties")
        if node.get(key)
    )
    if node.get("uniqueItems"):
        errors.append(
            err.forbidden(
                f"{path}.uniqueItems",
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            )
        )
    if node.get("properties") and node.get("additionalProperties"):
        errors.append(
            err.forbidden(
                f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive"
            )
        )


def _check_type(node: Object, path: str, depth: int, errors: list[FieldError]) -> None:
    kind = node.get("type")
    free = node.get("x-kubernetes-int-or-string") or node.get("x-kubernetes-preserve-unknown-fields")
    if not kind and not (free and depth):
        errors.append(err.required(f"{path}.type", "must not be empty for specified object fields"))
    elif kind and kind not in _TYPES:
        errors.append(err.not_supported(f"{path}.type", kind, _TYPES))
    if kind and node.get("x-kubernetes-int-or-string"):
        errors.append(err.forbidden(f"{path}.type", "must be empty if x-kubernetes-int-or-string is true"))
    if kind == "array" and not isinstance(node.get("items"), Mapping):
        errors.append(err.required(f"{path}.items", "must be specified"))


def _check_pattern(node: Object, path: str, errors: list[FieldError]) -> None:
    pattern = node.get("pattern")
    if isinstance(pattern, str) and pattern:
        try:
            check_pattern(pattern)
        except PatternError as error:
            errors.append(
                err.invalid_value(
                    f"{path}.pattern", pattern, f"must be a valid regular expression, but isn't: {error}"
                )
            )


def _check_lists(node: Object, path: str, errors: list[FieldError]) -> None:
    list_type = node.get("x-kubernetes-list-type")
    if list_type is None:
        return
    if list_type not in _LIST_TYPES:
        errors.append(err.not_supported(f"{path}.x-kubernetes-list-type", list_type, _LIST_TYPES))
    if node.get("type") != "array":
        errors.append(
            err.invalid_value(
                f"{path}.type", node.get("type") or "", "must be array if x-kubernetes-list-type is specified"
            )
        )
    keys = node.get("x-kubernetes-list-map-keys") or []
    if list_type == "map" and not keys:
        errors.append(
            err.required(
                f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map"
            )
        )
    if list_type != "map" and keys:
        errors.append(
            err.forbidden(
                f"{path}.x-kubernetes-list-map-keys",
                "must not be specified unless x-kubernetes-list-type is map",
            )
        )
    items = node.get("items") or {}
    required = items.get("required") or []
    for key in keys if list_type == "map" else ():
        sub = (items.get("properties") or {}).get(key)
        if not isinstance(sub, Mapping):
            errors.append(
                err.invalid_value(
                    f"{path}.x-kubernetes-list-map-keys", key, "entries must all be names of item properties"
                )
            )
        elif key not in required and "default" not in sub:
            errors.append(
                err.required(
                    f"{path}.items.properties[{key}].default",
                    "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                )
            )


def _value_validation(sub: Any, path: str, parent: Object, errors: list[FieldError]) -> None:
    """Below a combination only constraints may stand, and only on fields the structure knows."""
    if not isinstance(sub, Mapping):
        return
    loose = parent.get("x-kubernetes-int-or-string")
    errors.extend(
        err.forbidden(f"{path}.{key}", "must be empty to be structural")
        for key in ("type", "default", "title", "description", "nullable", "additionalProperties")
        if sub.get(key) is not None and not (key == "type" and loose)
    )
    for key, inner in (sub.get("properties") or {}).items():
        known = (parent.get("properties") or {}).get(key)
        free = parent.get("x-kubernetes-preserve-unknown-fields") or parent.get("additionalProperties")
        if not isinstance(known, Mapping) and not free:
            errors.append(
                err.required(
                    f"{path}.properties[{key}]",
                    "because it is defined in a combination, it must be in the structure too",
                )
            )
        _value_validation(
            inner, f"{path}.properties[{key}]", known if isinstance(known, Mapping) else {}, errors
        )
    _check_pattern(sub, path, errors)


def _check_defaults(schema: Schema, path: str, errors: list[FieldError]) -> None:
    if schema.has_default:
        errors += schema.validate(schema.default, f"{path}.default")
    for key, sub in schema.properties.items():
        _check_defaults(sub, f"{path}.properties[{key}]", errors)
    if schema.items is not None:
        _check_defaults(schema.items, f"{path}.items", errors)
    if schema.additional is not None:
        _check_defaults(schema.additional, f"{path}.additionalProperties", errors)


def crd_changes(crd: Object, old: Object) -> list[FieldError]:
    """Return what may not change in a CRD."""
    new_spec, old_spec = crd.get("spec") or {}, old.get("spec") or {}
    errors = [
        err.invalid_value(f"spec.{key}", new_spec.get(key), "field is immutable")
        for key in ("group", "scope")
        if new_spec.get(key) != old_spec.get(key)
    ]
    for key in ("plural", "kind"):
        after = (new_spec.get("names") or {}).get(key)
        if after != (old_spec.get("names") or {}).get(key):
            errors.append(err.invalid_value(f"spec.names.{key}", after, "field is immutable"))
    served = {v.get("name") for v in new_spec.get("versions") or () if isinstance(v, Mapping)}
    for index, name in enumerate((old.get("status") or {}).get("storedVersions") or ()):
        if name not in served:
            detail = f"missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until it is removed from status.storedVersions"
            errors.append(err.invalid_value(f"status.storedVersions[{index}]", name, detail))
    return errors
