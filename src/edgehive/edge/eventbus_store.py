"""EventBus' tables in the edge's database: KubeEdge's ``sub_topics``, and the uploads that have not arrived yet."""

from collections.abc import Sequence

from edgehive.edge.store import EdgeStore

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sub_topics (topic TEXT NOT NULL PRIMARY KEY);
CREATE TABLE IF NOT EXISTS edgehive_uploads (sequence INTEGER NOT NULL PRIMARY KEY, frame BLOB NOT NULL);
"""


def _make_tables(store: EdgeStore) -> None:
    with store.transaction() as db:
        for statement in _SCHEMA.split(";"):
            db.execute(statement)


class TopicTable:
    """The topics that the cloud's rules have asked for. Methods raise `StorageError` when the disk refuses."""

    def __init__(self, store: EdgeStore) -> None:
        _make_tables(store)
        self._store = store

    def load(self) -> list[str]:
        """Return every topic."""
        return [str(topic) for (topic,) in self._store.query("SELECT topic FROM sub_topics ORDER BY topic")]

    def add(self, topic: str) -> None:
        """Keep a topic."""
        with self._store.transaction() as db:
            db.execute("INSERT OR REPLACE INTO sub_topics (topic) VALUES (?)", (topic,))

    def remove(self, topic: str) -> None:
        """Forget a topic."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM sub_topics WHERE topic = ?", (topic,))


class UploadTable:
    """`wire.uploads.UploadStore` on SQLite."""

    def __init__(self, store: EdgeStore) -> None:
        _make_tables(store)
        self._store = store

    def extent(self) -> tuple[int, int, int]:
        """Count, bytes and highest sequence."""
        ((count, size, last),) = self._store.query(
            "SELECT count(*), coalesce(sum(length(frame)), 0), coalesce(max(sequence), 0) FROM edgehive_uploads"
        )
        return int(count), int(size), int(last)

    def oldest(self, limit: int) -> list[tuple[int, int]]:
        """Sequence and size of the oldest."""
        found = self._store.query(
            "SELECT sequence, length(frame) FROM edgehive_uploads ORDER BY sequence LIMIT ?", (limit,)
        )
        return [(int(sequence), int(size)) for sequence, size in found]

    def read(self, after: int, limit: int, size: int) -> list[tuple[int, bytes]]:
        """The next ones behind `after`."""
        rows: list[tuple[int, bytes]] = []
        for sequence, frame in self._store.iterate(
            "SELECT sequence, frame FROM edgehive_uploads WHERE sequence > ? ORDER BY sequence LIMIT ?",
            (after, limit),
        ):
            rows.append((int(sequence), bytes(frame)))
            size -= len(frame)
            if size <= 0:
                break
        return rows

    def add(self, rows: Sequence[tuple[int, bytes]], drop_upto: int) -> None:
        """Keep `rows`, forget what is older than they have room for."""
        with self._store.transaction() as db:
            if drop_upto:
                db.execute("DELETE FROM edgehive_uploads WHERE sequence <= ?", (drop_upto,))
            db.executemany("INSERT INTO edgehive_uploads (sequence, frame) VALUES (?, ?)", rows)

    def drop(self, upto: int) -> None:
        """Forget what has arrived."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM edgehive_uploads WHERE sequence <= ?", (upto,))
