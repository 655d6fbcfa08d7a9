"""KubeEdge's join token: ``<sha256 of the CA certificate>.<JWT>``, four dot-separated fields in all.

The JWT is HS256 with nothing but ``exp``; its key is the CA's private key in SEC1 DER. Only the JWT travels to
the cloud, the hash lets the edge recognise the CA it downloads over unverified TLS.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass

import msgspec

from edgehive.kit.errors import UserError
from edgehive.kit.malformed import MALFORMED
from edgehive.wire.refusal import Refused

MAX_TOKEN = 4096
_HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
_HEADER = b'{"alg":"HS256","typ":"JWT"}'


class _Jose(msgspec.Struct):
    alg: str


class _Claims(msgspec.Struct):
    exp: int | float


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A join token taken apart."""

    ca_hash: str
    jwt: str


def ca_hash(ca_der: bytes) -> str:
    """The hash field of a token for this CA certificate (DER)."""
    return hashlib.sha256(ca_der).hexdigest()


def make_token(*, ca_der: bytes, ca_key_der: bytes, expires: int) -> str:
    """Make a join token that is good until `expires` (Unix seconds); `ca_key_der` is SEC1 DER."""
    signed = b".".join((_b64(_HEADER), _b64(b'{"exp":%d}' % expires)))
    signature = hmac.new(ca_key_der, signed, hashlib.sha256).digest()
    return f"{ca_hash(ca_der)}.{signed.decode()}.{_b64(signature).decode()}"


def parse_token(text: str) -> JoinToken:
    """Take a join token apart (edge side).

    Raises:
        UserError: it does not have the shape of one.
    """
    text = text.strip()
    parts = text.split(".")
    if len(text) > MAX_TOKEN or len(parts) != 4 or not all(parts) or len(parts[0]) != 64:
        raise UserError(
            "this is not a join token",
            hint="a token has four fields separated by dots; get one with: edgehive gettoken (KubeEdge: keadm gettoken)",
        )
    return JoinToken(parts[0].lower(), ".".join(parts[1:]))


def check_ca(token: JoinToken, ca_der: bytes) -> None:
    """Make sure the downloaded CA is the one the token was made for.

    Raises:
        UserError: it is not; somebody else may have answered.
    """
    if not hmac.compare_digest(token.ca_hash, ca_hash(ca_der)):
        raise UserError(
            "the cloud's CA certificate does not match the hash in the join token",
            hint="check the address and the token; if both are right, somebody else answered in its place",
        )


def check_authorization(header: str | None, *, ca_key_der: bytes, now: float) -> None:
    """Check an ``Authorization`` header (cloud side); the scheme word is not looked at, as in the original.

    Raises:
        Refused: 401 with the original's text.
    """
    if not header:
        raise Refused(401, "token validation failure, token is empty")
    words = header.split(" ")
    if len(words) != 2 or len(header) > MAX_TOKEN:
        raise Refused(401, "token validation failure, token cannot be split")
    problem = _jwt_problem(words[1], ca_key_der, now)
    if problem:
        raise Refused(401, f"token validation failure, err: {problem}")


def token_expiry(token: str) -> float | None:
    """When a whole token expires (Unix seconds), unverified; ``None`` when it cannot be read."""
    parts = token.strip().split(".")
    if len(parts) != 4:
        return None
    try:
        return float(msgspec.json.decode(_unb64(parts[2]), type=_Claims).exp)
    except (ValueError, *MALFORMED):
        return None


def _jwt_problem(jwt: str, key: bytes, now: float) -> str | None:
    parts = jwt.split(".")
    if len(parts) != 3:
        return "token is malformed: token contains an invalid number of segments"
    try:
        algorithm = msgspec.json.decode(_unb64(parts[0]), type=_Jose).alg
        claims = msgspec.json.decode(_unb64(parts[1]), type=_Claims)
        signature = _unb64(parts[2])
        signed = f"{parts[0]}.{parts[1]}".encode("ascii")
    except (ValueError, *MALFORMED):
        return "token is malformed"
    digest = _HASHES.get(algorithm)
    if digest is None:
        return "token is unverifiable: unexpected signing method"
    if not hmac.compare_digest(signature, hmac.new(key, signed, digest).digest()):
        return "token signature is invalid"
    if not now < claims.exp:
        return "token has invalid claims: token is expired"
    return None


def _b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _unb64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as exc:
        raise ValueError(str(exc)) from exc
