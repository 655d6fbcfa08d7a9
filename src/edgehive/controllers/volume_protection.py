"""Lets go of deleted claims and volumes when nothing uses them any more, as Kubernetes' protection controllers do."""

from edgehive.controllers.binding import decode_claim, decode_volume, is_for
from edgehive.controllers.context import Context
from edgehive.controllers.objects import Pod, decode_pod, pod_claims
from edgehive.controllers.runtime import Workers, by_namespace
from edgehive.controllers.volume_writes import readable
from edgehive.kube.api import ListOptions
from edgehive.kube.protection import CLAIM_IN_USE, VOLUME_IN_USE
from edgehive.kube.reflector import CachedObject, Change
from edgehive.kube.refs import CLAIMS, GVR, PODS, VOLUMES


class VolumeProtection:
    """Takes the finalizer off claims that no pod on a node has, and off volumes that are not bound.

    Admission puts it on new ones; those made before it did get it here.
    """

    name = "storage-protection"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pods = context.informers.full(PODS)
        self._claims = context.informers.full(CLAIMS)
        self._volumes = context.informers.full(VOLUMES)
        self._pods.add_index(self.name, by_namespace)
        self._workers: Workers[tuple[str, str]] = Workers(
            name=self.name, reconcile=self._reconcile, counters=context.counters, count=1
        )
        self._claims.subscribe(lambda change: self._workers.add(change.object.key))
        self._volumes.subscribe(lambda change: self._workers.add(change.object.key))
        self._pods.subscribe(self._pod_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        for informer in (self._pods, self._claims, self._volumes):
            await informer.synced()
        await self._workers.run()

    def _pod_changed(self, change: Change) -> None:
        if change.new is None and (pod := readable(change.object, decode_pod)) is not None:
            for name in pod_claims(pod):
                self._workers.add((pod.metadata.namespace, name))

    async def _reconcile(self, key: tuple[str, str]) -> None:
        namespace, name = key
        cached = (self._claims if namespace else self._volumes).get(namespace, name)
        if cached is None:
            return
        gvr, finalizer = (CLAIMS, CLAIM_IN_USE) if namespace else (VOLUMES, VOLUME_IN_USE)
        held = finalizer in (cached.meta.finalizers or ())
        if cached.meta.deletion_timestamp is None:
            if not held:
                await self._write(gvr, cached, [*(cached.meta.finalizers or ()), finalizer])
        elif held and not (await self._claim_in_use(key) if namespace else self._is_bound(cached)):
            rest = [one for one in cached.meta.finalizers or () if one != finalizer]
            await self._write(gvr, cached, rest)

    async def _write(self, gvr: GVR, cached: CachedObject, finalizers: list[str]) -> None:
        await self._context.patch(gvr, cached.meta, {"metadata": {"finalizers": finalizers}}, locked=True)

    def _is_bound(self, cached: CachedObject) -> bool:
        volume = readable(cached, decode_volume)
        if volume is None:
            return False
        reference = volume.spec.claim_ref
        if reference is None or not reference.uid or volume.status.phase == "Bound":
            return volume.status.phase == "Bound"
        claim = readable(self._claims.get(reference.namespace, reference.name), decode_claim)
        return claim is not None and is_for(volume, claim)

    async def _claim_in_use(self, key: tuple[str, str]) -> bool:
        """Ask the mirror, and before a claim may go the API server: a pod may just have got its node."""
        namespace, _ = key
        mirrored = self._pods.by_index(self.name, namespace)
        if any(_uses(readable(one, decode_pod), key) for one in mirrored):
            return True
        options = ListOptions(namespace=namespace)
        while True:
            page = await self._context.api.list(PODS, options)
            if any(_uses(decode_pod(raw), key) for raw in page.items):
                return True
            if not page.continue_token:
                return False
            options = ListOptions(namespace=namespace, continue_token=page.continue_token)


def _uses(pod: Pod | None, key: tuple[str, str]) -> bool:
    """Whether a pod that has a node has the claim; one without is refused by the scheduler."""
    return pod is not None and bool(pod.spec.node_name) and key[1] in pod_claims(pod)
