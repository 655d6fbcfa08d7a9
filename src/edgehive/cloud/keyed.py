"""Work in order per key, several keys at once, bounded."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

_Item = TypeVar("_Item")

Start = Callable[[Coroutine[Any, Any, None]], object]
"""Starts a coroutine in somebody's task group."""


class KeyedQueue(Generic[_Item]):
    """Runs `work(item)` for each item: one at a time per key, at most `parallel` at once.

    When `limit` items are waiting or running the queue is `full`; the producer then waits for `room` instead of
    submitting more (overflow policy: block the producer).
    """

    __slots__ = (
        "_active",
        "_closed",
        "_limit",
        "_parallel",
        "_queues",
        "_ready",
        "_room",
        "_size",
        "_start",
        "_work",
    )

    def __init__(
        self,
        *,
        start: Start,
        work: Callable[[_Item], Awaitable[None]],
        parallel: int = 8,
        limit: int = 256,
    ) -> None:
        self._start = start
        self._work = work
        self._parallel = parallel
        self._limit = limit
        self._queues: dict[str, deque[_Item]] = {}
        self._ready: dict[str, None] = {}  # ordered, and far smaller than a deque while empty
        self._active = 0
        self._closed = False
        self._size = 0
        self._room: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return self._size

    @property
    def full(self) -> bool:
        """Whether the producer must wait."""
        return self._size >= self._limit

    def submit(self, key: str, item: _Item) -> None:
        """Add an item; it is taken in even when the queue is full, since the producer has it already."""
        if self._closed:
            return
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque((item,))
            self._ready[key] = None
        else:
            queue.append(item)
        self._size += 1
        self._pump()

    async def room(self) -> None:
        """Wait until the queue is not full; for one producer."""
        while self.full:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None

    def close(self) -> None:
        """Nothing is run any more (the task group has ended): let a producer go that waits for room."""
        self._closed = True
        self._queues.clear()
        self._ready.clear()
        self._size = 0
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _pump(self) -> None:
        while self._ready and self._active < self._parallel:
            self._active += 1
            key = next(iter(self._ready))
            del self._ready[key]
            self._start(self._run(key))

    async def _run(self, key: str) -> None:
        queue = self._queues[key]
        try:
            await self._work(queue.popleft())
        finally:
            self._active -= 1
            self._size -= 1
            if queue:
                self._ready[key] = None
            else:
                del self._queues[key]
            if self._room is not None and not self._room.done() and not self.full:
                self._room.set_result(None)
            self._pump()
