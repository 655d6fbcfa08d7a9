"""The HTTP face of the registry: one handler, from a request to an answer.

authenticate → impersonate → route → authorize → read the body → registry → render. Everything a handler refuses is
an `ApiStatus`, which the HTTP server sends as a ``Status`` object.
"""

import asyncio
import logging
from collections.abc import Callable

from edgehive.aio.http import Request, Response
from edgehive.apiserver.authn import Authenticator, impersonated
from edgehive.apiserver.authz import Authorizer
from edgehive.apiserver.context import User
from edgehive.apiserver.discovery import REVIEWS, Discovery
from edgehive.apiserver.health import Health
from edgehive.apiserver.metrics import Metrics, Series
from edgehive.apiserver.openapi import OpenApi
from edgehive.apiserver.paths import Target, parse_target
from edgehive.apiserver.resources import Resources
from edgehive.apiserver.reviews import Reviews
from edgehive.kit.errors import StorageError
from edgehive.kit.text import safe_label
from edgehive.kube.rules import Attributes
from edgehive.kube.selectors import FieldSelector
from edgehive.kube.status import ApiStatus

log = logging.getLogger(__name__)

_SLOW = 2.0  # seconds; more than this is worth a line in the log
_VERBS = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}


class Face:
    """Answers every request of the API server."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        authorizer: Authorizer,
        discovery: Discovery,
        openapi: OpenApi,
        health: Health,
        resources: Resources,
        reviews: Reviews,
        metrics: Metrics,
        metrics_text: Callable[[], bytes],
    ) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._discovery = discovery
        self._openapi = openapi
        self._health = health
        self._resources = resources
        self._reviews = reviews
        self._metrics = metrics
        self._metrics_text = metrics_text

    async def handle(self, request: Request) -> Response:
        """Answer one request; raises `ApiStatus`."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        target = parse_target(request.raw_path or request.path)
        verb = self._verb(request, target)
        code = 500
        try:
            response = await self._route(request, target, verb)
            code = response.status
            return response
        except StorageError as exc:
            code = 507
            raise storage_status(exc) from exc
        except ApiStatus as exc:
            code = exc.code
            raise
        finally:
            self._account(request, target, verb, code, loop.time() - began)

    def _account(self, request: Request, target: Target | None, verb: str, code: int, took: float) -> None:
        """Count and log one answer; labels of metrics come from served resources only."""
        known = target is not None and self._resources.find(target) is not None
        resource = target.resource if target is not None and known else ""
        if verb != "watch":
            self._metrics.count(Series(verb if resource else "other", resource, code), took)
        level = logging.WARNING if took > _SLOW and verb != "watch" else logging.DEBUG
        log.log(level, "%s %s -> %d in %.0f ms", verb, safe_label(request.path), code, took * 1000)

    async def _route(self, request: Request, target: Target | None, verb: str) -> Response:
        user = await self._user(request)
        if target is None:
            return self._other(request, user, verb)
        self._authorizer.require(user, self._action(request, target, verb))
        review = REVIEWS.get((target.group, target.version), {}).get(target.resource)
        if review is not None and not target.name:
            return await self._resources.review(request, review, user, self._reviews)
        return await self._resources.answer(request, target, verb, user)

    async def _user(self, request: Request) -> User:
        user = await self._authenticator.authenticate(request)
        other = impersonated(request)
        if other is None:
            return user
        for kind, name in (("users", other.name), *(("groups", g) for g in other.groups)):
            if kind == "groups" and name == "system:authenticated":
                continue
            self._authorizer.require(user, _impersonation(kind, name))
        if other.uid:
            self._authorizer.require(
                user, Attributes("impersonate", "authentication.k8s.io", "uids", name=other.uid)
            )
        for key, values in other.extra.items():
            for value in values:
                extra = Attributes("impersonate", "authentication.k8s.io", "userextras", key, name=value)
                self._authorizer.require(user, extra)
        return other

    @staticmethod
    def _verb(request: Request, target: Target | None) -> str:
        verb = _VERBS.get(request.method, request.method.lower())
        if target is None:
            return verb
        if verb == "get" and (target.watch or request.flag("watch")):
            return "watch" if not target.subresource else verb
        if verb == "get" and not target.name:
            return "list"
        return "deletecollection" if verb == "delete" and not target.name else verb

    @staticmethod
    def _action(request: Request, target: Target, verb: str) -> Attributes:
        fields = FieldSelector.parse(request.param("fieldSelector")) if verb in {"list", "watch"} else None
        return Attributes(
            verb,
            target.group,
            target.resource,
            target.subresource,
            # A namespace is in itself: whoever may see everything in it may see it.
            target.name if target.resource == "namespaces" and not target.group else target.namespace,
            target.name or (fields.exact("metadata.name") if fields else None) or "",
            version=target.version,
            field_node=fields.exact("spec.nodeName") if fields else None,
        )

    def _other(self, request: Request, user: User, verb: str) -> Response:
        self._authorizer.require(user, Attributes(verb, path=request.path))
        if request.method not in {"GET", "HEAD"}:
            raise ApiStatus(
                405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
            )
        found = (
            self._health.answer(request) or self._openapi.answer(request) or self._discovery.answer(request)
        )
        if found is not None:
            return found
        if request.path == "/metrics":
            return Response(200, self._metrics_text(), {"content-type": "text/plain; version=0.0.4"})
        if request.path == "/":
            paths = [
                "/api",
                "/apis",
                "/healthz",
                "/livez",
                "/metrics",
                "/openapi/v2",
                "/openapi/v3",
                "/readyz",
                "/version",
            ]
            body = '{\n  "paths": [\n' + ",\n".join(f'    "{p}"' for p in paths) + "\n  ]\n}\n"
            return Response(200, body.encode(), {"content-type": "application/json"})
        raise no_such_resource()


def _impersonation(kind: str, name: str) -> Attributes:
    prefix = "system:serviceaccount:"
    if kind == "users" and name.startswith(prefix) and name.count(":") == 3:
        _, _, namespace, account = name.split(":")
        return Attributes("impersonate", "", "serviceaccounts", namespace=namespace, name=account)
    return Attributes("impersonate", "", kind, name=name)


def no_such_resource() -> ApiStatus:
    """404 for a path or resource that is not served."""
    details = {"causes": [{"reason": "UnexpectedServerResponse", "message": "404 page not found"}]}
    return ApiStatus(404, "NotFound", "the server could not find the requested resource", details)


def storage_status(error: StorageError) -> ApiStatus:
    """507: the disk refused and nothing was changed.

    Without a Retry-After: Go clients would keep a person waiting for ten of them before they say what is wrong.
    """
    return ApiStatus(507, "InternalError", f"Internal error occurred: the change was not stored: {error}")
