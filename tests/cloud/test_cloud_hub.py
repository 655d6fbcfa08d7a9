"""Who may connect, what happens to bad peers, and what one connection must not do to another."""

import asyncio
import datetime
import gc
import json
import ssl
import time
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from edgehive.aio import pki
from edgehive.cloud.hub import HubConnection
from edgehive.cloud.keyed import KeyedQueue
from edgehive.cloud.link import NodeLink
from edgehive.kube.refs import NODES, PODS
from edgehive.wire.message import Message
from edgehive.wire.outbound import Outbound
from edgehive.wire.session import NodeSession


async def refused(lab: Any, node: str, **kwargs: Any) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        await lab.dial(node, **kwargs)
    return caught.value.response.status_code, caught.value.response.body.decode()


async def test_the_certificate_decides_who_a_node_is(lab: Any) -> None:
    await lab.start()
    status, text = await refused(lab, "victim", tls=lab.client_tls("system:node:edge-1"))
    assert (status, text) == (403, "the client certificate belongs to another node\n")
    assert (await refused(lab, "edge-1", tls=lab.client_tls("system:node:edge-1", "system:masters")))[
        0
    ] == 403
    assert (await refused(lab, "edge-1", Connectionuse="str"))[0] == 400
    assert lab.core.parts.hub.stats.refused == 3
    assert lab.core.parts.nodes.connected_nodes == 0


async def test_without_a_certificate_or_with_a_foreign_one_there_is_no_connection(lab: Any) -> None:
    await lab.start()
    stranger = pki.create_ca("Stranger", datetime.datetime.now(datetime.UTC))
    for tls in (lab.client_tls(), lab.client_tls("system:node:edge-1", ca=stranger)):
        with pytest.raises((ssl.SSLError, ConnectionError, InvalidMessage)):
            await lab.dial("edge-1", tls=tls)
    assert lab.core.parts.nodes.stats.connects == 0


async def test_the_node_limit_counts_other_nodes_only(lab: Any) -> None:
    config = lab.make_config()
    hub = msgspec.structs.replace(config.modules.cloud_hub, node_limit=1)
    await lab.start(
        msgspec.structs.replace(config, modules=msgspec.structs.replace(config.modules, cloud_hub=hub))
    )
    await lab.edge("edge-1")
    assert (await refused(lab, "edge-2"))[0] == 503
    await lab.edge("edge-1")
    assert lab.core.parts.nodes.connected_nodes == 1


async def test_a_new_connection_replaces_the_old_one_and_survives_its_end(lab: Any, api: Any) -> None:
    await lab.start()
    for _ in range(10):
        old = await lab.edge("edge-1")
        new = await lab.edge("edge-1")
        await old.until_closed()
        api.put(PODS, {"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "edge-1"}})
        await new.wait(lambda m: m.resource == "default/pod/p")
        api.drop(PODS, "default", "p")
        await new.wait(lambda m: m.operation == "delete")
        await new.socket.close()
    assert lab.core.parts.nodes.connected_nodes <= 1


async def test_a_repeated_header_counts_by_its_first_value(lab: Any) -> None:
    await lab.start()
    from websockets.asyncio.client import connect

    headers = [("Node_id", "edge-1"), ("Connectionuse", "msg"), ("Connectionuse", "msg")]
    socket = await connect(
        f"wss://127.0.0.1:{lab.ports.websocket}/p/edge-1/events",
        ssl=lab.client_tls("system:node:edge-1"),
        additional_headers=headers,
        close_timeout=1,
    )
    await socket.close()
    assert lab.core.parts.nodes.stats.connects == 1


async def test_no_extension_is_negotiated(lab: Any) -> None:
    await lab.start()
    from websockets.asyncio.client import connect

    socket = await connect(
        f"wss://127.0.0.1:{lab.ports.websocket}/p/edge-1/events",
        ssl=lab.client_tls("system:node:edge-1"),
        additional_headers={"Node_id": "edge-1", "Connectionuse": "msg"},
        close_timeout=1,
    )
    assert socket.protocol.extensions == []
    assert sorted(k.lower() for k in socket.response.headers) == [
        "connection",
        "date",
        "sec-websocket-accept",
        "upgrade",
    ]
    await socket.close()


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xfe garbage",
        "[]",
        '{"header":{"msg_id":1,"timestamp":1}}',
        '{"header":{"msg_id":"a","timestamp":1.5},"route":{},"content":null}',
        '{"header":{"msg_id":"a","timestamp":1,"resourceversion":5},"route":{}}',
        "[" * 100_000,
    ],
)
async def test_a_frame_that_is_no_message_ends_that_connection_only(
    lab: Any, frame: Any, caplog: Any
) -> None:
    await lab.start()
    other = await lab.edge("edge-2")
    edge = await lab.edge("edge-1")
    await edge.socket.send(frame)
    await edge.until_closed()
    assert (await other.ask("query", "kube-node-lease/lease/edge-2")).operation == "response"
    assert lab.core.parts.hub.stats.malformed == 1
    assert len([r for r in caplog.records if r.levelname == "WARNING" and "edge-1" in r.getMessage()]) == 1


async def test_binary_and_fragmented_messages_are_taken(lab: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    text = json.dumps(
        {
            "header": {"msg_id": "m1", "timestamp": 1, "sync": False, "unknown": 1},
            "route": {
                "source": "edged",
                "group": "meta",
                "operation": "query",
                "resource": "kube-node-lease/lease/edge-1",
            },
            "content": "grüße",
        },
        ensure_ascii=False,
    )
    await edge.socket.send(text.encode())
    await edge.wait(lambda m: m.parent_id == "m1")
    await edge.socket.send([text.replace("m1", "m2")[:90], text.replace("m1", "m2")[90:] + "\n"])
    await edge.wait(lambda m: m.parent_id == "m2")


async def test_a_giant_frame_ends_the_connection(lab: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    with suppress(ConnectionClosed, ConnectionError):
        await edge.socket.send("x" * (33 << 20))
    await edge.until_closed()
    assert lab.core.parts.nodes.connected_nodes == 0


async def test_an_edge_that_never_reads_is_dropped_and_memory_stays_bounded(lab: Any, api: Any) -> None:
    config = lab.make_config()
    hub = msgspec.structs.replace(config.modules.cloud_hub, write_timeout=1)
    await lab.start(
        msgspec.structs.replace(config, modules=msgspec.structs.replace(config.modules, cloud_hub=hub))
    )
    socket = await lab.dial(
        "edge-1",
    )
    socket.transport.pause_reading()
    for i in range(40):
        api.put(
            PODS,
            {
                "metadata": {"name": f"p{i}", "namespace": "default", "annotations": {"a": "x" * 500_000}},
                "spec": {"nodeName": "edge-1"},
            },
        )
    table = lab.core.parts.nodes
    started = time.monotonic()
    while table.connected_nodes or not table.link_stats.stalled:
        assert time.monotonic() - started < 8
        await asyncio.sleep(0.05)
    socket.transport.abort()


async def test_a_silent_edge_is_dropped(lab: Any) -> None:
    config = lab.make_config()
    hub = msgspec.structs.replace(config.modules.cloud_hub, keepalive_interval=1)
    await lab.start(
        msgspec.structs.replace(config, modules=msgspec.structs.replace(config.modules, cloud_hub=hub))
    )
    edge = await lab.edge("edge-1")
    await edge.until_closed()
    assert lab.core.parts.nodes.connected_nodes == 0


async def test_deleting_the_node_ends_its_connection(lab: Any, api: Any) -> None:
    api.put(NODES, {"metadata": {"name": "edge-1"}})
    await lab.start()
    edge = await lab.edge("edge-1")
    await edge.wait(lambda m: m.resource == "null/node/edge-1")
    api.drop(NODES, "", "edge-1")
    await edge.until_closed()


async def test_garbage_on_every_port(lab: Any, caplog: Any) -> None:
    await lab.start()
    await lab.edge("edge-1")
    for port in (lab.ports.websocket, lab.ports.https, lab.ports.monitor):
        for garbage in (b"\x00" * 64, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" + b"\xff" * 100):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(garbage)
            writer.write_eof()
            with suppress(ConnectionResetError):  # what was not read when it was closed
                await asyncio.wait_for(reader.read(), 5)  # noqa: TID251 - a test
            writer.close()
    assert lab.core.parts.nodes.connected("edge-1")
    assert not [r for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")]


async def test_stopping_closes_every_connection(lab: Any) -> None:
    await lab.start()
    edges = [await lab.edge(f"n{i}") for i in range(5)]
    await lab.stop()
    for edge in edges:
        await edge.until_closed()


async def test_what_is_kept_for_absent_nodes_is_bounded_in_their_number(lab: Any) -> None:
    await lab.start()
    table = lab.core.parts.nodes

    def rule(number: int) -> Outbound:
        return Outbound(
            Message(
                f"m{number}", 1, "start", f"rule/{number}", b"{}", source="router_servicebus", group="user"
            )
        )

    for number in range(1_100):
        table.send(f"absent-{number}", rule(number))
    assert len(table._entries) == 1_024
    assert (table.stats.forgotten, table.stats.dropped) == (76, 76)
    edge = await lab.edge("absent-1099")
    assert (await edge.wait(lambda m: m.operation == "start")).resource == "rule/1099"
    edge = await lab.edge("absent-0")
    answer = await edge.ask("query", "default/configmap/none")
    assert b"NotFound" in answer.content
    assert not [m for m in edge.received if m.operation == "start"], "it was the first to be forgotten"


def client_hello() -> bytes:
    """The first bytes of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="x")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


async def test_who_has_given_up_before_its_turn_costs_no_handshake(lab: Any) -> None:
    await lab.start(lab.make_config(admission={"parallel": 1}))
    gate = lab.core.parts.hub.gate
    _, dawdler = await asyncio.open_connection("127.0.0.1", lab.ports.websocket)
    dawdler.write(client_hello())  # and no more: it has the only place, for a second
    async with asyncio.timeout(5):
        while not gate.entering:
            await asyncio.sleep(0.01)
    for _ in range(5):
        _, writer = await asyncio.open_connection("127.0.0.1", lab.ports.websocket)
        writer.write(client_hello())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    edge = await lab.edge("edge-1")
    await edge.ask("query", "default/configmap/none")
    assert (gate.late, gate.failed, gate.most) == (5, 0, 1)
    assert gate.outside == 1, "the dawdler goes on without a place"
    dawdler.close()


async def test_who_says_nothing_has_no_place_and_is_dropped_for_others(lab: Any) -> None:
    await lab.start(lab.make_config(admission={"parallel": 1, "outside": 50}))
    gate = lab.core.parts.hub.gate
    silent = [await asyncio.open_connection("127.0.0.1", lab.ports.websocket) for _ in range(56)]
    async with asyncio.timeout(10):
        while gate.dropped < 6:
            await asyncio.sleep(0.01)
    assert gate.outside == 50
    edge = await lab.edge("edge-1")
    await edge.ask("query", "default/configmap/none")
    async with asyncio.timeout(5):
        assert await silent[0][0].read() == b"", "the oldest were closed"
    assert gate.accepted == 1, "one handshake in all"
    for _, writer in silent:
        writer.close()


async def test_a_connection_that_has_ended_is_freed_without_a_search_for_cycles(lab: Any) -> None:
    await lab.start()
    tls = lab.client_tls("system:node:edge-1")
    gc.collect()
    gc.disable()  # as good as: a daemon collects what was long-lived once in hours
    try:
        for _ in range(3):
            socket = await lab.dial("edge-1", tls=tls)
            await socket.send(
                b'{"header":{"msg_id":"1","timestamp":1},"route":{"resource":"default/configmap/x",'
            )
            await socket.wait_closed()
            socket = await lab.dial("edge-1", tls=tls)
            await socket.close()
        kinds = (HubConnection, NodeLink, NodeSession, KeyedQueue)
        async with asyncio.timeout(5):
            while left := [type(o).__name__ for o in gc.get_objects() if type(o) in kinds]:
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"{left} are left")
    finally:
        gc.enable()
