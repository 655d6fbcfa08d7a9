"""A queue of keys: each waiting once, each handled by one worker at a time, failing ones later and later.

Bounded by construction: it holds every key at most once, and the keys are those of objects that exist.
"""

import heapq
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from edgehive.kit.backoff import Backoff

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """The queue's state; it has no clock and never blocks."""

    def __init__(
        self, *, initial: float = 0.05, maximum: float = 60.0, rng: Callable[[], float] = lambda: 0.5
    ) -> None:
        self._ready: deque[K] = deque()
        self._waiting: set[K] = set()
        self._busy: set[K] = set()
        self._again: set[K] = set()  # asked for while busy
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._counter = 0
        self._failures: dict[K, Backoff] = {}
        self._new_backoff: Callable[[], Backoff] = lambda: Backoff(initial, maximum, jitter=0.1, rng=rng)

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K) -> None:
        """Ask for `key` to be handled soon."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)

    def add_at(self, key: K, when: float) -> None:
        """Ask for `key` to be handled at `when`; of several times the earliest counts."""
        if when < self._due.get(key, float("inf")):
            self._due[key] = when
            self._counter += 1
            heapq.heappush(self._later, (when, self._counter, key))

    def take(self, now: float) -> K | None:
        """Return the next key to handle, to be given back with `done`; None when there is none."""
        while self._later and self._later[0][0] <= now:
            when, _, key = heapq.heappop(self._later)
            if self._due.get(key) == when:
                del self._due[key]
                self.add(key)
        if not self._ready:
            return None
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: K) -> None:
        """Give `key` back; it is queued again if asked for meanwhile."""
        self._busy.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def succeeded(self, key: K) -> None:
        """Forget the failures of `key`."""
        self._failures.pop(key, None)

    def failed(self, key: K, now: float) -> float:
        """Ask for `key` again after a growing delay, which is returned."""
        backoff = self._failures.setdefault(key, self._new_backoff())
        delay = backoff.next()
        self.add_at(key, now + delay)
        return delay

    def deadline(self) -> float | None:
        """Return when `take` will have something again; None if only `add` can bring it."""
        if self._ready:
            return float("-inf")
        while self._later and self._due.get(self._later[0][2]) != self._later[0][0]:
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None
