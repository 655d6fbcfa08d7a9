"""What people expect of a node's agent, through the real kubectl; processes and containers."""

import json
import re
import time
from pathlib import Path

import pytest

from edgehive.edge.cgroups_fs import Hierarchy
from tests.support.installation import Installation, eventually
from tests.support.manifests import pod

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


# --- kubectl top --------------------------------------------------------------------------------------------

BUSY = 'trap exit TERM; while :; do n=$(( (n + 1) % 1000 )); done'  # fmt: skip


@pytest.fixture(scope="module")
def used(either: Installation) -> Installation:
    """An installation with a pod that keeps a core busy."""
    either.apply(pod("busy", BUSY, hostNetwork=True, terminationGracePeriodSeconds=0))
    either.running("app=busy", 1)
    return either


def table(text: str) -> list[dict[str, str]]:
    """The rows of kubectl's table by the names of its columns."""
    head, *rows = text.splitlines()
    names = head.split()
    return [dict(zip(names, row.split(), strict=False)) for row in rows]


def test_top_tells_what_nodes_and_pods_use(used: Installation) -> None:
    (node,) = table(used.kubectl("top", "nodes"))
    assert node["NAME"] == "edge-1"
    assert int(node["CPU(cores)"].removesuffix("m")) > 200
    assert int(node["MEMORY(bytes)"].removesuffix("Mi")) > 20
    found = {row["NAME"]: row for row in table(used.kubectl("top", "pods"))}
    assert int(found["busy"]["CPU(cores)"].removesuffix("m")) > 200, "it keeps a core busy"
    (one,) = table(used.kubectl("top", "pod", "busy", "--containers"))
    assert (one["POD"], one["NAME"]) == ("busy", "main")
    assert table(used.kubectl("top", "pods", "-l", "app=busy"))[0]["NAME"] == "busy"
    assert "No resources found" in used.kubectl("top", "pods", "-l", "app=none", check=False)
    assert "not found" in used.kubectl("top", "pod", "absent", check=False)


def test_the_metrics_api_is_there_for_other_clients_too(used: Installation) -> None:
    assert "metrics.k8s.io/v1beta1" in used.kubectl("api-versions")
    made = used.get("pods.metrics.k8s.io", "busy")
    assert made["kind"] == "PodMetrics"
    assert re.fullmatch(r"\d+s", made["window"])
    assert {one["name"] for one in made["containers"]} == {"main"}
    assert "edge-1" in used.kubectl("get", "nodes.metrics.k8s.io")
    refused = used.kubectl("delete", "nodes.metrics.k8s.io", "edge-1", check=False)
    assert "MethodNotAllowed" in refused or "does not allow this method" in refused


SAMPLE = re.compile(r"^([a-z_]+)(?:\{([^}]*)\})? ([0-9.e+-]+)(?: ([0-9]+))?$")


def scrape(made: Installation) -> dict[tuple[str, str], tuple[float, int]]:
    """``/metrics/resource`` as a metrics server scrapes it: value and time of each series."""
    page = made.kubectl("get", "--raw", "/api/v1/nodes/edge-1/proxy/metrics/resource")
    found = {}
    for line in page.splitlines():
        if line and not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            found[match[1], match[2] or ""] = (float(match[3]), int(match[4] or 0))
    return found


def test_a_metrics_server_gets_what_it_computes_from(used: Installation) -> None:
    labels = 'container="main",namespace="default",pod="busy"'
    first = scrape(used)
    time.sleep(1.2)  # a reading is shared for a second
    second = scrape(used)
    for name, key in (("node_cpu_usage_seconds_total", ""), ("container_cpu_usage_seconds_total", labels)):
        (before, at), (after, then) = first[name, key], second[name, key]
        rate = (after - before) / ((then - at) / 1000)
        assert 0.2 < rate < 64, name
    assert first["node_memory_working_set_bytes", ""][0] > 1 << 20
    assert first["container_memory_working_set_bytes", labels][0] > 1 << 14
    assert 0 <= time.time() - first["container_start_time_seconds", labels][0] < 600
    assert second["resource_scrape_error", ""][0] == 0


def test_the_summary_and_the_cadvisor_page(used: Installation) -> None:
    raw = used.kubectl("get", "--raw", "/api/v1/nodes/edge-1/proxy/stats/summary")
    summary = json.loads(raw)
    assert summary["node"]["nodeName"] == "edge-1"
    assert summary["node"]["fs"]["capacityBytes"] > summary["node"]["fs"]["availableBytes"] > 0
    (busy,) = [one for one in summary["pods"] if one["podRef"]["name"] == "busy"]
    assert busy["podRef"]["uid"] == used.get("pod", "busy")["metadata"]["uid"]
    assert busy["containers"][0]["memory"]["workingSetBytes"] > 0
    assert busy["process_stats"]["process_count"] >= 1
    page = used.kubectl("get", "--raw", "/api/v1/nodes/edge-1/proxy/metrics/cadvisor")
    assert re.search(
        r'container_cpu_usage_seconds_total\{container="main",cpu="total",.*pod="busy"\} \d', page
    )
    assert re.search(r"^machine_cpu_cores \d+$", page, re.MULTILINE)


def test_a_node_that_does_not_answer_is_left_out_in_time(used: Installation) -> None:
    used.kubectl(
        "apply",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ghost"}}),
    )
    try:
        rows = {row["NAME"]: row for row in table(used.kubectl("top", "nodes", seconds=30))}
        assert rows["edge-1"]["CPU(cores)"].endswith("m")
        assert rows.get("ghost", {}).get("CPU(cores)", "<unknown>") == "<unknown>"
    finally:
        used.kubectl("delete", "node", "ghost")


# --- cgroups ------------------------------------------------------------------------------------------------


def cgroups_of(made: Installation, name: str) -> dict[str, str]:
    """Where a pod's command is: the path in each hierarchy, ``""`` for cgroup v2."""
    lines = made.kubectl("exec", name, "--", "cat", "/proc/self/cgroup").splitlines()
    return {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines}


def setting(paths: dict[str, str], controller: str, v1: str, v2: str) -> str:
    """One file of the cgroup above a container's: its pod's."""
    base = Path("/sys/fs/cgroup") if controller not in paths else Path("/sys/fs/cgroup") / controller
    where = base / Path(paths.get(controller, paths.get("", "/"))).parent.relative_to("/")
    return (where / (v1 if controller in paths else v2)).read_text().strip()


def test_requests_and_limits_are_cgroups_of_the_pod_and_the_container(either: Installation) -> None:
    if not Hierarchy().writable():
        pytest.skip("the cgroups of this machine cannot be written")
    amounts = {"cpu": "500m", "memory": "64Mi"}
    either.apply(
        pod("sure", hostNetwork=True, container={"resources": {"limits": amounts}}),
        pod("burst", hostNetwork=True, container={"resources": {"requests": {"cpu": "250m"}}}),
        pod("rest", hostNetwork=True),
    )
    for name, qos in (("sure", ""), ("burst", "burstable/"), ("rest", "besteffort/")):
        (found,) = either.running(f"app={name}", 1)
        paths = cgroups_of(either, name)
        where = paths.get("memory", paths.get("", ""))
        assert where.startswith(f"/kubepods/{qos}pod{found['metadata']['uid']}/"), where
    sure = cgroups_of(either, "sure")
    assert setting(sure, "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert setting(sure, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    own = (
        {"memory": f"{sure['memory']}/x", "cpu": f"{sure['cpu']}/x"}
        if "memory" in sure
        else {"": f"{sure['']}/x"}
    )
    assert setting(own, "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20), (
        "the container's own"
    )
    assert setting(own, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    scores = [
        int(either.kubectl("exec", n, "--", "cat", "/proc/self/oom_score_adj")) for n in ("burst", "rest")
    ]
    assert scores == [999, 1000]
    uid = either.get("pod", "sure")["metadata"]["uid"]
    either.kubectl("delete", "pod", "sure", "burst", "rest")
    everywhere = [root / f"kubepods/pod{uid}" for root in Hierarchy().controllers()]
    eventually(lambda: not any(d.exists() for d in everywhere), what="its cgroups are gone")


def test_a_container_that_takes_too_much_memory_is_killed_for_it(either: Installation) -> None:
    if not Hierarchy().writable():
        pytest.skip("the cgroups of this machine cannot be written")
    greedy = "x=$(head -c 90000000 /dev/zero | tr '\\0' x); echo ${#x}; sleep 1000"
    either.apply(
        pod("greedy", greedy, hostNetwork=True, restartPolicy="Never",
            container={"resources": {"limits": {"memory": "32Mi"}}})
    )  # fmt: skip

    def reason() -> str:
        (one,) = either.get("pod", "greedy")["status"].get("containerStatuses", [{}])
        return str(one.get("state", {}).get("terminated", {}).get("reason", ""))

    assert eventually(reason, what="it ends") == "OOMKilled"
