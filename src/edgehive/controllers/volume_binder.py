"""Binds claims to the persistent volumes that are there; nothing is provisioned, and nothing of a volume is deleted."""

from typing import Any, Final, TypeVar

import msgspec

from edgehive.controllers.binding import Claim, Volume, choose, is_for, phase_of
from edgehive.controllers.context import Context
from edgehive.controllers.runtime import Workers
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.reflector import CachedObject, Change
from edgehive.kube.refs import GVR

CLAIMS: Final = GVR("", "v1", "persistentvolumeclaims")
VOLUMES: Final = GVR("", "v1", "persistentvolumes")
_DONE: Final = "pv.kubernetes.io/bind-completed"
_OURS: Final = "pv.kubernetes.io/bound-by-controller"

_Kind = TypeVar("_Kind", Claim, Volume)


class VolumeBinder:
    """One at a time, so that no volume goes to two claims; the volume's side is written first."""

    name = "persistentvolume-binder"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._claims = context.informers.full(CLAIMS)
        self._volumes = context.informers.full(VOLUMES)
        self._workers: Workers[tuple[str, str]] = Workers(
            name=self.name, reconcile=self._reconcile, counters=context.counters, count=1
        )
        self._claims.subscribe(self._claim_changed)
        self._volumes.subscribe(self._volume_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._claims.synced()
        await self._volumes.synced()
        await self._workers.run()

    def _claim_changed(self, change: Change) -> None:
        self._workers.add(change.object.key)
        claim = _decode(change.object, Claim)
        if claim is not None and claim.spec.volume_name:
            self._workers.add(("", claim.spec.volume_name))

    def _volume_changed(self, change: Change) -> None:
        name = change.object.meta.name
        self._workers.add(("", name))
        for cached in self._claims.items():
            claim = _decode(cached, Claim)
            if claim is not None and (claim.status.phase != "Bound" or claim.spec.volume_name == name):
                self._workers.add(cached.key)

    async def _reconcile(self, key: tuple[str, str]) -> None:
        namespace, name = key
        if namespace:
            cached = self._claims.get(namespace, name)
            if cached is not None and cached.meta.deletion_timestamp is None:
                await self._bind(cached)
        elif (cached := self._volumes.get("", name)) is not None:
            await self._settle(cached)

    async def _settle(self, cached: CachedObject) -> None:
        """Bring a volume's phase up to date."""
        volume = _decode(cached, Volume)
        if volume is None:
            return
        reference = volume.spec.claim_ref
        found = self._claims.get(reference.namespace, reference.name) if reference is not None else None
        phase = phase_of(volume, _decode(found, Claim) if found is not None else None)
        if phase != volume.status.phase:
            await self._context.patch(
                VOLUMES, cached.meta, {"status": {"phase": phase}}, subresource="status"
            )

    async def _bind(self, cached: CachedObject) -> None:
        claim = _decode(cached, Claim)
        if claim is None:
            return
        pairs = [
            (volume, one) for one in self._volumes.items() if (volume := _decode(one, Volume)) is not None
        ]
        chosen = choose(claim, [volume for volume, _ in pairs])
        if chosen is None:
            phase = "Lost" if claim.status.phase in ("Bound", "Lost") else "Pending"
            await self._tell(cached, claim, {"phase": phase})
            return
        home = next(one for volume, one in pairs if volume is chosen)
        reference = chosen.spec.claim_ref
        if reference is None or not reference.uid:
            wanted = {
                "kind": "PersistentVolumeClaim",
                "apiVersion": "v1",
                "namespace": cached.meta.namespace,
                "name": cached.meta.name,
                "uid": cached.meta.uid,
            }
            change: dict[str, Any] = {"spec": {"claimRef": wanted}}
            if not is_for(chosen, claim):
                change["metadata"] = {"annotations": {_OURS: "yes"}}
            await self._context.patch(VOLUMES, home.meta, change, locked=True)
        if claim.spec.volume_name != chosen.metadata.name or _DONE not in (cached.meta.annotations or {}):
            notes = {_DONE: "yes"} if claim.spec.volume_name else {_DONE: "yes", _OURS: "yes"}
            change = {"spec": {"volumeName": chosen.metadata.name}, "metadata": {"annotations": notes}}
            await self._context.patch(CLAIMS, cached.meta, change)
        status = {
            "phase": "Bound",
            "accessModes": chosen.spec.access_modes,
            "capacity": dict(chosen.spec.capacity),
        }
        await self._tell(cached, claim, status)
        self._workers.add(("", chosen.metadata.name))

    async def _tell(self, cached: CachedObject, claim: Claim, status: dict[str, Any]) -> None:
        if claim.status.phase != status["phase"]:
            await self._context.patch(CLAIMS, cached.meta, {"status": status}, subresource="status")


def _decode(cached: CachedObject, kind: type[_Kind]) -> _Kind | None:
    try:
        return msgspec.json.decode(cached.raw, type=kind)
    except MALFORMED:
        return None
