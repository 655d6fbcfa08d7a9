"""The scheduler's decisions, without a loop."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.controllers.objects import Node, Pod
from edgehive.controllers.scheduling import NoFit, Placement, schedule
from edgehive.controllers.scheduling_model import ClusterState, amounts, pod_info, pod_requests
from edgehive.controllers.scheduling_queue import PodQueue


def pod(name="p", uid="", labels=None, namespace="d", node="", requests=None, owner="", **spec):
    container = {"name": "c", "resources": {"requests": requests or {}}, "ports": spec.pop("ports", None)}
    meta = {"name": name, "namespace": namespace, "uid": uid or name, "labels": labels or {}}
    if owner:
        meta["ownerReferences"] = [{"uid": owner, "controller": True}]
    body = {"metadata": meta, "spec": {"containers": [container], "nodeName": node, **spec}}
    return pod_info(msgspec.convert(body, Pod))


def node(name, taints=(), labels=None, unschedulable=False, **allocatable):
    body = {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": {"taints": list(taints), "unschedulable": unschedulable},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10", **allocatable}},
    }
    return msgspec.convert(body, Node)


def cluster(*nodes, pods=()):
    state = ClusterState()
    for entry in nodes:
        state.set_node(entry)
    for entry in pods:
        state.place(entry, entry.node_name)
    return state


def where(wanted, state, chance=0.0):
    return schedule(wanted, state, lambda: chance)


def why(wanted, state) -> str:
    result = where(wanted, state)
    assert isinstance(result, NoFit)
    return result.message


def test_without_nodes_there_is_nothing_to_choose():
    assert why(pod(), cluster()) == "no nodes available to schedule pods"


def test_the_reasons_are_counted_and_said_as_kubernetes_says_them():
    state = cluster(
        node("a", unschedulable=True),
        node("b", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]),
        node("c", cpu="100m"),
        node("d", cpu="100m", memory="1Mi"),
        node("e", pods="0"),
    )
    assert why(pod(requests={"cpu": "1", "memory": "1Gi"}), state) == (
        "0/5 nodes are available: 1 Insufficient memory, 1 Too many pods, "
        "1 node(s) had untolerated taint {gpu: yes}, 1 node(s) were unschedulable, 2 Insufficient cpu."
    )


def test_selectors_and_required_affinity():
    state = cluster(node("a", labels={"zone": "x", "n": "5"}), node("b", labels={"zone": "y", "n": "9"}))

    def affinity(*terms):
        required = {"nodeSelectorTerms": list(terms)}
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}

    assert where(pod(nodeSelector={"zone": "y"}), state).node == "b"
    assert (
        where(
            pod(
                affinity=affinity(
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}
                )
            ),
            state,
        ).node
        == "b"
    )
    greater = {"matchExpressions": [{"key": "n", "operator": "Gt", "values": ["7"]}]}
    assert where(pod(affinity=affinity(greater)), state).node == "b"
    either = ({"matchExpressions": [{"key": "none", "operator": "Exists"}]}, greater)
    assert where(pod(affinity=affinity(*either)), state).node == "b"
    said = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
    assert why(pod(affinity=affinity({})), state) == said  # an empty term selects nothing
    assert (
        why(
            pod(
                nodeSelector={"zone": "y"},
                affinity=affinity({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["x"]}]}),
            ),
            state,
        )
        == said
    )


def test_tolerations():
    state = cluster(node("a", taints=[{"key": "k", "value": "v", "effect": "NoExecute"}]))
    for toleration in (
        {"operator": "Exists"},
        {"key": "k", "operator": "Exists"},
        {"key": "k", "value": "v"},
        {"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute"},
    ):
        assert isinstance(where(pod(tolerations=[toleration]), state), Placement)
    for toleration in (
        {"key": "k", "value": "w"},
        {"key": "x", "operator": "Exists"},
        {"key": "k", "operator": "Exists", "effect": "NoSchedule"},
    ):
        assert isinstance(where(pod(tolerations=[toleration]), state), NoFit)


def test_host_ports_conflict_only_where_addresses_meet():
    taken = pod("old", node="a", ports=[{"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.1"}])
    state = cluster(node("a"), pods=[taken])
    assert why(pod(ports=[{"containerPort": 80, "hostPort": 80}]), state) == (
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    )
    assert where(pod(ports=[{"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.2"}]), state).node == "a"
    assert where(pod(ports=[{"containerPort": 80, "hostPort": 80, "protocol": "UDP"}]), state).node == "a"
    assert isinstance(where(pod(hostNetwork=True, ports=[{"containerPort": 80}]), state), NoFit)


def test_requests_count_init_containers_sidecars_limits_and_overhead():
    spec = msgspec.convert(
        {
            "containers": [
                {"resources": {"requests": {"cpu": "100m"}}},
                {"resources": {"limits": {"cpu": "200m", "memory": "1Ki"}}},
            ],
            "initContainers": [
                {"restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
                {"resources": {"requests": {"cpu": "1"}}},
            ],
            "overhead": {"cpu": "10m"},
        },
        Pod.__annotations__["spec"],
    )
    assert pod_requests(spec) == {"cpu": 1060, "memory": 1024 * 1000, "pods": 1000}
    assert amounts({"cpu": "nonsense", "x": "1"}) == {"x": 1000}


def anti(selector, key="kubernetes.io/hostname", kind="podAntiAffinity"):
    term = {"labelSelector": {"matchLabels": selector}, "topologyKey": key}
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def test_anti_affinity_works_both_ways():
    lonely = pod("old", labels={"app": "x"}, node="a", affinity=anti({"app": "y"}))
    state = cluster(node("a"), node("b"), pods=[lonely])
    assert where(pod(labels={"app": "y"}), state).node == "b"
    assert where(pod(affinity=anti({"app": "x"})), state).node == "b"
    alone = cluster(node("a"), pods=[lonely])
    assert "existing pods anti-affinity" in why(pod(labels={"app": "y"}), alone)
    assert "didn't match pod anti-affinity rules" in why(pod(affinity=anti({"app": "x"})), alone)
    assert where(pod(namespace="other", affinity=anti({"app": "x"})), alone).node == "a"


def test_affinity_goes_where_friends_are_and_the_first_one_anywhere():
    friend = pod("old", labels={"app": "x"}, node="b")
    near = anti({"app": "x"}, kind="podAffinity")
    state = cluster(node("a"), node("b"), pods=[friend])
    assert where(pod(affinity=near), state).node == "b"
    empty = cluster(node("a"))
    assert "didn't match pod affinity rules" in why(pod(affinity=near), empty)
    assert where(pod(labels={"app": "x"}, affinity=near), empty).node == "a"


def test_namespaces_of_an_affinity_term():
    term = {
        "labelSelector": {},
        "topologyKey": "kubernetes.io/hostname",
        "namespaceSelector": {"matchLabels": {"t": "1"}},
    }
    wanted = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    state = cluster(node("a"), pods=[pod("old", namespace="team", node="a")])
    assert where(pod(affinity=wanted), state).node == "a"
    state.namespaces["team"] = {"t": "1"}
    assert isinstance(where(pod(affinity=wanted), state), NoFit)


def test_topology_spread():
    constraint = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "x"}},
    }
    nodes = (node("a", labels={"zone": "1"}), node("b", labels={"zone": "2"}))
    placed = [pod("one", labels={"app": "x"}, node="a")]
    wanted = pod(labels={"app": "x"}, topologySpreadConstraints=[constraint])
    assert where(wanted, cluster(*nodes, pods=placed)).node == "b"
    full = cluster(nodes[0], node("b", labels={"zone": "2"}, pods="0"), pods=placed)
    assert "1 node(s) didn't match pod topology spread constraints" in why(wanted, full)
    assert "(missing required label)" in why(wanted, cluster(node("c")))


def test_scores_prefer_empty_nodes_wanted_labels_fewer_siblings_and_no_soft_taints():
    busy = [pod(f"x{i}", node="a", requests={"cpu": "500m", "memory": "1Gi"}) for i in range(3)]
    assert where(pod(requests={"cpu": "100m"}), cluster(node("a"), node("b"), pods=busy)).node == "b"
    soft = node("a", taints=[{"key": "k", "effect": "PreferNoSchedule"}])
    assert where(pod(), cluster(soft, node("b"))).node == "b"
    prefer = {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 5, "preference": {"matchExpressions": [{"key": "ssd", "operator": "Exists"}]}}
        ]
    }
    state = cluster(node("a"), node("b", labels={"ssd": ""}))
    assert where(pod(affinity={"nodeAffinity": prefer}), state).node == "b"
    sibling = pod("s", node="a", owner="rs")
    assert where(pod(owner="rs"), cluster(node("a"), node("b"), pods=[sibling])).node == "b"


def test_equal_nodes_are_chosen_by_chance():
    state = cluster(node("a"), node("b"))
    assert {where(pod(), state, chance).node for chance in (0.0, 0.99)} == {"a", "b"}


def test_what_is_removed_gives_its_room_back():
    state = cluster(node("a", pods="1"))
    state.place(pod("x"), "a")
    assert isinstance(where(pod(), state), NoFit)
    assert state.remove("x")
    assert not state.remove("x")
    assert where(pod(), state).node == "a"
    state.drop_node("a")
    assert state.schedulable() == []


def test_only_what_matters_to_scheduling_counts_as_a_change():
    state = cluster(node("a"))
    assert not state.set_node(node("a"))
    assert state.set_node(node("a", cpu="3"))
    assert state.set_node(node("a", cpu="3", labels={"x": "y"}))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(100, 4000), min_size=1, max_size=5),
    wanted=st.lists(st.integers(0, 1500), max_size=25),
    chance=st.floats(0, 0.999),
)
def test_no_node_is_ever_given_more_than_it_has_and_no_fitting_one_is_missed(sizes, wanted, chance):
    state = cluster(*(node(f"n{i}", cpu=f"{size}m", pods="8") for i, size in enumerate(sizes)))
    for number, cpu in enumerate(wanted):
        info = pod(f"p{number}", requests={"cpu": f"{cpu}m"})
        result = where(info, state, chance)
        room = [
            n for n in state.schedulable() if n.used["cpu"] + cpu <= n.allocatable["cpu"] and len(n.pods) < 8
        ]
        assert isinstance(result, Placement) == bool(room)
        if isinstance(result, Placement):
            assert result.feasible == len(room)
            state.place(info, result.node)
    for entry in state.schedulable():
        assert entry.used["cpu"] <= entry.allocatable["cpu"]
        assert entry.used["pods"] <= entry.allocatable["pods"]


def test_the_queue_tries_by_priority_then_age_and_parks_what_does_not_fit():
    queue = PodQueue()
    queue.add(("d", "old"), 0, "2026-01-01T00:00:00Z", 0)
    queue.add(("d", "new"), 0, "2026-01-02T00:00:00Z", 0)
    queue.add(("d", "vip"), 9, "2026-01-03T00:00:00Z", 0)
    assert [name for _, name in queue.take(0, 10)] == ["vip", "old", "new"]
    assert len(queue.take(0, 1)) == 1
    queue.remove(("d", "old"))
    queue.park(("d", "new"), 0, relates=False)
    queue.park(("d", "vip"), 0, relates=True)
    assert queue.take(10, 10) == []
    assert queue.deadline() == 300
    queue.wake(5, relating_only=True)
    assert queue.take(5, 10) == [("d", "vip")]
    queue.park(("d", "vip"), 5, relates=True)
    queue.wake(5)
    assert queue.take(5, 10) == [("d", "new")]  # the other one has failed twice: its back-off is longer
    assert queue.deadline() == 5
    assert queue.take(7, 10) == [("d", "vip"), ("d", "new")]
    queue.retry(("d", "new"), 7)
    assert queue.take(7, 10) == [("d", "vip")]
