"""What a mapper is told when it registers at the very moment at which it is told something."""

import asyncio
import contextlib

import pytest

from edgehive.aio import dmi_messages as dmi
from edgehive.aio import protobuf
from edgehive.edge.dmi_link import MapperInfo, MapperLink, device_key
from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import Unreachable

KEY = device_key("default", "d")


def body(target):
    device = {
        "name": "d",
        "namespace": "default",
        "spec": {"properties": [{"name": "p", "desired": {"value": target}}]},
    }
    return protobuf.encode(dmi.DEVICE, device)


class FakeMapper:
    """Keeps devices; `during` is run in the middle of a call, before or after it took effect."""

    def __init__(self):
        self.devices = {}
        self.calls = []
        self.during = None
        self.away = False

    def connect(self, address):
        return self

    async def close(self):
        pass

    async def call(self, method, request, *, timeout):
        name = method.rpartition("/")[2]
        self.calls.append(name)
        if self.away:
            raise Unreachable("away")
        if self.during is not None:
            during, self.during = self.during, None
            during()
        if name == "RemoveDevice":
            self.devices.pop(protobuf.decode(dmi.DEVICE_NAME, request)["deviceName"], None)
        else:
            device = protobuf.decode(dmi.DEVICE_REQUEST, request)["device"]
            self.devices[device["name"]] = device
        return b""

    def target(self):
        return self.devices["d"]["spec"]["properties"][0]["desired"]["value"]


@contextlib.asynccontextmanager
async def link_to(mapper, backoff=None):
    link = MapperLink(MapperInfo("m", "p", "/x"), rng=lambda: 0.5, connect=mapper.connect, backoff=backoff)
    task = asyncio.get_running_loop().create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.wait([task])


async def settled(link):
    async with asyncio.timeout(5):
        while link.pending:
            await asyncio.sleep(0.01)


async def test_an_older_call_that_arrives_after_the_registration_is_made_good():
    mapper = FakeMapper()
    async with link_to(mapper) as link:
        link.registered(link.info, {KEY: body("1")})

        def register_with_newer():
            link.want(KEY, body("3"))
            link.registered(link.info, {KEY: body("3")})
            mapper.devices["d"] = body("3")  # and then the older call takes effect

        mapper.during = register_with_newer
        link.want(KEY, body("2"))
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while not mapper.calls or mapper.devices.get("d") is None or mapper.target() != "3":
                await asyncio.sleep(0.01)
        await settled(link)
        assert mapper.target() == "3"
        assert mapper.calls == ["UpdateDevice", "UpdateDevice"]


async def test_a_device_that_left_during_the_call_that_gave_it_is_taken_away_again():
    mapper = FakeMapper()
    async with link_to(mapper) as link:

        def leave():
            link.drop(KEY)
            link.registered(link.info, {})

        mapper.during = leave
        link.want(KEY, body("2"))
        async with asyncio.timeout(5):
            while "RemoveDevice" not in mapper.calls:
                await asyncio.sleep(0.01)
        await settled(link)
        assert mapper.devices == {}


@pytest.mark.parametrize("seen_before", [True, False])
async def test_a_mapper_that_comes_back_is_told_at_once_and_not_after_the_back_off(seen_before):
    mapper = FakeMapper()
    mapper.away = True
    async with link_to(mapper, Backoff(3600, 3600)) as link:
        link.want(KEY, body("2"))
        async with asyncio.timeout(5):
            while not mapper.calls:
                await asyncio.sleep(0.01)
        mapper.away = False
        link.registered(link.info, {KEY: body("2")} if seen_before else {})
        link.want(KEY, body("3"))
        async with asyncio.timeout(5):
            while not mapper.devices:
                await asyncio.sleep(0.01)
        assert mapper.target() == "3"
