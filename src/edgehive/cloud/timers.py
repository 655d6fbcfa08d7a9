"""One timer for the deadlines of thousands of cores, which move with every message."""

import asyncio
import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

_Owner = TypeVar("_Owner")


class Deadlines(Generic[_Owner]):
    """Calls `fire(owner)` when an owner's deadline has come.

    A deadline that moves later costs nothing: the owner is looked at when the old one comes and asked again.
    """

    def __init__(self, *, fire: Callable[[_Owner], None], deadline: Callable[[_Owner], float | None]) -> None:
        self._fire = fire
        self._deadline = deadline
        self._heap: list[tuple[float, int, _Owner]] = []
        self._planned: dict[int, float] = {}  # by id(owner): the earliest live entry
        self._tick = 0
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._armed = 0.0

    def update(self, owner: _Owner) -> None:
        """The deadline of `owner` may have changed."""
        due = self._deadline(owner)
        planned = self._planned.get(id(owner))
        if due is None or (planned is not None and planned <= due):
            return
        self._tick += 1
        self._planned[id(owner)] = due
        heapq.heappush(self._heap, (due, self._tick, owner))
        self._arm()

    def remove(self, owner: _Owner) -> None:
        """Forget `owner`."""
        self._planned.pop(id(owner), None)

    def close(self) -> None:
        """Fire no more."""
        self._heap.clear()
        self._planned.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        if not self._heap:
            return
        due = self._heap[0][0]
        if self._handle is not None:
            if self._armed <= due:
                return
            self._handle.cancel()
        self._armed = due
        self._handle = self._loop.call_at(due, self._run)

    def _run(self) -> None:
        self._handle = None
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now:
            planned, _, owner = heapq.heappop(self._heap)
            if self._planned.get(id(owner)) != planned:
                continue  # removed, or planned earlier since
            del self._planned[id(owner)]
            due = self._deadline(owner)
            if due is not None and due <= now:
                self._fire(owner)
            self.update(owner)
        self._arm()
