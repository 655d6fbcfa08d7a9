"""Service account tokens kept at the edge: under which key, and when one is asked for anew.

The key is the one KubeEdge uses (Go's formatting of the request), so that its rows are found; the request is
the asker's own, never the server's completed one, or the row would not be found again after a restart.
"""

import datetime
from collections.abc import Mapping
from typing import Any

import msgspec

from edgehive.kit.malformed import MALFORMED

_DAY = 86400.0


class _Reference(msgspec.Struct, rename="camel"):
    kind: str = ""
    api_version: str = ""
    name: str = ""
    uid: str = ""


class _Spec(msgspec.Struct, rename="camel"):
    audiences: list[str] | None = None
    expiration_seconds: int | None = None
    bound_object_ref: _Reference | None = None


class _Status(msgspec.Struct, rename="camel"):
    token: str = ""
    expiration_timestamp: datetime.datetime | None = None


class _TokenRequest(msgspec.Struct):
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


_decoder = msgspec.json.Decoder(_TokenRequest)


def token_key(namespace: str, service_account: str, request: Mapping[str, Any]) -> str:
    """The database key of the token for `request` (a ``TokenRequest`` object).

    Raises:
        msgspec.ValidationError: `request` is not one.
    """
    spec = msgspec.convert(request, type=_TokenRequest).spec
    audiences = "[]string(nil)"
    if spec.audiences is not None:
        audiences = "[]string{" + ", ".join(_quoted(a) for a in spec.audiences) + "}"
    ref = spec.bound_object_ref or _Reference()
    bound = (
        f"v1.BoundObjectReference{{Kind:{_quoted(ref.kind)}, APIVersion:{_quoted(ref.api_version)}, "
        f"Name:{_quoted(ref.name)}, UID:{_quoted(ref.uid)}}}"
    )
    return (
        f"{_quoted(service_account)}/{_quoted(namespace)}/{audiences}/{spec.expiration_seconds or 0}/{bound}"
    )


def has_token(raw: bytes) -> bool:
    """Whether `raw` is a ``TokenRequest`` with a token in it."""
    try:
        return bool(_decoder.decode(raw).status.token)
    except MALFORMED:
        return False


def needs_refresh(raw: bytes, now: float) -> bool:
    """Whether the kept token is past the point where the kubelet asks for another.

    That is when less than a fifth of its life is left, or when it is older than a day.
    """
    try:
        request = _decoder.decode(raw)
    except MALFORMED:
        return True
    expires = request.status.expiration_timestamp
    if not request.status.token or expires is None:
        return True
    if expires.tzinfo is None:
        expires = expires.replace(tzinfo=datetime.UTC)
    left = expires.timestamp() - now
    lifetime = float(request.spec.expiration_seconds or 3600)
    return left < 0.2 * lifetime or lifetime - left > _DAY


def bound_uid(raw: bytes) -> str:
    """The uid of the pod a kept token belongs to."""
    try:
        ref = _decoder.decode(raw).spec.bound_object_ref
    except MALFORMED:
        return ""
    return ref.uid if ref is not None else ""


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
