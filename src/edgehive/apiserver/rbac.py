"""RBAC over the objects in the store, and the guard that keeps people from granting what they do not have."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

import msgspec

from edgehive.aio.storage import Storage
from edgehive.apiserver.codec import Object
from edgehive.apiserver.context import Call, User, qualified
from edgehive.kube.rbac import (
    GROUP,
    Binding,
    Policy,
    Subject,
    Who,
    parse_binding,
    parse_role,
    rules_of,
    uncovered,
)
from edgehive.kube.refs import CLUSTERROLEBINDINGS, CLUSTERROLES, ROLEBINDINGS, ROLES
from edgehive.kube.rules import Attributes, Rule
from edgehive.kube.status import ApiStatus, not_found
from edgehive.store.revisions import Expired

_ROLES: Final = (str(ROLES), str(CLUSTERROLES))
_BINDINGS: Final = (str(ROLEBINDINGS), str(CLUSTERROLEBINDINGS))
_SHOWN = 10  # rules in a refusal


class StoredPolicy:
    """The policy that the store holds now; read again when one of its objects has changed."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._policy = Policy()
        self._revision = -1

    def current(self) -> Policy:
        """The policy of this moment."""
        revision = self._storage.revision
        if revision != self._revision:
            if self._revision < 0 or self._changed():
                self._policy = self._read()
            self._revision = revision
        return self._policy

    def _changed(self) -> bool:
        try:
            return any(self._storage.since(bucket, self._revision) for bucket in (*_ROLES, *_BINDINGS))
        except Expired:
            return True  # that is too long ago to tell

    def _read(self) -> Policy:
        roles = chain.from_iterable(self._values(bucket) for bucket in _ROLES)
        bindings = chain.from_iterable(self._values(bucket) for bucket in _BINDINGS)
        return Policy(filter(None, map(parse_role, roles)), filter(None, map(parse_binding, bindings)))

    def _values(self, bucket: str) -> Iterator[bytes]:
        return (record.value for _, record in self._storage.scan(bucket))


def who(user: User) -> Who:
    """A user, as far as roles care."""
    return Who(user.name, user.groups)


class GrantGuard:
    """Nobody makes a role, or grants one, that allows more than they may themselves; unless they may do just that."""

    def __init__(
        self,
        *,
        allows: Callable[[User, Attributes], bool],
        rules: Callable[[User, str], Iterator[Rule]],
        policy: Callable[[], Policy],
    ) -> None:
        self._allows = allows
        self._rules = rules
        self._policy = policy

    def check(self, call: Call, obj: Object) -> None:
        """Look at an object that is about to be stored.

        Raises:
            ApiStatus: 403.
        """
        if call.group != GROUP or "system:masters" in call.user.groups:
            return
        name = str(obj["metadata"].get("name") or "")
        if call.resource in {ROLES.resource, CLUSTERROLES.resource}:
            verb, about = "escalate", Attributes("escalate", GROUP, call.resource, "", call.namespace, name)
            try:
                wanted = rules_of(obj)
            except msgspec.ValidationError:
                return  # the schema says what is wrong with it
            if obj.get("aggregationRule"):
                wanted = (*wanted, Rule(("*",), ("*",), ("*",)), Rule(("*",), paths=("*",)))
        else:
            verb = "bind"
            ref = obj.get("roleRef") or {}
            kind, role = str(ref.get("kind") or ""), str(ref.get("name") or "")
            resource = ROLES.resource if kind == "Role" else CLUSTERROLES.resource
            about = Attributes(verb, GROUP, resource, "", call.namespace, role)
            binding = Binding(call.namespace, kind, role, (Subject(),))
            policy = self._policy()
            if not policy.knows(binding) and not self._allows(call.user, about):
                # Bound before it is there, a role would give its rights as soon as somebody makes it.
                raise not_found(resource, role, GROUP)
            wanted = tuple(policy.granted(binding))
        if self._allows(call.user, about):
            return
        missing = uncovered(self._rules(call.user, call.namespace), wanted)
        if missing:
            raise _refusal(call, name, missing)


def _refusal(call: Call, name: str, missing: list[Rule]) -> ApiStatus:
    shown = "\n".join(_shown(rule) for rule in missing[:_SHOWN])
    message = (
        f'{qualified(call.info)} "{name}" is forbidden: user "{call.user.name}" (groups={list(call.user.groups)}) '
        f"is attempting to grant RBAC permissions not currently held:\n{shown}"
    )
    return ApiStatus(403, "Forbidden", message, {"name": name, "group": GROUP, "kind": call.resource})


def _shown(rule: Rule) -> str:
    return "{" + ", ".join(f"{key}:{values}" for key, values in rule.describe().items()) + "}"
