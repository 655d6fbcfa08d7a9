"""Statistics of the node and its pods: what is read of /proc, how rates come about, what the pages say."""

import asyncio
import json
from pathlib import Path

import pytest

from edgehive.aio.http import Request
from edgehive.edge.kubelet_api import KubeletApi
from edgehive.edge.kubelet_stats import NodeStats
from edgehive.edge.node_probe import NodeProbe
from edgehive.edge.pods_spec import Metadata, Pod, Spec
from edgehive.edge.runtime import ContainerInfo, Interface, PodUsage, State, Usage
from edgehive.edge.stats import Rates
from edgehive.edge.stats_node import Machine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine of the test's own."""
    proc = tmp_path / "proc"
    for name in ("net", "sys/kernel"):
        (proc / name).mkdir(parents=True)
    (proc / "stat").write_text("cpu  100 20 30 9999 5 1 2 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\nbtime 1000\n")
    (proc / "meminfo").write_text(
        "MemTotal:  1000 kB\nMemFree: 300 kB\nMemAvailable: 500 kB\nInactive(file): 100 kB\nAnonPages: 250 kB\n"
        "SwapTotal: 10 kB\nSwapFree: 4 kB\n"
    )
    (proc / "vmstat").write_text("pgfault 12\npgmajfault 3\nnr_free_pages 1\n")
    (proc / "net/route").write_text(
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
        "eth1 0000010A 00000000 0001 0 0 0 00FFFFFF 0 0 0\neth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n"
    )
    (proc / "net/dev").write_text(
        "Inter-| Receive | Transmit\n face |bytes packets ...\n"
        "    lo: 9 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0\n  eth1: 5 0 0 0 0 0 0 0 6 0 0 0 0 0 0 0\n"
        "  eth0: 50 1 2 0 0 0 0 0 60 1 3 0 0 0 0 0\nveth12: 1 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\n"
    )
    (proc / "sys/kernel/pid_max").write_text("4194304\n")
    (proc / "loadavg").write_text("0.1 0.2 0.3 2/345 999\n")
    return tmp_path


def test_what_is_read_of_a_machine(root: Path) -> None:
    machine = Machine(root)
    assert machine.cpu() == (153 * 10_000_000, 1000.0), "busy ticks alone: no idling, no waiting, no stealing"
    assert machine.memory() == (700 << 10, 600 << 10, 250 << 10, 6 << 10)
    assert machine.page_faults() == (12, 3)
    assert machine.interfaces() == ([Interface("eth1", 5, 0, 6, 0), Interface("eth0", 50, 2, 60, 3)], "eth0")
    assert machine.processes() == (4194304, 345)


def test_a_machine_without_proc_has_zeros(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert (machine.cpu(), machine.memory(), machine.interfaces()) == ((0, 0.0), (0, 0, 0, 0), ([], ""))
    assert (machine.page_faults(), machine.processes()) == ((0, 0), (0, 0))


def test_rates_need_two_readings_and_never_run_backwards() -> None:
    rates = Rates()
    rates.observe({"a": (10.0, 1_000_000_000), "b": (10.0, 5)})
    assert rates.get("a") is None
    rates.observe({"a": (12.0, 2_000_000_000)})
    assert rates.get("a") == 500_000_000, "half a core"
    assert rates.get("b") is None, "it is gone"
    rates.observe({"a": (12.0, 2_000_000_000)})
    assert rates.get("a") == 500_000_000, "the same reading again tells nothing new"
    rates.observe({"a": (13.0, 1_000_000_000)})
    assert rates.get("a") == 0


class Readings:
    """A runtime that only tells usage."""

    def __init__(self) -> None:
        self.calls = 0
        self.usages: dict[str, Usage] = {}
        self.shared: dict[str, PodUsage] = {}

    async def usage(self) -> dict[str, Usage]:
        self.calls += 1
        return dict(self.usages)

    async def pod_usage(self) -> dict[str, PodUsage]:
        return self.shared


class Bench:
    """`NodeStats` over a made-up machine, with a clock of its own."""

    def __init__(self, root: Path) -> None:
        self.now = 5000.0
        self.runtime = Readings()
        self.pods: list[tuple[Pod, ContainerInfo]] = []
        self.root = root
        self.stats = NodeStats(
            node="edge-1",
            runtime=self.runtime,  # type: ignore[arg-type]
            containers=lambda: self.pods,
            probe=NodeProbe(storage=root, root=root),
            root_directory=root / "kubelet",
            wall=lambda: self.now,
            machine=Machine(root),
        )

    def add(self, name: str, cpu: int, *, state: State = State.RUNNING, host: bool = False) -> None:
        pod = Pod(
            metadata=Metadata(name=name, namespace="ns", uid=f"uid-{name}"), spec=Spec(host_network=host)
        )
        log = self.root / f"{name}.log"
        log.write_text("12345")
        info = ContainerInfo(
            f"id-{name}", "s", "c", 0, state, 4000.0, 4001.0, 0, 0, "", "", 'im"age', "i", {}, {}, str(log)
        )
        self.pods.append((pod, info))
        self.runtime.usages[info.id] = Usage(
            memory=4096, disk=100, processes=2, at=self.now, cpu=cpu, total=8192, resident=2048
        )
        self.runtime.shared[pod.uid] = PodUsage([Interface("eth0", 1, 2, 3, 4)], 5)


async def test_the_summary_has_rates_and_what_pods_use(root: Path) -> None:
    bench = Bench(root)
    bench.add("web", 1_000_000_000)
    bench.add("gone", 7, state=State.EXITED)
    bench.add("plain", 7, host=True)
    volume = root / "kubelet/pods/uid-web/volumes/kubernetes.io~empty-dir/scratch"
    volume.mkdir(parents=True)
    (volume / "f").write_bytes(b"x" * 5000)
    await bench.stats.resource_metrics()
    bench.now += 2
    bench.runtime.usages["id-web"] = Usage(memory=4096, at=bench.now, cpu=2_000_000_000, processes=2)
    (root / "proc/stat").write_text("cpu  300 20 30 9999 5 1 2 7 0 0\nbtime 1000\n")
    found = json.loads(await bench.stats.summary())
    node = found["node"]
    assert node["cpu"]["usageNanoCores"] == 1_000_000_000, "200 ticks in two seconds"
    assert node["network"]["name"] == "eth0"
    assert [one["name"] for one in node["network"]["interfaces"]] == ["eth0", "eth1"]
    assert node["rlimit"] == {"time": "1970-01-01T01:23:22Z", "maxpid": 4194304, "curproc": 345}
    assert [pod["podRef"]["name"] for pod in found["pods"]] == ["web", "plain"]
    web, plain = found["pods"]
    assert web["containers"][0]["cpu"] == {
        "time": "1970-01-01T01:23:22Z",
        "usageNanoCores": 500_000_000,
        "usageCoreNanoSeconds": 2_000_000_000,
    }
    assert web["network"]["rxBytes"] == 1
    assert "network" not in plain, "it is the node's"
    assert web["process_stats"] == {"process_count": 5}
    assert web["volume"][0]["name"] == "scratch"
    assert web["volume"][0]["usedBytes"] >= 5000
    assert web["ephemeral-storage"]["usedBytes"] >= 5005
    brief = json.loads(await bench.stats.summary(brief=True))
    assert set(brief["pods"][0]) == {"podRef", "startTime", "containers", "cpu", "memory"}
    assert bench.runtime.calls == 2, "one reading serves all who ask within a second"


async def test_a_first_summary_waits_for_a_second_reading(root: Path) -> None:
    bench = Bench(root)
    bench.add("web", 0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bench.stats.summary())
        while bench.runtime.calls < 1:
            await asyncio.sleep(0)
        bench.now += 1
    assert bench.runtime.calls == 2
    assert json.loads(task.result())["node"]["cpu"]["usageNanoCores"] == 0


async def test_counters_never_go_back_when_a_child_takes_its_share_along(root: Path) -> None:
    bench = Bench(root)
    bench.add("web", 9_000_000_000)
    await bench.stats.resource_metrics()
    bench.now += 5
    bench.runtime.usages["id-web"] = Usage(at=bench.now, cpu=1_000_000_000)
    assert b'pod="web"} 9 5005000' in await bench.stats.resource_metrics()


async def test_the_prometheus_pages(root: Path) -> None:
    bench = Bench(root)
    bench.add("web", 1_500_000_000)
    lines = (await bench.stats.resource_metrics()).decode().splitlines()
    labels = '{container="c",namespace="ns",pod="web"}'
    assert f"container_cpu_usage_seconds_total{labels} 1.5 5000000" in lines
    assert f"container_start_time_seconds{labels} 4001" in lines
    assert "node_memory_working_set_bytes 614400 5000000" in lines
    assert "# TYPE node_cpu_usage_seconds_total counter" in lines
    assert "resource_scrape_error 0" in lines
    page = (await bench.stats.cadvisor_metrics()).decode()
    assert 'image="im\\"age"' in page, "labels are escaped"
    assert (
        'container_network_receive_bytes_total{interface="eth0",namespace="ns",pod="web"} 1 5000000' in page
    )
    assert (
        'container_memory_working_set_bytes{container="",id="/",image="",name="",namespace="",pod=""} 614400'
        in page
    )


async def test_the_pages_are_made_when_first_asked_for(root: Path) -> None:
    made = []
    bench = Bench(root)

    def make() -> NodeStats:
        made.append(1)
        return bench.stats

    api = KubeletApi(runtime=bench.runtime, streams=None, wall=lambda: bench.now, stats=make)  # type: ignore[arg-type]

    async def get(path: str, method: str = "GET") -> int:
        found = await api.answer(Request(method, path))
        return found.status if found else 0

    assert (await get("/stats"), await get("/metrics"), made) == (0, 0, [])
    assert await get("/metrics/resource") == 200
    assert await get("/metrics/cadvisor") == 200
    assert (await get("/metrics/resource", "POST"), len(made)) == (0, 1)
