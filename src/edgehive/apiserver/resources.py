"""Requests for resources: parameters and bodies in, registry, answers out."""

import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from edgehive.aio.http import Request, Response
from edgehive.apiserver.codec import as_object
from edgehive.apiserver.context import Call, Selection, User, qualified
from edgehive.apiserver.deletes import DeleteOptions
from edgehive.apiserver.negotiate import BodyReader, Form, choose, media_of
from edgehive.apiserver.nodeauthz import check_mirror
from edgehive.apiserver.nodemetrics import GROUP as METRICS_GROUP
from edgehive.apiserver.nodemetrics import NodeMetrics
from edgehive.apiserver.nodeproxy import NodeProxy
from edgehive.apiserver.paths import Target
from edgehive.apiserver.reads import ObjectList
from edgehive.apiserver.render import Renderer, respond
from edgehive.apiserver.reviews import Reviews
from edgehive.apiserver.subresources import Subresources, missing_subresource
from edgehive.apiserver.watches import Line, WatchRequest, error_line, format_line
from edgehive.kube.resources import ResourceInfo
from edgehive.kube.selectors import FieldSelector, LabelSelector
from edgehive.kube.status import ApiStatus, bad_request, invalid

_OBJECT_PARTS = frozenset({"", "status", "finalize", "approval", "ephemeralcontainers"})
_NODE_PARTS = frozenset(
    {*(("pods", part) for part in ("log", "exec", "attach", "portforward")), ("nodes", "proxy")}
)
_FIELD_VALIDATION = ("Ignore", "Warn", "Strict")


class Kinds(Protocol):
    """Which resources there are (`apiserver.catalog.Catalog`)."""

    def find(self, group: str, version: str, resource: str) -> ResourceInfo | None: ...


class Verbs(Protocol):
    """The verbs of an API (`apiserver.registry.Registry`)."""

    @property
    def catalog(self) -> Kinds: ...
    def get(self, call: Call, resource_version: str = "") -> bytes: ...
    def list(self, call: Call, selection: Selection) -> ObjectList: ...
    def watch(self, call: Call, request: WatchRequest) -> AsyncGenerator[Line, None]: ...
    async def create(self, call: Call, body: dict[str, Any]) -> bytes: ...
    async def update(self, call: Call, body: dict[str, Any]) -> bytes: ...
    async def patch(self, call: Call, body: bytes, content_type: str) -> tuple[bytes, bool]: ...
    async def delete(self, call: Call, options: DeleteOptions) -> tuple[bytes, bool]: ...
    async def delete_all(self, call: Call, selection: Selection, options: DeleteOptions) -> ObjectList: ...


class Resources:
    """Answers requests for any resource; without `subresources` there are only ``status`` and ``finalize``."""

    def __init__(
        self,
        *,
        registry: Verbs,
        subresources: Subresources | None,
        now: Callable[[], datetime],
        rng: random.Random,
        nodes: NodeProxy | None = None,
        metrics: NodeMetrics | None = None,
    ) -> None:
        self._registry = registry
        self._subresources = subresources
        self._now = now
        self._rng = rng
        self._nodes = nodes
        self._metrics = metrics
        self._bodies = BodyReader()

    def find(self, target: Target) -> ResourceInfo | None:
        """The resource that a URL names, if it is served."""
        return self._registry.catalog.find(target.group, target.version, target.resource)

    async def review(self, request: Request, kind: str, user: User, reviews: Reviews) -> Response:
        """Answer a question (``SelfSubjectAccessReview`` ...); raises `ApiStatus`."""
        if request.method != "POST":
            raise not_allowed()
        body = as_object(await self._bodies.read(request) or {})
        return respond(await reviews.answer(kind, user, body), choose(request, transforms=False), status=201)

    async def answer(self, request: Request, target: Target, verb: str, user: User) -> Response:
        """Answer a request for a resource; raises `ApiStatus`."""
        info = self.find(target)
        if info is None:
            raise ApiStatus(404, "NotFound", "the server could not find the requested resource")
        call = self._call(request, target, info, user)
        if target.namespace and not info.namespaced and qualified(info) != "namespaces":
            raise ApiStatus(404, "NotFound", "the server could not find the requested resource")
        if self._nodes is not None and (str(info.gvr), call.subresource) in _NODE_PARTS:
            if verb not in {"get", "create"} or (target.rest and call.subresource != "proxy"):
                raise not_allowed()
            return await self._nodes.answer(request, call, target.rest)
        if target.rest or (call.subresource and call.subresource not in info.subresources):
            raise missing_subresource()
        if call.subresource not in _OBJECT_PARTS:
            return await self._subresource(request, call, verb)
        if verb not in info.verbs and not call.subresource:
            raise not_allowed()
        if self._metrics is not None and call.group == METRICS_GROUP:
            return await self._usage(request, call, verb, self._metrics)
        handler = self._handlers().get(verb)
        if handler is None or (call.subresource and verb not in {"get", "update", "patch"}):
            raise not_allowed()
        if verb in {"update", "patch"} and not call.name:
            raise not_allowed()
        if info.namespaced and not call.namespace and verb not in {"list", "watch"}:
            raise not_allowed()
        return await handler(request, call)

    def _handlers(self) -> Mapping[str, Callable[[Request, Call], Awaitable[Response]]]:
        return {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_all,
        }

    def _call(self, request: Request, target: Target, info: ResourceInfo, user: User) -> Call:
        validation = request.param("fieldValidation") or "Warn"
        if validation not in _FIELD_VALIDATION:
            message = f'Unsupported value: "{validation[:60]}": supported values: "Ignore", "Strict", "Warn"'
            cause = ("fieldValidation", "FieldValueNotSupported", message)
            raise invalid("CreateOptions", "", [cause], "meta.k8s.io")
        agent = request.headers.get("user-agent", "").partition("/")[0][:128]
        manager = request.param("fieldManager")
        if len(manager) > 128:
            cause = ("fieldManager", "FieldValueTooLong", "Too long: may not be more than 128 bytes")
            raise invalid("PatchOptions", "", [cause], "meta.k8s.io")
        if not manager and media_of(request) != "application/apply-patch+yaml":
            manager = agent or "unknown"
        return Call(
            info,
            user,
            target.namespace if info.namespaced else "",
            target.name,
            target.subresource,
            manager,
            dry_run=dry_run(request),
            field_validation=validation,
            force=request.flag("force"),
        )

    def _renderer(self, request: Request, call: Call, form: Form) -> Renderer:
        return Renderer(call.info, form, now=self._now, include=request.param("includeObject"))

    def _reply(self, request: Request, call: Call, raw: bytes, status: int = 200) -> Response:
        form = choose(request)
        pretty = request.flag("pretty")
        body = self._renderer(request, call, form).one(raw)
        return respond(body, form, status=status, pretty=pretty, warnings=call.warnings)

    # -- verbs

    async def _get(self, request: Request, call: Call) -> Response:
        return self._reply(request, call, self._registry.get(call, request.param("resourceVersion")))

    async def _list(self, request: Request, call: Call) -> Response:
        form = choose(request)
        found = self._registry.list(call, selection_of(request, call))
        pretty = request.flag("pretty")
        return respond(self._renderer(request, call, form).many(found), form, pretty=pretty)

    async def _watch(self, request: Request, call: Call) -> Response:
        form = choose(request)
        initial = request.param("sendInitialEvents")
        watch = WatchRequest(
            selection_of(request, call, watch=True),
            self._timeout(request),
            request.flag("allowWatchBookmarks"),
            None if not initial else request.flag("sendInitialEvents"),
        )
        lines = self._registry.watch(call, watch)
        stream = stream_lines(lines, self._renderer(request, call, form))
        return Response(200, headers={"content-type": "application/json"}, stream=stream)

    def _timeout(self, request: Request) -> float:
        text = request.param("timeoutSeconds")
        if text and not (text.isascii() and text.isdigit() and len(text) < 10):
            raise bad_request(f'strconv.ParseInt: parsing "{text[:60]}": invalid syntax')
        seconds = int(text or 0)
        return float(seconds) if seconds else 1800.0 * (1 + self._rng.random())

    async def _create(self, request: Request, call: Call) -> Response:
        choose(request)
        body = await self._bodies.require(request)
        if call.name:
            raise not_allowed()
        if qualified(call.info) == "bindings":
            return await self._bind_by_body(request, call, body)
        if qualified(call.info) == "pods":
            check_mirror(call.user, body)
        return self._reply(request, call, await self._registry.create(call, body), 201)

    async def _bind_by_body(self, request: Request, call: Call, body: dict[str, Any]) -> Response:
        """``POST bindings``, the older way to bind: the body names the pod."""
        info = self._registry.catalog.find("", "v1", "pods")
        name = (body.get("metadata") or {}).get("name")
        if info is None or self._subresources is None or not isinstance(name, str):
            raise bad_request("metadata.name must name the pod")
        pod = Call(info, call.user, call.namespace, name, "binding", call.manager, dry_run=call.dry_run)
        raw = await self._subresources.bind(pod, body)
        return respond(raw, choose(request, transforms=False), status=201)

    async def _update(self, request: Request, call: Call) -> Response:
        choose(request)
        return self._reply(
            request, call, await self._registry.update(call, await self._bodies.require(request))
        )

    async def _patch(self, request: Request, call: Call) -> Response:
        choose(request)
        raw, created = await self._registry.patch(call, await request.body(), media_of(request))
        return self._reply(request, call, raw, 201 if created else 200)

    async def _delete(self, request: Request, call: Call) -> Response:
        choose(request)
        options = delete_options(request, await self._bodies.read(request))
        call.dry_run = call.dry_run or options.dry_run
        raw, _ = await self._registry.delete(call, options)
        return self._reply(request, call, raw)

    async def _delete_all(self, request: Request, call: Call) -> Response:
        form = choose(request)
        options = delete_options(request, await self._bodies.read(request))
        call.dry_run = call.dry_run or options.dry_run
        found = await self._registry.delete_all(call, selection_of(request, call), options)
        return respond(self._renderer(request, call, form).many(found), form)

    async def _usage(self, request: Request, call: Call, verb: str, metrics: NodeMetrics) -> Response:
        """``metrics.k8s.io``: computed, not stored."""
        form = choose(request)
        renderer = self._renderer(request, call, form)
        if verb == "list":
            body = renderer.many(await metrics.many(call, selection_of(request, call)))
        elif call.namespace or not call.info.namespaced:
            body = renderer.one(await metrics.one(call))
        else:
            raise not_allowed()
        return respond(body, form, pretty=request.param("pretty") in {"true", "1"})

    # -- subresources of another kind

    async def _subresource(self, request: Request, call: Call, verb: str) -> Response:
        subs = self._subresources
        if subs is None:
            raise missing_subresource()
        form = choose(request, transforms=False)
        match call.subresource, verb:
            case "scale", "get":
                return respond(subs.get_scale(call), form)
            case "scale", "update":
                return respond(await subs.put_scale(call, await self._bodies.require(request)), form)
            case "scale", "patch":
                return respond(await subs.patch_scale(call, await request.body(), media_of(request)), form)
            case "binding", "create":
                return respond(await subs.bind(call, await self._bodies.require(request)), form, status=201)
            case "eviction", "create":
                return respond(await subs.evict(call, await self._bodies.require(request)), form, status=201)
            case "token", "create":
                return respond(
                    await subs.issue_token(call, await self._bodies.require(request)), form, status=201
                )
            case "scale" | "binding" | "eviction" | "token", _:
                raise not_allowed()
            case _:
                raise missing_subresource()


async def stream_lines(lines: AsyncGenerator[Line, None], renderer: Renderer) -> AsyncIterator[bytes]:
    """Render a watch; an error becomes its last line."""
    async with contextlib.aclosing(lines):
        try:
            async for line in lines:
                yield format_line(renderer.line(line))
        except ApiStatus as exc:
            yield error_line(exc)


def selection_of(request: Request, call: Call, *, watch: bool = False) -> Selection:
    """Read the parameters of a list or watch; raises `ApiStatus`."""
    limit = request.param("limit")
    if limit and not (limit.isascii() and limit.isdigit() and len(limit) < 18):
        raise bad_request(f'strconv.ParseInt: parsing "{limit[:60]}": invalid syntax')
    fields = FieldSelector.parse(request.param("fieldSelector"))
    if call.name:
        fields = FieldSelector((*fields.terms, ("metadata.name", True, call.name)))
    return Selection(
        call.namespace,
        LabelSelector.parse(request.param("labelSelector")),
        fields,
        0 if watch else int(limit or 0),
        "" if watch else request.param("continue"),
        request.param("resourceVersion"),
        request.param("resourceVersionMatch"),
    )


def delete_options(request: Request, body: Any) -> DeleteOptions:
    """Read ``DeleteOptions`` from the body or the query; raises `ApiStatus`."""
    if body is not None:
        return DeleteOptions.parse(body)
    options: dict[str, Any] = {}
    grace = request.param("gracePeriodSeconds")
    if grace:
        if not grace.lstrip("-").isdecimal() or len(grace) > 10:
            raise bad_request("gracePeriodSeconds must be an integer")
        options["gracePeriodSeconds"] = int(grace)
    if request.param("propagationPolicy"):
        options["propagationPolicy"] = request.param("propagationPolicy")
    if request.param("orphanDependents"):
        options["orphanDependents"] = request.flag("orphanDependents")
    return DeleteOptions.parse(options)


def dry_run(request: Request) -> bool:
    """Read ``dryRun``; raises `ApiStatus`."""
    values = request.query.get("dryRun", [])
    if values in ([], ["All"]):
        return bool(values)
    cause = ("dryRun", "FieldValueNotSupported", 'Unsupported value: supported values: "All"')
    raise invalid("CreateOptions", "", [cause], "meta.k8s.io")


def not_allowed() -> ApiStatus:
    """405."""
    return ApiStatus(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
    )
