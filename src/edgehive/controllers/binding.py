"""Which volume a claim gets: Kubernetes' rules for volumes that are there already; pure."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from edgehive.kube.meta import Meta
from edgehive.kube.quantity import parse_quantity
from edgehive.kube.selectors import LabelSelector


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


def is_for(volume: Volume, claim: Claim) -> bool:
    """Whether the volume names this claim, or one of its name that may yet come."""
    wanted, meta = volume.spec.claim_ref, claim.metadata
    if wanted is None or (wanted.namespace, wanted.name) != (meta.namespace, meta.name):
        return False
    return wanted.uid in ("", meta.uid)


def choose(claim: Claim, volumes: Iterable[Volume]) -> Volume | None:
    """Return the volume to bind: the one that names the claim, else the smallest of those that fit and are free.

    A claim that names its volume gets that one or none.
    """
    name = claim.spec.volume_name
    living = [volume for volume in volumes if volume.metadata.deletion_timestamp is None]
    if name:
        living = [volume for volume in living if volume.metadata.name == name]
    own = [volume for volume in living if is_for(volume, claim)]
    if own:
        return min(own, key=lambda volume: volume.metadata.name)
    free = [volume for volume in living if volume.spec.claim_ref is None and _fits(volume, claim)]
    return min(free, key=lambda volume: (_size(volume), volume.metadata.name), default=None)


def _fits(volume: Volume, claim: Claim) -> bool:
    spec, wanted = volume.spec, claim.spec
    selector = LabelSelector.from_object(wanted.selector) if wanted.selector else None
    return (
        spec.storage_class_name == (wanted.storage_class_name or "")
        and spec.volume_mode == wanted.volume_mode
        and set(wanted.access_modes) <= set(spec.access_modes)
        and _size(volume) >= _requested(claim)
        and (selector is None or selector.matches(volume.metadata.labels or {}))
    )


def _size(volume: Volume) -> Decimal:
    return parse_quantity(volume.spec.capacity.get("storage", 0))


def _requested(claim: Claim) -> Decimal:
    requests = claim.spec.resources.get("requests")
    return parse_quantity(requests.get("storage", 0)) if isinstance(requests, dict) else Decimal(0)


def phase_of(volume: Volume, claim: Claim | None) -> str:
    """The phase of a volume; `claim` is the one of the name in its ``claimRef``, if there is one."""
    reference = volume.spec.claim_ref
    if reference is None:
        return "Available"
    if claim is not None and is_for(volume, claim):
        return "Bound" if claim.spec.volume_name == volume.metadata.name and reference.uid else "Available"
    return "Released" if reference.uid else "Available"
