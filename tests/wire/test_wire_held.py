"""What an edge says it holds counts for more than the records, and lets them lag."""

import json

import pytest
from wire_support import stamp

from edgehive.kit.errors import ProtocolError
from edgehive.wire.desired import CachedObject, Missing, Unknown
from edgehive.wire.held import HOLDINGS, Held, Lag, decode_holdings, holding, holdings_message
from edgehive.wire.objectsync import CreateSync, DeleteSync, RecordSync, SyncKey, SyncRecord, SyncWriter
from edgehive.wire.session import NodeSession, Told

KEY = SyncKey("edge-1", "default", "u1")


def record(version: str) -> SyncRecord:
    return SyncRecord(KEY, "v1", "Pod", "nginx", version)


def held(version: str = "", uid: str = "u1") -> Held:
    return Held({"default/pod/nginx": (uid, version)} if version else {})


class Nothing:
    """A cluster without objects."""

    def find(self, record: SyncRecord) -> CachedObject | Missing:
        return Missing()

    def assigned(self, node: str) -> tuple[CachedObject, ...]:
        return ()

    def records(self, node: str) -> tuple[SyncRecord, ...]:
        return ()


class One(Nothing):
    """A cluster with one pod."""

    pod = CachedObject("v1", "Pod", "default", "nginx", "u1", "9", b"{}")

    def find(self, record: SyncRecord) -> CachedObject | Missing:
        return self.pod

    def assigned(self, node: str) -> tuple[CachedObject, ...]:
        return (self.pod,) if node == "edge-1" else ()


def load(lag: Lag, record: SyncRecord, held: Held) -> SyncRecord:
    return lag.load({KEY: record}, held, Nothing(), node="edge-1", now=0.0)[KEY]


def writes(writer: SyncWriter, now: float) -> list[object]:
    found = writer.take(now)
    for write in found:
        writer.done(write, now)
    return list(found)


def test_rows_without_a_record_are_left_out() -> None:
    assert holding("default/pod/p", "u", "7") == ("default/pod/p", "u", "7")
    for resource, uid, version in (
        ("default/podpatch/p", "u", "7"),
        ("kube-node-lease/lease/n", "u", "7"),
        ("default/serviceaccounttoken/x", "u", "7"),
        ("default/pod", "u", "7"),
        ("default/pod/p", "", "7"),
        ("default/pod/p", "u", ""),
        ("default/pod/p", "u", "abc"),
    ):
        assert holding(resource, uid, version) is None


def test_a_session_takes_the_list_of_an_edge_that_tells() -> None:
    session = NodeSession(node="edge-1", now=0.0, stamp=stamp, tells=True)
    message = holdings_message([("default/pod/nginx", "u1", "7")], stamp=stamp)
    from edgehive.wire.message import encode_message

    session.receive_frame(encode_message(message), 0.0)
    session.receive_frame(encode_message(message), 0.0)
    assert session.events() == [Told(held("7"))], "once"
    session = NodeSession(node="edge-1", now=0.0, stamp=stamp, tells=True)
    bad = {"header": {"msg_id": "1", "timestamp": 1}, "route": {"operation": HOLDINGS}, "content": [["a"]]}
    with pytest.raises(ProtocolError):
        session.receive_frame(json.dumps(bad).encode(), 0.0)


@pytest.mark.parametrize(
    "content",
    [b"{}", b" " * (9 << 20) + b"[]", b"[[1,2,3]]", b'[["a","b"]]', b"[" * 100_000, b'"x"', b"\xff"],
)
def test_nonsense_is_refused(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_holdings(content)


def test_the_edge_counts_for_more_than_its_record() -> None:
    lag = Lag(SyncWriter())
    assert load(lag, record("7"), held("5")).version == "5", "its database was restored"
    assert load(lag, record("7"), held()).version == "0", "its database was lost"
    assert load(lag, record("7"), held("9", uid="u2")).version == "0", "another incarnation"
    assert load(lag, record("7"), held("9")).version == "9", "what was not recorded"


def test_a_record_without_a_version_gets_one_at_once() -> None:
    writer = SyncWriter(rate=0.0001)
    lag = Lag(writer)
    assert load(lag, record(""), held("4")).version == "4"
    lag.acknowledged(SyncRecord(SyncKey("edge-1", "default", "u2"), "v1", "Pod", "other", ""), "5", 0.0)
    assert {w.version for w in writes(writer, 1.0) if isinstance(w, RecordSync)} == {"4", "5"}


def test_what_a_node_with_a_lost_database_gets_again_is_recorded_at_once() -> None:
    """Its record may have been deleted by somebody, and made anew without a version, while it was away."""
    writer = SyncWriter(rate=0.0001)
    lag = Lag(writer)
    assert not writer.spend(0.0)
    known = load(lag, record("7"), held())
    lag.acknowledged(known, "9", 0.0)
    assert RecordSync(KEY, "9") in writes(writer, 1.0)


def test_beyond_the_rate_records_lag_until_the_node_is_gone() -> None:
    writer = SyncWriter(rate=1.0, interval=0.5)
    lag = Lag(writer)
    known = {}
    for number in range(5):
        key = SyncKey("edge-1", "default", f"u{number}")
        before = SyncRecord(key, "v1", "Pod", f"p{number}", "1")
        lag.acknowledged(before, "2", 0.0)
        known[key] = SyncRecord(key, "v1", "Pod", f"p{number}", "2")
    assert len(writes(writer, 0.2)) == 2, "a bucket of two seconds' rate"
    assert writer.stats.unrecorded == 3
    assert writer.deadline() is None
    lag.flush(known, 10.0)
    at = [len(writes(writer, 10.0 + second)) for second in (0.5, 1.0, 1.5, 2.0, 2.5)]
    assert at == [1, 0, 1, 0, 1], "one a second"


def test_what_catches_up_makes_room_for_what_is_due() -> None:
    writer = SyncWriter(rate=0.01, interval=0.5)
    for number in range(3):
        writer.catch_up(SyncRecord(SyncKey("n", "d", f"u{number}"), "v1", "Pod", "p", "1"), "2", 0.0)
    writer.deleted(SyncRecord(SyncKey("n", "d", "u2"), "v1", "Pod", "p", "1"), 0.0)
    assert writes(writer, 0.2) == [DeleteSync(SyncKey("n", "d", "u2"))], "not after 200 seconds"
    writer.acknowledged(SyncRecord(SyncKey("n", "d", "u1"), "v1", "Pod", "p", "1"), "3", 0.3)
    assert RecordSync(SyncKey("n", "d", "u1"), "3") in writes(writer, 0.6)
    writer.create(SyncRecord(SyncKey("n", "d", "u0"), "v1", "Pod", "p", "1"), 0.6)
    assert isinstance(writer.take(0.6)[0], CreateSync)


def test_catching_up_makes_no_record_that_is_gone() -> None:
    writer = SyncWriter(rate=1.0)
    writer.catch_up(record("1"), "2", 0.0)
    (write,) = writer.take(5.0)
    assert writer.failed(write, 404, 5.0) is False
    assert writer.depth == 0


def test_a_record_put_below_what_was_recorded_is_written_again_and_one_above_is_not_believed() -> None:
    lag = Lag(SyncWriter(rate=0.0001))
    load(lag, record("5"), held("7"))
    assert lag.seen(record("5"), record("7")), "it lags, as it may"
    assert lag.seen(record("6"), record("7"))
    assert not lag.seen(record("4"), record("7")), "another instance has put an older one over it"
    assert lag.seen(record("9"), record("7"))
    assert not Lag(SyncWriter()).seen(record("6"), record("7")), "nothing lags: it must be written"


def test_what_is_there_without_a_record_gets_one_or_is_looked_at() -> None:
    writer = SyncWriter()
    told = Held(
        {"default/pod/nginx": ("u1", "7"), "default/pod/other": ("u2", "7"), "default/x/y": ("u3", "7")}
    )
    found = Lag(writer).load({}, told, One(), node="edge-1", now=0.0)
    assert {r.object_name: r.version for r in found.values()} == {"nginx": "7", "other": "7"}
    assert writes(writer, 0.0) == [CreateSync(record("7"))], "the other is of another incarnation"
    assert writes(writer, 1.0) == [RecordSync(KEY, "7")]


def test_an_edge_that_makes_up_objects_is_not_believed_for_ever() -> None:
    told = Held(
        {f"default/pod/p{i}": (f"u{i}", "7") for i in range(5_000)} | {"default/pod/x": ("../x", "7")}
    )
    assert len(told.strangers("edge-1", [])) == 256
    assert Held({"default/pod/x": ("../x", "7")}).strangers("edge-1", []) == []


class Unsure(One):
    """A cluster whose caches are not there yet."""

    def find(self, record: SyncRecord) -> Unknown:
        return Unknown()


@pytest.mark.parametrize("kind", ["pod", "configmap", "secret"])
@pytest.mark.parametrize("world", [One(), Unsure()])
def test_to_say_that_one_has_what_is_anothers_subscribes_to_nothing(kind: str, world: One) -> None:
    writer = SyncWriter()
    told = Held({f"default/{kind}/nginx": ("u1", "7")})
    assert Lag(writer).load({}, told, world, node="edge-2", now=0.0) == {}
    assert writes(writer, 1.0) == []


def test_what_is_gone_is_loaded_whoever_has_it_so_that_it_is_deleted_there() -> None:
    told = Held({"default/secret/old": ("u2", "7")})
    assert len(Lag(SyncWriter()).load({}, told, One(), node="edge-2", now=0.0)) == 1
    assert len(Lag(SyncWriter()).load({}, told, Nothing(), node="edge-2", now=0.0)) == 1
