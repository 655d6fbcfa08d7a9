"""From a change in the cluster to the edge and back into the record."""

import asyncio
import json
from typing import Any

from edgehive.kube.refs import CLUSTEROBJECTSYNCS, CONFIGMAPS, NODES, OBJECTSYNCS, PODS, SECRETS
from edgehive.kube.status import ApiStatus


def pod(name: str, node: str = "edge-1", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i", **spec}]},
        "status": {"phase": "Pending"},
    }


def node(name: str = "edge-1") -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"node-role.kubernetes.io/edge": ""}}}


def recorded(api: Any, resource: Any, obj: dict[str, Any], node_name: str = "edge-1") -> str | None:
    namespace = obj["metadata"].get("namespace", "")
    found = api.find(resource, namespace, f"{node_name}.{obj['metadata']['uid']}")
    return (found.get("status") or {}).get("objectResourceVersion") if found else None


async def test_a_pod_arrives_is_acknowledged_and_recorded(lab: Any, api: Any) -> None:
    api.put(NODES, node())
    await lab.start()
    edge = await lab.edge("edge-1")
    made = api.put(PODS, pod("nginx"))
    message = await edge.wait(lambda m: m.resource == "default/pod/nginx")
    assert (message.operation, message.source, message.group) == ("insert", "edgecontroller", "resource")
    assert message.resource_version == made["metadata"]["resourceVersion"]
    assert json.loads(message.content) == made
    await api.until(lambda: recorded(api, OBJECTSYNCS, made) == made["metadata"]["resourceVersion"])
    found = api.find(OBJECTSYNCS, "default", f"edge-1.{made['metadata']['uid']}")
    assert found["spec"] == {"objectAPIVersion": "v1", "objectKind": "Pod", "objectName": "nginx"}


async def test_the_record_exists_before_the_object_travels(lab: Any, api: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    edge.auto_ack = False
    made = api.put(PODS, pod("nginx"))
    await edge.wait(lambda m: m.resource == "default/pod/nginx")
    assert api.find(OBJECTSYNCS, "default", f"edge-1.{made['metadata']['uid']}") is not None


async def test_what_existed_before_the_node_connected_arrives_too(lab: Any, api: Any) -> None:
    own = api.put(NODES, node())
    api.put(CONFIGMAPS, {"metadata": {"name": "cm", "namespace": "default"}, "data": {"a": "1"}})
    env = [{"configMapRef": {"name": "cm"}}]
    api.put(PODS, pod("nginx", envFrom=env))
    api.put(PODS, pod("elsewhere", node="edge-2"))
    await lab.start()
    edge = await lab.edge("edge-1")
    await edge.wait(lambda m: m.resource == "default/pod/nginx")
    await edge.wait(lambda m: m.resource == "default/configmap/cm")
    await edge.wait(lambda m: m.resource == "null/node/edge-1" and m.operation == "update")
    await api.until(
        lambda: (
            recorded(api, CLUSTEROBJECTSYNCS, own)
            == api.find(NODES, "", "edge-1")["metadata"]["resourceVersion"]
        )
    )
    assert api.find(NODES, "", "edge-1")["metadata"]["annotations"]["cloudcore"]
    assert not [m for m in edge.received if "elsewhere" in m.resource]


async def test_a_delete_while_no_cloudcore_ran_reaches_the_edge(lab: Any, api: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    made = api.put(PODS, pod("nginx"))
    await edge.wait(lambda m: m.resource == "default/pod/nginx")
    await api.until(lambda: recorded(api, OBJECTSYNCS, made) is not None)
    await lab.stop()
    api.drop(PODS, "default", "nginx")
    await lab.start()
    again = await lab.edge("edge-1")
    message = await again.wait(lambda m: m.operation == "delete")
    assert message.resource == "default/pod/nginx"
    assert json.loads(message.content)["metadata"]["uid"] == made["metadata"]["uid"]
    await api.until(lambda: not api.all(OBJECTSYNCS))


async def test_changes_made_while_no_cloudcore_ran_arrive_once(lab: Any, api: Any) -> None:
    await lab.start()
    await lab.edge("edge-1")
    pods = [api.put(PODS, pod(f"p{i}")) for i in range(20)]
    await api.until(lambda: all(recorded(api, OBJECTSYNCS, p) for p in pods))
    await lab.stop()
    for i in range(10):
        api.put(PODS, pod(f"p{i}", env=[{"name": "A", "value": "2"}]))
    await lab.start()
    again = await lab.edge("edge-1")
    for i in range(10):
        await again.wait(lambda m, i=i: m.resource == f"default/pod/p{i}")
    assert sorted(m.resource for m in again.received) == sorted(f"default/pod/p{i}" for i in range(10))


async def test_a_status_write_is_not_sent_but_a_spec_change_is(lab: Any, api: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    api.put(PODS, pod("nginx"))
    await edge.wait(lambda m: m.resource == "default/pod/nginx")
    changed = api.find(PODS, "default", "nginx")
    changed["status"] = {"phase": "Running"}
    changed["metadata"]["managedFields"] = [{"manager": "x", "time": "2026-01-01T00:00:00Z"}]
    api.put(PODS, changed)
    changed["metadata"]["annotations"] = {"a": "b"}
    api.put(PODS, changed)
    await edge.wait(lambda m: m.operation == "update" and b'"annotations"' in m.content)
    assert len([m for m in edge.received if m.resource == "default/pod/nginx"]) == 2


def conditions(*, ready: str, containers: str = "True") -> dict[str, Any]:
    states = [{"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": containers}]
    return {"phase": "Running", "conditions": states}


async def test_a_pod_that_a_node_controller_has_marked_as_not_ready_is_shown_to_its_node(
    lab: Any, api: Any
) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    made = api.put(PODS, pod("nginx") | {"status": conditions(ready="True")})
    await edge.wait(lambda m: m.resource == "default/pod/nginx")
    await api.until(lambda: recorded(api, OBJECTSYNCS, made) == made["metadata"]["resourceVersion"])
    await edge.socket.close()
    marked = api.put(PODS, {**made, "status": conditions(ready="False")})
    edge = await lab.edge("edge-1")
    shown = await edge.wait(lambda m: m.resource == "default/pod/nginx")
    assert shown.resource_version == marked["metadata"]["resourceVersion"], "although it was away"
    freed = api.put(PODS, {**made, "status": conditions(ready="True")})
    await edge.wait(lambda m: m.resource_version == freed["metadata"]["resourceVersion"])
    before = len([m for m in edge.received if m.resource == "default/pod/nginx"])
    api.put(PODS, {**made, "status": conditions(ready="False", containers="False")})
    again = api.put(PODS, {**made, "status": conditions(ready="False")})
    await edge.wait(lambda m: m.resource_version == again["metadata"]["resourceVersion"])
    assert len([m for m in edge.received if m.resource == "default/pod/nginx"]) == before + 1, (
        "what the node says itself stays unsaid"
    )


async def test_graceful_delete_travels_as_update_then_delete(lab: Any, api: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    made = api.put(PODS, pod("nginx"))
    await edge.wait(lambda m: m.resource == "default/pod/nginx")
    made["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    api.put(PODS, made)
    await edge.wait(lambda m: m.operation == "update" and b"deletionTimestamp" in m.content)
    api.drop(PODS, "default", "nginx")
    await edge.wait(lambda m: m.operation == "delete")
    await api.until(lambda: not api.all(OBJECTSYNCS))


async def test_one_configmap_change_reaches_every_node_as_the_same_bytes(lab: Any, api: Any) -> None:
    config = {"metadata": {"name": "cm", "namespace": "default"}, "data": {"a": "1"}}
    api.put(CONFIGMAPS, config)
    for i in range(5):
        api.put(PODS, pod(f"p{i}", node=f"n{i}", envFrom=[{"configMapRef": {"name": "cm"}}]))
    await lab.start()
    edges = [await lab.edge(f"n{i}") for i in range(5)]
    for edge in edges:
        await edge.wait(lambda m: m.resource == "default/configmap/cm")
    config["data"] = {"a": "2"}
    changed = api.put(CONFIGMAPS, config)
    version = changed["metadata"]["resourceVersion"]
    frames = set()
    for edge in edges:
        message = await edge.wait(lambda m: m.resource_version == version and m.operation == "update")
        frames.add(edge.frames[edge.received.index(message)])
    assert len(frames) == 1
    await api.until(
        lambda: (
            sum(s.get("status", {}).get("objectResourceVersion") == version for s in api.all(OBJECTSYNCS))
            == 5
        )
    )


async def test_a_secret_is_no_longer_pushed_when_its_last_pod_is_gone(lab: Any, api: Any) -> None:
    secret = {"metadata": {"name": "s", "namespace": "default"}, "data": {"a": "MQ=="}}
    api.put(SECRETS, secret)
    volumes = pod("user")
    volumes["spec"]["volumes"] = [{"name": "v", "secret": {"secretName": "s"}}]
    api.put(PODS, volumes)
    await lab.start()
    edge = await lab.edge("edge-1")
    await edge.wait(lambda m: m.resource == "default/secret/s")
    api.drop(PODS, "default", "user")
    await edge.wait(lambda m: m.operation == "delete" and m.resource == "default/pod/user")
    count = len(edge.received)
    secret["data"] = {"a": "Mg=="}
    api.put(SECRETS, secret)
    api.put(PODS, pod("marker"))
    await edge.wait(lambda m: m.resource == "default/pod/marker")
    assert [m.resource for m in edge.received[count:]] == ["default/pod/marker"]


async def test_an_unanswered_message_does_not_hold_up_others(lab: Any, api: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    edge.auto_ack = False
    for i in range(10):
        api.put(PODS, pod(f"p{i}"))
    for i in range(10):
        await edge.wait(lambda m, i=i: m.resource == f"default/pod/p{i}")


async def test_records_of_a_node_that_does_not_exist_are_cleared(lab: Any, api: Any) -> None:
    await lab.start()
    name = "gone.0b0e3a0e-0000-4000-8000-000000000001"
    api.put(
        OBJECTSYNCS,
        {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"objectAPIVersion": "v1", "objectKind": "Pod", "objectName": "p"},
        },
    )
    api.put(NODES, node("alive"))
    api.put(
        OBJECTSYNCS,
        {
            "metadata": {"name": name.replace("gone", "alive"), "namespace": "default"},
            "spec": {"objectAPIVersion": "v1", "objectKind": "Pod", "objectName": "p"},
        },
    )
    edge = await lab.edge("alive")
    parts = lab.core.parts
    async with asyncio.timeout(5):
        while len(parts.records) < 2 or not parts.caches.nodes.get("", "alive"):
            await asyncio.sleep(0.01)
    parts.sync.clear_orphans()
    assert api.find(OBJECTSYNCS, "default", name) is not None, "one pass is not enough"
    parts.sync.clear_orphans()
    await api.until(lambda: api.find(OBJECTSYNCS, "default", name) is None)
    await edge.wait(lambda m: m.operation == "delete", timeout=5)  # the other one: its pod is gone


async def test_a_new_secret_travels_as_an_update(lab: Any, api: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    pulls = {"imagePullSecrets": [{"name": "late"}]}
    api.put(PODS, pod("p") | {"spec": pod("p")["spec"] | pulls})
    await edge.wait(lambda m: m.resource == "default/pod/p")
    api.put(SECRETS, {"metadata": {"name": "late", "namespace": "default"}, "data": {}})
    assert (await edge.wait(lambda m: m.resource == "default/secret/late")).operation == "update"


async def test_in_a_namespace_that_is_being_deleted_a_pod_is_ended_without_its_record(
    lab: Any, api: Any
) -> None:
    made = api.put(PODS, pod("p"))
    uid = made["metadata"]["uid"]
    await lab.start()
    edge = await lab.edge("edge-1")
    await edge.wait(lambda m: m.resource == "default/pod/p")
    await api.until(lambda: recorded(api, OBJECTSYNCS, made) == made["metadata"]["resourceVersion"])
    text = "forbidden: unable to create new content in namespace default because it is being terminated"
    details = {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}
    ending = ApiStatus(403, "Forbidden", text, details)
    api.fail = lambda verb, gvr, name: ending if (verb, gvr) == ("create", OBJECTSYNCS) else None
    api.drop(OBJECTSYNCS, "default", f"edge-1.{uid}")
    api.put(PODS, {**made, "metadata": {**made["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    update = await edge.wait(
        lambda m: m.resource == "default/pod/p" and b"deletionTimestamp" in bytes(m.content)
    )
    assert update.operation == "update"
    api.drop(PODS, "default", "p")
    await edge.wait(lambda m: m.resource == "default/pod/p" and m.operation == "delete")
    assert api.find(OBJECTSYNCS, "default", f"edge-1.{uid}") is None
    created = [r for r in api.requests if r[:2] == ("create", OBJECTSYNCS)]
    assert len(created) < 10, "not again and again"
