"""The current objects, their recent history, and what a write must find to be allowed.

Objects are bytes under (bucket, key); a bucket is one resource, a key is ``namespace/name``. Every change has the
next revision. The core is synchronous and does not wait: the shell (`aio.storage`) asks `prepare`, makes a batch
durable and then calls `commit` (or `abort`). Between the two the key is busy and the old state is what readers see.

Invariants: revisions are applied in order, without gaps; ``state at R`` can be told exactly for every R that is not
older than the bucket's window; what was compacted or fell out of the window raises `Expired`, never a wrong answer.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from edgehive.kit.errors import EdgehiveError
from edgehive.store.log import Batch, Entry

Encode = Callable[[int], bytes]
"""Returns the bytes of an object that carries the given revision."""


class StoreError(EdgehiveError):
    """The store cannot do what was asked; subclasses say why."""


class KeyExists(StoreError):
    """Create found an object."""


class KeyMissing(StoreError):
    """Update or delete found none."""


class Stale(StoreError):
    """The object is not at the revision the writer has seen."""


class KeyBusy(StoreError):
    """A write to the same key is being made durable; ask again after it."""


class Expired(StoreError):
    """The revision is older than the history that is kept."""


class TooNew(StoreError):
    """The revision lies in the future."""


class Record(NamedTuple):
    """An object as it is now: its bytes and the revision that wrote them."""

    value: bytes
    revision: int


class Event(NamedTuple):
    """One change of one key; `before` is None for a creation, `after` None for a deletion.

    `value` is the object to show: the new state, or the last one of a deleted object.
    """

    revision: int
    key: str
    value: bytes
    before: Record | None
    after: Record | None


@dataclass(frozen=True, slots=True)
class Write:
    """A change that was found allowed and waits for the log."""

    bucket: str
    key: str
    encode: Encode
    kind: Literal["create", "update", "delete"]


@dataclass(slots=True)
class _Bucket:
    records: dict[str, Record] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    event_bytes: int = 0
    start: int = 0
    """Events after this revision are all here."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much history is kept in memory (per bucket) and in the log (altogether)."""

    window_events: int = 2048
    window_bytes: int = 4 * 1024 * 1024
    log_revisions: int = 2000
    log_bytes: int = 16 * 1024 * 1024


class Revisions:
    """The store's state. See the module's text for how it is driven."""

    def __init__(self, *, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._buckets: dict[str, _Bucket] = {}
        self._busy: set[tuple[str, str]] = set()
        self._garbage: deque[tuple[int, int, int]] = deque()  # (obsolete since, revision, size)
        self._garbage_bytes = 0
        self.revision = 0
        self.compacted = 0
        self._floor = 0  # what was compacted before this process began: no bucket knows more

    # -- start

    def load(self, compacted: int, entries: Iterable[Entry]) -> None:
        """Replay a log; changes after `compacted` can be watched again."""
        self.compacted = self.revision = self._floor = compacted
        for entry in entries:
            self._apply(entry, visible=entry.revision > compacted)
            self.revision = max(self.revision, entry.revision)

    # -- writing

    def prepare(
        self,
        kind: Literal["create", "update", "delete"],
        bucket: str,
        key: str,
        encode: Encode,
        expected: int = 0,
    ) -> Write:
        """Check that the change may be made and reserve its key; `expected` guards update and delete.

        Raises:
            KeyExists, KeyMissing, Stale, KeyBusy: it may not.
        """
        if (bucket, key) in self._busy:
            raise KeyBusy(key)
        record = self.get(bucket, key)
        if kind == "create":
            if record is not None:
                raise KeyExists(key)
        elif record is None:
            raise KeyMissing(key)
        elif record.revision != expected:
            raise Stale(key)
        self._busy.add((bucket, key))
        return Write(bucket, key, encode, kind)

    def release(self, write: Write) -> None:
        """Give the key of a prepared write back."""
        self._busy.discard((write.bucket, write.key))

    def batch(self, entries: Sequence[Entry]) -> Batch:
        """Return what the log has to do for `entries`, with a share of the compaction that is due."""
        obsolete: list[int] = []
        compacted = self.compacted
        room = 2 * len(entries) + 1
        size = self._garbage_bytes
        for since, revision, length in self._garbage:
            old = since <= self.revision - self._limits.log_revisions
            if len(obsolete) >= room or not (old or size > self._limits.log_bytes):
                break
            obsolete.append(revision)
            compacted = since
            size -= length
        return Batch(entries, obsolete, compacted)

    def commit(self, batch: Batch) -> None:
        """Apply a batch that is durable."""
        for _ in batch.obsolete:
            _, _, length = self._garbage.popleft()
            self._garbage_bytes -= length
        self.compacted = batch.compacted
        for entry in batch.entries:
            self._apply(entry, visible=True)
            self.revision = entry.revision

    def _apply(self, entry: Entry, *, visible: bool) -> None:
        bucket = self._buckets.get(entry.bucket)
        if bucket is None:
            bucket = self._buckets[entry.bucket] = _Bucket(start=self._floor)
        before = bucket.records.get(entry.key)
        after = None if entry.deleted else Record(entry.value, entry.revision)
        if before is not None:
            self._discard(entry.revision, before.revision, len(before.value))
        if after is None:
            self._discard(entry.revision, entry.revision, len(entry.value))
            if before is not None:
                del bucket.records[entry.key]
                del bucket.keys[bisect_left(bucket.keys, entry.key)]
        else:
            bucket.records[entry.key] = after
            if before is None:
                insort(bucket.keys, entry.key)
        if not visible:
            return
        bucket.events.append(Event(entry.revision, entry.key, entry.value, before, after))
        bucket.event_bytes += len(entry.value)
        self._trim(bucket)

    def _discard(self, since: int, revision: int, size: int) -> None:
        self._garbage.append((since, revision, size))
        self._garbage_bytes += size

    def _trim(self, bucket: _Bucket) -> None:
        limits = self._limits
        if len(bucket.events) <= limits.window_events and bucket.event_bytes <= limits.window_bytes:
            return
        # An eighth at a time: cutting the head of a list costs its length. The newest event always stays.
        count, size = 0, bucket.event_bytes
        keep = limits.window_events * 7 // 8
        for event in bucket.events[:-1]:
            if len(bucket.events) - count <= keep and size <= limits.window_bytes * 7 // 8:
                break
            count += 1
            size -= len(event.value)
            bucket.start = event.revision
        del bucket.events[:count]
        bucket.event_bytes = size

    # -- reading

    def get(self, bucket: str, key: str) -> Record | None:
        """Return the current object."""
        found = self._buckets.get(bucket)
        return found.records.get(key) if found is not None else None

    def count(self, bucket: str) -> int:
        """Return how many objects a bucket has."""
        found = self._buckets.get(bucket)
        return len(found.keys) if found is not None else 0

    def buckets(self) -> dict[str, int]:
        """Return the number of objects by bucket."""
        return {name: len(bucket.keys) for name, bucket in self._buckets.items()}

    def scan(
        self, bucket: str, prefix: str = "", *, after: str = "", at: int | None = None
    ) -> Iterator[tuple[str, Record]]:
        """Yield the objects under `prefix` in key order, from behind the key `after`, as of revision `at`.

        The store must not change while the iterator is in use.

        Raises:
            Expired, TooNew: the state at `at` cannot be told.
        """
        found = self._buckets.get(bucket)
        changed = self._undo(found, bucket, at)
        if found is None:
            return
        start = max(prefix, after)
        keys = found.keys
        if changed:
            keys = sorted({*keys, *changed})
        index = bisect_right(keys, start) if after and start == after else bisect_left(keys, start)
        for key in keys[index:] if changed else _slice(keys, index):
            if not key.startswith(prefix):
                return
            record = changed[key] if key in changed else found.records.get(key)
            if record is not None:
                yield key, record

    def _undo(self, bucket: _Bucket | None, name: str, at: int | None) -> dict[str, Record | None]:
        """Return the keys that are different at revision `at`, with what they were then."""
        changed: dict[str, Record | None] = {}
        if at is None:
            return changed
        self.check(name, at)
        if bucket is not None:
            for event in reversed(bucket.events):
                if event.revision <= at:
                    break
                changed[event.key] = event.before
        return changed

    def check(self, bucket: str, revision: int) -> None:
        """Do nothing when the history after `revision` is complete.

        Raises:
            Expired, TooNew: it is not.
        """
        if revision > self.revision:
            raise TooNew(str(revision))
        if revision < self._start(bucket):
            raise Expired(str(revision))

    def _start(self, bucket: str) -> int:
        found = self._buckets.get(bucket)
        return self._floor if found is None else found.start

    def since(self, bucket: str, revision: int, limit: int = 256) -> Sequence[Event]:
        """Return the next events after `revision`, at most `limit`.

        Raises:
            Expired, TooNew: they are not known any more, or not yet.
        """
        self.check(bucket, revision)
        found = self._buckets.get(bucket)
        if found is None or not found.events or found.events[-1].revision <= revision:
            return ()
        index = bisect_right(found.events, revision, key=_revision_of)
        return found.events[index : index + limit]


def _revision_of(event: Event) -> int:
    return event.revision


def _slice(keys: list[str], index: int) -> Iterator[str]:
    for position in range(index, len(keys)):
        yield keys[position]
