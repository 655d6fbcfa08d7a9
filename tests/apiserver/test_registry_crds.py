import asyncio
import copy

import pytest

from edgehive.kube.status import ApiStatus

CRD = {
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
                },
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "size": {"type": "integer", "minimum": 1},
                                    "color": {"type": "string", "default": "red"},
                                },
                            },
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            },
            {
                "name": "v2",
                "served": True,
                "storage": False,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
            },
        ],
    },
}
CRDS = "customresourcedefinitions"


def crd(**names) -> dict:
    found = copy.deepcopy(CRD)
    found["spec"]["names"].update(names)
    return found


@pytest.fixture
async def widgets(cluster):
    await cluster.create(CRDS, crd())
    return cluster


def in_version(cluster, version: str, name: str = ""):
    call = cluster.call("widgets", name)
    call.info = cluster.catalog.find("example.com", version, "widgets")
    return call


async def test_a_crd_is_served_at_once(cluster):
    made = await cluster.create(CRDS, crd())
    conditions = {c["type"]: c["status"] for c in made["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert made["status"]["storedVersions"] == ["v1"]
    widget = await cluster.create("widgets", {"metadata": {"name": "w"}, "spec": {"size": 1, "junk": 2}})
    assert (widget["apiVersion"], widget["spec"]) == ("example.com/v1", {"size": 1, "color": "red"})
    assert widget["metadata"]["generation"] == 1


async def test_custom_objects_are_checked(widgets):
    with pytest.raises(ApiStatus) as caught:
        await widgets.create("widgets", {"metadata": {"name": "w"}, "spec": {"size": 0}})
    assert caught.value.code == 422
    await widgets.create("widgets", {"metadata": {"name": "w"}, "spec": {"size": 1}})
    with pytest.raises(ApiStatus) as caught:
        await widgets.update("widgets", {"metadata": {"name": "w"}, "spec": {"size": 2}})
    assert "must be specified for an update" in caught.value.message
    with pytest.raises(ApiStatus) as caught:
        await widgets.patch("widgets", "w", {"spec": {"size": 2}}, "strategic")
    assert caught.value.code == 415


async def test_versions_are_views_of_one_object(widgets):
    await widgets.create("widgets", {"metadata": {"name": "w"}, "spec": {"size": 1}})
    raw = widgets.registry.get(in_version(widgets, "v2", "w"))
    assert b'"apiVersion":"example.com/v2"' in raw
    listed = widgets.registry.list(in_version(widgets, "v2"), widgets.selection())
    assert b'"example.com/v2"' in listed.items[0]
    body = {"apiVersion": "example.com/v2", "kind": "Widget", "metadata": {"name": "x"}, "spec": {"any": 1}}
    assert b"example.com/v2" in await widgets.registry.create(in_version(widgets, "v2"), body)
    assert widgets.get("widgets", "x")["apiVersion"] == "example.com/v1"


async def test_the_storage_version_can_change(widgets):
    await widgets.create("widgets", {"metadata": {"name": "w"}, "spec": {"size": 1}})
    changed = widgets.get(CRDS, "widgets.example.com")
    changed["spec"]["versions"][0]["storage"] = False
    changed["spec"]["versions"][1]["storage"] = True
    updated = await widgets.update(CRDS, changed)
    assert set(updated["status"]["storedVersions"]) == {"v1", "v2"}
    assert widgets.get("widgets", "w")["apiVersion"] == "example.com/v1"
    assert b'"example.com/v2"' in widgets.registry.get(in_version(widgets, "v2", "w"))


async def test_the_status_of_a_custom_object_has_its_own_door(widgets):
    made = await widgets.create(
        "widgets", {"metadata": {"name": "w"}, "spec": {"size": 1}, "status": {"size": 9}}
    )
    assert "status" not in made
    after = await widgets.patch(
        "widgets/status",
        "w",
        {"status": {"size": 3}, "spec": {"size": 5}, "metadata": {"labels": {"a": "b"}}},
    )
    assert (after["spec"]["size"], after["status"], after["metadata"].get("labels")) == (1, {"size": 3}, None)
    assert after["metadata"]["generation"] == 1


async def test_deleting_a_crd_deletes_its_objects(widgets):
    await widgets.create("widgets", {"metadata": {"name": "w"}, "spec": {"size": 1}})
    rv = str(widgets.storage.revision)
    stream = widgets.watch("widgets", rv, timeout=30)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_all(stream))
        await asyncio.sleep(0)
        await widgets.delete(CRDS, "widgets.example.com")
        assert [kind for kind, _ in await waiting] == ["DELETED"]  # and the watch has ended
    assert widgets.storage.count("widgets.example.com") == 0
    assert widgets.catalog.find("example.com", "v1", "widgets") is None
    assert "widgets.example.com" not in widgets.names(CRDS)


async def _all(stream) -> list:
    return [line async for line in stream]


async def test_a_crd_waits_for_the_finalizers_of_its_objects(widgets):
    meta = {"name": "w", "finalizers": ["a/b"]}
    await widgets.create("widgets", {"metadata": meta, "spec": {"size": 1}})
    await widgets.delete(CRDS, "widgets.example.com")
    assert widgets.get(CRDS, "widgets.example.com")["metadata"]["deletionTimestamp"]
    await widgets.patch("widgets", "w", {"metadata": {"finalizers": None}})
    await widgets.registry.clean_up_crd("widgets.example.com")
    assert "widgets.example.com" not in widgets.names(CRDS)


async def test_a_kind_that_is_taken_is_not_served(widgets):
    other = crd(plural="gadgets", singular="gadget")
    other["metadata"]["name"] = "gadgets.example.com"
    made = await widgets.create(CRDS, other)
    conditions = {c["type"]: c["status"] for c in made["status"]["conditions"]}
    assert conditions["NamesAccepted"] == "False"
    assert widgets.catalog.find("example.com", "v1", "gadgets") is None


async def test_bad_definitions_are_refused(cluster):
    for change in (
        lambda c: c["metadata"].update(name="other.example.com"),
        lambda c: c["spec"]["versions"][1].update(storage=True),
        lambda c: c["spec"]["versions"][0]["schema"]["openAPIV3Schema"].update(type="string"),
    ):
        bad = crd()
        change(bad)
        with pytest.raises(ApiStatus) as caught:
            await cluster.create(CRDS, bad)
        assert caught.value.code == 422


async def test_stored_definitions_are_served_after_a_restart(widgets, new_cluster):
    await widgets.create("widgets", {"metadata": {"name": "w"}, "spec": {"size": 1}})
    again = new_cluster(widgets.storage._log)
    await again.storage.open()
    again.registry.sync_crds()
    assert again.names("widgets") == ["w"]
    await again.storage.close()


async def test_a_definition_whose_writer_went_away_is_served_all_the_same(cluster):
    task = asyncio.get_running_loop().create_task(cluster.create(CRDS, crd()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await cluster.create(
        "configmaps", {"metadata": {"name": "later"}}
    )  # the write before it is durable by now
    assert cluster.catalog.find("example.com", "v1", "widgets") is None
    cluster.registry.sync_crds()
    assert cluster.catalog.find("example.com", "v1", "widgets") is not None
    generation = cluster.catalog.generation
    cluster.registry.sync_crds()
    assert cluster.catalog.generation == generation
