"""Writing a schema as OpenAPI."""

from typing import Any

from edgehive.kube.schema import Schema

_PLAIN = (
    ("title", "title"),
    ("pattern", "pattern"),
    ("minimum", "minimum"),
    ("maximum", "maximum"),
    ("exclusiveMinimum", "exclusive_minimum"),
    ("exclusiveMaximum", "exclusive_maximum"),
    ("multipleOf", "multiple_of"),
    ("minLength", "min_length"),
    ("maxLength", "max_length"),
    ("minItems", "min_items"),
    ("maxItems", "max_items"),
    ("uniqueItems", "unique_items"),
    ("minProperties", "min_properties"),
    ("maxProperties", "max_properties"),
    ("nullable", "nullable"),
    ("x-kubernetes-preserve-unknown-fields", "preserve_unknown"),
    ("x-kubernetes-int-or-string", "int_or_string"),
    ("x-kubernetes-embedded-resource", "embedded_resource"),
)
_MERGING = (
    ("x-kubernetes-list-type", "list_type"),
    ("x-kubernetes-map-type", "map_type"),
    ("x-kubernetes-patch-strategy", "patch_strategy"),
    ("x-kubernetes-patch-merge-key", "patch_merge_key"),
)


def emit(schema: Schema, refs: str, *, wrap: bool = False) -> dict[str, Any]:
    """Return OpenAPI of `schema`.

    With `refs` (``#/definitions/``), a reference is written as ``$ref``; with `wrap` also, the way version 3
    needs it when the reference has siblings (``allOf``). Without `refs` everything is inlined, which is only
    possible for trees without recursion.
    """
    if schema.ref and refs:
        out: dict[str, Any] = {"$ref": refs + schema.ref}
        extras = _head(schema)
        if wrap and extras:
            out = {"allOf": [out]}
        return out | extras
    shape = schema.resolve()
    out = _head(schema) if schema.description or shape is schema else _head(shape)
    if shape is not schema and not shape.decoded:
        out |= _head(shape)
    _emit_shape(shape, refs, wrap, out)
    return out


def _head(schema: Schema) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if schema.description:
        out["description"] = schema.description
    if schema.has_default:
        out["default"] = schema.default
    out |= {key: value for key, ours in _MERGING if (value := getattr(schema, ours))}
    if schema.map_keys:
        out["x-kubernetes-list-map-keys"] = list(schema.map_keys)
    return out


def _emit_shape(shape: Schema, refs: str, wrap: bool, out: dict[str, Any]) -> None:
    if shape.type != "any":
        out["type"] = shape.type
    if shape.format and shape.format != "quantity":
        out["format"] = shape.format
    if shape.int_or_string and shape.decoded:
        out |= {"type": "string", "format": "int-or-string"}
    if not shape.decoded:
        out |= _constraints(shape)
    elif shape.preserve_unknown:
        out["x-kubernetes-preserve-unknown-fields"] = True
    if shape.properties:
        out["properties"] = {key: emit(sub, refs, wrap=wrap) for key, sub in shape.properties.items()}
    if shape.required:
        out["required"] = list(shape.required)
    for key, sub in (("items", shape.items), ("additionalProperties", shape.additional), ("not", shape.not_)):
        if sub is not None:
            out[key] = emit(sub, refs, wrap=wrap)
    for key, subs in (("allOf", shape.all_of), ("anyOf", shape.any_of), ("oneOf", shape.one_of)):
        if subs:
            out[key] = [emit(sub, refs, wrap=wrap) for sub in subs]


def _constraints(shape: Schema) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, ours in _PLAIN:
        value = getattr(shape, ours)
        if value is not None and value is not False and value != "":
            out[key] = value
    if shape.enum is not None:
        out["enum"] = list(shape.enum)
    if shape.rules:
        out["x-kubernetes-validations"] = [dict(rule) for rule in shape.rules]
    return out
