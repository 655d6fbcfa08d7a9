import asyncio
import json

import pytest

from edgehive.aio.storage import Storage
from edgehive.kit.errors import StorageError
from edgehive.kube.status import ApiStatus
from edgehive.store.log import Batch, MemoryLog


async def refused(code: int, reason: str, work) -> ApiStatus:
    with pytest.raises(ApiStatus) as caught:
        await work
    assert (caught.value.code, caught.value.reason) == (code, reason), caught.value.message
    return caught.value


async def test_the_server_decides_about_metadata(cluster):
    made = await cluster.create(
        "configmaps",
        {
            "metadata": {
                "name": "c",
                "uid": "mine",
                "creationTimestamp": "2000-01-01T00:00:00Z",
                "selfLink": "/x",
            },
            "data": {"a": "b"},
        },
    )
    meta = made["metadata"]
    assert meta["uid"] != "mine"
    assert meta["creationTimestamp"] == "2026-01-01T00:00:00Z"
    assert meta["namespace"] == "default"
    assert meta["resourceVersion"] == str(cluster.storage.revision)
    assert "selfLink" not in meta
    assert made["apiVersion"] == "v1"
    assert meta["managedFields"][0]["manager"] == "test"


async def test_names_are_generated(cluster):
    made = [
        (await cluster.create("configmaps", {"metadata": {"generateName": "c-"}}))["metadata"]["name"]
        for _ in range(5)
    ]
    assert len(set(made)) == 5
    assert all(len(name) == 7 and name.startswith("c-") for name in made)


async def test_a_generated_name_that_is_taken_is_drawn_again(cluster):
    draws = iter(["aaaaa", "aaaaa", "bbbbb"])
    cluster.registry.writer._token = lambda n: next(draws)
    await cluster.create("configmaps", {"metadata": {"generateName": "c-"}})
    made = await cluster.create("configmaps", {"metadata": {"generateName": "c-"}})
    assert made["metadata"]["name"] == "c-bbbbb"


async def test_create_refuses(cluster):
    create = cluster.create
    await create("configmaps", {"metadata": {"name": "c"}})
    error = await refused(409, "AlreadyExists", create("configmaps", {"metadata": {"name": "c"}}))
    assert error.message == 'configmaps "c" already exists'
    await refused(404, "NotFound", create("configmaps", {"metadata": {"name": "c"}}, namespace="nowhere"))
    await refused(422, "Invalid", create("configmaps", {"metadata": {}}))
    await refused(422, "Invalid", create("configmaps", {"metadata": {"name": "Not_Valid"}}))
    await refused(
        400, "BadRequest", create("configmaps", {"metadata": {"name": "d", "resourceVersion": "7"}})
    )
    await refused(400, "BadRequest", create("configmaps", {"metadata": {"name": "d", "namespace": "other"}}))
    await refused(400, "BadRequest", create("configmaps", {"kind": "Secret", "metadata": {"name": "d"}}))
    await refused(400, "BadRequest", create("configmaps", {"metadata": {"name": "d"}, "data": {"a": 1}}))
    await refused(400, "BadRequest", create("configmaps", {"metadata": 7}))


async def test_unknown_fields_are_dropped_with_a_warning_or_refused(cluster):
    body = {"metadata": {"name": "c"}, "unknown": 1}
    again = {"metadata": {"name": "c"}, "unknown": 1}
    call = cluster.call("configmaps")
    made = json.loads(await cluster.registry.create(call, body))
    assert "unknown" not in made
    assert call.warnings == ['unknown field "unknown"']
    error = await refused(400, "BadRequest", cluster.create("configmaps", again, field_validation="Strict"))
    assert 'strict decoding error: unknown field "unknown"' in error.message


async def test_an_update_with_an_old_version_is_a_conflict(cluster):
    first = await cluster.create("configmaps", {"metadata": {"name": "c"}})
    second = await cluster.update("configmaps", {**first, "data": {"a": "1"}})
    error = await refused(409, "Conflict", cluster.update("configmaps", {**first, "data": {"a": "2"}}))
    assert "the object has been modified" in error.message
    del second["metadata"]["resourceVersion"]
    third = await cluster.update("configmaps", {**second, "data": {"a": "3"}})
    assert third["data"] == {"a": "3"}


async def test_an_update_that_changes_nothing_writes_nothing(cluster):
    first = await cluster.create("configmaps", {"metadata": {"name": "c"}, "data": {"a": "1"}})
    revision = cluster.storage.revision
    again = await cluster.update("configmaps", first)
    patched = await cluster.patch("configmaps", "c", {"data": {"a": "1"}})
    assert again["metadata"]["resourceVersion"] == patched["metadata"]["resourceVersion"]
    assert cluster.storage.revision == revision


async def test_concurrent_patches_all_happen(cluster):
    await cluster.create("configmaps", {"metadata": {"name": "c"}, "data": {}})
    async with asyncio.TaskGroup() as group:
        for i in range(20):
            group.create_task(cluster.patch("configmaps", "c", {"data": {f"k{i}": "v"}}))
    assert set(cluster.get("configmaps", "c")["data"]) == {f"k{i}" for i in range(20)}


async def test_identity_cannot_be_changed(cluster):
    first = await cluster.create("configmaps", {"metadata": {"name": "c"}})
    changed = {**first, "metadata": {**first["metadata"], "creationTimestamp": None, "generation": 9}}
    kept = await cluster.update("configmaps", changed)
    assert kept["metadata"]["creationTimestamp"] == first["metadata"]["creationTimestamp"]
    await refused(
        409,
        "Conflict",
        cluster.update("configmaps", {"metadata": {"name": "c", "uid": "other"}}),
    )
    await refused(400, "BadRequest", cluster.patch("configmaps", "c", {"metadata": {"name": "d"}}))


async def test_generation_counts_changes_of_the_specification_only(cluster, pod):
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    made = await cluster.create(
        "deployments", {"metadata": {"name": "d"}, "spec": spec, "status": {"replicas": 9}}
    )
    assert made["metadata"]["generation"] == 1
    assert made.get("status", {}) == {}
    assert made["spec"]["replicas"] == 1
    labelled = await cluster.patch("deployments", "d", {"metadata": {"labels": {"x": "y"}}})
    assert labelled["metadata"]["generation"] == 1
    scaled = await cluster.patch("deployments", "d", {"spec": {"replicas": 4}})
    assert scaled["metadata"]["generation"] == 2
    status = await cluster.patch(
        "deployments/status", "d", {"status": {"replicas": 4}, "spec": {"replicas": 1}}
    )
    assert (status["metadata"]["generation"], status["spec"]["replicas"], status["status"]["replicas"]) == (
        2,
        4,
        4,
    )
    ignored = await cluster.patch("deployments", "d", {"status": {"replicas": 1}})
    assert ignored["status"]["replicas"] == 4


async def test_a_dry_run_leaves_no_trace(cluster):
    revision = cluster.storage.revision
    made = await cluster.create("configmaps", {"metadata": {"name": "c"}}, dry_run=True)
    assert made["metadata"]["uid"]
    await cluster.delete("services", "kubernetes", dry_run=True)
    await cluster.patch("services", "kubernetes", {"metadata": {"labels": {"a": "b"}}}, dry_run=True)
    await cluster.create("namespaces", {"metadata": {"name": "n"}}, dry_run=True)
    assert cluster.storage.revision == revision


async def test_secrets_merge_their_text_into_data(cluster):
    made = await cluster.create(
        "secrets", {"metadata": {"name": "s"}, "data": {"a": "YQ=="}, "stringData": {"b": "b"}}
    )
    assert made["data"] == {"a": "YQ==", "b": "Yg=="}
    assert "stringData" not in made
    assert made["type"] == "Opaque"
    bad = {"metadata": {"name": "t"}, "data": {"a": "!"}}
    await refused(400, "BadRequest", cluster.create("secrets", bad))


async def test_apply_creates_updates_and_finds_conflicts(cluster):
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    made = await cluster.patch("configmaps", "c", applied, "apply", manager="one")
    assert made["metadata"]["managedFields"][0]["operation"] == "Apply"
    applied["data"] = {"a": "2"}
    error = await refused(409, "Conflict", cluster.patch("configmaps", "c", applied, "apply", manager="two"))
    assert error.details["causes"][0]["field"] == ".data.a"
    forced = await cluster.patch("configmaps", "c", applied, "apply", manager="two", force=True)
    assert forced["data"] == {"a": "2"}
    await refused(422, "Invalid", cluster.patch("configmaps", "c", applied, "apply", manager=""))
    await refused(422, "Invalid", cluster.patch("configmaps", "c", {}, "merge", force=True))


async def test_patches_of_an_unknown_kind_are_refused(cluster):
    await cluster.create("configmaps", {"metadata": {"name": "c"}})
    with pytest.raises(ApiStatus) as caught:
        await cluster.registry.patch(cluster.call("configmaps", "c"), b"{}", "application/json")
    assert caught.value.code == 415
    with pytest.raises(ApiStatus) as caught:
        await cluster.registry.patch(cluster.call("configmaps", "c"), b"{", "application/merge-patch+json")
    assert caught.value.code == 400


class FullDisk(MemoryLog):
    full = False

    def append(self, batch: Batch) -> None:
        if self.full:
            raise StorageError("no space left on device")
        super().append(batch)


async def test_a_full_disk_loses_nothing_and_recovers(new_cluster):
    disk = FullDisk()
    cluster = new_cluster(disk)
    await cluster.storage.open()
    await cluster.create("namespaces", {"metadata": {"name": "default"}})
    await cluster.create("configmaps", {"metadata": {"name": "c"}, "data": {"a": "1"}})
    disk.full = True
    with pytest.raises(StorageError):
        await cluster.patch("configmaps", "c", {"data": {"a": "2"}})
    assert cluster.get("configmaps", "c")["data"] == {"a": "1"}
    assert cluster.storage.problem == "no space left on device"
    with pytest.raises(ApiStatus) as caught:
        await cluster.api.create(
            cluster.call("configmaps").info.gvr, b'{"metadata":{"name":"d"}}', _in_default()
        )
    assert caught.value.code == 507
    disk.full = False
    await cluster.patch("configmaps", "c", {"data": {"a": "2"}})
    assert cluster.storage.problem == ""
    await cluster.storage.close()
    again = Storage(disk)
    await again.open()
    assert json.loads(again.get("configmaps", "default/c").value)["data"] == {"a": "2"}
    await again.close()


def _in_default():
    from edgehive.kube.api import WriteOptions

    return WriteOptions(namespace="default")


async def test_ephemeral_containers_are_added_by_their_own_door_and_stay(cluster, pod):
    made = await cluster.create("pods", pod(initContainers=[{"name": "i", "image": "x"}]))
    spy = {"name": "spy", "image": "busybox", "targetContainerName": "c", "stdin": True, "tty": True}
    await refused(422, "Invalid", cluster.patch("pods", "p", {"spec": {"ephemeralContainers": [spy]}}))
    patch = {
        "spec": {"ephemeralContainers": [spy], "nodeName": "elsewhere"},
        "metadata": {"labels": {"x": "y"}},
    }
    changed = await cluster.patch("pods/ephemeralcontainers", "p", patch, "strategic")
    (added,) = changed["spec"]["ephemeralContainers"]
    assert (added["imagePullPolicy"], added["targetContainerName"]) == ("Always", "c")
    assert "nodeName" not in changed["spec"], "nothing else comes in by this door"
    assert changed["metadata"]["labels"] == {"app": "a"}
    assert changed["metadata"]["generation"] == made["metadata"]["generation"] + 1
    assert cluster.get("pods", "p") == changed
    for wrong, text in [
        ({"name": "c", "image": "x"}, "Duplicate"),
        ({"name": "i", "image": "x"}, "Duplicate"),
        ({"name": "spy", "image": "other"}, "may not be changed"),
        ({"name": "b", "image": "x", "targetContainerName": "none"}, "Not found"),
        ({"name": "b", "image": "x", "ports": [{"containerPort": 1}]}, "ports"),
        ({"name": "b", "image": "x", "livenessProbe": {"exec": {"command": ["x"]}}}, "livenessProbe"),
        ({"name": "b", "image": "x", "resources": {"limits": {"cpu": "1"}}}, "resources"),
        ({"name": "b"}, "image"),
        ({"name": "B_B", "image": "x"}, "name"),
    ]:
        work = cluster.patch(
            "pods/ephemeralcontainers", "p", {"spec": {"ephemeralContainers": [wrong]}}, "strategic"
        )
        assert text in (await refused(422, "Invalid", work)).message
    gone = {"spec": {"ephemeralContainers": []}}
    error = await refused(422, "Invalid", cluster.patch("pods/ephemeralcontainers", "p", gone))
    assert "may not be removed" in error.message
    second = {"spec": {"ephemeralContainers": [{"name": "two", "image": "x:1"}]}}
    both = await cluster.patch("pods/ephemeralcontainers", "p", second, "strategic")
    assert {one["name"] for one in both["spec"]["ephemeralContainers"]} == {"spy", "two"}
    await cluster.update("pods", both)
    await refused(422, "Invalid", cluster.patch("pods", "p", gone))
    mirror = pod("m") | {}
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    await cluster.create("pods", mirror)
    await refused(422, "Invalid", cluster.patch("pods/ephemeralcontainers", "m", second, "strategic"))
