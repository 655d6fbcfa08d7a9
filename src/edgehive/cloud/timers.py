"""One timer for the deadlines of thousands of cores, which move with every message."""

import asyncio
import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

_Owner = TypeVar("_Owner")

_HELD_UP = 0.25
_READ_FIRST = 0.05
_TURN = 64


class Deadlines(Generic[_Owner]):
    """Calls `fire(owner)` when an owner's deadline has come.

    A deadline that moves later costs nothing: the owner is looked at when the old one comes and asked again.

    A loop that was held up fires nothing before it has read its sockets: what would move a deadline, a keepalive say,
    may lie there unread. Many deadlines at once are worked off in turns, so that sockets are read in between.
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
        self._excused = False

    def update(self, owner: _Owner) -> None:
        """The deadline of `owner` may have changed."""
        due = self._deadline(owner)
        planned = self._planned.get(id(owner))
        if due is None:
            return
        due = max(due, self._loop.time())
        if planned is not None and planned <= due:
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
        self._cancel()

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
        if not self._excused and self._heap and now - self._heap[0][0] > _HELD_UP:
            self._excused = True
            self._again(now + _READ_FIRST)
            return
        fired = 0
        while self._heap and self._heap[0][0] <= now:
            if fired == _TURN:
                self._again(now)
                return
            planned, _, owner = heapq.heappop(self._heap)
            if self._planned.get(id(owner)) != planned:
                continue  # removed, or planned earlier since
            del self._planned[id(owner)]
            due = self._deadline(owner)
            if due is not None and due <= now:
                self._fire(owner)
                fired += 1
            self.update(owner)
        self._excused = False
        self._arm()

    def _again(self, when: float) -> None:
        self._cancel()
        self._armed = when
        self._handle = self._loop.call_at(when, self._run)

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
