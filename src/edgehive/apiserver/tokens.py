"""Service-account tokens: ES256 JWTs with Kubernetes' private claims, bound to objects that must still exist."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from edgehive.apiserver.context import User
from edgehive.apiserver.signer import Signer
from edgehive.kit.malformed import MALFORMED

ISSUER = "https://kubernetes.default.svc.cluster.local"
_PROJECTED = 3607  # what the injected pod volumes ask for: such tokens live on while old clients catch up
_EXTENDED = 365 * 24 * 3600
_CACHE = 512


@dataclass(frozen=True, slots=True)
class Bound:
    """Whom a token stands for, and the object whose end is the token's end."""

    namespace: str
    account: str
    account_uid: str
    kind: str = ""
    name: str = ""
    uid: str = ""
    node: str = ""
    node_uid: str = ""


@dataclass(frozen=True, slots=True)
class Claims:
    """A verified token: `expires` in seconds since the epoch."""

    bound: Bound
    audiences: tuple[str, ...]
    expires: float
    token_id: str

    def user(self) -> User:
        """The user that the token authenticates."""
        bound = self.bound
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={self.token_id}"]}
        if bound.kind == "Pod":
            extra["authentication.kubernetes.io/pod-name"] = [bound.name]
            extra["authentication.kubernetes.io/pod-uid"] = [bound.uid]
        if bound.node:
            extra["authentication.kubernetes.io/node-name"] = [bound.node]
            extra["authentication.kubernetes.io/node-uid"] = [bound.node_uid]
        groups = (
            "system:serviceaccounts",
            f"system:serviceaccounts:{bound.namespace}",
            "system:authenticated",
        )
        name = f"system:serviceaccount:{bound.namespace}:{bound.account}"
        return User(name, groups, bound.account_uid, extra)


def _b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _unb64(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


class Tokens:
    """Issues and verifies tokens."""

    def __init__(
        self, signer: Signer, new_id: Callable[[], str], audiences: Sequence[str] = (ISSUER,)
    ) -> None:
        self._signer = signer
        self._new_id = new_id
        self._verified: dict[bytes, Claims] = {}
        self.audiences = tuple(audiences)

    async def issue(
        self, bound: Bound, audiences: Sequence[str], seconds: int, now: datetime
    ) -> tuple[str, int]:
        """Return a token and the seconds after which its holder should have a new one."""
        begin = int(now.timestamp())
        lifetime = seconds
        private: dict[str, Any] = {
            "namespace": bound.namespace,
            "serviceaccount": {"name": bound.account, "uid": bound.account_uid},
        }
        if bound.kind:
            private[bound.kind.lower()] = {"name": bound.name, "uid": bound.uid}
        if bound.node:
            private["node"] = {"name": bound.node, "uid": bound.node_uid}
        if seconds == _PROJECTED and set(audiences) <= set(self.audiences):
            private["warnafter"] = begin + seconds
            lifetime = _EXTENDED
        claims = {
            "aud": list(audiences),
            "exp": begin + lifetime,
            "iat": begin,
            "iss": ISSUER,
            "jti": self._new_id(),
            "kubernetes.io": private,
            "nbf": begin,
            "sub": f"system:serviceaccount:{bound.namespace}:{bound.account}",
        }
        head = _b64(msgspec.json.encode({"alg": "ES256", "kid": await self._signer.key_id()}))
        signed = head + b"." + _b64(msgspec.json.encode(claims))
        return (signed + b"." + _b64(await self._signer.sign(signed))).decode(), seconds

    async def verify(self, token: str, now: datetime) -> Claims | None:
        """Return what a token says if we signed it and it is valid now; the bound objects are not looked at."""
        if len(token) > 16384 or token.count(".") != 2 or not token.isascii():
            return None
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._verified.get(digest)
        if claims is None:
            claims = await self._read(token.encode())
            if claims is None:
                return None
            if len(self._verified) >= _CACHE:
                self._verified.clear()
            self._verified[digest] = claims
        return claims if claims.expires > now.timestamp() else None

    async def _read(self, token: bytes) -> Claims | None:
        signed, _, signature = token.rpartition(b".")
        head, _, payload = signed.partition(b".")
        try:
            header, raw = msgspec.json.decode(_unb64(head)), _unb64(signature)
            if not isinstance(header, dict) or header.get("alg") != "ES256":
                return None
            if header.get("kid") != await self._signer.key_id() or not await self._signer.verify(signed, raw):
                return None
            return self._claims(msgspec.json.decode(_unb64(payload)))
        except (ValueError, AttributeError, KeyError, TypeError, binascii.Error, *MALFORMED):
            return None

    @staticmethod
    def _claims(claims: dict[str, Any]) -> Claims | None:
        if claims["iss"] != ISSUER:
            return None
        private = claims["kubernetes.io"]
        account, node = private["serviceaccount"], private.get("node") or {}
        kind = next((k for k in ("Pod", "Secret") if k.lower() in private), "Node" if node else "")
        ref = private.get(kind.lower()) or {}
        bound = Bound(
            private["namespace"],
            account["name"],
            account["uid"],
            kind,
            ref.get("name", ""),
            ref.get("uid", ""),
            node.get("name", ""),
            node.get("uid", ""),
        )
        return Claims(bound, tuple(claims["aud"]), float(claims["exp"]), str(claims.get("jti", "")))
