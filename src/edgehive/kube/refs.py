"""Names of Kubernetes things: group/version/resource, kinds, object references."""

import re
from dataclasses import dataclass

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def is_dns_label(text: str) -> bool:
    """Tell whether `text` is an RFC 1123 label (at most 63 characters)."""
    return len(text) <= 63 and _DNS_LABEL.fullmatch(text) is not None


def is_dns_subdomain(text: str) -> bool:
    """Tell whether `text` is an RFC 1123 subdomain (at most 253 characters)."""
    return len(text) <= 253 and _DNS_SUBDOMAIN.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class GVR:
    """A resource as it appears in a URL: ``apps``, ``v1``, ``deployments``. The core group is ``""``."""

    group: str
    version: str
    resource: str

    @property
    def api_version(self) -> str:
        """``v1`` or ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def prefix(self) -> str:
        """``/api/v1`` or ``/apis/apps/v1``."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def __str__(self) -> str:
        return f"{self.resource}.{self.group}" if self.group else self.resource


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """One object: kind (``Pod``), namespace (``None`` when cluster-scoped), name."""

    kind: str
    namespace: str | None
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


PODS = GVR("", "v1", "pods")
NODES = GVR("", "v1", "nodes")
NAMESPACES = GVR("", "v1", "namespaces")
CONFIGMAPS = GVR("", "v1", "configmaps")
SECRETS = GVR("", "v1", "secrets")
SERVICES = GVR("", "v1", "services")
SERVICEACCOUNTS = GVR("", "v1", "serviceaccounts")
CLAIMS = GVR("", "v1", "persistentvolumeclaims")
VOLUMES = GVR("", "v1", "persistentvolumes")
STORAGECLASSES = GVR("storage.k8s.io", "v1", "storageclasses")
EVENTS = GVR("", "v1", "events")
LEASES = GVR("coordination.k8s.io", "v1", "leases")
DEPLOYMENTS = GVR("apps", "v1", "deployments")
REPLICASETS = GVR("apps", "v1", "replicasets")
DAEMONSETS = GVR("apps", "v1", "daemonsets")
ROLES = GVR("rbac.authorization.k8s.io", "v1", "roles")
CLUSTERROLES = GVR("rbac.authorization.k8s.io", "v1", "clusterroles")
ROLEBINDINGS = GVR("rbac.authorization.k8s.io", "v1", "rolebindings")
CLUSTERROLEBINDINGS = GVR("rbac.authorization.k8s.io", "v1", "clusterrolebindings")
CSRS = GVR("certificates.k8s.io", "v1", "certificatesigningrequests")
CRDS = GVR("apiextensions.k8s.io", "v1", "customresourcedefinitions")
OBJECTSYNCS = GVR("reliablesyncs.kubeedge.io", "v1alpha1", "objectsyncs")
CLUSTEROBJECTSYNCS = GVR("reliablesyncs.kubeedge.io", "v1alpha1", "clusterobjectsyncs")
