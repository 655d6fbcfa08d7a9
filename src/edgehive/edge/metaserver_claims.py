"""What a service-account token says, and the rights that a ServiceAccountAccess gives; pure.

Formats: JWT as Kubernetes makes it (private claims ``kubernetes.io``), and ``policy.kubeedge.io/v1alpha1``.
"""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from edgehive.apiserver.context import User
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.meta import Meta
from edgehive.kube.rbac import PolicyRule
from edgehive.kube.rules import Rule

TOKEN_LIMIT: Final = 16384
LEEWAY: Final = 60.0
"""Seconds that clocks may differ, and that a pod which is being deleted may go on using its token."""


class Ref(msgspec.Struct, frozen=True):
    """An object that a token is bound to."""

    name: str = ""
    uid: str = ""


class Private(msgspec.Struct, frozen=True):
    """Kubernetes' own claims."""

    namespace: str = ""
    serviceaccount: Ref = Ref()
    pod: Ref | None = None
    secret: Ref | None = None
    node: Ref | None = None


class Claims(msgspec.Struct, frozen=True):
    """The payload; times are seconds since the epoch."""

    iss: str = ""
    exp: float = 0.0
    nbf: float = 0.0
    aud: str | list[str] = ""
    jti: str = ""
    private: Private = msgspec.field(default=Private(), name="kubernetes.io")

    @property
    def audiences(self) -> tuple[str, ...]:
        """`aud`, which may be one or many."""
        return (self.aud,) if isinstance(self.aud, str) else tuple(self.aud)

    def user(self) -> User:
        """Whom the token stands for."""
        about = self.private
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={self.jti}"]}
        if about.pod is not None:
            extra["authentication.kubernetes.io/pod-name"] = [about.pod.name]
            extra["authentication.kubernetes.io/pod-uid"] = [about.pod.uid]
        groups = (
            "system:serviceaccounts",
            f"system:serviceaccounts:{about.namespace}",
            "system:authenticated",
        )
        name = f"system:serviceaccount:{about.namespace}:{about.serviceaccount.name}"
        return User(name, groups, about.serviceaccount.uid, extra)


class _Header(msgspec.Struct):
    alg: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart; nothing of it has been verified."""

    claims: Claims
    algorithm: str
    signed: bytes
    signature: bytes


def parse_token(text: str) -> Token | None:
    """Take a JWT apart; None when it is none."""
    if len(text) > TOKEN_LIMIT or text.count(".") != 2 or not text.isascii():
        return None
    signed, _, signature = text.encode().rpartition(b".")
    head, _, payload = signed.partition(b".")
    try:
        header = msgspec.json.decode(_unb64(head), type=_Header)
        claims = msgspec.json.decode(_unb64(payload), type=Claims)
        return Token(claims, header.alg, signed, _unb64(signature))
    except (*MALFORMED, binascii.Error, ValueError):
        return None


def _unb64(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


# ServiceAccountAccess


class _Named(msgspec.Struct):
    metadata: Meta = msgspec.field(default_factory=Meta)


class _ClusterBinding(msgspec.Struct):
    rules: list[PolicyRule] | None = None


class _RoleBinding(msgspec.Struct, rename="camel"):
    role_binding: _Named = msgspec.field(default_factory=_Named)
    rules: list[PolicyRule] | None = None


class _Spec(msgspec.Struct, rename="camel"):
    service_account: _Named = msgspec.field(default_factory=_Named)
    service_account_uid: str = ""
    access_role_binding: list[_RoleBinding] | None = None
    access_cluster_role_binding: list[_ClusterBinding] | None = None


class _Access(msgspec.Struct):
    metadata: Meta = msgspec.field(default_factory=Meta)
    spec: _Spec = msgspec.field(default_factory=_Spec)


@dataclass(frozen=True, slots=True)
class Access:
    """One service account of this node, and what it may do."""

    namespace: str
    name: str
    uid: str
    deleted: str | None
    """When it began to be deleted, if it did."""
    rules: tuple[Rule, ...]


def parse_access(raw: bytes) -> Access | None:
    """Read a ServiceAccountAccess; None when it is none."""
    try:
        found = msgspec.json.decode(raw, type=_Access)
    except MALFORMED:
        return None
    spec = found.spec
    account = spec.service_account.metadata
    namespace = account.namespace or found.metadata.namespace
    return Access(
        namespace=namespace,
        name=account.name or found.metadata.name,
        uid=account.uid or spec.service_account_uid,
        deleted=account.deletion_timestamp,
        rules=tuple(_rules(spec, namespace)),
    )


def _rules(spec: _Spec, namespace: str) -> Iterator[Rule]:
    for everywhere in spec.access_cluster_role_binding or ():
        for rule in everywhere.rules or ():
            yield from rule.rules()
    for local in spec.access_role_binding or ():
        where = local.role_binding.metadata.namespace or namespace
        for rule in local.rules or ():
            for one in rule.rules():
                if not one.paths:  # what is granted in a namespace is not about paths
                    yield replace(one, namespaces=(where,))
