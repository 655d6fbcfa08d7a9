"""The SDK around a driver: REST API, methods, push methods, conversions, hostile devices, and a generated project."""

import asyncio
import contextlib
import json
import logging
import random
import runpy
import sys
import threading

import aiohttp
import pytest
import yaml

from edgehive.aio import dmi_messages as dmi
from edgehive.aio import protobuf
from edgehive.aio.grpc import GrpcClient
from edgehive.aio.grpc_server import GrpcServer
from edgehive.aio.http import HttpServer, Response
from edgehive.kit.errors import Unreachable, UserError
from edgehive.mapper import Driver, main
from edgehive.mapper.http import HttpDriver, find
from edgehive.mapper.model import Property, read_device
from edgehive.mapper.project import write_project
from edgehive.mapper.push import PushHub
from edgehive.mapper.reconcile import Reconciler
from edgehive.mapper.rest import RestApi
from edgehive.mapper.service import Identity, MapperService
from edgehive.mapper.values import ValueProblem, convert, format_value
from edgehive.mapper.virtual import VirtualDriver
from tests.support import servers


@contextlib.asynccontextmanager
async def running(*coroutines):
    tasks = [asyncio.get_running_loop().create_task(c) for c in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class Edgecore:
    """Edgecore's end by its messages alone: gives `devices` at registration and keeps what is reported."""

    def __init__(self, tmp_path, models, devices):
        self.models, self.devices = models, devices
        self.reported, self.states = {}, []
        self.news = asyncio.Condition()
        handlers = {
            "MapperRegister": self.register,
            "ReportDeviceStatus": self.status,
            "ReportDeviceStates": self.state,
        }
        methods = {dmi.MANAGER_SERVICE + name: handler for name, handler in handlers.items()}
        self.server = GrpcServer(tmp_path / "dmi.sock", methods, name="edgecore")

    async def register(self, raw):
        assert protobuf.decode(dmi.REGISTER_REQUEST, raw)["withData"]
        return protobuf.encode(dmi.REGISTER_RESPONSE, {"modelList": self.models, "deviceList": self.devices})

    async def status(self, raw):
        request = protobuf.decode(dmi.REPORT_STATUS, raw)
        async with self.news:
            for twin in request["reportedDevice"]["twins"]:
                # KubeEdge's edgecore dies of a twin that lacks one of the two.
                assert {"reported", "observedDesired"} <= twin.keys()
                self.reported[request["deviceName"], twin["propertyName"]] = twin["reported"]["value"]
            self.news.notify_all()
        return b""

    async def state(self, raw):
        request = protobuf.decode(dmi.REPORT_STATES, raw)
        async with self.news:
            self.states.append((request["deviceName"], request["state"]))
            self.news.notify_all()
        return b""

    async def until(self, what, seconds=10):
        async with asyncio.timeout(seconds), self.news:
            await self.news.wait_for(what)


MODEL = {
    "name": "m",
    "namespace": "default",
    "spec": {
        "properties": [
            {"name": "level", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "100"},
            {"name": "fixed", "type": "STRING", "accessMode": "ReadOnly"},
        ]
    },
}


def device(name, *, protocol="virtual", config=None, visitors=None, desired=None, push=None):
    level = {"name": "level", "collectCycle": 30, "reportCycle": 10, "reportToCloud": True}
    level["visitors"] = {"configData": {"data": dmi.pack(visitors or {"start": 7})}}
    if desired is not None:
        level["desired"] = {"value": desired}
    if push is not None:
        level["pushMethod"] = push
    return {
        "name": name,
        "namespace": "default",
        "spec": {
            "deviceModelReference": "m",
            "protocol": {"protocolName": protocol, "configData": {"data": dmi.pack(config or {})}},
            "properties": [level],
            "methods": [{"name": "set", "propertyNames": ["level"]}],
        },
    }


@contextlib.asynccontextmanager
async def mapper(tmp_path, driver, *devices, pusher=None):
    edgecore = Edgecore(tmp_path, [MODEL], list(devices))
    identity = Identity("m", driver.protocol, "v1", tmp_path / "m.sock", tmp_path / "dmi.sock")
    service = MapperService(identity, driver, rng=random.random, pusher=pusher)
    await edgecore.server.listen()
    async with running(edgecore.server.run(), service.run()):
        yield edgecore, service


async def test_the_rest_api_of_the_mapper_framework(tmp_path):
    async with mapper(tmp_path, VirtualDriver, device("v", desired="42")) as (edgecore, service):
        await edgecore.until(
            lambda: edgecore.reported.get(("v", "level")) == "42" and ("v", "online") in edgecore.states
        )
        server = HttpServer(RestApi(service).handle, name="rest")
        port = await server.listen("127.0.0.1", 0)
        async with running(server.run()), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:

            async def get(path, **headers):
                async with client.get(path, headers=headers) as answer:
                    return answer.status, answer.headers, await answer.text()

            status, headers, text = await get("/api/v1/ping", **{"X-Correlation-ID": "c1"})
            assert (status, headers["X-Correlation-ID"]) == (200, "c1")
            assert {"apiVersion": "v1", "statusCode": 200}.items() <= json.loads(text).items()
            status, _, text = await get("/api/v1/device/default/v/level")
            data = json.loads(text)["Data"]
            assert (data["DeviceName"], data["PropertyName"], data["Value"], data["Type"]) == (
                "v",
                "level",
                "42",
                "int",
            )
            status, _, text = await get("/api/v1/devicemethod/default/v")
            assert json.loads(text)["Data"]["Methods"][0]["Name"] == "set"
            assert (await get("/api/v1/devicemethod/default/v/set/level/55"))[0] == 200
            await edgecore.until(lambda: edgecore.reported["v", "level"] == "55")  # and 42 is not forced back
            assert (await get("/api/v1/devicemethod/default/v/set/level/101"))[0] == 400
            assert (await get("/api/v1/devicemethod/default/v/nope/level/1"))[0] == 400
            assert (await get("/api/v1/devicemethod/default/other/set/level/1"))[0] == 404
            status, _, text = await get("/api/v1/meta/model/default/v")
            assert json.loads(text)["ModelProperties"][0]["Maximum"] == "100"
            assert (await get("/api/v1/database/default/v"))[0] == 503
            assert (await get("/api/v1/nothing"))[0] == 404
            assert (await get("/healthz"))[0] == 200
            metrics = (await get("/metrics"))[2]
            assert "mapper_devices_online 1\n" in metrics
            assert 'mapper_device_writes_total{device="default/v"} 2' in metrics


class Moody(Driver):
    """Devices called "bad" raise something unforeseen; the others are fine. Plain functions, run in threads."""

    protocol = "moody"

    def read(self, prop):
        if self.device.name == "bad":
            raise ZeroDivisionError("oops")
        return 1


async def test_a_driver_that_crashes_harms_its_own_device_only(tmp_path):
    async with mapper(tmp_path, Moody, device("bad"), device("good")) as (edgecore, service):
        await edgecore.until(lambda: edgecore.reported and ("bad", "offline") in edgecore.states)
        assert edgecore.reported == {("good", "level"): "1"}
        assert "ZeroDivisionError" in service.worker("default", "bad").error


async def test_http_devices_are_read_and_set_and_their_values_pushed(tmp_path):
    state = {"level": 3}
    pushed = asyncio.Queue()

    async def answer(request):
        if request.path == "/push":
            await pushed.put((await request.body()).decode())
        elif request.method == "PUT":
            state["level"] = json.loads(await request.body())["level"]
        return Response(200, json.dumps({"sensor": [state]}).encode(), {"content-type": "application/json"})

    server = HttpServer(answer, name="device")
    port = await server.listen("127.0.0.1", 0)
    push = {"http": {"hostname": "http://127.0.0.1", "port": port, "requestpath": "/push"}}
    visitors = {"path": "state", "pointer": "/sensor/0/level", "writeTemplate": '{"level": $value}'}
    config = {"url": f"http://127.0.0.1:{port}/"}
    one = device("h", protocol="http", config=config, visitors=visitors, desired="9", push=push)
    hub = PushHub()
    async with (
        running(server.run(), hub.run()),
        mapper(tmp_path, HttpDriver, one, pusher=hub) as (edgecore, _),
    ):
        await edgecore.until(lambda: edgecore.reported.get(("h", "level")) == "9")
        assert state == {"level": 9}
        async with asyncio.timeout(5):
            form = await pushed.get()
        assert form.startswith("level=")
        assert "&time=20" in form


@pytest.mark.real
async def test_mqtt_devices_are_read_and_set_and_their_values_pushed(tmp_path):
    aiomqtt = pytest.importorskip("aiomqtt", reason="the extra mapper-mqtt is not installed")
    from edgehive.mapper.mqtt import MqttDriver

    with contextlib.ExitStack() as stack:
        port = stack.enter_context(servers.mosquitto(tmp_path))
        visitors = {
            "topic": "dev/state",
            "pointer": "/level",
            "setTopic": "dev/set",
            "setTemplate": '{"level": $value}',
        }
        push = {"mqtt": {"address": f"tcp://127.0.0.1:{port}", "topic": "pushed", "qos": 1}}
        config = {"address": f"127.0.0.1:{port}"}
        one = device("q", protocol="mqtt", config=config, visitors=visitors, desired="8", push=push)
        hub = PushHub()

        async def thing(ready):
            async with aiomqtt.Client("127.0.0.1", port) as client:
                await client.subscribe("dev/set", qos=1)
                await client.subscribe("pushed", qos=1)
                await client.publish("dev/state", '{"level": 2}', retain=True)
                async for message in client.messages:
                    if str(message.topic) == "pushed":
                        ready.set_result(message.payload.decode()) if not ready.done() else None
                    else:
                        await client.publish("dev/state", message.payload, retain=True)

        ready = asyncio.get_running_loop().create_future()
        async with (
            running(hub.run(), thing(ready)),
            mapper(tmp_path, MqttDriver, one, pusher=hub) as (edgecore, _),
        ):
            await edgecore.until(lambda: edgecore.reported.get(("q", "level")) == "8")
            async with asyncio.timeout(5):
                text = await ready
            assert text.startswith("time is 20")
            assert " pushed: " in text
            stack.close()
            await edgecore.until(lambda: ("q", "offline") in edgecore.states)


@pytest.mark.parametrize(
    ("value", "kind", "wanted"),
    [
        ("0x10", "INT", 16),
        (2.6, "INT", 3),
        (True, "FLOAT", 1.0),
        ("on", "BOOLEAN", True),
        (0, "BOOLEAN", False),
        (21, "STRING", "21"),
        (False, "STRING", "false"),
        ("YWI=", "BYTES", b"ab"),
        (b"7", "INT", 7),
    ],
)
def test_values_are_converted_by_the_type_of_the_model(value, kind, wanted):
    got = convert(value, kind)
    assert got == wanted
    assert type(got) is type(wanted)
    assert convert(format_value(got), kind) == wanted


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("x", "INT"),
        ("nan", "FLOAT"),
        (1 << 63, "INT"),
        ("maybe", "BOOLEAN"),
        ("?", "BYTES"),
        (None, "STRING"),
        ([], "INT"),
    ],
)
def test_what_is_no_value_of_the_type_is_refused(value, kind):
    with pytest.raises(ValueProblem):
        convert(value, kind)


def prop(desired, **more):
    return Property("p", type="INT", minimum="0", maximum="9", desired=desired, **more)


def test_a_desired_value_is_written_once_and_again_when_the_device_forgets_it():
    reconciler = Reconciler(prop("5"))
    assert reconciler.due(0) is None  # nothing is known of the device yet
    reconciler.observed(5)
    assert reconciler.due(0) is None
    reconciler.observed(1)
    assert reconciler.due(1) == 5
    reconciler.wrote(1)
    assert reconciler.due(1.5) is None  # a device that does not take it is not hammered
    assert reconciler.due(2.1) == 5
    reconciler.update(prop("6"))
    assert reconciler.due(2.1) == 6
    reconciler.overridden()
    assert reconciler.due(100) is None
    reconciler.update(prop("6"))
    assert reconciler.due(100) is None
    reconciler.update(prop("7"))
    assert reconciler.due(100) == 7


@pytest.mark.parametrize("bad", [prop("10"), prop("x"), prop("5", access="ReadOnly")])
def test_a_desired_value_that_cannot_be_is_told_and_never_written(bad):
    reconciler = Reconciler(bad)
    reconciler.observed(1)
    assert reconciler.due(0) is None
    assert "p" in reconciler.problem


def test_pointers_into_json_find_what_they_name():
    assert find({"a/b": [{"c": 1}]}, "/a~1b/0/c") == 1


def test_a_new_project_is_a_working_mapper_of_few_lines(tmp_path):
    files = {path.name: path for path in write_project("my-sensor", tmp_path / "p")}
    assert {"mapper.py", "config.yaml", "devices.yaml", "deployment.yaml", "README.md", "Dockerfile"} == set(
        files
    )
    assert [d["kind"] for d in yaml.safe_load_all(files["devices.yaml"].read_text())] == [
        "DeviceModel",
        "Device",
    ]
    for name in ("README.md", "Dockerfile"):
        assert "install edgehive" not in files[name].read_text(), (
            "an index need not have ours under that name"
        )
    pod = yaml.safe_load(files["deployment.yaml"].read_text())["spec"]["template"]["spec"]
    assert pod["volumes"][0]["hostPath"]["path"] == "/etc/kubeedge"
    driver = runpy.run_path(str(files["mapper.py"]))["MySensor"]
    one = driver(read_device(device("v", visitors={"start": 4}), MODEL))
    one.connect()
    level = one.device.properties["level"]
    assert one.read(level) == 4
    one.write(level, 5)
    assert one.read(level) == 5
    code = [line for line in files["mapper.py"].read_text().splitlines() if line.strip()]
    assert len(code) <= 20
    with pytest.raises(UserError, match="there already"):
        write_project("my-sensor", tmp_path / "p")
    with pytest.raises(UserError, match="not a name"):
        write_project("../x", tmp_path / "q")


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_is_a_port(port, tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text(f"common: {{http_port: {port}}}")
    for arguments in (["--http-port", port], ["--config-file", str(file)]):
        assert main(VirtualDriver, arguments) == 1
        assert "not a port number" in capsys.readouterr().err


async def test_an_edgecore_that_is_not_there_is_told_once_and_with_a_hint(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    identity = Identity("m", "virtual", "v1", tmp_path / "m.sock", tmp_path / "dmi.sock")
    service = MapperService(identity, VirtualDriver, rng=lambda: 0.0)
    tries = 0

    async def nobody(*_, **__):
        nonlocal tries
        tries += 1
        raise Unreachable("no gRPC server at x")

    service._client.call = nobody
    async with running(service.run()):
        async with asyncio.timeout(10):
            while tries < 3:
                await asyncio.sleep(0.05)
    (line,) = [r.getMessage() for r in caplog.records if "not registered" in r.getMessage()]
    assert "no gRPC server at x" in line
    assert "--edgecore-sock" in line


class Deaf(Driver):
    """Its library swallows a cancellation and answers all the same."""

    protocol = "deaf"
    asked = None

    async def read(self, prop):
        Deaf.asked.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        return 1


async def test_a_driver_that_swallows_a_cancellation_does_not_keep_the_mapper_alive(tmp_path):
    Deaf.asked = asyncio.Event()
    async with asyncio.timeout(5):
        async with mapper(tmp_path, Deaf, device("d")):
            await Deaf.asked.wait()


async def test_a_new_project_runs_as_a_process_and_reports(tmp_path):
    from edgehive.cli.mapper import run_mapper_command

    assert run_mapper_command(["new", "my-sensor", "--directory", str(tmp_path / "p")]) == 0
    config = tmp_path / "p" / "config.yaml"
    text = config.read_text().replace("/etc/kubeedge", str(tmp_path)).replace("7777", "0")
    config.write_text(text)
    one = device("my-sensor-1", protocol="my-sensor", visitors={"start": 0}, desired="42")
    edgecore = Edgecore(tmp_path, [MODEL], [one])
    await edgecore.server.listen()
    async with running(edgecore.server.run()):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(tmp_path / "p" / "mapper.py"),
            "--config-file",
            str(config),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await edgecore.until(lambda: edgecore.reported.get(("my-sensor-1", "level")) == "42", seconds=30)
            assert ("my-sensor-1", "online") in edgecore.states
            process.terminate()
            async with asyncio.timeout(10):
                _, said = await process.communicate()
            assert process.returncode == 0, said.decode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


class Stuck(Driver):
    """Plain functions; those of the devices called "stuck" never return."""

    protocol = "stuck"
    timeout = 0.05
    release = None

    def read(self, prop):
        if self.device.name.startswith("stuck"):
            Stuck.release.wait()
        return 1


async def test_drivers_that_hang_for_ever_take_no_thread_from_the_others(tmp_path):
    Stuck.release = threading.Event()
    try:
        stuck = [device(f"stuck-{n}") for n in range(40)]  # more than the shared executor has threads
        async with mapper(tmp_path, Stuck, *stuck, device("good")) as (edgecore, service):
            await edgecore.until(lambda: ("good", "level") in edgecore.reported)
            async with asyncio.timeout(20):
                while not all(worker.counters.read_errors for worker in service.workers[:40]):
                    await asyncio.sleep(0.05)
            reads = service.worker("default", "good").counters.reads
            async with asyncio.timeout(5):
                while service.worker("default", "good").counters.reads < reads + 5:
                    await asyncio.sleep(0.02)
            assert {key[0] for key in edgecore.reported} == {"good"}
    finally:
        Stuck.release.set()


async def test_news_during_a_registration_are_not_overwritten_by_its_older_answer(tmp_path):
    old, new = device("v", desired="1"), device("v", desired="2")
    news = []

    class Racing(Edgecore):
        async def register(self, raw):
            answer = await super().register(raw)
            if not news:  # what follows leaves edgecore before the answer does
                news.append(await self.client.call(dmi.MAPPER_SERVICE + "UpdateDevice", update, timeout=5))
                self.devices = [new]
            return answer

    update = protobuf.encode(dmi.DEVICE_REQUEST, {"device": new})
    edgecore = Racing(tmp_path, [MODEL], [old])
    edgecore.client = GrpcClient(str(tmp_path / "m.sock"))
    identity = Identity("m", "virtual", "v1", tmp_path / "m.sock", tmp_path / "dmi.sock")
    service = MapperService(identity, VirtualDriver, rng=random.random)
    await edgecore.server.listen()
    async with running(edgecore.server.run(), service.run()):
        await edgecore.until(lambda: edgecore.reported.get(("v", "level")) == "2")
        assert service.worker("default", "v").device.properties["level"].desired == "2"
        assert service.worker("default", "v").counters.writes == 1
    await edgecore.client.close()


async def test_many_devices_register_once_and_all_report(tmp_path):
    many = [device(f"v{n}", desired=str(n % 100)) for n in range(300)]
    async with mapper(tmp_path, VirtualDriver, *many) as (edgecore, service):
        await edgecore.until(
            lambda: all(edgecore.reported.get((f"v{n}", "level")) == str(n % 100) for n in range(300)),
            seconds=40,
        )
        assert service.registrations == 1
        assert service.report_errors == 0


async def test_an_edgecore_that_hangs_does_not_hold_up_the_control_of_devices(tmp_path):
    hang = asyncio.Event()

    class Hung(Edgecore):
        async def status(self, raw):
            answer = await super().status(raw)
            await hang.wait()
            return answer

    edgecore = Hung(tmp_path, [MODEL], [device("v", desired="1")])
    identity = Identity("m", "virtual", "v1", tmp_path / "m.sock", tmp_path / "dmi.sock")
    service = MapperService(identity, VirtualDriver, rng=random.random)
    await edgecore.server.listen()
    async with running(edgecore.server.run(), service.run()):
        await edgecore.until(lambda: edgecore.reported)  # and it is not answered
        worker = service.worker("default", "v")
        await worker.call_method("set", "level", "7")
        worker.update(read_device(device("v", desired="9"), MODEL))
        async with asyncio.timeout(5):
            while worker.reading("level").text != "9":
                await asyncio.sleep(0.02)
        hang.set()
        await edgecore.until(lambda: edgecore.reported["v", "level"] == "9")
