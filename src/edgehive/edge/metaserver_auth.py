"""Who may use MetaServer, decided here without the cloud (feature gate ``requireAuthorization``).

A client is a service account (bearer token), the node itself (its certificate), or nobody. Tokens are good when they
are of this node: the account's ServiceAccountAccess is here, and so is the pod (or secret) that they are bound to. Their
signature is checked where keys are configured; without keys, as in KubeEdge, a token must be one that the cloud gave
this node. Rights are those of the ServiceAccountAccess; discovery is open.

Loaded only when the gate is on.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from edgehive.aio.fewlines import FewLines, host_of
from edgehive.aio.http import Request
from edgehive.apiserver.authn import unauthorized
from edgehive.apiserver.authz import denied
from edgehive.apiserver.context import ANONYMOUS, User, parse_time
from edgehive.edge.metaserver_claims import LEEWAY, Access, Claims, Ref, Token, parse_access, parse_token
from edgehive.edge.store import EdgeStore, metadata_of
from edgehive.kit.text import safe_label
from edgehive.kube.rules import Attributes, Rule
from edgehive.kube.status import ApiStatus
from edgehive.wire import resource as res
from edgehive.wire.application import is_openapi_part, is_pass_through
from edgehive.wire.endpoint import NODE_USER_PREFIX

log = logging.getLogger(__name__)

_AUTHENTICATED = "system:authenticated"
_KNOWN = 512
_BAD_FOR = 60.0
_EVERYTHING = (Rule(("*",), ("*",), ("*",)), Rule(("*",), paths=("*",)))
_SELF = (
    Rule(("create",), ("authorization.k8s.io",), ("selfsubjectaccessreviews", "selfsubjectrulesreviews")),
    Rule(("create",), ("authentication.k8s.io",), ("selfsubjectreviews",)),
)

Verify = Callable[[Token], Awaitable[bool]]
"""Whether one of the configured keys made a token's signature."""


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """What tokens are taken: `audiences` empty means the issuers, as in Kubernetes."""

    node: str
    issuers: Sequence[str]
    audiences: Sequence[str] = ()


class Gate:
    """Authenticates, authorizes, counts what it refuses."""

    def __init__(
        self, *, settings: AuthSettings, store: EdgeStore, verify: Verify | None, wall: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._audiences = frozenset(settings.audiences or settings.issuers)
        self._store = store
        self._verify = verify
        self._wall = wall
        self._good: dict[bytes, float] = {}
        self._bad: dict[bytes, float] = {}
        self._rows: dict[str, tuple[bytes, Access | None]] = {}
        self._lines = FewLines(log, now=wall)
        self.refused: Counter[str] = Counter()
        """``unauthenticated`` and ``forbidden``, since the start."""

    # who

    async def user(self, request: Request) -> User:
        """Return who asks; anonymous when nothing is shown.

        Raises:
            ApiStatus: 401, what is shown is no good.
        """
        if request.peer_subject is not None:
            name, _ = request.peer_subject
            if name:
                # No groups: the original's cloudcore signs any organization that a node asks for.
                return User(name, (_AUTHENTICATED,))
            raise self._unauthenticated(request, "a certificate without a name")
        header = request.headers.get("authorization", "")
        if not header:
            return ANONYMOUS
        scheme, _, text = header.partition(" ")
        if scheme.lower() != "bearer":
            raise self._unauthenticated(request, "not a bearer token")
        token = parse_token(text.strip())
        if token is None:
            raise self._unauthenticated(request, "not a token")
        problem = await self._problem(token, text.strip())
        if problem:
            raise self._unauthenticated(request, problem)
        return token.claims.user()

    def _unauthenticated(self, request: Request, why: str) -> ApiStatus:
        self._refuse("unauthenticated", host_of(request.remote), f"{request.method} {request.path}: {why}")
        return unauthorized()

    async def _problem(self, token: Token, text: str) -> str:
        claims, now = token.claims, self._wall()
        if claims.iss not in self._settings.issuers:
            return "a token of another issuer"
        if claims.exp <= now:
            return "an expired token"
        if claims.nbf > now + LEEWAY:
            return "a token that is not valid yet"
        if not self._audiences.intersection(claims.audiences):
            return "a token for another audience"
        return self._not_here(claims) or await self._forged(token, text)

    def _not_here(self, claims: Claims) -> str:
        """Why the account or the bound object is not (any more) of this node."""
        about = claims.private
        access = self._access(about.namespace, about.serviceaccount.name)
        if access is None or self._gone(access.deleted):
            return "a token of an account that is not used on this node"
        if not access.uid or access.uid != about.serviceaccount.uid:
            return "a token of an account that was replaced"
        if about.node is not None and about.node.name != self._settings.node:
            return "a token of another node"
        for kind, bound in ((res.POD, about.pod), (res.SECRET, about.secret)):
            if bound is not None and not self._lives(kind, about.namespace, bound):
                return f"a token of a {kind} that is not on this node"
        return ""

    def _lives(self, kind: str, namespace: str, bound: Ref) -> bool:
        row = self._store.get(res.format_resource(namespace, kind, bound.name))
        if row is None:
            return False
        meta = metadata_of(row.value)
        return bool(bound.uid) and meta.uid == bound.uid and not self._gone(meta.deletion_timestamp)

    def _gone(self, deleted: str | None) -> bool:
        when = parse_time(deleted)
        return when is not None and when.timestamp() + LEEWAY < self._wall()

    async def _forged(self, token: Token, text: str) -> str:
        digest = hashlib.sha256(text.encode()).digest()
        if digest in self._good:
            return ""
        if self._verify is None:
            if not self._given(text):
                return "a token that this node was not given"
        elif self._bad.get(digest, 0.0) > self._wall() or not await self._verify(token):
            if len(self._bad) >= _KNOWN:
                self._bad.clear()
            self._bad[digest] = self._wall() + _BAD_FOR  # so that asking again costs no child
            return "a token that none of the keys has signed"
        if len(self._good) >= _KNOWN:
            self._good.clear()
        # Remembered, so that a pod may use its token until it has read the one that replaced it.
        self._good[digest] = token.claims.exp
        return ""

    def _given(self, text: str) -> bool:
        sql = "SELECT 1 FROM meta WHERE type = ? AND instr(value, ?) LIMIT 1"
        return bool(self._store.query(sql, (res.TOKEN, f'"{text}"')))

    # what

    def rules(self, user: User, namespace: str = "") -> Iterator[Rule]:
        """The rights of a user in `namespace`; without one, in all and for paths."""
        own = NODE_USER_PREFIX + self._settings.node
        if user.name == own:
            yield from _EVERYTHING
        if _AUTHENTICATED in user.groups:
            yield from _SELF
        match user.name.split(":"):
            case ["system", "serviceaccount", home, name]:
                access = self._access(home, name)
                for rule in access.rules if access is not None else ():
                    if not rule.namespaces or namespace in rule.namespaces:
                        yield rule

    def allows(self, user: User, action: Attributes) -> bool:
        """Tell whether `user` may do it; documents that clients need in order to ask anything are open."""
        path = action.path
        if path and (is_pass_through(path, action.verb) or (action.verb == "get" and is_openapi_part(path))):
            return True
        return any(rule.allows(action) for rule in self.rules(user, action.namespace))

    def require(self, user: User, action: Attributes) -> None:
        """Do nothing when it is allowed.

        Raises:
            ApiStatus: 403 in Kubernetes' words.
        """
        if not self.allows(user, action):
            error = denied(user, action)
            self._refuse("forbidden", safe_label(user.name), error.message)
            raise error

    def _access(self, namespace: str, name: str) -> Access | None:
        key = res.format_resource(namespace, res.SERVICE_ACCOUNT_ACCESS, name)
        row = self._store.get(key)
        if row is not None:
            access = self._parsed(key, row.value)
            if access is not None and (access.namespace, access.name) == (namespace, name):
                return access
        for other in self._store.rows(res.SERVICE_ACCOUNT_ACCESS):  # its own name need not be the account's
            access = self._parsed(other.key, other.value)
            if access is not None and (access.namespace, access.name) == (namespace, name):
                return access
        return None

    def _parsed(self, key: str, raw: bytes) -> Access | None:
        held = self._rows.get(key)
        if held is not None and held[0] == raw:
            return held[1]
        if len(self._rows) >= _KNOWN:
            self._rows.clear()
        access = parse_access(raw)
        self._rows[key] = raw, access
        return access

    def _refuse(self, kind: str, source: str, text: str) -> None:
        """Count, and write about each `source` (an address, an account) once, then how often it came again."""
        self.refused[kind] += 1
        total, text = self.refused.total(), safe_label(text, 300)
        self._lines.warning(f"requests refused as {kind}", source, "refused (%d so far): %s", total, text)
