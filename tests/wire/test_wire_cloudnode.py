"""The cloud's decisions for one node: gates, reconcile, what is recorded."""

from cloudnode_bench import Bench
from wire_support import answer, down, gone, up

from edgehive.wire.cloudnode import CachedObject, Missing, Unknown
from edgehive.wire.message import DELETE, INSERT, UPDATE, encode_message
from edgehive.wire.objectsync import (
    CreateSync,
    DeleteSync,
    RecordSync,
    SyncKey,
    SyncRecord,
)
from edgehive.wire.pool import GivenUp, PoolLimits, Verdict

REGISTRATION = encode_message(up("insert", "null/node/edge-1", {}))


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
