"""The daemonset controller."""

import asyncio

from edgehive.controllers.claims import Owner, claim
from edgehive.controllers.context import Context, in_batches
from edgehive.controllers.daemons import Fit, Placement, Plan, daemon_pod, fit, template_info
from edgehive.controllers.objects import DaemonSet, controller_of, decode_daemonset, decode_node, decode_pod
from edgehive.controllers.recorder import Subject
from edgehive.controllers.replicas import Replica
from edgehive.controllers.runtime import Workers, by_controller, by_namespace
from edgehive.controllers.scheduling_model import NodeInfo
from edgehive.controllers.templates import template_hash
from edgehive.kit.backoff import Backoff
from edgehive.kube.reflector import Change, Key
from edgehive.kube.refs import DAEMONSETS, NODES, PODS
from edgehive.kube.selectors import LabelSelector
from edgehive.kube.status import ApiStatus

_BURST = 250
_FAILURES_REMEMBERED = 4096


class DaemonSetController:
    """Reconciles daemonsets."""

    name = "daemonset"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sets = context.informers.full(DAEMONSETS)
        self._pods = context.informers.full(PODS)
        self._nodes = context.informers.full(NODES)
        self._sets.add_index("namespace", by_namespace)
        self._pods.add_index("namespace", by_namespace)
        self._pods.add_index("controller", by_controller)
        self._recorder = context.events.recorder("daemonset-controller")
        self._node_infos: dict[str, NodeInfo] = {}
        self._failures: dict[tuple[str, str], tuple[Backoff, float]] = {}
        self._workers: Workers[Key] = Workers(
            name=self.name, reconcile=self.reconcile, counters=context.counters, count=2
        )
        self._nodes.subscribe(self._node_changed)
        self._sets.subscribe(lambda change: self._workers.add(change.object.key))
        self._pods.subscribe(self._pod_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        for informer in (self._sets, self._pods, self._nodes):
            await informer.synced()
        await self._workers.run()

    def _node_changed(self, change: Change) -> None:
        name = change.object.meta.name
        if change.new is None:
            self._node_infos.pop(name, None)
        elif not self._node_infos.setdefault(name, NodeInfo(name)).describe(decode_node(change.new.raw)):
            return  # a heartbeat
        for cached in self._sets.items():
            self._workers.add(cached.key)

    def _pod_changed(self, change: Change) -> None:
        meta = change.object.meta
        owned = False
        for obj in (change.old, change.new):
            for reference in (obj.meta.owner_references or ()) if obj else ():
                if reference.controller and reference.kind == "DaemonSet":
                    owned = True
                    self._workers.add((meta.namespace, reference.name))
        if not owned and change.new is not None and not controller_of(meta):
            for cached in self._sets.by_index("namespace", meta.namespace):
                selector = LabelSelector.from_object(decode_daemonset(cached.raw).spec.selector)
                if selector.matches(meta.labels):
                    self._workers.add(cached.key)

    async def reconcile(self, key: Key) -> float | None:
        """Bring one daemonset to what its spec says."""
        cached = self._sets.get(*key)
        if cached is None:
            return None
        wanted = decode_daemonset(cached.raw)
        owner = Owner("apps/v1", "DaemonSet", cached.meta)
        selector = LabelSelector.from_object(wanted.spec.selector)
        if selector.everything:
            subject = Subject(owner.api_version, owner.kind, cached.meta)
            message = "This daemon set is selecting all pods. A non-empty selector is required."
            self._recorder.event(subject, "Warning", "SelectingAll", message)
            return None
        await claim(self._context, PODS, owner, selector, self._pods.by_index("namespace", key[0]))
        digest = template_hash(wanted.spec.template)
        daemon = template_info(wanted.spec.template)
        fits = {name: fit(daemon, node) for name, node in self._node_infos.items()}
        again: float | None = None
        if cached.meta.deletion_timestamp is None:
            again = await self._apply(owner, wanted, digest, self._placement(wanted, digest, fits).plan())
        placement = self._placement(wanted, digest, fits)
        await self._report(wanted, placement)
        return min((t for t in (again, placement.next_change()) if t is not None), default=None)

    def _placement(self, wanted: DaemonSet, digest: str, fits: dict[str, Fit]) -> Placement:
        pods = [
            Replica(obj, decode_pod(obj.raw))
            for obj in self._pods.by_index("controller", wanted.metadata.uid)
        ]
        return Placement(daemonset=wanted, digest=digest, fits=fits, pods=pods, now=self._context.clock())

    async def _apply(self, owner: Owner, wanted: DaemonSet, digest: str, plan: Plan) -> float | None:
        """Carry out a plan; return when to look again at what must wait for its back-off."""
        subject = Subject(owner.api_version, owner.kind, owner.meta)
        again = self._due_failures(owner, plan)

        async def delete(victim: Replica) -> None:
            if await self._context.delete_pod(victim.cached):
                message = f"Deleted pod: {victim.cached.meta.name}"
                self._recorder.event(subject, "Normal", "SuccessfulDelete", message)

        async def create(node: str) -> None:
            body = daemon_pod(wanted.spec.template, owner, node, digest)
            try:
                raw = await self._context.create(PODS, owner.meta.namespace, body)
            except ApiStatus as exc:
                self._recorder.event(subject, "Warning", "FailedCreate", f"Error creating: {exc}")
                raise
            message = f"Created pod: {decode_pod(raw).metadata.name}"
            self._recorder.event(subject, "Normal", "SuccessfulCreate", message)

        await in_batches(plan.delete[:_BURST], delete)
        await in_batches(plan.create[:_BURST], create)
        return again

    def _due_failures(self, owner: Owner, plan: Plan) -> float | None:
        """Move ended pods whose back-off is over to the deletions; return the wait of the next one."""
        now = asyncio.get_running_loop().time()
        waits: list[float] = []
        for replica in plan.failed:
            identity = (owner.meta.uid, replica.pod.spec.node_name)
            backoff, not_before = self._failures.pop(identity, (Backoff(1.0, 900.0), 0.0))
            if now < not_before:
                waits.append(not_before - now)
                self._failures[identity] = (backoff, not_before)
                continue
            subject = Subject(owner.api_version, owner.kind, owner.meta)
            message = f"Found failed daemon pod {replica.cached.meta.name} on node {identity[1]}, will try to kill it"
            self._recorder.event(subject, "Warning", "FailedDaemonPod", message)
            plan.delete.append(replica)
            self._failures[identity] = (backoff, now + backoff.next())
            while len(self._failures) > _FAILURES_REMEMBERED:
                self._failures.pop(next(iter(self._failures)))
        return min(waits, default=None)

    async def _report(self, wanted: DaemonSet, placement: Placement) -> None:
        old, status = wanted.status, placement.status()
        before = {
            "desiredNumberScheduled": old.desired_number_scheduled,
            "currentNumberScheduled": old.current_number_scheduled,
            "numberMisscheduled": old.number_misscheduled,
            "numberReady": old.number_ready,
            "updatedNumberScheduled": old.updated_number_scheduled,
            "numberAvailable": old.number_available,
            "numberUnavailable": old.number_unavailable,
            "observedGeneration": old.observed_generation,
        }
        if status != before:
            try:
                await self._context.patch(
                    DAEMONSETS, wanted.metadata, {"status": status}, subresource="status"
                )
            except ApiStatus as exc:
                if exc.code != 404:
                    raise
