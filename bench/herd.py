"""`python -m bench.herd`: ten thousand edges that come back at once, and a hundred that never left.

    EDGEHIVE_HERD_NODES        how many come back (10000)
    EDGEHIVE_HERD_PROCESSES    fleet processes they are in (2)
    EDGEHIVE_HERD_INSIDE       edges that stay connected meanwhile, and report their status (100)
    EDGEHIVE_HERD_PARALLEL     edgehive.admission.parallel of cloudcore (64)

First the herd's processes are killed and started again, so that all of it dials while the others go on; then
cloudcore is. Needs a hard limit of open files above the number of nodes (`ulimit -Hn`).
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.hub_lab import Lab, Process, cpu, resident
from edgehive.aio.limits import allow_open_files
from edgehive.edge.fleet import Fleet, FleetSettings
from edgehive.edge.fleet_certificates import FleetCertificates

_WAIT = 600.0
_DIALS = 1_000
"""At once in one process: more, and it would be too slow for its own handshakes, as no single edge is."""


class Herd:
    """The processes of the herd."""

    def __init__(self, lab: Lab, *, nodes: int, processes: int) -> None:
        self._lab = lab
        self._share = nodes // processes
        self._processes = processes
        self._running: list[Process] = []
        token = lab.root / "token"
        token.touch(mode=0o600)
        token.write_text(lab.token)

    @property
    def size(self) -> int:
        """How many nodes it has."""
        return self._share * self._processes

    def start(self) -> None:
        """All of it dials at once."""
        lab = self._lab
        for index in range(self._processes):
            command = [
                sys.executable, "-m", "edgehive", "fleet", f"--nodes={self._share}", f"--prefix=herd{index}",
                f"--cloud=127.0.0.1:{lab.ws}", f"--https-port={lab.https}", f"--token-file={lab.root / 'token'}",
                f"--state={lab.root / f'herd{index}'}", f"--parallel={min(self._share, _DIALS)}", "--no-register",
            ]  # fmt: skip
            self._running.append(Process(command, lab.root / f"herd{index}.log"))

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Gone without a word, unless `number` is gentler."""
        for process in self._running:
            process.stop(number)
        self._running.clear()

    def failed_dials(self) -> int:
        """What the last lines of the processes' logs say."""
        total = 0
        for index in range(self._processes):
            text = (self._lab.root / f"herd{index}.log").read_text(errors="replace")
            line = next((x for x in reversed(text.splitlines()) if "connected" in x), "")
            total += int(line.partition("dials failed ")[2].split(" ")[0] or 0)
        return total


async def _connected(lab: Lab, count: int) -> float:
    """Seconds until so many are connected; a cloudcore that is busy or away answers later."""
    begun = time.monotonic()
    while time.monotonic() - begun < _WAIT:
        try:
            if await lab.metric("KubeEdge_CloudHub_connected_nodes") >= count:
                return time.monotonic() - begun
        except (OSError, LookupError):
            pass
        await asyncio.sleep(0.2)
    raise TimeoutError(f"{count} nodes were not connected within {_WAIT:.0f} s")


async def _gone(lab: Lab, count: int) -> None:
    while await lab.metric("KubeEdge_CloudHub_connected_nodes") > count:
        await asyncio.sleep(0.2)


async def _measure(lab: Lab, herd: Herd, inside: Fleet) -> dict[str, Any]:
    result: dict[str, Any] = {"nodes": herd.size, "inside": inside.size}
    herd.start()
    await _connected(lab, herd.size + inside.size)  # joins, too: certificates are made
    await asyncio.sleep(5.0)
    result["cloudcore_mib"] = round(resident(lab.pids) / 1024)
    herd.stop()
    await _gone(lab, inside.size)
    await asyncio.sleep(5.0)
    inside.stats.latency.clear()
    lost, used = inside.lost_links, cpu(lab.pids)
    herd.start()
    # What python and the keys of thousands of certificates take to load is not the cloud's doing.
    await _connected(lab, inside.size + 1)
    result["all_back_seconds"] = round(await _connected(lab, herd.size + inside.size), 1)
    result["cloudcore_cpu_seconds"] = round(cpu(lab.pids) - used, 1)
    result["lost_inside"] = inside.lost_links - lost
    status = inside.stats.latency.get("status")
    if status is not None:
        result["status_inside_ms"] = {f"p{q}": round(status.quantile(q / 100) * 1000) for q in (50, 99)}
    result["entering_most"] = await lab.metric("edgehive_hub_entering_most")
    await asyncio.sleep(6.0)
    result["failed_dials"] = herd.failed_dials()
    before = herd.failed_dials()
    lab.stop_cloud(signal.SIGKILL)
    await lab.start_cloud()
    result["all_back_after_a_crash_seconds"] = round(await _connected(lab, herd.size + inside.size), 1)
    await asyncio.sleep(6.0)
    # Those who dialled while there was nobody to answer.
    result["failed_dials_after_a_crash"] = herd.failed_dials() - before
    used = cpu(lab.pids)
    await asyncio.sleep(20.0)
    result["idle_cpu_percent"] = round((cpu(lab.pids) - used) / 20 * 100, 1)
    return result


async def _run(root: Path) -> dict[str, Any]:
    number = {
        name: int(os.environ.get(f"EDGEHIVE_HERD_{name}", default))
        for name, default in (("NODES", 10_000), ("PROCESSES", 2), ("INSIDE", 100), ("PARALLEL", 64))
    }
    async with Lab(root) as lab:
        lab.edgehive = {"admission": {"parallel": number["PARALLEL"]}}
        await lab.start_cloud()
        herd = Herd(lab, nodes=number["NODES"], processes=number["PROCESSES"])
        names = [f"inside-{i:03d}" for i in range(number["INSIDE"])]
        folder = root / "certs"
        folder.mkdir()
        certificates = FleetCertificates(
            folder=folder, server=f"https://127.0.0.1:{lab.https}", token=lab.token
        )
        await certificates.obtain(names)
        settings = FleetSettings(host="127.0.0.1", port=lab.ws, keepalive=5.0, lease=0.0, status=5.0)
        try:
            async with Fleet(settings=settings, names=names, certificates=certificates) as inside:
                inside.connect()
                await inside.until(lambda: inside.registered == inside.size, seconds=60, what="register")
                return await _measure(lab, herd, inside)
        finally:
            herd.stop()


def main() -> int:
    """Measure and print."""
    allow_open_files()
    root = Path(tempfile.mkdtemp(prefix="edgehive-herd-"))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print(json.dumps(runner.run(_run(root)), indent=2))
    except BaseException:
        print(f"what happened is in {root}", file=sys.stderr)
        raise
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
