"""What scheduler and binder share of volumes: the picture of them, and the writes that bind a claim."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from edgehive.controllers.binding import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    SELECTED_NODE,
    Claim,
    Volume,
    decode_claim,
    decode_class,
    decode_volume,
    is_for,
)
from edgehive.controllers.context import Context
from edgehive.controllers.scheduling_volumes import Plan, VolumeState
from edgehive.kit.errors import ProtocolError
from edgehive.kube.reflector import CachedObject, Change
from edgehive.kube.refs import CLAIMS, STORAGECLASSES, VOLUMES
from edgehive.kube.status import ApiStatus

_Kind = TypeVar("_Kind", bound=msgspec.Struct)


def readable(cached: CachedObject | None, decode: Callable[[bytes], _Kind]) -> _Kind | None:
    """Decode an object of an informer; None when there is none or it makes no sense."""
    try:
        return decode(cached.raw) if cached is not None else None
    except ProtocolError:
        return None


async def bind_claim(context: Context, claim: Claim, volume: Volume) -> None:
    """Write that `claim` has `volume`: the volume first, so that no volume goes to two claims, then the claim.

    Idempotent; each write is refused if the object is no longer what was decided on.

    Raises:
        ApiStatus: 409 when claim or volume went another way meanwhile; or what the API server says.
    """
    meta = claim.metadata
    current = readable(context.informers.full(VOLUMES).get("", volume.metadata.name), decode_volume)
    reference = current.spec.claim_ref if current is not None else None
    if (
        current is None
        or (reference is not None and not is_for(current, claim))
        or (current.metadata.deletion_timestamp is not None and (reference is None or not reference.uid))
    ):
        raise _lost(f"volume {volume.metadata.name} is no longer free")
    if reference is None or not reference.uid:
        wanted = {
            "kind": "PersistentVolumeClaim",
            "apiVersion": "v1",
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
        }
        change: dict[str, Any] = {"spec": {"claimRef": wanted}}
        if reference is None:
            change["metadata"] = {"annotations": {BOUND_BY_CONTROLLER: "yes"}}
        await context.patch(VOLUMES, current.metadata, change, locked=True)
    found = readable(context.informers.full(CLAIMS).get(*claim.key), decode_claim)
    if found is None or found.metadata.uid != meta.uid:
        raise _lost(f"claim {meta.namespace}/{meta.name} is gone")
    if found.spec.volume_name not in ("", volume.metadata.name):
        raise _lost(f"claim {meta.namespace}/{meta.name} has another volume")
    if not found.bound:
        notes = {BIND_COMPLETED: "yes"}
        if not found.spec.volume_name:
            notes[BOUND_BY_CONTROLLER] = "yes"
        change = {"spec": {"volumeName": volume.metadata.name}, "metadata": {"annotations": notes}}
        await context.patch(CLAIMS, found.metadata, change, locked=True)
    if found.status.phase != "Bound":
        status = {
            "phase": "Bound",
            "accessModes": current.spec.access_modes,
            "capacity": dict(current.spec.capacity),
        }
        await context.patch(CLAIMS, meta, {"status": status}, subresource="status")


def _lost(why: str) -> ApiStatus:
    return ApiStatus(409, "Conflict", why)


class VolumeWatch:
    """Keeps the scheduler's picture of claims, volumes and classes, and carries out what it decides."""

    def __init__(self, context: Context, changed: Callable[[], None]) -> None:
        self._context = context
        self._changed = changed
        self.state = VolumeState()
        self._informers = [context.informers.full(gvr) for gvr in (CLAIMS, VOLUMES, STORAGECLASSES)]
        claims, volumes, classes = self._informers
        claims.subscribe(self._claim_changed)
        volumes.subscribe(self._volume_changed)
        classes.subscribe(self._class_changed)

    async def synced(self) -> None:
        """Wait until the first lists are there."""
        for informer in self._informers:
            await informer.synced()

    async def carry_out(self, plan: Plan, node: str) -> None:
        """Bind what `plan` matches, and ask for what it wants made for `node`; the plan is forgotten then.

        Raises:
            ApiStatus: something was refused; what was written before stays, and is found by the next attempt.
        """
        try:
            for match in plan.matches:
                await bind_claim(self._context, match.claim, match.volume)
            for claim in plan.provision:
                if claim.selected_node != node:
                    change = {"metadata": {"annotations": {SELECTED_NODE: node}}}
                    await self._context.patch(CLAIMS, claim.metadata, change)
        finally:
            self.state.forget(plan)
            if plan.matches or any(claim.selected_node != node for claim in plan.provision):
                self._changed()

    def _claim_changed(self, change: Change) -> None:
        if self.state.set_claim(change.object.key, readable(change.new, decode_claim)):
            self._changed()

    def _volume_changed(self, change: Change) -> None:
        if self.state.set_volume(change.object.meta.name, readable(change.new, decode_volume)):
            self._changed()

    def _class_changed(self, change: Change) -> None:
        self.state.set_class(change.object.meta.name, readable(change.new, decode_class))
        self._changed()
