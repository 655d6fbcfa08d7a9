"""The HTTP mapper's driver against aiohttp's own web server."""

import asyncio
import json

import pytest
from aiohttp import web

from edgehive.kit.errors import EdgehiveError
from edgehive.mapper.driver import DeviceError
from edgehive.mapper.http import HttpDriver
from edgehive.mapper.model import Device, Property


class Box:
    """A device with a JSON face and a plain one; asks for a token."""

    def __init__(self):
        self.state = {"sensors": [{"temp": 21.5}], "target": 20}
        self.plain = "17"
        self.seen = []
        self.over = asyncio.Event()

    async def run(self):
        app = web.Application()
        app.router.add_get("/api/state", self.get)
        app.router.add_put("/api/state", self.put)
        app.router.add_get("/plain", self.text)
        app.router.add_post("/plain", self.set_text)
        app.router.add_get("/slow", self.slow)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return self.runner.addresses[0][1]

    async def get(self, request):
        if request.headers.get("Authorization") != "Bearer t0ken":
            return web.Response(status=401)
        return web.json_response(self.state)

    async def put(self, request):
        self.seen.append(request.content_type)
        self.state.update(await request.json())
        return web.Response(status=204)

    async def text(self, request):
        return web.Response(text=f" {self.plain}\n")

    async def set_text(self, request):
        self.seen.append(request.content_type)
        self.plain = await request.text()
        return web.Response()

    async def slow(self, request):
        await self.over.wait()
        return web.Response()


async def test_json_and_plain_values_are_read_and_written():
    box = Box()
    port = await box.run()
    url = f"http://127.0.0.1:{port}"
    driver = HttpDriver(Device("default", "d", config={"url": url, "token": "t0ken", "timeout": 0.3}))
    await driver.connect()
    try:
        temp = Property("temp", type="FLOAT", visitor={"path": "api/state", "pointer": "/sensors/0/temp"})
        assert await driver.read(temp) == 21.5
        whole = Property("all", visitor={"path": "api/state", "pointer": "/sensors"})
        assert json.loads(await driver.read(whole)) == [{"temp": 21.5}]
        target = Property(
            "target",
            type="INT",
            visitor={"path": "api/state", "pointer": "/target", "writeTemplate": '{"target": $value}'},
        )
        await driver.write(target, 24)
        assert await driver.read(target) == 24
        name = Property("name", visitor={"path": "/api/state", "writeTemplate": '{"name": $value}'})
        await driver.write(name, 'the "big" room')
        assert box.state["name"] == 'the "big" room'
        plain = Property("plain", type="INT", visitor={"path": "plain", "writeMethod": "post"})
        assert plain.parse(await driver.read(plain)) == 17
        await driver.write(plain, 18)
        assert await driver.read(plain) == 18
        assert box.seen == ["application/json"] * 3

        with pytest.raises(EdgehiveError, match="nothing at /x"):
            await driver.read(Property("x", visitor={"path": "api/state", "pointer": "/x"}))
        with pytest.raises(DeviceError, match="404"):
            await driver.read(Property("x", visitor={"path": "nowhere"}))
        with pytest.raises(DeviceError, match="Timeout"):
            await driver.read(Property("x", visitor={"path": "slow"}))
    finally:
        box.over.set()
        await driver.close()
        await box.runner.cleanup()
    with pytest.raises(DeviceError, match="not connected"):
        await driver.read(temp)


async def test_a_wrong_token_is_an_error_of_the_device():
    box = Box()
    port = await box.run()
    driver = HttpDriver(Device("default", "d", config={"url": f"http://127.0.0.1:{port}", "token": "no"}))
    await driver.connect()
    try:
        with pytest.raises(DeviceError, match="401"):
            await driver.read(Property("t", visitor={"path": "api/state"}))
    finally:
        await driver.close()
        await box.runner.cleanup()
    with pytest.raises(DeviceError, match="http://"):
        await HttpDriver(Device("default", "d", config={"url": "ftp://x"})).connect()
