"""What the scheduler knows of nodes and pods: requests, ports, labels, compiled affinity. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING
from typing import Any

from edgehive.controllers.objects import (
    Container,
    Node,
    Pod,
    PodSpec,
    Taint,
    Toleration,
    controller_of,
    pod_claims,
)
from edgehive.kube.quantity import parse_quantity
from edgehive.kube.selectors import LabelSelector

Amounts = dict[str, int]
"""Thousandths of each resource; ``pods`` included."""

_DEFAULT_CPU = 100  # thousandths; what scoring assumes of a container without a request
_DEFAULT_MEMORY = 200 * 1024 * 1024 * 1000
HostPort = tuple[str, str, int]
"""(protocol, address, port)."""


@dataclass(frozen=True, slots=True)
class AffinityTerm:
    """One compiled pod (anti-)affinity term."""

    selector: LabelSelector
    topology_key: str
    namespaces: frozenset[str]
    namespace_selector: LabelSelector | None
    weight: int = 0

    def selects(self, pod: "PodInfo", namespace_labels: Mapping[str, Mapping[str, str]]) -> bool:
        """Tell whether `pod` is one the term speaks of."""
        if pod.namespace not in self.namespaces:
            if self.namespace_selector is None:
                return False
            if not self.namespace_selector.everything and not self.namespace_selector.matches(
                namespace_labels.get(pod.namespace, {})
            ):
                return False
        return self.selector.matches(pod.labels)


@dataclass(frozen=True, slots=True)
class NodeTerm:
    """One compiled ``nodeSelectorTerm``."""

    labels: LabelSelector
    fields: LabelSelector
    empty: bool
    weight: int = 0

    def matches(self, node: "NodeInfo") -> bool:
        """Tell whether `node` is selected; an empty term selects nothing."""
        return (
            not self.empty
            and self.labels.matches(node.labels)
            and self.fields.matches({"metadata.name": node.name})
        )


@dataclass(frozen=True, slots=True)
class SpreadConstraint:
    """One compiled ``topologySpreadConstraint``."""

    topology_key: str
    max_skew: int
    selector: LabelSelector
    hard: bool
    min_domains: int
    honor_affinity: bool
    honor_taints: bool


@dataclass(frozen=True, slots=True)
class PodInfo:
    """A pod with everything about it that scheduling looks at, computed once."""

    uid: str
    namespace: str
    name: str
    labels: Mapping[str, str]
    owner: str
    priority: int
    node_name: str
    terminating: bool
    requests: Mapping[str, int]
    scored: tuple[int, int]
    """CPU and memory with defaults for containers that request none; for scoring only."""
    ports: tuple[HostPort, ...]
    tolerations: tuple[Toleration, ...]
    node_selector: LabelSelector
    node_terms: tuple[NodeTerm, ...] | None
    node_preferences: tuple[NodeTerm, ...]
    affinity: tuple[AffinityTerm, ...]
    anti_affinity: tuple[AffinityTerm, ...]
    pod_preferences: tuple[AffinityTerm, ...]
    """Weights are negative for anti-affinity."""
    spread: tuple[SpreadConstraint, ...]
    claims: Mapping[str, bool]
    """Names of persistent volume claims; True for one made for this pod alone."""


def pod_info(pod: Pod) -> PodInfo:
    """Compile a pod.

    Raises:
        ApiStatus: a selector in it cannot be understood.
    """
    spec, meta = pod.spec, pod.metadata
    affinity = spec.affinity or {}
    node = affinity.get("nodeAffinity") or {}
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    with_pods, without_pods = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
    labels = meta.labels or {}
    return PodInfo(
        uid=meta.uid,
        namespace=meta.namespace,
        name=meta.name,
        labels=labels,
        owner=controller_of(meta),
        priority=spec.priority or 0,
        node_name=spec.node_name,
        terminating=meta.deletion_timestamp is not None,
        requests=pod_requests(spec),
        scored=_scored_requests(spec),
        ports=tuple(_host_ports(spec.containers or (), host_network=bool(spec.host_network))),
        tolerations=spec.tolerations or (),
        node_selector=LabelSelector.from_object({"matchLabels": spec.node_selector or {}}),
        node_terms=None
        if required is None
        else tuple(node_term(t) for t in required.get("nodeSelectorTerms") or ()),
        node_preferences=tuple(
            node_term(p.get("preference") or {}, p.get("weight", 0))
            for p in node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        ),
        affinity=_required_terms(with_pods, meta.namespace, labels),
        anti_affinity=_required_terms(without_pods, meta.namespace, labels),
        pod_preferences=(
            *_preferred_terms(with_pods, meta.namespace, labels, 1),
            *_preferred_terms(without_pods, meta.namespace, labels, -1),
        ),
        spread=tuple(_spread(c, labels) for c in spec.topology_spread_constraints or ()),
        claims=pod_claims(pod),
    )


def node_term(term: Mapping[str, Any], weight: int = 0) -> NodeTerm:
    """Compile a ``nodeSelectorTerm``.

    Raises:
        ApiStatus: a selector in it cannot be understood.
    """
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    return NodeTerm(
        labels=LabelSelector.from_object({"matchExpressions": expressions}),
        fields=LabelSelector.from_object({"matchExpressions": fields}),
        empty=not expressions and not fields,
        weight=weight,
    )


def _required_terms(
    source: Mapping[str, Any], namespace: str, labels: Mapping[str, str]
) -> tuple[AffinityTerm, ...]:
    terms = source.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    return tuple(_pod_term(t, namespace, labels, 0) for t in terms)


def _preferred_terms(
    source: Mapping[str, Any], namespace: str, labels: Mapping[str, str], sign: int
) -> tuple[AffinityTerm, ...]:
    terms = source.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return tuple(
        _pod_term(t.get("podAffinityTerm") or {}, namespace, labels, sign * t.get("weight", 0)) for t in terms
    )


def _pod_term(
    term: Mapping[str, Any], namespace: str, labels: Mapping[str, str], weight: int
) -> AffinityTerm:
    where = term.get("namespaceSelector")
    names = frozenset(term.get("namespaces") or (() if where is not None else (namespace,)))
    return AffinityTerm(
        selector=_with_label_keys(term, labels),
        topology_key=term.get("topologyKey") or "",
        namespaces=names,
        namespace_selector=None if where is None else LabelSelector.from_object(where),
        weight=weight,
    )


def _with_label_keys(source: Mapping[str, Any], labels: Mapping[str, str]) -> LabelSelector:
    """Compile ``labelSelector``, narrowed by the pod's own values of ``matchLabelKeys``."""
    selector = source.get("labelSelector")
    keys = [k for k in source.get("matchLabelKeys") or () if k in labels]
    if selector is None or not keys:
        return LabelSelector.from_object(selector)
    own = {k: labels[k] for k in keys}
    return LabelSelector.from_object(
        {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), **own}}
    )


def _spread(constraint: Mapping[str, Any], labels: Mapping[str, str]) -> SpreadConstraint:
    return SpreadConstraint(
        topology_key=constraint.get("topologyKey") or "",
        max_skew=constraint.get("maxSkew") or 1,
        selector=_with_label_keys(constraint, labels),
        hard=constraint.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule",
        min_domains=constraint.get("minDomains") or 1,
        honor_affinity=constraint.get("nodeAffinityPolicy", "Honor") == "Honor",
        honor_taints=constraint.get("nodeTaintsPolicy", "Ignore") == "Honor",
    )


def amounts(quantities: Mapping[str, str | int | float] | None) -> Amounts:
    """Return quantities in thousandths, rounded up; unreadable ones are left out."""
    found: Amounts = {}
    for name, text in (quantities or {}).items():
        try:
            found[name] = int((parse_quantity(text) * 1000).to_integral_value(rounding=ROUND_CEILING))
        except ValueError:
            continue
    return found


def pod_requests(spec: PodSpec) -> Amounts:
    """Return what a pod requests: containers and sidecars together, or the largest init step, and overhead."""
    running: Counter[str] = Counter()
    for container in spec.containers or ():
        running.update(_requests(container))
    sidecars: Counter[str] = Counter()
    peak: Amounts = {}
    for container in spec.init_containers or ():
        step = Counter(_requests(container))
        if container.restart_policy == "Always":
            sidecars.update(step)
            step = Counter(sidecars)
        else:
            step.update(sidecars)
        for name, amount in step.items():
            peak[name] = max(peak.get(name, 0), amount)
    running.update(sidecars)
    total = {name: max(running[name], peak.get(name, 0)) for name in running.keys() | peak.keys()}
    for name, amount in amounts(spec.overhead).items():
        total[name] = total.get(name, 0) + amount
    return {**{name: amount for name, amount in total.items() if amount}, "pods": 1000}


def _requests(container: Container) -> Amounts:
    if container.resources is None:
        return {}
    return amounts({**(container.resources.limits or {}), **(container.resources.requests or {})})


def _scored_requests(spec: PodSpec) -> tuple[int, int]:
    cpu = memory = 0
    for container in spec.containers or ():
        wanted = _requests(container)
        cpu += wanted.get("cpu", _DEFAULT_CPU)
        memory += wanted.get("memory", _DEFAULT_MEMORY)
    return cpu, memory


def _host_ports(containers: Sequence[Container], *, host_network: bool) -> Iterable[HostPort]:
    for container in containers:
        for port in container.ports or ():
            number = port.host_port or (port.container_port if host_network else 0)
            if number:
                yield (port.protocol or "TCP", port.host_ip or "0.0.0.0", number)  # noqa: S104


def tolerates(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    """Tell whether one of `tolerations` tolerates `taint`."""
    return any(
        (not t.effect or t.effect == taint.effect)
        and (t.key == taint.key or (not t.key and t.operator == "Exists"))
        and (t.operator == "Exists" or t.value == taint.value)
        for t in tolerations
    )


@dataclass(slots=True)
class NodeInfo:
    """A node and the pods on it."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    allocatable: Amounts = field(default_factory=dict)
    known: bool = False
    """False while only its pods have been seen, not the node itself."""
    pods: dict[str, PodInfo] = field(default_factory=dict)
    used: Counter[str] = field(default_factory=Counter)
    scored: list[int] = field(default_factory=lambda: [0, 0])

    def describe(self, node: Node) -> bool:
        """Take what the node says of itself; tell whether anything that scheduling looks at changed."""
        status = node.status
        new = (
            {**(node.metadata.labels or {})},
            node.spec.taints or (),
            bool(node.spec.unschedulable),
            amounts(status.allocatable or status.capacity),
        )
        old = (self.labels, self.taints, self.unschedulable, self.allocatable)
        changed = not self.known or new != old
        self.labels, self.taints, self.unschedulable, self.allocatable = new
        self.known = True
        return changed

    def add(self, pod: PodInfo) -> None:
        """Count a pod in; one that is here already is replaced."""
        self.remove(pod.uid)
        self.pods[pod.uid] = pod
        self.used.update(pod.requests)
        self.scored[0] += pod.scored[0]
        self.scored[1] += pod.scored[1]

    def remove(self, uid: str) -> None:
        """Count a pod out."""
        pod = self.pods.pop(uid, None)
        if pod is not None:
            self.used.subtract(pod.requests)
            self.scored[0] -= pod.scored[0]
            self.scored[1] -= pod.scored[1]


class ClusterState:
    """All nodes and where the pods are, those just placed included."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeInfo] = {}
        self.namespaces: dict[str, Mapping[str, str]] = {}
        self._places: dict[str, str] = {}

    def set_node(self, node: Node) -> bool:
        """Take a node; tell whether anything changed for scheduling."""
        name = node.metadata.name
        return self.nodes.setdefault(name, NodeInfo(name)).describe(node)

    def drop_node(self, name: str) -> None:
        """Forget a node; its pods stay known until they are gone."""
        node = self.nodes.get(name)
        if node is not None:
            node.known = False
            if not node.pods:
                del self.nodes[name]

    def place(self, pod: PodInfo, node_name: str) -> None:
        """Count `pod` on `node_name`."""
        if self._places.get(pod.uid, node_name) != node_name:
            self.remove(pod.uid)
        self._places[pod.uid] = node_name
        self.nodes.setdefault(node_name, NodeInfo(node_name)).add(pod)

    def remove(self, uid: str) -> bool:
        """Forget a pod; False when it was not placed."""
        name = self._places.pop(uid, None)
        if name is None:
            return False
        node = self.nodes[name]
        node.remove(uid)
        if not node.known and not node.pods:
            del self.nodes[name]
        return True

    def placed(self, uid: str) -> str:
        """Return where a pod is; empty when nowhere."""
        return self._places.get(uid, "")

    def schedulable(self) -> list[NodeInfo]:
        """Return the nodes that exist, in the order of their names."""
        return sorted((n for n in self.nodes.values() if n.known), key=lambda n: n.name)
