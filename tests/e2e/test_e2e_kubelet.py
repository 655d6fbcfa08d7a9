"""What people expect of a node's agent, through the real kubectl; processes and containers."""

import json
import re
import select
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from edgehive.edge.cgroups_fs import Hierarchy
from tests.support.installation import Installation, eventually, find_kubectl
from tests.support.manifests import pod
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


# --- kubectl top --------------------------------------------------------------------------------------------

BUSY = 'trap exit TERM; while :; do n=$(( (n + 1) % 1000 )); done'  # fmt: skip


@pytest.fixture(scope="module")
def used(either: Installation) -> Installation:
    """An installation with a pod that keeps a core busy."""
    share = {"resources": {"requests": {"cpu": "500m"}}}  # it has that also when others keep the machine busy
    either.apply(pod("busy", BUSY, hostNetwork=True, terminationGracePeriodSeconds=0, container=share))
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


def test_a_viewer_may_see_what_its_pods_use(used: Installation) -> None:
    used.kubectl("create", "rolebinding", "looker", "--clusterrole=view", "--user=jane")
    eventually(
        lambda: "busy" in used.kubectl("top", "pods", "--as=jane", check=False), what="the role is there"
    )
    assert "forbidden" in used.kubectl("top", "nodes", "--as=jane", check=False)


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


def test_a_token_that_may_scrapes_nodes_through_cloudcore(used: Installation) -> None:
    """As a metrics server does: the node's name, the kubelet's port, a service account's token."""
    used.kubectl("create", "serviceaccount", "scraper")
    token = used.kubectl("create", "token", "scraper").strip()
    # Where the tunnel's server is; its certificate is not a kubelet's, so metrics servers are told not to look.
    port = used.ports_from + 3

    def scrape_as(token: str, path: str = "/metrics/resource") -> int:
        request = urllib.request.Request(
            f"https://127.0.0.1:{port}{path}", headers={"Host": f"edge-1:{port}"}
        )
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(
                request, timeout=20, context=ssl._create_unverified_context()
            ) as answer:
                return int(answer.status) if b"node_cpu_usage_seconds_total" in answer.read() else 0
        except urllib.error.HTTPError as exc:
            return int(exc.code)

    assert scrape_as("") == 403
    assert scrape_as("nonsense") == 401
    assert scrape_as(token) == 403
    used.kubectl("create", "clusterrole", "scraper", "--verb=get", "--resource=nodes/metrics")
    used.kubectl(
        "create", "clusterrolebinding", "scraper", "--clusterrole=scraper", "--serviceaccount=default:scraper"
    )
    other = used.kubectl("create", "token", "scraper").strip()  # a verdict is believed for a minute
    eventually(lambda: scrape_as(other) == 200, what="it may")
    assert scrape_as(other, "/pods") == 403


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


# --- logs with times ----------------------------------------------------------------------------------------

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z ")
TALK = "for n in 1 2 3; do echo out $n; echo err $n >&2; sleep 1.1; done; exec sleep 1000"


@pytest.fixture(scope="module")
def talker(either: Installation) -> Installation:
    """An installation with a pod of two containers; the first has said three lines on either output."""
    body = pod("talker", TALK, hostNetwork=True, terminationGracePeriodSeconds=0)
    second = {
        "name": "other",
        "image": "busybox:1.36",
        "command": ["sh", "-c", "echo from the other; sleep 1000"],
    }
    body["spec"]["containers"].append(second)
    either.apply(body)
    either.running("app=talker", 1)
    eventually(
        lambda: "err 3" in either.kubectl("logs", "talker", "-c", "main", check=False), what="it has spoken"
    )
    return either


def test_logs_have_times_and_are_chosen_by_them(talker: Installation) -> None:
    def lines(*options: str) -> list[str]:
        return talker.kubectl("logs", "talker", "-c", "main", *options).splitlines()

    stamped = lines("--timestamps")
    assert all(STAMP.match(line) for line in stamped)
    assert sorted(STAMP.sub("", line) for line in stamped) == sorted(lines())
    assert len(lines()) == 6
    times = [line.split()[0] for line in stamped]
    assert times == sorted(times)
    third = next(line.split()[0] for line in stamped if line.endswith("out 3"))
    assert sorted(lines(f"--since-time={third}")) == ["err 3", "out 3"]
    assert len(lines("--since=1h")) == 6
    assert lines("--tail=0") == []
    assert len(lines("--tail=2")) == 2
    assert len(lines("--since=1h", "--tail=1", "--timestamps")) == 1
    assert talker.kubectl("logs", "talker", "-c", "main", "--limit-bytes=5") == lines()[0][:5]
    everything = talker.kubectl("logs", "talker", "--all-containers", "--prefix").splitlines()
    assert "[pod/talker/other] from the other" in everything
    assert len(everything) == 7


def test_nothing_is_younger_than_now(talker: Installation) -> None:
    time.sleep(1.1)  # since has whole seconds
    assert talker.kubectl("logs", "talker", "-c", "main", "--since=1s") == ""


def test_previous_logs_are_those_of_the_container_before(either: Installation) -> None:
    script = "if [ -e /mnt/twice/done ]; then echo second; exec sleep 1000; fi; : >/mnt/twice/done; echo first; exit 1"
    volume = {
        "volumes": [{"name": "t", "emptyDir": {}}],
        "container": {"volumeMounts": [{"name": "t", "mountPath": "/mnt/twice"}]},
    }
    either.apply(pod("twice", script, hostNetwork=True, **volume))
    eventually(
        lambda: either.kubectl("logs", "twice", check=False) == "second\n", what="it was started again"
    )
    assert either.kubectl("logs", "twice", "--previous") == "first\n"
    assert "previous terminated container" in either.kubectl(
        "logs", "talker", "-c", "main", "-p", check=False
    )


# --- attach -------------------------------------------------------------------------------------------------


def test_attach_joins_input_and_both_outputs(either: Installation) -> None:
    script = 'while read -r x; do echo "got $x"; echo "no $x" >&2; [ "$x" = bye ] && sleep 1 && exit 3; done'
    either.apply(pod("joiner", script, hostNetwork=True, restartPolicy="Never", container={"stdin": True}))
    either.running("app=joiner", 1)
    command = [find_kubectl(), f"--kubeconfig={either.layout.kubeconfig}", "attach", "-i", "joiner"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as client:
        assert client.stdin is not None
        # containerd takes input a moment before it gives output: what is said in between is in the log alone.
        for _ in range(30):
            client.stdin.write(b"one\n")
            client.stdin.flush()
            if select.select([client.stdout], [], [], 1.0)[0]:
                break
        # Its input stays open: at the end of it containerd lets a client go.
        client.stdin.write(b"bye\n")
        client.stdin.flush()
        assert client.stdout is not None
        assert client.stderr is not None
        out, error = client.stdout.read(), client.stderr.read()
    assert client.returncode == 0
    assert out.startswith(b"got one\n")
    assert out.endswith(b"got bye\n")
    assert b"no one\n" in error
    assert error.endswith(b"no bye\n")
    eventually(lambda: either.get("pod", "joiner")["status"]["phase"] == "Failed", what="it has ended")
    assert "got bye" in either.kubectl("logs", "joiner")


def test_attach_to_a_terminal_tells_its_size_and_echoes(either: Installation) -> None:
    either.apply(pod("screen", "exec sh", hostNetwork=True, container={"stdin": True, "tty": True}))
    either.running("app=screen", 1)
    with Terminal(either, "attach", "-it", "screen", rows=37, columns=91) as terminal:
        terminal.say("echo $((6 * 7)) there\r")
        terminal.until("42 there")
        # kubectl first says one more of each, so that programs draw themselves anew.
        terminal.ask("stty size\r", "37 91")
        terminal.resize(20, 50)
        terminal.ask("stty size\r", "20 50")


def test_run_with_a_terminal_is_a_session(either: Installation) -> None:
    overrides = json.dumps({"spec": {"hostNetwork": True}})
    arguments = [
        "run",
        "session",
        "-it",
        "--rm",
        "--restart=Never",
        "--image=busybox:1.36",
        f"--overrides={overrides}",
        "--override-type=strategic",
    ]
    with Terminal(either, *arguments, "--command", "--", "sh") as terminal:
        terminal.until("press", "$", "#", "If you")
        terminal.ask("echo $((40 + 2)) here\r", "42 here")
        terminal.say("exit\r")
        terminal.until('pod "session" deleted')


# --- runtime classes ----------------------------------------------------------------------------------------


@pytest.mark.containerd
@pytest.mark.parametrize("either", ["containerd"], indirect=True)  # processes have no runtime handlers
def test_a_runtime_class_is_looked_up_in_the_cluster(either: Installation) -> None:
    body = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "gentle"},
        "handler": "other",
    }
    either.apply(body, pod("gentle", hostNetwork=True, runtimeClassName="gentle"))
    either.running("app=gentle", 1)  # the runtime has no handler of that name, so it was looked up
