"""SyncController: writes the ObjectSync records and clears those of nodes that are gone.

What to write and when is planned by `wire.objectsync`; what a node lacks is found by `wire.cloudnode`, at connect and
periodically. Several instances may do this at once: every write is idempotent.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from edgehive.aio.plan import PlanRunner
from edgehive.cloud.world import Caches, SyncRecords
from edgehive.kit.errors import EdgehiveError
from edgehive.kube.api import MERGE_PATCH, KubeApi, WriteOptions
from edgehive.kube.status import ApiStatus
from edgehive.wire.objectsync import (
    CreateSync,
    RecordSync,
    SyncRecord,
    SyncWrite,
    SyncWriter,
    orphaned,
    parse_sync,
    sync_object,
    sync_status_patch,
)

log = logging.getLogger(__name__)

_ORPHAN_PERIOD = 60.0
_DELETE_NOW = b'{"apiVersion":"v1","kind":"DeleteOptions","gracePeriodSeconds":0}'
_NEVER = 422  # an answer after which the same is not tried again


class Nodes(Protocol):
    """The nodes this cloudcore serves."""

    def connected(self, node: str) -> bool:
        """Whether `node` is connected to this instance."""
        ...

    def record_created(self, record: SyncRecord) -> None:
        """The API server has a record that the writer was asked to create."""
        ...

    def record_refused(self, record: SyncRecord) -> None:
        """The API server will not take the record."""
        ...


class SyncController:
    """Carries out the plan of a `SyncWriter`."""

    def __init__(
        self,
        *,
        api: KubeApi,
        writer: SyncWriter,
        caches: Caches,
        records: SyncRecords,
        nodes: Callable[[], Nodes],
    ) -> None:
        self._api = api
        self._writer = writer
        self._caches = caches
        self._records = records
        self._nodes = nodes
        self._runner: PlanRunner[SyncWrite] = PlanRunner(writer, self._carry_out)
        self._answered = asyncio.Event()  # set whenever a write has been answered
        self._suspects: frozenset[str] = frozenset()
        self._failing = False
        self.requests = 0
        """Requests made to the API server, for the metrics."""

    def plan_changed(self) -> None:
        """The writer may have something to write earlier than it had."""
        self._runner.changed()

    async def run(self) -> None:
        """Write what is planned until cancelled."""
        await self._runner.run()

    async def _carry_out(self, write: SyncWrite) -> None:
        loop = asyncio.get_running_loop()
        self.requests += 1
        try:
            await self._write(write)
        except EdgehiveError as exc:
            if isinstance(exc, ApiStatus) and exc.namespace_ends and isinstance(write, CreateSync):
                self._go_without(write, loop.time())
                return
            code = exc.code if isinstance(exc, ApiStatus) else 0
            again = self._writer.failed(write, code, loop.time())
            if code != 404 and not self._failing:
                log.warning(
                    "record %s could not be written: %s%s",
                    write.key.name,
                    exc,
                    "; will try again" if again else "",
                )
            self._failing = self._failing or code != 404
            if isinstance(write, CreateSync) and not again:
                self._nodes().record_refused(write.record)
        else:
            self._failing = False
            self._writer.done(write, loop.time())
            if isinstance(write, CreateSync):
                self._nodes().record_created(write.record)
        self._answered.set()

    def _go_without(self, write: CreateSync, now: float) -> None:
        """Let what waits for a record travel without one: in a namespace that is being deleted none can be made.

        What travels there is that pods are to end, and the namespace stays for as long as they do. (Before Kubernetes
        1.33 the records may go before the pods.)
        """
        self._writer.failed(write, _NEVER, now)
        self._nodes().record_created(write.record)
        self._answered.set()

    async def _write(self, write: SyncWrite) -> None:
        key = write.key
        options = WriteOptions(namespace=key.namespace, field_manager="cloudcore")
        if isinstance(write, CreateSync):
            body = msgspec.json.encode(sync_object(write.record))
            try:
                await self._api.create(key.gvr, body, options)
            except ApiStatus as exc:
                if exc.reason != "AlreadyExists":
                    raise
        elif isinstance(write, RecordSync):
            status = WriteOptions(namespace=key.namespace, field_manager="cloudcore", subresource="status")
            await self._api.patch(key.gvr, key.name, sync_status_patch(write.version), MERGE_PATCH, status)
        else:
            try:
                await self._api.delete(key.gvr, key.name, options, _DELETE_NOW)
            except ApiStatus as exc:
                if exc.code != 404:
                    raise

    async def forget_deliveries(self, node: str) -> None:
        """Set the records of `node` back, so that everything is brought to it again.

        For a node that has joined anew with an empty database. The records themselves stay: deletes that it has
        missed are still found by them.
        """
        records = self._records.of(node)
        while not all([self._writer.forget(record.key) for record in records]):
            self._answered.clear()  # a write on its way must not undo what is done here
            await self._answered.wait()
        for record in records:
            options = WriteOptions(
                namespace=record.key.namespace, field_manager="cloudcore", subresource="status"
            )
            self.requests += 1
            try:
                raw = await self._api.patch(
                    record.key.gvr, record.key.name, sync_status_patch("0"), MERGE_PATCH, options
                )
                self._records.put(parse_sync(raw))  # the node may connect before the watch tells
            except EdgehiveError as exc:
                log.warning("record %s could not be set back: %s", record.key.name, exc)

    async def run_cleanup(self) -> None:
        """Clear the records of nodes that do not exist, at start and periodically, until cancelled."""
        await self._caches.synced()
        while True:
            self.clear_orphans()
            await asyncio.sleep(_ORPHAN_PERIOD)

    def clear_orphans(self) -> None:
        """Clear the records of nodes found missing in two passes: one that is just registering is spared."""
        names = [found.meta.name for found in self._caches.nodes.items()]
        found = [r for r in orphaned(self._records.all(), names) if not self._nodes().connected(r.key.node)]
        self._clear([record for record in found if record.key.node in self._suspects])
        self._suspects = frozenset(record.key.node for record in found)

    def _clear(self, records: list[SyncRecord] | tuple[SyncRecord, ...]) -> None:
        if not records:
            return
        log.info("clearing %d records of nodes that no longer exist", len(records))
        now = asyncio.get_running_loop().time()
        for record in records:
            self._writer.deleted(record, now)
        self._runner.changed()
