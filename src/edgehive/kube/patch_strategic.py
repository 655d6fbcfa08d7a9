"""Strategic merge: a merge patch that knows which lists are keyed, with ``$`` directives.

Kubernetes: ``$patch`` (replace, delete, merge), ``$retainKeys``, ``$deleteFromPrimitiveList/FIELD``,
``$setElementOrder/FIELD``.
"""

from collections.abc import Callable, Sequence
from typing import Any

from edgehive.kube.schema import Schema
from edgehive.kube.status import ApiStatus, bad_request

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_DELETE = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"

Object = dict[str, Any]


def merge_strategically(doc: Object, patch: Object, schema: Schema | None) -> Object:
    """Merge `patch` into `doc`; both are consumed.

    Raises:
        ApiStatus: 400 for a malformed patch.
    """
    directive = patch.pop(_PATCH, None)
    if directive == "replace":
        return patch
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f"unknown patch directive {directive!r}")
    _retain(doc, patch)
    deletions = _take(patch, _DELETE)
    orders = _take(patch, _ORDER)
    for field, doomed in deletions.items():
        if isinstance(doc.get(field), list):
            doc[field] = [item for item in doc[field] if item not in doomed]
    for field, value in patch.items():
        sub = schema.child(field) if schema is not None else None
        if value is None:
            doc.pop(field, None)
        elif field not in doc:
            doc[field] = _without_directives(value)
        else:
            doc[field] = _merge_value(doc[field], value, sub, orders.pop(field, None))
    for field, order in orders.items():
        sub = schema.child(field) if schema is not None else None
        if isinstance(doc.get(field), list):
            doc[field] = _ordered(doc[field], order, doc[field], sub.patch_merge_key if sub else "")
    return doc


def _retain(doc: Object, patch: Object) -> None:
    retained = patch.pop(_RETAIN, None)
    if retained is None:
        return
    if not isinstance(retained, list):
        raise bad_request(f"{_RETAIN} must be a list")
    stray = [
        key for key, value in patch.items() if value is not None and key not in retained and key[:1] != "$"
    ]
    if stray:
        raise bad_request(f"{_RETAIN} must name every field of its patch, {stray[0]!r} is missing")
    for key in [key for key in doc if key not in retained]:
        del doc[key]


def _take(patch: Object, prefix: str) -> dict[str, list[Any]]:
    taken = {}
    for key in [key for key in patch if key.startswith(prefix)]:
        value = patch.pop(key)
        if not isinstance(value, list):
            raise bad_request(f"{key} must be a list")
        taken[key[len(prefix) :]] = value
    return taken


def _merge_value(old: Any, new: Any, schema: Schema | None, order: list[Any] | None) -> Any:
    strategy = schema.patch_strategy.split(",") if schema is not None else []
    if isinstance(old, dict) and isinstance(new, dict):
        if "replace" in strategy:
            return _without_directives(new)
        return merge_strategically(old, new, schema)
    if isinstance(old, list) and isinstance(new, list) and "merge" in strategy and schema is not None:
        items = schema.resolve().items
        if schema.patch_merge_key:
            return _merge_objects(old, new, items, schema.patch_merge_key, order)
        merged = old + [item for at, item in enumerate(new) if item not in old and item not in new[:at]]
        return merged if order is None else _ordered(merged, order, old, "")
    return _without_directives(new)


def _merge_objects(
    old: list[Any], new: list[Any], items: Schema | None, key: str, order: list[Any] | None
) -> list[Any]:
    server = list(old)
    merged = list(old)
    replace = any(isinstance(item, dict) and item.get(_PATCH) == "replace" for item in new)
    for item in new:
        if not isinstance(item, dict):
            raise bad_request(f"items of a list merged by {key!r} must be objects")
        directive = item.get(_PATCH)
        if directive == "replace":
            continue
        if key not in item:
            raise _keyless(item, key)
        at = next(
            (i for i, have in enumerate(merged) if isinstance(have, dict) and have.get(key) == item[key]), -1
        )
        if directive == "delete":
            merged = [have for have in merged if not (isinstance(have, dict) and have.get(key) == item[key])]
        elif directive not in (None, "merge"):
            raise bad_request(f"unknown patch directive {directive!r}")
        elif at >= 0:
            merged[at] = merge_strategically(dict(merged[at]), item, items)
        else:
            merged.append(_without_directives(item))
    if replace:
        return [_without_directives(item) for item in new if item.get(_PATCH) not in ("replace", "delete")]
    return merged if order is None else _ordered(merged, order, server, key)


def _keyless(item: Object, key: str) -> ApiStatus:
    return bad_request(f"map: {item!r} does not contain declared merge key: {key}")


def _ordered(merged: list[Any], order: Sequence[Any], server: Sequence[Any], key: str) -> list[Any]:
    """Sort what `order` names as it says; the rest keeps its place relative to what the server had."""

    def identity(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, dict) else item

    wanted = [identity(item) for item in order]
    named = sorted((i for i in merged if identity(i) in wanted), key=lambda i: wanted.index(identity(i)))
    others = [item for item in merged if identity(item) not in wanted]
    return interleave(named, others, list(server), identity)


def interleave(
    named: list[Any],
    others: list[Any],
    server: Sequence[Any],
    identity: Callable[[Any], Any] = lambda item: item,
) -> list[Any]:
    """Join two lists, each kept in its order; an item of `named` goes first where the server had it first."""
    known = [identity(item) for item in server]
    result: list[Any] = []
    left = right = 0
    while left < len(named) and right < len(others):
        one, other = identity(named[left]), identity(others[right])
        if one in known and other in known and known.index(one) < known.index(other):
            result.append(named[left])
            left += 1
        else:
            result.append(others[right])
            right += 1
    return result + named[left:] + others[right:]


def _without_directives(value: Any) -> Any:
    """Return what a patch leaves where there was nothing: no nulls, no directives."""
    if isinstance(value, list):
        return [
            _without_directives(item)
            for item in value
            if not (isinstance(item, dict) and item.get(_PATCH) in ("delete", "replace") and len(item) <= 2)
        ]
    if not isinstance(value, dict):
        return value
    if value.get(_PATCH) == "delete":
        return {}
    return {k: _without_directives(v) for k, v in value.items() if v is not None and not k.startswith("$")}
