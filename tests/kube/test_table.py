from datetime import UTC, datetime, timedelta

import pytest

from edgehive.kube.builtin import BUILTIN
from edgehive.kube.crd import infos_from_crd, kubeedge_crds
from edgehive.kube.durations import human_duration
from edgehive.kube.jsonpath import BadPath, check_path, find, find_all
from edgehive.kube.refs import GVR
from edgehive.kube.resources import Column, ResourceInfo
from edgehive.kube.table import render_table

INFOS = {info.kind: info for info in BUILTIN}
NOW = datetime(2026, 1, 10, tzinfo=UTC)


def ago(**delta):
    return (NOW - timedelta(**delta)).strftime("%Y-%m-%dT%H:%M:%SZ")


def cells(kind, obj, *, wide=False):
    table = render_table(INFOS[kind], [obj], now=NOW)
    columns = table["columnDefinitions"]
    return {
        c["name"]: v
        for c, v in zip(columns, table["rows"][0]["cells"], strict=True)
        if wide or not c["priority"]
    }


def pod(*statuses, inits=(), spec=None, meta=None, **status):
    names = [s["name"] for s in statuses] or ["c"]
    return {
        "metadata": {"name": "p", "creationTimestamp": ago(minutes=5), **(meta or {})},
        "spec": {
            "containers": [{"name": n} for n in names],
            "initContainers": [
                {"name": s["name"]} | ({"restartPolicy": "Always"} if s.get("sidecar") else {}) for s in inits
            ],
            **(spec or {}),
        },
        "status": {"containerStatuses": list(statuses), "initContainerStatuses": list(inits), **status},
    }


def container(name="c", *, ready=False, restarts=0, last=None, started=None, sidecar=False, **state):
    out = {"name": name, "ready": ready, "restartCount": restarts, "state": state}
    if last:
        out["lastState"] = {"terminated": last}
    if started is not None:
        out["started"] = started
    if sidecar:
        out["sidecar"] = True
    return out


RUN = {"running": {}}
INITIALIZED = [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("obj", "ready", "status", "restarts"),
    [
        (pod(phase="Pending"), "0/1", "Pending", "0"),
        (pod(container(ready=True, **RUN), phase="Running"), "1/1", "Running", "0"),
        (
            pod(container(waiting={"reason": "ContainerCreating"}), phase="Pending"),
            "0/1",
            "ContainerCreating",
            "0",
        ),
        (
            pod(
                container(
                    restarts=3, last={"finishedAt": ago(minutes=2)}, waiting={"reason": "CrashLoopBackOff"}
                ),
                phase="Running",
            ),
            "0/1",
            "CrashLoopBackOff",
            "3 (2m ago)",
        ),
        (
            pod(container(terminated={"reason": "Completed", "exitCode": 0}), phase="Succeeded"),
            "0/1",
            "Completed",
            "0",
        ),
        (pod(container(terminated={"exitCode": 3}), phase="Failed"), "0/1", "ExitCode:3", "0"),
        (pod(container(terminated={"exitCode": 137, "signal": 9}), phase="Failed"), "0/1", "Signal:9", "0"),
        (
            pod(
                container(ready=True, **RUN),
                container("d", terminated={"reason": "Completed"}),
                phase="Running",
                conditions=INITIALIZED,
            ),
            "1/2",
            "Running",
            "0",
        ),
        (
            pod(inits=[container("i", waiting={"reason": "PodInitializing"})], phase="Pending"),
            "0/1",
            "Init:0/1",
            "0",
        ),
        (
            pod(inits=[container("i", terminated={"exitCode": 0}), container("j", **RUN)], phase="Pending"),
            "0/1",
            "Init:1/2",
            "0",
        ),
        (
            pod(
                inits=[container("i", restarts=2, terminated={"reason": "Error", "exitCode": 1})],
                phase="Pending",
            ),
            "0/1",
            "Init:Error",
            "2",
        ),
        (
            pod(inits=[container("i", waiting={"reason": "ErrImagePull"})], phase="Pending"),
            "0/1",
            "Init:ErrImagePull",
            "0",
        ),
        (
            pod(
                container(ready=True, **RUN),
                inits=[container("s", ready=True, started=True, sidecar=True, **RUN)],
                phase="Running",
                conditions=INITIALIZED,
            ),
            "2/2",
            "Running",
            "0",
        ),
        (
            pod(container(ready=True, **RUN), phase="Running", meta={"deletionTimestamp": ago()}),
            "1/1",
            "Terminating",
            "0",
        ),
        (pod(phase="Running", reason="NodeLost", meta={"deletionTimestamp": ago()}), "0/1", "Unknown", "0"),
        (pod(phase="Failed", reason="Evicted"), "0/1", "Evicted", "0"),
        (
            pod(phase="Pending", conditions=[{"type": "PodScheduled", "reason": "SchedulingGated"}]),
            "0/1",
            "SchedulingGated",
            "0",
        ),
    ],
)
def test_pod_columns(obj, ready, status, restarts):
    got = cells("Pod", obj)
    assert (got["Ready"], got["Status"], got["Restarts"], got["Age"]) == (ready, status, restarts, "5m")


def test_wide_pod_columns():
    obj = pod(
        phase="Running",
        podIPs=[{"ip": "10.1.0.5"}],
        conditions=[{"type": "gate", "status": "True"}],
        spec={
            "nodeName": "edge-1",
            "readinessGates": [{"conditionType": "gate"}, {"conditionType": "other"}],
        },
    )
    got = cells("Pod", obj, wide=True)
    assert (got["IP"], got["Node"], got["Nominated Node"], got["Readiness Gates"]) == (
        "10.1.0.5",
        "edge-1",
        "<none>",
        "1/2",
    )


def test_node_columns():
    node = {
        "metadata": {
            "name": "edge-1",
            "creationTimestamp": ago(days=3, hours=2),
            "labels": {
                "node-role.kubernetes.io/edge": "",
                "node-role.kubernetes.io/agent": "",
                "kubernetes.io/role": "x",
            },
        },
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [
                {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "Hostname", "address": "edge-1"},
            ],
            "nodeInfo": {
                "kubeletVersion": "v1.31.0",
                "osImage": "Debian",
                "kernelVersion": "6.1",
                "containerRuntimeVersion": "containerd://2",
            },
        },
    }
    assert cells("Node", node, wide=True) == {
        "Name": "edge-1",
        "Status": "Ready,SchedulingDisabled",
        "Roles": "agent,edge,x",
        "Age": "3d2h",
        "Version": "v1.31.0",
        "Internal-IP": "192.0.2.1",
        "External-IP": "<none>",
        "OS-Image": "Debian",
        "Kernel-Version": "6.1",
        "Container-Runtime": "containerd://2",
    }
    bare = cells("Node", {"metadata": {"name": "n"}}, wide=True)
    assert (bare["Status"], bare["Roles"], bare["Age"], bare["OS-Image"]) == (
        "Unknown",
        "<none>",
        "<unknown>",
        "<unknown>",
    )
    node["status"]["conditions"][0]["status"] = "Unknown"
    assert cells("Node", node)["Status"] == "NotReady,SchedulingDisabled"


def test_workload_columns():
    spec = {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "x"}},
        "template": {"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]}},
    }
    obj = {
        "metadata": {"name": "d", "creationTimestamp": ago(hours=4)},
        "spec": spec,
        "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1, "replicas": 3},
    }
    assert cells("Deployment", obj, wide=True) == {
        "Name": "d",
        "Ready": "1/3",
        "Up-to-date": "2",
        "Available": "1",
        "Age": "4h",
        "Containers": "a,b",
        "Images": "i,j",
        "Selector": "app=x",
    }
    rs = cells("ReplicaSet", obj)
    assert (rs["Desired"], rs["Current"], rs["Ready"]) == (3, 3, 1)
    daemon = {**obj, "status": {"desiredNumberScheduled": 2, "numberReady": 1}}
    ds = cells("DaemonSet", daemon)
    assert (ds["Desired"], ds["Current"], ds["Ready"], ds["Node Selector"]) == (2, 0, 1, "<none>")


def test_service_and_event_columns():
    service = {
        "metadata": {"name": "s"},
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.0.0.1",
            "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}],
            "selector": {"a": "b"},
        },
    }
    got = cells("Service", service, wide=True)
    assert (got["Cluster-IP"], got["External-IP"], got["Port(s)"], got["Selector"]) == (
        "10.0.0.1",
        "<none>",
        "80:30080/TCP,53/UDP",
        "a=b",
    )
    outside = cells(
        "Service",
        {"metadata": {"name": "s"}, "spec": {"type": "ExternalName", "externalName": "example.com"}},
    )
    assert (outside["Cluster-IP"], outside["External-IP"], outside["Port(s)"]) == (
        "<none>",
        "example.com",
        "<none>",
    )
    event = {
        "metadata": {"name": "e"},
        "type": "Normal",
        "reason": "Started",
        "message": "Started container\n",
        "involvedObject": {"kind": "Pod", "name": "p"},
        "firstTimestamp": ago(minutes=10),
        "lastTimestamp": ago(seconds=30),
        "count": 4,
        "source": {"component": "kubelet", "host": "edge-1"},
    }
    got = cells("Event", event, wide=True)
    assert (got["Last Seen"], got["Object"], got["Message"]) == ("30s", "pod/p", "Started container")
    assert (got["First Seen"], got["Count"], got["Source"]) == ("10m", 4, "kubelet, edge-1")


def test_the_table_itself():
    obj = {
        "metadata": {"name": "c", "creationTimestamp": ago(days=1)},
        "data": {"a": "1"},
        "binaryData": {"b": "Mg=="},
    }
    table = render_table(INFOS["ConfigMap"], [obj], now=NOW, list_meta={"resourceVersion": "7"})
    assert table["metadata"] == {"resourceVersion": "7"}
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert table["rows"] == [
        {
            "cells": ["c", "2", "24h"],
            "object": {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": obj["metadata"],
            },
        }
    ]
    assert (
        render_table(INFOS["ConfigMap"], [obj], now=NOW, include_object="Object")["rows"][0]["object"] is obj
    )
    assert "object" not in render_table(INFOS["ConfigMap"], [obj], now=NOW, include_object="None")["rows"][0]
    done = render_table(INFOS["Pod"], [pod(phase="Succeeded")], now=NOW)["rows"][0]
    assert done["conditions"][0]["type"] == "Completed"


@pytest.mark.parametrize("info", BUILTIN, ids=lambda info: info.kind)
def test_every_kind_renders_even_an_empty_object(info):
    table = render_table(info, [{}, {"metadata": {"name": "x"}, "spec": {}, "status": {}}], now=NOW)
    assert all(len(row["cells"]) == len(table["columnDefinitions"]) for row in table["rows"])


def test_custom_columns():
    info = ResourceInfo(
        gvr=GVR("example.com", "v1", "widgets"),
        kind="Widget",
        namespaced=True,
        custom=True,
        columns=(
            Column("Size", type="integer", path=".spec.size"),
            Column("Ready", path='.status.conditions[?(@.type=="Ready")].status'),
            Column("Tags", path=".spec.tags[*]"),
            Column("Since", type="date", path=".status.since", priority=1),
            Column("Map", path=".spec.map"),
        ),
    )
    obj = {
        "metadata": {"name": "w"},
        "spec": {"size": 3, "tags": ["a", "b"], "map": {"x": 1}},
        "status": {
            "conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}],
            "since": ago(seconds=90),
        },
    }
    table = render_table(info, [obj, {"metadata": {"name": "v"}}], now=NOW)
    assert [row["cells"] for row in table["rows"]] == [
        ["w", 3, "True", "a b", "90s", '{"x":1}'],
        ["v", None, None, None, None, None],
    ]


def test_custom_kinds_without_columns_have_name_and_age():
    (info,) = infos_from_crd(kubeedge_crds()[0])
    table = render_table(info, [{"metadata": {"name": "o", "creationTimestamp": ago(hours=9)}}], now=NOW)
    assert table["rows"][0]["cells"] == ["o", "9h"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (5 * 3600 + 60, "5h1m"),
        (8 * 3600 + 60, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (50 * 3600, "2d2h"),
        (8 * 86400 + 5 * 3600, "8d"),
        (729 * 86400, "729d"),
        (730 * 86400, "2y"),
        (750 * 86400, "2y20d"),
        (9 * 365 * 86400, "9y"),
        (-1, "0s"),
        (-10, "<invalid>"),
    ],
)
def test_durations_as_kubectl_writes_them(seconds, text):
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".a.b", [1]),
        ("{.a.b}", [1]),
        ("$.a.b", [1]),
        (".a['x.y']", [2]),
        (r".a.x\.y", [2]),
        (".l[1].n", ["two"]),
        (".l[-1].n", ["two"]),
        (".l[*].n", ["one", "two"]),
        (".l[0:1].n", ["one"]),
        ('.l[?(@.n=="two")].v', [9]),
        (".a.missing.deep", []),
        (".l[7].n", []),
    ],
)
def test_json_paths(path, values):
    obj = {"a": {"b": 1, "x.y": 2}, "l": [{"n": "one"}, {"n": "two", "v": 9}]}
    assert find_all(obj, path) == values
    assert find(obj, path) == (values[0] if values else None)


@pytest.mark.parametrize("path", ["", "{}", "a.b[", ".a[?(@.x)]", ".a..b", "[abc]"])
def test_bad_json_paths(path):
    with pytest.raises(BadPath):
        check_path(path)
