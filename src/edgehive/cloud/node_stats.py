"""Counters of the node table."""

from dataclasses import dataclass, field
from typing import Final

LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(slots=True)
class NodeStats:
    """Counters of all nodes together."""

    connects: int = 0
    replaced: int = 0
    denied: int = 0
    edge_failures: int = 0
    unrouted: int = 0
    acks: int = 0
    resends: int = 0
    """Of sessions that have ended; the living ones are added when asked."""
    given_up: int = 0
    dropped: int = 0
    forgotten: int = 0
    """Absent nodes for which something was kept, and which had to make room for others."""
    latency_sum: float = 0.0
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS) + 1))

    def note_latency(self, seconds: float) -> None:
        """Count one acknowledgement."""
        self.acks += 1
        self.latency_sum += seconds
        for index, bound in enumerate(LATENCY_BUCKETS):
            if seconds <= bound:
                self.latency[index] += 1
                return
        self.latency[-1] += 1
