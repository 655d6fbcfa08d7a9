"""Work per key at a bounded rate: what comes faster is done together."""

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from edgehive.aio.plan import PlanRunner
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)

_K = TypeVar("_K", bound=Hashable)

_SOON: Final = 0.05
"""The first work of a key waits for this part of the interval: long enough for what came together."""


@dataclass(slots=True, eq=False)
class _Job(Generic[_K]):
    key: _K
    last: float
    """When its work was last done."""
    wanted: bool = False
    busy: bool = False
    entry: int = 0
    """The live entry in the heap; 0: none."""
    failures: int = 0


class Paced(Generic[_K]):
    """Says which keys are due; pure. One job a key, at most `batch` handed out at once.

    It remembers every key until `forget`, so it is bounded by the things that the keys stand for.
    """

    def __init__(
        self,
        *,
        interval: float,
        soon: float = _SOON,
        batch: int = 64,
        retry: float = 0.5,
        retry_max: float = 30.0,
    ) -> None:
        """Set the pace in seconds; `soon` is the part of the interval for which the first work of a key waits."""
        self._soon = interval * soon
        self._interval = interval
        self._batch = batch
        self._retry = retry
        self._retry_max = retry_max
        self._jobs: dict[_K, _Job[_K]] = {}
        self._heap: list[tuple[float, int, _Job[_K]]] = []
        self._tick = 0
        self._busy = 0

    @property
    def depth(self) -> int:
        """Keys with something to do or being done."""
        return sum(job.wanted or job.busy for job in self._jobs.values())

    def want(self, key: _K, now: float) -> None:
        """There is work for `key`: due soon, or `interval` after its last."""
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = _Job(key, now - self._interval)
        job.wanted = True
        # Counted from the first wish, so that a steady stream cannot put the work off for ever.
        if not job.busy and not job.entry:
            self._queue(job, max(now + self._soon, job.last + self._interval))

    def deadline(self) -> float | None:
        """When `take` has something next."""
        self._prune()
        return self._heap[0][0] if self._heap and self._busy < self._batch else None

    def take(self, now: float) -> list[_K]:
        """The keys that are due; answer each with `done` or `failed`."""
        due: list[_K] = []
        self._prune()
        while self._heap and self._busy < self._batch and self._heap[0][0] <= now:
            job = heapq.heappop(self._heap)[2]
            job.entry, job.wanted, job.busy = 0, False, True
            self._busy += 1
            due.append(job.key)
            self._prune()
        return due

    def done(self, key: _K, now: float) -> None:
        """The work of `key` is done."""
        job = self._land(key)
        if job is not None:
            job.last, job.failures = now, 0
            if job.wanted:
                self._queue(job, now + self._interval)

    def failed(self, key: _K, now: float) -> None:
        """The work of `key` is to be tried again, later each time."""
        job = self._land(key)
        if job is not None:
            job.wanted = True
            self._queue(job, now + min(self._retry * 2**job.failures, self._retry_max))
            job.failures = min(job.failures + 1, 16)

    def forget(self, key: _K) -> None:
        """`key` stands for nothing any more."""
        job = self._jobs.pop(key, None)
        if job is not None:
            job.entry = 0
            if job.busy:
                self._busy -= 1

    def _land(self, key: _K) -> _Job[_K] | None:
        job = self._jobs.get(key)
        if job is None or not job.busy:
            return None
        job.busy = False
        self._busy -= 1
        return job

    def _queue(self, job: _Job[_K], due: float) -> None:
        self._tick += 1
        job.entry = self._tick
        heapq.heappush(self._heap, (due, self._tick, job))

    def _prune(self) -> None:
        while self._heap and self._heap[0][2].entry != self._heap[0][1]:
            heapq.heappop(self._heap)


class PacedRunner(Generic[_K]):
    """Carries out a `Paced`; `work` returns whether it is done, else it is tried again."""

    def __init__(self, plan: Paced[_K], work: Callable[[_K], Awaitable[bool]]) -> None:
        self.plan: Final = plan
        self._work = work
        self._runner: PlanRunner[_K] = PlanRunner(plan, self._carry_out)

    def want(self, key: _K) -> None:
        """There is work for `key`."""
        self.plan.want(key, asyncio.get_running_loop().time())
        self._runner.changed()

    async def run(self) -> None:
        """Work until cancelled."""
        await self._runner.run()

    async def _carry_out(self, key: _K) -> None:
        try:
            done = await self._work(key)
        except Exception:  # what breaks the work of one key must not stop that of the others
            log.exception("work on %s crashed", safe_label(str(key)))
            done = False
        now = asyncio.get_running_loop().time()
        if done:
            self.plan.done(key, now)
        else:
            self.plan.failed(key, now)
