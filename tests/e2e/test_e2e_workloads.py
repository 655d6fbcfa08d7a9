"""What a new user does with kubectl, on host processes."""

import json
import re

import pytest

from tests.support.installation import Installation, eventually, is_ready, pod_processes
from tests.support.manifests import configmap, daemonset, deployment, pod

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]


def test_the_node_is_there_as_a_kubeedge_edge(up: Installation):
    wide = up.kubectl("get", "nodes", "-o", "wide")
    assert re.search(r"edge-1\s+Ready\s+agent,edge", wide), wide
    node = up.get("node", "edge-1")
    assert "node-role.kubernetes.io/edge" in node["metadata"]["labels"]
    info = node["status"]["nodeInfo"]
    assert info["containerRuntimeVersion"]
    assert "kubeedge" in info["kubeletVersion"]
    assert int(node["status"]["capacity"]["cpu"]) >= 1
    assert up.get("lease", "edge-1", "-n", "kube-node-lease")["spec"]["holderIdentity"] == "edge-1"


def test_a_deployment_runs_scales_rolls_and_goes(up: Installation):
    up.apply(deployment("web"))
    (first,) = up.running("app=web", 1)
    assert first["spec"]["nodeName"] == "edge-1"
    assert first["status"]["podIP"]
    up.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    up.kubectl("scale", "deployment/web", "--replicas=3")
    up.running("app=web", 3)
    up.kubectl("set", "env", "deployment/web", "COLOUR=blue")
    up.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    pods = up.running("app=web", 3)
    assert all(p["spec"]["containers"][0]["env"] == [{"name": "COLOUR", "value": "blue"}] for p in pods)
    up.kubectl("delete", "deployment/web", "--wait")
    up.running("app=web", 0)
    assert up.get("rs", "-l", "app=web")["items"] == []


def test_describe_shows_the_events_of_a_start(up: Installation):
    up.apply(pod("described"))
    eventually(lambda: is_ready(up.get("pod", "described")), what="described runs")
    eventually(
        lambda: all(
            word in up.kubectl("describe", "pod", "described") for word in ("Scheduled", "Created", "Started")
        ),
        what="events in describe",
    )
    up.kubectl("delete", "pod", "described")


def test_the_process_ends_with_its_pod(up: Installation):
    up.apply(pod("lonely", "echo lonely-marker; exec sleep 3333"))
    eventually(lambda: is_ready(up.get("pod", "lonely")))
    # Ready is told when its shim has started, which has yet to become the command.
    eventually(lambda: [line for line in pod_processes(up.root).values() if "sleep 3333" in line])
    up.kubectl("delete", "pod", "lonely")
    eventually(lambda: not [line for line in pod_processes(up.root).values() if "sleep 3333" in line])


def test_a_configmap_change_reaches_the_volume_of_a_running_pod(up: Installation):
    up.apply(
        configmap("settings", level="one"),
        deployment(
            "reader",
            script='while :; do cp "$EDGEHIVE_ROOT/etc/settings/level" "$EDGEHIVE_ROOT/out/seen" ; sleep 0.2; done',
            volumes=[
                {"name": "data", "configMap": {"name": "settings"}},
                {"name": "out", "hostPath": {"path": str(up.root / "out"), "type": "DirectoryOrCreate"}},
            ],
            container={
                "volumeMounts": [
                    {"name": "data", "mountPath": "/etc/settings"},
                    {"name": "out", "mountPath": "/out"},
                ]
            },
        ),
    )
    (before,) = up.running("app=reader", 1)
    seen = up.root / "out" / "seen"
    eventually(lambda: seen.exists() and seen.read_text() == "one", what="the first value is seen")
    up.apply(configmap("settings", level="two"))
    eventually(lambda: seen.read_text() == "two", what="the second value is seen")
    (after,) = up.running("app=reader", 1)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    up.kubectl("delete", "deployment/reader", "configmap/settings")


def test_environment_from_configmap_and_secret(up: Installation):
    up.apply(
        configmap("env", greeting="hello there"),
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "env"}, "stringData": {"word": "s3cret"}},
        pod(
            "envy",
            'echo "$GREETING/$WORD/$NODE" > "$EDGEHIVE_ROOT/out/env"; sleep 1000',
            volumes=[{"name": "out", "hostPath": {"path": str(up.root), "type": "Directory"}}],
            container={
                "env": [
                    {
                        "name": "GREETING",
                        "valueFrom": {"configMapKeyRef": {"name": "env", "key": "greeting"}},
                    },
                    {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "env", "key": "word"}}},
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                ],
                "volumeMounts": [{"name": "out", "mountPath": "/out"}],
            },
        ),
    )
    path = up.root / "env"
    eventually(
        lambda: path.exists() and path.read_text() == "hello there/s3cret/edge-1\n", what="env is written"
    )
    up.kubectl("delete", "pod/envy", "configmap/env", "secret/env")


def test_a_crashing_container_is_restarted_with_back_off(up: Installation):
    up.apply(pod("crash", "exit 3"))
    eventually(
        lambda: up.get("pod", "crash")["status"]["containerStatuses"][0]["restartCount"] >= 1,
        seconds=40,
        what="a restart",
    )
    eventually(
        lambda: "CrashLoopBackOff" in up.kubectl("get", "pod", "crash"), seconds=40, what="CrashLoopBackOff"
    )
    state = up.get("pod", "crash")["status"]["containerStatuses"][0]
    assert state["lastState"]["terminated"]["exitCode"] == 3
    up.kubectl("delete", "pod", "crash")


def test_a_pod_that_never_restarts_completes(up: Installation):
    up.apply(pod("once", "exit 0", restartPolicy="Never"))
    eventually(lambda: up.get("pod", "once")["status"]["phase"] == "Succeeded", what="Succeeded")
    up.kubectl("delete", "pod", "once")


def test_a_pod_without_a_command_is_refused_with_an_event(up: Installation):
    body = pod("mute")
    del body["spec"]["containers"][0]["command"]
    up.apply(body)
    eventually(
        lambda: re.search(r"Warning.*command", up.kubectl("describe", "pod", "mute")),
        what="an event says why",
    )
    assert not is_ready(up.get("pod", "mute"))
    up.kubectl("delete", "pod", "mute")


def test_a_daemonset_puts_one_pod_on_the_edge(up: Installation):
    up.apply(daemonset("agent"))
    up.running("app=agent", 1)
    status = eventually(
        lambda: (s := up.get("ds", "agent")["status"]).get("numberReady") == 1 and s,
        what="the daemon set is ready",
    )
    assert status["desiredNumberScheduled"] == 1
    up.kubectl("delete", "ds", "agent")
    up.running("app=agent", 0)


def test_the_examples_run(up: Installation, pytestconfig):
    folder = pytestconfig.rootpath / "examples"
    for name, selector in (
        ("hello", "app=hello"),
        ("02-configmap", "app=greeter"),
        ("03-daemonset", "app=probe"),
    ):
        up.kubectl("apply", "-f", str(folder / f"{name}.yaml"))
        up.running(selector, 1)
        up.kubectl("delete", "-f", str(folder / f"{name}.yaml"))
        up.running(selector, 0)


def test_explain_and_validation(up: Installation):
    assert "replicas" in up.kubectl("explain", "deployment.spec")
    bad = deployment("bad")
    bad["spec"]["replcas"] = 3
    assert "replcas" in up.kubectl("apply", "-f", "-", stdin=json.dumps(bad), check=False)
    missing = deployment("bad")
    del missing["spec"]["selector"]
    assert "selector" in up.kubectl("apply", "-f", "-", stdin=json.dumps(missing), check=False)


def test_events_of_kubectl_watch_show_the_life_of_a_pod(up: Installation):
    import subprocess

    from tests.support.installation import find_kubectl

    with subprocess.Popen(
        [
            find_kubectl(),
            f"--kubeconfig={up.layout.kubeconfig}",
            "get",
            "pods",
            "-l",
            "app=seen",
            "--watch",
            "--no-headers",
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        try:
            up.apply(deployment("seen"))
            up.running("app=seen", 1)
            up.kubectl("delete", "deployment", "seen")
            up.running("app=seen", 0)
        finally:
            watch.terminate()
        assert watch.stdout is not None
        lines = watch.stdout.read()
    assert re.search(r"seen-\S+\s+0/1\s+Pending", lines)
    assert re.search(r"seen-\S+\s+1/1\s+Running", lines)
