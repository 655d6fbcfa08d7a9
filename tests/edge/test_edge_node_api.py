"""The node's local HTTP, asked over a real socket."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from edgehive.edge.node_api import LocalHttp
from edgehive.kit.errors import Transient


class Pods:
    def pods(self) -> list[bytes]:
        return [b'{"metadata":{"name":"a"}}', b'{"metadata":{"name":"b"}}']


@asynccontextmanager
async def serving(port: int = 0) -> AsyncIterator[LocalHttp]:
    server = LocalHttp(
        host="127.0.0.1",
        port=port,
        pods=Pods(),
        gauges={"edgehive_cloud_connected": lambda: 1.0, "edgehive_large_total": lambda: 123456789.0},
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        async with asyncio.timeout(15):
            while not server.port:
                await asyncio.sleep(0.001)
        yield server
        task.cancel()


async def ask(port: int, request: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def test_pages() -> None:
    async with serving() as server:
        for path in ("/healthz", "/healthz/ping", "/healthz/syncloop", "/healthz/log"):
            assert await ask(server.port, f"GET {path}") == (200, b"ok")
        status, body = await ask(server.port, "GET /pods")
        assert status == 200
        listed = json.loads(body)
        assert (listed["kind"], [p["metadata"]["name"] for p in listed["items"]]) == ("PodList", ["a", "b"])
        assert (await ask(server.port, "GET /secrets"))[0] == 404
        assert (await ask(server.port, "POST /pods"))[0] == 405
        status, body = await ask(server.port, "GET /metrics")
        assert status == 200
        assert b"# TYPE edgehive_cloud_connected gauge\nedgehive_cloud_connected 1\n" in body
        lines = dict(line.split() for line in body.decode().splitlines() if not line.startswith("#"))
        assert float(lines["process_resident_memory_bytes"]) > 1_000_000
        assert abs(float(lines["process_start_time_seconds"]) - time.time()) < 600
        assert lines["edgehive_large_total"] == "123456789"


async def test_a_taken_port_is_tried_again() -> None:
    async with serving() as server:
        with pytest.raises(Transient, match="cannot listen"):
            await LocalHttp(host="127.0.0.1", port=server.port, pods=Pods(), gauges={}).run()
