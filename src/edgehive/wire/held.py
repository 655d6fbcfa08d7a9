"""What an edge says it holds, and what may therefore stay unrecorded for a while. Between two ends of ours only.

A record's version is needed when a node comes back: it tells what the node has. An edgehive edge can tell by itself,
and better, since its database may have been lost or restored. So it offers to (a header of its upgrade request), the
cloud says that it wants to hear (the same header in the answer), and the edge's first message is a list of UID and
version by resource.

What the edge will say itself need not be written to the API server after every acknowledgement. Records still exist
before an object first travels, and have a version from the first acknowledgement on, so that deletes are found and an
original cloudcore can go on with them; a version that lags costs that one a duplicate.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.wire import resource as res
from edgehive.wire.classify import EDGE_HUB, RESOURCE_GROUP
from edgehive.wire.desired import CachedObject, Missing, World, name_of_object, name_of_record
from edgehive.wire.message import MALFORMED, Message, Stamp, content_data
from edgehive.wire.objectsync import RESET, SyncKey, SyncRecord, SyncWriter, valid_key
from edgehive.wire.outbound import parse_version

HOLDINGS_HEADER: Final = "X-Edgehive-Holdings"
"""In the upgrade request: the edge can say what it holds. In the answer: the cloud wants to hear it."""
HOLDINGS: Final = "holdings"
"""The operation of that message."""
HOLDINGS_RESOURCE: Final = "node/holdings"
HOLDINGS_WAIT: Final = 3.0
"""Seconds the cloud waits for it before it goes by the records."""

MAX_HOLDINGS: Final = 8 << 20
"""Bytes of the list: some sixty thousand objects."""

_LEFT_OUT: Final = frozenset(
    {res.TOKEN, res.LEASE, res.NODEPATCH, res.PODPATCH, res.PODSTATUS, res.CSR, res.CSI_DRIVER}
)

_STRANGERS: Final = 256
"""Objects without a record that are looked at after one connect; more is a peer that makes them up."""
_KINDS: Final = {
    res.POD: ("v1", "Pod"),
    res.CONFIGMAP: ("v1", "ConfigMap"),
    res.SECRET: ("v1", "Secret"),
    res.PERSISTENT_VOLUME: ("v1", "PersistentVolume"),
    res.PERSISTENT_VOLUME_CLAIM: ("v1", "PersistentVolumeClaim"),
    res.VOLUME_ATTACHMENT: ("storage.k8s.io/v1", "VolumeAttachment"),
    res.DEVICE: ("devices.kubeedge.io/v1beta1", "Device"),
    res.DEVICE_MODEL: ("devices.kubeedge.io/v1beta1", "DeviceModel"),
    res.SERVICE_ACCOUNT_ACCESS: ("policy.kubeedge.io/v1alpha1", "ServiceAccountAccess"),
}

_BY_ASSIGNMENT: Final = frozenset({"Pod", "ConfigMap", "Secret"})
"""Kinds of which every object is found, whichever node it is meant for; the others' views look at the node."""

Holding = tuple[str, str, str]
"""Resource, UID, version."""

_decoder: Final = msgspec.json.Decoder(list[Holding])


def holding(resource: str, uid: str, version: str) -> Holding | None:
    """An entry of the list for one row of the edge's database; ``None`` for what has no record."""
    target = res.find_resource(resource)
    if target is None or not target.name or target.type in _LEFT_OUT or not uid or not parse_version(version):
        return None
    return (resource, uid, version)


def holdings_message(holdings: Iterable[Holding], *, stamp: Stamp) -> Message:
    """The message."""
    message_id, timestamp = stamp()
    return Message(
        id=message_id,
        timestamp=timestamp,
        operation=HOLDINGS,
        resource=HOLDINGS_RESOURCE,
        content=msgspec.json.encode(list(holdings)),
        source=EDGE_HUB,
        group=RESOURCE_GROUP,
    )


@dataclass(frozen=True, slots=True)
class Held:
    """What one node holds: UID and version by resource."""

    objects: dict[str, tuple[str, str]]

    def has(self, record: SyncRecord) -> bool:
        """Whether `record`'s very object is there, in whatever version."""
        return self.objects.get(name_of_record(record), ("", ""))[0] == record.key.uid

    def version(self, record: SyncRecord) -> str:
        """The version of `record`'s object that is there; `RESET` for none."""
        return self.objects[name_of_record(record)][1] if self.has(record) else RESET

    def strangers(self, node: str, records: Iterable[SyncRecord]) -> list[SyncRecord]:
        """What is there without a record, as if it had one.

        A node whose database was lost may have been sent an object once more while the instance that it was connected
        to before still had the record of its delete to clear.
        """
        known = {(name_of_record(record), record.key.uid) for record in records}
        found: list[SyncRecord] = []
        for name, (uid, version) in self.objects.items():
            target = res.find_resource(name)
            if target is None or target.type not in _KINDS or (name, uid) in known:
                continue
            key = SyncKey(node, target.namespace, uid)
            if valid_key(key):
                found.append(SyncRecord(key, *_KINDS[target.type], target.name, version))
            if len(found) == _STRANGERS:
                break
        return found


def decode_holdings(content: bytes) -> Held:
    """Read the list.

    Raises:
        ProtocolError: it is none.
    """
    if len(content) > MAX_HOLDINGS:
        raise ProtocolError(f"a list of holdings of {len(content)} bytes is over the limit")
    try:
        entries = _decoder.decode(content_data(content))
    except MALFORMED as exc:
        raise ProtocolError(f"not a list of holdings: {exc}") from exc
    return Held({resource: (uid, version) for resource, uid, version in entries})


class Lag:
    """How far the records of one node are behind what it has acknowledged, while it is connected."""

    __slots__ = ("_behind", "_writer")

    def __init__(self, writer: SyncWriter) -> None:
        self._writer = writer
        self._behind: dict[SyncKey, str] = {}
        """By record: the version that it has in the cluster."""

    def load(
        self, records: dict[SyncKey, SyncRecord], held: Held, world: World, *, node: str, now: float
    ) -> dict[SyncKey, SyncRecord]:
        """At connect: the records with what the edge says, which counts for more."""
        loaded = {key: self._load_one(record, held, now) for key, record in records.items()}
        strangers = held.strangers(node, records.values())
        assigned = {(name_of_object(c), c.uid) for c in world.assigned(node)} if strangers else set()
        for stranger in strangers:
            cached = world.find(stranger)
            there = isinstance(cached, CachedObject) and cached.uid == stranger.key.uid
            if stranger.kind in _BY_ASSIGNMENT:
                gone = isinstance(cached, Missing) or (isinstance(cached, CachedObject) and not there)
                if not gone and (name_of_record(stranger), stranger.key.uid) not in assigned:
                    continue  # to say that one has another's Secret must not subscribe to it
            if there:
                self._writer.create(stranger, now)
                self._writer.acknowledged(replace(stranger, version=""), stranger.version, now)
            loaded[stranger.key] = stranger  # what is gone is found gone by the reconcile
        return loaded

    def _load_one(self, record: SyncRecord, held: Held, now: float) -> SyncRecord:
        version = held.version(record)
        if not record.version:
            self._writer.acknowledged(record, version, now)
            return replace(record, version=version if parse_version(version) else "")
        if parse_version(version) > parse_version(record.version):
            if self._writer.spend(now):
                self._writer.acknowledged(record, version, now)
            else:
                self._behind[record.key] = record.version
        return replace(record, version=version)

    def acknowledged(self, known: SyncRecord, version: str, now: float) -> None:
        """The node has acknowledged `version`; `known` has the one before."""
        base = self._behind.get(known.key, known.version)
        if parse_version(version) <= parse_version(base):
            return
        # A record without a version makes an original cloudcore skip its object for good. That the node had nothing
        # says nothing of the record: somebody may have deleted it meanwhile, and it was made anew.
        if not parse_version(base) or self._writer.spend(now):
            self._behind.pop(known.key, None)
            self._writer.acknowledged(replace(known, version=base), version, now)
        else:
            self._behind[known.key] = base

    def seen(self, record: SyncRecord, known: SyncRecord) -> bool:
        """`record` has changed in the cluster, the node has `known`; tell whether it may stay as it is.

        A version above what the node itself has told comes from a session that it had elsewhere, or before its
        database was lost; it is not believed.
        """
        base = self._behind.get(record.key)
        version = parse_version(record.version)
        if version > parse_version(known.version):
            return True
        if base is None or version < parse_version(base):
            return False
        self._behind[record.key] = record.version
        return True

    def forget(self, key: SyncKey) -> None:
        """There is no such record any more."""
        self._behind.pop(key, None)

    def flush(self, records: dict[SyncKey, SyncRecord], now: float) -> None:
        """The node is gone: let the records catch up, without hurry."""
        for key, base in self._behind.items():
            known = records.get(key)
            if known is not None:
                self._writer.catch_up(replace(known, version=base), known.version, now)
        self._behind.clear()
