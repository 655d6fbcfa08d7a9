"""Is a node alive, what does that mean for its taints, and how long do pods stay on it. Pure.

Kubernetes' node lifecycle: a node whose lease and status stand still for the grace period is Unknown; its
conditions become taints; NoExecute taints evict the pods that do not tolerate them long enough.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from edgehive.controllers.objects import Condition, Node, PodSpec, Taint, Toleration, condition
from edgehive.controllers.replicas import set_condition
from edgehive.controllers.scheduling_model import tolerates
from edgehive.controllers.times import format_time, parse_time
from edgehive.kube.meta import Meta

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
EDGE_LABEL = "node-role.kubernetes.io/edge"
AUTONOMY_ANNOTATION = "edgehive.io/autonomy"
AUTONOMOUS_POD_LABEL = "app-offline.kubeedge.io"
"""KubeEdge's admission webhook lets pods with ``app-offline.kubeedge.io=autonomy`` stay on unreachable nodes."""

_BY_CONDITION = (
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
)
_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_HEARD = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_OURS = frozenset((NOT_READY, UNREACHABLE, _UNSCHEDULABLE, *(key for _, key in _BY_CONDITION)))
_DISRUPTED = 0.55  # of the nodes not ready: then it is rather the network's fault than the nodes'


@dataclass(frozen=True, slots=True)
class Grace:
    """How long to wait, in seconds."""

    running: float = 40.0
    starting: float = 60.0
    """For a node that has never reported."""


class Heartbeats:
    """When each node was last heard of, by our own clock.

    While we do not run ourselves (a suspended machine, a stopped process) nobody's silence grows.
    """

    def __init__(self, *, stall: float = 15.0) -> None:
        self._stall = stall
        self._heard: dict[str, tuple[object, float]] = {}
        self._ticked: float | None = None

    def tick(self, now: float) -> None:
        """Note that we run; to be called more often than every `stall` seconds."""
        gap = now - self._ticked if self._ticked is not None else 0.0
        self._ticked = now
        if gap > self._stall:
            self._heard = {name: (signs, at + gap) for name, (signs, at) in self._heard.items()}

    def hear(self, name: str, signs: object, now: float) -> float:
        """Take a node's signs of life; return for how long they have been the same."""
        self.tick(now)
        known = self._heard.get(name)
        if known is None or known[0] != signs:
            self._heard[name] = (signs, now)
            return 0.0
        return now - known[1]

    def forget(self, name: str) -> None:
        """The node is gone."""
        self._heard.pop(name, None)


def overdue(node: Node, silent: float, grace: Grace) -> float:
    """Return how many seconds `node` may stay silent yet, given that it has been for `silent` seconds."""
    reported = condition(node.status.conditions, "Ready") is not None
    return (grace.running if reported else grace.starting) - silent


def silenced(node: Node, now: float) -> tuple[Condition, ...]:
    """Return the conditions of a node that has not been heard of for too long."""
    conditions = tuple(node.status.conditions or ())
    for kind in _HEARD:
        known = condition(conditions, kind)
        if known is None:
            reason, message = "NodeStatusNeverUpdated", "Kubelet never posted node status."
        elif known.status == "Unknown":
            continue
        else:
            reason, message = "NodeStatusUnknown", "Kubelet stopped posting node status."
        heartbeat = known.last_heartbeat_time if known else node.metadata.creation_timestamp
        lost = Condition(
            type=kind, status="Unknown", reason=reason, message=message, last_heartbeat_time=heartbeat
        )
        conditions = set_condition(conditions, lost, now)
    return conditions


def readiness(node: Node) -> str:
    """Return ``True``, ``False`` or ``Unknown``."""
    ready = condition(node.status.conditions, "Ready")
    return ready.status if ready else "Unknown"


def wanted_taints(node: Node, now: float, *, evict: bool) -> tuple[Taint, ...] | None:
    """Return the taints `node` should have; None when it has them.

    `evict` allows new NoExecute taints; those there already stay as long as their reason does.
    """
    status = readiness(node)
    key = {"True": "", "False": NOT_READY}.get(status, UNREACHABLE)
    ready = condition(node.status.conditions, "Ready")
    if ready is None:
        key = NOT_READY
    wanted: list[tuple[str, str]] = [(key, "NoSchedule")] if key else []
    for kind, taint in _BY_CONDITION:
        known = condition(node.status.conditions, kind)
        if known is not None and known.status == "True":
            wanted.append((taint, "NoSchedule"))
    if node.spec.unschedulable:
        wanted.append((_UNSCHEDULABLE, "NoSchedule"))
    taints = node.spec.taints or ()
    has = {(t.key, t.effect) for t in taints}
    running = any(k in (NOT_READY, UNREACHABLE) and effect == "NoExecute" for k, effect in has)
    if key and ready is not None and (evict or running):
        wanted.append((key, "NoExecute"))
    kept = [t for t in taints if t.key not in _OURS or (t.key, t.effect) in wanted]
    stamp = format_time(now)
    added = [Taint(key=k, effect=e, time_added=stamp) for k, e in wanted if (k, e) not in has]
    return None if len(kept) == len(taints) and not added else (*kept, *added)


class Disruption(Enum):
    """How much of the cluster is not ready."""

    NORMAL = "normal"
    PARTIAL = "partial"
    FULL = "full"


def disruption(states: Sequence[str]) -> Disruption:
    """Judge the cluster by the readiness of its nodes (all one zone).

    When no node is ready at all it is we who are cut off: nothing is evicted. The same holds when most are not
    in a small cluster, as in Kubernetes.
    """
    lost = sum(state != "True" for state in states)
    if states and lost == len(states):
        return Disruption.FULL
    if lost > 2 and lost / len(states) >= _DISRUPTED:
        return Disruption.PARTIAL
    return Disruption.NORMAL


def autonomous(meta: Meta, *, default: bool) -> bool:
    """Tell whether a node keeps its pods while it cannot be reached: an edge node, by annotation or default."""
    if EDGE_LABEL not in (meta.labels or {}):
        return False
    text = (meta.annotations or {}).get(AUTONOMY_ANNOTATION, "")
    return text == "true" or (default and text != "false")


def pod_tolerations(spec: PodSpec, meta: Meta, default_seconds: int) -> tuple[Toleration, ...]:
    """Return a pod's tolerations with those that Kubernetes gives to every pod without its own."""
    found = spec.tolerations or ()
    extra = []
    for key in (NOT_READY, UNREACHABLE):
        if key == UNREACHABLE and (meta.labels or {}).get(AUTONOMOUS_POD_LABEL) == "autonomy":
            extra.append(Toleration(key=key, operator="Exists"))
        elif not any(t.key in ("", key) and t.effect in ("", "NoExecute") for t in found):
            extra.append(
                Toleration(key=key, operator="Exists", effect="NoExecute", toleration_seconds=default_seconds)
            )
    return (*found, *extra)


def eviction_delay(tolerations: Iterable[Toleration], taints: Iterable[Taint]) -> float | None:
    """Return after how many seconds a pod must leave a node with `taints`; None: it may stay."""
    tolerations = tuple(tolerations)
    delays: list[float] = []
    for taint in taints:
        if taint.effect != "NoExecute":
            continue
        matching = [t for t in tolerations if tolerates((t,), taint)]
        if not matching:
            return 0.0
        delays += [
            max(0.0, float(t.toleration_seconds)) for t in matching if t.toleration_seconds is not None
        ]
    return min(delays, default=None)


def taints_json(taints: Iterable[Taint]) -> list[dict[str, str]]:
    """Return taints as they are written."""
    return [
        {"key": t.key, "effect": t.effect}
        | ({"value": t.value} if t.value else {})
        | ({"timeAdded": t.time_added} if t.time_added else {})
        for t in taints
    ]


def heartbeat(node: Node) -> float:
    """Return the newest time the node put on its Ready condition; 0 when none."""
    ready = condition(node.status.conditions, "Ready")
    return (parse_time(ready.last_heartbeat_time) if ready else None) or 0.0
