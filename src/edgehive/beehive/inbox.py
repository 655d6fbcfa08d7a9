"""A bounded first-in first-out queue that says what happens when it is full."""

import asyncio
import enum
from collections import deque
from typing import Generic, TypeVar

from edgehive.kit.errors import Transient

T = TypeVar("T")


class Overflow(enum.Enum):
    """What a full inbox does with one more item."""

    BLOCK = "block"
    """The sender waits: back-pressure."""
    DROP_OLDEST = "drop-oldest"
    """The oldest waiting item is lost; for state where only the newest counts."""
    REFUSE = "refuse"
    """The sender gets `InboxFull`."""


class InboxFull(Transient):
    """The receiver does not keep up and its inbox refuses more."""


class Inbox(Generic[T]):
    """A queue with one reader; items of one sender are read in the order they were put.

    Unlike `asyncio.Queue`, a put never overtakes one that is already waiting for room.
    """

    def __init__(self, capacity: int, overflow: Overflow) -> None:
        self._capacity = capacity
        self._overflow = overflow
        self._items: deque[T] = deque()
        self._waiting: deque[tuple[asyncio.Future[None], T]] = deque()
        self._reader: asyncio.Future[None] | None = None
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    async def put(self, item: T) -> T | None:
        """Add `item`; return the item that had to go for it, if one had to.

        Raises:
            InboxFull: the policy is REFUSE and there is no room.
        """
        if len(self._items) < self._capacity and not self._waiting:
            self._add(item)
            return None
        if self._overflow is Overflow.REFUSE:
            raise InboxFull(f"the inbox is full ({self._capacity} messages)")
        if self._overflow is Overflow.DROP_OLDEST:
            oldest = self._items.popleft()
            self.dropped += 1
            self._add(item)
            return oldest
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (room, item)
        self._waiting.append(entry)
        try:
            await room
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            raise
        return None

    async def get(self) -> T:
        """Take the oldest item, waiting for one."""
        while not self._items:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        item = self._items.popleft()
        # The item moves in here, not in the waiting put: nobody can slip in between.
        while self._waiting and len(self._items) < self._capacity:
            room, waiting = self._waiting.popleft()
            if not room.done():
                room.set_result(None)
                self._items.append(waiting)
        return item

    def drain(self) -> list[T]:
        """Empty the inbox and return what was in it; senders that wait are let go."""
        items = [*self._items, *(item for room, item in self._waiting if not room.done())]
        self._items.clear()
        for room, _ in self._waiting:
            if not room.done():
                room.set_result(None)
        self._waiting.clear()
        return items

    def _add(self, item: T) -> None:
        self._items.append(item)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
