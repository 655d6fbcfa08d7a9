"""The client of short requests against servers that behave well and badly."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from edgehive.aio.httpclient import HttpPool
from edgehive.kit.errors import ProtocolError

REQUEST = b"PATCH / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[HttpPool]:
    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    pool = HttpPool(host="127.0.0.1", port=listening.sockets[0].getsockname()[1], tls=None)
    try:
        yield pool
    finally:
        pool.close()
        listening.close()
        await asyncio.sleep(0)


def answering(*answers: bytes, close: bool = False) -> tuple[Serve, list[int]]:
    left = list(answers)
    connections: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        try:
            while left and await reader.readuntil(b"\r\n\r\n"):
                for byte in left.pop(0):  # in the smallest pieces there are
                    writer.write(bytes((byte,)))
                await writer.drain()
                if close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    return serve, connections


async def test_a_connection_is_used_again() -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nhi"
    serve, connections = answering(ok, ok, ok)
    async with server(serve) as pool:
        for _ in range(3):
            answer = await pool.request(REQUEST)
            assert (answer.status, answer.reason, answer.body) == (200, "OK", b"hi")
            assert answer.headers["x-a"] == "b"
    assert len(connections) == 1


async def test_requests_at_once_use_connections_of_their_own() -> None:
    gate = asyncio.Event()
    open_now: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        open_now.append(1)
        if len(open_now) == 3:
            gate.set()
        await gate.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async with server(serve) as pool, asyncio.TaskGroup() as group:
        tasks = [group.create_task(pool.request(REQUEST)) for _ in range(3)]
    assert [task.result().status for task in tasks] == [204] * 3


async def test_chunks_and_a_hundred_before_the_answer() -> None:
    serve, _ = answering(
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    async with server(serve) as pool:
        answer = await pool.request(REQUEST)
    assert (answer.status, answer.body) == (201, b"abcde")


async def test_connection_close_is_honoured() -> None:
    last = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    serve, connections = answering(last, last)
    async with server(serve) as pool:
        await pool.request(REQUEST)
        await pool.request(REQUEST)
    assert len(connections) == 2


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"])
async def test_a_lost_connection_is_an_os_error(answer: bytes) -> None:
    serve, _ = answering(answer, close=True)
    async with server(serve) as pool:
        with pytest.raises(OSError, match="closed"):
            await pool.request(REQUEST)


async def test_what_is_not_http_is_a_protocol_error() -> None:
    serve, _ = answering(b"SSH-2.0-OpenSSH\r\n")
    async with server(serve) as pool:
        with pytest.raises(ProtocolError):
            await pool.request(REQUEST)


async def test_an_answer_after_a_timeout_is_not_given_to_the_next_request() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readuntil(b"\r\n\r\n")
        if b"slow" in line:
            await asyncio.sleep(0.1)
        body = b"slow" if b"slow" in line else b"fast"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body)
        writer.close()

    async with server(serve) as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await pool.request(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await pool.request(REQUEST)).body == b"fast"
        await asyncio.sleep(0.12)
