"""DynamicController: the Kubernetes API on behalf of edges.

An edge's MetaServer sends Applications; each is one request to the API server, and its answer goes back. Where node
authorization is enforced the request is made in the node's name, so that the API server's own rules decide;
otherwise, as in KubeEdge, in cloudcore's. What an edge may watch is `cloud.dynamic_watch`.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import msgspec

from edgehive.aio.fewlines import FewLines
from edgehive.aio.kubelines import decode_page
from edgehive.cloud.access import refusal_of, review_of
from edgehive.cloud.dynamic_filter import for_edges, for_edges_list
from edgehive.cloud.dynamic_groups import NodeGroups
from edgehive.cloud.dynamic_watch import Watches
from edgehive.cloud.impersonation import Impersonation
from edgehive.cloud.keyed import KeyedQueue, Start
from edgehive.kit.errors import EdgehiveError, ProtocolError, Unreachable
from edgehive.kit.text import safe_label
from edgehive.kube.api import CLUSTER, WriteOptions
from edgehive.kube.refs import GVR, is_dns_subdomain
from edgehive.kube.status import ApiStatus, bad_request, forbidden
from edgehive.wire import application as apps
from edgehive.wire.access import Access
from edgehive.wire.application import Application, PatchInfo, ResourceKey
from edgehive.wire.endpoint import NODE_USER_PREFIX
from edgehive.wire.message import MALFORMED, Message, Stamp
from edgehive.wire.outbound import Outbound

log = logging.getLogger(__name__)

_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_WAITING = 4096
_PARALLEL = 32
_PATH = re.compile(r"/[A-Za-z0-9/_.-]{0,250}")
_LIST_QUERY = (
    "labelSelector",
    "fieldSelector",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
)
_WRITE_QUERY = ("dryRun", "fieldManager", "fieldValidation", "force")


@runtime_checkable
class RequestApi(Protocol):
    """An API server that takes any request (`aio.kubeclient.KubeClient`)."""

    async def request(
        self,
        method: str,
        path: str,
        options: WriteOptions = CLUSTER,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        """Return the body of the answer; raises `ApiStatus` or `Unreachable`."""
        ...


@dataclass(slots=True)
class DynamicStats:
    """Counters."""

    requests: int = 0
    rejected: int = 0
    overloaded: int = 0


class DynamicController:
    """Carries out what MetaServers ask."""

    def __init__(
        self,
        *,
        api: RequestApi,
        path: Callable[[GVR, str | None, str, str], str],
        watches: Watches,
        answer: Callable[[str, Outbound], None],
        stamp: Stamp,
        impersonation: Impersonation,
        start: Start,
        groups: NodeGroups | None = None,
    ) -> None:
        """Wire up; `groups` shows each node the endpoints of its own group."""
        self._groups = groups
        self._api = api
        self._path = path
        self._watches = watches
        self._send_answer = answer
        self._stamp = stamp
        self._impersonation = impersonation
        self._queue: KeyedQueue[tuple[str, Message]] = KeyedQueue(
            start=start, work=self._carry_out, parallel=_PARALLEL, limit=_WAITING
        )
        self._lines = FewLines(log)
        self.stats = DynamicStats()

    def receive(self, node: str, message: Message) -> None:
        """Take a message of a node's MetaServer; the answer follows."""
        self.stats.requests += 1
        if self._queue.full:
            self.stats.overloaded += 1
            busy = ApiStatus(429, "TooManyRequests", "cloudcore is busy", {"retryAfterSeconds": 2})
            if not apps.is_watch_sync(message):
                self._answer(node, message, _refuse(message, busy))
            return
        # What a node watches is changed in order; the rest need not wait for one another.
        key = f"{node}/watches" if apps.is_watch_sync(message) else f"{node}/{message.id}"
        self._queue.submit(key, (node, message))

    async def _carry_out(self, item: tuple[str, Message]) -> None:
        node, message = item
        try:
            if apps.is_watch_sync(message):
                content = await self._sync(node, message)
            else:
                content = await self._application(node, message)
        except ProtocolError as exc:
            text = "node %s: a request that cannot be read: %s"
            self._lines.warning("requests that cannot be read", node, text, node, safe_label(str(exc)))
            return
        except Exception:
            log.exception("node %s: a request for the API crashed", node)
            content = _refuse(message, ApiStatus(500, "InternalError", "cloudcore failed; its log has more"))
        self._answer(node, message, content)

    def _answer(self, node: str, request: Message, content: bytes) -> None:
        self._send_answer(node, Outbound(apps.answer_message(request, content, stamp=self._stamp)))

    async def _sync(self, node: str, message: Message) -> bytes:
        wanted = apps.decode_applications(message.content)
        failed = await self._watches.sync(node, {key: replace(app, node=node) for key, app in wanted.items()})
        return apps.encode_applications(failed)

    async def _application(self, node: str, message: Message) -> bytes:
        # The node is the one whose certificate the connection has, whatever the content says.
        application = replace(apps.decode_application(message.content), node=node)
        try:
            answer = application.approved(await self._do(application))
        except ApiStatus as exc:
            answer = application.rejected(exc)
        except ProtocolError as exc:
            answer = application.rejected(bad_request(str(exc)))
        except Unreachable as exc:
            answer = application.rejected(ApiStatus(503, "ServiceUnavailable", str(exc)))
        except EdgehiveError as exc:
            answer = application.rejected(ApiStatus(500, "InternalError", str(exc)))
        if answer.error is not None:
            self.stats.rejected += 1
            text, code = "node %s: %s %s: %s", answer.error.code
            what = map(safe_label, (answer.verb, answer.key, answer.reason))
            if code in (404, 409, 410):
                log.debug(text, node, *what)
            else:
                self._lines.info(f"requests for the API answered with {code}", node, text, node, *what)
        return apps.encode_application(answer)

    async def _do(self, a: Application) -> bytes:
        if apps.is_pass_through(a.key, a.verb) or (a.verb == apps.GET and apps.is_openapi_part(a.key)):
            return await self._pass_through(a)
        target = checked(a.target)
        match a.verb:
            case apps.GET:
                raw = await self._ask(
                    "GET", a, a.subresource, query=_query(a.options(), ("resourceVersion",))
                )
                return for_edges(target.gvr, await self._near(a.node, target.gvr, raw))
            case apps.LIST:
                return await self._list(a, target)
            case apps.WATCH:
                await self._watches.add(a)
                return b""
            case apps.CREATE:
                return await self._ask(
                    "POST", a, a.subresource, query=_query(a.options(), _WRITE_QUERY), body=a.body
                )
            case apps.UPDATE:
                return await self._ask(
                    "PUT", a, a.subresource, query=_query(a.options(), _WRITE_QUERY), body=a.body
                )
            case apps.UPDATE_STATUS:
                return await self._ask(
                    "PUT", a, "status", query=_query(a.options(), _WRITE_QUERY), body=a.body
                )
            case apps.PATCH:
                return await self._patch(a)
            case apps.DELETE:
                return await self._ask("DELETE", a, a.subresource, body=a.option or None)
            case _:
                raise bad_request(f"verb {safe_label(a.verb, 40)} is not known")

    async def _pass_through(self, a: Application) -> bytes:
        if _PATH.fullmatch(a.key) is None or ".." in a.key or "//" in a.key:
            raise bad_request("not a path of the API")
        return await self._api.request("GET", a.key, self._identity(a.node, None))

    async def _list(self, a: Application, target: ResourceKey) -> bytes:
        options = a.options()
        body = await self._ask(
            "GET", replace(a, key=str(replace(target, name=""))), query=_query(options, _LIST_QUERY)
        )
        found = for_edges_list(target.gvr, complete_list(body))
        if self._groups is None or not self._groups.filters(target.gvr):
            return found
        await self._groups.prepare(target.gvr)
        shown = msgspec.json.decode(found)
        shown["items"] = [self._groups.shown_item(a.node, target.gvr, item) for item in shown["items"]]
        return msgspec.json.encode(shown)

    async def _near(self, node: str, gvr: GVR, raw: bytes) -> bytes:
        """An object as `node` sees it."""
        if self._groups is None:
            return raw
        await self._groups.prepare(gvr)
        return self._groups.shown(node, gvr, raw)

    async def _patch(self, a: Application) -> bytes:
        info = PatchInfo.parse(a.option)
        target = a.target
        if info.name and info.name != target.name:
            raise bad_request("the patch names another object than its key")
        return await self._ask(
            "PATCH",
            a,
            "/".join(info.subresources) or a.subresource,
            query=_query(info.options, _WRITE_QUERY),
            body=info.data,
            content_type=info.content_type,
        )

    async def _ask(
        self,
        method: str,
        a: Application,
        subresource: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        target = a.target
        name = "" if method == "POST" and not subresource else target.name
        if subresource and not all(is_dns_subdomain(p) for p in subresource.split("/")):
            raise bad_request("not a subresource")
        if not name and method not in ("GET", "POST"):
            raise bad_request("the request names no object")
        namespace = target.namespace or None
        path = self._path(target.gvr, namespace, name, subresource)
        return await self._api.request(
            method, path, self._identity(a.node, namespace), query=query, body=body, content_type=content_type
        )

    def _identity(self, node: str, namespace: str | None) -> WriteOptions:
        return self._impersonation.options(node, namespace)


class WatchReview:
    """Asks the API server whether a node may watch something."""

    def __init__(self, *, api: RequestApi) -> None:
        self._api = api

    async def require(self, application: Application) -> None:
        """Do nothing when it may; raises `ApiStatus` when not."""
        target = checked(application.target)
        gvr = target.gvr
        access = Access("watch", gvr.group, gvr.resource, "", target.namespace, target.name)
        body = review_of(application.node, access, gvr.version)
        refusal = refusal_of(await self._api.request("POST", _REVIEWS, body=body))
        if refusal is not None:
            user = NODE_USER_PREFIX + application.node
            raise forbidden(f'{gvr} is forbidden: User "{user}" cannot watch resource "{gvr}": {refusal}')


def checked(target: ResourceKey) -> ResourceKey:
    """Check that a key names something of Kubernetes, as its parts go into a URL.

    Raises:
        ApiStatus: 400.
    """
    gvr = target.gvr
    plain = [gvr.version, gvr.resource, *filter(None, (gvr.group, target.namespace))]
    if not all(is_dns_subdomain(part) for part in plain) or target.name in (".", "..") or "/" in target.name:
        raise bad_request("the key does not name anything of the Kubernetes API")
    return target


def complete_list(body: bytes) -> bytes:
    """A list whose items have kind and apiVersion, which the API server leaves out of the built-in ones.

    Raises:
        ApiStatus: 500, the body is not a list.
    """
    try:
        head = msgspec.json.decode(body, type=_ListHead)
        items = decode_page(body).items
    except MALFORMED as exc:
        raise ApiStatus(500, "InternalError", "the API server did not answer with a list") from exc
    text = msgspec.json.encode({"kind": head.kind, "apiVersion": head.api_version, "metadata": head.metadata})
    return b"".join((text[:-1], b',"items":[', b",".join(items), b"]}"))


class _ListHead(msgspec.Struct, rename="camel"):
    kind: str = "List"
    api_version: str = "v1"
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


def _query(options: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        value = options.get(name)
        if isinstance(value, list):
            value = value[0] if value else None  # dryRun
        if isinstance(value, bool):
            value = "true" if value else None
        if isinstance(value, str | int) and value:
            found[name] = str(value)
    return found


def _refuse(message: Message, error: ApiStatus) -> bytes:
    try:
        return apps.encode_application(apps.decode_application(message.content).rejected(error))
    except ProtocolError:
        return apps.encode_application(Application("", "", "").rejected(error))
