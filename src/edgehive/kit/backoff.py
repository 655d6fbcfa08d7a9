"""Exponential back-off with jitter; randomness is passed in."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Delays `initial`, `initial*factor`, ... capped at `maximum` seconds.

    Each delay is multiplied by a factor drawn from [1-jitter, 1+jitter]; `rng` returns floats in [0, 1).
    """

    initial: float
    maximum: float
    factor: float = 2.0
    jitter: float = 0.0
    rng: Callable[[], float] = lambda: 0.5
    _base: float = field(default=0.0, init=False)

    def next(self) -> float:
        """Return the next delay in seconds and advance."""
        self._base = self.initial if not self._base else min(self._base * self.factor, self.maximum)
        return max(0.0, self._base * (1 + self.jitter * (2 * self.rng() - 1)))

    def reset(self) -> None:
        """Start again from `initial` (call after a success)."""
        self._base = 0.0
