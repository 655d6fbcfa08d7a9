import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from edgehive.beehive.hive import Delivery, Hive, Module, NoSuchModule, Unanswered
from edgehive.beehive.inbox import Inbox, InboxFull, Overflow
from edgehive.kit.errors import Transient


@asynccontextmanager
async def running(hive: Hive[int]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(hive.run())
        try:
            yield
        finally:
            task.cancel()


class Collector:
    def __init__(self) -> None:
        self.got: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Condition()

    async def __call__(self, delivery: Delivery[int]) -> None:
        await self.gate.wait()
        self.got.append(delivery.message)
        async with self.arrived:
            self.arrived.notify_all()

    async def until(self, count: int) -> None:
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.got) >= count)


async def test_order_from_one_sender_is_kept_by_name_and_through_a_group_under_back_pressure() -> None:
    a, b = Collector(), Collector()
    hive = Hive([Module("a", a, frozenset({"g"}), capacity=2), Module("b", b, frozenset({"g"}), capacity=1)])
    async with running(hive):
        for n in range(0, 200, 2):
            await hive.broadcast("g", n)
            await hive.send("b", n + 1)
        await b.until(200)
        await a.until(100)
    assert b.got == list(range(200))
    assert a.got == list(range(0, 200, 2))


async def test_ask_returns_the_answer() -> None:
    async def double(delivery: Delivery[int]) -> None:
        assert delivery.wants_answer
        delivery.answer(delivery.message * 2)
        assert not delivery.wants_answer

    hive = Hive([Module("m", double)])
    async with running(hive):
        assert await hive.ask("m", 21) == 42


async def test_ask_times_out() -> None:
    async def silent(delivery: Delivery[int]) -> None:
        pass

    hive = Hive([Module("m", silent)])
    async with running(hive):
        with pytest.raises(Unanswered, match="did not answer"):
            await hive.ask("m", 1, timeout=0.01)


async def test_a_failing_module_is_restarted_and_keeps_its_inbox() -> None:
    got: list[int] = []
    done = asyncio.Event()

    async def receive(delivery: Delivery[int]) -> None:
        if delivery.message == 1:
            raise Transient("disk went away")
        got.append(delivery.message)
        if delivery.message == 3:
            done.set()

    hive = Hive([Module("m", receive, backoff=0.001)])
    async with running(hive):
        await hive.send("m", 0)
        with pytest.raises(Unanswered, match="disk went away"):
            await hive.ask("m", 1)
        await hive.send("m", 2)
        await hive.send("m", 3)
        await done.wait()
    assert got == [0, 2, 3]


async def test_any_other_failure_ends_the_hive() -> None:
    async def receive(delivery: Delivery[int]) -> None:
        raise ValueError("bug")

    hive = Hive([Module("m", receive)])
    await hive.send("m", 1)
    with pytest.raises(ExceptionGroup) as caught:
        await hive.run()
    assert isinstance(caught.value.exceptions[0], ValueError)


async def test_stop_refuses_senders_lets_askers_go_and_start_serves_again() -> None:
    a, b = Collector(), Collector()
    a.gate.clear()
    hive = Hive([Module("a", a, frozenset({"g"})), Module("b", b, frozenset({"g"}))])
    async with running(hive), asyncio.TaskGroup() as group:
        first = group.create_task(_unanswered(hive, 1))
        second = group.create_task(_unanswered(hive, 2))
        await asyncio.sleep(0)
        await hive.stop("a")
        assert "stopped" in await second
        assert await first
        with pytest.raises(NoSuchModule):
            await hive.send("a", 3)
        assert await hive.broadcast("g", 4) == 1
        await b.until(1)
        hive.start("a")
        a.gate.set()
        await hive.send("a", 5)
        await a.until(1)
        await hive.restart("a")
        await hive.send("a", 6)
        await a.until(2)
    assert a.got == [5, 6]


async def _unanswered(hive: Hive[int], message: int) -> str:
    try:
        await hive.ask("a", message, timeout=20)
    except Unanswered as exc:
        return str(exc)
    return ""


async def test_unknown_names() -> None:
    hive: Hive[int] = Hive()
    with pytest.raises(NoSuchModule):
        await hive.send("x", 1)
    with pytest.raises(NoSuchModule):
        hive.start("x")
    assert await hive.broadcast("nobody", 1) == 0
    hive.add(Module("x", Collector()))
    with pytest.raises(ValueError):
        hive.add(Module("x", Collector()))


async def test_a_module_may_be_added_to_a_running_hive() -> None:
    hive: Hive[int] = Hive()
    async with running(hive):
        await asyncio.sleep(0)
        late = Collector()
        hive.add(Module("late", late))
        await hive.send("late", 1)
        await late.until(1)


async def test_drop_oldest_keeps_the_newest_and_lets_a_dropped_asker_go() -> None:
    hive: Hive[int] = Hive()
    m = Collector()
    hive.add(Module("m", m, capacity=2, overflow=Overflow.DROP_OLDEST))
    for n in range(5):
        await hive.send("m", n)
    async with running(hive):
        await m.until(2)
    assert m.got == [3, 4]


async def test_refuse_raises() -> None:
    inbox: Inbox[int] = Inbox(1, Overflow.REFUSE)
    await inbox.put(1)
    with pytest.raises(InboxFull):
        await inbox.put(2)
    assert await inbox.get() == 1


async def test_a_cancelled_put_leaves_nothing_behind() -> None:
    inbox: Inbox[int] = Inbox(1, Overflow.BLOCK)
    await inbox.put(1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await inbox.put(2)
    assert await inbox.get() == 1
    assert len(inbox) == 0
    await inbox.put(3)
    assert await inbox.get() == 3
