"""`python -m bench.metaserver`: the Kubernetes API at the edge, measured.

    python -m bench.metaserver [--objects 1000] [--watches 200] [--churn 3000] [--json FILE] [--quick]

One `edgehive up` with the process runtime; ConfigMaps of 1 KB in one namespace; clients of MetaServer over HTTP. Memory
is edgecore's private part (USS) and what is resident (RSS). A change's latency runs from the answer to the write in the
cluster until a watch at the edge has shown it. Beside it the original, when EDGEHIVE_GO_EDGECORE names its binary: on
the same cloudcore, with edged switched off, so that MetaManager and MetaServer are what is measured.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.measure import Memory, cpu_seconds, memory_of
from edgehive.aio.kubeauth import load_kubeconfig
from edgehive.aio.kubeclient import KubeClient
from edgehive.cli.up_configs import to_yaml
from edgehive.kube.api import MERGE_PATCH, WriteOptions
from edgehive.kube.refs import CONFIGMAPS, NAMESPACES, NODES
from tests.support.installation import Installation, eventually, installation

NAMESPACE = "bench"
PATH = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
_PATIENCE = 60.0
_IN = WriteOptions(namespace=NAMESPACE)


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    objects: int
    watches: int
    churn: int
    settle: float


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m bench.metaserver", description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--watches", type=int, default=200)
    parser.add_argument(
        "--churn", type=int, default=3000, help="changes of the long run (default: %(default)s)"
    )
    parser.add_argument("--settle", type=float, default=5.0, help="seconds of rest before memory is read")
    parser.add_argument("--json", type=Path, default=Path("bench/results/metaserver.json"))
    parser.add_argument("--quick", action="store_true", help="200 objects, 20 watches, 300 changes")
    given = parser.parse_args()
    size = Size(given.objects, given.watches, given.churn, given.settle)
    if given.quick:
        size = Size(200, 20, 300, 2.0)
    result: dict[str, Any] = {"size": {"objects": size.objects, "watches": size.watches, "churn": size.churn}}
    base = Path(tempfile.mkdtemp(prefix="em-"))
    try:
        with installation(base / "up", "--runtime=process") as up:
            up.start()
            port = up.ports_from + 101
            result["edgehive"] = asyncio.run(_measure(up, "edgecore-edge-1", port, size))
            with _go_edgecore(up, base / "go") as go:
                if go is not None:
                    _print(result)
                    result["go"] = asyncio.run(_measure_pid(up, go[0], go[1], size))
    finally:
        shutil.rmtree(base, ignore_errors=True)
    _print(result)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"JSON: {given.json}")
    return 0


async def _measure(up: Installation, name: str, port: int, size: Size) -> dict[str, Any]:
    return await _measure_pid(up, up.pid(name), port, size)


async def _measure_pid(up: Installation, pid: int, port: int, size: Size) -> dict[str, Any]:
    """Everything about one MetaServer."""
    found: dict[str, Any] = {}
    url = f"http://127.0.0.1:{port}{PATH}"
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with (
        KubeClient(load_kubeconfig(up.layout.kubeconfig)) as api,
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
    ):
        await _objects(api, size.objects)
        await asyncio.sleep(size.settle)
        found["before"] = _memory(pid)
        found["first_list_ms"] = await _list(session, url, size.objects)
        await asyncio.sleep(size.settle)
        found["listed"] = _memory(pid)
        times = [await _list(session, url, size.objects) for _ in range(20)]
        found["list_ms"] = round(statistics.median(times), 1)
        async with _watching(session, url, size.watches) as seen:
            await asyncio.sleep(size.settle)
            found["watched"] = _memory(pid)
            found["latency_ms"] = await _latency(api, seen, 40)
            rounds = []
            for _ in range(5):
                begin, cpu = time.monotonic(), cpu_seconds(pid)
                behind = await _churn(api, seen, size.churn // 5)
                spent = (time.monotonic() - begin, cpu_seconds(pid) - cpu)
                await asyncio.sleep(size.settle / 2)
                more = {"seconds": round(spent[0], 1), "cpu_seconds": round(spent[1], 2), "behind": behind}
                rounds.append(_memory(pid) | more)
            found["churn"] = rounds
    await asyncio.sleep(size.settle)
    found["after"] = _memory(pid)
    return found


def _memory(pid: int) -> dict[str, float]:
    memory: Memory = memory_of(pid)
    return {"rss": memory.rss, "uss": memory.uss}


async def _objects(api: KubeClient, count: int) -> None:
    with contextlib.suppress(Exception):
        await api.create(NAMESPACES, json.dumps({"metadata": {"name": NAMESPACE}}).encode())
    for number in range(count):
        body = {"metadata": {"name": f"c{number}"}, "data": {"text": "x" * 1000}}
        with contextlib.suppress(Exception):  # it is there from the run before
            await api.create(CONFIGMAPS, json.dumps(body).encode(), _IN)


async def _list(session: aiohttp.ClientSession, url: str, least: int) -> float:
    begin = time.monotonic()
    async with session.get(url) as answer:
        items = len(json.loads(await answer.read())["items"])
    assert items >= least, f"{items} of {least}"
    return round((time.monotonic() - begin) * 1000, 1)


class Seen:
    """The last value that each watch has seen of the object that changes."""

    def __init__(self, count: int) -> None:
        self.values = [""] * count
        self.events = 0
        self.changed = asyncio.Event()

    async def until(self, value: str, least: int = 0) -> int:
        """Wait until every watch (or `least` of them) has seen `value`; return how many have not in a minute."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while self.values.count(value) < (least or len(self.values)):
                    self.changed.clear()
                    await self.changed.wait()
        return len(self.values) - self.values.count(value)


@contextlib.asynccontextmanager
async def _watching(session: aiohttp.ClientSession, url: str, count: int) -> AsyncIterator[Seen]:
    seen = Seen(count)

    async def watch(number: int, version: str) -> None:
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "3600"}
        async with session.get(url, params=query) as answer:
            async for line in answer.content:
                obj = json.loads(line)["object"]
                seen.events += 1
                seen.values[number] = (obj.get("data") or {}).get("value", "")
                seen.changed.set()

    async with session.get(url) as answer:
        version = str(json.loads(await answer.read())["metadata"].get("resourceVersion", ""))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(watch(number, version)) for number in range(count)]
        yield seen
        for task in tasks:
            task.cancel()


async def _change(api: KubeClient, name: str, value: str) -> None:
    patch = json.dumps({"data": {"value": value}}).encode()
    await api.patch(CONFIGMAPS, name, patch, MERGE_PATCH, _IN)


async def _latency(api: KubeClient, seen: Seen, count: int) -> dict[str, float]:
    """From the write's answer until the first watch, and until all of them, have shown it."""
    first, last = [], []
    for number in range(count):
        value = f"l{number}-{time.monotonic_ns()}"
        await _change(api, "c0", value)
        begin = time.monotonic()
        await seen.until(value, 1)
        first.append((time.monotonic() - begin) * 1000)
        await seen.until(value)
        last.append((time.monotonic() - begin) * 1000)
    return {
        "first_p50": round(statistics.median(first), 1),
        "all_p50": round(statistics.median(last), 1),
        "all_max": round(max(last), 1),
    }


async def _churn(api: KubeClient, seen: Seen, count: int) -> int:
    """Change objects as fast as the cluster takes it; return how many watches have not seen the last change."""
    for number in range(count):
        await _change(api, f"c{number % 100 + 1}", f"v{time.monotonic_ns()}")
    value = f"end-{time.monotonic_ns()}"
    await _change(api, "c0", value)
    return await seen.until(value)


@contextlib.contextmanager
def _go_edgecore(up: Installation, home: Path) -> Iterator[tuple[int, int] | None]:
    """The original's edgecore on this cloudcore: pid and port; None when it is not given."""
    binary = os.environ.get("EDGEHIVE_GO_EDGECORE", "")
    if not binary:
        yield None
        return
    home.mkdir(parents=True)
    command = [sys.executable, "-m", "edgehive", "gettoken", f"--kubeconfig={up.layout.kubeconfig}"]
    token = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    port = up.ports_from + 151
    files = {
        "tlsCaFile": str(home / "ca.crt"),
        "tlsCertFile": str(home / "server.crt"),
        "tlsPrivateKeyFile": str(home / "server.key"),
    }
    config = {
        "apiVersion": "edgecore.config.kubeedge.io/v1alpha2",
        "kind": "EdgeCore",
        "database": {"dataSource": str(home / "edgecore.db")},
        "modules": {
            "edgeHub": {
                "enable": True,
                "heartbeat": 15,
                "httpServer": f"https://127.0.0.1:{up.ports_from + 2}",
                "token": token,
                "websocket": {"enable": True, "server": f"127.0.0.1:{up.ports_from}"},
                **files,
            },
            "edged": {"enable": False, "hostnameOverride": "edge-go", "tailoredKubeletConfig": {}},
            "eventBus": {"enable": False},
            "deviceTwin": {"enable": False},
            "serviceBus": {"enable": False},
            "edgeStream": {"enable": False},
            "metaManager": {
                "enable": True,
                "metaServer": {"enable": True, "server": f"127.0.0.1:{port}"},
            },
        },
    }
    (home / "edgecore.yaml").write_text(to_yaml(config))
    node = {"metadata": {"name": "edge-go", "labels": {"node-role.kubernetes.io/edge": ""}}}
    up.apply(node | {"apiVersion": NODES.api_version, "kind": "Node"})
    with (home / "edgecore.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, f"--config={home / 'edgecore.yaml'}"],
            stdout=log,
            stderr=log,
            env=os.environ | {"CHECK_EDGECORE_ENVIRONMENT": "false"},
        )
        try:
            eventually(lambda: _answers(port), seconds=60, what="the original's MetaServer answers")
            yield process.pid, port
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{(home / 'edgecore.log').read_text()[-3000:]}") from exc
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _answers(port: int) -> bool:
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/version", timeout=15) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _print(result: dict[str, Any]) -> None:
    size = result["size"]
    print(f"{size['objects']} objects of 1 KB, {size['watches']} watches, {size['churn']} changes\n")
    print(f"{'':34}" + "".join(f"{who:>16}" for who in ("edgehive", "go") if who in result))

    def row(text: str, *path: str | int) -> None:
        cells = []
        for who in ("edgehive", "go"):
            if who in result:
                value: Any = result[who]
                for key in path:
                    value = value[key]
                cells.append(f"{value:16}")
        print(f"{text:34}" + "".join(cells))

    for text, key in (
        ("before any client", "before"),
        ("after the first list", "listed"),
        ("with the watches", "watched"),
        ("after the clients left", "after"),
    ):
        row(f"USS MiB, {text}", key, "uss")
        row(f"RSS MiB, {text}", key, "rss")
    for number in range(5):
        row(f"USS MiB, after {number + 1}/5 of the changes", "churn", number, "uss")
    row("first list, ms", "first_list_ms")
    row("list, ms (median of 20)", "list_ms")
    row("change to first watch, ms p50", "latency_ms", "first_p50")
    row("change to all watches, ms p50", "latency_ms", "all_p50")
    row("change to all watches, ms max", "latency_ms", "all_max")
    row("CPU s for the last fifth", "churn", 4, "cpu_seconds")
    row("watches a minute behind in the end", "churn", 4, "behind")
    print()


if __name__ == "__main__":
    sys.exit(main())
