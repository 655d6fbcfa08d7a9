"""What an administrator applies before cloudcore runs on a cluster of their own: definitions, account, rights.

The right to act in the names of nodes (``authorization`` of CloudHub) has two forms. RBAC cannot say "any user that
is a node", so the old one names every node, or gives away every user. Since Kubernetes 1.36 there is a
verb for nodes alone (constrained impersonation); then each verb that is carried out so has to be given as well.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edgehive.kube.cloudcore_rights import ACCOUNT, NAMESPACE, Needs, cloudcore_rights
from edgehive.kube.crd import kubeedge_crds
from edgehive.kube.crd_devices import device_crds
from edgehive.kube.crd_policy import policy_crd
from edgehive.kube.rules import READ, Rule

Object = dict[str, Any]

ROLE: Final = "edgehive-cloudcore"
DEVICE_ROLE: Final = "edgehive-node-devices"
TOKEN_SECRET: Final = "cloudcore-token"  # noqa: S105 - a name

_RBAC: Final = "rbac.authorization.k8s.io"
_AS_NODE: Final = "arbitrary-node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the manifests are to contain."""

    needs: Needs = field(default_factory=Needs)
    user: str = ""
    """Whose rights they are, when it is not the service account ``kubeedge/cloudcore``."""
    nodes: Sequence[str] = ()
    """With ``needs.enforced``: the nodes to name; none: constrained impersonation."""
    token: bool = False
    """A Secret with a token of the service account that does not expire."""


def cloudcore_manifests(wishes: Wishes) -> list[Object]:
    """Return the objects in the order in which they can be created."""
    rules = [*cloudcore_rights(wishes.needs), *_impersonation(wishes)]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        *_definitions(wishes.needs),
        *_account(wishes),
        *_roles(rules, _subject(wishes)),
        *(_node_devices() if wishes.needs.enforced and wishes.needs.devices else ()),
    ]


def _definitions(needs: Needs) -> list[Object]:
    crds = kubeedge_crds()
    crds += device_crds() if needs.devices else []
    return [*crds, *([policy_crd()] if needs.policy else [])]


def _account(wishes: Wishes) -> Iterator[Object]:
    if wishes.user:
        return
    where = {"name": ACCOUNT, "namespace": NAMESPACE}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": where}
    if wishes.token:
        yield {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": TOKEN_SECRET,
                "namespace": NAMESPACE,
                "annotations": {"kubernetes.io/service-account.name": ACCOUNT},
            },
            "type": "kubernetes.io/service-account-token",
        }


def _subject(wishes: Wishes) -> Object:
    if wishes.user:
        return {"apiGroup": _RBAC, "kind": "User", "name": wishes.user}
    return {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}


def _roles(rules: Iterable[Rule], subject: Object) -> Iterator[Object]:
    everywhere: list[Object] = []
    local: dict[str, list[Object]] = {}
    for rule in rules:
        for namespace in rule.namespaces:
            local.setdefault(namespace, []).append(rule_object(rule))
        if not rule.namespaces:
            everywhere.append(rule_object(rule))
    yield _role("ClusterRole", ROLE, everywhere)
    yield _binding("ClusterRole", ROLE, subject)
    for namespace, found in local.items():
        yield _role("Role", ROLE, found, namespace)
        yield _binding("Role", ROLE, subject, namespace)


def _role(kind: str, name: str, rules: list[Object], namespace: str = "") -> Object:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "rules": rules,
    }


def _binding(kind: str, name: str, subject: Object, namespace: str = "") -> Object:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": name},
        "subjects": [subject],
    }


def rule_object(rule: Rule) -> Object:
    """A rule as a Role holds it.

    Raises:
        ValueError: RBAC cannot express it.
    """
    if rule.names and any(name.endswith("*") for name in rule.names):
        raise ValueError(f"RBAC has no patterns of names: {rule.names}")
    found: Object = {
        "apiGroups": list(rule.groups),
        "resources": list(rule.resources),
        "verbs": list(rule.verbs),
    }
    return found | ({"resourceNames": list(rule.names)} if rule.names else {})


def _impersonation(wishes: Wishes) -> tuple[Rule, ...]:
    if not wishes.needs.enforced:
        return ()
    if wishes.nodes:
        users = tuple(f"system:node:{node}" for node in wishes.nodes)
        return (
            Rule(("impersonate",), ("",), ("users",), names=users, exact=True),
            Rule(("impersonate",), ("",), ("groups",), names=("system:nodes",), exact=True),
        )
    who = Rule((f"impersonate:{_AS_NODE}",), ("authentication.k8s.io",), ("nodes",))
    return (
        who,
        *(_on(rule) for rule in _AS_NODES),
        *(map(_on, _SEEN_AS_NODES) if wishes.needs.dynamic else ()),
    )


def _on(rule: Rule) -> Rule:
    verbs = tuple(f"impersonate-on:{_AS_NODE}:{verb}" for verb in rule.verbs)
    return Rule(verbs, rule.groups, rule.resources)


_AS_NODES: Final = (
    Rule(("get", "create", "patch", "update"), ("",), ("nodes", "nodes/status")),
    Rule(("get", "create", "delete"), ("",), ("pods",)),
    Rule(("patch", "update"), ("",), ("pods/status",)),
    Rule(("get",), ("",), ("configmaps", "secrets", "persistentvolumes", "persistentvolumeclaims")),
    Rule(("create", "update", "patch"), ("",), ("events",)),
    Rule(("create",), ("",), ("serviceaccounts/token",)),
    Rule(("get", "create", "update"), ("coordination.k8s.io",), ("leases",)),
    Rule(("get",), ("storage.k8s.io",), ("volumeattachments", "csidrivers")),
    Rule(("get",), ("node.k8s.io",), ("runtimeclasses",)),
    Rule(("get", "create"), ("certificates.k8s.io",), ("certificatesigningrequests",)),
    Rule(("patch",), ("devices.kubeedge.io",), ("devicestatuses",)),
)
"""What cloudcore does in the names of nodes; whether a node may is decided beside that, by its own rights."""
_SEEN_AS_NODES: Final = (Rule((*READ, "create", "update", "patch", "delete"), ("*",), ("*",)),)


def _node_devices() -> Iterator[Object]:
    """Kubernetes' node authorizer knows nothing of devices: nodes need a role to report them."""
    rules = [Rule(("patch",), ("devices.kubeedge.io",), ("devicestatuses",))]
    yield _role("ClusterRole", DEVICE_ROLE, [rule_object(rule) for rule in rules])
    group = {"apiGroup": _RBAC, "kind": "Group", "name": "system:nodes"}
    yield _binding("ClusterRole", DEVICE_ROLE, group)
