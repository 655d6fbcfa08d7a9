"""Which devices and models belong to which node: derived from the Device objects, and pure."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from edgehive.kube.reflector import CachedObject, Key
from edgehive.wire.message import MALFORMED

_K = TypeVar("_K")


class _Ref(msgspec.Struct, gc=False):
    name: str = ""


class _Property(msgspec.Struct, gc=False):
    name: str = ""


class _Spec(msgspec.Struct, rename="camel", gc=False):
    node_name: str = ""
    device_model_ref: _Ref | None = None
    properties: list[_Property] | None = None


class Mirrored(msgspec.Struct, rename="camel", gc=False):
    """``status.delivery`` of a Device: at `generation` the newest change that edges must hear of was `version`."""

    generation: int = 0
    version: str = ""


class _Status(msgspec.Struct, gc=False):
    delivery: Mirrored | None = None


class _Device(msgspec.Struct, gc=False):
    spec: msgspec.Raw = msgspec.Raw(b"{}")


class _WithStatus(msgspec.Struct, gc=False):
    status: _Status | None = None


class _ModelProperty(msgspec.Struct, gc=False):
    name: str = ""
    type: str = ""


class _ModelSpec(msgspec.Struct, gc=False):
    properties: list[_ModelProperty] | None = None


class _Model(msgspec.Struct, gc=False):
    spec: _ModelSpec | None = None


_model = msgspec.json.Decoder(_Model)
_device = msgspec.json.Decoder(_Device)
_spec = msgspec.json.Decoder(_Spec)
_with_status = msgspec.json.Decoder(_WithStatus)


@dataclass(frozen=True, slots=True)
class DevicePlace:
    """What is known of a device."""

    node: str
    """The node it is attached to; empty: none."""
    model: Key | None
    """Its DeviceModel; ``None``: it names none."""
    properties: frozenset[str]
    uid: str
    shape: bytes
    """A fingerprint of its specification, which is all that edges must hear of."""
    version: str
    """The resourceVersion of the last change of that."""
    generation: int


def model_types(model: CachedObject | None) -> dict[str, str]:
    """The types of a model's properties as a DeviceStatus shows them: ``int``, ``float``, ``boolean`` and so on."""
    if model is None:
        return {}
    try:
        spec = _model.decode(model.raw).spec
    except MALFORMED:
        return {}
    found = spec.properties if spec is not None else None
    return {p.name: p.type.lower() for p in found or () if p.name and p.type}


def read_place(device: CachedObject, known: DevicePlace | None = None) -> DevicePlace:
    """Read a device, `known` being what was known of it before.

    A device's status changes too, by our own hand, and that is no news for its edge. Its definition has no status
    subresource, so that every write of the status makes a new generation; a single step with the same
    specification is taken for one. When the object is seen for the first time, the status itself says up to which
    generation that holds.
    """
    try:
        raw = bytes(_device.decode(device.raw).spec)
        spec = _spec.decode(raw)
    except MALFORMED:
        raw, spec = b"", _Spec()
    meta = device.meta
    shape = hashlib.blake2b(raw, digest_size=16).digest()
    version = meta.resource_version
    if known is not None and known.uid == meta.uid:
        if known.shape == shape and meta.generation - known.generation in (0, 1):
            version = known.version
    else:
        version = _mirrored(device) or version
    model = spec.device_model_ref.name if spec.device_model_ref is not None else ""
    return DevicePlace(
        node=spec.node_name,
        model=(meta.namespace, model) if model else None,
        properties=frozenset(p.name for p in spec.properties or () if p.name),
        uid=meta.uid,
        shape=shape,
        version=version,
        generation=meta.generation,
    )


def _mirrored(device: CachedObject) -> str:
    try:
        status = _with_status.decode(device.raw).status
    except MALFORMED:
        return ""
    if status is None or status.delivery is None or status.delivery.generation != device.meta.generation:
        return ""
    return status.delivery.version


class DeviceIndex:
    """Devices by node, models by node, nodes by model."""

    def __init__(self) -> None:
        self._places: dict[Key, DevicePlace] = {}
        self._nodes: dict[str, set[Key]] = {}
        self._models: dict[Key, set[Key]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def place(self, device: Key) -> DevicePlace | None:
        """What is known of a device."""
        return self._places.get(device)

    def devices(self, node: str) -> Iterable[Key]:
        """The devices of `node`."""
        return tuple(self._nodes.get(node, ()))

    def models(self, node: str) -> Iterable[Key]:
        """The models of the devices of `node`."""
        found = (self._places[key].model for key in self._nodes.get(node, ()))
        return tuple({model: None for model in found if model is not None})

    def devices_of(self, model: Key) -> Iterable[Key]:
        """The devices of a model."""
        return tuple(self._models.get(model, ()))

    def nodes(self, model: Key) -> Iterable[str]:
        """The nodes with a device of `model`."""
        found = (self._places[key].node for key in self._models.get(model, ()))
        return tuple({node: None for node in found if node})

    def uses(self, node: str, model: Key) -> bool:
        """Whether `node` has a device of `model`."""
        return any(self._places[key].node == node for key in self._models.get(model, ()))

    def put(self, device: Key, place: DevicePlace) -> None:
        """Note a device."""
        self.remove(device)
        self._places[device] = place
        if place.node:
            self._nodes.setdefault(place.node, set()).add(device)
        if place.model is not None:
            self._models.setdefault(place.model, set()).add(device)

    def remove(self, device: Key) -> None:
        """Forget a device."""
        place = self._places.pop(device, None)
        if place is None:
            return
        _discard(self._nodes, place.node, device)
        if place.model is not None:
            _discard(self._models, place.model, device)


def _discard(table: dict[_K, set[Key]], key: _K, device: Key) -> None:
    members = table.get(key)
    if members is not None:
        members.discard(device)
        if not members:
            del table[key]
