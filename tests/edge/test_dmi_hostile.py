"""What a mapper can do wrong, by accident or on purpose: each call says so to its caller, nobody else notices."""

import asyncio
import contextlib

import msgspec
import pytest

pytest.importorskip("grpc")

import grpc

from edgehive.aio import dmi_messages as dmi
from edgehive.aio import protobuf
from tests.edge.test_dmi_peer import DEVICE, GoMapper, M, edgecore, raw, registration

MANAGER = "/v1beta1.DeviceManagerService/"
CALLS = ("MapperRegister", "ReportDeviceStatus", "ReportDeviceStates")
BAD = {
    "nothing": (b"", {"INVALID_ARGUMENT", "NOT_FOUND"}),
    "wrong UTF-8": (b"\x0a\x02\xff\xfe\x12\x02\xff\xfe", {"INVALID_ARGUMENT"}),
    "cut off": (b"\x0a\x7fabc", {"INVALID_ARGUMENT"}),
    "groups": (b"\x0b\x0c" * 100, {"INVALID_ARGUMENT"}),
    "varint without end": (b"\xff" * 64, {"INVALID_ARGUMENT"}),
    "bottomless": (b"\x12\x7f" * 400, {"INVALID_ARGUMENT"}),
    "oversized": (b"\x0a" + b"\x80\x80\x80\x04" + b"x" * (8 << 20), {"RESOURCE_EXHAUSTED"}),
}


@contextlib.asynccontextmanager
async def caller(path):
    """Calls with bytes as they are."""
    options = [("grpc.default_authority", "localhost"), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:

        async def call(name, data):
            method = channel.unary_unary(
                name, request_serializer=lambda b: b, response_deserializer=lambda b: b
            )
            return await method(data, timeout=5)

        yield call


@pytest.mark.parametrize("what", sorted(BAD))
@pytest.mark.parametrize("name", CALLS)
async def test_every_call_answers_nonsense_with_an_error_and_serves_the_next(tmp_path, name, what):
    data, codes = BAD[what]
    async with edgecore(tmp_path) as (_, sink, call), caller(tmp_path / "dmi.sock") as send:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(MANAGER + name, data)
        assert caught.value.code().name in codes
        assert caught.value.details()
        states = M["ReportDeviceStatesRequest"](deviceName="d1", deviceNamespace="default", state="online")
        await call("ReportDeviceStates", states)
        assert sink.states == [("default", "d1", "online")]
        assert sink.twins == []


async def test_a_report_about_a_device_of_nobody_is_refused(tmp_path):
    async with edgecore(tmp_path) as (service, sink, call):
        twins = [M["Twin"](propertyName="a", reported={"value": "1"})]
        for name, namespace in (("nope", "default"), ("d1", "elsewhere"), ("", "")):
            request = M["ReportDeviceStatusRequest"](
                deviceName=name, deviceNamespace=namespace, reportedDevice={"twins": twins}
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call("ReportDeviceStatus", request)
            assert caught.value.code().name == "NOT_FOUND"
        assert sink.twins == []
        assert service.refused == 3


async def test_a_mapper_that_never_answers_delays_nobody_else(tmp_path):
    """It registers, accepts every connection and says nothing; another mapper and its devices do not notice."""
    writers = []
    hung = await asyncio.start_unix_server(lambda r, w: writers.append(w), path=tmp_path / "hung.sock")
    other = GoMapper(tmp_path / "go.sock")
    await other.start()
    async with edgecore(tmp_path) as (service, sink, call):
        await call("MapperRegister", registration(tmp_path / "hung.sock"))
        await call("MapperRegister", registration(other.path, name="o", protocol="other"))
        service.set_device(raw(DEVICE, methods=[]))  # for the one that hangs
        spec = {**DEVICE["spec"], "protocol": {"protocolName": "other"}}
        two = {**DEVICE, "metadata": {"name": "d2", "namespace": "default"}, "spec": spec}
        service.set_device(msgspec.json.encode(two))
        assert (await other.next())[0] == "CreateDeviceModel"
        name, request = await other.next()
        assert (name, request.device.name) == ("RegisterDevice", "d2")
        for device in ("d1", "d2"):
            states = M["ReportDeviceStatesRequest"](
                deviceName=device, deviceNamespace="default", state="online"
            )
            await call("ReportDeviceStates", states)
        assert len(sink.states) == 2
        assert {info.name: pending for info, pending in service.mappers} == {"m": 1, "o": 0}
    assert writers
    for writer in writers:
        writer.close()
    hung.close()
    await other.server.stop(None)


async def test_a_mapper_may_register_in_a_loop_and_under_many_names(tmp_path):
    async with edgecore(tmp_path) as (service, _, _call), caller(tmp_path / "dmi.sock") as send:

        def request(n):
            mapper = {"name": f"m{n}", "protocol": f"p{n}", "address": b"/nowhere", "state": "ok"}
            return protobuf.encode(dmi.REGISTER_REQUEST, {"withData": True, "mapper": mapper})

        for _ in range(20):
            await send(MANAGER + "MapperRegister", request(0))
        for n in range(64):
            await send(MANAGER + "MapperRegister", request(n))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(MANAGER + "MapperRegister", request(64))
        assert caught.value.code().name == "RESOURCE_EXHAUSTED"
        assert len(service.mappers) == 64
        await send(MANAGER + "MapperRegister", request(3))  # those known may go on
