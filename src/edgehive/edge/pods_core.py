"""The life of one pod as a pure state machine: what is, what should be, and therefore what to do next.

Level-triggered: `next_actions` derives the steps from the desired pod and the containers that were last observed, so
a lost event or a restart of edgecore changes nothing. The only memory is back-off, and what has been tried.
Sandbox before init containers, init containers in order, then all main containers; everything in reverse to stop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgehive.edge.pods_actions import (
    CONTAINER_HASH,
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
    retry_key,
)
from edgehive.edge.pods_backoff import Crash, Retry
from edgehive.edge.pods_seen import ended_before, told_restarts, true_since, was_started
from edgehive.edge.pods_spec import Container, JsonObject, Pod, format_time, parse_time
from edgehive.edge.podstatus import FAILED, TERMINAL, StatusInput, compute_status
from edgehive.edge.runtime import ContainerInfo, SandboxInfo, State

RETRY_INITIAL, RETRY_MAX = 1.0, 60.0
PULL_INITIAL, PULL_MAX = 10.0, 300.0
CONFIG_RETRY = 10.0
_SHOW_PULL_ERROR = 2.0
_DELETE_AGAIN = 30.0
_BEGUN = frozenset(("RunContainerError", "PostStartHookError"))  # a container was made, and has ended
_AT_ONCE = 1  # second, as with the kubelet: who listens to SIGTERM can still end well
_LEAST_GRACE = 2  # seconds that sidecars have in any case, as with the kubelet


@dataclass(slots=True)
class _Plan:
    actions: list[Action] = field(default_factory=list)
    wake: list[float] = field(default_factory=list)


class PodCore:
    """One pod of this node, from the moment it is desired or found until nothing of it is left."""

    def __init__(self, pod: Pod, *, host_ip: str, runtime_name: str, orphan: bool = False) -> None:
        self.pod = pod
        self.gone = orphan
        """The pod is not desired any more; end it and say nothing to the cluster."""
        self.sandboxes: Sequence[SandboxInfo] = ()
        self.containers: Sequence[ContainerInfo] = ()
        self.status: JsonObject = pod.status
        self._host_ip = host_ip
        self._runtime_name = runtime_name
        self._remembered: dict[str, ContainerInfo] = {}
        self._waiting: dict[str, Problem] = {}
        self._retries: dict[str, Retry] = {}
        self._crashes: dict[str, Crash] = {}
        self._images: dict[str, str] = {}
        self._checked = False
        self._mounted = False
        self._torn_down = False
        self._stopped_sandboxes: set[str] = set()
        self._final_phase = str(pod.status.get("phase", "")) if pod.status.get("phase") in TERMINAL else ""
        self._final: Problem | None = None
        if self._final_phase and pod.status.get("reason"):
            self._final = Problem(str(pod.status["reason"]), str(pod.status.get("message", "")))
        self._started_at = parse_time(pod.status.get("startTime", ""))
        self._most_grace: int | None = None
        self._stop_began: float | None = None
        self._delete_asked_at = 0.0
        self._adopting = True
        self._deadline: float | None = None
        self._unready: frozenset[str] = frozenset()
        self._unstarted: frozenset[str] = frozenset()
        self._unhealthy: Mapping[str, tuple[Problem, int | None]] = {}

    # --- inputs -----------------------------------------------------------------------------------------

    def receive_pod(self, pod: Pod) -> None:
        """Take a newer version of the desired pod; one that is being deleted stays so."""
        if self.pod.deleting and not pod.deleting:
            return
        if [c.hash for c in pod.spec.containers] != [c.hash for c in self.pod.spec.containers]:
            self._checked = False
            self._retries.clear()
            self._crashes.clear()
        self.pod = pod

    def receive_removed(self) -> None:
        """The pod is gone from the cluster."""
        self.gone = True

    def receive_eviction(self, problem: Problem, grace: int | None) -> None:
        """The node cannot bear the pod any longer: it fails, with `grace` seconds at most to end; None: at once."""
        if self._final_phase or self.gone:
            return
        self._final_phase, self._final = FAILED, problem
        self._most_grace = _AT_ONCE if grace is None else grace

    def receive_observed(self, sandboxes: Sequence[SandboxInfo], containers: Sequence[ContainerInfo]) -> None:
        """Take what the runtime has of this pod now, all of it."""
        # By attempt first: the clock of a box without a battery jumps, also backwards.
        self.sandboxes = sorted(sandboxes, key=lambda s: (s.attempt, s.created_at))
        self.containers = sorted(containers, key=lambda c: (c.attempt, c.created_at))
        for info in self.containers:
            if info.state is not State.CREATED:
                self._remembered[info.name] = info

    def receive_probes(
        self,
        unready: frozenset[str],
        unstarted: frozenset[str],
        unhealthy: Mapping[str, tuple[Problem, int | None]],
    ) -> None:
        """Take what the probes say; `unhealthy` is by container id, with the grace period a probe gives."""
        self._unready, self._unstarted, self._unhealthy = unready, unstarted, unhealthy

    def receive_changed_objects(self, now: float) -> None:
        """A configmap, secret or image the pod waits for may be there now: try at once."""
        for key, retry in self._retries.items():
            if not key.startswith("image:"):
                retry.delay = min(retry.delay, max(0.0, now - retry.failed_at))

    def receive_result(
        self, action: Action, problem: Problem | None, now: float, image_ref: str = ""
    ) -> None:
        """Take the outcome of `action`; `problem` when it failed."""
        key = retry_key(action)
        begun = problem is None or problem.reason in _BEGUN
        if isinstance(action, StartContainer) and action.attempt > 0 and begun:
            self._crashes.setdefault(action.container.name, Crash()).restart(now)
        if problem is not None:
            maximum = PULL_MAX if isinstance(action, EnsureImage) else RETRY_MAX
            initial = PULL_INITIAL if isinstance(action, EnsureImage) else RETRY_INITIAL
            if problem.reason == "CreateContainerConfigError":
                initial = maximum = CONFIG_RETRY
            self._retries.setdefault(key, Retry(initial, maximum)).fail(problem, now)
            if isinstance(action, StartContainer) and problem.reason != "CreateContainerConfigError":
                self._images.pop(action.container.name, None)
            return
        self._retries.pop(key, None)
        match action:
            case CheckPod():
                self._checked = True
            case MountVolumes():
                self._mounted, self._torn_down = True, False
            case TeardownVolumes():
                self._mounted, self._torn_down = False, True
            case EnsureImage():
                self._images[action.container.name] = image_ref or action.container.image
            case StartContainer():
                self._images.pop(action.container.name, None)
            case StopSandbox():
                self._stopped_sandboxes.add(action.sandbox_id)
            case AskDelete():
                self._delete_asked_at = now
            case _:
                pass

    # --- outputs ----------------------------------------------------------------------------------------

    def next_actions(self, now: float) -> list[Action]:
        """Return the steps to take now, in order; empty when the pod is as it should be for the moment."""
        if not self._started_at:
            self._started_at = min((s.created_at for s in self.sandboxes), default=now)
        plan = _Plan()
        self._waiting = {}
        self._settle(now, plan)
        if self.stopping:
            self._plan_stop(plan, now)
        else:
            self._plan_run(plan, now)
        self._deadline = min((at for at in plan.wake if at > now), default=None)
        self.status = self._compute_status(now)
        self._adopting = False
        return plan.actions

    def deadline(self) -> float | None:
        """When `next_actions` must be called again at the latest."""
        return self._deadline

    @property
    def finished(self) -> bool:
        """The pod is gone from the cluster and nothing of it is left here."""
        return self.gone and self._torn_down and not self.containers and not self.sandboxes

    @property
    def stopping(self) -> bool:
        return self.gone or self.pod.deleting or bool(self._final_phase)

    @property
    def initializing(self) -> bool:
        """An init container runs that the others wait for."""
        names = {one.name for one in self.pod.spec.init_containers if one.restart_policy != "Always"}
        return any(c.name in names and c.state is State.RUNNING for c in self.containers)

    @property
    def sandbox(self) -> SandboxInfo | None:
        """The sandbox in use."""
        ready = [s for s in self.sandboxes if s.ready]
        return ready[-1] if ready else None

    @property
    def waiting(self) -> Mapping[str, Problem]:
        """Why containers are being waited for, by name."""
        return self._waiting

    @property
    def mounted(self) -> bool:
        return self._mounted

    def latest(self, name: str) -> ContainerInfo | None:
        """The newest container of that name, also after it was removed."""
        return next((c for c in reversed(self.containers) if c.name == name), self._remembered.get(name))

    def restart_count(self, name: str) -> int:
        """How often the container was started again; what the cluster was told counts as well."""
        told, info = told_restarts(self.pod.status, name), self.latest(name)
        return max(info.attempt, told) if info else told

    # --- planning ---------------------------------------------------------------------------------------

    def _settle(self, now: float, plan: _Plan) -> None:
        """Notice that the pod has come to an end by itself: its phase is final from then on."""
        if self._final_phase or self.gone:
            return
        limit = self.pod.spec.active_deadline_seconds
        if limit is not None and not self.pod.deleting:
            end = self._started_at + limit
            if now >= end:
                text = "Pod was active on the node longer than the specified deadline"
                self._final_phase, self._final = FAILED, Problem("DeadlineExceeded", text)
                return
            plan.wake.append(end)
        if self.containers and not self.pod.deleting and not self.runs_anything(but=self._sidecars):
            phase = self._compute_status(now, going=False)["phase"]
            if phase in TERMINAL:
                self._final_phase = phase

    def _grace(self, now: float) -> int:
        """The grace period of the pod, sidecars' turn included: they have what the others have left of it."""
        whole = self.pod.grace if self._most_grace is None else min(self.pod.grace, self._most_grace)
        self._stop_began = now if self._stop_began is None else self._stop_began
        left = whole - int(max(0.0, now - self._stop_began))
        return max(left, min(whole, _LEAST_GRACE))

    def runs_anything(self, but: frozenset[str] = frozenset()) -> bool:
        """Whether a container runs, not one of `but`, that is more than a look into the pod."""
        others = but.union(one.name for one in self.pod.spec.ephemeral_containers)
        return any(c.state is State.RUNNING and c.name not in others for c in self.containers)

    @property
    def _sidecars(self) -> frozenset[str]:
        return frozenset(one.name for one in self.pod.spec.init_containers if one.restart_policy == "Always")

    def _plan_stop(self, plan: _Plan, now: float) -> None:
        running = [c for c in self.containers if c.state is State.RUNNING]
        main = [c for c in running if c.name not in self._sidecars]
        if running:
            why = "Stopping container {}"
            self._try_all(
                plan,
                [StopContainer(c.id, c.name, self._grace(now), why.format(c.name)) for c in main or running],
                now,
            )
            return
        ready = [StopSandbox(s.id) for s in self.sandboxes if s.ready or s.id not in self._stopped_sandboxes]
        if ready:
            self._try_all(plan, ready, now)
            return
        if self.gone or self.pod.deleting:
            if self.containers:
                self._try_all(plan, [RemoveContainer(c.id) for c in self.containers], now)
                return
            if self.sandboxes:
                self._try_all(plan, [RemoveSandbox(s.id) for s in self.sandboxes], now)
                return
        if not self._torn_down:
            self._try_all(plan, [TeardownVolumes()], now)
        elif self.pod.deleting and not self.gone:
            again = self._delete_asked_at + _DELETE_AGAIN
            if not self._delete_asked_at or not self._delete_asked_at <= now < again:
                self._try_all(plan, [AskDelete()], now)
            else:
                plan.wake.append(again)

    def _plan_run(self, plan: _Plan, now: float) -> None:
        for step, done in ((CheckPod(), self._checked), (MountVolumes(), self._mounted)):
            if not done:
                self._try_all(plan, [step], now)
                self._explain_all(
                    self._retries.get(retry_key(step)),
                    "" if isinstance(step, CheckPod) else "ContainerCreating",
                )
                return
        sandbox = self.sandbox
        stale: list[Action] = [StopSandbox(s.id) for s in self.sandboxes if s.ready and s is not sandbox]
        if sandbox is None or stale:
            lost = [
                c
                for c in self.containers
                if c.state is State.RUNNING and (not sandbox or c.sandbox_id != sandbox.id)
            ]
            if lost:
                why = "Pod sandbox changed, it will be killed and re-created."
                self._try_all(plan, [StopContainer(c.id, c.name, self.pod.grace, why) for c in lost], now)
                return
            stale += [
                StopSandbox(s.id)
                for s in self.sandboxes
                if not s.ready and s.id not in self._stopped_sandboxes
            ]
            if stale:
                self._try_all(plan, stale, now)
                return
        if sandbox is None:
            attempt = 1 + max((s.attempt for s in self.sandboxes), default=-1)
            self._try_all(plan, [RunSandbox(attempt)], now)
            self._explain_all(self._retries.get("sandbox"), "ContainerCreating")
            return
        self._plan_containers(plan, sandbox, now)
        self._plan_ephemeral(plan, sandbox, now)
        self._plan_garbage(plan, sandbox, now)

    def _plan_containers(self, plan: _Plan, sandbox: SandboxInfo, now: float) -> None:
        here = {c.name: c for c in self.containers if c.sandbox_id == sandbox.id}
        initialized = any(one.name in here for one in self.pod.spec.containers)
        for one in self.pod.spec.init_containers:
            info = here.get(one.name)
            if one.restart_policy == "Always":
                if info is None or info.state is not State.RUNNING:
                    self._plan_start(plan, one, info, sandbox, now, policy="Always")
                    if not initialized:
                        return
                elif not initialized and one.name in self._unstarted:
                    return
                else:
                    self._plan_unhealthy(plan, info, now)
                continue
            if initialized or (info is not None and info.state is State.EXITED and info.exit_code == 0):
                continue
            if info is None or info.state is not State.RUNNING:
                policy = "Never" if self.pod.spec.restart_policy == "Never" else "OnFailure"
                self._plan_start(plan, one, info, sandbox, now, policy=policy)
            return
        for one in self.pod.spec.containers:
            info = here.get(one.name)
            if info is None or info.state is not State.RUNNING:
                self._plan_start(plan, one, info, sandbox, now, policy=self.pod.spec.restart_policy)
            elif info.annotations.get(CONTAINER_HASH, one.hash) != one.hash:
                why = f"Container {one.name} definition changed, will be restarted"
                self._try_all(plan, [StopContainer(info.id, one.name, self.pod.grace, why)], now)
            else:
                self._plan_unhealthy(plan, info, now)

    def _plan_ephemeral(self, plan: _Plan, sandbox: SandboxInfo, now: float) -> None:
        """Start each once, beside whatever runs, and never again."""
        for one in self.pod.spec.ephemeral_containers:
            info = self.latest(one.name)
            created = info if info is not None and info.state is State.CREATED else None
            if created or (info is None and not was_started(self.pod.status, one.name)):
                self._plan_start(plan, one, created, sandbox, now, policy="Never")

    def _plan_unhealthy(self, plan: _Plan, info: ContainerInfo, now: float) -> None:
        if (found := self._unhealthy.get(info.id)) is not None:
            problem, grace = found
            seconds = self.pod.grace if grace is None else grace
            self._try_all(plan, [StopContainer(info.id, info.name, seconds, problem.message)], now)

    def _plan_start(
        self,
        plan: _Plan,
        one: Container,
        info: ContainerInfo | None,
        sandbox: SandboxInfo,
        now: float,
        *,
        policy: str,
    ) -> None:
        if info is not None and info.state is State.CREATED:
            # An earlier edgecore was ended between creating and starting it: it never ran and does not count.
            self._try_all(plan, [RemoveContainer(info.id)], now)
            return
        known = self.latest(one.name)
        attempt = self.restart_count(one.name) + 1 if known or was_started(self.pod.status, one.name) else 0
        if info is not None and info.state in (State.EXITED, State.UNKNOWN):
            changed = info.annotations.get(CONTAINER_HASH, one.hash) != one.hash
            if not changed:
                if policy == "Never" or (policy == "OnFailure" and info.exit_code == 0):
                    return
                crash = self._crashes.get(one.name, Crash())
                until = crash.until(info.finished_at)
                if info.finished_at <= now < until:
                    text = f"back-off {crash.delay:g}s restarting failed container={one.name} pod={self._long_name}"
                    self._waiting[one.name] = Problem("CrashLoopBackOff", text)
                    plan.wake.append(until)
                    return
        image = self._images.get(one.name)
        step = EnsureImage(one) if image is None else StartContainer(one, attempt, sandbox.id, image)
        self._try_all(plan, [step], now)
        if (retry := self._retries.get(retry_key(step))) and retry.problem:
            problem = retry.problem
            if isinstance(step, EnsureImage) and problem.reason == "ErrImagePull":
                shown = retry.failed_at + _SHOW_PULL_ERROR
                if now >= shown:
                    text = f'Back-off pulling image "{one.image}": ErrImagePull: {problem.message}'
                    problem = Problem("ImagePullBackOff", text)
                plan.wake.append(shown)
            self._waiting[one.name] = problem

    def _plan_garbage(self, plan: _Plan, sandbox: SandboxInfo, now: float) -> None:
        """Keep one dead container a name, for its logs and as ``lastState``, and no empty old sandbox."""
        dead: dict[str, list[ContainerInfo]] = {}
        current = {name: self.latest(name) for name in {c.name for c in self.containers}}
        for info in self.containers:
            if info.state is not State.RUNNING and info is not current[info.name]:
                dead.setdefault(info.name, []).append(info)
        old = [c for infos in dead.values() for c in infos[:-1]]
        self._try_all(plan, [RemoveContainer(c.id) for c in old], now)
        used = {c.sandbox_id for c in self.containers} | {sandbox.id}
        self._try_all(
            plan, [RemoveSandbox(s.id) for s in self.sandboxes if s.id not in used and not s.ready], now
        )

    def _try_all(self, plan: _Plan, actions: Sequence[Action], now: float) -> None:
        for action in actions:
            retry = self._retries.get(retry_key(action))
            if retry is None or retry.due(now):
                plan.actions.append(action)
            else:
                plan.wake.append(retry.at)

    def _explain_all(self, retry: Retry | None, reason: str = "") -> None:
        if retry is None or retry.problem is None:
            return
        problem = Problem(reason or retry.problem.reason, retry.problem.message)
        for one in (*self.pod.spec.init_containers, *self.pod.spec.containers):
            self._waiting[one.name] = problem

    @property
    def _long_name(self) -> str:
        meta = self.pod.metadata
        return f"{meta.name}_{meta.namespace}({meta.uid})"

    def _compute_status(self, now: float, *, going: bool | None = None) -> JsonObject:
        spec = self.pod.spec
        if going is None:
            told = {self.pod.status.get("phase"), self.status.get("phase")}
            going = self.runs_anything() and not told & TERMINAL
        names = [one.name for one in spec.all_containers]
        latest = {name: info for name in names if (info := self.latest(name)) is not None}
        sandbox = self.sandbox
        ip = (sandbox.ip if sandbox else "") or str(
            self.pod.status.get("podIP", "") or self.status.get("podIP", "")
        )
        return compute_status(
            StatusInput(
                pod=self.pod,
                latest=latest,
                before=ended_before(self.containers, latest),
                waiting=self._waiting,
                restarts={name: self.restart_count(name) for name in names},
                sandbox_ready=sandbox is not None,
                pod_ip=ip,
                host_ip=self._host_ip,
                start_time=format_time(self._started_at or now),
                runtime_name=self._runtime_name,
                previous=self.status,
                now=now,
                initialized=any(one.name in latest for one in spec.containers),
                final=self._final,
                final_phase=self._final_phase,
                unready=self._unready,
                unstarted=self._unstarted,
                true_since=true_since(self.containers, sandbox, self._started_at) if self._adopting else {},
                stopped=self.pod.deleting and not self.runs_anything(),
                going=going,
            )
        )
