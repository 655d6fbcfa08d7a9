"""EdgeStream: the node's end of the tunnel. What the cloud asks for is asked of this node's own kubelet API.

KubeEdge's original and this one serve each other's clouds. Against a cloud of ours a log travels as a raw HTTP
exchange, so that its status gets through; against the original's as the body alone.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote

from edgehive.aio.rawhttp import SocketStream, ask, request_head, splice
from edgehive.aio.tunnel import TunnelMux, TunnelStream
from edgehive.edge.link_ws import Alive, Closing, Opened, Received
from edgehive.edge.stream_ws import BytesWebSocketClient
from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import EdgehiveError, Unreachable
from edgehive.kit.text import safe_label
from edgehive.wire.tunnel import (
    ADDRESS_HEADER,
    NODE_HEADER,
    PATH,
    WINDOW,
    WINDOW_HEADER,
    ConnectRequest,
    Frame,
    Kind,
    parse_connect,
    parse_window,
)

log = logging.getLogger(__name__)

_JOIN_PAUSE = 0.1
_PING_EVERY = 5.0
_SILENCE = 30.0
_MAX_CONNECTIONS = 256
_DROPPED = frozenset({"host", "content-length", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Where the tunnel leads, and to whom."""

    host: str
    port: int
    node: str
    local_port: int
    """The node's kubelet API on loopback."""
    handshake_timeout: float = 30.0


class _NotJoined(Exception):
    """There is no certificate yet."""


class EdgeStream:
    """Keeps the tunnel open; `run` until cancelled."""

    def __init__(
        self,
        *,
        settings: StreamSettings,
        tls: Callable[[], ssl.SSLContext],
        address: Callable[[], str],
        rng: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._address = address
        self._backoff = Backoff(1.0, 10.0, jitter=0.3, rng=rng)
        self._complaint = ""
        self.connected = False

    async def run(self) -> None:
        """Dial and serve, again and again."""
        while True:
            pause = 0.0
            try:
                await self._session()
            except _NotJoined:
                pause = _JOIN_PAUSE  # the first `kubectl logs` of a new node must not meet a back-off
            except EdgehiveError as exc:
                if str(exc) != self._complaint:  # once, not every few seconds of an outage
                    self._complaint = str(exc)
                    log.warning("tunnel: %s", safe_label(self._complaint, 300))
            finally:
                self.connected = False
            await asyncio.sleep(pause or self._backoff.next())

    async def _session(self) -> None:
        where = self._settings
        try:
            tls = self._tls()
        except FileNotFoundError as exc:
            raise _NotJoined from exc
        except OSError as exc:
            raise Unreachable(f"the tunnel's certificate cannot be used: {exc.strerror or exc}") from exc
        socket = await SocketStream.connect(where.host, where.port, tls=tls, timeout=where.handshake_timeout)
        try:
            try:
                async with asyncio.TaskGroup() as tasks:
                    session = _Session(socket, where, tasks, self._opened)
                    await session.run(self._address())
                    raise Unreachable("the cloud closed the tunnel")
            except* (EdgehiveError, OSError) as group:
                first: BaseException = group
                while isinstance(first, BaseExceptionGroup):
                    first = first.exceptions[0]
                raise Unreachable(str(first) or "the tunnel was lost") from first
        finally:
            socket.close()

    def _opened(self) -> None:
        self.connected = True
        self._complaint = ""
        self._backoff.reset()
        log.info("tunnel to %s:%d is open", self._settings.host, self._settings.port)


class _Session:
    """One connection of the tunnel."""

    def __init__(
        self,
        socket: SocketStream,
        settings: StreamSettings,
        tasks: asyncio.TaskGroup,
        opened: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._settings = settings
        self._tasks = tasks
        self._opened = opened
        self._ws = BytesWebSocketClient()
        self._heard = asyncio.Event()
        self._mux = TunnelMux(send=self._send, post=self._post, peer_window=0, on_connect=self._connect)

    async def run(self, address: str) -> None:
        where = self._settings
        headers = {NODE_HEADER: where.node, ADDRESS_HEADER: address, WINDOW_HEADER: str(WINDOW)}
        authority = f"{where.host}:{where.port}"
        await self._socket.write(self._ws.request(host=authority, path=PATH, headers=headers))
        watch = self._tasks.create_task(self._keep_alive(), name="tunnel-ping")
        try:
            while data := await self._socket.read():
                self._heard.set()
                for event in self._ws.receive(data):
                    await self._handle(event)
        finally:
            self._mux.end()
            watch.cancel()

    async def _handle(self, event: object) -> None:
        match event:
            case Received(message):
                self._mux.receive(message)
            case Opened():
                self._mux.peer_window = parse_window(self._ws.answer_headers.get(WINDOW_HEADER.lower()))
                self._opened()
            case Alive(reply) if reply:
                await self._socket.write(reply)
            case Closing(reason, reply):
                await self._socket.write(reply)
                raise Unreachable(reason)

    async def _keep_alive(self) -> None:
        """Ping; a cloud that is silent for long is given up."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(_PING_EVERY)
            if self._heard.is_set():
                self._heard.clear()
                last = loop.time()
            elif loop.time() - last > _SILENCE:
                raise Unreachable(f"the cloud is silent for {_SILENCE:g} s")
            await self._socket.write(self._ws.ping())

    async def _send(self, message: bytes) -> None:
        await self._socket.write(self._ws.text(message))

    def _post(self, message: bytes) -> None:
        self._socket.post(self._ws.text(message))

    # connections

    def _connect(self, frame: Frame, stream: TunnelStream) -> None:
        if len(self._mux) > _MAX_CONNECTIONS:
            log.warning("more than %d connections in the tunnel: one is refused", _MAX_CONNECTIONS)
            stream.close()
            return
        self._tasks.create_task(self._serve(frame, stream), name=f"tunnel-connection-{frame.id}")

    async def _serve(self, frame: Frame, stream: TunnelStream) -> None:
        """One connection; whatever goes wrong ends it alone."""
        try:
            request = parse_connect(frame)
            local = await SocketStream.connect("127.0.0.1", self._settings.local_port)
            try:
                if request.kind in (Kind.LOGS, Kind.METRIC):
                    await _copy_body(request, local, stream)
                else:
                    await local.write(request_head(request.method, _target(request), _headers(request)))
                    await splice(stream, local)
            finally:
                local.close()
        except (EdgehiveError, OSError) as exc:
            log.info("connection %d in the tunnel: %s", frame.id, safe_label(str(exc), 300))
        except Exception:
            log.exception("connection %d in the tunnel crashed", frame.id)
        finally:
            stream.close()


async def _copy_body(request: ConnectRequest, local: SocketStream, stream: TunnelStream) -> None:
    """For an original cloud: the body alone, which ends when either side does."""

    async def copy() -> None:
        answer = await ask(local, "GET", _target(request), [*_headers(request), ("Connection", "close")])
        async for chunk in answer.body():
            await stream.write(chunk)

    async def until_removed() -> None:
        with contextlib.suppress(OSError):
            while await stream.read():
                pass

    async with asyncio.TaskGroup() as group:
        copying = group.create_task(copy(), name="tunnel-body")
        watching = group.create_task(until_removed(), name="tunnel-removed")
        await asyncio.wait((copying, watching), return_when=asyncio.FIRST_COMPLETED)
        copying.cancel()
        watching.cancel()


def _target(request: ConnectRequest) -> str:
    path = request.raw_path or quote(request.path, safe="/:@!$&'()*+,;=~-._")
    return f"{path}?{request.query}" if request.query else path


def _headers(request: ConnectRequest) -> Iterable[tuple[str, str]]:
    yield "Host", "127.0.0.1"
    plain = request.kind in (Kind.LOGS, Kind.METRIC)
    for name, values in request.headers.items():
        lower = name.lower()
        if lower in _DROPPED or (plain and lower in ("accept-encoding", "connection")):
            continue
        for value in values:
            yield name, value
    if plain:
        yield "Accept-Encoding", "identity"
