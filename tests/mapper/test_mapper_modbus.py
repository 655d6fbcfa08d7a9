"""The Modbus mapper against pymodbus' own server, and through DMI against edgecore's end."""

import asyncio
import contextlib
import random

import msgspec
import pytest

pytest.importorskip("pymodbus", reason="the extra mapper-modbus is not installed")

from edgehive.edge.dmi import Dmi
from edgehive.mapper.modbus import ModbusDriver, read_register
from edgehive.mapper.service import Identity, MapperService
from edgehive.mapper.thermostat import Room, Thermostat
from edgehive.mapper.values import ValueProblem


def device(port, target, *, name="thermostat", extra=()):
    def visitor(offset, **more):
        return {
            "protocolName": "modbus",
            "configData": {"register": "HoldingRegister", "offset": offset, **more},
        }

    return msgspec.json.encode(
        {
            "apiVersion": "devices.kubeedge.io/v1beta1",
            "kind": "Device",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "deviceModelRef": {"name": "thermostat"},
                "nodeName": "edge-1",
                "protocol": {"protocolName": "modbus", "configData": {"ip": "127.0.0.1", "port": port}},
                "properties": [
                    {
                        "name": "temperature",
                        "collectCycle": 50,
                        "reportToCloud": True,
                        "visitors": visitor(0, scale=0.1),
                    },
                    {
                        "name": "target",
                        "collectCycle": 50,
                        "reportToCloud": True,
                        "desired": {"value": target},
                        "visitors": visitor(1, scale=0.1),
                    },
                    {"name": "heating", "collectCycle": 50, "reportToCloud": True, "visitors": visitor(2)},
                    *extra,
                ],
                "methods": [{"name": "set", "propertyNames": ["target"]}],
            },
        }
    )


MODEL = msgspec.json.encode(
    {
        "metadata": {"name": "thermostat", "namespace": "default"},
        "spec": {
            "protocol": "modbus",
            "properties": [
                {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly"},
                {
                    "name": "target",
                    "type": "FLOAT",
                    "accessMode": "ReadWrite",
                    "minimum": "5",
                    "maximum": "30",
                },
                {"name": "heating", "type": "BOOLEAN", "accessMode": "ReadOnly"},
            ],
        },
    }
)


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
        self.values = {}
        self.states = []
        self.changed = asyncio.Condition()

    async def report_twins(self, namespace, name, twins):
        async with self.changed:
            self.values.update({(name, t.name): t for t in twins})
            self.changed.notify_all()

    async def report_state(self, namespace, name, state):
        async with self.changed:
            self.states.append((name, state))
            self.changed.notify_all()

    async def until(self, what, seconds=10):
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(what)

    def value(self, prop, name="thermostat"):
        twin = self.values.get((name, prop))
        return None if twin is None else twin.reported


@contextlib.asynccontextmanager
async def running(*coroutines):
    tasks = [asyncio.get_running_loop().create_task(c) for c in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def mapper(tmp_path, driver=ModbusDriver, protocol="modbus"):
    identity = Identity(f"{protocol}-mapper", protocol, "v1", tmp_path / "m.sock", tmp_path / "dmi.sock")
    return MapperService(identity, driver, rng=random.random)


async def test_a_thermostat_is_read_set_and_follows(tmp_path):
    sink = Sink()
    dmi = Dmi(directory=tmp_path, sink=sink, rows=Rows(), rng=random.random)
    thermostat = Thermostat(Room(temperature=18.0), host="127.0.0.1", port=0, step=0.02)
    port = await thermostat.listen()
    dmi.set_model(MODEL)
    dmi.set_device(device(port, "21.5"))
    async with running(thermostat.run(), dmi.run(), mapper(tmp_path).run()):
        await sink.until(lambda: sink.value("target") == "21.5" and sink.value("temperature"))
        assert ("thermostat", "online") in sink.states
        twin = sink.values["thermostat", "target"]
        assert twin.observed_desired == "21.5"
        assert twin.metadata["type"] == "float"
        assert twin.metadata["timestamp"].isdigit()
        assert await thermostat.target() == 21.5
        assert (
            sink.values["thermostat", "temperature"].observed_desired == ""
        )  # a Go edgecore dies of a report without

        dmi.set_device(device(port, "25"))
        await sink.until(lambda: sink.value("target") == "25")
        assert await thermostat.target() == 25.0

        dmi.set_device(device(port, "99"))  # above the maximum: refused, the device keeps what it has
        dmi.set_device(device(port, "19"))
        await sink.until(lambda: sink.value("target") == "19")


async def test_a_device_that_goes_away_is_offline_and_found_again(tmp_path):
    sink = Sink()
    dmi = Dmi(directory=tmp_path, sink=sink, rows=Rows(), rng=random.random)
    first = Thermostat(Room(), host="127.0.0.1", port=0, step=0.02)
    port = await first.listen()
    dmi.set_model(MODEL)
    dmi.set_device(device(port, "22"))
    async with running(dmi.run(), mapper(tmp_path).run()):
        async with running(first.run()):
            await sink.until(lambda: sink.value("target") == "22")
        await sink.until(lambda: sink.states[-1:] == [("thermostat", "offline")])
        second = Thermostat(Room(target=20.0), host="127.0.0.1", port=port, step=0.02)
        await second.listen()
        async with running(second.run()):
            # It has lost its setting; what is desired is written again.
            await sink.until(lambda: sink.states[-1:] == [("thermostat", "online")])
            async with asyncio.timeout(5):
                while await second.target() != 22.0:
                    await asyncio.sleep(0.02)


async def test_a_restarted_mapper_and_a_restarted_edgecore_have_everything_again(tmp_path):
    sink, rows = Sink(), Rows()
    thermostat = Thermostat(Room(), host="127.0.0.1", port=0, step=0.02)
    port = await thermostat.listen()

    def edgecore(target):
        dmi = Dmi(directory=tmp_path, sink=sink, rows=rows, rng=random.random)
        dmi.set_model(MODEL)
        dmi.set_device(device(port, target))
        return dmi

    async with running(thermostat.run()):
        dmi = edgecore("21")
        async with running(dmi.run()):
            async with running(mapper(tmp_path).run()):
                await sink.until(lambda: sink.value("target") == "21")
            sink.values.clear()
            service = mapper(tmp_path)
            async with running(service.run()) as tasks:
                await sink.until(lambda: sink.value("target") == "21")
                tasks[0].cancel()
                await asyncio.wait(tasks)
        service = mapper(tmp_path)
        async with running(service.run()):
            async with running(edgecore("22").run()):
                await sink.until(lambda: sink.value("target") == "22")
            # The desired value changes while edgecore is away; nobody restarts the mapper.
            async with running(edgecore("23").run()):
                await sink.until(lambda: sink.value("target") == "23")
            assert service.registrations >= 1


@pytest.mark.parametrize(
    ("config", "value", "words"),
    [
        ({"dataType": "int16"}, -2, [0xFFFE]),
        ({"dataType": "uint32"}, 0x12345678, [0x1234, 0x5678]),
        ({"dataType": "uint32", "isRegisterSwap": True}, 0x12345678, [0x5678, 0x1234]),
        ({"dataType": "uint32", "isSwap": True}, 0x12345678, [0x3412, 0x7856]),
        ({"dataType": "float32"}, 1.5, [0x3FC0, 0]),
        ({"limit": 2}, 70000, [1, 4464]),
        ({"scale": 0.1}, 21.5, [215]),
        ({"dataType": "string", "limit": 2}, "abc", [0x6162, 0x6300]),
    ],
)
def test_registers_hold_values_in_many_forms(config, value, words):
    register = read_register(config)
    assert register.encode(value) == words
    assert register.decode(words) == value


@pytest.mark.parametrize("value", [40000, float("inf"), "x"])
def test_a_value_that_does_not_fit_is_refused(value):
    with pytest.raises(ValueProblem):
        read_register({"dataType": "int16"}).encode(value)
