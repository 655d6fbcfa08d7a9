"""Edges that misbehave, over real TLS: the others are not disturbed, memory stays bounded, the log stays readable."""

import asyncio
import json
import time
import uuid
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bench.hub_lab import resident
from edgehive.kube.api import MERGE_PATCH, WriteOptions
from edgehive.kube.refs import CONFIGMAPS

pytestmark = pytest.mark.e2e

BAD = "n-00"


async def dial(cluster: Any, name: str = BAD, claim: str = BAD) -> ClientConnection:
    certificates = cluster.certificates()
    await certificates.obtain([name])
    return await connect(
        f"wss://127.0.0.1:{cluster.lab.ws}/e632aba927ea4ac2b575ec1603d56f10/{claim}/events",
        ssl=certificates.context(name),
        additional_headers={"Node_id": claim, "Project_id": "p", "Connectionuse": "msg"},
        max_size=None,
        close_timeout=1,
    )


def frame(operation: str, resource: str, content: Any = None, *, parent: str = "", **route: str) -> str:
    header = {"msg_id": str(uuid.uuid4()), "timestamp": 1, "parent_msg_id": parent}
    fields = {"source": "edged", "group": "meta", "operation": operation, "resource": resource, **route}
    return json.dumps({"header": header, "route": fields, "content": content})


def logged(cluster: Any, text: str) -> int:
    return (cluster.lab.root / "cloudcore.log").read_text().count(text)


class Others:
    """Eleven well-behaved nodes, and how long a change takes to reach them all."""

    def __init__(self, cluster: Any, fleet: Any) -> None:
        self._cluster = cluster
        self._fleet = fleet
        self._body = WriteOptions(namespace="default")

    async def latency(self) -> float:
        cluster = self._cluster
        begun = time.monotonic()
        patch = msgspec.json.encode({"data": {"now": str(begun)}})
        raw = await cluster.lab.api.patch(CONFIGMAPS, "shared", patch, MERGE_PATCH, self._body)
        version = int(msgspec.json.decode(raw)["metadata"]["resourceVersion"])
        for node in cluster.nodes[1:]:
            cluster.tracker.expect(node, "default/configmap/shared", version)
        await self._fleet.until(
            lambda: not [key for key in cluster.tracker.want if key[0] != BAD], seconds=10, what="the others"
        )
        return time.monotonic() - begun


@pytest.fixture
async def others(cluster: Any) -> Any:
    async with await cluster.fleet() as fleet:
        fleet.connect()
        await fleet.until(lambda: fleet.registered == fleet.size, seconds=20, what="register")
        await cluster.populate()
        await fleet.until(lambda: not cluster.tracker.want, seconds=20, what="deliver")
        async with asyncio.timeout(10):
            while cluster.lacking(await cluster.lab.records()):
                await asyncio.sleep(0.1)
        fleet.retire(0)
        yield Others(cluster, fleet)
        assert fleet.lost_links == 1, "a well-behaved node lost its link"
        assert fleet.stats.failures == 0


async def test_a_node_that_floods(cluster: Any, others: Any) -> None:
    before = resident(cluster.lab.pids)
    socket = await dial(cluster)
    stop = asyncio.Event()

    async def flood() -> None:
        query = frame("query", "default/configmap/shared")
        with suppress(ConnectionClosed):
            while not stop.is_set():
                await socket.send(query)

    async def drink() -> None:
        with suppress(ConnectionClosed):
            async for _ in socket:
                pass

    async with asyncio.TaskGroup() as group:
        group.create_task(flood())
        group.create_task(drink())
        await asyncio.sleep(1.0)
        worst = max([await others.latency() for _ in range(5)])
        stop.set()
        await socket.close()
    assert worst < 3.0
    assert resident(cluster.lab.pids) - before < 48 * 1024


async def test_a_node_that_never_reads(cluster: Any, others: Any) -> None:
    before = resident(cluster.lab.pids)
    socket = await dial(cluster)
    socket.transport.pause_reading()
    big = {"data": {"filler": "x" * 200_000}}
    options = WriteOptions(namespace="default")
    for index in range(60):
        body = msgspec.json.encode({**big, "metadata": {"annotations": {"round": str(index)}}})
        await cluster.lab.api.patch(CONFIGMAPS, "shared", body, MERGE_PATCH, options)
    assert await others.latency() < 3.0
    # One message an object is in flight, however many versions there were.
    assert resident(cluster.lab.pids) - before < 64 * 1024
    socket.transport.abort()


async def test_a_node_that_acknowledges_what_it_never_got(cluster: Any, others: Any) -> None:
    records = await cluster.lab.records()
    socket = await dial(cluster)
    for _ in range(3000):
        await socket.send(frame("response", "default/configmap/shared", "OK", parent=str(uuid.uuid4())))
    assert await others.latency() < 3.0
    other = f"{cluster.nodes[1]}.{cluster.uids['default/configmap/shared']}"
    await asyncio.sleep(1.0)  # records follow within half a second
    shared = f"{BAD}.{cluster.uids['default/configmap/shared']}"
    assert records[shared] < (await cluster.lab.records())[other], "the change was recorded for the others"
    assert (await cluster.lab.records())[shared] == records[shared], "an invented ACK was recorded"
    await socket.close()


async def test_a_node_that_claims_another_name(cluster: Any, others: Any) -> None:
    refused = await cluster.lab.metric("edgehive_hub_refused_total")
    with pytest.raises(InvalidStatus) as caught:
        await dial(cluster, BAD, claim="n-01")
    assert caught.value.response.status_code == 403
    assert await cluster.lab.metric("edgehive_hub_refused_total") == refused + 1
    assert logged(cluster, "the client certificate belongs to another node") == 1

    denied = await cluster.lab.metric("edgehive_hub_denied_total")
    socket = await dial(cluster)
    for _ in range(200):
        patch = json.dumps({"status": {"phase": "Failed"}})
        await socket.send(frame("patch", "null/nodepatch/n-01", patch))
    await socket.send(frame("keepalive", "node", "ping"))

    async def counted() -> None:
        while await cluster.lab.metric("edgehive_hub_denied_total") < denied + 200:
            await asyncio.sleep(0.05)

    async with asyncio.timeout(5):
        await counted()
    assert await others.latency() < 3.0
    assert logged(cluster, "null/nodepatch/n-01 denied") == 1, "once a session, however often it is tried"
    await socket.close()


async def test_a_node_that_sends_garbage(cluster: Any, others: Any) -> None:
    malformed = await cluster.lab.metric("edgehive_hub_malformed_total")
    for garbage in (b"\xff" * 100, '{"header":{"msg_id":1}}', "[" * 100_000):
        socket = await dial(cluster)
        await socket.send(garbage)
        async with asyncio.timeout(5):
            await socket.wait_closed()
    assert await cluster.lab.metric("edgehive_hub_malformed_total") == malformed + 3
    assert await others.latency() < 3.0
