"""Order per key, bounds, and one timer for many moving deadlines."""

import asyncio
import socket
import time

from edgehive.cloud.keyed import KeyedQueue
from edgehive.cloud.timers import Deadlines


async def test_one_key_in_order_several_keys_at_once_and_no_more_than_allowed() -> None:
    gates = {key: asyncio.Event() for key in "abc"}
    started: list[str] = []

    async def work(item: str) -> None:
        started.append(item)
        await gates[item[0]].wait()

    async with asyncio.TaskGroup() as group:
        queue = KeyedQueue(start=group.create_task, work=work, parallel=2, limit=5)
        for item in ("a1", "a2", "b1", "c1"):
            queue.submit(item[0], item)
        await asyncio.sleep(0)
        assert started == ["a1", "b1"]
        queue.submit("c", "c2")
        assert queue.full
        waiting = group.create_task(queue.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        gates["b"].set()
        async with asyncio.timeout(5):
            await waiting
        assert started == ["a1", "b1", "c1"]
        for gate in gates.values():
            gate.set()
    assert sorted(started) == ["a1", "a2", "b1", "c1", "c2"]
    assert started.index("a1") < started.index("a2")
    assert len(queue) == 0


async def test_work_that_fails_does_not_stop_its_key() -> None:
    done: list[int] = []

    async def work(item: int) -> None:
        if item == 1:
            raise ValueError(item)
        done.append(item)

    tasks = []
    loop = asyncio.get_running_loop()
    queue = KeyedQueue(start=lambda c: tasks.append(loop.create_task(c)), work=work)
    for item in (1, 2):
        queue.submit("k", item)
    async with asyncio.timeout(5):
        while len(tasks) < 2 or not all(t.done() for t in tasks):
            await asyncio.sleep(0)
    assert done == [2]
    assert isinstance(tasks[0].exception(), ValueError)


async def test_a_deadline_that_moves_later_fires_later_and_one_that_moves_earlier_fires_earlier() -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    due = {"later": now + 0.01, "earlier": now + 60, "gone": now + 0.01, "past": now - 1}
    fired: list[str] = []
    all_fired = asyncio.Event()

    def fire(owner: str) -> None:
        fired.append(owner)
        due.pop(owner)
        if len(fired) == 3:
            all_fired.set()

    timers = Deadlines(fire=fire, deadline=due.get)
    for owner in list(due):
        timers.update(owner)
    due["later"] = now + 0.08
    due["earlier"] = now + 0.03
    timers.update("earlier")
    timers.remove("gone")
    async with asyncio.timeout(5):
        await all_fired.wait()
    assert fired == ["past", "earlier", "later"]
    timers.close()


async def test_a_loop_that_was_held_up_reads_before_it_fires() -> None:
    loop = asyncio.get_running_loop()
    due = {"node": loop.time() + 0.02}
    fired: list[str] = []
    looked = asyncio.Event()
    timers = Deadlines(fire=fired.append, deadline=due.get)
    timers.update("node")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)

        def keepalive() -> None:
            due["node"] = loop.time() + 60
            loop.call_later(0.1, looked.set)

        def readable() -> None:
            loop.remove_reader(ours)
            loop.call_soon(keepalive)  # as bytes become a frame, and a frame a message

        loop.add_reader(ours, readable)
        theirs.send(b"x")
        time.sleep(0.4)  # noqa: ASYNC251 - the loop is held up
        async with asyncio.timeout(5):
            await looked.wait()
    timers.close()
    assert fired == []


async def test_many_deadlines_at_once_let_others_run_in_between() -> None:
    loop = asyncio.get_running_loop()
    owners = [f"n{i}" for i in range(200)]
    due = dict.fromkeys(owners, loop.time())
    fired: list[str] = []
    turns: list[int] = []

    def fire(owner: str) -> None:
        fired.append(owner)
        del due[owner]

    timers = Deadlines(fire=fire, deadline=due.get)
    for owner in owners:
        timers.update(owner)
    async with asyncio.timeout(5):
        while len(fired) < 200:
            turns.append(len(fired))
            await asyncio.sleep(0)
    assert fired == owners
    assert len(set(turns)) >= 3
