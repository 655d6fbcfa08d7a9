"""Scheduler, binder and protection together over the real registry."""

import json

import pytest

from edgehive.controllers.binding import decode_claim, decode_volume
from edgehive.controllers.scheduling import schedule
from edgehive.controllers.volume_writes import bind_claim
from edgehive.kube.refs import CLAIMS, PODS, STORAGECLASSES, VOLUMES
from edgehive.kube.status import ApiStatus


def storage_class(name="late", provisioner="kubernetes.io/no-provisioner"):
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def volume_on(name, node, kind="late", **spec):
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": kind,
        "local": {"path": "/x"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        **spec,
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


def claim_of(name, kind="late"):
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": kind,
    }
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def pod_with(name, *claims, **spec):
    volumes = [{"name": one, "persistentVolumeClaim": {"claimName": one}} for one in claims]
    spec = {"containers": [{"name": "c", "image": "i"}], "volumes": volumes, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


async def node_of(world, name):
    return (await world.get(PODS, name))["spec"].get("nodeName")


async def said(world, text):
    return any(text in one for one in await world.events("FailedScheduling"))


async def phase(world, gvr, name):
    found = await world.get(gvr, name, "default" if gvr == CLAIMS else None)
    return (found or {}).get("status", {}).get("phase")


async def test_a_claim_waits_for_its_pod_and_both_go_where_the_volume_is(world):
    await world.create(STORAGECLASSES, storage_class(), None)
    await world.create(PODS, pod_with("p", "data"))
    await world.until(lambda: said(world, '0/2 nodes are available: persistentvolumeclaim "data" not found.'))
    await world.create(CLAIMS, claim_of("data"))
    await world.until(lambda: said(world, "2 node(s) didn't find available persistent volumes to bind"))
    assert await world.events("WaitForFirstConsumer") == [
        "waiting for first consumer to be created before binding"
    ]
    await world.create(VOLUMES, volume_on("v2", "n2"), None)
    assert await world.until(lambda: node_of(world, "p")) == "n2"
    claim, volume = await world.get(CLAIMS, "data"), await world.get(VOLUMES, "v2", None)
    assert (claim["spec"]["volumeName"], claim["status"]["phase"]) == ("v2", "Bound")
    assert volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
    # bound now: another pod with it cannot go to the other node
    await world.create(PODS, pod_with("q", "data", nodeSelector={"kubernetes.io/hostname": "n1"}))
    text = "1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had volume node affinity conflict"
    await world.until(lambda: said(world, text))


async def test_a_waiting_claim_without_a_pod_stays_unbound_and_many_pods_share_no_volume(world):
    await world.create(STORAGECLASSES, storage_class(), None)
    for number in range(6):
        await world.create(VOLUMES, volume_on(f"v{number}", f"n{number % 2 + 1}"), None)
    for number in range(7):
        await world.create(CLAIMS, claim_of(f"c{number}"))

    async def pending():
        return all([await phase(world, CLAIMS, f"c{n}") == "Pending" for n in range(7)])

    await world.until(pending)
    for number in range(6):
        await world.create(PODS, pod_with(f"p{number}", f"c{number}"))
    for number in range(6):
        node = await world.until(lambda name=f"p{number}": node_of(world, name))
        volume = (await world.get(CLAIMS, f"c{number}"))["spec"]["volumeName"]
        assert node == f"n{int(volume[1:]) % 2 + 1}"
    owners = [one["spec"]["claimRef"]["name"] for one in await world.all(VOLUMES)]
    assert sorted(owners) == [f"c{n}" for n in range(6)]
    assert await phase(world, CLAIMS, "c6") == "Pending"


async def test_a_provisioner_learns_the_node_and_the_pod_follows_its_volume(world):
    await world.create(STORAGECLASSES, storage_class("made", "example.org/disk"), None)
    await world.create(CLAIMS, claim_of("data", "made"))
    await world.create(PODS, pod_with("p", "data", nodeSelector={"kubernetes.io/hostname": "n2"}))

    async def asked():
        notes = (await world.get(CLAIMS, "data"))["metadata"].get("annotations", {})
        if notes.get("volume.kubernetes.io/storage-provisioner") == "example.org/disk":
            return notes.get("volume.kubernetes.io/selected-node")
        return None

    assert await world.until(asked) == "n2"
    assert not await node_of(world, "p")
    uid = (await world.get(CLAIMS, "data"))["metadata"]["uid"]
    reference = {"namespace": "default", "name": "data", "uid": uid}
    await world.create(VOLUMES, volume_on("made-1", "n2", "made", claimRef=reference), None)
    assert await world.until(lambda: node_of(world, "p")) == "n2"
    assert await phase(world, CLAIMS, "data") == "Bound"


async def test_a_claim_in_use_stays_until_its_pod_is_gone_and_its_volume_is_released_then(world):
    await world.create(STORAGECLASSES, storage_class(), None)
    await world.create(VOLUMES, volume_on("v1", "n1"), None)
    await world.create(CLAIMS, claim_of("data"))
    await world.create(PODS, pod_with("p", "data"))
    await world.until(lambda: node_of(world, "p"))
    await world.delete(CLAIMS, "data")
    await world.create(PODS, pod_with("late", "data"))
    await world.until(lambda: said(world, 'persistentvolumeclaim "data" is being deleted'))
    assert (await world.get(CLAIMS, "data"))["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    assert await phase(world, CLAIMS, "data") == "Bound"
    await world.delete(VOLUMES, "v1", None)
    await world.delete(PODS, "p")

    async def gone(gvr, name):
        return await world.get(gvr, name, None if gvr == VOLUMES else "default") is None

    await world.until(lambda: gone(CLAIMS, "data"))
    await world.until(lambda: gone(VOLUMES, "v1"))


async def test_an_unused_volume_is_released_and_goes_at_once(world):
    await world.create(VOLUMES, volume_on("v1", "n1", ""), None)
    await world.create(CLAIMS, claim_of("data", ""))

    async def is_in(gvr, name, wanted):
        return await phase(world, gvr, name) == wanted

    await world.until(lambda: is_in(VOLUMES, "v1", "Bound"))
    # one that was made by a server that knew nothing of protection
    await world.patch(CLAIMS, "data", {"metadata": {"finalizers": None}})

    async def protected():
        return (await world.get(CLAIMS, "data"))["metadata"].get("finalizers")

    assert await world.until(protected) == ["kubernetes.io/pvc-protection"]
    await world.delete(CLAIMS, "data")
    await world.until(lambda: is_in(VOLUMES, "v1", "Released"))
    await world.delete(VOLUMES, "v1", None)

    async def gone():
        return await world.get(VOLUMES, "v1", None) is None

    await world.until(gone)


async def test_a_volume_that_went_to_another_claim_is_not_taken_and_a_promise_not_kept_is_taken_back(world):
    await world.create(VOLUMES, volume_on("v1", "n1", ""), None)
    free = decode_volume(json.dumps(await world.get(VOLUMES, "v1", None)).encode())
    await world.create(CLAIMS, claim_of("first", ""))

    async def bound():
        return await phase(world, CLAIMS, "first") == "Bound"

    await world.until(bound)
    late = await world.create(CLAIMS, claim_of("late", ""))
    context = world.controllers.find("persistentvolume-binder")._context
    with pytest.raises(ApiStatus, match="no longer free"):
        await bind_claim(context, decode_claim(json.dumps(late).encode()), free)
    first = await world.get(CLAIMS, "first")
    assert (await world.get(VOLUMES, "v1", None))["spec"]["claimRef"]["uid"] == first["metadata"]["uid"]
    await world.delete(CLAIMS, "late")
    # what a scheduler leaves that wrote the volume when the claim had just taken another one
    promise = {"namespace": "default", "name": "first", "uid": first["metadata"]["uid"]}
    second = volume_on("v2", "n1", "", claimRef=promise)
    second["metadata"]["annotations"] = {"pv.kubernetes.io/bound-by-controller": "yes"}
    await world.create(VOLUMES, second, None)

    async def freed():
        found = await world.get(VOLUMES, "v2", None)
        return "claimRef" not in found["spec"] and found["status"]["phase"] == "Available"

    await world.until(freed)
    assert (await world.get(CLAIMS, "first"))["spec"]["volumeName"] == "v1"


async def test_the_claim_of_an_ephemeral_volume_comes_and_goes_with_its_pod(world):
    await world.create(STORAGECLASSES, storage_class(), None)
    await world.create(VOLUMES, volume_on("v2", "n2"), None)
    template = {"metadata": {"labels": {"a": "b"}}, "spec": claim_of("")["spec"]}
    volumes = [{"name": "x", "ephemeral": {"volumeClaimTemplate": template}}]
    await world.create(CLAIMS, claim_of("other-x"))
    await world.create(PODS, pod_with("other", volumes=volumes))
    text = 'PVC "default/other-x" was not created for pod "default/other" (pod is not owner)'
    await world.until(lambda: said(world, text))
    await world.create(PODS, pod_with("p", volumes=volumes))
    assert await world.until(lambda: node_of(world, "p")) == "n2"
    claim = await world.get(CLAIMS, "p-x")
    assert (claim["metadata"]["labels"], claim["status"]["phase"]) == ({"a": "b"}, "Bound")
    await world.delete(PODS, "p")

    async def gone():
        return await world.get(CLAIMS, "p-x") is None

    await world.until(gone)
    assert (await world.get(CLAIMS, "other-x"))["metadata"].get("deletionTimestamp") is None


@pytest.mark.parametrize("expression", [{"operator": "Like", "values": ["b"]}, {"operator": "In"}])
async def test_a_claim_whose_selector_makes_no_sense_is_refused(world, expression):
    claim = claim_of("data")
    claim["spec"]["selector"] = {"matchExpressions": [{"key": "a"} | expression]}
    with pytest.raises(ApiStatus, match="spec.selector") as refused:
        await world.create(CLAIMS, claim)
    assert refused.value.code == 422


async def test_a_pod_that_breaks_the_scheduler_holds_up_no_other(world, monkeypatch):
    def broken(pod, *rest):
        if pod.name == "bad":
            raise ZeroDivisionError
        return schedule(pod, *rest)

    monkeypatch.setattr("edgehive.controllers.scheduler.schedule", broken)
    for name in ("bad", "good"):
        await world.create(PODS, pod_with(name))
    await world.until(lambda: node_of(world, "good"))
    await world.create(PODS, pod_with("next"))
    await world.until(lambda: node_of(world, "next"))
    assert await node_of(world, "bad") is None
