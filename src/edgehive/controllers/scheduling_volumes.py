"""Where the volumes of a pod's claims are, and which of the free ones its unbound claims can have. Pure.

As Kubernetes' VolumeBinding and VolumeRestrictions decide it, with one difference: claims are matched with volumes
so that as many as possible find one, where Kubernetes takes the smallest for each in turn.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from edgehive.controllers.binding import Claim, StorageClass, Volume, offers_for
from edgehive.controllers.objects import controller_of
from edgehive.controllers.scheduling_model import ClusterState, NodeInfo, NodeTerm, PodInfo, node_term
from edgehive.kube.reflector import Key
from edgehive.kube.status import ApiStatus

NODE_CONFLICT = "node(s) had volume node affinity conflict"
BIND_CONFLICT = "node(s) didn't find available persistent volumes to bind"
VOLUME_MISSING = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
EXCLUSIVE_CONFLICT = (
    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
)
_EXCLUSIVE = "ReadWriteOncePod"


@dataclass(frozen=True, slots=True)
class Match:
    """A claim and the free volume it is to have."""

    claim: Claim
    volume: Volume


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to happen before a pod can go to the node that was chosen."""

    matches: tuple[Match, ...] = ()
    provision: tuple[Claim, ...] = ()
    """Claims that a provisioner has to make a volume for."""


NOTHING = Plan()


class VolumeState:
    """All claims, volumes and classes, with what was decided but is not written yet."""

    def __init__(self) -> None:
        self.claims: dict[Key, Claim] = {}
        self.volumes: dict[str, Volume] = {}
        self.classes: dict[str, StorageClass] = {}
        self._places: dict[str, tuple[NodeTerm, ...] | None] = {}
        self._taken: set[str] = set()
        self._busy: set[Key] = set()

    def set_claim(self, key: Key, claim: Claim | None) -> bool:
        """Take a claim, or that it is gone; tell whether anything changed for scheduling."""
        old = self.claims.pop(key, None)
        if claim is not None:
            self.claims[key] = claim
        return _claim_look(old) != _claim_look(claim)

    def set_volume(self, name: str, volume: Volume | None) -> bool:
        """Take a volume, or that it is gone; tell whether anything changed for scheduling."""
        old = self.volumes.pop(name, None)
        if volume is None:
            self._places.pop(name, None)
        else:
            self.volumes[name] = volume
            self._places[name] = _places(volume)
        return _volume_look(old) != _volume_look(volume)

    def set_class(self, name: str, found: StorageClass | None) -> None:
        """Take a class, or that it is gone."""
        if found is None:
            self.classes.pop(name, None)
        else:
            self.classes[name] = found

    def assume(self, plan: Plan) -> None:
        """Keep the volumes of `plan` from other claims, and its claims from other pods, until `forget`."""
        self._taken.update(match.volume.metadata.name for match in plan.matches)
        self._busy.update(_claims_of(plan))

    def forget(self, plan: Plan) -> None:
        """Note that `plan` was written, or given up."""
        self._taken.difference_update(match.volume.metadata.name for match in plan.matches)
        self._busy.difference_update(_claims_of(plan))

    def reaches(self, volume: Volume, node: NodeInfo) -> bool:
        """Tell whether a pod on `node` can have `volume`."""
        places = self._places.get(volume.metadata.name)
        return places is None or any(term.matches(node) for term in places)

    def class_of(self, claim: Claim) -> StorageClass | None:
        """Return the claim's class, if it names one that exists."""
        return self.classes.get(claim.spec.storage_class_name or "")

    def wanted(self, pod: PodInfo, cluster: ClusterState) -> "PodVolumes":
        """Look up the claims of `pod`: what holds whatever the node."""
        found = PodVolumes(self)
        for name, own in pod.claims.items():
            claim = self.claims.get((pod.namespace, name))
            refusal = _refusal(name, claim, pod, own=own)
            if refusal or claim is None:
                return PodVolumes(self, refusal=refusal)
            kind = self.class_of(claim)
            if claim.bound:
                found.bound.append(claim)
            elif kind is not None and kind.waits and not claim.spec.volume_name:
                found.unbound.append(claim)
            else:
                return PodVolumes(self, refusal="pod has unbound immediate PersistentVolumeClaims")
            if _EXCLUSIVE in claim.spec.access_modes:
                found.exclusive |= _is_used(name, pod, cluster)
        found.busy = any(claim.key in self._busy for claim in found.unbound)
        if found.unbound and not found.busy:
            free = [volume for name, volume in self.volumes.items() if name not in self._taken]
            in_turn = sorted(found.unbound, key=self._turn)
            found.offers = [(claim, offers_for(claim, free)) for claim in in_turn]
        return found

    def provisions(self, claim: Claim) -> bool:
        """Tell whether somebody makes volumes for the claim."""
        kind = self.class_of(claim)
        return kind is not None and kind.provisions

    def _turn(self, claim: Claim) -> tuple[bool, Decimal, str]:
        """Those that nobody can make a volume for choose first, then small ones."""
        return self.provisions(claim), claim.requested, claim.metadata.name


@dataclass(slots=True)
class PodVolumes:
    """The claims of one pod. Made once per attempt."""

    state: VolumeState
    refusal: str = ""
    """Why no node will do."""
    busy: bool = False
    """Whether a claim is just being bound for another pod."""
    exclusive: bool = False
    """Whether another pod has a claim that only one may have."""
    bound: list[Claim] = field(default_factory=list)
    unbound: list[Claim] = field(default_factory=list)
    offers: list[tuple[Claim, list[Volume]]] = field(default_factory=list)
    """What each unbound claim could have wherever the pod is, best first; in the order in which they choose."""

    def refusals_on(self, node: NodeInfo) -> list[str]:
        """Return why the pod cannot have its volumes on `node`; empty when it can."""
        if self.exclusive:
            return [EXCLUSIVE_CONFLICT]
        reasons: list[str] = []
        for claim in self.bound:
            volume = self.state.volumes.get(claim.spec.volume_name)
            if volume is None:
                return [VOLUME_MISSING]
            if not self.state.reaches(volume, node) and not reasons:
                reasons.append(NODE_CONFLICT)
        if self.unbound and self._plan(node) is None:
            reasons.append(BIND_CONFLICT)
        return reasons

    def plan_on(self, node: NodeInfo) -> Plan:
        """Return what has to be done for the pod to run on `node`, which was not refused."""
        return (self._plan(node) if self.unbound else None) or NOTHING

    def _plan(self, node: NodeInfo) -> Plan | None:
        choosing, provision = [], []
        for claim, offers in self.offers:
            here = [volume for volume in offers if self.state.reaches(volume, node)]
            if self.state.provisions(claim) and claim.selected_node:
                if claim.selected_node != node.name:
                    return None
                here = [volume for volume in here if volume.spec.claim_ref is not None]
            choosing.append((claim, here))
        matches = match(choosing)
        matched = {one.claim.key for one in matches}
        for claim, offers in self.offers:
            if claim.key not in matched:
                kind = self.state.class_of(claim)
                kept = any(volume.spec.claim_ref is not None for volume in offers)
                if kept or kind is None or not kind.provisions or not kind.allows(node.labels):
                    return None
                provision.append(claim)
        return Plan(tuple(matches), tuple(provision))


def match(choosing: Sequence[tuple[Claim, Sequence[Volume]]]) -> list[Match]:
    """Give every claim at most one of its volumes, no volume twice, to as many as possible; earlier ones first."""
    taken: dict[str, int] = {}
    volumes = {one.metadata.name: one for _, offers in choosing for one in offers}

    def seat(index: int, tried: set[str]) -> bool:
        for name in (one.metadata.name for one in choosing[index][1]):
            if name in tried:
                continue
            tried.add(name)
            if name not in taken or seat(taken[name], tried):
                taken[name] = index
                return True
        return False

    for index in range(len(choosing)):
        seat(index, set())
    return [Match(choosing[index][0], volumes[name]) for name, index in taken.items()]


def _claims_of(plan: Plan) -> list[Key]:
    return [*(match.claim.key for match in plan.matches), *(claim.key for claim in plan.provision)]


def _refusal(name: str, claim: Claim | None, pod: PodInfo, *, own: bool) -> str:
    if claim is None:
        if own:
            return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
        return f'persistentvolumeclaim "{name}" not found'
    if own and controller_of(claim.metadata) != pod.uid:
        return f'PVC "{pod.namespace}/{name}" was not created for pod "{pod.namespace}/{pod.name}" (pod is not owner)'
    if claim.status.phase == "Lost":
        volume = claim.spec.volume_name
        return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
    if claim.metadata.deletion_timestamp is not None:
        return f'persistentvolumeclaim "{name}" is being deleted'
    return ""


def _is_used(name: str, pod: PodInfo, cluster: ClusterState) -> bool:
    return any(
        other.uid != pod.uid and other.namespace == pod.namespace and name in other.claims
        for node in cluster.nodes.values()
        for other in node.pods.values()
    )


def _places(volume: Volume) -> tuple[NodeTerm, ...] | None:
    required = (volume.spec.node_affinity or {}).get("required")
    if required is None:
        return None
    try:
        return tuple(node_term(term) for term in required.get("nodeSelectorTerms") or ())
    except ApiStatus:
        return ()  # where it is cannot be understood: nowhere


def _claim_look(claim: Claim | None) -> Iterable[object]:
    if claim is None:
        return ()
    meta = claim.metadata
    return meta.uid, claim.spec, claim.status, claim.bound, claim.selected_node, meta.deletion_timestamp


def _volume_look(volume: Volume | None) -> Iterable[object]:
    if volume is None:
        return ()
    return volume.metadata.uid, volume.spec, volume.metadata.labels, volume.metadata.deletion_timestamp
