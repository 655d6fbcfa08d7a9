"""Server-side apply and the field ownership (``metadata.managedFields``) behind it."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from edgehive.kit.malformed import MALFORMED
from edgehive.kube.apply_fields import (
    Comparison,
    Path,
    Paths,
    compare,
    decode_fields,
    encode_fields,
    field_set,
    format_path,
    merge,
    remove_paths,
    with_parents,
)
from edgehive.kube.schema import Schema
from edgehive.kube.status import ApiStatus, bad_request

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
ANCIENT = "ancient-changes"
MAX_UPDATERS = 10
"""Older managers of ordinary writes are joined into one beyond this number, as in Kubernetes."""

_UNOWNED = frozenset(
    [("f:apiVersion",), ("f:kind",), ("f:metadata",)]
    + [
        ("f:metadata", f"f:{key}")
        for key in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    ]
)


@dataclass(frozen=True, slots=True)
class Manager:
    """Who owns fields. Appliers are the same across versions, so theirs is not part of their identity."""

    name: str
    operation: str
    api_version: str
    subresource: str

    def describe(self) -> str:
        """Return the text of conflict messages."""
        text = msgspec.json.encode(self.name).decode()
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


@dataclass(slots=True)
class _Owned:
    paths: Paths
    api_version: str
    time: str


Owners = dict[Manager, _Owned]


def server_side_apply(
    live: dict[str, Any] | None,
    applied: dict[str, Any],
    *,
    manager: str,
    force: bool,
    schema: Schema,
    now: str,
    api_version: str,
    subresource: str = "",
    ignored: Iterable[str] | None = None,
) -> dict[str, Any]:
    """Return the object after `manager` applied `applied`; `now` is an RFC 3339 time.

    `ignored` names top-level fields this endpoint does not write: they are taken out of `applied`. When
    not given, it is ``status`` for the main resource of a built-in kind. Defaults are not filled in; call `schema.apply_defaults` on the result.

    Raises:
        ApiStatus: 400 for an unusable request, 409 with one ``FieldManagerConflict`` cause per field that
            another manager owns.
    """
    _require_applicable(applied, manager)
    skipped = _ignored(ignored, schema, subresource)
    wanted = _without_nulls({key: value for key, value in applied.items() if key not in skipped})
    live_obj = live if live is not None else _skeleton(applied)
    me = Manager(manager, "Apply", "", subresource)
    try:
        return _apply(
            live_obj,
            wanted,
            _decode(live_obj),
            me=me,
            force=force,
            schema=schema,
            now=now,
            api_version=api_version,
        )
    except _Conflicts as conflicts:
        allowed = _last_applied(live_obj, schema) if manager == "kubectl" else set()
        refused = [(who, path) for who, path in conflicts.found if path not in allowed]
        if refused:
            raise _Conflicts(refused).status() from None
        return _apply(
            live_obj,
            wanted,
            _decode(live_obj),
            me=me,
            force=True,
            schema=schema,
            now=now,
            api_version=api_version,
        )


def _ignored(given: Iterable[str] | None, schema: Schema, subresource: str) -> frozenset[str]:
    if given is not None:
        return frozenset(given)
    return frozenset(("status",) if schema.resolve().decoded and not subresource else ())


class _Conflicts(Exception):
    def __init__(self, found: list[tuple[Manager, Path]]) -> None:
        super().__init__()
        self.found = found

    def status(self) -> ApiStatus:
        found = sorted(self.found, key=lambda c: (c[0].describe(), c[1]))
        causes = [
            {
                "reason": "FieldManagerConflict",
                "message": f"conflict with {who.describe()}",
                "field": format_path(path),
            }
            for who, path in found
        ]
        if len(found) == 1:
            who, path = found[0]
            text = f"1 conflict: conflict with {who.describe()}: {format_path(path)}"
        else:
            lines = []
            for name in sorted({who.describe() for who, _ in found}):
                lines.append(f"conflicts with {name}:")
                lines += [f"- {format_path(path)}" for who, path in found if who.describe() == name]
            text = f"{len(found)} conflicts: " + "\n".join(lines)
        return ApiStatus(409, "Conflict", f"Apply failed with {text}", {"causes": causes})


def _require_applicable(applied: Mapping[str, Any], manager: str) -> None:
    meta = applied.get("metadata")
    if not manager:
        raise bad_request(
            "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required for apply patch"
        )
    if meta is not None and not isinstance(meta, Mapping):
        raise bad_request("metadata must be an object")
    if meta is not None and meta.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")


def _skeleton(applied: Mapping[str, Any]) -> dict[str, Any]:
    meta = applied.get("metadata") or {}
    identity = {key: meta[key] for key in ("name", "namespace") if key in meta}
    return {"apiVersion": applied.get("apiVersion"), "kind": applied.get("kind"), "metadata": identity}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _last_applied(live: Mapping[str, Any], schema: Schema) -> Paths:
    """Return what kubectl applied on the client's side and nobody has changed since: it may take that over."""
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    if not isinstance(text, str):
        return set()
    try:
        last = msgspec.json.decode(text)
    except MALFORMED:
        return set()
    if not isinstance(last, dict):
        return set()
    since = compare(schema, last, live)
    return field_set(schema, last) - since.modified - since.added - since.removed


def _apply(
    live: dict[str, Any],
    wanted: dict[str, Any],
    owners: Owners,
    *,
    me: Manager,
    force: bool,
    schema: Schema,
    now: str,
    api_version: str,
) -> dict[str, Any]:
    before = {who: set(owned.paths) for who, owned in owners.items()}
    result: dict[str, Any] = copy.deepcopy(merge(schema, live, wanted))
    mine = field_set(schema, wanted) - _UNOWNED
    previous = owners.get(me)
    owners[me] = _Owned(mine, api_version, previous.time if previous else "")
    if previous is not None:
        owned = with_parents(set().union(*(entry.paths for entry in owners.values())))
        remove_paths(schema, result, with_parents(previous.paths) - owned - _UNOWNED)
    changes = compare(schema, live, result)
    _take_over(owners, me, changes, force)
    _refresh_last_applied(result, wanted, me)
    _encode(result, owners, before, now)
    return result


def _refresh_last_applied(result: dict[str, Any], wanted: Mapping[str, Any], me: Manager) -> None:
    """Keep kubectl's client-side annotation true when kubectl applies on the server, so it may go back."""
    annotations = (result.get("metadata") or {}).get("annotations")
    if me.name != "kubectl" or not isinstance(annotations, dict) or LAST_APPLIED not in annotations:
        return
    annotations[LAST_APPLIED] = msgspec.json.encode(wanted).decode() + "\n"


def _take_over(owners: Owners, me: Manager, changes: Comparison, force: bool) -> None:
    changed = changes.modified | changes.added
    conflicts = [(who, path) for who, owned in owners.items() if who != me for path in owned.paths & changed]
    if conflicts and not force:
        raise _Conflicts(conflicts)
    for who, owned in owners.items():
        if who != me:
            owned.paths -= changed
        owned.paths -= changes.removed
    for who in [who for who, owned in owners.items() if not owned.paths]:
        del owners[who]


def track_update(
    old: dict[str, Any] | None,
    new: dict[str, Any],
    *,
    manager: str,
    operation: str = "Update",
    now: str,
    schema: Schema,
    api_version: str,
    subresource: str = "",
    ignored: Iterable[str] | None = None,
) -> None:
    """Give `manager` the fields that `new` sets or changes, in ``new["metadata"]["managedFields"]``.

    A client may edit the entries itself (kubectl does when it moves to server-side apply): entries in `new`
    that can be read count, ``[]`` and ``[{}]`` erase all, anything else falls back to those of `old`.
    `ignored` is as in `server_side_apply`.
    """
    meta = new.setdefault("metadata", {})
    given = meta.get("managedFields")
    if old is not None and given in ([], [{}]):
        del meta["managedFields"]
        return
    owners = _decode(new) or (_decode(old) if old is not None else {})
    before = {who: set(owned.paths) for who, owned in owners.items()}
    me = Manager(manager, operation, api_version if operation == "Update" else "", subresource)
    changes = compare(schema, old if old is not None else _skeleton(new), new)
    for skipped in _ignored(ignored, schema, subresource):
        changes.drop(f"f:{skipped}")
    changes.added -= _UNOWNED
    changes.modified -= _UNOWNED
    mine = owners.setdefault(me, _Owned(set(), api_version, ""))
    mine.paths |= changes.added | changes.modified
    _take_over(owners, me, changes, force=True)
    _cap(owners)
    _encode(new, owners, before, now)


def _cap(owners: Owners) -> None:
    updaters = sorted(
        (who for who in owners if who.operation == "Update" and not who.subresource),
        key=lambda who: owners[who].time or "~",
    )
    for who in updaters[: max(0, len(updaters) - MAX_UPDATERS)]:
        if who.name == ANCIENT:
            continue
        entry = owners.pop(who)
        ancient = Manager(ANCIENT, "Update", who.api_version, "")
        joined = owners.setdefault(ancient, _Owned(set(), entry.api_version, entry.time))
        joined.paths |= entry.paths
        joined.time = max(joined.time, entry.time)


def _decode(obj: Mapping[str, Any]) -> Owners:
    entries = (obj.get("metadata") or {}).get("managedFields")
    owners: Owners = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, Mapping) or entry.get("operation") not in ("Apply", "Update"):
            continue
        operation = str(entry["operation"])
        version = str(entry.get("apiVersion") or "")
        who = Manager(
            str(entry.get("manager") or ""),
            operation,
            version if operation == "Update" else "",
            str(entry.get("subresource") or ""),
        )
        paths = decode_fields(entry.get("fieldsV1"))
        known = owners.setdefault(who, _Owned(set(), version, str(entry.get("time") or "")))
        known.paths |= paths
    return owners


def _encode(obj: dict[str, Any], owners: Owners, before: Mapping[Manager, Paths], now: str) -> None:
    entries = []
    for who, owned in owners.items():
        time = owned.time if owned.time and before.get(who) == owned.paths else now
        entry: dict[str, Any] = {
            "manager": who.name,
            "operation": who.operation,
            "apiVersion": owned.api_version,
            "time": time,
            "fieldsType": "FieldsV1",
            "fieldsV1": encode_fields(owned.paths),
        }
        if who.subresource:
            entry["subresource"] = who.subresource
        entries.append(entry)
    entries.sort(
        key=lambda e: (e["operation"], e["time"], e["manager"], e["apiVersion"], e.get("subresource", ""))
    )
    meta = obj.setdefault("metadata", {})
    if entries:
        meta["managedFields"] = entries
    else:
        meta.pop("managedFields", None)
