"""`cloudcore --workers`, `edgehive fleet` and `edgehive trace`, as a person meets them: real processes and sockets."""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench.hub_lab import Lab

pytestmark = pytest.mark.e2e


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path / "lab", workers=2) as made:
        made.edgehive = {"delivery": {"recordRate": 0}}
        await made.start_cloud()
        yield made


async def get(lab: Lab, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.monitor)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


async def eventually(check: Any, seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.05)


async def command(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgehive", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def ready(lab: Lab) -> bool:
    try:
        return (await get(lab, "/readyz"))[0] == 200
    except OSError:
        return False


async def test_workers_share_the_nodes_and_lose_nothing_when_one_is_killed(cluster: Any, lab: Lab) -> None:
    rng = random.Random(3)
    await eventually(lambda: ready(lab))
    async with await cluster.fleet() as fleet:
        fleet.connect()
        await fleet.until(lambda: fleet.registered == fleet.size, seconds=20, what="register")
        await cluster.populate()
        _, text = await get(lab, "/metrics")
        counts = [
            int(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith("KubeEdge_CloudHub_connected_nodes{")
        ]
        assert len(counts) == 2
        assert sum(counts) == fleet.size
        assert text.count("# TYPE KubeEdge_CloudHub_connected_nodes gauge") == 1
        assert lab.cloud is not None
        os.kill(children(lab.cloud.pids[0])[0], signal.SIGKILL)
        for _ in range(15):
            await cluster.change(rng)
        await cluster.drop(cluster.nodes[0])
        await cluster.converged()

        async def restarted() -> bool:
            return "edgehive_worker_restarts_total 1\n" in (await get(lab, "/metrics"))[1]

        await eventually(restarted)
        await eventually(lambda: ready(lab))


async def test_workers_end_with_their_parent(lab: Lab) -> None:
    await eventually(lambda: ready(lab))
    assert lab.cloud is not None
    workers = children(lab.cloud.pids[0])
    assert len(workers) == 2
    lab.cloud.stop(signal.SIGKILL)

    async def gone() -> bool:
        return not any(map(is_alive, workers))

    await eventually(gone)
    await lab.start_cloud()
    await eventually(lambda: ready(lab))
    workers = children(lab.cloud.pids[0])
    lab.stop_cloud()
    assert not any(map(is_alive, workers)), "SIGTERM leaves nobody behind"


async def test_a_second_one_does_not_take_half_of_the_edges(lab: Lab) -> None:
    config = lab.root / "cloudcore.yaml"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgehive", "cloudcore", f"--config={config}", "--workers=2"),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        _, error = await process.communicate()
    assert process.returncode == 1
    assert "another cloudcore may be running" in error.decode()


async def test_the_fleet_and_a_trace_from_the_command_line(lab: Lab) -> None:
    await eventually(lambda: ready(lab))
    cloud = f"127.0.0.1:{lab.ws}"
    code, out = await command(
        "fleet", "--nodes=5", f"--cloud={cloud}", f"--https-port={lab.https}", "--seconds=1.5",
        f"--kubeconfig={lab.kubeconfig}", "--status=0.5", "-o=json",
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert (found["connected"], found["registered"], found["failures"]) == (5, 5, 0)
    assert found["acknowledged"] >= 5, "each has been sent its Node"
    assert found["request_milliseconds"]["status"]["count"] >= 5
    trace = ("trace", f"--kubeconfig={lab.kubeconfig}", f"--monitor=127.0.0.1:{lab.monitor}")
    code, out = await command(*trace, "node/fleet-0003", "-o=json")
    row = json.loads(out)["nodes"][0]
    assert row["node"] == "fleet-0003"
    assert row["connected"] is False, "the fleet has gone"
    assert row["recorded"] > 0
    code, out = await command(*trace, "pod/nobody")
    assert code == 1
