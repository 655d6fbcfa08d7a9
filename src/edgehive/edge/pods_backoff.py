"""Back-off of failing steps and of crashing containers; time is passed in."""

from dataclasses import dataclass

from edgehive.edge.pods_actions import Problem

CRASH_INITIAL, CRASH_MAX, CRASH_RESET = 10.0, 300.0, 600.0


@dataclass(slots=True)
class Retry:
    """A failing step: why, since when, and when it is tried again."""

    initial: float
    maximum: float
    delay: float = 0.0
    failed_at: float = 0.0
    problem: Problem | None = None

    def due(self, now: float) -> bool:
        """Whether its time has come; a clock that was set back must not make it wait for hours."""
        return now >= self.failed_at + self.delay or now < self.failed_at

    @property
    def at(self) -> float:
        return self.failed_at + self.delay

    def fail(self, problem: Problem, now: float) -> None:
        # A change that made it be tried early must not make it be tried in ever such short turns.
        self.delay = min(max(self.delay * 2, self.initial), self.maximum)
        self.failed_at = now
        self.problem = problem


@dataclass(slots=True)
class Crash:
    """Restart back-off of one container: doubled by every restart, forgotten after ten quiet minutes."""

    delay: float = 0.0
    restarted_at: float = 0.0

    def until(self, finished_at: float) -> float:
        """The time before which a container that ended at `finished_at` must not be started again."""
        if finished_at - self.restarted_at > CRASH_RESET:
            return 0.0
        return finished_at + self.delay

    def restart(self, now: float) -> None:
        fresh = now - self.restarted_at > CRASH_RESET or not self.delay
        self.delay = CRASH_INITIAL if fresh else min(self.delay * 2, CRASH_MAX)
        self.restarted_at = now
