"""The node lifecycle controller: silent nodes become Unknown, conditions become taints."""

import asyncio
import logging

from edgehive.controllers.context import Context
from edgehive.controllers.liveness import (
    Disruption,
    Grace,
    Heartbeats,
    autonomous,
    disruption,
    heartbeat,
    overdue,
    readiness,
    silenced,
    taints_json,
    wanted_taints,
)
from edgehive.controllers.objects import (
    Condition,
    Node,
    by_node,
    condition,
    decode_lease,
    decode_node,
    decode_pod,
    pod_ready,
)
from edgehive.controllers.recorder import Subject
from edgehive.controllers.replicas import conditions_json, set_condition
from edgehive.controllers.runtime import Workers
from edgehive.kube.reflector import Change
from edgehive.kube.refs import LEASES, NODES, PODS
from edgehive.kube.status import ApiStatus

log = logging.getLogger(__name__)

_LEASE_NAMESPACE = "kube-node-lease"
_EVICTION_INTERVAL = 10.0  # at most one more node is emptied in that time
_LOST = "NodeNotReady"
_LOOK_AGAIN = 5.0
_TICK = 5.0


class NodeLifecycle:
    """Watches the heartbeat of nodes: their leases and the Ready condition's heartbeat time.

    Silence is measured by our own clock from the moment we saw something change, as Kubernetes does, so that
    neither a wrong clock on a node nor our own restart makes nodes look dead.
    """

    name = "node-lifecycle"

    def __init__(self, context: Context, *, grace: Grace, edge_autonomy: bool) -> None:
        self._context = context
        self._grace = grace
        self._edge_autonomy = edge_autonomy
        self._nodes = context.informers.full(NODES)
        self._leases = context.informers.full(LEASES)
        self._pods = context.informers.full(PODS)
        self._pods.add_index("node", by_node)
        self._recorder = context.events.recorder("node-controller")
        self._heartbeats = Heartbeats()
        self._marked: dict[str, bool] = {}  # node -> whether its pods were last marked as lost
        self._last_eviction = float("-inf")
        self._workers: Workers[str] = Workers(
            name=self.name, reconcile=self._reconcile, counters=context.counters, count=2
        )
        self._nodes.subscribe(self._node_changed)
        self._leases.subscribe(self._lease_changed)

    async def run(self) -> None:
        """Watch until cancelled."""
        for informer in (self._nodes, self._leases, self._pods):
            await informer.synced()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(), name="node-lifecycle tick")
            group.create_task(self._workers.run(), name="node-lifecycle workers")

    async def _tick(self) -> None:
        while True:
            self._heartbeats.tick(asyncio.get_running_loop().time())
            await asyncio.sleep(_TICK)

    def _node_changed(self, change: Change) -> None:
        name = change.object.meta.name
        if change.new is None:
            self._heartbeats.forget(name)
            self._marked.pop(name, None)
            for cached in self._nodes.items():  # how much is disrupted may have changed for the others
                self._workers.add(cached.meta.name)
        self._workers.add(name)

    def _lease_changed(self, change: Change) -> None:
        # A renewal only moves the time of the next look, unless the node is thought to be lost.
        if change.object.meta.namespace == _LEASE_NAMESPACE and change.new is not None:
            cached = self._nodes.get("", change.new.meta.name)
            if cached is None:
                return
            node = decode_node(cached.raw)
            self._hear(node)
            if readiness(node) != "True":
                self._workers.add(cached.meta.name)

    def _hear(self, node: Node) -> float:
        """Note signs of life; return for how long there have been none."""
        name = node.metadata.name
        lease = self._leases.get(_LEASE_NAMESPACE, name)
        renewed = (decode_lease(lease.raw).spec.renew_time or "") if lease else ""
        return self._heartbeats.hear(name, (renewed, heartbeat(node)), asyncio.get_running_loop().time())

    async def _reconcile(self, name: str) -> float | None:
        cached = self._nodes.get("", name)
        if cached is None:
            return None
        node = decode_node(cached.raw)
        left = overdue(node, self._hear(node), self._grace)
        if left <= 0:
            node = await self._silence(node)
        state = readiness(node)
        lost = state != "True"
        reported = condition(node.status.conditions, "Ready") is not None
        if reported and self._marked.get(name) is not lost:
            await self._mark_pods(node, lost=lost)
            self._marked[name] = lost
        await self._taint(node, state)
        emptied = any(t.effect == "NoExecute" for t in node.spec.taints or ())
        waits = [left] if left > 0 else []
        if state != "True" and not emptied:
            waits.append(_LOOK_AGAIN)  # whether it may be emptied depends on the others, too
        return min(waits, default=None)

    async def _silence(self, node: Node) -> Node:
        """Mark a node Unknown, if it is not."""
        conditions = silenced(node, self._context.clock())
        if conditions == tuple(node.status.conditions or ()):
            return node
        log.info("node %s has not been heard of for %.0f s", node.metadata.name, self._grace.running)
        change = {"status": {"conditions": conditions_json(conditions)}}
        raw = await self._context.patch(NODES, node.metadata, change, subresource="status", locked=True)
        subject = Subject("v1", "Node", node.metadata)
        message = f"Node {node.metadata.name} status is now: NodeNotReady"
        self._recorder.event(subject, "Normal", "NodeNotReady", message)
        self._context.counters["nodes_lost"] += 1
        return decode_node(raw)

    async def _taint(self, node: Node, state: str) -> None:
        now = asyncio.get_running_loop().time()
        evict = state != "True" and self._may_evict(node, now)
        taints = wanted_taints(node, self._context.clock(), evict=evict)
        if taints is None:
            return
        change = {"spec": {"taints": taints_json(taints) or None}}
        await self._context.patch(NODES, node.metadata, change, locked=True)
        had = any(t.effect == "NoExecute" for t in node.spec.taints or ())
        if evict and not had and any(t.effect == "NoExecute" for t in taints):
            self._last_eviction = now

    def _may_evict(self, node: Node, now: float) -> bool:
        if readiness(node) == "Unknown" and autonomous(node.metadata, default=self._edge_autonomy):
            return False
        states = [readiness(decode_node(cached.raw)) for cached in self._nodes.items()]
        if disruption(states) is not Disruption.NORMAL:
            return False
        return now - self._last_eviction >= _EVICTION_INTERVAL

    async def _mark_pods(self, node: Node, *, lost: bool) -> None:
        """Say that the pods of a lost node are not ready, or take that back.

        An edge that was only out of reach reports what has changed since, and nothing if nothing has: what we
        said about its pods is ours to take back. What it said itself carries another reason and stays.
        """
        for cached in self._pods.by_index("node", node.metadata.name):
            pod = decode_pod(cached.raw)
            ready = condition(pod.status.conditions, "Ready")
            ours = ready is not None and ready.status == "False" and ready.reason == _LOST
            if not (pod_ready(pod) if lost else ours):
                continue
            mark = Condition(type="Ready", status="False" if lost else "True", reason=_LOST if lost else "")
            conditions = set_condition(pod.status.conditions, mark, self._context.clock())
            change = {"status": {"conditions": conditions_json(conditions)}}
            try:
                await self._context.patch(PODS, cached.meta, change, subresource="status", locked=True)
            except ApiStatus as exc:
                if exc.code != 404:
                    raise
                continue
            if lost:
                subject = Subject("v1", "Pod", cached.meta)
                self._recorder.event(subject, "Warning", _LOST, "Node is not ready")
