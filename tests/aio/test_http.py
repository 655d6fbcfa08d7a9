import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.aio.http import Handler, HttpServer, Request, Response
from edgehive.aio.http_messages import RawConnection
from edgehive.kit.errors import Unreachable
from edgehive.kube.status import ApiStatus


@contextlib.asynccontextmanager
async def serving(handler: Handler, **options) -> AsyncIterator[int]:
    server = HttpServer(handler, name="test", tick=0.02, **options)
    port = await server.listen("127.0.0.1", 0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        try:
            yield port
        finally:
            task.cancel()


async def echo(request: Request) -> Response:
    body = await request.body(1 << 20)
    text = {"method": request.method, "path": request.path, "query": request.query, "body": body.decode()}
    return Response(body=json.dumps(text).encode())


async def exchange(port: int, data: bytes, *, eof: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if eof:
            writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def parts(raw: bytes) -> tuple[int, bytes, bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), head, body


async def test_a_get_may_carry_a_body():
    async with serving(echo) as port:
        raw = await exchange(
            port,
            b"GET /a%20b?x=1&x=2&y HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nConnection: close\r\n\r\nCSR",
        )
    status, _, body = parts(raw)
    assert status == 200
    assert json.loads(body) == {
        "method": "GET",
        "path": "/a b",
        "query": {"x": ["1", "2"], "y": [""]},
        "body": "CSR",
    }


async def test_requests_on_one_connection_are_answered_in_order_even_when_pipelined():
    async def slow_first(request: Request) -> Response:
        if request.path == "/1":
            await asyncio.sleep(0.05)
        return Response(body=request.path.encode())

    one = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"
    last = b"GET /9 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    async with serving(slow_first) as port:
        raw = await exchange(port, one % 1 + one % 2 + one % 3 + last)
    assert [raw.index(b"\r\n\r\n/%d" % i) for i in (1, 2, 3, 9)] == sorted(
        raw.index(b"\r\n\r\n/%d" % i) for i in (1, 2, 3, 9)
    )


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nBig: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 3000, 431),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
async def test_bad_requests_get_their_status_and_the_connection_ends(data, status):
    async with serving(echo, max_header=8192) as port:
        raw = await exchange(port, data)
    assert parts(raw)[0] == status


async def test_a_chunked_body_over_the_limit_is_refused_without_being_kept():
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"

    async with serving(echo) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                writer.write(chunk)
                await writer.drain()
        head = await reader.readline()
        writer.close()
    assert b" 413 " in head


async def test_expect_continue_is_answered_when_the_handler_asks_for_the_body():
    async with serving(echo) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert b"100 Continue" in await reader.readline()
        await reader.readline()
        writer.write(b"ok")
        assert b" 200 " in await reader.readline()
        writer.close()


async def test_a_slow_head_runs_into_a_deadline():
    async with serving(echo, header_timeout=0.1) as port:
        raw = await exchange(port, b"GET / HTTP/1.1\r\nHost:")
    assert parts(raw)[0] == 408


async def test_a_body_that_never_arrives_runs_into_a_deadline():
    async with serving(echo, body_timeout=0.1) as port:
        raw = await exchange(port, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")
    assert parts(raw)[0] == 408


async def test_an_idle_connection_is_closed():
    async with serving(echo, idle_timeout=0.1) as port:
        assert await exchange(port, b"") == b""


async def test_api_errors_become_status_objects_and_bugs_become_500(caplog):
    async def broken(request: Request) -> Response:
        if request.path == "/gone":
            raise ApiStatus(410, "Expired", "too old")
        raise RuntimeError("secret detail")

    async with serving(broken) as port:
        gone = await exchange(port, b"GET /gone HTTP/1.1\r\nConnection: close\r\nHost: h\r\n\r\n")
        bug = await exchange(port, b"GET /bug HTTP/1.1\r\nConnection: close\r\nHost: h\r\n\r\n")
    assert parts(gone)[0] == 410
    assert json.loads(parts(gone)[2])["reason"] == "Expired"
    assert parts(bug)[0] == 500
    assert b"secret" not in bug
    assert sum(r.levelname == "ERROR" for r in caplog.records) == 1


async def test_a_stream_is_sent_in_chunks_and_ended_by_a_drain():
    async def ticking(request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            yield b"one\n"
            await asyncio.Event().wait()

        return Response(stream=lines())

    async with serving(ticking) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        assert await reader.readexactly(9) == b"4\r\none\n\r\n"
    assert await reader.read() == b"0\r\n\r\n"
    writer.close()


async def test_a_stream_that_cannot_go_on_breaks_off_and_says_why(caplog: pytest.LogCaptureFixture):
    async def breaking(request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            yield b"one\n"
            raise Unreachable("nobody is there any more")

        return Response(stream=lines())

    async with serving(breaking) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /log HTTP/1.1\r\nHost: h\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert not (await reader.read()).endswith(b"0\r\n\r\n")
        writer.close()
    (record,) = [record for record in caplog.records if "broke off" in record.getMessage()]
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert "nobody is there any more" in record.getMessage()


async def test_a_watcher_that_does_not_read_is_disconnected_with_bounded_memory():
    produced = 0
    ended = asyncio.Event()

    async def flood(request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            nonlocal produced
            try:
                while True:
                    produced += 1
                    yield b"x" * 65536
            finally:
                ended.set()

        return Response(stream=lines())

    async with serving(flood, stall_timeout=0.2) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await ended.wait()
        writer.close()
    assert produced < 400  # a few kernel buffers, not what the loop could have made in that time


async def test_a_client_that_leaves_cancels_its_handler():
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(request: Request) -> Response:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return Response()

    async with serving(wait) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await started.wait()
        writer.close()
        await cancelled.wait()


async def test_a_drain_lets_a_short_request_finish():
    started = asyncio.Event()
    release = asyncio.Event()

    async def short(request: Request) -> Response:
        started.set()
        await release.wait()
        return Response(body=b"done")

    async with serving(short) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await started.wait()
        asyncio.get_running_loop().call_later(0.05, release.set)
    raw = await reader.read()
    assert raw.endswith(b"done")
    assert b"connection: close" in raw
    writer.close()


async def test_an_upgrade_hands_the_connection_over():
    async def upgrade(request: Request) -> Response:
        async def talk(raw: RawConnection) -> None:
            while data := await raw.read():
                await raw.write(data.upper())

        headers = {"upgrade": "shout", "connection": "Upgrade"}
        return Response(101, headers=headers, upgrade=talk)

    async with serving(upgrade) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: shout\r\nConnection: Upgrade\r\n\r\nearly")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head
        assert await reader.readexactly(5) == b"EARLY"
        writer.write(b"late")
        assert await reader.readexactly(4) == b"LATE"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_header_values_cannot_split_the_response():
    async def evil(request: Request) -> Response:
        return Response(headers={"warning": "a\r\nset-cookie: b"})

    async with serving(evil) as port:
        raw = await exchange(port, b"GET / HTTP/1.1\r\nConnection: close\r\nHost: h\r\n\r\n")
    assert b"\r\nset-cookie" not in raw


async def test_head_gets_no_body():
    async with serving(echo) as port:
        raw = await exchange(port, b"HEAD / HTTP/1.1\r\nConnection: close\r\nHost: h\r\n\r\n")
    assert raw.endswith(b"\r\n\r\n")
    assert b"content-length: " in raw


async def test_a_verified_client_certificate_is_visible(tmp_path):
    import datetime

    from edgehive.aio.pki import create_ca, issue

    now = datetime.datetime.now(datetime.UTC)
    ca = create_ca("test-ca", now)
    server = issue(ca, common_name="server", now=now, server=True, addresses=["127.0.0.1"])
    client = issue(ca, common_name="client", now=now, client=True, organizations=["a", "b"])
    for name, pair in (("server", server), ("client", client)):
        (tmp_path / f"{name}.crt").write_bytes(pair.cert_pem)
        (tmp_path / f"{name}.key").write_bytes(pair.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=ca.cert_pem.decode())
    outside = ssl.create_default_context(cadata=ca.cert_pem.decode())
    inside = ssl.create_default_context(cadata=ca.cert_pem.decode())
    inside.load_cert_chain(tmp_path / "client.crt", tmp_path / "client.key")
    seen: list[bytes | None] = []
    names = []

    async def look(request: Request) -> Response:
        seen.append(request.peer_cert)
        names.append(request.peer_subject)
        return Response()

    async with serving(look, tls=context) as port:
        for tls in (outside, inside):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            assert b" 200 " in await reader.read()
            writer.close()
    assert seen == [None, client.cert_der]
    assert names[0] is None
    assert (names[1][0], set(names[1][1])) == ("client", {"a", "b"})


@pytest.mark.parametrize(
    "scenario",
    [
        test_a_get_may_carry_a_body,
        test_requests_on_one_connection_are_answered_in_order_even_when_pipelined,
        test_a_chunked_body_over_the_limit_is_refused_without_being_kept,
        test_expect_continue_is_answered_when_the_handler_asks_for_the_body,
        test_a_stream_is_sent_in_chunks_and_ended_by_a_drain,
        test_a_watcher_that_does_not_read_is_disconnected_with_bounded_memory,
        test_a_client_that_leaves_cancels_its_handler,
        test_a_drain_lets_a_short_request_finish,
        test_an_upgrade_hands_the_connection_over,
    ],
)
def test_the_same_on_uvloop(scenario):
    """The loop of production; its transports differ in detail."""
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_certificates_and_stalled_watchers_over_tls_on_uvloop(tmp_path):
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_a_verified_client_certificate_is_visible(tmp_path))
        runner.run(a_stalled_watcher_over_tls(tmp_path))


async def a_stalled_watcher_over_tls(tmp_path):
    produced = 0
    ended = asyncio.Event()

    async def flood(request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            nonlocal produced
            try:
                while True:
                    produced += 1
                    yield b"x" * 65536
            finally:
                ended.set()

        return Response(stream=lines())

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname = False
    trust.verify_mode = ssl.CERT_NONE
    async with serving(flood, tls=context, stall_timeout=0.2) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await ended.wait()
        writer.close()
    assert produced < 400


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [
                    b"GET / HTTP/1.1\r\n",
                    b"Host: h\r\n",
                    b"\r\n",
                    b"Content-Length: 3\r\n",
                    b"POST /%zz HTTP/1.1\r\n",
                ]
                + [
                    b"Transfer-Encoding: chunked\r\n",
                    b"5\r\nhello\r\n",
                    b"0\r\n\r\n",
                    b"Upgrade: x\r\nConnection: Upgrade\r\n",
                ]
                + [b"Connection: close\r\n", b"CONNECT a:1 HTTP/1.1\r\n", b"GET http://[::1/ HTTP/1.1\r\n"]
            ),
        ),
        max_size=8,
    )
)
def test_whatever_arrives_the_server_lives_and_answers_in_http(pieces):
    async def run() -> None:
        async with serving(
            echo, max_header=4096, header_timeout=0.2, idle_timeout=0.2, body_timeout=0.2
        ) as port:
            with contextlib.suppress(ConnectionError):
                answer = await exchange(port, b"".join(pieces), eof=True)
                assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
                assert b"HTTP/1.1 500" not in answer
            raw = await exchange(port, b"GET /alive HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            assert parts(raw)[0] == 200

    asyncio.run(run())
