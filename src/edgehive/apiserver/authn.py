"""Who is asking: client certificates, static tokens, service-account tokens; then impersonation."""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from urllib.parse import unquote

from edgehive.aio.http import Request
from edgehive.aio.storage import Storage
from edgehive.apiserver.codec import meta_of
from edgehive.apiserver.context import ANONYMOUS, User, parse_time
from edgehive.apiserver.tokens import Claims, Tokens
from edgehive.kit.errors import UserError
from edgehive.kube.status import ApiStatus

_AUTHENTICATED = "system:authenticated"
_LEEWAY = timedelta(seconds=60)  # a pod that is being deleted may use its token a little longer


def unauthorized() -> ApiStatus:
    """401."""
    return ApiStatus(401, "Unauthorized", "Unauthorized")


def parse_token_file(text: str) -> dict[bytes, User]:
    """Read ``token,user,uid,"group,group"`` lines; users by the SHA-256 of their token.

    Raises:
        UserError: a line is malformed.
    """
    import csv

    users: dict[bytes, User] = {}
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        if not row or row[0].startswith("#"):
            continue
        if len(row) < 3 or not row[0].strip() or not row[1].strip():
            raise UserError(f"token file: line {number} must be token,user,uid[,groups]")
        groups = tuple(g.strip() for g in (row[3] if len(row) > 3 else "").split(",") if g.strip())
        users[_digest(row[0].strip())] = User(row[1].strip(), (*groups, _AUTHENTICATED), row[2].strip())
    return users


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Authenticator:
    """Turns what a request carries into a user."""

    def __init__(
        self,
        *,
        storage: Storage,
        tokens: Tokens,
        now: Callable[[], datetime],
        static: Mapping[bytes, User] | None = None,
    ) -> None:
        self._storage = storage
        self._tokens = tokens
        self._now = now
        self._static = dict(static or {})

    async def authenticate(self, request: Request) -> User:
        """Return the user; anonymous when nothing is presented.

        Raises:
            ApiStatus: 401 for credentials that are not good.
        """
        if request.peer_subject is not None:
            name, groups = request.peer_subject
            if not name:
                raise unauthorized()
            return User(name, (*groups, _AUTHENTICATED))
        header = request.headers.get("authorization", "")
        if not header:
            return ANONYMOUS
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            raise unauthorized()
        user, _ = await self.check_token(token.strip())
        return user

    async def check_token(self, token: str) -> tuple[User, tuple[str, ...]]:
        """Return the user of a bearer token, and its audiences.

        Raises:
            ApiStatus: 401.
        """
        digest = _digest(token)
        for known, user in self._static.items():
            if hmac.compare_digest(known, digest):
                return user, self._tokens.audiences
        claims = await self._tokens.verify(token, self._now())
        if claims is None or not self._alive(claims):
            raise unauthorized()
        if not set(claims.audiences) & set(self._tokens.audiences):
            raise unauthorized()
        return claims.user(), claims.audiences

    def _alive(self, claims: Claims) -> bool:
        """Check that the account and the bound object are still the ones the token was made for."""
        bound = claims.bound
        account = self._storage.get("serviceaccounts", f"{bound.namespace}/{bound.account}")
        if account is None or meta_of(account.value).uid != bound.account_uid:
            return False
        if not bound.kind:
            return True
        bucket = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}[bound.kind]
        key = bound.name if bound.kind == "Node" else f"{bound.namespace}/{bound.name}"
        record = self._storage.get(bucket, key)
        if record is None:
            return False
        meta = meta_of(record.value)
        deleted = parse_time(meta.deletion_timestamp)
        return meta.uid == bound.uid and (deleted is None or self._now() < deleted + _LEEWAY)


def impersonated(request: Request) -> User | None:
    """Return the user that the request wants to act as, if it does.

    Raises:
        ApiStatus: 400, groups or extras without a user.
    """
    name = request.headers.get("impersonate-user", "")
    groups = request.header_values("impersonate-group")
    uid = request.headers.get("impersonate-uid", "")
    extra: dict[str, list[str]] = {}
    for key, value in request.header_list:
        if key.startswith("impersonate-extra-"):
            extra.setdefault(unquote(key.removeprefix("impersonate-extra-")), []).append(value)
    if not name:
        if groups or uid or extra:
            raise ApiStatus(400, "BadRequest", "requested impersonation without impersonating a user")
        return None
    if name.startswith("system:serviceaccount:") and not groups and name.count(":") == 3:
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{name.split(':')[2]}"]
    if name == ANONYMOUS.name:
        return User(name, tuple(groups) or ANONYMOUS.groups, uid, extra)
    if _AUTHENTICATED not in groups:
        groups = [*groups, _AUTHENTICATED]
    return User(name, tuple(groups), uid, extra)
