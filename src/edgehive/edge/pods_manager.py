"""Edged's pod side: one worker a pod, kept in step with the local database and with the runtime.

Desired pods come from `MetaClient` (its database alone is enough, the cloud may be away); what runs comes from
relisting the runtime and from its events. Containers of pods that nobody desires are ended only once the database
was read, and, when it was empty, only once the cloud has been there for a while: a lost database must not stop a site.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from edgehive.aio.supervise import Service, supervise
from edgehive.edge.cgroups import NoCgroups, PodCgroups
from edgehive.edge.metaclient import Change, MetaClient, PodChange
from edgehive.edge.node_probe import Levels
from edgehive.edge.pods_actions import NODE_NAME, POD_GRACE, POD_NAME, POD_NAMESPACE, POD_UID
from edgehive.edge.pods_check import PodCheck
from edgehive.edge.pods_core import PodCore
from edgehive.edge.pods_events import PodEvents
from edgehive.edge.pods_files import PodFiles
from edgehive.edge.pods_held import HeldPods
from edgehive.edge.pods_housekeeping import Housekeeping
from edgehive.edge.pods_images import Images
from edgehive.edge.pods_objects import PodObjects, objects_of
from edgehive.edge.pods_settings import NodeFacts, PodSettings
from edgehive.edge.pods_spec import (
    MIRROR_ANNOTATION,
    JsonObject,
    Metadata,
    Pod,
    Spec,
    parse_pod,
)
from edgehive.edge.pods_static import FILE, SOURCE_ANNOTATION, Manifests, Mirrors, is_static
from edgehive.edge.pods_told import PodInbox, Told
from edgehive.edge.pods_worker import PodWorker, Tools
from edgehive.edge.podstatus import held_status
from edgehive.edge.podstatus_writer import StatusWriter
from edgehive.edge.runtime import ContainerInfo, Runtime, RuntimeFailure, RuntimeVersion, SandboxInfo
from edgehive.edge.volumes import VolumeManager
from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import EdgehiveError, ProtocolError, StorageError, Transient, Unreachable
from edgehive.kit.text import safe_label
from edgehive.wire.resource import VOLUME_ATTACHMENT

if TYPE_CHECKING:
    from edgehive.edge.plugins import NodePlugins

log = logging.getLogger(__name__)

_TRUST_EMPTY_AFTER = 60.0
_EVENTS_RELIST = 10.0


class PodManager:
    """Runs the pods of this node; `run` is the only thing to call, the rest is for watching."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        meta: MetaClient,
        node: NodeFacts,
        settings: PodSettings,
        clock: Callable[[], float] = time.time,
        levels: Callable[[], Levels] | None = None,
        cgroups: PodCgroups | None = None,
        plugins: "NodePlugins | None" = None,
    ) -> None:
        self._runtime = runtime
        self._meta = meta
        self._node = node
        self._settings = settings
        self._clock = clock
        objects = PodObjects(meta)
        events = PodEvents(report=meta.report_event, node=node.name, clock=clock)
        self._volumes = VolumeManager(
            objects=objects, root=settings.root_directory, clock=clock, node=node.name, plugins=plugins
        )
        self._plugins = plugins
        self._manifests = Manifests(settings.static_pod_path, node=node.name, clock=clock)
        self._mirrors = Mirrors(
            meta=meta, manifests=self._manifests, node=node.name, clock=clock, changed=self._on_mirror
        )
        self._writer = StatusWriter(meta=meta, on_answer=self._on_answer, target=self._reported_as)
        self._tools = Tools(
            runtime=runtime,
            volumes=self._volumes,
            files=PodFiles(settings.root_directory),
            objects=objects,
            images=Images(
                runtime=runtime,
                objects=objects,
                events=events,
                connected=lambda: meta.connected,
                parallel=settings.max_parallel_pulls,
            ),
            writer=self._writer,
            events=events,
            node=node,
            settings=settings,
            cgroups=cgroups or NoCgroups(),
            clock=clock,
            plugins=plugins,
        )
        self._housekeeping = levels and Housekeeping(
            runtime=runtime,
            settings=settings,
            events=events,
            clock=clock,
            levels=levels,
            cores=lambda: [worker.core for worker in self._workers.values()],
            evict=self._evict,
        )
        self._workers: dict[str, PodWorker] = {}
        self._held = HeldPods()
        self._check = PodCheck(
            meta=meta,
            writer=self._writer,
            workers=self._workers,
            held=self._held,
            mirrors=self._mirrors,
            parse=self._parse,
        )
        self._inbox = PodInbox()
        self._wake = asyncio.Event()
        self._relist_now = asyncio.Event()
        self._loaded_at: float | None = None
        self._was_empty = False  # when it was first read
        self._unreadable: set[str] = set()
        self._connected_since: float | None = None
        self._version: RuntimeVersion | None = None
        self._evented = False
        self._labels: dict[str, dict[str, str]] | None = None

    # --- for others -------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the runtime has answered and the database was read."""
        return self._version is not None and self._loaded_at is not None

    def pods(self) -> Iterator[tuple[Pod, JsonObject]]:
        """Yield every pod that is here with its present status."""
        for worker in self._workers.values():
            yield worker.core.pod, worker.core.status

    def containers(self) -> Iterator[tuple[Pod, ContainerInfo]]:
        """Yield every container that was last seen in the runtime."""
        for worker in self._workers.values():
            for info in worker.core.containers:
                yield worker.core.pod, info

    # --- running ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until cancelled; containers run on."""
        backoff, said = Backoff(0.5, 10.0), ""
        while self._version is None:
            try:
                self._version = await self._runtime.version()
            except (Transient, RuntimeFailure) as exc:
                problem = safe_label(str(exc), 300)
                if (
                    problem != said
                ):  # a runtime that is away for hours is one line; the node's status says it, too
                    log.warning("container runtime: %s; trying again", problem)
                said = problem
                await asyncio.sleep(backoff.next())
        log.info("container runtime %s %s", self._version.name, self._version.version)
        self._meta.subscribe_pods(self._on_pod)
        self._meta.subscribe_objects(self._on_object)
        self._meta.subscribe_connection(self._try_again)
        self._on_pod(PodChange(Change.SET))
        await supervise(
            Service("pods", self._dispatch),
            Service("pods and rows", self._look_again),
            Service("runtime relist", self._relist, backoff_max=10.0),
            Service("runtime events", self._watch_events, backoff_max=10.0),
            Service("pod status", self._writer.run),
            *self._other_services(),
        )

    def _other_services(self) -> list[Service]:
        services = []
        if self._settings.static_pod_path is not None:
            services.append(Service("static pods", self._watch_manifests))
            services.append(Service("mirror pods", self._mirrors.run))
        if self._plugins is not None:
            self._plugins.load()
            services.append(Service("plugins", self._plugins.run))
            services.append(Service("pods and plugins", self._follow_plugins))
        if self._housekeeping is not None:
            services.append(Service("housekeeping", self._housekeeping.run))
        if self._settings.cgroups is not None:
            services.append(Service("cgroups", self._balance_cgroups))
        return services

    async def _balance_cgroups(self) -> None:
        while True:
            await asyncio.sleep(self._settings.housekeeping_seconds)
            await self._tools.cgroups.balance(
                [w.core.pod for w in self._workers.values() if not w.core.stopping]
            )

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            self._check.due = True
            self._wake.set()

    async def _follow_plugins(self) -> None:
        assert self._plugins is not None
        changed = asyncio.Event()
        self._plugins.on_change(changed.set)
        while True:
            await changed.wait()
            changed.clear()
            self._try_again()
            await self._volumes.sweep()

    def _try_again(self) -> None:
        for worker in self._workers.values():
            worker.receive_plugins(self._clock())

    def _evict(self, pod: Pod, message: str, grace: int | None) -> None:
        if (worker := self._workers.get(pod.uid)) is not None:
            worker.receive_eviction(message, grace)

    def _on_pod(self, change: PodChange) -> None:
        self._inbox.put(change)
        self._wake.set()

    def _on_object(self, kind: str, namespace: str, name: str) -> None:
        key = (kind, name)
        if kind == VOLUME_ATTACHMENT:
            self._try_again()  # whoever waits for a volume
        for worker in self._workers.values():
            if worker.core.pod.metadata.namespace == namespace and key in objects_of(worker.core.pod):
                worker.receive_object(key, self._clock())

    def _on_answer(self, raw: bytes) -> None:
        """Take the pod that came back for a status: it may be marked for deletion meanwhile."""
        try:
            pod = parse_pod(raw)
        except ProtocolError:
            return
        worker = self._workers.get(pod.uid)
        if worker is not None and pod.deleting and not worker.core.pod.deleting:
            worker.receive_pod(pod)

    async def _dispatch(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._inbox.take_set():
                    self._apply_set(group)
                for told in self._inbox.take():
                    self._apply(group, told)
                if self._check.due and self._check.finds_pods():
                    self._apply_set(group)
                self._sync_static(group)
                for pod in self._held.take_running(self._labels or ()):
                    self._start(group, self._core(pod))
                for uid in self._orphans():
                    self._adopt_orphan(group, uid)

    def _apply_set(self, group: asyncio.TaskGroup) -> None:
        desired, self._unreadable, empty = self._check.desired()
        for pod in desired:
            self._want(group, pod)
        wanted = {pod.uid for pod in desired} | self._unreadable
        for uid, worker in self._workers.items():
            if uid not in wanted and not is_static(worker.core.pod):
                self._end(worker)
        self._let_go(self._held.drop(keep=wanted))
        if self._loaded_at is None:
            self._loaded_at = self._clock()
            self._was_empty = empty
            log.info("%d pods in the local database", len(wanted))
        self._relist_now.set()

    def _apply(self, group: asyncio.TaskGroup, told: Told) -> None:
        held = self._held
        if told.removed:
            self._unreadable.discard(told.uid)
        self._let_go(held.drop(uid=told.uid) if told.removed and told.uid else held.drop(key=told.key))
        for uid, worker in self._workers.items():
            if is_static(worker.core.pod):
                if worker.core.pod.key == told.key:
                    self._mirrors.wake()  # whatever happens to the picture, the pod stays
            elif told.ends(worker.core.pod.key, uid):
                self._end(worker)
        pod = self._parse(told.change.raw) if told.change.raw and not told.removed else None
        if pod is not None:
            self._want(group, pod)

    def _end(self, worker: PodWorker) -> None:
        worker.receive_removed()
        # A status of it that waits would take the place of one of the next pod of its name.
        self._writer.forget(worker.core.pod.uid)

    def _let_go(self, uids: Sequence[str]) -> None:
        for uid in uids:
            if uid not in self._workers:
                self._writer.forget(uid)

    def _parse(self, raw: bytes) -> Pod | None:
        try:
            pod = parse_pod(raw)
        except ProtocolError as exc:
            log.warning("a pod is ignored: %s", safe_label(str(exc), 300))
            return None
        if MIRROR_ANNOTATION in pod.metadata.annotations:
            self._mirrors.wake()
            return None  # the cluster's picture of a static pod, not a wish
        return pod if pod.spec.node_name in ("", self._node.name) else None

    def _want(self, group: asyncio.TaskGroup, pod: Pod) -> None:
        if (worker := self._workers.get(pod.uid)) is not None:
            worker.receive_pod(pod)
        elif self._held.hold(pod):
            self._writer.put(pod, held_status(pod, self._clock()))
        else:
            self._start(group, self._core(pod))

    def release_held(self, namespace: str = "", name: str = "") -> list[str]:
        """Start the held pod of that name, or all without one; return which (``namespace/name``)."""
        found = self._held.release(namespace, name)
        for pod in found:
            raw = self._meta.pod(pod.metadata.namespace, pod.metadata.name)
            self._on_pod(PodChange(Change.UPDATE, pod.metadata.namespace, pod.metadata.name, raw))
        return [pod.key for pod in found]

    def _core(self, pod: Pod, *, orphan: bool = False) -> PodCore:
        name = self._version.name if self._version else "unknown"
        return PodCore(pod, host_ip=self._node.ip, runtime_name=name, orphan=orphan)

    def _start(self, group: asyncio.TaskGroup, core: PodCore) -> None:
        worker = PodWorker(core, self._tools)
        self._held.drop(uid=core.pod.uid)
        self._workers[core.pod.uid] = worker
        group.create_task(self._run_worker(worker), name=f"pod {core.pod.key}")

    async def _run_worker(self, worker: PodWorker) -> None:
        backoff = Backoff(1.0, 10.0)
        pod = worker.core.pod
        while True:
            try:
                await worker.run()
                break
            except EdgehiveError as exc:
                log.warning("pod %s: %s", pod.key, safe_label(str(exc), 300))
            except Exception:
                log.exception("pod %s: unexpected; starting over", pod.key)
            worker.receive_runtime_change()
            await asyncio.sleep(backoff.next())
        del self._workers[pod.uid]
        self._held.forget(pod.uid)
        if self._labels is not None:
            self._labels.pop(pod.uid, None)
        self._writer.forget(pod.uid)
        self._meta.forget_tokens(pod.uid)
        self._wake.set()  # a static pod may have waited for it
        log.info("pod %s is gone", pod.key)
        if self._check.desires(pod):
            self._on_pod(PodChange(Change.SET))  # it was gone, and has come back meanwhile

    # --- static pods ------------------------------------------------------------------------------------

    async def _watch_manifests(self) -> None:
        while True:
            if self._manifests.read():
                self._wake.set()
                self._mirrors.wake()
            await asyncio.sleep(self._settings.static_check_seconds)

    def _sync_static(self, group: asyncio.TaskGroup) -> None:
        if self._settings.static_pod_path is None or self._labels is None:
            return
        if self._manifests.read():
            self._mirrors.wake()
        wanted = self._manifests.pods
        for uid, worker in self._workers.items():
            if uid not in wanted and is_static(worker.core.pod):
                worker.receive_removed()
        here = {worker.core.pod.key: uid for uid, worker in self._workers.items()}
        left = {
            f"{labels.get(POD_NAMESPACE)}/{labels.get(POD_NAME)}": uid
            for uid, labels in self._labels.items()
            if labels.get(NODE_NAME) == self._node.name
        }
        for uid, static in wanted.items():
            # What the file was before has to be gone first: it may hold the same ports and files.
            key = static.pod.key
            if uid not in self._workers and key not in here and left.get(key, uid) == uid:
                self._start(group, self._core(static.pod))

    def _reported_as(self, pod: Pod) -> Pod | None:
        return self._mirrors.mirror(pod) if is_static(pod) else pod

    def _on_mirror(self, uid: str) -> None:
        if (worker := self._workers.get(uid)) is not None:
            self._writer.renew(worker.core.pod, worker.core.status)

    # --- the runtime ------------------------------------------------------------------------------------

    async def _relist(self) -> None:
        while True:
            try:
                sandboxes = await self._runtime.list_sandboxes()
                containers = await self._runtime.list_containers()
            except (RuntimeFailure, StorageError, ProtocolError) as exc:
                raise Unreachable(f"the runtime cannot be listed: {exc}") from exc
            self._compare(sandboxes, containers)
            self._note_connection()
            self._relist_now.clear()
            every = max(self._settings.relist_seconds, _EVENTS_RELIST if self._evented else 0.0)
            try:
                async with asyncio.timeout(every):
                    await self._relist_now.wait()
            except TimeoutError:
                continue

    def _compare(self, sandboxes: Sequence[SandboxInfo], containers: Sequence[ContainerInfo]) -> None:
        found: dict[str, set[tuple[str, object]]] = {}
        labels: dict[str, dict[str, str]] = {}
        for sandbox in sandboxes:
            uid = sandbox.labels.get(POD_UID, "")
            found.setdefault(uid, set()).add((sandbox.id, sandbox.ready))
            labels[uid] = {**sandbox.annotations, **sandbox.labels}
        for info in containers:
            uid = info.labels.get(POD_UID, "")
            found.setdefault(uid, set()).add((info.id, info.state))
            labels.setdefault(uid, {**info.annotations, **info.labels})
        for uid, worker in self._workers.items():
            core = worker.core
            known: set[tuple[str, object]] = {(s.id, s.ready) for s in core.sandboxes}
            known |= {(c.id, c.state) for c in core.containers}
            if known != found.get(uid, set()):
                worker.receive_runtime_change()
        self._labels = labels
        self._wake.set()

    def _orphans(self) -> list[str]:
        """Find pods that have something here, but that nobody desires."""
        if self._loaded_at is None or self._labels is None:
            return []
        own = {u: of for u, of in self._labels.items() if u and of.get(NODE_NAME) == self._node.name}
        static = {u for u, of in own.items() if of.get(SOURCE_ANNOTATION) == FILE}
        wanted = set(self._manifests.pods)
        if not self._manifests.complete:
            wanted |= static
        found = {u for u in static if u not in wanted and u not in self._workers}
        if self._was_empty and not self._cloud_is_there():
            return [*found]  # the cloud brings the pods back one by one
        rest = (own.keys() | set(self._volumes.known()) | self._with_devices()) - static - wanted
        rest -= self._workers.keys() | self._held.uids() | self._unreadable
        return [*found, *rest]

    def _with_devices(self) -> set[str]:
        devices = self._plugins.devices if self._plugins is not None else None
        return devices.pods() if devices is not None else set()

    def _note_connection(self) -> None:
        if not self._meta.connected:
            self._connected_since = None
        elif self._connected_since is None:
            self._connected_since = self._clock()

    def _cloud_is_there(self) -> bool:
        since = self._connected_since
        return since is not None and self._clock() - since > _TRUST_EMPTY_AFTER

    def _adopt_orphan(self, group: asyncio.TaskGroup, uid: str) -> None:
        labels = (self._labels or {}).pop(uid, {})
        grace = labels.get(POD_GRACE, "")
        meta = Metadata(
            name=labels.get(POD_NAME, uid), namespace=labels.get(POD_NAMESPACE, "default"), uid=uid
        )
        spec = Spec(termination_grace_period_seconds=int(grace) if grace.isdigit() else 30)
        log.info("pod %s/%s is not desired any more; ending it", meta.namespace, safe_label(meta.name))
        self._start(group, self._core(Pod(metadata=meta, spec=spec), orphan=True))

    async def _watch_events(self) -> None:
        try:
            async for uid in self._runtime.events():
                self._evented = True
                if (worker := self._workers.get(uid)) is not None:
                    worker.receive_runtime_change()
                else:
                    self._relist_now.set()
        except (RuntimeFailure, ProtocolError) as exc:
            raise Unreachable(f"the runtime's events: {exc}") from exc
        finally:
            self._evented = False
        await asyncio.Event().wait()  # this runtime has no events
