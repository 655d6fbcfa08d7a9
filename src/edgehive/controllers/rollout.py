"""How a deployment moves its pods from old replicasets to the new one. Pure decisions.

Follows Kubernetes' deployment controller: surge up first, then scale down what is unhealthy, then what the
minimum availability allows; a resize in the middle of a rollout is shared out in proportion.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgehive.controllers.objects import Condition, DeploymentStatus, condition
from edgehive.controllers.replicas import drop_condition, set_condition
from edgehive.controllers.times import parse_time

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
NOT_COPIED = frozenset(
    (
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED,
        MAXIMUM,
        "deprecated.deployment.rollback.to",
    )
)
"""Annotations of a deployment that its replicasets do not inherit."""

NO_DEADLINE = 2**31 - 1
_HISTORY_BYTES = 2000


@dataclass(frozen=True, slots=True)
class SetView:
    """A replicaset as the rollout sees it."""

    name: str
    replicas: int
    available: int
    created: float
    desired: int | None = None
    """The annotation: for how many replicas of the deployment it was last sized."""
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """What the deployment wants."""

    replicas: int
    surge: int
    unavailable: int
    recreate: bool = False

    @property
    def most(self) -> int:
        """How many pods may exist."""
        return self.replicas + self.surge


Targets = dict[str, int]
"""New sizes by replicaset name; only those that change."""


def resolve(value: int | str | None, total: int, *, up: bool) -> int:
    """Return an IntOrString (``2``, ``"25%"``) of `total`, rounded `up` or down; nonsense counts as 0."""
    if isinstance(value, int):
        return max(0, value)
    text = (value or "0").removesuffix("%")
    if not text.isascii() or not text.isdigit():
        return 0
    if not (value or "").endswith("%"):
        return int(text)
    part = int(text) * total
    return -(-part // 100) if up else part // 100


def goal(replicas: int, surge: int | str | None, unavailable: int | str | None, *, recreate: bool) -> Goal:
    """Resolve a deployment's strategy; a rollout always may move at least one pod."""
    if recreate:
        return Goal(replicas, 0, 0, recreate=True)
    extra = resolve("25%" if surge is None else surge, replicas, up=True)
    fewer = resolve("25%" if unavailable is None else unavailable, replicas, up=False)
    if extra == 0 and fewer == 0:
        fewer = 1
    return Goal(replicas, extra, min(fewer, replicas) if replicas else fewer)


def plan_rollout(want: Goal, new: SetView, old: Sequence[SetView], *, old_pods_left: bool) -> Targets:
    """Return the next step of the rollout; empty when it has to wait or is done."""
    if want.recreate:
        down = {s.name: 0 for s in old if s.replicas > 0}
        if down or old_pods_left:
            return down
        return {new.name: want.replicas} if new.replicas != want.replicas else {}
    size = new_set_size(want, new.replicas, sum(s.replicas for s in old))
    if size != new.replicas:
        return {new.name: size}
    return _scale_down_old(want, new, old)


def new_set_size(want: Goal, current: int, others: int) -> int:
    """Return the size of the new replicaset now, given the pods of the `others`."""
    if want.recreate:
        return want.replicas
    if current >= want.replicas:
        return want.replicas
    room = want.most - current - others
    return current + max(0, min(room, want.replicas - current))


def _scale_down_old(want: Goal, new: SetView, old: Sequence[SetView]) -> Targets:
    total = new.replicas + sum(s.replicas for s in old)
    least = want.replicas - want.unavailable
    allowed = total - least - max(0, new.replicas - new.available)
    if allowed <= 0 or not any(s.replicas for s in old):
        return {}
    sizes = {s.name: s.replicas for s in old}
    ordered = sorted(old, key=lambda s: (s.created, s.name))
    for entry in ordered:  # first what does not work anyway
        cut = max(0, min(allowed, entry.replicas - entry.available))
        sizes[entry.name] -= cut
        allowed -= cut
    spare = new.available + sum(min(s.available, sizes[s.name]) for s in old) - least
    for entry in ordered:
        cut = max(0, min(spare, sizes[entry.name]))
        sizes[entry.name] -= cut
        spare -= cut
    return {s.name: sizes[s.name] for s in old if sizes[s.name] != s.replicas}


def is_resize(want: Goal, sets: Sequence[SetView]) -> bool:
    """Tell whether the deployment was scaled since its replicasets were last sized."""
    return any(s.replicas > 0 and s.desired is not None and s.desired != want.replicas for s in sets)


def plan_resize(want: Goal, new: SetView | None, old: Sequence[SetView]) -> Targets:
    """Return the sizes after the deployment was scaled (or while it is paused)."""
    sets = [*old, *([new] if new else [])]
    active = [s for s in sets if s.replicas > 0]
    if len(active) <= 1:
        only = active[0] if active else new or max(sets, key=lambda s: s.created, default=None)
        return {only.name: want.replicas} if only and only.replicas != want.replicas else {}
    if new and new.replicas == want.replicas == new.desired and new.available == want.replicas:
        return {s.name: 0 for s in old if s.replicas > 0}
    if want.recreate:
        return {}
    return _share_out(want, active)


def _share_out(want: Goal, active: list[SetView]) -> Targets:
    allowed = want.most if want.replicas > 0 else 0
    add = allowed - sum(s.replicas for s in active)
    newest_first = -1 if add >= 0 else 1
    ordered = sorted(active, key=lambda s: (-s.replicas, newest_first * s.created, s.name))
    sizes: Targets = {}
    added = 0
    for entry in ordered:
        base = entry.maximum or want.most or 1
        ideal = 0.0 if want.replicas == 0 else entry.replicas * want.most / base
        share = math.floor(ideal + 0.5) - entry.replicas
        left = add - added
        share = max(0, min(share, left)) if add > 0 else min(0, max(share, left))
        sizes[entry.name] = entry.replicas + share
        added += share
    if ordered:
        first = ordered[0].name
        sizes[first] = max(0, sizes[first] + add - added)
    return {s.name: sizes[s.name] for s in active if sizes[s.name] != s.replicas}


def next_revision(current: int, others: Sequence[int]) -> int:
    """Return the revision the new replicaset must carry."""
    return max(current, max(others, default=0) + 1)


def extend_history(history: str, revision: str) -> str:
    """Return the annotation that remembers revisions a replicaset had before; the oldest are forgotten."""
    parts = [p for p in history.split(",") if p]
    if revision:
        parts.append(revision)
    while len(",".join(parts)) > _HISTORY_BYTES:
        parts.pop(0)
    return ",".join(parts)


def surplus_history(sets: Sequence[tuple[str, int, float]], limit: int) -> list[str]:
    """Of finished old sets (name, revision, created) return those beyond the newest `limit`."""
    ordered = sorted(sets, key=lambda s: (s[1], s[2], s[0]))
    return [name for name, _, _ in ordered[: max(0, len(ordered) - limit)]]


@dataclass(frozen=True, slots=True)
class Progress:
    """A deployment's counts, with what is needed to judge its progress."""

    desired: int
    replicas: int
    updated: int
    ready: int
    available: int
    generation: int
    new_set: str
    deployment: str

    @property
    def complete(self) -> bool:
        """Whether every wanted pod is of the new template and available."""
        return self.updated == self.replicas == self.available == self.desired

    def moved_since(self, old: DeploymentStatus) -> bool:
        """Tell whether anything got better."""
        return (
            self.updated > old.updated_replicas
            or self.replicas - self.updated < old.replicas - old.updated_replicas
            or self.ready > old.ready_replicas
            or self.available > old.available_replicas
        )


def progress_conditions(
    old: DeploymentStatus,
    conditions: tuple[Condition, ...],
    progress: Progress,
    deadline: int | None,
    now: float,
) -> tuple[Condition, ...]:
    """Return the conditions with Progressing brought up to date; `old` is the status last written."""
    if deadline is None or deadline >= NO_DEADLINE:
        return drop_condition(conditions, "Progressing")
    current = condition(conditions, "Progressing")
    settled = current is not None and current.reason == "NewReplicaSetAvailable"
    if progress.replicas == progress.updated and settled:
        return conditions
    what = f'ReplicaSet "{progress.new_set}"' if progress.new_set else f'Deployment "{progress.deployment}"'
    if progress.complete:
        done = _progressing("True", "NewReplicaSetAvailable", f"{what} has successfully progressed.")
        return set_condition(conditions, done, now, updates=True)
    if progress.moved_since(old):
        going = _progressing("True", "ReplicaSetUpdated", f"{what} is progressing.")
        return set_condition(conditions, going, now, updates=True, touch=True)
    if timed_out(conditions, progress, deadline, now):
        late = _progressing("False", "ProgressDeadlineExceeded", f"{what} has timed out progressing.")
        return set_condition(conditions, late, now, updates=True)
    return conditions


def timed_out(conditions: Sequence[Condition] | None, progress: Progress, deadline: int, now: float) -> bool:
    """Tell whether the rollout has made no progress for `deadline` seconds."""
    left = time_left(conditions, progress, deadline, now)
    return left is not None and left <= 0


def time_left(
    conditions: Sequence[Condition] | None, progress: Progress, deadline: int | None, now: float
) -> float | None:
    """Return the seconds until the progress deadline; None when none is running."""
    current = condition(tuple(conditions or ()), "Progressing")
    if deadline is None or deadline >= NO_DEADLINE or current is None or progress.complete:
        return None
    if current.reason == "ProgressDeadlineExceeded":
        return 0.0
    if current.reason in ("NewReplicaSetAvailable", "DeploymentPaused"):
        return None
    since = parse_time(current.last_update_time)
    return None if since is None else since + deadline - now


def available_condition(
    conditions: Sequence[Condition], want: Goal, available: int, now: float
) -> tuple[Condition, ...]:
    """Return the conditions with Available brought up to date."""
    if available >= want.replicas - want.unavailable:
        entry = Condition(
            type="Available",
            status="True",
            reason="MinimumReplicasAvailable",
            message="Deployment has minimum availability.",
        )
    else:
        entry = Condition(
            type="Available",
            status="False",
            reason="MinimumReplicasUnavailable",
            message="Deployment does not have minimum availability.",
        )
    return set_condition(conditions, entry, now, updates=True)


def paused_condition(
    conditions: Sequence[Condition] | None, *, paused: bool, deadline: int | None, now: float
) -> tuple[Condition, ...]:
    """Return the conditions with a pause or its end noted; a deadline does not run while paused."""
    found = tuple(conditions or ())
    if deadline is None or deadline >= NO_DEADLINE:
        return found
    current = condition(found, "Progressing")
    if current is not None and current.reason == "ProgressDeadlineExceeded":
        return found
    noted = current is not None and current.reason == "DeploymentPaused"
    if paused and not noted:
        entry = _progressing("Unknown", "DeploymentPaused", "Deployment is paused")
    elif noted and not paused:
        entry = _progressing("Unknown", "DeploymentResumed", "Deployment is resumed")
    else:
        return found
    return set_condition(found, entry, now, updates=True)


def new_set_condition(
    conditions: Sequence[Condition] | None, name: str, *, created: bool, now: float
) -> tuple[Condition, ...]:
    """Return the conditions with a created or found replicaset noted."""
    verb, reason = ("Created", "NewReplicaSetCreated") if created else ("Found", "FoundNewReplicaSet")
    entry = _progressing("True", reason, f'{verb} new replica set "{name}"')
    return set_condition(conditions, entry, now, updates=True)


def _progressing(status: str, reason: str, message: str) -> Condition:
    return Condition(type="Progressing", status=status, reason=reason, message=message)
