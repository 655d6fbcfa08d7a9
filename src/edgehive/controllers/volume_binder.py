"""Binds claims to the persistent volumes that are there; nothing is provisioned, and nothing of a volume is deleted."""

from typing import Any, Final, Literal

from edgehive.controllers.binding import (
    BOUND_BY_CONTROLLER,
    Claim,
    choose,
    decode_claim,
    decode_class,
    decode_volume,
    is_for,
    phase_of,
)
from edgehive.controllers.context import Context
from edgehive.controllers.recorder import Subject
from edgehive.controllers.runtime import Workers
from edgehive.controllers.volume_writes import bind_claim, readable
from edgehive.kube.reflector import CachedObject, Change
from edgehive.kube.refs import CLAIMS, STORAGECLASSES, VOLUMES

_PROVISIONER: Final = (
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
)


class VolumeBinder:
    """One at a time, so that no volume goes to two claims; the volume's side is written first.

    Claims of a class that waits for a pod are bound by the scheduler.
    """

    name = "persistentvolume-binder"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._claims = context.informers.full(CLAIMS)
        self._volumes = context.informers.full(VOLUMES)
        self._classes = context.informers.full(STORAGECLASSES)
        self._recorder = context.events.recorder("persistentvolume-controller")
        self._told: dict[str, str] = {}
        self._workers: Workers[tuple[str, str]] = Workers(
            name=self.name, reconcile=self._reconcile, counters=context.counters, count=1
        )
        self._claims.subscribe(self._claim_changed)
        self._volumes.subscribe(self._volume_changed)
        self._classes.subscribe(lambda _: self._try_waiting())

    async def run(self) -> None:
        """Work until cancelled."""
        for informer in (self._claims, self._volumes, self._classes):
            await informer.synced()
        await self._workers.run()

    def _claim_changed(self, change: Change) -> None:
        if change.new is None:
            self._told.pop(change.object.meta.uid, None)
        self._workers.add(change.object.key)
        claim = readable(change.object, decode_claim)
        if claim is not None and claim.spec.volume_name:
            self._workers.add(("", claim.spec.volume_name))

    def _volume_changed(self, change: Change) -> None:
        self._workers.add(("", change.object.meta.name))
        self._try_waiting(change.object.meta.name)

    def _try_waiting(self, volume: str = "") -> None:
        """Look again at the claims that have no volume, and at the one that has `volume`."""
        for cached in self._claims.items():
            claim = readable(cached, decode_claim)
            if claim is not None and (
                claim.status.phase != "Bound" or (volume and claim.spec.volume_name == volume)
            ):
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
        """Bring a volume's phase up to date; free it if it was promised to a claim that took another."""
        volume = readable(cached, decode_volume)
        if volume is None:
            return
        reference = volume.spec.claim_ref
        found = self._claims.get(reference.namespace, reference.name) if reference is not None else None
        claim = readable(found, decode_claim)
        if (
            claim is not None
            and is_for(volume, claim)
            and claim.spec.volume_name not in ("", volume.metadata.name)
            and BOUND_BY_CONTROLLER in (volume.metadata.annotations or {})
        ):
            change = {"spec": {"claimRef": None}, "metadata": {"annotations": {BOUND_BY_CONTROLLER: None}}}
            await self._context.patch(VOLUMES, cached.meta, change, locked=True)
            return
        phase = phase_of(volume, claim)
        if phase != volume.status.phase:
            await self._context.patch(
                VOLUMES, cached.meta, {"status": {"phase": phase}}, subresource="status"
            )

    async def _bind(self, cached: CachedObject) -> None:
        claim = readable(cached, decode_claim)
        if claim is None:
            return
        kind = readable(self._classes.get("", claim.spec.storage_class_name or ""), decode_class)
        waits = kind is not None and kind.waits
        volumes = [
            found for one in self._volumes.items() if (found := readable(one, decode_volume)) is not None
        ]
        chosen = choose(claim, volumes, waits=waits)
        if chosen is None:
            if claim.status.phase in ("Bound", "Lost"):
                await self._tell(cached, claim, {"phase": "Lost"})
                return
            if not claim.spec.volume_name:
                provisioner = kind.provisioner if kind is not None and kind.provisions else ""
                await self._explain(
                    cached, claim, waits=waits, known=kind is not None, provisioner=provisioner
                )
            await self._tell(cached, claim, {"phase": "Pending"})
            return
        await bind_claim(self._context, claim, chosen)
        self._told.pop(cached.meta.uid, None)
        for volume in volumes:
            if volume is chosen or is_for(volume, claim):
                self._workers.add(("", volume.metadata.name))

    async def _explain(
        self, cached: CachedObject, claim: Claim, *, waits: bool, known: bool, provisioner: str
    ) -> None:
        """Say on the claim what it waits for; a provisioner finds its claims by the annotations."""
        name = claim.spec.storage_class_name
        if waits and not claim.selected_node:
            text = "waiting for first consumer to be created before binding"
            self._say(cached, "Normal", "WaitForFirstConsumer", text)
        elif not name:
            text = "no persistent volumes available for this claim and no storage class is set"
            self._say(cached, "Normal", "FailedBinding", text)
        elif not known:
            text = f'storageclass.storage.k8s.io "{name}" not found'
            self._say(cached, "Warning", "ProvisioningFailed", text)
        elif provisioner:
            notes = dict.fromkeys(_PROVISIONER, provisioner)
            if not notes.items() <= (cached.meta.annotations or {}).items():
                await self._context.patch(CLAIMS, cached.meta, {"metadata": {"annotations": notes}})
            text = (
                f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or "
            )
            text += (
                "manually by the system administrator. If volume creation is delayed, please verify that the "
            )
            self._say(
                cached,
                "Normal",
                "ExternalProvisioning",
                text + "provisioner is running and correctly registered.",
            )

    def _say(self, cached: CachedObject, kind: Literal["Normal", "Warning"], reason: str, text: str) -> None:
        """Tell it once, not at every change of some volume."""
        if self._told.get(cached.meta.uid) != text:
            self._told[cached.meta.uid] = text
            self._recorder.event(Subject("v1", "PersistentVolumeClaim", cached.meta), kind, reason, text)

    async def _tell(self, cached: CachedObject, claim: Claim, status: dict[str, Any]) -> None:
        if claim.status.phase != status["phase"]:
            await self._context.patch(CLAIMS, cached.meta, {"status": status}, subresource="status")
