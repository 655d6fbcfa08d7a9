"""The end of exec and attach: a client that goes on typing loses nothing of what the command said."""

import asyncio
import contextlib
from collections.abc import Sequence

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Request

from edgehive.aio import http
from edgehive.aio.rawhttp import SocketStream, splice
from edgehive.aio.remotecommand import ERROR, STDIN, STDOUT, Session, websocket_response
from tests.aio.test_http import serving

MUCH = 6 << 20


@pytest.mark.parametrize("typed", [0, 1, 400])
async def test_a_client_that_types_past_the_end_gets_all_output_and_the_status(typed: int) -> None:
    typing = asyncio.Event()

    async def command(session: Session) -> int:
        await typing.wait()
        for _ in range(MUCH >> 16):
            await session.write(STDOUT, bytes(1 << 16))
        return 3

    async def handle(request: http.Request) -> http.Response:
        return websocket_response(request, command) or http.Response(400)

    async with serving(handle) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        client = WSConnection(ConnectionType.CLIENT)
        writer.write(client.send(Request("host", "/", subprotocols=["v5.channel.k8s.io"])))
        client.receive_data(await reader.readuntil(b"\r\n\r\n"))
        assert any(isinstance(event, AcceptConnection) for event in client.events())
        for _ in range(typed):
            # The command takes none of it, so that the server stops reading.
            writer.write(client.send(BytesMessage(bytes((STDIN,)) + bytes(10_000))))
        typing.set()
        got, status = 0, b""
        while data := await reader.read(1 << 16):
            client.receive_data(data)
            for event in client.events():
                match event:
                    case BytesMessage(part) if status or part[:1] == bytes((ERROR,)):
                        status += part
                    case BytesMessage(part):
                        got += len(part)
                    case CloseConnection():
                        writer.write(client.send(event.response()))
        writer.close()
    assert got >= MUCH
    assert b"exit status 3" in status


class Scripted:
    """A `ByteStream` that says some things; `broken`: it takes nothing."""

    def __init__(self, says: Sequence[bytes], *, broken: bool = False, stays: bool = False) -> None:
        self.says = list(says)
        self.broken = broken
        self.stays = stays
        self.heard = b""
        self.refused = asyncio.Event()

    async def read(self) -> bytes:
        if self.says:
            await asyncio.sleep(0)
            return self.says.pop(0)
        if self.stays:
            await asyncio.Event().wait()
        return b""

    async def write(self, data: bytes) -> None:
        if self.broken:
            self.refused.set()
            raise BrokenPipeError
        self.heard += data

    def close(self) -> None:
        """Nothing is open."""


async def test_last_words_of_an_end_that_takes_nothing_any_more_are_passed_on() -> None:
    client, gone = Scripted([b"typed"], stays=True), Scripted([b"%d " % n for n in range(99)], broken=True)
    async with asyncio.timeout(5):
        await splice(client, gone)
    assert gone.refused.is_set()
    assert client.heard.split() == [b"%d" % n for n in range(99)]


async def test_two_ends_that_take_nothing_are_done() -> None:
    async with asyncio.timeout(5):
        await splice(Scripted([b"a"] * 3, broken=True, stays=True), Scripted([b"b"], broken=True, stays=True))


async def test_what_came_before_a_connection_was_reset_can_be_read() -> None:
    """A reset that comes while the reader does other things takes nothing away."""
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue(1)
    server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        stream = await SocketStream.connect("127.0.0.1", server.sockets[0].getsockname()[1])
        theirs = await accepted.get()
        theirs.write(b"last words")
        await theirs.drain()
        while not stream._reader._buffer:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        theirs.transport.abort()
        with contextlib.suppress(OSError):
            while True:
                await stream.write(b"typed")
                await asyncio.sleep(0)
        assert await stream.read() == b"last words"
        assert await stream.read() == b""
        stream.close()
