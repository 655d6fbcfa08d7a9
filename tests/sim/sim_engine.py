"""The simulator's machinery: virtual time, one seeded source of chance, a trace, processes that can crash anywhere."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Crash(Exception):
    """The process died at this very step."""


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True, slots=True)
class Chaos:
    """How rough the world is. Probabilities are per opportunity."""

    cut: float = 0.004
    """A connection breaks when a frame is sent."""
    half_open: float = 0.002
    """From this frame on nothing arrives and nobody is told."""
    crash: float = 0.0015
    """A process dies at a crash point."""
    api_error: float = 0.05
    api_lost_answer: float = 0.03
    """The request was applied, its answer never came."""
    disk_error: float = 0.01
    watch_lag: float = 0.4
    """Longest delay of a watch event; a lagging instance sees ten times that now and then."""


CALM = Chaos(0, 0, 0, 0, 0, 0, 0.05)


class Sim:
    """One run."""

    def __init__(self, seed: int, chaos: Chaos, *, tracing: bool = False) -> None:
        self.rng = random.Random(seed)
        self.chaos = chaos
        self.now = 0.0
        self.tracing = tracing
        self.trace: deque[str] = deque(maxlen=3000)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._tick = 0
        self._ids = 0

    def at(self, delay: float, action: Callable[[], None]) -> None:
        self._tick += 1
        heapq.heappush(self._heap, (self.now + delay, self._tick, action))

    def run_until(self, end: float) -> None:
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heapq.heappop(self._heap)
            action()
        self.now = end

    def note(self, who: str, text: str, *args: Any) -> None:
        if self.tracing:
            self.trace.append(f"{self.now:9.3f}  {who:<8} {text % args if args else text}")

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.rng.random() < probability

    def stamp(self) -> tuple[str, int]:
        self._ids += 1
        return f"m{self._ids}", int(self.now * 1000) + 1_700_000_000_000

    def fail(self, what: str) -> None:
        self.note("CHECK", "VIOLATION: %s", what)
        raise Violation(f"t={self.now:.3f}: {what}")


class Process:
    """A process: volatile state made by `boot`, restarted a while after each crash."""

    restart_after = (0.2, 3.0)

    def __init__(self, sim: Sim, name: str) -> None:
        self.sim = sim
        self.name = name
        self.alive = False
        self.epoch = 0
        self._wake: float | None = None

    def start(self) -> None:
        self.alive = True
        self.epoch += 1
        self._wake = None
        self.sim.note(self.name, "starts")
        self.step(self.boot)

    def step(self, action: Callable[[], None]) -> None:
        """Run `action` and what follows from it; a crash on the way kills the process."""
        if not self.alive:
            return
        try:
            action()
            self.pump()
        except Crash:
            self.die()

    def later(self, delay: float, action: Callable[[], None]) -> None:
        """`action` in this incarnation only."""
        epoch = self.epoch
        self.sim.at(delay, lambda: self.step(action) if self.alive and self.epoch == epoch else None)

    def die(self) -> None:
        self.sim.note(self.name, "CRASHES")
        self.alive = False
        self.lost()
        self.sim.at(self.sim.rng.uniform(*self.restart_after), self._again)

    def _again(self) -> None:
        if not self.alive:
            self.start()

    def point(self, where: str) -> None:
        """A place where the process may die."""
        if self.sim.chance(self.sim.chaos.crash):
            self.sim.note(self.name, "dies at: %s", where)
            raise Crash(where)

    def wake_at(self, when: float | None) -> None:
        """Have `tick` called at `when` (at the latest)."""
        if when is None or (self._wake is not None and self._wake <= when and self._wake > self.sim.now):
            return
        self._wake = when
        self.later(max(0.0, when - self.sim.now), self._tick_due)

    def _tick_due(self) -> None:
        if self._wake is not None and self._wake <= self.sim.now:
            self._wake = None
        self.tick()

    def boot(self) -> None:
        raise NotImplementedError

    def pump(self) -> None:
        raise NotImplementedError

    def tick(self) -> None:
        raise NotImplementedError

    def lost(self) -> None:
        raise NotImplementedError


class End:
    """One process's end of a connection."""

    def __init__(self) -> None:
        self.receive: Callable[[bytes], None] = lambda _: None
        self.closed: Callable[[str], None] = lambda _: None
        self.last = 0.0


class Wire:
    """A TCP connection: ordered, delayed, cut at any frame, or silently dead (half-open)."""

    def __init__(self, sim: Sim) -> None:
        self.sim = sim
        self.ends = (End(), End())
        self.open = True
        self.dead = False

    def send(self, side: int, frame: bytes) -> None:
        """Send from `side`; the other side's `receive` gets it later, or never."""
        sim = self.sim
        if not self.open or self.dead:
            return
        if sim.chance(sim.chaos.cut):
            sim.note("net", "cut")
            self.cut("cut by the network")
            return
        if sim.chance(sim.chaos.half_open):
            sim.note("net", "half-open")
            self.dead = True
            return
        end = self.ends[1 - side]
        arrival = max(end.last, sim.now + sim.rng.uniform(0.001, 0.08))
        end.last = arrival
        sim.at(arrival - sim.now, lambda: self._arrive(end, frame))

    def _arrive(self, end: End, frame: bytes) -> None:
        if self.open and not self.dead:
            end.receive(frame)

    def cut(self, reason: str) -> None:
        """Both ends hear of it, unless the connection is half-open."""
        if self.open:
            self.open = False
            for end in self.ends:
                if not self.dead:
                    self.sim.at(0.01, lambda end=end: end.closed(reason))

    def close(self, side: int) -> None:
        """`side` closes or dies; the other hears of it unless the connection is half-open."""
        if self.open:
            self.open = False
            if not self.dead:
                other = self.ends[1 - side]
                self.sim.at(self.sim.rng.uniform(0.001, 0.05), lambda: other.closed("closed by the peer"))
