"""The gRPC client against google's server."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc as google
import pytest

from edgehive.aio.grpc import DEADLINE_EXCEEDED, NOT_FOUND, UNIMPLEMENTED, GrpcClient, GrpcError
from edgehive.kit.errors import Unreachable


class _Handler(google.GenericRpcHandler):
    def service(self, call: Any) -> Any:
        name = call.method.rpartition("/")[2]
        if name == "Echo":
            return google.unary_unary_rpc_method_handler(lambda request, context: request)
        if name == "Fail":
            return google.unary_unary_rpc_method_handler(self._fail)
        if name == "Slow":
            return google.unary_unary_rpc_method_handler(self._slow)
        if name == "Count":
            return google.unary_stream_rpc_method_handler(
                lambda request, context: (b"%d" % n for n in range(int(request)))
            )
        return None

    def _fail(self, request: bytes, context: Any) -> bytes:
        context.abort(google.StatusCode.NOT_FOUND, "no such thing: é 100%")
        return b""

    def _slow(self, request: bytes, context: Any) -> bytes:
        time.sleep(0.3)
        return b"late"


def serve(path: Path) -> google.Server:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = google.server(ThreadPoolExecutor(4), handlers=[_Handler()], options=options)
    server.add_insecure_port(f"unix:{path}")
    server.start()
    return server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    running = serve(tmp_path / "s")
    yield tmp_path / "s"
    running.stop(None).wait()


@pytest.fixture
async def client(server: Path) -> Any:
    made = GrpcClient(str(server))
    yield made
    await made.close()


async def test_calls_of_every_size_also_at_the_same_time(client: GrpcClient) -> None:
    sizes = [0, 1, 16_384, 65_536, 3_000_000, 10]

    async def call(size: int) -> None:
        request = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        assert await client.call("/t.T/Echo", request, timeout=10) == request

    async with asyncio.TaskGroup() as group:
        for size in sizes * 3:
            group.create_task(call(size))


async def test_errors_carry_code_and_message(client: GrpcClient) -> None:
    with pytest.raises(GrpcError) as caught:
        await client.call("/t.T/Fail", b"", timeout=5)
    assert (caught.value.code, caught.value.message) == (NOT_FOUND, "no such thing: é 100%")
    with pytest.raises(GrpcError) as caught:
        await client.call("/t.T/Unknown", b"", timeout=5)
    assert caught.value.code == UNIMPLEMENTED


async def test_a_late_answer_is_a_deadline_and_the_connection_goes_on(client: GrpcClient) -> None:
    with pytest.raises(GrpcError) as caught:
        await client.call("/t.T/Slow", b"", timeout=0.05)
    assert caught.value.code == DEADLINE_EXCEEDED
    assert await client.call("/t.T/Echo", b"still here", timeout=5) == b"still here"


async def test_streams_end_and_can_be_left(client: GrpcClient) -> None:
    async with aclosing(client.stream("/t.T/Count", b"40")) as stream:
        assert [int(one) async for one in stream] == list(range(40))
    async with aclosing(client.stream("/t.T/Count", b"100000000")) as stream:
        async for one in stream:
            if int(one) == 5:
                break
    assert await client.call("/t.T/Echo", b"after", timeout=5) == b"after"


async def test_no_server_and_a_server_that_comes_back(tmp_path: Path) -> None:
    client = GrpcClient(str(tmp_path / "s"))
    with pytest.raises(Unreachable):
        await client.call("/t.T/Echo", b"", timeout=5)
    for _ in range(2):
        server = serve(tmp_path / "s")
        assert await client.call("/t.T/Echo", b"x", timeout=5) == b"x"
        await asyncio.to_thread(server.stop(None).wait)
        with pytest.raises(Unreachable):
            await client.call("/t.T/Echo", b"x", timeout=5)
    await client.close()
