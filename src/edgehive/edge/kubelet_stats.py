"""The statistics pages of the node: one reading serves all who ask within a moment."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from edgehive.edge.node_probe import NodeProbe
from edgehive.edge.pods_garbage import disk_usage
from edgehive.edge.pods_spec import Pod
from edgehive.edge.runtime import ContainerInfo, PodUsage, Runtime, State, Usage
from edgehive.edge.stats import (
    ContainerSample,
    FileSystem,
    NodeSample,
    PodSample,
    Rates,
    Sample,
    cadvisor_metrics,
    readings_of,
    resource_metrics,
    summary,
)
from edgehive.edge.stats_node import Machine

_FRESH = 1.0
"""Seconds for which a reading is given to everybody."""
_STALE = 90.0
"""After so long a rate since the last reading tells nothing of now: read, wait `_WINDOW`, read again."""
_WINDOW = 1.0
_OWN_VOLUMES = tuple(
    f"kubernetes.io~{kind}" for kind in ("empty-dir", "configmap", "secret", "projected", "downward-api")
)


class NodeStats:
    """Reads the runtime, /proc and file systems when asked, at most once a second.

    `containers` are those of this node's pods, as edged sees them. A container's usage that the runtime does not
    know (it has just ended) is left out.
    """

    def __init__(
        self,
        *,
        node: str,
        runtime: Runtime,
        containers: Callable[[], Iterable[tuple[Pod, ContainerInfo]]],
        probe: NodeProbe,
        root_directory: Path,
        wall: Callable[[], float],
        machine: Machine | None = None,
    ) -> None:
        self._node = node
        self._runtime = runtime
        self._containers = containers
        self._probe = probe
        self._root = root_directory
        self._wall = wall
        self._machine = machine or Machine()
        self._capacity = self._cores = 0
        self._rates = Rates()
        self._floor: dict[str, int] = {}
        self._sample: Sample | None = None
        self._lock = asyncio.Lock()

    async def summary(self, *, brief: bool = False) -> bytes:
        """``/stats/summary``; `brief` is its ``only_cpu_and_memory``."""
        async with self._lock:
            await self._read()
            if self._rates.get("") is None:  # the first one, or the first for long
                await asyncio.sleep(_WINDOW)
                await self._read(_WINDOW / 2)
            sample = self._sample
            assert sample is not None, "just read"
            if not brief:  # however many files pods have made: nothing else waits for that
                sample = await asyncio.to_thread(self._with_files, sample)
            return summary(sample, self._rates, brief=brief)

    async def resource_metrics(self) -> bytes:
        """``/metrics/resource``."""
        async with self._lock:
            return resource_metrics(await self._read())

    async def cadvisor_metrics(self) -> bytes:
        """``/metrics/cadvisor``."""
        async with self._lock:
            return cadvisor_metrics(await self._read())

    async def _read(self, fresh: float = _FRESH) -> Sample:
        now = self._wall()
        last = self._sample
        if last is not None and 0 <= now - last.node.at < fresh:
            return last
        if last is not None and not 0 <= now - last.node.at < _STALE:
            self._rates = Rates()
        usage = self._monotonic(await self._runtime.usage())
        shared = await self._runtime.pod_usage()
        self._sample = sample = Sample(self._read_node(now), self._read_pods(usage, shared, now))
        self._rates.observe(readings_of(sample))
        return sample

    def _monotonic(self, usage: Mapping[str, Usage]) -> dict[str, Usage]:
        """Processes that nobody waits for take their share with them; a counter must not go back for it."""
        found = {}
        for key, one in usage.items():
            floor = self._floor.get(key, 0)
            found[key] = one if one.cpu >= floor else msgspec.structs.replace(one, cpu=floor)
        self._floor = {key: one.cpu for key, one in found.items()}
        return found

    def _read_node(self, now: float) -> NodeSample:
        machine, levels = self._machine, self._probe.levels()
        if not self._capacity:
            found = self._probe.machine()
            self._capacity, self._cores = found.memory, found.cores
        cpu, booted_at = machine.cpu()
        used, working, resident, swap = machine.memory()
        faults, major = machine.page_faults()
        interfaces, default = machine.interfaces()
        max_pids, pids = machine.processes()
        return NodeSample(
            name=self._node,
            at=now,
            booted_at=booted_at,
            cpu=cpu,
            cores=self._cores,
            memory_capacity=self._capacity,
            memory_usage=used,
            working_set=working,
            resident=resident,
            page_faults=faults,
            major_page_faults=major,
            swap_usage=swap,
            file_system=FileSystem(*levels.node_bytes, *levels.node_inodes),
            image_file_system=FileSystem(*levels.image_bytes, *levels.image_inodes),
            max_pids=max_pids,
            pids=pids,
            interfaces=interfaces,
            default_interface=default,
        )

    def _read_pods(
        self, usage: Mapping[str, Usage], shared: Mapping[str, PodUsage], now: float
    ) -> list[PodSample]:
        pods: dict[str, Pod] = {}
        found: dict[str, list[ContainerSample]] = {}
        for pod, info in self._containers():
            one = usage.get(info.id)
            if info.state is not State.RUNNING or one is None:
                continue
            pods[pod.uid] = pod
            logs = _size(Path(info.log_path)) if info.log_path else 0
            found.setdefault(pod.uid, []).append(
                ContainerSample(info.id, info.name, info.image, info.started_at, one, logs)
            )
        return [
            PodSample(
                pod.metadata.namespace,
                pod.metadata.name,
                uid,
                min((c.started_at for c in found[uid]), default=now),
                found[uid],
                _own_network(shared.get(uid), pod),
            )
            for uid, pod in pods.items()
        ]

    def _with_files(self, sample: Sample) -> Sample:
        pods = []
        for pod in sample.pods:
            volumes = {}
            for plugin in _OWN_VOLUMES:
                for directory in (self._root / "pods" / pod.uid / "volumes" / plugin).glob("*"):
                    volumes[directory.name] = disk_usage(directory)
            pods.append(replace(pod, volumes=volumes))
        return Sample(sample.node, pods)


def _own_network(usage: PodUsage | None, pod: Pod) -> PodUsage | None:
    return (
        msgspec.structs.replace(usage, interfaces=())
        if usage is not None and pod.spec.host_network
        else usage
    )


def _size(log: Path) -> int:
    total = 0
    for path in log.parent.glob(f"{log.name}*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total
