"""What cloudcore's account must be allowed, part by part, as RBAC has it.

One table for everybody: the embedded control plane decides by it, and `kube.cloudcore_manifests` makes the
ClusterRole for a cluster of one's own out of it.
"""

from dataclasses import dataclass
from typing import Final

from edgehive.kube.rules import READ, Rule

NAMESPACE: Final = "kubeedge"
"""Where cloudcore keeps its keys."""
ACCOUNT: Final = "cloudcore"
LEASE_NAMESPACE: Final = "kube-node-lease"

_OURS: Final = (NAMESPACE,)
_CORE: Final = ("",)
_STORAGE: Final = ("storage.k8s.io",)
_SYNCS: Final = ("reliablesyncs.kubeedge.io",)
_DEVICES: Final = ("devices.kubeedge.io",)
_CERTIFICATES: Final = ("certificates.k8s.io",)
_AUTHORIZATION: Final = ("authorization.k8s.io",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The parts of a cloudcore that are on."""

    devices: bool = True
    """``modules.deviceController``."""
    streams: bool = False
    """``modules.cloudStream``: tokens of metrics servers are reviewed."""
    node_ports: bool = False
    """``modules.iptablesManager``: the port record, and the kubelet's port of nodes."""
    dynamic: bool = False
    """``modules.dynamicController``."""
    policy: bool = False
    """The feature gate ``requireAuthorization``."""
    reviewed: bool = False
    """``modules.cloudHub.authorization`` with ``debug``: what nodes may do is asked and logged."""
    enforced: bool = False
    """``modules.cloudHub.authorization`` without ``debug``: edges' requests are made in the nodes' names."""
    definitions: bool = False
    """``edgehive.installCrds``, where the definitions are not there already."""


EVERYTHING: Final = Needs(
    streams=True, node_ports=True, dynamic=True, policy=True, reviewed=True, definitions=True
)
"""All there is, with requests made in cloudcore's own name."""


def cloudcore_rights(needs: Needs) -> tuple[Rule, ...]:
    """Return the rules, without the right to impersonate (`kube.cloudcore_manifests` has its forms).

    A rule with `namespaces` is for a Role there, any other for the ClusterRole.
    """
    rules = list(_ALWAYS)
    if not needs.enforced:
        rules += _FOR_NODES
    if needs.devices:
        rules += _FOR_DEVICES
        rules += () if needs.enforced else (_DEVICE_REPORTS,)
    if needs.node_ports:
        rules += _NODE_PORTS
    if needs.dynamic:
        rules += _DYNAMIC
    if needs.policy:
        rules += _POLICY
    if needs.streams:
        rules.append(Rule(("create",), ("authentication.k8s.io",), ("tokenreviews",)))
    if needs.streams or needs.reviewed or (needs.dynamic and needs.enforced):
        rules.append(Rule(("create",), _AUTHORIZATION, ("subjectaccessreviews",)))
    if needs.definitions:
        rules.append(Rule(("get", "create"), ("apiextensions.k8s.io",), ("customresourcedefinitions",)))
    return tuple(rules)


_ALWAYS: Final = (
    Rule((*READ, "patch"), _CORE, ("nodes",)),
    Rule(READ, _CORE, ("pods", "configmaps", "secrets")),
    Rule(READ, _CORE, ("persistentvolumes", "persistentvolumeclaims")),
    Rule(READ, _STORAGE, ("volumeattachments",)),
    Rule(("get", "create", "update"), _STORAGE, ("csinodes",)),
    Rule(("create",), _CORE, ("events",)),
    Rule((*READ, "create", "delete"), _SYNCS, ("objectsyncs", "clusterobjectsyncs")),
    Rule(("patch",), _SYNCS, ("objectsyncs/status", "clusterobjectsyncs/status")),
    Rule(("get",), _CORE, ("namespaces",), names=_OURS, exact=True),
    Rule(("create", "update"), _CORE, ("secrets",), namespaces=_OURS),
    Rule(("get",), ("coordination.k8s.io",), ("leases",), namespaces=(LEASE_NAMESPACE,)),
)
_FOR_NODES: Final = (
    Rule(("create",), _CORE, ("nodes",)),
    Rule(("patch", "update"), _CORE, ("nodes/status", "pods/status")),
    Rule(("create", "delete"), _CORE, ("pods",)),
    Rule(("update", "patch"), _CORE, ("events",)),
    Rule(("create",), _CORE, ("serviceaccounts/token",)),
    Rule(("create", "update"), ("coordination.k8s.io",), ("leases",), namespaces=(LEASE_NAMESPACE,)),
    Rule(("get",), _STORAGE, ("csidrivers",)),
    Rule(("get",), ("node.k8s.io",), ("runtimeclasses",)),
    Rule(("get", "create"), _CERTIFICATES, ("certificatesigningrequests",)),
)
"""What edges ask for, when it is not done in their names."""
_FOR_DEVICES: Final = (
    Rule(READ, _DEVICES, ("devices", "devicemodels", "devicestatuses")),
    Rule(("patch",), _DEVICES, ("devices",)),  # the summary: KubeEdge's definition has no status subresource
    Rule(("create", "delete"), _DEVICES, ("devicestatuses",)),
)
_DEVICE_REPORTS: Final = Rule(("patch",), _DEVICES, ("devicestatuses",))
_NODE_PORTS: Final = (
    Rule(("create", "update"), _CORE, ("configmaps",), namespaces=_OURS),
    Rule(("patch",), _CORE, ("nodes/status",)),
)
_DYNAMIC: Final = (
    # The endpoints of each node's own group; what else edges may see is the administrator's to add.
    Rule(READ, _CORE, ("services", "endpoints")),
    Rule(READ, ("discovery.k8s.io",), ("endpointslices",)),
)
_POLICY: Final = (
    Rule(READ, _CORE, ("serviceaccounts",)),
    Rule(
        READ,
        ("rbac.authorization.k8s.io",),
        ("roles", "clusterroles", "rolebindings", "clusterrolebindings"),
    ),
    Rule((*READ, "create", "update", "delete"), ("policy.kubeedge.io",), ("serviceaccountaccesses",)),
    Rule(("patch",), ("policy.kubeedge.io",), ("serviceaccountaccesses/status",)),
    Rule(READ, _CERTIFICATES, ("certificatesigningrequests",)),
    Rule(("update",), _CERTIFICATES, ("certificatesigningrequests/approval",)),
    Rule(("approve",), _CERTIFICATES, ("signers",), names=("kubernetes.io/kubelet-serving",), exact=True),
    Rule(("get",), _CORE, ("services", "endpoints"), names=("kubernetes",), namespaces=("default",)),
)
