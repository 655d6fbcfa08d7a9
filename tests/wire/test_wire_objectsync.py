"""ObjectSync: names, shapes, and the planner of writes."""

import json

import pytest

from edgehive.kit.errors import ProtocolError
from edgehive.wire.objectsync import (
    CreateSync,
    DeleteSync,
    RecordSync,
    SyncKey,
    SyncRecord,
    SyncWriter,
    parse_sync,
    parse_sync_name,
    reset_plan,
    sync_object,
    sync_status_patch,
    valid_key,
)

KEY = SyncKey("edge-1", "default", "aaaa-1")
RECORD = SyncRecord(KEY, "v1", "Pod", "nginx")


def record(n: int, node: str = "edge-1") -> SyncRecord:
    return SyncRecord(SyncKey(node, "default", f"u{n}"), "v1", "Pod", f"p{n}")


def test_the_name_is_node_dot_uid_and_node_names_may_have_dots() -> None:
    assert KEY.name == "edge-1.aaaa-1"
    assert parse_sync_name("edge.example.com.aaaa-1") == ("edge.example.com", "aaaa-1")
    assert parse_sync_name("nodot") is None
    assert parse_sync_name(".x") is None


def test_objects_are_shaped_as_the_crd_says() -> None:
    assert sync_object(RECORD) == {
        "apiVersion": "reliablesyncs.kubeedge.io/v1alpha1",
        "kind": "ObjectSync",
        "metadata": {"name": "edge-1.aaaa-1", "namespace": "default"},
        "spec": {"objectAPIVersion": "v1", "objectKind": "Pod", "objectName": "nginx"},
    }
    cluster = sync_object(SyncRecord(SyncKey("e", None, "u"), "v1", "Node", "e"))
    assert cluster["kind"] == "ClusterObjectSync"
    assert "namespace" not in cluster["metadata"]
    assert json.loads(sync_status_patch("7")) == {"status": {"objectResourceVersion": "7"}}
    assert KEY.gvr.resource == "objectsyncs"
    assert SyncKey("e", None, "u").gvr.resource == "clusterobjectsyncs"


def test_reading_one_back() -> None:
    body = sync_object(RECORD)
    body["metadata"]["resourceVersion"] = "99"
    body["status"] = {"objectResourceVersion": "12"}
    assert parse_sync(json.dumps(body).encode()) == SyncRecord(KEY, "v1", "Pod", "nginx", "12", "99")
    del body["status"]
    assert parse_sync(json.dumps(body).encode()).version == ""


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'{"metadata":{"name":"nodot"}}', b'{"metadata":{"name":5}}', b"[" * 99999]
)
def test_what_is_not_a_record(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_sync(raw)


def test_a_uid_that_is_no_name_never_reaches_a_url() -> None:
    assert valid_key(KEY)
    assert not valid_key(SyncKey("edge-1", "default", "../../secrets"))
    assert not valid_key(SyncKey("edge-1", "De/fault", "u"))


def test_acknowledged_versions_are_written_newest_only_and_once() -> None:
    writer = SyncWriter(interval=0.5)
    for version in ("3", "9", "5"):
        writer.acknowledged(RECORD, version, 10.0)
    assert writer.deadline() == 10.1
    assert writer.take(10.0) == []
    assert writer.take(10.1) == [RecordSync(KEY, "9")]
    assert writer.take(11.0) == []
    assert writer.busy == 1
    writer.done(RecordSync(KEY, "9"), 11.0)  # another object than the one handed out
    assert writer.busy == 1


def test_done_and_failed_answer_the_write_that_was_handed_out() -> None:
    writer = SyncWriter(interval=0.5)
    writer.acknowledged(RECORD, "9", 0.0)
    (write,) = writer.take(0.5)
    writer.acknowledged(RECORD, "12", 0.6)
    writer.done(write, 0.7)
    assert writer.deadline() == 1.2
    assert writer.take(1.2) == [RecordSync(KEY, "12")]


def test_a_stream_of_versions_does_not_put_the_write_off() -> None:
    writer = SyncWriter(interval=0.5)
    for i in range(20):
        writer.acknowledged(RECORD, str(i + 1), i * 0.1)
    assert writer.deadline() == 0.1


def test_a_record_is_not_written_more_often_than_once_an_interval() -> None:
    writer = SyncWriter(interval=0.5)
    writes = []
    for i in range(200):
        now = i * 0.01
        writer.acknowledged(RECORD, str(i + 1), now)
        for write in writer.take(now):
            writes.append(now)
            writer.done(write, now)
    assert writes == pytest.approx([0.1, 0.6, 1.1, 1.6], abs=0.011)
    for write in writer.take(3.0):
        writer.done(write, 3.0)
    assert writer.depth == 0
    writer.acknowledged(RECORD, "999", 9.0)
    assert writer.deadline() == 9.1


def test_what_is_recorded_already_is_not_written() -> None:
    writer = SyncWriter()
    known = SyncRecord(KEY, "v1", "Pod", "nginx", version="7")
    writer.acknowledged(known, "7", 0.0)
    writer.acknowledged(known, "6", 0.0)
    assert writer.depth == 0


def test_a_create_is_due_at_once_and_before_the_status() -> None:
    writer = SyncWriter(interval=0.5)
    writer.acknowledged(RECORD, "4", 0.0)
    writer.create(RECORD, 0.1)
    (write,) = writer.take(0.1)
    assert write == CreateSync(RECORD)
    writer.done(write, 0.2)
    assert writer.take(0.7) == [RecordSync(KEY, "4")]


def test_a_delete_replaces_what_was_planned() -> None:
    writer = SyncWriter(interval=0.5)
    writer.create(RECORD, 0.0)
    writer.acknowledged(RECORD, "4", 0.0)
    writer.deleted(RECORD, 0.1)
    (write,) = writer.take(1.0)
    assert write == DeleteSync(KEY)
    writer.acknowledged(RECORD, "5", 1.1)
    writer.done(write, 1.2)
    assert writer.depth == 0


def test_a_record_wanted_again_while_its_delete_is_on_the_way() -> None:
    writer = SyncWriter(interval=0.5)
    writer.deleted(RECORD, 0.0)
    (write,) = writer.take(0.5)
    writer.create(RECORD, 0.6)
    writer.done(write, 0.7)
    assert writer.take(0.7) == [CreateSync(RECORD)]


@pytest.mark.parametrize("code", [0, 409, 410, 429, 500, 503, 401, 403])
def test_passing_failures_are_tried_again_with_back_off(code: int) -> None:
    writer = SyncWriter(interval=0.5, retry=1.0, retry_max=4.0)
    writer.acknowledged(RECORD, "4", 0.0)
    now, pauses = 0.5, []
    for _ in range(5):
        (write,) = writer.take(now)
        assert writer.failed(write, code, now)
        deadline = writer.deadline()
        assert deadline is not None
        pauses.append(deadline - now)
        now = deadline
    assert pauses == [1.0, 2.0, 4.0, 4.0, 4.0]


def test_what_the_server_will_never_take_is_dropped() -> None:
    writer = SyncWriter()
    writer.create(RECORD, 0.0)
    (write,) = writer.take(0.0)
    assert not writer.failed(write, 422, 0.1)
    assert writer.depth == 0
    assert writer.stats.abandoned == 1


def test_a_status_for_a_missing_record_creates_it_again() -> None:
    writer = SyncWriter(interval=0.5, retry=1.0)
    writer.acknowledged(RECORD, "4", 0.0)
    (write,) = writer.take(0.5)
    assert writer.failed(write, 404, 0.6)
    (create,) = writer.take(2.0)
    assert create == CreateSync(RECORD)
    writer.done(create, 2.1)
    assert writer.take(3.0) == [RecordSync(KEY, "4")]


def test_batches_are_bounded_and_creates_have_room_of_their_own() -> None:
    writer = SyncWriter(interval=0.0, batch=3)
    for n in range(10):
        writer.acknowledged(record(n), "1", 0.0)
    first = writer.take(0.0)
    assert len(first) == 3
    assert writer.deadline() is None
    for n in range(10, 20):
        writer.create(record(n), 0.0)
    assert writer.deadline() == 0.0
    assert [type(w) for w in writer.take(0.0)] == [CreateSync] * 3
    for write in first:
        writer.done(write, 0.1)
    assert writer.busy == 3


def test_one_failing_record_does_not_hold_up_the_others() -> None:
    writer = SyncWriter(interval=0.5, retry=30.0, retry_max=30.0)
    writer.acknowledged(record(1), "1", 0.0)
    (write,) = writer.take(0.5)
    writer.failed(write, 500, 0.5)
    writer.acknowledged(record(2), "1", 1.0)
    assert writer.take(1.5) == [RecordSync(record(2).key, "1")]


def test_a_node_that_joins_anew_is_reset_and_what_was_planned_is_forgotten() -> None:
    known = SyncRecord(KEY, "v1", "Pod", "nginx", version="7")
    assert reset_plan([known, record(1)]) == [RecordSync(KEY, "0")]
    writer = SyncWriter(interval=0.5)
    writer.acknowledged(RECORD, "8", 0.0)
    assert writer.forget(KEY)
    assert writer.take(1.0) == []


@pytest.mark.parametrize("answer", [0, 200, 404, 500])
def test_a_write_on_its_way_is_waited_for_before_a_reset(answer: int) -> None:
    writer = SyncWriter(interval=0.5)
    writer.acknowledged(RECORD, "9", 1.0)
    (write,) = writer.take(1.5)
    assert not writer.forget(KEY), "it could land after the reset"
    if answer == 200:
        writer.done(write, 2.0)
    else:
        assert not writer.failed(write, answer, 2.0)
    assert writer.busy == 0
    assert not writer.pending(KEY)
    assert writer.forget(KEY)
    assert writer.take(60.0) == []
