"""The messages of one object name, in order: what may replace, follow or precede what."""

from dataclasses import dataclass, field
from enum import Enum

from edgehive.wire.outbound import Outbound
from edgehive.wire.resource import DEVICE, DEVICE_MODEL, POD, find_resource

_ANSWERS = 16
"""Answers about one object that wait for their turn; more is a peer that asks in a loop, and the oldest goes."""


_MOVABLE = frozenset({DEVICE, DEVICE_MODEL})
"""Types whose delete only says that the object has left the node: it may come back as it was."""


class Verdict(Enum):
    """What became of an offered message."""

    QUEUED = "queued"
    REPLACED = "replaced"
    """Queued in place of an older version that had not been sent."""
    STALE = "stale"
    """The same or a newer version, or the delete, is on its way or was given up for something newer."""
    DONE = "done"
    """The edge has acknowledged this or a newer version in this session."""
    NO_VERSION = "no-version"
    """An update without a numeric resourceVersion: the original drops it too (or panics)."""
    FULL = "full"
    """No room; the node needs a resync."""


@dataclass(slots=True, eq=False)
class Flight:
    """A message on the wire, not acknowledged yet."""

    lane: "Lane"
    message: Outbound
    first: float
    sends: int = 1
    rounds: int = 0
    due: float = 0.0
    stalled: bool = False
    """Sent more than once: it no longer fills the window."""


@dataclass(slots=True, eq=False)
class Lane:
    """One object name: at most one message in flight, the rest in order.

    `uid`, `version` and `gone` are the high-water mark: the newest that was offered. Answers to queries do not
    move `version` until they are acknowledged, since an original edge drops those whose requester is gone.
    """

    key: str
    uid: str = ""
    version: int = 0
    answered: int = 0
    """The newest version that an answer carried; an older update would overwrite it."""
    gone: bool = False
    """The delete of `uid` has been offered."""
    acked: int = 0
    """The newest version of `uid` that was acknowledged."""
    acked_gone: bool = False
    sent_uid: str = ""
    """The incarnation that was last put on the wire."""
    queue: list[Outbound] = field(default_factory=list)
    flight: Flight | None = None

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is in flight."""
        return self.flight is None and not self.queue

    @property
    def left(self) -> bool:
        """The object was taken away, and may come back in the same version once that is acknowledged."""
        target = find_resource(self.key) if self.gone else None
        return target is not None and target.type in _MOVABLE

    def offer(self, message: Outbound) -> Verdict:
        """Fit `message` in, or refuse it."""
        if not self.uid and not self.version and not self.gone:
            self.uid = message.uid
        same = message.uid == self.uid or (message.is_delete and not message.uid)
        if not same:
            return self._offer_other(message)
        if message.is_delete:
            return self._offer_delete(message)
        if self.gone:
            if not (self.left and self.acked_gone) or message.is_response:
                return Verdict.DONE if self.acked_gone else Verdict.STALE
            self.gone = self.acked_gone = False
            self.version = self.answered = self.acked = 0
        if message.is_response:
            return self._offer_response(message)
        return self._offer_update(message)

    def acknowledge(self, message: Outbound) -> None:
        """Note that `message` has been acknowledged."""
        if message.uid != self.uid and not (message.is_delete and not message.uid):
            return
        if message.is_delete:
            self.acked_gone = True
        else:
            self.acked = max(self.acked, message.version)
            self.version = max(self.version, message.version)

    @property
    def superseded(self) -> bool:
        """Something newer waits behind the message in flight, so that repeating it would be wrong."""
        if self.flight is None or self.flight.message.is_delete:
            return False
        if self.flight.message.is_response:
            return bool(self.queue)
        uid = self.flight.message.uid
        return any(m.uid in (uid, self.uid) and not m.is_response for m in self.queue)

    def _offer_update(self, message: Outbound) -> Verdict:
        if message.version and message.version <= self.version:
            return Verdict.DONE if message.version <= self.acked else Verdict.STALE
        if message.version and message.version < self.answered:
            return Verdict.STALE
        replaced = self._drop_pending(message.uid)
        self.version = max(self.version, message.version)
        return self._append(message, replaced)

    def _offer_response(self, message: Outbound) -> Verdict:
        # Sending an answer that is older than what is on its way would overwrite it at the edge.
        if message.version and message.version < max(self.version, self.answered):
            return Verdict.STALE
        self.answered = max(self.answered, message.version)
        replaced = sum(m.is_response for m in self.queue) >= _ANSWERS
        if replaced:
            self.queue.remove(next(m for m in self.queue if m.is_response))  # whoever asked, asks again
        return self._append(message, replaced)

    def _offer_delete(self, message: Outbound) -> Verdict:
        if self.gone:
            return Verdict.DONE if self.acked_gone else Verdict.STALE
        replaced = self._drop_pending(self.uid)
        self.gone = True
        return self._append(message, replaced)

    def _offer_other(self, message: Outbound) -> Verdict:
        if message.is_delete:
            return self._offer_old_delete(message)
        if message.version and message.version < self.version:
            return Verdict.STALE  # resourceVersions grow across incarnations: this is an older one
        replaced = self._drop_pending(self.uid)
        self.uid, self.version, self.answered, self.gone = message.uid, 0, 0, False
        self.acked, self.acked_gone = 0, False
        if message.is_response:
            self.answered = message.version
        else:
            self.version = message.version
        return self._append(message, replaced)

    def _offer_old_delete(self, message: Outbound) -> Verdict:
        """The delete of an incarnation that is not the newest."""
        if any(m.is_delete and m.uid == message.uid for m in self._all()):
            return Verdict.STALE
        if self.sent_uid == self.uid and not self.gone and not self._is_pod(message):
            # An original edge compares UIDs for pods only: this delete would remove the new incarnation there.
            # The row is the new one's already; the record is cleared once that has been acknowledged.
            return Verdict.STALE
        self.queue = [m for m in self.queue if m.uid != message.uid or m.is_response]
        at = next((i for i, m in enumerate(self.queue) if m.uid == self.uid), len(self.queue))
        self.queue.insert(at, message)
        return Verdict.QUEUED

    def _append(self, message: Outbound, replaced: bool) -> Verdict:
        self.queue.append(message)
        return Verdict.REPLACED if replaced else Verdict.QUEUED

    def _drop_pending(self, uid: str) -> bool:
        """Forget unsent versions of `uid`; answers and deletes stay."""
        kept = [m for m in self.queue if m.uid != uid or m.is_response or m.is_delete]
        dropped = len(kept) != len(self.queue)
        self.queue = kept
        return dropped

    def _all(self) -> list[Outbound]:
        return [self.flight.message, *self.queue] if self.flight else self.queue

    @staticmethod
    def _is_pod(message: Outbound) -> bool:
        return message.resource is not None and message.resource.type == POD
