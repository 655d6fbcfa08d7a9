"""`python -m bench.hub`: what the hub costs, with hundreds of simulated edges on real TLS sockets.

    EDGEHIVE_BENCH_NODES       how many edges (500)
    EDGEHIVE_BENCH_ROUNDS      rounds of each measurement (3)
    EDGEHIVE_BENCH_IDLE        seconds of rest over which idle CPU is measured (20)
    EDGEHIVE_BENCH_WORKERS     cloudcore --workers (1)
    EDGEHIVE_GO_CLOUDCORE      a Go cloudcore to measure beside ours, in the same way
    EDGEHIVE_GO_CRDS           the folder of its CRDs

Both run on the embedded control plane. CPU is that of cloudcore alone. Edges, API server and cloudcore share the
machine, so that rates and times are those of the whole chain, and only CPU and memory are cloudcore's own.
"""

import asyncio
import contextlib
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench.hub_lab import Lab, cpu, resident
from edgehive.edge.fleet import Fleet, FleetSettings
from edgehive.edge.fleet_certificates import FleetCertificates
from edgehive.edge.fleet_node import FleetNode, Samples
from edgehive.kube.api import MERGE_PATCH, WriteOptions
from edgehive.kube.refs import CONFIGMAPS, PODS
from edgehive.wire.message import Message

_NAMESPACE = WriteOptions(namespace="default")
_WAIT = 120.0


class Tracker:
    """The newest version of each object that each edge has received."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], int] = {}
        self.want: dict[tuple[str, str], int] = {}
        self.messages = 0

    def tell(self, node: str, message: Message) -> None:
        if not message.resource_version.isdigit() or message.operation == "response":
            return
        self.messages += 1
        key = (node, message.resource)
        version = int(message.resource_version)
        self.seen[key] = max(version, self.seen.get(key, 0))
        if self.want.get(key, version + 1) <= version:
            del self.want[key]

    def expect(self, node: str, resource: str, version: int) -> None:
        if self.seen.get((node, resource), 0) < version:
            self.want[node, resource] = version


class Bench:
    """All measurements of one cloudcore."""

    def __init__(self, lab: Lab, *, nodes: int, rounds: int, idle: float, tells: bool) -> None:
        self._lab = lab
        self._tells = tells
        self._names = [f"b-{i:04d}" for i in range(nodes)]
        self._rounds = rounds
        self._idle = idle
        self._tracker = Tracker()
        self._pods: list[dict[str, Any]] = []
        self._configmap: dict[str, Any] = {}
        self.result: dict[str, Any] = {"nodes": nodes}

    @contextlib.asynccontextmanager
    async def _fleet(self, **settings: Any) -> AsyncIterator[Fleet]:
        server = f"https://127.0.0.1:{self._lab.https}"
        certificates = FleetCertificates(
            folder=self._lab.root / "certs", server=server, token=self._lab.token
        )
        (self._lab.root / "certs").mkdir(exist_ok=True)
        await certificates.obtain(self._names)
        for name in self._names:
            certificates.context(name)  # so that loading keys is not part of what is measured
        options = FleetSettings(host="127.0.0.1", port=self._lab.ws, tells=self._tells, **settings)
        async with Fleet(
            settings=options, names=self._names, certificates=certificates, tell=self._tracker.tell
        ) as fleet:
            yield fleet

    async def run(self) -> dict[str, Any]:
        """Everything, in order."""
        print("  connections", flush=True)
        await self._lab.start_cloud()
        await self._connections()
        self._lab.stop_cloud()
        await self._lab.start_cloud()
        print("  registrations", flush=True)
        base = await self._quiet()
        async with self._lab.watching_records(), self._fleet(lease=0.0) as fleet:
            await self._registrations(fleet, base)
            for step in (
                self._first_delivery,
                self._fan_out,
                self._burst,
                self._pod_change,
                self._node_status,
                self._pod_status,
                self._recovery,
            ):
                print(f"  {step.__name__.strip('_').replace('_', ' ')}", flush=True)
                await step(fleet)
            self.result["duplicates"] = fleet.stats.duplicates
            self.result["failures"] = fleet.stats.failures
        return self.result

    async def _quiet(self) -> float:
        """Wait until cloudcore rests; its resident memory."""
        for _ in range(15):
            before = cpu(self._lab.pids)
            await asyncio.sleep(1.0)
            if cpu(self._lab.pids) - before < 0.05:
                break
        return resident(self._lab.pids)

    async def _connections(self) -> None:
        async with self._fleet(register=False, lease=0.0, redial=(0.1, 0.5)) as fleet:
            base = await self._quiet()
            used = cpu(self._lab.pids)
            fleet.connect()
            took = await fleet.until(lambda: fleet.connected == fleet.size, seconds=_WAIT, what="connect")
            self.result["connects_per_second"] = round(fleet.size / took, 1)
            self.result["cpu_ms_per_connect"] = round((cpu(self._lab.pids) - used) / fleet.size * 1000, 2)
            after = await self._quiet()
            self.result["base_mib"] = round(base / 1024, 1)
            self.result["kib_per_connection"] = round((after - base) / fleet.size, 1)
            before = cpu(self._lab.pids)
            await asyncio.sleep(self._idle)
            self.result["idle_cpu_percent"] = round((cpu(self._lab.pids) - before) / self._idle * 100, 2)

    async def _registrations(self, fleet: Fleet, base: float) -> None:
        used = cpu(self._lab.pids)
        fleet.connect()
        took = await fleet.until(lambda: fleet.registered == fleet.size, seconds=300, what="register")
        self.result["registrations_per_second"] = round(fleet.size / took, 1)
        after = await self._quiet()
        self.result["cpu_ms_per_registration"] = round((cpu(self._lab.pids) - used) / fleet.size * 1000, 2)
        self.result["kib_per_registered_node"] = round((after - base) / fleet.size, 1)

    async def _counted(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        """Run `act`, which delivers messages; note CPU and requests for each."""
        tracker = self._tracker
        messages, used, requests = tracker.messages, cpu(self._lab.pids), await self._lab.record_requests()
        await act()
        await self._quiet_records()
        count = max(1, tracker.messages - messages)
        self._add(f"{name}_cpu_ms", (cpu(self._lab.pids) - used) / count * 1000)
        self._add(f"{name}_requests", (await self._lab.record_requests() - requests) / count)

    def _add(self, name: str, value: float) -> None:
        self.result.setdefault("rounds", {}).setdefault(name, []).append(round(value, 3))

    async def _quiet_records(self) -> None:
        before = -1
        while (now := await self._lab.record_requests()) != before:
            before = now
            await asyncio.sleep(0.8)

    async def _received(self, fleet: Fleet, what: str) -> float:
        return await fleet.until(lambda: not self._tracker.want, seconds=_WAIT, what=what)

    async def _recorded(self, versions: dict[str, int], begun: float) -> float:
        """Seconds from `begun` until every record has its version, as a watch tells it."""
        deadline = time.monotonic() + _WAIT
        found, lacking = self._lab.recorded, dict(versions)
        while True:
            lacking = {n: v for n, v in lacking.items() if found.get(n, -1) < v}
            if not lacking:
                return time.monotonic() - begun
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(lacking)} records missing, for example {list(lacking)[:3]}")
            await asyncio.sleep(0.01)

    async def _each_pod(self, act: Callable[[int], Awaitable[None]]) -> None:
        wanted = iter(range(len(self._names)))

        async def work() -> None:
            for index in wanted:
                await act(index)

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(work())

    async def _first_delivery(self, fleet: Fleet) -> None:
        api = self._lab.api
        # A service account lets the admission of a real API server take the pods; ours makes it as well.
        self._configmap = msgspec.json.decode(
            await api.create(
                CONFIGMAPS,
                msgspec.json.encode(
                    {"metadata": {"name": "bench", "namespace": "default"}, "data": {"key": "x" * 1000}}
                ),
                _NAMESPACE,
            )
        )
        self._pods = [{} for _ in self._names]

        async def create(index: int) -> None:
            node = self._names[index]
            pod = {
                "metadata": {"name": f"pod-{index:04d}", "namespace": "default"},
                "spec": {
                    "nodeName": node,
                    "automountServiceAccountToken": False,
                    "containers": [
                        {
                            "name": "main",
                            "image": "busybox",
                            "envFrom": [{"configMapRef": {"name": "bench"}}],
                        }
                    ],
                },
            }
            made = msgspec.json.decode(await api.create(PODS, msgspec.json.encode(pod), _NAMESPACE))
            self._pods[index] = made
            self._tracker.expect(
                node, f"default/pod/pod-{index:04d}", int(made["metadata"]["resourceVersion"])
            )
            self._tracker.expect(
                node, "default/configmap/bench", int(self._configmap["metadata"]["resourceVersion"])
            )

        async def act() -> None:
            begun = time.monotonic()
            await self._each_pod(create)
            self._add("first_delivery_writes_s", time.monotonic() - begun)
            if not self.result.get("go"):
                await self._received(fleet, "first delivery")
            else:  # the original may leave the ConfigMap to be asked for
                self._tracker.want = {
                    key: version for key, version in self._tracker.want.items() if "/pod/" in key[1]
                }
                await self._received(fleet, "first delivery")
            self._add("first_delivery_s", time.monotonic() - begun)

        await self._counted("first_delivery", act)

    async def _change_configmap(self, mark: str) -> int:
        body = msgspec.json.encode({"data": {"mark": mark}})
        changed = await self._lab.api.patch(CONFIGMAPS, "bench", body, MERGE_PATCH, _NAMESPACE)
        return int(msgspec.json.decode(changed)["metadata"]["resourceVersion"])

    def _configmap_records(self, version: int) -> dict[str, int]:
        uid = self._configmap["metadata"]["uid"]
        return {f"{node}.{uid}": version for node in self._names}

    async def _fan_out(self, fleet: Fleet) -> None:
        for index in range(self._rounds):

            async def act(index: int = index) -> None:
                begun = time.monotonic()
                version = await self._change_configmap(f"round {index}")
                for node in self._names:
                    self._tracker.expect(node, "default/configmap/bench", version)
                await self._received(fleet, "fan-out")
                self._add("fan_out_received_s", time.monotonic() - begun)
                if not self._tells:  # else few are recorded while their nodes are connected
                    took = await self._recorded(self._configmap_records(version), begun)
                    self._add("fan_out_recorded_s", took)

            await self._counted("fan_out", act)

    async def _burst(self, fleet: Fleet) -> None:
        """Twenty changes of one object in a second: what coalescing saves."""

        async def act() -> None:
            version = 0
            for index in range(20):
                version = await self._change_configmap(f"burst {index}")
                await asyncio.sleep(0.05)
            for node in self._names:
                self._tracker.expect(node, "default/configmap/bench", version)
            await self._received(fleet, "burst")

        await self._counted("burst", act)

    async def _annotate(self, mark: str) -> dict[str, int]:
        versions: dict[str, int] = {}

        async def change(index: int) -> None:
            body = msgspec.json.encode({"metadata": {"annotations": {"bench": mark}}})
            name = f"pod-{index:04d}"
            raw = await self._lab.api.patch(PODS, name, body, MERGE_PATCH, _NAMESPACE)
            meta = msgspec.json.decode(raw)["metadata"]
            version = int(meta["resourceVersion"])
            self._tracker.expect(self._names[index], f"default/pod/{name}", version)
            versions[f"{self._names[index]}.{meta['uid']}"] = version

        await self._each_pod(change)
        return versions

    async def _pod_change(self, fleet: Fleet) -> None:
        for index in range(self._rounds):

            async def act(index: int = index) -> None:
                await self._annotate(f"round {index}")
                await self._received(fleet, "pod change")

            await self._counted("pod_change", act)

    async def _up(self, fleet: Fleet, name: str, act: Callable[[FleetNode, float], None], key: str) -> None:
        fleet.stats.latency[key] = Samples()
        used, begun = cpu(self._lab.pids), time.monotonic()
        for _ in range(self._rounds):
            target = fleet.stats.latency[key].count + fleet.size
            fleet.each(act)
            await fleet.until(lambda t=target: fleet.stats.latency[key].count >= t, seconds=_WAIT, what=name)
        took = time.monotonic() - begun
        await self._quiet_records()
        count = fleet.size * self._rounds
        samples = fleet.stats.latency[key]
        self.result[f"{name}_cpu_ms"] = round((cpu(self._lab.pids) - used) / count * 1000, 3)
        self.result[f"{name}_per_second"] = round(count / took, 1)
        self.result[f"{name}_p50_ms"] = round(samples.quantile(0.5) * 1000, 1)

    async def _node_status(self, fleet: Fleet) -> None:
        await self._up(fleet, "node_status", FleetNode.report_status, "status")

    async def _pod_status(self, fleet: Fleet) -> None:
        await self._up(fleet, "pod_status", FleetNode.report_pods, "pod status")

    async def _recovery(self, fleet: Fleet) -> None:
        self._lab.stop_cloud(signal.SIGKILL)
        versions = await self._annotate("while cloudcore was down")
        begun = time.monotonic()
        await self._lab.start_cloud()
        self.result["recovery_ready_s"] = round(time.monotonic() - begun, 2)
        await fleet.until(lambda: fleet.connected == fleet.size, seconds=_WAIT, what="reconnect")
        connected = time.monotonic()
        self.result["recovery_connected_s"] = round(connected - begun, 2)
        await self._received(fleet, "recovery")
        self.result["recovery_received_after_connected_s"] = round(time.monotonic() - connected, 2)
        if not self._tells:
            took = await self._recorded(versions, connected)
            self.result["recovery_recorded_after_connected_s"] = round(took, 2)


_GO_EDGES = "go-edges"
_ROWS: tuple[tuple[str, str, float | None], ...] = (
    # figure, what it is, what KubeEdge needed in a lab of this class
    ("base_mib", "memory without nodes, MiB", 89.1),
    ("kib_per_connection", "memory a node, keepalive only, KiB", 157),
    ("kib_per_registered_node", "memory a node, registered, KiB", 209),
    ("idle_cpu_percent", "idle CPU, % of a core", None),
    ("connects_per_second", "connects a second", 168),
    ("cpu_ms_per_connect", "CPU a connect, ms", 3.2),
    ("registrations_per_second", "connects and registrations a second", 23.9),
    ("cpu_ms_per_registration", "CPU a connect and registration, ms", 13.9),
    ("first_delivery_cpu_ms", "CPU a first delivery, ms", 3.7),
    ("first_delivery_requests", "API requests a first delivery", 3.8),
    ("fan_out_cpu_ms", "CPU a message, fan-out, ms", 0.82),
    ("fan_out_requests", "API requests a message, fan-out", 2.0),
    ("fan_out_received_s", "one change at every node, s", 0.18),
    ("fan_out_recorded_s", "… and recorded, s", 2.19),
    ("burst_cpu_ms", "CPU a message, 20 changes in 1 s, ms", None),
    ("burst_requests", "API requests a message, 20 changes in 1 s", None),
    ("pod_change_cpu_ms", "CPU a pod change, ms", 3.84),
    ("pod_change_requests", "API requests a pod change", 2.0),
    ("node_status_cpu_ms", "CPU a node status, ms", 1.53),
    ("node_status_per_second", "node statuses a second", 122),
    ("pod_status_cpu_ms", "CPU a pod status, ms", 1.68),
    ("pod_status_per_second", "pod statuses a second", 141),
    ("recovery_ready_s", "start after kill -9, s", 3.9),
    ("recovery_connected_s", "… all nodes connected, s", 9.6),
    ("recovery_received_after_connected_s", "… then all changes received, s", 4.8),
    ("recovery_recorded_after_connected_s", "… and recorded, s", 5.2),
)


def main() -> int:
    """Run it."""
    nodes = int(os.environ.get("EDGEHIVE_BENCH_NODES", "500"))
    rounds = int(os.environ.get("EDGEHIVE_BENCH_ROUNDS", "3"))
    idle = float(os.environ.get("EDGEHIVE_BENCH_IDLE", "20"))
    workers = int(os.environ.get("EDGEHIVE_BENCH_WORKERS", "1"))
    # Edges that say at each connect what they hold, as ours do; and edges like the original's.
    subjects = [("edgehive", ""), (_GO_EDGES, "")]
    go = os.environ.get("EDGEHIVE_GO_CLOUDCORE", "")
    if go:
        subjects.append(("Go", go))
    if os.environ.get("EDGEHIVE_BENCH_ONLY"):
        subjects = [s for s in subjects if s[0].lower() == os.environ["EDGEHIVE_BENCH_ONLY"].lower()]
    result: dict[str, Any] = {
        "machine": {
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cpus": os.cpu_count(),
            "load": round(os.getloadavg()[0], 2),
        }
    }
    for name, binary in subjects:
        print(f"{name}: {nodes} nodes", flush=True)
        result[name] = _measure(name, binary, nodes, rounds, idle, workers)
    _print(result, [name for name, _ in subjects])
    path = Path(os.environ.get("EDGEHIVE_BENCH_JSON", "bench/results/hub.json"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"JSON: {path}")
    return 0


def _measure(name: str, binary: str, nodes: int, rounds: int, idle: float, workers: int) -> dict[str, Any]:
    root = Path(tempfile.mkdtemp(prefix="eb-hub-"))

    async def run() -> dict[str, Any]:
        crds = os.environ.get("EDGEHIVE_GO_CRDS", "") if binary else ""
        async with Lab(root, go=binary, go_crds=crds, workers=1 if binary else workers) as lab:
            tells = not binary and name != _GO_EDGES
            bench = Bench(lab, nodes=nodes, rounds=rounds, idle=idle, tells=tells)
            bench.result["go"] = bool(binary)
            try:
                return await bench.run()
            except (TimeoutError, RuntimeError, OSError) as exc:
                print(f"  {exc}", file=sys.stderr)
                return {**bench.result, "problem": str(exc)}

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())
    finally:
        if os.environ.get("EDGEHIVE_BENCH_KEEP"):
            print(f"  kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)


def _value(found: dict[str, Any], key: str) -> str:
    if key in found:
        return f"{found[key]:g}"
    values = sorted(found.get("rounds", {}).get(key, []))
    return f"{values[len(values) // 2]:g}" if values else "-"


def _print(result: dict[str, Any], names: list[str]) -> None:
    print(f"\n{'':<46}" + "".join(f"{name:>12}" for name in names) + f"{'KubeEdge lab':>14}")
    for key, text, known in _ROWS:
        values = "".join(f"{_value(result[name], key):>12}" for name in names)
        print(f"{text:<46}{values}{'' if known is None else f'{known:g}':>14}")


if __name__ == "__main__":
    sys.exit(main())
