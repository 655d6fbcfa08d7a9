"""The replicaset controller: as many pods as wanted, no more."""

import logging
from collections.abc import Sequence

from edgehive.controllers.claims import Owner, claim
from edgehive.controllers.context import Context, in_batches
from edgehive.controllers.objects import (
    Condition,
    ReplicaSet,
    controller_of,
    decode_pod,
    decode_replicaset,
    pod_active,
    pod_ready,
)
from edgehive.controllers.recorder import Subject
from edgehive.controllers.replicas import (
    Replica,
    conditions_json,
    drop_condition,
    order_for_deletion,
    pod_available,
    pod_from_template,
    set_condition,
)
from edgehive.controllers.runtime import Workers, by_controller, by_namespace
from edgehive.kube.reflector import Change, Key
from edgehive.kube.refs import PODS, REPLICASETS
from edgehive.kube.selectors import LabelSelector
from edgehive.kube.status import ApiStatus

log = logging.getLogger(__name__)

_BURST = 500  # pods created or deleted in one pass


class ReplicaSetController:
    """Reconciles replicasets."""

    name = "replicaset"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sets = context.informers.full(REPLICASETS)
        self._pods = context.informers.full(PODS)
        self._sets.add_index("controller", by_controller)
        self._sets.add_index("namespace", by_namespace)
        self._pods.add_index("controller", by_controller)
        self._pods.add_index("namespace", by_namespace)
        self._recorder = context.events.recorder("replicaset-controller")
        self._workers: Workers[Key] = Workers(
            name=self.name, reconcile=self.reconcile, counters=context.counters
        )
        self._sets.subscribe(lambda change: self._workers.add(change.object.key))
        self._pods.subscribe(self._pod_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._sets.synced()
        await self._pods.synced()
        await self._workers.run()

    def _pod_changed(self, change: Change) -> None:
        owners = set()
        for obj in (change.old, change.new):
            if obj is None:
                continue
            for reference in obj.meta.owner_references or ():
                if reference.controller and reference.kind == "ReplicaSet":
                    owners.add((obj.meta.namespace, reference.name))
        for key in owners:
            self._workers.add(key)
        if not owners and change.new is not None and not controller_of(change.new.meta):
            for cached in self._sets.by_index("namespace", change.new.meta.namespace):
                selector = LabelSelector.from_object(decode_replicaset(cached.raw).spec.selector)
                if selector.matches(change.new.meta.labels):
                    self._workers.add(cached.key)

    async def reconcile(self, key: Key) -> float | None:
        """Bring one replicaset to what its spec says."""
        cached = self._sets.get(*key)
        if cached is None:
            return None
        wanted = decode_replicaset(cached.raw)
        owner = Owner("apps/v1", "ReplicaSet", cached.meta)
        selector = LabelSelector.from_object(wanted.spec.selector)
        found = await claim(self._context, PODS, owner, selector, self._pods.by_index("namespace", key[0]))
        replicas = [Replica(obj, decode_pod(obj.raw)) for obj in found]
        active = [r for r in replicas if r.cached.meta.deletion_timestamp is None and pod_active(r.pod)]
        failure: ApiStatus | None = None
        if cached.meta.deletion_timestamp is None:
            try:
                await self._scale(owner, wanted, active)
            except ApiStatus as exc:
                failure = exc
        again = await self._report(key, owner, failure)
        if failure is not None:
            raise failure
        return again

    async def _scale(self, owner: Owner, wanted: ReplicaSet, active: Sequence[Replica]) -> None:
        replicas = 1 if wanted.spec.replicas is None else wanted.spec.replicas
        missing = replicas - len(active)
        subject = Subject(owner.api_version, owner.kind, owner.meta)
        body = pod_from_template(wanted.spec.template, owner, {})

        async def create(_: int) -> None:
            try:
                raw = await self._context.create(PODS, owner.meta.namespace, body)
            except ApiStatus as exc:
                self._recorder.event(subject, "Warning", "FailedCreate", f"Error creating: {exc}")
                raise
            name = decode_pod(raw).metadata.name
            self._recorder.event(subject, "Normal", "SuccessfulCreate", f"Created pod: {name}")

        async def delete(victim: Replica) -> None:
            try:
                await self._context.delete_pod(victim.cached)
            except ApiStatus as exc:
                self._recorder.event(subject, "Warning", "FailedDelete", f"Error deleting: {exc}")
                raise
            message = f"Deleted pod: {victim.cached.meta.name}"
            self._recorder.event(subject, "Normal", "SuccessfulDelete", message)

        if missing >= 0:
            await in_batches(range(min(missing, _BURST)), create)
            return
        related = [r.pod for r in self._siblings(owner)]
        victims = order_for_deletion(active, related, self._context.clock())
        await in_batches(victims[: min(-missing, _BURST)], delete)

    def _siblings(self, owner: Owner) -> list[Replica]:
        parent = controller_of(owner.meta)
        uids = {owner.meta.uid}
        if parent:
            uids |= {obj.meta.uid for obj in self._sets.by_index("controller", parent)}
        pods = [obj for uid in uids for obj in self._pods.by_index("controller", uid)]
        return [Replica(obj, decode_pod(obj.raw)) for obj in pods]

    async def _report(self, key: Key, owner: Owner, failure: ApiStatus | None) -> float | None:
        """Write the status if it changed; return when a pod will become available by age."""
        cached = self._sets.get(*key)
        if cached is None or cached.meta.uid != owner.meta.uid:
            return None
        current = decode_replicaset(cached.raw)
        now = self._context.clock()
        labels = ((current.spec.template.get("metadata") or {}).get("labels") or {}).items()
        pods = [obj for obj in self._pods.by_index("controller", owner.meta.uid)]
        selector = LabelSelector.from_object(current.spec.selector)
        views = [
            decode_pod(obj.raw)
            for obj in pods
            if obj.meta.deletion_timestamp is None and selector.matches(obj.meta.labels)
        ]
        active = [pod for pod in views if pod_active(pod)]
        ages = [pod_available(pod, current.spec.min_ready_seconds, now) for pod in active]
        conditions = drop_condition(current.status.conditions, "ReplicaFailure")
        if failure is not None:
            reason = "FailedCreate" if len(active) < (current.spec.replicas or 0) else "FailedDelete"
            broken = Condition(type="ReplicaFailure", status="True", reason=reason, message=failure.message)
            conditions = set_condition(current.status.conditions, broken, now)
        old = current.status
        status = {
            "replicas": len(active),
            "fullyLabeledReplicas": sum(labels <= (p.metadata.labels or {}).items() for p in active),
            "readyReplicas": sum(pod_ready(p) for p in active),
            "availableReplicas": sum(age == 0.0 for age in ages),
            "observedGeneration": cached.meta.generation,
        }
        before = {
            "replicas": old.replicas,
            "fullyLabeledReplicas": old.fully_labeled_replicas,
            "readyReplicas": old.ready_replicas,
            "availableReplicas": old.available_replicas,
            "observedGeneration": old.observed_generation,
        }
        if status != before or tuple(conditions) != tuple(old.conditions or ()):
            body = {"status": {**status, "conditions": conditions_json(conditions) or None}}
            try:
                await self._context.patch(REPLICASETS, cached.meta, body, subresource="status")
            except ApiStatus as exc:
                if exc.code != 404:
                    raise
        return min((age for age in ages if age), default=None)
