"""The first answer of a node: a silent container is waited for, a kubelet that is not there is said."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from edgehive.aio.http import Request, Response
from edgehive.aio.rawhttp import SocketStream
from edgehive.aio.tunnel import TunnelMux, TunnelStream
from edgehive.cloud.stream_first import FirstAnswer
from edgehive.cloud.stream_server import StreamServer
from edgehive.wire.tunnel import CONNECTS, WINDOW, ConnectRequest, Frame, Kind, decode_frame, parse_connect


@dataclass
class Edge:
    """A node with a tunnel. `handler` is told of each request, and may answer with `say` and `end`, or not at all."""

    handler: Callable[["Edge", ConnectRequest], None]
    ours: bool = False
    asked: list[str] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mux = TunnelMux(send=self._send, post=self._take, peer_window=WINDOW if self.ours else 0)

    async def _send(self, message: bytes) -> None:
        self._take(message)

    def _take(self, message: bytes) -> None:
        frame = decode_frame(message)
        if frame.kind in CONNECTS:
            request = parse_connect(frame)
            self.asked.append(request.path)
            asyncio.get_running_loop().call_soon(self.handler, self, request)
        elif frame.kind == Kind.REMOVE:
            self.removed.append(frame.id)

    def say(self, request: ConnectRequest, data: bytes) -> None:
        self.mux.receive(Frame(request.id, Kind.DATA, data).encode())

    def end(self, request: ConnectRequest) -> None:
        self.mux.receive(Frame(request.id, Kind.REMOVE).encode())

    async def ask(self, request: ConnectRequest) -> TunnelStream:
        stream = self.mux.open(request.id)
        await self.mux.send(request.frame())
        return stream


def served(edge: Edge, *, limit: float = 30.0) -> StreamServer:
    """A stream server for a cluster of this one node, which loses its patience quickly."""
    ids = iter(range(1, 1000))

    async def find(key: str) -> Edge | None:
        return edge if key == "edge-1" and not edge.mux.ended else None

    async def enter() -> SocketStream:
        raise AssertionError("nobody wants a proxy here")

    def new_id() -> int:
        return next(ids)

    first = FirstAnswer(find=find, new_id=new_id, quiet=0.02, probe=0.05, limit=limit)
    return StreamServer(find=find, new_id=new_id, node_of=lambda *pod: "edge-1", enter=enter, first=first)


LOG = ("/containerLogs/default/web/c", "")
FOLLOWED = ("/containerLogs/default/web/c", "follow=true")
PAGE = ("/stats/summary", "")
EXEC = ("/exec/default/web/c", "command=sh")
ATTACH = ("/attach/default/web/c", "")


def request(what: tuple[str, str]) -> Request:
    path, query = what
    headers = [("host", "edge-1"), ("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]
    return Request(
        "GET",
        path,
        raw_path=path,
        raw_query=query,
        headers=dict(headers),
        header_list=headers,
        peer_subject=("kube-apiserver", ()),
    )


async def ask(edge: Edge, what: tuple[str, str], *, limit: float = 30.0) -> Response:
    async with asyncio.timeout(10):
        return await served(edge, limit=limit).handle(request(what))


def lines(response: Response) -> AsyncIterator[bytes]:
    assert response.stream is not None
    return response.stream


def absent(edge: Edge, request: ConnectRequest) -> None:
    """KubeEdge's edge whose kubelet listens elsewhere."""


def healthy(edge: Edge, request: ConnectRequest) -> None:
    """A kubelet that has nothing to say but that it is there."""
    if request.path == "/healthz":
        edge.say(request, b"ok\n")
        edge.end(request)


@pytest.mark.parametrize("what", [LOG, FOLLOWED, PAGE, EXEC, ATTACH])
async def test_a_kubelet_that_is_not_there_is_said_with_what_to_check(what: tuple[str, str]) -> None:
    edge = Edge(absent)
    answer = await ask(edge, what)
    assert answer.status == 504
    assert b'node "edge-1" has a tunnel, but its kubelet does not answer' in answer.body
    assert b"curl http://127.0.0.1:10350/healthz" in answer.body
    assert edge.asked == [what[0], "/healthz"]
    assert sorted(edge.removed) == [1, 2], "the node is told that nobody waits any more"
    assert len(edge.mux) == 0


async def test_a_silent_container_is_followed_until_it_speaks() -> None:
    edge = Edge(healthy)
    answer = await ask(edge, FOLLOWED, limit=0.0)
    assert answer.status == 200
    body = lines(answer)
    edge.mux.receive(Frame(1, Kind.DATA, b"at last\n").encode())
    assert await anext(body) == b"at last\n"
    edge.mux.receive(Frame(1, Kind.DATA, b"and more\n").encode())
    assert await anext(body) == b"and more\n"
    edge.mux.receive(Frame(1, Kind.REMOVE).encode())
    assert [chunk async for chunk in body] == []


@pytest.mark.parametrize("what", [LOG, FOLLOWED, PAGE, EXEC])
async def test_an_edge_of_ours_is_not_asked_but_has_its_time_too(what: tuple[str, str]) -> None:
    edge = Edge(absent, ours=True)
    answer = await ask(edge, what, limit=0.1)
    assert answer.status == 504
    assert b"has not answered this request within 0.1 s" in answer.body
    assert edge.asked == [what[0]]
    assert edge.removed == [1]


@pytest.mark.parametrize("what", [LOG, PAGE, EXEC])
async def test_a_kubelet_that_is_there_has_its_time_and_no_more(what: tuple[str, str]) -> None:
    edge = Edge(healthy)
    answer = await ask(edge, what, limit=0.1)
    assert answer.status == 504
    assert b"has not answered this request within 0.1 s" in answer.body
    assert edge.asked.count("/healthz") > 1
    assert len(edge.mux) == 0


@pytest.mark.parametrize("probed", [False, True])
async def test_what_comes_late_is_whole(probed: bool) -> None:
    def late(edge: Edge, request: ConnectRequest) -> None:
        """Answers the request when it is asked whether it is there, and that question or not."""
        if request.path == "/healthz":
            if probed:
                edge.say(request, b"unauthorized\n")  # an error is a sign of life, too
            for part in (b"one\n", b"two\n"):
                edge.mux.receive(Frame(1, Kind.DATA, part).encode())
            edge.mux.receive(Frame(1, Kind.REMOVE).encode())

    answer = await ask(Edge(late), PAGE)
    assert answer.status == 200
    assert b"".join([chunk async for chunk in lines(answer)]) == b"one\ntwo\n"


async def test_an_upgrade_that_comes_late_is_an_upgrade() -> None:
    def late(edge: Edge, request: ConnectRequest) -> None:
        if request.path != "/healthz":
            edge.say(request, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: ")
        else:
            edge.say(request, b"ok\n")
            edge.mux.receive(Frame(1, Kind.DATA, b"SPDY/3.1\r\nConnection: Upgrade\r\n\r\n").encode())

    answer = await ask(Edge(late), EXEC)
    assert answer.status == 101
    assert answer.upgrade is not None


@pytest.mark.parametrize("what", [LOG, EXEC])
async def test_a_tunnel_that_is_lost_meanwhile_is_said(what: tuple[str, str]) -> None:
    edge = Edge(lambda edge, request: edge.mux.end())
    answer = await ask(edge, what)
    assert answer.status == 502
    assert b"the tunnel was lost" in answer.body


async def test_a_log_that_a_lost_tunnel_cuts_does_not_pass_for_whole() -> None:
    def cut(edge: Edge, request: ConnectRequest) -> None:
        edge.say(request, b"half of\n")
        edge.mux.end()

    answer = await ask(Edge(cut), LOG)
    body = lines(answer)
    assert await anext(body) == b"half of\n"
    with pytest.raises(ConnectionError, match="the tunnel was lost"):
        await anext(body)


@pytest.mark.parametrize(
    ("head", "whole"),
    [(b"Content-Length: 10", False), (b"Transfer-Encoding: chunked", False), (b"Connection: close", True)],
)
async def test_an_answer_of_ours_that_is_cut_short_does_not_pass_for_whole(head: bytes, whole: bool) -> None:
    def cut(edge: Edge, request: ConnectRequest) -> None:
        part = b"4\r\nhalf\r\n" if b"chunked" in head else b"half"
        edge.say(request, b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + part)
        edge.end(request)

    answer = await ask(Edge(cut, ours=True), LOG)
    body = lines(answer)
    assert await anext(body) == b"half"
    with pytest.raises(StopAsyncIteration if whole else ConnectionError):
        await anext(body)
