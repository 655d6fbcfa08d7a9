"""Pods nobody else clears away: of nodes that are gone, deleted before they got a node, finished in masses."""

import asyncio
import logging

from edgehive.controllers.context import Context
from edgehive.controllers.objects import Pod, decode_pod, pod_finished
from edgehive.kit.errors import EdgehiveError
from edgehive.kube.reflector import CachedObject
from edgehive.kube.refs import NODES, PODS
from edgehive.kube.status import ApiStatus

log = logging.getLogger(__name__)

_INTERVAL = 20.0
_QUARANTINE = 40.0  # a node that reappears within that time keeps its pods


def surplus_finished(pods: list[tuple[CachedObject, Pod]], threshold: int) -> list[CachedObject]:
    """Return the oldest finished pods beyond `threshold`."""
    done = [cached for cached, pod in pods if pod_finished(pod) and cached.meta.deletion_timestamp is None]
    done.sort(key=lambda cached: (cached.meta.creation_timestamp or "", cached.key))
    return done[: max(0, len(done) - threshold)] if threshold > 0 else []


class PodGarbage:
    """Looks every 20 s."""

    name = "pod-gc"

    def __init__(self, context: Context, *, threshold: int) -> None:
        self._context = context
        self._threshold = threshold
        self._nodes = context.informers.full(NODES)
        self._pods = context.informers.full(PODS)
        self._missing: dict[str, float] = {}

    async def run(self) -> None:
        """Collect until cancelled."""
        await self._nodes.synced()
        await self._pods.synced()
        while True:
            try:
                await self.collect(asyncio.get_running_loop().time())
            except EdgehiveError as exc:
                log.warning("pod garbage: %s", exc)
            await asyncio.sleep(_INTERVAL)

    async def collect(self, now: float) -> None:
        """Do one round."""
        pods = [(cached, decode_pod(cached.raw)) for cached in self._pods.items()]
        for cached in surplus_finished(pods, self._threshold):
            await self._remove(cached, fail=False)
        for cached, pod in pods:
            if not pod.spec.node_name and cached.meta.deletion_timestamp is not None:
                await self._remove(cached, fail=False)
        named = {pod.spec.node_name for _, pod in pods if pod.spec.node_name}
        missing = {name for name in named if self._nodes.get("", name) is None}
        self._missing = {name: self._missing.get(name, now) for name in missing}
        for name, since in list(self._missing.items()):
            if now - since >= _QUARANTINE and await self._really_gone(name):
                for cached, pod in pods:
                    if pod.spec.node_name == name:
                        await self._remove(cached, fail=not pod_finished(pod))

    async def _really_gone(self, name: str) -> bool:
        try:
            await self._context.api.get(NODES, name)
        except ApiStatus as exc:
            return exc.code == 404
        return False

    async def _remove(self, cached: CachedObject, *, fail: bool) -> None:
        if fail:
            try:
                failed = {"status": {"phase": "Failed"}}
                await self._context.patch(PODS, cached.meta, failed, subresource="status")
            except ApiStatus as exc:
                log.debug("pod %s/%s: %s", *cached.key, exc)
        if await self._context.delete_pod(cached, gracePeriodSeconds=0):
            self._context.counters["pods_collected"] += 1
            log.info("removed pod %s/%s", *cached.key)
