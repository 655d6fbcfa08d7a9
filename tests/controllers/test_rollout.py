"""Rollout decisions: whatever happens to the pods, enough stay available and never too many exist."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.controllers.objects import DeploymentStatus
from edgehive.controllers.rollout import (
    Progress,
    SetView,
    available_condition,
    extend_history,
    goal,
    is_resize,
    new_set_condition,
    next_revision,
    paused_condition,
    plan_resize,
    plan_rollout,
    progress_conditions,
    resolve,
    surplus_history,
    time_left,
)
from edgehive.controllers.templates import same_template, template_hash, with_labels

INT_OR_PERCENT = st.one_of(st.integers(0, 5), st.integers(0, 100).map(lambda n: f"{n}%"))


def view(name: str, replicas: int, available: int, created: float = 0.0, **more) -> SetView:
    return SetView(name, replicas, available, created, **more)


@settings(max_examples=120, deadline=None)
@given(
    replicas=st.integers(0, 12),
    surge=INT_OR_PERCENT,
    unavailable=INT_OR_PERCENT,
    old=st.lists(st.integers(0, 6), max_size=3),
    health=st.lists(st.booleans(), min_size=200, max_size=200),
)
def test_a_rollout_is_safe_at_every_step_and_ends(replicas, surge, unavailable, old, health):
    """Pods of a set become available one at a time, or not for a while; sizes follow the plan at once."""
    want = goal(replicas, surge, unavailable, recreate=False)
    sizes = {"new": 0} | {f"old{i}": n for i, n in enumerate(old)}
    available = {name: n for name, n in sizes.items()}  # all old pods work
    enough = min(want.replicas - want.unavailable, sum(old))
    start = sum(old)
    coin = iter(health)

    def views():
        entries = [view(n, sizes[n], available[n], float(i)) for i, n in enumerate(sizes)]
        return entries[0], entries[1:]

    for _ in range(120):
        new, others = views()
        targets = plan_rollout(want, new, others, old_pods_left=False)
        for name, size in targets.items():
            assert size >= 0
            assert size != sizes[name]
            sizes[name] = size
            available[name] = min(available[name], size)
        assert sum(sizes.values()) <= max(start, want.most)
        assert sum(available.values()) >= enough
        if next(coin, True) and available["new"] < sizes["new"]:
            available["new"] += 1
    new, others = views()
    assert (new.replicas, [s.replicas for s in others]) == (replicas, [0] * len(old))


def test_a_broken_new_set_stops_the_rollout_and_broken_old_pods_go_first():
    want = goal(4, 1, 1, recreate=False)
    assert plan_rollout(want, view("new", 2, 0), [view("old", 3, 3)], old_pods_left=True) == {}
    targets = plan_rollout(want, view("new", 0, 0), [view("old", 4, 4)], old_pods_left=True)
    assert targets == {"new": 1}
    mixed = [view("bad", 2, 0, 1.0), view("good", 3, 3, 2.0)]
    assert plan_rollout(want, view("new", 0, 0), mixed, old_pods_left=True) == {"bad": 0}


def test_recreate_waits_for_the_old_pods():
    want = goal(3, "25%", "25%", recreate=True)
    old = [view("old", 3, 3)]
    assert plan_rollout(want, view("new", 0, 0), old, old_pods_left=True) == {"old": 0}
    gone = [view("old", 0, 0)]
    assert plan_rollout(want, view("new", 0, 0), gone, old_pods_left=True) == {}
    assert plan_rollout(want, view("new", 0, 0), gone, old_pods_left=False) == {"new": 3}
    assert plan_rollout(want, view("new", 3, 3), gone, old_pods_left=False) == {}


@settings(max_examples=100, deadline=None)
@given(
    before=st.integers(1, 20),
    after=st.integers(0, 20),
    split=st.integers(0, 20),
    surge=st.integers(0, 3),
)
def test_a_resize_in_mid_rollout_is_shared_out_exactly(before, after, split, surge):
    new_size = min(split, before)
    marks = {"desired": before, "maximum": before + surge}
    new = view("new", new_size, 0, 2.0, **marks)
    old = [view("old", before - new_size, before - new_size, 1.0, **marks)]
    want = goal(after, surge, 1, recreate=False)
    targets = plan_resize(want, new, old)
    sizes = {s.name: targets.get(s.name, s.replicas) for s in (new, *old)}
    assert all(size >= 0 for size in sizes.values())
    if new.replicas and old[0].replicas:
        assert sum(sizes.values()) == (want.most if after else 0)
    else:
        assert sum(sizes.values()) == after


def test_what_is_a_resize():
    want = goal(3, 1, 1, recreate=False)
    assert is_resize(want, [view("a", 2, 2, desired=2)])
    assert not is_resize(want, [view("a", 0, 0, desired=2), view("b", 3, 3, desired=3), view("c", 1, 1)])
    saturated = view("new", 3, 3, desired=3)
    assert plan_resize(want, saturated, [view("old", 1, 1, desired=2)]) == {"old": 0}
    assert plan_resize(want, None, []) == {}
    assert plan_resize(want, None, [view("old", 0, 0)]) == {"old": 3}


@pytest.mark.parametrize(
    ("value", "up", "result"),
    [
        (2, True, 2),
        ("25%", True, 2),
        ("25%", False, 1),
        ("3", True, 3),
        ("x%", True, 0),
        (None, True, 0),
        (-1, True, 0),
    ],
)
def test_int_or_percent(value, up, result):
    assert resolve(value, 5, up=up) == result


def test_a_rollout_may_always_move():
    assert goal(1, 0, 0, recreate=False).unavailable == 1
    assert (goal(4, None, None, recreate=False).surge, goal(4, None, None, recreate=False).unavailable) == (
        1,
        1,
    )


def test_revisions_and_history():
    assert next_revision(0, []) == 1
    assert next_revision(1, [3, 2]) == 4
    assert next_revision(5, [3]) == 5
    assert extend_history("1,3", "5") == "1,3,5"
    assert extend_history("", "") == ""
    assert len(extend_history(",".join(["12345"] * 500), "9")) <= 2000
    sets = [("c", 3, 0.0), ("a", 1, 0.0), ("b", 2, 0.0)]
    assert surplus_history(sets, 1) == ["a", "b"]
    assert surplus_history(sets, 5) == []


def progress(updated, available, desired=3, replicas=3, **more) -> Progress:
    return Progress(
        desired=desired,
        replicas=replicas,
        updated=updated,
        ready=available,
        available=available,
        new_set="web-1",
        deployment="web",
        generation=1,
        **more,
    )


def reason(conditions, kind="Progressing"):
    return next(((c.status, c.reason) for c in conditions if c.type == kind), None)


def test_progress_from_new_to_late_to_done():
    status = DeploymentStatus()
    conditions = new_set_condition((), "web-1", created=True, now=0)
    assert reason(conditions) == ("True", "NewReplicaSetCreated")
    conditions = progress_conditions(status, conditions, progress(1, 0), 60, 10.0)
    assert reason(conditions) == ("True", "ReplicaSetUpdated")
    assert time_left(conditions, progress(1, 0), 60, 30.0) == 40.0
    status = DeploymentStatus(replicas=3, updated_replicas=1, conditions=conditions)
    conditions = progress_conditions(status, conditions, progress(1, 0), 60, 71.0)
    assert reason(conditions) == ("False", "ProgressDeadlineExceeded")
    conditions = progress_conditions(status, conditions, progress(3, 3), 60, 80.0)
    assert reason(conditions) == ("True", "NewReplicaSetAvailable")
    assert time_left(conditions, progress(3, 3), 60, 80.0) is None
    lost = progress_conditions(status, conditions, progress(3, 1), 60, 900.0)
    assert lost == conditions  # a pod lost after the rollout is no rollout
    assert reason(progress_conditions(status, conditions, progress(1, 1), None, 0)) is None


def test_time_stamps_of_conditions():
    conditions = new_set_condition((), "web-1", created=False, now=0)
    assert reason(conditions) == ("True", "FoundNewReplicaSet")
    later = progress_conditions(DeploymentStatus(), conditions, progress(1, 0), 60, 100.0)
    (entry,) = later
    assert entry.last_transition_time == "1970-01-01T00:00:00Z"  # the status is still True
    assert entry.last_update_time == "1970-01-01T00:01:40Z"
    again = progress_conditions(DeploymentStatus(), later, progress(2, 0), 60, 200.0)
    assert again[0].last_update_time == "1970-01-01T00:03:20Z"


def test_a_pause_stops_the_clock():
    conditions = paused_condition((), paused=True, deadline=60, now=0)
    assert reason(conditions) == ("Unknown", "DeploymentPaused")
    assert paused_condition(conditions, paused=True, deadline=60, now=5) == conditions
    assert time_left(conditions, progress(1, 0), 60, 1000.0) is None
    resumed = paused_condition(conditions, paused=False, deadline=60, now=9)
    assert reason(resumed) == ("Unknown", "DeploymentResumed")
    assert paused_condition((), paused=True, deadline=None, now=0) == ()


def test_availability():
    want = goal(4, 1, 1, recreate=False)
    assert reason(available_condition((), want, 3, 0), "Available") == ("True", "MinimumReplicasAvailable")
    assert reason(available_condition((), want, 2, 0), "Available") == ("False", "MinimumReplicasUnavailable")


def test_templates_are_the_same_whatever_label_the_deployment_gave_them():
    one = {"metadata": {"labels": {"a": "b"}, "creationTimestamp": None}, "spec": {"x": 1}}
    other = with_labels({"metadata": {"labels": {"a": "b"}}, "spec": {"x": 1}}, {"pod-template-hash": "h"})
    assert same_template(one, other)
    assert template_hash(one) == template_hash(other)
    assert template_hash(one) != template_hash(one, 1)
    assert template_hash(one) != template_hash({**one, "spec": {"x": 2}})
    assert set(template_hash(one)) <= set("bcdfghjklmnpqrstvwxz2456789")
