"""The state machine of a pod, driven against a runtime made of lists; no clock but ours, no IO."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgehive.edge.pods_actions import (
    CONTAINER_HASH,
    Action,
    AskDelete,
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
from edgehive.edge.pods_core import PodCore
from edgehive.edge.pods_spec import Pod, parse_pod
from edgehive.edge.runtime import ContainerInfo, SandboxInfo, State
from tests.support.fakemeta import container, make_pod


class World:
    """A runtime of lists and the core; `settle` plays until nothing is left to do."""

    def __init__(self, pod: dict[str, Any]) -> None:
        self.raw = pod
        self.now = 1_000_000.0
        self.sandboxes: list[SandboxInfo] = []
        self.containers: list[ContainerInfo] = []
        self.done: list[Action] = []
        self.fail: dict[type, Problem] = {}
        self.ids = itertools.count()
        self.core = self.boot()

    @property
    def pod(self) -> Pod:
        return parse_pod(msgspec.json.encode(self.raw))

    def boot(self) -> PodCore:
        """A new edgecore: all memory is lost."""
        self.core = PodCore(self.pod, host_ip="10.0.0.1", runtime_name="sim")
        return self.core

    def change(self) -> None:
        self.core.receive_pod(self.pod)

    def settle(self, limit: int = 200) -> None:
        for _ in range(limit):
            self.core.receive_observed(list(self.sandboxes), list(self.containers))
            actions = self.core.next_actions(self.now)
            if not self.core.gone:
                self.raw["status"] = self.core.status
            if not actions:
                return
            for action in actions:
                self.do(action)
        pytest.fail(f"it never settles: {self.done[-10:]}")

    def do(self, action: Action) -> None:
        self.done.append(action)
        problem = self.fail.get(type(action))
        if problem is None:
            self.apply(action)
        self.core.receive_result(action, problem, self.now, "image-ref")

    def apply(self, action: Action) -> None:
        match action:
            case RunSandbox():
                assert not any(s.ready for s in self.sandboxes)
                labels: dict[str, str] = {}
                made = SandboxInfo(
                    f"s{next(self.ids)}", True, self.now, labels, labels, "10.1.0.1", action.attempt
                )
                self.sandboxes.append(made)
            case StopSandbox():
                for info in self.containers:
                    assert info.sandbox_id != action.sandbox_id or info.state is not State.RUNNING
                self.sandboxes = [
                    replace(s, ready=False) if s.id == action.sandbox_id else s for s in self.sandboxes
                ]
            case RemoveSandbox():
                self.sandboxes = [s for s in self.sandboxes if s.id != action.sandbox_id]
            case StartContainer():
                self.start(action)
            case StopContainer():
                self.end(action.name, 143)
            case RemoveContainer():
                gone = next(c for c in self.containers if c.id == action.container_id)
                assert gone.state is not State.RUNNING
                self.containers.remove(gone)
            case _:
                pass

    def start(self, action: StartContainer) -> None:
        one = action.container
        assert not self.running(one.name), "two of one name"
        assert any(s.id == action.sandbox_id and s.ready for s in self.sandboxes)
        assert action.attempt not in [c.attempt for c in self.containers if c.name == one.name]
        self.containers.append(
            ContainerInfo(
                id=f"c{next(self.ids)}",
                sandbox_id=action.sandbox_id,
                name=one.name,
                attempt=action.attempt,
                state=State.RUNNING,
                created_at=self.now,
                started_at=self.now,
                finished_at=0.0,
                exit_code=0,
                reason="",
                message="",
                image=one.image,
                image_id="id",
                labels={},
                annotations={CONTAINER_HASH: one.hash},
            )
        )

    def running(self, name: str) -> list[ContainerInfo]:
        return [c for c in self.containers if c.name == name and c.state is State.RUNNING]

    def end(self, name: str, code: int) -> None:
        for info in self.running(name):
            at = self.containers.index(info)
            self.containers[at] = replace(info, state=State.EXITED, exit_code=code, finished_at=self.now)

    def lose_sandbox(self) -> None:
        """The machine was restarted."""
        for name in {c.name for c in self.containers}:
            self.end(name, 255)
        self.sandboxes = [replace(s, ready=False) for s in self.sandboxes]

    @property
    def phase(self) -> str:
        return str(self.core.status["phase"])

    def waiting(self, number: int = 0) -> str:
        state = self.core.status["containerStatuses"][number]["state"]
        return str(state.get("waiting", {}).get("reason", ""))

    def condition(self, kind: str) -> dict[str, Any]:
        return next(c for c in self.core.status["conditions"] if c["type"] == kind)


def one(name: str = "p", **spec: Any) -> World:
    return World(make_pod(name, container("c", "x"), **spec))


def test_a_pod_comes_up_in_order_and_says_so() -> None:
    world = one()
    world.core.receive_observed([], [])
    world.core.next_actions(world.now)
    assert (world.phase, world.waiting()) == ("Pending", "ContainerCreating")
    world.settle()
    assert [type(a).__name__ for a in world.done] == [
        "CheckPod",
        "MountVolumes",
        "RunSandbox",
        "EnsureImage",
        "StartContainer",
    ]
    assert world.phase == "Running"
    assert all(c["status"] == "True" for c in world.core.status["conditions"])
    assert world.core.status["podIP"] == "10.1.0.1"
    assert world.core.status["containerStatuses"][0]["containerID"].startswith("sim://c")


def test_a_new_edgecore_adopts_and_does_nothing_but_look_at_volumes() -> None:
    world = one()
    world.settle()
    before = world.core.status
    world.done.clear()
    world.now += 500
    world.boot()
    world.settle()
    assert {type(a).__name__ for a in world.done} == {"CheckPod", "MountVolumes"}
    assert world.core.status == before


def test_times_are_right_also_when_no_status_was_ever_reported() -> None:
    world = one()
    world.settle()
    started = world.core.status["startTime"]
    world.now += 5000
    world.raw["status"] = {"phase": "Pending"}
    world.boot()
    world.settle()
    assert world.core.status["startTime"] == started
    assert {c["lastTransitionTime"] for c in world.core.status["conditions"]} == {started}


def test_crash_backoff_doubles_is_capped_and_forgotten_after_ten_minutes() -> None:
    world = one()
    world.settle()
    delays = []
    for _ in range(8):
        world.end("c", 1)
        world.settle()
        if world.running("c"):
            delays.append(0.0)
            continue
        assert world.waiting() == "CrashLoopBackOff"
        until = world.core.deadline()
        assert until is not None
        delays.append(until - world.now)
        world.now = until
        world.settle()
        assert world.running("c")
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300]
    world.now += 601
    world.end("c", 1)
    world.settle()
    assert world.running("c"), "it ran for ten minutes: no waiting"
    assert world.core.restart_count("c") == 9


@pytest.mark.parametrize("reason", ["RunContainerError", "PostStartHookError"])
def test_a_container_that_cannot_be_started_is_backed_off_from_as_from_a_crash(reason: str) -> None:
    world = one()
    starts: list[float] = []
    apply = world.apply

    def fail_late(action: Action) -> None:
        apply(action)
        if isinstance(action, StartContainer):
            starts.append(world.now)
            world.end("c", 128)

    def do(action: Action) -> None:
        fail_late(action)
        problem = Problem(reason, "no such file") if isinstance(action, StartContainer) else None
        world.done.append(action)
        world.core.receive_result(action, problem, world.now, "image-ref")

    world.do = do  # type: ignore[method-assign]
    world.settle()
    assert world.waiting() == reason
    while len(starts) < 7:
        until = world.core.deadline()
        assert until is not None
        world.now = max(until, world.now + 0.1)
        world.settle()
        if len(starts) > 2:
            assert world.waiting() in (reason, "CrashLoopBackOff")
    assert [round(later - earlier) for earlier, later in itertools.pairwise(starts)] == [
        1,
        10,
        20,
        40,
        80,
        160,
    ]
    assert world.core.restart_count("c") == 6


@pytest.mark.parametrize(
    ("policy", "code", "phase", "restarted"),
    [
        ("Always", 0, "Running", True),
        ("OnFailure", 1, "Running", True),
        ("OnFailure", 0, "Succeeded", False),
        ("Never", 1, "Failed", False),
        ("Never", 0, "Succeeded", False),
    ],
)
def test_restart_policies(policy: str, code: int, phase: str, restarted: bool) -> None:
    world = one(restartPolicy=policy)
    world.settle()
    world.end("c", code)
    world.settle()
    assert (world.phase, bool(world.running("c"))) == (phase, restarted)
    if not restarted:
        assert not any(s.ready for s in world.sandboxes), "a finished pod gives back its sandbox"
        assert TeardownVolumes() in world.done
        assert world.condition("Ready")["reason"] == ("PodCompleted" if code == 0 else "PodFailed")
        world.boot()
        world.containers.clear()
        world.settle()
        assert world.phase == phase, "a finished pod is never run again"
        ended = world.core.status["containerStatuses"][0]["state"]["terminated"]
        assert ended["exitCode"] == code, "what was reported stays, also when the container is gone"


def test_init_containers_run_one_after_the_other_and_sidecars_stay() -> None:
    sidecar = container("side", "x", restartPolicy="Always")
    world = World(
        make_pod(
            "p", container("main", "x"), initContainers=[container("a", "x"), sidecar, container("b", "x")]
        )
    )
    world.settle()
    assert [c.name for c in world.containers] == ["a"]
    assert world.condition("Initialized")["message"] == "containers with incomplete status: [a side b]"
    assert world.waiting() == "PodInitializing"
    world.end("a", 1)
    world.settle()
    assert [c.attempt for c in world.running("a")] == [1]
    world.end("a", 0)
    world.settle()
    assert world.running("side")
    assert world.running("b")
    assert not world.running("main")
    world.end("b", 0)
    world.settle()
    assert world.running("main")
    assert world.phase == "Running"
    world.end("side", 1)
    world.settle()
    assert world.running("side"), "a sidecar is restarted while the pod runs"
    assert len([c for c in world.containers if c.name == "a" and c.state is State.RUNNING]) == 0


def test_a_failed_init_container_fails_a_pod_that_never_restarts() -> None:
    world = World(
        make_pod("p", container("main", "x"), initContainers=[container("a", "x")], restartPolicy="Never")
    )
    world.settle()
    world.end("a", 1)
    world.settle()
    assert world.phase == "Failed"
    assert not world.running("main")


def test_sidecars_are_stopped_after_the_main_containers() -> None:
    sidecar = container("side", "x", restartPolicy="Always")
    world = World(make_pod("p", container("main", "x"), initContainers=[sidecar]))
    world.settle()
    world.raw["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 7}
    world.change()
    world.settle()
    stops = [a for a in world.done if isinstance(a, StopContainer)]
    assert [(a.name, a.grace) for a in stops] == [("main", 7), ("side", 7)]
    tail = [type(a).__name__ for a in world.done[world.done.index(stops[-1]) + 1 :]]
    assert tail[0] == "StopSandbox"
    assert tail[-2:] == ["TeardownVolumes", "AskDelete"]
    assert not world.containers
    assert not world.sandboxes


@pytest.mark.parametrize(("took", "left"), [(0, 30), (12, 18), (30, 2), (90, 2)])
def test_sidecars_have_what_is_left_of_the_grace_period(took: int, left: int) -> None:
    sidecar = container("side", "x", restartPolicy="Always")
    world = World(make_pod("p", container("main", "x"), initContainers=[sidecar]))
    world.settle()
    world.raw["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}
    world.change()
    world.core.receive_observed(list(world.sandboxes), list(world.containers))
    [stop] = world.core.next_actions(world.now)
    assert isinstance(stop, StopContainer)
    assert (stop.name, stop.grace) == ("main", 30)
    world.now += took
    world.do(stop)
    world.settle()
    stops = [a for a in world.done if isinstance(a, StopContainer)]
    assert [(a.name, a.grace) for a in stops] == [("main", 30), ("side", left)]


def test_the_final_delete_is_asked_again_until_the_pod_is_removed() -> None:
    world = one()
    world.settle()
    world.raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.change()
    world.settle()
    world.now += 31
    world.settle()
    assert world.done.count(AskDelete()) == 2
    assert not world.core.finished
    world.core.receive_removed()
    world.settle()
    assert world.core.finished


def test_image_problems_show_first_the_error_then_the_backoff() -> None:
    world = one()
    world.fail[EnsureImage] = Problem("ErrImagePull", "no route")
    world.settle()
    assert world.waiting() == "ErrImagePull"
    world.now += 3
    world.settle()
    assert world.waiting() == "ImagePullBackOff"
    tried = [a for a in world.done if isinstance(a, EnsureImage)]
    assert len(tried) == 1
    world.now += 8
    world.fail.clear()
    world.settle()
    assert world.phase == "Running"


def test_a_missing_object_is_retried_at_once_when_it_comes() -> None:
    world = one()
    world.fail[StartContainer] = Problem("CreateContainerConfigError", 'configmap "x" not found')
    world.settle()
    assert world.waiting() == "CreateContainerConfigError"
    world.fail.clear()
    world.settle()
    assert world.waiting() == "CreateContainerConfigError", "not before its time"
    world.core.receive_changed_objects(world.now)
    world.settle()
    assert world.phase == "Running"
    assert len([a for a in world.done if isinstance(a, EnsureImage)]) == 1


def test_volumes_that_cannot_be_mounted_hold_the_pod_but_not_its_stop() -> None:
    world = one()
    world.fail[MountVolumes] = Problem("FailedMount", "no")
    world.settle()
    assert world.waiting() == "ContainerCreating"
    world.raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.change()
    world.settle()
    assert AskDelete() in world.done


def test_a_changed_image_restarts_only_that_container() -> None:
    world = World(make_pod("p", container("a", "x"), container("b", "x")))
    world.settle()
    world.raw["spec"]["containers"][0]["image"] = "new"
    world.change()
    world.settle()
    attempts = {c.name: c.attempt for c in world.containers if c.state is State.RUNNING}
    assert attempts == {"a": 1, "b": 0}
    assert any(isinstance(a, StopContainer) and "definition changed" in a.why for a in world.done)


def test_a_reboot_makes_a_new_sandbox_and_counts_the_restart() -> None:
    world = one()
    world.settle()
    world.lose_sandbox()
    world.boot()
    world.settle()
    assert [s.attempt for s in world.sandboxes if s.ready] == [1]
    assert world.core.restart_count("c") == 1
    assert world.phase == "Running"


def test_a_runtime_that_lost_everything_counts_on_from_what_the_cluster_knows() -> None:
    world = one()
    world.settle()
    world.end("c", 1)
    world.settle()
    world.containers.clear()
    world.sandboxes.clear()
    world.boot()
    world.settle()
    assert world.core.restart_count("c") == 2


@pytest.mark.parametrize("ran_before", [False, True])
def test_a_container_that_was_created_but_never_started_does_not_count(ran_before: bool) -> None:
    world = one()
    world.settle()
    if ran_before:
        world.end("c", 1)
        world.settle()
    expected = world.core.restart_count("c")
    at = world.containers.index(world.running("c")[0])
    world.containers[at] = replace(world.containers[at], state=State.CREATED)
    world.raw["status"] = {"phase": "Pending"}
    world.boot()
    world.settle()
    assert [c.attempt for c in world.running("c")] == [expected]
    assert not [c for c in world.containers if c.state is State.CREATED]


def test_an_active_deadline_ends_the_pod() -> None:
    world = one(activeDeadlineSeconds=60)
    world.settle()
    assert world.core.deadline() == world.now + 60
    world.now += 60
    world.settle()
    assert (world.phase, world.core.status["reason"]) == ("Failed", "DeadlineExceeded")
    assert not world.running("c")
    world.boot()
    world.settle()
    assert (world.phase, world.core.status["reason"]) == ("Failed", "DeadlineExceeded")


def test_dead_containers_do_not_pile_up() -> None:
    world = one()
    world.settle()
    for _ in range(6):
        world.end("c", 1)
        world.settle()
        world.now += 301
        world.settle()
    assert len(world.containers) == 2
    last = world.core.status["containerStatuses"][0]["lastState"]["terminated"]
    assert last["exitCode"] == 1


def test_readiness_gates_and_transition_times() -> None:
    world = one(readinessGates=[{"conditionType": "example.com/lb"}])
    world.settle()
    assert world.condition("ContainersReady")["status"] == "True"
    ready = world.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ReadinessGatesNotReady")
    world.now += 100
    world.raw["status"]["conditions"].append({"type": "example.com/lb", "status": "True"})
    world.change()
    world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Ready")["lastTransitionTime"] > ready["lastTransitionTime"]
    assert world.condition("Initialized")["lastTransitionTime"] == ready["lastTransitionTime"]


def test_a_clock_that_is_set_back_does_not_confuse_or_delay() -> None:
    world = one()
    world.settle()
    world.end("c", 1)
    world.settle()
    world.now -= 86_400
    world.end("c", 1)
    world.settle()
    assert world.core.restart_count("c") == 1
    world.now += 400
    world.settle()
    assert [c.attempt for c in world.running("c")] == [2]
    assert world.core.latest("c") == world.running("c")[0], (
        "the newest is the newest, whatever the clock said"
    )
    world.fail[StartContainer] = Problem("CreateContainerConfigError", "x")
    world.end("c", 1)
    world.now += 400
    world.settle()
    assert world.waiting() == "CreateContainerConfigError"
    world.fail.clear()
    world.now -= 86_400
    world.settle()
    assert world.running("c")


EVENTS = st.sampled_from(["die0", "die1", "reboot", "restart", "wait", "change", "fail", "heal", "settle"])


@settings(max_examples=150, deadline=None)
@given(
    events=st.lists(EVENTS, max_size=25),
    policy=st.sampled_from(["Always", "OnFailure", "Never"]),
    faults=st.sets(st.sampled_from([MountVolumes, RunSandbox, EnsureImage, StartContainer])),
)
def test_whatever_happens_it_converges_and_is_ended_whole(
    events: list[str], policy: str, faults: set[type]
) -> None:
    side = container("side", "x", restartPolicy="Always")
    pod = make_pod(
        "p",
        container("a", "x"),
        container("b", "x"),
        initContainers=[container("i", "x"), side],
        restartPolicy=policy,
    )
    world = World(pod)
    counts: dict[str, int] = {}
    for event in events:
        match event:
            case "die0" | "die1":
                for name in ("i", "a"):
                    world.end(name, int(event[-1]))
            case "reboot":
                world.lose_sandbox()
            case "restart":
                world.boot()
            case "wait":
                world.now += 400
            case "change":
                world.raw["spec"]["containers"][1]["image"] += "x"
                world.change()
            case "fail":
                world.fail = {kind: Problem("Broken", "x") for kind in faults}
            case "heal":
                world.fail = {}
            case _:
                pass
        world.settle()
        for name in ("a", "b", "i", "side"):
            assert world.core.restart_count(name) >= counts.get(name, 0), "a count went back"
            counts[name] = world.core.restart_count(name)
    world.fail = {}
    world.boot()
    for _ in range(4):
        world.now += 400
        world.settle()
        world.end("i", 0)
    world.settle()
    if policy == "Always":
        assert world.phase == "Running"
        assert len(world.running("a")) == len(world.running("b")) == len(world.running("side")) == 1
    assert world.phase in ("Running", "Succeeded", "Failed")
    world.raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.change()
    world.settle()
    assert world.phase in ("Succeeded", "Failed")
    assert AskDelete() in world.done
    assert not world.containers
    assert not world.sandboxes
