"""The reflector against a model of an API server that pages, drops connections, forgets history and restarts."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.kit.errors import ProtocolError, Unreachable
from edgehive.kube.api import ListOptions, ListPage, WatchEvent
from edgehive.kube.reflector import ListNext, Reflector, WaitUntil, WatchFrom
from edgehive.kube.status import ApiStatus, expired


def obj(name: str, version: int, uid: str = "", **meta) -> bytes:
    meta = {
        "namespace": "d",
        "name": name,
        "uid": uid or f"u-{name}",
        "resourceVersion": str(version),
        **meta,
    }
    return json.dumps({"kind": "Pod", "metadata": meta}).encode()


def bookmark(version: int) -> WatchEvent:
    return WatchEvent("BOOKMARK", json.dumps({"metadata": {"resourceVersion": str(version)}}).encode())


class Server:
    """Objects, a log of events, and a point before which history is forgotten."""

    def __init__(self) -> None:
        self.revision = 10
        self.objects: dict[str, bytes] = {}
        self.log: list[tuple[int, WatchEvent]] = []
        self.compacted = 0
        self.born = 0
        self.snapshots: dict[str, tuple[int, list[bytes]]] = {}

    def put(self, name: str) -> bytes:
        self.revision += 1
        if name in self.objects:
            uid, kind = json.loads(self.objects[name])["metadata"]["uid"], "MODIFIED"
        else:
            self.born += 1
            uid, kind = f"uid{self.born}", "ADDED"
        self.objects[name] = obj(name, self.revision, uid)
        self.log.append((self.revision, WatchEvent(kind, self.objects[name])))
        return self.objects[name]

    def delete(self, name: str) -> None:
        if name in self.objects:
            self.revision += 1
            uid = json.loads(self.objects.pop(name))["metadata"]["uid"]
            self.log.append((self.revision, WatchEvent("DELETED", obj(name, self.revision, uid))))

    def compact(self) -> None:
        self.compacted = self.revision
        self.snapshots.clear()

    def list(self, options: ListOptions) -> ListPage:
        if options.continue_token:
            if options.continue_token not in self.snapshots:
                raise expired("the continue token is too old")
            version, items = self.snapshots[options.continue_token]
        else:
            version, items = self.revision, [self.objects[k] for k in sorted(self.objects)]
        limit = options.limit or len(items)
        token = ""
        if len(items) > limit:
            token = f"t{version}-{len(items)}"
            self.snapshots[token] = (version, items[limit:])
        return ListPage(items[:limit], str(version), token)

    def after(self, version: str):
        if int(version) < self.compacted:
            raise expired("too old resource version")
        return [event for revision, event in self.log if revision > int(version)]


class Mirror:
    """Runs a reflector by hand and checks every change it hands out."""

    def __init__(self, server: Server, page_size: int = 2) -> None:
        self.server = server
        self.core = Reflector(options=ListOptions(), rng=lambda: 0.5, page_size=page_size)
        self.now = 0.0
        self.shown: dict[str, tuple[str, int]] = {}
        self.newest: dict[str, int] = {}

    def check(self, changes) -> None:
        for change in changes:
            if change is None:
                continue
            name, meta = change.object.meta.name, change.object.meta
            before = self.shown.get(name)
            if change.type == "DELETED":
                assert before is not None
                assert change.old is not None
                assert before[0] == change.old.meta.uid
                del self.shown[name]
            else:
                assert (change.type == "ADDED") == (before is None)
                assert meta.rv >= self.newest.get(meta.uid, 0), "an older version than one shown before"
                self.shown[name] = (meta.uid, meta.rv)
                self.newest[meta.uid] = meta.rv
        assert self.shown == {o.meta.name: (o.meta.uid, o.meta.rv) for o in self.core.cache}

    def step(self, take: int, fail: Exception | None = None) -> None:
        """Do the reflector's next action; a watch delivers `take` events, then ends or fails."""
        action = self.core.action(self.now)
        try:
            match action:
                case WaitUntil(when):
                    assert when > self.now
                    self.now = when
                case ListNext(options):
                    if fail is not None:
                        raise fail
                    self.check(self.core.receive_page(self.server.list(options), self.now))
                case WatchFrom(options, timeout):
                    assert timeout > 0
                    for event in self.server.after(options.resource_version)[:take]:
                        self.now += 0.1
                        self.check([self.core.receive_event(event, self.now)])
                    if fail is not None:
                        raise fail
                    self.now += 2
                    self.core.receive_end(self.now)
        except (ApiStatus, Unreachable) as exc:
            self.core.receive_failure(exc, self.now)

    def settle(self) -> None:
        for _ in range(60):
            self.step(take=1000)
        expected = {}
        for raw in self.server.objects.values():
            meta = json.loads(raw)["metadata"]
            expected[meta["name"]] = (meta["uid"], int(meta["resourceVersion"]))
        assert self.shown == expected
        assert self.core.synced


NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
FAILURES = st.sampled_from(
    [
        None,
        None,
        Unreachable("gone"),
        ApiStatus(500, "InternalError", "boom"),
        ApiStatus(429, "TooMany", "slow"),
    ]
)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES),
        st.tuples(st.just("delete"), NAMES),
        st.tuples(st.just("compact")),
        st.tuples(st.just("write"), NAMES),
        st.tuples(st.just("step"), st.integers(0, 4), FAILURES),
    ),
    max_size=60,
)


@settings(max_examples=250, deadline=None)
@given(operations=OPERATIONS)
def test_the_mirror_converges_and_never_goes_back(operations):
    server = Server()
    mirror = Mirror(server)
    for operation in operations:
        match operation:
            case ("put", name):
                server.put(name)
            case ("delete", name):
                server.delete(name)
            case ("compact",):
                server.compact()
            case ("write", name):  # a write of ours: its answer is shown at once, or not at all
                mirror.check([mirror.core.note_written(server.put(name))])
            case ("step", take, failure):
                mirror.step(take, failure)
    mirror.settle()


def synced(*objects: bytes, version: int = 10) -> Reflector:
    core = Reflector(options=ListOptions(), rng=lambda: 0.5)
    core.action(0)
    core.receive_page(ListPage(objects, str(version)), 0)
    return core


def test_vanished_objects_are_shown_as_deleted_with_their_last_state():
    core = synced(obj("a", 5), obj("b", 6))
    core.action(1)
    core.receive_failure(expired("old"), 1)
    action = core.action(100)
    assert isinstance(action, ListNext)
    assert action.options.resource_version == ""
    (change,) = core.receive_page(ListPage([obj("b", 6)], "20"), 100)
    assert (change.type, change.old.meta.name, change.new) == ("DELETED", "a", None)


def test_an_object_replaced_under_its_name_is_deleted_and_added():
    core = synced(obj("a", 5, "one"))
    core.action(1)
    core.receive_failure(expired("old"), 1)
    changes = core.receive_page(ListPage([obj("a", 15, "two")], "20"), 100)
    assert [(c.type, c.object.meta.uid) for c in changes] == [("DELETED", "one"), ("ADDED", "two")]


def test_a_watch_resumes_from_the_last_bookmark():
    core = synced(obj("a", 5))
    assert core.action(0).options.resource_version == "10"
    assert core.receive_event(bookmark(44), 1) is None
    core.receive_failure(Unreachable("cut"), 1)
    assert core.action(100) == WatchFrom(ListOptions(resource_version="44"), 450.0)


def test_a_replayed_event_is_not_shown_again():
    core = synced(obj("a", 5))
    core.action(0)
    assert core.receive_event(WatchEvent("MODIFIED", obj("a", 12)), 0).type == "MODIFIED"
    assert core.receive_event(WatchEvent("MODIFIED", obj("a", 12)), 0) is None
    assert core.receive_event(WatchEvent("MODIFIED", obj("a", 11)), 0) is None


def test_a_stale_list_is_refused_until_it_is_clear_that_history_began_anew():
    core = synced(obj("a", 500), version=500)
    core.action(1)
    core.receive_failure(expired("old"), 1)
    now, changes = 10.0, []
    for _ in range(20):
        action = core.action(now)
        if isinstance(action, WaitUntil):
            now = action.when
            continue
        if isinstance(action, WatchFrom):
            break
        assert not changes
        changes = core.receive_page(ListPage([obj("z", 3)], "7"), now)
    assert [(c.type, c.object.meta.name) for c in changes] == [("DELETED", "a"), ("ADDED", "z")]
    assert core.resource_version == "7"


def test_an_expired_continue_token_starts_over_and_in_the_end_asks_for_everything_at_once():
    core = Reflector(options=ListOptions(namespace="x"), rng=lambda: 0.5, page_size=1)
    for _ in range(2):
        action = core.action(1000.0)
        assert action.options.limit == 1
        core.receive_page(ListPage([obj("a", 1)], "9", "token"), 0)
        assert core.action(1000.0).options.continue_token == "token"
        core.receive_failure(expired("token"), 0)
    action = core.action(1000.0)
    assert (action.options.limit, action.options.continue_token, action.options.namespace) == (0, "", "x")


def test_failures_wait_longer_and_longer_and_respect_the_server():
    core = Reflector(options=ListOptions(), rng=lambda: 0.5)
    waits, now = [], 0.0
    for _ in range(8):
        core.action(now)
        core.receive_failure(Unreachable("no"), now)
        when = core.action(now).when
        waits.append(when - now)
        now = when
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(0.8)
    assert waits[-1] == pytest.approx(30)
    core.action(now)
    core.receive_failure(ApiStatus(429, "TooManyRequests", "", {"retryAfterSeconds": 45}), now)
    assert core.action(now).when == pytest.approx(now + 45)


def test_a_watch_that_ends_at_once_without_an_event_is_not_repeated_at_once():
    core = synced()
    core.action(5.0)
    core.receive_end(5.1)
    assert isinstance(core.action(5.1), WaitUntil)


def test_a_deletion_of_ours_shows_until_the_watch_says_it_is_gone():
    core = synced(obj("a", 5))
    core.action(0)
    change = core.note_deleting(("d", "a"), "u-a", "2026-01-01T00:00:00Z")
    assert change.new.meta.deletion_timestamp == "2026-01-01T00:00:00Z"
    assert core.note_deleting(("d", "a"), "u-a", "2026-01-01T00:00:00Z") is None
    later = core.receive_event(WatchEvent("MODIFIED", obj("a", 11)), 0)  # written before our deletion
    assert later.new.meta.deletion_timestamp
    assert core.receive_event(WatchEvent("DELETED", obj("a", 12)), 0).type == "DELETED"
    fresh = core.receive_event(WatchEvent("ADDED", obj("a", 13, "other")), 0)
    assert fresh.new.meta.deletion_timestamp is None


def test_a_late_answer_to_a_write_does_not_bring_back_what_is_gone():
    core = synced()
    core.action(0)
    core.receive_event(WatchEvent("ADDED", obj("a", 11)), 0)
    core.receive_event(WatchEvent("DELETED", obj("a", 12)), 0)
    assert core.note_written(obj("a", 11)) is None
    assert core.cache.get(("d", "a")) is None


def test_a_list_older_than_our_write_keeps_it():
    core = synced(obj("a", 5))
    core.action(0)
    core.note_written(obj("b", 30))
    core.receive_failure(expired("old"), 1)
    assert core.receive_page(ListPage([obj("a", 5)], "20"), 2) == []
    assert core.cache.get(("d", "b")) is not None


def test_versions_that_are_not_numbers_are_followed_without_comparing():
    raw = json.dumps({"metadata": {"name": "a", "resourceVersion": "abc"}}).encode()
    newer = json.dumps({"metadata": {"name": "a", "resourceVersion": "abb"}}).encode()
    core = Reflector(options=ListOptions(), rng=lambda: 0.5)
    core.action(0)
    core.receive_page(ListPage([raw], "xyz"), 0)
    assert core.action(0).options.resource_version == "xyz"
    assert core.receive_event(WatchEvent("MODIFIED", newer), 0).new.raw == newer
    assert core.note_written(raw) is None


@pytest.mark.parametrize("raw", [b"{", b"[]", b'{"metadata":{"name":5}}', b'{"metadata":{}}'])
def test_unreadable_objects_are_refused_and_the_list_is_asked_for_again(raw):
    core = synced()
    core.action(0)
    with pytest.raises(ProtocolError) as caught:
        core.receive_event(WatchEvent("ADDED", raw), 0)
    core.receive_failure(caught.value, 0)
    assert isinstance(core.action(100), ListNext)


def test_only_what_is_worth_keeping_is_kept_and_indexes_follow():
    core = Reflector(
        options=ListOptions(),
        rng=lambda: 0.5,
        keep=lambda raw: b"",
        indexes={"label": lambda o: (o.meta.labels or {}).values()},
    )
    core.action(0)
    core.receive_page(ListPage([obj("a", 1, labels={"x": "1"}), obj("b", 2, labels={"x": "1"})], "5"), 0)
    assert [o.raw for o in core.cache] == [b"", b""]
    assert {o.meta.name for o in core.cache.by_index("label", "1")} == {"a", "b"}
    core.action(0)
    core.receive_event(WatchEvent("MODIFIED", obj("a", 6, labels={"x": "2"})), 0)
    core.receive_event(WatchEvent("DELETED", obj("b", 7)), 0)
    assert core.cache.by_index("label", "1") == []
    assert [o.meta.name for o in core.cache.by_index("label", "2")] == ["a"]
    core.cache.add_index("name", lambda o: (o.meta.name,))
    assert len(core.cache.by_index("name", "a")) == len(core.cache) == 1


def test_the_end_of_a_former_object_of_that_name_does_not_hide_the_present_one():
    core = synced(obj("a", 9, "new"))
    core.action(0)
    assert core.receive_event(WatchEvent("DELETED", obj("a", 8, "old")), 0) is None
    assert core.cache.get(("d", "a")) is not None
