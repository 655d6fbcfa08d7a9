"""What the store wants from a disk: one ordered log of entries, appended to in whole batches."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Entry(NamedTuple):
    """One change. `value` of a deletion is the object's last state, carrying the deletion's revision."""

    revision: int
    bucket: str
    key: str
    value: bytes
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit does: append `entries`, forget the rows `obsolete`, remember `compacted`."""

    entries: Sequence[Entry]
    obsolete: Sequence[int]
    compacted: int


class Log(Protocol):
    """A durable log. Blocking: the shell calls it from a worker thread, one call at a time."""

    def load(self) -> tuple[int, Iterable[Entry]]:
        """Return the compacted revision and every kept entry in order of revision."""
        ...

    def append(self, batch: Batch) -> None:
        """Make `batch` durable, whole or not at all.

        Raises:
            StorageError: nothing of it was kept.
        """
        ...

    def close(self) -> None:
        """Release the files."""
        ...


class MemoryLog:
    """A log that lives as long as the process: for tests and throw-away stores."""

    def __init__(self) -> None:
        self._rows: dict[int, Entry] = {}
        self._compacted = 0

    def load(self) -> tuple[int, Iterable[Entry]]:
        return self._compacted, sorted(self._rows.values())

    def append(self, batch: Batch) -> None:
        for revision in batch.obsolete:
            self._rows.pop(revision, None)
        self._rows.update((entry.revision, entry) for entry in batch.entries)
        self._compacted = batch.compacted

    def close(self) -> None:
        """Nothing to release."""
