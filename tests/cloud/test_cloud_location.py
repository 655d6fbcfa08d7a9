"""Which node needs what: counted exactly, and forgotten exactly."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgehive.cloud.location import LocationIndex, PodPlace, pod_node, pod_references, pod_shape


def raw(**spec: Any) -> bytes:
    return json.dumps({"metadata": {"name": "p"}, "spec": {"nodeName": "n", **spec}}).encode()


def test_every_way_to_refer_to_a_configmap_or_secret_counts() -> None:
    env = [
        {"name": "a", "valueFrom": {"configMapKeyRef": {"name": "c1", "key": "k"}}},
        {"name": "b", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}},
        {"name": "c", "value": "plain"},
    ]
    found = pod_references(
        raw(
            containers=[{"env": env}],
            initContainers=[{"envFrom": [{"configMapRef": {"name": "c2"}}, {"secretRef": {"name": "s2"}}]}],
            ephemeralContainers=[{"env": [{"name": "x", "valueFrom": {"secretKeyRef": {"name": "s3"}}}]}],
            imagePullSecrets=[{"name": "s4"}],
            volumes=[
                {"configMap": {"name": "c3"}},
                {"secret": {"secretName": "s5"}},
                {"projected": {"sources": [{"configMap": {"name": "c4"}}, {"secret": {"name": "s6"}}, {}]}},
                {"emptyDir": {}},
            ],
        ),
        "ns",
    )
    assert found == {("configmap", "ns", f"c{i}") for i in range(1, 5)} | {
        ("secret", "ns", f"s{i}") for i in range(1, 7)
    }


def test_what_cannot_be_read_needs_nothing() -> None:
    assert pod_references(b'{"spec":{"containers":5}}', "ns") == frozenset()
    assert pod_node(b"[]") == ""
    assert pod_node(raw()) == "n"


def test_only_spec_and_real_metadata_give_a_pod_its_shape() -> None:
    pod: dict[str, Any] = {
        "metadata": {"name": "p", "resourceVersion": "1"},
        "spec": {},
        "status": {"phase": "Pending"},
    }
    before = pod_shape(json.dumps(pod).encode())
    pod["status"] = {"phase": "Running"}
    pod["metadata"] |= {"resourceVersion": "2", "generation": 2, "managedFields": [{"time": "x"}]}
    assert pod_shape(json.dumps(pod).encode()) == before
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert pod_shape(json.dumps(pod).encode()) != before


_references = st.frozensets(
    st.tuples(st.sampled_from(["configmap", "secret"]), st.just("ns"), st.sampled_from("abc")), max_size=4
)
_steps = st.lists(
    st.tuples(st.sampled_from(["p1", "p2", "p3"]), st.sampled_from(["n1", "n2"]), st.none() | _references),
    max_size=30,
)


@given(_steps)
def test_the_index_always_equals_a_recount(steps: list[Any]) -> None:
    index, pods = LocationIndex(), {}
    for name, node, references in steps:
        key = ("ns", name)
        if references is None:
            pods.pop(key, None)
            index.remove(key)
        else:
            needed = {r for k, (n, refs) in pods.items() if n == node for r in refs}
            moved = key in pods and pods[key][0] == node and pods[key][1] == references
            pods[key] = (node, references)
            added = index.put(key, PodPlace(node, references, 0, "1"))
            assert added == (frozenset() if moved else references - needed)
        for n in ("n1", "n2"):
            expected = {r for node_, refs in pods.values() if node_ == n for r in refs}
            assert set(index.references(n)) == expected
            assert set(index.pods(n)) == {k for k, (node_, _) in pods.items() if node_ == n}
        for reference in {r for _, refs in pods.values() for r in refs}:
            assert set(index.nodes(reference)) == {n for n, refs in pods.values() if reference in refs}
