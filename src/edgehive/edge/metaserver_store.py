"""The replica: what this edge has seen of the Kubernetes API, in KubeEdge's table ``meta_v2``.

Objects lie in SQLite and nowhere else. Of a resource that somebody looks at, the last changes are in memory as well,
so that a watch continues where it was interrupted.

Versions are the cloud's own. They may arrive out of order (each object for itself is in order), so a position in the
changes of a resource is not a version but a place in the order of arrival; `View` finds the place for a version. A
client may be told something twice that it knew, never miss anything.
"""

import asyncio
import contextlib
import sqlite3
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from edgehive.edge.store import EdgeStore
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.meta import Partial, decode_partial
from edgehive.kube.refs import GVR
from edgehive.store.revisions import Event, Expired, Record, TooNew
from edgehive.wire.application import ResourceKey, format_gvr

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta_v2 (
    key TEXT NOT NULL PRIMARY KEY,
    group_version_resource TEXT,
    namespace TEXT,
    name TEXT,
    resource_version INTEGER,
    value TEXT
);
CREATE INDEX IF NOT EXISTS edgehive_meta_v2_version ON meta_v2 (group_version_resource, resource_version);
CREATE TABLE IF NOT EXISTS edgehive_scope (
    scope TEXT NOT NULL PRIMARY KEY,
    group_version_resource TEXT NOT NULL,
    revision INTEGER NOT NULL,
    synced REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS edgehive_deleted (
    group_version_resource TEXT NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL
);
"""
_INSERT = (
    "INSERT OR REPLACE INTO meta_v2 (key, group_version_resource, namespace, name, resource_version, value)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
_NOTE_DELETION = (
    "INSERT INTO edgehive_deleted (group_version_resource, revision) VALUES (?1, ?2)"
    " ON CONFLICT (group_version_resource) DO UPDATE SET revision = max(revision, ?2)"
)
"""A deletion leaves no row whose version a client could go on from after a restart."""
WINDOW_EVENTS: Final = 1024
WINDOW_BYTES: Final = 256 << 10
_DOCUMENT = "edgehive/document"


@dataclass(slots=True)
class _Window:
    """The last changes of one resource: `events` in order of arrival, `floors` the revision after each."""

    revision: int
    events: deque[Event] = field(default_factory=deque)
    floors: deque[int] = field(default_factory=deque)
    first: int = 0
    """How many changes have been dropped from the front."""
    floor: int = 0
    """The revision before the first event that is kept."""
    size: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def end(self) -> int:
        return self.first + len(self.events)

    def add(self, event: Event) -> None:
        self.revision = max(self.revision, event.revision)
        self.events.append(event)
        self.floors.append(self.revision)
        self.size += len(event.value)
        while len(self.events) > WINDOW_EVENTS or (self.size > WINDOW_BYTES and len(self.events) > 1):
            self.size -= len(self.events.popleft().value)
            self.floor = self.floors.popleft()
            self.first += 1
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def place(self, revision: int) -> int:
        """The place after what a client that stands at `revision` has certainly seen.

        Raises:
            Expired, TooNew: it cannot be told.
        """
        if revision > self.revision:
            raise TooNew(str(revision))
        if revision < self.floor:
            raise Expired(str(revision))
        listed = 0 if revision == self.floor else bisect_left(self.floors, revision) + 1
        if revision != self.floor and (listed > len(self.floors) or self.floors[listed - 1] != revision):
            listed = -1  # no list ever had this version: it is that of an event
        seen = next((i + 1 for i, event in enumerate(self.events) if event.revision == revision), -1)
        known = [place for place in (listed, seen) if place >= 0]
        return self.first + (min(known) if known else bisect_left(self.floors, revision))

    def last_place(self, revision: int) -> int:
        """The place up to which a list of `revision` may go: what came late belongs to it, but raised no version.

        Raises:
            Expired, TooNew: it cannot be told.
        """
        self.place(revision)
        return self.first + bisect_right(self.floors, revision)


@dataclass(frozen=True, slots=True)
class Held:
    """One object as it is kept."""

    key: ResourceKey
    raw: bytes
    version: int
    uid: str


class Replica:
    """The objects of all resources. Every method raises `StorageError` when the disk refuses."""

    def __init__(self, store: EdgeStore) -> None:
        self._store = store
        self._windows: dict[GVR, _Window] = {}
        with store.transaction() as db:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                db.execute(statement)

    # reading

    def window(self, gvr: GVR) -> _Window:
        """The recent changes of a resource, kept from the first time somebody asks."""
        window = self._windows.get(gvr)
        if window is None:
            revision = self._last(gvr)
            window = self._windows[gvr] = _Window(revision, floor=revision)
        return window

    def get(self, key: ResourceKey) -> Held | None:
        """Return one object."""
        rows = self._store.query("SELECT value FROM meta_v2 WHERE key = ?", (str(key),))
        return _held(key, _bytes(rows[0][0])) if rows else None

    def has(self, gvr: GVR) -> bool:
        """Tell whether any object of a resource is here."""
        return bool(
            self._store.query(
                "SELECT 1 FROM meta_v2 WHERE group_version_resource = ? LIMIT 1", (format_gvr(gvr),)
            )
        )

    def scan(self, gvr: GVR, prefix: str = "", after: str = "") -> Iterator[tuple[str, Record]]:
        """Yield objects as (``namespace/name`` or name, record), in order, from behind `after`."""
        base = str(ResourceKey(gvr, "-", "-")).removesuffix("-/-").removesuffix("null/-")
        low, high = base + prefix, base + prefix + "\U0010ffff"
        sql = "SELECT key, resource_version, value FROM meta_v2 WHERE key >= ? AND key < ? AND key > ? ORDER BY key"
        start = base + (after if "/" in after or not after else f"null/{after}")
        for key, version, value in self._store.iterate(sql, (low, high, start)):
            short = key[len(base) :].removeprefix("null/")
            yield short, Record(_bytes(value), version or 0)

    def document(self, path: str) -> bytes | None:
        """Return what a pass-through path answered last."""
        rows = self._store.query("SELECT value FROM meta_v2 WHERE key = ?", (path,))
        return _bytes(rows[0][0]) if rows else None

    def count(self) -> int:
        """Return how many rows there are."""
        return int(self._store.query("SELECT count(*) FROM meta_v2")[0][0])

    # writing

    def keep_document(self, path: str, body: bytes) -> None:
        """Keep the answer of a pass-through path."""
        with self._store.transaction() as db:
            db.execute(_INSERT, (path, _DOCUMENT, "", "", 0, body.decode("utf-8", "replace")))

    def put(self, gvr: GVR, raws: Iterable[bytes], *, late: bool = False) -> None:
        """Keep objects, except where a newer state is here already.

        `late`: they come from messages that may arrive late or again, even after that of the object's deletion.
        """
        if late:
            raws = [raw for raw in raws if not self._was_deleted(gvr, raw)]
        events = []
        with self._store.transaction() as db:
            for raw in raws:
                event = self._put(db, gvr, raw)
                if event is not None:
                    events.append(event)
        self._tell(gvr, events)

    def remove(self, key: ResourceKey, last: bytes = b"", uid: str = "") -> None:
        """Forget an object; `last` is its final state, `uid` the incarnation that is meant."""
        held = self.get(key)
        if held is None or (uid and held.uid and uid != held.uid):
            return
        event = _deletion(held, last)
        with self._store.transaction() as db:
            self._delete(db, key, event.revision)
        self._tell(key.gvr, [event])

    def replace(self, gvr: GVR, raws: Sequence[bytes], revision: int, gone: Iterable[ResourceKey]) -> None:
        """Take over a list of the cloud at `revision`; `gone` is what it should have shown and did not."""
        # Somebody may stand at the version of what little was here: to him all the rest has yet to happen.
        window = self.window(gvr) if self._is_partial(gvr) else self._windows.get(gvr)
        deleted = {e.key: e.revision for e in window.events if e.after is None} if window else {}
        events = []
        with self._store.transaction() as db:
            for raw in raws:
                meta = decode_partial(raw).metadata
                short = f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name
                if deleted.get(short, 0) > revision:
                    continue  # it was deleted after the list was made
                event = self._put(db, gvr, raw)
                if event is not None:
                    events.append(event)
            for key in gone:
                held = self.get(key)
                if held is None or held.version > revision:
                    continue
                self._delete(db, key, revision)
                events.append(_deletion(held, _at(held.raw, revision)))
        self._tell(gvr, sorted(events, key=lambda e: e.revision))
        if window is not None:
            window.revision = max(window.revision, revision)
            window.wake()

    def _put(self, db: sqlite3.Connection, gvr: GVR, raw: bytes) -> Event | None:
        meta = decode_partial(raw).metadata
        key = ResourceKey(gvr, meta.namespace, meta.name)
        found = db.execute("SELECT value FROM meta_v2 WHERE key = ?", (str(key),)).fetchone()
        held = _held(key, _bytes(found[0])) if found else None
        if held is not None and meta.rv <= held.version:
            return None
        row = (str(key), format_gvr(gvr), meta.namespace, meta.name, meta.rv, raw.decode())
        db.execute(_INSERT, row)
        before = Record(held.raw, held.version) if held is not None else None
        return Event(meta.rv, _short(key), raw, before, Record(raw, meta.rv))

    def _is_partial(self, gvr: GVR) -> bool:
        """Whether some objects of a resource are here, but no selection of it was ever complete."""
        sql = "SELECT 1 FROM edgehive_scope WHERE group_version_resource = ? LIMIT 1"
        return self.has(gvr) and not self._store.query(sql, (format_gvr(gvr),))

    def _was_deleted(self, gvr: GVR, raw: bytes) -> bool:
        """Whether an object is known to have been deleted since it was so."""
        window, meta = self._windows.get(gvr), decode_partial(raw).metadata
        short = _short(ResourceKey(gvr, meta.namespace, meta.name))
        last = next((e for e in reversed(window.events) if e.key == short), None) if window else None
        return last is not None and last.after is None and meta.rv <= last.revision

    @staticmethod
    def _delete(db: sqlite3.Connection, key: ResourceKey, revision: int) -> None:
        db.execute("DELETE FROM meta_v2 WHERE key = ?", (str(key),))
        db.execute(_NOTE_DELETION, (format_gvr(key.gvr), revision))

    def _tell(self, gvr: GVR, events: Iterable[Event]) -> None:
        window = self._windows.get(gvr)
        if window is not None:
            for event in events:
                window.add(event)

    # what was asked of the cloud

    def scopes(self) -> dict[str, tuple[int, float]]:
        """Which selections were complete once: revision and time (seconds since the epoch)."""
        rows = self._store.query("SELECT scope, revision, synced FROM edgehive_scope")
        return {scope: (revision, synced) for scope, revision, synced in rows}

    def keep_scope(self, scope: str, gvr: GVR, revision: int, synced: float) -> None:
        """Note that a selection is complete."""
        with self._store.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO edgehive_scope (scope, group_version_resource, revision, synced)"
                " VALUES (?, ?, ?, ?)",
                (scope, format_gvr(gvr), revision, synced),
            )

    def _last(self, gvr: GVR) -> int:
        sql = (
            "SELECT max((SELECT coalesce(max(resource_version), 0) FROM meta_v2 WHERE group_version_resource = ?1),"
            " (SELECT coalesce(max(revision), 0) FROM edgehive_scope WHERE group_version_resource = ?1),"
            " (SELECT coalesce(max(revision), 0) FROM edgehive_deleted WHERE group_version_resource = ?1))"
        )
        return int(self._store.query(sql, (format_gvr(gvr),))[0][0])


class View:
    """One request's sight of one resource, in the form that the API server's reader and watcher want."""

    def __init__(self, replica: Replica, gvr: GVR) -> None:
        self._replica = replica
        self._gvr = gvr
        self._window = replica.window(gvr)
        self._place = self._window.end

    @property
    def revision(self) -> int:
        """The version that a list has, and at which a watch may go on."""
        return self._window.revision

    def get(self, bucket: str, key: str) -> Record | None:
        """Return one object."""
        namespace, _, name = key.rpartition("/")
        held = self._replica.get(ResourceKey(self._gvr, namespace, name))
        return Record(held.raw, held.version) if held is not None else None

    def scan(
        self, bucket: str, prefix: str = "", *, after: str = "", at: int | None = None
    ) -> Iterator[tuple[str, Record]]:
        """Yield the objects, as of version `at` if it is given; what comes later is for `since`."""
        self._place = self._window.end
        found = self._replica.scan(self._gvr, prefix, after)
        if at is None:
            return found
        changed: dict[str, Record | None] = {}
        place = self._window.last_place(at)
        for event in reversed(list(self._window.events)[place - self._window.first :]):
            changed[event.key] = event.before
        return iter(_merged(found, changed, prefix, after)) if changed else found

    def check(self, bucket: str, revision: int) -> None:
        """Go to the place of `revision`; raises `Expired` or `TooNew`."""
        self._place = self._window.place(revision)

    def since(self, bucket: str, revision: int) -> Sequence[Event]:
        """Return what has happened since the last call; raises `Expired` when too much has."""
        window = self._window
        if self._place < window.first:
            raise Expired(str(revision))
        if self._place == window.end:
            return ()
        events = list(window.events)[self._place - window.first :][:256]
        self._place += len(events)
        return events

    async def changed(self, bucket: str) -> None:
        """Wait for a change."""
        if self._place == self._window.end:
            await self._window.changed.wait()


def _merged(
    found: Iterable[tuple[str, Record]], changed: dict[str, Record | None], prefix: str, after: str
) -> list[tuple[str, Record]]:
    state = {key: record for key, record in found if key not in changed}
    state |= {
        k: r
        for k, r in changed.items()
        if r is not None and k.startswith(prefix) and (not after or k > after)
    }
    return sorted(state.items())


def _deletion(held: Held, last: bytes) -> Event:
    version = held.version
    if last:
        with contextlib.suppress(*MALFORMED):
            partial = decode_partial(last)
            version = max(version, partial.metadata.rv)
            if not (partial.kind and partial.metadata.name and partial.metadata.rv):
                last = (
                    b""  # a bare one, for what is gone: a client that goes on at its version would begin anew
                )
    return Event(version, _short(held.key), last or held.raw, Record(held.raw, held.version), None)


def _at(raw: bytes, revision: int) -> bytes:
    obj = msgspec.json.decode(raw)
    obj["metadata"]["resourceVersion"] = str(revision)
    return msgspec.json.encode(obj)


def _held(key: ResourceKey, raw: bytes) -> Held:
    try:
        meta = decode_partial(raw).metadata
    except MALFORMED:
        meta = Partial().metadata
    return Held(key, raw, meta.rv, meta.uid)


def _short(key: ResourceKey) -> str:
    return f"{key.namespace}/{key.name}" if key.namespace else key.name


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
