"""What people expect of a node's agent, through the real kubectl; processes and containers."""

import json
import re
import time

import pytest

from tests.support.installation import Installation
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
