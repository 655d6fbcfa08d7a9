"""In whose name the requests of edges are made: cloudcore's, or with `authorization` enforced the node's.

Kubernetes has two ways to be let act for nodes. The old one asks for the right to impersonate each user and the
group ``system:nodes``, and wants both named in the request. The constrained one, since 1.36, has a verb for nodes and adds
the group itself; it is not taken when the request names one. Which of them our account has is asked at the start.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edgehive.kube.api import KubeApi, WriteOptions
from edgehive.kube.refs import GVR
from edgehive.kube.status import forbidden
from edgehive.wire.endpoint import NODE_USER_PREFIX, NODES_ORGANIZATION

_SELF_REVIEWS: Final = GVR("authorization.k8s.io", "v1", "selfsubjectaccessreviews")
_OLD: Final = {"verb": "impersonate", "resource": "groups", "name": NODES_ORGANIZATION}
_CONSTRAINED: Final = {
    "verb": "impersonate:arbitrary-node",
    "group": "authentication.k8s.io",
    "resource": "nodes",
}


@dataclass(frozen=True, slots=True)
class Impersonation:
    """How to write for a node."""

    enforced: bool = False
    """Act in the node's name, so that the API server's own authorizer decides."""
    groups: tuple[str, ...] = (NODES_ORGANIZATION,)
    """The groups that a request in a node's name has to give."""

    def options(
        self, node: str, namespace: str | None = None, subresource: str = "", field_manager: str = ""
    ) -> WriteOptions:
        """The options of a request that `node` asks for."""
        return WriteOptions(
            namespace=namespace,
            subresource=subresource,
            field_manager=field_manager,
            as_user=NODE_USER_PREFIX + node if self.enforced else "",
            as_groups=self.groups if self.enforced else (),
        )


NOBODY: Final = Impersonation()
"""Everything is done in cloudcore's own name."""


async def find_impersonation(api: KubeApi, *, enforced: bool) -> Impersonation:
    """Find out how our account may act for nodes.

    Raises:
        ApiStatus: 403, it may not at all; or what the API server says.
        Unreachable: the API server is not there.
    """
    if not enforced or await _may(api, _OLD):
        return Impersonation(enforced)
    if await _may(api, _CONSTRAINED):
        return Impersonation(enforced, groups=())
    raise forbidden("cloudcore's account may not act in the names of nodes, which `authorization` needs")


async def _may(api: KubeApi, attributes: dict[str, str]) -> bool:
    review = {
        "apiVersion": _SELF_REVIEWS.api_version,
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer: dict[str, Any] = msgspec.json.decode(await api.create(_SELF_REVIEWS, msgspec.json.encode(review)))
    return (answer.get("status") or {}).get("allowed") is True
