"""Connections of the HTTP server after their end: nothing of them waits for a search for cycles."""

import asyncio
import contextlib
import datetime
import gc
import ssl
from collections.abc import AsyncIterator, Callable

import pytest

from edgehive.aio import pki
from edgehive.aio.gate import GateLimits
from edgehive.aio.http import HttpServer, Request, Response
from edgehive.aio.http_connection import Connection
from edgehive.aio.http_messages import BodyReader, RawConnection

KINDS = (Connection, BodyReader, RawConnection, Request)
HEAD = b"GET /%b HTTP/1.1\r\nHost: h\r\n"


async def handle(request: Request) -> Response:
    async def stream() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.get_running_loop().create_future()

    async def echo(raw: RawConnection) -> None:
        while data := await raw.read():
            await raw.write(data)

    match request.path:
        case "/watch":
            return Response(stream=stream())
        case "/upgrade":
            return Response(101, upgrade=echo)
        case "/small":
            return Response(body=await request.body(1))
    return Response(body=await request.body())


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    now = datetime.datetime.now(datetime.UTC)
    ca = pki.create_ca("test", now)
    pair = pki.issue(
        ca, common_name="test", organizations=("test",), now=now, server=True, addresses=("127.0.0.1",)
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(pair.cert_pem + pair.key_pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=ca.cert_pem.decode())


async def said(port: int, tls: ssl.SSLContext, data: bytes, until: bytes) -> None:
    """Say something, wait for what is answered, and leave."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    writer.write(data)
    if until:
        await reader.readuntil(until)
    else:
        await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()


EXCHANGES = {
    "answered": (HEAD % b"" + b"\r\n", b"\r\n\r\n"),
    "pipelined": (2 * (HEAD % b"" + b"\r\n"), b"\r\n\r\nHTTP/1.1 200"),
    "too many pipelined": (40 * (HEAD % b"watch" + b"\r\n"), b"first\r\n"),
    "watch": (HEAD % b"watch" + b"\r\n", b"first\r\n"),
    "upgrade": (HEAD % b"upgrade" + b"Connection: Upgrade\r\nUpgrade: raw\r\n\r\nhello", b"hello"),
    "upgrade of nothing": (HEAD % b"upgrade" + b"\r\n", b""),
    "body cut": (
        HEAD % b"" + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\nabc",
        b"100 Continue\r\n\r\n",
    ),
    "body too large": (HEAD % b"small" + b"Content-Length: 9\r\n\r\nabcabcabc", b"413 "),
    "malformed": (b"nonsense\r\n\r\n", b"400 "),
    "malformed body": (HEAD % b"" + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", b"400 "),
    "bad target": (b"GET http://[ HTTP/1.1\r\nHost: h\r\n\r\n", b"400 "),
    "head too large": (HEAD % b"" + b"x: " + b"y" * 70_000, b"431 "),
    "half a head": (HEAD % b"", b""),
    "silent": (b"", b""),
}


@pytest.mark.parametrize("fast", [False, True], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("gate", [None, GateLimits()], ids=["plain", "gated"])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_connection_that_has_ended_is_freed_without_a_search_for_cycles(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], exchange: str, gate: GateLimits | None, fast: bool
) -> None:
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if fast:
        factory = pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(leaves_nothing(contexts, exchange, gate))


async def leaves_nothing(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], exchange: str, gate: GateLimits | None
) -> None:
    server = HttpServer(handle, name="test", tls=contexts[0], gate=gate, tick=0.02)
    port = await server.listen("127.0.0.1", 0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        gc.collect()
        gc.disable()  # as good as: a daemon collects what was long-lived once in hours
        left: list[str] = []
        try:
            for _ in range(3):
                await said(port, contexts[1], *EXCHANGES[exchange])
            async with asyncio.timeout(5):
                while left := [type(o).__name__ for o in gc.get_objects() if type(o) in KINDS]:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"{left} are left")
        finally:
            gc.enable()
            task.cancel()
