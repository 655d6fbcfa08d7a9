"""The cloud's decisions for one node: what to send, when, and what to record.

A node has a `CloudNode` here while this cloudcore knows it; it has a session only while it is connected here.
Without a session nothing is queued for ACK-class objects: at connect, and periodically, the plan compares the
objects meant for the node (from the watch caches) with the records (ObjectSync) and sends the difference. What
has no record, such as rules and tasks, waits in a bounded backlog.
"""

from collections import deque
from dataclasses import replace
from typing import Final

from edgehive.wire.classify import DYNAMIC_CONTROLLER
from edgehive.wire.desired import (
    CachedObject,
    Missing,
    Order,
    Unknown,
    Unordered,
    World,
    delete_message,
    farewell,
    moot,
    name_of_object,
    name_of_record,
    object_message,
)
from edgehive.wire.held import HOLDINGS_WAIT, Held, Lag
from edgehive.wire.message import Stamp
from edgehive.wire.objectsync import RESET, SyncKey, SyncRecord, SyncWriter
from edgehive.wire.outbound import Outbound, parse_version
from edgehive.wire.pool import Delivered, GivenUp, Verdict
from edgehive.wire.session import NodeSession
from edgehive.wire.waiting import Waiting, record_for

__all__ = ["BACKLOG", "CachedObject", "CloudNode", "Missing", "Order", "Unknown", "World"]

BACKLOG = 256
"""Fire-once messages kept for an absent node; the oldest is dropped."""


_CACHE_RETRY: Final = 0.5
_UNORDERED: Final = Unordered()


class CloudNode:
    """Decides for one node; the shell owns the sockets and the API calls.

    What it holds grows with the objects at the node and is dropped when the session ends, the backlog aside.
    """

    __slots__ = (
        "_backlog",
        "_checking",
        "_checks",
        "_confirmed",
        "_every",
        "_greeting",
        "_held",
        "_lag",
        "_loaded",
        "_next",
        "_order",
        "_owed",
        "_records",
        "_stamp",
        "_strict",
        "_waiting",
        "_world",
        "_writer",
        "node",
        "session",
    )

    def __init__(
        self,
        *,
        node: str,
        world: World,
        writer: SyncWriter,
        stamp: Stamp,
        reconcile_every: float = 30.0,
        several_instances: bool = True,
        order: Order = _UNORDERED,
    ) -> None:
        self.node: Final = node
        self._order = order
        self.session: NodeSession | None = None
        self._world = world
        self._writer = writer
        self._stamp = stamp
        self._every = reconcile_every
        self._strict = several_instances
        self._confirmed: set[SyncKey] = set()
        self._next: float | None = None
        self._loaded = False
        self._records: dict[SyncKey, SyncRecord] = {}
        self._checks: list[SyncRecord] = []
        self._checking: set[SyncKey] = set()
        self._waiting = Waiting()
        self._backlog: deque[Outbound] | None = None  # most nodes never need one
        self._owed: set[SyncKey] | None = None  # to be sent whatever is recorded; outlives the session
        self._greeting = False  # an edgecore has started and has not been greeted; outlives the session
        self._lag: Lag | None = None  # of a node that says at each connect what it holds
        self._held: Held | None = None  # what it said, until the records are known

    def attach(self, session: NodeSession, now: float) -> NodeSession | None:
        """A new session of the node; returns the one it replaces (already closed). Plans a reconcile at once."""
        old = self.session
        if old is not None:
            self._end(old, "replaced by a new connection", now)
        self.session = session
        session.registering = session.registering or self._greeting
        self._lag = Lag(self._writer) if session.tells else None
        self._next = now + HOLDINGS_WAIT if session.tells else now
        backlog, self._backlog = self._backlog, None
        for message in backlog or ():
            session.send(message, now)
        return old

    def detach(self, session: NodeSession, now: float) -> None:
        """`session` ended; does nothing if it is no longer the current one."""
        if self.session is session:
            self._end(session, "connection lost", now)
            self.session = None
            self._next = None

    def receive_holdings(self, held: Held, now: float) -> None:
        """The node has said what it holds; it counts for more than the records, if it comes in time."""
        if self.session is not None and not self._loaded:
            self._held = held
            self._next = now

    @property
    def idle(self) -> bool:
        """Nothing is kept here: the shell may forget this node."""
        return self.session is None and not (self._backlog or self._owed or self._greeting)

    def known(self, resource: str) -> int:
        """The newest version of an object that the node is known to have, for people; 0: none, or not connected."""
        found = (r.version for r in self._records.values() if name_of_record(r) == resource)
        return max(map(parse_version, found), default=0)

    @property
    def kept(self) -> int:
        """Fire-once messages that wait for the node."""
        return len(self._backlog or ())

    @property
    def waiting(self) -> int:
        """Objects that wait for their record."""
        return len(self._waiting)

    def send(self, message: Outbound, now: float) -> Verdict | None:
        """A controller has something for the node. ACK-class messages wait until their record exists.

        ``None``: kept elsewhere (backlog, waiting for the record) or left to the reconcile at the next connect.
        """
        session = self.session
        if session is None or session.closed is not None:
            if not message.ack and not message.is_response:
                self._keep(message)
            return None
        if not message.ack:
            return session.send(message, now)
        record = record_for(self.node, message)
        if record is None:
            return session.send(message, now)
        if self._is_unrecorded(message, record):
            return session.send(message, now)
        if not self._loaded:
            # The records are not known yet, and the reconcile that waits for them covers this object.
            return self._gate(message, record, now) if message.is_response else None
        if message.is_delete:
            return self._send_delete(message, record, now)
        known = self._records.get(record.key)
        if known is None:
            return self._gate(message, record, now)
        if (
            message.is_response
            or self._owes(known.key)
            or self._needs(message.message.resource, known, message.message.resource_version)
        ):
            return self._confirm(message, known, now)
        return Verdict.DONE

    def record_changed(self, record: SyncRecord, now: float) -> None:
        """A record was added or changed (by us or by another instance)."""
        if not self._loaded or record.key.node != self.node:
            return
        known = self._records.get(record.key)
        if known is not None and record.version == RESET and parse_version(known.version):
            # The node joins anew while its old session still seems to live; what that one has seen means nothing.
            self._records[record.key] = record
            self._owe(record.key)
            if self.session is not None:
                self.session.close("the node joins anew")
            return
        if known is not None and self._lag is not None and self._lag.seen(record, known):
            self._records[record.key] = replace(known, resource_version=record.resource_version)
            return
        if known is not None and parse_version(known.version) >= parse_version(record.version):
            self._records[record.key] = replace(known, resource_version=record.resource_version)
            # Another instance, still working off what an earlier session acknowledged, may have put an older
            # version over ours. (If it is only our own write that is late, this changes nothing.)
            self._writer.acknowledged(record, known.version, now)
            return
        self._records[record.key] = record
        if known is None:
            self._check(record, now)

    def record_gone(self, record: SyncRecord, now: float) -> None:
        """A record was deleted; if not by us, and the node has the object, it needs one all the same."""
        self._confirmed.discard(record.key)
        if self._lag is not None:
            self._lag.forget(record.key)
        known = self._records.pop(record.key, None)
        if self.session is not None and known is not None and parse_version(known.version):
            self._records[record.key] = known
            self._writer.create(known, now)
            self._writer.acknowledged(replace(known, version=""), known.version, now)
            self._check(known, now)

    def record_created(self, record: SyncRecord, now: float) -> None:
        """The API server has the record that `SyncWriter` was asked to create: release what waited for it."""
        if self.session is None:
            return
        self._records.setdefault(record.key, record)
        self._confirmed.add(record.key)
        self._release(record, now)

    def record_refused(self, record: SyncRecord) -> None:
        """The API server will not take the record; what waited for it is dropped until the next reconcile."""
        self._waiting.drop(record.key)

    def receive(self, event: Delivered | GivenUp, now: float) -> None:
        """An event of the current session: plans the record's write."""
        session = self.session
        if isinstance(event, Delivered):
            self._acknowledged(event.message, now)
        if session is not None and session.pool.ready_for_resync:
            self._next = now

    def handle_timer(self, now: float) -> None:
        """Reconcile when due."""
        if self.session is None or self._next is None:
            return
        if now < self._next:
            self._greet(now)
            return
        if not self._loaded and not self._load(now):
            self._next = now + _CACHE_RETRY
            return
        self._next = now + self._every
        self.reconcile(now)
        self._greet(now)

    def deadline(self) -> float | None:
        """When `handle_timer` wants to be called next."""
        if self.session is None:
            return None
        if self.session.registering and self._loaded:
            return 0.0  # at once
        return self._next

    def reconcile(self, now: float) -> None:
        """Send the difference between the objects meant for the node and what it has acknowledged."""
        session = self.session
        if session is None:
            return
        session.pool.resynced()
        for record in list(self._records.values()):
            self._check(record, now)
        for cached in self._world.assigned(self.node):
            key = SyncKey(self.node, cached.namespace, cached.uid)
            if key not in self._records and key not in self._waiting:
                self.send(object_message(cached, first=True, stamp=self._stamp), now)

    def checks(self) -> list[SyncRecord]:
        """Records whose object the cache does not hold: GET each live and answer with `checked`.

        The cache of one instance may lag behind the records that another has written, and a delete sent by
        mistake would stop a running pod.
        """
        checks, self._checks = self._checks, []
        return checks

    def checked(self, record: SyncRecord, found: CachedObject | Missing | Unknown, now: float) -> None:
        """What the API server itself says about the object of `record`; `Unknown` if it could not be asked."""
        self._checking.discard(record.key)
        known = self._records.get(record.key)
        if self.session is None or known is None or isinstance(found, Unknown):
            return
        if isinstance(found, Missing) or found.uid != record.key.uid:
            new = None if isinstance(found, Missing) else SyncKey(self.node, found.namespace, found.uid)
            if moot(known, self._records.get(new) if new is not None else None):
                self._acknowledge_delete(known, now)
                return
            if isinstance(found, Missing):
                for message in farewell(known, stamp=self._stamp):
                    self.session.send(message, now)
            self._offer(delete_message(known, stamp=self._stamp), known, now)

    def _greet(self, now: float) -> None:
        """An edgecore has started: send everything once, whatever is recorded, over as many links as it takes.

        Its database may have been lost since the records were made; in the original it then stays without its
        pods, and without its own Node, until each of them changes.
        """
        session = self.session
        if session is None or not session.registering or not self._loaded:
            return
        session.registering = self._greeting = False
        if self._lag is not None and self._held is not None:
            return  # it has said what it holds
        for record in list(self._records.values()):
            if not session.pool.mark(name_of_record(record), record.key.uid):
                self._owe(record.key)
                self._check(record, now)

    def _load(self, now: float) -> bool:
        records = self._world.records(self.node)
        if records is None:
            return False
        self._records = {record.key: record for record in records} | self._records
        if self._lag is not None and self._held is not None:
            # Of an object that is there the record goes only after its delete was acknowledged, but for a rare case
            # that `Held.strangers` brings up at the next connect.
            self._confirmed.update(key for key, record in self._records.items() if self._held.has(record))
            self._records = self._lag.load(self._records, self._held, self._world, node=self.node, now=now)
            self._owed = None
            self._held = Held({})
        self._loaded = True
        return True

    def _end(self, session: NodeSession, reason: str, now: float) -> None:
        for message in session.pool.pending_once():
            if not message.is_response:
                self._keep(message)
        session.close(reason)
        if self._lag is not None:
            self._lag.flush(self._records, now)
        self._greeting = session.registering
        self._held = self._lag = None
        self._loaded = False
        self._records = {}
        self._waiting.clear()
        self._checks.clear()
        self._checking.clear()
        self._confirmed.clear()

    def _owe(self, key: SyncKey) -> None:
        self._owed = self._owed or set()
        self._owed.add(key)

    def _owes(self, key: SyncKey) -> bool:
        return self._owed is not None and key in self._owed

    def _settle(self, key: SyncKey) -> None:
        if self._owed is not None:
            self._owed.discard(key)
            self._owed = self._owed or None

    def _keep(self, message: Outbound) -> None:
        if self._backlog is None:
            self._backlog = deque(maxlen=BACKLOG)
        self._backlog.append(message)

    def _is_unrecorded(self, message: Outbound, record: SyncRecord) -> bool:
        """Whether `message` shows a watched object that is not otherwise meant for the node.

        Nothing has to outlive the session then: the edge says at each connect what it watches, and lists it. With
        records, every edge that looks at a thousand objects would cost the API server thousands of writes.
        """
        return message.message.source == DYNAMIC_CONTROLLER and record.key not in self._records

    def _gate(self, message: Outbound, record: SyncRecord, now: float) -> Verdict | None:
        """Hold `message` until its record exists."""
        if not self._waiting.add(record.key, message):
            return Verdict.STALE
        self._writer.create(record, now)
        return None

    def _release(self, record: SyncRecord, now: float) -> None:
        known = self._records.get(record.key, record)
        for message in self._waiting.take(record.key):
            self._offer(message, known, now)

    def _offer(self, message: Outbound, known: SyncRecord, now: float) -> Verdict | None:
        assert self.session is not None
        if self._is_early(message, known):
            return None  # comes back when what it waits for is acknowledged
        verdict = self.session.send(message, now)
        if verdict is Verdict.DONE:
            self._acknowledged(message, now, known)
        return verdict

    def _is_early(self, message: Outbound, known: SyncRecord) -> bool:
        """Whether the node lacks what must be there before `message`: nothing else orders two objects."""
        if message.is_delete or message.is_response or message.resource is None:
            return False
        first = self._order.before(message.resource)
        if first is None:
            return False
        if isinstance(first, Missing):
            return not parse_version(known.version)  # what is there already goes on without it
        record = self._records.get(SyncKey(self.node, first.namespace, first.uid))
        if record is None or self._owes(record.key) or not parse_version(record.version):
            return True
        return self.session is not None and self.session.pool.has_left(name_of_object(first), first.uid)

    def _send_delete(self, message: Outbound, record: SyncRecord, now: float) -> Verdict | None:
        waited = self._waiting.drop(record.key)
        known = self._records.get(record.key)
        if known is not None:
            return self._offer(message, known, now)
        if waited:
            self._writer.deleted(record, now)  # the create may be on its way
        return None  # never sent to this node

    def _acknowledged(self, message: Outbound, now: float, known: SyncRecord | None = None) -> None:
        record = record_for(self.node, message)
        if record is None or self.session is None:
            return
        if known is None and self._is_unrecorded(message, record):
            return
        known = known or self._records.get(record.key, record)
        if message.is_delete:
            self._acknowledge_delete(known, now)
            self._follow_up(message, now)
            return
        self._settle(record.key)
        version = message.message.resource_version
        (self._lag or self._writer).acknowledged(known, version, now)
        if parse_version(version) > parse_version(known.version):
            self._records[record.key] = replace(known, version=version)
        self._follow_up(message, now)

    def _follow_up(self, message: Outbound, now: float) -> None:
        """Send what has waited until `message` was acknowledged."""
        if message.resource is None:
            return
        for cached in self._order.after(self.node, message.resource):
            key = SyncKey(self.node, cached.namespace, cached.uid)
            if message.is_delete and message.uid == cached.uid:
                self._owe(key)  # the record may still say that the node has it
            known = self._records.get(key)
            first = known is None or self._owes(key) or not parse_version(known.version)
            self.send(object_message(cached, first=first, stamp=self._stamp), now)

    def _acknowledge_delete(self, known: SyncRecord, now: float) -> None:
        self._records.pop(known.key, None)
        self._confirmed.discard(known.key)
        self._settle(known.key)
        if self._lag is not None:
            self._lag.forget(known.key)
        self._writer.deleted(known, now)

    def _check(self, record: SyncRecord, now: float) -> None:
        """Compare one record with the cached object."""
        cached = self._world.find(record)
        if isinstance(cached, Unknown):
            return
        if isinstance(cached, Missing) or cached.uid != record.key.uid:
            if record.key not in self._checking:
                self._checking.add(record.key)
                self._checks.append(record)
        elif (
            self._owes(record.key)
            or not record.version
            or self._needs(name_of_object(cached), record, cached.version)
        ):
            self._confirm(object_message(cached, first=False, stamp=self._stamp), record, now)

    def _confirm(self, message: Outbound, known: SyncRecord, now: float) -> Verdict | None:
        """Send `message` if its record is known to exist *now*, else see to that first.

        A record out of a lagging cache may have been deleted by the instance that had the node before, together
        with the object at the edge. Sending the object again, and dying before it is recorded, would leave it at
        the edge for ever.
        """
        if not self._strict or known.key in self._confirmed:
            return self._offer(message, known, now)
        return self._gate(message, known, now)

    def _needs(self, resource: str, known: SyncRecord, version: str) -> bool:
        """Whether the node lacks `version`.

        What this session has sent counts for more than the record: another instance may have recorded a newer
        version before this one, with a lagging cache, put an older one over it.
        """
        mark = self.session.pool.mark(resource, known.key.uid) if self.session is not None else 0
        return parse_version(version) > (mark or parse_version(known.version))
