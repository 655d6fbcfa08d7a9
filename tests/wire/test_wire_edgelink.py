"""The edge's end of the link."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_support import down, stamp, up

from edgehive.kit.errors import ProtocolError
from edgehive.wire.edgelink import (
    Answered,
    Connected,
    Dial,
    Disconnected,
    EdgeLink,
    Incoming,
    LinkOptions,
    RequestFailed,
    SendPing,
)
from edgehive.wire.message import Message, decode_message, encode_message
from edgehive.wire.outbox import Entry, Outbox, OutboxLimits, Settled


class Memory:
    """A store that always works."""

    def __init__(self) -> None:
        self.rows: dict[int, Entry] = {}

    def load(self) -> list[Entry]:
        return list(self.rows.values())

    def save(self, entry: Entry, replaces: int | None) -> None:
        self.rows.pop(replaces or -1, None)
        self.rows[entry.sequence] = entry

    def drop(self, sequence: int) -> None:
        self.rows.pop(sequence, None)


def link(rng: object = None, limits: OutboxLimits | None = None, **options: float) -> EdgeLink:
    return EdgeLink(
        now=0.0,
        stamp=stamp,
        rng=random.Random(1).random if rng is None else rng,  # type: ignore[arg-type]
        outbox=Outbox(store=Memory(), limits=limits),
        options=LinkOptions(**options),  # type: ignore[arg-type]
    )


def up_link(**options: float) -> EdgeLink:
    one = link(**options)
    one.handle_timer(0.0)
    one.receive_connected(0.0)
    one.data_to_send(0.0)
    one.events()
    return one


def frames(one: EdgeLink, now: float) -> list[Message]:
    return [decode_message(frame) for frame in one.data_to_send(now)]


def test_dials_at_once_and_says_keepalive_first() -> None:
    one = link()
    assert one.deadline() == 0.0
    one.handle_timer(0.0)
    assert one.events() == [Dial()]
    assert not one.up
    assert one.data_to_send(0.0) == []
    one.receive_connected(0.2)
    assert one.events() == [Connected()]
    (keepalive,) = frames(one, 0.2)
    assert (
        keepalive.source,
        keepalive.group,
        keepalive.operation,
        keepalive.resource,
        keepalive.content,
    ) == (
        "websocket",
        "resource",
        "keepalive",
        "node",
        b'"ping"',
    )


def test_keepalives_go_out_every_heartbeat() -> None:
    one = up_link(heartbeat=15.0, ping=1000.0, dead_after=2000.0, deaf_after=5000.0)
    times = []
    while len(times) < 3:
        deadline = one.deadline()
        assert deadline is not None
        one.handle_timer(deadline)
        times += [deadline] * len(frames(one, deadline))
    assert times == [15.0, 30.0, 45.0]


def test_a_silent_link_is_pinged_and_then_given_up() -> None:
    one = up_link(ping=5.0, dead_after=15.0, heartbeat=100.0)
    seen = []
    while not seen or seen[-1][1] is not Disconnected:
        deadline = one.deadline()
        assert deadline is not None
        one.handle_timer(deadline)
        seen += [(deadline, type(event)) for event in one.events()]
    assert seen == [(5.0, SendPing), (10.0, SendPing), (15.0, Disconnected)]
    assert not one.up


def test_a_pong_or_a_message_is_a_sign_of_life() -> None:
    one = up_link(ping=5.0, dead_after=15.0, heartbeat=100.0)
    one.receive_pong(14.0)
    one.handle_timer(20.0)
    one.receive_frame(down().frame, 28.0)
    one.handle_timer(42.9)
    assert one.up
    one.handle_timer(43.0)
    assert not one.up


def test_a_cloud_that_pongs_and_never_speaks_is_left() -> None:
    one = up_link(ping=5.0, dead_after=15.0, deaf_after=60.0)
    one.send_kept(up("patch", "default/podpatch/p", "{}"), 0.0)
    for second in range(1, 60):
        one.receive_pong(float(second))
        one.handle_timer(float(second))
    assert one.up
    one.receive_pong(60.0)
    one.handle_timer(60.0)
    assert not one.up


def test_reconnects_after_about_a_second_and_backs_off() -> None:
    one = link(rng=lambda: 0.5, reconnect=1.0, reconnect_max=8.0)
    now, waits = 0.0, []
    for _ in range(6):
        one.handle_timer(now)
        assert one.events()[-1] == Dial()
        one.receive_closed("refused", now)
        deadline = one.deadline()
        assert deadline is not None
        waits.append(deadline - now)
        now = deadline
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_link_that_lived_resets_the_back_off_and_a_short_one_does_not() -> None:
    one = link(rng=lambda: 0.5, reconnect=1.0, stable_after=10.0)
    one.handle_timer(0.0)
    one.receive_connected(0.0)
    one.receive_closed("cut", 1.0)
    assert one.deadline() == 2.0
    one.handle_timer(2.0)
    one.receive_connected(2.0)
    one.receive_closed("cut", 3.0)
    assert one.deadline() == 5.0
    one.handle_timer(5.0)
    one.receive_connected(5.0)
    one.receive_closed("cut", 15.0)
    assert one.deadline() == 16.0


def test_a_herd_is_spread_out() -> None:
    rng = random.Random(3)
    waits = []
    for _ in range(200):
        one = up_link()
        one._backoff.rng = rng.random
        one.receive_closed("cloud restarts", 100.0)
        deadline = one.deadline()
        assert deadline is not None
        waits.append(deadline - 100.0)
    assert 0.5 <= min(waits) < 0.6
    assert 1.4 < max(waits) <= 1.5


def test_a_dial_that_never_ends_is_given_up() -> None:
    one = link(dial_timeout=30.0)
    one.handle_timer(0.0)
    one.events()
    assert one.deadline() == 35.0
    one.handle_timer(35.0)
    assert one.events() == [Disconnected("the dial did not end")]
    one.receive_connected(36.0)
    assert not one.up


def test_a_new_certificate_reconnects_at_once() -> None:
    one = up_link()
    one.reconnect("new certificate", 50.0)
    assert one.events() == [Disconnected("new certificate")]
    assert one.deadline() == 50.0


def test_requests_are_answered_by_parent_id() -> None:
    one = up_link()
    request = up("query", "default/configmap/cm")
    assert one.send_request(request, 1.0) == request.id
    assert frames(one, 1.0) == [request]
    answer = up("response", "default/configmap/cm", {}, parent_id=request.id, group="resource")
    one.receive_frame(encode_message(answer), 2.0)
    assert one.events() == [Answered(request.id, answer)]
    assert one.data_to_send(2.0) == []  # the requester acknowledges, after storing
    one.receive_frame(encode_message(answer), 2.0)
    assert one.events() == [Incoming(answer)]  # nobody waits any more


def test_requests_time_out() -> None:
    one = up_link(ping=1000.0, dead_after=1000.0, heartbeat=1000.0)
    fast, slow = up("query", "a/b/c"), up("query", "a/b/d")
    one.send_request(slow, 0.0, timeout=60.0)
    one.send_request(fast, 0.0, timeout=2.0)
    assert len(frames(one, 0.0)) == 2
    assert one.deadline() == 2.0
    one.handle_timer(2.0)
    assert one.events() == [RequestFailed(fast.id, "the cloud did not answer in time")]


def test_a_request_that_timed_out_before_it_was_sent_is_not_sent() -> None:
    one = up_link(rate=1.0, burst=1)
    first, second = up("query", "a/b/c"), up("query", "a/b/d")
    one.send_request(first, 0.0)
    one.send_request(second, 0.0, timeout=0.5)
    assert frames(one, 0.0) == [first]
    one.handle_timer(0.5)
    assert frames(one, 2.0) == []


def test_requests_fail_when_the_link_goes_and_when_it_is_down() -> None:
    one = up_link()
    request = up("query", "a/b/c")
    one.send_request(request, 0.0)
    one.receive_closed("cut", 1.0)
    assert one.events() == [
        RequestFailed(request.id, "connection lost between EdgeCore and CloudCore"),
        Disconnected("cut"),
    ]
    one.send_request(request, 1.0)
    assert one.events() == [RequestFailed(request.id, "not connected")]


def test_waiting_requests_are_bounded() -> None:
    one = up_link(requests=2)
    for i in range(3):
        one.send_request(up("query", f"a/b/c{i}"), 0.0)
    (failed,) = one.events()
    assert isinstance(failed, RequestFailed)
    assert "too many" in failed.reason


def test_kept_messages_are_sent_when_the_link_comes_and_again_when_it_is_lost() -> None:
    one = link()
    message = up("patch", "default/podpatch/p", "{}")
    one.send_kept(message, 0.0)
    one.handle_timer(0.0)
    one.receive_connected(0.0)
    assert frames(one, 0.0)[1:] == [message]
    one.receive_closed("cut", 1.0)
    deadline = one.deadline()
    assert deadline is not None
    one.handle_timer(deadline)
    one.receive_connected(deadline)
    one.events()
    assert frames(one, deadline)[1:] == [message]
    answer = up("response", "default/podpatch/p", {"Object": {"a": 1}, "Err": None}, parent_id=message.id)
    one.receive_frame(encode_message(answer), deadline)
    (settled,) = one.events()
    assert isinstance(settled, Settled)
    assert settled.answer == answer


def test_the_rate_is_limited_but_not_for_acks_and_keepalives() -> None:
    one = up_link(rate=10.0, burst=3, heartbeat=1000.0, ping=1000.0, dead_after=1000.0)
    for i in range(6):
        one.send_once(up("insert", f"default/event/e{i}", {}), 0.0)
    for _ in range(5):
        one.send_ack(down().message, 0.0)
    assert len(one.data_to_send(0.0)) == 5 + 3
    assert one.data_to_send(0.05) == []
    assert one.deadline() == pytest.approx(0.1)
    assert len(one.data_to_send(0.1)) == 1
    assert len(one.data_to_send(10.0)) == 2


def test_no_limit_when_the_rate_is_zero() -> None:
    one = up_link(rate=0.0)
    for i in range(500):
        one.send_once(up("insert", f"default/event/e{i}", {}), 0.0)
    total = 0
    while got := one.data_to_send(0.0):
        total += len(got)
    assert total == 500


def test_requests_kept_messages_and_events_take_turns() -> None:
    one = up_link()
    for i in range(3):
        one.send_once(up("insert", f"default/event/e{i}", {}), 0.0)
        one.send_request(up("query", f"a/b/c{i}"), 0.0)
        one.send_kept(up("patch", f"default/podpatch/p{i}", "{}"), 0.0)
    operations = [m.operation for m in frames(one, 0.0)]
    assert sorted(operations[:3]) == sorted(operations[3:6]) == ["insert", "patch", "query"]


def test_events_are_bounded_the_oldest_goes() -> None:
    one = link(queue=2)
    kept = [up("insert", f"default/event/e{i}", {}) for i in range(3)]
    assert [one.send_once(m, 0.0) for m in kept] == [True, True, False]
    assert one.dropped == 1
    one.handle_timer(0.0)
    one.receive_connected(0.0)
    assert frames(one, 0.0)[1:] == kept[1:]


def test_an_ack_has_the_form_of_the_original() -> None:
    one = up_link()
    message = down(operation="insert").message
    one.send_ack(message, 1.0)
    (ack,) = frames(one, 1.0)
    assert (ack.parent_id, ack.source, ack.group, ack.operation, ack.resource, ack.content) == (
        message.id,
        "edgecontroller",
        "resource",
        "response",
        "default/pod/nginx",
        b'"OK"',
    )
    assert ack.resource_version == ""


def test_acks_are_dropped_without_a_link_and_do_not_pile_up_on_a_stuck_one() -> None:
    one = link()
    one.send_ack(down().message, 0.0)
    one.handle_timer(0.0)
    one.receive_connected(0.0)
    assert len(frames(one, 0.0)) == 1
    message = down().message
    for _ in range(10_001):
        one.send_ack(message, 1.0)
    assert not one.up
    assert one.data_to_send(1.0) == []


def test_who_gets_what_without_a_waiting_request() -> None:
    one = up_link()
    for group, arrives in (("resource", True), ("twin", True), ("taskmanager", True), ("user", False)):
        message = up("response", "twin", "OK", parent_id="long gone", group=group)
        one.receive_frame(encode_message(message), 1.0)
        assert one.events() == ([Incoming(message)] if arrives else [])
    message = up("publish", "topic", "x", group="user", source="router_eventbus")
    one.receive_frame(encode_message(message), 1.0)
    assert one.events() == [Incoming(message)]


def test_transport_operations_are_answered() -> None:
    one = up_link()
    one.receive_frame(encode_message(up("ping", "node", source="x", group="y")), 1.0)
    (answer,) = frames(one, 1.0)
    assert answer.content == b'"ack"'


def test_nonsense_puts_the_link_down() -> None:
    one = up_link()
    with pytest.raises(ProtocolError):
        one.receive_frame(b"nonsense", 1.0)
    assert not one.up
    assert isinstance(one.events()[0], Disconnected)
    one.receive_frame(b"more nonsense", 1.0)  # from the socket being closed: ignored


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["timer", "frame", "pong", "closed", "connected", "send"]), st.floats(0, 20)
        ),
        max_size=40,
    )
)
def test_any_sequence_of_calls_keeps_the_clock_moving(calls: list[tuple[str, float]]) -> None:
    """The deadline is never in the past for long: one `handle_timer` at it moves it on or dials."""
    one, now = link(), 0.0
    for what, step in calls:
        now += step
        if what == "timer":
            one.handle_timer(now)
        elif what == "frame":
            one.receive_frame(down().frame, now)
        elif what == "pong":
            one.receive_pong(now)
        elif what == "closed":
            one.receive_closed("x", now)
        elif what == "connected":
            one.receive_connected(now)
        else:
            one.send_kept(up("patch", "default/podpatch/p", "{}"), now, replace=True)
        one.events()
        one.data_to_send(now)
    for _ in range(6):
        deadline = one.deadline()
        assert deadline is not None
        if deadline > now:
            break
        one.handle_timer(now)
        one.data_to_send(now)
    else:
        pytest.fail("the deadline stands still")
