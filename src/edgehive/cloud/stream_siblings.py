"""Tunnels of the other workers: a node's tunnel may be at one of them, and a request of the API server at another.

Each worker listens on a unix socket in a folder that only their account may enter. A question is one line of JSON, who
is asked answers with one line, and if it is then sent a connect frame (`wire.tunnel`), the socket is that connection's
bytes from there on. All are asked at once, and the newest tunnel of the node wins, as within one process.
"""

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import msgspec

from edgehive.aio.rawhttp import SocketStream, splice
from edgehive.aio.tunnel import ByteStream
from edgehive.cloud.stream_tunnel import TunnelServer
from edgehive.kit.errors import EdgehiveError, Unreachable
from edgehive.kit.malformed import MALFORMED
from edgehive.wire.tunnel import ConnectRequest, decode_frame, parse_connect

log = logging.getLogger(__name__)

_TIMEOUT: Final = 2.0
_MAX_LINE: Final = 64 << 10
_MAX_FRAME: Final = 1 << 20


class Session(Protocol):
    """A node's tunnel, here or at another worker."""

    @property
    def ours(self) -> bool:
        """Whether the edge knows what edgehive adds to the protocol."""
        ...

    async def ask(self, request: ConnectRequest) -> ByteStream:
        """Open a connection to the node's kubelet API; raises `Unreachable`."""
        ...


class _Question(msgspec.Struct):
    key: str
    """The node's name or address."""


class _Answer(msgspec.Struct):
    started: float = 0.0
    """When its tunnel was opened, on the machine's monotonic clock; 0: there is none here."""
    ours: bool = False


@dataclass(slots=True)
class _Remote:
    """A tunnel at another worker, and the socket on which that was learnt."""

    started: float
    ours: bool
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: ConnectRequest) -> ByteStream:
        """Open a connection through it; raises `Unreachable`."""
        frame = request.frame().encode()
        try:
            self.writer.write(len(frame).to_bytes(4, "big") + frame)
            await self.writer.drain()
        except OSError as exc:
            raise Unreachable(f"the worker with the tunnel is gone: {exc}") from exc
        return SocketStream(self.reader, self.writer)


class Siblings:
    """Answers the other workers, and asks them."""

    def __init__(self, *, tunnels: TunnelServer, folder: Path, index: int) -> None:
        self._tunnels = tunnels
        self._folder = folder
        self._own = folder / f"{index}.sock"

    async def run(self) -> None:
        """Answer until cancelled."""
        with contextlib.suppress(FileNotFoundError):
            self._own.unlink()  # of the worker that had this number before
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(self._own))
        async with asyncio.TaskGroup() as group:

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                group.create_task(self._answer(reader, writer))

            server = await asyncio.start_unix_server(connected, sock=sock, limit=_MAX_FRAME)
            try:
                await asyncio.get_running_loop().create_future()  # until cancelled
            finally:
                server.close()

    async def find(self, key: str) -> Session | None:
        """The newest tunnel of a node, by its name or address."""
        found: list[_Remote] = []
        async with asyncio.TaskGroup() as group:
            for path in self._folder.glob("*.sock"):
                if path != self._own:
                    group.create_task(self._question(path, key, found))
        local = self._tunnels.find(key)
        newest = max(found, key=lambda remote: remote.started, default=None)
        if newest is not None and local is not None and local.started >= newest.started:
            newest = None
        for remote in found:
            if remote is not newest:
                remote.writer.close()
        return newest or local

    @staticmethod
    async def _question(path: Path, key: str, found: list[_Remote]) -> None:
        writer = None
        with contextlib.suppress(OSError, TimeoutError, ValueError, *MALFORMED):
            async with asyncio.timeout(_TIMEOUT):
                reader, writer = await asyncio.open_unix_connection(str(path), limit=_MAX_LINE)
                writer.write(msgspec.json.encode(_Question(key)) + b"\n")
                answer = msgspec.json.decode(await reader.readline(), type=_Answer)
            if answer.started:
                found.append(_Remote(answer.started, answer.ours, reader, writer))
                return
        if writer is not None:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, ValueError, EdgehiveError, *MALFORMED) as exc:
            log.debug("a connection for another worker ended: %s", exc)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = msgspec.json.decode(await reader.readline(), type=_Question)
        session = self._tunnels.find(question.key)
        answer = _Answer(session.started, session.ours) if session is not None else _Answer()
        writer.write(msgspec.json.encode(answer) + b"\n")
        await writer.drain()
        if session is None:
            return
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > _MAX_FRAME:
            return
        request = parse_connect(decode_frame(await reader.readexactly(size)))
        stream = await session.ask(replace(request, id=self._tunnels.new_id()))
        try:
            await splice(SocketStream(reader, writer), stream)
        finally:
            stream.close()
