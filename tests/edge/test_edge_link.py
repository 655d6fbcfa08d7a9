"""EdgeHub against a real TLS WebSocket server: the link, what breaks it, and how it comes back."""

import asyncio
import json
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec

from edgehive.beehive.hive import Delivery, Module
from edgehive.edge.config import EdgeCoreConfig
from edgehive.edge.metaclient import Failed, Ok
from edgehive.wire.message import Message
from tests.support.edge_hub_lab import POD, pod, running, until


async def test_requests_fail_when_the_link_breaks_and_work_after_it_came_back(
    cloud: Any, config: EdgeCoreConfig
) -> None:
    async with running(config) as edge:
        await edge.linked()
        cloud.silent = True
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(edge.meta.configmap("default", "app"))
            await cloud.message("query", "default/configmap/app")
            cloud.cut()
        reply = asked.result()
        assert isinstance(reply, Failed)
        assert reply.status.retryable
        cloud.silent = False
        await edge.linked()
        assert len(cloud.connections) == 2
        cloud.objects["default/configmap/app"] = {"metadata": {"name": "app"}}
        assert isinstance(await edge.meta.configmap("default", "app"), Ok)


async def test_a_silent_cloud_is_noticed_and_left(cloud: Any, config: EdgeCoreConfig) -> None:
    async with running(config, ping=0.05, dead_after=0.2) as edge:
        await edge.linked()
        cloud.connections[-1].transport.pause_reading()  # half open: TCP stands, nobody is there
        await edge.linked(False)
        await edge.linked(True)
        assert len(cloud.connections) == 2
        cloud.connections[0].transport.abort()


async def test_a_renewed_certificate_is_used_without_losing_a_message(
    cloud: Any, config: EdgeCoreConfig
) -> None:
    async with running(config) as edge:
        await edge.linked()
        await cloud.ack_of(await cloud.push("insert", POD, pod(5), version=5))
        cloud.objects[POD] = pod(6)
        cloud.silent = True
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(
                edge.meta.patch_pod_status("default", "web", "u1", b'{"status":{"a":1}}')
            )
            await cloud.message("patch", "default/podpatch/web")
            cloud.silent = False
            edge.hub.reconnect("a new certificate")
            await edge.linked(False)
            await edge.linked(True)
        assert isinstance(asked.result(), Ok)
        assert len(cloud.connections) == 2
        assert len(edge.outbox) == 0


async def test_a_status_whose_place_a_newer_one_takes_holds_up_nobody(
    cloud: Any, config: EdgeCoreConfig
) -> None:
    async with running(config) as edge:
        await edge.linked()
        await cloud.ack_of(await cloud.push("insert", POD, pod(5), version=5))
        cloud.silent = True

        def report(number: int) -> Coroutine[Any, Any, Any]:
            return edge.meta.patch_pod_status("default", "web", "u1", b'{"status":{"a":%d}}' % number)

        async with asyncio.TaskGroup() as group:
            first = group.create_task(report(1))
            await cloud.message("patch", "default/podpatch/web")
            second = group.create_task(report(2))
            await until(lambda: len(edge.outbox) == 2)
            third = group.create_task(report(3))
            superseded = await second
            assert isinstance(superseded, Failed)
            assert superseded.status.retryable
            assert not first.done()
            cloud.objects[POD] = pod(6)
            cloud.silent = False
            cloud.cut()
        assert isinstance(first.result(), Ok)
        assert isinstance(third.result(), Ok)


async def test_the_other_modules_hear_of_the_link_in_order(cloud: Any, config: EdgeCoreConfig) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def receive(delivery: Delivery[Message]) -> None:
        what = delivery.message
        await heard.put(what.content.decode() if what.operation == "connect" else what.resource)

    edge_modules = [
        Module("twin", receive, frozenset({"twin"})),
        Module("eventbus", receive),
        Module("taskmanager", receive),
    ]
    async with running(config) as edge:
        for module in edge_modules:
            edge.hive.add(module)
        await edge.linked()
        assert await heard.get() == '"cloud_connected"'
        await cloud.push("update", "membership", {}, group="twin", source="devicecontroller")
        assert await heard.get() == "membership"
        await cloud.push("publish", "topic/a", {}, group="user", source="router_eventbus")
        assert await heard.get() == "topic/a"
        await cloud.push("publish", "topic/b", {}, group="user", source="stranger")
        await cloud.push("x", "topic/c", {}, group="no-such-group")
        await cloud.stop()
        assert await heard.get() == '"cloud_disconnected"'


async def test_a_malformed_frame_closes_the_link_and_it_comes_back(
    cloud: Any, config: EdgeCoreConfig
) -> None:
    async with running(config) as edge:
        await edge.linked()
        await cloud.connections[-1].send('{"header":{"msg_id":1},"route":{}}')
        await edge.linked(False)
        await edge.linked(True)


async def test_large_messages_pass_both_ways(cloud: Any, config: EdgeCoreConfig) -> None:
    async with running(config) as edge:
        await edge.linked()
        big = pod(5, annotations={"x": "ü" * 1_000_000})
        await cloud.ack_of(await cloud.push("insert", POD, big, version=5))
        patch = msgspec.json.encode({"status": {"message": "y" * 2_000_000}})
        cloud.objects[POD] = pod(6)
        assert isinstance(await edge.meta.patch_pod_status("default", "web", "u1", patch), Ok)


async def test_a_cloud_with_another_ca_is_not_trusted(
    cloud: Any, config: EdgeCoreConfig, tmp_path: Path
) -> None:
    other = type(cloud)(tmp_path / "other")
    await other.start()
    try:
        address = f"127.0.0.1:{other.port}"
        websocket = msgspec.structs.replace(config.modules.edge_hub.websocket, server=address)
        hub = msgspec.structs.replace(config.modules.edge_hub, websocket=websocket)
        modules = msgspec.structs.replace(config.modules, edge_hub=hub)
        async with running(msgspec.structs.replace(config, modules=modules)) as edge:
            await until(lambda: "not acceptable" in edge.hub.last_problem)
            assert not edge.hub.connected
            assert other.connections == []
    finally:
        await other.stop()


async def test_receivers_that_do_not_keep_up_stop_the_reading(cloud: Any, config: EdgeCoreConfig) -> None:
    gate, done, got = asyncio.Event(), asyncio.Event(), list[str]()

    async def slow(delivery: Delivery[Message]) -> None:
        await gate.wait()
        got.append(delivery.message.resource)
        if len(got) == 3001:
            done.set()

    async with running(config, ping=0.2, dead_after=1.0) as edge:
        edge.hive.add(Module("twin", slow, frozenset({"twin"}), capacity=1))
        await edge.linked()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_flood(cloud, 3000))
            await until(lambda: edge.hub.paused)
            assert len(edge.hub._inbound) < 400
            await asyncio.sleep(1.2)
            assert edge.hub.connected, "silence that we cause ourselves is not the cloud's"
            gate.set()
            async with asyncio.timeout(10):
                await done.wait()
        assert sending.done()
        assert got == ["node/connection", *(f"n/{n}" for n in range(3000))]
        assert not edge.hub.paused


async def test_a_cloud_that_takes_no_data_is_left_and_nothing_kept_is_lost(
    cloud: Any, config: EdgeCoreConfig
) -> None:
    async with running(config, write_deadline=1.0) as edge:
        await edge.linked()
        cloud.connections[0].transport.pause_reading()
        # small kernel buffers, so that little is enough to fill them
        edge.hub._connection._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, 4096
        )
        cloud_socket = cloud.connections[0].transport.get_extra_info("socket")
        cloud_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        patch = msgspec.json.encode({"status": {"message": "y" * 500_000}})
        async with asyncio.TaskGroup() as group:
            for n in range(12):
                group.create_task(edge.meta.patch_pod_status("default", f"p{n}", "u", patch))
            await edge.linked(False)
            assert "takes no more data" in edge.hub.last_problem
            cloud.connections[0].transport.abort()
            await edge.linked(True)
        assert len(edge.outbox) == 0
        assert {m.resource for m in cloud.received if m.operation == "patch"} == {
            f"default/podpatch/p{n}" for n in range(12)
        }


async def test_the_cloud_going_away_politely_is_understood(cloud: Any, config: EdgeCoreConfig) -> None:
    async with running(config) as edge:
        await edge.linked()
        await cloud.connections[0].close(1001, "maintenance")
        await edge.linked(False)
        assert edge.hub.last_problem == "closed by the cloud (1001 maintenance)"
        await edge.linked(True)


async def test_keepalive_comes_at_once_and_every_heartbeat(cloud: Any, config: EdgeCoreConfig) -> None:
    async with running(config, heartbeat=0.05) as edge:
        await edge.linked()
        first = await cloud.message("keepalive", "node")
        assert (first.source, first.group, first.content) == ("websocket", "resource", b'"ping"')
        await cloud.message("keepalive", "node", 3)


async def _flood(cloud: Any, count: int) -> None:
    for n in range(count):
        await cloud.push("update", f"n/{n}", "x" * 2000, group="twin")


async def test_it_says_when_the_cloud_is_there(cloud: Any, config: EdgeCoreConfig) -> None:
    connected: asyncio.Queue[bool] = asyncio.Queue()
    async with running(config) as edge:
        edge.meta.subscribe_connection(lambda: connected.put_nowait(edge.meta.connected))
        await edge.linked()
        for _ in range(2):
            async with asyncio.timeout(10):
                assert await connected.get()
            cloud.cut()
    assert connected.qsize() <= 1, "not when it has gone"


async def test_it_says_what_it_holds_to_a_cloud_that_wants_to_hear_it(
    cloud: Any, config: EdgeCoreConfig
) -> None:
    async with running(config) as edge:
        await edge.linked()
        await cloud.ack_of(await cloud.push("insert", POD, pod(5), version=5))
        assert not cloud.find("holdings", "node/holdings"), "this cloud has not asked"
        cloud.wants_holdings = True
        # The last of the old connection is still on its way to the database when the link is cut.
        await cloud.push("update", POD, pod(6), version=6)
        cloud.cut()
        await edge.linked()
        told = await cloud.message("holdings", "node/holdings")
        first = cloud.received[cloud.received.index(told) - 1]
        assert first.operation == "keepalive"
        (held,) = json.loads(told.content)
        assert held in ([POD, "u1", "5"], [POD, "u1", "6"])
        assert edge.store.get(POD).value == json.dumps(pod(int(held[2]))).encode()
