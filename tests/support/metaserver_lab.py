"""MetaServer and DynamicController together, over an embedded API server; the link is a pair of calls."""

import asyncio
import contextlib
import functools
import inspect
import io
import itertools
import json
import time
from pathlib import Path

import aiohttp
import msgspec

from edgehive.aio.kubeauth import load_kubeconfig
from edgehive.aio.kubeclient import KubeClient, object_path
from edgehive.apiserver.app import ApiServer, ApiServerOptions
from edgehive.cloud.dynamic import DynamicController
from edgehive.cloud.dynamic_watch import Watches
from edgehive.cloud.impersonation import NOBODY
from edgehive.edge.metaserver import MetaServer
from edgehive.edge.metaserver_listen import Listening
from edgehive.edge.metaserver_queue import WriteQueue
from edgehive.edge.store import EdgeStore
from edgehive.kit.errors import Unreachable
from edgehive.kube.api import WriteOptions
from edgehive.kube.refs import CONFIGMAPS
from edgehive.store.log import MemoryLog
from edgehive.wire.message import OK, Message

DEFAULT = WriteOptions(namespace="default")


class Link:
    """The link of both ends: up, down, or up and silent."""

    def __init__(self) -> None:
        self.connected = True
        self.silent = False
        self.callbacks = []
        self.waiting = {}
        self.down = None
        self.inject = None
        self.requests = []
        self.numbers = itertools.count()

    def stamp(self):
        return f"m{next(self.numbers)}", 1

    async def request(self, message: Message, timeout: float = 60.0) -> Message:
        self.requests.append(message)
        if not self.connected:
            raise Unreachable("not connected")
        answer = self.waiting[message.id] = asyncio.get_running_loop().create_future()
        if not self.silent:
            self.down.receive("edge-1", message)
        return await answer

    def on_connection(self, callback) -> None:
        self.callbacks.append(callback)

    def from_cloud(self, _node, outbound) -> None:
        message = outbound.message
        if not self.connected or self.silent:
            return
        waiting = self.waiting.pop(message.parent_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)
        elif not message.parent_id and message.content != OK:
            self.inject(message)

    def switch(self, up: bool) -> None:
        self.connected = up
        if not up:
            for waiting in self.waiting.values():
                if not waiting.done():
                    waiting.set_exception(Unreachable("the link was lost"))
            self.waiting.clear()
        for callback in self.callbacks:
            callback(up)


class Lab:
    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.link = Link()
        self.api: KubeClient
        self.server: MetaServer
        self.watches: Watches
        self.store: EdgeStore | None = None
        self.port = 0
        self.offline_writes: list[str] = []
        self.reported: list[dict] = []

    async def cloud(
        self, stack: contextlib.AsyncExitStack, group: asyncio.TaskGroup, last: contextlib.AsyncExitStack
    ) -> None:
        server = ApiServer(ApiServerOptions(directory=self.path / "cp", port=0), log_=MemoryLog())
        await server.start()
        stack.callback(group.create_task(server.run()).cancel)
        (self.path / "kubeconfig").write_text(server.kubeconfig())
        self.api = await last.enter_async_context(KubeClient(load_kubeconfig(self.path / "kubeconfig")))
        self.cloudcore(stack, group)

    def cloudcore(self, stack: contextlib.AsyncExitStack, group: asyncio.TaskGroup) -> None:
        """A cloudcore that knows nothing of an earlier one."""
        self.watches = Watches(
            api=self.api,
            shared=dict,
            allowed=self.allowed,
            send=self.link.from_cloud,
            connected=lambda _: self.link.connected,
            stamp=self.link.stamp,
        )
        self.cloudcore_task = group.create_task(self.watches.run())
        stack.callback(self.cloudcore_task.cancel)
        self.link.down = DynamicController(
            api=self.api,
            path=object_path,
            watches=self.watches,
            answer=self.link.from_cloud,
            stamp=self.link.stamp,
            impersonation=NOBODY,
            start=group.create_task,
        )

    async def allowed(self, application) -> None:
        return None

    def edge(self, stack: contextlib.AsyncExitStack, group: asyncio.TaskGroup) -> None:
        self.link.callbacks.clear()
        self.store = EdgeStore(self.path / "edge.db")
        self.server = MetaServer(
            listening=Listening((("127.0.0.1", self.port),)),
            node="edge-1",
            store=self.store,
            link=self.link,
            stamp=self.link.stamp,
            runtime=None,
            pod=lambda namespace, name: None,
            queue=self.queue if self.offline_writes else None,
        )
        self.link.inject = self.server.inject
        self.task = group.create_task(self.server.run())
        stack.callback(self.close_store)
        stack.callback(self.task.cancel)

    def queue(self, owner: MetaServer) -> WriteQueue:
        """The queue of writes, where a test asks for one."""
        return WriteQueue(
            store=owner.replica._store,
            resources=self.offline_writes,
            ask=owner.follower.ask,
            delivered=lambda gvr, raw: owner.replica.put(gvr, [raw]),
            report=self.reported.append,
            wall=time.time,
        )

    def close_store(self) -> None:
        store, self.store = self.store, None
        if store is not None:
            store.close()

    async def restart_edge(self) -> None:
        """End the edge's part and begin it anew, on the same port and database."""
        await self.url()
        self.port = self.server.port
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        self.close_store()
        self.edge(self.stack, self.group)

    def restart_cloudcore(self) -> None:
        """Lose everything that cloudcore has in memory."""
        self.link.switch(False)
        self.cloudcore_task.cancel()
        self.cloudcore(self.stack, self.group)

    async def is_watched(self) -> bool:
        """Whether a client watches now."""
        return self.server._face is not None and self.server._face.registry.watchers > 0

    async def url(self) -> str:
        await self.server.listening.wait()
        return f"http://127.0.0.1:{self.server.port}"

    async def ask(self, path: str, method: str = "GET", body=None, **headers):
        url = await self.url()
        data = io.BytesIO(msgspec.json.encode(body)) if body is not None else None
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, url + path, data=data, headers={"Content-Type": "application/json"} | headers
            ) as answer,
        ):
            return answer.status, json.loads(await answer.read() or b"null"), answer.headers

    async def put(self, name: str, **data: str) -> dict:
        body = {"metadata": {"name": name}, "data": data}
        return json.loads(await self.api.create(CONFIGMAPS, msgspec.json.encode(body), DEFAULT))


@contextlib.asynccontextmanager
async def laboratory(tmp_path):
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        stack_of_test = await stack.enter_async_context(contextlib.AsyncExitStack())
        lab = Lab(tmp_path)
        await lab.cloud(stack_of_test, group, stack)
        lab.edge(stack_of_test, group)
        lab.group, lab.stack = group, stack_of_test
        yield lab
        await stack_of_test.aclose()


def with_lab(test):
    """Everything of the laboratory begins and ends within the test."""

    @functools.wraps(test)
    async def run(tmp_path, **parameters):
        async with laboratory(tmp_path) as lab:
            await test(lab, **parameters)

    signature = inspect.signature(test)
    rest = [p for name, p in signature.parameters.items() if name != "lab"]
    place = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = signature.replace(parameters=[place, *rest])
    return run


async def until(condition):
    """Wait until an asynchronous `condition` holds."""
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.02)
