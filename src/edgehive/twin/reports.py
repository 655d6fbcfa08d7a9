"""What the cloud has not heard of yet, and when it is told.

A report says how things are, not what has happened, so one that is late is complete all the same: of each device and
kind one report at most is on its way, and what changes meanwhile is gathered for the next. While the cloud is away
nothing is composed at all. The original's cloud answers nothing about a device it does not know; such a device is
left alone until the cloud speaks of it or the link was new.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from edgehive.twin.effects import Kind

Key = tuple[str, Kind]


@dataclass(slots=True)
class _Sent:
    message_id: str
    names: set[str]
    refresh: bool = False
    """The link was lost since: what waits is replaced by something newer, if there is."""


@dataclass(slots=True)
class Due:
    """One report to compose now."""

    id: str
    kind: Kind
    names: set[str] = field(default_factory=set)


class Reports:
    """Bookkeeping over the reports of all devices; at most `slots` are on their way."""

    def __init__(self, *, slots: int = 32) -> None:
        self._slots = slots
        self._owed: dict[Key, set[str]] = {}
        self._sent: dict[Key, _Sent] = {}
        self._muted: set[str] = set()
        self._up = False
        self._failed: dict[Key, None] = {}

    def __len__(self) -> int:
        return len(self._owed)

    @property
    def unanswered(self) -> int:
        """Reports on their way."""
        return len(self._sent)

    @property
    def muted(self) -> frozenset[str]:
        """Devices the cloud does not know."""
        return frozenset(self._muted)

    def owe(self, device: str, kind: Kind, names: Iterable[str] = ()) -> None:
        """Something of a device has changed."""
        self._owed.setdefault((device, kind), set()).update(names)

    def clean(self, device: str) -> bool:
        """Whether the cloud has heard of everything."""
        return not any((device, kind) in where for kind in Kind for where in (self._owed, self._sent))

    def forget(self, device: str) -> None:
        """The device has left."""
        self._muted.discard(device)
        for kind in Kind:
            self._owed.pop((device, kind), None)
            self._sent.pop((device, kind), None)

    def connection(self, up: bool) -> None:
        """The link is up or down."""
        if up and not self._up:
            self._muted.clear()
            for sent in self._sent.values():
                sent.refresh = True
        self._up = up

    def known(self, device: str) -> None:
        """The cloud has spoken of a device: it may be told of it."""
        self._muted.discard(device)

    def take(self) -> list[Due]:
        """What to tell now; each must be followed by `sent` or `failed`."""
        if not self._up:
            return []
        due: list[Due] = []
        room = self._slots - len(self._sent)
        for key, names in self._owed.items():
            sent = self._sent.get(key)
            if key[0] in self._muted or key in self._failed or (sent is not None and not sent.refresh):
                continue
            if sent is None:
                if room <= 0:
                    continue
                room -= 1
            due.append(Due(*key, names | (sent.names if sent is not None else set())))
        return due

    def sent(self, due: Due, message_id: str) -> None:
        """A report is kept by the outbox."""
        key = (due.id, due.kind)
        self._owed.pop(key, None)
        self._sent[key] = _Sent(message_id, due.names)

    def failed(self, due: Due) -> None:
        """The outbox has not taken a report; not again before `retry`."""
        self._failed[(due.id, due.kind)] = None

    @property
    def has_failed(self) -> bool:
        """Whether `retry` would do something."""
        return bool(self._failed)

    def retry(self) -> None:
        """Let what has failed be tried again."""
        self._failed.clear()

    def settled(self, device: str, kind: Kind, message_id: str, *, heard: bool) -> set[str]:
        """A report was answered, or (not `heard`) the cloud does not know the device or does not answer.

        Returns:
            The twins the cloud has heard of.
        """
        key = (device, kind)
        sent = self._sent.get(key)
        if sent is None or sent.message_id != message_id:
            return set()  # an older one, from before a restart or a replacement
        del self._sent[key]
        if not heard:
            self._muted.add(device)
            self.owe(device, kind, sent.names)
            return set()
        return sent.names
