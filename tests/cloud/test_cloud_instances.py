"""Two cloudcores on one cluster: who serves a node, and what happens when that one dies."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgehive.kit.errors import Unreachable
from edgehive.kube.refs import CONFIGMAPS, LEASES, NODES, OBJECTSYNCS, PODS


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": "edge-1", "containers": [{"name": "c", "image": "i", **spec}]},
        "status": {"phase": "Pending"},
    }


def recorded(api: Any, obj: dict[str, Any]) -> str | None:
    found = api.find(OBJECTSYNCS, "default", f"edge-1.{obj['metadata']['uid']}")
    return (found.get("status") or {}).get("objectResourceVersion") if found else None


@pytest.fixture
async def other(lab: Any, api: Any, new_lab: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """A second instance; it begins after the first, so that both have the same CA."""
    api.put(NODES, {"metadata": {"name": "edge-1", "labels": {"node-role.kubernetes.io/edge": ""}}})
    await lab.start()
    folder = tmp_path / "other"
    folder.mkdir()
    made = new_lab(api, folder, "192.0.2.2")
    await made.start()
    try:
        yield made
    finally:
        await made.close()


async def test_an_instance_dies_and_the_other_goes_on_where_it_stood(lab: Any, other: Any, api: Any) -> None:
    edge = await lab.edge("edge-1")
    kept = [api.put(PODS, pod(f"kept-{i}")) for i in range(5)]
    gone = api.put(PODS, pod("gone"))
    await api.until(lambda: all(recorded(api, p) for p in [*kept, gone]))
    await lab.stop()
    await edge.until_closed()
    changed = api.put(PODS, pod("kept-0", env=[{"name": "A", "value": "2"}]))
    new = api.put(PODS, pod("new"))
    api.drop(PODS, "default", "gone")

    again = await other.edge("edge-1")
    deleted = await again.wait(lambda m: m.operation == "delete")
    assert deleted.resource == "default/pod/gone"
    for made in (changed, new):
        version = made["metadata"]["resourceVersion"]
        await again.wait(lambda m, made=made: m.resource.endswith(f"/{made['metadata']['name']}"))
        await api.until(lambda made=made, version=version: recorded(api, made) == version)
    await api.until(lambda: api.find(OBJECTSYNCS, "default", f"edge-1.{gone['metadata']['uid']}") is None)
    sent = [m.resource for m in again.received if "/pod/" in m.resource]
    assert sorted(sent) == ["default/pod/gone", "default/pod/kept-0", "default/pod/new"]


async def test_both_watch_and_only_the_one_with_the_session_delivers(lab: Any, other: Any, api: Any) -> None:
    edge = await other.edge("edge-1")
    env = [{"configMapRef": {"name": "cm"}}]
    api.put(CONFIGMAPS, {"metadata": {"name": "cm", "namespace": "default"}, "data": {"a": "1"}})
    made = api.put(PODS, pod("p", envFrom=env))
    await api.until(lambda: recorded(api, made) == made["metadata"]["resourceVersion"])
    for value in ("2", "3"):
        await edge.wait(lambda m: m.resource == "default/configmap/cm")
        api.put(CONFIGMAPS, {"metadata": {"name": "cm", "namespace": "default"}, "data": {"a": value}})
    last = api.find(CONFIGMAPS, "default", "cm")
    await api.until(lambda: recorded(api, last) == last["metadata"]["resourceVersion"])
    versions = [int(m.resource_version) for m in edge.received if m.resource == "default/configmap/cm"]
    assert versions == sorted(set(versions)), "twice, or an older one after a newer one"


async def test_the_end_of_a_stale_session_does_not_touch_the_new_one(lab: Any, other: Any, api: Any) -> None:
    stale = await lab.edge("edge-1")
    fresh = await other.edge("edge-1")
    made = api.put(PODS, pod("before"))
    await fresh.wait(lambda m: m.resource == "default/pod/before")
    await stale.socket.close()
    await lab.stop()
    later = api.put(PODS, pod("after"))
    await fresh.wait(lambda m: m.resource == "default/pod/after")
    await api.until(lambda: recorded(api, made) and recorded(api, later))
    request = await fresh.ask("query", "default/configmap/nope")
    assert b"NotFound" in request.content


def owner(api: Any) -> str:
    return str((api.find(NODES, "", "edge-1")["metadata"].get("annotations") or {}).get("cloudcore"))


async def test_a_node_moves_and_is_noted_served_and_written_for_by_its_new_instance_alone(
    lab: Any, other: Any, api: Any
) -> None:
    stale = await lab.edge("edge-1")
    await api.until(lambda: owner(api) == lab.core._address)
    moved = api.put(PODS, pod("moved"))
    await stale.wait(lambda m: m.resource == "default/pod/moved")
    # It reconnects to the other one; nobody has told the first that its link is dead.
    fresh = await other.edge("edge-1")
    await api.until(lambda: owner(api) == "192.0.2.2")
    patch = json.dumps({"metadata": {"uid": moved["metadata"]["uid"]}, "status": {"phase": "Running"}})
    answer = json.loads((await fresh.ask("patch", "default/podpatch/moved", patch)).content)
    assert answer["Object"]["status"]["phase"] == "Running"
    assert api.find(PODS, "default", "moved")["status"]["phase"] == "Running"
    lease = {"metadata": {"name": "edge-1"}, "spec": {"holderIdentity": "edge-1"}}
    assert (
        json.loads((await fresh.ask("insert", "kube-node-lease/lease/edge-1", lease)).content)["Err"] is None
    )
    assert api.find(LEASES, "kube-node-lease", "edge-1")["spec"]["holderIdentity"] == "edge-1"
    # The end of the old session, whichever way it comes, changes nothing of this.
    await stale.socket.close()
    async with asyncio.timeout(5):
        while lab.core.parts.nodes.connected("edge-1"):
            await asyncio.sleep(0.01)
    await lab.stop()
    later = api.put(PODS, pod("later"))
    await fresh.wait(lambda m: m.resource == "default/pod/later")
    await api.until(lambda: recorded(api, later) == later["metadata"]["resourceVersion"])
    assert owner(api) == "192.0.2.2"
    assert other.core.parts.nodes.connected("edge-1")


async def test_a_note_that_comes_late_is_not_written_over_the_new_instances(
    lab: Any, other: Any, api: Any
) -> None:
    failing = asyncio.Event()

    def fail(verb: str, gvr: Any, name: str) -> Exception | None:
        if verb == "patch" and gvr == NODES and not failing.is_set():
            failing.set()
            return Unreachable("away for a moment")
        return None

    api.fail = fail
    stale = await lab.edge("edge-1")
    async with asyncio.timeout(5):
        await failing.wait()  # the first instance means to try again in a second
    await stale.socket.close()
    await other.edge("edge-1")
    await api.until(lambda: owner(api) == "192.0.2.2")
    patches = api.count("patch", NODES)
    await asyncio.sleep(1.2)  # longer than its pause
    assert api.count("patch", NODES) == patches
    assert owner(api) == "192.0.2.2"
