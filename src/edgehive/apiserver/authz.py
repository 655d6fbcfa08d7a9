"""Who may do what.

A table of rules for the parts of the system itself, the node authorizer (a node sees itself and what its pods use),
and the roles and bindings in the store.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from edgehive.aio.storage import Storage
from edgehive.apiserver.context import User
from edgehive.apiserver.nodeauthz import NodeAuthorizer
from edgehive.apiserver.rbac import StoredPolicy, who
from edgehive.kube.cloudcore_rights import EVERYTHING, cloudcore_rights
from edgehive.kube.rbac import Policy
from edgehive.kube.rules import READ, WRITE, Attributes, Rule
from edgehive.kube.status import ApiStatus


@dataclass(frozen=True, slots=True)
class Binding:
    """Rules for some users (by name or group)."""

    rules: tuple[Rule, ...]
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def binds(self, user: User) -> bool:
        """Tell whether `user` has these rules."""
        return user.name in self.users or any(group in self.groups for group in user.groups)


_ALL = ("*",)
_HEALTH = ("/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*", "/version", "/version/")
_DISCOVERY = (*_HEALTH, "/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*")
_KUBEEDGE = (
    "reliablesyncs.kubeedge.io",
    "devices.kubeedge.io",
    "operations.kubeedge.io",
    "rules.kubeedge.io",
    "apps.kubeedge.io",
    "policy.kubeedge.io",
)
# What KubeEdge's own chart gives cloudcore beyond its needs, and so, without `authorization`, the clients of MetaServers.
_CHART = (
    Rule(
        WRITE,
        ("",),
        (
            "nodes",
            "nodes/status",
            "pods",
            "pods/status",
            "configmaps",
            "secrets",
            "endpoints",
            "services",
            "persistentvolumes",
            "persistentvolumeclaims",
            "namespaces",
            "events",
        ),
    ),
    Rule(("delete",), ("",), ("pods", "configmaps", "nodes")),
    Rule((*WRITE, "delete"), ("coordination.k8s.io",), ("leases",)),
    Rule(WRITE, ("events.k8s.io",), ("events",)),
    Rule(_ALL, _KUBEEDGE, _ALL),
)
_CLOUDCORE = (
    *cloudcore_rights(EVERYTHING),
    *_CHART,
    # What clients at the edge look at through MetaServer; KubeEdge leaves it to the administrator to add this.
    Rule(READ, _ALL, _ALL),
    # Whoever may impersonate anybody is an administrator: cloudcore acts for nodes only.
    Rule(("impersonate",), ("",), ("users",), names=("system:node:*",)),
    Rule(("impersonate",), ("",), ("groups",), names=("system:nodes",)),
)
_SELF = Rule(("create",), ("authorization.k8s.io",), ("selfsubjectaccessreviews", "selfsubjectrulesreviews"))
_WHO = Rule(("create",), ("authentication.k8s.io",), ("selfsubjectreviews",))


def static_bindings() -> tuple[Binding, ...]:
    """The table of this server."""
    return (
        Binding((Rule(_ALL, _ALL, _ALL), Rule(_ALL, paths=_ALL)), groups=("system:masters",)),
        Binding((Rule(("get",), paths=_DISCOVERY), _SELF, _WHO), groups=("system:authenticated",)),
        Binding((Rule(("get",), paths=_HEALTH),), groups=("system:unauthenticated",)),
        Binding(_CLOUDCORE, users=("system:cloudcore",), groups=("system:cloudcore",)),
        Binding((Rule(("get",), paths=("/metrics",)),), groups=("system:monitoring",)),
    )


class Authorizer:
    """Decides by the table, then by what a node is, then by roles."""

    def __init__(self, *, storage: Storage, bindings: Iterable[Binding]) -> None:
        self._bindings = tuple(bindings)
        self._nodes = NodeAuthorizer(storage)
        self._stored = StoredPolicy(storage)

    def allows(self, user: User, action: Attributes) -> bool:
        """Tell whether `user` may do it."""
        return (
            any(rule.allows(action) for rule in self._fixed(user))
            or self._nodes.allows(user, action)
            or self.policy().allows(who(user), action)
        )

    def rules(self, user: User, namespace: str = "") -> Iterator[Rule]:
        """The rules of a user for objects in `namespace`; without one, for what is in none."""
        yield from self._fixed(user)
        yield from self.policy().rules(who(user), namespace)

    def policy(self) -> Policy:
        """The roles and bindings of this moment."""
        return self._stored.current()

    def _fixed(self, user: User) -> Iterator[Rule]:
        for binding in self._bindings:
            if binding.binds(user):
                yield from binding.rules

    def require(self, user: User, action: Attributes) -> None:
        """Do nothing when it is allowed.

        Raises:
            ApiStatus: 403 in Kubernetes' words.
        """
        if not self.allows(user, action):
            raise denied(user, action)


def denied(user: User, a: Attributes) -> ApiStatus:
    """403, in the words of Kubernetes' authorizer."""
    if a.path:
        return ApiStatus(403, "Forbidden", f'forbidden: User "{user.name}" cannot {a.verb} path "{a.path}"')
    qualified = f"{a.resource}.{a.group}" if a.group else a.resource
    where = f' in the namespace "{a.namespace}"' if a.namespace else " at the cluster scope"
    name = f' "{a.name}"' if a.name else ""
    message = (
        f'{qualified}{name} is forbidden: User "{user.name}" cannot {a.verb} resource '
        f'"{a.full_resource}" in API group "{a.group}"{where}'
    )
    details: dict[str, Any] = {"name": a.name} if a.name else {}
    details |= ({"group": a.group} if a.group else {}) | {"kind": a.resource}
    return ApiStatus(403, "Forbidden", message, details)
