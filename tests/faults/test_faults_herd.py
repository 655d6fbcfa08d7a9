"""A herd of edges that come at once: they wait their turn, and those who are inside notice nothing."""

import asyncio
from typing import Any

import pytest

from edgehive.edge.fleet import Fleet, FleetSettings

# A guard against hanging: hundreds of TLS handshakes take long on a busy machine.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

HERD = 300


async def test_three_hundred_at_once_are_let_in_eight_by_eight(cluster: Any) -> None:
    lab = cluster.lab
    lab.stop_cloud()
    lab.hub = {"keepaliveInterval": 5}
    lab.edgehive = {**lab.edgehive, "admission": {"parallel": 8}}
    await lab.start_cloud()
    names = [f"herd-{i:03d}" for i in range(HERD)]
    certificates = cluster.certificates()
    await certificates.obtain(names)
    for name in names:
        certificates.context(name)
    settings = FleetSettings(
        host="127.0.0.1", port=lab.ws, parallel=HERD, register=False, lease=0.0, keepalive=1.0
    )
    herd = Fleet(settings=settings, names=names, certificates=certificates)
    # Who is inside speaks every second, and would be dropped after five of silence.
    async with await cluster.fleet(keepalive=1.0) as inside:
        inside.connect()
        await inside.until(lambda: inside.registered == inside.size, seconds=20, what="register")
        async with herd:
            herd.connect()
            await herd.until(lambda: herd.connected == HERD, seconds=40, what="the herd")
            assert herd.refused == 0, f"nobody is refused for the crowd's sake: {herd.problem}"
            assert inside.lost_links == 0, "who was inside has noticed nothing"
        assert await lab.metric("edgehive_hub_entering_most") <= 8
        async with asyncio.timeout(10):
            while await lab.metric("KubeEdge_CloudHub_connected_nodes") != inside.size:
                await asyncio.sleep(0.05)


async def test_who_says_nothing_holds_up_nobody(cluster: Any) -> None:
    lab = cluster.lab
    lab.stop_cloud()
    lab.edgehive = {**lab.edgehive, "admission": {"parallel": 2}}
    await lab.start_cloud()
    silent = [await asyncio.open_connection("127.0.0.1", lab.ws) for _ in range(10)]
    async with await cluster.fleet() as fleet:
        fleet.connect()
        await fleet.until(lambda: fleet.connected == fleet.size, seconds=20, what="connect")
    for _, writer in silent:
        writer.close()
