"""What applications at the edge send to the cloud without ever getting an answer: kept until it has provably arrived.

KubeEdge's cloud acknowledges no upload. What tells is the transport: a WebSocket ping is answered by whoever reads
the connection, in order; once the pong to a ping comes back, everything written before that ping has been read at the
other end. An upload is forgotten then and not sooner, so that a cut link, a restart or a kill of the edge repeats
the few on the way and loses none. Order is that of arrival.

The store is durable when `put` returns. It is bounded twice, in messages and bytes; when full, the oldest go, counted.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from edgehive.kit.errors import StorageError
from edgehive.wire.message import Message, encode_message

_AGAIN: Final = 5.0  # seconds until a disk that refused is asked again
_BATCH: Final = 64
_BATCH_BYTES: Final = 256 << 10


class UploadStore(Protocol):
    """The durable side; each call is one transaction and raises StorageError when it cannot."""

    def extent(self) -> tuple[int, int, int]:
        """How many uploads there are, their bytes, and the highest sequence number (0: none)."""
        ...

    def oldest(self, limit: int) -> list[tuple[int, int]]:
        """Sequence and size of the oldest ones."""
        ...

    def read(self, after: int, limit: int, size: int) -> list[tuple[int, bytes]]:
        """The next ones behind `after`, at most `limit`, and no more once they have `size` bytes."""
        ...

    def add(self, rows: Sequence[tuple[int, bytes]], drop_upto: int) -> None:
        """Keep `rows` and forget everything up to `drop_upto`, together."""
        ...

    def drop(self, upto: int) -> None:
        """Forget everything up to `upto`."""
        ...


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bounds."""

    messages: int = 10_000
    size: int = 32 << 20
    """Bytes of all of them together."""
    in_flight: int = 64
    """Sent, and not known to have arrived."""


class Uploads:
    """The queue. The link asks `take`, says `proven` when a pong has come, and `link_lost` when there is none to come."""

    def __init__(self, *, store: UploadStore, limits: UploadLimits | None = None) -> None:
        """Take up what is in `store`.

        Raises:
            StorageError: it cannot be read.
        """
        self._store = store
        self._limits = limits or UploadLimits()
        self._count, self._size, self._last = store.extent()
        oldest = store.oldest(1)
        self._proven = oldest[0][0] - 1 if oldest else self._last
        """Everything up to here has arrived or was dropped."""
        self.sent = self._proven
        """Everything up to here has been handed to the link."""
        self._undropped = 0
        self._not_before = 0.0
        self._ready: deque[tuple[int, bytes]] = deque()
        self._flying: deque[tuple[int, int]] = deque()
        self.accepted = 0
        self.delivered = 0
        self.dropped = 0
        """Uploads lost to a full store."""

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._size

    def put(self, messages: Sequence[Message]) -> None:
        """Keep `messages` until they have arrived.

        Raises:
            StorageError: they could not be made durable; none of them was accepted.
        """
        if not messages:
            return
        self.drop_again()
        rows = [(self._last + 1 + n, encode_message(message)) for n, message in enumerate(messages)]
        size = sum(len(frame) for _, frame in rows)
        keep = 0  # how many of the newest of this very batch have room
        room = self._limits.size
        for _, frame in reversed(rows):
            if keep >= self._limits.messages or room < len(frame):
                break
            keep += 1
            room -= len(frame)
        lost = len(rows) - keep
        rows, size = rows[lost:], size - sum(len(frame) for _, frame in rows[:lost])
        upto, gone, freed = self._make_room(len(rows), size)
        self._store.add(rows, upto)
        self._count += len(rows) - gone
        self._size += size - freed
        if rows:
            self._last = rows[-1][0]
        self.accepted += len(messages)
        self.dropped += gone + lost
        self._forget(upto)

    def _make_room(self, count: int, size: int) -> tuple[int, int, int]:
        """Up to which sequence the oldest have to go for `count` more of `size` bytes; how many, how many bytes."""

        def lacks() -> bool:
            messages, bytes_ = self._count - gone + count, self._size - freed + size
            return messages > self._limits.messages or bytes_ > self._limits.size

        upto = gone = freed = 0
        asked = _BATCH + max(0, self._count + count - self._limits.messages)
        while lacks():
            oldest = self._store.oldest(asked)[gone:]
            if not oldest:
                break
            for sequence, bytes_ in oldest:
                upto, gone, freed = sequence, gone + 1, freed + bytes_
                if not lacks():
                    break
            asked *= 2
        return upto, gone, freed

    # the link's side

    @property
    def unproven(self) -> bool:
        """Whether anything sent is not known to have arrived."""
        return bool(self._flying)

    def wants_to_send(self, now: float) -> bool:
        """Whether `take` would give something."""
        return (
            self.sent < self._last and len(self._flying) < self._limits.in_flight and now >= self._not_before
        )

    def retry_at(self) -> float | None:
        """When a disk that refused is asked again, if one did."""
        return self._not_before or None

    def take(self, now: float) -> bytes | None:
        """The next frame to send."""
        if not self.wants_to_send(now):
            return None
        if not self._ready:
            try:
                self._ready.extend(self._store.read(self.sent, _BATCH, _BATCH_BYTES))
            except StorageError:
                self._not_before = now + _AGAIN
                return None
            self._not_before = 0.0
        if not self._ready:
            self.sent = self._last
            return None
        sequence, frame = self._ready.popleft()
        self.sent = sequence
        self._flying.append((sequence, len(frame)))
        return frame

    def proven(self, upto: int) -> None:
        """Everything sent up to `upto` has been read by the cloud."""
        if not self._flying or self._flying[0][0] > upto:
            return
        while self._flying and self._flying[0][0] <= upto:
            _, size = self._flying.popleft()
            self._count -= 1
            self._size -= size
            self.delivered += 1
        self._proven = max(self._proven, upto)
        self._undropped = max(self._undropped, upto)
        self.drop_again()

    def drop_again(self) -> None:
        """Forget on disk what has arrived; if the disk refuses, it is only sent once more after a restart."""
        if not self._undropped:
            return
        try:
            self._store.drop(self._undropped)
        except StorageError:
            return
        self._undropped = 0

    def link_lost(self) -> None:
        """What is not known to have arrived must be sent again."""
        self._flying.clear()
        self._ready.clear()
        self.sent = self._proven

    def _forget(self, upto: int) -> None:
        """What was dropped is not sent any more, and what of it is on the way is not counted twice."""
        if not upto:
            return
        self._proven = max(self._proven, upto)
        self.sent = max(self.sent, upto)
        while self._flying and self._flying[0][0] <= upto:
            self._flying.popleft()
        while self._ready and self._ready[0][0] <= upto:
            self._ready.popleft()
