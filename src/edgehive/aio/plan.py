"""Carrying out what a pure plan says is due."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Protocol, TypeVar

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class Plan(Protocol[_T_co]):
    """What is to be done and when; it bounds by itself how much it hands out at once."""

    def take(self, now: float) -> Iterable[_T_co]:
        """What is due."""
        ...

    def deadline(self) -> float | None:
        """When `take` has something next, in the loop's time."""
        ...


class PlanRunner(Generic[_T]):
    """Carries out a plan, each piece of work in a task of its own; `carry_out` tells the plan how it went."""

    def __init__(self, plan: Plan[_T], carry_out: Callable[[_T], Awaitable[None]]) -> None:
        self._plan = plan
        self._carry_out = carry_out
        self._wake = asyncio.Event()
        self._next = float("inf")

    def changed(self) -> None:
        """The plan may have something to do earlier than it had: cheap when it has not."""
        due = self._plan.deadline()
        if due is not None and due < self._next:
            self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; what `carry_out` raises ends it."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                for work in self._plan.take(loop.time()):
                    group.create_task(self._do(work))
                due = self._plan.deadline()
                self._next = float("inf") if due is None else due
                try:
                    async with asyncio.timeout_at(due):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _do(self, work: _T) -> None:
        await self._carry_out(work)
        self._wake.set()
