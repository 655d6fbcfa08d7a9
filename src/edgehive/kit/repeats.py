"""Which lines are written of what strangers can bring about as often as they like: the first, then numbers."""

from dataclasses import dataclass
from typing import Final

OTHERS: Final = "others"
"""Stands for all sources beyond those that are kept apart."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """What has come again, `count` times, since it was last told."""

    kind: str
    source: str
    count: int

    def __str__(self) -> str:
        origin = f" from {self.source}" if self.source else ""
        return f"{self.kind}{origin}: {self.count} more in the last minute"


@dataclass(slots=True)
class _Seen:
    since: float
    hidden: int = 0


class Repeats:
    """Lets the first line of each kind and source pass, and counts what follows until a minute brings nothing more.

    At most `most` pairs are kept apart; what else comes is counted under its kind from `OTHERS`, and not written at
    all (overflow policy: count only). So no minute has more than `most` lines, and one for each kind besides.
    A `kind` is a text of ours, never a peer's.
    """

    def __init__(self, *, period: float = 60.0, most: int = 64) -> None:
        self._period = period
        self._most = most
        self._apart = 0
        self._seen: dict[tuple[str, str], _Seen] = {}  # by since, the oldest first

    def due(self, now: float) -> list[Repeat]:
        """What is to be told now: each occurrence that was not let pass, once. Ask this before `admits`."""
        told = []
        while self._seen:
            key, seen = next(iter(self._seen.items()))
            if seen.since <= now < seen.since + self._period:
                break
            del self._seen[key]
            if seen.hidden:
                told.append(Repeat(*key, seen.hidden))
                self._seen[key] = _Seen(now)
            elif key[1] != OTHERS:
                self._apart -= 1
        return told

    def admits(self, kind: str, source: str, now: float) -> bool:
        """Whether the line about this occurrence is to be written; otherwise it is counted."""
        seen = self._seen.get((kind, source))
        if seen is not None:
            seen.hidden += 1
            return False
        if self._apart >= self._most or source == OTHERS:
            others = self._seen.get((kind, OTHERS))
            if others is None:
                others = self._seen[kind, OTHERS] = _Seen(now)
            others.hidden += 1
            return False
        self._apart += 1
        self._seen[kind, source] = _Seen(now)
        return True
