"""Which volume a claim gets: Kubernetes' rules for volumes that are there already; pure."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from edgehive.controllers.objects import reader
from edgehive.kube.meta import Meta
from edgehive.kube.quantity import parse_quantity
from edgehive.kube.selectors import LabelSelector
from edgehive.kube.status import ApiStatus

SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
"""On a claim: the node for whose pod a provisioner is to make the volume."""
BIND_COMPLETED: Final = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER: Final = "pv.kubernetes.io/bound-by-controller"
_NO_PROVISIONER: Final = ("", "kubernetes.io/no-provisioner")


class Reference(msgspec.Struct):
    """The claim that a volume is for; without a `uid` it is kept for one that may yet come."""

    name: str = ""
    namespace: str = ""
    uid: str = ""


class VolumeSpec(msgspec.Struct, rename="camel"):
    """``spec`` of a PersistentVolume, as far as it is acted on."""

    capacity: dict[str, str | int | float] = {}
    access_modes: list[str] = []
    storage_class_name: str = ""
    volume_mode: str = "Filesystem"
    claim_ref: Reference | None = None
    node_affinity: dict[str, Any] | None = None


class Status(msgspec.Struct):
    """``status`` of either."""

    phase: str = ""


class Volume(msgspec.Struct):
    """A PersistentVolume."""

    metadata: Meta
    spec: VolumeSpec = msgspec.field(default_factory=VolumeSpec)
    status: Status = msgspec.field(default_factory=Status)


class ClaimSpec(msgspec.Struct, rename="camel"):
    """``spec`` of a PersistentVolumeClaim, as far as it is acted on."""

    access_modes: list[str] = []
    resources: dict[str, Any] = {}
    storage_class_name: str | None = None
    volume_mode: str = "Filesystem"
    volume_name: str = ""
    selector: dict[str, Any] | None = None


class Claim(msgspec.Struct):
    """A PersistentVolumeClaim."""

    metadata: Meta
    spec: ClaimSpec = msgspec.field(default_factory=ClaimSpec)
    status: Status = msgspec.field(default_factory=Status)

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.metadata.namespace, self.metadata.name

    @property
    def bound(self) -> bool:
        """Whether it has its volume, both sides written."""
        return bool(self.spec.volume_name) and BIND_COMPLETED in (self.metadata.annotations or {})

    @property
    def selected_node(self) -> str:
        """The node that a provisioner was told to make a volume for; empty for none."""
        return (self.metadata.annotations or {}).get(SELECTED_NODE, "")

    @property
    def requested(self) -> Decimal:
        """Bytes asked for."""
        requests = self.spec.resources.get("requests")
        return parse_quantity(requests.get("storage", 0)) if isinstance(requests, dict) else Decimal(0)


class StorageClass(msgspec.Struct, rename="camel"):
    """A StorageClass, as far as it is acted on."""

    metadata: Meta
    provisioner: str = ""
    volume_binding_mode: str = "Immediate"
    allowed_topologies: list[dict[str, Any]] = []

    @property
    def waits(self) -> bool:
        """Whether its claims wait for a pod."""
        return self.volume_binding_mode == "WaitForFirstConsumer"

    @property
    def provisions(self) -> bool:
        """Whether somebody makes volumes of this class on demand."""
        return self.provisioner not in _NO_PROVISIONER

    def allows(self, labels: Mapping[str, str]) -> bool:
        """Whether volumes can be made for a node with these labels."""
        return not self.allowed_topologies or any(
            all(labels.get(one.get("key", "")) in one.get("values", ()) for one in expressions)
            for term in self.allowed_topologies
            if (expressions := term.get("matchLabelExpressions"))
        )


decode_claim = reader(Claim)
decode_volume = reader(Volume)
decode_class = reader(StorageClass)


def is_for(volume: Volume, claim: Claim) -> bool:
    """Whether the volume names this claim, or one of its name that may yet come."""
    wanted, meta = volume.spec.claim_ref, claim.metadata
    if wanted is None or (wanted.namespace, wanted.name) != (meta.namespace, meta.name):
        return False
    return wanted.uid in ("", meta.uid)


def choose(claim: Claim, volumes: Iterable[Volume], *, waits: bool = False) -> Volume | None:
    """Return the volume to bind: the one that names the claim, else the smallest of those that fit and are free.

    A claim that names its volume gets that one or none; one that `waits` for a pod gets none that is merely free.
    """
    offers = offers_for(claim, volumes)
    if not offers or (waits and not claim.spec.volume_name and not is_for(offers[0], claim)):
        return None
    return offers[0]


def offers_for(claim: Claim, volumes: Iterable[Volume]) -> list[Volume]:
    """Return what could be bound to the claim, best first; the one that names the claim rules out all others.

    A volume that is being deleted is only for the claim that has it already.
    """
    name, uid = claim.spec.volume_name, claim.metadata.uid
    usable = [
        volume
        for volume in volumes
        if (not name or volume.metadata.name == name)
        and (
            volume.metadata.deletion_timestamp is None
            or (volume.spec.claim_ref is not None and volume.spec.claim_ref.uid == uid)
        )
    ]
    own = [volume for volume in usable if is_for(volume, claim)]
    if own:
        return [min(own, key=lambda volume: volume.metadata.name)]
    free = [volume for volume in usable if volume.spec.claim_ref is None and _fits(volume, claim)]
    return sorted(free, key=lambda volume: (_size(volume), volume.metadata.name))


def _fits(volume: Volume, claim: Claim) -> bool:
    spec, wanted = volume.spec, claim.spec
    try:
        selector = LabelSelector.from_object(wanted.selector) if wanted.selector else None
    except ApiStatus:
        return False  # what it selects cannot be understood: nothing
    return (
        spec.storage_class_name == (wanted.storage_class_name or "")
        and spec.volume_mode == wanted.volume_mode
        and set(wanted.access_modes) <= set(spec.access_modes)
        and _size(volume) >= claim.requested
        and (selector is None or selector.matches(volume.metadata.labels or {}))
    )


def _size(volume: Volume) -> Decimal:
    return parse_quantity(volume.spec.capacity.get("storage", 0))


def phase_of(volume: Volume, claim: Claim | None) -> str:
    """The phase of a volume; `claim` is the one of the name in its ``claimRef``, if there is one."""
    reference = volume.spec.claim_ref
    if reference is None:
        return "Available"
    if claim is not None and is_for(volume, claim):
        return "Bound" if claim.spec.volume_name == volume.metadata.name and reference.uid else "Available"
    return "Released" if reference.uid else "Available"
