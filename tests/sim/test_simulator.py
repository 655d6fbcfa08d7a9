"""Both ends of the protocol together, in virtual time, under a few hundred seeded schedules (`run.py` runs more)."""

import pytest
from sim_bugs import CLOUD_BUGS, EDGE_BUGS, RecordAfterSend
from sim_cloud import Cloud
from sim_edge import Edge
from sim_world import World, explain, plan_of, simulate

SEEDS = 120
PATIENCE = 400
"""Schedules within which a planted fault must show."""


@pytest.mark.parametrize("go_edge", [False, True], ids=["ours", "original-edge"])
def test_nothing_is_lost_and_nothing_goes_back(go_edge: bool) -> None:
    for seed in range(SEEDS):
        plan = plan_of(seed, go_edge=go_edge)
        if simulate(plan) is not None:
            pytest.fail(explain(plan), pytrace=False)


def finds(edge: type[Edge], cloud: type[Cloud], *, go_edge: bool = False) -> bool:
    plans = (plan_of(seed, edge_class=edge, cloud_class=cloud, go_edge=go_edge) for seed in range(PATIENCE))
    return any(simulate(plan) is not None for plan in plans)


@pytest.mark.parametrize("bug", EDGE_BUGS)
def test_finds_a_fault_planted_at_the_edge(bug: type[Edge]) -> None:
    assert finds(bug, Cloud)


@pytest.mark.parametrize("bug", CLOUD_BUGS)
def test_finds_a_fault_planted_in_the_cloud(bug: type[Cloud]) -> None:
    # An edge of ours says what it holds, and so makes good that its record was forgotten; the original's does not.
    assert finds(Edge, bug, go_edge=bug is RecordAfterSend)


def test_one_seed_is_one_run() -> None:
    worlds = [World(plan_of(7), tracing=True) for _ in range(2)]
    for world in worlds:
        world.run()
    assert list(worlds[0].sim.trace) == list(worlds[1].sim.trace)
    assert len(worlds[0].sim.trace) > 100


def test_a_failing_seed_explains_itself() -> None:
    plans = (plan_of(seed, edge_class=EDGE_BUGS[0]) for seed in range(PATIENCE))
    plan = next(plan for plan in plans if simulate(plan) is not None)
    text = explain(plan)
    assert text.startswith(f"seed {plan.seed}: t=")
    assert "VIOLATION" in text
    assert "edge-0" in text


def test_the_runs_are_not_idle() -> None:
    """Crashes, cuts, resends and recoveries do happen in them."""
    seen = ""
    for seed in range(24):
        world = World(plan_of(seed), tracing=True)
        world.run()
        seen += "\n".join(world.sim.trace)
    for what in (
        "CRASHES",
        "cut",
        "half-open",
        "API server goes away",
        "list again",
        "dies at",
        "reinstalled",
        "nobody joins again",
        '"holdings"',
        '"delete"',
        "link down",
    ):
        assert what in seen, what
