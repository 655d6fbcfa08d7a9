"""What is told of a pod that ends: not before it has, and of each container; and what kubectl makes of that."""

from datetime import UTC, datetime
from typing import Any

import pytest

from edgehive.edge.pods_actions import Action, EnsureImage, Problem, StopContainer
from edgehive.kube.cells_pod import pod_status
from tests.edge.test_pods_core import World
from tests.support.fakemeta import container, make_pod

EVICTED = Problem("Evicted", "it has written too much")
UNKNOWN = "ContainerStatusUnknown"


class Poor(World):
    """A node without the image of containers that are called ``never``."""

    def do(self, action: Action) -> None:
        if isinstance(action, EnsureImage) and action.container.name == "never":
            self.done.append(action)
            self.core.receive_result(action, Problem("ErrImageNeverPull", "not there"), self.now)
        else:
            super().do(action)


def told(world: World) -> tuple[str, str, list[str]]:
    """Phase, reason, and the reason of each container's state (what it is called without one)."""
    status: dict[str, Any] = world.core.status
    states = [c["state"] for c in (*status.get("initContainerStatuses", ()), *status["containerStatuses"])]
    reasons = [body.get("reason") or kind for state in states for kind, body in state.items()]
    return status["phase"], status.get("reason", ""), reasons


def column(world: World) -> str:
    return pod_status({"spec": world.raw["spec"], "status": world.core.status}, datetime.now(UTC))


@pytest.mark.parametrize(
    ("names", "inits", "before", "after", "shown"),
    [
        (["c"], [], "Running", ["Error"], "Error"),
        (["c", "never"], [], "Pending", ["Error", UNKNOWN], "Error"),
        (["never", "c"], [], "Pending", [UNKNOWN, "Error"], UNKNOWN),
        (["c"], ["i", "later"], "Pending", ["Error", "PodInitializing", "PodInitializing"], "Init:Error"),
    ],
    ids=["runs", "second missing", "first missing", "in its init container"],
)
def test_an_evicted_pod_fails_once_nothing_of_it_runs_and_is_shown_as_a_cluster_shows_it(
    names: list[str], inits: list[str], before: str, after: list[str], shown: str
) -> None:
    """The words are those of KubeEdge's edgecore on the same pods, and of its API server."""
    world = Poor(
        make_pod("p", *(container(n, "x") for n in names), initContainers=[container(n, "x") for n in inits])
    )
    world.settle()
    assert told(world)[:2] == (before, "")
    world.core.receive_eviction(EVICTED, 5)
    world.core.receive_observed(list(world.sandboxes), list(world.containers))
    assert [type(one) for one in world.core.next_actions(world.now)] == [StopContainer]
    assert told(world)[:2] == (before, ""), "who sees it failed makes another one, and this one still runs"
    world.settle()
    assert told(world) == ("Failed", "Evicted", after)
    assert world.core.status["message"] == EVICTED.message
    assert column(world) == shown
    world.boot()
    world.settle()
    assert told(world) == ("Failed", "Evicted", after), "a restart tells nothing else"


def test_a_pod_that_never_started_a_container_is_told_so_when_it_is_deleted() -> None:
    world = Poor(make_pod("p", container("never", "x")))
    world.settle()
    world.raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.change()
    world.settle()
    assert told(world) == ("Failed", "", [UNKNOWN])


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (3, "Failed")])
def test_sidecars_end_with_the_last_container_and_the_pod_with_them(code: int, phase: str) -> None:
    sidecar = container("side", "x", restartPolicy="Always")
    world = World(make_pod("p", container("main", "x"), initContainers=[sidecar], restartPolicy="Never"))
    world.settle()
    world.end("main", code)
    world.core.receive_observed(list(world.sandboxes), list(world.containers))
    stops = world.core.next_actions(world.now)
    assert [one.name for one in stops if isinstance(one, StopContainer)] == ["side"]
    assert world.phase == "Running"
    world.settle()
    assert world.phase == phase
    assert not world.running("side")
    stopped = len(world.done)
    world.boot()
    world.settle()
    assert world.phase == phase
    assert not any(type(one).__name__ == "StartContainer" for one in world.done[stopped:])
