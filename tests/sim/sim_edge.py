"""edgecore in the simulator: EdgeLink, the outbox, the row rules, and a disk that survives crashes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial

from sim_edged import Edged
from sim_engine import CALM, Process, Sim, Wire
from sim_twin import Twin

from edgehive.edge.metaclient import PodChange
from edgehive.edge.metarows import answered_change, pod_change
from edgehive.kit.errors import StorageError
from edgehive.wire import classify as cls
from edgehive.wire import rows
from edgehive.wire.edgelink import (
    Answered,
    Connected,
    Dial,
    Disconnected,
    EdgeLink,
    Incoming,
    LinkOptions,
    RequestFailed,
    SendPing,
)
from edgehive.wire.held import holding, holdings_message
from edgehive.wire.message import INSERT, PATCH, QUERY, RESPONSE, UPLOAD, Message
from edgehive.wire.outbound import parse_version
from edgehive.wire.outbox import Entry, Outbox, OutboxLimits, Settled
from edgehive.wire.resource import MEMBERSHIP
from edgehive.wire.rows import Put, Remove, Row
from edgehive.wire.uploads import UploadLimits, Uploads


@lru_cache(maxsize=4096)
def ids(value: bytes) -> tuple[str, int]:
    """UID and version of a stored object."""
    meta = json.loads(value)["metadata"]
    return meta.get("uid", ""), parse_version(meta.get("resourceVersion", ""))


PING, PONG = b"\0ping", b"\0pong"
"""WebSocket control frames, as the simulated wire carries them: in order with everything else."""


class UploadDisk:
    """The table of uploads (wire.uploads.UploadStore)."""

    def __init__(self, sim: Sim) -> None:
        self.sim = sim
        self.rows: dict[int, bytes] = {}
        self.accepted: set[int] = set()  # the numbers of uploads that must arrive

    def extent(self) -> tuple[int, int, int]:
        return len(self.rows), sum(map(len, self.rows.values())), max(self.rows, default=0)

    def oldest(self, limit: int) -> list[tuple[int, int]]:
        return [(number, len(self.rows[number])) for number in sorted(self.rows)[:limit]]

    def read(self, after: int, limit: int, size: int) -> list[tuple[int, bytes]]:
        self._fail()
        return [(number, self.rows[number]) for number in sorted(self.rows) if number > after][:limit]

    def add(self, rows: Sequence[tuple[int, bytes]], drop_upto: int) -> None:
        self._fail()
        assert drop_upto == 0, "the simulation stays below the bounds"
        self.rows |= dict(rows)

    def drop(self, upto: int) -> None:
        self._fail()
        self.rows = {number: frame for number, frame in self.rows.items() if number > upto}

    def wipe(self) -> None:
        self.accepted -= {upload_number(frame) for frame in self.rows.values()}
        self.rows.clear()

    def _fail(self) -> None:
        if self.sim.chance(self.sim.chaos.disk_error):
            raise StorageError("no space left on device")


def upload_number(frame: bytes) -> int:
    """Which upload a frame is."""
    return int(json.loads(frame)["route"]["resource"])


class Disk:
    """What survives a crash of the edge."""

    def __init__(self, sim: Sim, name: str) -> None:
        self.sim = sim
        self.name = name
        self.rows: dict[str, Row] = {}
        self.outbox: dict[int, Entry] = {}
        self.uploads = UploadDisk(sim)
        self.stored: dict[str, int] = {}  # uid -> newest version that was ever durable here
        self.newest: dict[str, int] = {}  # row -> newest version that was ever durable there
        self.removed: set[str] = set()  # uids whose delete was durable here
        self.guarded = True

    def apply(self, changes: Iterable[Put | Remove]) -> None:
        changes = tuple(changes)
        if self.sim.chance(self.sim.chaos.disk_error):
            raise StorageError("no space left on device")
        for change in changes:
            if isinstance(change, Put):
                self._put(change.row)
            else:
                row = self.rows.pop(change.key, None)
                if row is not None:
                    self.removed.add(ids(row.value)[0])

    def _put(self, row: Row) -> None:
        uid, version = ids(row.value)
        old = self.rows.get(row.key)
        if old is not None:
            old_uid, old_version = ids(old.value)
            if self.guarded and version < old_version:
                self.sim.fail(
                    f"{self.name}: {row.key} goes from {old_uid}@{old_version} back to {uid}@{version}"
                )
            if old_uid != uid:
                self.removed.add(old_uid)
        self.rows[row.key] = row
        self.stored[uid] = max(self.stored.get(uid, 0), version)
        self.newest[row.key] = max(self.newest.get(row.key, 0), version)

    def wipe(self) -> None:
        """Somebody reinstalls the edge."""
        for row in self.rows.values():
            self.removed.add(ids(row.value)[0])
        self.rows.clear()
        self.outbox.clear()
        self.uploads.wipe()

    # wire.outbox.OutboxStore

    def load(self) -> Iterable[Entry]:
        return list(self.outbox.values())

    def save(self, entry: Entry, replaces: int | None) -> None:
        if self.sim.chance(self.sim.chaos.disk_error):
            raise StorageError("no space left on device")
        if replaces is not None:
            self.outbox.pop(replaces, None)
        self.outbox[entry.sequence] = entry

    def drop(self, sequence: int) -> None:
        if self.sim.chance(self.sim.chaos.disk_error):
            raise StorageError("no space left on device")
        self.outbox.pop(sequence, None)


class Edge(Process):
    """One edgecore. `go`: behaves like the original where that matters (drops unclaimed answers, no version guard)."""

    edged_class = Edged
    twin_class = Twin

    def __init__(self, sim: Sim, name: str, dial: Callable[[str], Wire | None], *, go: bool = False) -> None:
        super().__init__(sim, name)
        self.disk = Disk(sim, name)
        self.disk.guarded = not go
        self.dial = dial
        self.go = go
        self.tells = not go
        self.accepted: dict[str, int] = {}  # pod uid -> newest status that was accepted
        self.counter: dict[str, int] = {}
        self.wire: Wire | None = None
        self.sent_versions: dict[str, tuple[str, int]] = {}
        self.asked: dict[str, Message] = {}
        self.uploaded = 0  # uploads made so far, in all lives

    def boot(self) -> None:
        sim = self.sim
        self.wire = None
        self.registered = False
        self.asked = {}
        self.sent_versions = {}
        outbox = Outbox(store=self.disk, limits=OutboxLimits(entries=50, in_flight=4, answer_timeout=8.0))
        options = LinkOptions(ping=2.0, dead_after=6.0)
        self.link = EdgeLink(now=sim.now, stamp=sim.stamp, rng=sim.rng.random, outbox=outbox, options=options)
        try:
            self.link.uploads = Uploads(store=self.disk.uploads, limits=UploadLimits(in_flight=3))
        except StorageError:
            self.die()
            return
        # What edged of the original makes of what it is told is not ours to check.
        self.edged = None if self.go else self.edged_class(sim, self.name, lambda: self.disk.rows, self.later)
        self.twin = None if self.go else self.twin_class(sim, self.name, lambda: self.disk.rows)
        self.later(sim.rng.uniform(0.2, 1.0), self.work)

    def lost(self) -> None:
        if self.wire is not None:
            self.wire.close(0)
        self.wire = None

    def tick(self) -> None:
        self.link.handle_timer(self.sim.now)

    # Local producers

    def work(self) -> None:
        """Report pod statuses, ask for a ConfigMap now and then; nothing more once calm has come."""
        rng = self.sim.rng
        if self.sim.chaos is CALM:
            return
        for key, uid in self.speakers():
            if rng.random() < 0.4:
                self.report(key, uid)
        if rng.random() < 0.3:
            self.ask(rng.choice(("shared", "extra", "absent")))
        if rng.random() < 0.4:
            self.upload(rng.randint(1, 4))
        self.later(rng.uniform(0.3, 1.5), self.work)

    def upload(self, count: int) -> None:
        """A device publishes what is for the cloud; whoever published it is told when it is kept."""
        messages = []
        for number in range(self.uploaded, self.uploaded + count):
            message_id, timestamp = self.sim.stamp()
            messages.append(
                Message(message_id, timestamp, UPLOAD, str(number), source="bus", group=cls.USER_GROUP)
            )
        self.uploaded += count
        try:
            self.link.send_uploads(messages)
        except StorageError:
            return
        self.disk.uploads.accepted |= {int(message.resource) for message in messages}
        self.point("after accepting an upload")

    def speakers(self) -> list[tuple[str, str]]:
        """The pods of which something may be said: resource and uid."""
        return [(row.key, ids(row.value)[0]) for row in self.disk.rows.values() if row.type == "pod"]

    def report(self, key: str, uid: str) -> None:
        number = self.counter.get(uid, 0) + 1
        self.counter[uid] = number
        message_id, timestamp = self.sim.stamp()
        message = Message(
            id=message_id,
            timestamp=timestamp,
            operation=PATCH,
            resource=key.replace("/pod/", "/podpatch/"),
            content=json.dumps(json.dumps({"metadata": {"uid": uid}, "status": {"n": number}})).encode(),
            source=cls.EDGED,
            group=cls.META_GROUP,
        )
        try:
            self.link.send_kept(message, self.sim.now, replace=True)
        except StorageError:
            self.sim.note(self.name, "status %d of %s not accepted", number, uid)
            return
        self.accepted[uid] = number
        self.point("after accepting a status")

    def ask(self, name: str) -> None:
        self.request(QUERY, f"default/configmap/{name}", timeout=self.sim.rng.choice((0.05, 5.0)))

    def request(self, operation: str, resource: str, timeout: float = 5.0) -> None:
        message_id, timestamp = self.sim.stamp()
        message = Message(
            id=message_id,
            timestamp=timestamp,
            operation=operation,
            resource=resource,
            source=cls.EDGED,
            group=cls.META_GROUP,
        )
        self.asked[message_id] = message
        self.link.send_request(message, self.sim.now, timeout=timeout)

    # The link

    def pump(self) -> None:
        while events := self.link.events():
            for event in events:
                self.handle(event)
        self.flush()
        while events := self.link.events():
            for event in events:
                self.handle(event)
        self.wake_at(self.link.deadline())
        if len(self.link.outbox) > 50:
            self.sim.fail(f"{self.name}: the outbox has outgrown its bound")

    def flush(self) -> None:
        if self.wire is not None:
            for frame in self.link.data_to_send(self.sim.now, 1000):
                if self.sim.tracing:
                    self.sim.note(self.name, "> %s", frame[:400].decode())
                self.wire.send(0, frame)

    def handle(self, event: object) -> None:
        if isinstance(event, Dial):
            self.connect()
        elif isinstance(event, Disconnected):
            self.sim.note(self.name, "link down: %s", event.reason)
            if self.wire is not None:
                self.wire.close(0)
                self.wire = None
            self.sent_versions = {}
        elif isinstance(event, Incoming):
            self.incoming(event.message)
        elif isinstance(event, Answered):
            self.answered(event)
        elif isinstance(event, Settled):
            self.settled(event)
        elif isinstance(event, SendPing):
            if self.wire is not None:
                self.wire.send(0, PING + event.payload)
        elif isinstance(event, RequestFailed):
            request = self.asked.pop(event.request_id)
            if request.operation == INSERT and self.link.up:
                self.request(INSERT, request.resource)  # registering goes on until it has been answered
        elif isinstance(event, Connected):
            self.sim.note(self.name, "link up")
            if self.tells:
                self.tell()
            if not self.registered:
                self.request(INSERT, f"null/node/{self.name}")

    def tell(self) -> None:
        """Say what is here, first of all."""
        held = (
            holding(row.key, uid, str(v)) for row in self.disk.rows.values() for uid, v in [ids(row.value)]
        )
        message = holdings_message([h for h in held if h is not None], stamp=self.sim.stamp)
        self.link.send_now(message, self.sim.now)

    def connect(self) -> None:
        wire = self.dial(self.name)
        if wire is None:
            self.later(0.05, partial(self.failed, "refused"))
            return
        self.wire = wire
        wire.ends[0].receive = lambda frame: self.step(partial(self.received, wire, frame))
        wire.ends[0].closed = lambda reason: self.step(partial(self.closed, wire, reason))
        self.later(0.05, partial(self.connected, wire))

    def failed(self, reason: str) -> None:
        self.link.receive_closed(reason, self.sim.now)

    def connected(self, wire: Wire) -> None:
        if self.wire is wire and wire.open:
            self.link.receive_connected(self.sim.now)

    def closed(self, wire: Wire, reason: str) -> None:
        if self.wire is wire:
            self.wire = None
            self.link.receive_closed(reason, self.sim.now)

    def received(self, wire: Wire, frame: bytes) -> None:
        if self.wire is not wire:
            return
        if frame.startswith(PONG):
            self.link.receive_pong(self.sim.now, frame.removeprefix(PONG))
            return
        self.link.receive_frame(frame, self.sim.now)

    # MetaManager

    def incoming(self, message: Message) -> None:
        if self.go and message.operation == RESPONSE:
            return  # the original drops an answer whose requester is gone, and does not acknowledge it
        if message.resource.endswith(MEMBERSHIP):
            if self.twin is not None:
                self.twin.members(message)
            return
        self.check_order(message)
        stored = self.disk.rows.get(message.resource)
        if self.go and (message.operation != "delete" or "/pod/" not in message.resource):
            stored = None  # the original compares nothing but the UID of a pod to be deleted
        plan = rows.plan_incoming(message, stored)
        self.point("before the durable write")
        try:
            self.store(plan.changes, message)
        except StorageError as exc:
            message_id, timestamp = self.sim.stamp()
            self.link.send_now(
                rows.store_failure(message, str(exc), new_id=message_id, timestamp=timestamp), self.sim.now
            )
            return
        self.point("between write and ACK")
        if plan.ack is not None:
            self.acknowledge(plan.ack)
        if plan.forward is rows.Forward.EDGED and "/pod/" in message.resource:
            self.tell_edged(pod_change(message, stored, self.name))
        self.tell_twin(plan, message)

    def tell_twin(self, plan: rows.Plan, message: Message) -> None:
        if plan.forward is rows.Forward.TWIN and self.twin is not None:
            self.twin.object(message)

    def tell_edged(self, change: PodChange | None) -> None:
        if change is not None and self.edged is not None:
            self.edged.tell(change)

    def store(self, changes: Iterable[Put | Remove], message: Message) -> None:
        if changes:
            self.disk.apply(changes)

    def acknowledge(self, message: Message) -> None:
        self.link.send_ack(message, self.sim.now)

    def answered(self, event: Answered) -> None:
        request = self.asked.pop(event.request_id)
        if request.operation == INSERT:
            self.registered = True
            return
        stored = None if self.go else self.disk.rows.get(rows.answer_key(request))
        answer = rows.plan_answer(request, event.message, stored)
        try:
            self.store(answer.changes, event.message)
        except StorageError:
            return
        self.point("between storing an answer and its ACK")
        if answer.ack:
            self.acknowledge(event.message)

    def settled(self, event: Settled) -> None:
        """The cloud has answered what the outbox kept: the pod as it is after its status was written."""
        if self.go:
            return
        request = event.entry.message
        before = self.disk.rows.get(rows.answer_key(request))
        try:
            self.store(rows.plan_answer(request, event.answer, before).changes, event.answer)
        except StorageError:
            return
        self.point("between storing a settled answer and telling of it")
        self.tell_edged(answered_change(request, before, self.disk.rows.get(rows.answer_key(request))))

    def check_order(self, message: Message) -> None:
        """Within one connection no object goes back in time."""
        if message.operation not in ("insert", "update"):
            return
        uid, version = ids(message.content)
        last = self.sent_versions.get(message.resource)
        if last is not None and last[0] == uid and version < last[1]:
            self.sim.fail(f"{self.name}: {message.resource} sent at {version} after {last[1]}")
        self.sent_versions[message.resource] = (uid, version)
