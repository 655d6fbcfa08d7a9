"""A schema tree: what one resource may contain, and how its lists and maps merge.

One tree serves the built-in kinds (made lazily from `kube.types`) and CustomResourceDefinitions (made from
OpenAPI). The two differ in how they treat input, as in Kubernetes: a built-in kind is decoded into a Go struct
(`decoded`: null means absent, required is checked by `kube.validation`), a custom one is checked as OpenAPI.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgehive.kube.fielderror import FieldError

ANYTHING = "any"
"""`Schema.type` of a value without a fixed type."""

_KEYWORDS = {
    "type": "type",
    "description": "description",
    "title": "title",
    "format": "format",
    "enum": "enum",
    "pattern": "pattern",
    "minimum": "minimum",
    "maximum": "maximum",
    "exclusiveMinimum": "exclusive_minimum",
    "exclusiveMaximum": "exclusive_maximum",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_items",
    "maxItems": "max_items",
    "uniqueItems": "unique_items",
    "minProperties": "min_properties",
    "maxProperties": "max_properties",
    "nullable": "nullable",
    "x-kubernetes-preserve-unknown-fields": "preserve_unknown",
    "x-kubernetes-int-or-string": "int_or_string",
    "x-kubernetes-embedded-resource": "embedded_resource",
    "x-kubernetes-list-type": "list_type",
    "x-kubernetes-map-type": "map_type",
    "x-kubernetes-patch-strategy": "patch_strategy",
    "x-kubernetes-patch-merge-key": "patch_merge_key",
}

Hook = Callable[[dict[str, Any]], None]


@dataclass(slots=True, eq=False, kw_only=True)
class Schema:
    """One node of the tree. Use `resolve()` before reading the shape of a node that may be a reference."""

    type: str = ANYTHING
    description: str = ""
    title: str = ""
    format: str = ""
    properties: Mapping[str, "Schema"] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    items: "Schema | None" = None
    additional: "Schema | None" = None
    """Schema of the values of a map."""
    enum: tuple[Any, ...] | None = None
    pattern: str = ""
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False
    multiple_of: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    min_items: int | None = None
    max_items: int | None = None
    unique_items: bool = False
    min_properties: int | None = None
    max_properties: int | None = None
    nullable: bool = False
    default: Any = None
    has_default: bool = False
    preserve_unknown: bool = False
    int_or_string: bool = False
    embedded_resource: bool = False
    list_type: str = ""
    """``atomic`` (also when empty), ``set`` or ``map``."""
    map_keys: tuple[str, ...] = ()
    map_type: str = ""
    """``granular`` (also when empty) or ``atomic``."""
    patch_strategy: str = ""
    """``merge``, ``replace``, ``retainKeys``, or two of them joined by a comma."""
    patch_merge_key: str = ""
    all_of: tuple["Schema", ...] = ()
    any_of: tuple["Schema", ...] = ()
    one_of: tuple["Schema", ...] = ()
    not_: "Schema | None" = None
    rules: tuple[Mapping[str, Any], ...] = ()
    """``x-kubernetes-validations``, kept but not evaluated (see `unevaluated_rules`)."""
    ref: str = ""
    """Full name of the shared type this node refers to (``io.k8s.api.core.v1.Container``)."""
    target: "Callable[[], Schema] | None" = None
    """Returns that shared type, built on first use."""
    name: str = ""
    """Full name, when this node is itself a shared type."""
    decoded: bool = False
    """True for built-in kinds (see the module's text)."""
    hook: Hook | None = None
    """Defaults of a shared type that depend on other fields; called after the constant ones."""

    def resolve(self) -> "Schema":
        """Return the node that has the shape: the shared type, or this one."""
        return self.target() if self.target is not None else self

    def child(self, key: str) -> "Schema | None":
        """Return the schema of the field or map value `key`; None when nothing is known about it."""
        shape = self.resolve()
        return shape.properties.get(key) or shape.additional

    def validate(self, obj: Any, path: str = "") -> list[FieldError]:
        """Return what is wrong with `obj`; empty when nothing is."""
        from edgehive.kube.schema_check import check

        errors: list[FieldError] = []
        check(self, obj, path, errors)
        return errors

    def apply_defaults(self, obj: Any) -> None:
        """Fill in defaults, in place; drops nulls where Kubernetes does."""
        from edgehive.kube.schema_fill import fill

        fill(self, obj)

    def prune(self, obj: Any) -> list[str]:
        """Remove unknown fields from `obj` in place; return their paths."""
        from edgehive.kube.schema_fill import prune

        dropped: list[str] = []
        prune(self, obj, "", dropped)
        return dropped

    def to_openapi(self, refs: str = "") -> dict[str, Any]:
        """Return OpenAPI; with `refs` (``#/definitions/``) references stay references, else they are inlined."""
        from edgehive.kube.schema_emit import emit

        return emit(self, refs)

    @staticmethod
    def from_openapi(source: Mapping[str, Any]) -> "Schema":
        """Build a tree from a structural OpenAPI v3 schema (unknown keywords are ignored)."""
        values: dict[str, Any] = {
            ours: source[key] for key, ours in _KEYWORDS.items() if source.get(key) is not None
        }
        if "enum" in values:
            values["enum"] = tuple(values["enum"])
        if "default" in source:
            values |= {"default": source["default"], "has_default": True}
        build = Schema.from_openapi
        values["properties"] = {k: build(v) for k, v in (source.get("properties") or {}).items()}
        values["required"] = tuple(source.get("required") or ())
        values["map_keys"] = tuple(source.get("x-kubernetes-list-map-keys") or ())
        values["rules"] = tuple(source.get("x-kubernetes-validations") or ())
        if isinstance(source.get("items"), Mapping):
            values["items"] = build(source["items"])
        additional = source.get("additionalProperties")
        if isinstance(additional, Mapping):
            values["additional"] = build(additional)
        elif additional is True:
            values["additional"] = Schema(preserve_unknown=True)
        if isinstance(source.get("not"), Mapping):
            values["not_"] = build(source["not"])
        for key, ours in (("allOf", "all_of"), ("anyOf", "any_of"), ("oneOf", "one_of")):
            values[ours] = tuple(build(v) for v in source.get(key) or ())
        return Schema(**values)

    def unevaluated_rules(self, path: str = "") -> list[str]:
        """Return the paths that carry CEL rules, which this server keeps but does not evaluate."""
        found = [path or "<root>"] if self.rules else []
        for key, sub in self.properties.items():
            found += sub.unevaluated_rules(f"{path}.{key}" if path else key)
        if self.items is not None:
            found += self.items.unevaluated_rules(f"{path}[*]")
        if self.additional is not None:
            found += self.additional.unevaluated_rules(f"{path}.*")
        return found
