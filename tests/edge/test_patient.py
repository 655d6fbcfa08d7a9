"""Large trees are removed beside the event loop, by work that ends when it is given up."""

import asyncio
import os
import subprocess
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from edgehive.edge.patient import take
from edgehive.edge.pods_objects import PodObjects
from edgehive.edge.programs import removing
from edgehive.edge.runtime import RuntimeFailure
from edgehive.edge.volumes import VolumeManager
from edgehive.edge.volumes_files import remove_tree
from tests.support.fakemeta import FakeMeta

FEW, MANY = 10, 3000


class Work:
    """Steps that can be held up, and count; `held` is set while they are."""

    def __init__(self, steps: int) -> None:
        self.all = steps
        self.done = 0
        self.ended = False
        self.threads: set[int] = set()
        self.go_on = threading.Event()
        self.held = asyncio.Event()
        self.fail: Exception | None = None
        self.loop = asyncio.get_running_loop()

    def steps(self, hold_at: int = -1) -> Generator[None, None, None]:
        try:
            while self.done < self.all:
                yield
                self.threads.add(threading.get_ident())
                if self.done == hold_at:
                    self.loop.call_soon_threadsafe(self.held.set)
                    assert self.go_on.wait(8), "the event loop is held up"
                self.done += 1
            if self.fail is not None:
                raise self.fail
        finally:
            self.ended = True


def tree(where: Path, files: int) -> Path:
    for number in range(files):
        place = where / f"d{number % 7}" / ("deep/" * (number % 5))
        place.mkdir(parents=True, exist_ok=True)
        (place / f"f{number}").touch()
    return where


async def test_little_is_done_at_once_and_needs_no_turn() -> None:
    work, turn = Work(FEW), asyncio.Lock()
    async with turn:
        await take(work.steps(), turn)
    assert (work.done, work.ended, work.threads) == (FEW, True, {threading.get_ident()})


async def test_the_event_loop_goes_on_while_a_step_takes_long() -> None:
    work = Work(MANY)
    async with asyncio.TaskGroup() as group:
        group.create_task(take(work.steps(hold_at=MANY // 2), asyncio.Lock()))
        await work.held.wait()
        assert work.done == MANY // 2
        work.go_on.set()
    assert (work.done, work.ended) == (MANY, True)


async def test_one_thread_at_a_time() -> None:
    first, second, turn = Work(MANY), Work(MANY), asyncio.Lock()
    async with asyncio.TaskGroup() as group:
        group.create_task(take(first.steps(hold_at=MANY // 2), turn))
        await first.held.wait()
        waiting = group.create_task(take(second.steps(), turn))
        await asyncio.sleep(0)
        small = Work(FEW)
        await take(small.steps(), turn)
        assert small.done == FEW, "who has little to do does not wait"
        assert 0 < second.done < MANY // 2
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert second.ended
        first.go_on.set()
    assert first.done == MANY
    assert first.ended


@pytest.mark.parametrize("times", [1, 3], ids=["once", "again and again"])
async def test_nobody_works_on_after_a_cancellation(times: int) -> None:
    work = Work(MANY)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(take(work.steps(hold_at=MANY // 2), asyncio.Lock()))
        await work.held.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not task.done(), "its thread still is at a step"
        work.go_on.set()
    assert task.cancelled()
    assert (work.ended, work.done) == (True, MANY // 2 + 1)


@pytest.mark.parametrize("steps", [FEW, MANY])
async def test_what_a_step_raises_is_raised(steps: int) -> None:
    work = Work(steps)
    work.fail = OSError(5, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        await take(work.steps(), asyncio.Lock())


async def test_a_removal_that_was_cancelled_is_gone_on_with(tmp_path: Path) -> None:
    place = tree(tmp_path / "pod", MANY)
    open_before = set(Path("/proc/self/fd").iterdir())
    steps = removing(place)
    for _ in range(MANY // 2):
        next(steps)
    steps.close()
    left = sum(len(names) for _, _, names in os.walk(place))
    assert 0 < left < MANY
    assert set(Path("/proc/self/fd").iterdir()) == open_before
    await remove_tree(place)
    assert not place.exists()


async def test_files_that_come_while_it_is_emptied_are_removed_too(tmp_path: Path) -> None:
    place = tree(tmp_path / "pod", 50)
    for number, _ in enumerate(removing(place)):
        if number < 200:
            (place / f"late{number}").touch()
    assert not place.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_a_mount_deep_in_a_large_volume_is_not_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = VolumeManager(objects=PodObjects(FakeMeta()), root=tmp_path, clock=lambda: 1.0)
    volume = tree(tmp_path / "pods" / "uid-p" / "volumes" / "kubernetes.io~empty-dir" / "e", MANY)
    precious = tree(tmp_path / "precious", FEW)
    within = volume / "d4" / "deep" / "mount"
    within.mkdir(parents=True)
    subprocess.run(["mount", "--bind", precious, within], check=True)
    monkeypatch.setattr("edgehive.edge.volumes_files.mounts_below", lambda _: [])
    with pytest.raises(RuntimeFailure, match="busy"):
        await manager.teardown("uid-p")
    assert sum(len(names) for _, _, names in os.walk(precious)) == FEW
    monkeypatch.undo()
    await manager.teardown("uid-p")
    assert list(manager.known()) == []
    assert sum(len(names) for _, _, names in os.walk(precious)) == FEW
