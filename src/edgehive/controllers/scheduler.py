"""The scheduler: gives every pod without a node the best one, and says why when there is none."""

import asyncio
import logging
import random
from collections.abc import Callable

import msgspec

from edgehive.controllers.context import Context
from edgehive.controllers.objects import Condition, Pod, condition, decode_node, decode_pod, pod_finished
from edgehive.controllers.recorder import Subject
from edgehive.controllers.replicas import conditions_json, set_condition
from edgehive.controllers.scheduling import NoFit, Wait, schedule
from edgehive.controllers.scheduling_model import ClusterState, PodInfo, pod_info
from edgehive.controllers.scheduling_queue import PodQueue
from edgehive.controllers.scheduling_volumes import Plan
from edgehive.controllers.volume_writes import VolumeWatch
from edgehive.kit.errors import EdgehiveError
from edgehive.kube.api import WriteOptions
from edgehive.kube.reflector import Change, Key
from edgehive.kube.refs import NAMESPACES, NODES, PODS
from edgehive.kube.status import ApiStatus

log = logging.getLogger(__name__)

_BATCH = 32  # pods decided one after another, then bound together


class Scheduler:
    """Schedules the pods whose ``schedulerName`` is `scheduler_name`."""

    name = "scheduler"

    def __init__(
        self,
        context: Context,
        *,
        scheduler_name: str = "default-scheduler",
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._context = context
        self._scheduler_name = scheduler_name
        self._rng = rng
        self._cluster = ClusterState()
        self._queue = PodQueue()
        self._wake = asyncio.Event()
        self._pods = context.informers.full(PODS)
        self._nodes = context.informers.full(NODES)
        self._namespaces = context.informers.full(NAMESPACES)
        self._volumes = VolumeWatch(context, self._volumes_changed)
        self._recorder = context.events.recorder(scheduler_name)
        self._nodes.subscribe(self._node_changed)
        self._pods.subscribe(self._pod_changed)
        self._namespaces.subscribe(self._namespace_changed)

    async def run(self) -> None:
        """Schedule until cancelled."""
        for informer in (self._nodes, self._pods, self._namespaces):
            await informer.synced()
        await self._volumes.synced()
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            batch = self._queue.take(loop.time(), _BATCH)
            if batch:
                await self._schedule(batch)
                continue
            try:
                async with asyncio.timeout_at(self._queue.deadline()):
                    await self._wake.wait()
            except TimeoutError:
                continue  # a pod's back-off is over

    def _node_changed(self, change: Change) -> None:
        if change.new is None:
            self._cluster.drop_node(change.object.meta.name)
            return
        if self._cluster.set_node(decode_node(change.new.raw)):
            self._disturb()

    def _namespace_changed(self, change: Change) -> None:
        if change.new is None:
            self._cluster.namespaces.pop(change.object.meta.name, None)
        else:
            self._cluster.namespaces[change.new.meta.name] = change.new.meta.labels or {}

    def _pod_changed(self, change: Change) -> None:
        key, uid = change.object.key, change.object.meta.uid
        pod = decode_pod(change.new.raw) if change.new is not None else None
        if pod is None or pod_finished(pod):
            self._queue.remove(key)
            if self._cluster.remove(uid):
                self._disturb()
            return
        if pod.spec.node_name:
            self._queue.remove(key)
            info = self._compile(pod)
            if info is not None:
                self._cluster.place(info, pod.spec.node_name)
                self._disturb(relating_only=True)
        elif self._is_ours(pod) and not self._cluster.placed(uid):
            now = asyncio.get_running_loop().time()
            if change.old is None or _asks_anew(decode_pod(change.old.raw), pod):
                created = pod.metadata.creation_timestamp or ""
                self._queue.add(key, pod.spec.priority or 0, created, now)
                self._wake.set()
        else:
            self._queue.remove(key)

    def _is_ours(self, pod: Pod) -> bool:
        return (
            pod.metadata.deletion_timestamp is None
            and not pod.spec.scheduling_gates
            and (pod.spec.scheduler_name or "default-scheduler") == self._scheduler_name
        )

    def _disturb(self, *, relating_only: bool = False) -> None:
        self._queue.wake(asyncio.get_running_loop().time(), relating_only=relating_only)
        self._wake.set()

    def _volumes_changed(self) -> None:
        self._queue.wake_claiming(asyncio.get_running_loop().time())
        self._wake.set()

    def _compile(self, pod: Pod) -> PodInfo | None:
        try:
            return pod_info(pod)
        except ApiStatus as exc:
            log.warning("pod %s/%s: %s", pod.metadata.namespace, pod.metadata.name, exc)
            return None

    async def _schedule(self, batch: list[Key]) -> None:
        """Decide for each pod in turn, then write the decisions side by side."""
        async with asyncio.TaskGroup() as group:
            for key in batch:
                cached = self._pods.get(*key)
                pod = decode_pod(cached.raw) if cached is not None else None
                if pod is None or pod.spec.node_name or not self._is_ours(pod):
                    self._queue.remove(key)
                    continue
                info = self._compile(pod)
                if info is None:
                    self._queue.remove(key)
                    continue
                self._context.counters["scheduler_attempts"] += 1
                now = asyncio.get_running_loop().time()
                try:
                    result = schedule(info, self._cluster, self._rng, self._volumes.state)
                except Exception:  # one pod that breaks us must not stop all others
                    log.exception("pod %s/%s cannot be scheduled", *key)
                    self._queue.retry(key, now)
                    continue
                relates = bool(info.affinity or info.anti_affinity or info.spread)
                if isinstance(result, NoFit | Wait):
                    self._queue.park(key, now, relates=relates, claims=bool(info.claims))
                    if isinstance(result, NoFit):
                        group.create_task(self._explain(pod, result.message))
                    continue
                self._volumes.state.assume(result.plan)
                if result.plan.provision:
                    self._queue.park(key, now, relates=relates, claims=True)
                    group.create_task(self._provision(key, result.plan, result.node))
                else:
                    self._queue.remove(key)
                    self._cluster.place(info, result.node)
                    group.create_task(self._bind(key, pod, result.node, result.plan))

    async def _provision(self, key: Key, plan: Plan, node: str) -> None:
        """Say for which node volumes are to be made; the pod is tried again when they are there."""
        try:
            await self._volumes.carry_out(plan, node)
        except EdgehiveError as exc:
            log.warning("claims of %s/%s: %s", *key, exc)
            self._volumes_changed()

    async def _bind(self, key: Key, pod: Pod, node: str, plan: Plan) -> None:
        meta = pod.metadata
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        options = WriteOptions(namespace=meta.namespace, subresource="binding")
        try:
            await self._volumes.carry_out(plan, node)
            await self._context.api.create(PODS, msgspec.json.encode(body), options, meta.name)
        except EdgehiveError as exc:
            self._unplace(key, pod, exc)
            return
        self._context.counters["scheduler_bound"] += 1
        message = f"Successfully assigned {meta.namespace}/{meta.name} to {node}"
        self._recorder.event(Subject("v1", "Pod", meta), "Normal", "Scheduled", message)

    def _unplace(self, key: Key, pod: Pod, exc: EdgehiveError) -> None:
        """Take back a decision that could not be written, unless the pod has a node or is gone."""
        cached = self._pods.get(*key)
        current = decode_pod(cached.raw) if cached is not None else None
        if current is None or current.metadata.uid != pod.metadata.uid:
            self._cluster.remove(pod.metadata.uid)
            return
        if current.spec.node_name:
            return
        self._cluster.remove(pod.metadata.uid)
        log.warning("binding %s/%s: %s", *key, exc)
        now = asyncio.get_running_loop().time()
        self._queue.add(key, pod.spec.priority or 0, pod.metadata.creation_timestamp or "", now)
        self._queue.retry(key, now)
        self._disturb()

    async def _explain(self, pod: Pod, message: str) -> None:
        """Say on the pod and in an event why there is no node for it."""
        self._context.counters["scheduler_unschedulable"] += 1
        self._recorder.event(Subject("v1", "Pod", pod.metadata), "Warning", "FailedScheduling", message)
        wanted = Condition(type="PodScheduled", status="False", reason="Unschedulable", message=message)
        current = condition(pod.status.conditions, "PodScheduled")
        if current is not None and (current.status, current.message) == ("False", message):
            return
        conditions = set_condition(pod.status.conditions, wanted, self._context.clock())
        change = {"status": {"conditions": conditions_json(conditions)}}
        try:
            await self._context.patch(PODS, pod.metadata, change, subresource="status", locked=True)
        except EdgehiveError as exc:
            log.debug("pod %s/%s: %s", pod.metadata.namespace, pod.metadata.name, exc)


def _asks_anew(old: Pod, new: Pod) -> bool:
    """Tell whether a waiting pod changed in anything but its status."""
    return (old.spec, old.metadata.labels) != (new.spec, new.metadata.labels)
