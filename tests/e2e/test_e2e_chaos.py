"""Chaos on a whole system: whatever is killed while pods come, change and go, the node ends as it should be.

``EDGEHIVE_CHAOS_SECONDS`` and ``EDGEHIVE_CHAOS_SEED`` make it longer, or another one.
"""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.containerd import Containerd, apart, why_not_apart
from tests.support.installation import Installation, eventually, installation, is_ready
from tests.support.manifests import configmap, pod

SECONDS = float(os.environ.get("EDGEHIVE_CHAOS_SECONDS", "25"))
SEED = int(os.environ.get("EDGEHIVE_CHAOS_SEED", "1"))
SCRIPT = "trap 'exit 0' TERM; while :; do sleep 0.3; done"
EDGE = "edgecore-edge-1"

pytestmark = [pytest.mark.e2e, pytest.mark.containerd, pytest.mark.timeout(240 + 2 * int(SECONDS))]


@pytest.fixture(scope="module")
def containerd() -> Iterator[Containerd]:
    if reason := why_not_apart():
        pytest.skip(reason)
    with apart() as made:
        yield made


@pytest.fixture(scope="module")
def boxed(containerd: Containerd, short_dir: Path) -> Iterator[Installation]:
    with installation(short_dir / "up", "--runtime=cri", f"--cri-socket={containerd.socket}") as made:
        made.start()
        yield made


def victim(name: str, generation: int) -> dict[str, Any]:
    """A pod with what can be left behind: volumes of three kinds, and a network of its own."""
    body = pod(name, SCRIPT)
    body["metadata"]["labels"]["generation"] = str(generation)
    spec = body["spec"]
    spec["volumes"] = [
        {"name": "config", "configMap": {"name": "shared"}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "disk", "emptyDir": {}},
    ]
    spec["containers"][0]["volumeMounts"] = [
        {"name": one["name"], "mountPath": f"/{one['name']}"} for one in spec["volumes"]
    ]
    spec["containers"][0]["resources"] = {"requests": {"cpu": "1m", "memory": "1Mi"}}
    return body


class Chaos:
    """What is wanted, what was ever there, and the blows."""

    def __init__(self, up: Installation, containerd: Containerd) -> None:
        self.up = up
        self.containerd = containerd
        self.rng = random.Random(SEED)
        self.wanted: dict[str, int] = {}
        self.config = "0"
        self.generation = 0
        self.uids: set[str] = set()
        self.done: list[str] = []
        self.reader: subprocess.Popen[bytes] | None = None

    def blow(self) -> None:
        choice = self.rng.choice(
            [
                "create",
                "create",
                "delete",
                "replace",
                "change",
                "edge",
                "cloud",
                "plane",
                "runtime",
                "shim",
                "container",
                "read",
            ]
        )
        self.done.append(choice)
        match choice:
            case "create":
                self.create(f"p{self.rng.randrange(6)}")
            case "delete":
                if self.wanted:
                    self.delete(self.rng.choice(sorted(self.wanted)))
            case "replace":
                if self.wanted:
                    self.replace(self.rng.choice(sorted(self.wanted)))
            case "change":
                self.config = str(self.rng.random())
                self.up.apply(configmap("shared", value=self.config))
            case "edge":
                self.kill(EDGE)
            case "cloud":
                self.kill("cloudcore")  # the tunnel goes with it
            case "plane":
                self.kill("control-plane")
                ready = ("get", "--raw", "/readyz")
                eventually(lambda: self.up.kubectl(*ready), seconds=90, what="the control plane is back")
            case "runtime":
                self.containerd.kill()
                self.containerd.launch()
            case "shim" | "container":
                self.kill_in_runtime(choice)
            case _:
                self.read()

    def kill(self, name: str) -> None:
        """Kill one of ours if it runs; one that is killed often is started again later and later."""
        if pid := self.up.pid(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def create(self, name: str) -> None:
        if name not in self.wanted:
            self.generation += 1
            self.wanted[name] = self.generation
            # The one before may still be on its way out: its name is free only then.
            eventually(lambda: self.try_create(name), seconds=60, what=f"{name} is made")

    def try_create(self, name: str) -> bool:
        body = json.dumps(victim(name, self.wanted[name]))
        return "created" in self.up.kubectl("create", "-f", "-", stdin=body, check=False)

    def delete(self, name: str) -> None:
        del self.wanted[name]
        grace = self.rng.choice(["--grace-period=1", "--grace-period=2"])
        self.up.kubectl("delete", "pod", name, grace, "--wait=false")

    def replace(self, name: str) -> None:
        """Another pod takes the name while the one that has it still runs on the node."""
        del self.wanted[name]
        self.up.kubectl("delete", "pod", name, "--force", "--grace-period=0", "--wait=false")
        self.create(name)

    def kill_in_runtime(self, what: str) -> None:
        socket = str(self.containerd.socket)
        listed = subprocess.run(["pgrep", "-f", f"shim.*{socket}"], capture_output=True, check=False)
        shims = [int(pid) for pid in listed.stdout.split()]
        if what == "container":
            parents = [str(pid) for pid in shims] or ["0"]
            listed = subprocess.run(["pgrep", "-P", ",".join(parents)], capture_output=True, check=False)
            shims = [int(pid) for pid in listed.stdout.split()]
        if shims:
            with suppress(ProcessLookupError):
                os.kill(self.rng.choice(shims), signal.SIGKILL)

    def read(self) -> None:
        """Follow a log that nobody reads, in the place of the one before."""
        self.stop_reading()
        if self.wanted:
            name = self.rng.choice(sorted(self.wanted))
            self.reader = subprocess.Popen(
                ["kubectl", f"--kubeconfig={self.up.layout.kubeconfig}", "logs", "-f", name],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )

    def stop_reading(self) -> None:
        if self.reader is not None:
            self.reader.kill()
            self.reader.wait()
            assert self.reader.stdout is not None
            self.reader.stdout.close()
            self.reader = None

    def put_right(self) -> list[str]:
        """What edged has found wrong when it looked again (`edge.pods_check`)."""
        log = self.up.layout.logs / f"{EDGE}.log"
        said = ("not those of the database", "the cluster shows another status")
        return [line for line in log.read_text().splitlines() if any(text in line for text in said)]

    def note(self) -> list[dict[str, Any]]:
        pods: list[dict[str, Any]] = self.up.get("pods")["items"]
        self.uids |= {one["metadata"]["uid"] for one in pods}
        return pods

    def as_wanted(self) -> bool:
        """The cluster has exactly the wanted pods, each ready."""
        pods = self.note()
        there = {one["metadata"]["name"]: int(one["metadata"]["labels"]["generation"]) for one in pods}
        return there == self.wanted and all(is_ready(one) for one in pods)

    def what_runs(self) -> tuple[int, int]:
        """Sandboxes and containers in the runtime, tasks that run."""
        containers = self.containerd.ctr("containers", "list", "-q").split()
        tasks = [line.split() for line in self.containerd.ctr("tasks", "list").splitlines()[1:]]
        return len(containers), sum(1 for task in tasks if task[-1] == "RUNNING")

    def sees_config(self) -> bool:
        """Every container has the newest configuration in its volume."""
        lines = [line.split() for line in self.containerd.ctr("tasks", "list").splitlines()[1:]]
        pids = {name: pid for name, pid, *_ in lines}
        for one in self.note():
            identity = one["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
            # The runtime's streaming server is in a network of its own: no exec from here.
            shown = Path("/proc", pids[identity], "root/config/value")
            if shown.read_text() != self.config:
                return False
        return True


def left_behind(chaos: Chaos) -> dict[str, list[str]]:
    """Whatever is still there of pods that are gone."""
    edge = next(chaos.up.root.glob("**/pods"), chaos.up.root)
    base = str(chaos.containerd.base)
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    cgroups = [
        str(path)
        for root, directories, _ in os.walk("/sys/fs/cgroup")
        for path in (Path(root, one) for one in directories)
        if any(uid in path.name for uid in chaos.uids)
    ]
    # A containerd that is killed while it starts a shim forgets it: an empty one that nobody above the CRI can know of.
    listed = subprocess.run(["pgrep", "-f", f"shim.*{base}"], capture_output=True, text=True, check=False)
    shims = [
        pid
        for pid in listed.stdout.split()
        if subprocess.run(["pgrep", "-P", pid], capture_output=True, check=False).stdout
    ]
    found = {
        "containers": chaos.containerd.ctr("containers", "list", "-q").split(),
        "tasks": chaos.containerd.ctr("tasks", "list", "-q").split(),
        "mounts of volumes": [one for one in mounts if one.startswith(f"{chaos.up.root}/")],
        "mounts of the runtime": [
            one for one in mounts if one.startswith(f"{base}/") and "/netns/" not in one
        ],
        "network namespaces": [one for one in mounts if one.startswith(f"{base}/") and "/netns/" in one],
        "cgroups": cgroups,
        "shims with processes": shims,
        "directories": [str(one) for one in edge.glob("*")] if edge.name == "pods" else [],
    }
    return {what: these for what, these in found.items() if these}


def test_after_any_disaster_the_edge_is_as_desired_and_nothing_is_left(
    boxed: Installation, containerd: Containerd
) -> None:
    chaos = Chaos(boxed, containerd)
    boxed.apply(configmap("shared", value=chaos.config))
    for number in range(3):
        chaos.create(f"p{number}")
    eventually(chaos.as_wanted, seconds=60, what="the first pods run")
    assert containerd.ctr("tasks", "list", "-q").split()
    end = time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            chaos.blow()
            chaos.note()
            time.sleep(chaos.rng.random())
        eventually(chaos.as_wanted, seconds=120, what=f"{chaos.wanted} run after {chaos.done}")
        number = len(chaos.wanted)
        eventually(
            lambda: chaos.what_runs()[1] == 2 * number,
            seconds=60,
            what=f"a sandbox and a container for each of {number}",
        )
        eventually(chaos.sees_config, seconds=90, what="the newest configuration is in every container")
    except AssertionError as exc:
        raise AssertionError(
            f"{exc}\nseed {SEED}, {chaos.done}\n{containerd.ctr('tasks', 'list')}\n{boxed.kubectl('get', 'pods', '-o', 'wide')}\n{boxed.logs()}"
        ) from exc
    finally:
        chaos.stop_reading()
    assert not chaos.put_right(), (
        "whatever happens, edged is told of it; its second look is for what nobody thought of"
    )
    chaos.create("last")
    eventually(chaos.as_wanted, seconds=60, what="one more pod runs")
    everything = {
        "containers",
        "tasks",
        "mounts of volumes",
        "network namespaces",
        "cgroups",
        "shims with processes",
        "directories",
    }
    assert everything <= left_behind(chaos).keys(), "what is looked for is found while there are pods"
    for name in list(chaos.wanted):
        chaos.delete(name)
    eventually(lambda: not chaos.note(), seconds=90, what="every pod is gone")
    boxed.kubectl("delete", "configmap", "shared")
    try:
        eventually(lambda: not left_behind(chaos), seconds=60, what="nothing is left")
    except AssertionError as exc:
        raise AssertionError(f"seed {SEED}, {chaos.done}: {left_behind(chaos)}\n{boxed.logs()}") from exc
