import datetime

import pytest

from edgehive.kube.status import ApiStatus


def gone(cluster, resource: str, name: str) -> bool:
    return cluster.storage.get(resource, f"default/{name}") is None and (
        cluster.storage.get(resource, name) is None
    )


async def bound(cluster, pod, name: str = "p", **spec) -> dict:
    return await cluster.create("pods", pod(name, nodeName="n1", **spec))


async def test_most_kinds_go_at_once_and_answer_with_a_status(cluster):
    made = await cluster.create("configmaps", {"metadata": {"name": "c"}})
    answer = await cluster.delete("configmaps", "c")
    assert answer["status"] == "Success"
    assert answer["details"] == {"name": "c", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    assert gone(cluster, "configmaps", "c")


async def test_a_pod_on_a_node_is_stopped_gracefully(cluster, pod):
    await bound(cluster, pod)
    answer = await cluster.delete("pods", "p")
    meta = answer["metadata"]
    assert meta["deletionGracePeriodSeconds"] == 30
    assert meta["deletionTimestamp"] == "2026-01-01T00:00:30Z"
    assert not gone(cluster, "pods", "p")
    again = await cluster.delete("pods", "p")
    assert again["metadata"]["resourceVersion"] == meta["resourceVersion"]
    shorter = await cluster.delete("pods", "p", {"gracePeriodSeconds": 5})
    assert shorter["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:05Z"
    longer = await cluster.delete("pods", "p", {"gracePeriodSeconds": 60})
    assert longer["metadata"]["deletionGracePeriodSeconds"] == 5
    await cluster.delete("pods", "p", {"gracePeriodSeconds": 0})
    assert gone(cluster, "pods", "p")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_finished_pod_goes_at_once(cluster, pod, phase):
    await bound(cluster, pod)
    await cluster.patch("pods/status", "p", {"status": {"phase": phase}})
    await cluster.delete("pods", "p")
    assert gone(cluster, "pods", "p")


async def test_an_unscheduled_pod_goes_at_once(cluster, pod):
    await cluster.create("pods", pod())
    await cluster.delete("pods", "p")
    assert gone(cluster, "pods", "p")


async def test_preconditions(cluster, pod):
    made = await bound(cluster, pod)
    for condition in ({"uid": "other"}, {"resourceVersion": "1"}):
        with pytest.raises(ApiStatus) as caught:
            await cluster.delete("pods", "p", {"preconditions": condition, "gracePeriodSeconds": 0})
        assert caught.value.code == 409
    await cluster.delete(
        "pods", "p", {"preconditions": {"uid": made["metadata"]["uid"]}, "gracePeriodSeconds": 0}
    )
    assert gone(cluster, "pods", "p")


async def test_the_last_finalizer_lets_go(cluster):
    await cluster.create("configmaps", {"metadata": {"name": "c", "finalizers": ["a/b", "a/c"]}})
    answer = await cluster.delete("configmaps", "c")
    assert answer["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:00Z"
    with pytest.raises(ApiStatus) as caught:
        await cluster.patch("configmaps", "c", {"metadata": {"finalizers": ["a/b", "a/c", "a/d"]}})
    assert caught.value.code == 422
    await cluster.patch("configmaps", "c", {"metadata": {"finalizers": ["a/b"]}})
    assert not gone(cluster, "configmaps", "c")
    cluster.time += datetime.timedelta(seconds=9)
    await cluster.patch("configmaps", "c", {"metadata": {"finalizers": None}})
    assert gone(cluster, "configmaps", "c")


@pytest.mark.parametrize(
    ("policy", "finalizers"), [("Foreground", ["foregroundDeletion"]), ("Orphan", ["orphan"])]
)
async def test_propagation_becomes_a_finalizer(cluster, policy, finalizers):
    await cluster.create("configmaps", {"metadata": {"name": "c"}})
    answer = await cluster.delete("configmaps", "c", {"propagationPolicy": policy})
    assert answer["metadata"]["finalizers"] == finalizers
    await cluster.delete("configmaps", "c", {"propagationPolicy": "Background"})
    assert gone(cluster, "configmaps", "c")


async def test_bad_options_are_refused(cluster):
    for options in ({"propagationPolicy": "X"}, {"gracePeriodSeconds": "1"}, {"dryRun": ["Some"]}):
        with pytest.raises(ApiStatus):
            await cluster.delete("configmaps", "c", options)


async def test_a_namespace_waits_for_its_finalizer(cluster):
    await cluster.create("namespaces", {"metadata": {"name": "n"}})
    answer = await cluster.delete("namespaces", "n")
    assert answer["status"]["phase"] == "Terminating"
    with pytest.raises(ApiStatus) as caught:
        await cluster.create("configmaps", {"metadata": {"name": "c"}}, namespace="n")
    assert caught.value.code == 403
    assert "because it is being terminated" in caught.value.message
    await cluster.patch("namespaces", "n", {"spec": {"finalizers": []}})
    assert not gone(cluster, "namespaces", "n")
    body = cluster.get("namespaces", "n")
    body["spec"]["finalizers"] = []
    await cluster.update("namespaces/finalize", body)
    assert gone(cluster, "namespaces", "n")


async def test_the_first_namespaces_may_not_be_deleted(cluster):
    with pytest.raises(ApiStatus) as caught:
        await cluster.delete("namespaces", "default")
    assert caught.value.code == 403


async def test_a_collection_is_deleted_by_selector(cluster):
    from edgehive.apiserver.deletes import DeleteOptions

    for i in range(4):
        meta = {"name": f"c{i}", "labels": {"odd": str(i % 2)}}
        await cluster.create("configmaps", {"metadata": meta})
    await cluster.registry.delete_all(
        cluster.call("configmaps"), cluster.selection(labels="odd=1"), DeleteOptions()
    )
    assert cluster.names("configmaps") == ["c0", "c2", "kube-root-ca.crt"]


async def test_what_every_namespace_has_comes_back(cluster):
    await cluster.delete("serviceaccounts", "default")
    await cluster.delete("configmaps", "kube-root-ca.crt")
    assert cluster.names("serviceaccounts") == ["default"]
    assert cluster.get("configmaps", "kube-root-ca.crt")["data"] == {"ca.crt": "CA"}
