"""Our gRPC server against our gRPC client, and against peers that do not keep to the protocol."""

import asyncio
import contextlib
import gzip
import stat
import struct
import zlib
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import pytest

from edgehive.aio.grpc import DEADLINE_EXCEEDED, UNKNOWN, GrpcClient, GrpcError
from edgehive.aio.grpc_server import INTERNAL, INVALID_ARGUMENT, GrpcServer
from edgehive.kit.errors import EdgehiveError, ProtocolError, Unreachable, UserError


@contextlib.asynccontextmanager
async def serving(path, methods, **options):
    server = GrpcServer(path, methods, name="test", **options)
    await server.listen()
    task = asyncio.get_running_loop().create_task(server.run())
    client = GrpcClient(str(path))
    try:
        yield client
    finally:
        await client.close()
        task.cancel()
        await asyncio.wait([task])
        assert not path.exists()


async def echo(request):
    return request


async def test_large_messages_cross_the_flow_control_windows_both_ways(tmp_path):
    async with serving(tmp_path / "s", {"/t/Echo": echo}) as client:
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
        body = bytes(range(256)) * 12_000
        assert await client.call("/t/Echo", body, timeout=10) == body
        assert await client.call("/t/Echo", b"", timeout=10) == b""


async def test_a_fault_is_answered_with_its_code_and_the_next_call_works(tmp_path):
    async def failing(request):
        raise {b"p": ProtocolError("bad é"), b"e": EdgehiveError("no"), b"b": ZeroDivisionError("x")}[request]

    async def hanging(request):
        await asyncio.Event().wait()

    methods = {"/t/Fail": failing, "/t/Hang": hanging, "/t/Echo": echo}
    async with serving(tmp_path / "s", methods, max_time=0.1) as client:
        for request, code, text in (
            (b"p", INVALID_ARGUMENT, "bad é"),
            (b"e", UNKNOWN, "no"),
            (b"b", INTERNAL, "internal"),
        ):
            with pytest.raises(GrpcError, match=text) as caught:
                await client.call("/t/Fail", request, timeout=5)
            assert caught.value.code == code
        with pytest.raises(GrpcError) as caught:
            await client.call("/t/Hang", b"", timeout=5)
        assert caught.value.code == DEADLINE_EXCEEDED
        assert await client.call("/t/Echo", b"x", timeout=5) == b"x"


async def test_calls_run_side_by_side(tmp_path):
    gate = asyncio.Event()

    async def wait(request):
        await gate.wait()
        return b"waited"

    async def open_gate(request):
        gate.set()
        return b"opened"

    async with (
        serving(tmp_path / "s", {"/t/Wait": wait, "/t/Open": open_gate}) as client,
        asyncio.TaskGroup() as group,
    ):
        waiting = group.create_task(client.call("/t/Wait", b"", timeout=5))
        assert await client.call("/t/Open", b"", timeout=5) == b"opened"
        assert await waiting == b"waited"


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9, b"\0" * 100]
)
async def test_noise_closes_its_own_connection_only(tmp_path, noise):
    async with serving(tmp_path / "s", {"/t/Echo": echo}) as client:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(noise)
        async with asyncio.timeout(5):
            while await reader.read(4096):
                pass
        writer.close()
        assert await client.call("/t/Echo", b"x", timeout=5) == b"x"


async def test_a_client_is_told_when_the_server_ends(tmp_path):
    started = asyncio.Event()

    async def hanging(request):
        started.set()
        await asyncio.Event().wait()

    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(serving(tmp_path / "s", {"/t/Hang": hanging}))
        async with asyncio.TaskGroup() as group:

            async def call():
                with pytest.raises((Unreachable, GrpcError)):
                    await client.call("/t/Hang", b"", timeout=5)

            group.create_task(call())
            await started.wait()
            await stack.aclose()


async def test_a_path_that_is_no_socket_is_left_alone_and_a_dead_socket_is_taken_over(tmp_path):
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(UserError, match="not a socket"):
        await GrpcServer(path, {}, name="test").listen()
    assert path.read_text() == "precious"
    path.unlink()
    with contextlib.closing(__import__("socket").socket(1)) as dead:
        dead.bind(str(path))
    async with serving(path, {"/t/Echo": echo}) as client:
        assert await client.call("/t/Echo", b"x", timeout=5) == b"x"


async def test_more_calls_than_the_server_allows_at_once_wait_for_their_turn(tmp_path):
    under_way = most = 0

    async def slow(request):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return request

    async with serving(tmp_path / "s", {"/t/Slow": slow}) as client, asyncio.TaskGroup() as group:
        calls = [group.create_task(client.call("/t/Slow", b"%d" % n, timeout=20)) for n in range(1000)]
    assert [call.result() for call in calls] == [b"%d" % n for n in range(1000)]
    assert 1 < most <= 64


async def answered(path, body, *headers):
    """Send one request of these bytes by hand; its answer's headers and trailers, and its data."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    peer = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    peer.initiate_connection()
    names = [(":method", "POST"), (":scheme", "http"), (":path", "/t/Echo"), (":authority", "localhost")]
    peer.send_headers(1, [*names, ("te", "trailers"), ("content-type", "application/grpc"), *headers])
    peer.send_data(1, body, end_stream=True)
    writer.write(peer.data_to_send())
    found, data = {}, b""
    try:
        async with asyncio.timeout(10):
            while True:
                for event in peer.receive_data(await reader.read(65536)):
                    if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                        found.update(event.headers)
                    if isinstance(event, h2.events.DataReceived):
                        data += event.data
                    if isinstance(event, h2.events.StreamEnded):
                        return found, data
    finally:
        writer.close()


def framed(body):
    return struct.pack(">BI", 1, len(body)) + body


async def test_a_compressed_request_is_read_as_the_message_it_is(tmp_path):
    """grpc-java's ``withCompression("gzip")``, grpcio's ``compression=``."""
    text = b"a word " * 1000
    async with serving(tmp_path / "s", {"/t/Echo": echo}):
        for encoding, packed in (("gzip", gzip.compress(text)), ("deflate", zlib.compress(text))):
            headers, data = await answered(tmp_path / "s", framed(packed), ("grpc-encoding", encoding))
            assert headers["grpc-status"] == "0"
            assert data == struct.pack(">BI", 0, len(text)) + text
        with_encoding = (
            struct.pack(">BI", 0, 2) + b"ok"
        )  # compression is agreed on, this message is not compressed
        assert (await answered(tmp_path / "s", with_encoding, ("grpc-encoding", "gzip")))[1] == with_encoding


@pytest.mark.parametrize(
    ("encoding", "packed", "code", "text"),
    [
        ("snappy", b"x", "12", "not known here"),
        ("gzip", b"no such header", "3", "not gzip"),
        ("gzip", gzip.compress(b"hello")[:-9], "3", "not whole"),
        ("gzip", gzip.compress(b"a") + gzip.compress(b"b"), "3", "not whole"),
        ("deflate", zlib.compress(bytes(1 << 24)), "8", "larger than 1048576"),
    ],
)
async def test_what_cannot_be_unpacked_is_refused_with_its_reason(tmp_path, encoding, packed, code, text):
    async with serving(tmp_path / "s", {"/t/Echo": echo}, max_message=1 << 20) as client:
        headers, _ = await answered(tmp_path / "s", framed(packed), ("grpc-encoding", encoding))
        assert headers["grpc-status"] == code
        assert text in unquote(headers["grpc-message"])
        assert ("gzip" in headers.get("grpc-accept-encoding", "")) == (code == "12")
        assert await client.call("/t/Echo", b"next", timeout=5) == b"next"
