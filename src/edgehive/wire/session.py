"""The cloud's end of one node connection, without the socket.

A shell feeds frames in and writes frames out; everything worth knowing comes out as events. Sessions are objects,
not names: closing an old one cannot touch the new session of the same node.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.wire import classify as cls
from edgehive.wire import resource as res
from edgehive.wire.held import HOLDINGS, Held, decode_holdings
from edgehive.wire.message import (
    DELETE,
    ERROR,
    INSERT,
    KEEPALIVE,
    MAX_FRAME,
    RESPONSE,
    UPLOAD,
    Message,
    Stamp,
    decode_message,
    encode_message,
)
from edgehive.wire.outbound import Outbound
from edgehive.wire.pool import Delivered, GivenUp, NodeMessagePool, PoolLimits, Verdict

KEEPALIVE_TIMEOUT = 30.0
"""Seconds without any valid message after which a session is dead (an edge sends a keepalive every 15)."""


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The edge's heartbeat; never answered."""


@dataclass(frozen=True, slots=True)
class EdgeFailure:
    """Operation ``error``: the edge could not do what `message.parent_id` asked; log it, it is not an ACK."""

    message: Message


@dataclass(frozen=True, slots=True)
class Upload:
    """Operation ``upload`` of group ``user``: for the router."""

    message: Message


@dataclass(frozen=True, slots=True)
class TaskReport:
    """A node job or task reports its state."""

    message: Message


@dataclass(frozen=True, slots=True)
class CaRequest:
    """The edge asks for the Kubernetes CA; answer with `answer_ca`."""

    message: Message


@dataclass(frozen=True, slots=True)
class VolumeReply:
    """An answer to a CSI volume operation, matched by `message.parent_id`."""

    message: Message


@dataclass(frozen=True, slots=True)
class Upstream:
    """A request or report for a controller: `target` says which group the original routes it to."""

    target: str
    """``edgecontroller``, ``devicecontroller`` or ``dynamiccontroller``."""
    message: Message


@dataclass(frozen=True, slots=True)
class Told:
    """The edge has said what it holds."""

    held: Held


@dataclass(frozen=True, slots=True)
class Denied:
    """The edge spoke about another node than its certificate's; nothing was done."""

    message: Message
    reason: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The session ended; close the socket. Last event of a session."""

    reason: str


SessionEvent = (
    Keepalive
    | EdgeFailure
    | Upload
    | TaskReport
    | CaRequest
    | VolumeReply
    | Upstream
    | Told
    | Denied
    | Delivered
    | GivenUp
    | Closed
)

_OWN_NODE_TYPES: Final = frozenset({res.NODE, res.NODEPATCH, res.NODESTATUS})
_LEASE_NAMESPACE: Final = "kube-node-lease"
_NOT_FROM_EDGE: Final = frozenset(
    {cls.CLOUD_HUB, cls.CLOUD_STREAM, cls.DEVICE_CONTROLLER, cls.EDGE_CONTROLLER, cls.SYNC_CONTROLLER}
)
_TARGETS: Final = {cls.META_SERVER: cls.DYNAMIC_CONTROLLER, cls.TWIN_SOURCE: cls.DEVICE_CONTROLLER}


class NodeSession:
    """One connection of one node, from the 101 to its end."""

    __slots__ = (
        "_deadline",
        "_events",
        "_keepalive",
        "_stamp",
        "_told",
        "_urgent",
        "closed",
        "node",
        "pool",
        "registering",
        "tells",
    )

    def __init__(
        self,
        *,
        node: str,
        now: float,
        stamp: Stamp,
        keepalive: float = KEEPALIVE_TIMEOUT,
        limits: PoolLimits | None = None,
        tells: bool = False,
    ) -> None:
        self.node: Final = node
        self.tells: Final = tells
        """The edge says first of all what it holds (`wire.held`)."""
        self._told = False
        self.pool: Final = NodeMessagePool(limits=limits)
        self.closed: str | None = None
        """Why the session ended, ``None`` while it lives."""
        self.registering = False
        """The edge has just asked to create its Node, which an edgecore does once at each start."""
        self._stamp = stamp
        self._keepalive = keepalive
        self._deadline = now + keepalive
        self._urgent: list[bytes] = []
        self._events: list[SessionEvent] = []

    def receive_frame(self, data: bytes, now: float) -> None:
        """Take one WebSocket message (text or binary).

        Any valid message proves the edge alive; the original counts keepalives only, which every edge sends
        anyway.

        Raises:
            ProtocolError: it is not a message; close the connection, as the original does.
        """
        if self.closed is not None:
            return
        if len(data) > MAX_FRAME:
            raise ProtocolError(f"a message of {len(data)} bytes is over the limit")
        message = decode_message(data)
        self._deadline = now + self._keepalive
        if message.operation in cls.CONTROL_OPERATIONS:
            self._answer_control(message)
        elif message.operation == RESPONSE and not res.is_volume(message.resource):
            delivered = self.pool.receive_ack(message.parent_id, now)
            if delivered is not None:
                self._events.append(delivered)
        else:
            event = self._classify(message)
            if event is not None:
                self._events.append(event)

    def send(self, message: Outbound, now: float) -> Verdict:
        """Queue a message for the node; a Node object's delete ends the session instead, as in the original."""
        if self.closed is not None:
            return Verdict.STALE
        target = message.resource
        if target is not None and target.type == res.NODE and message.message.operation == DELETE:
            self.close("the Node object was deleted")
            return Verdict.DONE
        return self.pool.offer(message, now)

    def send_answer_ca(self, request: Message, pem: str, now: float) -> None:
        """Answer a `CaRequest` with the Kubernetes CA."""
        message_id, timestamp = self._stamp()
        answer = msgspec.structs.replace(
            request.reply(new_id=message_id, timestamp=timestamp, content=msgspec.json.encode(pem)),
            source=cls.CLOUD_HUB,
            group=cls.RESOURCE_GROUP,
            type="",
        )
        self.send(Outbound(answer), now)

    def handle_timer(self, now: float) -> None:
        """Resend what is due, notice a silent edge."""
        if self.closed is not None:
            return
        if now >= self._deadline:
            self.close(f"no message from the edge for {self._keepalive:g} s")
            return
        self._events.extend(self.pool.handle_timer(now))

    def deadline(self) -> float | None:
        """When `handle_timer` wants to be called next; ``None`` once closed."""
        if self.closed is not None:
            return None
        resend = self.pool.deadline()
        return self._deadline if resend is None else min(self._deadline, resend)

    def data_to_send(self, now: float, limit: int = 64) -> list[bytes]:
        """Frames to write as TEXT, at most `limit`; ask again until empty, only while the socket takes data."""
        if self.closed is not None:
            return []
        frames, self._urgent = self._urgent, []
        frames.extend(message.frame for message in self.pool.take(now, limit))
        return frames

    def events(self) -> list[SessionEvent]:
        """What has happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def close(self, reason: str) -> None:
        """End the session (socket lost, replaced, shutting down); idempotent."""
        if self.closed is None:
            self.closed = reason
            self._urgent.clear()
            self._events.append(Closed(reason))

    def _answer_control(self, message: Message) -> None:
        if len(self._urgent) >= 64:
            return  # a peer that asks faster than it reads gets fewer answers
        message_id, timestamp = self._stamp()
        self._urgent.append(
            encode_message(message.reply(new_id=message_id, timestamp=timestamp, content=b'"ack"'))
        )

    def _classify(self, message: Message) -> SessionEvent | None:
        """The upstream table of the original, first match wins (ACKs are dealt with before)."""
        operation = message.operation
        if operation == KEEPALIVE:
            return Keepalive()
        if operation == HOLDINGS and self.tells:
            return self._hear(message)
        if res.is_volume(message.resource):
            return VolumeReply(message)
        if operation == ERROR:
            return EdgeFailure(message)
        if operation == UPLOAD and message.group == cls.USER_GROUP:
            return Upload(message)
        if operation in cls.TASK_OPERATIONS:
            if message.resource.endswith(f"/node/{self.node}"):
                return TaskReport(message)
            return Denied(message, "a task report of another node")
        if message.resource == res.K8S_CA:
            return CaRequest(message)
        if message.source in _NOT_FROM_EDGE or not (operation or message.resource):
            return None  # the original's edge sends one wholly empty message when its link goes down
        if operation == INSERT and message.resource == res.format_resource(None, res.NODE, self.node):
            self.registering = True
        reason = self._foreign(message)
        if reason:
            return Denied(message, reason)
        return Upstream(_TARGETS.get(message.source, cls.EDGE_CONTROLLER), message)

    def _hear(self, message: Message) -> Told | None:
        """What the edge says it holds; it counts once a session, and a peer that repeats it is not read again."""
        if self._told:
            return None
        self._told = True
        return Told(decode_holdings(message.content))

    def _foreign(self, message: Message) -> str:
        """Why `message` is about another node, or ""."""
        target = res.find_resource(message.resource)
        if target is None or not target.name or message.source in _TARGETS:
            return ""
        if target.type in _OWN_NODE_TYPES and target.name != self.node:
            return "the Node of another edge"
        if target.type == res.LEASE and target.namespace == _LEASE_NAMESPACE and target.name != self.node:
            return "the lease of another edge"
        return ""
