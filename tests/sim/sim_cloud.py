"""cloudcore in the simulator: caches fed by lagging watches, a CloudNode for each node, one SyncWriter."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from sim_api import Api, Event, Stored
from sim_edge import PING, PONG, upload_number
from sim_engine import Process, Sim, Wire

from edgehive.kit.errors import ProtocolError
from edgehive.wire import classify as cls
from edgehive.wire.cloudnode import CachedObject, CloudNode, Missing, Unknown
from edgehive.wire.devices import Member, membership_message
from edgehive.wire.message import DELETE, INSERT, QUERY, UPDATE, Message, decode_content
from edgehive.wire.objectsync import CreateSync, DeleteSync, SyncKey, SyncRecord, SyncWrite, SyncWriter
from edgehive.wire.outbound import Outbound
from edgehive.wire.pool import Delivered, GivenUp, PoolLimits
from edgehive.wire.resource import find_resource
from edgehive.wire.session import NodeSession, Told, Upstream

LIMITS = PoolLimits(window=4, objects=12, unacked=8)


@dataclass(slots=True)
class Peer:
    """One accepted connection."""

    wire: Wire
    session: NodeSession


class Cloud(Process):
    """One cloudcore instance."""

    node_class = CloudNode

    def __init__(self, sim: Sim, api: Api, name: str) -> None:
        super().__init__(sim, name)
        self.api = api
        self.peers: list[Peer] = []
        self.arriving: list[Wire] = []
        self.nodes: dict[str, CloudNode] = {}
        self.writer = SyncWriter()
        self.objects: dict[tuple[str, str], Stored] = {}
        self.syncs: dict[SyncKey, SyncRecord] = {}
        self.synced = False
        self.cursor = 0

    # Life

    def boot(self) -> None:
        self.peers = []
        self.nodes = {}
        self.writer = SyncWriter(retry_max=2.0, rate=self.sim.rng.choice((0.2, 2.0, 0.0)))
        self.objects = {}
        self.syncs = {}
        self.synced = False
        self.later(self.sim.rng.uniform(0.01, 0.3), self.list)

    def lost(self) -> None:
        for wire in (*self.arriving, *(peer.wire for peer in self.peers)):
            wire.close(1)
        self.peers = []
        self.arriving = []

    # Caches

    def list(self) -> None:
        """List everything, tell the nodes the difference, watch from there."""
        if self.api.down:
            self.later(0.5, self.list)
            return
        first, self.synced = not self.synced, True
        self.cursor = len(self.api.log)
        gone = [stored for key, stored in self.objects.items() if self._replaced(key, stored)]
        unsynced = [record for key, record in self.syncs.items() if key not in self.api.syncs]
        for stored in gone:
            del self.objects[stored.cached.kind, stored.cached.name]
            self._announce(stored, DELETE)
        for record in unsynced:
            self.apply(Event(0, "unsync", record))
        for stored in list(self.api.objects.values()):
            self.apply(Event(0, "set", stored))
        for record in list(self.api.syncs.values()):
            self.apply(Event(0, "sync", record))
        if first:
            for node in self.nodes.values():
                node.handle_timer(self.sim.now)
        self.watch()

    def _replaced(self, key: tuple[str, str], stored: Stored) -> bool:
        current = self.api.objects.get(key)
        return current is None or current.cached.uid != stored.cached.uid

    def watch(self) -> None:
        lag = self.sim.chaos.watch_lag
        if self.sim.chance(0.02):
            lag *= 10
        self.later(self.sim.rng.uniform(0.005, max(lag, 0.01)), self.poll)

    def poll(self) -> None:
        """Take what the watch has brought; now and then it has expired (410)."""
        if self.api.down:
            self.watch()
            return
        if self.sim.chance(self.sim.chaos.api_error / 10):
            self.sim.note(self.name, "watch expired: list again")
            self.list()
            return
        count = len(self.api.log) - self.cursor
        for _ in range(self.sim.rng.randint(0, count) if self.sim.chaos.api_error else count):
            self.cursor += 1
            self.apply(self.api.log[self.cursor - 1])
        self.watch()

    def apply(self, event: Event) -> None:
        now = self.sim.now
        if event.kind == "set":
            stored = event.item
            key = (stored.cached.kind, stored.cached.name)
            old = self.objects.get(key)
            if old is not None and int(old.cached.version) >= int(stored.cached.version):
                return
            self.objects[key] = stored
            self._announce(stored, UPDATE if old else INSERT)
        elif event.kind == "gone":
            key = (event.item.cached.kind, event.item.cached.name)
            if key in self.objects and self.objects[key].cached.uid == event.item.cached.uid:
                del self.objects[key]
                self._announce(event.item, DELETE)
        elif event.kind == "sync":
            self.syncs[event.item.key] = event.item
            node = self.nodes.get(event.item.key.node)
            if node is not None:
                node.record_changed(event.item, now)
        else:
            self.syncs.pop(event.item.key, None)
            node = self.nodes.get(event.item.key.node)
            if node is not None:
                node.record_gone(event.item, now)

    def _announce(self, stored: Stored, operation: str) -> None:
        """A watch event becomes one message for all the nodes it concerns."""
        cached = stored.cached
        message_id, timestamp = self.sim.stamp()
        outbound = Outbound(
            Message(
                id=message_id,
                timestamp=timestamp,
                operation=operation,
                resource=f"default/{cached.kind.lower()}/{cached.name}",
                content=cached.raw,
                resource_version=cached.version,
                source=cls.DEVICE_CONTROLLER if cached.kind == "Device" else cls.EDGE_CONTROLLER,
                group=cls.RESOURCE_GROUP,
            )
        )
        for name, node in self.nodes.items():
            key = SyncKey(name, cached.namespace, cached.uid)
            if name in stored.nodes or key in self.syncs:
                self._tell_members(node, cached, operation)
                node.send(outbound, self.sim.now)

    def _tell_members(self, node: CloudNode, cached: CachedObject, operation: str) -> None:
        """A device joins its node, or leaves it: said once, beside the object."""
        if cached.kind != "Device" or operation == UPDATE or node.session is None:
            return
        members = [Member(cached.namespace or "", cached.name)]
        changed = {"removed": members} if operation == DELETE else {"added": members}
        node.session.send(membership_message(**changed, stamp=self.sim.stamp), self.sim.now)

    # wire.cloudnode.World

    def find(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        if not self.synced:
            return Unknown()
        stored = self.objects.get((record.kind, record.object_name))
        return stored.cached if stored else Missing()

    def assigned(self, node: str) -> Iterable[CachedObject]:
        return [stored.cached for stored in self.objects.values() if node in stored.nodes]

    def records(self, node: str) -> Iterable[SyncRecord] | None:
        if not self.synced:
            return None
        return [record for record in self.syncs.values() if record.key.node == node]

    # Connections

    def accept(self, wire: Wire, node: str, *, tells: bool) -> None:
        """A node has connected."""
        now = self.sim.now
        session = NodeSession(node=node, now=now, stamp=self.sim.stamp, limits=LIMITS, tells=tells)
        peer = Peer(wire, session)
        self.peers.append(peer)
        wire.ends[1].receive = lambda frame: self.step(partial(self.receive, peer, frame))
        wire.ends[1].closed = lambda reason: self.step(partial(self.hung_up, peer, reason))
        known = self.nodes.get(node)
        if known is None:
            known = self.nodes[node] = self.node_class(
                node=node, world=self, writer=self.writer, stamp=self.sim.stamp, reconcile_every=5.0
            )
        self.sim.note(self.name, "accepts %s", node)
        known.attach(session, now)

    def receive(self, peer: Peer, frame: bytes) -> None:
        if frame.startswith(PING):
            peer.wire.send(1, PONG + frame.removeprefix(PING))
            return
        if b'"operation":"upload"' in frame:
            self.api.uploaded(peer.session.node, upload_number(frame))  # the router has it; nobody answers
            return
        try:
            peer.session.receive_frame(frame, self.sim.now)
        except ProtocolError as exc:
            self.sim.fail(f"the edge sent nonsense: {exc}")

    def hung_up(self, peer: Peer, reason: str) -> None:
        peer.session.close(reason)

    def tick(self) -> None:
        now = self.sim.now
        for peer in self.peers:
            peer.session.handle_timer(now)
        for node in self.nodes.values():
            node.handle_timer(now)

    def pump(self) -> None:
        """Move events, frames and API writes."""
        now = self.sim.now
        for peer in list(self.peers):
            node = self.nodes[peer.session.node]
            for event in peer.session.events():
                self.point("before an event")
                self.handle(node, peer, event)
            if peer.session.closed is not None:
                self.peers.remove(peer)
                node.detach(peer.session, now)
                peer.wire.close(1)
        for node in self.nodes.values():
            for record in node.checks():
                request = partial(self.api.get, record.kind, record.object_name)
                self.api.call(request, self.mine(partial(self.checked, node, record)))
            self.check_bounds(node)
        for write in self.writer.take(now):
            self.api.call(partial(self.api.write, write), self.mine(partial(self.written, write)))
            self.point("after an API request")
        for peer in list(self.peers):
            for frame in peer.session.data_to_send(now, 1000):
                if self.sim.tracing:
                    self.sim.note(self.name, "> %s", frame[:400].decode())
                peer.wire.send(1, frame)
        deadlines = [peer.session.deadline() for peer in self.peers]
        deadlines += [node.deadline() for node in self.nodes.values()]
        deadlines.append(self.writer.deadline())
        self.wake_at(min((d for d in deadlines if d is not None), default=None))

    def check_bounds(self, node: CloudNode) -> None:
        if node.session is not None:
            pool = node.session.pool
            if pool.depth > LIMITS.objects or pool.waiting > LIMITS.unacked:
                self.sim.fail(f"{self.name}: the pool of {node.node} has outgrown its bound")

    def mine(self, answer):  # noqa: ANN001, ANN201
        """An API answer for this incarnation only."""
        epoch = self.epoch

        def deliver(code: int, result: object) -> None:
            if self.alive and self.epoch == epoch:
                self.step(partial(answer, code, result))

        return deliver

    def checked(self, node: CloudNode, record: SyncRecord, code: int, result: CachedObject | None) -> None:
        found = result if code == 200 and result else Missing() if code == 404 else Unknown()
        node.checked(record, found, self.sim.now)

    def written(self, write: SyncWrite, code: int, reason: object) -> None:
        self.point("before noting an API answer")
        now = self.sim.now
        node = self.nodes.get(write.key.node)
        created = isinstance(write, CreateSync)
        exists = created and code == 409 and reason == "AlreadyExists"
        if code in (200, 201) or exists or (isinstance(write, DeleteSync) and code == 404):
            self.writer.done(write, now)
            if isinstance(write, CreateSync) and node is not None:
                node.record_created(write.record, now)
        elif not self.writer.failed(write, code, now) and isinstance(write, CreateSync) and node is not None:
            node.record_refused(write.record)

    def handle(self, node: CloudNode, peer: Peer, event: object) -> None:
        now = self.sim.now
        if isinstance(event, Delivered | GivenUp):
            node.receive(event, now)
        elif isinstance(event, Told):
            node.receive_holdings(event.held, now)
        elif isinstance(event, Upstream):
            self.upstream(peer, node, event.message)

    def upstream(self, peer: Peer, node: CloudNode, message: Message) -> None:
        target = find_resource(message.resource)
        assert target is not None
        if message.operation == INSERT:
            self.answer(
                node, message, b'{"Object":null,"Err":{"ErrStatus":{"code":409,"reason":"AlreadyExists"}}}'
            )
            return
        if message.operation == QUERY:
            stored = self.objects.get((target.type.title().replace("map", "Map"), target.name))
            if stored is None:
                self.answer(node, message, b'{"ErrStatus":{"code":404,"reason":"NotFound"}}')
            else:
                self.answer(node, message, stored.cached.raw, stored.cached.version)
            return
        body = decode_content(message.content)
        request = partial(self.api.patch_status, target.name, body["metadata"]["uid"], body["status"]["n"])
        self.api.call(request, self.mine(partial(self.patched, node, peer, message)))

    def patched(
        self, node: CloudNode, peer: Peer, message: Message, code: int, result: CachedObject | None
    ) -> None:
        if peer.session.closed is not None:
            return
        if code == 200 and result is not None:
            self.answer(node, message, b'{"Object":%s,"Err":null}' % result.raw, result.version)
            return
        error = {"ErrStatus": {"code": code or 504, "reason": "Failed", "message": "patch"}}
        self.answer(node, message, b'{"Object":null,"Err":%s}' % json.dumps(error).encode())

    def answer(self, node: CloudNode, message: Message, content: bytes, version: str = "") -> None:
        message_id, timestamp = self.sim.stamp()
        reply = message.reply(new_id=message_id, timestamp=timestamp, content=content)
        outbound = Message(
            id=reply.id,
            timestamp=reply.timestamp,
            operation=reply.operation,
            resource=reply.resource,
            content=content,
            parent_id=message.id,
            resource_version=version,
            source=cls.EDGE_CONTROLLER,
            group=cls.RESOURCE_GROUP,
        )
        node.send(Outbound(outbound), self.sim.now)
