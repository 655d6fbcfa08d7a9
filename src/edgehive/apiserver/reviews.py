"""The questions of the API: may I, who am I, who is this."""

from collections.abc import Iterable
from typing import Any, Protocol

from edgehive.apiserver.codec import Object, encode
from edgehive.apiserver.context import User
from edgehive.kube.rules import Attributes, Rule
from edgehive.kube.status import ApiStatus, bad_request


class Checks(Protocol):
    """Reads tokens (`apiserver.authn.Authenticator`)."""

    async def check_token(self, token: str) -> tuple[User, tuple[str, ...]]: ...


class Decides(Protocol):
    """Knows rights (`apiserver.authz.Authorizer`)."""

    def allows(self, user: User, action: Attributes) -> bool: ...
    def rules(self, user: User, namespace: str = "") -> Iterable[Rule]: ...


class Reviews:
    """Answers ``SelfSubjectAccessReview`` and its relatives; nothing of them is stored."""

    def __init__(self, *, authenticator: Checks | None, authorizer: Decides) -> None:
        """Without an `authenticator` there are no reviews of tokens."""
        self._authenticator = authenticator
        self._authorizer = authorizer

    async def answer(self, kind: str, user: User, body: Object) -> bytes:
        """Answer one review; raises `ApiStatus`."""
        spec = body.get("spec") or {}
        if not isinstance(spec, dict):
            raise bad_request("spec must be an object")
        group = (
            "authentication.k8s.io"
            if kind in {"SelfSubjectReview", "TokenReview"}
            else "authorization.k8s.io"
        )
        status = await self._status(kind, user, spec)
        answer = {"kind": kind, "apiVersion": f"{group}/v1", "metadata": {"creationTimestamp": None}}
        return encode(answer | ({"spec": spec} if kind != "SelfSubjectReview" else {}) | {"status": status})

    async def _status(self, kind: str, user: User, spec: dict[str, Any]) -> dict[str, Any]:
        match kind:
            case "SelfSubjectAccessReview":
                return self._access(user, spec)
            case "SubjectAccessReview":
                asked = User(
                    str(spec.get("user", "")), tuple(spec.get("groups") or ()), str(spec.get("uid", ""))
                )
                return self._access(asked, spec)
            case "SelfSubjectRulesReview":
                return self._rules(user, str(spec.get("namespace") or ""))
            case "SelfSubjectReview":
                return {"userInfo": _user_info(user)}
            case _:
                return await self._token(spec)

    def _access(self, user: User, spec: dict[str, Any]) -> dict[str, Any]:
        resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if isinstance(resource, dict):
            fields = ("verb", "group", "resource", "subresource", "namespace", "name")
            action = Attributes(**{key: str(resource.get(key) or "") for key in fields})
        elif isinstance(path, dict):
            action = Attributes(str(path.get("verb") or ""), path=str(path.get("path") or ""))
        else:
            raise bad_request("exactly one of nonResourceAttributes or resourceAttributes must be specified")
        return {"allowed": self._authorizer.allows(user, action)}

    def _rules(self, user: User, namespace: str) -> dict[str, Any]:
        found = [rule.describe() for rule in self._authorizer.rules(user, namespace)]
        return {
            "resourceRules": [rule for rule in found if "resources" in rule],
            "nonResourceRules": [rule for rule in found if "nonResourceURLs" in rule],
            "incomplete": False,
        }

    async def _token(self, spec: dict[str, Any]) -> dict[str, Any]:
        if self._authenticator is None:
            raise bad_request("tokens are not reviewed here")
        try:
            user, audiences = await self._authenticator.check_token(str(spec.get("token") or ""))
        except ApiStatus:
            return {"authenticated": False, "error": "invalid bearer token"}
        wanted = [a for a in spec.get("audiences") or audiences if a in audiences]
        if not wanted:
            return {"authenticated": False, "error": "token audiences are invalid for the target audiences"}
        return {"authenticated": True, "user": _user_info(user), "audiences": wanted}


def _user_info(user: User) -> dict[str, Any]:
    info: dict[str, Any] = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    if user.extra:
        info["extra"] = user.extra
    return info
