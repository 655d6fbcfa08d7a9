"""What the watch caches say about a node, and the messages made of it."""

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from edgehive.wire import classify as cls
from edgehive.wire.devices import Member, membership_message
from edgehive.wire.message import DELETE, INSERT, UPDATE, Message, Stamp
from edgehive.wire.objectsync import SyncRecord
from edgehive.wire.outbound import Outbound, parse_version
from edgehive.wire.resource import DEVICE, NODE, POD, SECRET, Resource, format_resource

_SOURCES: Final = {
    "Device": cls.DEVICE_CONTROLLER,
    "DeviceModel": cls.DEVICE_CONTROLLER,
    "ServiceAccountAccess": cls.POLICY_CONTROLLER,
}
_FIRST_IS_UPDATE: Final = frozenset({NODE, SECRET})
"""Types that travel as ``update`` even the first time, as the original sends them."""


class CachedObject(msgspec.Struct, frozen=True):
    """An object in a watch cache, ready to travel: `raw` has ``kind`` and ``apiVersion``."""

    api_version: str
    kind: str
    namespace: str | None
    name: str
    uid: str
    version: str
    raw: bytes
    source: str = "edgecontroller"


class Missing(msgspec.Struct, frozen=True):
    """The synced cache does not hold the object."""


class Unknown(msgspec.Struct, frozen=True):
    """No opinion: the cache is not synced, or the kind is not watched here."""


class World(Protocol):
    """What the watch caches say; every call answers at once from memory."""

    def find(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        """The object of the name that `record` stands for, whatever its UID."""
        ...

    def assigned(self, node: str) -> Iterable[CachedObject]:
        """Everything meant for the node now: its pods, what they refer to, its Node object, its devices."""
        ...

    def records(self, node: str) -> Iterable[SyncRecord] | None:
        """The node's records in the cache; ``None`` while that cache is not synced."""
        ...


class Order(Protocol):
    """What must be at a node before what; answers at once from memory."""

    def before(self, target: Resource) -> CachedObject | Missing | None:
        """What a node must have before `target`: a device its model; `Missing`: that does not exist (yet)."""
        ...

    def after(self, node: str, target: Resource) -> Iterable[CachedObject]:
        """What may have waited at `node` until a message about `target` was acknowledged.

        Also `target` itself, if it is to be there again while its delete was on the way.
        """
        ...


class Unordered:
    """Nothing waits for anything."""

    def before(self, target: Resource) -> CachedObject | Missing | None:
        """Nothing."""
        return None

    def after(self, node: str, target: Resource) -> Iterable[CachedObject]:
        """Nothing."""
        return ()


def object_message(cached: CachedObject, *, first: bool, stamp: Stamp) -> Outbound:
    """The message that brings `cached` to a node; `first`: the node has never had it."""
    message_id, timestamp = stamp()
    kind = cached.kind.lower()
    return Outbound(
        Message(
            id=message_id,
            timestamp=timestamp,
            operation=INSERT if first and kind not in _FIRST_IS_UPDATE else UPDATE,
            resource=name_of_object(cached),
            content=cached.raw,
            resource_version=cached.version,
            source=cached.source,
            group=cls.RESOURCE_GROUP,
        )
    )


def delete_message(record: SyncRecord, *, stamp: Stamp) -> Outbound:
    """The delete of an object that is gone: bare metadata, all that is still known of it."""
    message_id, timestamp = stamp()
    key = record.key
    metadata = {"name": record.object_name, "uid": key.uid}
    if key.namespace is not None:
        metadata["namespace"] = key.namespace
    content: dict[str, object] = {"metadata": metadata}
    if record.kind:
        # The original leaves these out, and so never cleans the MetaServer table of its edge.
        content = {"kind": record.kind, "apiVersion": record.api_version, "metadata": metadata}
    return Outbound(
        Message(
            id=message_id,
            timestamp=timestamp,
            operation=DELETE,
            resource=name_of_record(record),
            content=msgspec.json.encode(content),
            source=_SOURCES.get(record.kind, cls.EDGE_CONTROLLER),
            group=cls.RESOURCE_GROUP,
        )
    )


def farewell(record: SyncRecord, *, stamp: Stamp) -> tuple[Outbound, ...]:
    """What goes along with the delete of an object that is gone: for a device, that the node has it no more.

    KubeEdge's edge keeps its table of devices by that message alone, and in the original a device deleted while
    cloudcore is down stays in it.
    """
    if record.kind.lower() != DEVICE or record.key.namespace is None:
        return ()
    return (membership_message(removed=[Member(record.key.namespace, record.object_name)], stamp=stamp),)


def moot(record: SyncRecord, newer: SyncRecord | None) -> bool:
    """Whether the delete of `record`'s object need not be sent; `newer` is the record of what has its name now.

    For a Node there is nobody to tell. Of other objects but pods an original edge compares no UIDs, and when the node
    has acknowledged the new incarnation, its row is what a delete would remove.
    """
    kind = record.kind.lower()
    return kind == NODE or (kind != POD and newer is not None and parse_version(newer.version) > 0)


def name_of_record(record: SyncRecord) -> str:
    """The resource string of the object that `record` stands for."""
    return format_resource(record.key.namespace, record.kind.lower(), record.object_name)


def name_of_object(cached: CachedObject) -> str:
    """The resource string of `cached`."""
    return format_resource(cached.namespace, cached.kind.lower(), cached.name)
