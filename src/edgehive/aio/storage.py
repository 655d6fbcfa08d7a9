"""The store in a process: group commit in a worker thread, wake-ups for watchers.

Writers that come while a commit is on its way share the next one. A write is answered after its commit; a writer
that is cancelled meanwhile loses the answer, not the write.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

from edgehive.kit.errors import StorageError
from edgehive.store.log import Batch, Entry, Log
from edgehive.store.revisions import Encode, Event, KeyBusy, Limits, Record, Revisions, Write

log = logging.getLogger(__name__)

_BATCH = 256
_MAX_WAITING = 20_000  # writes that wait for the disk; more than this and the caller is told so


class _Waiting(NamedTuple):
    write: Write
    done: asyncio.Future[Record]


class Storage:
    """Objects by (bucket, key), kept in memory and durable in a `Log`."""

    def __init__(self, log_: Log, *, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self._log = log_
        self._core = Revisions(limits=limits)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._waiting: deque[_Waiting] = deque()
        self._committing = False
        self._free: dict[tuple[str, str], asyncio.Event] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self.commits = 0
        self.failures = 0
        self.problem = ""
        """Why the last commit failed; empty when it did not."""

    async def open(self) -> None:
        """Load everything.

        Raises:
            StorageError: the log cannot be read.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._load)

    def _load(self) -> None:
        self._core.load(*self._log.load())

    async def close(self) -> None:
        """Let what was begun finish, then close the log."""
        self._closed = True
        await self._idle.wait()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._log.close)
        self._thread.shutdown(wait=False)

    # -- reading (never waits)

    @property
    def revision(self) -> int:
        """The revision of the last durable change."""
        return self._core.revision

    def get(self, bucket: str, key: str) -> Record | None:
        """Return the current object."""
        return self._core.get(bucket, key)

    def scan(
        self, bucket: str, prefix: str = "", *, after: str = "", at: int | None = None
    ) -> Iterator[tuple[str, Record]]:
        """See `Revisions.scan`; do not await while iterating."""
        return self._core.scan(bucket, prefix, after=after, at=at)

    def count(self, bucket: str) -> int:
        """Return how many objects a bucket has."""
        return self._core.count(bucket)

    def buckets(self) -> dict[str, int]:
        """Return the number of objects by bucket."""
        return self._core.buckets()

    def since(self, bucket: str, revision: int) -> Sequence[Event]:
        """See `Revisions.since`."""
        return self._core.since(bucket, revision)

    def check(self, bucket: str, revision: int) -> None:
        """See `Revisions.check`."""
        self._core.check(bucket, revision)

    async def changed(self, bucket: str) -> None:
        """Wait for the next change in a bucket."""
        event = self._changed.get(bucket)
        if event is None:
            event = self._changed[bucket] = asyncio.Event()
        await event.wait()

    def wake(self, bucket: str) -> None:
        """Wake everybody who waits for a change in a bucket."""
        event = self._changed.pop(bucket, None)
        if event is not None:
            event.set()

    # -- writing

    async def create(self, bucket: str, key: str, encode: Encode) -> Record:
        """Add an object.

        Raises:
            KeyExists: there is one.
            StorageError: the disk refused; nothing changed.
        """
        return await self._write("create", bucket, key, encode, 0)

    async def update(self, bucket: str, key: str, expected: int, encode: Encode) -> Record:
        """Replace the object that is at revision `expected`.

        Raises:
            KeyMissing, Stale: it is not there, or not at that revision.
            StorageError: the disk refused; nothing changed.
        """
        return await self._write("update", bucket, key, encode, expected)

    async def delete(self, bucket: str, key: str, expected: int, encode: Encode) -> Record:
        """Remove the object that is at revision `expected`; `encode` gives its last state.

        Raises:
            KeyMissing, Stale: it is not there, or not at that revision.
            StorageError: the disk refused; nothing changed.
        """
        return await self._write("delete", bucket, key, encode, expected)

    async def _write(
        self,
        kind: Literal["create", "update", "delete"],
        bucket: str,
        key: str,
        encode: Encode,
        expected: int,
    ) -> Record:
        write: Write | None = None
        while write is None:
            if self._closed:
                raise StorageError("the store is closing")
            if len(self._waiting) >= _MAX_WAITING:
                raise StorageError("too many writes are waiting for the disk")
            try:
                write = self._core.prepare(kind, bucket, key, encode, expected)
            except KeyBusy:
                await self._free.setdefault((bucket, key), asyncio.Event()).wait()
        done: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(write, done))
        if not self._committing:
            self._commit_next()
        return await done

    def _commit_next(self) -> None:
        """Encode what waits and hand it to the worker thread; nothing here awaits."""
        taken: list[_Waiting] = []
        entries: list[Entry] = []
        while self._waiting and len(entries) < _BATCH:
            item = self._waiting.popleft()
            revision = self._core.revision + len(entries) + 1
            write = item.write
            try:
                value = write.encode(revision)
            except Exception as exc:  # noqa: BLE001 - the writer's own bug must not stop the other writers
                self._finish(item, exc)
                continue
            entries.append(Entry(revision, write.bucket, write.key, value, write.kind == "delete"))
            taken.append(item)
        self._committing = bool(entries)
        if not entries:
            self._idle.set()
            return
        self._idle.clear()
        batch = self._core.batch(entries)
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._log.append, batch)
        work.add_done_callback(lambda future: self._committed(future, batch, taken))

    def _committed(self, future: asyncio.Future[None], batch: Batch, taken: list[_Waiting]) -> None:
        error = StorageError("the store was closed") if future.cancelled() else future.exception()
        if error is None:
            self.commits += 1
            if self.problem:
                log.info("changes are kept again")
            self.problem = ""
            self._core.commit(batch)
            for item, entry in zip(taken, batch.entries, strict=True):
                self._finish(item, Record(entry.value, entry.revision))
            for bucket in {entry.bucket for entry in batch.entries}:
                self.wake(bucket)
        else:
            self.failures += 1
            level = logging.DEBUG if self.problem else logging.ERROR  # told once, not at every heartbeat
            log.log(level, "%d changes were refused and not kept: %s", len(taken), error)
            self.problem = str(error)
            for item in taken:
                self._finish(item, error)
        self._commit_next()

    def _finish(self, item: _Waiting, outcome: Record | BaseException) -> None:
        self._core.release(item.write)
        free = self._free.pop((item.write.bucket, item.write.key), None)
        if free is not None:
            free.set()
        if item.done.done():
            return
        if isinstance(outcome, Record):
            item.done.set_result(outcome)
        else:
            item.done.set_exception(outcome)
