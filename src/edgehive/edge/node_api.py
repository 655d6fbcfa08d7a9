"""The read-only HTTP of the node on 127.0.0.1:10350: is it alive, what runs here, how is it doing.

It has no authentication, as in KubeEdge, so it only ever shows, except to this machine, where the tunnel ends; it
listens where the configuration says, which is loopback unless somebody decided otherwise.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from edgehive.aio.http import HttpServer, Request, Response
from edgehive.edge.kubelet_api import KubeletApi
from edgehive.kit.errors import Transient

_TEXT = {"content-type": "text/plain; charset=utf-8"}
_JSON = {"content-type": "application/json"}
_METRICS = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
_HEALTHZ = frozenset({"/healthz", "/healthz/ping", "/healthz/log", "/healthz/syncloop"})
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Pods(Protocol):
    """What the pages need of the metadata manager."""

    def pods(self) -> list[bytes]: ...


class LocalHttp:
    """The server. `gauges` are read for every ``/metrics``: name to value."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        pods: Pods,
        gauges: Mapping[str, Callable[[], float]],
        kubelet: KubeletApi | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._pods = pods
        self._gauges = gauges
        self._kubelet = kubelet
        self._started = time.time()
        self.port = port

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            Transient: the address cannot be had now.
        """
        server = HttpServer(self._handle, name="edged", idle_timeout=30.0, max_connections=512)
        try:
            self.port = await server.listen(self._host, self._port)
        except OSError as exc:
            raise Transient(f"cannot listen on {self._host}:{self._port}: {exc.strerror}") from exc
        await server.run()

    async def _handle(self, request: Request) -> Response:
        if self._kubelet is not None:
            found = await self._kubelet.answer(request)
            if found is not None:
                return found
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"Method Not Allowed\n", {**_TEXT, "allow": "GET"})
        path = request.path if request.path == "/" else request.path.rstrip("/")
        if path in _HEALTHZ:
            return Response(200, b"ok", dict(_TEXT))
        if path in ("/pods", "/runningpods"):
            return Response(200, self._pod_list(), dict(_JSON))
        if path == "/metrics":
            return Response(200, self._metrics(), dict(_METRICS))
        return Response(404, b"404 page not found\n", dict(_TEXT))

    def _pod_list(self) -> bytes:
        items = [msgspec.Raw(raw) for raw in self._pods.pods()]
        return msgspec.json.encode({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    def _metrics(self) -> bytes:
        lines: list[str] = []
        values = {
            "process_resident_memory_bytes": float(_resident()),
            "process_start_time_seconds": self._started,
            "process_cpu_seconds_total": time.process_time(),
            **{name: read() for name, read in self._gauges.items()},
        }
        for name, value in values.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines.append(f"# TYPE {name} {kind}\n{name} {_number(value)}\n")
        return "".join(lines).encode()


def _number(value: float) -> str:
    """All of its digits: ``%g`` keeps six, with which large counters stand still."""
    return str(int(value)) if value.is_integer() else repr(value)


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
