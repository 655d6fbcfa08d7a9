"""The edge's end of the link, without the socket: when to dial, what to send, what came in, when it is dead.

The original notices a lost link only when a write fails, then sleeps 30 s, and loses the message whose write
failed. Here a closed socket is noticed at once, a silent one within seconds by WebSocket pings, the next attempt
follows after about a jittered second, and what was not answered is sent again.
"""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final

import msgspec

from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import ProtocolError
from edgehive.wire import classify as cls
from edgehive.wire.message import KEEPALIVE, MAX_FRAME, Message, Stamp, decode_message, encode_message
from edgehive.wire.outbox import Entry, Outbox, Settled
from edgehive.wire.resource import KEEPALIVE_RESOURCE

if TYPE_CHECKING:  # edgecore without MQTT does not load it
    from edgehive.wire.uploads import Uploads


class LinkOptions(msgspec.Struct, frozen=True):
    """Timers (seconds) and rates of the link."""

    heartbeat: float = 15.0
    """Keepalive period (`modules.edgeHub.heartbeat`)."""
    ping: float = 5.0
    """A WebSocket ping is sent after this long without anything from the cloud."""
    dead_after: float = 15.0
    """The link is given up after this long without anything from the cloud, pongs included."""
    deaf_after: float = 120.0
    """The link is given up when something waits for an answer and no message at all has come for this long.

    An original cloud at its node limit keeps the socket, answers pings and never speaks.
    """
    dial_timeout: float = 30.0
    """`modules.edgeHub.websocket.handshakeTimeout`."""
    reconnect: float = 1.0
    reconnect_max: float = 30.0
    reconnect_jitter: float = 0.5
    stable_after: float = 10.0
    """A link that lived this long resets the back-off."""
    rate: float = 30.0
    """`messageQPS`; keepalives and ACKs are not held back."""
    burst: int = 60
    """`messageBurst`."""
    queue: int = 1_000
    """Unkept messages (requests, events) waiting to be written; when full the oldest event is dropped."""
    requests: int = 1_000
    """Requests awaiting an answer; when full, a new one fails at once."""


class Dial(msgspec.Struct, frozen=True):
    """Open a connection now; then call `receive_connected` or `receive_closed`."""


class Connected(msgspec.Struct, frozen=True):
    """The link is up."""


class Disconnected(msgspec.Struct, frozen=True):
    """The link is down; close the socket if it is still open."""

    reason: str


class SendPing(msgspec.Struct, frozen=True):
    """Send a WebSocket ping with this payload now, behind every frame that was handed out before."""

    payload: bytes = b""


class Incoming(msgspec.Struct, frozen=True):
    """A message without a waiting request: for MetaManager, devicetwin, the buses, the task manager (by group).

    An answer whose requester has given up comes here too; `rows.plan_incoming` knows what to do with it.
    """

    message: Message


class Answered(msgspec.Struct, frozen=True):
    """The answer to the request `request_id`. It has NOT been acknowledged: store it first, then `send_ack` it."""

    request_id: str
    message: Message


class RequestFailed(msgspec.Struct, frozen=True):
    """No answer to `request_id` will come: timed out, link lost, or no room."""

    request_id: str
    reason: str


class GivenUp(msgspec.Struct, frozen=True):
    """The kept message of `entry` will not be sent again: the cloud does not answer such a one."""

    entry: Entry


LinkEvent = (
    Dial | Connected | Disconnected | SendPing | Incoming | Answered | RequestFailed | Settled | GivenUp
)


_MAX_URGENT: Final = 10_000
"""ACKs waiting for a socket that takes nothing; beyond that the link is given up."""
_DIAL_GRACE: Final = 5.0
_PROOF: Final = 8  # bytes


class _State(Enum):
    WAITING = "waiting"
    DIALING = "dialing"
    UP = "up"


class _Bucket:
    """A token bucket."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, *, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = now

    def available(self, now: float) -> int:
        """Whole tokens there are."""
        if self._rate <= 0:
            return 1 << 30  # no limit configured
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        return int(self._tokens + 1e-9)

    def spend(self, count: int) -> None:
        """Take `count` tokens."""
        if self._rate > 0:
            self._tokens -= count

    def next_at(self) -> float:
        """When there is a whole token."""
        if self._rate <= 0 or self._tokens >= 1:
            return self._at
        return self._at + (1 - self._tokens) / self._rate


class EdgeLink:
    """One edge's link, over all its connections.

    After every call the shell asks `events`, `data_to_send` and `deadline`.
    """

    def __init__(
        self,
        *,
        now: float,
        stamp: Stamp,
        rng: Callable[[], float],
        outbox: Outbox,
        options: LinkOptions | None = None,
    ) -> None:
        self._options = options or LinkOptions()
        self._stamp = stamp
        self.outbox: Final = outbox
        self.uploads: Uploads | None = None
        """Messages that nobody answers, where this edge has such."""
        self._asked = 0
        """The last upload that a ping on its way would prove."""
        self._state = _State.WAITING
        self._backoff = Backoff(
            initial=self._options.reconnect,
            maximum=self._options.reconnect_max,
            jitter=self._options.reconnect_jitter,
            rng=rng,
        )
        self._bucket = _Bucket(rate=self._options.rate, burst=self._options.burst, now=now)
        self._next_dial = now
        self._dial_by = 0.0
        self._up_since = 0.0
        self._heard = 0.0
        self._spoken = 0.0
        self._pinged = 0.0
        self._next_keepalive = 0.0
        self._urgent: deque[bytes] = deque()
        self._requests: deque[Message] = deque()
        self._once: deque[Message] = deque()
        self._pending: dict[str, float] = {}  # request id -> when it times out
        self._timeouts: list[tuple[float, str]] = []
        self._turn = 0
        self._events: list[LinkEvent] = []
        self.dropped = 0
        """Unkept messages lost to a full queue."""

    @property
    def up(self) -> bool:
        """Whether the cloud is connected."""
        return self._state is _State.UP

    # The connection

    def receive_connected(self, now: float) -> None:
        """The dial succeeded (the 101 has been read)."""
        if self._state is not _State.DIALING:
            return
        self._state = _State.UP
        self._up_since = self._heard = self._spoken = self._pinged = now
        self._keepalive(now)
        self._events.append(Connected())

    def receive_closed(self, reason: str, now: float) -> None:
        """The dial failed or the socket is gone."""
        if self._state is _State.WAITING:
            return
        if self._state is _State.UP:
            if now - self._up_since >= self._options.stable_after:
                self._backoff.reset()
            self._go_down(reason)
        self._state = _State.WAITING
        self._next_dial = now + self._backoff.next()

    def reconnect(self, reason: str, now: float) -> None:
        """Drop the link and dial again at once (new certificate)."""
        self.receive_closed(reason, now)
        self._backoff.reset()
        self._next_dial = now

    def receive_pong(self, now: float, payload: bytes = b"") -> None:
        """Any sign of life that is not a message; `payload` is that of a pong."""
        self._heard = now
        if self.uploads is None or len(payload) != _PROOF or self._state is not _State.UP:
            return
        proven = int.from_bytes(payload, "big")
        if proven <= self._asked:
            self.uploads.proven(proven)
        if proven == self._asked:
            self._asked = 0
            self._ask_for_proof()

    # Messages

    def receive_frame(self, data: bytes, now: float) -> None:
        """Take one WebSocket message.

        Raises:
            ProtocolError: it is not a message; the link has already been put down, close the socket.
        """
        if self._state is not _State.UP:
            return
        self._heard = self._spoken = now
        try:
            if len(data) > MAX_FRAME:
                raise ProtocolError(f"a message of {len(data)} bytes is over the limit")
            message = decode_message(data)
        except ProtocolError as exc:
            self.receive_closed(str(exc), now)
            raise
        if message.operation in cls.CONTROL_OPERATIONS:
            message_id, timestamp = self._stamp()
            self.send_now(message.reply(new_id=message_id, timestamp=timestamp, content=b'"ack"'), now)
        elif message.parent_id:
            self._receive_answer(message, now)
        else:
            self._events.append(Incoming(message))

    def send_request(self, message: Message, now: float, timeout: float = 60.0) -> str:
        """Send a request; its id comes back in `Answered` or `RequestFailed` (at once when the link is down)."""
        if self._state is not _State.UP:
            self._events.append(RequestFailed(message.id, "not connected"))
        elif len(self._pending) >= self._options.requests:
            self._events.append(RequestFailed(message.id, "too many requests are waiting for the cloud"))
        else:
            self._pending[message.id] = now + timeout
            heapq.heappush(self._timeouts, (now + timeout, message.id))
            self._requests.append(message)
        return message.id

    def send_kept(
        self, message: Message, now: float, *, replace: bool = False, durable: bool = True
    ) -> Entry:
        """Put `message` into the outbox; it is sent when the link allows, until answered (`Settled`).

        Raises:
            StorageError: it could not be kept.
        """
        return self.outbox.put(message, replace=replace, durable=durable)

    def send_once(self, message: Message, now: float) -> bool:
        """Send without keeping (events, uploads nobody answers); False: the oldest one had to go for it."""
        room = len(self._once) < self._options.queue
        if not room:
            self._once.popleft()
            self.dropped += 1
        self._once.append(message)
        return room

    def send_uploads(self, messages: Sequence[Message]) -> None:
        """Keep messages that nobody answers; each is sent, in order, until it is known to have arrived.

        Raises:
            StorageError: they could not be kept, none of them.
        """
        assert self.uploads is not None, "this link was made without uploads"
        self.uploads.put(messages)

    def send_ack(self, message: Message, now: float) -> None:
        """Acknowledge `message` (dropped when the link is down: the cloud sends again)."""
        message_id, timestamp = self._stamp()
        self.send_now(message.reply(new_id=message_id, timestamp=timestamp), now)

    def send_now(self, message: Message, now: float) -> None:
        """Send an `error` or another answer past the rate limit; dropped when the link is down."""
        if self._state is not _State.UP:
            return
        if len(self._urgent) >= _MAX_URGENT:
            self.receive_closed("the cloud does not read", now)
            return
        self._urgent.append(encode_message(message))

    # The clock

    def handle_timer(self, now: float) -> None:
        """Dial, keepalive, ping, time-outs, whatever is due."""
        if self._state is _State.WAITING and now >= self._next_dial:
            self._state = _State.DIALING
            self._dial_by = now + self._options.dial_timeout + _DIAL_GRACE
            self._events.append(Dial())
        elif self._state is _State.DIALING and now >= self._dial_by:
            self.receive_closed("the dial did not end", now)
            self._events.append(Disconnected("the dial did not end"))
        elif self._state is _State.UP:
            self._watch(now)
        while self._timeouts and self._timeouts[0][0] <= now:
            _, request_id = heapq.heappop(self._timeouts)
            if self._pending.pop(request_id, None) is not None:
                self._events.append(RequestFailed(request_id, "the cloud did not answer in time"))
        self.outbox.handle_timer(now)
        if self.uploads is not None:
            self.uploads.drop_again()
        self._events.extend(GivenUp(entry) for entry in self.outbox.given_up())

    def deadline(self) -> float | None:
        """When `handle_timer` (and `data_to_send`) wants to be called next."""
        if self._state is _State.WAITING:
            return self._next_dial
        if self._state is _State.DIALING:
            return self._dial_by
        times = [
            self._next_keepalive,
            max(self._heard, self._pinged) + self._options.ping,
            self._heard + self._options.dead_after,
        ]
        if self._timeouts:
            times.append(self._timeouts[0][0])
        kept = self.outbox.deadline()
        if kept is not None:
            times.append(kept)
        uploads = self.uploads
        if uploads is not None and (retry := uploads.retry_at()) is not None:
            times.append(retry)
            uploads = None
        if (
            self._requests
            or self._once
            or self.outbox.wants_to_send()
            or (uploads is not None and uploads.wants_to_send(0.0))
        ):
            times.append(self._bucket.next_at())
        return min(times)

    def data_to_send(self, now: float, limit: int = 64) -> list[bytes]:
        """Frames to write as TEXT, at most `limit`; ask again until empty, only while the socket takes data."""
        if self._state is not _State.UP:
            return []
        frames = [self._urgent.popleft() for _ in range(min(limit, len(self._urgent)))]
        room = min(limit - len(frames), self._bucket.available(now))
        spent = 0
        while spent < room:
            frame = self._next_frame(now)
            if frame is None:
                break
            frames.append(frame)
            spent += 1
        self._bucket.spend(spent)
        self._ask_for_proof()
        return frames

    def events(self) -> list[LinkEvent]:
        """What has happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def _receive_answer(self, message: Message, now: float) -> None:
        if self._pending.pop(message.parent_id, None) is not None:
            self._events.append(Answered(message.parent_id, message))
        elif self.outbox.expects(message.parent_id):
            settled = self.outbox.receive_answer(message, now)
            if settled is not None:
                self._events.append(settled)
        elif message.group != cls.USER_GROUP:
            self._events.append(Incoming(message))

    def _next_frame(self, now: float) -> bytes | None:
        """Take turns between requests, kept messages, uploads and the rest, so that none of them starves."""
        for _ in range(4):
            self._turn = (self._turn + 1) % 4
            if self._turn == 0 and self._once:
                return encode_message(self._once.popleft())
            if self._turn == 1:
                while self._requests:
                    request = self._requests.popleft()
                    if request.id in self._pending:
                        return encode_message(request)
            elif self._turn == 2:
                kept = self.outbox.take(now, 1)
                if kept:
                    return encode_message(kept[0])
            elif self._turn == 3 and self.uploads is not None:
                upload = self.uploads.take(now)
                if upload is not None:
                    return upload
        return None

    def _ask_for_proof(self) -> None:
        """Have a ping follow the uploads that were handed out; one such ping is on its way at a time."""
        if self.uploads is not None and not self._asked and self.uploads.unproven:
            self._events.append(SendPing(self._proof()))

    def _proof(self) -> bytes:
        """What a ping says. A peer may answer the newest ping alone, so each of them asks for everything so far."""
        if self.uploads is None or not self.uploads.unproven:
            return b""
        self._asked = self.uploads.sent
        return self._asked.to_bytes(_PROOF, "big")

    def _watch(self, now: float) -> None:
        """Keepalive, ping and the end of patience."""
        # The very sums that `deadline` returns: a difference may round to just below, and spin the caller.
        if now >= self._heard + self._options.dead_after:
            self.receive_closed(f"nothing from the cloud for {now - self._heard:.0f} s", now)
            return
        if now >= self._spoken + self._options.deaf_after and (self._pending or len(self.outbox)):
            self.receive_closed("the cloud answers pings but nothing else", now)
            return
        if now >= self._next_keepalive:
            self._keepalive(now)
        if now >= max(self._heard, self._pinged) + self._options.ping:
            self._pinged = now
            self._events.append(SendPing(self._proof()))

    def _keepalive(self, now: float) -> None:
        message_id, timestamp = self._stamp()
        self._next_keepalive = now + self._options.heartbeat
        self.send_now(
            Message(
                id=message_id,
                timestamp=timestamp,
                operation=KEEPALIVE,
                resource=KEEPALIVE_RESOURCE,
                content=b'"ping"',
                source=cls.EDGE_HUB,
                group=cls.RESOURCE_GROUP,
            ),
            now,
        )

    def _go_down(self, reason: str) -> None:
        self._urgent.clear()
        self._requests.clear()
        self._timeouts.clear()
        for request_id in self._pending:
            self._events.append(RequestFailed(request_id, "connection lost between EdgeCore and CloudCore"))
        self._pending.clear()
        self.outbox.link_lost()
        self._asked = 0
        if self.uploads is not None:
            self.uploads.link_lost()
        self._events.append(Disconnected(reason))
