"""The whole edgecore with devices: objects from the cloud, a mapper written by somebody else, reports to the cloud."""

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager

import grpc
import pytest

from edgehive.edge.app import EdgeCore
from edgehive.kit.errors import UserError
from tests.support.dmi_peer import messages

M = messages()
ID = "default/thermostat"
EDGE_UPDATED = f"device/{ID}/twin/edge_updated"
MODEL = {
    "metadata": {"name": "thermostat", "namespace": "default", "uid": "m", "resourceVersion": "1"},
    "spec": {"protocol": "modbus", "properties": [{"name": "target", "type": "INT"}]},
}


def device(desired, version):
    return {
        "metadata": {
            "name": "thermostat",
            "namespace": "default",
            "uid": "d",
            "resourceVersion": str(version),
        },
        "spec": {
            "deviceModelRef": {"name": "thermostat"},
            "nodeName": "edge-1",
            "protocol": {"protocolName": "modbus"},
            "properties": [
                {"name": "target", "desired": {"value": desired}},
                {"name": "temperature", "visitors": {"protocolName": "modbus"}},
            ],
        },
    }


def membership(**more):
    return {"event_id": "x", "timestamp": 1, "added_devices": None, "removed_devices": None, **more}


def from_devices(message):
    """The answer of a cloud that knows the device."""
    about_devices = message.source == "twin" and message.operation == "update"
    return b'"OK"' if about_devices and ID in message.resource else None


@asynccontextmanager
async def edgecore(config):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(EdgeCore(config).run())
        try:
            yield
        finally:
            task.cancel()


@asynccontextmanager
async def dmi(directory):
    path = directory / "dmi.sock"
    async with asyncio.timeout(10):
        while not path.exists():
            await asyncio.sleep(0.01)
    options = [("grpc.default_authority", "localhost")]
    async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:

        async def call(name, request):
            method = channel.unary_unary(
                f"/v1beta1.DeviceManagerService/{name}",
                request_serializer=lambda m: m.SerializeToString(),
                response_deserializer=M.get(f"{name}Response", M["RemoveDeviceResponse"]).FromString,
            )
            return await method(request, timeout=5)

        yield call


def report(name="thermostat", /, **values):
    twins = [
        M["Twin"](
            propertyName=key,
            observedDesired=None if desired is None else M["TwinProperty"](value=desired),
            reported=None if value is None else M["TwinProperty"](value=value),
        )
        for key, (desired, value) in values.items()
    ]
    return M["ReportDeviceStatusRequest"](
        deviceName=name, deviceNamespace="default", reportedDevice=M["DeviceStatus"](twins=twins)
    )


def device_config(cloud, directory):
    return cloud.config(modules={"deviceTwin": {"enable": True, "dmiSockPath": str(directory)}})


def latest(cloud, **want):
    """Whether the cloud's newest view of the device has these values."""
    seen = {}
    for message in cloud.find("update", EDGE_UPDATED):
        seen |= json.loads(message.content)["twin"]
    return all(
        (
            seen.get(name, {}).get("expected", {}).get("value"),
            seen.get(name, {}).get("actual", {}).get("value"),
        )
        == pair
        for name, pair in want.items()
    )


async def forever(call, name, request):
    async with asyncio.timeout(5):
        while True:
            await call(name, request)


async def test_a_device_from_the_cloud_to_the_mapper_and_back(cloud, tmp_path):
    config = device_config(cloud, tmp_path / "dmi")
    cloud.install(config)
    cloud.answers.append(from_devices)
    async with edgecore(config), dmi(tmp_path / "dmi") as call:
        await cloud.message("get", "membership/detail")
        member = {"id": ID, "name": "thermostat"}
        await cloud.push(
            "update",
            "membership",
            membership(added_devices=[member]),
            group="twin",
            source="devicecontroller",
        )
        source = {"source": "devicecontroller"}
        await cloud.ack_of(
            await cloud.push("insert", "default/devicemodel/thermostat", MODEL, version=1, **source)
        )
        ack = await cloud.ack_of(
            await cloud.push("insert", "default/device/thermostat", device("21", 2), version=2, **source)
        )
        assert (ack.source, ack.group) == ("meta", "twin")
        await cloud.until(lambda: latest(cloud, target=("21", None)))
        answer = await call(
            "MapperRegister",
            M["MapperRegisterRequest"](
                withData=True,
                mapper=M["MapperInfo"](
                    name="m", protocol="modbus", address=str(tmp_path / "m.sock").encode()
                ),
            ),
        )
        assert [one.name for one in answer.deviceList] == ["thermostat"]
        await call("ReportDeviceStatus", report(target=("21", "21"), temperature=(None, "20")))
        await cloud.until(lambda: latest(cloud, target=("21", "21"), temperature=(None, "20")))
        first = json.loads(cloud.find("update", EDGE_UPDATED)[0].content)
        assert list(first) == ["event_id", "timestamp", "twin"]
        await call(
            "ReportDeviceStates",
            M["ReportDeviceStatesRequest"](
                deviceName="thermostat", deviceNamespace="default", state="online"
            ),
        )
        state = json.loads(json.loads((await cloud.message("update", f"device/{ID}/state/update")).content))
        assert (state["device"]["name"], state["device"]["state"]) == ("thermostat", "online")
        assert state["device"]["lastOnlineTime"].endswith("Z")


async def test_both_sides_agree_after_an_outage_and_a_restart(cloud, tmp_path):
    config = device_config(cloud, tmp_path / "dmi")
    cloud.install(config)
    cloud.answers.append(from_devices)
    source = {"source": "devicecontroller"}
    async with edgecore(config), dmi(tmp_path / "dmi") as call:
        await cloud.message("get", "membership/detail")
        await cloud.push("insert", "default/devicemodel/thermostat", MODEL, version=1, **source)
        await cloud.ack_of(
            await cloud.push("insert", "default/device/thermostat", device("21", 2), version=2, **source)
        )
        await cloud.until(lambda: latest(cloud, target=("21", None)))
        await cloud.stop()
        for value in range(30):
            await call("ReportDeviceStatus", report(temperature=(None, str(value)), target=("21", "20")))
    cloud.received.clear()
    async with edgecore(config), dmi(tmp_path / "dmi") as call:
        await call("ReportDeviceStatus", report(target=("21", "21")))
        await cloud.start()
        await cloud.until(lambda: latest(cloud, target=("21", "21"), temperature=(None, "29")), timeout=20)
        assert len(cloud.find("update", EDGE_UPDATED)) <= 3, "how it is, not everything that was"
        await cloud.ack_of(
            await cloud.push("delete", "default/device/thermostat", device("21", 3), version=3, **source)
        )
        # The acknowledgement comes before the mapper's interface is told.
        with pytest.raises(grpc.aio.AioRpcError, match="there is no device"):
            await forever(call, "ReportDeviceStatus", report(target=("21", "22")))


async def test_a_socket_path_that_is_too_long_is_refused(cloud, tmp_path):
    config = device_config(cloud, tmp_path / ("x" * 100))
    with pytest.raises(UserError, match="too long for a socket"):
        await EdgeCore(config).run()


def test_what_is_off_is_not_even_imported():
    code = (
        "import sys, edgehive.edge.app; print(*(m for m in sys.modules if m.startswith(('edgehive', 'h2'))))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "edgehive.edge.hub" in loaded
    parts = (
        "edgehive.twin",
        "edgehive.edge.devicetwin",
        "edgehive.edge.dmi",
        "edgehive.edge.app_devices",
        "h2",
    )
    assert not [module for module in loaded if module.startswith(parts)]
