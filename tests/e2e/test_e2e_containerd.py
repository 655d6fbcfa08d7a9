"""The same basics in containers: a real containerd of the tests' own, a real busybox."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containerd import Containerd, why_not
from tests.support.installation import Installation, eventually, installation
from tests.support.manifests import configmap, deployment, mounted

pytestmark = [pytest.mark.e2e, pytest.mark.containerd, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def containerd(short_dir: Path) -> Iterator[Containerd]:
    if reason := why_not():
        pytest.skip(reason)
    made = Containerd(short_dir / "c")
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def boxed(containerd: Containerd, short_dir: Path) -> Iterator[Installation]:
    """An installation whose pods are containers."""
    with installation(short_dir / "up", "--runtime=cri", f"--cri-socket={containerd.socket}") as made:
        made.start()
        yield made
        for kind in ("deployments", "daemonsets", "pods"):
            made.kubectl("delete", kind, "--all", "--wait=false", check=False)
        eventually(lambda: not made.get("pods")["items"], seconds=40, what="the pods are gone")


def tasks(containerd: Containerd) -> dict[str, str]:
    """Running containers by id, and their pids."""
    lines = [line.split() for line in containerd.ctr("tasks", "list").splitlines()[1:]]
    return {name: pid for name, pid, state in lines if state == "RUNNING"}


def inside(containerd: Containerd, pod: dict, *command: str) -> str:
    """Run a command in the pod's first container."""
    identity = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    return containerd.ctr("tasks", "exec", "--exec-id", f"t{abs(hash(command))}", identity, *command)


def test_the_node_names_its_runtime(boxed: Installation):
    assert "containerd" in boxed.output()
    assert boxed.get("node", "edge-1")["status"]["nodeInfo"]["containerRuntimeVersion"].startswith(
        "containerd://1"
    )


def test_a_deployment_runs_scales_rolls_and_goes(boxed: Installation, containerd: Containerd):
    before = set(tasks(containerd))
    boxed.apply(deployment("web"))
    (pod,) = boxed.running("app=web", 1)
    assert "bin" in inside(containerd, pod, "ls", "/")
    assert not (Path("/proc") / tasks(containerd)[_id(pod)] / "root/usr/lib").exists(), (
        "its root is the image's"
    )
    boxed.kubectl("scale", "deployment/web", "--replicas=3")
    boxed.running("app=web", 3)
    boxed.kubectl("set", "env", "deployment/web", "COLOUR=blue")
    boxed.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    pod = boxed.running("app=web", 3, seconds=60)[0]
    assert "COLOUR=blue" in inside(containerd, pod, "env")
    boxed.kubectl("delete", "deployment/web")
    boxed.running("app=web", 0)
    eventually(lambda: set(tasks(containerd)) == before, what="no container is left")


def test_a_restart_of_edgecore_leaves_containers_and_their_volumes_alone(
    boxed: Installation, containerd: Containerd
):
    """What the original gets wrong: it empties the ConfigMap volume of a running container at every restart."""
    boxed.apply(
        configmap("kept", value="one"),
        deployment("keeper", **mounted("configMap", "kept", "/etc/kept")),
    )
    (pod,) = boxed.running("app=keeper", 1)
    running = tasks(containerd)
    assert inside(containerd, pod, "cat", "/etc/kept/value") == "one"
    boxed.kill_child("edgecore-edge-1")
    eventually(lambda: "is back" in boxed.output(), what="edgecore is back")
    assert inside(containerd, pod, "cat", "/etc/kept/../kept/value") == "one"
    boxed.apply(configmap("kept", value="two"))
    eventually(
        lambda: inside(containerd, pod, "cat", "/etc/kept/./value") == "two",
        seconds=60,
        what="the running container sees the change",
    )
    assert tasks(containerd) == running
    (after,) = boxed.running("app=keeper", 1)
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    boxed.kubectl("delete", "deployment/keeper", "configmap/kept")
    boxed.running("app=keeper", 0)


def test_a_killed_container_restarts_while_the_cloud_is_away(boxed: Installation, containerd: Containerd):
    import os
    import signal

    boxed.apply(deployment("hardy"))
    (pod,) = boxed.running("app=hardy", 1)
    victim = _id(pod)
    cloudcore = boxed.pid("cloudcore")
    os.kill(cloudcore, signal.SIGSTOP)
    try:
        before = set(tasks(containerd))
        os.kill(int(tasks(containerd)[victim]), signal.SIGKILL)
        boxed.kill_child("edgecore-edge-1")
        eventually(lambda: set(tasks(containerd)) - before, what="a new container runs")
    finally:
        os.kill(cloudcore, signal.SIGCONT)
    eventually(
        lambda: boxed.pods("app=hardy")[0]["status"]["containerStatuses"][0]["restartCount"] == 1,
        seconds=90,
        what="the cloud hears of it",
    )
    boxed.kubectl("delete", "deployment/hardy")
    boxed.running("app=hardy", 0, seconds=60)


def test_an_image_that_does_not_exist_is_said(boxed: Installation):
    body = deployment("nowhere")
    body["spec"]["template"]["spec"]["containers"][0]["image"] = "127.0.0.1:1/none:1"
    boxed.apply(body)
    eventually(
        lambda: any(
            w in boxed.kubectl("get", "pods", "-l", "app=nowhere")
            for w in ("ErrImagePull", "ImagePullBackOff")
        ),
        what="ErrImagePull",
    )
    boxed.kubectl("delete", "deployment/nowhere")
    boxed.running("app=nowhere", 0)


def test_a_socket_without_a_runtime_is_refused(make_installation):
    up: Installation = make_installation("none", "--cri-socket=/nonexistent/containerd.sock")
    done = subprocess.run(up.command(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "/nonexistent/containerd.sock" in done.stderr


def _id(pod: dict) -> str:
    text: str = pod["status"]["containerStatuses"][0]["containerID"]
    return text.removeprefix("containerd://")


def test_the_manifest_is_what_kubectl_sees(boxed: Installation):
    body = deployment("plain", 0)
    boxed.apply(body)
    seen = json.loads(boxed.kubectl("get", "deployment", "plain", "-o", "json"))
    assert (
        seen["spec"]["template"]["spec"]["containers"][0]["command"]
        == body["spec"]["template"]["spec"]["containers"][0]["command"]
    )
    boxed.kubectl("delete", "deployment", "plain")
