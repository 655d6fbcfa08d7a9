"""A CloudNode under test, with everything around it."""

from collections.abc import Iterable

from wire_support import content, stamp

from edgehive.wire.cloudnode import CachedObject, CloudNode, Missing, Unknown
from edgehive.wire.message import Message, decode_message
from edgehive.wire.objectsync import (
    CreateSync,
    SyncKey,
    SyncRecord,
    SyncWriter,
)
from edgehive.wire.pool import PoolLimits
from edgehive.wire.session import NodeSession


class Caches:
    """What the watch caches of the test say."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], CachedObject] = {}
        self.mine: list[CachedObject] = []
        self.known: list[SyncRecord] = []
        self.synced = True

    def add(self, name: str, uid: str, version: int, kind: str = "Pod", *, mine: bool = True) -> CachedObject:
        cached = CachedObject(
            "v1", kind, "default", name, uid, str(version), content(name, uid, version, kind)
        )
        self.objects[kind, name] = cached
        if mine:
            self.mine = [c for c in self.mine if (c.kind, c.name) != (kind, name)] + [cached]
        return cached

    def record(self, name: str, uid: str, version: str, kind: str = "Pod") -> SyncRecord:
        record = SyncRecord(SyncKey("edge-1", "default", uid), "v1", kind, name, version, "1")
        self.known.append(record)
        return record

    def find(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        if not self.synced:
            return Unknown()
        return self.objects.get((record.kind, record.object_name), Missing())

    def assigned(self, node: str) -> Iterable[CachedObject]:
        assert node == "edge-1"
        return self.mine

    def records(self, node: str) -> Iterable[SyncRecord] | None:
        assert node == "edge-1"
        return self.known if self.synced else None


class Bench:
    """A CloudNode with a session, and an API server that does what it is told."""

    def __init__(self, *, strict: bool = False, limits: PoolLimits | None = None, rate: float = 0.0) -> None:
        self.caches = Caches()
        self.writer = SyncWriter(interval=0.5, rate=rate)
        self.node = CloudNode(
            node="edge-1",
            world=self.caches,
            writer=self.writer,
            stamp=stamp,
            reconcile_every=30.0,
            several_instances=strict,
        )
        self.limits = limits
        self.now = 0.0

    def connect(self, *, tells: bool = False) -> NodeSession:
        session = NodeSession(node="edge-1", now=self.now, stamp=stamp, limits=self.limits, tells=tells)
        self.node.attach(session, self.now)
        self.node.handle_timer(self.now)
        return session

    def frames(self) -> list[Message]:
        assert self.node.session is not None
        return [decode_message(f) for f in self.node.session.data_to_send(self.now)]

    def writes(self) -> list[object]:
        """Carry out what the planner wants, successfully."""
        done = self.writer.take(self.now)
        for write in done:
            self.writer.done(write, self.now)
            if isinstance(write, CreateSync):
                self.node.record_created(write.record, self.now)
        return list(done)

    def ack(self, message: Message) -> None:
        assert self.node.session is not None
        delivered = self.node.session.pool.receive_ack(message.id, self.now)
        assert delivered is not None
        self.node.receive(delivered, self.now)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.node.handle_timer(self.now)
