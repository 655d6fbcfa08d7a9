"""Defaulting and pruning of objects along a schema, in place."""

import copy
from typing import Any

from edgehive.kube.schema import Schema

_ENVELOPE = ("apiVersion", "kind", "metadata")


def fill(schema: Schema, value: Any) -> None:
    """Set absent fields that have a default; drop nulls that stand for an absent field."""
    shape = schema.resolve()
    if isinstance(value, dict):
        _fill_object(shape, value)
    elif isinstance(value, list) and shape.items is not None:
        if shape.decoded and None in value:
            value[:] = [_zero(shape.items) if item is None else item for item in value]
        for item in value:
            fill(shape.items, item)


def _zero(schema: Schema) -> Any:
    """What null among the values of a list or map becomes in a Go struct."""
    shape = schema.resolve()
    if shape.type == "object":
        return {}
    if shape.format == "quantity":
        return "0"
    return {"string": "", "integer": 0, "number": 0, "boolean": False, "array": []}.get(shape.type)


def _fill_object(shape: Schema, value: dict[str, Any]) -> None:
    for key, sub in shape.properties.items():
        if value.get(key) is None:
            _fill_absent(shape, value, key, sub)
    if shape.decoded and shape.additional is not None:
        for key in [key for key, item in value.items() if item is None]:
            value[key] = _zero(shape.additional)
    for key, item in value.items():
        known = shape.properties.get(key) or shape.additional
        if known is not None and item.__class__ in (dict, list):
            fill(known, item)
    if shape.hook is not None:
        shape.hook(value)


def _fill_absent(shape: Schema, value: dict[str, Any], key: str, sub: Schema) -> None:
    # KubeEdge's own cloudcore counts on it: it creates a DeviceStatus with null extensions.
    if key in value and (shape.decoded or not (sub.nullable or sub.resolve().nullable)):
        if sub.resolve().type == ANY_VALUE and shape.decoded and sub.preserve_unknown:
            return
        del value[key]
    if sub.has_default and key not in value:
        value[key] = copy.deepcopy(sub.default)


ANY_VALUE = "any"


def prune(schema: Schema, value: Any, path: str, dropped: list[str]) -> None:
    """Remove what the schema does not know; record its paths in `dropped`."""
    shape = schema.resolve()
    if isinstance(value, list):
        if shape.items is not None:
            for index, item in enumerate(value):
                if item.__class__ in (dict, list):
                    prune(shape.items, item, f"{path}[{index}]", dropped)
    elif isinstance(value, dict):
        _prune_object(shape, value, path, dropped)


def _prune_object(shape: Schema, value: dict[str, Any], path: str, dropped: list[str]) -> None:
    keep_unknown = shape.preserve_unknown or (shape.type == ANY_VALUE and not shape.properties)
    embedded = shape.embedded_resource or not path
    for key in list(value):
        sub = shape.properties.get(key) or shape.additional
        where = f"{path}.{key}" if path else key
        if sub is not None:
            if value[key].__class__ in (dict, list):
                prune(sub, value[key], where, dropped)
        elif not keep_unknown and not (embedded and key in _ENVELOPE):
            del value[key]
            dropped.append(where)
