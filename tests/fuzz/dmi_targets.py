"""What mappers send to edgecore and edgecore to mappers, straight into the handlers of both ends."""

import random
from pathlib import Path
from typing import Any

from edgehive.aio import dmi_messages as dmi
from edgehive.aio import protobuf
from edgehive.aio.grpc import GrpcError
from edgehive.edge.dmi import Dmi
from edgehive.edge.dmi_convert import device_message, load, model_message
from edgehive.kit.errors import ProtocolError
from edgehive.mapper.model import read_device
from edgehive.mapper.service import Identity, MapperService
from edgehive.mapper.virtual import VirtualDriver

OBJECT = (
    b'{"metadata":{"name":"d","namespace":"n"},"spec":{"deviceModelRef":{"name":"m"},"protocol":{"protocolName":'
    b'"virtual","configData":{"a":1}},"properties":[{"name":"p","desired":{"value":"5"},"collectCycle":1000,'
    b'"pushMethod":{"http":{"hostName":"h"},"anomalyDetection":{"x":1}},"visitors":{"configData":{"start":2}}}],'
    b'"methods":[{"name":"s","propertyNames":["p"]}],"stateReport":{"reportCycle":5,"reportToCloud":true}}}'
)
MODEL = (
    b'{"metadata":{"name":"m","namespace":"n"},"spec":{"protocol":"virtual","properties":[{"name":"p","type":"INT",'
    b'"visitors":{"configData":{"step":1}}}],"protocolConfigData":{"b":true}}}'
)


class _Nobody:
    """Rows, sink, task group and task: takes everything and does nothing."""

    def mappers(self) -> list[bytes]:
        return []

    def save_mapper(self, name: str, value: bytes) -> None:
        pass

    def told(self, mapper: str) -> dict[Any, bytes]:
        return {}

    def note_told(self, mapper: str, told: Any, *, everything: bool) -> None:
        pass

    async def report_twins(self, *_: Any) -> None:
        pass

    async def report_state(self, *_: Any) -> None:
        pass

    def create_task(self, coroutine: Any, **_: Any) -> "_Nobody":
        coroutine.close()
        return self

    def cancel(self) -> None:
        pass

    def done(self) -> bool:
        return True


def _call(handler: Any, data: bytes) -> None:
    try:
        handler(data).send(None)
    except StopIteration:
        return
    raise AssertionError("the handler waits for something")


class EdgecoreTarget:
    """Every call a mapper can make."""

    def __init__(self) -> None:
        nobody: Any = _Nobody()
        self._service = Dmi(directory=Path("/nowhere"), sink=nobody, rows=nobody, rng=random.random)
        self._service._group = nobody
        self._service.set_model(MODEL)
        self._service.set_device(OBJECT)

    def __call__(self, data: bytes) -> None:
        """Make them all with `data`."""
        self._service._links.clear()
        self._service._tasks.clear()
        for handler in self._service._methods().values():
            try:
                _call(handler, data)
            except (GrpcError, ProtocolError):
                continue


class MapperTarget:
    """Every call edgecore can make."""

    def __init__(self) -> None:
        identity = Identity("m", "virtual", "v1", Path("/nowhere/m"), Path("/nowhere/e"))
        self._service = MapperService(identity, VirtualDriver, rng=random.random)
        self._service._group = _Nobody()  # type: ignore[assignment]
        self._model = protobuf.encode(dmi.MODEL_REQUEST, {"model": model_message(load(MODEL))})

    def __call__(self, data: bytes) -> None:
        """Make them all with `data`."""
        self._service._bodies.clear()
        self._service._entries.clear()
        self._service._models.clear()
        _call(self._service._create_model, self._model)
        for handler in self._service._methods().values():
            try:
                _call(handler, data)
            except (GrpcError, ProtocolError):
                continue


def object_target(data: bytes) -> None:
    """An object from the cloud on its way to a driver."""
    device, model = load(data), load(MODEL)
    body = protobuf.decode(dmi.DEVICE, protobuf.encode(dmi.DEVICE, device_message(device, model)))
    read_device(body, model_message(model))


def examples() -> dict[str, list[bytes]]:
    """Valid inputs of each target."""
    mapper = {"name": "m", "protocol": "virtual", "address": b"/x", "version": "v", "state": "ok"}
    value = {"value": "1", "metadata": {"type": "int", "timestamp": "1"}}
    twins = [{"propertyName": "p", "reported": value, "observedDesired": value}]
    device = device_message(load(OBJECT), load(MODEL))
    return {
        "edgecore": [
            protobuf.encode(dmi.REGISTER_REQUEST, {"withData": True, "mapper": mapper}),
            protobuf.encode(
                dmi.REPORT_STATUS,
                {"deviceName": "d", "deviceNamespace": "n", "reportedDevice": {"twins": twins}},
            ),
            protobuf.encode(dmi.REPORT_STATES, {"deviceName": "d", "deviceNamespace": "n", "state": "ok"}),
        ],
        "mapper": [
            protobuf.encode(dmi.DEVICE_REQUEST, {"device": device}),
            protobuf.encode(dmi.MODEL_REQUEST, {"model": model_message(load(MODEL))}),
            protobuf.encode(dmi.DEVICE_NAME, {"deviceName": "d", "deviceNamespace": "n"}),
        ],
        "object": [OBJECT],
    }
