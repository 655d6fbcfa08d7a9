"""create, update and patch, for every resource alike.

A write reads the object, builds the new one, and stores it only if the object is still the one that was read. An
update without resourceVersion and a patch are tried again when they lose that race; an update with one gets 409.
"""

import copy
import logging
from collections.abc import Callable
from typing import Any

from edgehive.aio.storage import Storage
from edgehive.apiserver.admission import Admission
from edgehive.apiserver.catalog import bucket_of, key_of
from edgehive.apiserver.codec import Object, check_kind, decode, stored, to_served
from edgehive.apiserver.context import Call, Clock
from edgehive.apiserver.fields import check_fields, check_valid
from edgehive.apiserver.kinds import has_status, prepare_create, prepare_update, tracks_generation, wanted
from edgehive.apiserver.reads import Reader
from edgehive.kube.apply import server_side_apply, track_update
from edgehive.kube.schema import Schema
from edgehive.kube.status import ApiStatus, already_exists, bad_request, conflict, invalid, not_found
from edgehive.store.revisions import KeyExists, KeyMissing, Record, Stale

log = logging.getLogger(__name__)

Change = Callable[[Object], Object]
"""Returns the new object for the current one (a copy it may keep)."""

MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
_ATTEMPTS = 32
_NAME_ATTEMPTS = 8
_ANYTHING = Schema(preserve_unknown=True)


class Writer:
    """Creates and changes objects; `token` draws the random part of generated names."""

    def __init__(
        self,
        *,
        storage: Storage,
        reader: Reader,
        admission: Admission,
        clock: Clock,
        token: Callable[[int], str],
    ) -> None:
        self._storage = storage
        self._reader = reader
        self._admission = admission
        self._clock = clock
        self._token = token

    # -- create

    async def create(self, call: Call, obj: Object, *, applied: bool = False) -> bytes:
        """Store a new object; with `applied`, its managedFields are already there.

        Raises:
            ApiStatus: 400, 403, 404, 409, 422.
        """
        info = call.info
        check_kind(info.kind, info.api_version, obj)
        meta = self._new_meta(call, obj, applied=applied)
        check_fields(call, obj)
        prepare_create(info, obj)
        if info.schema is not None:
            info.schema.apply_defaults(obj)
        if not applied:
            self._track(call, None, obj)  # before admission: what that adds belongs to nobody
        self._admission.create(call, obj)
        if info.schema is not None:
            info.schema.apply_defaults(obj)
        prefix = str(meta.get("generateName") or "")
        for attempt in range(_NAME_ATTEMPTS):
            generated = bool(prefix) and (attempt > 0 or not meta.get("name"))
            if generated:
                meta["name"] = f"{prefix[:58]}{self._token(5)}"
            check_valid(call, obj)
            meta["uid"] = self._clock.new_id()
            meta["creationTimestamp"] = self._clock.stamp()
            try:
                return await self._insert(call, obj)
            except KeyExists as exc:
                if not generated or attempt == _NAME_ATTEMPTS - 1:
                    raise already_exists(info.gvr.resource, str(meta["name"]), info.gvr.group) from exc
        raise AssertionError("unreachable")

    def _new_meta(self, call: Call, obj: Object, *, applied: bool) -> dict[str, Any]:
        meta = obj.setdefault("metadata", {})
        if not isinstance(meta, dict):
            raise bad_request("metadata must be an object")
        check_namespace(call, meta)
        if meta.get("resourceVersion") and not applied:
            raise bad_request("resourceVersion should not be set on objects to be created")
        for key in (
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
        ):
            meta.pop(key, None)
        meta.pop("resourceVersion", None)
        if not applied:
            meta.pop("managedFields", None)
        meta.pop("generation", None)
        if not meta.get("name") and not meta.get("generateName"):
            cause = (
                "metadata.name",
                "FieldValueRequired",
                "Required value: name or generateName is required",
            )
            raise invalid(call.info.kind, "", [cause], call.group)
        return meta

    async def _insert(self, call: Call, obj: Object) -> bytes:
        info = call.info
        key = key_of(info, call.namespace, obj["metadata"]["name"])
        if call.dry_run:
            if self._storage.get(bucket_of(info), key) is not None:
                raise KeyExists(key)
            return to_served(stored(obj, info, 0), info)
        record = await self._storage.create(bucket_of(info), key, lambda rev: stored(obj, info, rev))
        return to_served(record.value, info)

    # -- update

    async def update(self, call: Call, obj: Object) -> bytes:
        """Replace an object, or one subresource of it.

        Raises:
            ApiStatus: 400, 404, 409, 422.
        """
        info = call.info
        check_kind(info.kind, info.api_version, obj)
        meta = obj.setdefault("metadata", {})
        if not isinstance(meta, dict):
            raise bad_request("metadata must be an object")
        check_namespace(call, meta)
        check_name(call, meta)
        if info.custom and not meta.get("resourceVersion"):
            cause = "Invalid value: 0: must be specified for an update"
            reason = ("metadata.resourceVersion", "FieldValueInvalid", cause)
            raise invalid(info.kind, call.name, [reason], info.gvr.group)
        check_fields(call, obj)
        return await self.change(call, lambda _: copy.deepcopy(obj))

    async def change(self, call: Call, make: Change, *, applied: bool = False) -> bytes:
        """Read, change, store; again when another write came between.

        Raises:
            ApiStatus: 404, 409, 422, and what `make` raises.
        """
        for _ in range(_ATTEMPTS):
            record = self._reader.record(call.info, call.namespace, call.name)
            served = to_served(record.value, call.info)
            old = decode(served)
            new = make(decode(served))  # a second decode costs a tenth of a deep copy
            self._guard(call, old, new)
            try:
                return await self._replace(call, record, old, new, applied=applied)
            except Stale:
                continue
            except KeyMissing as exc:
                raise not_found(call.resource, call.name, call.group) from exc
        raise conflict(call.resource, call.name, MODIFIED, call.group)

    def _guard(self, call: Call, old: Object, new: Object) -> None:
        """Check resourceVersion and uid of the new object against the current one."""
        meta, current = new.get("metadata"), old["metadata"]
        if not isinstance(meta, dict):
            raise bad_request("metadata must be an object")
        check_name(call, meta)
        if meta.get("uid") and meta["uid"] != current.get("uid"):
            why = f"Precondition failed: UID in precondition: {meta['uid']}, "
            why += f"UID in object meta: {current.get('uid', '')}"
            raise conflict(call.resource, call.name, why, call.group)
        version = meta.get("resourceVersion")
        if version and version != current["resourceVersion"]:
            raise conflict(call.resource, call.name, MODIFIED, call.group)

    async def _replace(self, call: Call, record: Record, old: Object, new: Object, *, applied: bool) -> bytes:
        info = call.info
        new = prepare_update(info, old, new, call.subresource)
        self._carry(old, new)
        if info.schema is not None:
            info.schema.apply_defaults(new)
        if not applied:
            self._track(call, old, new)
        self._admission.update(call, new, old)
        if tracks_generation(info) and wanted(new, info) != wanted(old, info):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        check_valid(call, new, old)
        if unchanged(old, new):
            return to_served(record.value, info)
        return await self._store(call, record, new)

    async def _store(self, call: Call, record: Record, new: Object) -> bytes:
        info = call.info
        if call.dry_run:
            return to_served(stored(new, info, record.revision), info)
        bucket, key = bucket_of(info), key_of(info, call.namespace, call.name)
        write = self._storage.delete if is_finished(new) else self._storage.update
        written = await write(bucket, key, record.revision, lambda rev: stored(new, info, rev))
        return to_served(written.value, info)

    @staticmethod
    def _carry(old: Object, new: Object) -> None:
        """Keep what no update may change."""
        meta, current = new["metadata"], old["metadata"]
        for key in (
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "generateName",
        ):
            if key in current:
                meta[key] = current[key]
            else:
                meta.pop(key, None)
        meta.pop("selfLink", None)
        if "managedFields" not in meta:
            meta["managedFields"] = copy.deepcopy(current.get("managedFields", []))
        if current.get("deletionTimestamp"):
            added = set(meta.get("finalizers") or ()) - set(current.get("finalizers") or ())
            if added:
                names = ", ".join(sorted(added))
                cause = (
                    f"Forbidden: no new finalizers can be added if the object is being deleted, found {names}"
                )
                raise invalid(
                    str(new.get("kind", "")),
                    str(meta.get("name", "")),
                    [("metadata.finalizers", "FieldValueForbidden", cause)],
                )

    def _track(self, call: Call, old: Object | None, new: Object) -> None:
        track_update(
            old,
            new,
            manager=call.manager,
            operation="Update",
            now=self._clock.stamp(),
            schema=call.info.schema or _ANYTHING,
            api_version=call.info.api_version,
            subresource=call.subresource,
        )

    # -- apply

    async def apply(self, call: Call, applied: Object) -> tuple[bytes, bool]:
        """Server-side apply; returns the object and whether it was created.

        Raises:
            ApiStatus: 400, 404, 409 (conflicts of field managers), 422.
        """
        info = call.info
        check_kind(info.kind, info.api_version, applied)
        meta = applied.setdefault("metadata", {})
        if not isinstance(meta, dict):
            raise bad_request("metadata must be an object")
        if meta.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        meta.setdefault("name", call.name)
        check_namespace(call, meta)
        check_name(call, meta)
        check_fields(call, applied)
        for _ in range(_ATTEMPTS):
            try:
                return await self.change(
                    call, lambda old: self._merge(call, old, applied), applied=True
                ), False
            except ApiStatus as exc:
                if exc.code != 404 or call.subresource or meta.get("resourceVersion") or meta.get("uid"):
                    raise
            try:
                return await self.create(call, self._merge(call, None, applied), applied=True), True
            except ApiStatus as exc:
                if exc.reason != "AlreadyExists":
                    raise
        raise conflict(call.resource, call.name, MODIFIED, call.group)

    def _merge(self, call: Call, live: Object | None, applied: Object) -> Object:
        return server_side_apply(
            live,
            copy.deepcopy(applied),
            manager=call.manager,
            force=call.force,
            schema=call.info.schema or _ANYTHING,
            now=self._clock.stamp(),
            api_version=call.info.api_version,
            subresource=call.subresource,
            ignored=("status",) if has_status(call.info) and not call.subresource else None,
        )


def check_namespace(call: Call, meta: dict[str, Any]) -> None:
    """Check the body's namespace against the URL's.

    Raises:
        ApiStatus: 400.
    """
    if not call.info.namespaced:
        meta.pop("namespace", None)
        return
    if meta.get("namespace") not in (None, "", call.namespace):
        raise bad_request(
            f"the namespace of the provided object does not match the namespace sent on the request: "
            f"({meta['namespace']!r} != {call.namespace!r})"
        )
    meta["namespace"] = call.namespace


def check_name(call: Call, meta: dict[str, Any]) -> None:
    """Check the body's name against the URL's.

    Raises:
        ApiStatus: 400.
    """
    if meta.get("name", call.name) != call.name:
        raise bad_request(
            f"the name of the object ({meta.get('name')}) does not match the name on the URL ({call.name})"
        )
    meta["name"] = call.name


def is_finished(obj: Object) -> bool:
    """Tell whether an object that is being deleted has nothing left to wait for."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    if obj.get("kind") == "Namespace" and (obj.get("spec") or {}).get("finalizers"):
        return False
    return not meta.get("deletionGracePeriodSeconds")


def unchanged(old: Object, new: Object) -> bool:
    """Tell whether an update changes nothing but times of managedFields."""
    return _comparable(old) == _comparable(new) and not is_finished(new)


def _comparable(obj: Object) -> Object:
    meta = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion" and v not in (None, [], {})}
    entries = meta.get("managedFields")
    if isinstance(entries, list):
        meta["managedFields"] = [{k: v for k, v in e.items() if k != "time"} for e in entries]
    return {**obj, "metadata": meta}
