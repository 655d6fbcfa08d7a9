"""Taint-based eviction: pods leave nodes with NoExecute taints when their tolerations run out."""

import asyncio

from edgehive.controllers.context import Context
from edgehive.controllers.liveness import eviction_delay, pod_tolerations
from edgehive.controllers.objects import Node, by_node, decode_node, decode_pod
from edgehive.controllers.recorder import Subject
from edgehive.controllers.runtime import Workers
from edgehive.kube.reflector import Change, Key
from edgehive.kube.refs import NODES, PODS


class TaintEviction:
    """Deletes the pods that must not stay where they are."""

    name = "taint-eviction"

    def __init__(self, context: Context, *, default_seconds: int) -> None:
        self._context = context
        self._default_seconds = default_seconds
        self._nodes = context.informers.full(NODES)
        self._pods = context.informers.full(PODS)
        self._pods.add_index("node", by_node)
        self._recorder = context.events.recorder("taint-eviction-controller")
        self._since: dict[str, float] = {}  # pod uid -> when it first had to count its seconds
        self._workers: Workers[Key] = Workers(
            name=self.name, reconcile=self._reconcile, counters=context.counters, count=2
        )
        self._nodes.subscribe(self._node_changed)
        self._pods.subscribe(self._pod_changed)

    async def run(self) -> None:
        """Evict until cancelled."""
        await self._nodes.synced()
        await self._pods.synced()
        await self._workers.run()

    def _node_changed(self, change: Change) -> None:
        if change.new is None:
            return
        old = _evicting(decode_node(change.old.raw)) if change.old is not None else ()
        if _evicting(decode_node(change.new.raw)) != old:
            for cached in self._pods.by_index("node", change.new.meta.name):
                self._workers.add(cached.key)

    def _pod_changed(self, change: Change) -> None:
        if change.new is None:
            self._since.pop(change.object.meta.uid, None)
            return
        pod = decode_pod(change.new.raw)
        node = self._nodes.get("", pod.spec.node_name) if pod.spec.node_name else None
        if node is not None and _evicting(decode_node(node.raw)):
            self._workers.add(change.new.key)

    async def _reconcile(self, key: Key) -> float | None:
        cached = self._pods.get(*key)
        if cached is None or cached.meta.deletion_timestamp is not None:
            return None
        pod = decode_pod(cached.raw)
        node = self._nodes.get("", pod.spec.node_name)
        taints = decode_node(node.raw).spec.taints or () if node is not None else ()
        delay = eviction_delay(pod_tolerations(pod.spec, pod.metadata, self._default_seconds), taints)
        if delay is None:
            self._since.pop(cached.meta.uid, None)
            return None
        now = asyncio.get_running_loop().time()
        left = self._since.setdefault(cached.meta.uid, now) + delay - now
        if left > 0:
            return left
        message = f"Marking for deletion Pod {key[0]}/{key[1]}"
        self._recorder.event(Subject("v1", "Pod", cached.meta), "Normal", "TaintManagerEviction", message)
        await self._context.delete_pod(cached)
        self._context.counters["pods_evicted"] += 1
        return None


def _evicting(node: Node) -> tuple[tuple[str, str], ...]:
    return tuple((t.key, t.value) for t in node.spec.taints or () if t.effect == "NoExecute")
