"""The deployment controller: replicasets, one per template, sized so that the rollout proceeds."""

from collections.abc import Sequence
from typing import Any

from edgehive.controllers.claims import Owner, claim
from edgehive.controllers.context import Context
from edgehive.controllers.deployment_sets import Family, HashCollision
from edgehive.controllers.objects import (
    Condition,
    ReplicaSet,
    condition,
    controller_of,
    decode_deployment,
    decode_pod,
    decode_replicaset,
    pod_finished,
)
from edgehive.controllers.recorder import Subject
from edgehive.controllers.replicas import conditions_json, drop_condition, set_condition
from edgehive.controllers.rollout import (
    Progress,
    available_condition,
    is_resize,
    new_set_condition,
    paused_condition,
    plan_resize,
    plan_rollout,
    progress_conditions,
    time_left,
)
from edgehive.controllers.runtime import Workers, by_controller, by_namespace
from edgehive.kube.reflector import Change, Key
from edgehive.kube.refs import DEPLOYMENTS, PODS, REPLICASETS
from edgehive.kube.selectors import LabelSelector


class DeploymentController:
    """Reconciles deployments."""

    name = "deployment"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._deployments = context.informers.full(DEPLOYMENTS)
        self._sets = context.informers.full(REPLICASETS)
        self._pods = context.informers.full(PODS)
        self._deployments.add_index("namespace", by_namespace)
        self._sets.add_index("namespace", by_namespace)
        self._pods.add_index("controller", by_controller)
        self._recorder = context.events.recorder("deployment-controller")
        self._workers: Workers[Key] = Workers(
            name=self.name, reconcile=self.reconcile, counters=context.counters
        )
        self._deployments.subscribe(lambda change: self._workers.add(change.object.key))
        self._sets.subscribe(self._set_changed)
        self._pods.subscribe(self._pod_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        for informer in (self._deployments, self._sets, self._pods):
            await informer.synced()
        await self._workers.run()

    def _set_changed(self, change: Change) -> None:
        owned = False
        for obj in (change.old, change.new):
            for reference in (obj.meta.owner_references or ()) if obj else ():
                if reference.controller and reference.kind == "Deployment":
                    owned = True
                    self._workers.add((change.object.meta.namespace, reference.name))
        if not owned and change.new is not None and not controller_of(change.new.meta):
            for cached in self._deployments.by_index("namespace", change.new.meta.namespace):
                selector = LabelSelector.from_object(decode_deployment(cached.raw).spec.selector)
                if selector.matches(change.new.meta.labels):
                    self._workers.add(cached.key)

    def _pod_changed(self, change: Change) -> None:
        # Recreate waits for old pods to be gone; all else is seen through the status of the replicasets.
        if change.type != "DELETED":
            return
        namespace = change.object.meta.namespace
        for reference in change.object.meta.owner_references or ():
            if reference.controller and reference.kind == "ReplicaSet":
                owner = self._sets.get(namespace, reference.name)
                for parent in (owner.meta.owner_references or ()) if owner else ():
                    self._workers.add((namespace, parent.name))

    async def reconcile(self, key: Key) -> float | None:
        """Take one deployment a step further."""
        cached = self._deployments.get(*key)
        if cached is None:
            return None
        deployment = decode_deployment(cached.raw)
        selector = LabelSelector.from_object(deployment.spec.selector)
        if selector.everything:
            subject = Subject("apps/v1", "Deployment", deployment.metadata)
            message = "This deployment is selecting all pods. A non-empty selector is required."
            self._recorder.event(subject, "Warning", "SelectingAll", message)
            return None
        owner = Owner("apps/v1", "Deployment", deployment.metadata)
        claimed = await claim(
            self._context, REPLICASETS, owner, selector, self._sets.by_index("namespace", key[0])
        )
        sets = [decode_replicaset(obj.raw) for obj in claimed if obj.meta.deletion_timestamp is None]
        family = Family(context=self._context, recorder=self._recorder, deployment=deployment, sets=sets)
        if deployment.metadata.deletion_timestamp is None:
            try:
                await self._advance(family)
            except HashCollision:
                count = (deployment.status.collision_count or 0) + 1
                status = {"status": {"collisionCount": count}}
                await self._context.patch(DEPLOYMENTS, deployment.metadata, status, subresource="status")
                return 0.0
        return await self._report(family)

    async def _advance(self, family: Family) -> None:
        """Do the next step, if there is one now."""
        new, old = family.views()
        if family.deployment.spec.paused or is_resize(family.goal, [*old, *([new] if new else [])]):
            await family.resize(plan_resize(family.goal, new, old))
            await family.refresh_sizing()
            return
        if (
            family.goal.recreate
            and family.new is None
            and (any(view.replicas for view in old) or self._old_pods_left(family.old))
        ):
            await family.resize({view.name: 0 for view in old if view.replicas})
            return
        await family.ensure_new()
        new, old = family.views()
        assert new is not None
        left = family.goal.recreate and self._old_pods_left(family.old)
        targets = plan_rollout(family.goal, new, old, old_pods_left=left)
        await family.resize(targets)
        if not targets and _progress(family).complete:
            await family.forget_history()

    def _old_pods_left(self, old: Sequence[ReplicaSet]) -> bool:
        pods = (obj for s in old for obj in self._pods.by_index("controller", s.metadata.uid))
        return any(not pod_finished(decode_pod(obj.raw)) for obj in pods)

    async def _report(self, family: Family) -> float | None:
        """Write the status if it changed; return when the progress deadline passes."""
        deployment, now = family.deployment, self._context.clock()
        spec, old, progress = deployment.spec, deployment.status, _progress(family)
        conditions = self._conditions(family, progress, now)
        status: dict[str, Any] = {
            "observedGeneration": deployment.metadata.generation,
            "replicas": progress.replicas,
            "updatedReplicas": progress.updated,
            "readyReplicas": progress.ready,
            "availableReplicas": progress.available,
            "unavailableReplicas": max(0, sum(_sizes(family)) - progress.available),
        }
        before = {
            "observedGeneration": old.observed_generation,
            "replicas": old.replicas,
            "updatedReplicas": old.updated_replicas,
            "readyReplicas": old.ready_replicas,
            "availableReplicas": old.available_replicas,
            "unavailableReplicas": old.unavailable_replicas,
        }
        if status != before or conditions != tuple(old.conditions or ()):
            body = {"status": {**status, "conditions": conditions_json(conditions)}}
            await self._context.patch(DEPLOYMENTS, deployment.metadata, body, subresource="status")
        if spec.paused:
            return None
        left = time_left(conditions, progress, spec.progress_deadline_seconds, now)
        return left + 1.0 if left else None

    def _conditions(self, family: Family, progress: Progress, now: float) -> tuple[Condition, ...]:
        spec, status = family.deployment.spec, family.deployment.status
        deadline = spec.progress_deadline_seconds
        conditions = paused_condition(status.conditions, paused=spec.paused, deadline=deadline, now=now)
        conditions = available_condition(conditions, family.goal, progress.available, now)
        if not spec.paused and deadline is not None:
            absent = condition(conditions, "Progressing") is None
            if family.new is not None and (family.created or absent):
                name = family.new.metadata.name
                conditions = new_set_condition(conditions, name, created=family.created, now=now)
            conditions = progress_conditions(status, conditions, progress, deadline, now)
        failing = [condition(s.status.conditions, "ReplicaFailure") for s in (family.new, *family.old) if s]
        failure = next((c for c in failing if c is not None), None)
        if failure is None:
            return drop_condition(conditions, "ReplicaFailure")
        return set_condition(conditions, failure, now, updates=True)


def _sizes(family: Family) -> list[int]:
    new, old = family.views()
    return [view.replicas for view in [*old, *([new] if new else [])]]


def _progress(family: Family) -> Progress:
    return Progress(
        desired=family.goal.replicas,
        replicas=sum(s.status.replicas for s in family.sets),
        updated=family.new.status.replicas if family.new else 0,
        ready=sum(s.status.ready_replicas for s in family.sets),
        available=sum(s.status.available_replicas for s in family.sets),
        generation=family.deployment.metadata.generation,
        new_set=family.new.metadata.name if family.new else "",
        deployment=family.deployment.metadata.name,
    )
