"""One pod on every fitting node: which nodes, which pods to make and to take away. Pure.

Follows Kubernetes' daemonset controller; revisions are told apart by the label ``controller-revision-hash``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgehive.controllers.claims import Owner
from edgehive.controllers.objects import DaemonSet, Pod, PodSpec, pod_active, pod_ready
from edgehive.controllers.replicas import Replica, pod_available, pod_from_template
from edgehive.controllers.rollout import resolve
from edgehive.controllers.scheduling import matches_node
from edgehive.controllers.scheduling_model import NodeInfo, PodInfo, pod_info, tolerates
from edgehive.controllers.templates import CONTROLLER_REVISION_HASH
from edgehive.kube.meta import Meta

_ADDED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_HOST_NETWORK = ("node.kubernetes.io/network-unavailable", "NoSchedule")


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a daemon belongs on a node (`run`), and whether one that is there may stay (`stay`)."""

    run: bool
    stay: bool


@dataclass(slots=True)
class Plan:
    """What to do now."""

    create: list[str] = field(default_factory=list)
    """Node names."""
    delete: list[Replica] = field(default_factory=list)
    failed: list[Replica] = field(default_factory=list)
    """Pods that ended and must be replaced, with back-off."""


def added_tolerations(spec: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the tolerations that every daemon gets."""
    wanted = (*_ADDED, *((_HOST_NETWORK,) if spec.get("hostNetwork") else ()))
    return [{"key": key, "operator": "Exists", "effect": effect} for key, effect in wanted]


def template_info(template: Mapping[str, Any]) -> PodInfo:
    """Compile the pod a template describes, as far as choosing nodes goes.

    Raises:
        ApiStatus: a selector in it cannot be understood.
    """
    spec = template.get("spec") or {}
    view = msgspec.convert(
        {
            "nodeName": spec.get("nodeName") or "",
            "nodeSelector": spec.get("nodeSelector"),
            "affinity": spec.get("affinity"),
            "tolerations": [*(spec.get("tolerations") or ()), *added_tolerations(spec)],
        },
        PodSpec,
    )
    return pod_info(Pod(metadata=Meta(), spec=view))


def fit(daemon: PodInfo, node: NodeInfo) -> Fit:
    """Decide about one node."""
    if (daemon.node_name and daemon.node_name != node.name) or not matches_node(daemon, node):
        return Fit(run=False, stay=False)
    refused = [t for t in node.taints if not tolerates(daemon.tolerations, t)]
    if any(t.effect == "NoExecute" for t in refused):
        return Fit(run=False, stay=False)
    return Fit(run=not any(t.effect == "NoSchedule" for t in refused), stay=True)


def daemon_pod(template: Mapping[str, Any], owner: Owner, node: str, digest: str) -> dict[str, Any]:
    """Return the pod for one node; the scheduler puts it there by its node affinity."""
    pod = pod_from_template(template, owner, {CONTROLLER_REVISION_HASH: digest})
    spec = pod["spec"]
    affinity = dict(spec.get("affinity") or {})
    by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity["nodeAffinity"] = {
        **(affinity.get("nodeAffinity") or {}),
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [by_name]},
    }
    spec["affinity"] = affinity
    has = spec.get("tolerations") or []
    spec["tolerations"] = [*has, *(t for t in added_tolerations(spec) if t not in has)]
    return pod


def target_node(pod: Pod) -> str:
    """Return the node a daemon is on or meant for."""
    if pod.spec.node_name:
        return pod.spec.node_name
    node = (pod.spec.affinity or {}).get("nodeAffinity") or {}
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for entry in term.get("matchFields") or ():
            if entry.get("key") == "metadata.name" and len(entry.get("values") or ()) == 1:
                return str(entry["values"][0])
    return ""


def is_current(pod: Pod, digest: str) -> bool:
    """Tell whether a pod was made from the current template."""
    return (pod.metadata.labels or {}).get(CONTROLLER_REVISION_HASH) == digest


class Placement:
    """A daemonset, the nodes, and its pods by node."""

    def __init__(
        self,
        *,
        daemonset: DaemonSet,
        digest: str,
        fits: Mapping[str, Fit],
        pods: Iterable[Replica],
        now: float,
    ) -> None:
        self._set = daemonset
        self._digest = digest
        self._fits = fits
        self._now = now
        self._by_node: dict[str, list[Replica]] = {}
        for replica in pods:
            self._by_node.setdefault(target_node(replica.pod), []).append(replica)
        for replicas in self._by_node.values():
            replicas.sort(key=_oldest_first)
        self.desired = sum(f.run for f in fits.values())
        rolling = daemonset.spec.update_strategy.rolling_update
        self._rolls = daemonset.spec.update_strategy.type != "OnDelete"
        surge = rolling.max_surge if rolling else None
        unavailable = rolling.max_unavailable if rolling else None
        self._surge = resolve(surge, self.desired, up=True)
        self._unavailable = resolve(1 if unavailable is None else unavailable, self.desired, up=True)
        if not self._surge and not self._unavailable:
            self._unavailable = 1

    def plan(self) -> Plan:
        """Return what must be done: first who is missing or surplus, then the rolling update."""
        plan = Plan()
        for name, replicas in self._by_node.items():
            if name not in self._fits:
                plan.delete += [r for r in replicas if _living(r)]
        for name, fits in self._fits.items():
            self._place(name, fits, self._by_node.get(name, []), plan)
        if self._rolls:
            (self._roll_with_surge if self._surge else self._roll)(plan)
        return plan

    def _place(self, name: str, fits: Fit, replicas: Sequence[Replica], plan: Plan) -> None:
        living = [r for r in replicas if _living(r)]
        if not fits.stay:
            plan.delete += living
            return
        ended = [r for r in living if not pod_active(r.pod)]
        running = [r for r in living if pod_active(r.pod)]
        plan.failed += ended
        if not replicas and fits.run:
            plan.create.append(name)
        current = [r for r in running if is_current(r.pod, self._digest)]
        outdated = [r for r in running if not is_current(r.pod, self._digest)]
        if self._surge and current and outdated:  # two are allowed while one replaces the other
            plan.delete += [*outdated[1:], *current[1:]]
        else:
            plan.delete += running[1:]

    def _available(self, replica: Replica) -> bool:
        return pod_available(replica.pod, self._set.spec.min_ready_seconds, self._now) == 0.0

    def _pairs(self) -> Iterable[tuple[str, Replica | None, Replica | None, bool]]:
        """Yield (node, outdated pod, current pod, whether one is just going)."""
        for name, fits in self._fits.items():
            if not fits.run:
                continue
            replicas = self._by_node.get(name, [])
            living = [r for r in replicas if _living(r) and pod_active(r.pod)]
            outdated = next((r for r in living if not is_current(r.pod, self._digest)), None)
            current = next((r for r in living if is_current(r.pod, self._digest)), None)
            yield name, outdated, current, len(living) < len(replicas)

    def _roll(self, plan: Plan) -> None:
        down = 0
        broken: list[Replica] = []
        healthy: list[Replica] = []
        for _, outdated, current, _ in self._pairs():
            if current is not None:
                down += not self._available(current)
            elif outdated is None:
                down += 1
            elif self._available(outdated):
                healthy.append(outdated)
            else:
                down += 1
                broken.append(outdated)
        chosen = {id(r) for r in plan.delete}
        victims = [*broken, *healthy[: max(0, self._unavailable - down)]]
        plan.delete += [r for r in victims if id(r) not in chosen]

    def _roll_with_surge(self, plan: Plan) -> None:
        extra = 0
        urgent: list[str] = []
        later: list[str] = []
        chosen = {id(r) for r in plan.delete}
        for name, outdated, current, going in self._pairs():
            if outdated is None:
                continue
            if current is not None:
                if self._available(current):
                    if id(outdated) not in chosen:
                        plan.delete.append(outdated)
                else:
                    extra += 1
            elif not going:
                (later if self._available(outdated) else urgent).append(name)
        plan.create += [*urgent, *later[: max(0, self._surge - extra)]]

    def status(self) -> dict[str, int]:
        """Return the counts of ``status``."""
        current = ready = available = updated = misplaced = 0
        for name, fits in self._fits.items():
            living = [r for r in self._by_node.get(name, []) if _living(r)]
            if not fits.run:
                misplaced += bool(living)
                continue
            if not living:
                continue
            current += 1
            ready += any(pod_ready(r.pod) for r in living)
            available += any(self._available(r) for r in living)
            newest = [r for r in living if is_current(r.pod, self._digest)]
            updated += bool(newest) and (len(newest) == len(living) or self._available(newest[0]))
        misplaced += sum(
            any(map(_living, rs)) for name, rs in self._by_node.items() if name not in self._fits
        )
        return {
            "desiredNumberScheduled": self.desired,
            "currentNumberScheduled": current,
            "numberMisscheduled": misplaced,
            "numberReady": ready,
            "updatedNumberScheduled": updated,
            "numberAvailable": available,
            "numberUnavailable": self.desired - available,
            "observedGeneration": self._set.metadata.generation,
        }

    def next_change(self) -> float | None:
        """Return in how many seconds a ready pod becomes available by age."""
        ages = [
            pod_available(r.pod, self._set.spec.min_ready_seconds, self._now)
            for replicas in self._by_node.values()
            for r in replicas
            if _living(r)
        ]
        return min((age for age in ages if age), default=None)


def _living(replica: Replica) -> bool:
    return replica.cached.meta.deletion_timestamp is None


def _oldest_first(replica: Replica) -> tuple[bool, str, str]:
    meta = replica.pod.metadata
    return (not replica.pod.spec.node_name, meta.creation_timestamp or "", meta.name)
