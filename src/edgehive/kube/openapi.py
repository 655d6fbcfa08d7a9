"""OpenAPI documents of what is served: for ``kubectl explain``, validation and client-side apply.

docs/kubernetes-api.md tells which kubectl asks for which of them.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from edgehive.kube.builtin import SUBRESOURCE_TYPES, TYPES
from edgehive.kube.openapi_paths import paths
from edgehive.kube.openapi_protobuf import encode_document
from edgehive.kube.resources import ResourceInfo
from edgehive.kube.schema import Schema
from edgehive.kube.schema_emit import emit

_V2 = "#/definitions/"
_V3 = "#/components/schemas/"
_INFO = {"title": "Kubernetes", "version": "edgehive"}
_GVK = "x-kubernetes-group-version-kind"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_SCALARS: Mapping[str, Mapping[str, str]] = {
    _META + "Time": {
        "type": "string",
        "format": "date-time",
        "description": "A point in time as RFC 3339 text, to the second.",
    },
    _META + "MicroTime": {
        "type": "string",
        "format": "date-time",
        "description": "A point in time as RFC 3339 text, to the microsecond.",
    },
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {
        "type": "string",
        "description": "An amount of a resource: a number with an optional decimal (m, k, M, G) or binary "
        "(Ki, Mi, Gi) suffix.",
    },
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {
        "type": "string",
        "format": "int-or-string",
        "description": "A number, or text such as a percentage or the name of a port.",
    },
}


def openapi_v2(infos: Iterable[ResourceInfo]) -> dict[str, Any]:
    """Return the ``/openapi/v2`` document as JSON values."""
    served = list(infos)
    return {
        "swagger": "2.0",
        "info": _INFO,
        "paths": paths(served, _V2, version=2),
        "definitions": _schemas(served, _V2),
    }


def openapi_v2_protobuf(infos: Iterable[ResourceInfo]) -> bytes:
    """Return it in protobuf, to be sent as `V2_PROTOBUF`."""
    return encode_document(openapi_v2(infos))


def openapi_v3_index(infos: Iterable[ResourceInfo]) -> dict[str, Any]:
    """Return the ``/openapi/v3`` document: one entry a group-version, its URL changing with its content."""
    groups: dict[str, list[ResourceInfo]] = {}
    for info in infos:
        groups.setdefault(info.gvr.prefix, []).append(info)
    return {
        "paths": {
            prefix.removeprefix("/"): {
                "serverRelativeURL": f"/openapi/v3{prefix}?hash={_fingerprint(members)}"
            }
            for prefix, members in sorted(groups.items())
        }
    }


def _fingerprint(infos: Iterable[ResourceInfo]) -> str:
    digest = hashlib.sha256(TYPES.fingerprint)
    for info in infos:
        digest.update(f"{info.gvr} {info.kind} {sorted(info.subresources)} {info.verbs}\n".encode())
        if info.custom and info.schema is not None:
            digest.update(msgspec.json.encode(emit(info.schema, _V3)))
    return digest.hexdigest().upper()


def openapi_v3(infos: Iterable[ResourceInfo]) -> dict[str, Any]:
    """Return the document of one group-version, whose resources are `infos`."""
    served = list(infos)
    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": paths(served, _V3, version=3),
        "components": {"schemas": _schemas(served, _V3)},
    }


def schema_name(info: ResourceInfo) -> str:
    """Return the name of a resource's kind among the schemas."""
    if info.schema is None:
        return ""
    return info.schema.ref or info.schema.name


def _schemas(infos: list[ResourceInfo], refs: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    todo: list[Schema] = [TYPES.reference(name) for name in ("DeleteOptions", "ListMeta", "Status")]
    kinds: dict[str, dict[str, str]] = {}
    for info in infos:
        if info.schema is None:
            continue
        todo.append(info.schema)
        todo += [t for sub in sorted(info.subresources) if (t := SUBRESOURCE_TYPES.get(sub)) is not None]
        kinds[schema_name(info)] = {"group": info.gvr.group, "version": info.gvr.version, "kind": info.kind}
        if "list" in info.verbs:
            out[list_name(info)] = _list_schema(info, refs)
    while todo:
        _add(todo.pop(), refs, out, todo)
    for name, kind in kinds.items():
        out[name][_GVK] = [kind]
    for name, (group, version) in _SUBRESOURCE_KINDS.items():
        full = TYPES.full_name(name)
        if full in out:
            out[full][_GVK] = [{"group": group, "version": version, "kind": name}]
    return dict(sorted(out.items()))


_SUBRESOURCE_KINDS = {
    "DeleteOptions": ("", "v1"),
    "Eviction": ("policy", "v1"),
    "Scale": ("autoscaling", "v1"),
    "TokenRequest": ("authentication.k8s.io", "v1"),
    "Status": ("", "v1"),
}


def list_name(info: ResourceInfo) -> str:
    """Return the name of a resource's list kind among the schemas."""
    return f"{schema_name(info).rpartition('.')[0]}.{info.list_kind or info.kind + 'List'}"


def _list_schema(info: ResourceInfo, refs: str) -> dict[str, Any]:
    kind = info.list_kind or info.kind + "List"
    item: dict[str, Any] = {"$ref": refs + schema_name(info)}
    meta: dict[str, Any] = {"$ref": f"{refs}{_META}ListMeta"}
    if refs == _V3:
        item, meta = {"allOf": [item], "default": {}}, {"allOf": [meta], "default": {}}
    return {
        "description": f"{kind} is a list of {info.kind}.",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Group and version of this list."},
            "items": {"type": "array", "items": item, "description": "The objects."},
            "kind": {"type": "string", "description": "What this list is."},
            "metadata": meta | {"description": "Version of the list, and how to continue it."},
        },
        _GVK: [{"group": info.gvr.group, "version": info.gvr.version, "kind": kind}],
    }


def _add(schema: Schema, refs: str, out: dict[str, Any], todo: list[Schema]) -> None:
    name = schema.ref or schema.name
    if name in out:
        return
    if name in _SCALARS:
        out[name] = dict(_SCALARS[name])
        return
    shape = schema.resolve()
    if refs == _V2 and not shape.decoded:
        out[name] = _loosened(emit(shape, refs, wrap=False))
    else:
        out[name] = emit(shape, refs, wrap=refs == _V3)
    todo += _below(shape)


def _below(shape: Schema) -> list[Schema]:
    """Return the nodes below `shape` that refer to shared types."""
    found: list[Schema] = []
    stack = [*shape.properties.values(), shape.items, shape.additional]
    while stack:
        node = stack.pop()
        if node is None:
            continue
        if node.ref:
            found.append(node)
        else:
            stack += [*node.properties.values(), node.items, node.additional]
    return found


_NOT_IN_V2 = ("nullable", "anyOf", "oneOf", "not", "allOf")


def _loosened(value: Any) -> Any:
    """Leave out of a custom schema what version 2 of OpenAPI cannot say."""
    if isinstance(value, list):
        return [_loosened(item) for item in value]
    if not isinstance(value, dict):
        return value
    free = value.get("x-kubernetes-preserve-unknown-fields") is True
    out = {}
    for key, item in value.items():
        if key in _NOT_IN_V2 or (free and key in ("items", "properties", "type")):
            continue
        out[key] = {k: _loosened(v) for k, v in item.items()} if key == "properties" else _loosened(item)
    return out
