"""Nodes that fall silent, namespaces that go, garbage, and what every namespace gets."""

import asyncio

from edgehive.controllers.app import Options
from edgehive.kube.refs import (
    CONFIGMAPS,
    CRDS,
    DEPLOYMENTS,
    GVR,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICASETS,
    SERVICEACCOUNTS,
)

QUICK = Options(node_grace=0.3, node_start_grace=0.3)


async def ready_of(world, name):
    conditions = (await world.get(NODES, name, None))["status"]["conditions"]
    return next(c for c in conditions if c["type"] == "Ready")


async def taints_of(world, name):
    taints = (await world.get(NODES, name, None))["spec"].get("taints", ())
    return {(t["key"].rpartition("/")[2], t["effect"]) for t in taints}


HASTY = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}
    for key in ("not-ready", "unreachable")
]
TEMPLATE = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "c", "image": "i:1"}], "tolerations": HASTY},
}


class Heart:
    """Renews the leases of some nodes."""

    def __init__(self, world, *names: str) -> None:
        self._world = world
        self._names = names
        self._beats = 0

    async def beat(self) -> None:
        for name in self._names:
            lease = {"metadata": {"name": name}, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}
            await self._world.create(
                LEASES, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease}, "kube-node-lease"
            )
        while True:
            await asyncio.sleep(0.05)
            self._beats += 1
            stamp = f"2026-01-01T00:00:00.{self._beats:06d}Z"
            for name in self._names:
                await self._world.patch(LEASES, name, {"spec": {"renewTime": stamp}}, "kube-node-lease")


async def test_a_silent_node_is_unknown_tainted_emptied_and_welcomed_back(run_world):
    async with run_world(QUICK) as world, asyncio.TaskGroup() as group:
        heart = group.create_task(Heart(world, "n2", "n3").beat())
        for name in ("n1", "n2", "n3"):
            await world.node(name)
        await world.deployment(replicas=3, template=TEMPLATE)
        await world.rolled_out(3)

        async def lost():
            return (await ready_of(world, "n1"))["status"] == "Unknown"

        await world.until(lost)
        assert (await ready_of(world, "n1"))["reason"] == "NodeStatusUnknown"

        async def tainted():
            return await taints_of(world, "n1") == {
                ("unreachable", "NoSchedule"),
                ("unreachable", "NoExecute"),
            }

        await world.until(tainted)

        async def moved():
            pods = await world.all(PODS)
            return len(pods) == 3 and {p["spec"].get("nodeName") for p in pods} == {"n2", "n3"}

        await world.until(moved)
        assert (await ready_of(world, "n2"))["status"] == "True"
        assert await world.until(lambda: world.events("TaintManagerEviction"))
        await world.report("n1", "True", "2026-02-02T00:00:00Z")

        async def clean():
            return await taints_of(world, "n1") == set()

        await world.until(clean)
        heart.cancel()


async def test_when_every_node_is_silent_nobody_is_evicted(run_world):
    async with run_world(QUICK) as world:
        await world.node("n1")
        await world.deployment(replicas=1, template=TEMPLATE)
        await world.rolled_out(1)

        async def lost():
            return await taints_of(world, "n1") == {("unreachable", "NoSchedule")}

        await world.until(lost)

        async def not_ready():
            (pod,) = await world.all(PODS)
            return [c for c in pod["status"]["conditions"] if c["type"] == "Ready" and c["status"] == "False"]

        await world.until(not_ready)
        await asyncio.sleep(0.3)
        assert len(await world.all(PODS)) == 1
        assert await taints_of(world, "n1") == {("unreachable", "NoSchedule")}
        await world.report("n1", "True", "2026-02-02T00:00:00Z")

        async def ready_again():
            (pod,) = await world.all(PODS)
            return [c for c in pod["status"]["conditions"] if c["type"] == "Ready" and c["status"] == "True"]

        await world.until(ready_again)


async def test_an_autonomous_edge_node_keeps_its_pods(run_world):
    options = Options(node_grace=0.3, node_start_grace=0.3, edge_autonomy=True)
    async with run_world(options) as world, asyncio.TaskGroup() as group:
        heart = group.create_task(Heart(world, "n2").beat())
        await world.node("e1", **{"node-role.kubernetes.io/edge": ""})
        await world.node("n2")
        await world.deployment(replicas=2, template=TEMPLATE)
        await world.rolled_out(2)

        async def lost():
            return await taints_of(world, "e1") == {("unreachable", "NoSchedule")}

        await world.until(lost)
        await asyncio.sleep(0.3)
        assert {p["spec"]["nodeName"] for p in await world.all(PODS)} == {"e1", "n2"}
        heart.cancel()


async def test_a_node_that_never_reported_is_tainted_and_given_up(run_world):
    async with run_world(QUICK) as world:
        await world.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}, None)

        async def tainted():
            return ("not-ready", "NoSchedule") in await taints_of(world, "n1")

        await world.until(tainted)

        async def unknown():
            node = await world.get(NODES, "n1", None)
            return [c["reason"] for c in node["status"].get("conditions", ()) if c["type"] == "Ready"]

        assert await world.until(unknown) == ["NodeStatusNeverUpdated"]


async def test_every_namespace_has_its_account_and_the_ca_and_gets_them_back(world):
    await world.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}, None)

    async def furnished():
        account = await world.get(SERVICEACCOUNTS, "default", "x")
        ca = await world.get(CONFIGMAPS, "kube-root-ca.crt", "x")
        return account and ca and ca["data"] == {"ca.crt": "CA"}

    await world.until(furnished)
    await world.delete(SERVICEACCOUNTS, "default", "x")
    await world.patch(CONFIGMAPS, "kube-root-ca.crt", {"data": {"ca.crt": "tampered"}}, "x")
    await world.until(furnished)


WIDGETS = GVR("example.com", "v1", "widgets")
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
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
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
            }
        ],
    },
}


def widget(name, **meta):
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name, **meta}}


async def with_widgets(world):
    await world.create(CRDS, CRD, None)

    async def served():
        try:
            return await world.all(WIDGETS) == []
        except Exception:
            return False

    await world.until(served)


async def test_a_namespace_goes_with_all_that_is_in_it_custom_resources_too(run_world):
    async with run_world(Options()) as world:
        await with_widgets(world)
        await world.create(
            NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}, None
        )
        await world.until(lambda: world.get(SERVICEACCOUNTS, "default", "x"))
        held = await world.create(WIDGETS, widget("held", finalizers=["example.com/hold"]), "x")
        await world.create(
            CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}, "x"
        )
        await world.delete(NAMESPACES, "x", None)

        async def waits():
            found = await world.get(NAMESPACES, "x", None)
            conditions = found["status"].get("conditions", ())
            left = {c["type"]: c["message"] for c in conditions if c["status"] == "True"}
            return left if len(left) == 2 else None

        left = await world.until(waits)
        assert "example.com/hold in 1 resource instances" in left["NamespaceFinalizersRemaining"]
        assert await world.get(CONFIGMAPS, "c", "x") is None
        assert held["metadata"]["uid"]
        await world.patch(WIDGETS, "held", {"metadata": {"finalizers": None}}, "x")

        async def gone():
            return await world.get(NAMESPACES, "x", None) is None

        await world.until(gone)


async def counts(world):
    return [len(await world.all(gvr)) for gvr in (DEPLOYMENTS, REPLICASETS, PODS)]


async def test_garbage_goes_in_the_background_in_the_foreground_or_stays_as_orphans(world):
    for policy in ("Background", "Foreground"):
        await world.deployment(replicas=2)
        await world.rolled_out(2)
        await world.delete(DEPLOYMENTS, "web", propagationPolicy=policy)

        async def empty():
            return await counts(world) == [0, 0, 0]

        await world.until(empty)
    await world.deployment(replicas=2)
    await world.rolled_out(2)
    await world.delete(DEPLOYMENTS, "web", propagationPolicy="Orphan")

    async def orphaned():
        sets = await world.all(REPLICASETS)
        return await counts(world) == [0, 1, 2] and "ownerReferences" not in sets[0]["metadata"]

    await world.until(orphaned)


async def test_a_foreground_deletion_waits_for_what_blocks_it(run_world):
    async with run_world(Options()) as world:
        await with_widgets(world)
        owner = await world.create(WIDGETS, widget("owner"))
        reference = {
            "apiVersion": "example.com/v1",
            "kind": "Widget",
            "name": "owner",
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": True,
        }
        held = widget("held", ownerReferences=[reference], finalizers=["example.com/hold"])
        await world.create(WIDGETS, held)
        free = {**reference, "blockOwnerDeletion": False}
        await world.create(
            CONFIGMAPS,
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "ownerReferences": [free]}},
        )
        await world.delete(WIDGETS, "owner", propagationPolicy="Foreground")

        async def dependents_going():
            found = await world.get(WIDGETS, "held")
            return found["metadata"].get("deletionTimestamp") and await world.get(CONFIGMAPS, "c") is None

        await world.until(dependents_going)
        assert (await world.get(WIDGETS, "owner"))["metadata"]["finalizers"] == ["foregroundDeletion"]
        await world.patch(WIDGETS, "held", {"metadata": {"finalizers": None}})

        async def gone():
            return await world.all(WIDGETS) == []

        await world.until(gone)


async def test_what_names_an_owner_that_never_was_goes_and_two_owners_must_both_go(world):
    one = await world.create(
        CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}}
    )
    known = {"apiVersion": "v1", "kind": "ConfigMap", "name": "one", "uid": one["metadata"]["uid"]}
    never = {"apiVersion": "v1", "kind": "ConfigMap", "name": "never", "uid": "no-such-uid"}
    for name, owners in (("lost", [never]), ("kept", [known, never])):
        meta = {"name": name, "ownerReferences": owners}
        await world.create(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})

    async def judged():
        kept = await world.get(CONFIGMAPS, "kept")
        return await world.get(CONFIGMAPS, "lost") is None and len(kept["metadata"]["ownerReferences"]) == 1

    await world.until(judged)
    await world.delete(CONFIGMAPS, "one")

    async def gone():
        return await world.get(CONFIGMAPS, "kept") is None

    await world.until(gone)


async def test_dependents_of_a_custom_resource_go_with_its_definition(run_world):
    async with run_world(Options()) as world:
        await with_widgets(world)
        owner = await world.create(WIDGETS, widget("owner"))
        reference = {
            "apiVersion": "example.com/v1",
            "kind": "Widget",
            "name": "owner",
            "uid": owner["metadata"]["uid"],
        }
        meta = {"name": "c", "ownerReferences": [reference]}
        await world.create(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
        await world.delete(WIDGETS, "owner")

        async def gone():
            return await world.get(CONFIGMAPS, "c") is None

        await world.until(gone)


async def test_garbage_is_collected_when_a_definition_changes_its_version(run_world):
    async with run_world(Options()) as world:
        await with_widgets(world)
        owner = await world.create(WIDGETS, widget("owner"))
        schema = CRD["spec"]["versions"][0]["schema"]
        versions = [
            {"name": "v1", "served": True, "storage": False, "schema": schema},
            {"name": "v2", "served": True, "storage": True, "schema": schema},
        ]
        await world.patch(CRDS, "widgets.example.com", {"spec": {"versions": versions}}, None)
        reference = {
            "apiVersion": "example.com/v1",
            "kind": "Widget",
            "name": "owner",
            "uid": owner["metadata"]["uid"],
        }
        meta = {"name": "c", "ownerReferences": [reference]}
        await world.create(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
        await world.delete(GVR("example.com", "v2", "widgets"), "owner")

        async def gone():
            return await world.get(CONFIGMAPS, "c") is None

        await world.until(gone)


async def test_pods_of_a_node_that_was_deleted_are_removed_after_a_while(world):
    await world.deployment(replicas=2)
    await world.rolled_out(2)
    collector = world.controllers.find("pod-gc")
    await world.delete(NODES, "n1", None)
    now = 1000.0

    async def moved():
        nonlocal now
        now += 41.0  # as if so much time passed between two looks
        await collector.collect(now)
        pods = await world.all(PODS)
        return len(pods) == 2 and {p["spec"].get("nodeName") for p in pods} == {"n2"}

    assert not await moved()  # the first look only notices
    await world.until(moved)
    assert world.controllers.counters["pods_collected"] >= 1
