"""The cloud's decisions for one node: gates, reconcile, takeover, what is recorded."""

from collections.abc import Iterable
from dataclasses import replace

from wire_support import answer, content, down, gone, stamp, up

from edgehive.wire.cloudnode import BACKLOG, CachedObject, CloudNode, Missing, Unknown, orphaned
from edgehive.wire.message import DELETE, INSERT, UPDATE, Message, decode_message, encode_message
from edgehive.wire.objectsync import (
    CreateSync,
    DeleteSync,
    RecordSync,
    SyncKey,
    SyncRecord,
    SyncWriter,
    reset_plan,
)
from edgehive.wire.outbound import Outbound
from edgehive.wire.pool import Delivered, GivenUp, PoolLimits, Verdict
from edgehive.wire.session import NodeSession


class Caches:
    """What the watch caches of the test say."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], CachedObject] = {}
        self.mine: list[CachedObject] = []
        self.known: list[SyncRecord] = []
        self.synced = True

    def add(self, name: str, uid: str, version: int, kind: str = "Pod", *, mine: bool = True) -> CachedObject:
        cached = CachedObject(
            "v1", kind, "default", name, uid, str(version), content(name, uid, version, kind)
        )
        self.objects[kind, name] = cached
        if mine:
            self.mine = [c for c in self.mine if (c.kind, c.name) != (kind, name)] + [cached]
        return cached

    def record(self, name: str, uid: str, version: str, kind: str = "Pod") -> SyncRecord:
        record = SyncRecord(SyncKey("edge-1", "default", uid), "v1", kind, name, version, "1")
        self.known.append(record)
        return record

    def find(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        if not self.synced:
            return Unknown()
        return self.objects.get((record.kind, record.object_name), Missing())

    def assigned(self, node: str) -> Iterable[CachedObject]:
        assert node == "edge-1"
        return self.mine

    def records(self, node: str) -> Iterable[SyncRecord] | None:
        assert node == "edge-1"
        return self.known if self.synced else None


class Bench:
    """A CloudNode with a session, and an API server that does what it is told."""

    def __init__(self, *, strict: bool = False, limits: PoolLimits | None = None) -> None:
        self.caches = Caches()
        self.writer = SyncWriter(interval=0.5)
        self.node = CloudNode(
            node="edge-1",
            world=self.caches,
            writer=self.writer,
            stamp=stamp,
            reconcile_every=30.0,
            several_instances=strict,
        )
        self.limits = limits
        self.now = 0.0

    def connect(self) -> NodeSession:
        session = NodeSession(node="edge-1", now=self.now, stamp=stamp, limits=self.limits)
        self.node.attach(session, self.now)
        self.node.handle_timer(self.now)
        return session

    def frames(self) -> list[Message]:
        assert self.node.session is not None
        return [decode_message(f) for f in self.node.session.data_to_send(self.now)]

    def writes(self) -> list[object]:
        """Carry out what the planner wants, successfully."""
        done = self.writer.take(self.now)
        for write in done:
            self.writer.done(write, self.now)
            if isinstance(write, CreateSync):
                self.node.record_created(write.record, self.now)
        return list(done)

    def ack(self, message: Message) -> None:
        assert self.node.session is not None
        delivered = self.node.session.pool.receive_ack(message.id, self.now)
        assert delivered is not None
        self.node.receive(delivered, self.now)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.node.handle_timer(self.now)


def test_the_record_is_made_before_the_object_travels() -> None:
    bench = Bench()
    bench.connect()
    bench.node.send(down(version=5, operation=INSERT), 0.0)
    assert bench.frames() == []
    assert bench.node.waiting == 1
    (create,) = bench.writes()
    assert isinstance(create, CreateSync)
    assert create.record.key == SyncKey("edge-1", "default", "u1")
    (frame,) = bench.frames()
    assert (frame.operation, frame.resource_version) == (INSERT, "5")
    bench.ack(frame)
    bench.later(0.5)
    assert bench.writes() == [RecordSync(create.record.key, "5")]


def test_only_the_newest_version_waits() -> None:
    bench = Bench()
    bench.connect()
    for version in (5, 7, 6):
        bench.node.send(down(version=version), 0.0)
    bench.writes()
    assert [f.resource_version for f in bench.frames()] == ["7"]


def test_a_refused_record_lets_the_next_reconcile_try() -> None:
    bench = Bench()
    bench.caches.add("nginx", "u1", 5)
    bench.connect()
    (create,) = bench.writer.take(0.0)
    assert isinstance(create, CreateSync)
    assert not bench.writer.failed(create, 404, 0.0)
    bench.node.record_refused(create.record)
    assert bench.node.waiting == 0
    bench.later(30.0)
    bench.writes()
    assert len(bench.frames()) == 1


def test_connect_sends_what_changed_and_what_is_new() -> None:
    bench = Bench()
    bench.caches.add("same", "a", 5)
    bench.caches.add("changed", "b", 9)
    bench.caches.add("fresh", "c", 7)
    bench.caches.add("hidden", "d", 3, "Secret")
    bench.caches.record("same", "a", "5")
    bench.caches.record("changed", "b", "6")
    bench.connect()
    bench.writes()
    frames = {f.resource: f for f in bench.frames()}
    assert {r: (f.operation, f.resource_version) for r, f in frames.items()} == {
        "default/pod/changed": (UPDATE, "9"),
        "default/pod/fresh": (INSERT, "7"),
        "default/secret/hidden": (UPDATE, "3"),
    }
    assert {f.source for f in frames.values()} == {"edgecontroller"}
    assert {f.group for f in frames.values()} == {"resource"}


def test_an_empty_recorded_version_is_repaired() -> None:
    """KubeEdge never sends an object whose record was created but not written."""
    bench = Bench()
    bench.caches.add("nginx", "u1", 5)
    bench.caches.record("nginx", "u1", "")
    bench.connect()
    (frame,) = bench.frames()
    bench.ack(frame)
    bench.later(0.5)
    assert bench.writes() == [RecordSync(SyncKey("edge-1", "default", "u1"), "5")]


def test_what_was_deleted_while_the_node_was_away_is_asked_for_live_and_then_deleted() -> None:
    bench = Bench()
    record = bench.caches.record("nginx", "u1", "5")
    bench.connect()
    assert bench.frames() == []
    assert bench.node.checks() == [record]
    bench.later(30.0)
    assert bench.node.checks() == []  # one question at a time
    bench.node.checked(record, Missing(), bench.now)
    (frame,) = bench.frames()
    assert (frame.operation, frame.resource, frame.resource_version) == (DELETE, "default/pod/nginx", "")
    assert frame.content == (
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"nginx","uid":"u1","namespace":"default"}}'
    )
    bench.ack(frame)
    bench.later(0.5)
    assert bench.writes() == [DeleteSync(record.key)]


def test_a_lagging_cache_deletes_nothing() -> None:
    bench = Bench()
    record = bench.caches.record("nginx", "u1", "5")
    bench.connect()
    (asked,) = bench.node.checks()
    live = CachedObject("v1", "Pod", "default", "nginx", "u1", "5", b"{}")
    bench.node.checked(asked, live, 1.0)
    bench.node.checked(asked, Unknown(), 1.0)
    assert bench.frames() == []
    bench.later(30.0)
    assert bench.node.checks() == [record]


def test_a_recreated_pod_is_deleted_and_sent_anew() -> None:
    bench = Bench()
    cached = bench.caches.add("nginx", "new", 9)
    old = bench.caches.record("nginx", "old", "5")
    bench.connect()
    bench.node.checked(old, cached, bench.now)
    bench.writes()
    (delete,) = bench.frames()
    assert delete.operation == DELETE
    assert b'"uid":"old"' in delete.content
    bench.ack(delete)
    (insert,) = bench.frames()
    assert b'"uid": "new"' in insert.content


def test_a_recreated_configmap_that_was_delivered_is_not_deleted_again() -> None:
    """The original's edge compares no UIDs there: the delete would remove the new one."""
    bench = Bench()
    cached = bench.caches.add("cm", "new", 9, "ConfigMap")
    old = bench.caches.record("cm", "old", "5", "ConfigMap")
    bench.caches.record("cm", "new", "9", "ConfigMap")
    bench.connect()
    bench.node.checked(old, cached, bench.now)
    assert bench.frames() == []
    bench.later(0.5)
    assert bench.writes() == [DeleteSync(old.key)]


def test_the_record_of_a_deleted_node_is_cleared_in_silence() -> None:
    bench = Bench()
    record = SyncRecord(SyncKey("edge-1", None, "n1"), "v1", "Node", "edge-1", "4")
    bench.caches.known.append(record)
    bench.connect()
    bench.node.checked(record, Missing(), 0.0)
    assert bench.frames() == []
    bench.later(0.5)
    assert bench.writes() == [DeleteSync(record.key)]


def test_a_device_collected_goes_to_devicetwin() -> None:
    bench = Bench()
    record = bench.caches.record("sensor", "d1", "4", "Device")
    bench.connect()
    bench.node.checked(record, Missing(), 0.0)
    assert bench.frames()[0].source == "devicecontroller"


def test_unsynced_caches_are_waited_for() -> None:
    bench = Bench()
    bench.caches.synced = False
    bench.caches.add("nginx", "u1", 5)
    bench.caches.record("nginx", "u1", "4")
    bench.connect()
    assert bench.node.send(down(version=5), 0.0) is None
    assert bench.frames() == []
    bench.caches.synced = True
    bench.later(0.5)
    assert [f.resource_version for f in bench.frames()] == ["5"]


def test_a_recorded_version_is_not_sent_again() -> None:
    bench = Bench()
    bench.caches.add("nginx", "u1", 5)
    bench.caches.record("nginx", "u1", "5")
    bench.connect()
    assert bench.node.send(down(version=5), 0.0) is Verdict.DONE
    assert bench.frames() == []


def test_answers_are_sent_even_if_recorded() -> None:
    bench = Bench()
    bench.caches.add("cm", "u1", 5, "ConfigMap", mine=False)
    bench.caches.record("cm", "u1", "5", "ConfigMap")
    bench.connect()
    bench.node.send(answer(version=5), 0.0)
    (frame,) = bench.frames()
    assert frame.parent_id == "q1"


def test_an_answer_given_up_is_sent_as_an_update_by_the_reconcile() -> None:
    bench = Bench()
    bench.caches.add("cm", "u1", 5, "ConfigMap", mine=False)
    session = bench.connect()
    bench.node.send(answer(version=5), 0.0)
    (create,) = bench.writes()
    assert isinstance(create, CreateSync)
    bench.frames()
    for second in (5, 10, 15, 20, 25):
        bench.now = float(second)
        session.handle_timer(bench.now)
        bench.frames()
    (given,) = session.events()
    assert isinstance(given, GivenUp)
    bench.node.receive(given, bench.now)
    bench.later(10.0)
    (frame,) = bench.frames()
    assert (frame.operation, frame.resource_version) == (UPDATE, "5")


def test_a_delete_of_what_never_travelled_is_not_sent() -> None:
    bench = Bench()
    bench.connect()
    bench.node.send(gone(), 0.0)
    assert bench.frames() == []
    bench.node.send(down(version=5), 0.0)
    bench.node.send(gone(), 0.0)
    assert bench.frames() == []
    bench.later(0.5)
    assert bench.writes() == [DeleteSync(SyncKey("edge-1", "default", "u1"))]


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


REGISTRATION = encode_message(up("insert", "null/node/edge-1", {}))


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


def test_a_full_pool_is_caught_up_with_by_a_reconcile() -> None:
    bench = Bench(limits=PoolLimits(objects=4))
    for i in range(10):
        bench.caches.add(f"p{i}", f"u{i}", 5)
        bench.caches.record(f"p{i}", f"u{i}", "1")
    bench.connect()
    seen = set()
    for _ in range(12):
        for frame in bench.frames():
            seen.add(frame.resource)
            bench.ack(frame)
        bench.node.handle_timer(bench.now)
    assert len(seen) == 10


def test_a_message_without_uid_is_sent_and_not_recorded() -> None:
    bench = Bench()
    bench.connect()
    bench.node.send(gone(uid=""), 0.0)
    (frame,) = bench.frames()
    bench.ack(frame)
    bench.later(1.0)
    assert bench.writes() == []


def test_a_hostile_uid_makes_no_record() -> None:
    bench = Bench()
    bench.connect()
    bench.node.send(down(uid="../../secrets", version=3), 0.0)
    assert bench.writes() == []
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
