"""What must survive: killed processes, a cut link, an edge that restarts alone."""

import json
import os
import signal

import pytest

from tests.support.installation import Installation, eventually, is_ready, pod_processes
from tests.support.manifests import configmap, deployment, mounted

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def restarts(pods) -> list[int]:
    return [state["restartCount"] for p in pods for state in p["status"]["containerStatuses"]]


def ids(pods) -> set[str]:
    return {state["containerID"] for p in pods for state in p["status"]["containerStatuses"]}


def test_a_killed_edgecore_adopts_what_runs(up: Installation):
    up.apply(
        configmap("kept", value="kept"),
        deployment("survivor", 2, **mounted("configMap", "kept", "/etc/kept")),
    )
    before = up.running("app=survivor", 2)
    running = set(pod_processes(up.root))
    up.kill_child("edgecore-edge-1")
    assert running <= set(pod_processes(up.root)), "the pods' processes outlive edgecore"
    eventually(lambda: "is back" in up.output(), what="edgecore is back")
    # A change after the restart shows that the new edgecore has taken over.
    up.kubectl("scale", "deployment/survivor", "--replicas=3")
    after = up.running("app=survivor", 3)
    kept = [p for p in after if p["metadata"]["uid"] in {b["metadata"]["uid"] for b in before}]
    assert len(kept) == 2
    assert ids(kept) == ids(before)
    assert restarts(after) == [0, 0, 0]
    assert running <= set(pod_processes(up.root))
    volumes = list(up.layout.edge("edge-1").rglob("kubernetes.io~configmap/data/value"))
    assert len(volumes) == 3
    assert all(path.read_text() == "kept" for path in volumes), "volumes are as they were"
    up.kubectl("delete", "deployment/survivor", "configmap/kept")
    up.running("app=survivor", 0)


def test_changes_made_while_cloudcore_is_dead_all_arrive(up: Installation):
    names = [f"late-{i}" for i in range(20)]
    up.apply(
        *(configmap(name, value="old") for name in names),
        deployment(
            "late",
            volumes=[
                {
                    "name": "data",
                    "projected": {
                        "sources": [
                            {"configMap": {"name": n, "items": [{"key": "value", "path": n}]}} for n in names
                        ]
                    },
                }
            ],
            container={"volumeMounts": [{"name": "data", "mountPath": "/etc/late"}]},
        ),
    )
    (pod,) = up.running("app=late", 1)
    cloudcore = up.pid("cloudcore")
    os.kill(cloudcore, signal.SIGSTOP)  # so that it does not come back before the changes are made
    up.apply(*(configmap(name, value="new") for name in names))
    os.kill(cloudcore, signal.SIGKILL)  # which needs no SIGCONT, and there may be nobody left to take one
    eventually(lambda: up.pid("cloudcore") not in (0, cloudcore), what="cloudcore is started again")

    def seen() -> bool:
        (root,) = list(
            up.layout.edge("edge-1").rglob(f"{pod['metadata']['uid']}/volumes/kubernetes.io~projected/data")
        )
        return all((root / name).read_text() == "new" for name in names)

    eventually(seen, seconds=60, what="all twenty changes are at the edge")
    up.kubectl("delete", "deployment/late", *(f"configmap/{n}" for n in names))
    up.running("app=late", 0)


def test_the_edge_alone_keeps_and_restarts_its_pods(up: Installation):
    """cloudcore is stopped, edgecore is killed, a pod's process is killed: all of it comes back from SQLite."""
    up.apply(deployment("alone", script="exec sleep 4444"))
    up.running("app=alone", 1)

    def sleepers() -> set[int]:
        return {pid for pid, line in pod_processes(up.root).items() if line.startswith("sleep 4444")}

    (first,) = sleepers()
    cloudcore = up.pid("cloudcore")
    os.kill(cloudcore, signal.SIGSTOP)
    try:
        os.kill(first, signal.SIGKILL)
        up.kill_child("edgecore-edge-1")
        eventually(lambda: sleepers() - {first}, what="the pod is restarted without the cloud")
    finally:
        os.kill(cloudcore, signal.SIGCONT)
    eventually(
        lambda: restarts(up.pods("app=alone")) == [1], seconds=90, what="the cloud hears of the restart"
    )
    up.kubectl("delete", "deployment/alone")
    up.running("app=alone", 0, seconds=60)


def test_a_deployment_deleted_while_the_edge_is_offline_stops_afterwards(up: Installation):
    up.apply(deployment("offline", script="exec sleep 5555"))
    up.running("app=offline", 1)
    edge = up.pid("edgecore-edge-1")
    os.kill(edge, signal.SIGSTOP)
    up.kubectl("delete", "deployment/offline", "--wait=false")
    eventually(
        lambda: up.pods("app=offline")[0]["metadata"].get("deletionTimestamp"),
        what="the pod is to be deleted",
    )
    assert [line for line in pod_processes(up.root).values() if "sleep 5555" in line]
    os.kill(edge, signal.SIGKILL)
    eventually(lambda: not [x for x in pod_processes(up.root).values() if "sleep 5555" in x], seconds=60)
    up.running("app=offline", 0, seconds=60)


def test_a_killed_control_plane_comes_back_with_every_object(up: Installation):
    up.apply(configmap("before-the-crash", a="1"), deployment("steady"))
    (before,) = up.running("app=steady", 1)
    up.kill_child("control-plane")
    eventually(
        lambda: up.get("configmap", "before-the-crash")["data"] == {"a": "1"}, what="the object is there"
    )
    up.kubectl("scale", "deployment/steady", "--replicas=2")
    after = up.running("app=steady", 2, seconds=90)
    assert before["metadata"]["uid"] in {p["metadata"]["uid"] for p in after}
    assert restarts(after) == [0, 0]
    up.kubectl("delete", "deployment/steady", "configmap/before-the-crash")
    up.running("app=steady", 0)


def test_a_bound_token_lets_its_pod_restart_offline(up: Installation):
    """The default service account's token is mounted into every pod; it must not need the cloud to come back."""
    up.apply(deployment("token", script="exec sleep 6666"))
    (pod,) = up.running("app=token", 1)
    mounts = [v for v in pod["spec"].get("volumes", []) if "projected" in v]
    assert mounts, f"the API server adds the token: {json.dumps(pod['spec'])}"
    cloudcore = up.pid("cloudcore")
    os.kill(cloudcore, signal.SIGSTOP)
    try:
        victims = [pid for pid, line in pod_processes(up.root).items() if line.startswith("sleep 6666")]
        up.kill_child("edgecore-edge-1")
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        eventually(
            lambda: (
                {p for p, line in pod_processes(up.root).items() if line.startswith("sleep 6666")}
                - set(victims)
            ),
            what="restarted offline",
        )
    finally:
        os.kill(cloudcore, signal.SIGCONT)
    eventually(lambda: all(is_ready(p) for p in up.pods("app=token")), seconds=90)
    up.kubectl("delete", "deployment/token")
    up.running("app=token", 0, seconds=60)
