"""Where a pod's volumes are and which it can have, without a loop."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.controllers.binding import Claim, Reference, StorageClass, Volume, choose
from edgehive.controllers.objects import Node, Pod
from edgehive.controllers.scheduling import NoFit, Placement, Wait, schedule
from edgehive.controllers.scheduling_model import ClusterState, pod_info
from edgehive.controllers.scheduling_volumes import VolumeState
from edgehive.kube.meta import OwnerReference

DONE = {"pv.kubernetes.io/bind-completed": "yes"}


def on_nodes(*names):
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": list(names)}]}
    return {"required": {"nodeSelectorTerms": [term]}}


def a_volume(name, *nodes, size="1Gi", claim=None, kind="late", labels=None, **spec):
    spec = {
        "capacity": {"storage": size},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": kind,
        "claimRef": {"namespace": "d", "name": claim, "uid": claim} if claim else None,
        "nodeAffinity": on_nodes(*nodes) if nodes else None,
        **spec,
    }
    return msgspec.convert({"metadata": {"name": name, "labels": labels or {}}, "spec": spec}, Volume)


def a_claim(name, volume="", size="1Gi", kind="late", phase="", notes=None, **spec):
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
        "storageClassName": kind,
        "volumeName": volume,
        **spec,
    }
    meta = {"name": name, "namespace": "d", "uid": name, "annotations": notes or (DONE if volume else {})}
    return msgspec.convert({"metadata": meta, "spec": spec, "status": {"phase": phase}}, Claim)


def a_class(name="late", provisioner="kubernetes.io/no-provisioner", mode="WaitForFirstConsumer", **more):
    body = {"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode, **more}
    return msgspec.convert(body, StorageClass)


def state_of(*objects):
    state = VolumeState()
    for one in objects:
        match one:
            case Claim():
                state.set_claim(one.key, one)
            case Volume():
                state.set_volume(one.metadata.name, one)
            case StorageClass():
                state.set_class(one.metadata.name, one)
    return state


def a_pod(*claims, name="p", ephemeral=()):
    volumes = [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims]
    volumes += [{"name": v, "ephemeral": {"volumeClaimTemplate": {}}} for v in ephemeral]
    meta = {"name": name, "namespace": "d", "uid": name}
    return pod_info(msgspec.convert({"metadata": meta, "spec": {"containers": [], "volumes": volumes}}, Pod))


def cluster_of(*names, **labels):
    state = ClusterState()
    for name in names:
        meta = {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}
        body = {"metadata": meta, "status": {"allocatable": {"pods": "10"}}}
        state.set_node(msgspec.convert(body, Node))
    return state


def decide(pod, state, cluster=None):
    return schedule(pod, cluster or cluster_of("n1", "n2"), lambda: 0.0, state)


def test_a_pod_goes_where_its_local_volume_is_and_nowhere_else():
    state = state_of(a_claim("c", "v"), a_volume("v", "n2", claim="c"))
    assert decide(a_pod("c"), state) == Placement("n2", 1)
    found = decide(a_pod("c"), state, cluster_of("n1", "n3"))
    assert found == NoFit("0/2 nodes are available: 2 node(s) had volume node affinity conflict.")
    unclear = {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "?"}]}]}}
    assert isinstance(
        decide(
            a_pod("c"),
            state_of(a_claim("c", "v"), a_volume("v", claim="c", nodeAffinity=unclear)),
        ),
        NoFit,
    )
    assert decide(a_pod("c"), state_of(a_claim("c", "v"), a_volume("v", claim="c"))).feasible == 2


@pytest.mark.parametrize(
    ("objects", "why"),
    [
        ((), 'persistentvolumeclaim "c" not found'),
        ((a_claim("c", kind=""),), "pod has unbound immediate PersistentVolumeClaims"),
        (
            (a_claim("c"), a_class(mode="Immediate"), a_volume("v")),
            "pod has unbound immediate PersistentVolumeClaims",
        ),
        (
            (a_claim("c", "v", notes={"a": "b"}), a_class(), a_volume("v")),
            "pod has unbound immediate PersistentVolumeClaims",
        ),
        (
            (a_claim("c", "v", phase="Lost"),),
            'persistentvolumeclaim "c" bound to non-existent persistentvolume "v"',
        ),
        (
            (a_claim("c", "v"),),
            "2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
        ),
        ((a_claim("c"), a_class()), "2 node(s) didn't find available persistent volumes to bind"),
        (
            (a_claim("c"), a_class(), a_volume("v", size="1Mi"), a_volume("w", kind="other")),
            "2 node(s) didn't find available persistent volumes to bind",
        ),
    ],
)
def test_why_claims_keep_a_pod_from_every_node(objects, why):
    assert decide(a_pod("c"), state_of(*objects)) == NoFit(f"0/2 nodes are available: {why}.")


def test_a_claim_that_goes_away_or_is_not_made_yet():
    going = a_claim("c", "v")
    going.metadata = msgspec.structs.replace(going.metadata, deletion_timestamp="2026-01-01T00:00:00Z")
    found = decide(a_pod("c"), state_of(going, a_volume("v", claim="c")))
    assert found == NoFit('0/2 nodes are available: persistentvolumeclaim "c" is being deleted.')
    assert "waiting for ephemeral volume controller to create the persistentvolumeclaim" in (
        decide(a_pod(ephemeral=["x"]), state_of()).message
    )
    state = state_of(a_claim("p-x", "v"), a_volume("v", claim="p-x"))
    assert "was not created for pod" in decide(a_pod(ephemeral=["x"]), state).message
    claim = state.claims["d", "p-x"]
    owner = OwnerReference(kind="Pod", name="p", uid="p", controller=True)
    claim.metadata = msgspec.structs.replace(claim.metadata, owner_references=(owner,))
    assert isinstance(decide(a_pod(ephemeral=["x"]), state), Placement)


def test_a_claim_that_only_one_pod_may_have():
    state = state_of(a_claim("c", "v", accessModes=["ReadWriteOncePod"]), a_volume("v", claim="c"))
    cluster = cluster_of("n1", "n2")
    cluster.place(a_pod("c", name="other"), "n1")
    assert "2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod" in (
        decide(a_pod("c"), state, cluster).message
    )
    cluster.remove("other")
    assert isinstance(decide(a_pod("c"), state, cluster), Placement)


def test_a_waiting_claim_takes_the_node_where_all_claims_find_a_volume():
    state = state_of(
        a_class(),
        a_claim("a"),
        a_claim("b", selector={"matchLabels": {"disk": "ssd"}}),
        a_volume("v1", "n1", labels={"disk": "ssd"}),
        a_volume("v2", "n2", labels={"disk": "ssd"}),
        a_volume("w2", "n2", size="2Gi"),
    )
    found = decide(a_pod("a", "b"), state)
    assert found.node == "n2"
    # the smallest would be v2 for both; b can have no other, so a moves to the larger one
    given_to = {one.claim.metadata.name: one.volume.metadata.name for one in found.plan.matches}
    assert given_to == {"a": "w2", "b": "v2"}


def test_two_pods_with_one_waiting_claim_do_not_bind_it_twice():
    state = state_of(a_class(), a_claim("c"), a_volume("v1", "n1"), a_volume("v2", "n2"))
    first = decide(a_pod("c"), state)
    state.assume(first.plan)
    assert decide(a_pod("c", name="q"), state) == Wait()
    state.forget(first.plan)
    assert isinstance(decide(a_pod("c", name="q"), state), Placement)


def test_a_volume_kept_for_a_waiting_claim_decides_alone():
    state = state_of(a_class(), a_claim("c"), a_volume("kept", "n2", claim="c"), a_volume("v1", "n1"))
    found = decide(a_pod("c"), state)
    assert (found.node, found.plan.matches[0].volume.metadata.name) == ("n2", "kept")
    assert choose(a_claim("c"), [a_volume("v1")], waits=True) is None
    assert choose(a_claim("c"), [a_volume("kept", claim="c")], waits=True).metadata.name == "kept"


def test_a_provisioner_is_told_the_node_and_then_waited_for():
    topology = [{"matchLabelExpressions": [{"key": "kubernetes.io/hostname", "values": ["n2"]}]}]
    made = a_class(provisioner="example.org/disk", allowedTopologies=topology)
    state = state_of(made, a_claim("c"))
    found = decide(a_pod("c"), state)
    assert found.node == "n2"
    assert [one.metadata.name for one in found.plan.provision] == ["c"]
    state.assume(found.plan)
    assert decide(a_pod("c", name="q"), state) == Wait()
    told = a_claim("c", notes={"volume.kubernetes.io/selected-node": "n1"})
    elsewhere = state_of(a_class(provisioner="example.org/disk"), told, a_volume("v", "n2"))
    found = decide(a_pod("c"), elsewhere)
    assert (found.node, found.plan.matches, found.plan.provision) == ("n1", (), (told,))
    elsewhere.set_volume("made", a_volume("made", "n1", claim="c"))
    assert [one.volume.metadata.name for one in decide(a_pod("c"), elsewhere).plan.matches] == ["made"]


NAMES = st.sampled_from([f"c{n}" for n in range(5)])
PLACES = st.lists(st.sampled_from(["n1", "n2", "n3"]), unique=True, max_size=2)
SIZES = st.sampled_from(["1Gi", "2Gi", "3Gi"])


@settings(max_examples=200)
@given(
    volumes=st.lists(st.tuples(PLACES, SIZES, st.booleans()), max_size=7),
    sizes=st.lists(st.tuples(SIZES, st.booleans()), min_size=5, max_size=5),
    pods=st.lists(st.tuples(st.lists(NAMES, unique=True, min_size=1, max_size=3), st.booleans()), max_size=6),
)
def test_no_volume_goes_to_two_claims_and_no_pod_where_its_volume_is_not(volumes, sizes, pods):
    """Decisions one after another, each written at once, later, or lost; as the loop does it."""
    shelves = [
        a_volume(f"v{n}", *where, size=size, labels={"fast": str(fast)})
        for n, (where, size, fast) in enumerate(volumes)
    ]
    claims = [
        a_claim(f"c{n}", size=size, selector={"matchLabels": {"fast": "True"}} if picky else None)
        for n, (size, picky) in enumerate(sizes)
    ]
    state = state_of(a_class(), *claims, *shelves)
    cluster = cluster_of("n1", "n2", "n3")
    where_is = {f"v{n}": set(where) or {"n1", "n2", "n3"} for n, (where, _, _) in enumerate(volumes)}
    promised: dict[str, str] = {}
    unwritten = []
    placed = {}
    for number, (names, write_now) in enumerate(pods):
        pod = a_pod(*names, name=f"p{number}")
        found = decide(pod, state, cluster)
        if not isinstance(found, Placement):
            continue
        state.assume(found.plan)
        cluster.place(pod, found.node)
        placed[found.node, pod.uid] = names
        for one in found.plan.matches:
            assert one.volume.metadata.name not in promised.values()
            assert one.claim.metadata.name not in promised
            assert one.volume.spec.capacity["storage"] >= one.claim.spec.resources["requests"]["storage"]
            promised[one.claim.metadata.name] = one.volume.metadata.name
        unwritten.append(found.plan)
        if write_now:
            for plan in unwritten:
                write(state, plan)
            unwritten = []
    for (node, _), names in placed.items():
        for name in names:
            assert node in where_is[promised[name]]


def write(state, plan):
    for one in plan.matches:
        claim, volume = one.claim.metadata.name, one.volume.metadata.name
        reference = Reference(namespace="d", name=claim, uid=claim)
        old = state.volumes[volume]
        spec = msgspec.structs.replace(old.spec, claim_ref=reference)
        state.set_volume(volume, msgspec.structs.replace(old, spec=spec))
        done = a_claim(claim, volume, selector=one.claim.spec.selector)
        state.set_claim(done.key, done)
    state.forget(plan)


@settings(max_examples=100)
@given(st.lists(st.lists(st.integers(0, 4), unique=True), max_size=4))
def test_all_claims_are_matched_whenever_that_is_possible(wishes):
    """Against trying everything: the labels say which volumes a claim may have."""
    volumes = [
        a_volume(f"v{n}", labels={f"for{i}": "y" for i, w in enumerate(wishes) if n in w}) for n in range(5)
    ]
    claims = [a_claim(f"c{i}", selector={"matchLabels": {f"for{i}": "y"}}) for i in range(len(wishes))]
    found = decide(a_pod(*(one.metadata.name for one in claims)), state_of(a_class(), *claims, *volumes))
    assert isinstance(found, Placement) == possible(wishes)


def possible(wishes, taken=frozenset()):
    if not wishes:
        return True
    return any(possible(wishes[1:], taken | {one}) for one in wishes[0] if one not in taken)
