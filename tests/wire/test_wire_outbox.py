"""What the edge owes the cloud."""

import contextlib
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_support import up

from edgehive.kit.errors import StorageError
from edgehive.wire.message import Message
from edgehive.wire.outbox import Entry, Outbox, OutboxLimits, Settled, subject_of


class Store:
    """A disk that can refuse."""

    def __init__(self) -> None:
        self.rows: dict[int, Entry] = {}
        self.broken = False

    def load(self) -> list[Entry]:
        return list(reversed(self.rows.values()))  # any order

    def save(self, entry: Entry, replaces: int | None) -> None:
        if self.broken:
            raise StorageError("full")
        self.rows.pop(replaces or -1, None)
        self.rows[entry.sequence] = entry

    def drop(self, sequence: int) -> None:
        if self.broken:
            raise StorageError("full")
        self.rows.pop(sequence, None)


def status(pod: str = "p", number: int = 1) -> Message:
    return up("patch", f"default/podpatch/{pod}", json.dumps({"n": number}))


def removal(pod: str = "p") -> Message:
    return up("delete", f"default/pod/{pod}", {"preconditions": {"uid": "u"}})


def reply(message: Message, body: object = "OK") -> Message:
    return up("response", message.resource, body, parent_id=message.id)


def failure(code: int) -> object:
    return {"Object": None, "Err": {"ErrStatus": {"code": code, "reason": "x"}}}


def test_kept_until_answered() -> None:
    store = Store()
    outbox = Outbox(store=store)
    message = status()
    entry = outbox.put(message)
    assert store.rows == {entry.sequence: entry}
    assert outbox.take(0.0, 10) == [message]
    assert outbox.expects(message.id)
    assert len(store.rows) == 1
    settled = outbox.receive_answer(reply(message), 1.0)
    assert isinstance(settled, Settled)
    assert settled.entry is entry
    assert store.rows == {}
    assert len(outbox) == 0
    assert outbox.deadline() is None
    assert outbox.receive_answer(reply(message), 1.0) is None


def test_one_subject_keeps_its_order_others_go_ahead() -> None:
    outbox = Outbox(store=Store())
    first, second, other = status(), removal(), status("q")
    for message in (first, second, other):
        outbox.put(message)
    assert outbox.take(0.0, 10) == [first, other]
    outbox.receive_answer(reply(first), 0.0)
    assert outbox.take(0.0, 10) == [second]


def test_a_newer_status_takes_the_place_of_one_that_was_not_sent() -> None:
    store = Store()
    outbox = Outbox(store=store)
    outbox.put(status(number=1), replace=True)
    newer = status(number=2)
    outbox.put(newer, replace=True)
    assert len(store.rows) == 1
    assert outbox.take(0.0, 10) == [newer]
    newest = status(number=3)
    outbox.put(newest, replace=True)  # not in place of the one in flight
    assert len(outbox) == 2
    outbox.receive_answer(reply(newer), 0.0)
    assert outbox.take(0.0, 10) == [newest]


def test_a_status_is_not_moved_ahead_of_a_later_delete() -> None:
    outbox = Outbox(store=Store())
    first, second, third = status(number=1), removal(), status(number=2)
    for message in (first, second, third):
        outbox.put(message, replace=True)
    order = []
    while taken := outbox.take(0.0, 10):
        order += taken
        outbox.receive_answer(reply(taken[0]), 0.0)
    assert order == [first, second, third]


def test_a_restart_finds_everything_in_order() -> None:
    store = Store()
    outbox = Outbox(store=store)
    messages = [status(), status("q"), removal()]
    for message in messages:
        outbox.put(message)
    outbox.take(0.0, 1)
    again = Outbox(store=store)
    assert again.take(0.0, 10) == messages[:2]
    later = again.put(status("z"))
    assert later.sequence > max(s for s in store.rows if s != later.sequence)


def test_nothing_is_accepted_that_the_disk_refuses() -> None:
    store = Store()
    outbox = Outbox(store=store)
    store.broken = True
    with pytest.raises(StorageError):
        outbox.put(status())
    assert len(outbox) == 0
    assert outbox.take(0.0, 10) == []


def test_bounded() -> None:
    outbox = Outbox(store=Store(), limits=OutboxLimits(entries=2, in_flight=1))
    outbox.put(status("a"), replace=True)
    outbox.put(status("b"))
    with pytest.raises(StorageError, match="full"):
        outbox.put(status("c"))
    outbox.put(status("a", 2), replace=True)
    assert len(outbox.take(0.0, 10)) == 1
    assert not outbox.wants_to_send()


def test_a_lost_link_sends_again_in_the_old_order() -> None:
    outbox = Outbox(store=Store())
    messages = [status("a"), status("b"), status("c")]
    for message in messages:
        outbox.put(message)
    assert outbox.take(0.0, 2) == messages[:2]
    outbox.link_lost()
    outbox.link_lost()
    assert outbox.in_flight == 0
    assert outbox.take(9.0, 10) == messages
    assert outbox.stats.retried == 2


def test_no_answer_means_again_with_growing_pauses() -> None:
    outbox = Outbox(store=Store(), limits=OutboxLimits(answer_timeout=10.0, retry=1.0, retry_max=4.0))
    outbox.put(status())
    now, times = 0.0, []
    for _ in range(12):
        times.extend([now] * len(outbox.take(now, 10)))
        deadline = outbox.deadline()
        if deadline is None:
            break
        now = max(now, deadline)
        outbox.handle_timer(now)
    assert times[:5] == [0.0, 11.0, 23.0, 37.0, 51.0]


@pytest.mark.parametrize("code", [429, 500, 503, 504])
def test_a_passing_refusal_means_again(code: int) -> None:
    outbox = Outbox(store=Store())
    message = status()
    outbox.put(message)
    outbox.take(0.0, 10)
    assert outbox.receive_answer(reply(message, failure(code)), 0.0) is None
    assert outbox.take(0.5, 10) == []
    outbox.handle_timer(1.0)
    assert outbox.take(1.0, 10) == [message]


@pytest.mark.parametrize("code", [400, 404, 410, 422])
def test_a_final_refusal_settles(code: int) -> None:
    outbox = Outbox(store=Store())
    message = status()
    outbox.put(message)
    outbox.take(0.0, 10)
    assert outbox.receive_answer(reply(message, failure(code)), 0.0) is not None


@pytest.mark.parametrize("code", [401, 403, 409])
def test_what_may_pass_is_tried_a_few_times(code: int) -> None:
    limits = OutboxLimits(conflicts=3, refusals=3, retry=1.0, retry_max=1.0)
    outbox = Outbox(store=Store(), limits=limits)
    message = status()
    outbox.put(message)
    now = 0.0
    for _ in range(2):
        outbox.take(now, 10)
        assert outbox.receive_answer(reply(message, failure(code)), now) is None
        now += 1.0
        outbox.handle_timer(now)
    outbox.take(now, 10)
    assert outbox.receive_answer(reply(message, failure(code)), now) is not None


def test_the_conflict_of_an_object_that_is_gone_holds_up_nobody() -> None:
    outbox = Outbox(store=Store())
    old, new = status(), status()
    outbox.put(old)
    outbox.put(new)
    assert outbox.take(0.0, 10) == [old]
    text = "Precondition failed: UID in precondition: old, UID in object meta: new"
    answer = {"Object": None, "Err": {"ErrStatus": {"code": 409, "reason": "Conflict", "message": text}}}
    assert outbox.receive_answer(reply(old, answer), 0.0) is not None
    assert outbox.take(0.0, 10) == [new]


def report(device: str = "d", number: int = 1) -> Message:
    return msgspec.structs.replace(
        up("update", f"device/default/{device}/twin/edge_updated", {"n": number}), source="twin"
    )


def test_a_device_report_that_is_never_answered_is_given_up_and_what_follows_goes_on() -> None:
    store = Store()
    outbox = Outbox(store=store, limits=OutboxLimits(unanswered=3, answer_timeout=10.0, retry=1.0))
    first, second = report(number=1), report(number=2)
    outbox.put(first)
    now, sent = 0.0, []
    outbox.put(pod := status())
    given_up = []
    for _ in range(40):
        sent += outbox.take(now, 10)
        if sent.count(first) == 3 and second not in sent and len(outbox) == 2:
            outbox.put(second)
        now += 5.0
        outbox.handle_timer(now)
        given_up += [entry.message for entry in outbox.given_up()]
    assert (sent.count(first), sent.count(second)) == (3, 3)
    assert given_up == [first, second]
    assert sent.count(pod) > 3, "everything else is repeated for ever"
    assert [entry.message for entry in store.rows.values()] == [pod]
    assert outbox.stats.given_up == 2


def test_device_reports_without_an_answer_do_not_hold_up_pods() -> None:
    outbox = Outbox(store=Store(), limits=OutboxLimits(in_flight=4, reports=2))
    reports = [report(f"d{n}") for n in range(5)]
    for message in reports:
        outbox.put(message)
    assert outbox.take(0.0, 10) == reports[:2]
    assert not outbox.wants_to_send()
    outbox.put(pod := status())
    assert outbox.wants_to_send()
    assert outbox.take(0.0, 10) == [pod]
    outbox.receive_answer(reply(reports[0]), 1.0)
    assert outbox.take(1.0, 10) == [reports[2]]


def test_a_lost_link_does_not_count_as_no_answer() -> None:
    outbox = Outbox(store=Store(), limits=OutboxLimits(unanswered=2, answer_timeout=10.0))
    outbox.put(report())
    for now in range(20):
        assert len(outbox.take(float(now), 1)) == 1
        outbox.link_lost()
    assert len(outbox) == 1
    assert outbox.given_up() == []


def test_an_answered_message_the_disk_will_not_forget_stays_behind_nothing_newer() -> None:
    store = Store()
    outbox = Outbox(store=store)
    message = status(number=1)
    outbox.put(message)
    outbox.take(0.0, 10)
    store.broken = True
    assert outbox.receive_answer(reply(message), 0.0) is not None
    assert len(store.rows) == 1
    with pytest.raises(StorageError):
        outbox.put(status(number=2))
    store.broken = False
    outbox.handle_timer(1.0)
    assert store.rows == {}
    outbox.put(status(number=2))


def test_subjects() -> None:
    assert subject_of("default/podpatch/p") == subject_of("default/podstatus/p") == "default/pod/p"
    assert subject_of("null/nodepatch/n") == "null/node/n"
    assert subject_of("device/default/s/twin/edge_updated") == "device/default/s/twin/edge_updated"
    assert subject_of("default/podstatus") == "default/podstatus"


actions = st.lists(
    st.sampled_from(
        ["put", "replace", "delete", "take", "ok", "retry", "lost", "restart", "time", "break", "mend"]
    ),
    max_size=50,
)


@settings(max_examples=120)
@given(actions)
def test_random_histories_lose_nothing(history: list[str]) -> None:
    """What was accepted last reaches the cloud last, whatever happens in between."""
    store, now, number = Store(), 0.0, 0
    outbox = Outbox(store=store, limits=OutboxLimits(answer_timeout=3.0, in_flight=2))
    flying: list[Message] = []
    accepted, arrived = 0, 0

    def arrive(message: Message, body: object) -> None:
        nonlocal arrived
        arrived = json.loads(json.loads(message.content))["n"] if message.operation == "patch" else arrived
        outbox.receive_answer(reply(message, body), now)

    for action in history:
        if action in ("put", "replace"):
            number += 1
            try:
                outbox.put(status(number=number), replace=action == "replace")
                accepted = number
            except StorageError:
                pass
        elif action == "delete":
            with contextlib.suppress(StorageError):
                outbox.put(removal("other"))
        elif action == "take":
            flying += outbox.take(now, 2)
        elif action in ("ok", "retry") and flying:
            arrive(flying.pop(0), "OK" if action == "ok" else failure(503))
        elif action == "lost":
            flying.clear()
            outbox.link_lost()
        elif action == "restart":
            flying.clear()
            outbox = Outbox(store=store, limits=OutboxLimits(answer_timeout=3.0, in_flight=2))
        elif action == "time":
            now += 4.0
            outbox.handle_timer(now)
        elif action in ("break", "mend"):
            store.broken = action == "break"
    store.broken = False
    for _ in range(200):
        outbox.link_lost()
        for message in outbox.take(now, 2):
            arrive(message, "OK")
        now += 70.0
        outbox.handle_timer(now)
    assert arrived >= accepted if accepted else True
    assert len(outbox) == 0
    assert store.rows == {}


def test_what_is_about_a_gone_object_is_let_go_wherever_it_is() -> None:
    store = Store()
    outbox = Outbox(store=store)
    first, second, other = status(number=1), status(number=2), status("q")
    outbox.put(first)
    assert outbox.take(0, 1) == [first]
    outbox.put(second)
    outbox.put(other)
    outbox.forget("default/podpatch/p")
    outbox.forget("default/podpatch/nobody")
    assert outbox.receive_answer(reply(first), 1) is None
    assert len(outbox) == 1
    assert outbox.in_flight == 0
    assert outbox.take(1, 10) == [other]
    third = status(number=3)
    outbox.put(third)
    assert outbox.take(1, 10) == [third]
    outbox.receive_answer(reply(third, failure(503)), 1)
    assert outbox.deadline() is not None
    outbox.forget("default/podpatch/p")  # while it waits to be repeated
    outbox.receive_answer(reply(other), 2)
    assert (len(outbox), store.rows, outbox.deadline()) == (0, {}, None)


def test_what_is_not_durable_never_reaches_the_disk_and_takes_an_older_one_from_it() -> None:
    store = Store()
    outbox = Outbox(store=store)
    first, second, third = (status(number=n) for n in range(3))
    outbox.put(first)
    assert len(store.rows) == 1
    outbox.put(second, replace=True, durable=False)
    assert store.rows == {}
    assert outbox.take(0, 9) == [second]
    outbox.put(third, replace=True)  # the second is in flight: the third waits, on disk
    outbox.receive_answer(reply(second), 1)
    assert [entry.message for entry in store.rows.values()] == [third]
    assert outbox.take(1, 9) == [third]
    outbox.receive_answer(reply(third), 2)
    assert (len(outbox), store.rows) == (0, {})
    outbox.put(first, durable=False)
    outbox.forget(first.resource)
    assert (len(outbox), store.rows) == (0, {})
    outbox.put(first, durable=False)
    outbox.put(second, replace=True, durable=True)
    assert [entry.message for entry in store.rows.values()] == [second]
