"""What a message of an edge asks of Kubernetes, as an authorizer sees it.

KubeEdge's table, completed: the original forgets events and reports of node jobs, and refuses both once its
authorization is on.
"""

from dataclasses import dataclass
from typing import Final

from edgehive.wire import classify as cls
from edgehive.wire import resource as res
from edgehive.wire.message import (
    DELETE,
    ERROR,
    INSERT,
    KEEPALIVE,
    PATCH,
    QUERY,
    RESPONSE,
    UPDATE,
    UPLOAD,
    Message,
)


@dataclass(frozen=True, slots=True)
class Access:
    """One action on one object of Kubernetes; `namespace` is empty for cluster scope."""

    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str

    def __str__(self) -> str:
        qualified = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.verb} {qualified} {self.namespace or '-'}/{self.name}"


_VERBS: Final = {INSERT: "create", DELETE: "delete", UPDATE: "update", PATCH: "patch", QUERY: "get"}
_OWN_OPERATIONS: Final = frozenset({RESPONSE, ERROR, UPLOAD, KEEPALIVE}) | cls.TASK_OPERATIONS
_OWN_SOURCES: Final = frozenset({cls.META_SERVER, cls.TWIN_SOURCE})
_TYPES: Final[dict[str, tuple[str, str, str, bool]]] = {
    res.NODE: ("", "nodes", "", False),
    res.NODEPATCH: ("", "nodes", "status", False),
    res.NODESTATUS: ("", "nodes", "status", False),
    res.POD: ("", "pods", "", True),
    res.PODPATCH: ("", "pods", "status", True),
    res.PODSTATUS: ("", "pods", "status", True),
    res.CONFIGMAP: ("", "configmaps", "", True),
    res.SECRET: ("", "secrets", "", True),
    res.TOKEN: ("", "serviceaccounts", "token", True),
    res.EVENT: ("", "events", "", True),
    res.PERSISTENT_VOLUME: ("", "persistentvolumes", "", False),
    res.PERSISTENT_VOLUME_CLAIM: ("", "persistentvolumeclaims", "", True),
    res.VOLUME_ATTACHMENT: ("storage.k8s.io", "volumeattachments", "", False),
    res.CSI_DRIVER: ("storage.k8s.io", "csidrivers", "", False),
    res.RUNTIME_CLASS: ("node.k8s.io", "runtimeclasses", "", False),
    res.LEASE: ("coordination.k8s.io", "leases", "", True),
    res.CSR: ("certificates.k8s.io", "certificatesigningrequests", "", False),
}
"""By type on the wire: group, resource, subresource, namespaced."""


def access_of(message: Message) -> Access | None:
    """What `message` asks of Kubernetes; ``None`` for what is KubeEdge's own affair or unknown."""
    if message.operation in _OWN_OPERATIONS or message.source in _OWN_SOURCES:
        return None
    target = res.find_resource(message.resource)
    verb = _VERBS.get(message.operation)
    if target is None or verb is None or target.type not in _TYPES:
        return None
    group, resource, subresource, namespaced = _TYPES[target.type]
    if target.type == res.PODSTATUS and not target.name:
        return None  # a list of reports of an old edge
    if target.type == res.TOKEN and message.operation == QUERY:
        verb = "create"
    if message.operation == INSERT and target.type in (res.NODESTATUS, res.PODSTATUS):
        subresource = ""  # an old edge registers by its first status
    namespace = (target.namespace or "") if namespaced else ""
    if target.type == res.EVENT and not namespace:
        namespace = "default"
    return Access(verb, group, resource, subresource, namespace, target.name)
