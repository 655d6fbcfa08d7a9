"""Makes the claims of pods' ``ephemeral`` volumes; they go with their pod, by owner reference."""

from typing import Any

from edgehive.controllers.context import Context
from edgehive.controllers.objects import Pod, decode_pod, pod_active
from edgehive.controllers.runtime import Workers
from edgehive.controllers.volume_writes import readable
from edgehive.kube.reflector import Change
from edgehive.kube.refs import CLAIMS, PODS
from edgehive.kube.status import ApiStatus


class EphemeralClaims:
    """One claim per ephemeral volume, named after pod and volume, owned by the pod.

    A claim of that name that is somebody else's is left alone; the scheduler says so on the pod.
    """

    name = "ephemeral-volume"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pods = context.informers.full(PODS)
        self._claims = context.informers.full(CLAIMS)
        self._workers: Workers[tuple[str, str]] = Workers(
            name=self.name, reconcile=self._reconcile, counters=context.counters, count=1
        )
        self._pods.subscribe(self._pod_changed)
        self._claims.subscribe(self._claim_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._pods.synced()
        await self._claims.synced()
        await self._workers.run()

    def _pod_changed(self, change: Change) -> None:
        pod = readable(change.new, decode_pod)
        if pod is not None and ephemeral_claims(pod):
            self._workers.add(change.object.key)

    def _claim_changed(self, change: Change) -> None:
        """A claim that went makes room for the one of a pod of the same name that came meanwhile."""
        if change.new is None:
            for owner in change.object.meta.owner_references or ():
                if owner.kind == "Pod":
                    self._workers.add((change.object.meta.namespace, owner.name))

    async def _reconcile(self, key: tuple[str, str]) -> None:
        pod = readable(self._pods.get(*key), decode_pod)
        if pod is None or not pod_active(pod):
            return
        for claim in ephemeral_claims(pod):
            if self._claims.get(pod.metadata.namespace, claim["metadata"]["name"]) is None:
                await self._create(pod, claim)

    async def _create(self, pod: Pod, claim: dict[str, Any]) -> None:
        try:
            await self._context.create(CLAIMS, pod.metadata.namespace, claim)
        except ApiStatus as exc:
            if exc.reason != "AlreadyExists":
                raise


def ephemeral_claims(pod: Pod) -> list[dict[str, Any]]:
    """Return the claims that the ephemeral volumes of `pod` stand for."""
    owner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": pod.metadata.name,
        "uid": pod.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    found = []
    for volume in pod.spec.volumes or ():
        template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
        if isinstance(template, dict):
            meta = template.get("metadata") or {}
            kept = {key: meta[key] for key in ("labels", "annotations") if meta.get(key)}
            name = f"{pod.metadata.name}-{volume.get('name', '')}"
            found.append(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {**kept, "name": name, "ownerReferences": [owner]},
                    "spec": template.get("spec") or {},
                }
            )
    return found
