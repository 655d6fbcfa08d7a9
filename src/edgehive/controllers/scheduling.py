"""Where a pod may run (filters), where it should (scores), and why not. Pure.

The filters, their order, their messages and the weights are those of Kubernetes' default scheduler. There is no
preemption: a pod of higher priority is only tried first.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgehive.controllers.objects import Taint
from edgehive.controllers.scheduling_model import (
    AffinityTerm,
    ClusterState,
    NodeInfo,
    PodInfo,
    SpreadConstraint,
    tolerates,
)
from edgehive.controllers.scheduling_volumes import NOTHING, Plan, PodVolumes, VolumeState

_BLOCKING = ("NoSchedule", "NoExecute")
_UNSCHEDULABLE = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
_EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104  (compared with, not bound to)


@dataclass(frozen=True, slots=True)
class Placement:
    """The node chosen."""

    node: str
    feasible: int
    plan: Plan = NOTHING
    """What has to happen to the pod's claims first."""


@dataclass(frozen=True, slots=True)
class NoFit:
    """No node will do; `message` is what Kubernetes would say."""

    message: str


@dataclass(frozen=True, slots=True)
class Wait:
    """A claim of the pod is being bound for another pod: nothing to say, try again when claims change."""


def schedule(
    pod: PodInfo, cluster: ClusterState, rng: Callable[[], float], volumes: VolumeState | None = None
) -> Placement | NoFit | Wait:
    """Choose a node for `pod`; among equally good ones by chance."""
    nodes = cluster.schedulable()
    if not nodes:
        return NoFit("no nodes available to schedule pods")
    wanted = (volumes or VolumeState()).wanted(pod, cluster)
    if wanted.refusal:
        return NoFit(f"0/{len(nodes)} nodes are available: {wanted.refusal}.")
    if wanted.busy:
        return Wait()
    relations = Relations(pod, nodes, cluster.namespaces)
    reasons: Counter[str] = Counter()
    feasible: list[NodeInfo] = []
    for node in nodes:
        why = refusals(pod, node, relations, wanted)
        if why:
            reasons.update(why)
        else:
            feasible.append(node)
    if not feasible:
        text = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
        return NoFit(f"0/{len(nodes)} nodes are available: {text}.")
    if len(feasible) == 1:
        return Placement(feasible[0].name, 1, wanted.plan_on(feasible[0]))
    scores = score(pod, feasible, relations)
    best = max(scores.values())
    winners = [name for name, value in scores.items() if best - value < 1e-9]
    winner = winners[min(int(rng() * len(winners)), len(winners) - 1)]
    return Placement(winner, len(feasible), wanted.plan_on(cluster.nodes[winner]))


def refusals(pod: PodInfo, node: NodeInfo, relations: "Relations", volumes: PodVolumes) -> list[str]:
    """Return why `pod` cannot run on `node`: the reasons of the first filter that refuses; empty if none does."""
    if node.unschedulable and not tolerates(pod.tolerations, _UNSCHEDULABLE):
        return ["node(s) were unschedulable"]
    if pod.node_name and pod.node_name != node.name:
        return ["node(s) didn't match the requested node name"]
    for taint in node.taints:
        if taint.effect in _BLOCKING and not tolerates(pod.tolerations, taint):
            return [f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"]
    if not matches_node(pod, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    if ports_conflict(pod, node):
        return ["node(s) didn't have free ports for the requested pod ports"]
    short = lacking(pod, node)
    if short:
        return short
    unreachable = volumes.refusals_on(node)
    if unreachable:
        return unreachable
    spread = relations.spread_refusal(node)
    if spread:
        return [spread]
    relation = relations.affinity_refusal(node)
    return [relation] if relation else []


def matches_node(pod: PodInfo, node: NodeInfo) -> bool:
    """Tell whether `node` has what nodeSelector and required node affinity ask for."""
    if not pod.node_selector.matches(node.labels):
        return False
    return pod.node_terms is None or any(term.matches(node) for term in pod.node_terms)


def ports_conflict(pod: PodInfo, node: NodeInfo) -> bool:
    """Tell whether a host port of `pod` is taken on `node`."""
    if not pod.ports:
        return False
    taken = [port for other in node.pods.values() if other.uid != pod.uid for port in other.ports]
    return any(
        protocol == other_protocol
        and number == other_number
        and (address == other_address or address in _EVERY_ADDRESS or other_address in _EVERY_ADDRESS)
        for protocol, address, number in pod.ports
        for other_protocol, other_address, other_number in taken
    )


def lacking(pod: PodInfo, node: NodeInfo) -> list[str]:
    """Return a reason for every resource that `node` has too little of."""
    short = []
    for name, amount in pod.requests.items():
        if amount > node.allocatable.get(name, 0) - node.used[name]:
            short.append("Too many pods" if name == "pods" else f"Insufficient {name}")
    return short


class Relations:
    """How one pod relates to the pods already placed: affinity, anti-affinity, spreading. Made once per attempt."""

    def __init__(
        self, pod: PodInfo, nodes: Sequence[NodeInfo], namespaces: Mapping[str, Mapping[str, str]]
    ) -> None:
        self._pod = pod
        self._namespaces = namespaces
        self._with = [self._domains(term, nodes) for term in pod.affinity]
        self._without = [self._domains(term, nodes) for term in pod.anti_affinity]
        self._repelled = self._repelling(nodes)
        self._alone = (
            bool(pod.affinity)
            and not any(self._with)
            and all(term.selects(pod, namespaces) for term in pod.affinity)
        )
        self._spread = [(c, self._counts(c, nodes)) for c in pod.spread if c.hard]
        self.soft_spread = [(c, self._counts(c, nodes)) for c in pod.spread if not c.hard]
        self.preferences = [(term, self._domains(term, nodes)) for term in pod.pod_preferences]

    def affinity_refusal(self, node: NodeInfo) -> str:
        """Say why the pods near `node` forbid it; empty when they do not."""
        for term, domains in zip(self._pod.affinity, self._with, strict=True):
            value = node.labels.get(term.topology_key)
            if value is None or (not domains.get(value) and not self._alone):
                return "node(s) didn't match pod affinity rules"
        for term, domains in zip(self._pod.anti_affinity, self._without, strict=True):
            value = node.labels.get(term.topology_key)
            if value is not None and domains.get(value):
                return "node(s) didn't match pod anti-affinity rules"
        if any(node.labels.get(key) == value for key, value in self._repelled):
            return "node(s) didn't satisfy existing pods anti-affinity rules"
        return ""

    def spread_refusal(self, node: NodeInfo) -> str:
        """Say why spreading forbids `node`; empty when it does not."""
        for constraint, counts in self._spread:
            value = node.labels.get(constraint.topology_key)
            if value is None:
                return "node(s) didn't match pod topology spread constraints (missing required label)"
            least = min(counts.values(), default=0)
            if len(counts) < constraint.min_domains:
                least = 0
            own = int(constraint.selector.matches(self._pod.labels))
            if counts.get(value, 0) + own - least > constraint.max_skew:
                return "node(s) didn't match pod topology spread constraints"
        return ""

    def _domains(self, term: AffinityTerm, nodes: Sequence[NodeInfo]) -> Counter[str]:
        """Count the pods that `term` selects, by topology value."""
        found: Counter[str] = Counter()
        for node in nodes:
            value = node.labels.get(term.topology_key)
            if value is not None:
                hits = sum(term.selects(p, self._namespaces) for p in node.pods.values())
                if hits:
                    found[value] += hits
        return found

    def _repelling(self, nodes: Sequence[NodeInfo]) -> set[tuple[str, str]]:
        """Return the topology values whose pods do not want ours near them."""
        return {
            (term.topology_key, node.labels[term.topology_key])
            for node in nodes
            for other in node.pods.values()
            for term in other.anti_affinity
            if term.topology_key in node.labels and term.selects(self._pod, self._namespaces)
        }

    def _counts(self, constraint: SpreadConstraint, nodes: Sequence[NodeInfo]) -> dict[str, int]:
        """Count the selected pods by domain, over the nodes that the constraint looks at."""
        keys = [c.topology_key for c in self._pod.spread if c.hard == constraint.hard]
        counts: dict[str, int] = {}
        for node in nodes:
            if any(key not in node.labels for key in keys):
                continue
            if constraint.honor_affinity and not matches_node(self._pod, node):
                continue
            if constraint.honor_taints and any(
                t.effect in _BLOCKING and not tolerates(self._pod.tolerations, t) for t in node.taints
            ):
                continue
            value = node.labels[constraint.topology_key]
            hits = sum(
                p.namespace == self._pod.namespace
                and not p.terminating
                and p.uid != self._pod.uid
                and constraint.selector.matches(p.labels)
                for p in node.pods.values()
            )
            counts[value] = counts.get(value, 0) + hits
        return counts


def score(pod: PodInfo, nodes: Sequence[NodeInfo], relations: Relations) -> dict[str, float]:
    """Return a score for every node, higher is better."""
    weighted: list[tuple[float, list[float]]] = [
        (3, _inverted([_disliked_taints(pod, n) for n in nodes])),
        (2, _normalized([sum(t.weight for t in pod.node_preferences if t.matches(n)) for n in nodes])),
        (2, _stretched([_preference(n, relations) for n in nodes])),
        (2, _inverted([_crowding(pod, n, relations) for n in nodes])),
        (1, [_least_allocated(pod, n) for n in nodes]),
        (1, [_balance(pod, n) for n in nodes]),
    ]
    return {node.name: sum(weight * values[i] for weight, values in weighted) for i, node in enumerate(nodes)}


def _disliked_taints(pod: PodInfo, node: NodeInfo) -> float:
    return sum(t.effect == "PreferNoSchedule" and not tolerates(pod.tolerations, t) for t in node.taints)


def _preference(node: NodeInfo, relations: Relations) -> float:
    return sum(
        term.weight * domains.get(node.labels.get(term.topology_key, ""), 0)
        for term, domains in relations.preferences
    )


def _crowding(pod: PodInfo, node: NodeInfo, relations: Relations) -> float:
    """How much is there already of what should be spread: by constraint, else by common owner."""
    if relations.soft_spread:
        return sum(
            counts.get(node.labels.get(c.topology_key, ""), 0) / c.max_skew
            for c, counts in relations.soft_spread
        )
    return sum(bool(pod.owner) and other.owner == pod.owner for other in node.pods.values())


def _fractions(pod: PodInfo, node: NodeInfo) -> list[float]:
    found = []
    for index, name in enumerate(("cpu", "memory")):
        has = node.allocatable.get(name, 0)
        wanted = node.scored[index] + pod.scored[index]
        found.append(min(1.0, wanted / has) if has > 0 else 1.0)
    return found


def _least_allocated(pod: PodInfo, node: NodeInfo) -> float:
    fractions = _fractions(pod, node)
    return 100.0 * sum(1 - f for f in fractions) / len(fractions)


def _balance(pod: PodInfo, node: NodeInfo) -> float:
    cpu, memory = _fractions(pod, node)
    return 100.0 * (1 - abs(cpu - memory) / 2)


def _normalized(values: list[float]) -> list[float]:
    top = max(values, default=0)
    return [100.0 * v / top if top > 0 else 0.0 for v in values]


def _inverted(values: list[float]) -> list[float]:
    top = max(values, default=0)
    return [100.0 * (top - v) / top if top > 0 else 100.0 for v in values]


def _stretched(values: list[float]) -> list[float]:
    low, high = min(values, default=0), max(values, default=0)
    return [100.0 * (v - low) / (high - low) if high > low else 0.0 for v in values]
