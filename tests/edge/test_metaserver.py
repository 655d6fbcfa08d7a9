"""MetaServer and DynamicController together, over an embedded API server; the link is a pair of calls."""

import asyncio
import contextlib
import io
import itertools
import json
import shutil
from pathlib import Path

import aiohttp
import msgspec
import pytest

from edgehive.aio.kubeauth import load_kubeconfig
from edgehive.aio.kubeclient import KubeClient, object_path
from edgehive.apiserver.app import ApiServer, ApiServerOptions
from edgehive.cloud.dynamic import DynamicController
from edgehive.cloud.dynamic_watch import Watches
from edgehive.edge.config import EdgeCoreConfig, MetaManager, Modules
from edgehive.edge.config import MetaServer as MetaServerConfig
from edgehive.edge.metaserver import MetaServer, check_config
from edgehive.edge.store import EdgeStore
from edgehive.kit.errors import Unreachable, UserError
from edgehive.kube.api import WriteOptions
from edgehive.kube.refs import CONFIGMAPS, GVR
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
                waiting.cancel()
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

    async def cloud(self, stack: contextlib.AsyncExitStack, group: asyncio.TaskGroup) -> None:
        server = ApiServer(ApiServerOptions(directory=self.path / "cp", port=0), log_=MemoryLog())
        await server.start()
        stack.callback(group.create_task(server.run()).cancel)
        (self.path / "kubeconfig").write_text(server.kubeconfig())
        self.api = await stack.enter_async_context(KubeClient(load_kubeconfig(self.path / "kubeconfig")))
        self.watches = Watches(
            api=self.api,
            shared=dict,
            allowed=self.allowed,
            send=self.link.from_cloud,
            connected=lambda _: self.link.connected,
            stamp=self.link.stamp,
        )
        stack.callback(group.create_task(self.watches.run()).cancel)
        self.link.down = DynamicController(
            api=self.api,
            path=object_path,
            watches=self.watches,
            answer=self.link.from_cloud,
            stamp=self.link.stamp,
            impersonate=False,
            start=group.create_task,
        )

    async def allowed(self, application) -> None:
        return None

    def edge(self, stack: contextlib.AsyncExitStack, group: asyncio.TaskGroup) -> None:
        self.link.callbacks.clear()
        self.store = EdgeStore(self.path / "edge.db")
        self.server = MetaServer(
            address=("127.0.0.1", 0),
            node="edge-1",
            store=self.store,
            link=self.link,
            stamp=self.link.stamp,
            runtime=None,
            pod=lambda namespace, name: None,
        )
        self.link.inject = self.server.inject
        self.task = group.create_task(self.server.run())
        stack.callback(self.close_store)
        stack.callback(self.task.cancel)

    def close_store(self) -> None:
        store, self.store = self.store, None
        if store is not None:
            store.close()

    async def url(self) -> str:
        while not self.server.port:
            await asyncio.sleep(0.01)
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
        await lab.cloud(stack_of_test, group)
        lab.edge(stack_of_test, group)
        lab.group, lab.stack = group, stack_of_test
        yield lab
        await stack_of_test.aclose()


def with_lab(test):
    """Everything of the laboratory begins and ends within the test."""

    async def run(tmp_path):
        async with laboratory(tmp_path) as lab:
            await test(lab)

    run.__name__ = test.__name__
    return run


MAPS = "/api/v1/namespaces/default/configmaps"


def names(found):
    return sorted(item["metadata"]["name"] for item in found["items"])


async def until(condition):
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.02)


@with_lab
async def test_reads_are_live_then_local_then_live_again(lab):
    await lab.put("a", x="1")
    status, found, headers = await lab.ask(MAPS)
    assert (status, headers["x-edgehive-freshness"]) == (200, "live")
    assert names(found) == ["a", "kube-root-ca.crt"]
    asked = len(lab.link.requests)
    await lab.ask(MAPS)
    assert len(lab.link.requests) == asked
    lab.link.switch(False)
    await lab.put("b")
    status, found, headers = await lab.ask(MAPS)
    assert (status, names(found)) == (200, ["a", "kube-root-ca.crt"])
    assert headers["x-edgehive-freshness"].startswith("as-of=20")
    assert "not reachable" in headers["warning"]
    status, failure, _ = await lab.ask("/api/v1/namespaces/default/services")
    assert (status, failure["reason"]) == (503, "ServiceUnavailable")
    await lab.api.delete(CONFIGMAPS, "a", DEFAULT)
    lab.link.switch(True)

    async def renewed():
        return names((await lab.ask(MAPS))[1]) == ["b", "kube-root-ca.crt"]

    await until(renewed)


@with_lab
async def test_a_silent_cloud_is_waited_for_once(lab):
    await lab.put("a")
    assert (await lab.ask(f"{MAPS}/a"))[0] == 200
    lab.link.silent = True
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await lab.ask(f"{MAPS}/a"))[2]["x-edgehive-freshness"] == "incomplete"
    assert 1.5 < loop.time() - began < 4
    began = loop.time()
    assert (await lab.ask(f"{MAPS}/a"))[0] == 200
    assert loop.time() - began < 1


@with_lab
async def test_a_watch_lives_through_a_cut_and_misses_nothing(lab):
    _, found, _ = await lab.ask(MAPS)
    state = {i["metadata"]["name"]: i["metadata"]["resourceVersion"] for i in found["items"]}
    url = await lab.url()
    seen = []
    path = f"{url}{MAPS}?watch=true&resourceVersion={found['metadata']['resourceVersion']}"

    async def watch():
        async with aiohttp.ClientSession() as session, session.get(path) as answer:
            async for line in answer.content:
                seen.append(json.loads(line))  # noqa: PERF401

    task = lab.group.create_task(watch())
    await lab.put("a", x="1")
    await until(lambda: _true(len(seen) >= 1))
    lab.link.switch(False)
    await lab.put("b")
    await lab.api.delete(CONFIGMAPS, "a", DEFAULT)
    lab.link.switch(True)

    async def equal():
        folded = dict(state)
        for event in seen:
            meta = event["object"]["metadata"]
            folded[meta["name"]] = meta["resourceVersion"]
            if event["type"] == "DELETED":
                del folded[meta["name"]]
        now = (await lab.ask(MAPS))[1]["items"]
        here = {i["metadata"]["name"]: i["metadata"]["resourceVersion"] for i in now}
        return folded == here and "b" in folded and "a" not in folded

    await until(equal)
    kinds = [(e["type"], e["object"]["metadata"]["name"]) for e in seen]
    assert sorted(kinds) == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]
    task.cancel()


async def _true(value):
    return value


@with_lab
async def test_writes_are_the_cloud_s_and_refused_without_it(lab):
    status, made, _ = await lab.ask(MAPS, "POST", {"metadata": {"name": "w"}, "data": {"k": "1"}})
    assert (status, made["data"]) == (201, {"k": "1"})
    assert (await lab.ask(MAPS, "POST", {"metadata": {"name": "w"}}))[0] == 409
    merge = {"Content-Type": "application/merge-patch+json"}
    assert (await lab.ask(f"{MAPS}/w", "PATCH", {"data": {"k": "2"}}, **merge))[1]["data"] == {"k": "2"}
    stale = made | {"data": {"k": "3"}}
    assert (await lab.ask(f"{MAPS}/w", "PUT", stale))[0] == 409
    assert (await lab.ask(f"{MAPS}/w?dryRun=All", "DELETE"))[0] == 200
    assert json.loads(await lab.api.get(CONFIGMAPS, "w", DEFAULT))["data"] == {"k": "2"}
    lab.link.switch(False)
    status, failure, _ = await lab.ask(f"{MAPS}/w", "DELETE")
    assert (status, failure["reason"]) == (503, "ServiceUnavailable")
    lab.link.switch(True)
    assert (await lab.ask(f"{MAPS}/w", "DELETE"))[0] == 200
    assert (await lab.ask(f"{MAPS}/w"))[0] == 404


@with_lab
async def test_what_names_nothing_is_refused_and_unknown_kinds_are_404(lab):
    for path in ("/api/v1/namespaces/..%2fx/pods", f"{MAPS}/%2e%2e", f"{MAPS}/a%2fb", "/api/v1/nodes/a%25b"):
        url = await lab.url()
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(head.encode())
        assert (await reader.read()).split()[1] == b"400"
        writer.close()
    assert (await lab.ask("/apis/none.example.com/v1/things"))[0] == 404
    assert (await lab.ask("/api/v1/nothings"))[0] == 404
    assert (await lab.ask(MAPS, Origin="http://evil.example"))[0] == 403
    assert (await lab.ask(MAPS, "POST", {"x": "y" * (4 << 20)}))[0] == 413


@with_lab
async def test_an_object_that_leaves_a_selection_is_deleted_at_the_edge(lab):
    made = await lab.put("s")
    made["metadata"]["labels"] = {"on": "1"}
    await lab.api.update(CONFIGMAPS, "s", msgspec.json.encode(made), DEFAULT)
    path = f"{MAPS}?labelSelector=on%3D1"
    assert names((await lab.ask(path))[1]) == ["s"]
    await lab.api.patch(
        CONFIGMAPS, "s", b'{"metadata":{"labels":null}}', "application/merge-patch+json", DEFAULT
    )

    async def gone():
        return names((await lab.ask(path))[1]) == []

    await until(gone)
    assert lab.server.replica.get.__self__.count()
    assert len(lab.watches) == lab.watches.resources == 1


@with_lab
async def test_discovery_and_tables_are_known_offline_after_a_restart(lab):
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    await lab.ask("/api/v1")
    await lab.ask("/api/v1/namespaces", **table)
    lab.link.switch(False)
    lab.task.cancel()
    lab.close_store()
    lab.edge(lab.stack, lab.group)
    status, found, headers = await lab.ask("/api/v1/namespaces", **table)
    assert (status, found["kind"]) == (200, "Table")
    assert [c["name"] for c in found["columnDefinitions"]] == ["Name", "Status", "Age"]
    assert headers["x-edgehive-freshness"].startswith("as-of=")
    assert (await lab.ask("/api/v1"))[1]["kind"] == "APIResourceList"


def config(server="127.0.0.1:10550", **gates):
    meta = MetaManager(meta_server=MetaServerConfig(enable=True, server=server))
    return EdgeCoreConfig(modules=Modules(meta_manager=meta), feature_gates=gates)


def test_only_loopback_is_served_and_the_gate_is_refused():
    assert check_config(config()) == ("127.0.0.1", 10550)
    for wrong in (config("0.0.0.0:10550"), config("169.254.30.10:10550"), config(requireAuthorization=True)):
        with pytest.raises(UserError):
            check_config(wrong)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
@with_lab
async def test_kubectl(lab):
    url = await lab.url()

    async def kubectl(*args):
        command = ["kubectl", "-s", url, "--cache-dir", str(lab.path / "cache"), *args]
        child = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"KUBECONFIG": "/dev/null"},
        )
        out, errors = await child.communicate()
        return child.returncode, out.decode(), errors.decode()

    assert (await kubectl("create", "configmap", "k", "--from-literal=a=1"))[0] == 0
    assert "k " in (await kubectl("get", "cm", "-n", "default"))[1]
    lab.link.switch(False)
    code, out, errors = await kubectl("get", "cm", "-n", "default")
    assert code == 0
    assert "k " in out
    assert "not reachable" in errors
    code, _, errors = await kubectl("delete", "cm", "k", "-n", "default")
    assert code == 1
    assert "ServiceUnavailable" in errors


@with_lab
async def test_a_kind_nobody_serves_cannot_be_watched(lab):
    from edgehive.kube.status import ApiStatus
    from edgehive.wire.application import WATCH, Application, ResourceKey

    watch = Application(str(ResourceKey(GVR("x.io", "v1", "things"))), WATCH, "edge-1", b"{}").identified()
    with pytest.raises(ApiStatus) as caught:
        await lab.watches.add(watch)
    assert caught.value.code == 404
    failed = await lab.watches.sync("edge-1", {watch.id: watch})
    assert [a.status for a in failed] == ["Rejected"]
