"""One node over several sessions and several instances: takeover, what outlives a link, what an edge says it holds."""

from dataclasses import replace

from cloudnode_bench import Bench, Caches
from wire_support import down, stamp, up

from edgehive.wire.cloudnode import BACKLOG
from edgehive.wire.held import HOLDINGS_WAIT, Held
from edgehive.wire.message import Message, encode_message
from edgehive.wire.objectsync import CreateSync, RecordSync, SyncKey, SyncRecord, orphaned, reset_plan
from edgehive.wire.outbound import Outbound
from edgehive.wire.pool import Delivered
from edgehive.wire.session import NodeSession

REGISTRATION = encode_message(up("insert", "null/node/edge-1", {}))


def test_a_new_connection_replaces_the_old_and_the_old_cannot_hurt_it() -> None:
    """In KubeEdge the read error of the old socket may end the new session."""
    bench = Bench()
    first = bench.connect()
    second = NodeSession(node="edge-1", now=1.0, stamp=stamp)
    assert bench.node.attach(second, 1.0) is first
    assert first.closed == "replaced by a new connection"
    bench.node.detach(first, 2.0)
    assert bench.node.session is second
    assert second.closed is None


def test_what_is_fired_once_waits_for_the_node() -> None:
    bench = Bench()
    messages = [Outbound(up("publish", f"topic/{i}", group="user")) for i in range(BACKLOG + 5)]
    for message in messages[:-1]:
        bench.node.send(message, 0.0)
    bench.node.send(
        Outbound(up("response", "default/podpatch/p", group="resource")), 0.0
    )  # nobody waits for it
    assert not bench.node.idle
    session = bench.connect()
    bench.node.detach(session, 0.0)  # lost before anything was written
    bench.node.send(messages[-1], 0.0)
    bench.connect()
    sent: list[Message] = []
    while frames := bench.frames():
        sent += frames
    assert [m.id for m in sent] == [m.message.id for m in messages[-BACKLOG:]]


def test_records_of_other_instances_are_looked_at_when_they_arrive() -> None:
    bench = Bench()
    bench.connect()
    record = bench.caches.record("nginx", "u1", "5")
    bench.node.record_changed(record, 1.0)
    assert bench.node.checks() == [record]
    bench.caches.add("web", "u2", 9)
    bench.node.record_changed(bench.caches.record("web", "u2", "4"), 1.0)
    assert [f.resource_version for f in bench.frames()] == ["9"]
    stranger = SyncRecord(SyncKey("edge-2", "default", "u3"), "v1", "Pod", "x")
    bench.node.record_changed(stranger, 1.0)
    assert bench.node.checks() == []


def test_a_record_put_back_by_another_instance_is_put_right() -> None:
    bench = Bench()
    bench.caches.add("nginx", "u1", 9)
    bench.caches.record("nginx", "u1", "4")
    bench.connect()
    (frame,) = bench.frames()
    bench.ack(frame)
    bench.later(0.5)
    assert bench.writes() == [RecordSync(SyncKey("edge-1", "default", "u1"), "9")]
    bench.node.record_changed(
        SyncRecord(SyncKey("edge-1", "default", "u1"), "v1", "Pod", "nginx", "6"), bench.now
    )
    bench.later(0.5)
    assert bench.writes() == [RecordSync(SyncKey("edge-1", "default", "u1"), "9")]


def test_a_record_set_to_zero_ends_the_session_and_sends_everything_again() -> None:
    """A node joins anew, perhaps with an empty disk, while its old session is still thought alive."""
    bench = Bench()
    bench.caches.add("nginx", "u1", 5)
    record = bench.caches.record("nginx", "u1", "3")
    session = bench.connect()
    (frame,) = bench.frames()
    bench.ack(frame)
    (reset,) = reset_plan([replace(record, version="5")])
    bench.caches.known[:] = [replace(record, version=reset.version)]
    bench.node.record_changed(bench.caches.known[0], 1.0)
    assert session.closed == "the node joins anew"
    bench.node.detach(session, 1.0)
    bench.connect()
    assert [f.resource_version for f in bench.frames()] == ["5"]


def test_what_this_session_sent_counts_for_more_than_the_record() -> None:
    bench = Bench()
    bench.caches.add("nginx", "u1", 5)
    bench.caches.record("nginx", "u1", "3")
    bench.connect()
    (frame,) = bench.frames()
    bench.ack(frame)  # version 5, from a cache that lagged: another instance had delivered 7
    bench.node.record_changed(SyncRecord(SyncKey("edge-1", "default", "u1"), "v1", "Pod", "nginx", "7"), 0.0)
    bench.node.send(down(version=7), 0.0)
    assert [f.resource_version for f in bench.frames()] == ["7"]


def test_with_several_instances_a_cached_record_is_confirmed_before_use() -> None:
    bench = Bench(strict=True)
    bench.caches.add("nginx", "u1", 5)
    bench.caches.record("nginx", "u1", "3")
    bench.connect()
    assert bench.frames() == []
    (create,) = bench.writes()
    assert isinstance(create, CreateSync)
    assert len(bench.frames()) == 1
    bench.node.send(down(version=6), 0.0)
    assert bench.writes() == []  # once a session is enough


def test_an_edge_that_starts_is_sent_everything_once_over_as_many_links_as_it_takes() -> None:
    """Its database may be empty: KubeEdge would send nothing until each object changes."""
    bench = Bench()
    for i in range(3):
        bench.caches.add(f"p{i}", f"u{i}", 5)
        bench.caches.record(f"p{i}", f"u{i}", "5")
    session = bench.connect()
    assert bench.frames() == []
    session.receive_frame(REGISTRATION, 1.0)
    assert bench.node.deadline() == 0.0
    bench.later(1.0)
    first = bench.frames()
    assert {f.resource for f in first} == {"default/pod/p0", "default/pod/p1", "default/pod/p2"}
    bench.ack(first[0])
    bench.node.detach(session, 1.0)  # the link is cut before the others are acknowledged
    assert not bench.node.idle
    session = bench.connect()
    again = bench.frames()
    assert {f.resource for f in again} == {f.resource for f in first[1:]}
    for frame in again:
        bench.ack(frame)
    session.receive_frame(encode_message(up("insert", "null/node/edge-1", {})), 2.0)
    bench.later(1.0)
    assert {f.resource for f in bench.frames()} == {first[0].resource}  # the others came over this very link
    bench.node.detach(session, 9.0)


def test_a_first_registration_sends_nothing_twice() -> None:
    bench = Bench()
    bench.caches.add("nginx", "u1", 5)
    session = bench.connect()
    session.receive_frame(REGISTRATION, 0.0)
    bench.later(0.1)
    bench.writes()
    assert len(bench.frames()) == 1


def test_an_ack_that_comes_in_after_the_end_is_harmless() -> None:
    bench = Bench()
    session = bench.connect()
    bench.node.detach(session, 1.0)
    bench.node.receive(Delivered(down(), 0.1), 1.0)
    bench.node.handle_timer(2.0)
    assert bench.node.deadline() is None
    assert bench.writer.depth == 0
    assert bench.node.idle


def test_orphans_are_the_records_of_nodes_that_are_gone() -> None:
    caches = Caches()
    record = caches.record("nginx", "u1", "5")
    assert orphaned([record], ["edge-1", "edge-2"]) == []
    assert orphaned([record], ["edge-2"]) == [record]


def test_an_edge_that_starts_and_is_cut_off_before_it_was_greeted_is_greeted_over_its_next_link() -> None:
    bench = Bench()
    bench.caches.add("nginx", "u1", 5)
    bench.caches.record("nginx", "u1", "5")
    bench.caches.synced = False
    session = bench.connect()
    session.receive_frame(REGISTRATION, 0.0)
    bench.node.detach(session, 0.1)
    assert not bench.node.idle
    bench.caches.synced = True
    session = bench.connect()
    assert [f.resource for f in bench.frames()] == ["default/pod/nginx"]
    bench.node.detach(session, 1.0)


def held(*objects: tuple[str, str, str]) -> Held:
    return Held({f"default/pod/{name}": (uid, version) for name, uid, version in objects})


def test_what_an_edge_says_it_holds_is_waited_for_and_believed() -> None:
    bench = Bench(strict=True)
    for name in ("has", "lacks", "old"):
        bench.caches.add(name, f"u-{name}", 5)
        bench.caches.record(name, f"u-{name}", "5")
    session = bench.connect(tells=True)
    session.receive_frame(REGISTRATION, 0.0)
    bench.later(0.1)
    assert (bench.frames(), bench.writes()) == ([], []), "not before it has said it"
    bench.node.receive_holdings(held(("has", "u-has", "5"), ("old", "u-old", "4")), bench.now)
    bench.later(0.0)
    assert [f.resource for f in bench.frames()] == ["default/pod/old"], "its record is there, for it is"
    assert [type(write) for write in bench.writes()] == [CreateSync], (
        "what it lacks may have lost its record too"
    )
    assert [f.resource for f in bench.frames()] == ["default/pod/lacks"]
    bench.later(1.0)
    assert bench.frames() == [], "it has started, and need not be sent what it has"


def test_an_edge_that_says_nothing_is_served_by_its_records_after_a_while() -> None:
    bench = Bench()
    bench.caches.add("nginx", "u1", 6)
    bench.caches.record("nginx", "u1", "5")
    session = bench.connect(tells=True)
    assert bench.frames() == []
    bench.later(HOLDINGS_WAIT)
    assert [f.resource for f in bench.frames()] == ["default/pod/nginx"]
    bench.node.receive_holdings(held(("nginx", "u1", "6")), bench.now)
    bench.later(0.0)
    assert session.closed is None


def test_a_session_elsewhere_that_ends_late_does_not_hide_that_a_database_was_lost() -> None:
    bench = Bench()
    bench.caches.add("nginx", "u1", 7)
    record = bench.caches.record("nginx", "u1", "5")
    bench.connect(tells=True)
    bench.node.receive_holdings(held(), bench.now)
    bench.node.record_changed(replace(record, version="7"), bench.now)  # what the old session had heard
    bench.later(0.0)
    bench.node.record_changed(replace(record, version="7"), bench.now)
    assert [f.resource for f in bench.frames()] == ["default/pod/nginx"]


def test_a_record_that_lags_is_left_alone_and_catches_up_at_the_end() -> None:
    bench = Bench(rate=0.001)
    bench.caches.add("nginx", "u1", 6)
    record = bench.caches.record("nginx", "u1", "5")
    session = bench.connect(tells=True)
    bench.node.receive_holdings(held(("nginx", "u1", "5")), bench.now)
    bench.later(0.0)
    bench.ack(bench.frames()[0])
    bench.node.record_changed(record, bench.now)
    bench.later(60.0)
    assert bench.writes() == []
    bench.node.detach(session, bench.now)
    bench.now += 10.0
    assert bench.writes() == [RecordSync(record.key, "6")]
