"""The cloud's decisions for one node: what to send, when, and what to record.

A node has a `CloudNode` here while this cloudcore knows it; it has a session only while it is connected here.
Without a session nothing is queued for ACK-class objects: at connect, and periodically, the plan compares the
objects meant for the node (from the watch caches) with the records (ObjectSync) and sends the difference. What
has no record, such as rules and tasks, waits in a bounded backlog.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from edgehive.wire.objectsync import SyncRecord, SyncWriter
from edgehive.wire.outbound import Outbound
from edgehive.wire.pool import Delivered, GivenUp
from edgehive.wire.session import NodeSession, Stamp

BACKLOG = 256
"""Fire-once messages kept for an absent node; the oldest is dropped."""


@dataclass(frozen=True, slots=True)
class CachedObject:
    """An object in a watch cache, ready to travel: `raw` has ``kind`` and ``apiVersion``."""

    api_version: str
    kind: str
    namespace: str | None
    name: str
    uid: str
    version: str
    raw: bytes
    source: str = "edgecontroller"


@dataclass(frozen=True, slots=True)
class Missing:
    """The synced cache does not hold the object."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """No opinion: the cache is not synced, or the kind is not watched here."""


class World(Protocol):
    """What the watch caches say; every call answers at once from memory."""

    def find(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        """The object that `record` stands for, looked up by kind, namespace and name."""
        ...

    def assigned(self, node: str) -> Iterable[CachedObject]:
        """Everything meant for the node now: its pods, what they refer to, its Node object, its devices."""
        ...

    def records(self, node: str) -> Iterable[SyncRecord] | None:
        """The node's records in the cache; ``None`` while that cache is not synced."""
        ...


class CloudNode:
    """Decides for one node; the shell owns the sockets and the API calls."""

    session: NodeSession | None

    def __init__(
        self, *, node: str, world: World, writer: SyncWriter, stamp: Stamp, reconcile_every: float = 30.0
    ) -> None:
        raise NotImplementedError

    def attach(self, session: NodeSession, now: float) -> NodeSession | None:
        """A new session of the node; returns the one it replaces (already closed). Plans a reconcile at once."""
        raise NotImplementedError

    def detach(self, session: NodeSession, now: float) -> None:
        """`session` ended; does nothing if it is no longer the current one."""
        raise NotImplementedError

    def send(self, message: Outbound, now: float) -> None:
        """A controller has something for the node. ACK-class messages wait until their record exists."""
        raise NotImplementedError

    def record_changed(self, record: SyncRecord, now: float) -> None:
        """A record was added or changed (by us or by another instance)."""
        raise NotImplementedError

    def record_gone(self, record: SyncRecord, now: float) -> None:
        """A record was deleted."""
        raise NotImplementedError

    def record_created(self, record: SyncRecord, now: float) -> None:
        """The API server has the record that `SyncWriter` was asked to create: release what waited for it."""
        raise NotImplementedError

    def receive(self, event: Delivered | GivenUp, now: float) -> None:
        """An event of the current session: plans the record's write."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> None:
        """Reconcile when due."""
        raise NotImplementedError

    def deadline(self) -> float | None:
        """When `handle_timer` wants to be called next."""
        raise NotImplementedError


def orphaned(records: Iterable[SyncRecord], nodes: Iterable[str]) -> list[SyncRecord]:
    """The records whose node no longer exists; delete them."""
    raise NotImplementedError
