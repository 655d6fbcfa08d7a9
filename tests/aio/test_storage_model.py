"""Many writers, a disk that fails now and then: what was acknowledged is there, what was refused is not."""

import asyncio
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.aio.storage import Storage
from edgehive.kit.errors import StorageError
from edgehive.store.log import Batch, MemoryLog
from edgehive.store.revisions import Expired, Limits, StoreError


class FlakyLog(MemoryLog):
    def __init__(self, failures: list[bool]) -> None:
        super().__init__()
        self._failures = iter(failures)

    def append(self, batch: Batch) -> None:
        if next(self._failures, False):
            raise StorageError("no")
        super().append(batch)


step = st.tuples(st.sampled_from(["create", "update", "delete"]), st.sampled_from("abcd"))
rounds = st.lists(st.lists(step, max_size=6), max_size=8)


@settings(deadline=None, max_examples=150)
@given(rounds, st.lists(st.booleans(), max_size=12), st.sampled_from([Limits(), Limits(log_revisions=3)]))
def test_acknowledged_writes_and_nothing_else(work, failures, limits):
    async def run() -> None:
        log = FlakyLog(failures)
        storage = Storage(log, limits=limits)
        await storage.open()
        acknowledged: dict[int, tuple[str, bytes | None]] = {}

        async def write(kind: str, key: str, mark: int) -> None:
            old = storage.get("b", key)
            expected = old.revision if old else 0
            encode = lambda revision: b"%d@%d" % (mark, revision)  # noqa: E731
            with suppress(StoreError, StorageError):
                if kind == "create":
                    record = await storage.create("b", key, encode)
                elif kind == "update":
                    record = await storage.update("b", key, expected, encode)
                else:
                    record = await storage.delete("b", key, expected, encode)
                assert record.revision not in acknowledged
                acknowledged[record.revision] = (key, None if kind == "delete" else record.value)

        marks = iter(range(1000))
        for group in work:
            async with asyncio.TaskGroup() as tasks:
                for kind, key in group:
                    tasks.create_task(write(kind, key, next(marks)))
        state: dict[str, bytes] = {}
        for revision in sorted(acknowledged):
            key, value = acknowledged[revision]
            if value is None:
                state.pop(key)
            else:
                state[key] = value
        assert {k: r.value for k, r in storage.scan("b")} == dict(sorted(state.items()))
        assert sorted(acknowledged) == list(range(1, storage.revision + 1))  # no gap, no double
        with suppress(Expired):
            events = storage.since("b", 0)
            assert [(e.revision, e.key) for e in events] == [
                (r, acknowledged[r][0]) for r in sorted(acknowledged)
            ]
        await storage.close()
        again = Storage(log, limits=limits)
        await again.open()
        assert again.revision == storage.revision
        assert list(again.scan("b")) == list(storage.scan("b"))
        await again.close()

    asyncio.run(run())
