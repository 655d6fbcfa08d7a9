"""Processes killed and links cut at random moments while objects change: nothing is lost, nothing is stuck."""

import asyncio
import random
import signal
from contextlib import suppress
from typing import Any

import pytest

SEED = 20
# A guard against hanging: hundreds of TLS handshakes take long on a busy machine.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


async def test_cloudcore_killed_at_random_moments(cluster: Any, lab: Any) -> None:
    rng = random.Random(SEED)
    async with await cluster.fleet() as fleet:
        fleet.connect()
        await fleet.until(lambda: fleet.registered == fleet.size, seconds=20, what="register")
        await cluster.populate()
        doomed = list(cluster.nodes)
        for _ in range(5):
            for _ in range(rng.randint(1, 25)):
                await cluster.change(rng)
            lab.stop_cloud(signal.SIGKILL)
            for _ in range(10):
                await cluster.change(rng)
            await cluster.drop(doomed.pop())
            await lab.start_cloud()
            await asyncio.sleep(rng.random())
        await cluster.converged()
        assert fleet.lost_links >= fleet.size, "the kills were felt"


async def test_edges_gone_without_a_word(cluster: Any) -> None:
    """A killed edge: its socket resets, and what it had in hand is sent again."""
    rng = random.Random(SEED)
    async with await cluster.fleet() as fleet:
        fleet.connect()
        await fleet.until(lambda: fleet.registered == fleet.size, seconds=20, what="register")
        await cluster.populate()
        doomed = list(cluster.nodes)
        for _ in range(20):
            for _ in range(rng.randint(1, 10)):
                await cluster.change(rng)
            first = rng.randrange(fleet.size)
            fleet.disconnect(first, first + rng.randint(1, 4))
            if doomed and rng.random() < 0.4:
                await cluster.drop(doomed.pop())
            await asyncio.sleep(rng.random() * 0.1)
        await cluster.converged()
        assert fleet.lost_links > 20


class Proxy:
    """Forwards TCP; cuts each connection after a random number of bytes, or goes silent there."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self._port = port
        self._rng = rng
        self.hostile = True
        self.cuts = self.silences = 0
        self._server: Any = None

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Some 3,000 bytes are the handshake: cuts fall into it, into the upgrade and into messages.
        budget = [self._rng.choice((self._rng.randint(1, 4000), self._rng.randint(4000, 30_000)))]
        silent = self._rng.random() < 0.15
        out: asyncio.StreamWriter | None = None
        with suppress(OSError):
            there, out = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, out, budget, silent))
                    group.create_task(self._pump(there, writer, budget, silent))
            except* (OSError, _Cut):
                pass
        for end in (writer, out):
            if end is not None:
                end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: list[int], silent: bool
    ) -> None:
        while data := await reader.read(1 << 14):
            if self.hostile and len(data) >= budget[0]:
                writer.write(data[: budget[0]])
                if silent:
                    self.silences += 1
                    await asyncio.sleep(2.0)  # half-open: neither end hears of it
                else:
                    self.cuts += 1
                raise _Cut
            budget[0] -= len(data)
            writer.write(data)
            await writer.drain()
        raise _Cut


class _Cut(Exception):
    pass


async def test_links_cut_at_any_byte(cluster: Any, lab: Any) -> None:
    rng = random.Random(SEED)
    async with Proxy(lab.ws, rng) as proxy, await cluster.fleet(proxy.port) as fleet:
        fleet.connect()
        await cluster.populate()
        for _ in range(60):
            await cluster.change(rng)
            await asyncio.sleep(0.05)
        await cluster.drop(cluster.nodes[0])
        proxy.hostile = False
        await cluster.converged(30.0)
        assert proxy.cuts > 10
        assert proxy.silences > 0
