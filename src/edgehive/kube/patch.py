"""The three patch formats of the API: RFC 6902, RFC 7386, strategic merge (in `kube.patch_strategic`)."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from edgehive.kube.patch_strategic import merge_strategically
from edgehive.kube.schema import Schema
from edgehive.kube.status import ApiStatus, bad_request

MAX_OPERATIONS = 10_000
"""Kubernetes' limit on the operations of one JSON patch."""
MAX_COPIED = 3 << 20
"""Its limit on what all copies of one take together, in bytes of JSON."""


def json_patch(doc: Any, ops: Sequence[Any]) -> Any:
    """Apply RFC 6902 `ops` to a copy of `doc`.

    Raises:
        ApiStatus: 400 for a malformed patch, 413 for too many operations or copies that are too large, 422 when one does not fit.
    """
    if not isinstance(ops, list | tuple):
        raise bad_request("a JSON patch must be a list of operations")
    if len(ops) > MAX_OPERATIONS:
        raise ApiStatus(
            413,
            "RequestEntityTooLarge",
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(ops)}",
        )
    doc = copy.deepcopy(doc)
    copied = 0
    try:
        for op in ops:
            if not isinstance(op, Mapping):
                raise bad_request("an operation of a JSON patch must be an object")
            if op.get("op") == "copy":
                copied += len(msgspec.json.encode(_get(doc, _pointer(op, "from"))))
                if copied > MAX_COPIED:  # a few that copy what others have copied fill any memory
                    raise ApiStatus(
                        413,
                        "RequestEntityTooLarge",
                        f"the copies of a JSON patch may take {MAX_COPIED} bytes in all, not {copied}",
                    )
            doc = _apply(doc, op)
    except RecursionError as exc:  # built up by moves
        raise bad_request("a JSON patch that nests values too deeply") from exc
    return doc


def _apply(doc: Any, op: Mapping[str, Any]) -> Any:
    name = op.get("op")
    path = _pointer(op, "path")
    match name:
        case "add":
            return _add(doc, path, copy.deepcopy(_value(op)))
        case "remove":
            return _remove(doc, path)
        case "replace":
            _get(doc, path)
            return _replace(doc, path, copy.deepcopy(_value(op)))
        case "test":
            if not _equal(_get(doc, path), _value(op)):
                raise _unfit(f"testing value {op.get('path')} failed")
            return doc
        case "move":
            source = _pointer(op, "from")
            if path[: len(source)] == source and path != source:
                raise _unfit("a value cannot be moved into itself")
            value = _get(doc, source)
            return _add(_remove(doc, source), path, value)
        case "copy":
            return _add(doc, path, copy.deepcopy(_get(doc, _pointer(op, "from"))))
    raise bad_request(f"unknown operation {name!r} in a JSON patch")


def _value(op: Mapping[str, Any]) -> Any:
    if "value" not in op:
        raise bad_request(f"operation {op.get('op')!r} of a JSON patch needs a value")
    return op["value"]


def _pointer(op: Mapping[str, Any], key: str) -> list[str]:
    text = op.get(key)
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise bad_request(f"operation {op.get('op')!r} of a JSON patch needs a JSON pointer in {key!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _unfit(message: str) -> ApiStatus:
    return ApiStatus(
        422, "Invalid", f"the server rejected our request due to an error in our request: {message}"
    )


def _step(value: Any, part: str) -> Any:
    if isinstance(value, dict) and part in value:
        return value[part]
    if isinstance(value, list):
        return value[_index(part, len(value) - 1)]
    raise _unfit(f"the path has no {part!r}")


def _index(part: str, last: int) -> int:
    valid = part == "0" or (part.isascii() and part.isdigit() and part[0] != "0" and len(part) < 10)
    if not valid or int(part) > last:
        raise _unfit(f"{part!r} is not an index of the list")
    return int(part)


def _get(doc: Any, path: Sequence[str]) -> Any:
    for part in path:
        doc = _step(doc, part)
    return doc


def _add(doc: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(doc, path[:-1])
    if isinstance(parent, dict):
        parent[path[-1]] = value
    elif isinstance(parent, list):
        at = len(parent) if path[-1] == "-" else _index(path[-1], len(parent))
        parent.insert(at, value)
    else:
        raise _unfit(f"{path[-1]!r} cannot be added to a scalar")
    return doc


def _replace(doc: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(doc, path[:-1])
    if isinstance(parent, list):
        parent[_index(path[-1], len(parent) - 1)] = value
    else:
        parent[path[-1]] = value
    return doc


def _remove(doc: Any, path: Sequence[str]) -> Any:
    if not path:
        return None
    parent = _get(doc, path[:-1])
    _step(parent, path[-1])
    if isinstance(parent, list):
        del parent[int(path[-1])]
    else:
        del parent[path[-1]]
    return doc


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(v, right[k]) for k, v in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)


def merge_patch(doc: Any, patch: Any) -> Any:
    """Apply an RFC 7386 `patch` to a copy of `doc`."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(doc) if isinstance(doc, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return copy.deepcopy(merged)


def make_merge_patch(old: Any, new: Any) -> Any:
    """Return a patch that `merge_patch` turns `old` into `new` with (objects; nulls in `new` are lost)."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return copy.deepcopy(new)
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old or not _equal(old[key], value):
            patch[key] = make_merge_patch(old.get(key), value)
    return patch


def strategic_merge_patch(doc: dict[str, Any], patch: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Apply a strategic merge `patch` to a copy of `doc`; lists merge by the keys in `schema`.

    Raises:
        ApiStatus: 400 for a malformed patch.
    """
    if not isinstance(patch, dict):
        raise bad_request("a strategic merge patch must be an object")
    return merge_strategically(copy.deepcopy(doc), copy.deepcopy(patch), schema)
