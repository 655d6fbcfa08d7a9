"""delete: now, gracefully, or when the last finalizer is gone."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from edgehive.aio.storage import Storage
from edgehive.apiserver.admission import Admission
from edgehive.apiserver.catalog import bucket_of, key_of
from edgehive.apiserver.codec import Object, as_object, decode, encode, stored, to_served
from edgehive.apiserver.context import Call, Clock, format_time, parse_time, qualified
from edgehive.apiserver.kinds import tracks_generation
from edgehive.apiserver.reads import Reader
from edgehive.apiserver.writes import is_finished
from edgehive.kube.status import bad_request, conflict, invalid, not_found
from edgehive.store.revisions import KeyMissing, Record, Stale

_FOREGROUND, _ORPHAN = "foregroundDeletion", "orphan"
_POLICIES = ("Background", "Foreground", "Orphan")
_ATTEMPTS = 32


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """``meta/v1 DeleteOptions``."""

    grace: int | None = None
    propagation: str = ""
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False

    @staticmethod
    def parse(body: Any) -> "DeleteOptions":
        """Read a decoded body.

        Raises:
            ApiStatus: 400, 422.
        """
        obj = as_object(body)
        grace, policy = obj.get("gracePeriodSeconds"), obj.get("propagationPolicy") or ""
        orphan, conditions = obj.get("orphanDependents"), obj.get("preconditions") or {}
        dry_run = obj.get("dryRun") or []
        if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
            raise bad_request("gracePeriodSeconds must be an integer")
        if not isinstance(conditions, dict) or not isinstance(policy, str):
            raise bad_request("malformed DeleteOptions")
        if orphan is not None and not policy:
            policy = "Orphan" if orphan else "Background"
        if policy not in {"", *_POLICIES}:
            message = (
                f'Unsupported value: "{policy[:60]}": supported values: "Background", "Foreground", "Orphan"'
            )
            raise invalid("DeleteOptions", "", [("propagationPolicy", "FieldValueNotSupported", message)])
        if dry_run not in ([], ["All"]):
            message = 'Unsupported value: supported values: "All"'
            raise invalid("DeleteOptions", "", [("dryRun", "FieldValueNotSupported", message)])
        return DeleteOptions(
            grace,
            policy,
            str(conditions.get("uid") or ""),
            str(conditions.get("resourceVersion") or ""),
            bool(dry_run),
        )


class Deleter:
    """Deletes objects of any resource."""

    def __init__(self, *, storage: Storage, reader: Reader, admission: Admission, clock: Clock) -> None:
        self._storage = storage
        self._reader = reader
        self._admission = admission
        self._clock = clock

    async def delete(self, call: Call, options: DeleteOptions) -> tuple[bytes, bool]:
        """Delete one object; returns what to answer and whether the object is gone.

        Raises:
            ApiStatus: 403, 404, 409.
        """
        self._admission.delete(call)
        for _ in range(_ATTEMPTS):
            record = self._reader.record(call.info, call.namespace, call.name)
            obj = decode(to_served(record.value, call.info))
            self._check(call, obj, options)
            try:
                return await self._step(call, record, obj, options)
            except Stale:
                continue
            except KeyMissing as exc:
                raise not_found(call.resource, call.name, call.group) from exc
        raise conflict(call.resource, call.name, "the object is changed too often", call.group)

    def _check(self, call: Call, obj: Object, options: DeleteOptions) -> None:
        meta = obj["metadata"]
        for label, expected, found in (
            ("UID", options.uid, meta.get("uid", "")),
            ("ResourceVersion", options.resource_version, meta.get("resourceVersion", "")),
        ):
            if expected and expected != found:
                why = f"Precondition failed: {label} in precondition: {expected}, {label} in object meta: {found}"
                raise conflict(call.resource, call.name, why, call.group)

    async def _step(
        self, call: Call, record: Record, obj: Object, options: DeleteOptions
    ) -> tuple[bytes, bool]:
        """Delete or mark; the object decides which."""
        info, meta = call.info, obj["metadata"]
        grace = self._grace(call, obj, options)
        self._propagate(meta, options)
        namespace_held = qualified(info) == "namespaces" and (obj.get("spec") or {}).get("finalizers")
        if not (meta.get("finalizers") or namespace_held or grace):
            meta.setdefault("deletionTimestamp", self._clock.stamp())
            meta["deletionGracePeriodSeconds"] = 0
            return await self._remove(call, record, obj)
        if not self._mark(obj, grace, tracks=tracks_generation(info)) and not _differs(record, obj):
            return to_served(record.value, info), False
        if namespace_held:
            obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        if is_finished(obj):
            return await self._remove(call, record, obj)
        if call.dry_run or options.dry_run:
            return to_served(stored(obj, info, record.revision), info), False
        bucket, key = bucket_of(info), key_of(info, call.namespace, call.name)
        written = await self._storage.update(bucket, key, record.revision, lambda r: stored(obj, info, r))
        return to_served(written.value, info), False

    async def _remove(self, call: Call, record: Record, obj: Object) -> tuple[bytes, bool]:
        info = call.info
        if not call.dry_run:
            bucket, key = bucket_of(info), key_of(info, call.namespace, call.name)
            await self._storage.delete(bucket, key, record.revision, lambda r: stored(obj, info, r))
        return removed(call, obj), True

    def _grace(self, call: Call, obj: Object, options: DeleteOptions) -> int:
        """Seconds a pod gets to stop; 0 removes it at once. Only pods are stopped gracefully."""
        if qualified(call.info) != "pods":
            return 0
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        if not spec.get("nodeName") or status.get("phase") in {"Succeeded", "Failed"}:
            return 0
        grace = options.grace
        if grace is None:
            if obj["metadata"].get("deletionTimestamp"):
                return int(obj["metadata"].get("deletionGracePeriodSeconds") or 0)
            found = spec.get("terminationGracePeriodSeconds")
            grace = found if isinstance(found, int) else 30
        return 1 if grace < 0 else grace

    def _mark(self, obj: Object, grace: int, *, tracks: bool) -> bool:
        """Set or shorten the deletion time; False when it stays as it was."""
        meta = obj["metadata"]
        now = self._clock.now()
        began = parse_time(meta.get("deletionTimestamp"))
        current = int(meta.get("deletionGracePeriodSeconds") or 0)
        if began is not None and grace >= current:
            return False
        started = began - timedelta(seconds=current) if began is not None else now
        meta["deletionTimestamp"] = format_time(max(started + timedelta(seconds=grace), started))
        meta["deletionGracePeriodSeconds"] = grace
        if tracks and began is None:
            meta["generation"] = meta.get("generation", 0) + 1
        return True

    @staticmethod
    def _propagate(meta: dict[str, Any], options: DeleteOptions) -> None:
        """Turn the policy into the finalizers that the garbage collector acts on."""
        if not options.propagation:
            return
        finalizers = [f for f in meta.get("finalizers") or () if f not in {_FOREGROUND, _ORPHAN}]
        if options.propagation == "Foreground":
            finalizers.append(_FOREGROUND)
        elif options.propagation == "Orphan":
            finalizers.append(_ORPHAN)
        if finalizers:
            meta["finalizers"] = finalizers
        else:
            meta.pop("finalizers", None)


def _differs(record: Record, obj: Object) -> bool:
    before: list[str] = decode(record.value)["metadata"].get("finalizers") or []
    return before != (obj["metadata"].get("finalizers") or [])


def removed(call: Call, obj: Object) -> bytes:
    """The ``Status`` that answers a deletion."""
    details: dict[str, Any] = {"name": call.name}
    if call.group:
        details["group"] = call.group
    details |= {"kind": call.resource, "uid": obj["metadata"].get("uid", "")}
    return encode(
        {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    )
