"""Faults put in on purpose; the simulator must find each of them."""

from __future__ import annotations

from collections.abc import Iterable

from sim_cloud import Cloud
from sim_edge import Edge
from sim_edged import Edged
from sim_engine import Wire
from sim_twin import Twin

from edgehive.edge.metaclient import PodChange
from edgehive.edge.pods_told import PodInbox, Told
from edgehive.kit.errors import StorageError
from edgehive.wire import rows
from edgehive.wire.cloudnode import CachedObject, CloudNode, Missing, Unknown
from edgehive.wire.desired import name_of_record
from edgehive.wire.held import Held
from edgehive.wire.message import DELETE, Message
from edgehive.wire.objectsync import SyncRecord
from edgehive.wire.outbound import Outbound
from edgehive.wire.outbox import OutboxStore, Settled
from edgehive.wire.pool import Verdict
from edgehive.wire.rows import Put, Remove


class AckBeforeWrite(Edge):
    """Acknowledges, then writes."""

    def incoming(self, message: Message) -> None:
        plan = rows.plan_incoming(message, self.disk.rows.get(message.resource))
        if plan.ack is not None:
            self.acknowledge(plan.ack)
            self.flush()
        self.point("between ACK and write")
        try:
            self.disk.apply(plan.changes)
        except StorageError:
            self.sim.note(self.name, "the write failed, the ACK is gone")


class WriteDropped(Edge):
    """Acknowledges without writing, now and then."""

    def store(self, changes: Iterable[Put | Remove], message: Message) -> None:
        if not self.sim.chance(0.05):
            super().store(changes, message)


class DeleteForgottenAtEdge(Edge):
    """Acknowledges deletes and keeps the row."""

    def store(self, changes: Iterable[Put | Remove], message: Message) -> None:
        super().store([c for c in changes if isinstance(c, Put)], message)


class StaleOverwrite(Edge):
    """Stores whatever comes, older versions too."""

    def incoming(self, message: Message) -> None:
        stored = self.disk.rows.get(message.resource) if message.operation == DELETE else None
        plan = rows.plan_incoming(message, stored)
        try:
            self.store(plan.changes, message)
        except StorageError:
            return
        if plan.ack is not None:
            self.acknowledge(plan.ack)


class _Forgetful(CloudNode):
    """Sends no delete for what was deleted while the node was away."""

    def checked(self, record: SyncRecord, found: CachedObject | Missing | Unknown, now: float) -> None:
        super().checked(record, Unknown(), now)


class DeleteForgottenInCloud(Cloud):
    node_class = _Forgetful


class _Hasty(CloudNode):
    """Sends at once and makes the record with the ACK."""

    def _gate(self, message: Outbound, record: SyncRecord, now: float) -> Verdict | None:
        return self._offer(message, record, now)


class RecordAfterSend(Cloud):
    node_class = _Hasty


class _Eager(CloudNode):
    """Records a version as delivered when it is sent."""

    def _offer(self, message: Outbound, known: SyncRecord, now: float) -> Verdict:
        verdict = super()._offer(message, known, now)
        if verdict is Verdict.QUEUED and not message.is_delete:
            self._acknowledged(message, now, known)
        return verdict


class RecordBeforeAck(Cloud):
    node_class = _Eager


class _Deaf(CloudNode):
    """Goes by its records, whatever the edge says that it holds."""

    def receive_holdings(self, held: Held, now: float) -> None:
        objects = {
            name_of_record(r): (r.key.uid, r.version or "0") for r in self._world.records(self.node) or ()
        }
        super().receive_holdings(Held(objects), now)


class HoldingsIgnored(Cloud):
    node_class = _Deaf


class _LeakyStore:
    """Keeps nothing."""

    def __init__(self, inner: OutboxStore) -> None:
        self.load = inner.load
        self.drop = inner.drop

    def save(self, entry: object, replaces: int | None) -> None:
        pass


class OutboxInMemory(Edge):
    """Accepts statuses without making them durable."""

    def boot(self) -> None:
        super().boot()
        self.link.outbox._store = _LeakyStore(self.disk)


class AnswerForgotten(Edge):
    """Takes a refusal that asks for another try as final."""

    def boot(self) -> None:
        super().boot()
        outbox = self.link.outbox
        pause = outbox._pause

        def forget(subject: str, lane: object, item: object, now: float) -> None:
            pause(subject, lane, item, now)
            del outbox._paused[subject]

        outbox._pause = forget


class UploadForgottenWhenSent(Edge):
    """Takes an upload that was written to the socket for one that has arrived."""

    def flush(self) -> None:
        super().flush()
        uploads = self.link.uploads
        if uploads is not None:
            uploads.proven(uploads.sent)


class AnyPongProves(Edge):
    """Takes any sign of life for the proof."""

    def received(self, wire: Wire, frame: bytes) -> None:
        super().received(wire, frame)
        uploads = self.link.uploads
        if uploads is not None and self.wire is wire:
            uploads.proven(uploads.sent)


class _ByName(Edged):
    """Ends whatever has the name of what is gone."""

    def apply(self, told: Told) -> None:
        for uid, worker in list(self.workers.items()):
            if worker.key == told.key and (told.removed or told.uid != uid):
                self.end(uid)
        if told.change.raw and not told.removed:
            self.want(told.change.raw)


class EdgedGoesByName(Edge):
    edged_class = _ByName


class _NewestOfAName(PodInbox):
    """Lets a change take the place of one about the pod that had the name before, or has it now."""

    def put(self, change: PodChange) -> None:
        for key in [key for key in self._waiting if key[:2] == (change.namespace, change.name)]:
            del self._waiting[key]
        super().put(change)


class _ForgetsIncarnations(Edged):
    inbox_class = _NewestOfAName


class InboxGoesByName(Edge):
    edged_class = _ForgetsIncarnations


class AnswerUntold(Edge):
    """Stores the pod that an answer brings, and takes the update that follows for an old one."""

    def tell_edged(self, change: PodChange | None) -> None:
        if not self.settling:
            super().tell_edged(change)

    settling = False

    def settled(self, event: Settled) -> None:
        self.settling = True
        super().settled(event)
        self.settling = False


class LastWords(Edge):
    """Goes on speaking of pods that are gone while it ends them."""

    def speakers(self) -> list[tuple[str, str]]:
        workers = self.edged.workers if self.edged is not None else {}
        gone = [(f"default/pod/{w.key.partition('/')[2]}", uid) for uid, w in workers.items() if w.gone]
        return super().speakers() + gone


class _Blank(Twin):
    def compare(self) -> None:
        pass  # it knows what it is told from now on


class TwinStartsBlank(Edge):
    twin_class = _Blank


EDGE_BUGS = (
    TwinStartsBlank,
    LastWords,
    EdgedGoesByName,
    InboxGoesByName,
    AnswerUntold,
    UploadForgottenWhenSent,
    AnyPongProves,
    AckBeforeWrite,
    WriteDropped,
    DeleteForgottenAtEdge,
    StaleOverwrite,
    OutboxInMemory,
    AnswerForgotten,
)
CLOUD_BUGS = (DeleteForgottenInCloud, RecordAfterSend, RecordBeforeAck, HoldingsIgnored)
