"""The built-in resources, one row each."""

from edgehive.kube.builtin_columns import COLUMNS
from edgehive.kube.refs import GVR
from edgehive.kube.resources import ALL_VERBS, Column, ResourceInfo
from edgehive.kube.types import (
    access,
    cluster,
    extensions,
    meta,
    network,
    pod,
    podstatus,
    storage,
    volumes,
    workloads,
)
from edgehive.kube.types.defaults import HOOKS
from edgehive.kube.types.table import TypeSet

TYPES = TypeSet(
    (
        meta.TABLE,
        pod.TABLE,
        podstatus.TABLE,
        volumes.TABLE,
        cluster.TABLE,
        network.TABLE,
        workloads.TABLE,
        storage.TABLE,
        extensions.TABLE,
        access.TABLE,
    ),
    HOOKS,
)
"""Every built-in type, by short name (``PodSpec``)."""

_CREATE = ("create",)
_STATUS = frozenset(("status",))
_SCALED = frozenset(("status", "scale"))
_SCALE_PATHS = (".spec.replicas", ".status.replicas", ".status.selector")


def _row(
    api_version: str,
    resource: str,
    kind: str,
    *,
    namespaced: bool = True,
    short: tuple[str, ...] = (),
    categories: tuple[str, ...] = (),
    verbs: tuple[str, ...] = ALL_VERBS,
    subresources: frozenset[str] = frozenset(),
    scaled: bool = False,
    type_name: str = "",
) -> ResourceInfo:
    group, _, version = api_version.rpartition("/")
    schema = TYPES.reference(type_name or kind)
    columns: tuple[Column, ...] = COLUMNS.get(type_name or kind, ())
    return ResourceInfo(
        gvr=GVR(group, version, resource),
        kind=kind,
        namespaced=namespaced,
        singular=kind.lower(),
        list_kind=kind + "List",
        short_names=short,
        categories=categories,
        verbs=verbs,
        subresources=subresources,
        schema=schema,
        columns=columns,
        scale_paths=_SCALE_PATHS if scaled else ("", "", ""),
        description=schema.description,
    )


def _rows() -> tuple[ResourceInfo, ...]:
    everywhere = ("all",)
    pod_parts = frozenset(
        (
            "status",
            "binding",
            "eviction",
            "log",
            "exec",
            "attach",
            "portforward",
            "proxy",
            "ephemeralcontainers",
            "resize",
        )
    )
    return (
        _row("v1", "bindings", "Binding", verbs=_CREATE),
        _row("v1", "configmaps", "ConfigMap", short=("cm",)),
        _row("v1", "endpoints", "Endpoints", short=("ep",)),
        _row("v1", "events", "Event", short=("ev",)),
        _row(
            "v1",
            "namespaces",
            "Namespace",
            namespaced=False,
            short=("ns",),
            subresources=frozenset(("status", "finalize")),
        ),
        _row(
            "v1",
            "nodes",
            "Node",
            namespaced=False,
            short=("no",),
            subresources=frozenset(("status", "proxy")),
        ),
        _row("v1", "persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",), subresources=_STATUS),
        _row(
            "v1",
            "persistentvolumes",
            "PersistentVolume",
            namespaced=False,
            short=("pv",),
            subresources=_STATUS,
        ),
        _row("v1", "pods", "Pod", short=("po",), categories=everywhere, subresources=pod_parts),
        _row("v1", "podtemplates", "PodTemplate"),
        _row("v1", "secrets", "Secret"),
        _row("v1", "serviceaccounts", "ServiceAccount", short=("sa",), subresources=frozenset(("token",))),
        _row(
            "v1",
            "services",
            "Service",
            short=("svc",),
            categories=everywhere,
            subresources=frozenset(("status", "proxy")),
        ),
        _row(
            "apiextensions.k8s.io/v1",
            "customresourcedefinitions",
            "CustomResourceDefinition",
            namespaced=False,
            short=("crd", "crds"),
            categories=("api-extensions",),
            subresources=_STATUS,
        ),
        _row(
            "apps/v1", "daemonsets", "DaemonSet", short=("ds",), categories=everywhere, subresources=_STATUS
        ),
        _row(
            "apps/v1",
            "deployments",
            "Deployment",
            short=("deploy",),
            categories=everywhere,
            subresources=_SCALED,
            scaled=True,
        ),
        _row(
            "apps/v1",
            "replicasets",
            "ReplicaSet",
            short=("rs",),
            categories=everywhere,
            subresources=_SCALED,
            scaled=True,
        ),
        _row(
            "certificates.k8s.io/v1",
            "certificatesigningrequests",
            "CertificateSigningRequest",
            namespaced=False,
            short=("csr",),
            subresources=frozenset(("status", "approval")),
        ),
        _row("coordination.k8s.io/v1", "leases", "Lease"),
        _row("discovery.k8s.io/v1", "endpointslices", "EndpointSlice"),
        _row("node.k8s.io/v1", "runtimeclasses", "RuntimeClass", namespaced=False),
        _row("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
        _row("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", namespaced=False),
        _row("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding"),
        _row("rbac.authorization.k8s.io/v1", "roles", "Role"),
        _row("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", namespaced=False, short=("pc",)),
        _row("storage.k8s.io/v1", "csidrivers", "CSIDriver", namespaced=False),
        _row("storage.k8s.io/v1", "csinodes", "CSINode", namespaced=False),
        _row("storage.k8s.io/v1", "storageclasses", "StorageClass", namespaced=False, short=("sc",)),
        _row(
            "storage.k8s.io/v1",
            "volumeattachments",
            "VolumeAttachment",
            namespaced=False,
            subresources=_STATUS,
        ),
    )


BUILTIN: tuple[ResourceInfo, ...] = _rows()
"""Every built-in resource; schemas are built on first use."""

SUBRESOURCE_TYPES = {
    "binding": TYPES.reference("Binding"),
    "eviction": TYPES.reference("Eviction"),
    "scale": TYPES.reference("Scale"),
    "token": TYPES.reference("TokenRequest"),
}
"""Schemas of the objects that are posted to, or read from, subresources of another kind."""
