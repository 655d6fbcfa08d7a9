"""ObjectSync and ClusterObjectSync: what each node has acknowledged, recorded in the Kubernetes API.

The records are the one durable state of the downward path and are shared by all cloudcore instances, of the
original too. A record is made before an object first travels to a node, so that a crash in between cannot leave
an object at the edge that nobody would ever delete there. Status writes follow the ACKs, newest version per
object, in bounded batches about a second apart; a record that lags costs a duplicate delivery and nothing else.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.kube.refs import CLUSTEROBJECTSYNCS, GVR, OBJECTSYNCS, is_dns_subdomain
from edgehive.wire.message import MALFORMED
from edgehive.wire.outbound import parse_version

API_VERSION = "reliablesyncs.kubeedge.io/v1alpha1"

RESET: Final = "0"
"""Recorded to have everything sent again; the original writes it into a new record, to the same effect."""

_SOON: Final = 5
"""A record's first write waits for this part of the interval: long enough for what came together to go together."""

_RETRY_SOON: Final = frozenset({0, 408, 409, 410, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class SyncKey:
    """Which record: the node, the object's namespace (``None``: a ClusterObjectSync), the object's UID."""

    node: str
    namespace: str | None
    uid: str

    @property
    def name(self) -> str:
        """``<node>.<uid>``."""
        return f"{self.node}.{self.uid}"

    @property
    def gvr(self) -> GVR:
        """``objectsyncs`` or ``clusterobjectsyncs``."""
        return OBJECTSYNCS if self.namespace is not None else CLUSTEROBJECTSYNCS


@dataclass(frozen=True, slots=True)
class SyncRecord:
    """One record: the object it stands for and the version the node has acknowledged."""

    key: SyncKey
    api_version: str
    kind: str
    object_name: str
    version: str = ""
    """``status.objectResourceVersion`` as recorded; "" (never written) counts as 0."""
    resource_version: str = ""
    """The record's own resourceVersion."""


class _Spec(
    msgspec.Struct, rename={"api_version": "objectAPIVersion", "kind": "objectKind", "name": "objectName"}
):
    api_version: str = ""
    kind: str = ""
    name: str = ""


class _Status(msgspec.Struct, rename={"version": "objectResourceVersion"}):
    version: str = ""


class _SyncMeta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Sync(msgspec.Struct):
    metadata: _SyncMeta = msgspec.field(default_factory=_SyncMeta)
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


_decoder: Final = msgspec.json.Decoder(_Sync)


def parse_sync_name(name: str) -> tuple[str, str] | None:
    """Split a record's name into node and UID (after the last dot); ``None`` if it is not one of ours."""
    node, dot, uid = name.rpartition(".")
    return (node, uid) if dot and node and uid else None


def parse_sync(raw: bytes) -> SyncRecord:
    """Read an ObjectSync or ClusterObjectSync.

    Raises:
        ProtocolError: it is not one.
    """
    try:
        sync = _decoder.decode(raw)
    except MALFORMED as exc:
        raise ProtocolError(f"not an ObjectSync: {exc}") from exc
    parts = parse_sync_name(sync.metadata.name)
    if parts is None:
        raise ProtocolError(f"not the name of an ObjectSync: {sync.metadata.name[:120]!r}")
    return SyncRecord(
        key=SyncKey(parts[0], sync.metadata.namespace or None, parts[1]),
        api_version=sync.spec.api_version,
        kind=sync.spec.kind,
        object_name=sync.spec.name,
        version=sync.status.version,
        resource_version=sync.metadata.resource_version,
    )


def sync_object(record: SyncRecord) -> dict[str, Any]:
    """The object to POST for `record` (without its status, which the API server would drop)."""
    metadata = {"name": record.key.name}
    if record.key.namespace is not None:
        metadata["namespace"] = record.key.namespace
    return {
        "apiVersion": API_VERSION,
        "kind": "ObjectSync" if record.key.namespace is not None else "ClusterObjectSync",
        "metadata": metadata,
        "spec": {
            "objectAPIVersion": record.api_version,
            "objectKind": record.kind,
            "objectName": record.object_name,
        },
    }


def sync_status_patch(version: str) -> bytes:
    """The merge patch to PATCH on the status subresource."""
    return msgspec.json.encode({"status": {"objectResourceVersion": version}})


def valid_key(key: SyncKey) -> bool:
    """Whether the API server would take the name (a hostile UID must not end up in a URL)."""
    return is_dns_subdomain(key.name) and (key.namespace is None or is_dns_subdomain(key.namespace))


@dataclass(frozen=True, slots=True)
class CreateSync:
    """POST `sync_object(record)`; 409 with reason AlreadyExists (only that) counts as done."""

    record: SyncRecord

    @property
    def key(self) -> SyncKey:
        """The record's key."""
        return self.record.key


@dataclass(frozen=True, slots=True)
class RecordSync:
    """PATCH the status of `key` to `version` (merge patch)."""

    key: SyncKey
    version: str


@dataclass(frozen=True, slots=True)
class DeleteSync:
    """DELETE `key` with grace 0; 404 counts as done."""

    key: SyncKey


SyncWrite = CreateSync | RecordSync | DeleteSync


@dataclass(slots=True, eq=False)
class _Job:
    """What one record should become, and what is being done about it."""

    record: SyncRecord
    create: bool = False
    version: str = ""
    delete: bool = False
    busy: SyncWrite | None = None
    entry: int = 0
    """The live entry in a queue; 0: none."""
    failures: int = 0
    due: float = 0.0
    late: bool = False
    """Only to catch up: not worth making a record that is gone."""

    @property
    def wanted(self) -> bool:
        return self.create or self.delete or bool(self.version)


@dataclass(slots=True)
class SyncStats:
    """Counters of the planner."""

    acknowledged: int = 0
    writes: int = 0
    failures: int = 0
    abandoned: int = 0
    unrecorded: int = 0
    """Acknowledgements that were left to the node itself to tell."""


def reset_plan(records: Iterable[SyncRecord]) -> list[RecordSync]:
    """The writes after which everything is sent again to a node that joins anew, perhaps with an empty disk.

    Carry them out before the certificate is handed over. The records themselves stay: the disk may not be empty
    after all, and what was deleted since must still be deleted there.
    """
    return [RecordSync(record.key, RESET) for record in records if parse_version(record.version)]


def orphaned(records: Iterable[SyncRecord], nodes: Iterable[str]) -> list[SyncRecord]:
    """The records whose node no longer exists; delete them."""
    existing = frozenset(nodes)
    return [record for record in records if record.key.node not in existing]


class SyncWriter:
    """Plans the writes of all nodes of one cloudcore: coalesced, bounded, retried with back-off.

    One write per record at a time; a create goes before a status, a delete replaces both. The plan holds at most
    one job per record, so it is bounded by the objects at the connected nodes.
    """

    def __init__(
        self,
        *,
        interval: float = 0.5,
        batch: int = 200,
        retry: float = 1.0,
        retry_max: float = 10.0,
        rate: float = 0.0,
    ) -> None:
        """Set the pace (seconds).

        `rate` is how many versions a second may be recorded of what need not be (`spend`, `catch_up`); 0 is no limit.
        """
        self._rate = rate
        self._tokens = 2 * rate
        self._tokens_at = 0.0
        self._next_late = 0.0
        self._interval = interval
        self._batch = batch
        self._retry = retry
        self._retry_max = retry_max
        self._urgent: list[tuple[float, int, _Job]] = []  # creates: a message waits for each
        self._later: list[tuple[float, int, _Job]] = []  # statuses and deletes
        self._tick = 0
        self._jobs: dict[SyncKey, _Job] = {}
        self._recent: dict[SyncKey, float] = {}  # when a status was last written, of the last `interval`
        self._busy = 0
        self.stats = SyncStats()

    @property
    def depth(self) -> int:
        """Records with something to write or being written."""
        return len(self._jobs)

    @property
    def busy(self) -> int:
        """Writes handed out and not answered."""
        return self._busy

    def create(self, record: SyncRecord, now: float) -> None:
        """The record must exist before its object is sent; creates are due at once.

        A delete that is planned is carried out first: the old record says of an object that has left the node and
        comes back that it is there.
        """
        job = self._job(record)
        job.create = True
        job.late = False
        if job.delete:
            job.record = record
        if job.busy is None:
            self._queue(job, now)

    def acknowledged(self, record: SyncRecord, version: str, now: float) -> None:
        """The node acknowledged `version`; due soon, or `interval` after the record's last write.

        It never lowers what was recorded.
        """
        self.stats.acknowledged += 1
        newest = parse_version(version)
        if newest <= parse_version(record.version):
            return
        job = self._job(record)
        if job.delete or newest <= parse_version(job.version):
            return
        job.version = version
        self._schedule(job, now)

    def spend(self, now: float) -> bool:
        """Whether a version that may as well stay unrecorded can be recorded now: a bucket of two seconds' rate."""
        if not self._rate:
            return True
        self._tokens = min(2 * self._rate, self._tokens + max(0.0, now - self._tokens_at) * self._rate)
        self._tokens_at = now
        if self._tokens < 1:
            self.stats.acknowledged += 1
            self.stats.unrecorded += 1
            return False
        self._tokens -= 1
        return True

    def catch_up(self, record: SyncRecord, version: str, now: float) -> None:
        """Record what a node that is gone had acknowledged, at `rate`; it may be back before."""
        job = self._job(record)
        if job.delete or parse_version(version) <= parse_version(job.version):
            return
        job.version = version
        if job.busy is None and job.entry == 0:
            job.late = not job.create
            due = max(now + self._interval, self._next_late)
            self._next_late = due + (1 / self._rate if self._rate else 0.0)
            self._queue(job, due)

    def deleted(self, record: SyncRecord, now: float) -> None:
        """The node acknowledged the delete (or the record is moot); due within `interval`."""
        job = self._job(record)
        job.create, job.version, job.delete = False, "", True
        self._schedule(job, now)

    def forget(self, key: SyncKey) -> bool:
        """Plan nothing more for `key`: its node joins anew, and `reset_plan` is about to be carried out.

        False while a write of it is on its way: it could land after the reset. Ask again once that is answered.
        """
        job = self._jobs.get(key)
        if job is None:
            return True
        job.entry = 0
        job.create, job.version, job.delete = False, "", False
        if job.busy is None:
            del self._jobs[key]
        return job.busy is None

    def pending(self, key: SyncKey) -> bool:
        """Whether something is still to be written for `key`."""
        return key in self._jobs

    def deadline(self) -> float | None:
        """When `take` has something next."""
        due: list[float] = []
        if self._busy < 2 * self._batch and _prune(self._urgent):
            due.append(self._urgent[0][0])
        if self._busy < self._batch and _prune(self._later):
            due.append(self._later[0][0])
        return min(due, default=None)

    def take(self, now: float) -> list[SyncWrite]:
        """The writes that are due; each must be answered with `done` or `failed`.

        At most a batch is outstanding, creates may use a second one so that statuses do not hold up deliveries.
        """
        writes: list[SyncWrite] = []
        for queue, room in ((self._urgent, 2 * self._batch), (self._later, self._batch)):
            while self._busy < room and _prune(queue) and queue[0][0] <= now:
                job = heapq.heappop(queue)[2]
                job.entry = 0
                job.busy = self._next_write(job)
                self._busy += 1
                self.stats.writes += 1
                writes.append(job.busy)
        return writes

    def done(self, write: SyncWrite, now: float) -> None:
        """`write` is in the API server."""
        job = self._release(write)
        if job is None:
            return
        job.failures = 0
        if isinstance(write, CreateSync):
            job.create = False
        elif isinstance(write, RecordSync):
            if job.version == write.version:
                job.version = ""
            self._recent.pop(write.key, None)
            self._recent[write.key] = now
        else:
            job.delete = False
        self._carry_on(job, now)

    def failed(self, write: SyncWrite, code: int, now: float) -> bool:
        """`write` was answered with HTTP `code` (0: unreachable); True: it is planned again.

        A status for a missing record creates it again. Anything the API server will refuse for ever (403 aside,
        since an administrator may still grant it) is dropped: the periodic reconcile comes back to it.
        """
        job = self._release(write)
        if job is None:
            return False
        self.stats.failures += 1
        if not job.wanted:  # forgotten meanwhile
            self._carry_on(job, now)
            return False
        again = True
        if code == 404 and isinstance(write, RecordSync) and not job.late:
            job.create = not job.delete
        elif code not in _RETRY_SOON and code not in (401, 403):
            self.stats.abandoned += 1
            again = False
            job.create = job.delete = False
            job.version = ""
        pause = min(self._retry * 2**job.failures, self._retry_max)
        job.failures = min(job.failures + 1, 16)
        self._carry_on(job, now, pause)
        return again

    def _job(self, record: SyncRecord) -> _Job:
        job = self._jobs.get(record.key)
        if job is None:
            job = self._jobs[record.key] = _Job(record)
        return job

    def _schedule(self, job: _Job, now: float) -> None:
        # Counted from the first change, so that a steady stream of versions cannot put the write off for ever.
        if job.busy is not None:
            return
        due = self._due(job, now)
        if job.entry == 0 or (job.late and due < job.due):
            job.late = False
            self._queue(job, due)

    def _due(self, job: _Job, now: float) -> float:
        """Soon when the record has been left alone for a while, else `interval` after its last write."""
        recent = self._recent
        while recent and next(iter(recent.values())) <= now - self._interval:
            del recent[next(iter(recent))]
        last = recent.get(job.record.key, now - self._interval)
        return max(now + self._interval / _SOON, last + self._interval)

    def _queue(self, job: _Job, due: float) -> None:
        self._tick += 1
        job.entry, job.due = self._tick, due
        heapq.heappush(self._urgent if job.create else self._later, (due, self._tick, job))

    def _release(self, write: SyncWrite) -> _Job | None:
        job = self._jobs.get(write.key)
        if job is None or job.busy is not write:
            return None
        job.busy = None
        self._busy -= 1
        return job

    def _carry_on(self, job: _Job, now: float, pause: float = 0.0) -> None:
        if not job.wanted:
            self._jobs.pop(job.record.key, None)
            return
        self._queue(job, now + (pause or (0.0 if job.create else self._interval)))

    @staticmethod
    def _next_write(job: _Job) -> SyncWrite:
        if job.delete:
            return DeleteSync(job.record.key)
        if job.create:
            return CreateSync(job.record)
        return RecordSync(job.record.key, job.version)


def _prune(queue: list[tuple[float, int, _Job]]) -> bool:
    """Drop entries that were queued again since; tell whether a live one is at the front."""
    while queue and queue[0][2].entry != queue[0][1]:
        heapq.heappop(queue)
    return bool(queue)
