"""Deployments, replicasets and daemonsets over the real registry."""

import asyncio

from edgehive.controllers.app import Options
from edgehive.kube.refs import DAEMONSETS, DEPLOYMENTS, NODES, PODS, REPLICASETS

REVISION = "deployment.kubernetes.io/revision"


async def live_pods(world):
    return [p for p in await world.all(PODS) if not p["metadata"].get("deletionTimestamp")]


async def test_a_deployment_becomes_pods_on_nodes(world):
    await world.deployment()
    done = await world.rolled_out(3)
    assert done["metadata"]["annotations"][REVISION] == "1"
    reasons = {c["type"]: (c["status"], c["reason"]) for c in done["status"]["conditions"]}
    assert reasons == {
        "Available": ("True", "MinimumReplicasAvailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }
    pods = await world.all(PODS)
    assert {p["spec"]["nodeName"] for p in pods} == {"n1", "n2"}
    (owner,) = pods[0]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["controller"], owner["blockOwnerDeletion"]) == ("ReplicaSet", True, True)
    assert len(await world.events("Scheduled")) == 3


async def test_a_rollout_keeps_enough_pods_available_and_can_be_undone(world):
    await world.deployment(replicas=4, strategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}})
    await world.rolled_out(4)
    await world.set_image("i:2")
    while (await world.get(DEPLOYMENTS, "web"))["status"].get("updatedReplicas") != 4:
        sizes = [s["spec"]["replicas"] for s in await world.all(REPLICASETS)]
        assert sum(sizes) <= 5
        await asyncio.sleep(0.01)
    await world.rolled_out(4)
    sets = {s["metadata"]["annotations"][REVISION]: s for s in await world.all(REPLICASETS)}
    assert [sets[r]["spec"]["replicas"] for r in "12"] == [0, 4]

    await world.set_image("i:1")  # what `kubectl rollout undo` amounts to
    done = await world.rolled_out(4)
    assert done["metadata"]["annotations"][REVISION] == "3"
    sets = {s["metadata"]["annotations"][REVISION]: s for s in await world.all(REPLICASETS)}
    assert sorted(sets) == ["2", "3"]
    assert sets["3"]["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"
    assert {p["spec"]["containers"][0]["image"] for p in await live_pods(world)} == {"i:1"}


async def test_scaling_up_and_down(world):
    await world.deployment(replicas=1)
    await world.rolled_out(1)
    await world.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 5}})
    await world.rolled_out(5)
    await world.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 0}})

    async def none():
        return not await world.all(PODS)

    await world.until(none)
    (entry,) = await world.all(REPLICASETS)
    assert entry["metadata"]["annotations"]["deployment.kubernetes.io/desired-replicas"] == "0"


async def test_recreate_never_mixes_old_and_new(world):
    await world.deployment(replicas=2, strategy={"type": "Recreate", "rollingUpdate": None})
    await world.rolled_out(2)
    await world.set_image("i:2")
    while (await world.get(DEPLOYMENTS, "web"))["status"].get("updatedReplicas") != 2:
        images = {p["spec"]["containers"][0]["image"] for p in await world.all(PODS)}
        assert len(images) <= 1
        await asyncio.sleep(0.005)
    await world.rolled_out(2)


async def test_a_paused_deployment_scales_but_does_not_roll(world):
    await world.deployment(replicas=2)
    await world.rolled_out(2)
    await world.patch(DEPLOYMENTS, "web", {"spec": {"paused": True}})
    await world.set_image("i:2")
    await world.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 3}})

    async def scaled():
        pods = await live_pods(world)
        return len(pods) == 3 and pods

    pods = await world.until(scaled)
    assert {p["spec"]["containers"][0]["image"] for p in pods} == {"i:1"}
    await world.patch(DEPLOYMENTS, "web", {"spec": {"paused": False}})
    await world.rolled_out(3)
    assert {p["spec"]["containers"][0]["image"] for p in await live_pods(world)} == {"i:2"}


async def test_history_beyond_the_limit_is_deleted(world):
    await world.deployment(replicas=1, revisionHistoryLimit=1)
    for image in ("i:1", "i:2", "i:3", "i:4"):
        await world.set_image(image)
        await world.rolled_out(1)

    async def two_sets():
        sets = await world.all(REPLICASETS)
        return len(sets) == 2 and sorted(s["metadata"]["annotations"][REVISION] for s in sets)

    assert await world.until(two_sets) == ["3", "4"]


async def test_a_rollout_that_hangs_says_so_and_keeps_the_old_pods(run_world):
    broken = lambda pod: pod["spec"]["containers"][0]["image"] == "i:bad"  # noqa: E731
    async with run_world(Options(), broken=broken) as world:
        await world.node("n1")
        await world.deployment(
            replicas=3, progressDeadlineSeconds=1, strategy={"rollingUpdate": {"maxUnavailable": 0}}
        )
        await world.rolled_out(3)
        await world.set_image("i:bad")

        async def late():
            conditions = (await world.get(DEPLOYMENTS, "web"))["status"]["conditions"]
            return [
                c for c in conditions if c["reason"] == "ProgressDeadlineExceeded" and c["status"] == "False"
            ]

        await world.until(late)
        images = [p["spec"]["containers"][0]["image"] for p in await live_pods(world)]
        assert images.count("i:1") == 3


async def test_a_deleted_pod_is_replaced_and_an_orphan_is_adopted(world):
    await world.deployment(replicas=2)
    await world.rolled_out(2)
    victim = (await world.all(PODS))[0]
    labels = victim["metadata"]["labels"]
    await world.delete(PODS, victim["metadata"]["name"])

    async def replaced():
        pods = await live_pods(world)
        return len(pods) == 2 and victim["metadata"]["uid"] not in {p["metadata"]["uid"] for p in pods}

    await world.until(replaced)
    await world.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 3}})
    await world.rolled_out(3)
    # A pod taken out of the selection by its labels is let go and replaced.
    victim = (await live_pods(world))[0]
    await world.patch(PODS, victim["metadata"]["name"], {"metadata": {"labels": {"app": "other"}}})

    async def released():
        found = await world.get(PODS, victim["metadata"]["name"])
        return "ownerReferences" not in found["metadata"] and len(await live_pods(world)) == 4

    await world.until(released)
    # Put back, it is adopted again, and one too many goes.
    await world.patch(PODS, victim["metadata"]["name"], {"metadata": {"labels": labels}})

    async def three():
        pods = await live_pods(world)
        return len(pods) == 3 and all(p["metadata"].get("ownerReferences") for p in pods)

    await world.until(three)


async def test_pods_that_may_not_be_created_show_as_a_failing_replicaset(world):
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"serviceAccountName": "nobody", "containers": [{"name": "c", "image": "i"}]},
    }
    await world.deployment(template=template)

    async def failing():
        conditions = (await world.get(DEPLOYMENTS, "web"))["status"].get("conditions", [])
        return [c for c in conditions if c["type"] == "ReplicaFailure"]

    (condition,) = await world.until(failing)
    assert condition["reason"] == "FailedCreate"
    assert "nobody" in condition["message"]
    assert await world.until(lambda: world.events("FailedCreate"))


def daemonset(**spec) -> dict:
    template = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}
    spec = {"selector": {"matchLabels": {"app": "d"}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d"}, "spec": spec}


async def settled(world, nodes: int):
    async def done():
        found = await world.get(DAEMONSETS, "d")
        status = found["status"]
        keys = ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable")
        current = status.get("observedGeneration") == found["metadata"]["generation"]
        return found if current and [status.get(k) for k in keys] == [nodes] * 3 else None

    return await world.until(done)


async def test_a_daemonset_runs_on_every_fitting_node_and_follows_new_ones(world):
    await world.node("n3", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
    await world.patch(NODES, "n2", {"spec": {"unschedulable": True}}, None)
    await world.create(DAEMONSETS, daemonset())
    await settled(world, 2)
    pods = await live_pods(world)
    assert sorted(p["spec"]["nodeName"] for p in pods) == ["n1", "n2"]
    await world.node("n4")
    await settled(world, 3)
    await world.patch(NODES, "n4", {"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}}, None)
    await settled(world, 2)


async def test_a_daemonset_rolls_one_node_after_the_other(world):
    await world.create(DAEMONSETS, daemonset())
    await settled(world, 2)
    await world.patch(
        DAEMONSETS, "d", {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}}
    )
    await settled(world, 2)
    assert {p["spec"]["containers"][0]["image"] for p in await live_pods(world)} == {"i:2"}


async def test_a_daemonset_may_surge(world):
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    await world.create(DAEMONSETS, daemonset(updateStrategy=update))
    await settled(world, 2)
    await world.patch(
        DAEMONSETS, "d", {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}}
    )
    while True:
        ready = [p for p in await live_pods(world) if p["status"].get("phase") == "Running"]
        assert {p["spec"]["nodeName"] for p in ready} == {"n1", "n2"}
        if {p["spec"]["containers"][0]["image"] for p in await world.all(PODS)} == {"i:2"}:
            break
        await asyncio.sleep(0.005)
    await settled(world, 2)


async def test_a_daemon_that_ended_is_replaced(world):
    await world.create(DAEMONSETS, daemonset())
    await settled(world, 2)
    victim = (await live_pods(world))[0]
    await world.patch(PODS, victim["metadata"]["name"], {"status": {"phase": "Failed"}}, subresource="status")

    async def replaced():
        return victim["metadata"]["uid"] not in {p["metadata"]["uid"] for p in await world.all(PODS)}

    await world.until(replaced)
    await settled(world, 2)
    assert await world.events("FailedDaemonPod")
