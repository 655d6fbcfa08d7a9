import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edgehive.aio.sqlite import SqliteLog
from edgehive.aio.storage import Storage
from edgehive.kit.errors import StorageError
from edgehive.store.log import Batch, Entry, MemoryLog
from edgehive.store.revisions import KeyExists, Stale


def at(text: str):
    return lambda revision: f"{text}@{revision}".encode()


async def opened(path: Path) -> Storage:
    storage = Storage(SqliteLog(path))
    await storage.open()
    return storage


async def test_a_restart_finds_everything_with_the_same_revisions(tmp_path):
    storage = await opened(tmp_path / "s.db")
    await storage.create("b", "x", at("one"))
    second = await storage.create("b", "y", at("two"))
    await storage.update("b", "y", second.revision, at("three"))
    await storage.delete("b", "x", 1, at("gone"))
    before = (storage.revision, list(storage.scan("b")), list(storage.since("b", 0)))
    await storage.close()
    storage = await opened(tmp_path / "s.db")
    assert (storage.revision, list(storage.scan("b")), list(storage.since("b", 0))) == before
    await storage.close()


async def test_many_writers_share_commits(tmp_path):
    storage = await opened(tmp_path / "s.db")
    async with asyncio.TaskGroup() as group:
        for i in range(200):
            group.create_task(storage.create("b", f"k{i:03}", at("v")))
    assert storage.revision == 200
    assert storage.commits < 20
    assert {r.revision for _, r in storage.scan("b")} == set(range(1, 201))
    await storage.close()


async def test_writers_of_one_key_take_turns():
    storage = Storage(MemoryLog())
    await storage.open()
    await storage.create("b", "k", at("v"))
    results = []

    async def write():
        try:
            results.append(await storage.update("b", "k", 1, at("w")))
        except Stale:
            results.append(None)

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(write())
    assert sum(r is not None for r in results) == 1
    await storage.close()


async def test_a_cancelled_writer_loses_the_answer_not_the_write():
    storage = Storage(MemoryLog())
    await storage.open()
    task = asyncio.get_running_loop().create_task(storage.create("b", "k", at("v")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await storage.close()
    assert storage.get("b", "k") is not None


async def test_a_watcher_is_woken_by_its_bucket_only():
    storage = Storage(MemoryLog())
    await storage.open()
    async with asyncio.TaskGroup() as group:
        mine = group.create_task(storage.changed("mine"))
        other = group.create_task(storage.changed("other"))
        await asyncio.sleep(0)
        await storage.create("mine", "k", at("v"))
        await mine
        assert not other.done()
        other.cancel()
    await storage.close()


class FullDisk(MemoryLog):
    full = False

    def append(self, batch: Batch) -> None:
        if self.full:
            raise StorageError("no space left on device")
        super().append(batch)


async def test_a_full_disk_refuses_whole_writes_and_recovers():
    disk = FullDisk()
    storage = Storage(disk)
    await storage.open()
    await storage.create("b", "k", at("v"))
    disk.full = True
    with pytest.raises(StorageError):
        await storage.update("b", "k", 1, at("w"))
    with pytest.raises(StorageError):
        await storage.create("b", "l", at("w"))
    assert (storage.revision, storage.get("b", "k").value, storage.get("b", "l")) == (1, b"v@1", None)
    disk.full = False
    assert (await storage.update("b", "k", 1, at("w"))).revision == 2
    await storage.close()


async def test_a_full_database_is_a_storage_error_and_nothing_is_half_applied(tmp_path):
    log = SqliteLog(tmp_path / "s.db")
    log.load()
    log.append(Batch([Entry(1, "b", "k", b"v")], [], 0))
    db = log._db
    db.execute(f"PRAGMA max_page_count={db.execute('PRAGMA page_count').fetchone()[0] + 4}")
    with pytest.raises(StorageError, match="full"):
        log.append(Batch([Entry(2, "b", "l", b"small"), Entry(3, "b", "m", b"x" * 200_000)], [], 0))
    log.append(Batch([Entry(2, "b", "k", b"w")], [1], 2))
    log.close()
    log = SqliteLog(tmp_path / "s.db")
    assert [e.revision for e in log.load()[1]] == [2]
    log.close()


async def test_a_failed_encode_costs_only_its_writer():
    storage = Storage(MemoryLog())
    await storage.open()

    def broken(revision: int) -> bytes:
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError):
        await storage.create("b", "k", broken)
    assert (await storage.create("b", "k", at("v"))).revision == 1
    with pytest.raises(KeyExists):
        await storage.create("b", "k", at("v"))
    await storage.close()


def test_a_second_server_on_the_file_is_refused(tmp_path):
    first = SqliteLog(tmp_path / "s.db")
    first.load()
    second = subprocess.run(
        [sys.executable, "-c", _SECOND, str(tmp_path / "s.db")], capture_output=True, text=True
    )
    assert "locked" in second.stdout
    first.close()


_SECOND = """
import sqlite3, sys
from pathlib import Path
from edgehive.aio.sqlite import SqliteLog
from edgehive.kit.errors import StorageError
real = sqlite3.connect
sqlite3.connect = lambda *a, **k: real(*a, **{**k, "timeout": 0.1})
try:
    SqliteLog(Path(sys.argv[1])).load()
except StorageError as exc:
    print(exc)
"""


def test_a_file_that_is_not_a_database_is_refused(tmp_path):
    (tmp_path / "s.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError):
        SqliteLog(tmp_path / "s.db").load()


def test_a_file_of_a_newer_format_is_refused(tmp_path):
    db = sqlite3.connect(tmp_path / "s.db")
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StorageError, match="newer"):
        SqliteLog(tmp_path / "s.db").load()


_WRITER = """
import asyncio, sys
from pathlib import Path
from edgehive.aio.sqlite import SqliteLog
from edgehive.aio.storage import Storage

async def write(storage, who):
    for i in range(100000):
        key = f"{who}/{i % 7}"
        old = storage.get("b", key)
        encode = lambda r, i=i: b"%d:" % i + b"x" * 500 + b"@%d" % r
        record = await (storage.update("b", key, old.revision, encode) if old else storage.create("b", key, encode))
        print(key, record.revision, i, flush=True)

async def main():
    storage = Storage(SqliteLog(Path(sys.argv[1])))
    await storage.open()
    async with asyncio.TaskGroup() as group:
        for who in "abcdefgh":
            group.create_task(write(storage, who))

asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 300, 1500])
async def test_everything_acknowledged_survives_kill_minus_nine(tmp_path, lines):
    child = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path / "s.db")], stdout=subprocess.PIPE, text=True
    )
    acknowledged: dict[str, tuple[int, int]] = {}

    def take(line: str) -> None:
        key, revision, i = line.split()
        acknowledged[key] = (int(revision), int(i))

    for _ in range(lines):
        take(child.stdout.readline())
    os.kill(child.pid, signal.SIGKILL)
    rest = child.stdout.read()
    for line in rest.splitlines(keepends=True):
        if line.endswith("\n"):
            take(line)
    child.wait()
    child.stdout.close()
    storage = await opened(tmp_path / "s.db")
    assert storage.revision >= max(r for r, _ in acknowledged.values())
    for key, (revision, i) in acknowledged.items():
        record = storage.get("b", key)
        assert record.revision >= revision
        assert int(record.value.split(b":")[0]) >= i
        assert record.value.endswith(b"@%d" % record.revision)
    await storage.close()
