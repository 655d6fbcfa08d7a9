"""The replicasets of one deployment: found, made, annotated, resized, forgotten."""

from dataclasses import dataclass, field
from typing import Any

from edgehive.controllers.claims import Owner
from edgehive.controllers.context import Context
from edgehive.controllers.objects import (
    Deployment,
    ReplicaSet,
    controller_of,
    decode_deployment,
    decode_replicaset,
)
from edgehive.controllers.recorder import Recorder, Subject
from edgehive.controllers.rollout import (
    DESIRED,
    MAXIMUM,
    NOT_COPIED,
    REVISION,
    REVISION_HISTORY,
    Goal,
    SetView,
    Targets,
    extend_history,
    goal,
    new_set_size,
    next_revision,
    surplus_history,
)
from edgehive.controllers.templates import POD_TEMPLATE_HASH, same_template, template_hash, with_labels
from edgehive.controllers.times import parse_time
from edgehive.kube.api import WriteOptions
from edgehive.kube.refs import DEPLOYMENTS, REPLICASETS
from edgehive.kube.status import ApiStatus

_HISTORY = 10


class HashCollision(Exception):
    """Another replicaset has the name that the template's hash gives; the hash must be salted."""


@dataclass(slots=True)
class Family:
    """A deployment and its replicasets, oldest first."""

    context: Context
    recorder: Recorder
    deployment: Deployment
    sets: list[ReplicaSet]
    goal: Goal = field(init=False)
    new: ReplicaSet | None = field(init=False)
    created: bool = False

    def __post_init__(self) -> None:
        self.sets.sort(key=lambda s: (s.metadata.creation_timestamp or "", s.metadata.name))
        self.goal = goal_of(self.deployment)
        template = self.deployment.spec.template
        self.new = next((s for s in self.sets if same_template(s.spec.template, template)), None)

    @property
    def old(self) -> list[ReplicaSet]:
        """All replicasets but the new one."""
        uid = self.new.metadata.uid if self.new else ""
        return [s for s in self.sets if s.metadata.uid != uid]

    async def ensure_new(self) -> ReplicaSet:
        """Return the replicaset of the current template, made or annotated as needed.

        Raises:
            HashCollision: its name is taken by something else.
        """
        revision = next_revision(_revision(self.new), [_revision(s) for s in self.old])
        if self.new is None:
            self.new = await self._create(revision)
            self.sets.append(self.new)
            self.created = True
        else:
            await self._annotate(self.new, revision)
        await self._set_own_revision(_annotations(self.new).get(REVISION, str(revision)))
        return self.new

    async def resize(self, targets: Targets) -> None:
        """Give replicasets new sizes and say so."""
        for entry in list(self.sets):
            size = targets.get(entry.metadata.name)
            before = size_of(entry)
            if size is None or size == before:
                continue
            change = {"metadata": {"annotations": self._sizing()}, "spec": {"replicas": size}}
            await self._patch(entry, change)
            direction = "up" if size > before else "down"
            self._tell(
                "ScalingReplicaSet",
                f"Scaled {direction} replica set {entry.metadata.name} from {before} to {size}",
            )

    async def refresh_sizing(self) -> None:
        """Bring the annotations of active sets up to the wanted number, where no size had to change."""
        wanted = self._sizing()
        for entry in list(self.sets):
            if size_of(entry) and not wanted.items() <= _annotations(entry).items():
                await self._patch(entry, {"metadata": {"annotations": wanted}})

    async def forget_history(self) -> None:
        """Delete finished old replicasets beyond the history limit."""
        limit = self.deployment.spec.revision_history_limit
        done = [
            (s.metadata.name, _revision(s), parse_time(s.metadata.creation_timestamp) or 0.0)
            for s in self.old
            if size_of(s) == 0
            and s.status.replicas == 0
            and s.status.observed_generation >= s.metadata.generation
        ]
        informer = self.context.informers.full(REPLICASETS)
        for name in surplus_history(done, _HISTORY if limit is None else limit):
            cached = informer.get(self.deployment.metadata.namespace, name)
            if cached is not None:
                await self.context.delete(REPLICASETS, cached, propagationPolicy="Background")

    def views(self) -> tuple[SetView | None, list[SetView]]:
        """Return the new set and the old ones as the rollout's decisions see them."""
        return (view_of(self.new) if self.new else None, [view_of(s) for s in self.old])

    async def _create(self, revision: int) -> ReplicaSet:
        deployment = self.deployment
        spec = deployment.spec
        digest = template_hash(spec.template, deployment.status.collision_count or 0)
        labels = {POD_TEMPLATE_HASH: digest}
        owner = Owner("apps/v1", "Deployment", deployment.metadata)
        size = new_set_size(self.goal, 0, sum(size_of(s) for s in self.sets))
        if spec.paused:
            size = 0
        selector = {**spec.selector, "matchLabels": {**(spec.selector.get("matchLabels") or {}), **labels}}
        template = with_labels(spec.template, labels)
        body: dict[str, Any] = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{deployment.metadata.name}-{digest}",
                "namespace": deployment.metadata.namespace,
                "labels": template["metadata"]["labels"],
                "annotations": {**self._inherited(), **self._sizing(), REVISION: str(revision)},
                "ownerReferences": [owner.reference()],
            },
            "spec": {
                "replicas": size,
                "minReadySeconds": spec.min_ready_seconds,
                "selector": selector,
                "template": template,
            },
        }
        try:
            raw = await self.context.create(REPLICASETS, deployment.metadata.namespace, body)
        except ApiStatus as exc:
            if exc.code != 409 or exc.reason != "AlreadyExists":
                self._tell("ReplicaSetCreateError", f"Failed to create new replica set: {exc}", warning=True)
                raise
            return await self._existing(body["metadata"]["name"])
        name = body["metadata"]["name"]
        self._tell("ScalingReplicaSet", f"Scaled up replica set {name} from 0 to {size}")
        return decode_replicaset(raw)

    async def _existing(self, name: str) -> ReplicaSet:
        """Take the set of that name if it is ours after all (our view was behind)."""
        namespace = self.deployment.metadata.namespace
        raw = await self.context.api.get(REPLICASETS, name, WriteOptions(namespace=namespace))
        found = decode_replicaset(raw)
        ours = controller_of(found.metadata) == self.deployment.metadata.uid
        if ours and same_template(found.spec.template, self.deployment.spec.template):
            return found
        raise HashCollision(name)

    async def _annotate(self, entry: ReplicaSet, revision: int) -> None:
        has = _annotations(entry)
        wanted: dict[str, str | None] = {**self._inherited()}
        gone = [k for k in has if k not in NOT_COPIED and k not in wanted]
        wanted |= dict.fromkeys(gone)
        if _revision(entry) < revision:
            wanted[REVISION] = str(revision)
            if has.get(REVISION):
                wanted[REVISION_HISTORY] = extend_history(has.get(REVISION_HISTORY, ""), has[REVISION])
        change: dict[str, Any] = {}
        different = {k: v for k, v in wanted.items() if has.get(k) != v}
        if different:
            change["metadata"] = {"annotations": different}
        if entry.spec.min_ready_seconds != self.deployment.spec.min_ready_seconds:
            change["spec"] = {"minReadySeconds": self.deployment.spec.min_ready_seconds}
        if change:
            await self._patch(entry, change)

    async def _set_own_revision(self, revision: str) -> None:
        meta = self.deployment.metadata
        if (meta.annotations or {}).get(REVISION) != revision:
            raw = await self.context.patch(
                DEPLOYMENTS, meta, {"metadata": {"annotations": {REVISION: revision}}}
            )
            self.deployment = decode_deployment(raw)

    async def _patch(self, entry: ReplicaSet, change: dict[str, Any]) -> None:
        fresh = decode_replicaset(await self.context.patch(REPLICASETS, entry.metadata, change))
        self.sets = [fresh if s.metadata.uid == fresh.metadata.uid else s for s in self.sets]
        if self.new is not None and self.new.metadata.uid == fresh.metadata.uid:
            self.new = fresh

    def _inherited(self) -> dict[str, str]:
        own = self.deployment.metadata.annotations or {}
        return {k: v for k, v in own.items() if k not in NOT_COPIED}

    def _sizing(self) -> dict[str, str]:
        return {DESIRED: str(self.goal.replicas), MAXIMUM: str(self.goal.most)}

    def _tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        subject = Subject("apps/v1", "Deployment", self.deployment.metadata)
        self.recorder.event(subject, "Warning" if warning else "Normal", reason, message)


def goal_of(deployment: Deployment) -> Goal:
    """Resolve what a deployment wants."""
    spec = deployment.spec
    rolling = spec.strategy.rolling_update
    return goal(
        1 if spec.replicas is None else spec.replicas,
        rolling.max_surge if rolling else None,
        rolling.max_unavailable if rolling else None,
        recreate=spec.strategy.type == "Recreate",
    )


def size_of(entry: ReplicaSet) -> int:
    """Return ``spec.replicas``."""
    return 1 if entry.spec.replicas is None else entry.spec.replicas


def view_of(entry: ReplicaSet) -> SetView:
    """Return the replicaset as the rollout's decisions see it."""
    has = _annotations(entry)
    return SetView(
        name=entry.metadata.name,
        replicas=size_of(entry),
        available=entry.status.available_replicas,
        created=parse_time(entry.metadata.creation_timestamp) or 0.0,
        desired=_number(has.get(DESIRED)),
        maximum=_number(has.get(MAXIMUM)),
    )


def _annotations(entry: ReplicaSet) -> dict[str, str]:
    return entry.metadata.annotations or {}


def _revision(entry: ReplicaSet | None) -> int:
    return _number(_annotations(entry).get(REVISION)) or 0 if entry else 0


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None
