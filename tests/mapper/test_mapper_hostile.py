"""What can be wrong in the calls of an edgecore: the mapper answers with an error and keeps its devices at work."""

import pytest

pytest.importorskip("grpc")

import grpc

from edgehive.aio import dmi_messages as dmi
from edgehive.aio import protobuf
from edgehive.mapper.virtual import VirtualDriver
from tests.edge.test_dmi_hostile import BAD, caller
from tests.mapper.test_mapper_sdk import MODEL, device, mapper

MAPPER = "/v1beta1.DeviceMapperService/"
TAKING = ("RegisterDevice", "UpdateDevice", "CreateDeviceModel", "UpdateDeviceModel")
REMOVING = ("RemoveDevice", "RemoveDeviceModel")


@pytest.mark.parametrize("what", sorted(set(BAD) - {"nothing"}))
async def test_every_call_answers_nonsense_with_an_error_and_the_devices_go_on(tmp_path, what):
    data, codes = BAD[what]
    async with (
        mapper(tmp_path, VirtualDriver, device("v", visitors={"start": 1, "step": 1})) as (edgecore, service),
        caller(tmp_path / "m.sock") as call,
    ):
        await edgecore.until(lambda: ("v", "level") in edgecore.reported)
        for name in (*TAKING, *REMOVING, "GetDevice"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(MAPPER + name, data)
            assert caught.value.code().name in codes
        before = edgecore.reported["v", "level"]
        await edgecore.until(lambda: edgecore.reported["v", "level"] != before)
        assert service.worker("default", "v").state == "online"


async def test_what_is_missing_or_unknown_is_said_and_harms_nobody(tmp_path):
    odd = {"name": "odd", "namespace": "default", "spec": {"deviceModelReference": "m", "properties": [{}]}}
    orphan = {"name": "orphan", "namespace": "default", "spec": {"deviceModelReference": "not here"}}
    unknown_kind = {"key": "a", "value": {"typeUrl": "type.googleapis.com/what.Ever", "value": b"\x01"}}
    async with (
        mapper(tmp_path, VirtualDriver, device("v"), odd, orphan) as (edgecore, service),
        caller(tmp_path / "m.sock") as call,
    ):
        await edgecore.until(lambda: ("v", "level") in edgecore.reported)
        for name in TAKING:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(MAPPER + name, b"")
            assert caught.value.code().name == "INVALID_ARGUMENT"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(MAPPER + "GetDevice", protobuf.encode(dmi.DEVICE_NAME, {"deviceName": "nope"}))
        assert caught.value.code().name == "NOT_FOUND"
        for name, message in (("RemoveDevice", dmi.DEVICE_NAME), ("RemoveDeviceModel", dmi.MODEL_NAME)):
            assert await call(MAPPER + name, protobuf.encode(message, {})) == b""
        strange = device("strange")
        strange["spec"]["protocol"]["configData"]["data"] = [unknown_kind]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(MAPPER + "RegisterDevice", protobuf.encode(dmi.DEVICE_REQUEST, {"device": strange}))
        assert caught.value.code().name == "INVALID_ARGUMENT"
        assert {worker.device.name for worker in service.workers} == {"v", "odd"}
        # The model of the orphan comes late: its device starts.
        late = {**MODEL, "name": "not here"}
        await call(MAPPER + "CreateDeviceModel", protobuf.encode(dmi.MODEL_REQUEST, {"model": late}))
        assert service.worker("default", "orphan") is not None
