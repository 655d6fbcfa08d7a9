"""Chaos on real runtimes: edged, commands, shims and containerd are killed while pods come and go."""

import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.containerd import Containerd, why_not
from tests.support.edged_host import EdgedProcess
from tests.support.fakemeta import container, make_pod

STEPS = int(os.environ.get("EDGEHIVE_CHAOS_STEPS", "14"))
SEED = int(os.environ.get("EDGEHIVE_CHAOS_SEED", "1"))


@pytest.fixture
def containerd() -> Iterator[Containerd]:
    if reason := why_not():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="ehx") as directory:
        server = Containerd(Path(directory) / "d")
        try:
            server.start()
            yield server
        finally:
            server.stop()


def pod(number: int, generation: int) -> dict[str, Any]:
    script = "trap 'exit 0' TERM; while :; do sleep 0.2; done"
    name = f"p{number}"
    volumes = [{"name": "v", "configMap": {"name": "cm"}}, {"name": "s", "secret": {"secretName": "sec"}}]
    mounts = [{"name": "v", "mountPath": "/v"}, {"name": "s", "mountPath": "/s"}]
    one = container("c", script, volumeMounts=mounts)
    return make_pod(name, one, volumes=volumes, uid=f"uid-{name}-{generation}")


def victims(edged: EdgedProcess, containerd: Containerd | None) -> list[int]:
    """Commands of containers, and the shims that hold them."""
    found = []
    if containerd is None:
        for directory in (edged.base / "root" / "process" / "containers").glob("*"):
            for name in ("pid", "shim"):
                with suppress(OSError, ValueError, IndexError):
                    found.append(int((directory / name).read_text().split()[0]))
        return found
    listed = subprocess.run(["pgrep", "-f", str(containerd.socket)], capture_output=True, check=False)
    server = containerd.process.pid if containerd.process else 0
    for shim in (int(pid) for pid in listed.stdout.split() if int(pid) != server):
        children = subprocess.run(["pgrep", "-P", str(shim)], capture_output=True, check=False)
        found += [shim, *(int(pid) for pid in children.stdout.split())]
    return found


def strike(rng: random.Random, edged: EdgedProcess, containerd: Containerd | None) -> None:
    match rng.choice(["pods", "pods", "edged", "victim", "victim", "runtime", "config"]):
        case "pods":
            live = {int(one["metadata"]["name"][1:]): one for one in edged.want["pods"]}
            for number in range(5):
                if rng.random() < 0.4:
                    live.pop(number, None)
                elif rng.random() < 0.5:
                    live[number] = pod(number, rng.randrange(1000))
            edged.want["pods"] = list(live.values())
            edged.write()
        case "edged":
            edged.kill()
            edged.start()
        case "victim":
            if found := victims(edged, containerd):
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(found), signal.SIGKILL)
        case "runtime":
            if containerd is not None:
                containerd.kill()
                containerd.launch()
        case _:
            edged.want["objects"][0][3]["data"]["a"] = str(rng.random())
            edged.write()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["process", pytest.param("containerd", marks=pytest.mark.containerd)])
def test_after_any_disaster_the_node_is_as_it_should_be(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    containerd = request.getfixturevalue("containerd") if kind == "containerd" else None
    edged = EdgedProcess(tmp_path / "e", containerd.endpoint if containerd else "process://")
    edged.want["objects"] = [
        ["configmap", "default", "cm", {"data": {"a": "1"}}],
        ["secret", "default", "sec", {"data": {"x": "eA=="}}],
    ]
    edged.want["pods"] = [pod(n, 0) for n in range(3)]
    edged.write()
    edged.start()
    rng = random.Random(SEED)
    try:
        for _ in range(STEPS):
            strike(rng, edged, containerd)
            time.sleep(rng.random() * 0.5)
        edged.kill()  # the statuses that count are those of the last one
        edged.start()
        names = sorted(one["metadata"]["name"] for one in edged.want["pods"])
        keys = sorted(f"default/{name}" for name in names)
        edged.wait("exactly the desired pods", lambda: sorted(edged.here() or ["?"]) == keys or not keys, 60)

        def all_run() -> bool:
            return all(edged.status(name).get("phase") == "Running" for name in names)

        edged.wait("all Running", all_run, 60)
        edged.want["pods"] = []
        edged.write()
        edged.wait("all gone", lambda: edged.here() == [], 60)
    finally:
        edged.kill()
    assert str(edged.base) not in Path("/proc/self/mounts").read_text()
    assert list((edged.base / "root" / "pods").glob("*")) == []
    if containerd is not None:
        assert containerd.ctr("containers", "list", "-q") == ""
    else:
        assert list((edged.base / "root" / "process" / "containers").iterdir()) == []
        # The monitor of pipes ends by itself when there is nothing left to hold.
        deadline = time.monotonic() + 20
        while left := subprocess.run(
            ["pgrep", "-af", f"{edged.base}/root"], capture_output=True, check=False
        ).stdout:
            assert time.monotonic() < deadline, left
            time.sleep(0.2)
