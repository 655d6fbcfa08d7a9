"""The mapper's end of DMI: it registers with edgecore, is told of devices, and sends their news."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgehive.aio import dmi_messages as dmi
from edgehive.aio import protobuf
from edgehive.aio.grpc import DEADLINE_EXCEEDED, NOT_FOUND, UNAVAILABLE, GrpcClient, GrpcError
from edgehive.aio.grpc_server import INVALID_ARGUMENT, GrpcHandler, GrpcServer
from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import ProtocolError, Transient, Unreachable
from edgehive.kit.text import safe_label
from edgehive.mapper.driver import Driver
from edgehive.mapper.model import Device, read_device
from edgehive.mapper.worker import DeviceWorker, Reading, needs_new_connection

log = logging.getLogger(__name__)

API_VERSION = "v1.0.0"
_REPORT_SECONDS = 10.0
_REPORTS = 32  # under way at once; the others wait outside the time limit
_REGISTRATIONS = 20  # in a row, each disturbed by news


class Pusher(Protocol):
    """Sends values to where push methods say."""

    def push(self, reading: Reading) -> None:
        """Take one value; never blocks."""


@dataclass(frozen=True, slots=True)
class Identity:
    """How a mapper introduces itself."""

    name: str
    protocol: str
    version: str
    socket: Path
    edgecore_socket: Path


@dataclass(slots=True)
class _Entry:
    worker: DeviceWorker
    task: asyncio.Task[None]


class MapperService:
    """Holds the devices and runs a worker for each."""

    def __init__(
        self,
        identity: Identity,
        driver: Callable[[Device], Driver],
        *,
        rng: Callable[[], float],
        pusher: Pusher | None = None,
    ) -> None:
        self.identity = identity
        self.registered = False
        self.reports = 0
        self.report_errors = 0
        self.registrations = 0
        self._refusal = ""
        self._told = 0  # how often edgecore has told us something
        self._driver = driver
        self._rng = rng
        self._pusher = pusher
        self._bodies: dict[tuple[str, str], dict[str, Any]] = {}
        self._models: dict[tuple[str, str], dict[str, Any]] = {}
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._group: asyncio.TaskGroup | None = None
        self._lost = asyncio.Event()
        self._gate = asyncio.Semaphore(_REPORTS)
        self._client = GrpcClient(str(identity.edgecore_socket))
        self._server = GrpcServer(identity.socket, self._methods(), name=f"mapper {identity.name}")

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._server.listen()
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._server.run())
            try:
                await self._stay_registered()
            finally:
                self._group = None
                await self._client.close()

    # -- for the REST API and the metrics

    def worker(self, namespace: str, name: str) -> DeviceWorker | None:
        """The worker of a device."""
        entry = self._entries.get((namespace, name))
        return entry.worker if entry is not None else None

    @property
    def workers(self) -> list[DeviceWorker]:
        """All workers."""
        return [entry.worker for entry in self._entries.values()]

    def model(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """The model of that name, as its message."""
        return self._models.get((namespace, name))

    # -- registration

    async def _stay_registered(self) -> None:
        backoff = Backoff(0.5, 15.0, jitter=0.2, rng=self._rng)
        told = ""
        while True:
            self._lost.clear()
            try:
                await self._register()
            except (Transient, GrpcError, ProtocolError) as exc:
                if str(exc) != told:
                    told = str(exc)
                    log.warning(
                        "not registered with edgecore: %s; trying again%s", safe_label(told), _hint(exc)
                    )
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            told = ""
            await self._lost.wait()
            self.registered = False
            await asyncio.sleep(backoff.next())

    async def _register(self) -> None:
        me = self.identity
        mapper = {
            "name": me.name,
            "version": me.version,
            "api_version": API_VERSION,
            "protocol": me.protocol,
            "address": str(me.socket).encode(),
            "state": "ok",
        }
        request = protobuf.encode(dmi.REGISTER_REQUEST, {"withData": True, "mapper": mapper})
        answer = await self._undisturbed(request)
        self._models = {_id(body): body for body in answer.get("modelList", [])}
        bodies = {_id(body): body for body in answer.get("deviceList", [])}
        for key in [key for key in self._bodies if key not in bodies]:
            self._remove(key)
        for body in bodies.values():
            try:
                self._take(body)
            except ProtocolError as exc:  # one device that we do not understand must not keep the others away
                log.warning("device %s is not usable: %s", safe_label(body.get("name")), safe_label(str(exc)))
        for worker in self.workers:
            worker.retell()
        self.registered = True
        self.registrations += 1
        log.info("registered with edgecore: %d devices", len(bodies))

    async def _undisturbed(self, request: bytes) -> dict[str, Any]:
        """The answer to a registration during which edgecore told us nothing else.

        What it tells meanwhile comes over another connection and may be older or newer than the answer; asking again
        gives what is newest.
        """
        for _ in range(_REGISTRATIONS):
            before = self._told
            raw = await self._client.call(dmi.MANAGER_SERVICE + "MapperRegister", request, timeout=10.0)
            if self._told == before:
                return protobuf.decode(dmi.REGISTER_RESPONSE, raw)
        raise Transient("edgecore changes devices faster than it tells them")

    # -- devices

    def _take(self, body: dict[str, Any]) -> None:
        """A device is new or has changed."""
        key = _id(body)
        self._bodies[key] = body
        model = self._models.get((key[0], body.get("spec", {}).get("deviceModelReference", "")))
        if model is None:
            log.info("device %s/%s waits for its model", safe_label(key[0]), safe_label(key[1]))
            return
        device = read_device(body, model)
        entry = self._entries.get(key)
        if (
            entry is not None
            and not entry.task.done()
            and not needs_new_connection(entry.worker.device, device)
        ):
            entry.worker.update(device)
            return
        if entry is not None:
            entry.task.cancel()
        if self._group is None:
            raise GrpcError(UNAVAILABLE, "the mapper is ending")
        worker = DeviceWorker(device, driver=self._driver, reports=self, rng=self._rng)
        task = self._group.create_task(self._after(entry.task if entry else None, worker), name=device.id)
        self._entries[key] = _Entry(worker, task)

    @staticmethod
    async def _after(old: asyncio.Task[None] | None, worker: DeviceWorker) -> None:
        """Run a worker once its predecessor has let go of the device."""
        if old is not None:
            await asyncio.wait([old])
        await worker.run()

    def _remove(self, key: tuple[str, str]) -> None:
        self._bodies.pop(key, None)
        if (entry := self._entries.pop(key, None)) is not None:
            entry.task.cancel()

    # -- Reports

    async def twins(self, device: Device, twins: list[dict[str, Any]]) -> bool:
        """Report values to edgecore."""
        request = {
            "deviceName": device.name,
            "deviceNamespace": device.namespace,
            "reportedDevice": {"twins": twins},
        }
        return await self._report("ReportDeviceStatus", protobuf.encode(dmi.REPORT_STATUS, request))

    async def state(self, device: Device, state: str) -> bool:
        """Report a device's state to edgecore."""
        request = {"deviceName": device.name, "deviceNamespace": device.namespace, "state": state}
        return await self._report("ReportDeviceStates", protobuf.encode(dmi.REPORT_STATES, request))

    def push(self, reading: Reading) -> None:
        """Hand a value to the push methods."""
        if self._pusher is not None:
            self._pusher.push(reading)

    async def _report(self, method: str, request: bytes) -> bool:
        if not self.registered:
            return False
        try:
            async with self._gate:
                await self._client.call(dmi.MANAGER_SERVICE + method, request, timeout=_REPORT_SECONDS)
        except Transient:
            self._lose()
            return False
        except (GrpcError, ProtocolError) as exc:
            if isinstance(exc, GrpcError) and exc.code in (DEADLINE_EXCEEDED, UNAVAILABLE):
                self._lose()
                return False
            self.report_errors += 1
            if str(exc) != self._refusal:  # a full disk refuses each report of each device
                self._refusal = str(exc)
                log.warning("edgecore does not take a report: %s", safe_label(self._refusal))
            return False
        self._refusal = ""
        self.reports += 1
        return True

    def _lose(self) -> None:
        """Edgecore is away or hangs: register anew, and meanwhile let no report hold up the control of devices."""
        self.report_errors += 1
        self.registered = False
        self._lost.set()

    # -- what edgecore calls

    def _methods(self) -> dict[str, GrpcHandler]:
        calls: dict[str, GrpcHandler] = {
            "RegisterDevice": self._register_device,
            "UpdateDevice": self._update_device,
            "RemoveDevice": self._remove_device,
            "CreateDeviceModel": self._create_model,
            "UpdateDeviceModel": self._update_model,
            "RemoveDeviceModel": self._remove_model,
            "GetDevice": self._get_device,
        }
        return {dmi.MAPPER_SERVICE + name: handler for name, handler in calls.items()}

    async def _register_device(self, raw: bytes) -> bytes:
        namespace, name = self._take_request(raw)
        return protobuf.encode(dmi.DEVICE_NAME, {"deviceName": name, "deviceNamespace": namespace})

    async def _update_device(self, raw: bytes) -> bytes:
        self._take_request(raw)
        return b""

    def _take_request(self, raw: bytes) -> tuple[str, str]:
        body = protobuf.decode(dmi.DEVICE_REQUEST, raw).get("device", {})
        if not body.get("name"):
            raise GrpcError(INVALID_ARGUMENT, "the device has no name")
        self._told += 1
        self._take(body)
        return _id(body)

    async def _remove_device(self, raw: bytes) -> bytes:
        request = protobuf.decode(dmi.DEVICE_NAME, raw)
        self._told += 1
        self._remove((request.get("deviceNamespace") or "default", request.get("deviceName", "")))
        return b""

    async def _create_model(self, raw: bytes) -> bytes:
        namespace, name = self._take_model(raw)
        return protobuf.encode(
            dmi.MODEL_CREATED, {"deviceModelName": name, "deviceModelNamespace": namespace}
        )

    async def _update_model(self, raw: bytes) -> bytes:
        self._take_model(raw)
        return b""

    def _take_model(self, raw: bytes) -> tuple[str, str]:
        body = protobuf.decode(dmi.MODEL_REQUEST, raw).get("model", {})
        if not body.get("name"):
            raise GrpcError(INVALID_ARGUMENT, "the model has no name")
        self._told += 1
        key = _id(body)
        self._models[key] = body
        for device in list(self._bodies.values()):
            if (_id(device)[0], device.get("spec", {}).get("deviceModelReference", "")) == key:
                self._take(device)
        return key

    async def _remove_model(self, raw: bytes) -> bytes:
        request = protobuf.decode(dmi.MODEL_NAME, raw)
        self._told += 1
        self._models.pop((request.get("modelNamespace") or "default", request.get("modelName", "")), None)
        return b""

    async def _get_device(self, raw: bytes) -> bytes:
        request = protobuf.decode(dmi.DEVICE_NAME, raw)
        body = self._bodies.get((request.get("deviceNamespace") or "default", request.get("deviceName", "")))
        if body is None:
            raise GrpcError(NOT_FOUND, "there is no such device")
        return protobuf.encode(dmi.DEVICE_REQUEST, {"device": body})


def _hint(error: Exception) -> str:
    if not isinstance(error, Unreachable):
        return ""
    return " (is edgecore running? its socket is dmi.sock in deviceTwin.dmiSockPath, see --edgecore-sock)"


def _id(body: Mapping[str, Any]) -> tuple[str, str]:
    return body.get("namespace") or "default", body.get("name", "")
