"""A whole cloudcore in the test's process, on real sockets with real TLS, over an API server in memory."""

import asyncio
import functools
import json
import ssl
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fakeapi import FakeApi  # noqa: E402

from edgehive.aio import pki  # noqa: E402
from edgehive.cloud.app import CloudCore  # noqa: E402
from edgehive.cloud.config import CloudCoreConfig  # noqa: E402
from edgehive.cloud.config_load import parse_config  # noqa: E402
from edgehive.kube.refs import SECRETS  # noqa: E402
from edgehive.wire.held import HOLDINGS_HEADER, holdings_message  # noqa: E402
from edgehive.wire.message import OK, Message, decode_message, encode_message  # noqa: E402


def make_config(folder: Path, **edgehive: Any) -> CloudCoreConfig:
    """A configuration with free ports and no local key files."""
    text = json.dumps(
        {
            "commonConfig": {"monitorServer": {"bindAddress": "127.0.0.1:0"}},
            "modules": {
                "cloudHub": {
                    "advertiseAddress": ["127.0.0.1"],
                    "tlsCAFile": str(folder / "ca.crt"),
                    "tlsCAKeyFile": str(folder / "ca.key"),
                    "tlsCertFile": str(folder / "server.crt"),
                    "tlsPrivateKeyFile": str(folder / "server.key"),
                    "websocket": {"address": "127.0.0.1", "port": 0},
                    "https": {"address": "127.0.0.1", "port": 0},
                }
            },
            "edgehive": {"delivery": {"recordInterval": 0.05}, **edgehive},
        }
    )
    return parse_config(text).config


class Edge:
    """One edge's connection: reads into a queue, answers what it is told to."""

    def __init__(self, node: str, socket: ClientConnection) -> None:
        self.node = node
        self.socket = socket
        self.received: list[Message] = []
        self.frames: list[bytes] = []
        self.auto_ack = True
        self._news = asyncio.Event()

    async def read(self) -> None:
        async for frame in self.socket:
            data = frame.encode() if isinstance(frame, str) else frame
            self.frames.append(data)
            message = decode_message(data)
            self.received.append(message)
            if self.auto_ack and not (message.operation == "response" and not message.resource_version):
                await self.ack(message)
            self._news.set()
        self._news.set()

    async def send(self, message: Message) -> None:
        await self.socket.send(encode_message(message), text=True)

    async def ack(self, message: Message) -> None:
        await self.send(message.reply(new_id=str(uuid.uuid4()), timestamp=1, content=OK))

    async def say(self, operation: str, resource: str, content: Any = None, **fields: str) -> Message:
        source, group = fields.get("source", "edged"), fields.get("group", "meta")
        message = Message(
            str(uuid.uuid4()),
            1,
            operation,
            resource,
            msgspec.json.encode(content),
            source=source,
            group=group,
        )
        await self.send(message)
        return message

    async def ask(self, operation: str, resource: str, content: Any = None, **fields: str) -> Message:
        request = await self.say(operation, resource, content, **fields)
        return await self.wait(lambda m: m.parent_id == request.id)

    async def keepalive(self) -> None:
        await self.say("keepalive", "node", "ping", source="websocket", group="resource")

    async def wait(self, wanted: Callable[[Message], bool], timeout: float = 5.0) -> Message:
        async with asyncio.timeout(timeout):
            while True:
                for message in self.received:
                    if wanted(message):
                        return message
                self._news.clear()
                await self._news.wait()

    async def until_closed(self, timeout: float = 5.0) -> None:
        async with asyncio.timeout(timeout):
            await self.socket.wait_closed()


class Lab:
    """A cloudcore, its API server, and edges."""

    def __init__(self, api: FakeApi, folder: Path, address: str = "") -> None:
        self.api = api
        self.address = address
        self.folder = folder
        self.core: CloudCore | None = None
        self._task: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()
        self._readers: list[asyncio.Task[None]] = []

    async def start(self, config: CloudCoreConfig | None = None) -> None:
        ready = asyncio.Event()
        self.core = CloudCore(
            config or make_config(self.folder),
            api=self.api,
            kubernetes_ca="-----BEGIN CERTIFICATE-----\n",
            on_ready=lambda _: ready.set(),
            address=self.address,
        )
        self._task = asyncio.get_running_loop().create_task(self.core.run())
        waiter = asyncio.get_running_loop().create_task(ready.wait())
        await asyncio.wait([self._task, waiter], timeout=5, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if self._task.done():
            await self._task
        assert ready.is_set(), "cloudcore did not become ready"

    def make_config(self, **edgehive: Any) -> CloudCoreConfig:
        return make_config(self.folder, **edgehive)

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def close(self) -> None:
        await self._stack.aclose()
        for reader in self._readers:
            reader.cancel()
        for reader in self._readers:
            with suppress(asyncio.CancelledError):
                await reader
        self._readers.clear()
        await self.stop()

    @property
    def ports(self) -> Any:
        assert self.core is not None
        return self.core.ports

    def ca(self) -> pki.KeyPair:
        import base64

        data = self.api.find(SECRETS, "kubeedge", "casecret")["data"]
        return pki.load_pair(base64.b64decode(data["cadata"]), base64.b64decode(data["cakeydata"]))

    def token(self) -> str:
        import base64

        return base64.b64decode(
            self.api.find(SECRETS, "kubeedge", "tokensecret")["data"]["tokendata"]
        ).decode()

    def client_tls(
        self, common_name: str = "", organization: str = "system:nodes", ca: Any = None
    ) -> ssl.SSLContext:
        import datetime

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.ca().cert_pem.decode())
        if common_name:
            pair = pki.issue(
                ca or self.ca(),
                common_name=common_name,
                organizations=(organization,),
                now=datetime.datetime.now(datetime.UTC),
                client=True,
            )
            path = self.folder / f"{uuid.uuid4()}.pem"
            path.write_bytes(pair.cert_pem + pair.key_pem)
            context.load_cert_chain(path)
        return context

    async def dial(self, node: str, *, tls: ssl.SSLContext | None = None, **headers: str) -> ClientConnection:
        names = {"Node_id": node, "Project_id": "p", "Connectionuse": "msg"} | headers
        return await connect(
            f"wss://127.0.0.1:{self.ports.websocket}/p/{node}/events",
            ssl=tls or self.client_tls(f"system:node:{node}"),
            additional_headers=names,
            compression=None,
            ping_interval=None,
            max_size=None,
            close_timeout=1,
        )

    async def edge(self, node: str, *, holds: Any = None, **kwargs: Any) -> Edge:
        """Connect; one that is given what it `holds`, as (resource, uid, version), says so first of all."""
        if holds is not None:
            kwargs[HOLDINGS_HEADER] = "1"
        socket = await self.dial(node, **kwargs)
        self._stack.push_async_callback(socket.close)
        edge = Edge(node, socket)
        self._readers.append(asyncio.get_running_loop().create_task(_quietly(edge.read())))
        await edge.keepalive()
        if holds is not None:
            assert socket.response is not None
            assert socket.response.headers[HOLDINGS_HEADER] == "1"
            await edge.send(holdings_message(holds, stamp=lambda: (str(uuid.uuid4()), 1)))
        return edge


async def _quietly(work: Awaitable[None]) -> None:
    from websockets.exceptions import ConnectionClosed

    with suppress(ConnectionClosed):
        await work


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stop a test's cloudcore as part of the test, so that what it leaves running counts as left behind."""
    if (
        isinstance(item, pytest.Function)
        and "lab" in item.fixturenames
        and not hasattr(item.obj, "closes_lab")
    ):
        test = item.obj

        @functools.wraps(test)
        async def run(*args: Any, **kwargs: Any) -> None:
            await test(*args, **kwargs)
            for name in ("other", "lab"):
                if name in kwargs:
                    await kwargs[name].close()

        run.closes_lab = True  # type: ignore[attr-defined]
        item.obj = run


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
async def lab(api: FakeApi, tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(api, tmp_path)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def new_lab() -> Callable[[FakeApi, Path], Lab]:
    return Lab
