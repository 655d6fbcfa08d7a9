"""What an edge has asked for is followed: changes arrive, deletes arrive, records are collected."""

import json
from typing import Any

import pytest

from edgehive.cloud.requested import Requested
from edgehive.kube.refs import CLUSTEROBJECTSYNCS, GVR, NODES, OBJECTSYNCS
from edgehive.wire.desired import Unknown
from edgehive.wire.objectsync import SyncKey, SyncRecord

VOLUMES = GVR("", "v1", "persistentvolumes")
CLAIMS = GVR("", "v1", "persistentvolumeclaims")
ATTACHMENTS = GVR("storage.k8s.io", "v1", "volumeattachments")

CASES = [
    (VOLUMES, "null/persistentvolume/x", "", CLUSTEROBJECTSYNCS, ""),
    (CLAIMS, "default/persistentvolumeclaim/x", "default", OBJECTSYNCS, "default"),
    # The edge names a namespace although attachments have none; the original takes its record for an orphan.
    (ATTACHMENTS, "default/volumeattachment/x", "", OBJECTSYNCS, "default"),
]


def thing(namespace: str, **spec: Any) -> dict[str, Any]:
    meta = {"name": "x"} | ({"namespace": namespace} if namespace else {})
    return {"metadata": meta, "spec": spec}


@pytest.mark.parametrize(("gvr", "resource", "namespace", "syncs", "where"), CASES)
async def test_changes_and_deletes_of_what_was_asked_for_arrive(
    lab: Any, api: Any, gvr: GVR, resource: str, namespace: str, syncs: GVR, where: str
) -> None:
    made = api.put(gvr, thing(namespace, size=1))
    await lab.start()
    edge = await lab.edge("edge-1")
    assert api.count("watch", gvr) == 0, "nobody has asked yet"
    answer = await edge.ask("query", resource)
    assert json.loads(answer.content)["spec"] == {"size": 1}
    name = f"edge-1.{made['metadata']['uid']}"

    def recorded(version: str) -> bool:
        found = api.find(syncs, where, name) or {}
        return found.get("status", {}).get("objectResourceVersion") == version

    await api.until(lambda: recorded(made["metadata"]["resourceVersion"]))
    await api.until(lambda: api.count("watch", gvr) > 0)
    body = api.find(gvr, namespace, "x")
    body["spec"] = {"size": 2}
    changed = api.put(gvr, body)
    update = await edge.wait(lambda m: m.operation == "update" and m.resource == resource)
    assert json.loads(update.content)["spec"] == {"size": 2}
    await api.until(lambda: recorded(changed["metadata"]["resourceVersion"]))
    api.drop(gvr, namespace, "x")
    gone = await edge.wait(lambda m: m.operation == "delete" and m.resource == resource)
    assert json.loads(gone.content)["metadata"]["uid"] == made["metadata"]["uid"]
    await api.until(lambda: api.find(syncs, where, name) is None)


@pytest.mark.parametrize(("gvr", "resource", "namespace", "syncs", "where"), CASES)
async def test_what_happened_while_no_cloudcore_ran_arrives(
    lab: Any, api: Any, gvr: GVR, resource: str, namespace: str, syncs: GVR, where: str
) -> None:
    api.put(NODES, {"metadata": {"name": "edge-1"}})
    for which in ("changed", "deleted"):
        api.put(gvr, thing(namespace, size=1) | {"metadata": thing(namespace)["metadata"] | {"name": which}})
    await lab.start()
    edge = await lab.edge("edge-1")
    prefix = resource.removesuffix("x")
    for which in ("changed", "deleted"):
        await edge.ask("query", prefix + which)
    await api.until(
        lambda: sum(bool(s.get("status", {}).get("objectResourceVersion")) for s in api.all(syncs)) >= 2
    )
    await lab.close()
    body = api.find(gvr, namespace, "changed")
    body["spec"] = {"size": 2}
    api.put(gvr, body)
    api.drop(gvr, namespace, "deleted")
    await lab.start()
    edge = await lab.edge("edge-1")
    update = await edge.wait(lambda m: m.operation == "update" and m.resource == prefix + "changed")
    assert json.loads(update.content)["spec"] == {"size": 2}
    await edge.wait(lambda m: m.operation == "delete" and m.resource == prefix + "deleted")
    await api.until(lambda: not [s for s in api.all(syncs) if s["spec"]["objectName"] == "deleted"])
    assert [s for s in api.all(syncs) if s["spec"]["objectName"] == "changed"]


async def test_a_kind_nobody_has_records_of_is_watched_no_longer(lab: Any, api: Any) -> None:
    made = api.put(VOLUMES, thing(""))
    await lab.start()
    edge = await lab.edge("edge-1")
    await edge.ask("query", "null/persistentvolume/x")
    requested = lab.core.parts.requested
    await api.until(lambda: api.find(CLUSTEROBJECTSYNCS, "", f"edge-1.{made['metadata']['uid']}") is not None)
    await api.until(lambda: requested.watched == (VOLUMES,))
    api.drop(VOLUMES, "", "x")
    await api.until(lambda: api.find(CLUSTEROBJECTSYNCS, "", f"edge-1.{made['metadata']['uid']}") is None)
    requested.tidy()
    assert requested.watched == (VOLUMES,), "kept for a while"


def test_what_a_module_of_its_own_follows_is_left_to_it(api: Any) -> None:
    key = SyncKey("edge-1", "default", "u1")
    access = SyncRecord(key, "policy.kubeedge.io/v1alpha1", "ServiceAccountAccess", "web", "5")
    settings: dict[str, Any] = {
        "api": api,
        "connected": lambda _: True,
        "send": lambda *_: None,
        "stamp": lambda: ("1", 1),
        "now": lambda: 0.0,
    }
    alone = Requested(**settings)
    alone.note(access)
    assert [gvr.resource for gvr in alone.watched] == ["serviceaccountaccesses"], (
        "left behind by an earlier setting"
    )
    beside = Requested(**settings, left_out=lambda record: record.kind == "ServiceAccountAccess")
    beside.note(access)
    beside.forget(access)
    assert (beside.watched, beside.knows(access)) == ((), False)


async def test_a_kind_that_is_not_served_deletes_nothing(lab: Any, api: Any) -> None:
    made = api.put(VOLUMES, thing(""))
    await lab.start()
    edge = await lab.edge("edge-1")
    await edge.ask("query", "null/persistentvolume/x")
    record = f"edge-1.{made['metadata']['uid']}"
    await api.until(
        lambda: bool(
            (api.find(CLUSTEROBJECTSYNCS, "", record) or {}).get("status", {}).get("objectResourceVersion")
        )
    )
    known = next(r for r in lab.core.parts.records.of("edge-1") if r.object_name == "x")
    await lab.close()
    del api.kinds[VOLUMES]
    requested = Requested(
        api=api,
        connected=lambda _: True,
        send=lambda *_: None,
        stamp=lambda: ("1", 1),
        now=lambda: 0.0,
        linger=0.0,
    )
    requested.note(known)
    assert isinstance(requested.find(known), Unknown)
    assert isinstance(await requested.fetch(known), Unknown)
    requested.forget(known)
    requested.tidy()
    assert requested.watched == ()
