"""MetaManager against a real TLS WebSocket server: messages, ACKs, the database, restarts."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgehive.edge.config import EdgeCoreConfig
from edgehive.edge.metaclient import Change, Failed, Ok
from edgehive.edge.store import EdgeStore
from edgehive.kit.errors import StorageError, UserError
from edgehive.wire.message import Message
from tests.support.edge_hub_lab import NODE, POD, limit_pages, pod, running, until


async def test_a_pod_is_durable_before_its_ack_and_edged_hears_of_it(
    cloud: Any, config: EdgeCoreConfig
) -> None:
    async with running(config) as edge:
        await edge.linked()
        sent = await cloud.push("insert", POD, pod(5), version=5)
        ack = await cloud.ack_of(sent)
        assert (ack.operation, ack.source, ack.group) == ("response", "edgecontroller", "resource")
        assert (ack.resource, ack.content) == (POD, b'"OK"')
        with closing(sqlite3.connect(config.database.data_source)) as db, db:
            ((key, kind, value),) = db.execute("SELECT key, type, value FROM meta").fetchall()
        assert (key, kind, json.loads(value)["metadata"]["uid"]) == (POD, "pod", "u1")
        assert [(c.kind, c.name) for c in edge.changes] == [(Change.UPDATE, "web")]
        assert [json.loads(raw)["metadata"]["name"] for raw in edge.meta.pods()] == ["web"]


async def test_a_repeat_is_acked_again_and_a_stale_version_never_overwrites(
    cloud: Any, config: EdgeCoreConfig
) -> None:
    async with running(config) as edge:
        await edge.linked()
        await cloud.ack_of(await cloud.push("update", POD, pod(7), version=7))
        await cloud.ack_of(await cloud.push("update", POD, pod(6), version=6))
        assert json.loads(edge.meta.pods()[0])["metadata"]["resourceVersion"] == "7"
        assert len(edge.changes) == 1


async def test_a_bare_delete_removes_the_pod_of_that_uid_only(cloud: Any, config: EdgeCoreConfig) -> None:
    async with running(config) as edge:
        await edge.linked()
        await cloud.ack_of(await cloud.push("insert", POD, pod(5), version=5))
        bare = {"metadata": {"name": "web", "namespace": "default", "uid": "other"}}
        await cloud.ack_of(await cloud.push("delete", POD, bare))
        assert len(edge.meta.pods()) == 1
        bare["metadata"]["uid"] = "u1"
        await cloud.ack_of(await cloud.push("delete", POD, bare))
        assert edge.meta.pods() == []
        last = edge.changes[-1]
        assert last.kind is Change.REMOVE
        assert last.raw is not None
        assert json.loads(last.raw)["spec"]["nodeName"] == NODE, "the last whole object is handed on"


async def test_a_disk_that_refuses_makes_an_error_and_no_ack(
    cloud: Any, config: EdgeCoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config) as edge:
        await edge.linked()
        await cloud.ack_of(await cloud.push("insert", POD, pod(5), version=5))
        limit_pages(edge.store, 0)
        big = pod(6, annotations={"x": "y" * 300_000})
        answer = await cloud.ack_of(await cloud.push("update", POD, big, version=6))
        assert answer.operation == "error"
        assert b"full" in answer.content
        assert json.loads(edge.meta.pods()[0])["metadata"]["resourceVersion"] == "5"
        assert len(edge.changes) == 1
        limit_pages(edge.store, 1 << 20)
        again = await cloud.push("update", POD, big, version=6)
        assert (await cloud.ack_of(again)).operation == "response"
        assert json.loads(edge.meta.pods()[0])["metadata"]["resourceVersion"] == "6"


async def test_a_disk_that_refuses_keeps_the_producer_trying(cloud: Any, config: EdgeCoreConfig) -> None:
    async with running(config) as edge:
        await edge.linked()
        limit_pages(edge.store, 0)
        patch = msgspec.json.encode({"status": {"message": "y" * 100_000}})
        reply = await edge.meta.patch_pod_status("default", "web", "u1", patch)
        assert isinstance(reply, Failed)
        assert reply.status.retryable
        assert "full" in reply.status.message
        cloud.objects["default/configmap/big"] = {"metadata": {"name": "big"}, "data": {"a": "b" * 100_000}}
        asked = await edge.meta.configmap("default", "big")
        assert isinstance(asked, Failed), "what cannot be kept is not handed out, nor acknowledged"
        assert not cloud.find("response", "default/configmap/big")


async def test_a_configmap_is_asked_once_kept_and_served_offline(cloud: Any, config: EdgeCoreConfig) -> None:
    cloud.objects["default/configmap/app"] = {
        "metadata": {"name": "app", "namespace": "default", "uid": "c1", "resourceVersion": "9"},
        "data": {"a": "1"},
    }
    async with running(config) as edge:
        await edge.linked()
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(edge.meta.configmap("default", "app")) for _ in range(5)]
        for task in asked:
            reply = task.result()
            assert isinstance(reply, Ok)
            assert json.loads(reply.object)["data"] == {"a": "1"}
        query = await cloud.message("query", "default/configmap/app")
        assert (query.source, query.group, query.content) == ("edged", "meta", b"null")
        assert len(cloud.find("query", "default/configmap/app")) == 1
        # the answer itself is acknowledged
        await cloud.until(lambda: cloud.find("response", "default/configmap/app"))
        await cloud.stop()
        await edge.linked(False)
        assert isinstance(await edge.meta.configmap("default", "app"), Ok)
        missing = await edge.meta.secret("default", "none")
        assert isinstance(missing, Failed)
        assert missing.status.code == 503


async def test_a_not_found_is_never_stored(cloud: Any, config: EdgeCoreConfig) -> None:
    async with running(config) as edge:
        await edge.linked()
        for _ in range(2):
            reply = await edge.meta.configmap("default", "missing")
            assert isinstance(reply, Failed)
            assert (reply.status.code, reply.status.reason) == (404, "NotFound")
        assert edge.store.get("default/configmap/missing") is None
        assert len(cloud.find("query", "default/configmap/missing")) == 2
        cloud.objects["default/configmap/missing"] = {"metadata": {"name": "missing"}, "data": {}}
        assert isinstance(await edge.meta.configmap("default", "missing"), Ok)


async def test_an_attachment_is_asked_for_anew_and_remembered_for_when_the_cloud_is_away(
    cloud: Any, config: EdgeCoreConfig
) -> None:
    async with running(config) as edge:
        await edge.linked()
        key = "default/volumeattachment/csi-1"
        for attached in (False, True):
            cloud.objects[key] = {"metadata": {"name": "csi-1"}, "status": {"attached": attached}}
            reply = await edge.meta.volume_attachment("csi-1")
            assert isinstance(reply, Ok)
            assert json.loads(reply.object)["status"]["attached"] is attached
        cloud.objects["null/csidriver/d"] = {"metadata": {"name": "d"}, "spec": {"attachRequired": False}}
        assert isinstance(await edge.meta.csi_driver("d"), Ok)
        missing = await edge.meta.csi_driver("other")
        assert isinstance(missing, Failed)
        assert missing.status.code == 404
        changed = {
            "metadata": {"name": "csi-1", "uid": "v1", "resourceVersion": "9"},
            "status": {"attached": True},
        }
        await cloud.ack_of(await cloud.push("update", key, changed, version=9))
        assert edge.objects == [("volumeattachment", "default", "csi-1")]
    await cloud.stop()
    async with running(config) as edge:
        reply = await edge.meta.volume_attachment("csi-1")
        assert isinstance(reply, Ok)
        assert json.loads(reply.object)["status"]["attached"] is True
        assert isinstance(await edge.meta.csi_driver("d"), Ok)
        unknown = await edge.meta.csi_driver("other")
        assert isinstance(unknown, Failed)
        assert unknown.status.retryable


async def test_a_changed_configmap_is_told(cloud: Any, config: EdgeCoreConfig) -> None:
    async with running(config) as edge:
        await edge.linked()
        body = {"metadata": {"name": "app", "namespace": "default", "uid": "c1", "resourceVersion": "3"}}
        await cloud.ack_of(await cloud.push("update", "default/configmap/app", body, version=3))
        assert edge.objects == [("configmap", "default", "app")]


async def test_pod_status_survives_a_cut_link_and_a_restart_and_the_newest_wins(
    cloud: Any, config: EdgeCoreConfig
) -> None:
    async with running(config) as edge:
        await edge.linked()
        await cloud.ack_of(await cloud.push("insert", POD, pod(5), version=5))
        await cloud.stop()
        await edge.linked(False)
        for phase in ("Pending", "Running"):
            patch = msgspec.json.encode({"metadata": {"uid": "u1"}, "status": {"phase": phase}})
            reply = await edge.meta.patch_pod_status("default", "web", "u1", patch)
            assert isinstance(reply, Failed)
            assert reply.status.retryable
    cloud.objects[POD] = pod(8)
    await cloud.start()
    async with running(config) as edge:
        await edge.linked()
        patch_message = await cloud.message("patch", "default/podpatch/web")
        assert json.loads(json.loads(patch_message.content))["status"] == {"phase": "Running"}
        assert len(cloud.find("patch", "default/podpatch/web")) == 1
        await until(lambda: len(edge.outbox) == 0)
        assert json.loads(edge.meta.pods()[0])["status"] == {"phase": "Running"}
        assert not [
            m
            for m in cloud.received
            if m.operation == "response" and m.resource.startswith("default/podpatch")
        ]


async def test_a_deletion_that_only_the_patch_answer_carries_reaches_edged(
    cloud: Any, config: EdgeCoreConfig
) -> None:
    async with running(config) as edge:
        await edge.linked()
        await cloud.ack_of(await cloud.push("insert", POD, pod(5), version=5))
        cloud.objects[POD] = pod(7, deletionTimestamp="2026-01-01T00:00:00Z")
        cloud.version = 50
        reply = await edge.meta.patch_pod_status("default", "web", "u1", b'{"status":{"phase":"Running"}}')
        assert isinstance(reply, Ok)
        assert len(edge.changes) == 2
        raw = edge.changes[-1].raw
        assert raw is not None
        assert json.loads(raw)["metadata"]["deletionTimestamp"]
        # the status alone is no news for edged
        assert isinstance(await edge.meta.patch_pod_status("default", "web", "u1", b'{"status":{"x":1}}'), Ok)
        assert len(edge.changes) == 2


async def test_the_final_delete_is_asked_with_grace_zero_and_uid(cloud: Any, config: EdgeCoreConfig) -> None:
    async with running(config) as edge:
        await edge.linked()
        assert isinstance(await edge.meta.delete_pod("default", "web", "u1"), Ok)
        message = await cloud.message("delete", POD)
        assert json.loads(message.content) == {"gracePeriodSeconds": 0, "preconditions": {"uid": "u1"}}


async def test_a_token_is_kept_per_request_and_outlives_the_link_and_a_restart(
    cloud: Any, config: EdgeCoreConfig
) -> None:
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": None,
            "expirationSeconds": 3607,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "u1"},
        },
    }

    def completed(message: Message) -> bytes | None:
        if message.operation != "query" or "/serviceaccounttoken/" not in message.resource:
            return None
        body = json.loads(message.content)
        body["spec"]["audiences"] = ["https://kubernetes.default.svc"]  # the API server fills these in
        # nearly over already: the edge will ask for another one at once
        body["status"] = {"token": "t1", "expirationTimestamp": "2020-01-01T00:00:00Z"}
        return json.dumps(body).encode()

    cloud.answers.append(completed)
    async with running(config) as edge:
        await edge.linked()
        reply = await edge.meta.token("default", "default", request, "u1")
        assert isinstance(reply, Ok)
        await edge.meta.token("default", "default", request, "u1")
        assert len(cloud.find("query", "default/serviceaccounttoken/default")) == 2, "stale: asked anew"
        (row,) = edge.store.rows("serviceaccounttoken")
        assert row.key == (
            '"default"/"default"/[]string(nil)/3607/'
            'v1.BoundObjectReference{Kind:"Pod", APIVersion:"v1", Name:"web", UID:"u1"}'
        )
        await cloud.stop()
        await edge.linked(False)
    async with running(config) as edge:
        reply = await edge.meta.token("default", "default", request, "u1")
        assert isinstance(reply, Ok), "a stale token is better than none while the cloud is away"
        assert json.loads(reply.object)["status"]["token"] == "t1"
        edge.meta.forget_tokens("u1")
        assert edge.store.rows("serviceaccounttoken") == []


async def test_an_answer_without_a_waiter_is_stored_and_acked(cloud: Any, config: EdgeCoreConfig) -> None:
    async with running(config) as edge:
        await edge.linked()
        body = {"metadata": {"name": "a", "uid": "x", "resourceVersion": "1"}}
        sent = await cloud.push("response", "default/configmap/a", body, parent_id="gone", version=1)
        await cloud.ack_of(sent)
        row = edge.store.get("default/configmap/a")
        assert row is not None
        assert b'"uid":"x"' in row.value.replace(b" ", b"")  # the cloud records it as delivered


async def test_two_edgecores_on_one_database_are_refused(cloud: Any, config: EdgeCoreConfig) -> None:
    store = EdgeStore(Path(config.database.data_source))
    try:
        with pytest.raises(UserError, match="another edgecore"):
            EdgeStore(Path(config.database.data_source))
    finally:
        store.close()
    EdgeStore(Path(config.database.data_source)).close()


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageError, match="edge.db"):
        EdgeStore(path)


async def test_a_burst_is_acked_completely_and_in_order_while_the_disk_writes(
    cloud: Any, config: EdgeCoreConfig
) -> None:
    async with running(config) as edge:
        await edge.linked()
        sent = [
            await cloud.push(
                "insert", f"default/configmap/c{n}", {"metadata": {"name": f"c{n}"}, "data": {"x": "y" * 900}}
            )
            for n in range(600)
        ]
        await cloud.ack_of(sent[-1])
        assert [m.parent_id for m in cloud.received if m.parent_id] == sent
        assert len(edge.store.rows("configmap")) == 600


async def test_what_is_not_understood_is_ignored_without_harm(cloud: Any, config: EdgeCoreConfig) -> None:
    async with running(config) as edge:
        await edge.linked()
        await cloud.push("explode", "default/pod/web", {})
        await cloud.push("insert", "default/volume/x/y/z", {})
        await cloud.push("update", "default/configmap/a", "no object")
        await cloud.ack_of(await cloud.push("insert", POD, pod(5, node="another-node"), version=5))
        assert edge.changes == []
        assert edge.meta.pods() == [], "a pod of another node is none of ours"
        assert edge.meta.pod("default", "web") is not None


async def test_registering_and_deleting_objects_is_not_logged_at_length(
    cloud: Any, config: EdgeCoreConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with running(config) as edge:
        await edge.linked()
        node = json.dumps({"kind": "Node", "metadata": {"name": NODE, "annotations": {"mark": "x" * 500}}})
        assert isinstance(await edge.meta.create_node(node.encode()), Ok)
        await cloud.ack_of(
            await cloud.push("insert", POD, pod(5, annotations={"mark": "x" * 500}), version=5)
        )
        await cloud.ack_of(await cloud.push("delete", POD, {"metadata": {"name": "web", "uid": "u1"}}))
    assert not [r for r in caplog.records if r.levelname == "ERROR" or len(r.getMessage()) > 300]
