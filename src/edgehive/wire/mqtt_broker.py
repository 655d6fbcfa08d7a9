"""An MQTT broker without sockets: connections are `Peer` objects, bytes come in, bytes and endings go out.

MQTT 3.1, 3.1.1 and 5.0 side by side; QoS 0, 1 and 2, retained messages, wills, persistent sessions (in memory),
subscription ids and options, expiry. Not offered: shared subscriptions, topic aliases, enhanced authentication; a 5.0
client is told. Everything a client can make us keep is bounded by `BrokerLimits`.

The shell calls `opened`, `receive`, `writable`, `closed`, `handle_timer`; afterwards it takes `inbound` (messages that
match the broker's own filters) and hands them over, and only then writes what `flush` names: an acknowledgement leaves
after its message has been taken care of.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from edgehive.kit.text import safe_label
from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_codec import decode_packet
from edgehive.wire.mqtt_connect import Refused, answer_properties, check_connect, session_expiry
from edgehive.wire.mqtt_limits import BrokerLimits, BrokerStats
from edgehive.wire.mqtt_packets import (
    V5,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    MqttError,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    find_int,
)
from edgehive.wire.mqtt_peer import Peer, Pool
from edgehive.wire.mqtt_retained import Retained
from edgehive.wire.mqtt_routed import Routed, routed_message
from edgehive.wire.mqtt_session import Session, Shared
from edgehive.wire.mqtt_subscriptions import Subscriptions, Target
from edgehive.wire.mqtt_topics import MAX_LEVELS

_TICK: Final = 1.0
_LOOKS: Final = 8
"""Retained messages that are looked at for a subscriber count as one packet of his."""
_MAX_QOS: Final = 2
_HOGGING: Final = 2.0
"""Seconds without progress after which a client is let go whose unread messages keep others from getting theirs."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """A client's message that matches one of the broker's own filters; `peer` is ``None`` for a will."""

    topic: str
    payload: bytes
    qos: int
    peer: Peer | None


class Broker:
    """All sessions, subscriptions and retained messages. `new_id` names clients that do not name themselves."""

    def __init__(self, *, now: float, new_id: Callable[[], str], limits: BrokerLimits | None = None) -> None:
        self._shared = Shared(limits or BrokerLimits(), BrokerStats(), now)
        self.limits: Final = self._shared.limits
        self.stats: Final = self._shared.stats
        self._new_id = new_id
        self._peers: dict[Peer, None] = {}
        self._dirty: dict[Peer, None] = {}
        self._sessions: dict[str, Session] = {}
        self._subscriptions = Subscriptions(self.limits)
        self._retained = Retained(self.limits, self.stats)
        self._pool = Pool(self.limits.memory, self.limits.clients)
        self._partial = 0
        self._next_tick = now + _TICK
        self.inbound: list[Inbound] = []
        """What matched the own filters since the shell last took it."""

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._peers)

    @property
    def sessions(self) -> int:
        """Sessions of present and absent clients."""
        return len(self._sessions)

    @property
    def retained(self) -> int:
        """Retained messages."""
        return len(self._retained)

    # the shell's side

    def opened(self, name: str, now: float) -> Peer:
        """A socket was accepted; `name` says where from. It may have `ended` at once: there are too many."""
        self._shared.now = now
        peer = Peer(name, largest=self.limits.packet, pool=self._pool, now=now, dirty=self._dirty)
        if len(self._peers) >= self.limits.clients:
            self.stats.refused += 1
            self._end(peer, "there are too many clients")
        else:
            self._peers[peer] = None
        return peer

    def receive(self, peer: Peer, data: bytes, now: float) -> None:
        """Bytes came from a client."""
        self._shared.now = now
        if peer.ended:
            return
        try:
            for first, body in peer.reader.feed(data):
                peer.heard = now
                peer.messages += 1
                self._packet(peer, decode_packet(first, body, peer.version))
                if peer not in self._peers:
                    return  # this very packet ended it
            if peer.session is not None and peer.session.asked:
                self._replay(peer, peer.session)
            self._partial += peer.reader.buffered - peer.buffered
            peer.buffered = peer.reader.buffered
            if self._partial > self.limits.memory and peer.buffered:
                raise MqttError("too much is half received", mp.QUOTA_EXCEEDED)
        except MqttError as exc:
            self._break_off(peer, exc)

    def writable(self, peer: Peer, now: float, pending: int = 0) -> None:
        """The client's socket takes data again (or `stalled` was set before, when it stopped)."""
        peer.stalled = None
        self.written(peer, now, pending)

    def progress(self, peer: Peer, now: float, pending: int) -> None:
        """`pending` bytes of what its socket was given are left; called now and then while that stalls."""
        if peer.stalled is not None and pending < peer.pending:
            peer.stalled = now
        peer.left(pending)
        self._share_out()

    def closed(self, peer: Peer, now: float) -> None:
        """The client's socket is gone."""
        self._shared.now = now
        if peer in self._peers:
            self._end(peer, "the client closed the connection")
        self._dirty.pop(peer, None)
        peer.pending = 0
        peer.discard()
        self._share_out()

    def flush(self) -> list[Peer]:
        """The peers that have something to write or are to be closed."""
        dirty = list(self._dirty)
        self._dirty.clear()
        return dirty

    def written(self, peer: Peer, now: float, pending: int = 0) -> None:
        """The shell has taken `out`, of which `pending` bytes are left; there may be room for more that waits."""
        self._shared.now = now
        peer.left(pending)
        if peer.session is not None:
            peer.session.pump()
        self._share_out()

    def _share_out(self) -> None:
        """Let those go on that had to wait for memory, as far as there is some now."""
        held = self._shared.held
        while held:
            session = next(iter(held))
            del held[session]
            session.pump()
            if session in held:
                return

    def crowded(self, peer: Peer, now: float) -> list[Session]:
        """For whom `peer`, which has just published, should wait a moment.

        Who has messages to acknowledge himself does not wait: his acknowledgements would not be read.
        """
        crowded = [session for session in self._shared.crowded if session.crowded(now)]
        self._shared.crowded.clear()
        return crowded if peer.session is not None and not peer.session.in_flight else []

    def fail(self, peer: Peer, why: str) -> None:
        """End a connection whose message could not be taken care of; what we owe it is not sent.

        What it sends again is not taken for what has come before, also if its QoS is 2.
        """
        peer.received.clear()
        if not peer.ended:
            peer.discard()
            self._break_off(peer, MqttError(why, mp.SERVER_BUSY))

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool, now: float) -> None:
        """Publish as the broker itself; it does not come back by `inbound`."""
        self._shared.now = now
        self._route(Routed(topic, payload, qos, retain), None)

    def own_filters(self, filters: Iterable[str]) -> None:
        """What clients publish under `filters` comes out at `inbound`."""
        self._subscriptions.own_filters(filters)

    def shut_down(self, now: float) -> None:
        """Say goodbye to everybody."""
        self._shared.now = now
        for peer in list(self._peers):
            self._end(peer, "the broker stops", mp.SHUTTING_DOWN)

    # the clock

    def handle_timer(self, now: float) -> None:
        """Keepalives, stalled sockets, wills and sessions that are due; precise to a second."""
        self._shared.now = now
        if now < self._next_tick:
            return
        self._next_tick = now + _TICK
        for peer in list(self._peers):
            self._watch(peer, now)
        for session in list(self._sessions.values()):
            if session.will_due is not None and session.will_due[0] <= now:
                _, will = session.will_due
                session.will_due = None
                self._publish_will(will)
            if session.expires is not None and session.expires <= now:
                self._forget(session)
        self._retained.expire(now)

    def deadline(self) -> float | None:
        """When `handle_timer` wants to be called next; ``None`` while there is nobody."""
        return self._next_tick if self._peers or self._sessions else None

    def _watch(self, peer: Peer, now: float) -> None:
        silent = now - peer.heard
        if peer.session is None:
            if silent > self.limits.connect_timeout:
                self.stats.refused += 1
                self._end(peer, "no CONNECT came")
        elif peer.keepalive and silent > peer.keepalive * 1.5:
            self._end(peer, "keepalive time-out", mp.KEEPALIVE_TIMEOUT)
        elif peer.stalled is not None:
            hogs = self._shared.held and peer.excess
            if now - peer.stalled > (_HOGGING if hogs else self.limits.stall_timeout):
                self._end(peer, "the client takes no data")

    # packets

    def _packet(self, peer: Peer, packet: Packet) -> None:
        session = peer.session
        if session is None:
            if not isinstance(packet, Connect):
                raise MqttError("the first packet is no CONNECT", mp.PROTOCOL_VIOLATION)
            self._connect(peer, packet)
            return
        match packet:
            case Publish():
                self._message(peer, session, packet)
            case Ack():
                self._acknowledge(peer, session, packet)
            case Pingreq():
                peer.send(Pingresp())
            case Subscribe():
                self._subscribe(peer, session, packet)
            case Unsubscribe():
                peer.messages += len(packet.filters) + len(packet.properties)
                codes = tuple(self._subscriptions.remove(session, name) for name in packet.filters)
                peer.send(Unsuback(packet.packet_id, codes))
            case Disconnect():
                self._goodbye(peer, session, packet)
            case Auth():
                raise MqttError("there is no enhanced authentication here", mp.BAD_AUTH_METHOD)
            case _:
                raise MqttError("a client does not send such a packet", mp.PROTOCOL_VIOLATION)

    def _connect(self, peer: Peer, packet: Connect) -> None:
        peer.version = packet.version
        peer.messages += len(packet.properties) + (len(packet.will.properties) if packet.will else 0)
        try:
            check_connect(packet, self.limits)
        except Refused as exc:
            self.stats.refused += 1
            peer.explain(Connack(False, exc.code))
            self._end(peer, str(exc))
            return
        name = packet.client_id or f"auto-{self._new_id()}"
        session = self._sessions.get(name)
        if session is not None and session.peer is not None:
            self._end(session.peer, f"taken over by {peer.name}", mp.TAKEN_OVER)
            session = self._sessions.get(name)
        if session is not None and packet.clean:
            self._forget(session)
            session = None
        present = session is not None
        if session is None:
            session = Session(name, self._shared)
            self._make_room()
            self._sessions[name] = session
        expiry = session_expiry(packet, self.limits)
        session.expiry = expiry
        peer.session, peer.received = session, session.received
        peer.keepalive = packet.keepalive
        peer.will = packet.will
        peer.largest = find_int(packet.properties, mp.MAXIMUM_PACKET_SIZE, mp.MAX_REMAINING)
        session.attach(peer, find_int(packet.properties, mp.RECEIVE_MAXIMUM, 0xFFFF))
        properties = answer_properties(packet, name, expiry, self.limits) if packet.version == V5 else ()
        peer.send(Connack(present, 0, properties))
        session.pump()

    def _message(self, peer: Peer, session: Session, packet: Publish) -> None:
        if packet.topic.count("/") >= MAX_LEVELS:
            raise MqttError("a topic has too many levels", mp.BAD_TOPIC)
        if packet.properties:
            peer.messages += len(packet.properties)
            self._check_properties(packet)
        if packet.qos == 2:
            if packet.packet_id in session.received:
                peer.send(Ack(mp.PUBREC, packet.packet_id))
                return
            if len(session.received) >= self.limits.receive_maximum:
                raise MqttError("too many messages are not released", mp.RECEIVE_MAXIMUM_EXCEEDED)
            session.received.add(packet.packet_id)
        self.stats.received += 1
        self._route(routed_message(packet, self._shared.now), session)
        if packet.qos:
            peer.send(Ack(mp.PUBACK if packet.qos == 1 else mp.PUBREC, packet.packet_id))

    def _check_properties(self, packet: Publish) -> None:
        for key, _ in packet.properties:
            if key == mp.TOPIC_ALIAS:
                raise MqttError("topic aliases are not offered", mp.BAD_ALIAS)
            if key == mp.SUBSCRIPTION_ID:
                raise MqttError("a client sends no subscription id", mp.PROTOCOL_VIOLATION)

    def _acknowledge(self, peer: Peer, session: Session, packet: Ack) -> None:
        peer.messages += len(packet.properties)
        if packet.kind != mp.PUBREL:
            session.acknowledged(packet)
            return
        session.received.discard(packet.packet_id)
        peer.send(Ack(mp.PUBCOMP, packet.packet_id))

    def _goodbye(self, peer: Peer, session: Session, packet: Disconnect) -> None:
        expiry = find_int(packet.properties, mp.SESSION_EXPIRY, -1)
        if expiry >= 0:
            if expiry and not session.expiry:
                raise MqttError("the session cannot be made to last now", mp.PROTOCOL_VIOLATION)
            session.expiry = min(expiry, self.limits.session_expiry)
        if packet.reason != mp.DISCONNECT_WITH_WILL:
            peer.will = None
        self._end(peer, "the client said goodbye")

    # subscriptions

    def _subscribe(self, peer: Peer, session: Session, packet: Subscribe) -> None:
        number = find_int(packet.properties, mp.SUBSCRIPTION_ID, 0)
        peer.messages += len(packet.subscriptions) + len(packet.properties)
        codes = [self._subscriptions.add(session, wanted, number) for wanted in packet.subscriptions]
        if peer.version < V5:
            codes = [code if code <= _MAX_QOS else 0x80 for code in codes]
        peer.send(Suback(packet.packet_id, tuple(codes)))

    def _replay(self, peer: Peer, session: Session) -> None:
        """Send what is retained for all that was asked in one piece: each look at it costs as much as many packets."""
        asked, session.asked = session.asked, {}
        for retained, qos, ids in self._retained.matching(asked):
            session.replay(retained, qos, ids)
        peer.messages += len(self._retained) // _LOOKS
        session.pump()

    # messages

    def _route(self, routed: Routed, origin: Session | None, *, will: bool = False) -> None:
        topic = routed.topic
        if routed.retain:
            self._retained.keep(routed)
        targets, own = self._subscriptions.match(topic)
        if own and (origin is not None or will):
            peer = origin.peer if origin is not None else None
            self.inbound.append(Inbound(topic, routed.payload, routed.qos, peer))
        if len(targets) == 1:
            session, subscription, number = targets[0]
            if not (subscription.no_local and session is origin):
                retain = routed.retain and subscription.retain_as_published
                ids = (number,) if number else ()
                session.deliver(routed, min(subscription.qos, routed.qos), retain, ids)
        elif targets:
            self._fan_out(routed, origin, targets)

    def _fan_out(self, routed: Routed, origin: Session | None, targets: Sequence[Target]) -> None:
        """Once to each session, with the best QoS of its subscriptions that match (3.3.4)."""
        merged: dict[Session, tuple[int, bool, tuple[int, ...]]] = {}
        for session, subscription, number in targets:
            if subscription.no_local and session is origin:
                continue
            qos, retain, ids = merged.get(session, (0, False, ()))
            merged[session] = (
                max(qos, min(subscription.qos, routed.qos)),
                retain or (routed.retain and subscription.retain_as_published),
                (*ids, number) if number else ids,
            )
        for session, (qos, retain, ids) in merged.items():
            session.deliver(routed, qos, retain, ids)

    def _publish_will(self, will: Will) -> None:
        self._route(routed_message(will, self._shared.now), None, will=True)

    # endings

    def _break_off(self, peer: Peer, exc: MqttError) -> None:
        self.stats.refused += 1
        if exc.reason == mp.UNSUPPORTED_VERSION and peer.session is None:
            peer.version = mp.V311
            peer.explain(Connack(False, 1))
        self._end(peer, safe_label(str(exc)), exc.reason)

    def _end(self, peer: Peer, cause: str, reason: int | None = None) -> None:
        """End a connection; `reason` is told to a 5.0 client. Its session may stay, its will may go out."""
        if peer.ended:
            return
        peer.ended = True
        peer.cause = cause
        if peer in self._peers:
            del self._peers[peer]
            self._partial -= peer.buffered
        session, peer.session = peer.session, None
        if session is not None:
            if reason is not None and peer.version == V5:
                peer.explain(Disconnect(reason))
            self._leave(session, peer)
        peer.touch()

    def _leave(self, session: Session, peer: Peer) -> None:
        session.detach()
        will, peer.will = peer.will, None
        now = self._shared.now
        delay = find_int(will.properties, mp.WILL_DELAY, 0) if will is not None else 0
        session.expires = now + session.expiry
        if will is not None and delay and session.expiry:
            session.will_due = (now + min(delay, session.expiry), will)
        elif will is not None:
            self._publish_will(will)
        if not session.expiry:
            self._forget(session)

    def _make_room(self) -> None:
        while len(self._sessions) >= self.limits.sessions:
            absent = [s for s in self._sessions.values() if s.expires is not None]
            if not absent:
                return
            self._forget(min(absent, key=lambda s: s.expires or 0.0))

    def _forget(self, session: Session) -> None:
        """The session ends: subscriptions and messages go, a will that waits goes out."""
        self._sessions.pop(session.client_id, None)
        self._subscriptions.forget(session)
        session.clear()
        due, session.will_due = session.will_due, None
        if due is not None:
            self._publish_will(due[1])
