"""The tunnel's server: whose tunnel is found by what."""

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from edgehive.aio import pki
from edgehive.cloud.stream_tunnel import TunnelServer
from edgehive.cloud.tls import tunnel_context
from edgehive.wire.tunnel import ADDRESS_HEADER, NODE_HEADER, PATH


class Bench:
    """A tunnel server with a CA of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._now = datetime.datetime.now(datetime.UTC)
        self.ca = pki.create_ca("KubeEdge", self._now)
        server = pki.issue(
            self.ca,
            common_name="KubeEdge",
            organizations=("KubeEdge",),
            now=self._now,
            server=True,
            addresses=("127.0.0.1",),
        )
        self.opened: asyncio.Queue[str] = asyncio.Queue()
        self.tunnels = TunnelServer(
            tls=tunnel_context(server, self.ca.cert_pem), on_open=self.opened.put_nowait
        )
        self.port = self.tunnels.listen("127.0.0.1", 0)

    def tls(self, node: str) -> ssl.SSLContext:
        pair = pki.issue(
            self.ca,
            common_name=f"system:node:{node}",
            organizations=("system:nodes",),
            now=self._now,
            client=True,
        )
        path = self._folder / f"{node}.pem"
        path.write_bytes(pair.cert_pem + pair.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.ca.cert_pem.decode())
        context.load_cert_chain(path)
        return context

    def dial(self, node: str, address: str) -> connect:
        headers = {NODE_HEADER: node, ADDRESS_HEADER: address}
        return connect(
            f"wss://127.0.0.1:{self.port}{PATH}",
            ssl=self.tls(node),
            additional_headers=headers,
            close_timeout=1,
        )


@pytest.mark.parametrize(
    ("address", "known"),
    [("192.0.2.7", "192.0.2.7"), ("fd00::7", "fd00::7"), ("edge-2", "127.0.0.1"), ("9" * 5000, "127.0.0.1")],
)
async def test_an_edge_is_found_by_its_address_and_never_by_the_name_of_another(
    tmp_path: Path, address: str, known: str
) -> None:
    bench = Bench(tmp_path)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(bench.tunnels.run())
        async with bench.dial("edge-1", address):
            assert await bench.opened.get() == "edge-1"
            session = bench.tunnels.find("edge-1")
            assert session is not None
            assert session.hello.address == known
            assert bench.tunnels.find(known) is session
            assert bench.tunnels.find("edge-2") is None, "its commands must not go elsewhere while it is away"
        running.cancel()
