"""The resource definition of ``policy.kubeedge.io``: ServiceAccountAccess, with every field of KubeEdge's v1alpha1."""

from typing import Any, Final

from edgehive.kube.crd_builder import (
    Node,
    boolean,
    column,
    definition,
    fields,
    items,
    mapping,
    text,
    version,
    whole,
)
from edgehive.kube.refs import GVR

POLICY_GROUP: Final = "policy.kubeedge.io"
SERVICE_ACCOUNT_ACCESSES: Final = GVR(POLICY_GROUP, "v1alpha1", "serviceaccountaccesses")


def policy_crd() -> dict[str, Any]:
    """Return the manifest."""
    description = "What a service account may do, for nodes that decide about it without the cloud."
    schema = whole(
        description,
        {
            "spec": _spec(),
            "status": fields({"nodeList": items(text("Name of a node."), "Nodes with pods of the account.")}),
        },
    )
    schema["required"] = ["spec"]
    columns = (
        column("Account", ".spec.serviceAccount.metadata.name", "The service account."),
        column("Nodes", ".status.nodeList", "Where it is used."),
    )
    crd = definition(
        POLICY_GROUP,
        "ServiceAccountAccess",
        [version("v1alpha1", schema, status=True, columns=columns)],
        plural="serviceaccountaccesses",
    )
    crd["spec"]["names"]["shortNames"] = ["saaccess"]
    return crd


def _spec() -> Node:
    return fields(
        {
            "serviceAccount": _account(),
            "serviceAccountUid": text("UID of the account."),
            "accessRoleBinding": items(
                fields({"roleBinding": _binding("A RoleBinding."), "rules": _rules()}),
                "What it may do in namespaces.",
            ),
            "accessClusterRoleBinding": items(
                fields({"clusterRoleBinding": _binding("A ClusterRoleBinding."), "rules": _rules()}),
                "What it may do everywhere.",
            ),
        },
        "The account and its rights.",
    )


def _metadata() -> Node:
    return fields(
        {
            "name": text(),
            "namespace": text(),
            "labels": mapping(text()),
            "annotations": mapping(text()),
            "finalizers": items(text()),
        }
    )


def _account() -> Node:
    names = ("apiVersion", "fieldPath", "kind", "name", "namespace", "resourceVersion", "uid")
    return fields(
        {
            "apiVersion": text(),
            "kind": text(),
            "metadata": _metadata(),
            "automountServiceAccountToken": boolean(),
            "imagePullSecrets": items(fields({"name": text()})),
            "secrets": items(fields({name: text() for name in names})),
        },
        "The service account.",
    )


def _binding(description: str) -> Node:
    subject = fields(
        {"apiGroup": text(), "kind": text(), "name": text(), "namespace": text()}, required=("kind", "name")
    )
    role = fields({"apiGroup": text(), "kind": text(), "name": text()}, required=("apiGroup", "kind", "name"))
    return fields(
        {
            "apiVersion": text(),
            "kind": text(),
            "metadata": _metadata(),
            "roleRef": role,
            "subjects": items(subject),
        },
        description,
        required=("roleRef",),
    )


def _rules() -> Node:
    keys = ("apiGroups", "nonResourceURLs", "resourceNames", "resources", "verbs")
    return items(fields({key: items(text()) for key in keys}, required=("verbs",)), "The role's rules.")
