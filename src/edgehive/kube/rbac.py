"""Role-based access control, evaluated over the objects of ``rbac.authorization.k8s.io/v1``.

`Policy` holds roles and bindings and answers which rules somebody has. It is used by the embedded API server, over
its store, and by the edge, over the roles and bindings that the cloud has sent it.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edgehive.kit.malformed import MALFORMED
from edgehive.kube.rules import Attributes, Rule
from edgehive.kube.selectors import LabelSelector
from edgehive.kube.status import ApiStatus

GROUP: Final = "rbac.authorization.k8s.io"
_UNREADABLE: Final = (*MALFORMED, ApiStatus)
_ACCOUNT: Final = "system:serviceaccount:"


class PolicyRule(msgspec.Struct, rename="camel", gc=False):
    """One rule of a role, as it stands in the object."""

    verbs: list[str] | None = None
    api_groups: list[str] | None = None
    resources: list[str] | None = None
    resource_names: list[str] | None = None
    non_resource_urls: list[str] | None = msgspec.field(default=None, name="nonResourceURLs")

    def rules(self) -> Iterator[Rule]:
        """The rule, or the two it may be, in the form that decides."""
        verbs = tuple(self.verbs or ())
        if self.non_resource_urls:
            yield Rule(verbs, paths=tuple(self.non_resource_urls))
        if self.resources:
            yield Rule(
                verbs,
                tuple(self.api_groups or ()),
                tuple(self.resources),
                names=tuple(self.resource_names or ()),
                exact=True,
            )


class Subject(msgspec.Struct, rename="camel", gc=False):
    """Who is granted something."""

    kind: str = ""
    name: str = ""
    namespace: str = ""


class _RoleRef(msgspec.Struct, gc=False):
    kind: str = ""
    name: str = ""


class _Meta(msgspec.Struct, gc=False):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None


class _Aggregation(msgspec.Struct, rename="camel"):
    cluster_role_selectors: list[dict[str, Any]] | None = None


class _Role(msgspec.Struct, rename="camel"):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    rules: list[PolicyRule] | None = None
    aggregation_rule: _Aggregation | None = None


class _Binding(msgspec.Struct, rename="camel"):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    role_ref: _RoleRef = msgspec.field(default_factory=_RoleRef)
    subjects: list[Subject] | None = None


_role = msgspec.json.Decoder(_Role)
_binding = msgspec.json.Decoder(_Binding)


@dataclass(frozen=True, slots=True)
class Role:
    """A Role (with a `namespace`) or ClusterRole (without)."""

    namespace: str
    name: str
    rules: tuple[Rule, ...]
    labels: dict[str, str]
    selectors: tuple[LabelSelector, ...] = ()
    """Of roles whose rules it has, too."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A RoleBinding (with a `namespace`) or ClusterRoleBinding (without)."""

    namespace: str
    role_kind: str
    role: str
    subjects: tuple[Subject, ...]


@dataclass(frozen=True, slots=True)
class Who:
    """A user, as far as roles care."""

    name: str
    groups: tuple[str, ...] = ()


def parse_role(raw: bytes) -> Role | None:
    """Read a Role or ClusterRole; ``None`` when it is not one."""
    try:
        return _converted(_role.decode(raw))
    except _UNREADABLE:
        return None


def parse_binding(raw: bytes) -> Binding | None:
    """Read a RoleBinding or ClusterRoleBinding; ``None`` when it is not one."""
    try:
        found = _binding.decode(raw)
    except _UNREADABLE:
        return None
    ref = found.role_ref
    return Binding(found.metadata.namespace, ref.kind, ref.name, tuple(found.subjects or ()))


def rules_of(role: dict[str, Any]) -> tuple[Rule, ...]:
    """The rules of a decoded role that is about to be stored.

    Raises:
        msgspec.ValidationError: a rule has another form.
    """
    return _converted(msgspec.convert(role, _Role)).rules


def _converted(role: _Role) -> Role:
    meta = role.metadata
    aggregated = role.aggregation_rule.cluster_role_selectors if role.aggregation_rule else None
    return Role(
        meta.namespace,
        meta.name,
        tuple(itertools.chain.from_iterable(rule.rules() for rule in role.rules or ())),
        meta.labels or {},
        tuple(LabelSelector.from_object(selector) for selector in aggregated or ()),
    )


def binds(binding: Binding, who: Who) -> bool:
    """Tell whether `binding` grants its role to `who`."""
    for subject in binding.subjects:
        match subject.kind:
            case "User":
                if subject.name == who.name:
                    return True
            case "Group":
                if subject.name in who.groups:
                    return True
            case "ServiceAccount":
                namespace = subject.namespace or binding.namespace
                if namespace and who.name == f"{_ACCOUNT}{namespace}:{subject.name}":
                    return True
    return False


class Policy:
    """Roles and bindings, and what they come to for a user."""

    def __init__(self, roles: Iterable[Role] = (), bindings: Iterable[Binding] = ()) -> None:
        """Take all roles and bindings there are; make another one when they change."""
        self._roles = {(role.namespace, role.name): role for role in roles}
        self._bindings = tuple(bindings)

    def rules(self, who: Who, namespace: str = "") -> Iterator[Rule]:
        """The rules that `who` has for objects in `namespace`; without one, for what is in none, and for paths."""
        for binding in self._bindings:
            if binding.namespace in ("", namespace) and binds(binding, who):
                yield from self.granted(binding)

    def allows(self, who: Who, action: Attributes) -> bool:
        """Tell whether some rule of `who` allows the action."""
        return any(rule.allows(action) for rule in self.rules(who, action.namespace))

    def knows(self, binding: Binding) -> bool:
        """Tell whether there is the role that a binding grants."""
        return _role_key(binding) in self._roles

    def granted(self, binding: Binding) -> Iterator[Rule]:
        """The rules that a binding grants; none when there is no such role."""
        role = self._roles.get(_role_key(binding))
        if role is None:
            return
        for rule in self._all(role):
            # What a binding grants in a namespace is not about paths.
            if not (binding.namespace and rule.paths):
                yield rule

    def _all(self, role: Role) -> Iterator[Rule]:
        yield from role.rules
        for other in self._roles.values() if role.selectors else ():
            if other is not role and not other.namespace and self._selects(role, other):
                yield from self._all(other) if not other.selectors else other.rules

    @staticmethod
    def _selects(role: Role, other: Role) -> bool:
        return any(selector.matches(other.labels) for selector in role.selectors)


def _role_key(binding: Binding) -> tuple[str, str]:
    return binding.namespace if binding.role_kind == "Role" else "", binding.role


def uncovered(own: Iterable[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """The rules of `wanted` that somebody with the rules `own` may not pass on."""
    held = tuple(own)
    return [rule for rule in wanted if not all(_covered(held, part) for part in _parts(rule))]


def _parts(rule: Rule) -> Iterator[Rule]:
    """A rule, taken apart into rules with one verb, group, resource, name or path each."""
    for verb in rule.verbs:
        if rule.paths:
            yield from (Rule((verb,), paths=(path,)) for path in rule.paths)
            continue
        for group, resource, name in itertools.product(rule.groups, rule.resources, rule.names or ("",)):
            yield Rule((verb,), (group,), (resource,), (name,) if name else (), exact=True)


def _covered(own: tuple[Rule, ...], part: Rule) -> bool:
    return any(_covers(rule, part) for rule in own)


def _covers(rule: Rule, part: Rule) -> bool:
    if not {"*", part.verbs[0]} & set(rule.verbs):
        return False
    if part.paths:
        path = part.paths[0]
        return any(p in {"*", path} or (p[-1:] == "*" and path.startswith(p[:-1])) for p in rule.paths)
    if rule.namespaces or not {"*", part.groups[0]} & set(rule.groups):
        return False
    resource = part.resources[0]
    wild = {"*", resource} | ({f"*/{resource.partition('/')[2]}"} if "/" in resource else set())
    if not wild & set(rule.resources):
        return False
    return not rule.names or (bool(part.names) and part.names[0] in rule.names)
