"""The scheduler at work over the real registry."""

from edgehive.controllers.app import Options
from edgehive.kube.refs import NODES, PODS


def pod(name="p", **spec):
    spec = {"containers": [{"name": "c", "image": "i"}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


async def condition_of(world, name="p"):
    found = await world.get(PODS, name)
    return next((c for c in found["status"].get("conditions", ()) if c["type"] == "PodScheduled"), None)


async def test_a_pod_without_a_node_says_why_and_gets_one_when_it_comes(run_world):
    async with run_world(Options(), kubelet=False) as world:
        await world.create(PODS, pod(nodeSelector={"disk": "ssd"}))

        async def refused():
            found = await condition_of(world)
            return found if found and found["status"] == "False" else None

        found = await world.until(refused)
        assert (found["reason"], found["message"]) == ("Unschedulable", "no nodes available to schedule pods")
        assert await world.until(lambda: world.events("FailedScheduling"))
        await world.node("n1")
        text = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."

        async def said():
            return (await condition_of(world))["message"] == text

        await world.until(said)
        await world.patch(NODES, "n1", {"metadata": {"labels": {"disk": "ssd"}}}, None)

        async def bound():
            return (await world.get(PODS, "p"))["spec"].get("nodeName")

        assert await world.until(bound) == "n1"
        assert (await condition_of(world))["status"] == "True"
        assert await world.until(lambda: world.events("Scheduled"))
        assert world.controllers.counters["scheduler_bound"] == 1


async def test_a_pod_that_leaves_makes_room_for_the_one_that_waits(world):
    await world.create(
        PODS,
        pod(
            "a",
            containers=[{"name": "c", "image": "i", "ports": [{"containerPort": 1, "hostPort": 1}]}],
            nodeSelector={"kubernetes.io/hostname": "n1"},
        ),
    )

    async def bound(name):
        return (await world.get(PODS, name))["spec"].get("nodeName")

    await world.until(lambda: bound("a"))
    await world.create(
        PODS,
        pod(
            "b",
            containers=[{"name": "c", "image": "i", "ports": [{"containerPort": 1, "hostPort": 1}]}],
            nodeSelector={"kubernetes.io/hostname": "n1"},
        ),
    )

    async def waiting():
        return await condition_of(world, "b")

    await world.until(waiting)
    await world.delete(PODS, "a")
    assert await world.until(lambda: bound("b")) == "n1"


async def test_other_schedulers_pods_and_gated_ones_are_left_alone(world):
    await world.create(PODS, pod("theirs", schedulerName="other"))
    await world.create(PODS, pod("gated", schedulingGates=[{"name": "wait"}]))
    await world.create(PODS, pod("ours"))

    async def bound():
        return (await world.get(PODS, "ours"))["spec"].get("nodeName")

    await world.until(bound)
    assert not (await world.get(PODS, "theirs"))["spec"].get("nodeName")
    assert not (await world.get(PODS, "gated"))["spec"].get("nodeName")
    await world.patch(PODS, "gated", {"spec": {"schedulingGates": None}})

    async def freed():
        return (await world.get(PODS, "gated"))["spec"].get("nodeName")

    await world.until(freed)


async def test_pods_bound_by_someone_else_count_too(world):
    for number in range(20):
        await world.create(PODS, pod(f"static-{number}", nodeName="n1"))
    for number in range(3):
        await world.create(PODS, pod(f"free-{number}"))

    async def all_bound():
        return [p for p in await world.all(PODS) if p["spec"].get("nodeName")] and all(
            p["spec"].get("nodeName") for p in await world.all(PODS)
        )

    await world.until(all_bound)
    free = [p["spec"]["nodeName"] for p in await world.all(PODS) if p["metadata"]["name"].startswith("free")]
    assert free == ["n2"] * 3
