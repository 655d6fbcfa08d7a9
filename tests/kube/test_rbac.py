"""Roles, bindings, and what they come to."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.kube.rbac import (
    Binding,
    Policy,
    Role,
    Subject,
    Who,
    binds,
    parse_binding,
    parse_role,
    rules_of,
    uncovered,
)
from edgehive.kube.rules import Attributes, Rule

ANN = Who("ann", ("devs", "system:authenticated"))
VERBS, GROUPS = ["get", "list", "create", "*"], ["", "apps", "*"]
RESOURCES, NAMES = ["pods", "pods/log", "*/log", "secrets", "*"], ["a", "b"]


def role(name: str, *rules: dict, namespace: str = "", labels: dict | None = None, **more) -> Role:
    meta = {"name": name, "namespace": namespace, "labels": labels or {}}
    parsed = parse_role(json.dumps({"metadata": meta, "rules": list(rules), **more}).encode())
    assert parsed is not None
    return parsed


def binding(kind: str, name: str, *subjects: dict, namespace: str = "") -> Binding:
    body = {
        "metadata": {"name": "b", "namespace": namespace},
        "roleRef": {"kind": kind, "name": name},
        "subjects": list(subjects),
    }
    parsed = parse_binding(json.dumps(body).encode())
    assert parsed is not None
    return parsed


def pods(*verbs: str, **more) -> dict:
    return {"verbs": list(verbs), "apiGroups": [""], "resources": ["pods"], **more}


def test_a_role_is_good_in_its_namespace_only():
    policy = Policy(
        [role("reader", pods("get", "list"), namespace="a")],
        [binding("Role", "reader", {"kind": "User", "name": "ann"}, namespace="a")],
    )
    assert policy.allows(ANN, Attributes("get", resource="pods", namespace="a", name="x"))
    assert not policy.allows(ANN, Attributes("get", resource="pods", namespace="b", name="x"))
    assert not policy.allows(ANN, Attributes("list", resource="pods"))
    assert not policy.allows(ANN, Attributes("delete", resource="pods", namespace="a", name="x"))
    assert not policy.allows(ANN, Attributes("get", resource="pods", subresource="log", namespace="a"))
    assert not policy.allows(Who("bob"), Attributes("get", resource="pods", namespace="a", name="x"))


def test_a_cluster_role_bound_in_a_namespace_gives_nothing_elsewhere_and_no_paths():
    both = role("all", pods("get"), {"verbs": ["get"], "nonResourceURLs": ["/metrics"]})
    there = Policy([both], [binding("ClusterRole", "all", {"kind": "Group", "name": "devs"}, namespace="a")])
    assert there.allows(ANN, Attributes("get", resource="pods", namespace="a"))
    assert not there.allows(ANN, Attributes("get", resource="pods", namespace="b"))
    assert not there.allows(ANN, Attributes("get", path="/metrics"))
    everywhere = Policy([both], [binding("ClusterRole", "all", {"kind": "Group", "name": "devs"})])
    assert everywhere.allows(ANN, Attributes("get", resource="pods", namespace="b"))
    assert everywhere.allows(ANN, Attributes("get", path="/metrics"))
    assert not everywhere.allows(ANN, Attributes("get", path="/metrics/x"))


def test_a_role_of_another_namespace_cannot_be_bound():
    policy = Policy(
        [role("reader", pods("get"), namespace="a")],
        [binding("Role", "reader", {"kind": "User", "name": "ann"}, namespace="b")],
    )
    assert not policy.allows(ANN, Attributes("get", resource="pods", namespace="b"))


@pytest.mark.parametrize(
    ("subject", "fits"),
    [
        ({"kind": "ServiceAccount", "name": "sa", "namespace": "n"}, True),
        ({"kind": "ServiceAccount", "name": "sa"}, True),  # the namespace of the binding
        ({"kind": "ServiceAccount", "name": "sa", "namespace": "m"}, False),
        ({"kind": "User", "name": "system:serviceaccount:n:sa"}, True),
        ({"kind": "Group", "name": "system:serviceaccounts:n"}, True),
        ({"kind": "Group", "name": "sa"}, False),
        ({"kind": "Robot", "name": "system:serviceaccount:n:sa"}, False),
    ],
)
def test_service_accounts_are_subjects(subject: dict, fits: bool):
    account = Who("system:serviceaccount:n:sa", ("system:serviceaccounts", "system:serviceaccounts:n"))
    assert binds(binding("Role", "r", subject, namespace="n"), account) is fits


def test_names_are_whole_names_and_subresources_have_wildcards():
    rule = role(
        "r", pods("get", resourceNames=["a*"]), {"verbs": ["get"], "apiGroups": [""], "resources": ["*/log"]}
    )
    policy = Policy([rule], [binding("ClusterRole", "r", {"kind": "User", "name": "ann"})])
    assert policy.allows(ANN, Attributes("get", resource="pods", namespace="n", name="a*"))
    assert not policy.allows(ANN, Attributes("get", resource="pods", namespace="n", name="ab"))
    assert not policy.allows(ANN, Attributes("get", resource="pods", namespace="n"))
    assert policy.allows(ANN, Attributes("get", resource="pods", subresource="log", namespace="n", name="q"))


def test_an_aggregated_role_has_the_rules_of_those_it_selects():
    selector = {"clusterRoleSelectors": [{"matchLabels": {"into": "view"}}]}
    policy = Policy(
        [
            role("view", aggregationRule=selector),
            role("part", pods("get"), labels={"into": "view"}),
            role("other", pods("delete"), labels={"into": "edit"}),
        ],
        [binding("ClusterRole", "view", {"kind": "User", "name": "ann"})],
    )
    assert policy.allows(ANN, Attributes("get", resource="pods", namespace="n"))
    assert not policy.allows(ANN, Attributes("delete", resource="pods", namespace="n"))


def test_roles_that_select_each_other_end():
    selector = {"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]}
    policy = Policy(
        [role(name, pods(name), labels={"x": "y"}, aggregationRule=selector) for name in ("get", "list")],
        [binding("ClusterRole", "get", {"kind": "User", "name": "ann"})],
    )
    assert policy.allows(ANN, Attributes("list", resource="pods", namespace="n"))


@pytest.mark.parametrize("raw", [b"", b"[]", b"[" * 200_000, b'{"metadata": {"name": 1}}', b"\xff"])
def test_what_is_no_role_is_none(raw: bytes):
    assert parse_role(raw) is None
    assert parse_binding(raw) is None
    assert parse_role(b'{"rules": 3}') is None
    assert parse_binding(b'{"subjects": "all"}') is None


rules = st.builds(
    lambda verbs, groups, resources, names: Rule(
        tuple(verbs), tuple(groups), tuple(resources), names=tuple(names), exact=True
    ),
    st.lists(st.sampled_from(VERBS), min_size=1, max_size=2),
    st.lists(st.sampled_from(GROUPS), min_size=1, max_size=2),
    st.lists(st.sampled_from(RESOURCES), min_size=1, max_size=2),
    st.lists(st.sampled_from(NAMES), max_size=2),
)
actions = st.builds(
    lambda verb, group, resource, name: Attributes(verb, group, *resource.partition("/")[::2], "n", name),
    st.sampled_from(["get", "list", "create", "delete"]),
    st.sampled_from(["", "apps", "batch"]),
    st.sampled_from(["pods", "pods/log", "secrets", "nodes/log", "nodes"]),
    st.sampled_from(["", "a", "b", "c"]),
)


@given(st.lists(rules, max_size=3), st.lists(rules, max_size=2), actions)
def test_what_is_covered_allows_nothing_that_was_not_allowed_before(own, wanted, action):
    """The guard against granting more than one has: whatever it lets pass adds nothing."""
    if not uncovered(own, wanted) and any(rule.allows(action) for rule in wanted):
        assert any(rule.allows(action) for rule in own)


@given(st.lists(rules, max_size=3))
def test_everybody_may_pass_on_what_they_have(own):
    assert uncovered(own, own) == []


def test_rules_of_a_body_that_is_no_role():
    with pytest.raises(msgspec.ValidationError):
        rules_of({"metadata": {}, "rules": "x"})
    assert Subject("User", "ann").namespace == ""
