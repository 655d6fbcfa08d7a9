"""``metrics.k8s.io/v1beta1``: what ``kubectl top`` asks for, without a metrics server.

Nothing is stored and nobody is asked before somebody wants to know: an answer is computed from the nodes' own
``/stats/summary``, which is kept for some seconds. A node that does not answer in time is left out, as a metrics
server does with one it could not scrape.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

import msgspec

from edgehive.apiserver.codec import decode, encode
from edgehive.apiserver.context import LOCAL, Call, Selection, format_time
from edgehive.apiserver.reads import ObjectList
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.text import safe_label
from edgehive.kube.refs import GVR
from edgehive.kube.resources import Column, ResourceInfo
from edgehive.kube.status import ApiStatus, not_found

log = logging.getLogger(__name__)

GROUP = "metrics.k8s.io"
_VERSION = "v1beta1"
_PAGE = "/stats/summary?only_cpu_and_memory=true"

_FRESH = 5.0
"""Seconds for which a node's answer, or its silence, is believed."""
_AT_ONCE = 32
_LEAST_WINDOW, _MOST_WINDOW = 1, 90

_NAME = Column("Name", format="name", path=".metadata.name", description="Name of the object.")
_WINDOW = Column("Window", path=".window", description="Time over which the CPU usage was measured.")
RESOURCES = (
    ResourceInfo(
        gvr=GVR(GROUP, _VERSION, "nodes"),
        kind="NodeMetrics",
        namespaced=False,
        list_kind="NodeMetricsList",
        verbs=("get", "list"),
        columns=(
            _NAME,
            Column("CPU", path=".usage.cpu", description="Cores in use."),
            Column("Memory", path=".usage.memory", description="Working set."),
            _WINDOW,
        ),
    ),
    ResourceInfo(
        gvr=GVR(GROUP, _VERSION, "pods"),
        kind="PodMetrics",
        namespaced=True,
        list_kind="PodMetricsList",
        verbs=("get", "list"),
        columns=(
            _NAME,
            Column("CPU", path=".containers[*].usage.cpu", description="Cores in use, by container."),
            Column("Memory", path=".containers[*].usage.memory", description="Working set, by container."),
            _WINDOW,
        ),
    ),
)


class _Cpu(msgspec.Struct, rename="camel"):
    usage_nano_cores: int = 0


class _Memory(msgspec.Struct, rename="camel"):
    working_set_bytes: int = 0


class _Use(msgspec.Struct):
    cpu: _Cpu | None = None
    memory: _Memory | None = None
    name: str = ""

    def amounts(self) -> dict[str, str]:
        """As quantities; empty while the node knows no rate yet."""
        if self.cpu is None or self.memory is None:
            return {}
        return {
            "cpu": f"{max(self.cpu.usage_nano_cores, 0)}n",
            "memory": f"{max(self.memory.working_set_bytes, 0) // 1024}Ki",
        }


class _PodRef(msgspec.Struct):
    uid: str = ""


class _Pod(msgspec.Struct, rename={"ref": "podRef"}):
    ref: _PodRef = msgspec.field(default_factory=_PodRef)
    containers: list[_Use] = []


class _Summary(msgspec.Struct):
    node: _Use = msgspec.field(default_factory=_Use)
    pods: list[_Pod] = []


@dataclass(slots=True)
class _Known:
    """What a node said last."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked_at: float = float("-inf")
    told_at: float = float("-inf")
    when: datetime | None = None
    window: int = _LEAST_WINDOW
    summary: _Summary | None = None

    def pods(self) -> dict[str, _Pod]:
        return {pod.ref.uid: pod for pod in self.summary.pods} if self.summary is not None else {}


class Pages(Protocol):
    """How nodes are asked (`apiserver.nodeproxy.NodeProxy`)."""

    async def page(self, node: str, target: str) -> bytes: ...


class Reader(Protocol):
    """The registry's reading half."""

    def get(self, call: Call, resource_version: str = "") -> bytes: ...
    def list(self, call: Call, selection: Selection) -> ObjectList: ...


class NodeMetrics:
    """Answers for both resources. `nodes` and `pods` are the rows of the core kinds of those names.

    All nodes together get `patience` seconds for one answer.
    """

    def __init__(
        self,
        *,
        pages: Pages,
        reader: Reader,
        nodes: ResourceInfo,
        pods: ResourceInfo,
        now: Callable[[], datetime],
        patience: float = 10.0,
    ) -> None:
        self._patience = patience
        self._pages = pages
        self._reader = reader
        self._nodes = nodes
        self._pods = pods
        self._now = now
        self._known: dict[str, _Known] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def one(self, call: Call) -> bytes:
        """One object; raises `ApiStatus`: 404 for what is not there or was not measured."""
        if call.resource == "nodes":
            found = await self._of_nodes([self._reader.get(self._core(call))])
        else:
            found = await self._of_pods([self._reader.get(self._core(call))])
        if not found:
            raise not_found(call.resource, call.name, GROUP)
        return found[0]

    async def many(self, call: Call, selection: Selection) -> ObjectList:
        """Those of the nodes or pods that `selection` is of; raises `ApiStatus`."""
        chosen = self._reader.list(self._core(call), replace(selection, limit=0, continue_token=""))
        work = self._of_nodes if call.resource == "nodes" else self._of_pods
        return ObjectList(await work(chosen.items), chosen.resource_version)

    def _core(self, call: Call) -> Call:
        info = self._nodes if call.resource == "nodes" else self._pods
        return Call(info, LOCAL, call.namespace, call.name)

    # --- objects ----------------------------------------------------------------------------------------

    async def _of_nodes(self, raw: Sequence[bytes]) -> list[bytes]:
        objects = {str(node["metadata"]["name"]): node for node in map(decode, raw)}
        known = await self._ask(objects)
        return [
            self._object("NodeMetrics", node["metadata"], known[name], {"usage": usage})
            for name, node in objects.items()
            if (told := known[name].summary) is not None and (usage := told.node.amounts())
        ]

    async def _of_pods(self, raw: Sequence[bytes]) -> list[bytes]:
        pods = [pod for pod in map(decode, raw) if (pod.get("spec") or {}).get("nodeName")]
        known = await self._ask({pod["spec"]["nodeName"] for pod in pods})
        by_node = {name: one.pods() for name, one in known.items()}
        found = []
        for pod in pods:
            node = pod["spec"]["nodeName"]
            # By uid, and only what the pod's own node says of it.
            told = by_node[node].get(pod["metadata"].get("uid", ""))
            containers = [
                {"name": one.name, "usage": usage}
                for one in (told.containers if told is not None else ())
                if (usage := one.amounts())
            ]
            if containers:
                body = {"containers": containers}
                found.append(self._object("PodMetrics", pod["metadata"], known[node], body))
        return found

    def _object(self, kind: str, meta: dict[str, Any], known: _Known, body: dict[str, Any]) -> bytes:
        when = format_time(known.when or self._now())
        kept = {key: meta[key] for key in ("name", "namespace", "labels") if meta.get(key)}
        head = {"kind": kind, "apiVersion": f"{GROUP}/{_VERSION}"}
        times = {"timestamp": when, "window": f"{known.window}s"}
        return encode(head | {"metadata": kept | {"creationTimestamp": when}} | times | body)

    # --- asking -----------------------------------------------------------------------------------------

    async def _ask(self, names: Iterable[str]) -> dict[str, _Known]:
        """Ask those nodes that were not asked just now, all within the patience."""
        deadline = asyncio.get_running_loop().time() + self._patience
        found = {name: self._known.setdefault(name, _Known()) for name in names}
        async with asyncio.TaskGroup() as group:
            for name, known in found.items():
                group.create_task(self._refresh(name, known, deadline), name=f"metrics of {name}")
        self._forget_old()
        return found

    async def _refresh(self, name: str, known: _Known, deadline: float) -> None:
        clock = asyncio.get_running_loop().time
        told: _Summary | None = None
        try:
            async with asyncio.timeout_at(deadline), known.lock:
                if clock() - known.asked_at < _FRESH:
                    return
                async with self._room:
                    raw = await self._pages.page(name, _PAGE)
                told = msgspec.json.decode(raw, type=_Summary)
        except TimeoutError:
            log.info("node %s did not tell its usage in time", safe_label(name))
        except (ApiStatus, EdgehiveError, OSError) as exc:
            log.debug("node %s: no usage: %s", safe_label(name), safe_label(str(exc), 200))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
            log.warning("node %s: not a summary: %s", safe_label(name), safe_label(str(exc), 200))
        known.asked_at, known.summary = clock(), told
        if told is not None:
            gone = clock() - known.told_at
            known.window = int(gone) if _LEAST_WINDOW <= gone <= _MOST_WINDOW else _LEAST_WINDOW
            known.told_at, known.when = clock(), self._now()

    def _forget_old(self) -> None:
        now = asyncio.get_running_loop().time()
        for name in [n for n, one in self._known.items() if now - one.asked_at > _MOST_WINDOW]:
            del self._known[name]
