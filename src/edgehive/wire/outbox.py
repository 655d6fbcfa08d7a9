"""What the edge owes the cloud: kept until the cloud has answered, across restarts.

Per object the order is kept and one message is in flight; a newer full status replaces an older one that has not
been sent. The store behind it is durable before `put` returns.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from edgehive.kit.errors import StorageError
from edgehive.kube.status import ApiStatus
from edgehive.wire import resource as res
from edgehive.wire.classify import TWIN_SOURCE
from edgehive.wire.message import Message
from edgehive.wire.rows import answer_error

_PRECONDITION = "Precondition failed: UID"
"""What Kubernetes says in a 409 when the object meant is gone and another one has its name; final at once: messages
about that other one wait behind."""


class Entry(msgspec.Struct, frozen=True):
    """One kept message; `sequence` orders all entries, `subject` (``default/pod/nginx``) keeps its own order."""

    sequence: int
    subject: str
    message: Message
    replaces: int | None = None
    """The entry whose place it took just now; that one is never answered."""


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


class OutboxLimits(msgspec.Struct, frozen=True):
    """Bounds and timers (seconds)."""

    entries: int = 5_000
    """When full, `put` raises StorageError: the producer keeps its state and tries again."""
    in_flight: int = 64
    reports: int = 32
    """How many of those may be device reports: a cloud that answers none of them must not hold up pods."""
    answer_timeout: float = 30.0
    """Sent again when the cloud has not answered by then (the original answers most failures with silence)."""
    retry: float = 1.0
    retry_max: float = 60.0
    unanswered: int = 4
    """Attempts after which a device report is given up: the original's cloud answers nothing about a device it does
    not know. Everything else is repeated for ever."""
    conflicts: int = 5
    """Attempts after which a 409 is final; it may be a race."""
    refusals: int = 8
    """Attempts after which a 401 or 403 is final: an API server that has just started, or has new roles, refuses
    for some seconds what it allows later."""


class Settled(msgspec.Struct, frozen=True):
    """The cloud has answered `entry` for good."""

    entry: Entry
    answer: Message


class _Item(msgspec.Struct, eq=False):
    entry: Entry
    expires: float | None = None
    """When an answer is overdue; ``None`` while it is not in flight."""
    attempts: int = 0
    unanswered: int = 0
    """How often the link was up and no answer came in time."""
    durable: bool = True


class _Lane(msgspec.Struct, eq=False):
    """The kept messages of one subject, oldest first; only the first may be in flight."""

    items: list[_Item] = msgspec.field(default_factory=list)
    not_before: float = 0.0


class OutboxStats(msgspec.Struct):
    """Counters since start."""

    accepted: int = 0
    replaced: int = 0
    settled: int = 0
    retried: int = 0
    given_up: int = 0


class Outbox:
    """The queue of kept messages.

    A message may reach the cloud more than once (its answer may be lost), so only idempotent ones belong here:
    full statuses, deletes with a UID precondition, reports that carry their own version.
    """

    def __init__(self, *, store: OutboxStore, limits: OutboxLimits | None = None) -> None:
        self._store = store
        self._limits = limits or OutboxLimits()
        self._lanes: dict[str, _Lane] = {}
        self._ready: dict[str, None] = {}  # an ordered set of subjects
        self._paused: dict[str, None] = {}
        self._flying: dict[str, str] = {}  # message id -> subject
        self._given_up: list[Entry] = []
        self._undropped: dict[int, str] = {}  # answered, but the disk would not forget: sequence -> subject
        self._size = 0
        self._sequence = 0
        self.stats = OutboxStats()
        for entry in sorted(store.load(), key=lambda e: e.sequence):
            self._append(entry)

    def __len__(self) -> int:
        return self._size

    @property
    def in_flight(self) -> int:
        """Messages sent and not answered yet."""
        return len(self._flying)

    def put(self, message: Message, *, replace: bool = False, durable: bool = True) -> Entry:
        """Keep `message` until it is answered.

        With `replace` it supersedes the newest kept message of its subject, if that is of the same resource and
        operation and not in flight. The content must then be complete in itself, not a difference to the last.
        What is not `durable` is kept in memory alone, for a producer that knows after a restart what it owes.

        Raises:
            StorageError: it could not be made durable, or there is no room; nothing was accepted.
        """
        subject = subject_of(message.resource)
        self._drop_again()
        if subject in self._undropped.values():
            raise StorageError("the disk does not let go of an older message of the same object")
        old = self._replaceable(subject, message) if replace else None
        if old is None and self._size >= self._limits.entries:
            raise StorageError(f"the outbox is full ({self._size} messages wait for the cloud)")
        entry = Entry(self._sequence + 1, subject, message, old.entry.sequence if old is not None else None)
        if durable:
            self._store.save(entry, old.entry.sequence if old is not None and old.durable else None)
        elif old is not None:
            self._drop(old)
        self._sequence = entry.sequence
        self.stats.accepted += 1
        if old is not None:
            old.entry, old.durable = entry, durable
            old.attempts = 0
            self.stats.replaced += 1
        else:
            self._append(entry, durable=durable)
        return entry

    def forget(self, resource: str) -> None:
        """Let go of what is kept about the object of `resource`: it is gone, and nobody has to hear of it.

        What is in flight no longer holds up what comes after it; its answer, if there is one, is not waited for.
        """
        lane = self._lanes.pop(subject_of(resource), None)
        if lane is None:
            return
        for item in lane.items:
            self._flying.pop(item.entry.message.id, None)
            self._size -= 1
            self._drop(item)
        self._ready.pop(lane.items[0].entry.subject, None)
        self._paused.pop(lane.items[0].entry.subject, None)

    def take(self, now: float, limit: int) -> list[Message]:
        """The next messages to send, the longest waiting subject first, one in flight per subject."""
        taken: list[Message] = []
        while len(taken) < limit and (subject := self._next_ready()) is not None:
            del self._ready[subject]
            item = self._lanes[subject].items[0]
            item.attempts += 1
            item.expires = now + self._limits.answer_timeout
            self._flying[item.entry.message.id] = subject
            if item.attempts > 1:
                self.stats.retried += 1
            taken.append(item.entry.message)
        return taken

    def wants_to_send(self) -> bool:
        """Whether `take` would give something."""
        return self._next_ready() is not None

    def expects(self, parent_id: str) -> bool:
        """Whether an answer to `parent_id` is for the outbox."""
        return parent_id in self._flying

    def receive_answer(self, answer: Message, now: float) -> Settled | None:
        """An answer by parent id; ``None`` if it is not to one of ours, or if it asks to try again (401, 403, 409, 429, 5xx)."""
        subject = self._flying.pop(answer.parent_id, None)
        if subject is None:
            return None
        lane = self._lanes[subject]
        item = lane.items[0]
        error = answer_error(answer.content)
        if error is not None and (error.retryable or item.attempts < self._patience(error)):
            self._pause(subject, lane, item, now)
            return None
        self._remove_first(subject, lane)
        self.stats.settled += 1
        return Settled(item.entry, answer)

    def _patience(self, error: ApiStatus) -> int:
        """How many such refusals are taken for passing ones."""
        if error.code == 409:
            return 0 if _PRECONDITION in error.message else self._limits.conflicts
        return self._limits.refusals if error.code in (401, 403) else 0

    def given_up(self) -> list[Entry]:
        """Return what was given up since the last call: no answer came, and none is to be expected."""
        entries, self._given_up = self._given_up, []
        return entries

    def link_lost(self) -> None:
        """Everything in flight must be sent again."""
        if not self._flying:
            return
        for subject in self._flying.values():
            self._lanes[subject].items[0].expires = None
        again = sorted(self._flying.values(), key=lambda s: self._lanes[s].items[0].entry.sequence)
        self._flying.clear()
        self._ready = dict.fromkeys([*again, *self._ready])

    def handle_timer(self, now: float) -> None:
        """Requeue what was not answered in time."""
        for subject in [s for s in self._flying.values() if self._expires(s) <= now]:
            lane = self._lanes[subject]
            item = lane.items[0]
            self._flying.pop(item.entry.message.id, None)
            item.unanswered += 1
            if self._is_report(subject) and item.unanswered >= self._limits.unanswered:
                self._remove_first(subject, lane)
                self.stats.given_up += 1
                self._given_up.append(item.entry)
                continue
            self._pause(subject, lane, item, now)
        for subject in [s for s in self._paused if self._lanes[s].not_before <= now]:
            del self._paused[subject]
            self._ready[subject] = None
        self._drop_again()

    def deadline(self) -> float | None:
        """When `handle_timer` wants to be called next."""
        times = [self._expires(subject) for subject in self._flying.values()]
        times.extend(self._lanes[subject].not_before for subject in self._paused)
        return min(times, default=None)

    def _append(self, entry: Entry, *, durable: bool = True) -> None:
        self._sequence = max(self._sequence, entry.sequence)
        lane = self._lanes.get(entry.subject)
        if lane is None:
            lane = self._lanes[entry.subject] = _Lane()
            self._ready[entry.subject] = None
        lane.items.append(_Item(entry, durable=durable))
        self._size += 1

    def _next_ready(self) -> str | None:
        """The longest waiting subject of which something may be sent now."""
        if len(self._flying) >= self._limits.in_flight:
            return None
        full = sum(map(self._is_report, self._flying.values())) >= self._limits.reports
        return next((s for s in self._ready if not (full and self._is_report(s))), None)

    def _is_report(self, subject: str) -> bool:
        return self._lanes[subject].items[0].entry.message.source == TWIN_SOURCE

    def _remove_first(self, subject: str, lane: _Lane) -> None:
        """Take the first entry of a subject out, for good."""
        item = lane.items.pop(0)
        self._size -= 1
        self._drop(item)
        if lane.items:
            lane.not_before = 0.0
            self._ready[subject] = None
        else:
            del self._lanes[subject]

    def _replaceable(self, subject: str, message: Message) -> _Item | None:
        lane = self._lanes.get(subject)
        if lane is None:
            return None
        last = lane.items[-1]
        kept = last.entry.message
        same = kept.resource == message.resource and kept.operation == message.operation
        return last if same and last.expires is None else None

    def _pause(self, subject: str, lane: _Lane, item: _Item, now: float) -> None:
        item.expires = None
        pause = min(self._limits.retry * 2 ** min(item.attempts - 1, 16), self._limits.retry_max)
        lane.not_before = now + pause
        self._paused[subject] = None

    def _expires(self, subject: str) -> float:
        expires = self._lanes[subject].items[0].expires
        return expires if expires is not None else float("inf")

    def _drop(self, item: _Item) -> None:
        """Forget an answered entry; if the disk refuses, it is only sent once more after a restart.

        Never before an older one of its subject: after a restart that one alone would be sent, and win.
        """
        if item.durable:
            self._undropped[item.entry.sequence] = item.entry.subject
            self._drop_again()

    def _drop_again(self) -> None:
        stuck: set[str] = set()
        for sequence, subject in sorted(self._undropped.items()):
            if subject in stuck:
                continue
            try:
                self._store.drop(sequence)
            except StorageError:
                stuck.add(subject)
            else:
                del self._undropped[sequence]


def subject_of(resource: str) -> str:
    """The object a message is about: status and patch messages belong to their object."""
    target = res.find_resource(resource)
    if target is None or not target.name:
        return resource
    if target.type in (res.PODPATCH, res.PODSTATUS):
        return res.format_resource(target.namespace, res.POD, target.name)
    if target.type in (res.NODEPATCH, res.NODESTATUS):
        return res.format_resource(target.namespace, res.NODE, target.name)
    return resource
