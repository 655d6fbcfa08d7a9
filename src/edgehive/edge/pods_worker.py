"""The worker of one pod: does what `PodCore` asks, tells it the outcome, reports status and events."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from edgehive.edge.cgroups import PodCgroups
from edgehive.edge.env import Key, PodFacts, build_env
from edgehive.edge.node_probe import apparmor_enabled
from edgehive.edge.pods_actions import (
    Action,
    AskDelete,
    CheckPod,
    EnsureImage,
    MountVolumes,
    Problem,
    RemoveContainer,
    RemoveSandbox,
    RunSandbox,
    StartContainer,
    StopContainer,
    StopSandbox,
    TeardownVolumes,
)
from edgehive.edge.pods_admission import check_apparmor, check_sysctls
from edgehive.edge.pods_build import container_spec, log_directory_name, sandbox_spec
from edgehive.edge.pods_core import PodCore
from edgehive.edge.pods_events import PodEvents
from edgehive.edge.pods_files import PodFiles
from edgehive.edge.pods_images import Images
from edgehive.edge.pods_objects import PodObjects
from edgehive.edge.pods_prober import PodProber
from edgehive.edge.pods_settings import NodeFacts, PodSettings
from edgehive.edge.pods_spec import Container, Pod
from edgehive.edge.podstatus_writer import StatusWriter
from edgehive.edge.probes import handler_of
from edgehive.edge.probes_net import HandlerFailed, run_handler
from edgehive.edge.programs import discard_tree
from edgehive.edge.runtime import PodRejected, Runtime, RuntimeFailure, State
from edgehive.edge.volumes import VolumeManager, referenced_objects
from edgehive.kit.errors import EdgehiveError, ProtocolError, StorageError, Transient
from edgehive.kit.text import safe_label

if TYPE_CHECKING:
    from edgehive.edge.device_plugins import DevicePlugins
    from edgehive.edge.plugins import NodePlugins

log = logging.getLogger(__name__)

_VOLUME_RETRY = 60.0
_BACKOFFS = frozenset(("CrashLoopBackOff", "ImagePullBackOff"))
_UNTOLD = frozenset(("CreateContainerFailed", "NotFound"))
"""What a runtime's refusal to make a container is called between it and here."""
_LEAST_GRACE = 2.0
_HOOK_TIMEOUT = 600.0
_INIT_POLL = 0.3  # init containers are short, and everything waits for them


@dataclass(frozen=True, slots=True)
class Tools:
    """What all workers share."""

    runtime: Runtime
    volumes: VolumeManager
    files: PodFiles
    objects: PodObjects
    images: Images
    writer: StatusWriter
    events: PodEvents
    node: NodeFacts
    settings: PodSettings
    cgroups: PodCgroups
    clock: Callable[[], float]
    plugins: "NodePlugins | None" = None


class PodWorker:
    """Runs one pod until nothing of it is left."""

    def __init__(self, core: PodCore, tools: Tools) -> None:
        self.core = core
        self._tools = tools
        self._wake = asyncio.Event()
        self._interrupt = asyncio.Event()
        self._observe = True
        self._refresh_at: float | None = None
        self._backed_off: set[tuple[str, Problem]] = set()
        self._prober = PodProber(
            runtime=tools.runtime,
            report=lambda reason, message, name: self._event(reason, message, container=name, warning=True),
            changed=self._wake.set,
            clock=tools.clock,
        )

    # --- called by the manager --------------------------------------------------------------------------

    def receive_pod(self, pod: Pod) -> None:
        """Take a new version of the pod."""
        was_stopping, grace = self.core.stopping, self.core.pod.grace
        old = self.core.pod.metadata
        self.core.receive_pod(pod)
        shown = (old.labels, old.annotations) != (pod.metadata.labels, pod.metadata.annotations)
        if shown and self.core.mounted:
            self._refresh_at = 0.0  # they may be in a volume
        if self.core.stopping and (not was_stopping or self.core.pod.grace < grace):
            self._interrupt.set()
        self._wake.set()

    def receive_removed(self) -> None:
        """The pod is not desired any more."""
        self.core.receive_removed()
        self._interrupt.set()
        self._wake.set()

    def receive_eviction(self, message: str, grace: int | None) -> None:
        """The pod has to go, and fails."""
        self.core.receive_eviction(Problem("Evicted", message), grace)
        self._interrupt.set()
        self._wake.set()

    def receive_runtime_change(self) -> None:
        """Look again at what the runtime has."""
        self._observe = True
        self._wake.set()

    def receive_plugins(self, now: float) -> None:
        """A plugin came or went, or the cloud is there again: retry what waits for it."""
        self.core.receive_changed_objects(now)
        self._wake.set()

    def receive_object(self, key: Key, now: float) -> None:
        """A configmap or secret has changed: refresh volumes, retry what waits for it."""
        pod = self.core.pod
        if key in referenced_objects(pod) and self.core.mounted:
            self._refresh_at = 0.0
        self.core.receive_changed_objects(now)
        self._wake.set()

    # --- the loop ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until the pod and all that was made for it are gone."""
        failure: EdgehiveError | None = None
        async with asyncio.TaskGroup() as group:
            try:
                await self._loop(group)
            except EdgehiveError as exc:
                failure = exc  # raised below, not inside a group
            finally:
                self._prober.stop()
        if failure is not None:
            raise failure

    async def _loop(self, probes: asyncio.TaskGroup) -> None:
        while True:
            self._wake.clear()
            self._interrupt.clear()
            if self._observe:
                await self._look()
            self._sync_probes(probes)
            self.core.receive_probes(self._prober.unready, self._prober.unstarted, self._prober.unhealthy)
            now = self._tools.clock()
            actions = self.core.next_actions(now)
            if self.core.finished:
                return
            if not self.core.gone:
                self._tools.writer.put(self.core.pod, self.core.status)
                self._tell_backoff()
            if actions:
                await self._perform_all(actions)
            elif not await self._refresh_volumes(now):
                await self._sleep(now)

    async def _look(self) -> None:
        uid = self.core.pod.uid
        self._observe = False
        try:
            sandboxes = await self._tools.runtime.list_sandboxes(uid)
            containers = await self._tools.runtime.list_containers(uid)
        except (RuntimeFailure, Transient, StorageError):
            self._observe = True
            raise
        containers = self._tools.files.with_messages(self.core.pod, containers)
        self.core.receive_observed(sandboxes, containers)

    def _sync_probes(self, group: asyncio.TaskGroup) -> None:
        core = self.core
        ip = core.sandbox.ip if core.sandbox else ""
        self._prober.sync(group, core.pod, () if core.stopping else core.containers, ip, core.status)

    async def _sleep(self, now: float) -> None:
        times = [t for t in (self.core.deadline(), self._refresh_at) if t is not None]
        times.append(now + self._tools.settings.resync_seconds)
        if self.core.initializing:
            times.append(now + _INIT_POLL)
        delay = max(0.0, min(times) - now)
        try:
            async with asyncio.timeout(delay):
                await self._wake.wait()
        except TimeoutError:
            self._observe = self._observe or self.core.initializing

    async def _refresh_volumes(self, now: float) -> bool:
        if self._refresh_at is None or now < self._refresh_at or self.core.stopping or not self.core.mounted:
            return False
        self._refresh_at = None
        try:
            self._refresh_at = await self._tools.volumes.mount(self.core.pod, self._facts())
        except RuntimeFailure as exc:
            self._event("FailedMount", exc.message, warning=True)
            self._refresh_at = now + _VOLUME_RETRY
        return True

    async def _perform_all(self, actions: Sequence[Action]) -> None:
        stops = [action for action in actions if isinstance(action, StopContainer)]
        if stops:
            await self._until_interrupted(lambda: self._stop_all(stops))
        for action in actions:
            if self._interrupt.is_set():
                return
            if isinstance(action, EnsureImage):
                await self._until_interrupted(lambda action=action: self._perform(action))  # type: ignore[misc]
            elif not isinstance(action, StopContainer):
                await self._perform(action)

    async def _until_interrupted(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work`, but give it up when the pod's end has become more urgent."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_run(work))
            interrupt = group.create_task(self._interrupt.wait())
            await asyncio.wait((task, interrupt), return_when=asyncio.FIRST_COMPLETED)
            interrupt.cancel()
            if not task.done():
                task.cancel()

    async def _stop_all(self, stops: Sequence[StopContainer]) -> None:
        async with asyncio.TaskGroup() as group:
            for action in stops:
                group.create_task(self._perform(action))

    async def _perform(self, action: Action) -> None:
        problem, image = None, ""
        if not isinstance(action, CheckPod | MountVolumes | EnsureImage | TeardownVolumes | AskDelete):
            self._observe = True
        try:
            image = await self._do(action) or ""
        except PodRejected as exc:
            log.warning("pod %s: %s: %s", self.core.pod.key, exc.reason, safe_label(exc.message, 400))
            self._event(exc.reason, exc.message, warning=True)
            self.core.receive_eviction(Problem(exc.reason, exc.message), None)
            return
        except RuntimeFailure as exc:
            problem = Problem(exc.reason, exc.message)
        except (Transient, StorageError, ProtocolError, OSError) as exc:
            problem = Problem(_REASONS.get(type(action), "RuntimeUnavailable"), str(exc))
        if problem is not None:
            log.warning(
                "pod %s: %s: %s", self.core.pod.key, type(action).__name__, safe_label(problem.message, 400)
            )
            self._explain(action, problem)
        self.core.receive_result(action, problem, self._tools.clock(), image)

    async def _do(self, action: Action) -> str | None:
        runtime, pod = self._tools.runtime, self.core.pod
        match action:
            case CheckPod():
                await self._check()
            case MountVolumes():
                self._refresh_at = await self._tools.volumes.mount(pod, self._facts())
            case EnsureImage():
                return await self._tools.images.ensure(pod, action.container)
            case RunSandbox():
                await self._run_sandbox(action)
            case StartContainer():
                await self._start(action)
            case StopContainer():
                await self._stop(action)
            case StopSandbox():
                await runtime.stop_sandbox(action.sandbox_id)
            case RemoveContainer():
                await self._remove(action)
            case RemoveSandbox():
                await runtime.remove_sandbox(action.sandbox_id)
            case TeardownVolumes():
                await self._tools.cgroups.remove(pod.uid)
                await self._tear_down()
            case AskDelete():
                self._tools.writer.delete(pod)
        return None

    def _admit(self, pod: Pod) -> None:
        settings = self._tools.settings
        if self._tools.runtime.has_own_files:
            node_network = pod.spec.host_network or settings.default_pod_network == "host"
            check_sysctls(pod, settings.allowed_sysctls, node_network=node_network)
            check_apparmor(pod, enabled=apparmor_enabled())

    async def _check(self) -> None:
        self._admit(self.core.pod)
        await self._tools.runtime.check_pod(msgspec.to_builtins(self.core.pod))
        if self._devices is not None:
            await self._devices.admit(self.core.pod)

    @property
    def _devices(self) -> "DevicePlugins | None":
        return self._tools.plugins.devices if self._tools.plugins is not None else None

    async def _tear_down(self) -> None:
        pod = self.core.pod
        await self._tools.volumes.unpublish(pod.uid)
        await self._tools.volumes.teardown(pod.uid)
        if self._devices is not None:
            self._devices.release(pod.uid)
        if self.core.gone or pod.deleting:
            discard_tree(self._tools.settings.log_directory / log_directory_name(pod))

    async def _run_sandbox(self, action: RunSandbox) -> None:
        spec = sandbox_spec(self.core.pod, action.attempt, self._tools.settings, self._tools.node)
        if not spec.host_network and (problem := await self._tools.runtime.network_problem()):
            raise RuntimeFailure("NetworkNotReady", f"network is not ready: {problem}")
        if spec.runtime_handler and self._tools.runtime.has_own_files:
            handler = await self._tools.objects.runtime_handler(spec.runtime_handler)
            spec = replace(spec, runtime_handler=handler)
        Path(spec.log_directory).mkdir(parents=True, exist_ok=True)
        await self._tools.cgroups.ensure(self.core.pod)
        if action.attempt > 0:
            self._event("SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
        await self._tools.runtime.run_sandbox(spec)

    async def _start(self, action: StartContainer) -> None:
        pod, one, tools = self.core.pod, action.container, self._tools
        objects = await tools.objects.of_environment(pod, one)
        env = build_env(pod, one, objects, self._facts(), tools.settings.service_env)
        equipment = await self._devices.equip(pod, one) if self._devices is not None else None
        if equipment is not None:
            env = [*equipment.env, *env]
        own = tools.runtime.has_own_files
        mounts = tools.volumes.mounts(pod, one, dict(env), held=own)
        sandbox = self.core.sandbox
        shared = sandbox_spec(pod, sandbox.attempt if sandbox else 0, tools.settings, tools.node)
        mounts += tools.files.mounts(pod, one, action.attempt, shared, self._facts().pod_ip, own_files=own)
        spec = container_spec(
            pod,
            one,
            attempt=action.attempt,
            image=action.image_ref,
            env=env,
            mounts=mounts,
            node=tools.node,
            settings=tools.settings,
            target_id=self._target(one),
        )
        if equipment is not None:
            spec = replace(
                spec,
                mounts=[*spec.mounts, *equipment.mounts],
                annotations={**spec.annotations, **equipment.annotations},
                devices=equipment.devices,
                cdi_devices=equipment.cdi,
            )
        (Path(shared.log_directory) / one.name).mkdir(parents=True, exist_ok=True)
        await tools.cgroups.ensure(pod)
        try:
            container_id = await tools.runtime.create_container(action.sandbox_id, spec, shared)
        except RuntimeFailure as exc:
            reason = "CreateContainerError" if exc.reason in _UNTOLD else exc.reason
            raise RuntimeFailure(reason, exc.message) from exc
        self._event("Created", f"Created container: {one.name}", container=one.name)
        try:
            await tools.runtime.start_container(container_id)
        except RuntimeFailure as exc:
            raise RuntimeFailure("RunContainerError", exc.message) from exc
        tools.volumes.let_go(pod)  # but not after a failure: the runtime may still be about to start it
        self._event("Started", f"Started container {one.name}", container=one.name)
        await self._hook("postStart", one.name, container_id, _HOOK_TIMEOUT)

    def _target(self, one: Container) -> str:
        if not one.target_container_name:
            return ""
        info = self.core.latest(one.target_container_name)
        if info is None or info.state is not State.RUNNING:
            text = f'the target container "{one.target_container_name}" does not run'
            raise RuntimeFailure("CreateContainerConfigError", text)
        return info.id

    async def _stop(self, action: StopContainer) -> None:
        """Run the preStop hook within the grace period, then stop with what is left of it."""
        self._event("Killing", action.why, container=action.name)
        grace = float(action.grace)
        if grace > 0:
            started = asyncio.get_running_loop().time()
            if await self._hook("preStop", action.name, action.container_id, grace):
                grace = max(grace - (asyncio.get_running_loop().time() - started), _LEAST_GRACE)
        await self._tools.runtime.stop_container(action.container_id, grace)

    async def _hook(self, kind: str, name: str, container_id: str, seconds: float) -> bool:
        """Run a lifecycle hook if there is one; a failure of it is told, and for postStart raised."""
        one = self.core.pod.container(name)
        handler = handler_of(one.lifecycle.get(kind, {})) if one else {}
        if one is None or not handler:
            return False
        try:
            await run_handler(
                handler,
                runtime=self._tools.runtime,
                container=one,
                container_id=container_id,
                pod_ip=self._facts().pod_ip,
                timeout=seconds,
            )
        except HandlerFailed as exc:
            reason = "FailedPostStartHook" if kind == "postStart" else "FailedPreStopHook"
            self._event(reason, f"{kind} hook failed: {exc}", container=name, warning=True)
            if kind == "postStart":
                await self._tools.runtime.stop_container(container_id, float(self.core.pod.grace))
                raise RuntimeFailure("PostStartHookError", str(exc)) from exc
        return True

    async def _remove(self, action: RemoveContainer) -> None:
        info = next((c for c in self.core.containers if c.id == action.container_id), None)
        await self._tools.runtime.remove_container(action.container_id)
        if info is not None:
            self._tools.files.forget(self.core.pod.uid, info)
        if info is not None and info.log_path:
            path = Path(info.log_path)
            if self._tools.settings.log_directory in path.parents:
                for old in path.parent.glob(f"{path.name}*"):
                    old.unlink(missing_ok=True)

    # --- telling ----------------------------------------------------------------------------------------

    def _facts(self) -> PodFacts:
        sandbox = self.core.sandbox
        return PodFacts(self._tools.node, sandbox.ip if sandbox else "")

    def _tell_backoff(self) -> None:
        """Emit an event when a container has begun to be backed off from."""
        waiting = {
            (name, problem) for name, problem in self.core.waiting.items() if problem.reason in _BACKOFFS
        }
        for name, problem in waiting - self._backed_off:
            one = self.core.pod.container(name)
            meta = self.core.pod.metadata
            if problem.reason == "ImagePullBackOff" and one is not None:
                text = f'Back-off pulling image "{one.image}"'
            else:
                long_name = f"{meta.name}_{meta.namespace}({meta.uid})"
                text = f"Back-off restarting failed container {name} in pod {long_name}"
            self._event("BackOff", text, container=name, warning=True)
        self._backed_off = waiting

    def _explain(self, action: Action, problem: Problem) -> None:
        match action:
            case EnsureImage() | StartContainer():
                text = problem.message if isinstance(action, EnsureImage) else f"Error: {problem.message}"
                self._event("Failed", text, container=action.container.name, warning=True)
            case RunSandbox() if problem.reason != "NetworkNotReady":
                self._event(
                    "FailedCreatePodSandBox", f"Failed to create pod sandbox: {problem.message}", warning=True
                )
            case StopContainer():
                self._event("FailedKillPod", problem.message, container=action.name, warning=True)
            case _:
                self._event(problem.reason, problem.message, warning=True)

    def _event(self, reason: str, message: str, *, container: str = "", warning: bool = False) -> None:
        if not self.core.gone or reason == "Killing":
            self._tools.events.emit(self.core.pod, reason, message, container=container, warning=warning)


_REASONS: dict[type, str] = {
    EnsureImage: "ErrImagePull",
    StartContainer: "CreateContainerError",
    RunSandbox: "FailedCreatePodSandBox",
    MountVolumes: "FailedMount",
    TeardownVolumes: "FailedUnmount",
    StopContainer: "FailedKillPod",
    StopSandbox: "FailedKillPod",
}


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
