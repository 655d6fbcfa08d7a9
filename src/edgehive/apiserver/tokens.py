"""Service-account tokens: ES256 JWTs with Kubernetes' private claims, bound to objects that must still exist."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from edgehive.apiserver.context import User

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

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
    """Issues and verifies tokens. The key is loaded on first use: `cryptography` weighs 10 MB."""

    def __init__(
        self,
        key: Callable[[], "EllipticCurvePrivateKey"],
        new_id: Callable[[], str],
        audiences: Sequence[str] = (ISSUER,),
    ) -> None:
        self._load = key
        self._key: EllipticCurvePrivateKey | None = None
        self._new_id = new_id
        self._verified: dict[bytes, Claims] = {}
        self.audiences = tuple(audiences)

    @property
    def _private(self) -> "EllipticCurvePrivateKey":
        if self._key is None:
            self._key = self._load()
        return self._key

    def key_id(self) -> str:
        """A name for the signing key: the hash of its public half."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        public = self._private.public_key()
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return _b64(hashlib.sha256(der).digest()).decode()

    def issue(self, bound: Bound, audiences: Sequence[str], seconds: int, now: datetime) -> tuple[str, int]:
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
        return self._sign(claims), seconds

    def _sign(self, claims: dict[str, Any]) -> str:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        head = _b64(msgspec.json.encode({"alg": "ES256", "kid": self.key_id()}))
        signed = head + b"." + _b64(msgspec.json.encode(claims))
        r, s = utils.decode_dss_signature(self._private.sign(signed, ec.ECDSA(hashes.SHA256())))
        return (signed + b"." + _b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()

    def verify(self, token: str, now: datetime) -> Claims | None:
        """Return what a token says if we signed it and it is valid now; the bound objects are not looked at."""
        if len(token) > 16384 or token.count(".") != 2:
            return None
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._verified.get(digest)
        if claims is None:
            claims = self._read(token)
            if claims is None:
                return None
            if len(self._verified) >= _CACHE:
                self._verified.clear()
            self._verified[digest] = claims
        return claims if claims.expires > now.timestamp() else None

    def _read(self, token: str) -> Claims | None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        try:
            head, payload, signature = (part for part in token.encode("ascii").split(b"."))
            if msgspec.json.decode(_unb64(head)).get("alg") != "ES256":
                return None
            raw = _unb64(signature)
            if len(raw) != 64:
                return None
            der = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
            public = self._private.public_key()
            public.verify(der, head + b"." + payload, ec.ECDSA(hashes.SHA256()))
            return self._claims(msgspec.json.decode(_unb64(payload)))
        except (
            InvalidSignature,
            ValueError,
            AttributeError,
            KeyError,
            TypeError,
            binascii.Error,
            msgspec.DecodeError,
        ):
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
