"""The edge's database: KubeEdge's ``meta`` table, and the outbox of what the cloud has not answered yet.

SQLite in WAL mode with ``synchronous=FULL``: when a call returns, its effect survives a power cut, so that
an acknowledgement sent afterwards is true. Calls are short and synchronous: one commit takes well under a
millisecond on an SSD and some milliseconds on an SD card, and with one writer there is nothing to interleave
(docs/edgecore.md has the measurement that decided against a thread).
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgehive.kit.errors import ProtocolError, StorageError, UserError
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.meta import Meta, decode_partial
from edgehive.wire.held import Holding, holding
from edgehive.wire.message import decode_message, encode_message
from edgehive.wire.outbox import Entry
from edgehive.wire.rows import Put, Remove, Row

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT NOT NULL PRIMARY KEY, type TEXT, value TEXT);
CREATE INDEX IF NOT EXISTS edgehive_meta_type ON meta (type);
CREATE TABLE IF NOT EXISTS edgehive_outbox (
    sequence INTEGER NOT NULL PRIMARY KEY,
    subject TEXT NOT NULL,
    frame BLOB NOT NULL
);
"""


def metadata_of(raw: bytes) -> Meta:
    """``metadata`` of `raw`; empty when `raw` is not a Kubernetes object."""
    try:
        return decode_partial(raw).metadata
    except MALFORMED:
        return Meta()


class EdgeStore:
    """One open database. Every method raises `StorageError` when the disk refuses; nothing is half done."""

    def __init__(self, path: Path) -> None:
        """Open or make the database at `path`.

        Raises:
            StorageError: it cannot be opened or is damaged.
            UserError: another edgecore has it open.
        """
        with _translated(f"the database {path}"), contextlib.ExitStack() as undo:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = _lock(path)
                undo.callback(os.close, self._lock)
                path.touch(mode=0o600)  # it holds Secrets
                path.chmod(0o600)
            except OSError as exc:
                raise StorageError(f"the database {path} cannot be opened: {exc}") from exc
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            undo.callback(self._db.close)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA cache_size=-256")
            self._db.execute("PRAGMA journal_size_limit=1048576")
            self._db.executescript(_SCHEMA)
            undo.pop_all()

    def close(self) -> None:
        """Close the database."""
        self._db.close()
        os.close(self._lock)

    # meta

    def get(self, key: str) -> Row | None:
        """Return one row."""
        with _translated():
            found = self._db.execute("SELECT key, type, value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else _row(found)

    def rows(self, kind: str) -> list[Row]:
        """Return every row of one type, ordered by key."""
        with _translated():
            found = self._db.execute("SELECT key, type, value FROM meta WHERE type = ? ORDER BY key", (kind,))
            return [_row(columns) for columns in found]

    def holdings(self) -> list[Holding]:
        """Return resource, UID and version of every object that is kept for the cloud."""
        with _translated():
            found = self._db.execute("SELECT key, value FROM meta ORDER BY key")
            return [entry for key, value in found if (entry := _holding(key, value)) is not None]

    def apply(self, changes: Iterable[Put | Remove]) -> None:
        """Make `changes` in one transaction."""
        with self._transaction():
            for change in changes:
                if isinstance(change, Put):
                    self._db.execute(
                        "INSERT OR REPLACE INTO meta (key, type, value) VALUES (?, ?, ?)",
                        (change.row.key, change.row.type, change.row.value.decode()),
                    )
                else:
                    self._db.execute("DELETE FROM meta WHERE key = ?", (change.key,))

    # the outbox (wire.outbox.OutboxStore)

    def load(self) -> Iterable[Entry]:
        """Return every kept message, oldest first; an unreadable one is dropped."""
        with _translated():
            found = self._db.execute(
                "SELECT sequence, subject, frame FROM edgehive_outbox ORDER BY sequence"
            ).fetchall()
        entries = [_entry(*columns) for columns in found]
        return [entry for entry in entries if entry is not None]

    def save(self, entry: Entry, replaces: int | None) -> None:
        """Keep `entry`, dropping the entry `replaces` in the same transaction."""
        with self._transaction():
            if replaces is not None:
                self._db.execute("DELETE FROM edgehive_outbox WHERE sequence = ?", (replaces,))
            self._db.execute(
                "INSERT OR REPLACE INTO edgehive_outbox (sequence, subject, frame) VALUES (?, ?, ?)",
                (entry.sequence, entry.subject, encode_message(entry.message)),
            )

    def drop(self, sequence: int) -> None:
        """Forget a kept message."""
        with self._transaction():
            self._db.execute("DELETE FROM edgehive_outbox WHERE sequence = ?", (sequence,))

    # other tables of the same file

    def query(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return every row of a query."""
        with _translated():
            return self._db.execute(sql, values).fetchall()

    def iterate(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query without holding them all."""
        with _translated():
            yield from self._db.execute(sql, values)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Make changes together; durable when the block has ended."""
        with self._transaction():
            yield self._db

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # After a full disk SQLite may have rolled back by itself.
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise


@contextlib.contextmanager
def _translated(what: str = "the local database") -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise StorageError(f"{what} refused: {exc}") from exc


def _row(columns: tuple[str, str, str | bytes]) -> Row:
    key, kind, value = columns
    return Row(key, kind or "", value.encode() if isinstance(value, str) else bytes(value or b""))


def _holding(key: str, value: str | bytes) -> Holding | None:
    meta = metadata_of(value.encode() if isinstance(value, str) else bytes(value or b""))
    return holding(key, meta.uid, meta.resource_version)


def _entry(sequence: int, subject: str, frame: bytes) -> Entry | None:
    try:
        return Entry(sequence, subject, decode_message(frame))
    except ProtocolError as exc:
        log.warning("kept message %d cannot be read and is dropped: %s", sequence, exc)
        return None


def _lock(path: Path) -> int:
    """Make sure that no second edgecore works on the same database.

    Raises:
        UserError: one does.
    """
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(handle)
        raise UserError(
            f"another edgecore is using {path}",
            hint="stop it first, or give this one its own database.dataSource",
        ) from exc
    return handle
