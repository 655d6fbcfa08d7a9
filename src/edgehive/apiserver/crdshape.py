"""The JSON types inside a CRD's ``openAPIV3Schema``, checked before anything reads it.

Kubernetes decodes a schema into a Go struct and so refuses ``properties: null`` or ``minimum: "1"`` at its door; here
this is that door. What the schema means is checked by `kube.crd`.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from edgehive.kube.fielderror import FieldError, wrong_type

_NUMBER = (int, float)
_TYPES: Mapping[str, type | tuple[type, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("type", "description", "title", "format", "pattern", "$ref", "$schema", "id"), str),
        **dict.fromkeys(("minimum", "maximum", "multipleOf"), _NUMBER),
        **dict.fromkeys(
            ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), int
        ),
        **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum", "uniqueItems", "nullable"), bool),
        **dict.fromkeys(
            (
                "x-kubernetes-preserve-unknown-fields",
                "x-kubernetes-int-or-string",
                "x-kubernetes-embedded-resource",
            ),
            bool,
        ),
        **dict.fromkeys(("x-kubernetes-list-type", "x-kubernetes-map-type"), str),
        **dict.fromkeys(("enum", "required", "x-kubernetes-list-map-keys", "x-kubernetes-validations"), list),
    }
)
_MAPS = ("properties", "patternProperties", "definitions", "dependencies")
_LISTS = ("allOf", "anyOf", "oneOf")
_MAX_DEPTH = 60


def schema_shape(schema: Any, path: str, depth: int = 0) -> Iterator[FieldError]:
    """Yield what has a wrong JSON type in a schema."""
    if not isinstance(schema, dict):
        yield wrong_type(path, schema, f"{path} must be an object")
        return
    if depth > _MAX_DEPTH:
        yield FieldError(path, "FieldValueInvalid", "Invalid value: nested too deep")
        return
    for key, value in schema.items():
        yield from _keyword(key, value, f"{path}.{key}", depth)


def _keyword(key: str, value: Any, path: str, depth: int) -> Iterator[FieldError]:
    expected = _TYPES.get(key)
    if expected is not None:
        fits = isinstance(value, expected) and (expected is bool or not isinstance(value, bool))
        if value is not None and not fits:
            yield wrong_type(path, value, f"{path} has the wrong type")
        if isinstance(value, list):
            yield from _items(key, value, path)
    elif key in _MAPS and value is not None:
        if not isinstance(value, dict):
            yield wrong_type(path, value, f"{path} must be an object")
            return
        for name, inner in value.items():
            yield from schema_shape(inner, f"{path}[{name}]", depth + 1)
    elif key in _LISTS and value is not None:
        if not isinstance(value, list):
            yield wrong_type(path, value, f"{path} must be an array")
            return
        for index, inner in enumerate(value):
            yield from schema_shape(inner, f"{path}[{index}]", depth + 1)
    elif key in {"items", "not", "additionalProperties"}:
        if value is None or (key == "additionalProperties" and isinstance(value, bool)):
            return
        yield from schema_shape(value, path, depth + 1)


def _items(key: str, value: list[Any], path: str) -> Iterator[FieldError]:
    if key == "enum":
        return
    wanted: type = dict if key == "x-kubernetes-validations" else str
    for index, inner in enumerate(value):
        if not isinstance(inner, wanted):
            yield wrong_type(f"{path}[{index}]", inner, f"{path}[{index}] has the wrong type")
