"""The stream server: a kubelet's API for all nodes, which passes every request through the node's tunnel.

An edge of ours is asked for everything as a raw HTTP exchange, so that its own status and headers reach the client;
an original edge for logs and metrics in KubeEdge's way, which always is a 200. Port forwarding, which the original
does not know, travels as an exec does, so that its edges can carry it too.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from edgehive.aio.fewlines import FewLines, host_of
from edgehive.aio.http import RawConnection, Request, Response
from edgehive.aio.rawhttp import Answer, SocketStream, splice
from edgehive.aio.tunnel import ByteStream
from edgehive.cloud.stream_access import StreamAccess, Verdict
from edgehive.cloud.stream_first import FirstAnswer, Silent
from edgehive.cloud.stream_ports import is_address
from edgehive.cloud.stream_siblings import Session
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.text import safe_label
from edgehive.wire.tunnel import ConnectRequest, Kind

log = logging.getLogger(__name__)

_TEXT: Final = {"content-type": "text/plain; charset=utf-8"}
_POD_PATHS: Final = {
    "containerLogs": Kind.LOGS,
    "exec": Kind.EXEC,
    "attach": Kind.ATTACH,
    "portForward": Kind.EXEC,
}
_NODE_PATHS: Final = frozenset(
    {"stats", "metrics", "pods", "runningpods", "healthz", "configz", "logs", "spec", "checkpoint"}
)
_MASTERS: Final = frozenset({"system:masters", "kubeadm:cluster-admins"})
_KUBELET_PORTS: Final = frozenset({10250, *range(10350, 10450)})
"""Those of a kubelet, of an edgecore, and those that KubeEdge has stand for a cloudcore."""
_NAMES: Final = frozenset({"kube-apiserver-kubelet-client", "kube-apiserver"})


class StreamServer:
    """Answers the API server, and whom `access` lets see statistics. `node_of` says where a pod is."""

    def __init__(
        self,
        *,
        find: Callable[[str], Awaitable[Session | None]],
        new_id: Callable[[], int],
        node_of: Callable[[str, str], str | None],
        enter: Callable[[str], Awaitable[SocketStream]],
        elsewhere: Callable[[str], str] = lambda host: "",
        access: StreamAccess | None = None,
        first: FirstAnswer | None = None,
    ) -> None:
        """Wire up; `find` gives a node's tunnel by name or address, `new_id` an id for a connection in it.

        `enter` connects to the stream server of the instance at an address, "" for this one: that is every node's
        kubelet. `elsewhere` gives the address of the instance that has a node's tunnel, "" if it is not known; `first`
        says how long an answer may take.
        """
        self._elsewhere = elsewhere
        self._first = first or FirstAnswer(find=find, new_id=new_id)
        self._enter = enter
        self._find = find
        self._new_id = new_id
        self._node_of = node_of
        self._access = access
        self._lines = FewLines(log)

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        if request.method == "CONNECT":
            if not _is_api_server(request):
                self._say_refused(request, "CONNECT")
                return _error(403, "only the API server may ask")
            return await self._connect(request.raw_path)
        parts = request.path.strip("/").split("/")
        kind, node = self._target(request, parts)
        status, text = await self._judge(request, parts, node)
        if status != 200:
            self._say_refused(request, text)
            return _error(status, text)
        if kind is None:
            return _error(404, "404 page not found")
        session = await self._find(node)
        if session is None:
            return _error(503, f'node "{safe_label(node)}" has no tunnel to this cloudcore')
        try:
            return await self._pass_on(session, kind, request, node)
        except Silent as exc:
            log.warning("node %s: %s", safe_label(node), exc)
            return _error(504, f'node "{safe_label(node)}" {exc}')
        except (EdgehiveError, OSError) as exc:
            return _error(502, f'node "{safe_label(node)}": {safe_label(str(exc), 300)}')

    def _say_refused(self, request: Request, text: str) -> None:
        source = host_of(request.remote)
        self._lines.warning(
            "stream requests refused", source, "stream request from %s refused: %s", request.remote, text
        )

    async def _judge(self, request: Request, parts: list[str], node: str) -> Verdict:
        name = (request.peer_subject or ("", ()))[0]
        if _is_api_server(request):
            return 200, ""
        if self._access is None or name or "authorization" not in request.headers:
            return 403, f"only the API server may ask, not {safe_label(name or 'nobody')}"
        if {"", ".", ".."} & set(
            parts
        ):  # an original edge goes where such a path leads: to logs, by way of metrics
            return 403, "a path that a token opens names nothing above it"
        return await self._access.judge(request, parts[0], node)

    async def _connect(self, target: str) -> Response:
        """Be the proxy of an API server (its egress selector): edges are reached here, all others directly.

        An API server that sends what is meant for nodes through a proxy needs no route to them, and no name of theirs
        has to be resolved: whatever it takes for an edge's address ends at this server, or at the one of the instance
        that the node is connected to.
        """
        host, _, port = target.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isdigit() or int(port) > 65535:
            return _error(400, "CONNECT needs host:port")
        try:
            # Edges have addresses of networks of their own, which may be somebody else's here, too.
            meant = not is_address(host) or int(port) in _KUBELET_PORTS
            if meant and await self._find(host) is not None:
                other = await self._enter("")
            elif meant and (instance := self._elsewhere(host)):
                other = await self._enter(instance)
            else:
                other = await SocketStream.connect(host, int(port))
        except (EdgehiveError, OSError) as exc:
            return _error(502, safe_label(str(exc), 300))

        async def join(client: RawConnection) -> None:
            try:
                await splice(client, other)
            finally:
                other.close()

        return Response(200, upgrade=join)

    def _target(self, request: Request, parts: list[str]) -> tuple[Kind | None, str]:
        kind = _POD_PATHS.get(parts[0])
        if kind is not None and len(parts) >= 3:
            return kind, self._node_of(parts[1], parts[2]) or ""
        if parts[0] not in _NODE_PATHS:
            return None, ""
        forwarded = request.headers.get("x-forwarded-uri", "").split("/")
        if forwarded[:4] == ["", "api", "v1", "nodes"] and len(forwarded) > 6:
            return Kind.METRIC, forwarded[4].split(":")[0]
        host = request.headers.get("host", "")
        return Kind.METRIC, host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]

    async def _pass_on(self, session: Session, kind: Kind, request: Request, node: str) -> Response:
        plain = kind in (Kind.LOGS, Kind.METRIC)
        if not plain and "upgrade" not in request.headers:
            return _error(400, "Upgrade request required")
        headers: dict[str, list[str]] = {}
        for name, value in request.header_list:
            # A token is for us: the node must not get hold of it.
            if name not in ("host", "content-length", "authorization") and not (plain and name in _NOT_PLAIN):
                headers.setdefault(name.title(), []).append(value)
        raw = session.ours or not plain
        if raw and plain:
            headers["Connection"] = ["close"]
        stream = await session.ask(
            ConnectRequest(
                id=self._new_id(),
                kind=Kind.EXEC if raw and plain else kind,
                path=request.path,
                raw_path=request.raw_path if request.raw_path != request.path else "",
                query=request.raw_query,
                method=request.method,
                headers=headers,
            )
        )
        try:
            if not raw:
                # A log that is followed has no end, so only its first line may be waited for without end.
                patient = kind == Kind.LOGS and request.flag("follow")
                first = await self._first.wait(node, stream.read, patient=patient)
                return Response(200, headers=dict(_TEXT), stream=_body(stream, first), patient=True)
            answer = Answer(stream)
            if session.ours:
                await self._first.certain(answer.read_head)
            else:
                await self._first.wait(node, answer.read_head)
        except BaseException:
            stream.close()
            raise
        return answer.response()


_NOT_PLAIN: Final = frozenset({"connection", "upgrade", "transfer-encoding", "accept-encoding"})


async def _body(stream: ByteStream, first: bytes | None) -> AsyncIterator[bytes]:
    """The bytes of a stream of which `first` has been read; it is None when that is still to come."""
    data = first
    try:
        while data is None or data:
            if data:
                yield data
            data = await stream.read()
    finally:
        stream.close()


def _error(status: int, text: str) -> Response:
    return Response(status, f"{text}\n".encode(), dict(_TEXT))


def _is_api_server(request: Request) -> bool:
    name, groups = request.peer_subject or ("", ())
    return name in _NAMES or bool(_MASTERS & set(groups))
