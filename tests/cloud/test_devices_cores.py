"""The parts of the device controller that only decide: pacing, merging, the index."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.cloud.devices_index import DeviceIndex, read_place
from edgehive.cloud.devices_status import (
    DeviceState,
    new_status,
    parse_status,
    status_fields,
    summary,
    supersedes,
)
from edgehive.cloud.paced import Paced, PacedRunner
from edgehive.kube.reflector import CachedObject, decode_cached
from edgehive.wire.devices import StateReport, TwinChange, TwinReport, TwinValue

# -- pacing


def test_work_is_done_soon_and_then_once_an_interval() -> None:
    plan: Paced[str] = Paced(interval=1.0)
    plan.want("a", 10.0)
    assert plan.take(10.01) == []
    assert plan.deadline() == pytest.approx(10.05)
    assert plan.take(10.06) == ["a"]
    plan.want("a", 10.3)  # while it is being done
    assert plan.take(99.0) == []
    plan.done("a", 10.5)
    assert plan.deadline() == pytest.approx(11.5)
    assert plan.take(11.5) == ["a"]
    plan.done("a", 11.6)
    assert plan.deadline() is None
    assert plan.depth == 0


def test_a_steady_stream_cannot_put_the_work_off() -> None:
    plan: Paced[str] = Paced(interval=1.0)
    for n in range(20):
        plan.want("a", n / 100)
    assert plan.deadline() == pytest.approx(0.05)


def test_failures_wait_longer_each_time_and_success_forgets_them() -> None:
    plan: Paced[str] = Paced(interval=1.0, retry=1.0, retry_max=3.0)
    plan.want("a", 0.0)
    now, pauses = 0.2, []
    for _ in range(3):
        assert plan.take(now) == ["a"]
        plan.failed("a", now)
        due = plan.deadline()
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses == pytest.approx([1.0, 2.0, 3.0])
    assert plan.take(now) == ["a"]
    plan.done("a", now)
    plan.want("a", now)
    assert plan.deadline() == pytest.approx(now + 1.0)


def test_only_so_many_are_handed_out_at_once_and_what_is_forgotten_is_not() -> None:
    plan: Paced[int] = Paced(interval=1.0, batch=2)
    for key in range(4):
        plan.want(key, 0.0)
    assert plan.take(5.0) == [0, 1]
    assert plan.deadline() is None
    plan.forget(0)
    plan.forget(2)
    plan.done(0, 5.0)  # too late, and harmless
    assert plan.take(5.0) == [3]


@given(st.lists(st.tuples(st.sampled_from("wdfg"), st.integers(0, 3), st.floats(0, 2)), max_size=60))
def test_no_wish_is_lost_whatever_happens(steps: list[tuple[str, int, float]]) -> None:
    plan: Paced[int] = Paced(interval=1.0, batch=2)
    wanted: set[int] = set()
    busy: set[int] = set()
    now = 0.0
    for what, key, pause in steps:
        now += pause
        match what:
            case "w":
                plan.want(key, now)
                wanted.add(key)
            case "d" if key in busy:
                plan.done(key, now)
                busy.discard(key)
            case "f" if key in busy:
                plan.failed(key, now)
                busy.discard(key)
                wanted.add(key)
            case "g":
                plan.forget(key)
                wanted.discard(key)
                busy.discard(key)
        for due in plan.take(now):
            assert due in wanted
            assert due not in busy
            wanted.discard(due)
            busy.add(due)
        assert len(busy) <= 2
        assert plan.depth == len(wanted | busy)
    for _ in range(20):
        for key in tuple(busy):
            plan.done(key, now)
            busy.discard(key)
        now += 100.0
        for due in plan.take(now):
            wanted.discard(due)
            busy.add(due)
    assert not wanted


async def test_work_that_crashes_is_tried_again_and_stops_nobody(caplog: Any) -> None:
    done: list[str] = []
    finished = asyncio.Event()

    async def work(key: str) -> bool:
        done.append(key)
        if key == "bad" and done.count("bad") < 2:
            raise ZeroDivisionError
        if done.count("bad") >= 2 and "good" in done:
            finished.set()
        return True

    runner: PacedRunner[str] = PacedRunner(Paced(interval=0.01, retry=0.01), work)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(runner.run())
        runner.want("bad")
        runner.want("good")
        async with asyncio.timeout(5):
            await finished.wait()
        task.cancel()
    assert "work on bad crashed" in caplog.text


# -- merging

value = st.builds(
    TwinValue, st.text(max_size=2), st.integers(0, 3), st.integers(0, 3), st.sampled_from(["", "int"])
)
PROPERTIES = frozenset({"a", "b"})


def twins(**sides: TwinValue) -> TwinReport:
    return TwinReport("default", "d", 1, {name: TwinChange(reported=side) for name, side in sides.items()})


@given(value, value)
def test_of_two_values_never_both_replace_each_other_unless_time_and_count_disagree(
    one: TwinValue, two: TwinValue
) -> None:
    if supersedes(one, two) and supersedes(two, one):
        unknown = not (one.version and two.version)
        crossed = (one.version - two.version) * (one.timestamp - two.timestamp) < 0
        assert unknown or crossed
    assert not supersedes(one, one)


@given(st.permutations([TwinValue(str(n), n * 10, n, "int") for n in range(1, 6)]))
def test_in_whatever_order_reports_come_the_newest_stays(order: list[TwinValue]) -> None:
    state = DeviceState()
    for side in order:
        state.apply(twins(a=side), PROPERTIES)
    reported = state.twins["a"].reported
    assert reported is not None
    assert reported.value == "5"


@given(st.dictionaries(st.sampled_from("ab"), value, max_size=2), st.sampled_from(["", "online"]))
def test_what_is_stored_is_read_back(sides: dict[str, TwinValue], word: str) -> None:
    state = DeviceState()
    state.apply(twins(**sides), PROPERTIES)
    state.apply(StateReport("default", "d", 5, word, ""), PROPERTIES)
    obj = json.loads(new_status(("default", "d"), "u-1"))
    obj["metadata"]["resourceVersion"] = "7"
    obj["status"] = status_fields(state)
    again, version, owner = parse_status(json.dumps(obj).encode())
    assert (version, owner) == ("7", "u-1")
    assert status_fields(again) == status_fields(state)


def test_the_same_again_is_no_news() -> None:
    state = DeviceState()
    report = twins(a=TwinValue("1", 1, 1, "int"), z=TwinValue("1", 1, 1, "int"))
    assert state.apply(report, PROPERTIES) == (True, 1)
    assert state.apply(report, PROPERTIES) == (False, 1)
    assert state.keep_only({"b"})
    assert not state.keep_only({"b"})


def test_a_clock_that_was_set_back_by_days_does_not_silence_a_state() -> None:
    state = DeviceState()
    day = 24 * 3600 * 1000
    for at, word, expected in (
        (3 * day, "online", "online"),
        (3 * day - 5, "offline", "online"),
        (9, "ok", "ok"),
    ):
        state.apply(StateReport("default", "d", at, word, ""), PROPERTIES)
        assert state.state == expected


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"status": 1}', b'{"status": {"twins": {}}}'])
def test_an_unreadable_status_counts_as_empty(raw: bytes) -> None:
    state, version, owner = parse_status(raw)
    assert (state, version, owner) == (DeviceState(), "", "")


def test_a_summary_is_short() -> None:
    state = DeviceState(state="online")
    names = frozenset(f"p{n}" for n in range(20))
    state.apply(twins(**{n: TwinValue("x\n" * 50) for n in sorted(names)}), names)
    text = summary(state)["reported"]
    assert text.endswith(",+12")
    assert "\n" not in text
    assert len(text) < 8 * 50


# -- the index


def device(name: str = "d", generation: int = 1, version: str = "10", **spec: Any) -> CachedObject:
    status = spec.pop("status", None)
    obj = {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": spec.pop("uid", "u"),
            "generation": generation,
            "resourceVersion": version,
        },
        "spec": {"nodeName": "n1", "deviceModelRef": {"name": "m"}, **spec},
    } | ({"status": status} if status else {})
    return decode_cached(json.dumps(obj).encode())


def test_a_write_of_the_status_is_no_new_version_and_a_change_of_the_specification_is() -> None:
    first = read_place(device())
    assert first.version == "10"
    status = read_place(device(generation=2, version="11", status={"state": "online"}), first)
    assert status.version == "10"
    labels = read_place(device(generation=2, version="12"), status)
    assert labels.version == "10"
    changed = read_place(device(generation=3, version="13", nodeName="n2"), labels)
    assert changed.version == "13"
    # There and back while nobody looked: an edge may have the state in between.
    assert read_place(device(generation=5, version="15", nodeName="n2"), changed).version == "15"
    assert read_place(device(generation=4, version="14", uid="other", nodeName="n2"), changed).version == "14"


def test_a_device_seen_for_the_first_time_says_itself_what_its_edge_should_have() -> None:
    delivery = {"generation": 4, "version": "9"}
    assert read_place(device(generation=4, version="20", status={"delivery": delivery})).version == "9"
    assert read_place(device(generation=5, version="20", status={"delivery": delivery})).version == "20"
    for junk in ({"delivery": "x"}, {"delivery": {"generation": "4"}}, {}):
        assert read_place(device(generation=4, version="20", status=junk)).version == "20"


def test_a_device_that_cannot_be_read_is_on_no_node() -> None:
    for spec in ({"nodeName": 5}, {"properties": "x"}, {"deviceModelRef": []}):
        assert read_place(device(**spec)).node == ""


names = st.sampled_from(["d1", "d2", "d3"])
change = st.tuples(
    st.sampled_from(["put", "remove"]),
    names,
    st.sampled_from(["", "n1", "n2"]),
    st.sampled_from(["", "m1", "m2"]),
)


@given(st.lists(change, max_size=30))
def test_the_index_agrees_with_a_plain_table(changes: list[tuple[str, str, str, str]]) -> None:
    index, table = DeviceIndex(), {}
    for what, name, node, model in changes:
        key = ("default", name)
        if what == "remove":
            index.remove(key)
            table.pop(key, None)
            continue
        ref = {"name": model} if model else None
        index.put(key, read_place(device(name, nodeName=node, deviceModelRef=ref)))
        table[key] = (node, ("default", model) if model else None)
    assert len(index) == len(table)
    for node in ("n1", "n2"):
        here = {key: model for key, (where, model) in table.items() if where == node}
        assert set(index.devices(node)) == set(here)
        assert set(index.models(node)) == {model for model in here.values() if model}
    for name in ("m1", "m2"):
        model = ("default", name)
        users = {key for key, (_, used) in table.items() if used == model}
        assert set(index.devices_of(model)) == users
        assert set(index.nodes(model)) == {table[key][0] for key in users if table[key][0]}
        assert index.uses("n1", model) == any(table[key][0] == "n1" for key in users)
