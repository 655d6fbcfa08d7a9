"""The nodes this cloudcore serves: drives their cores, sockets and timers.

Everything here runs in the loop's thread without waiting; what waits (a write, a request to the API server) is
started in the task group of `run`.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edgehive.cloud.keyed import KeyedQueue
from edgehive.cloud.link import LinkStats, NodeLink, Socket
from edgehive.cloud.node_stats import NodeStats
from edgehive.cloud.timers import Deadlines
from edgehive.cloud.upstream import order_key
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.text import safe_label
from edgehive.wire.classify import EDGE_CONTROLLER
from edgehive.wire.cloudnode import CachedObject, CloudNode, Missing, Order, Unknown, World
from edgehive.wire.desired import Unordered
from edgehive.wire.message import DELETE, Message, Stamp, outline
from edgehive.wire.objectsync import SyncRecord, SyncWriter
from edgehive.wire.outbound import Outbound
from edgehive.wire.pool import Delivered, GivenUp, PoolLimits
from edgehive.wire.session import (
    CaRequest,
    Closed,
    Denied,
    EdgeFailure,
    Keepalive,
    NodeSession,
    SessionEvent,
    TaskReport,
    Told,
    Upload,
    Upstream,
    VolumeReply,
)

log = logging.getLogger(__name__)

Handle = Callable[[str, Message], Awaitable[tuple[Message, ...]]]
"""Carries out a request of a node and gives the answers."""

Fetch = Callable[[SyncRecord], Awaitable[CachedObject | Missing | Unknown]]
"""Asks the API server itself for the object of a record."""

Route = Callable[[str, Message], None]
"""Hands a message of a node to some other module, at once."""


@dataclass(slots=True, eq=False)
class _Entry:
    core: CloudNode
    link: NodeLink | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """Timers and bounds of every node."""

    keepalive: float = 30.0
    write_timeout: float = 30.0
    reconcile_every: float = 30.0
    limits: PoolLimits = field(default_factory=PoolLimits)
    parallel_requests: int = 8
    waiting_requests: int = 256
    absent: int = 1024
    """Absent nodes for which something is kept; beyond that the one that was noted first is forgotten."""


class NodeTable:
    """The nodes by name."""

    def __init__(
        self,
        *,
        world: World,
        writer: SyncWriter,
        stamp: Stamp,
        handle: Handle,
        fetch: Fetch,
        routes: Mapping[str, Route],
        ca_pem: Callable[[], str],
        on_plan: Callable[[], None],
        on_connect: Callable[[str], Coroutine[Any, Any, None]],
        settings: NodeSettings,
        order: Order | None = None,
    ) -> None:
        """Wire up.

        `routes` are the modules that are switched on, by the name of their group; `ca_pem` gives the Kubernetes CA;
        `on_plan` is called whenever `writer` may have something to write, `on_connect` after a node has connected.
        """
        self._world = world
        self._order = order or Unordered()
        self._writer = writer
        self._stamp = stamp
        self._handle = handle
        self._fetch = fetch
        self._routes = routes
        self._ca_pem = ca_pem
        self._on_plan = on_plan
        self._on_connect = on_connect
        self._settings = settings
        self._entries: dict[str, _Entry] = {}
        self._absent: dict[str, None] = {}  # those among them without a link, oldest first
        self._connected = 0
        self._group: asyncio.TaskGroup | None = None
        self._timers: Deadlines[_Entry] | None = None
        self.stats: Final = NodeStats()
        self.link_stats: Final = LinkStats()

    async def run(self) -> None:
        """Drive the nodes until cancelled."""
        self._timers = Deadlines(fire=self._fire, deadline=_deadline)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for entry in self._entries.values():
                    self._settle(entry)
                await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            self._group = None
            self._timers.close()
            for link in self.links():
                link.upstream.close()  # or a connection that waits for room would wait for ever

    # -- connections

    @property
    def connected_nodes(self) -> int:
        """How many nodes are connected."""
        return self._connected

    def connected(self, node: str) -> bool:
        """Whether `node` is connected to this instance."""
        entry = self._entries.get(node)
        return entry is not None and entry.link is not None

    def links(self) -> Iterator[NodeLink]:
        """Every connection."""
        return (entry.link for entry in self._entries.values() if entry.link is not None)

    def session(self, node: str) -> NodeSession | None:
        """The current session of a connected node."""
        entry = self._entries.get(node)
        return entry.link.session if entry is not None and entry.link is not None else None

    def known(self, node: str, resource: str) -> int:
        """The newest version of an object that a connected node is known to have."""
        entry = self._entries.get(node)
        return entry.core.known(resource) if entry is not None else 0

    def connect(self, *, node: str, socket: Socket, remote: str, tells: bool = False) -> NodeLink:
        """A node has connected: the connection becomes its current one, whatever it had before is dropped.

        `tells`: it says first of all what it holds.
        """
        now = self._now()
        session = NodeSession(
            node=node,
            now=now,
            stamp=self._stamp,
            keepalive=self._settings.keepalive,
            limits=self._settings.limits,
            tells=tells,
        )
        # The link comes with each message: a queue that knew it would keep the connection in a cycle after its end.
        upstream: KeyedQueue[tuple[NodeLink, Message]] = KeyedQueue(
            start=self._start,
            work=self._carry_out,
            parallel=self._settings.parallel_requests,
            limit=self._settings.waiting_requests,
        )
        link = NodeLink(
            session=session,
            socket=socket,
            remote=remote,
            upstream=upstream,
            stats=self.link_stats,
            write_timeout=self._settings.write_timeout,
        )
        entry = self._entries.get(node)
        if entry is None:
            entry = self._entries[node] = _Entry(self._new_core(node))
        replaced, entry.link = entry.link, link
        entry.core.attach(session, now)
        self.stats.connects += 1
        if replaced is not None:
            self.stats.replaced += 1
            self._retire(replaced)
            log.info(
                "node %s connected anew from %s; its connection from %s is dropped",
                node,
                remote,
                replaced.remote,
            )
        else:
            self._connected += 1
            log.info("node %s connected from %s", node, remote)
        self._settle(entry)
        self._start(self._on_connect(node))
        return link

    def disconnect(self, link: NodeLink, reason: str) -> None:
        """The connection has ended; if it was not the node's current one, nothing else happens."""
        link.session.close(reason)
        entry = self._entries.get(link.node)
        if entry is None or entry.link is not link:
            return
        entry.link = None
        self._connected -= 1
        entry.core.detach(link.session, self._now())
        self._count_out(link)
        log.info("node %s disconnected: %s", link.node, safe_label(link.session.closed or reason))
        self._settle(entry)

    def receive(self, link: NodeLink, frame: bytes) -> None:
        """Take a frame off a connection.

        Raises:
            ProtocolError: the frame is not a message.
        """
        stats = self.link_stats
        stats.frames_in += 1
        stats.bytes_in += len(frame)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("node %s < %s", link.node, outline(frame))
        link.session.receive_frame(frame, self._now())
        entry = self._entries.get(link.node)
        if entry is not None and entry.link is link:
            self._settle(entry)

    def _new_core(self, node: str) -> CloudNode:
        return CloudNode(
            node=node,
            world=self._world,
            writer=self._writer,
            stamp=self._stamp,
            reconcile_every=self._settings.reconcile_every,
            order=self._order,
        )

    def _retire(self, link: NodeLink) -> None:
        link.session.close("replaced by a newer connection of the node")
        link.abort()
        self._count_out(link)

    def _count_out(self, link: NodeLink) -> None:
        pool = link.session.pool.stats
        self.stats.resends += pool.resent
        self.stats.dropped += pool.dropped

    # -- what the rest of cloudcore has for nodes

    def send(self, node: str, message: Outbound) -> None:
        """Bring `message` to `node`; see `CloudNode.send` for what happens while it is away."""
        entry = self._entries.get(node)
        if entry is None:
            if message.ack:
                return  # found by comparison when the node connects
            entry = self._entries[node] = _Entry(self._new_core(node))
        entry.core.send(message, self._now())
        self._settle(entry)

    def answer(self, node: str, message: Outbound) -> None:
        """Send an answer to `node`; one that has lost its link asks again, so that nothing is kept for it."""
        entry = self._entries.get(node)
        if entry is not None and entry.link is not None:
            entry.link.session.send(message, self._now())
            self._settle(entry)

    def record_changed(self, record: SyncRecord) -> None:
        """A record was added or changed."""
        entry = self._entries.get(record.key.node)
        if entry is not None:
            entry.core.record_changed(record, self._now())
            self._settle(entry)

    def record_gone(self, record: SyncRecord) -> None:
        """A record was deleted."""
        entry = self._entries.get(record.key.node)
        if entry is not None:
            entry.core.record_gone(record, self._now())
            self._settle(entry)

    def record_created(self, record: SyncRecord) -> None:
        """The API server has a record that the writer was asked to create."""
        entry = self._entries.get(record.key.node)
        if entry is not None:
            entry.core.record_created(record, self._now())
            self._settle(entry)

    def record_refused(self, record: SyncRecord) -> None:
        """The API server will not take a record."""
        entry = self._entries.get(record.key.node)
        if entry is not None:
            entry.core.record_refused(record)

    def node_gone(self, node: str) -> None:
        """The Node object was deleted: its connection ends, as in the original; the edge registers again."""
        entry = self._entries.get(node)
        if entry is None:
            return
        if entry.link is not None:
            entry.link.session.close("the Node object was deleted")
            self._settle(entry)
        else:
            self._forget(entry)

    # -- driving

    @functools.cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()  # asks for the process id each time: a system call

    def _now(self) -> float:
        return self._loop.time()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        if self._group is None:
            work.close()  # shutting down
            return
        self._group.create_task(work)

    def _fire(self, entry: _Entry) -> None:
        now = self._now()
        try:
            entry.core.handle_timer(now)
            if entry.link is not None:
                entry.link.session.handle_timer(now)
            self._settle(entry)
        except Exception:
            log.exception("timer of a node crashed")
            if entry.link is not None:
                entry.link.session.close("internal error")
                entry.link.abort()

    def _settle(self, entry: _Entry) -> None:
        """Do what the cores want done after anything has happened to them."""
        link = entry.link
        if link is not None:
            self._attend(entry, link)
        if self._group is not None:
            for record in entry.core.checks():
                self._start(self._check(entry, record))
        self._on_plan()
        if self._timers is not None:
            self._timers.update(entry)
        if entry.link is not None:
            self._absent.pop(entry.core.node, None)
        elif entry.core.idle:
            self._forget(entry)
        else:
            self._absent.setdefault(entry.core.node)
            self._bound_absent()

    def _attend(self, entry: _Entry, link: NodeLink) -> None:
        """Deal with what a session has to tell, and write what it has to say."""
        for event in link.session.events():
            self._happened(entry, link, event)
        if self._group is not None and link.flush(self._now()):
            self._start(self._await_reader(entry, link))
        for event in link.session.events():  # the connection may be found closed
            self._happened(entry, link, event)

    def _bound_absent(self) -> None:
        while len(self._absent) > self._settings.absent:
            entry = self._entries[next(iter(self._absent))]
            self.stats.forgotten += 1
            self.stats.dropped += entry.core.kept
            self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        self._entries.pop(entry.core.node, None)
        self._absent.pop(entry.core.node, None)
        if self._timers is not None:
            self._timers.remove(entry)

    async def _check(self, entry: _Entry, record: SyncRecord) -> None:
        found = await self._fetch(record)
        entry.core.checked(record, found, self._now())
        self._settle(entry)

    async def _await_reader(self, entry: _Entry, link: NodeLink) -> None:
        await link.wait()
        if entry.link is link:
            self._settle(entry)

    def _happened(self, entry: _Entry, link: NodeLink, event: SessionEvent) -> None:
        match event:
            case Keepalive():
                pass
            case Told(held):
                entry.core.receive_holdings(held, self._now())
            case Delivered():
                self.stats.note_latency(event.latency)
                entry.core.receive(event, self._now())
            case GivenUp():
                self.stats.given_up += 1
                entry.core.receive(event, self._now())
            case Upstream(target, message):
                if target == EDGE_CONTROLLER:
                    link.upstream.submit(order_key(message), (link, message))
                else:
                    self._route(link, target, message)
            case CaRequest(message):
                link.session.send_answer_ca(message, self._ca_pem(), self._now())
            case Closed():
                link.abort()
            case _:
                self._report(link, event)

    def _report(self, link: NodeLink, event: SessionEvent) -> None:
        match event:
            case EdgeFailure(message):
                self.stats.edge_failures += 1
                self._complain(
                    link,
                    f"failure {message.resource}",
                    f"could not handle {message.resource}: {message.content[:400].decode(errors='replace')}",
                )
            case Denied(message, reason):
                self.stats.denied += 1
                self._complain(
                    link, f"denied {reason}", f"{message.operation} {message.resource} denied: {reason}"
                )
            case Upload(message):
                self._route(link, "router", message)
            case TaskReport(message):
                self._route(link, "taskmanager", message)
            case VolumeReply(message):
                self._route(link, "csi", message)

    def _route(self, link: NodeLink, group: str, message: Message) -> None:
        route = self._routes.get(group)
        if route is not None:
            route(link.node, message)
            return
        self.stats.unrouted += 1
        log.debug(
            "node %s: %s for %s ignored, which is not running",
            link.node,
            safe_label(message.resource),
            group,
        )

    @staticmethod
    def _complain(link: NodeLink, key: str, text: str) -> None:
        """Warn once a session about the same thing, so that a peer cannot fill the log."""
        first = key not in link.warned and len(link.warned) < 64
        if first:
            link.warned.add(key)
        log.log(logging.WARNING if first else logging.DEBUG, "node %s: %s", link.node, safe_label(text, 500))

    async def _carry_out(self, asked: tuple[NodeLink, Message]) -> None:
        link, message = asked
        try:
            answers = await self._handle(link.node, message)
        except EdgehiveError as exc:
            log.warning("node %s: %s failed: %s", link.node, safe_label(message.resource), exc)
            return
        except Exception:
            log.exception("node %s: %s crashed", link.node, safe_label(message.resource))
            return
        entry = self._entries.get(link.node)
        if entry is None or entry.link is not link:
            return  # whoever asked is gone, and asks again over its new connection
        for answer in answers:
            if answer.operation == DELETE:
                # The edge reported something that is gone; it has it, whatever the records say.
                link.session.send(Outbound(answer), self._now())
            else:
                entry.core.send(Outbound(answer), self._now())
        self._settle(entry)


def _deadline(entry: _Entry) -> float | None:
    core = entry.core.deadline()
    session = entry.link.session.deadline() if entry.link is not None else None
    if core is None or session is None:
        return session if core is None else core
    return min(core, session)
