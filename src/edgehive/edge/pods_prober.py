"""Probes the running containers of one pod and keeps what came of it."""

import asyncio
from collections.abc import Callable, Sequence

from edgehive.edge.pods_actions import Problem
from edgehive.edge.pods_spec import Container, JsonObject, Pod
from edgehive.edge.probes import Probe, ProbeKind, ProbeState, probes_of
from edgehive.edge.probes_net import HandlerFailed, run_handler
from edgehive.edge.runtime import ContainerInfo, Runtime, State
from edgehive.kit.errors import Unreachable

Report = Callable[[str, str, str], None]
"""Called with (reason, message, container name)."""


class PodProber:
    """One task for each running container that has probes; `sync` starts and ends them."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        report: Report,
        changed: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._runtime = runtime
        self._report = report
        self._changed = changed
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._names: dict[str, str] = {}
        self._started: dict[str, bool] = {}
        self._ready: dict[str, bool] = {}
        self.unhealthy: dict[str, tuple[Problem, int | None]] = {}
        """By container id: why it must be restarted, and the grace period the probe gives."""

    def sync(
        self,
        group: asyncio.TaskGroup,
        pod: Pod,
        containers: Sequence[ContainerInfo],
        pod_ip: str,
        told: JsonObject,
    ) -> None:
        """Have a task for every running container with probes, and for no other.

        `told` is the last reported status: a container that was ready before edgecore was restarted stays so
        until a probe says otherwise.
        """
        running = {info.id: info for info in containers if info.state is State.RUNNING}
        for gone in self._tasks.keys() - running.keys():
            self._tasks.pop(gone).cancel()
            for table in (self._names, self._started, self._ready, self.unhealthy):
                table.pop(gone, None)
        for container_id, info in running.items():
            one = pod.container(info.name)
            if container_id in self._tasks or one is None or not (probes := probes_of(one)):
                continue
            before = _reported(told, container_id)
            self._names[container_id] = info.name
            self._started[container_id] = ProbeKind.STARTUP not in probes or bool(before.get("started"))
            self._ready[container_id] = ProbeKind.READINESS not in probes or bool(before.get("ready"))
            self._tasks[container_id] = group.create_task(
                self._watch(one, info, probes, pod_ip), name=f"probes of {pod.key} {one.name}"
            )

    def stop(self) -> None:
        """End all probing."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    @property
    def unstarted(self) -> frozenset[str]:
        """Names of running containers whose startup probe has not succeeded yet."""
        return frozenset(self._names[i] for i, started in self._started.items() if not started)

    @property
    def unready(self) -> frozenset[str]:
        """Names of running containers that are not ready."""
        waiting = frozenset(self._names[i] for i, ready in self._ready.items() if not ready)
        return waiting | self.unstarted

    async def _watch(
        self, one: Container, info: ContainerInfo, probes: dict[ProbeKind, Probe], pod_ip: str
    ) -> None:
        if not self._started[info.id]:
            await self._repeat(one, info, probes[ProbeKind.STARTUP], pod_ip)
            if not self._started[info.id]:
                return
        async with asyncio.TaskGroup() as group:
            for kind in (ProbeKind.LIVENESS, ProbeKind.READINESS):
                if kind in probes:
                    group.create_task(self._repeat(one, info, probes[kind], pod_ip))

    async def _repeat(self, one: Container, info: ContainerInfo, probe: Probe, pod_ip: str) -> None:
        """Probe for ever; a startup probe until it succeeds, a failed liveness or startup probe ends it."""
        outcome = {ProbeKind.READINESS: self._ready[info.id], ProbeKind.LIVENESS: True}.get(probe.kind)
        state = ProbeState(probe, outcome=outcome)
        since = self._clock() - (info.started_at or info.created_at)
        await asyncio.sleep(max(0.0, probe.initial_delay - max(since, 0.0)))
        while True:
            try:
                await run_handler(
                    probe.handler,
                    runtime=self._runtime,
                    container=one,
                    container_id=info.id,
                    pod_ip=pod_ip,
                    timeout=probe.timeout,
                )
                changed = state.receive(True)
            except HandlerFailed as exc:
                self._report("Unhealthy", f"{probe.kind} probe failed: {exc}", one.name)
                changed = state.receive(False)
            except Unreachable:
                changed = False  # the runtime is away: nothing is known about the container
            if changed and self._take(one, info, probe, success=bool(state.outcome)):
                return
            await asyncio.sleep(probe.period)

    def _take(self, one: Container, info: ContainerInfo, probe: Probe, *, success: bool) -> bool:
        """Note a changed outcome; return whether this probe has done its work."""
        if probe.kind is ProbeKind.READINESS:
            self._ready[info.id] = success
        elif success:
            self._started[info.id] = True
        else:
            text = f"Container {one.name} failed {probe.kind.lower()} probe, will be restarted"
            self.unhealthy[info.id] = (Problem("Unhealthy", text), probe.grace)
        self._changed()
        return probe.kind is ProbeKind.STARTUP or (probe.kind is ProbeKind.LIVENESS and not success)


def _reported(told: JsonObject, container_id: str) -> JsonObject:
    for kind in ("containerStatuses", "initContainerStatuses"):
        for one in told.get(kind, ()):
            if str(one.get("containerID", "")).endswith(f"://{container_id}"):
                return dict(one)
    return {}
