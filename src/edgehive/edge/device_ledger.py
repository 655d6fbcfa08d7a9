"""Who has which device: the node's devices by resource, and what containers were given of them. Pure.

What was given is kept in a file of the kubelet's shape (`DeviceLedger.encode`, `read_checkpoint`), so that a restart of
edgecore, or one that follows a Go edgecore, takes no device away and gives none twice.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgehive.edge.pods_spec import Container, Pod, parse_quantity
from edgehive.wire.message import MALFORMED

_RESOURCE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", re.ASCII)
_GONE_AFTER = 300.0
"""Seconds after which the devices of a plugin that does not come back no longer count as the node's."""


def is_extended(name: str) -> bool:
    """Whether `name` may be the resource of a device plugin (``nvidia.com/gpu``)."""
    domain = name.partition("/")[0]
    own = domain == "kubernetes.io" or domain.endswith(".kubernetes.io") or name.startswith("requests.")
    return _RESOURCE.fullmatch(name) is not None and not own


@dataclass(frozen=True, slots=True)
class Given:
    """Devices of one resource that a container was given, and the plugin's answer to that."""

    pod: str
    container: str
    resource: str
    devices: tuple[str, ...]
    answer: bytes


@dataclass(slots=True)
class _Resource:
    devices: dict[str, bool]
    """Whether each is healthy."""
    present: bool
    lost_at: float = 0.0


class DeviceLedger:
    """The devices of a node."""

    def __init__(self, given: Sequence[Given] = (), known: Sequence[str] = ()) -> None:
        self._given = {(one.pod, one.container, one.resource): one for one in given}
        self._resources: dict[str, _Resource] = {}
        for name in (*known, *(one.resource for one in given)):
            self._resources[name] = _Resource({}, present=False)

    # --- inputs -----------------------------------------------------------------------------------------

    def receive_devices(self, resource: str, devices: Mapping[str, bool]) -> None:
        """Take the devices a plugin has now, and whether each is healthy."""
        self._resources[resource] = _Resource(dict(devices), present=True)

    def receive_loss(self, resource: str, now: float) -> None:
        """A plugin is gone: nothing of it can be given until it is back."""
        known = self._resources.get(resource)
        if known is not None and known.present:
            known.present, known.lost_at = False, now

    def give(self, given: Given) -> None:
        """Note what a container was given."""
        self._given[given.pod, given.container, given.resource] = given

    def release(self, pod: str) -> bool:
        """Take back everything a pod was given; return whether that was anything."""
        mine = [key for key in self._given if key[0] == pod]
        for key in mine:
            del self._given[key]
        return bool(mine)

    # --- outputs ----------------------------------------------------------------------------------------

    def resources(self, now: float) -> tuple[dict[str, str], dict[str, str]]:
        """Return (capacity, allocatable) for the node's status; what was there once stays, as zero."""
        capacity, allocatable = {}, {}
        for name, one in self._resources.items():
            if not one.present and not one.devices:
                continue  # known from before this start alone; the cluster has its last figures
            gone = not one.present and not 0 <= now - one.lost_at < _GONE_AFTER
            capacity[name] = str(0 if gone else len(one.devices))
            allocatable[name] = str(sum(one.devices.values()) if one.present else 0)
        return capacity, allocatable

    def knows(self, resource: str) -> bool:
        """Whether a device plugin of this node ever had `resource`; others are none of its business."""
        return resource in self._resources

    def present(self, resource: str) -> bool:
        """Whether the plugin is there."""
        found = self._resources.get(resource)
        return found is not None and found.present

    def wanted(self, container: Container) -> Iterator[tuple[str, int]]:
        """Yield (resource, number) for what `container` asks of device plugins of this node."""
        for name, amount in container.resources.limits.items():
            if self.knows(name) and (number := int(parse_quantity(amount))) > 0:
                yield name, number

    def given(self, pod: str, container: str) -> list[Given]:
        """Return what a container was given."""
        return [one for (p, c, _), one in self._given.items() if (p, c) == (pod, container)]

    def has(self, pod: str, container: str, resource: str) -> bool:
        """Whether a container was given `resource` already."""
        return (pod, container, resource) in self._given

    def pods(self) -> set[str]:
        """The uids of the pods that have devices."""
        return {key[0] for key in self._given}

    def free(self, pod: Pod, container: Container, resource: str) -> tuple[list[str], list[str]]:
        """Return the healthy devices `container` may be given, and those of them that it should be.

        The latter are what init containers of the pod had, which have ended when it starts.
        """
        found = self._resources.get(resource)
        healthy = sorted(i for i, well in found.devices.items() if well) if found and found.present else []
        before = self._reusable(pod, container, resource)
        taken: set[str] = set()
        for one in self._given.values():
            if one.resource == resource:
                taken.update(one.devices)
        reusable = [one for one in healthy if one in before]
        return [one for one in healthy if one not in taken or one in before], reusable

    def _reusable(self, pod: Pod, container: Container, resource: str) -> set[str]:
        """What init containers before `container` have, without what others that run beside it share with them."""
        mine: set[str] = set()
        for one in pod.spec.init_containers:
            if one.name == container.name:
                return mine
            if one.restart_policy != "Always":
                mine.update(*(g.devices for g in self.given(pod.uid, one.name) if g.resource == resource))
            else:
                mine.difference_update(*(g.devices for g in self.given(pod.uid, one.name)))
        for one in pod.spec.containers:
            if one.name == container.name:
                break
            mine.difference_update(*(g.devices for g in self.given(pod.uid, one.name)))
        return mine

    def encode(self) -> bytes:
        """The checkpoint."""
        entries = [
            {
                "PodUID": one.pod,
                "ContainerName": one.container,
                "ResourceName": one.resource,
                "DeviceIDs": {"-1": list(one.devices)},
                "AllocResp": base64.b64encode(one.answer).decode(),
            }
            for one in self._given.values()
        ]
        known = {name: sorted(one.devices) for name, one in self._resources.items()}
        data = {"PodDeviceEntries": entries, "RegisteredDevices": known}
        return msgspec.json.encode({"Data": data, "Checksum": zlib.crc32(msgspec.json.encode(data))})


class _Entry(msgspec.Struct):
    PodUID: str
    ContainerName: str
    ResourceName: str
    DeviceIDs: dict[str, list[str]] | list[str]
    AllocResp: str = ""


class _Data(msgspec.Struct):
    PodDeviceEntries: list[_Entry] | None = None
    RegisteredDevices: dict[str, Any] | None = None


class _Checkpoint(msgspec.Struct):
    Data: _Data


def read_checkpoint(raw: bytes) -> DeviceLedger | None:
    """Read a checkpoint, a kubelet's too (its checksum, a hash of Go's own print-out, is not looked at)."""
    try:
        data = msgspec.json.decode(raw, type=_Checkpoint).Data
        given = [
            Given(
                entry.PodUID,
                entry.ContainerName,
                entry.ResourceName,
                tuple(entry.DeviceIDs)
                if isinstance(entry.DeviceIDs, list)
                else tuple(i for ids in entry.DeviceIDs.values() for i in ids),
                base64.b64decode(entry.AllocResp, validate=True),
            )
            for entry in data.PodDeviceEntries or ()
        ]
    except (*MALFORMED, binascii.Error):
        return None
    return DeviceLedger(given, list(data.RegisteredDevices or ()))
