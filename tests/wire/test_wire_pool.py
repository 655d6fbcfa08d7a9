"""The message pool: order, newest version, resends, bounds."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_support import answer, down, gone, up

from edgehive.wire.outbound import Outbound
from edgehive.wire.pool import NodeMessagePool, PoolLimits, Verdict


def sent(pool: NodeMessagePool, now: float = 0.0) -> list[Outbound]:
    return pool.take(now, 100)


def ack(pool: NodeMessagePool, message: Outbound, now: float = 0.0) -> bool:
    return pool.receive_ack(message.message.id, now) is not None


def test_several_objects_fly_at_once_one_message_each() -> None:
    pool = NodeMessagePool(limits=PoolLimits(window=2))
    messages = [down("a"), down("b"), down("c"), down("a", 2)]
    assert [pool.offer(m, 0) for m in messages] == [
        Verdict.QUEUED,
        Verdict.QUEUED,
        Verdict.QUEUED,
        Verdict.REPLACED,
    ]
    assert sent(pool) == [messages[3], messages[1]]
    assert sent(pool) == []
    assert ack(pool, messages[1])
    assert sent(pool) == [messages[2]]
    assert (pool.depth, pool.in_flight) == (2, 2)


def test_the_newest_version_follows_the_one_in_flight() -> None:
    pool = NodeMessagePool()
    first, second, third = down(version=1), down(version=2), down(version=3)
    pool.offer(first, 0)
    assert sent(pool) == [first]
    assert pool.offer(second, 0) is Verdict.QUEUED
    assert pool.offer(third, 0) is Verdict.REPLACED
    assert sent(pool) == []
    ack(pool, first)
    assert sent(pool) == [third]


def test_what_was_sent_or_acknowledged_is_not_sent_again() -> None:
    pool = NodeMessagePool()
    first = down(version=5)
    pool.offer(first, 0)
    assert pool.offer(down(version=5), 0) is Verdict.STALE
    sent(pool)
    assert pool.offer(down(version=4), 0) is Verdict.STALE
    ack(pool, first)
    assert pool.offer(down(version=5), 0) is Verdict.DONE
    assert pool.depth == 0


@pytest.mark.parametrize("version", ["", "abc", "0x10", "١٢", "-3", "9" * 30])
def test_a_version_that_is_no_number_never_crashes(version: str) -> None:
    pool = NodeMessagePool()
    assert pool.offer(down(version=version), 0) is Verdict.NO_VERSION
    assert pool.offer(down(version=version, operation="delete"), 0) is Verdict.QUEUED


def test_a_delete_is_not_overtaken_by_a_stale_update() -> None:
    pool = NodeMessagePool()
    update, delete = down(version=1), gone()
    pool.offer(update, 0)
    assert pool.offer(delete, 0) is Verdict.REPLACED
    assert pool.offer(down(version=9), 0) is Verdict.STALE
    assert sent(pool) == [delete]
    assert ack(pool, delete)
    assert pool.offer(down(version=10), 0) is Verdict.DONE
    assert pool.offer(gone(), 0) is Verdict.DONE
    assert sent(pool) == []


def test_a_deletion_timestamp_travels_as_an_update_before_the_delete() -> None:
    pool = NodeMessagePool()
    ending = down(version=2, deletionTimestamp="2026-01-01T00:00:00Z")
    assert ending.deleting
    pool.offer(ending, 0)
    assert sent(pool) == [ending]
    last = down(version=3, operation="delete")
    pool.offer(last, 0)
    ack(pool, ending)
    assert sent(pool) == [last]


def test_a_new_incarnation_waits_for_the_delete_of_the_old_one() -> None:
    pool = NodeMessagePool()
    old, delete, new = down(version=1, uid="a"), gone(uid="a"), down(version=5, uid="b", operation="insert")
    pool.offer(old, 0)
    sent(pool)
    pool.offer(delete, 0)
    pool.offer(new, 0)
    ack(pool, old)
    assert sent(pool) == [delete]
    assert sent(pool) == []
    ack(pool, delete)
    assert sent(pool) == [new]


def test_the_delete_goes_first_even_if_it_is_offered_last() -> None:
    pool = NodeMessagePool()
    new, delete = down(version=5, uid="b"), gone(uid="a")
    pool.offer(new, 0)
    pool.offer(delete, 0)
    assert sent(pool) == [delete]
    ack(pool, delete)
    assert sent(pool) == [new]


def test_a_late_delete_of_the_old_incarnation_goes_out_for_pods_only() -> None:
    """The original compares UIDs before it removes a pod, and nothing else."""
    pool = NodeMessagePool()
    pool.offer(down(version=5, uid="b"), 0)
    pool.offer(down("cm", 5, uid="b", kind="ConfigMap"), 0)
    sent(pool)
    assert pool.offer(gone(uid="a"), 0) is Verdict.QUEUED
    assert pool.offer(gone("cm", uid="a", kind="ConfigMap"), 0) is Verdict.STALE


def test_an_update_of_an_older_incarnation_is_stale() -> None:
    pool = NodeMessagePool()
    pool.offer(down(version=9, uid="b"), 0)
    assert pool.offer(down(version=3, uid="a"), 0) is Verdict.STALE


def test_a_delete_without_uid_is_for_the_name() -> None:
    pool = NodeMessagePool()
    delete = gone(uid="")
    pool.offer(down(version=1), 0)
    assert pool.offer(delete, 0) is Verdict.REPLACED
    assert sent(pool) == [delete]
    assert ack(pool, delete)


def test_resends_are_identical_every_five_seconds_five_times_a_round() -> None:
    pool = NodeMessagePool(limits=PoolLimits(backoff=1.0))
    message = down()
    pool.offer(message, 0)
    times, now = [], 0.0
    frames = {m.frame for m in sent(pool, now)}
    while now < 40:
        deadline = pool.deadline()
        assert deadline is not None
        now = deadline
        assert pool.handle_timer(now) == []
        for m in sent(pool, now):
            frames.add(m.frame)
            times.append(now)
    assert times[:6] == [5.0, 10.0, 15.0, 20.0, 26.0, 31.0]
    assert len(frames) == 1
    assert ack(pool, message, 41.0)
    assert pool.deadline() is None
    assert pool.stats.resent == len(times)


def test_a_stubborn_object_does_not_hold_up_the_others() -> None:
    pool = NodeMessagePool(limits=PoolLimits(window=1))
    first, second = down("a"), down("b")
    pool.offer(first, 0)
    pool.offer(second, 0)
    assert sent(pool) == [first]
    pool.handle_timer(5.0)
    assert sent(pool, 5.0) == [first, second]


def test_stubborn_objects_fill_the_window_in_the_end() -> None:
    pool = NodeMessagePool(limits=PoolLimits(window=2, sends=1000))
    for i in range(40):
        pool.offer(down(f"o{i}"), 0)
    now = 0.0
    for _ in range(40):
        sent(pool, now)
        now += 5.0
        pool.handle_timer(now)
    assert pool.in_flight <= 2 * 4 + 2 + 2


def test_the_round_pauses_grow() -> None:
    pool = NodeMessagePool(limits=PoolLimits(sends=1, resend_gap=1.0, backoff=1.0, backoff_max=8.0))
    pool.offer(down(), 0)
    now, times = 0.0, []
    for _ in range(30):
        times.extend([now] * len(sent(pool, now)))
        deadline = pool.deadline()
        assert deadline is not None
        now = deadline
        pool.handle_timer(now)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps[:5] == [2.0, 3.0, 5.0, 9.0, 9.0]


def test_a_newer_version_takes_the_place_of_a_resend() -> None:
    pool = NodeMessagePool()
    first, second = down(version=1), down(version=2)
    pool.offer(first, 0)
    sent(pool)
    pool.offer(second, 1)
    pool.handle_timer(5.0)
    assert sent(pool, 5.0) == [second]
    assert not ack(pool, first)
    assert ack(pool, second)


def test_a_delete_in_flight_is_repeated_before_the_new_incarnation() -> None:
    pool = NodeMessagePool()
    delete, new = gone(uid="a"), down(version=3, uid="b")
    pool.offer(delete, 0)
    sent(pool)
    pool.offer(new, 0)
    pool.handle_timer(5.0)
    assert sent(pool, 5.0) == [delete]


def test_an_answer_nobody_acknowledges_is_given_up_and_recorded_nowhere() -> None:
    pool = NodeMessagePool()
    message = answer(version=4)
    pool.offer(message, 0)
    given, now = [], 0.0
    sent(pool)
    while not given:
        deadline = pool.deadline()
        assert deadline is not None
        now = deadline
        given = pool.handle_timer(now)
        sent(pool, now)
    assert now == 25.0
    assert [g.message for g in given] == [message]
    assert pool.depth == 0
    update = down("cm", 4, kind="ConfigMap")
    assert pool.offer(update, now) is Verdict.QUEUED


def test_an_update_does_not_wait_for_an_unacknowledged_answer() -> None:
    pool = NodeMessagePool()
    message, update = answer(version=4), down("cm", 5, kind="ConfigMap")
    pool.offer(message, 0)
    sent(pool)
    pool.offer(update, 0)
    assert [g.message for g in pool.handle_timer(5.0)] == [message]
    assert sent(pool, 5.0) == [update]


def test_every_asker_gets_an_answer_and_none_goes_back_in_time() -> None:
    pool = NodeMessagePool()
    first, second = answer(version=4, parent="q1"), answer(version=4, parent="q2")
    assert pool.offer(first, 0) is Verdict.QUEUED
    assert pool.offer(second, 0) is Verdict.QUEUED
    assert sent(pool) == [first]
    ack(pool, first)
    assert sent(pool) == [second]
    ack(pool, second)
    pool.offer(down("cm", 7, kind="ConfigMap"), 0)
    assert pool.offer(answer(version=6), 0) is Verdict.STALE


def test_an_older_update_does_not_follow_a_newer_answer() -> None:
    pool = NodeMessagePool()
    pool.offer(answer(version=6), 0)
    sent(pool)
    assert pool.offer(down("cm", 5, kind="ConfigMap"), 0) is Verdict.STALE


def test_a_full_pool_asks_for_a_resync() -> None:
    pool = NodeMessagePool(limits=PoolLimits(objects=4))
    messages = [down(f"o{i}") for i in range(5)]
    verdicts = [pool.offer(m, 0) for m in messages]
    assert verdicts[-1] is Verdict.FULL
    assert pool.needs_resync
    assert not pool.ready_for_resync
    assert pool.offer(down("o0", 2), 0) is Verdict.REPLACED
    for m in sent(pool):
        ack(pool, m)
    assert pool.ready_for_resync
    pool.resynced()
    assert not pool.needs_resync


def test_fire_once_messages_are_sent_once_and_the_oldest_is_dropped() -> None:
    pool = NodeMessagePool(limits=PoolLimits(unacked=2))
    messages = [
        Outbound(up("publish", f"topic/{i}", group="user", source="router_eventbus")) for i in range(3)
    ]
    for m in messages:
        pool.offer(m, 0)
    assert pool.stats.dropped == 1
    assert pool.pending_once() == messages[1:]
    assert sent(pool) == messages[1:]
    assert sent(pool) == []
    assert pool.deadline() is None


def test_neither_class_starves_the_other() -> None:
    pool = NodeMessagePool()
    for i in range(10):
        pool.offer(down(f"o{i}"), 0)
        pool.offer(Outbound(up("publish", f"t/{i}", group="user")), 0)
    kinds = [m.ack for m in pool.take(0, 6)]
    assert kinds == [True, False] * 3


def test_marks_of_deleted_objects_are_bounded() -> None:
    pool = NodeMessagePool()
    for i in range(1500):
        message = gone(f"o{i}")
        pool.offer(message, 0)
        sent(pool)
        ack(pool, message)
    assert len(pool._lanes) <= 1001
    assert pool.depth == pool.in_flight == 0


def test_the_ack_gives_the_latency() -> None:
    pool = NodeMessagePool()
    message = down()
    pool.offer(message, 0)
    pool.take(1.0)
    delivered = pool.receive_ack(message.message.id, 1.25)
    assert delivered is not None
    assert delivered.latency == 0.25
    assert pool.receive_ack(message.message.id, 2.0) is None
    assert pool.receive_ack("never heard of it", 2.0) is None


steps = st.lists(
    st.tuples(
        st.sampled_from(["update", "delete", "recreate", "answer", "ack", "timer"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 3),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(steps)
def test_random_histories_keep_the_order(history: list[tuple[str, str, int]]) -> None:
    """Whatever happens: one in flight per name, versions of an incarnation never fall, nothing after its delete."""
    pool = NodeMessagePool(limits=PoolLimits(window=2, objects=3))
    version, now = 1, 0.0
    uids = {"a": 0, "b": 0}
    flying: dict[str, Outbound] = {}
    newest: dict[tuple[str, str], int] = {}
    deleted: set[tuple[str, str]] = set()
    for what, name, number in history:
        version += 1
        uid = f"{name}{uids[name]}"
        if what == "update":
            pool.offer(down(name, max(1, version - number), uid=uid, kind="ConfigMap"), now)
        elif what == "answer":
            pool.offer(answer(name, max(1, version - number), uid=uid), now)
        elif what == "delete":
            pool.offer(gone(name, uid=uid, kind="ConfigMap"), now)
        elif what == "recreate":
            pool.offer(gone(name, uid=uid, kind="ConfigMap"), now)
            uids[name] += 1
            pool.offer(down(name, version, uid=f"{name}{uids[name]}", kind="ConfigMap"), now)
        elif what == "ack" and flying:
            pool.receive_ack(flying.pop(sorted(flying)[number % len(flying)]).message.id, now)
        else:
            now += 5.0
            pool.handle_timer(now)
        for m in pool.take(now):
            key = (m.message.resource, m.uid)
            old = flying.get(m.message.resource)
            if old is not None and old is not m:
                assert old.uid != m.uid or old.version <= m.version or m.is_delete
            flying[m.message.resource] = m
            if m.is_delete:
                deleted.add(key)
            else:
                assert key not in deleted, "sent after its delete"
                assert m.version >= newest.get(key, 0), "went back in time"
                newest[key] = m.version
        assert pool.in_flight <= 2
        assert pool.depth <= 3
    for _ in range(300):  # drains completely once the edge answers
        for m in pool.take(now):
            pool.receive_ack(m.message.id, now)
        if pool.depth == 0:
            break
        for m in flying.values():
            pool.receive_ack(m.message.id, now)
        now += 5.0
        pool.handle_timer(now)
    assert pool.depth == 0
    assert pool.in_flight == 0


def test_answers_to_a_peer_that_asks_in_a_loop_are_bounded() -> None:
    pool = NodeMessagePool()
    answers = [answer(version=5) for _ in range(500)]
    for message in answers:
        pool.offer(message, 0)
    delivered = []
    while taken := sent(pool):
        delivered += taken
        assert ack(pool, taken[0])
    assert delivered == answers[-16:]
