"""An action, and a rule that may allow it, in the shape of RBAC."""

from dataclasses import dataclass

READ = ("get", "list", "watch")
WRITE = (*READ, "create", "update", "patch")


@dataclass(frozen=True, slots=True)
class Attributes:
    """One action, as an authorizer sees it; a `path` when it is not about a resource."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    version: str = ""
    field_node: str | None = None
    """The node named by ``fieldSelector=spec.nodeName=``."""

    @property
    def full_resource(self) -> str:
        """``pods`` or ``pods/status``."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows verbs on resources or on paths; ``*`` stands for all, a path or name may end in ``*``."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    exact: bool = False
    """Names are whole names, as in RBAC."""

    def allows(self, a: Attributes) -> bool:
        """Tell whether this rule allows the action."""
        if "*" not in self.verbs and a.verb not in self.verbs:
            return False
        if a.path:
            return any(
                p in {"*", a.path} or (p[-1:] == "*" and a.path.startswith(p[:-1])) for p in self.paths
            )
        if "*" not in self.groups and a.group not in self.groups:
            return False
        wild = {"*", a.full_resource} | ({f"*/{a.subresource}"} if a.subresource else set())
        if not wild & set(self.resources):
            return False
        if self.names and a.name not in self.names and not self._fits_a_pattern(a.name):
            return False
        return not self.namespaces or a.namespace in self.namespaces

    def _fits_a_pattern(self, name: str) -> bool:
        patterns = (p[:-1] for p in self.names if p.endswith("*")) if not self.exact else ()
        return any(name.startswith(pattern) for pattern in patterns)

    def describe(self) -> dict[str, list[str]]:
        """The rule as ``SelfSubjectRulesReview`` shows it."""
        if self.paths:
            return {"verbs": list(self.verbs), "nonResourceURLs": list(self.paths)}
        names = {"resourceNames": list(self.names)} if self.names else {}
        return {
            "verbs": list(self.verbs),
            "apiGroups": list(self.groups),
            "resources": list(self.resources),
        } | names
