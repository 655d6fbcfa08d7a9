"""Short words for the OpenAPI schemas of resource definitions we write ourselves."""

from collections.abc import Mapping, Sequence
from typing import Any

Node = dict[str, Any]


def text(description: str = "", *, enum: Sequence[str] = ()) -> Node:
    """A string; `enum` are its values."""
    return _described({"type": "string", **({"enum": list(enum)} if enum else {})}, description)


def integer(description: str = "", *, size: str = "int64", enum: Sequence[int] = ()) -> Node:
    """An integer of the format `size` ("": none)."""
    node: Node = {"type": "integer", **({"format": size} if size else {})}
    return _described(node | ({"enum": list(enum)} if enum else {}), description)


def number(description: str = "") -> Node:
    """A number."""
    return _described({"type": "number"}, description)


def boolean(description: str = "") -> Node:
    """True or false."""
    return _described({"type": "boolean"}, description)


def fields(properties: Mapping[str, Node], description: str = "", *, required: Sequence[str] = ()) -> Node:
    """An object with these fields."""
    # Without any the key is left out, as the API server leaves it: else `kubectl apply` finds a change every time.
    node: Node = {"type": "object", **({"properties": dict(properties)} if properties else {})}
    return _described(node | ({"required": list(required)} if required else {}), description)


def items(node: Node, description: str = "") -> Node:
    """A list of `node`."""
    return _described({"type": "array", "items": node}, description)


def mapping(node: Node, description: str = "") -> Node:
    """A map from text to `node`."""
    return _described({"type": "object", "additionalProperties": node}, description)


def free(description: str = "", properties: Mapping[str, Node] | None = None) -> Node:
    """An object of any shape; `properties` are the fields that have one."""
    node: Node = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return _described(node | ({"properties": dict(properties)} if properties else {}), description)


def whole(description: str, properties: Mapping[str, Node]) -> Node:
    """The schema of a kind: the envelope and its own fields."""
    envelope = {
        "apiVersion": text("Group and version of this object."),
        "kind": text("What this object is."),
        "metadata": {"type": "object"},
    }
    return fields({**envelope, **properties}, description)


def column(name: str, path: str, description: str, *, kind: str = "string", wide: bool = False) -> Node:
    """A column of ``kubectl get``; a `wide` one is shown with ``-o wide`` only."""
    node: Node = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return node | ({"priority": 1} if wide else {})


def version(
    name: str, schema: Node, *, storage: bool = True, columns: Sequence[Node] = (), status: bool = False
) -> Node:
    """A served version."""
    node: Node = {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
    }
    if columns:
        node["additionalPrinterColumns"] = list(columns)
    return node | ({"subresources": {"status": {}}} if status else {})


def definition(
    group: str, kind: str, versions: Sequence[Node], *, plural: str = "", scope: str = "Namespaced"
) -> Node:
    """A CustomResourceDefinition."""
    plural = plural or kind.lower() + "s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"kind": kind, "listKind": kind + "List", "plural": plural, "singular": kind.lower()},
            "versions": list(versions),
        },
    }


def _described(node: Node, description: str) -> Node:
    return node | ({"description": description} if description else {})
