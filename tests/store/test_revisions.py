from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.store.log import Batch, Entry, MemoryLog
from edgehive.store.revisions import (
    Expired,
    KeyBusy,
    KeyExists,
    KeyMissing,
    Limits,
    Revisions,
    Stale,
    StoreError,
    TooNew,
)


def at(text: str):
    return lambda revision: f"{text}@{revision}".encode()


class Driver:
    """Drives the core as the shell does, one write a batch unless told otherwise."""

    def __init__(self, limits: Limits = Limits()):  # noqa: B008
        self.log = MemoryLog()
        self.core = Revisions(limits=limits)
        self.core.load(*self.log.load())

    def do(self, kind: str, key: str, text: str = "x", expected: int | None = None, bucket: str = "b") -> int:
        if expected is None:
            record = self.core.get(bucket, key)
            expected = record.revision if record else 0
        write = self.core.prepare(kind, bucket, key, at(text), expected)
        revision = self.core.revision + 1
        entry = Entry(revision, bucket, key, write.encode(revision), kind == "delete")
        batch = self.core.batch([entry])
        self.log.append(batch)
        self.core.commit(batch)
        self.core.release(write)
        return revision

    def restarted(self, limits: Limits = Limits()) -> Revisions:  # noqa: B008
        core = Revisions(limits=limits)
        core.load(*self.log.load())
        return core


def state(
    core: Revisions, revision: int | None = None, prefix: str = "", after: str = ""
) -> dict[str, bytes]:
    return {k: r.value for k, r in core.scan("b", prefix, after=after, at=revision)}


def test_guards():
    d = Driver()
    first = d.do("create", "n/a")
    with pytest.raises(KeyExists):
        d.do("create", "n/a")
    with pytest.raises(KeyMissing):
        d.do("update", "n/b", expected=1)
    d.do("update", "n/a", expected=first)
    with pytest.raises(Stale):
        d.do("update", "n/a", expected=first)
    with pytest.raises(Stale):
        d.do("delete", "n/a", expected=first)
    d.do("delete", "n/a")
    assert d.core.get("b", "n/a") is None


def test_a_key_is_busy_between_prepare_and_release_and_readers_see_the_old_state():
    d = Driver()
    d.do("create", "n/a", "old")
    write = d.core.prepare("update", "b", "n/a", at("new"), 1)
    with pytest.raises(KeyBusy):
        d.core.prepare("update", "b", "n/a", at("other"), 1)
    assert d.core.get("b", "n/a").value == b"old@1"
    d.core.release(write)
    assert d.do("update", "n/a", "other") == 2


def test_a_prefix_ends_where_the_namespace_ends():
    d = Driver()
    for key in ("a/1", "a-b/1", "a/2", "b/1"):
        d.do("create", key)
    assert list(state(d.core, prefix="a/")) == ["a/1", "a/2"]
    assert list(state(d.core, prefix="a/", after="a/1")) == ["a/2"]
    assert list(state(d.core)) == ["a-b/1", "a/1", "a/2", "b/1"]


def test_the_future_and_the_forgotten_are_refused():
    d = Driver(Limits(window_events=8))
    d.do("create", "a")
    for _ in range(20):
        d.do("update", "a")
    with pytest.raises(TooNew):
        d.core.since("b", 999)
    with pytest.raises(Expired):
        d.core.since("b", 1)
    with pytest.raises(Expired):
        list(d.core.scan("b", at=1))
    assert [e.revision for e in d.core.since("b", 19)] == [20, 21]


def test_a_bucket_nobody_wrote_to_can_be_watched_from_any_known_revision():
    d = Driver()
    d.do("create", "a")
    assert d.core.since("other", 1) == ()
    assert d.core.since("other", 0) == ()


def test_a_deletion_shows_the_last_state_with_its_own_revision():
    d = Driver()
    d.do("create", "a", "v")
    d.do("delete", "a", "last")
    event = d.core.since("b", 1)[0]
    assert (event.value, event.after, event.before.value) == (b"last@2", None, b"v@1")


def test_compaction_forgets_old_rows_and_a_restart_refuses_what_it_cannot_tell():
    d = Driver(Limits(log_revisions=5))
    d.do("create", "gone")
    d.do("create", "kept")
    d.do("delete", "gone")
    for _ in range(30):
        d.do("update", "kept")
    compacted, rows = d.log.load()
    assert compacted >= 25
    assert len(list(rows)) <= 10
    core = d.restarted()
    assert core.revision == d.core.revision
    assert state(core) == state(d.core)
    with pytest.raises(Expired):
        core.since("b", 2)
    with pytest.raises(Expired):
        core.since("never", compacted - 1)
    assert [e.revision for e in core.since("b", core.revision - 2)] == [core.revision - 1, core.revision]


def test_compaction_is_bounded_by_bytes_too():
    d = Driver(Limits(log_bytes=10_000))
    d.do("create", "a", "x" * 1000)
    for _ in range(50):
        d.do("update", "a", "x" * 1000)
    assert sum(len(e.value) for e in d.log.load()[1]) < 15_000


def test_a_batch_that_failed_leaves_nothing():
    d = Driver()
    d.do("create", "a", "v")
    write = d.core.prepare("update", "b", "a", at("w"), 1)
    d.core.batch([Entry(2, "b", "a", b"w@2")])
    d.core.release(write)
    assert (d.core.revision, state(d.core)) == (1, {"a": b"v@1"})
    assert d.do("update", "a", "w") == 2


keys = st.sampled_from(["a/1", "a/2", "b/1", "b/2"])
steps = st.lists(st.tuples(st.sampled_from(["create", "update", "delete"]), keys), max_size=60)
small = st.sampled_from([Limits(), Limits(window_events=8, log_revisions=4), Limits(window_bytes=60)])


@given(steps, small)
def test_against_a_model_every_told_past_is_the_past_that_was(operations, limits):
    d = Driver(limits)
    model: dict[str, bytes] = {}
    past = {0: {}}
    for kind, key in operations:
        try:
            revision = d.do(kind, key)
        except (KeyExists, KeyMissing):
            assert (key in model) == (kind == "create")
            continue
        if kind == "delete":
            del model[key]
        else:
            model[key] = f"x@{revision}".encode()
        past[revision] = dict(sorted(model.items()))
    for core in (d.core, d.restarted(limits)):
        assert core.revision == max(past)
        for revision, expected in past.items():
            with suppress(Expired):
                assert state(core, revision) == expected
                # folding the events behind a state gives the newest state
                folded = dict(expected)
                for event in core.since("b", revision, limit=1000):
                    if event.after is None:
                        assert folded.pop(event.key) == event.before.value
                    else:
                        assert folded.get(event.key) == (event.before.value if event.before else None)
                        folded[event.key] = event.value
                assert dict(sorted(folded.items())) == past[max(past)]
        assert state(core) == past[max(past)]


@given(steps, st.integers(1, 3))
def test_pages_of_one_revision_join_to_the_state_of_that_revision(operations, size):
    d = Driver()
    half = len(operations) // 2
    for kind, key in operations[:half]:
        with suppress(StoreError):
            d.do(kind, key)
    revision, expected = d.core.revision, state(d.core)
    seen: dict[str, bytes] = {}
    after = ""
    rest = iter(operations[half:])
    while True:
        page = [(k, r.value) for k, r in d.core.scan("b", after=after, at=revision)][:size]
        if not page:
            break
        seen.update(page)
        after = page[-1][0]
        for kind, key in rest:
            with suppress(StoreError):
                d.do(kind, key)
            break
    assert seen == expected


def test_an_empty_batch_of_a_memory_log_is_harmless():
    log = MemoryLog()
    log.append(Batch([], [], 0))
    assert list(log.load()[1]) == []
