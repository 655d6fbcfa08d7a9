"""The small pure pieces: queue, events, node liveness, ownership graph, replica order, daemon placement."""

import asyncio
import json
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.controllers.claims import Owner, sort_claims
from edgehive.controllers.context import in_batches
from edgehive.controllers.daemons import Placement, daemon_pod, fit, target_node, template_info
from edgehive.controllers.gc_graph import Graph, OwnerState, item_of
from edgehive.controllers.liveness import (
    Disruption,
    Grace,
    Heartbeats,
    autonomous,
    disruption,
    eviction_delay,
    overdue,
    pod_tolerations,
    silenced,
    wanted_taints,
)
from edgehive.controllers.objects import (
    Condition,
    DaemonSet,
    Node,
    Pod,
    Taint,
    Toleration,
    by_node,
    decode_pod,
)
from edgehive.controllers.recorder import EventBook, Subject
from edgehive.controllers.replicas import Replica, order_for_deletion, pod_available, set_condition
from edgehive.controllers.resources import Served, served_by_crd
from edgehive.controllers.runtime import Workers
from edgehive.controllers.scheduling_model import NodeInfo
from edgehive.controllers.times import format_micro_time, format_time, parse_time
from edgehive.kit.errors import ProtocolError
from edgehive.kube.meta import Meta, OwnerReference
from edgehive.kube.reflector import CachedObject
from edgehive.kube.refs import GVR
from edgehive.kube.selectors import LabelSelector
from edgehive.kube.status import ApiStatus
from edgehive.kube.workqueue import WorkQueue

NOW = 1_700_000_000.0


def test_times_read_back():
    assert parse_time(format_time(NOW)) == NOW
    assert parse_time(format_micro_time(NOW + 0.25)) == NOW + 0.25
    assert parse_time("2023-11-14T22:13:20+00:00") == NOW
    assert parse_time("yesterday") is parse_time(None) is None


@given(
    st.lists(
        st.one_of(st.tuples(st.just("add"), st.integers(0, 3)), st.just("take"), st.just("done")), max_size=60
    )
)
def test_a_key_is_never_handled_twice_at_once_and_never_forgotten(operations):
    queue: WorkQueue[int] = WorkQueue()
    busy: list[int] = []
    asked: set[int] = set()
    for operation in operations:
        match operation:
            case ("add", key):
                queue.add(key)
                asked.add(key)
            case "take":
                key = queue.take(0.0)
                if key is not None:
                    assert key not in busy
                    busy.append(key)
                    asked.discard(key)
            case "done" if busy:
                queue.done(busy.pop(0))
    for key in busy:
        queue.done(key)
    left = set()
    while (key := queue.take(0.0)) is not None:
        left.add(key)
        queue.done(key)
    assert left == asked


def test_delays_and_failures():
    queue: WorkQueue[str] = WorkQueue(initial=1.0, maximum=4.0)
    queue.add_at("a", 10)
    queue.add_at("a", 5)
    queue.add_at("a", 20)
    assert (queue.deadline(), queue.take(4)) == (5, None)
    assert queue.take(5) == "a"
    queue.done("a")
    assert queue.deadline() is None
    assert [round(queue.failed("a", 0)) for _ in range(4)] == [1, 2, 4, 4]
    queue.succeeded("a")
    assert round(queue.failed("a", 0)) == 1
    queue.add("b")
    assert queue.deadline() == float("-inf")


def test_repeated_events_are_counted():
    book = EventBook("tester")
    subject = Subject("v1", "Pod", Meta(name="p", namespace="d", uid="u", resource_version="5"))
    first = book.record(subject, "Warning", "Why", "because", NOW)
    assert first.create
    assert first.body["involvedObject"]["uid"] == "u"
    assert first.body["metadata"]["namespace"] == "d"
    again = book.record(subject, "Warning", "Why", "because", NOW + 5)
    assert (again.create, again.name, again.body["count"]) == (False, first.name, 2)
    other = book.record(subject, "Warning", "Why", "something else", NOW + 5)
    assert other.create
    assert other.name != first.name
    late = book.record(subject, "Warning", "Why", "because", NOW + 5 + 601)
    assert late.create
    cluster = book.record(Subject("v1", "Node", Meta(name="n")), "Normal", "R", "m" * 5000, NOW)
    assert cluster.namespace == "default"
    assert len(cluster.body["message"]) == 1024


def node(
    *, ready="True", labels=None, annotations=None, taints=(), unschedulable=False, **conditions
) -> Node:
    listed = [{"type": kind, "status": status} for kind, status in conditions.items()]
    if ready:
        listed.append({"type": "Ready", "status": ready})
    body = {
        "metadata": {"name": "n", "labels": labels or {}, "annotations": annotations or {}},
        "spec": {"taints": list(taints), "unschedulable": unschedulable},
        "status": {"conditions": listed},
    }
    return msgspec.convert(body, Node)


def test_a_node_that_has_reported_gets_less_patience():
    assert overdue(node(), 39, Grace()) == 1
    assert overdue(node(ready=""), 39, Grace()) == 21


def test_nobody_grows_silent_while_we_sleep_ourselves():
    heartbeats = Heartbeats(stall=15)
    assert heartbeats.hear("n", "one", 0) == 0
    for now in (5, 10, 15):
        heartbeats.tick(now)
    assert heartbeats.hear("n", "one", 20) == 20
    assert heartbeats.hear("n", "one", 520) == 20  # 500 seconds of them we did not look
    assert heartbeats.hear("n", "two", 530) == 0
    heartbeats.forget("n")
    assert heartbeats.hear("n", "two", 535) == 0


def test_silence_makes_everything_unknown_once():
    conditions = {c.type: c for c in silenced(node(DiskPressure="False"), NOW)}
    assert {c.status for c in conditions.values()} == {"Unknown"}
    assert conditions["Ready"].reason == "NodeStatusUnknown"
    assert conditions["PIDPressure"].reason == "NodeStatusNeverUpdated"
    unknown = msgspec.structs.replace(
        node(), status=msgspec.structs.replace(node().status, conditions=tuple(conditions.values()))
    )
    assert silenced(unknown, NOW + 99) == tuple(conditions.values())


def keys(taints) -> set[tuple[str, str]]:
    return {(t.key.rpartition("/")[2], t.effect) for t in taints or ()}


def test_conditions_become_taints_and_foreign_taints_stay():
    mine = {"key": "mine", "effect": "NoSchedule"}
    assert wanted_taints(node(taints=[mine]), NOW, evict=True) is None
    pressed = wanted_taints(node(taints=[mine], DiskPressure="True", unschedulable=True), NOW, evict=True)
    assert keys(pressed) == {
        ("mine", "NoSchedule"),
        ("disk-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    }
    lost = wanted_taints(node(ready="Unknown"), NOW, evict=False)
    assert keys(lost) == {("unreachable", "NoSchedule")}
    assert keys(wanted_taints(node(ready="False"), NOW, evict=True)) == {
        ("not-ready", "NoSchedule"),
        ("not-ready", "NoExecute"),
    }
    assert keys(wanted_taints(node(ready=""), NOW, evict=True)) == {("not-ready", "NoSchedule")}
    tainted = [
        {"key": f"node.kubernetes.io/{k}", "effect": e}
        for k, e in (("unreachable", "NoSchedule"), ("unreachable", "NoExecute"))
    ]
    back = wanted_taints(node(taints=[*tainted, mine]), NOW, evict=True)
    assert keys(back) == {("mine", "NoSchedule")}
    assert wanted_taints(node(ready="Unknown", taints=tainted), NOW, evict=False) is None
    swapped = wanted_taints(node(ready="False", taints=tainted), NOW, evict=False)
    assert keys(swapped) == {("not-ready", "NoSchedule"), ("not-ready", "NoExecute")}


@pytest.mark.parametrize(
    ("states", "found"),
    [
        ([], Disruption.NORMAL),
        (["True"], Disruption.NORMAL),
        (["Unknown"], Disruption.FULL),
        (["Unknown", "False"], Disruption.FULL),
        (["Unknown", "Unknown", "True"], Disruption.NORMAL),
        (["Unknown"] * 3 + ["True"] * 2, Disruption.PARTIAL),
        (["Unknown"] * 3 + ["True"] * 9, Disruption.NORMAL),
    ],
)
def test_disruption(states, found):
    assert disruption(states) is found


def test_autonomy_is_for_edge_nodes_by_annotation_or_default():
    edge = {"node-role.kubernetes.io/edge": ""}
    yes, no = ({"edgehive.io/autonomy": value} for value in ("true", "false"))
    assert autonomous(node(labels=edge, annotations=yes).metadata, default=False)
    assert autonomous(node(labels=edge).metadata, default=True)
    assert not autonomous(node(labels=edge, annotations=no).metadata, default=True)
    assert not autonomous(node(labels=edge).metadata, default=False)
    assert not autonomous(node(annotations=yes).metadata, default=True)


def test_how_long_pods_stay():
    lost = Taint(key="node.kubernetes.io/unreachable", effect="NoExecute")
    pod = msgspec.convert({}, Pod)
    assert eviction_delay(pod_tolerations(pod.spec, pod.metadata, 300), [lost]) == 300
    assert eviction_delay((), [lost]) == 0
    assert eviction_delay((), [Taint(key="x", effect="NoSchedule")]) is None
    for_ever = Toleration(key=lost.key, operator="Exists")
    assert eviction_delay((for_ever,), [lost]) is None
    assert eviction_delay((for_ever, Toleration(operator="Exists", toleration_seconds=5)), [lost]) == 5
    stays = Pod(metadata=Meta(labels={"app-offline.kubeedge.io": "autonomy"}))
    assert eviction_delay(pod_tolerations(stays.spec, stays.metadata, 0), [lost]) is None
    own = msgspec.convert({"spec": {"tolerations": [{"operator": "Exists"}]}}, Pod)
    assert eviction_delay(pod_tolerations(own.spec, own.metadata, 0), [lost]) is None


THINGS = Served(GVR("", "v1", "things"), "Thing", True)


def item(uid, *owners, deleting=False, finalizers=(), block=True, namespace="d"):
    references = tuple(OwnerReference("v1", "Thing", o, o, block_owner_deletion=block) for o in owners)
    meta = Meta(
        name=uid,
        namespace=namespace,
        uid=uid,
        owner_references=references or None,
        finalizers=tuple(finalizers) or None,
        deletion_timestamp="2026-01-01T00:00:00Z" if deleting else None,
    )
    return item_of(THINGS, meta)


def test_the_graph_knows_owners_dependents_and_the_homeless():
    graph = Graph()
    child = item("child", "parent")
    graph.put(child)
    assert list(graph.homeless()) == ["child"]
    assert graph.owner_state(child, child.owners[0]) is OwnerState.UNKNOWN
    graph.put(item("parent"))
    assert list(graph.homeless()) == []
    assert graph.owner_state(child, child.owners[0]) is OwnerState.SOLID
    graph.put(item("parent", deleting=True, finalizers=["foregroundDeletion"]))
    assert graph.owner_state(child, child.owners[0]) is OwnerState.WAITING
    assert graph.get("parent").holds_foreground
    assert [i.uid for i in graph.blocking("parent")] == ["child"]
    graph.put(item("child", "parent", block=False))
    assert graph.blocking("parent") == []
    graph.put(item("child"))
    assert graph.dependents("parent") == []
    assert len(graph) == 2
    assert graph.remove("nobody") is None


def test_owners_elsewhere_or_of_another_name_do_not_count():
    graph = Graph()
    graph.put(item("parent", namespace="other"))
    child = item("child", "parent")
    assert graph.owner_state(child, child.owners[0]) is OwnerState.ABSENT
    cluster_wide = item("wide", "parent", namespace="")
    assert graph.owner_state(cluster_wide, cluster_wide.owners[0]) is OwnerState.SOLID


def test_verdicts():
    graph = Graph()
    two = item("x", "a", "b")
    solid, gone, waiting = OwnerState.SOLID, OwnerState.ABSENT, OwnerState.WAITING
    assert graph.judge(two, {"a": solid, "b": solid}).drop == ()
    assert graph.judge(two, {"a": solid, "b": gone}).drop == ("b",)
    assert graph.judge(two, {"a": gone, "b": gone}).delete == "Background"
    assert graph.judge(two, {"a": gone, "b": waiting}).delete == "Background"
    graph.put(item("y", "x"))
    assert graph.judge(two, {"a": gone, "b": waiting}).delete == "Foreground"
    assert graph.judge(item("x", "a", finalizers=["orphan"]), {"a": gone}).delete == "Orphan"
    assert graph.judge(item("x", "a", deleting=True), {"a": gone}).delete == ""


def test_which_kind_a_definition_serves():
    crd = {
        "spec": {
            "group": "g.io",
            "scope": "Cluster",
            "names": {"plural": "ws", "kind": "W"},
            "versions": [{"name": "v1", "served": True}, {"name": "v2", "served": True, "storage": True}],
        },
        "status": {"conditions": [{"type": "Established", "status": "True"}]},
    }
    assert served_by_crd(json.dumps(crd).encode()) == Served(GVR("g.io", "v2", "ws"), "W", False)
    crd["status"] = {}
    assert served_by_crd(json.dumps(crd).encode()) is None


def replica(
    name,
    *,
    uid="",
    phase="Running",
    ready="True",
    since=NOW - 100,
    created=NOW - 200,
    node="n",
    labels=None,
    **more,
) -> Replica:
    meta = {
        "name": name,
        "namespace": "d",
        "uid": uid or name,
        "labels": labels or {},
        "creationTimestamp": format_time(created),
        **more,
    }
    status = {
        "phase": phase,
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": format_time(since)}],
    }
    pod = msgspec.convert({"metadata": meta, "spec": {"nodeName": node}, "status": status}, Pod)
    return Replica(CachedObject(b"", pod.metadata), pod)


def test_which_replica_goes_first():
    ordered = [
        replica("unassigned", node=""),
        replica("pending", phase="Pending", ready="False"),
        replica("not-ready", ready="False"),
        replica("cheap", annotations={"controller.kubernetes.io/pod-deletion-cost": "-5"}),
        replica("crowded", node="full"),
        replica("just-ready", since=NOW - 1),
        replica("young", created=NOW - 10),
        replica("old"),
    ]
    related = [r.pod for r in ordered] + [replica(f"x{i}", node="full").pod for i in range(9)]
    found = order_for_deletion(list(reversed(ordered)), related, NOW)
    assert [r.pod.metadata.name for r in found] == [r.pod.metadata.name for r in ordered]


def test_when_a_pod_is_available():
    assert pod_available(replica("a", ready="False").pod, 0, NOW) is None
    assert pod_available(replica("a").pod, 0, NOW) == 0
    assert pod_available(replica("a", since=NOW - 3).pod, 10, NOW) == 7
    assert pod_available(replica("a", since=NOW - 30).pod, 10, NOW) == 0


def test_a_condition_keeps_its_transition_time_while_its_status_stays():
    first = set_condition((), Condition(type="A", status="True", reason="x"), NOW)
    second = set_condition(first, Condition(type="A", status="True", reason="y"), NOW + 50)
    third = set_condition(second, Condition(type="A", status="False", reason="z"), NOW + 90)
    stamps = [c[0].last_transition_time for c in (first, second, third)]
    assert stamps == [format_time(NOW), format_time(NOW), format_time(NOW + 90)]


def test_claims():
    selector = LabelSelector.from_object({"matchLabels": {"a": "b"}})
    me = Meta(name="me", uid="me")

    def obj(name, labels, owner=""):
        references = (OwnerReference("apps/v1", "RS", owner, owner, controller=True),) if owner else None
        return CachedObject(b"", Meta(name=name, labels=labels, owner_references=references))

    mine, theirs = obj("mine", {"a": "b"}, "me"), obj("theirs", {"a": "b"}, "you")
    free, strayed = obj("free", {"a": "b"}), obj("strayed", {}, "me")
    claims = sort_claims(me, selector, [mine, theirs, free, strayed, obj("other", {})])
    assert (claims.owned, claims.adopt, claims.release) == ([mine], [free], [strayed])
    going = Meta(name="me", uid="me", deletion_timestamp="2026-01-01T00:00:00Z")
    claims = sort_claims(going, selector, [mine, free, strayed])
    assert (claims.owned, claims.adopt, claims.release) == ([mine], [], [])


TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"nodeSelector": {"x": "y"}, "hostNetwork": True}}


def test_daemons_fit_by_selector_and_taints():
    daemon = template_info(TEMPLATE)
    labels = {"x": "y"}

    def taint(effect, key="k"):
        return (Taint(key=key, effect=effect),)

    assert fit(daemon, NodeInfo("n", labels=labels, unschedulable=True)).run
    assert not fit(daemon, NodeInfo("n")).stay
    blocked = fit(daemon, NodeInfo("n", labels=labels, taints=taint("NoSchedule")))
    assert (blocked.run, blocked.stay) == (False, True)
    assert not fit(daemon, NodeInfo("n", labels=labels, taints=taint("NoExecute"))).stay
    for key in ("not-ready", "unreachable"):
        lost = NodeInfo("n", labels=labels, taints=taint("NoExecute", f"node.kubernetes.io/{key}"))
        assert fit(daemon, lost).run


def test_a_daemon_is_meant_for_one_node():
    owner = Owner("apps/v1", "DaemonSet", Meta(name="ds", namespace="d", uid="u"))
    made = daemon_pod(TEMPLATE, owner, "n7", "hash")
    assert made["metadata"]["labels"] == {"a": "b", "controller-revision-hash": "hash"}
    assert target_node(msgspec.convert({"spec": made["spec"]}, Pod)) == "n7"
    keys = {t["key"].rpartition("/")[2] for t in made["spec"]["tolerations"]}
    assert "network-unavailable" in keys
    assert TEMPLATE["spec"].keys() == {"nodeSelector", "hostNetwork"}


def placement(pods, nodes=("a", "b", "c"), **update):
    daemon = template_info({})
    fits = {name: fit(daemon, NodeInfo(name)) for name in nodes}
    strategy = {"type": update.pop("type", "RollingUpdate"), "rollingUpdate": update}
    daemonset = msgspec.convert({"metadata": {"name": "ds"}, "spec": {"updateStrategy": strategy}}, DaemonSet)
    return Placement(daemonset=daemonset, digest="new", fits=fits, pods=pods, now=NOW)


def daemon(name, node, digest="old", **more) -> Replica:
    return replica(name, node=node, labels={"controller-revision-hash": digest}, **more)


def names(replicas) -> list[str]:
    return sorted(r.pod.metadata.name for r in replicas)


def test_missing_surplus_and_stray_daemons():
    plan = placement(
        [daemon("a1", "a", "new"), daemon("a2", "a", "new", created=NOW), daemon("x", "gone", "new")]
    ).plan()
    assert sorted(plan.create) == ["b", "c"]
    assert names(plan.delete) == ["a2", "x"]
    ended = placement([daemon("a", "a", "new", phase="Failed")], nodes=("a",)).plan()
    assert (names(ended.failed), ended.create) == (["a"], [])


def test_a_rolling_update_spends_its_budget_on_healthy_daemons_and_broken_ones_at_once():
    pods = [daemon("a", "a"), daemon("b", "b"), daemon("c", "c")]
    assert names(placement(pods, maxUnavailable=1).plan().delete) == ["a"]
    assert names(placement(pods, maxUnavailable="67%").plan().delete) == ["a", "b", "c"]
    assert placement(pods, type="OnDelete").plan().delete == []
    busy = [daemon("a", "a", "new", ready="False"), *pods[1:]]
    assert placement(busy, maxUnavailable=1).plan().delete == []
    broken = [daemon("a", "a", ready="False"), *pods[1:]]
    assert names(placement(broken, maxUnavailable=1).plan().delete) == ["a"]


def test_a_surge_brings_the_new_daemon_first():
    pods = [daemon("a", "a"), daemon("b", "b"), daemon("c", "c")]
    plan = placement(pods, maxSurge=1, maxUnavailable=0).plan()
    assert (plan.create, plan.delete) == (["a"], [])
    waiting = [*pods, daemon("a-new", "a", "new", ready="False")]
    plan = placement(waiting, maxSurge=1, maxUnavailable=0).plan()
    assert (plan.create, plan.delete) == ([], [])
    arrived = [*pods, daemon("a-new", "a", "new")]
    plan = placement(arrived, maxSurge=1, maxUnavailable=0).plan()
    assert (plan.create, names(plan.delete)) == (["b"], ["a"])


def test_the_status_of_a_daemonset():
    pods = [daemon("a", "a", "new"), daemon("b", "b", ready="False"), daemon("z", "gone")]
    status = placement(pods).status()
    assert status == {
        "desiredNumberScheduled": 3,
        "currentNumberScheduled": 2,
        "numberMisscheduled": 1,
        "numberReady": 1,
        "updatedNumberScheduled": 1,
        "numberAvailable": 1,
        "numberUnavailable": 2,
        "observedGeneration": 0,
    }


def test_explicit_nulls_are_absent_fields_and_wrong_types_are_said():
    raw = b'{"metadata":{"name":"p","uid":null},"spec":{"nodeName":null,"containers":[{"name":"c","ports":null}]}}'
    pod = decode_pod(raw)
    assert (pod.metadata.name, pod.spec.node_name, pod.spec.containers[0].ports) == ("p", "", None)
    with pytest.raises(ProtocolError):
        decode_pod(b'{"spec":{"nodeName":5}}')
    assert by_node(CachedObject(b'{"spec":{"nodeName":5}}', Meta())) == ()
    assert by_node(CachedObject(b'{"spec":{"nodeName":"n"}}', Meta())) == ("n",)


async def test_one_key_that_breaks_its_controller_does_not_stop_the_others():
    seen: list[str] = []
    done = asyncio.Event()

    async def reconcile(key: str) -> None:
        if key == "bad":
            raise ValueError("a bug")
        seen.append(key)
        done.set()

    counters: Counter[str] = Counter()
    workers = Workers(name="w", reconcile=reconcile, counters=counters, count=1)
    workers.add("bad")
    workers.add("good")
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(workers.run())
        await done.wait()
        task.cancel()
    assert (seen, counters["w_errors"]) == (["good"], 1)


async def test_batches_stop_at_the_first_failure():
    tried: list[int] = []

    async def act(number: int) -> None:
        tried.append(number)
        if number == 4:
            raise ApiStatus(403, "Forbidden", "no")

    await in_batches(range(4), act)
    assert tried == [0, 1, 2, 3]
    with pytest.raises(ApiStatus):
        await in_batches(range(100), act)
    assert len(tried) == 4 + 7  # batches of 1, 2 and 4
