"""The device management interface: mappers register here, are told of their devices, and report what they read.

gRPC on ``<dmiSockPath>/dmi.sock``, readable by edgecore's user only. The decisions of the device twin are not made here:
reports go to a `DeviceSink`, objects come from whoever stores them through `set_device` and its siblings.
"""

import asyncio
import base64
import logging
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from edgehive.aio import dmi_messages as dmi
from edgehive.aio import protobuf
from edgehive.aio.fewlines import FewLines
from edgehive.aio.grpc import NOT_FOUND, GrpcClient, GrpcError
from edgehive.aio.grpc_server import INVALID_ARGUMENT, RESOURCE_EXHAUSTED, GrpcHandler, GrpcServer
from edgehive.edge.dmi_convert import (
    Unconvertible,
    device_message,
    load,
    model_message,
    model_name_of,
    namespace_of,
    protocol_of,
)
from edgehive.edge.dmi_door import SOCKET_NAME
from edgehive.edge.dmi_link import Key, MapperInfo, MapperLink, device_key, model_key
from edgehive.kit.errors import StorageError
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)

_BURST = 200.0
_REFILL = 100.0  # reports a second and device
_MAX_BUCKETS = 4096
_MAX_MAPPERS = 64


@dataclass(frozen=True, slots=True)
class TwinReport:
    """One property as a mapper has reported it; None is what it did not say."""

    name: str
    reported: str | None
    observed_desired: str | None
    metadata: Mapping[str, str]
    """Of the reported value: the mapper's ``timestamp`` and ``type``, and whatever else it says."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A device object as it came, and what it is looked up by; decoded, it would take five times as much."""

    raw: bytes
    protocol: str
    model: str


class DeviceSink(Protocol):
    """Where reports go: the device twin."""

    async def report_twins(self, namespace: str, name: str, twins: Sequence[TwinReport]) -> None:
        """Take reported values of one device."""

    async def report_state(self, namespace: str, name: str, state: str) -> None:
        """Take the state of one device."""


class MapperRows(Protocol):
    """Where registrations survive a restart of edgecore."""

    def mappers(self) -> Iterable[bytes]:
        """The saved registrations."""

    def save_mapper(self, name: str, value: bytes) -> None:
        """Save one, in the place of the older one of that name."""

    def told(self, mapper: str) -> Mapping[Key, bytes]:
        """What a mapper was told, as far as it is known."""

    def note_told(self, mapper: str, told: Mapping[Key, bytes | None], *, everything: bool) -> None:
        """Note what a mapper was told (``None``: taken away); `everything`: nothing else counts any more."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimit:
    """A token bucket for each device: one noisy device does not silence the others, as it does in the original."""

    def __init__(self, *, burst: float, refill: float) -> None:
        self._burst = burst
        self._refill = refill
        self._buckets: OrderedDict[Key, _Bucket] = OrderedDict()

    def admit(self, key: Key, now: float) -> bool:
        """Whether one more report of this device is fine now."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self._burst, now)
            if len(self._buckets) > _MAX_BUCKETS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._refill)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


class Dmi:
    """Serves mappers: one link for each protocol, the newest registration of a protocol counts."""

    def __init__(
        self,
        *,
        directory: Path,
        sink: DeviceSink,
        rows: MapperRows,
        rng: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        connect: Callable[[str], GrpcClient] = GrpcClient,
        sock: socket.socket | None = None,
    ) -> None:
        """Wire up; `sock` is a socket that listens at the path already."""
        self._sink = sink
        self._rows = rows
        self._rng = rng
        self._clock = clock
        self._connect = connect
        self._devices: dict[Key, _Held] = {}
        self._models: dict[Key, bytes] = {}
        self._links: dict[str, MapperLink] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._limit = RateLimit(burst=_BURST, refill=_REFILL)
        self._group: asyncio.TaskGroup | None = None
        self._lines = FewLines(log)
        self._server = GrpcServer(directory / SOCKET_NAME, self._methods(), name="dmi", sock=sock)
        self.reports = 0
        self.refused = 0

    # -- objects of this node

    def set_device(self, raw: bytes) -> None:
        """A device of this node is new or has changed."""
        device = self._loaded(raw, "device")
        if device is None:
            return
        key = device_key(namespace_of(device), device["metadata"]["name"])
        new = _Held(raw, sys.intern(protocol_of(device)), sys.intern(model_name_of(device)))
        old = self._devices.get(key)
        if old is not None and old.protocol != new.protocol:
            self._drop(key, old.protocol)
        self._devices[key] = new
        if old is not None and old.model != new.model:
            self._release_model(model_key(key.namespace, old.model), old.protocol)
        link = self._links.get(new.protocol)
        if link is not None:
            self._tell(link, key, new)

    def remove_device(self, namespace: str, name: str) -> None:
        """A device has left this node."""
        key = device_key(namespace, name)
        device = self._devices.pop(key, None)
        for protocol in [device.protocol] if device is not None else list(self._links):
            self._drop(key, protocol)
        if device is not None:
            self._release_model(model_key(namespace, device.model), device.protocol)

    def set_model(self, raw: bytes) -> None:
        """A model is new or has changed; devices that take defaults from it change with it."""
        model = self._loaded(raw, "devicemodel")
        if model is None:
            return
        key = model_key(namespace_of(model), model["metadata"]["name"])
        self._models[key] = raw
        for device, held in self._devices.items():
            used = model_key(device.namespace, held.model) == key
            if used and (link := self._links.get(held.protocol)) is not None:
                self._tell(link, device, held)

    def remove_model(self, namespace: str, name: str) -> None:
        """A model is no longer used on this node."""
        key = model_key(namespace, name)
        if self._models.pop(key, None) is not None:
            for link in self._links.values():
                link.drop(key)

    # -- the service

    async def run(self) -> None:
        """Serve until cancelled; mappers that registered before a restart are served again at once."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                self._restore()
                await self._server.run()
            finally:
                self._group = None
                for task in self._tasks.values():
                    task.cancel()
                self._tasks.clear()

    @property
    def mappers(self) -> list[tuple[MapperInfo, int]]:
        """The mappers, and how many objects each has not been told of."""
        return [(link.info, link.pending) for link in self._links.values()]

    def _restore(self) -> None:
        for raw in self._rows.mappers():
            try:
                body = msgspec.json.decode(raw, type=dict[str, Any])
                body["address"] = base64.b64decode(body.get("address", "")).decode()
                info = _info(body)
            except (*MALFORMED, ValueError, TypeError) as exc:
                log.warning("a saved mapper is not readable: %s", safe_label(str(exc)))
                continue
            if info.protocol and info.address:
                self._open(info).adopt(self._objects(info.protocol), self._rows.told(info.name))

    def _open(self, info: MapperInfo) -> MapperLink:
        """The link to a mapper; an older one of its protocol ends."""
        link = self._links.get(info.protocol)
        if link is not None and link.info.address == info.address:
            return link
        if (task := self._tasks.pop(info.protocol, None)) is not None:
            task.cancel()
        note = partial(self._note_told, info.name)
        link = MapperLink(info, rng=self._rng, note=note, connect=self._connect)
        self._links[info.protocol] = link
        assert self._group is not None
        self._tasks[info.protocol] = self._group.create_task(_until_cancelled(link))
        return link

    def _note_told(self, mapper: str, told: Mapping[Key, bytes | None], everything: bool) -> None:
        try:
            self._rows.note_told(mapper, told, everything=everything)
        except StorageError as exc:  # after a restart the mapper hears it once more
            log.warning("what mapper %s was told is not noted: %s", safe_label(mapper), exc)

    def _objects(self, protocol: str) -> dict[Key, bytes]:
        """Everything a mapper of `protocol` should have."""
        result: dict[Key, bytes] = {}
        models: dict[Key, dict[str, Any]] = {}
        for key, device in self._devices.items():
            if device.protocol == protocol:
                result |= self._described(key, device, models)
        return result

    def _described(
        self, key: Key, device: "_Held", models: dict[Key, dict[str, Any]] | None = None
    ) -> dict[Key, bytes]:
        """A device and its model as messages; nothing while the model is not here or one cannot be told.

        `models` are the decoded ones that have been told already, to be completed.
        """
        used = model_key(key.namespace, device.model)
        models = {} if models is None else models
        raw = self._models.get(used)
        if raw is None:
            return {}
        try:
            result: dict[Key, bytes] = {}
            if (model := models.get(used)) is None:
                model = load(raw)
                result[used] = protobuf.encode(dmi.DEVICE_MODEL, model_message(model))
            result[key] = protobuf.encode(dmi.DEVICE, device_message(load(device.raw), model))
            models[used] = model
            return result
        except Unconvertible as exc:
            log.warning(
                "device %s/%s cannot be told to its mapper: %s",
                safe_label(key.namespace),
                safe_label(key.name),
                safe_label(str(exc)),
            )
            return {}

    def _tell(self, link: MapperLink, key: Key, device: "_Held") -> None:
        for one, body in self._described(key, device).items():
            link.want(one, body)

    def _drop(self, key: Key, protocol: str) -> None:
        if (link := self._links.get(protocol)) is not None:
            link.drop(key)

    def _release_model(self, key: Key, protocol: str) -> None:
        """Take a model from a mapper that has no device of it any more."""
        for device, held in self._devices.items():
            if held.protocol == protocol and model_key(device.namespace, held.model) == key:
                return
        self._drop(key, protocol)

    @staticmethod
    def _loaded(raw: bytes, kind: str) -> dict[str, Any] | None:
        try:
            return load(raw)
        except Unconvertible as exc:
            log.warning("a %s from the cloud is not usable: %s", kind, safe_label(str(exc)))
            return None

    # -- what mappers call

    def _methods(self) -> dict[str, GrpcHandler]:
        return {
            dmi.MANAGER_SERVICE + "MapperRegister": self._register,
            dmi.MANAGER_SERVICE + "ReportDeviceStatus": self._report_status,
            dmi.MANAGER_SERVICE + "ReportDeviceStates": self._report_states,
        }

    async def _register(self, raw: bytes) -> bytes:
        request = protobuf.decode(dmi.REGISTER_REQUEST, raw)
        body = request.get("mapper", {})
        body["address"] = bytes(body.get("address", b"")).decode("utf-8", "replace")
        info = _info(body)
        if not info.protocol or not info.name or not info.address:
            raise GrpcError(INVALID_ARGUMENT, "a mapper needs a name, a protocol and an address")
        if info.protocol not in self._links and len(self._links) >= _MAX_MAPPERS:
            raise GrpcError(RESOURCE_EXHAUSTED, f"there are {_MAX_MAPPERS} mappers already")
        self._rows.save_mapper(info.name, msgspec.json.encode(_row(info)))
        objects = self._objects(info.protocol)
        self._open(info).registered(info, objects)
        name = safe_label(info.name)
        self._lines.info(
            "mappers registered",
            name,
            "mapper %s for %s registered at %s: %d objects",
            name,
            safe_label(info.protocol),
            safe_label(info.address),
            len(objects),
        )
        if not request.get("withData"):
            return b""
        models = [body for key, body in objects.items() if key.kind == "model"]
        devices = [body for key, body in objects.items() if key.kind == "device"]
        return protobuf.encode(dmi.REGISTER_RESPONSE, {"modelList": models, "deviceList": devices})

    async def _report_status(self, raw: bytes) -> bytes:
        request = protobuf.decode(dmi.REPORT_STATUS, raw)
        key = self._reporting(request, "status")
        twins = request.get("reportedDevice", {}).get("twins", [])
        if not twins:
            raise GrpcError(INVALID_ARGUMENT, "ReportDeviceStatusRequest does not have twin data")
        reports = [_twin(twin) for twin in twins if twin.get("propertyName")]
        await self._sink.report_twins(key.namespace, key.name, reports)
        return b""

    async def _report_states(self, raw: bytes) -> bytes:
        request = protobuf.decode(dmi.REPORT_STATES, raw)
        if not request.get("state") or not request.get("deviceName"):
            raise GrpcError(INVALID_ARGUMENT, "ReportDeviceStatesRequest is invalid data")
        key = self._reporting(request, "states")
        await self._sink.report_state(key.namespace, key.name, request["state"])
        return b""

    def _reporting(self, request: Mapping[str, Any], what: str) -> Key:
        """The device a report is about, if it may report now."""
        key = device_key(request.get("deviceNamespace") or "default", request.get("deviceName", ""))
        if key not in self._devices:
            self.refused += 1
            raise GrpcError(NOT_FOUND, f"there is no device {key.namespace}/{key.name} on this node")
        if not self._limit.admit(key, self._clock()):
            self.refused += 1
            raise GrpcError(
                RESOURCE_EXHAUSTED, f"fail to report device {what} because of too many request: {key.name}"
            )
        self.reports += 1
        return key


def _twin(twin: Mapping[str, Any]) -> TwinReport:
    reported, desired = twin.get("reported"), twin.get("observedDesired")
    return TwinReport(
        name=twin["propertyName"],
        reported=None if reported is None else reported.get("value", ""),
        observed_desired=None if desired is None else desired.get("value", ""),
        metadata={} if reported is None else reported.get("metadata", {}),
    )


def _info(body: Mapping[str, Any]) -> MapperInfo:
    names = ("name", "protocol", "address", "version", "api_version", "state")
    texts = {name: body.get(name, "") for name in names}
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("a field of a mapper is not a string")
    return MapperInfo(**texts)


def _row(info: MapperInfo) -> dict[str, str]:
    """What is saved: the message in the JSON that Go makes of it."""
    return {
        "name": info.name,
        "version": info.version,
        "api_version": info.api_version,
        "protocol": info.protocol,
        "address": base64.b64encode(info.address.encode()).decode(),
        "state": info.state,
    }


async def _until_cancelled(link: MapperLink) -> None:
    await link.run()
