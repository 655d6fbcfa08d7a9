"""The process runtime: a pod's commands as host processes, for machines without a container runtime.

Each container is one command under a shim (`edge.process_shim`) that survives edgecore, with its own directory, log
and process group. Images are ignored. As root, volumes are bind-mounted at their paths in a private mount namespace;
otherwise, and in addition, they are reachable below ``$EDGEHIVE_ROOT``, which is also the working directory.
"""

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgehive.edge.patient import take
from edgehive.edge.process_files import PATH, ContainerFiles, container_cgroup, limits_of, streams_of
from edgehive.edge.process_host import (
    check_process_pod,
    container_processes,
    guard_writes,
    hash_text,
    may_unshare,
    missing_paths,
    process_usage,
    remove_mount_points,
    send_signal,
    signal_group,
)
from edgehive.edge.process_pipes import Channel, Monitor, launch
from edgehive.edge.process_shim import LAUNCH, SHIM, Identity, boot_id
from edgehive.edge.process_state import ContainerRecord, ProcessState, SandboxRecord
from edgehive.edge.process_watch import ShimWatch
from edgehive.edge.runtime import (
    ContainerInfo,
    ContainerSpec,
    ExecResult,
    ImageInfo,
    PodUsage,
    RuntimeFailure,
    RuntimeVersion,
    SandboxInfo,
    SandboxSpec,
    State,
    Usage,
)
from edgehive.kit.errors import StorageError

if TYPE_CHECKING:
    from edgehive.edge.cgroups_fs import Hierarchy

log = logging.getLogger(__name__)

IMAGE = "process"
_POD_UID = "io.kubernetes.pod.uid"
_START_TIMEOUT = 10.0
_UNKNOWN_EXIT = _KILLED = 137
_KILLS, _KILL_WAIT = 12, 0.5


class ProcessRuntime:
    """A `Runtime` without containers."""

    def __init__(
        self,
        *,
        state_directory: Path,
        node_ip: str,
        version: str,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        cgroups: "Hierarchy | None" = None,
    ) -> None:
        self._cgroups = cgroups
        self._state = ProcessState(state_directory)
        self._node_ip = node_ip
        self._version = version
        self._clock = clock
        self._new_id = new_id
        self._boot = boot_id()
        self._sandboxes: dict[str, SandboxRecord] = {}
        self._containers: dict[str, ContainerRecord] = {}
        self._monitor = Monitor(state_directory, died=self._lost_monitor)
        self._watched = ShimWatch(
            boot=self._boot,
            directory=self._state.directory,
            drains=lambda: self._monitor.alive,
            ended=self._ended,
        )
        self._removing = asyncio.Lock()
        self._lost = False
        self._changed = asyncio.Event()
        self._changes: set[str] = set()
        self._opened = False
        self._private = False
        self._shim = Path()

    @property
    def has_own_files(self) -> bool:
        return False

    # --- state ------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Read what an earlier edgecore left; done at the first call."""
        if self._opened:
            return
        self._state.prepare()
        self._shim = self._state.script(f"shim-{abs(hash_text(SHIM)):x}.sh", SHIM)
        self._sandboxes = {record.id: record for record in self._state.sandboxes()}
        self._containers = {record.id: record for record in self._state.containers()}
        self._private = may_unshare()
        self._opened = True
        for container_id in self._containers:
            self._watched.add(container_id)
        if self._watched:
            self._lost_monitor()  # it may have gone while nobody looked

    def _lost_monitor(self) -> None:
        self._lost = True
        self._changed.set()

    async def _tell_monitor(self) -> None:
        """Have a new monitor take the pipes of what runs; with the old one all terminals went."""
        for record in list(self._containers.values()):
            if record.streams is not None and "t" not in record.streams and record.id in self._watched:
                try:
                    await self._monitor.ask("add", record.id, record.log_path, record.streams)
                except RuntimeFailure:
                    if record.id in self._watched:  # it has not just been removed
                        self._lost = True
                        raise

    def _ended(self, container_id: str) -> None:
        if (record := self._containers.get(container_id)) is not None:
            self._changes.add(record.labels.get(_POD_UID, ""))
            self._changed.set()

    def _sandbox(self, sandbox_id: str) -> SandboxRecord:
        self._open()
        if (record := self._sandboxes.get(sandbox_id)) is None:
            raise RuntimeFailure("NotFound", f"no sandbox {sandbox_id}")
        return record

    def _container(self, container_id: str) -> ContainerRecord:
        self._open()
        if (record := self._containers.get(container_id)) is None:
            raise RuntimeFailure("NotFound", f"no container {container_id}")
        return record

    # --- sandboxes --------------------------------------------------------------------------------------

    async def version(self) -> RuntimeVersion:
        return RuntimeVersion("process", self._version)

    async def network_problem(self) -> str:
        return ""  # every pod is in the host's network

    async def check_pod(self, pod: Mapping[str, object]) -> None:
        check_process_pod(pod)

    async def run_sandbox(self, spec: SandboxSpec) -> str:
        self._open()
        record = SandboxRecord(
            id=self._new_id(),
            attempt=spec.attempt,
            created_at=self._clock(),
            boot=self._boot,
            log_directory=spec.log_directory,
            hostname=spec.hostname,
            labels=dict(spec.labels),
            annotations=dict(spec.annotations),
        )
        guard_writes(lambda: Path(spec.log_directory).mkdir(parents=True, exist_ok=True))
        try:
            self._state.save_sandbox(record)
        except StorageError:
            self._state.remove_sandbox(record.id)
            raise
        self._sandboxes[record.id] = record
        return record.id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        self._open()
        record = self._sandboxes.get(sandbox_id)
        if record is None or record.stopped:
            return
        for info in await self.list_containers():
            if info.sandbox_id == sandbox_id and info.state is State.RUNNING:
                await self.stop_container(info.id, 0)
        record.stopped = True
        self._state.save_sandbox(record)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self.stop_sandbox(sandbox_id)
        for info in await self.list_containers():
            if info.sandbox_id == sandbox_id:
                await self.remove_container(info.id)
        self._state.remove_sandbox(sandbox_id)
        self._sandboxes.pop(sandbox_id, None)

    async def list_sandboxes(self, pod_uid: str = "") -> Sequence[SandboxInfo]:
        self._open()
        found = (r for r in self._sandboxes.values() if pod_uid in ("", r.labels.get(_POD_UID)))
        return [self._sandbox_info(record) for record in found]

    async def sandbox_status(self, sandbox_id: str) -> SandboxInfo:
        return self._sandbox_info(self._sandbox(sandbox_id))

    def _sandbox_info(self, record: SandboxRecord) -> SandboxInfo:
        ready = record.boot == self._boot and not record.stopped
        named = (record.labels, record.annotations, self._node_ip, record.attempt)
        return SandboxInfo(record.id, ready, record.created_at, *named)

    # --- containers -------------------------------------------------------------------------------------

    async def create_container(self, sandbox_id: str, spec: ContainerSpec, sandbox: SandboxSpec) -> str:
        home = self._sandbox(sandbox_id)
        if not spec.command:
            raise RuntimeFailure("CommandRequired", f'container "{spec.name}" has no command')
        container_id = self._new_id()
        directory = self._state.directory(container_id)
        log_path = Path(sandbox.log_directory).absolute() / spec.log_path
        mounts = list(spec.mounts) if self._private else []
        record = ContainerRecord(
            id=container_id,
            sandbox_id=sandbox_id,
            name=spec.name,
            attempt=spec.attempt,
            image=spec.image,
            created_at=self._clock(),
            log_path=str(log_path),
            labels=dict(spec.labels),
            annotations=dict(spec.annotations),
            mount_points=[mount.container_path for mount in mounts],
            made_paths=missing_paths([mount.container_path for mount in mounts]),
            private_mounts=self._private,
            streams=streams_of(spec),
        )
        if self._cgroups is not None and sandbox.cgroup_parent:
            record.cgroup = container_cgroup(sandbox.cgroup_parent, container_id)
        joins = self._cgroups.joins(record.cgroup) if self._cgroups and record.cgroup else []
        files = ContainerFiles(directory=directory, hostname=home.hostname, mounts=mounts, joins=joins)

        def write() -> None:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            if self._cgroups is not None and record.cgroup:
                self._cgroups.make(record.cgroup)
                self._cgroups.set(record.cgroup, limits_of(spec))
            files.write(spec)
            self._state.save_container(record)

        try:
            guard_writes(write)
        except (RuntimeFailure, StorageError):
            self._state.remove_container(container_id)
            self._remove_cgroup(record)
            raise
        self._containers[container_id] = record
        return container_id

    async def start_container(self, container_id: str) -> None:
        record = self._container(container_id)
        directory = self._state.directory(container_id)
        wrapper = ["unshare", "-m", "--propagation", "slave"] if record.private_mounts else []
        streams = record.streams or ""
        terminal = await self._monitor.ask("add", container_id, record.log_path, streams)
        kept = "once" if "o" in streams else "keep" if "i" in streams else "none"
        arguments = [str(self._shim), str(directory), terminal, kept, *wrapper, "sh", "./start.sh"]
        record.started_at = self._clock()
        self._state.save_container(record)
        await launch(LAUNCH, *arguments, env={"PATH": PATH})
        deadline = asyncio.get_running_loop().time() + _START_TIMEOUT
        opened = directory / "opened"
        while Identity.load(directory / "pid") is None or (terminal and not opened.exists()):
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeFailure("RunContainerError", "the shim did not start the command")
            await asyncio.sleep(0.005)
        self._watched.add(container_id)
        if terminal:
            await self._monitor.ask("started", container_id)

    async def stop_container(self, container_id: str, grace: float) -> None:
        record = self._container(container_id)
        identity = Identity.load(self._state.directory(container_id) / "pid")
        if identity is not None and grace > 0 and identity.alive(self._boot):
            signal_group(identity.pid, signal.SIGTERM)
            await self._ended_within(record, grace)
        # More than once: a command that is just being started has neither its group nor its mark yet.
        for _ in range(_KILLS if self._info(record).state is State.RUNNING else 0):
            if identity is not None and identity.alive(self._boot):
                signal_group(identity.pid, signal.SIGKILL)
            for pid in container_processes(container_id):
                send_signal(pid, signal.SIGKILL)
            if await self._ended_within(record, _KILL_WAIT):
                break
        else:
            if self._info(record).state is State.RUNNING:
                raise RuntimeFailure("KillContainerError", f'container "{record.name}" cannot be killed')
        for pid in container_processes(container_id):
            send_signal(pid, signal.SIGKILL)

    async def _ended_within(self, record: ContainerRecord, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + seconds, 0.01
        while self._info(record).state is State.RUNNING:
            if (left := deadline - loop.time()) <= 0:
                return False
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.25)
        return True

    async def remove_container(self, container_id: str) -> None:
        self._open()
        record = self._containers.get(container_id)
        if record is None:
            return
        if self._info(record).state is State.RUNNING:
            raise RuntimeFailure("RemoveContainerError", f'container "{record.name}" runs')
        await take(self._state.emptying(container_id), self._removing)
        if self._containers.pop(container_id, None) is None:
            return  # somebody else has done it meanwhile
        self._watched.remove(container_id)
        self._release_paths(record)
        self._remove_cgroup(record)
        await self._monitor.forget(container_id)
        self._state.remove_container(container_id)

    def _remove_cgroup(self, record: ContainerRecord) -> None:
        if self._cgroups is not None and record.cgroup:
            self._cgroups.remove(record.cgroup)

    def _release_paths(self, record: ContainerRecord) -> None:
        """Remove mount points made on the host, or leave that to another container that uses them."""
        left = []
        for path in record.made_paths:
            users = [
                other
                for other in self._containers.values()
                if any(point == path or point.startswith(f"{path}/") for point in other.mount_points)
            ]
            if not users:
                left.append(path)
            elif path not in users[0].made_paths:
                users[0].made_paths.append(path)
                self._state.save_container(users[0])
        remove_mount_points(left)

    async def list_containers(self, pod_uid: str = "") -> Sequence[ContainerInfo]:
        self._open()
        found = (r for r in self._containers.values() if pod_uid in ("", r.labels.get(_POD_UID)))
        return [self._info(record) for record in found]

    async def container_status(self, container_id: str) -> ContainerInfo:
        return self._info(self._container(container_id))

    def _info(self, record: ContainerRecord) -> ContainerInfo:
        state = self._observe(record)
        return ContainerInfo(
            id=record.id,
            sandbox_id=record.sandbox_id,
            name=record.name,
            attempt=record.attempt,
            state=state,
            created_at=record.created_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
            exit_code=record.exit_code or 0,
            reason=record.reason,
            message="",
            image=record.image,
            image_id=IMAGE,
            labels=record.labels,
            annotations=record.annotations,
            log_path=record.log_path,
        )

    def _observe(self, record: ContainerRecord) -> State:
        if record.exit_code is not None:
            return State.EXITED
        if not record.started_at:
            return State.CREATED
        if record.id in self._watched:
            return State.RUNNING  # its shim is there, or the loop had said so
        directory = self._state.directory(record.id)
        exit_file = directory / "exit"
        try:
            record.exit_code = int(exit_file.read_text())
            record.finished_at = exit_file.stat().st_mtime
        except (OSError, ValueError):
            identities = [Identity.load(directory / name) for name in ("shim", "pid")]
            if any(one is not None and one.alive(self._boot) for one in identities):
                return State.RUNNING
            if identities == [None, None] and self._clock() - record.started_at < _START_TIMEOUT:
                return State.RUNNING  # the shim is about to write
            if exit_file.exists() and exit_file.stat().st_size:
                return self._observe(record)  # it ended between the two looks
            # The machine was restarted, or the shim was killed: how the command ended is not known.
            record.exit_code, record.reason = _UNKNOWN_EXIT, "ContainerStatusUnknown"
            record.finished_at = self._clock()
        else:
            record.reason = "Completed" if record.exit_code == 0 else "Error"
            if record.exit_code and self._cgroups is not None and record.cgroup:
                short = self._cgroups.was_short_of_memory(record.cgroup)
                record.reason = "OOMKilled" if short and record.exit_code == _KILLED else "Error"
        try:
            self._state.save_container(record)
        except StorageError as exc:
            log.warning("container %s has ended, which cannot be written down: %s", record.name, exc)
        return State.EXITED

    # --- the rest ---------------------------------------------------------------------------------------

    def exec_arguments(self, container_id: str, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` with a running container's variables, directory and mounts."""
        record = self._container(container_id)
        directory = self._state.directory(container_id)
        identity = Identity.load(directory / "pid")
        if identity is None or not identity.alive(self._boot):
            raise RuntimeFailure("ExecFailed", f'container "{record.name}" does not run')
        namespaces = ["nsenter", "-t", str(identity.pid), "-m"] if record.private_mounts else []
        return [*namespaces, "sh", str(directory / "enter.sh"), *command]

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        process = await asyncio.create_subprocess_exec(
            *self.exec_arguments(container_id, command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": PATH},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(timeout or None):
                out, err = await process.communicate()
        except TimeoutError as exc:
            raise RuntimeFailure("ExecTimeout", f"the command took longer than {timeout:g} s") from exc
        finally:
            if process.returncode is None:
                signal_group(process.pid, signal.SIGKILL)
                await process.wait()
        return ExecResult(process.returncode or 0, out, err)

    async def image_status(self, image: str) -> ImageInfo | None:
        return ImageInfo(IMAGE, [image], [], 0)

    async def pull_image(self, image: str, auth: Mapping[str, str] | None = None) -> str:
        return image

    async def list_images(self) -> Sequence[ImageInfo]:
        return []

    async def remove_image(self, image: str) -> None:
        """There are none."""

    async def usage(self) -> Mapping[str, Usage]:
        self._open()
        running = [r for r in self._containers.values() if self._observe(r) is State.RUNNING]
        now, found, rest = self._clock(), {}, []
        for record in running:
            usage = self._cgroups.usage(record.cgroup, now) if self._cgroups and record.cgroup else None
            if usage is None:
                rest.append(record.id)
            else:
                found[record.id] = usage
        return found | (process_usage(rest, now) if rest else {})

    async def pod_usage(self) -> Mapping[str, PodUsage]:
        return {}  # every pod is in the node's network

    async def reopen_log(self, container_id: str) -> bool:
        if self._container(container_id).streams is None:
            return False  # the command itself has the file open
        await self._monitor.ask("reopen", container_id)
        return True

    async def attach(self, container_id: str, flags: str) -> Channel:
        """Join the pipes of a container, see `edge.process_monitor`; raises `RuntimeFailure`."""
        if self._container(container_id).streams is None:
            raise RuntimeFailure(
                "AttachFailed", "the container was started by an edgecore that could not attach"
            )
        return await self._monitor.attach(container_id, flags)

    async def events(self) -> AsyncIterator[str]:
        """Yield the uid of a pod as soon as one of its commands has ended; one "" says that this works."""
        self._open()
        if not hasattr(os, "pidfd_open"):
            return
        yield ""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._lost:
                self._lost = False
                await self._tell_monitor()
            changes, self._changes = self._changes, set()
            for uid in changes:
                yield uid

    async def close(self) -> None:
        """Let go of the processes; they run on."""
        self._watched.close()
        self._monitor.close()
