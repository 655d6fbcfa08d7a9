"""What an administrator applies for cloudcore on their own cluster."""

from typing import Any

import pytest

from edgehive.kube.cloudcore_manifests import Wishes, cloudcore_manifests, rule_object
from edgehive.kube.cloudcore_rights import EVERYTHING, NAMESPACE, Needs, cloudcore_rights
from edgehive.kube.crd_check import validate_crd
from edgehive.kube.rules import Attributes, Rule


def kinds(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(one["kind"], one["metadata"]["name"]) for one in found]


def rules_of(found: list[dict[str, Any]], kind: str = "ClusterRole", name: str = "edgehive-cloudcore") -> Any:
    return next(o["rules"] for o in found if (o["kind"], o["metadata"]["name"]) == (kind, name))


def allowed(needs: Needs, verb: str, group: str, resource: str, **more: str) -> bool:
    return any(rule.allows(Attributes(verb, group, resource, **more)) for rule in cloudcore_rights(needs))


def test_the_namespace_comes_first_and_bindings_after_their_roles() -> None:
    found = kinds(cloudcore_manifests(Wishes(token=True)))
    assert found[0] == ("Namespace", "kubeedge")
    assert [name for kind, name in found if kind == "CustomResourceDefinition"] == [
        "objectsyncs.reliablesyncs.kubeedge.io",
        "clusterobjectsyncs.reliablesyncs.kubeedge.io",
        "devices.devices.kubeedge.io",
        "devicemodels.devices.kubeedge.io",
        "devicestatuses.devices.kubeedge.io",
    ]
    assert found.index(("ServiceAccount", "cloudcore")) < found.index(("Secret", "cloudcore-token"))
    assert found.index(("ClusterRole", "edgehive-cloudcore")) < found.index(
        ("ClusterRoleBinding", "edgehive-cloudcore")
    )


def test_every_definition_is_sound_and_kept_by_an_api_server_as_it_is() -> None:
    needs = Needs(devices=True, policy=True)
    for one in cloudcore_manifests(Wishes(needs=needs)):
        if one["kind"] == "CustomResourceDefinition":
            assert not validate_crd(one)
            assert_nothing_is_empty(one["spec"]["versions"][0]["schema"])


def assert_nothing_is_empty(schema: Any) -> None:
    """An API server drops ``properties: {}``, and `kubectl apply` would then find a change for ever."""
    if isinstance(schema, dict):
        assert schema.get("properties") != {}
        for value in schema.values():
            assert_nothing_is_empty(value)


def test_a_user_needs_no_account_and_is_bound_everywhere() -> None:
    found = cloudcore_manifests(Wishes(user="cloudcore.example", token=True))
    assert not [o for o in found if o["kind"] in ("ServiceAccount", "Secret")]
    bindings = [o for o in found if o["kind"].endswith("Binding")]
    assert {o["subjects"][0]["name"] for o in bindings} == {"cloudcore.example"}
    assert {o["metadata"].get("namespace") for o in bindings} == {None, NAMESPACE, "kube-node-lease"}


@pytest.mark.parametrize(
    ("needs", "verb", "group", "resource", "yes"),
    [
        (Needs(), "create", "", "nodes", True),
        (Needs(enforced=True), "create", "", "nodes", False),
        (Needs(enforced=True), "delete", "", "pods", False),
        (Needs(), "delete", "", "nodes", False),
        (Needs(), "update", "", "secrets", False),
        (EVERYTHING, "escalate", "rbac.authorization.k8s.io", "clusterroles", False),
        (EVERYTHING, "impersonate", "", "users", False),
        (Needs(), "list", "devices.kubeedge.io", "devices", True),
        (Needs(devices=False), "list", "devices.kubeedge.io", "devices", False),
        (Needs(), "create", "authentication.k8s.io", "tokenreviews", False),
        (Needs(streams=True), "create", "authentication.k8s.io", "tokenreviews", True),
        (Needs(reviewed=True), "create", "authorization.k8s.io", "subjectaccessreviews", True),
        (Needs(), "list", "rbac.authorization.k8s.io", "clusterroles", False),
        (Needs(policy=True), "list", "rbac.authorization.k8s.io", "clusterroles", True),
        (Needs(), "create", "apiextensions.k8s.io", "customresourcedefinitions", False),
    ],
)
def test_each_part_brings_its_rights_and_no_more(
    needs: Needs, verb: str, group: str, resource: str, yes: bool
) -> None:
    assert allowed(needs, verb, group, resource) is yes


def test_keys_are_written_in_one_namespace_only() -> None:
    assert allowed(Needs(), "update", "", "secrets", namespace=NAMESPACE, name="tokensecret")
    assert not allowed(Needs(), "update", "", "secrets", namespace="default")


def test_acting_for_nodes_names_them_or_is_constrained() -> None:
    enforced = Needs(enforced=True)
    named = rules_of(cloudcore_manifests(Wishes(needs=enforced, nodes=["a", "b"])))
    assert {
        "apiGroups": [""],
        "resources": ["users"],
        "verbs": ["impersonate"],
        "resourceNames": ["system:node:a", "system:node:b"],
    } in named
    assert not [r for r in named if any(v.startswith("impersonate-on") for v in r["verbs"])]
    constrained = rules_of(cloudcore_manifests(Wishes(needs=enforced)))
    assert not [r for r in constrained if "impersonate" in r["verbs"]]
    on = [r for r in constrained if r["verbs"][0].startswith("impersonate-on:arbitrary-node:")]
    assert on
    assert not [r for r in on if "*" in r["resources"]]
    plain = rules_of(cloudcore_manifests(Wishes()))
    assert not [r for r in plain if any(v.startswith("impersonate") for v in r["verbs"])]


def test_a_role_cannot_have_patterns_of_names() -> None:
    with pytest.raises(ValueError, match="patterns"):
        rule_object(Rule(("impersonate",), ("",), ("users",), names=("system:node:*",)))
