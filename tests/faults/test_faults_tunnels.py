"""Logs and exec with `--workers`: a node's tunnel may be at one worker, and the request at another."""

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from bench.hub_lab import Lab, free_ports
from edgehive.aio.kubeauth import load_kubeconfig
from edgehive.aio.rawhttp import SocketStream
from edgehive.aio.rawhttp import ask as http_ask
from edgehive.aio.tunnel import TunnelMux, TunnelStream
from edgehive.edge.fleet_certificates import FleetCertificates
from edgehive.kit.errors import EdgehiveError
from edgehive.kube.api import WriteOptions
from edgehive.kube.refs import PODS
from edgehive.wire.tunnel import (
    ADDRESS_HEADER,
    NODE_HEADER,
    PATH,
    WINDOW,
    WINDOW_HEADER,
    Frame,
    parse_connect,
    parse_window,
)

pytestmark = pytest.mark.e2e

NODES = [f"t-{i}" for i in range(8)]


class Edge:
    """An edge's end of the tunnel: answers every request with its name, echoes what is upgraded."""

    def __init__(self, name: str, lab: Lab, tls: ssl.SSLContext) -> None:
        self.name = name
        self._lab = lab
        self._tls = tls
        self.up = asyncio.Event()

    async def run(self) -> None:
        url = f"wss://127.0.0.1:{self._lab.tunnel}{PATH}"
        headers = {NODE_HEADER: self.name, ADDRESS_HEADER: "192.0.2.7", WINDOW_HEADER: str(WINDOW)}
        while True:
            try:
                async with connect(url, ssl=self._tls, additional_headers=headers, close_timeout=1) as socket:
                    await self._serve(socket)
            except* (OSError, WebSocketException):
                pass  # its worker is gone
            self.up.clear()
            await asyncio.sleep(0.1)

    async def _serve(self, socket: Any) -> None:
        async with asyncio.TaskGroup() as group:
            mux = TunnelMux(
                send=lambda data: socket.send(data, text=True),
                post=lambda data: group.create_task(socket.send(data, text=True)),
                peer_window=parse_window(socket.response.headers[WINDOW_HEADER]),
                on_connect=lambda frame, stream: group.create_task(self._answer(frame, stream)) and None,
            )
            self.up.set()
            while True:
                mux.receive(await socket.recv(decode=False))

    async def _answer(self, frame: Frame, stream: TunnelStream) -> None:
        request = parse_connect(frame)
        if request.path.startswith("/exec/"):
            await stream.write(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
            )
            while data := await stream.read():
                await stream.write(data)
        else:
            body = f"{self.name} {request.path}".encode() * 20_000
            head = f"HTTP/1.1 203 Said\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            await stream.write(head + body)
        stream.close()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path / "lab", workers=2) as made:
        made.tunnel, made.stream = free_ports(2)  # type: ignore[attr-defined]
        made.modules = {
            "cloudStream": {"enable": True, "tunnelPort": made.tunnel, "streamPort": made.stream}  # type: ignore[attr-defined]
        }
        await made.start_cloud()
        yield made


def api_server(lab: Lab) -> ssl.SSLContext:
    """An administrator of the cluster, whom the stream server trusts."""
    kube = load_kubeconfig(str(lab.kubeconfig))
    path = lab.root / "admin.pem"
    path.write_bytes(kube.cert_pem + kube.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(path)
    return context


async def ask(lab: Any, tls: ssl.SSLContext, node: str) -> tuple[int, bytes]:
    """One request on a connection of its own, which the kernel deals to some worker."""
    async with asyncio.timeout(20):
        stream = await SocketStream.connect("127.0.0.1", lab.stream, tls=tls)
        headers = [("Host", node), ("Connection", "close")]
        answer = await http_ask(stream, "GET", "/stats/summary", headers)
        return answer.status, b"".join([chunk async for chunk in answer.body()])


def expected(node: str) -> bytes:
    return f"{node} /stats/summary".encode() * 20_000


async def test_every_worker_finds_every_tunnel(lab: Any) -> None:
    folder = lab.root / "certs"
    folder.mkdir()
    certificates = FleetCertificates(folder=folder, server=f"https://127.0.0.1:{lab.https}", token=lab.token)
    await certificates.obtain(NODES)
    edges = [Edge(name, lab, certificates.context(name)) for name in NODES]
    tls = api_server(lab)
    spec = {
        "nodeName": NODES[0],
        "automountServiceAccountToken": False,
        "containers": [{"name": "c", "image": "i"}],
    }
    pod = msgspec.json.encode({"metadata": {"name": "p"}, "spec": spec})
    await lab.api.create(PODS, pod, WriteOptions(namespace="default"))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(edge.run()) for edge in edges]
        async with asyncio.timeout(20):
            for edge in edges:
                await edge.up.wait()
            while not all([(await quietly(lab, tls, node))[0] == 203 for node in NODES]):
                await asyncio.sleep(0.1)
        for _ in range(3):
            for node in NODES:
                status, body = await ask(lab, tls, node)
                assert (status, len(body)) == (203, len(expected(node)))
                assert body == expected(node)
        assert (await ask(lab, tls, "nobody"))[0] == 503
        for _ in range(4):
            assert await echoed(lab, tls, NODES[0]) == b"to the node and back"
        # The tunnels of one worker are lost with it, and open again wherever the kernel deals them.
        workers = [
            int(pid)
            for pid in Path(f"/proc/{lab.cloud.pids[0]}/task/{lab.cloud.pids[0]}/children")
            .read_text()
            .split()
        ]
        os.kill(workers[0], signal.SIGKILL)
        async with asyncio.timeout(30):
            while not all([(await quietly(lab, tls, node)) == (203, expected(node)) for node in NODES]):
                await asyncio.sleep(0.2)
        for task in tasks:
            task.cancel()


async def echoed(lab: Any, tls: ssl.SSLContext, node: str) -> bytes:
    """What comes back over an upgraded connection, the same way as an exec's."""
    async with asyncio.timeout(20):
        stream = await SocketStream.connect("127.0.0.1", lab.stream, tls=tls)
        headers = [("Host", node), ("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")]
        # What a client sends along with its request is not lost either.
        answer = await http_ask(stream, "POST", "/exec/default/p/c", headers, b"to the node ")
        assert answer.status == 101
        await stream.write(b"and back")
        got = answer.rest
        while len(got) < 20:
            got += await stream.read()
        stream.close()
        return got


async def quietly(lab: Any, tls: ssl.SSLContext, node: str) -> tuple[int, bytes]:
    try:
        return await ask(lab, tls, node)
    except (OSError, TimeoutError, EdgehiveError):
        return 0, b""
