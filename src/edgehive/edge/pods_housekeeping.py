"""Keeps the node in order: logs, images, and pods that have to go when memory, disk or pids run short."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from edgehive.edge.node_probe import Levels
from edgehive.edge.pods_build import log_directory_name
from edgehive.edge.pods_core import PodCore
from edgehive.edge.pods_events import PodEvents
from edgehive.edge.pods_eviction import (
    CRITICAL_PRIORITY,
    DISKS,
    MEMORY,
    PIDS,
    Candidate,
    EvictionWatch,
    Shortage,
    choose,
)
from edgehive.edge.pods_garbage import ImageGarbage, LogRotation, disk_usage, images_in_use
from edgehive.edge.pods_settings import PodSettings
from edgehive.edge.pods_spec import Pod, parse_quantity
from edgehive.edge.pods_static import is_static
from edgehive.edge.pods_storage import empty_directories, excess, limited_containers, limited_volumes
from edgehive.edge.podstatus import TERMINAL
from edgehive.edge.runtime import Runtime, RuntimeFailure, Usage
from edgehive.kit.errors import ProtocolError, StorageError, Transient
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)

_ALL = 1 << 62
_IMAGES_EVERY = 300.0
_AFTER_EVICTION = 30.0
"""Seconds an evicted pod gets to be gone before the next one is chosen."""

Evict = Callable[[Pod, str, int | None], None]
"""Ends a pod with a message; the seconds it gets, None for none at all."""


class Housekeeping:
    """Looks every few seconds; one thing at a time."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        settings: PodSettings,
        events: PodEvents,
        clock: Callable[[], float],
        levels: Callable[[], Levels],
        cores: Callable[[], Iterable[PodCore]],
        evict: Evict,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._events = events
        self._clock = clock
        self._levels = levels
        self._cores = cores
        self._evict = evict
        self._watch = EvictionWatch(settings.eviction)
        self._images = ImageGarbage(settings.images)
        self._logs = LogRotation(
            runtime=runtime, max_size=settings.log_max_size, max_files=settings.log_max_files
        )
        self._images_at = 0.0
        self._wait_for: tuple[str, float] = ("", 0.0)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(self._settings.housekeeping_seconds)
            try:
                await self.look()
            except (RuntimeFailure, Transient, StorageError, ProtocolError, OSError) as exc:
                log.warning("housekeeping: %s", safe_label(str(exc), 300))

    async def look(self) -> None:
        """Do what is due."""
        now = self._clock()
        cores = list(self._cores())
        await self._logs.rotate(info for core in cores for info in core.containers)
        if not 0 <= now - self._images_at < _IMAGES_EVERY:
            self._images_at = now
            levels = self._levels()
            need = self._images.to_free(*levels.image_bytes)
            freed = await self._remove_images(need, now)
            if freed < need:
                log.warning("%d bytes of images should go, but only %d could", need, freed)
        await self._look_at_limits(cores)
        if self._watch.watches:
            await self._look_for_shortage(cores, now)

    # --- images -----------------------------------------------------------------------------------------

    async def _remove_images(self, need: int, now: float) -> int:
        """Remove unused images until `need` bytes are free; return how many bytes that were."""
        # Every container counts, also those of other tools; and what a pod names is kept for its next start.
        containers = await self._runtime.list_containers()
        specs = (core.pod.spec for core in self._cores() if not core.finished)
        wanted = [one.image for spec in specs for one in spec.all_containers]
        images = await self._runtime.list_images()
        self._images.observe(images, images_in_use(containers, wanted), now)
        freed = 0
        for image in self._images.choose(images, need, now):
            try:
                await self._runtime.remove_image(image.id)
            except RuntimeFailure as exc:
                log.warning("image %s: %s", safe_label(image.id), safe_label(exc.message, 300))
                continue
            log.info("removed unused image %s", safe_label(", ".join(image.tags) or image.id, 200))
            freed += image.size
        return freed

    async def _usage(self) -> Mapping[str, Usage]:
        """What containers use; nothing when that is not known, since shortages have to be dealt with all the same."""
        try:
            return await self._runtime.usage()
        except (RuntimeFailure, Transient, ProtocolError) as exc:
            log.warning("what containers use is not known: %s", safe_label(str(exc), 300))
            return {}

    # --- limits -----------------------------------------------------------------------------------------

    async def _look_at_limits(self, cores: list[PodCore]) -> None:
        """Evict pods that have written more than they may."""
        own = [core for core in cores if _may_go(core) and not _is_spared(core.pod)]
        limited = [core for core in own if limited_volumes(core.pod) or limited_containers(core.pod)]
        if not limited:
            return
        layers: dict[str, int] = {}
        if any(limited_containers(core.pod) for core in limited):
            layers = {identity: usage.disk for identity, usage in (await self._usage()).items()}
        for core in limited:
            text = excess(core.pod, *await asyncio.to_thread(self._written, core, layers))
            if text:
                self._events.emit(core.pod, "Evicted", text, warning=True)
                self._evict(core.pod, text, None)

    def _written(self, core: PodCore, layers: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
        pod = core.pod
        volumes = self._settings.root_directory / "pods" / pod.uid / "volumes" / "kubernetes.io~empty-dir"
        logs = self._settings.log_directory / log_directory_name(pod)
        containers: dict[str, int] = {}
        for info in core.containers:
            containers[info.name] = containers.get(info.name, 0) + layers.get(info.id, 0)
        for name in containers:
            containers[name] += disk_usage(logs / name)
        return {name: disk_usage(volumes / name) for name in empty_directories(pod)}, containers

    # --- shortages --------------------------------------------------------------------------------------

    def _signals(self) -> dict[str, tuple[int, int]]:
        levels = self._levels()
        return {
            MEMORY: levels.memory,
            "nodefs.available": levels.node_bytes,
            "nodefs.inodesFree": levels.node_inodes,
            "imagefs.available": levels.image_bytes,
            "imagefs.inodesFree": levels.image_inodes,
            PIDS: levels.pids,
        }

    async def _look_for_shortage(self, cores: list[PodCore], now: float) -> None:
        shortage = self._watch.shortage(self._signals(), now)
        if shortage is None:
            return
        uid, since = self._wait_for
        going = any(core.pod.uid == uid and core.runs_anything() for core in cores)
        if going and 0 <= now - since < _AFTER_EVICTION:
            return
        if shortage.signal in DISKS and await self._remove_images(_ALL, now):
            shortage = self._watch.shortage(self._signals(), now)
            if shortage is None:
                return
        log.warning("%s: %d left, threshold %s", shortage.signal, shortage.available, shortage.threshold)
        candidates = await self._candidates(cores, shortage)
        chosen = choose(shortage, candidates)
        if chosen is None:
            log.warning("%s is short, but there is no pod that may be evicted", shortage.resource)
            return
        core = next(core for core in cores if core.pod.uid == chosen.uid)
        text = (
            f"The node was low on resource: {shortage.resource}. "
            f"Threshold quantity: {shortage.threshold}, available: {_kib(shortage)}. "
        )
        self._wait_for = (chosen.uid, now)
        self._events.emit(core.pod, "Evicted", text, warning=True)
        self._evict(core.pod, text, shortage.grace)

    async def _candidates(self, cores: list[PodCore], shortage: Shortage) -> list[Candidate]:
        usage = await self._usage()
        found = []
        for core in cores:
            if not _may_go(core):
                continue
            pod = core.pod
            parts = [usage.get(info.id, Usage()) for info in core.containers]
            disk = sum(part.disk for part in parts)
            if shortage.signal in DISKS:
                disk += await asyncio.to_thread(self._own_files, pod)
            found.append(
                Candidate(
                    pod.uid,
                    pod.spec.priority,
                    _is_spared(pod),
                    sum(part.memory for part in parts),
                    _requested(pod, "memory"),
                    disk,
                    _requested(pod, "ephemeral-storage"),
                    sum(part.processes for part in parts),
                )
            )
        return found

    def _own_files(self, pod: Pod) -> int:
        volumes: Path = self._settings.root_directory / "pods" / pod.uid
        return disk_usage(volumes) + disk_usage(self._settings.log_directory / log_directory_name(pod))


def _may_go(core: PodCore) -> bool:
    return not core.stopping and core.pod.status.get("phase") not in TERMINAL


def _is_spared(pod: Pod) -> bool:
    return is_static(pod) or pod.spec.priority >= CRITICAL_PRIORITY


def _requested(pod: Pod, resource: str) -> int:
    amounts = (one.resources.limits | one.resources.requests for one in pod.spec.containers)
    return int(sum(parse_quantity(one.get(resource, 0)) for one in amounts))


def _kib(shortage: Shortage) -> str:
    if shortage.resource in ("memory", "ephemeral-storage"):
        return f"{shortage.available // 1024}Ki"
    return str(shortage.available)
