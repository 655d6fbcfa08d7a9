"""The device controller's downward half: brings devices and their models to the nodes they belong to.

Objects go the reliable way, each under a record, so that what changes while a node or every cloudcore is away is
found by comparison. Membership goes along with them as a message of its own, since KubeEdge's edge keeps its table
of devices by it: live, and whole whenever a node connects.

Unlike in the original a model that changes alone is brought to the nodes that use it, and a device whose model does
not exist yet holds up nobody but itself.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from edgehive.aio.informer import Informer
from edgehive.cloud.devices_index import DeviceIndex, DevicePlace, read_place
from edgehive.kit.errors import EdgehiveError
from edgehive.kube.api import KubeApi, WriteOptions
from edgehive.kube.crd_devices import DEVICE_MODELS, DEVICES
from edgehive.kube.reflector import CachedObject as Cached
from edgehive.kube.reflector import Change, Key, decode_cached
from edgehive.kube.refs import GVR
from edgehive.kube.status import ApiStatus
from edgehive.wire import resource as res
from edgehive.wire.classify import DEVICE_CONTROLLER, RESOURCE_GROUP
from edgehive.wire.cloudnode import CachedObject, Missing, Unknown
from edgehive.wire.desired import object_message
from edgehive.wire.devices import Member, membership_detail_message, membership_message
from edgehive.wire.message import DELETE, Message, Stamp
from edgehive.wire.objectsync import SyncRecord
from edgehive.wire.outbound import Outbound

log = logging.getLogger(__name__)

_GVRS: Final = {"Device": DEVICES, "DeviceModel": DEVICE_MODELS}
_KINDS: Final = {gvr: kind for kind, gvr in _GVRS.items()}
_TYPES: Final = {res.DEVICE: DEVICES, res.DEVICE_MODEL: DEVICE_MODELS}


class DeviceCaches:
    """The informers of devices and models; run both as services."""

    def __init__(self, *, api: KubeApi) -> None:
        self.devices: Final = Informer(api=api, gvr=DEVICES)
        self.models: Final = Informer(api=api, gvr=DEVICE_MODELS)

    def all(self) -> tuple[Informer, Informer]:
        """Both."""
        return (self.models, self.devices)

    def of(self, gvr: GVR) -> Informer:
        """The informer of one of the two kinds."""
        return self.models if gvr == DEVICE_MODELS else self.devices


class DeviceView:
    """The part of `wire.cloudnode.World`, and all of `wire.cloudnode.Order`, that is about devices."""

    def __init__(self, *, api: KubeApi, caches: DeviceCaches, index: DeviceIndex) -> None:
        self._api = api
        self._caches = caches
        self._index = index

    @property
    def types(self) -> frozenset[str]:
        """Devices and models, as they stand in resource strings."""
        return frozenset(_TYPES)

    def knows(self, record: SyncRecord) -> bool:
        """Whether `record` stands for a device or a model."""
        return record.api_version == DEVICES.api_version and record.kind in _GVRS

    def find(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        """The object of a record, as long as it belongs to the record's node."""
        gvr = _GVRS[record.kind]
        if not all(informer.has_synced for informer in self._caches.all()):
            return Unknown()
        found = self._caches.of(gvr).get(record.key.namespace or "", record.object_name)
        if found is None or not self._belongs(gvr, found, record.key.node):
            return Missing()
        return self.convert(gvr, found)

    async def fetch(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        """The same, asked of the API server itself."""
        gvr = _GVRS[record.kind]
        options = WriteOptions(namespace=record.key.namespace)
        try:
            found = decode_cached(await self._api.get(gvr, record.object_name, options))
        except ApiStatus as exc:
            return Missing() if exc.code == 404 else Unknown()
        except EdgehiveError:
            return Unknown()
        if not self._belongs(gvr, found, record.key.node):
            return Missing()
        return self.convert(gvr, found)

    def assigned(self, node: str) -> Iterable[CachedObject]:
        """The models that the node's devices use, then the devices."""
        for key in self._index.models(node):
            model = self._caches.models.get(*key)
            if model is not None:
                yield self.convert(DEVICE_MODELS, model)
        for key in self._index.devices(node):
            device = self._caches.devices.get(*key)
            if device is not None:
                yield self.convert(DEVICES, device)

    def meant_for(self, kind: str, key: Key) -> Iterable[str]:
        """The nodes that should have a device or model."""
        if kind == res.DEVICE_MODEL:
            return self._index.nodes(key)
        place = self._index.place(key)
        return (place.node,) if place is not None and place.node else ()

    def wanted_version(self, kind: str, key: Key) -> str:
        """The version that those nodes should have; "" for an object that does not exist."""
        gvr = _TYPES[kind]
        found = self._caches.of(gvr).get(*key)
        return self.convert(gvr, found).version if found is not None else ""

    def before(self, target: res.Resource) -> CachedObject | Missing | None:
        """The model that must be at a node before the device; `Missing`: it does not exist (yet)."""
        if target.type != res.DEVICE:
            return None
        place = self._index.place((target.namespace or "", target.name))
        if place is None or place.model is None:
            return None
        model = self._caches.models.get(*place.model)
        return self.convert(DEVICE_MODELS, model) if model is not None else Missing()

    def after(self, node: str, target: res.Resource) -> Iterable[CachedObject]:
        """The object itself, if it is at the node (again), and the devices that wait for a model there."""
        key = (target.namespace or "", target.name)
        if target.type == res.DEVICE_MODEL:
            model = self._caches.models.get(*key)
            if model is not None and self._index.uses(node, key):
                yield self.convert(DEVICE_MODELS, model)
        devices = self._index.devices_of(key) if target.type == res.DEVICE_MODEL else (key,)
        for device in devices if target.type in _TYPES else ():
            place, found = self._index.place(device), self._caches.devices.get(*device)
            if place is not None and place.node == node and found is not None:
                yield self.convert(DEVICES, found)

    def convert(self, gvr: GVR, found: Cached) -> CachedObject:
        """The form in which the per-node cores take an object."""
        meta = found.meta
        version = meta.resource_version
        if gvr == DEVICES:
            place = self._index.place(found.key)
            # The summary we write into a device does not make it newer for its edge.
            version = place.version if place is not None and place.uid == meta.uid else version
        return CachedObject(
            api_version=gvr.api_version,
            kind=_KINDS[gvr],
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            version=version,
            raw=found.raw,
            source=DEVICE_CONTROLLER,
        )

    def _belongs(self, gvr: GVR, found: Cached, node: str) -> bool:
        if gvr == DEVICE_MODELS:
            return self._index.uses(node, found.key)
        return read_place(found).node == node


class Recipients(Protocol):
    """The connected nodes."""

    def connected(self, node: str) -> bool:
        """Whether `node` is connected to this instance."""
        ...

    def send(self, node: str, message: Outbound) -> None:
        """Bring `message` to `node`."""
        ...

    def answer(self, node: str, message: Outbound) -> None:
        """Send `message` if `node` is connected; otherwise it is not needed."""
        ...


class DeviceDownstream:
    """Subscribes to the caches and sends."""

    def __init__(
        self,
        *,
        caches: DeviceCaches,
        view: DeviceView,
        index: DeviceIndex,
        recipients: Recipients,
        stamp: Stamp,
        added: Callable[[Key], None] = lambda key: None,
        gone: Callable[[Key], None] = lambda key: None,
    ) -> None:
        """Wire up; `added` hears of a device that is new, `gone` of one that is no longer, or no longer there."""
        self._added = added
        self._gone = gone
        self._caches = caches
        self._view = view
        self._index = index
        self._to = recipients
        self._stamp = stamp

    def start(self) -> None:
        """Subscribe; what the caches hold already is taken in."""
        self._caches.models.subscribe(self._model)
        self._caches.devices.subscribe(self._device)

    def node_connected(self, node: str) -> None:
        """Tell a node all its devices: it may have missed some while it was away."""
        members = self._members(node)
        if members:
            self._to.answer(node, membership_message(added=members, stamp=self._stamp))

    def send_detail(self, node: str) -> None:
        """Tell a node that asks all its devices, so that it drops the others."""
        self._to.answer(node, membership_detail_message(self._members(node), stamp=self._stamp))

    def _members(self, node: str) -> list[Member]:
        found = (self._caches.devices.get(*key) for key in self._index.devices(node))
        return sorted((_member(device) for device in found if device is not None), key=lambda m: m.id)

    def _device(self, change: Change) -> None:
        device = change.object
        known = self._index.place(device.key)
        if change.type == "DELETED":
            self._index.remove(device.key)
            self._gone(device.key)
            if known is not None:
                self._leave(known, device)
            return
        place = read_place(device, known)
        self._index.put(device.key, place)
        if known is None:
            self._added(device.key)
            self._join(place, device)
        elif known.node != place.node or known.uid != place.uid:
            self._gone(device.key)
            self._added(device.key)
            self._leave(known, change.old or device)
            self._join(place, device)
        elif known.version != place.version and place.node:
            if known.model != place.model:
                self._drop_model(known)
            self._bring(place, device, first=False)

    def _join(self, place: DevicePlace, device: Cached) -> None:
        """The device is new to its node."""
        if not self._to.connected(place.node):
            return
        self._to.answer(place.node, membership_message(added=[_member(device)], stamp=self._stamp))
        self._bring(place, device, first=True)

    def _bring(self, place: DevicePlace, device: Cached, *, first: bool) -> None:
        node = place.node
        if not self._to.connected(node):
            return
        model = self._caches.models.get(*place.model) if place.model is not None else None
        if model is not None:
            self._to.send(node, self._message(DEVICE_MODELS, model, first=first))
        elif place.model is not None:
            log.info("device %s/%s waits for its model %s", *device.key, place.model[1])
        self._to.send(node, self._message(DEVICES, device, first=first))

    def _leave(self, place: DevicePlace, device: Cached) -> None:
        """The device is no longer at the node."""
        if not place.node or not self._to.connected(place.node):
            return
        self._to.answer(place.node, membership_message(removed=[_member(device)], stamp=self._stamp))
        self._to.send(place.node, self._delete(DEVICES, device))
        self._drop_model(place)

    def _drop_model(self, place: DevicePlace) -> None:
        """Take the model away, too, when no other device of the node needs it."""
        if place.model is None or self._index.uses(place.node, place.model):
            return
        model = self._caches.models.get(*place.model)
        if model is not None:
            self._to.send(place.node, self._delete(DEVICE_MODELS, model))

    def _model(self, change: Change) -> None:
        model = change.object
        nodes = [node for node in self._index.nodes(model.key) if self._to.connected(node)]
        if not nodes:
            return
        if change.type == "DELETED":
            message = self._delete(DEVICE_MODELS, model)
        else:
            message = self._message(DEVICE_MODELS, model, first=change.type == "ADDED")
        for node in nodes:
            self._to.send(node, message)

    def _message(self, gvr: GVR, found: Cached, *, first: bool) -> Outbound:
        return object_message(self._view.convert(gvr, found), first=first, stamp=self._stamp)

    def _delete(self, gvr: GVR, found: Cached) -> Outbound:
        message_id, timestamp = self._stamp()
        return Outbound(
            Message(
                id=message_id,
                timestamp=timestamp,
                operation=DELETE,
                resource=res.format_resource(found.meta.namespace, _KINDS[gvr].lower(), found.meta.name),
                content=found.raw,
                resource_version=found.meta.resource_version,
                source=DEVICE_CONTROLLER,
                group=RESOURCE_GROUP,
            )
        )


def _member(device: Cached) -> Member:
    return Member(device.meta.namespace, device.meta.name, (device.meta.labels or {}).get("description", ""))
