"""The store's log in one SQLite file: WAL, synced on every commit, readable with any sqlite3.

One row per kept revision. A commit that fails leaves nothing behind; when the answer of a commit is not clear (an
I/O error in the middle of it), the file itself is asked whether the batch is in it.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgehive.kit.errors import StorageError
from edgehive.store.log import Batch, Entry

log = logging.getLogger(__name__)

_FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    revision INTEGER PRIMARY KEY,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    value BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('compacted', 0);
"""


class SqliteLog:
    """`store.log.Log` on a file. Every method runs in the one thread that the shell gives it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def load(self) -> tuple[int, Iterable[Entry]]:
        """Open the file and return what it has.

        Raises:
            StorageError: it cannot be opened, is in use by another process, or is not ours.
        """
        try:
            db = self._open()
            row = db.execute("SELECT value FROM meta WHERE name = 'compacted'").fetchone()
        except sqlite3.Error as exc:
            hint = "; does another control plane use it?" if "locked" in str(exc) else ""
            raise StorageError(f"{self._path}: {exc}{hint}") from exc
        return int(row[0]), self._rows(db)

    def _rows(self, db: sqlite3.Connection) -> Iterator[Entry]:
        try:
            for revision, bucket, key, deleted, value in db.execute(
                "SELECT revision, bucket, key, deleted, value FROM log ORDER BY revision"
            ):
                yield Entry(revision, bucket, key, value, bool(deleted))
        except sqlite3.Error as exc:
            raise StorageError(f"{self._path}: {exc}") from exc

    def append(self, batch: Batch) -> None:
        try:
            self._write(self._db or self._open(), batch)
        except sqlite3.Error as exc:
            if self._kept(batch):
                log.warning("%s: %s, but the batch is in the file", self._path, exc)
                return
            raise StorageError(f"{self._path}: {exc}") from exc

    def close(self) -> None:
        """Close the file; an unfinished transaction is rolled back."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        self.close()
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")  # two servers on one file would give a revision twice
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA cache_size=-512")
            db.execute("PRAGMA journal_size_limit=8388608")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in {0, _FORMAT}:
                raise StorageError(f"{self._path}: written by a newer edgehive (format {version})")
            if version == 0:
                db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version={_FORMAT};COMMIT;")
            db.execute("BEGIN IMMEDIATE")  # take the lock now, so that a second server fails at its start
            db.execute("COMMIT")
        except (sqlite3.Error, StorageError):
            db.close()
            raise
        self._path.chmod(0o600)
        self._db = db
        return db

    def _write(self, db: sqlite3.Connection, batch: Batch) -> None:
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            "INSERT INTO log (revision, bucket, key, deleted, value) VALUES (?, ?, ?, ?, ?)",
            ((e.revision, e.bucket, e.key, int(e.deleted), e.value) for e in batch.entries),
        )
        if batch.obsolete:
            db.executemany("DELETE FROM log WHERE revision = ?", ((r,) for r in batch.obsolete))
            db.execute("UPDATE meta SET value = ? WHERE name = 'compacted'", (batch.compacted,))
        db.execute("COMMIT")

    def _kept(self, batch: Batch) -> bool:
        """Reopen after a failure and look whether the batch was committed all the same."""
        try:
            db = self._open()
            last = db.execute("SELECT max(revision) FROM log").fetchone()[0] or 0
        except (sqlite3.Error, StorageError, OSError):
            self.close()
            return False
        return bool(batch.entries) and last >= batch.entries[-1].revision
