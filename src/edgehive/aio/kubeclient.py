"""A client of any Kubernetes API server, over HTTPS.

Speaks `kube.api.KubeApi`. Objects pass through as bytes; only lists and watch lines are cut into objects.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec
from multidict import CIMultiDict
from yarl import URL

from edgehive.aio.httpclient import HttpAnswer, HttpPool
from edgehive.aio.kubeauth import Credentials, client_tls, with_pair
from edgehive.aio.kubelines import LineSplitter, TokenBucket, decode_page, decode_watch_line
from edgehive.aio.oserrors import reason_of
from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import ProtocolError, Unreachable
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label
from edgehive.kube.api import ANYWHERE, APPLY_PATCH, CLUSTER, ListOptions, ListPage, WatchEvent, WriteOptions
from edgehive.kube.kubeconfig import KubeConfig
from edgehive.kube.reflector import retry_after
from edgehive.kube.refs import GVR
from edgehive.kube.status import ApiStatus

_TRIES = 4  # of a request that may be repeated
_LONGEST_WAIT = 20.0  # a longer Retry-After is the caller's to wait out
_WATCH_GRACE = 30.0  # a watch that says nothing so long after its timeout has lost its server
_PARALLEL = 64  # requests in flight, watches not counted
_ERROR_BODY = 1 << 20


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    path: str
    query: Mapping[str, str]
    limits: aiohttp.ClientTimeout
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | None = None


class KubeClient:
    """Talks to `config.server`; `close` it, or use it as a context manager."""

    def __init__(
        self,
        config: KubeConfig,
        *,
        user_agent: str = "edgehive",
        timeout: float = 30.0,
        qps: float = 100.0,
        burst: int = 200,
    ) -> None:
        self._config = config
        self._credentials = Credentials(config)
        self._agent = user_agent
        self._base = urlsplit(config.server.rstrip("/"))
        self._timeout = timeout
        self._bucket = TokenBucket(rate=qps, burst=burst)
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._session: aiohttp.ClientSession | None = None
        self._pool: HttpPool | None = None
        self._tls: ssl.SSLContext | None = client_tls(config)
        self._pair: tuple[bytes, bytes] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, gvr: GVR, name: str, options: WriteOptions = CLUSTER) -> bytes:
        """Return one object."""
        return await self.request(
            "GET", object_path(gvr, options.namespace, name, options.subresource), options
        )

    async def list(self, gvr: GVR, options: ListOptions = ANYWHERE) -> ListPage:
        """Return one page of objects."""
        path = object_path(gvr, options.namespace)
        body = await self.request("GET", path, query=list_query(options))
        return decode_page(body)

    async def watch(
        self, gvr: GVR, options: ListOptions, timeout: float = 300.0
    ) -> AsyncIterator[WatchEvent]:
        """Yield events after ``options.resource_version`` (see `kube.api.KubeApi.watch`)."""
        query = list_query(options) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, int(timeout))),
        }
        limits = aiohttp.ClientTimeout(
            total=None, sock_connect=self._timeout, sock_read=timeout + _WATCH_GRACE
        )
        splitter = LineSplitter()
        path = object_path(gvr, options.namespace)
        try:
            response = await self._open(_Call("GET", path, query, limits))
            async with response:
                if response.status != 200:
                    raise self._failure(await self._whole(response))
                async for chunk in response.content.iter_any():
                    for line in splitter.feed(chunk):
                        yield decode_watch_line(line)
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError):
            return  # the server went away in mid-stream: the caller resumes from the last version
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise self._unreachable(exc) from exc

    async def create(self, gvr: GVR, body: bytes, options: WriteOptions = CLUSTER, name: str = "") -> bytes:
        """Create an object, or a subresource of the object `name`."""
        path = object_path(gvr, options.namespace, name, options.subresource)
        return await self.request("POST", path, options, body=body)

    async def update(self, gvr: GVR, name: str, body: bytes, options: WriteOptions = CLUSTER) -> bytes:
        """Replace."""
        path = object_path(gvr, options.namespace, name, options.subresource)
        return await self.request("PUT", path, options, body=body)

    async def patch(
        self, gvr: GVR, name: str, body: bytes, content_type: str, options: WriteOptions = CLUSTER
    ) -> bytes:
        """Patch."""
        path = object_path(gvr, options.namespace, name, options.subresource)
        extra = {"force": "true"} if options.force and content_type == APPLY_PATCH else {}
        return await self.request("PATCH", path, options, query=extra, body=body, content_type=content_type)

    async def delete(
        self, gvr: GVR, name: str, options: WriteOptions = CLUSTER, body: bytes | None = None
    ) -> bytes:
        """Delete."""
        path = object_path(gvr, options.namespace, name, options.subresource)
        return await self.request("DELETE", path, options, body=body)

    async def raw(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """GET any path, e.g. ``/version`` or ``/apis``."""
        return await self.request("GET", path, query=query)

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
        """Do any request in the name that `options` gives; what is safe to repeat is repeated a few times.

        `path` must be percent-encoded.
        """
        query = dict(query or {})
        if options.field_manager and method not in ("GET", "DELETE"):
            query["fieldManager"] = options.field_manager
        headers = impersonation(self._config, options)
        if body is not None:
            headers.append(("Content-Type", content_type))
        limits = aiohttp.ClientTimeout(total=self._timeout, sock_connect=min(10.0, self._timeout))
        call = _Call(method, path, query, limits, headers, body)
        backoff = Backoff(0.2, 5.0)
        for attempt in range(1, _TRIES + 1):
            try:
                async with self._slots:
                    answer = await self._send(call)
                if answer.status < 300:
                    return answer.body
                failure: ApiStatus | Unreachable = self._failure(answer)
            except (aiohttp.ClientError, OSError, TimeoutError, ProtocolError) as exc:
                failure = self._unreachable(exc)
            wait = _repeat_after(method, failure, backoff.next())
            if wait is None or attempt == _TRIES:
                raise failure
            await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def _send(self, call: "_Call") -> HttpAnswer:
        """Send with our credentials, once more with fresh ones after a 401."""
        answer = await self._exchange(call)
        if answer.status == 401 and self._credentials.rejected():
            answer = await self._exchange(call)
        return answer

    async def _exchange(self, call: "_Call") -> HttpAnswer:
        if call.method != "GET" and not self._config.proxy_url:
            return await self._write(call)
        async with await self._send_once(call) as response:
            return await self._whole(response)

    async def _open(self, call: "_Call") -> aiohttp.ClientResponse:
        """Begin a watch with our credentials, once more with fresh ones after a 401."""
        response = await self._send_once(call)
        if response.status == 401 and self._credentials.rejected():
            response.release()
            response = await self._send_once(call)
        return response

    @staticmethod
    async def _whole(response: aiohttp.ClientResponse) -> HttpAnswer:
        good = response.status < 300
        body = await (response.read() if good else response.content.read(_ERROR_BODY))
        headers = {name.lower(): value for name, value in response.headers.items()}
        return HttpAnswer(response.status, response.reason or "", headers, body)

    async def _write(self, call: "_Call") -> HttpAnswer:
        """A request that changes something: short, frequent, and not compressed."""
        loop = asyncio.get_running_loop()
        pause = self._bucket.take(loop.time())
        if pause > 0:
            await asyncio.sleep(pause)
        authorization = await self._credentials.authorization(loop.time(), time.time())
        await self._ready_session()
        pool = self._ready_pool()
        target = self._base.path + call.path + ("?" + urlencode(call.query) if call.query else "")
        body = call.body or b""
        lines = [
            f"{call.method} {target} HTTP/1.1",
            f"Host: {self._base.netloc.rpartition('@')[2]}",
            f"User-Agent: {self._agent}",
            "Accept: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in call.headers),
        ]
        if authorization:
            lines.append(f"Authorization: {authorization}")
        if any("\n" in line or "\r" in line for line in lines):
            raise ProtocolError("a line break inside a header")
        head = "\r\n".join([*lines, "", ""])
        return await pool.request(head.encode("utf-8") + body, self._timeout)

    def _ready_pool(self) -> HttpPool:
        if self._pool is None:
            base = self._base
            secure = base.scheme == "https"
            self._pool = HttpPool(
                host=base.hostname or "",
                port=base.port or (443 if secure else 80),
                tls=(self._tls or ssl.create_default_context()) if secure else None,
                server_hostname=self._config.tls_server_name,
            )
        return self._pool

    async def _send_once(self, call: "_Call") -> aiohttp.ClientResponse:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._bucket.take(loop.time()))
        authorization = await self._credentials.authorization(loop.time(), time.time())
        session = await self._ready_session()
        url = self._config.server + call.path + ("?" + urlencode(call.query) if call.query else "")
        headers = CIMultiDict(call.headers)
        if authorization:
            headers["Authorization"] = authorization
        return await session.request(
            call.method,
            URL(url, encoded=True),
            headers=headers,
            data=call.body,
            timeout=call.limits,
            proxy=self._config.proxy_url or None,
            server_hostname=self._config.tls_server_name or None,
            allow_redirects=False,
        )

    async def _ready_session(self) -> aiohttp.ClientSession:
        pair = self._credentials.client_pair
        if self._session is not None and pair == self._pair:
            return self._session
        await self.close()
        if pair is not None:
            self._tls = client_tls(with_pair(self._config, pair))
        self._pair = pair
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls or True, limit=0, keepalive_timeout=30.0),
            headers={"User-Agent": self._agent, "Accept": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
            read_bufsize=1 << 18,
        )
        return self._session

    @staticmethod
    def _failure(answer: HttpAnswer) -> ApiStatus:
        body = answer.body[:_ERROR_BODY]
        try:
            status = msgspec.json.decode(body, type=dict[str, Any])
        except MALFORMED:
            text = safe_label(body.decode("utf-8", "replace").strip(), 300)
            status = {"message": f"{answer.status} {answer.reason}: {text}"}
        error = ApiStatus.from_dict(status, answer.status)
        error.code = answer.status
        seconds = answer.headers.get("retry-after", "")
        if seconds.isascii() and seconds.isdigit():
            error.details.setdefault("retryAfterSeconds", int(seconds))
        return error

    def _unreachable(self, exc: Exception) -> Unreachable:
        if isinstance(exc, aiohttp.ClientConnectorError) and not isinstance(exc.os_error, ssl.SSLError):
            why = reason_of(exc.os_error)
        else:
            why = str(exc) or ("no answer" if isinstance(exc, TimeoutError) else type(exc).__name__)
        server = safe_label(self._config.server)
        return Unreachable(f"the API server {server} cannot be reached: {safe_label(why, 200)}")


def object_path(gvr: GVR, namespace: str | None, name: str = "", subresource: str = "") -> str:
    """Return the URL path, every part percent-encoded."""
    parts = ["namespaces", namespace] if namespace else []
    parts += [gvr.resource, *([name] if name else []), *(subresource.split("/") if subresource else [])]
    return "/".join([gvr.prefix, *(quote(p, safe="") for p in parts)])


def list_query(options: ListOptions) -> dict[str, str]:
    """Return the query parameters of a list or watch."""
    values = {
        "labelSelector": options.label_selector,
        "fieldSelector": options.field_selector,
        "limit": str(options.limit) if options.limit else "",
        "continue": options.continue_token,
        "resourceVersion": options.resource_version,
    }
    return {k: v for k, v in values.items() if v}


def impersonation(config: KubeConfig, options: WriteOptions) -> list[tuple[str, str]]:
    """Return the impersonation headers."""
    user = options.as_user or config.as_user
    if not user:
        return []
    groups = options.as_groups if options.as_user else config.as_groups
    headers = [("Impersonate-User", user), *(("Impersonate-Group", g) for g in groups)]
    if not options.as_user:
        headers += [("Impersonate-Uid", config.as_uid)] if config.as_uid else []
        headers += [(f"Impersonate-Extra-{quote(k)}", v) for k, vs in config.as_extra for v in vs]
    return headers


def _repeat_after(method: str, failure: ApiStatus | Unreachable, delay: float) -> float | None:
    """Return how long to wait before asking again; None when the caller must decide.

    A refusal with 429 was not acted upon, so that any verb may be repeated; anything else only when it reads.
    """
    if isinstance(failure, Unreachable):
        return delay if method == "GET" else None
    if failure.code != 429 and not (method == "GET" and failure.retryable):
        return None
    wait = max(delay, retry_after(failure))
    return wait if wait <= _LONGEST_WAIT else None
