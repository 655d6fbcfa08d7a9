"""Our DMI server against grpcio and google.protobuf: a mapper written by somebody else."""

import asyncio
import contextlib
import json
import random
import stat

import grpc
import msgspec
import pytest
from google.protobuf import wrappers_pb2

from edgehive.aio import dmi_messages as dmi
from edgehive.aio import protobuf
from edgehive.edge.dmi import Dmi, RateLimit
from edgehive.edge.dmi_convert import Unconvertible, device_message, load, model_message
from edgehive.edge.dmi_link import device_key
from tests.support.dmi_peer import messages

M = messages()

MODEL = {
    "metadata": {"name": "model", "namespace": "default"},
    "spec": {
        "protocol": "modbus",
        "protocolConfigData": {"port": 502, "ip": "model"},
        "properties": [
            {
                "name": "temp",
                "type": "INT",
                "accessMode": "ReadWrite",
                "minimum": "1",
                "maximum": "9",
                "unit": "C",
                "visitors": {"protocolName": "modbus", "configData": {"offset": 7, "swap": True}},
            }
        ],
    },
}
DEVICE = {
    "apiVersion": "devices.kubeedge.io/v1beta1",
    "kind": "Device",
    "metadata": {"name": "d1", "namespace": "default"},
    "spec": {
        "deviceModelRef": {"name": "model"},
        "nodeName": "edge-1",
        "protocol": {"protocolName": "modbus", "configData": {"ip": "10.0.0.1"}},
        "properties": [
            {
                "name": "temp",
                "desired": {"value": "5", "metadata": {"type": "int"}},
                "visitors": {"protocolName": "modbus", "configData": {"scale": 0.1, "big": 16777217}},
                "reportCycle": 1000,
                "collectCycle": 500,
                "reportToCloud": True,
                "pushMethod": {
                    "http": {"hostName": "h", "port": 80, "requestPath": "/p", "timeout": 5},
                    "mqtt": {"address": "tcp://x", "topic": "t", "qos": 1, "retained": True},
                    "otel": {"endpointURL": "u"},
                    "dbMethod": {
                        "influxdb2": {
                            "influxdb2ClientConfig": {"url": "u", "org": "o", "bucket": "b"},
                            "influxdb2DataConfig": {"measurement": "m", "tag": {"a": "b"}, "fieldKey": "f"},
                        },
                        "redis": {
                            "redisClientConfig": {"addr": "a", "db": 1, "poolsize": 2, "minIdleConns": 3}
                        },
                        "TDEngine": {"TDEngineClientConfig": {"addr": "a", "dbName": "n"}},
                        "mysql": {"mysqlClientConfig": {"addr": "a", "database": "d", "userName": "u"}},
                    },
                    "anomalyDetection": {"threshold": 3},
                },
            }
        ],
        "methods": [{"name": "set", "description": "d", "propertyNames": ["temp"]}],
        "stateReport": {"reportCycle": 2000, "reportToCloud": True},
        "unknownKey": 1,
    },
}


def unwrapped(any_message):
    cls = {"FloatValue": wrappers_pb2.FloatValue, "DoubleValue": wrappers_pb2.DoubleValue}.get(
        any_message.TypeName().rpartition(".")[2]
    )
    cls = (
        cls
        or {"StringValue": wrappers_pb2.StringValue, "BoolValue": wrappers_pb2.BoolValue}[
            any_message.TypeName().rpartition(".")[2]
        ]
    )
    value = cls()
    value.ParseFromString(any_message.value)
    return type(value).__name__, value.value


def check_device(device):
    """Every field of DEVICE, completed from MODEL, as google.protobuf reads it."""
    assert (device.name, device.namespace) == ("d1", "default")
    assert device.spec.deviceModelReference == "model"
    assert (device.status.reportCycle, device.status.reportToCloud) == (2000, True)
    connection = {k: unwrapped(v) for k, v in device.spec.protocol.configData.data.items()}
    assert connection == {"ip": ("StringValue", "10.0.0.1"), "port": ("FloatValue", 502.0)}
    (prop,) = device.spec.properties
    assert (prop.name, prop.desired.value, dict(prop.desired.metadata)) == ("temp", "5", {"type": "int"})
    assert (prop.reportCycle, prop.collectCycle, prop.reportToCloud) == (1000, 500, True)
    visitor = {k: unwrapped(v) for k, v in prop.visitors.configData.data.items()}
    assert visitor["offset"] == ("FloatValue", 7.0)
    assert visitor["swap"] == ("BoolValue", True)
    assert visitor["scale"] == ("FloatValue", pytest.approx(0.1))
    assert visitor["big"] == ("DoubleValue", 16777217.0)
    push = prop.pushMethod
    assert (push.http.hostname, push.http.port, push.http.requestpath, push.http.timeout) == (
        "h",
        80,
        "/p",
        5,
    )
    assert (push.mqtt.address, push.mqtt.topic, push.mqtt.qos, push.mqtt.retained) == (
        "tcp://x",
        "t",
        1,
        True,
    )
    assert push.otel.endpointURL == "u"
    influx = push.dbMethod.influxdb2
    assert (influx.influxdb2ClientConfig.bucket, dict(influx.influxdb2DataConfig.tag)) == ("b", {"a": "b"})
    assert push.dbMethod.redis.redisClientConfig.minIdleConns == 3
    assert push.dbMethod.tdengine.tdEngineClientConfig.dbname == "n"
    assert push.dbMethod.mysql.mysqlClientConfig.userName == "u"
    assert unwrapped(push.anomalyDetection.data["threshold"]) == ("FloatValue", 3.0)
    (method,) = device.spec.methods
    assert (method.name, method.description, list(method.propertyNames)) == ("set", "d", ["temp"])


def raw(obj, **spec):
    return msgspec.json.encode({**obj, "spec": {**obj["spec"], **spec}})


def test_every_field_of_a_device_arrives():
    body = device_message(load(raw(DEVICE)), load(raw(MODEL)))
    check_device(M["Device"].FromString(protobuf.encode(dmi.DEVICE, body)))
    model = M["DeviceModel"].FromString(protobuf.encode(dmi.DEVICE_MODEL, model_message(MODEL)))
    (prop,) = model.spec.properties
    assert (prop.type, prop.accessMode, prop.minimum, prop.maximum, prop.unit) == (
        "INT",
        "ReadWrite",
        "1",
        "9",
        "C",
    )


def test_what_google_writes_we_read_back():
    body = device_message(load(raw(DEVICE)), load(raw(MODEL)))
    theirs = M["Device"].FromString(protobuf.encode(dmi.DEVICE, body)).SerializeToString(deterministic=True)
    again = protobuf.decode(dmi.DEVICE, theirs)
    check_device(M["Device"].FromString(protobuf.encode(dmi.DEVICE, again)))
    config = again["spec"]["properties"][0]["visitors"]["configData"]["data"]
    assert dmi.unpack(config) == {"offset": 7, "swap": True, "scale": 0.1, "big": 16777217}


@pytest.mark.parametrize(
    "spec",
    [
        {"properties": "none"},
        {"properties": [{"name": 5}]},
        {"properties": [{"name": {"a": 1}}]},
        {"properties": [{"name": "temp", "collectCycle": "soon"}]},
        {"properties": [{"name": "temp", "desired": {"value": 5}}]},
        {"properties": [{"name": "temp", "pushMethod": {"http": []}}]},
        {"methods": {}},
    ],
)
def test_a_device_of_the_wrong_form_is_refused_with_the_place(spec):
    for model in (None, load(raw(MODEL))):
        with pytest.raises(Unconvertible, match="spec"):
            device_message(load(raw(DEVICE, **spec)), model)


class Rows:
    def __init__(self):
        self.saved = {}
        self.notes = {}

    def mappers(self):
        return list(self.saved.values())

    def save_mapper(self, name, value):
        self.saved[name] = value

    def told(self, mapper):
        return dict(self.notes.get(mapper, {}))

    def note_told(self, mapper, told, *, everything):
        known = {} if everything else self.notes.setdefault(mapper, {})
        known.update(told)
        self.notes[mapper] = {key: body for key, body in known.items() if body is not None}


class Sink:
    def __init__(self):
        self.twins = []
        self.states = []

    async def report_twins(self, namespace, name, twins):
        self.twins.append((namespace, name, list(twins)))

    async def report_state(self, namespace, name, state):
        self.states.append((namespace, name, state))


class GoMapper:
    """A mapper on grpcio: keeps what it is called with, fails or hangs on demand."""

    def __init__(self, path):
        self.path = path
        self.calls = asyncio.Queue()
        self.fail = 0
        self.server = None

    async def start(self):
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers((self,))
        self.server.add_insecure_port(f"unix:{self.path}")
        await self.server.start()

    def service(self, details):
        name = details.method.rpartition("/")[2]
        assert details.method == f"/v1beta1.DeviceMapperService/{name}"

        async def answer(request, context):
            if self.fail:
                self.fail -= 1
                await context.abort(grpc.StatusCode.UNKNOWN, "not now")
            assert name != "GetDevice", "KubeEdge's mappers die of it"
            await self.calls.put((name, request))
            return M[f"{name}Response"]()

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=M[f"{name}Request"].FromString,
            response_serializer=lambda m: m.SerializeToString(),
        )

    async def next(self):
        async with asyncio.timeout(5):
            return await self.calls.get()


@contextlib.asynccontextmanager
async def running(dmi_service):
    task = asyncio.get_running_loop().create_task(dmi_service.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@contextlib.asynccontextmanager
async def edgecore(tmp_path, rows=None, **options):
    sink = Sink()
    service = Dmi(directory=tmp_path, sink=sink, rows=rows or Rows(), rng=random.random, **options)
    service.set_model(raw(MODEL))
    service.set_device(raw(DEVICE))
    async with running(service):
        while not (tmp_path / "dmi.sock").exists():
            await asyncio.sleep(0)
        async with grpc.aio.insecure_channel(
            f"unix:{tmp_path}/dmi.sock", options=[("grpc.default_authority", "localhost")]
        ) as channel:

            async def call(name, request):
                method = channel.unary_unary(
                    f"/v1beta1.DeviceManagerService/{name}",
                    request_serializer=lambda m: m.SerializeToString(),
                    response_deserializer=M.get(f"{name}Response", M["RemoveDeviceResponse"]).FromString,
                )
                return await method(request, timeout=5)

            yield service, sink, call


def registration(path, **fields):
    mapper = {
        "name": "m",
        "protocol": "modbus",
        "address": str(path).encode(),
        "version": "v1",
        "state": "ok",
    }
    return M["MapperRegisterRequest"](withData=True, mapper=M["MapperInfo"](**(mapper | fields)))


async def test_a_mapper_registers_and_is_told_of_changes(tmp_path):
    mapper = GoMapper(tmp_path / "go.sock")
    await mapper.start()
    async with edgecore(tmp_path) as (service, _, call):
        assert stat.S_IMODE((tmp_path / "dmi.sock").stat().st_mode) == 0o600
        answer = await call("MapperRegister", registration(mapper.path))
        check_device(answer.deviceList[0])
        assert [model.name for model in answer.modelList] == ["model"]

        service.set_device(raw(DEVICE))  # nothing has changed: the next call is about the second device
        other = raw({**DEVICE, "metadata": {"name": "d2", "namespace": "default"}})
        service.set_device(other)
        name, request = await mapper.next()
        assert (name, request.device.name) == ("RegisterDevice", "d2")
        service.set_device(raw({**DEVICE, "metadata": {"name": "d2", "namespace": "default"}}, methods=[]))
        name, request = await mapper.next()
        assert (name, len(request.device.spec.methods)) == ("UpdateDevice", 0)
        changed = json.loads(json.dumps(MODEL))
        changed["spec"]["properties"][0]["unit"] = "K"
        service.set_model(raw(changed))
        name, request = await mapper.next()
        assert (name, request.model.spec.properties[0].unit) == ("UpdateDeviceModel", "K")
        service.remove_device("default", "d2")
        name, request = await mapper.next()
        assert (name, request.deviceName) == ("RemoveDevice", "d2")
        service.remove_device("default", "d1")
        assert [(await mapper.next())[0] for _ in range(2)] == ["RemoveDevice", "RemoveDeviceModel"]
    await mapper.server.stop(None)


async def test_a_mapper_that_refuses_or_is_away_is_told_again(tmp_path):
    mapper = GoMapper(tmp_path / "go.sock")
    async with edgecore(tmp_path) as (service, _, call):
        await call(
            "MapperRegister", registration(mapper.path)
        )  # registers before it serves, as Go mappers do
        service.set_device(raw(DEVICE, methods=[]))
        mapper.fail = 1
        await mapper.start()
        name, request = await mapper.next()
        assert (name, len(request.device.spec.methods)) == ("UpdateDevice", 0)
    await mapper.server.stop(None)


async def test_after_a_restart_of_edgecore_a_mapper_hears_only_what_has_changed(tmp_path):
    rows = Rows()
    mapper = GoMapper(tmp_path / "go.sock")
    await mapper.start()
    gone = raw({**DEVICE, "metadata": {"name": "gone", "namespace": "default"}})
    async with edgecore(tmp_path, rows) as (service, _, call):
        await call("MapperRegister", registration(mapper.path))
        service.set_device(gone)
        assert (await mapper.next())[0] == "RegisterDevice"
        await call("ReportDeviceStates", M["ReportDeviceStatesRequest"](deviceName="d1", state="ok"))
    assert msgspec.json.decode(rows.saved["m"])["protocol"] == "modbus"
    async with edgecore(tmp_path, rows) as (service, _, _call):
        name, request = await mapper.next()  # left while edgecore was down
        assert (name, request.deviceName) == ("RemoveDevice", "gone")
        service.set_device(raw(DEVICE, methods=[]))
        name, request = await mapper.next()
        assert (name, len(request.device.spec.methods)) == ("UpdateDevice", 0)
    async with edgecore(tmp_path, rows) as (service, _, _call):
        name, request = await mapper.next()  # the harness starts with the device as it was at first
        assert (name, len(request.device.spec.methods)) == ("UpdateDevice", 1)
        assert mapper.calls.empty()
    await mapper.server.stop(None)


async def test_a_mapper_of_which_nothing_is_noted_is_told_everything(tmp_path):
    rows = Rows()
    mapper = GoMapper(tmp_path / "go.sock")
    await mapper.start()
    async with edgecore(tmp_path, rows) as (_, _, call):
        await call("MapperRegister", registration(mapper.path))
    rows.notes.clear()  # as in a database of KubeEdge's
    async with edgecore(tmp_path, rows):
        assert [(await mapper.next())[0] for _ in range(2)] == ["CreateDeviceModel", "RegisterDevice"]
    await mapper.server.stop(None)


def test_parts_that_are_structures_in_kubeedge_are_always_in_the_message():
    bare = {
        "metadata": {"name": "d", "namespace": "default"},
        "spec": {"properties": [{"name": "p"}]},
    }
    message = M["Device"].FromString(protobuf.encode(dmi.DEVICE, device_message(bare, None)))
    assert message.spec.HasField("protocol")
    prop = message.spec.properties[0]
    assert prop.HasField("desired")
    assert prop.HasField("visitors")
    assert prop.visitors.HasField("configData")


async def test_reports_arrive_whatever_is_missing_in_them(tmp_path):
    async with edgecore(tmp_path) as (_, sink, call):
        twins = [
            M["Twin"](
                propertyName="a", reported={"value": "1", "metadata": {"type": "int", "timestamp": "5"}}
            ),
            M["Twin"](propertyName="b", observedDesired={"value": "2"}),
            M["Twin"](propertyName="c"),
        ]
        request = M["ReportDeviceStatusRequest"](
            deviceName="d1", deviceNamespace="default", reportedDevice={"twins": twins}
        )
        await call("ReportDeviceStatus", request)
        ((namespace, name, got),) = sink.twins
        assert (namespace, name) == ("default", "d1")
        assert [(t.name, t.reported, t.observed_desired) for t in got] == [
            ("a", "1", None),
            ("b", None, "2"),
            ("c", None, None),
        ]
        assert got[0].metadata == {"type": "int", "timestamp": "5"}
        states = M["ReportDeviceStatesRequest"](deviceName="d1", deviceNamespace="default", state="online")
        await call("ReportDeviceStates", states)
        assert sink.states == [("default", "d1", "online")]


@pytest.mark.parametrize(
    ("name", "request_", "code"),
    [
        ("ReportDeviceStatus", ("ReportDeviceStatusRequest", {"deviceName": "d1"}), "INVALID_ARGUMENT"),
        ("ReportDeviceStates", ("ReportDeviceStatesRequest", {"deviceName": "d1"}), "INVALID_ARGUMENT"),
        ("ReportDeviceStates", ("ReportDeviceStatesRequest", {"deviceName": "x", "state": "s"}), "NOT_FOUND"),
        ("MapperRegister", ("MapperRegisterRequest", {"withData": True}), "INVALID_ARGUMENT"),
        ("Nothing", ("ReportDeviceStatesRequest", {}), "UNIMPLEMENTED"),
        ("ReportDeviceStatus", ("TwinProperty", {"value": "x" * (5 << 20)}), "RESOURCE_EXHAUSTED"),
        ("ReportDeviceStatus", ("TwinProperty", {"value": "\x01\x02"}), "NOT_FOUND"),
    ],
)
async def test_bad_calls_are_answered_and_the_next_one_works(tmp_path, name, request_, code):
    kind, fields = request_
    async with edgecore(tmp_path) as (_, sink, call):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(name, M[kind](**fields))
        assert caught.value.code().name == code
        states = M["ReportDeviceStatesRequest"](deviceName="d1", deviceNamespace="default", state="online")
        await call("ReportDeviceStates", states)
        assert sink.states == [("default", "d1", "online")]


def test_one_noisy_device_does_not_silence_the_others():
    limit = RateLimit(burst=3, refill=1)
    noisy, quiet = device_key("default", "noisy"), device_key("default", "quiet")
    assert [limit.admit(noisy, 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert limit.admit(quiet, 0.0)
    assert limit.admit(noisy, 1.0)
