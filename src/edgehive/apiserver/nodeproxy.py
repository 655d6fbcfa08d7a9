"""Requests that a node answers: logs, exec, attach, port forwarding of pods, and the node's own pages.

They go to cloudcore's stream server, which reaches every node through its tunnel; its certificate must be of the CA
that cloudcore keeps in the Secret ``kubeedge/casecret``. kubectl's streaming protocols pass through unread.
"""

import base64
import contextlib
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from edgehive.aio.http import Request, Response
from edgehive.aio.rawhttp import Answer, SocketStream, ask
from edgehive.apiserver.codec import decode
from edgehive.apiserver.context import Call
from edgehive.kit.errors import EdgehiveError, Unreachable
from edgehive.kube.status import ApiStatus, bad_request

_LOG_FLAGS = ("follow", "previous", "timestamps", "insecureSkipTLSVerifyBackend")
_LOG_VALUES = ("sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream")
_UPGRADE_HEADERS = re.compile(r"connection|upgrade|sec-websocket-.*|x-stream-protocol-version|origin")
_PASSED = frozenset({"accept", "user-agent"})
_ERROR_LIMIT = 4096
_PAGE_LIMIT = 16 << 20
_SECRET = "casecret"  # noqa: S105 - a name


@dataclass(frozen=True, slots=True)
class NodeAccess:
    """Where the stream server is, and who we are to it."""

    host: str
    port: int
    cert: Path
    key: Path


class NodeProxy:
    """Passes requests on. `read` gives a stored object by resource, namespace and name; it raises `ApiStatus`."""

    def __init__(self, *, access: NodeAccess | None, read: Callable[[str, str, str], bytes]) -> None:
        self._access = access
        self._read = read
        self._tls: tuple[bytes, ssl.SSLContext] | None = None

    async def answer(self, request: Request, call: Call, rest: str) -> Response:
        """Answer a request for ``pods/{log,exec,attach,portforward}`` or ``nodes/proxy``; raises `ApiStatus`."""
        if call.subresource == "proxy":
            return await self._node_page(request, call, rest)
        pod = decode(self._read("pods", call.namespace, call.name))
        node = (pod.get("spec") or {}).get("nodeName")
        if not node:
            text = f"pod {call.name} does not have a host assigned"
            raise (
                bad_request(text)
                if call.subresource != "log"
                else bad_request(
                    f'container "{_container(request, pod, call.name)}" in pod "{call.name}" is waiting to start: '
                    "no host is assigned yet"
                )
            )
        path = f"{call.namespace}/{call.name}"
        match call.subresource:
            case "log":
                container = _container(request, pod, call.name)
                target = f"/containerLogs/{path}/{container}?{urlencode(_log_query(request))}"
                return await self._plain(request, target, f"/api/v1/namespaces/{path}/log")
            case "portforward":
                ports = urlencode([("ports", port) for port in request.query.get("ports", ())])
                return await self._upgrade(request, f"/portForward/{path}{'?' if ports else ''}{ports}")
            case kind:
                container = _container(request, pod, call.name)
                query = urlencode(_exec_query(request, kind))
                return await self._upgrade(request, f"/{kind}/{path}/{container}?{query}")

    async def _node_page(self, request: Request, call: Call, rest: str) -> Response:
        self._read("nodes", "", call.name.partition(":")[0])
        if request.method not in ("GET", "HEAD"):
            raise ApiStatus(405, "MethodNotAllowed", "only reading is passed on to nodes")
        target = f"/{quote(rest)}" + (f"?{request.raw_query}" if request.raw_query else "")
        forwarded = f"/api/v1/nodes/{call.name}/proxy/{rest}"
        return await self._plain(request, target, forwarded)

    async def page(self, node: str, target: str) -> bytes:
        """Read a page of a node, for ourselves; raises `ApiStatus` or `EdgehiveError`."""
        forwarded = f"/api/v1/nodes/{quote(node)}/proxy{target}"
        answer = await self._ask("GET", target, [("x-forwarded-uri", forwarded), ("connection", "close")])
        if answer.status >= 300:
            raise await _refusal(answer)
        body = bytearray()
        try:
            async for chunk in answer.body():
                body += chunk
                if len(body) > _PAGE_LIMIT:
                    raise ApiStatus(502, "InternalError", f"a page of node {node} has no end")
        except OSError as exc:
            raise Unreachable(f"a page of node {node}: {exc}") from exc
        return bytes(body)

    async def _plain(self, request: Request, target: str, forwarded: str) -> Response:
        headers = [(name, value) for name, value in request.header_list if name in _PASSED]
        headers += [("x-forwarded-uri", forwarded), ("connection", "close")]
        answer = await self._ask(request.method, target, headers)
        if answer.status >= 400:
            raise await _refusal(answer)
        return answer.response()

    async def _upgrade(self, request: Request, target: str) -> Response:
        if "upgrade" not in request.headers:
            raise bad_request("Upgrade request required")
        headers = [(name, value) for name, value in request.header_list if _UPGRADE_HEADERS.fullmatch(name)]
        answer = await self._ask(request.method, target, headers)
        if answer.status != 101:
            raise await _refusal(answer)
        return answer.response()

    async def _ask(self, method: str, target: str, headers: list[tuple[str, str]]) -> Answer:
        access = self._access
        if access is None:
            raise ApiStatus(
                503,
                "ServiceUnavailable",
                "this control plane was not told how to reach nodes (--stream-server)",
            )
        tls = self._context(access)
        host = f"[{access.host}]" if ":" in access.host else access.host
        try:
            stream = await SocketStream.connect(access.host, access.port, tls=tls)
            return await ask(stream, method, target, [("host", f"{host}:{access.port}"), *headers])
        except EdgehiveError as exc:
            text = f"cloudcore's stream server cannot be used: {exc}"
            raise ApiStatus(503, "ServiceUnavailable", text) from exc

    def _context(self, access: NodeAccess) -> ssl.SSLContext:
        try:
            secret = decode(self._read("secrets", "kubeedge", _SECRET))
            der = base64.b64decode(secret["data"]["cadata"])
        except (ApiStatus, KeyError, ValueError) as exc:
            raise ApiStatus(503, "ServiceUnavailable", "cloudcore has not made its certificates yet") from exc
        if self._tls is None or self._tls[0] != der:
            context = ssl.create_default_context(cadata=der)
            context.load_cert_chain(access.cert, access.key)
            self._tls = (der, context)
        return self._tls[1]


async def _refusal(answer: Answer) -> ApiStatus:
    text = b""
    with contextlib.suppress(OSError):  # an answer to HEAD speaks of a body that it has not
        async for chunk in answer.body():
            text += chunk
            if len(text) > _ERROR_LIMIT:
                break
    message = text[:_ERROR_LIMIT].decode("utf-8", "replace").strip() or f"the node answered {answer.status}"
    reasons = {
        400: "BadRequest",
        404: "NotFound",
        403: "Forbidden",
        503: "ServiceUnavailable",
        504: "Timeout",
    }
    return ApiStatus(answer.status, reasons.get(answer.status, "InternalError"), message)


def _container(request: Request, pod: Mapping[str, Any], name: str) -> str:
    spec = pod.get("spec") or {}
    names = [c["name"] for c in spec.get("containers") or ()]
    others = [c["name"] for key in ("initContainers", "ephemeralContainers") for c in spec.get(key) or ()]
    wanted = request.param("container")
    if wanted:
        if wanted not in names and wanted not in others:
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(names) == 1:
        return str(names[0])
    choice = f"choose one of: [{' '.join(names)}]"
    raise bad_request(f"a container name must be specified for pod {name}, {choice}")


def _log_query(request: Request) -> list[tuple[str, str]]:
    query = [(flag, "true") for flag in _LOG_FLAGS if request.flag(flag)]
    return query + [(name, value) for name in _LOG_VALUES if (value := request.param(name))]


def _exec_query(request: Request, kind: str) -> list[tuple[str, str]]:
    """The kubelet's names of the parameters of ``PodExecOptions``."""
    names = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
    query = [(short, "1") for name, short in names.items() if request.flag(name)]
    return query + [("command", word) for word in request.query.get("command", ()) if kind == "exec"]
