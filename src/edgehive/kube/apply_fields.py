"""Sets of field paths: what ``fieldsV1`` holds, taken from objects, compared, merged, removed.

A path is a tuple of elements as ``fieldsV1`` writes them: ``f:NAME`` a field, ``k:{...}`` an item of a keyed
list, ``v:...`` an item of a set. An atomic list, atomic map or scalar is one leaf.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgehive.kube.patch_strategic import interleave
from edgehive.kube.schema import Schema

Path = tuple[str, ...]
Paths = set[Path]

_encode = msgspec.json.Encoder(order="sorted").encode


def decode_fields(fields: Any) -> Paths:
    """Read a ``fieldsV1`` object; what is malformed in it is skipped."""
    found: Paths = set()
    _decode_into(fields, (), found)
    return found


def _decode_into(node: Any, path: Path, found: Paths) -> None:
    if not isinstance(node, Mapping):
        return
    if path and (not node or "." in node):
        found.add(path)
    for element, below in node.items():
        if element != ".":
            _decode_into(below, (*path, element), found)


def encode_fields(paths: Iterable[Path]) -> dict[str, Any]:
    """Write a ``fieldsV1`` object."""
    root: dict[str, Any] = {}
    members = set(paths)
    for path in sorted(members):
        node = root
        for depth, element in enumerate(path, 1):
            below = node.get(element)
            if below is None:
                below = node[element] = {}
            elif not below and path[:depth] in members and depth < len(path):
                below["."] = {}
            node = below
    return root


def format_path(path: Path) -> str:
    """Return a path as messages show it: ``.spec.containers[name="c"].image``."""
    text = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            keys = msgspec.json.decode(rest)
            text += "[" + ",".join(f"{k}={_encode(v).decode()}" for k, v in sorted(keys.items())) + "]"
        elif kind == "v":
            text += f"[={rest}]"
        else:
            text += f"[{rest}]"
    return text


def item_element(schema: Schema, item: Any) -> str:
    """Return the element of `item` in the keyed list or set described by `schema`."""
    if schema.list_type == "map" and isinstance(item, Mapping):
        items = schema.resolve().items
        keys = {}
        for key in schema.map_keys:
            if key in item:
                keys[key] = item[key]
            else:
                sub = items.child(key) if items is not None else None
                keys[key] = sub.default if sub is not None and sub.has_default else None
        return "k:" + _encode({k: v for k, v in keys.items() if v is not None}).decode()
    return "v:" + _encode(item).decode()


def is_leaf(schema: Schema | None, value: Any) -> bool:
    """Tell whether `value` is owned as one: a scalar, an atomic list or map."""
    if isinstance(value, dict):
        return schema is not None and "atomic" in (schema.map_type or schema.resolve().map_type)
    if isinstance(value, list):
        return schema is None or _list_type(schema) not in ("set", "map")
    return True


def _list_type(schema: Schema) -> str:
    return schema.list_type or schema.resolve().list_type


def _child(schema: Schema | None, key: str) -> tuple[Schema | None, bool]:
    """Return the schema below `key`, and whether `key` is a declared field (not the key of a map)."""
    if schema is None:
        return None, False
    shape = schema.resolve()
    declared = shape.properties.get(key)
    return (declared, True) if declared is not None else (shape.additional, False)


def _items(schema: Schema | None) -> Schema | None:
    return schema.resolve().items if schema is not None else None


def field_set(schema: Schema | None, value: Any, *, maps: bool = False, path: Path = ()) -> Paths:
    """Return the paths `value` sets; with `maps` also those of maps that have entries."""
    found: Paths = set()
    _collect(schema, value, path, found, maps)
    return found


def _collect(schema: Schema | None, value: Any, path: Path, found: Paths, maps: bool) -> None:
    if is_leaf(schema, value):
        found.add(path)
    elif isinstance(value, dict):
        if path and (not value or (maps and (schema is None or schema.resolve().additional is not None))):
            found.add(path)
        for key, item in value.items():
            sub, declared = _child(schema, key)
            below = (*path, "f:" + key)
            if not declared:
                found.add(below)
            _collect(sub, item, below, found, maps)
    else:
        assert schema is not None
        for item in value:
            below = (*path, item_element(schema, item))
            found.add(below)
            if isinstance(item, dict):
                _collect(_items(schema), item, below, found, maps)


@dataclass(slots=True)
class Comparison:
    """Paths that differ between two objects."""

    added: Paths = field(default_factory=set)
    modified: Paths = field(default_factory=set)
    removed: Paths = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.added or self.modified or self.removed)

    def drop(self, top: str) -> None:
        """Forget what lies below the top-level element `top`."""
        for paths in (self.added, self.modified, self.removed):
            paths.difference_update([path for path in paths if path[0] == top])


def compare(schema: Schema | None, old: Any, new: Any) -> Comparison:
    """Return what changes from `old` to `new`."""
    result = Comparison()
    _compare(schema, old, new, (), result)
    return result


def _compare(schema: Schema | None, old: Any, new: Any, path: Path, result: Comparison) -> None:
    if old == new and isinstance(old, bool) == isinstance(new, bool):
        return
    if isinstance(old, dict) and isinstance(new, dict) and not is_leaf(schema, new):
        for key in old.keys() | new.keys():
            sub, _ = _child(schema, key)
            _compare_entry(sub, old, new, (*path, "f:" + key), result)
    elif isinstance(old, list) and isinstance(new, list) and not is_leaf(schema, new):
        assert schema is not None
        olds = {item_element(schema, item): item for item in old}
        news = {item_element(schema, item): item for item in new}
        for key in olds.keys() | news.keys():
            _compare_entry(_items(schema), olds, news, (*path, key), result)
    elif is_leaf(schema, new) and is_leaf(schema, old):
        result.modified.add(path)
    else:
        result.removed |= field_set(schema, old, maps=True, path=path)
        result.added |= field_set(schema, new, maps=True, path=path)


def _compare_entry(
    schema: Schema | None, old: dict[str, Any], new: dict[str, Any], path: Path, result: Comparison
) -> None:
    key = path[-1].removeprefix("f:")
    if key not in old:
        result.added |= {path} if path[-1][0] != "f" else set()
        result.added |= field_set(schema, new[key], maps=True, path=path)
    elif key not in new:
        result.removed |= {path} if path[-1][0] != "f" else set()
        result.removed |= field_set(schema, old[key], maps=True, path=path)
    else:
        _compare(schema, old[key], new[key], path, result)


def merge(schema: Schema | None, live: Any, applied: Any) -> Any:
    """Return `live` with what `applied` sets; both stay as they are."""
    if isinstance(live, dict) and isinstance(applied, dict) and not is_leaf(schema, applied):
        merged = dict(live)
        for key, value in applied.items():
            merged[key] = merge(_child(schema, key)[0], live[key], value) if key in live else value
        return merged
    if isinstance(live, list) and isinstance(applied, list) and not is_leaf(schema, applied):
        assert schema is not None
        lives = {item_element(schema, item): item for item in live}
        news = {item_element(schema, item): item for item in applied}
        items = _items(schema)
        both = {k: merge(items, lives[k], v) if k in lives else v for k, v in news.items()}
        order = interleave(list(news), [key for key in lives if key not in news], list(lives))
        return [both[key] if key in both else lives[key] for key in order]
    return applied


def remove_paths(schema: Schema, value: dict[str, Any], paths: Iterable[Path]) -> None:
    """Remove what lies at `paths` from `value`, in place, with containers that become empty by it."""
    for path in sorted(paths, key=len):
        _remove(schema, value, path)


def _remove(schema: Schema | None, value: Any, path: Path) -> bool:
    """Remove one path; tell whether `value` became empty by it."""
    element, rest = path[0], path[1:]
    if isinstance(value, dict) and element.startswith("f:"):
        key = element[2:]
        if key not in value:
            return False
        if not rest or _remove(_child(schema, key)[0], value[key], rest):
            del value[key]
            return not value
        return False
    if isinstance(value, list) and schema is not None and not element.startswith("f:"):
        for at, item in enumerate(value):
            if item_element(schema, item) == element:
                if not rest:
                    del value[at]
                    return not value
                if len(rest) > 1 or rest[0][2:] not in schema.map_keys:
                    _remove(_items(schema), item, rest)
                return False
    return False


def with_parents(paths: Paths) -> Paths:
    """Return `paths` and every named field above them."""
    found = set(paths)
    for path in paths:
        found.update(path[:n] for n in range(1, len(path)) if path[n - 1].startswith("f:"))
    return found
