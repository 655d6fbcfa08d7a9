"""What the edge owes the cloud: kept until the cloud has answered, across restarts.

Per object the order is kept and one message is in flight; a newer full status replaces an older one that has not
been sent. The store behind it is durable before `put` returns.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from edgehive.wire.message import Message


@dataclass(frozen=True, slots=True)
class Entry:
    """One kept message; `sequence` orders all entries, `subject` (``default/pod/nginx``) keeps its own order."""

    sequence: int
    subject: str
    message: Message


class OutboxStore(Protocol):
    """The durable side; each call is one transaction and raises StorageError when it cannot."""

    def load(self) -> Iterable[Entry]:
        """Every kept entry (at start)."""
        ...

    def save(self, entry: Entry, replaces: int | None) -> None:
        """Keep `entry`, dropping the entry with sequence `replaces` in the same transaction."""
        ...

    def drop(self, sequence: int) -> None:
        """Forget an entry."""
        ...


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """Bounds and timers (seconds)."""

    entries: int = 5_000
    """When full, `put` raises StorageError: the producer keeps its state and tries again."""
    in_flight: int = 16
    answer_timeout: float = 30.0
    """Sent again when the cloud has not answered by then (the original answers most failures with silence)."""
    retry: float = 1.0
    retry_max: float = 60.0


@dataclass(frozen=True, slots=True)
class Settled:
    """The cloud has answered `entry` for good."""

    entry: Entry
    answer: Message


class Outbox:
    """The queue of kept messages."""

    def __init__(self, *, store: OutboxStore, limits: OutboxLimits = OutboxLimits()) -> None:
        raise NotImplementedError

    def put(self, message: Message, *, replace: bool = False) -> Entry:
        """Keep `message` until it is answered; with `replace` it supersedes an unsent one of the same resource and operation.

        Raises:
            StorageError: it could not be made durable, or there is no room; nothing was accepted.
        """
        raise NotImplementedError

    def take(self, now: float, limit: int) -> list[Message]:
        """The next messages to send, oldest subject first, one in flight per subject."""
        raise NotImplementedError

    def receive_answer(self, answer: Message, now: float) -> Settled | None:
        """An answer by parent id; ``None`` if it is not to one of ours, or if it asks to try again (429, 5xx)."""
        raise NotImplementedError

    def link_lost(self) -> None:
        """Everything in flight must be sent again."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> None:
        """Requeue what was not answered in time."""
        raise NotImplementedError

    def deadline(self) -> float | None:
        """When `handle_timer` wants to be called next."""
        raise NotImplementedError
