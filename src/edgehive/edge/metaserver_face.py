"""The HTTP face of MetaServer: the API server's own, over what this edge has and what the cloud answers.

Loaded with the first request, so that a MetaServer nobody uses costs next to nothing.
"""

import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgehive.aio.http import Request, Response
from edgehive.apiserver.context import Call, Selection, User
from edgehive.apiserver.discovery import REVIEWS
from edgehive.apiserver.negotiate import JSON, Form, accepted, media_of
from edgehive.apiserver.negotiate import BodyReader as Bodies
from edgehive.apiserver.paths import Target, parse_target
from edgehive.apiserver.render import quoted, respond
from edgehive.apiserver.resources import Resources, dry_run, not_allowed, selection_of
from edgehive.apiserver.reviews import Reviews
from edgehive.edge.metaserver_catalog import Catalog
from edgehive.edge.metaserver_extend import Extensions
from edgehive.edge.metaserver_registry import EdgeRegistry, selects
from edgehive.edge.metaserver_store import Replica
from edgehive.edge.metaserver_sync import Follower, Freshness
from edgehive.kit.errors import StorageError, Unreachable
from edgehive.kube.openapi_protobuf import V2_PROTOBUF, V2_PROTOBUF_ACCEPT
from edgehive.kube.refs import GVR, is_dns_subdomain
from edgehive.kube.resources import ResourceInfo
from edgehive.kube.rules import Attributes
from edgehive.kube.selectors import FieldSelector
from edgehive.kube.status import ApiStatus, bad_request, forbidden
from edgehive.wire.application import is_openapi_part, is_pass_through

if TYPE_CHECKING:
    from edgehive.edge.metaserver_auth import Gate
    from edgehive.edge.metaserver_queue import WriteQueue

log = logging.getLogger(__name__)

_VERBS = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_OBJECT_PARTS = frozenset({"", "status", "finalize"})
_COMMANDS = frozenset({"exec", "attach", "portforward"})
_READS = frozenset({"get", "list", "watch"})
_TEXT = {"content-type": "text/plain; charset=utf-8"}
_LOCAL = User("system:metaserver", ("system:masters",))
FRESHNESS = "x-edgehive-freshness"


class MetaFace:
    """Answers every request."""

    def __init__(
        self,
        *,
        follower: Follower,
        replica: Replica,
        extensions: Extensions,
        now: Callable[[], float],
        gate: "Gate | None" = None,
        queue: "WriteQueue | None" = None,
    ) -> None:
        self._gate = gate
        self.catalog = Catalog(follower=follower, replica=replica, now=now)
        follower.selects = selects(self.catalog.find)
        self.registry = EdgeRegistry(catalog=self.catalog, replica=replica, follower=follower, queue=queue)
        self._extensions = extensions
        self._resources = Resources(
            registry=self.registry,
            subresources=None,
            now=lambda: datetime.now(UTC),
            rng=random.SystemRandom(),
        )
        self._bodies = Bodies()
        self._reviews = Reviews(authenticator=None, authorizer=gate) if gate is not None else None

    async def handle(self, request: Request) -> Response:
        """Answer one request; raises `ApiStatus`."""
        self._refuse_pages(request)
        target = parse_target(request.raw_path or request.path)
        verb = verb_of(request, target)
        try:
            user = await self._admitted(request, target, verb)
            if target is None:
                return await self._document(request, verb)
            _check(target)
            extended = await self._extensions.answer(request, target, verb)
            if extended is not None:
                return extended
            return await self._resource(request, target, verb, user)
        except Unreachable as exc:
            raise _offline(verb, exc) from exc
        except StorageError as exc:
            raise ApiStatus(507, "InternalError", f"the local database refused: {exc}") from exc

    def _refuse_pages(self, request: Request) -> None:
        """A page in a browser on this machine must not reach an API that asks nobody who he is.

        Pages send an ``Origin``; one whose name has just come to mean this machine sends that name as ``Host``.
        Some clients say ``Origin`` as well when they ask for a WebSocket: the server's own, as no page can.

        Raises:
            ApiStatus: 403.
        """
        if self._gate is None:
            refused = _is_foreign(request) or not _names_this_machine(request.headers.get("host", ""))
        else:
            refused = _is_foreign(request) and "authorization" not in request.headers
        if refused:
            raise forbidden("requests of web pages are not answered")

    async def _admitted(self, request: Request, target: Target | None, verb: str) -> User:
        """Who asks, if he may; raises `ApiStatus`."""
        if any(name.startswith("impersonate-") for name in request.headers):
            # Unheeded it would give more than was asked for: the asker's own rights.
            raise forbidden("nobody can act as somebody else here")
        if self._gate is None:
            return _LOCAL
        user = await self._gate.user(request)
        self._gate.require(user, action_of(request, target, verb))
        return user

    async def _document(self, request: Request, verb: str) -> Response:
        path = request.path.rstrip("/")
        if request.path == "/" and verb == "get":
            return Response(200, _INDEX, {"content-type": JSON})
        if not (is_pass_through(path, verb) or (verb == "get" and is_openapi_part(path))):
            raise ApiStatus(404, "NotFound", "the server could not find the requested resource")
        body = await self.catalog.document(path)
        if path == "/openapi/v2" and _wants_protobuf(request):
            from edgehive.edge.metaserver_openapi import to_protobuf

            return Response(200, await to_protobuf(body), {"content-type": V2_PROTOBUF, "vary": "Accept"})
        plain = path in {"/healthz", "/livez", "/readyz"}
        return Response(200, body, dict(_TEXT) if plain else {"content-type": JSON})

    async def _resource(self, request: Request, target: Target, verb: str, user: User) -> Response:
        gvr = GVR(target.group, target.version, target.resource)
        review = REVIEWS.get((target.group, target.version), {}).get(target.resource, "")
        if self._reviews is not None and review.startswith("Self") and not target.name:
            return await self._resources.review(request, review, user, self._reviews)
        info = await self.catalog.learn(gvr)
        if verb in _READS and info.custom and "as=Table" in request.headers.get("accept", ""):
            await self.catalog.fetch_columns(info)
            info = self.catalog.find(gvr.group, gvr.version, gvr.resource) or info
        if target.subresource not in _OBJECT_PARTS:
            return await self._subresource(request, target, info, verb, user)
        freshness = None
        if verb in _READS and not (verb == "get" and not target.name):
            call = Call(info, user, target.namespace if info.namespaced else "", target.name)
            selection = Selection() if verb == "get" else selection_of(request, call, watch=verb == "watch")
            freshness = await self.registry.prepare(call, verb, selection)
        response = await self._resources.answer(request, target, verb, user)
        return response if freshness is None else shown(response, freshness)

    async def _subresource(
        self, request: Request, target: Target, info: ResourceInfo, verb: str, user: User
    ) -> Response:
        if verb not in {"get", "create", "update", "patch"} or not target.name or target.rest:
            raise not_allowed()
        call = Call(info, user, target.namespace if info.namespaced else "", target.name, target.subresource)
        call.dry_run = dry_run(request)
        call.manager = request.param("fieldManager") or "unknown"
        body = await request.body() if verb == "patch" else b""
        if verb in {"create", "update"}:
            import msgspec

            body = msgspec.json.encode(await self._bodies.require(request))
        raw = await self.registry.forward(call, verb, body, media_of(request))
        return respond(raw, Form(), status=201 if verb == "create" else 200)


def _is_foreign(request: Request) -> bool:
    origin = request.headers.get("origin")
    return (
        origin is not None and origin.partition("://")[2].lower() != request.headers.get("host", "").lower()
    )


def _names_this_machine(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.strip("[]").lower()
    return name in {"", "localhost", "::1"} or (name.startswith("127.") and name.replace(".", "").isdigit())


def _wants_protobuf(request: Request) -> bool:
    for media, _ in accepted(request):
        if media in {V2_PROTOBUF_ACCEPT, JSON, "*/*", "application/*"}:
            return media == V2_PROTOBUF_ACCEPT
    return False


def verb_of(request: Request, target: Target | None) -> str:
    """The verb of Kubernetes that a request means."""
    verb = _VERBS.get(request.method, request.method.lower())
    if target is None:
        return verb
    if verb == "get" and not target.subresource and (target.watch or request.flag("watch")):
        return "watch"
    if verb == "get" and not target.name:
        return "list"
    return "deletecollection" if verb == "delete" and not target.name else verb


def action_of(request: Request, target: Target | None, verb: str) -> Attributes:
    """What a request wants to do, as rules of RBAC see it; raises `ApiStatus` for a malformed selector."""
    if target is None:
        return Attributes(verb, path=request.path)
    if target.subresource in _COMMANDS and verb == "get":
        verb = "create"  # a WebSocket begins with GET, and is the same command
    name = target.name
    if verb in {"list", "watch"} and not name:
        name = FieldSelector.parse(request.param("fieldSelector")).exact("metadata.name") or ""
    return Attributes(
        verb,
        target.group,
        target.resource,
        target.subresource,
        target.namespace,
        name,
        version=target.version,
    )


def _check(target: Target) -> None:
    """Refuse what names nothing of Kubernetes before it goes anywhere.

    Raises:
        ApiStatus: 400.
    """
    plain = [target.version, target.resource, *filter(None, (target.group, target.namespace))]
    name = target.name
    odd = name in {".", ".."} or any(c in name for c in "/%\\") or not name.isprintable() or len(name) > 253
    if odd or not all(is_dns_subdomain(part) for part in plain):
        raise bad_request("the path names nothing of the Kubernetes API")


def shown(response: Response, freshness: Freshness) -> Response:
    """Say in an answer how fresh it is; kubectl prints the warning."""
    if freshness.notice:
        response.repeated = (*response.repeated, ("warning", f"299 - {quoted(freshness.notice)}"))
    if freshness.live:
        response.headers[FRESHNESS] = "live"
        return response
    if freshness.as_of:
        when = datetime.fromtimestamp(freshness.as_of, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        response.headers[FRESHNESS] = f"as-of={when}"
        text = f"the cloud is not reachable; this is the state of {when}"
    else:
        response.headers[FRESHNESS] = "incomplete"
        text = "the cloud is not reachable; this is what the edge happens to have"
    response.repeated = (*response.repeated, ("warning", f"299 - {quoted(text)}"))
    return response


def _offline(verb: str, error: Unreachable) -> ApiStatus:
    if "timeout" in str(error) and verb not in _READS:
        return ApiStatus(504, "Timeout", f"failed to access cloud Application center: {error}")
    message = f"connection lost between EdgeCore and CloudCore: {error}"
    return ApiStatus(503, "ServiceUnavailable", message)


_INDEX = b"""{
  "paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
}
"""
