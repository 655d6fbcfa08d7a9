"""The part of a kubelet's HTTP API that streams: logs, exec, attach, port forwarding of the pods of this node.

It is reached from loopback, which is where the tunnel ends; everything with effects is refused to others.
"""

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edgehive.aio.http import Request, Response
from edgehive.edge.kubelet_logs import BadQuery, parse_query, read_log
from edgehive.edge.pods_actions import CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID
from edgehive.edge.runtime import ContainerInfo, Runtime, RuntimeFailure, SandboxInfo, State
from edgehive.kit.errors import EdgehiveError, Transient
from edgehive.kit.text import safe_label

_TEXT = {"content-type": "text/plain; charset=utf-8"}
_METRICS = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
_STATISTICS = frozenset(("/stats/summary", "/metrics/resource", "/metrics/cadvisor"))
_LOG_HEADERS = {"content-type": "text/plain"}


class Streams(Protocol):
    """What a runtime does for an interactive client; each answers a request, usually with an upgrade."""

    async def exec(self, request: Request, container: ContainerInfo) -> Response: ...
    async def attach(self, request: Request, container: ContainerInfo) -> Response: ...
    async def port_forward(self, request: Request, sandbox: SandboxInfo) -> Response: ...


class Stats(Protocol):
    """The usage of the node and its pods (`edge.kubelet_stats.NodeStats`)."""

    async def summary(self, *, brief: bool = False) -> bytes:
        """``/stats/summary``."""
        ...

    async def resource_metrics(self) -> bytes:
        """``/metrics/resource``."""
        ...

    async def cadvisor_metrics(self) -> bytes:
        """``/metrics/cadvisor``."""
        ...


class KubeletApi:
    """Answers what it knows, and None for other paths.

    `streams` and `stats` make what serves interactive clients and the statistics when they are first asked for.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        streams: Callable[[], Streams],
        wall: Callable[[], float],
        stats: Callable[[], Stats] | None = None,
    ) -> None:
        self._runtime = runtime
        self._make_streams = streams
        self._streams: Streams | None = None
        self._wall = wall
        self._make_stats = stats
        self._stats: Stats | None = None

    async def answer(self, request: Request) -> Response | None:
        """Answer one request."""
        parts = request.path.strip("/").split("/")
        handler = {
            "containerLogs": self._logs,
            "exec": self._exec,
            "attach": self._attach,
            "portForward": self._port_forward,
        }.get(parts[0])
        try:
            if handler is not None and len(parts) >= 3:
                if not _is_local(request.remote):
                    return _text(403, "only from this machine")
                return await handler(request, parts[1:])
            if parts[0] in ("stats", "metrics") and request.method == "GET":
                return await self._statistics(request)
        except _NotFound as exc:
            return _text(404, str(exc))
        except BadQuery as exc:
            return _text(400, str(exc))
        except (RuntimeFailure, EdgehiveError) as exc:
            return _text(500, str(exc))
        return None

    # streams

    def _interactive(self) -> Streams:
        if self._streams is None:
            self._streams = self._make_streams()
        return self._streams

    # statistics

    async def _statistics(self, request: Request) -> Response | None:
        path = request.path.rstrip("/")
        if path not in _STATISTICS or self._make_stats is None:
            return None
        if self._stats is None:
            self._stats = self._make_stats()
        if path == "/stats/summary":
            brief = request.param("only_cpu_and_memory") in ("true", "1")
            return Response(200, await self._stats.summary(brief=brief), {"content-type": "application/json"})
        if path == "/metrics/resource":
            return Response(200, await self._stats.resource_metrics(), dict(_METRICS))
        return Response(200, await self._stats.cadvisor_metrics(), dict(_METRICS))

    # logs

    async def _logs(self, request: Request, parts: list[str]) -> Response:
        if len(parts) != 3 or request.method != "GET":
            raise _NotFound("404 page not found")
        query = parse_query(request.query, self._wall())
        found = await self._containers(*parts)
        if query.previous:
            if len(found) < 2 and (not found or found[0].state is State.RUNNING):
                raise BadQuery(f'previous terminated container "{parts[2]}" in pod "{parts[1]}" not found')
            chosen = found[1] if len(found) > 1 else found[0]
        elif found and found[0].state is State.CREATED and len(found) > 1:
            chosen = found[1]
        elif found:
            chosen = found[0]
        else:
            raise BadQuery(f'container "{parts[2]}" in pod "{parts[1]}" is waiting to start')

        async def running() -> bool:
            try:
                return (await self._runtime.container_status(chosen.id)).state is State.RUNNING
            except RuntimeFailure:
                return False
            except Transient:
                return True  # the runtime is started again, and containers outlive it

        if chosen.log_path and not Path(chosen.log_path).exists() and not query.follow:
            raise BadQuery(f'the log of container "{parts[2]}" is gone')
        stream = read_log(Path(chosen.log_path), query, running=running)
        return Response(200, headers=dict(_LOG_HEADERS), stream=stream, patient=True)

    # interactive

    async def _exec(self, request: Request, parts: list[str]) -> Response:
        return await self._interactive().exec(request, await self._running(parts))

    async def _attach(self, request: Request, parts: list[str]) -> Response:
        return await self._interactive().attach(request, await self._running(parts))

    async def _port_forward(self, request: Request, parts: list[str]) -> Response:
        namespace, name = parts[0], parts[1]
        sandboxes = [
            s for s in await self._runtime.list_sandboxes()
            if s.labels.get(POD_NAMESPACE) == namespace and s.labels.get(POD_NAME) == name and s.ready
        ]  # fmt: skip
        if not sandboxes:
            raise _NotFound(f"pod {safe_label(name)} does not run on this node")
        return await self._interactive().port_forward(request, max(sandboxes, key=lambda s: s.created_at))

    async def _running(self, parts: list[str]) -> ContainerInfo:
        """The running container of ``NAMESPACE/POD[/UID]/CONTAINER``."""
        if len(parts) not in (3, 4):
            raise _NotFound("404 page not found")
        uid = parts[2] if len(parts) == 4 else ""
        found = await self._containers(parts[0], parts[1], parts[-1], uid)
        for info in found:
            if info.state is State.RUNNING:
                return info
        raise _NotFound(f'container "{safe_label(parts[-1])}" of pod "{safe_label(parts[1])}" does not run')

    async def _containers(
        self, namespace: str, pod: str, container: str, uid: str = ""
    ) -> list[ContainerInfo]:
        """The instances of one container, newest first."""
        found = [
            info
            for info in await self._runtime.list_containers()
            if info.labels.get(POD_NAMESPACE) == namespace
            and info.labels.get(POD_NAME) == pod
            and info.labels.get(CONTAINER_NAME) == container
            and uid in ("", info.labels.get(POD_UID))
        ]
        return sorted(found, key=lambda info: (info.created_at, info.attempt), reverse=True)


class _NotFound(Exception):
    """404 with this text."""


def _is_local(remote: str) -> bool:
    try:
        return ipaddress.ip_address(remote.rpartition(":")[0].strip("[]")).is_loopback
    except ValueError:
        return False


def _text(status: int, text: str) -> Response:
    return Response(status, f"{text}\n".encode(), dict(_TEXT))
