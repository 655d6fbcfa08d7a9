"""One connection, as the broker sees it, and the memory that all of them share."""

from typing import TYPE_CHECKING, Final

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_codec import PacketReader, encode_packet
from edgehive.wire.mqtt_packets import Packet, Will

if TYPE_CHECKING:
    from edgehive.wire.mqtt_session import Session

_OUT_HIGH: Final = 256 << 10
"""Bytes waiting to be written to one client's socket, from which on messages wait in its queue."""


class Pool:
    """The memory for what sockets have not taken. Half of it is shared out among the clients, half is for all.

    So a small message always gets through to who reads, and large ones wait for each other.
    """

    __slots__ = ("limit", "share", "used")

    def __init__(self, memory: int, clients: int) -> None:
        self.share = memory // (2 * clients)
        """Bytes each client has for itself."""
        self.limit = memory - self.share * clients
        self.used = 0
        """Bytes beyond the shares."""


class Peer:
    """One connection, from the broker's side. The shell moves its bytes: `out` to the socket, `ended` to a close."""

    __slots__ = (
        "_dirty",
        "_pool",
        "buffered",
        "cause",
        "ended",
        "excess",
        "explained",
        "heard",
        "keepalive",
        "largest",
        "messages",
        "name",
        "out",
        "out_bytes",
        "pending",
        "reader",
        "received",
        "session",
        "stalled",
        "version",
        "will",
    )

    def __init__(self, name: str, *, largest: int, pool: Pool, now: float, dirty: "dict[Peer, None]") -> None:
        self.name = name
        self.reader = PacketReader(largest)
        self.buffered = 0
        """Bytes of its unfinished packet, as the broker last counted them."""
        self.session: Session | None = None
        self.received: set[int] = set()
        """Its session's, also when it has left that."""
        self.version = mp.V311
        self.keepalive = 0
        self.largest = mp.MAX_REMAINING
        """Largest packet the client takes (5.0, Maximum Packet Size)."""
        self.will: Will | None = None
        self.heard = now
        self.out: list[bytes] = []
        self.out_bytes = 0
        self.pending = 0
        """Bytes given to the socket that it has not taken yet."""
        self.excess = 0
        """Bytes of the pool that this client takes up."""
        self.messages = 0
        """Packets it has sent, each filter and property in them too; the shell's rate limit looks at it."""
        self.stalled: float | None = None
        """Since when the socket has taken nothing; ``None`` while it takes all."""
        self.ended = False
        """Nothing more is read; the shell closes after writing `out`."""
        self.cause = ""
        self.explained = False
        """The last packet says why it ended: the client should get to read it."""
        self._dirty = dirty
        self._pool = pool

    @property
    def writable(self) -> bool:
        """Whether a message may be sent now."""
        return self.stalled is None and self.out_bytes < _OUT_HIGH

    def write(self, data: bytes) -> None:
        """Queue bytes for the socket."""
        self.out.append(data)
        self.out_bytes += len(data)
        self._dirty[self] = None
        if self.out_bytes + self.pending > self._pool.share:
            self._account()

    def fits(self, size: int) -> bool:
        """Whether there is memory for a message of `size` that the socket may not take; one always fits."""
        pool = self._pool
        beyond = self.out_bytes + self.pending + size - pool.share
        others = pool.used - self.excess
        return beyond <= 0 or not others or others + beyond <= pool.limit

    def take(self) -> bytes:
        """What is to be given to the socket; the shell says by `Broker.written` how much of it is left."""
        data = b"".join(self.out)
        self.pending += len(data)
        self.out.clear()
        self.out_bytes = 0
        return data

    def discard(self) -> None:
        """Forget what was to be written."""
        self.out.clear()
        self.out_bytes = 0
        self._account()

    def left(self, pending: int) -> None:
        """`pending` bytes of what was given to the socket are left."""
        self.pending = pending
        if self.excess or self.out_bytes + pending > self._pool.share:
            self._account()

    def _account(self) -> None:
        excess = max(0, self.out_bytes + self.pending - self._pool.share)
        self._pool.used += excess - self.excess
        self.excess = excess

    def send(self, packet: Packet) -> None:
        """Queue a packet for the socket."""
        self.write(encode_packet(packet, self.version))

    def explain(self, packet: Packet) -> None:
        """Queue the packet that says why the connection ends."""
        self.send(packet)
        self.explained = True

    def touch(self) -> None:
        """Make the shell look at this connection."""
        self._dirty[self] = None
