r"""Type tables: one line a field, turned into schemas when a type is first used.

The form, which the modules beside this one are written in::

    @package io.k8s.api.core.v1         full names of the types below start with this
    Name atomic # what it is            a type; ``Short=Name`` when the short name is taken;
                                        ``atomic``: server-side apply takes it as one value
      field! type attributes # text     ``!``: required (in documents; `kube.validation` enforces)

Types are ``string bool int32 int64 double bytes time microtime quantity intstr any``, the short name of a type
of any table, ``[]T`` and ``map:T``. Attributes: ``key=a,b`` (list merged by these keys), ``set``, ``atomic``,
``map-atomic``, ``map-granular``, ``patch=STRATEGY[:KEY]`` (strategic merge), ``default=JSON``.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import msgspec

from edgehive.kube.schema import Hook, Schema

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_SCALARS: Mapping[str, Mapping[str, Any]] = {
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "double": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
    "time": {"type": "string", "format": "date-time", "ref": _META + "Time"},
    "microtime": {"type": "string", "format": "date-time", "ref": _META + "MicroTime"},
    "quantity": {
        "type": "string",
        "format": "quantity",
        "ref": "io.k8s.apimachinery.pkg.api.resource.Quantity",
    },
    "intstr": {"int_or_string": True, "ref": "io.k8s.apimachinery.pkg.util.intstr.IntOrString"},
    "any": {"preserve_unknown": True},
}
_TYPE = re.compile(r"^(\S+)((?: [^#\n]*)?)(?:# (.*))?\n((?:  .*\n)*)", re.MULTILINE)


class TypeSet:
    """All types of some tables; each is built when it is first asked for."""

    def __init__(self, tables: Iterable[str], hooks: Mapping[str, Hook]) -> None:
        self._hooks = hooks
        self._built: dict[str, Schema] = {}
        self._source: dict[str, tuple[str, re.Match[str]]] = {}
        digest = hashlib.sha256()
        for table in tables:
            digest.update(table.encode())
            for section in table.split("@package ")[1:]:
                package, _, body = section.partition("\n")
                for match in _TYPE.finditer(body):
                    short, _, name = match[1].partition("=")
                    self._source[short] = (f"{package}.{name or short}", match)

        self.fingerprint = digest.digest()
        """Changes whenever a table does."""

    def names(self) -> list[str]:
        """Return the short names of all types."""
        return list(self._source)

    def full_name(self, short: str) -> str:
        """Return the OpenAPI name of a type."""
        return self._source[short][0]

    def get(self, short: str) -> Schema:
        """Return the type."""
        built = self._built.get(short)
        if built is None:
            built = self._built[short] = self._build(short)
        return built

    def reference(self, short: str) -> Schema:
        """Return a node that refers to the type without building it."""
        name, match = self._source[short]
        text = (match[3] or "").strip()
        return Schema(
            type="object", ref=name, target=partial(self.get, short), decoded=True, description=text
        )

    def _build(self, short: str) -> Schema:
        name, match = self._source[short]
        properties: dict[str, Schema] = {}
        required = []
        for line in match[4].splitlines():
            field, schema = self._field(line)
            if field.endswith("!"):
                field = field[:-1]
                required.append(field)
            properties[field] = schema
        return Schema(
            type="object",
            name=name,
            description=(match[3] or "").strip(),
            properties=properties,
            required=tuple(required),
            map_type="atomic" if "atomic" in match[2].split() else "",
            decoded=True,
            hook=self._hooks.get(short),
        )

    def _field(self, line: str) -> tuple[str, Schema]:
        definition, _, text = line.partition(" # ")
        field, kind, *attributes = definition.split()
        schema = self._type(kind)
        schema.description = text.strip()
        for attribute in attributes:
            name, _, value = attribute.partition("=")
            match name:
                case "key":
                    schema.list_type, schema.map_keys = "map", tuple(value.split(","))
                case "set" | "atomic":
                    schema.list_type = name
                case "map-atomic" | "map-granular":
                    schema.map_type = name[4:]
                case "patch":
                    schema.patch_strategy, _, schema.patch_merge_key = value.partition(":")
                case "default":
                    schema.default, schema.has_default = msgspec.json.decode(value), True
                case _:
                    raise ValueError(f"unknown attribute {attribute!r} in {line!r}")
        return field, schema

    def _type(self, kind: str) -> Schema:
        if kind.startswith("[]"):
            return Schema(type="array", items=self._type(kind[2:]), decoded=True)
        if kind.startswith("map:"):
            return Schema(type="object", additional=self._type(kind[4:]), decoded=True)
        scalar = _SCALARS.get(kind)
        if scalar is not None:
            return Schema(**scalar, decoded=True)
        return Schema(type="object", ref=self.full_name(kind), target=partial(self.get, kind), decoded=True)
