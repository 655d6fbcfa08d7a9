"""MetaManager: what this node should be, kept in the local database.

From the cloud: every message is planned by `wire.rows`, written, and only then acknowledged; a disk that
refuses makes an ``error`` and no ACK, so that the cloud sends again. From the node: reads are answered from
the database first; what only the cloud can answer is asked there, and only objects are stored, never errors.
Pod status and pod deletes go through the outbox and survive both a cut link and a restart.
"""

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from edgehive.beehive.hive import Delivery
from edgehive.edge.hub import CONNECT, CONNECTION_RESOURCE
from edgehive.edge.metaclient import (
    Change,
    Failed,
    ObjectCallback,
    Ok,
    PodCallback,
    PodChange,
    Reply,
    offline,
)
from edgehive.edge.metarows import answered_change, is_bound, is_error, is_of_node, pod_change
from edgehive.edge.metatoken import bound_uid, has_token, needs_refresh, token_key
from edgehive.edge.store import EdgeStore
from edgehive.kit.errors import ProtocolError, StorageError, Unreachable
from edgehive.kit.text import safe_label
from edgehive.kube.meta import decode_partial
from edgehive.kube.status import ApiStatus, not_found
from edgehive.wire import classify as cls
from edgehive.wire import resource as res
from edgehive.wire.held import holdings_message
from edgehive.wire.message import DELETE, INSERT, NULL, PATCH, QUERY, UPDATE, Message, Stamp
from edgehive.wire.outbox import Entry, Settled
from edgehive.wire.resource import find_resource, format_resource
from edgehive.wire.rows import (
    Answer,
    Forward,
    Put,
    Remove,
    Row,
    answer_key,
    plan_answer,
    plan_incoming,
    store_failure,
)

log = logging.getLogger(__name__)

_LEASE_NAMESPACE = "kube-node-lease"
_UNKNOWN_QUESTION = 5.0
"""Seconds for what an original cloud does not answer."""


class Cloud(Protocol):
    """What MetaManager asks of the link (`edge.hub.EdgeHub`)."""

    connected: bool
    wants_holdings: bool

    async def request(self, message: Message, timeout: float = 60.0) -> Message: ...
    def send_kept(self, message: Message, *, replace: bool = False) -> Entry: ...
    def send_ack(self, message: Message) -> None: ...
    def send_now(self, message: Message) -> None: ...
    def on_settled(self, callback: Callable[[Settled], None]) -> None: ...


class Inbox(Protocol):
    """The replica of the local Kubernetes API (`edge.metaserver.MetaServer`)."""

    def takes(self, message: Message) -> bool: ...
    def inject(self, message: Message) -> None: ...


async def _nobody(message: Message) -> None:
    log.debug("no device twin here: %s %s", message.operation, safe_label(message.resource))


class MetaManager:
    """The implementation of `edge.metaclient.MetaClient`, and the beehive module ``metamanager``."""

    def __init__(
        self,
        *,
        node: str,
        store: EdgeStore,
        cloud: Cloud,
        stamp: Stamp,
        wall: Callable[[], float],
        query_timeout: float = 60.0,
        forward_twin: Callable[[Message], Awaitable[None]] = _nobody,
        report_event: Callable[[Mapping[str, Any]], None] = lambda event: None,
    ) -> None:
        self._replica: Inbox | None = None
        self._node = node
        self._store = store
        self._cloud = cloud
        self._stamp = stamp
        self._wall = wall
        self._timeout = query_timeout
        self._forward_twin = forward_twin
        self.report_event = report_event
        self._pod_callbacks: list[PodCallback] = []
        self._object_callbacks: list[ObjectCallback] = []
        self._connection_callbacks: list[Callable[[], None]] = []
        self._settling: dict[int, asyncio.Future[Reply]] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        cloud.on_settled(self._on_settled)

    def attach(self, replica: Inbox) -> None:
        """Give `replica` every object from the cloud from now on."""
        self._replica = replica

    # from the cloud

    async def receive(self, delivery: Delivery[Message]) -> None:
        """Take one message of group ``resource`` or ``func``: write, acknowledge, tell."""
        message = delivery.message
        if message.operation == CONNECT and message.resource == CONNECTION_RESOURCE:
            if self._cloud.connected:
                self._connected()
            return
        try:
            stored = self._store.get(message.resource)
            plan = plan_incoming(message, stored)
            self._store.apply(plan.changes)
            if self._replica is not None and not plan.ignored:
                self._replica.inject(message)
        except (StorageError, ProtocolError) as exc:
            self._cannot_keep(message, exc)
            return
        if plan.ack is not None:
            self._cloud.send_ack(plan.ack)
        if plan.ignored:
            log.warning("%s %s: %s", message.operation, safe_label(message.resource), plan.ignored)
        if plan.forward is Forward.TWIN:
            await self._forward_twin(message)
        elif plan.forward is Forward.EDGED:
            self._tell_edged(message, stored)

    def _connected(self) -> None:
        if self._cloud.wants_holdings:
            self._tell_holdings()
        for callback in self._connection_callbacks:
            callback()

    def _tell_holdings(self) -> None:
        """Say what is here. All that came over an earlier connection is in the database by now."""
        try:
            message = holdings_message(self._store.holdings(), stamp=self._stamp)
        except StorageError as exc:
            log.warning("the cloud goes by its own records: %s", exc)
            return
        self._cloud.send_now(message)

    def _replicate(self, replica: Inbox, message: Message) -> None:
        try:
            replica.inject(message)
        except (StorageError, ProtocolError) as exc:
            self._cannot_keep(message, exc)
            return
        if message.operation in (INSERT, UPDATE, DELETE):
            self._cloud.send_ack(message)

    def _cannot_keep(self, message: Message, exc: Exception) -> None:
        what = safe_label(f"{message.operation} {message.resource}")
        log.error("%s cannot be kept, the cloud will send it again: %s", what, exc)
        new_id, timestamp = self._stamp()
        self._cloud.send_now(store_failure(message, str(exc), new_id=new_id, timestamp=timestamp))

    def _tell_edged(self, message: Message, stored: Row | None) -> None:
        target = find_resource(message.resource)
        if target is None or target.namespace is None:
            return
        if target.type == res.POD:
            if (change := pod_change(message, stored, self._node)) is not None:
                self._tell_pods(change)
        elif target.type in (res.CONFIGMAP, res.SECRET, res.VOLUME_ATTACHMENT):
            for callback in self._object_callbacks:
                callback(target.type, target.namespace, target.name)

    def _tell_pods(self, change: PodChange) -> None:
        for callback in self._pod_callbacks:
            callback(change)

    # pods

    @property
    def connected(self) -> bool:
        """Whether the cloud is reachable at this moment."""
        return self._cloud.connected

    def announce(self) -> None:
        """Deliver the first SET: the database is open and everybody has subscribed."""
        self._tell_pods(PodChange(Change.SET))

    def pods(self) -> list[bytes]:
        """Return every pod of this node that the local database holds."""
        return [row.value for row in self._store.rows(res.POD) if is_of_node(row.value, self._node)]

    def pod(self, namespace: str, name: str) -> bytes | None:
        """Return one pod of the local database."""
        row = self._store.get(format_resource(namespace, res.POD, name))
        return row.value if row is not None else None

    def subscribe_pods(self, callback: PodCallback) -> None:
        """Call `callback` for every change of a pod, after it is durable."""
        self._pod_callbacks.append(callback)

    def subscribe_objects(self, callback: ObjectCallback) -> None:
        """Call `callback` when a configmap or secret was changed or deleted."""
        self._object_callbacks.append(callback)

    def subscribe_connection(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the cloud has become reachable."""
        self._connection_callbacks.append(callback)

    async def patch_pod_status(self, namespace: str, name: str, uid: str, status_patch: bytes) -> Reply:
        """Send a status patch through the outbox; a newer one of the same pod replaces it."""
        message = self._message(PATCH, format_resource(namespace, res.PODPATCH, name), _text(status_patch))
        return await self._kept(message, replace=True)

    async def delete_pod(self, namespace: str, name: str, uid: str) -> Reply:
        """Ask for the final delete through the outbox."""
        content = msgspec.json.encode({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}})
        return await self._kept(self._message(DELETE, format_resource(namespace, res.POD, name), content))

    async def create_pod(self, raw: bytes) -> Reply:
        """Create a mirror pod."""
        meta = decode_partial(raw).metadata
        return await self._ask(
            self._message(INSERT, format_resource(meta.namespace, res.POD, meta.name), raw)
        )

    # configuration

    async def configmap(self, namespace: str, name: str) -> Reply:
        """Return a ConfigMap: the local row first, else asked of the cloud and kept."""
        return await self._local_first(format_resource(namespace, res.CONFIGMAP, name))

    async def secret(self, namespace: str, name: str) -> Reply:
        """Return a Secret: the local row first, else asked of the cloud and kept."""
        return await self._local_first(format_resource(namespace, res.SECRET, name))

    async def persistent_volume_claim(self, namespace: str, name: str) -> Reply:
        """Return a PersistentVolumeClaim: the local row once it is bound, else what the cloud has."""
        key = format_resource(namespace, res.PERSISTENT_VOLUME_CLAIM, name)
        return await self._local_first(key, good=is_bound)

    async def persistent_volume(self, name: str) -> Reply:
        """Return a PersistentVolume: the local row first, else asked of the cloud and kept."""
        return await self._local_first(format_resource(None, res.PERSISTENT_VOLUME, name))

    async def volume_attachment(self, name: str) -> Reply:
        """Return a VolumeAttachment: what the cloud has, else the local row."""
        return await self._cloud_first(format_resource("default", res.VOLUME_ATTACHMENT, name))

    async def runtime_class(self, name: str) -> Reply:
        """Return a RuntimeClass: what the cloud has, else the local row."""
        return await self._cloud_first(format_resource(None, res.RUNTIME_CLASS, name), _UNKNOWN_QUESTION)

    async def csi_driver(self, name: str) -> Reply:
        """Return a CSIDriver: what the cloud has, else the local row."""
        return await self._cloud_first(format_resource(None, res.CSI_DRIVER, name), _UNKNOWN_QUESTION)

    async def token(
        self, namespace: str, service_account: str, request: Mapping[str, Any], pod_uid: str
    ) -> Reply:
        """Return a token: the kept one while it is fresh, else a new one, else the kept one all the same."""
        key = token_key(namespace, service_account, request)
        async with self._lock(key):
            try:
                kept = self._store.get(key)
            except StorageError as exc:
                return _internal(exc)
            if kept is not None and not needs_refresh(kept.value, self._wall()):
                return Ok(kept.value)
            reply = await self._ask(
                self._message(
                    QUERY,
                    format_resource(namespace, res.TOKEN, service_account),
                    msgspec.json.encode(request),
                ),
                row_key=key,
            )
        if isinstance(reply, Failed) and kept is not None and has_token(kept.value):
            log.info("no new token for %s/%s now, the kept one stays in use", namespace, service_account)
            return Ok(kept.value)
        return reply

    def forget_tokens(self, pod_uid: str) -> None:
        """Drop the tokens kept for a pod that is gone."""
        if not pod_uid:
            return
        try:
            rows = self._store.rows(res.TOKEN)
            self._store.apply([Remove(row.key) for row in rows if bound_uid(row.value) == pod_uid])
        except StorageError as exc:
            log.warning("tokens of a pod that is gone stay in the database: %s", exc)

    async def _local_first(self, key: str, *, good: Callable[[bytes], bool] = lambda raw: True) -> Reply:
        async with self._lock(key):
            try:
                row = self._store.get(key)
            except StorageError as exc:
                return _internal(exc)
            if row is not None and not is_error(row.value) and good(row.value):
                return Ok(row.value)
            return await self._ask(self._message(QUERY, key, NULL))

    async def _cloud_first(self, key: str, timeout: float = 0.0) -> Reply:
        """What must not be stale while the cloud can be asked; a cloud that does not answer is no answer."""
        async with self._lock(key):
            reply = await self._ask(self._message(QUERY, key, NULL), timeout=timeout)
            if isinstance(reply, Failed) and reply.status.retryable:
                try:
                    row = self._store.get(key)
                except StorageError as exc:
                    return _internal(exc)
                if row is not None and not is_error(row.value):
                    return Ok(row.value)
            return reply

    def _lock(self, key: str) -> asyncio.Lock:
        """One question at a time for one object: the others find its answer in the database."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    # the node

    async def node(self) -> Reply:
        """Return the Node: the local row when there is one, else what the cloud has."""
        return await self._local_first(format_resource(None, res.NODE, self._node))

    async def create_node(self, raw: bytes) -> Reply:
        """Create the Node in the cluster."""
        return await self._ask(self._message(INSERT, format_resource(None, res.NODE, self._node), raw))

    async def patch_node_status(self, patch: bytes) -> Reply:
        """Send a strategic merge patch for the Node's status."""
        resource = format_resource(None, res.NODEPATCH, self._node)
        return await self._ask(self._message(PATCH, resource, _text(patch)))

    async def lease(self) -> Reply:
        """Return the node's Lease from the cloud."""
        return await self._ask(self._message(QUERY, self._lease_resource, NULL))

    async def create_lease(self, raw: bytes) -> Reply:
        """Create the node's Lease."""
        return await self._ask(self._message(INSERT, self._lease_resource, raw))

    async def update_lease(self, raw: bytes) -> Reply:
        """Renew the node's Lease."""
        return await self._ask(self._message(UPDATE, self._lease_resource, raw))

    @property
    def _lease_resource(self) -> str:
        return format_resource(_LEASE_NAMESPACE, res.LEASE, self._node)

    async def set_device(self, namespace: str, name: str, raw: bytes) -> bool:
        """Give the device twin an object that somebody on this node has edited; False when the device is not here."""
        resource = format_resource(namespace, res.DEVICE, name)
        if self._store.get(resource) is None:
            return False
        await self._forward_twin(
            msgspec.structs.replace(self._message(UPDATE, resource, raw), source="metamanager", group="twin")
        )
        return True

    # towards the cloud

    async def ask_object(self, operation: str, resource: str, content: bytes) -> Reply:
        """Ask the cloud for an object of any kind, or hand one in; its answer is kept like any other."""
        return await self._ask(self._message(operation, resource, content))

    def _message(self, operation: str, resource: str, content: bytes) -> Message:
        new_id, timestamp = self._stamp()
        return Message(
            id=new_id,
            timestamp=timestamp,
            operation=operation,
            resource=resource,
            content=content,
            source="edged",
            group="meta",
        )

    async def _ask(self, request: Message, *, row_key: str = "", timeout: float = 0.0) -> Reply:
        """Ask the cloud; keep the object of its answer (under `row_key` if given), then acknowledge."""
        if not self._cloud.connected:
            return offline(f"{request.operation} {request.resource}")
        try:
            answer = await self._cloud.request(request, timeout or self._timeout)
            understood = self._keep(request, answer, row_key)
        except Unreachable as exc:
            return Failed(ApiStatus(503, "ServiceUnavailable", str(exc)))
        except (ProtocolError, StorageError) as exc:
            log.warning("answer to %s %s: %s", request.operation, request.resource, safe_label(str(exc)))
            return _internal(exc)
        if understood.ack:
            self._cloud.send_ack(answer)
        return _reply(understood, request)

    def _keep(self, request: Message, answer: Message, row_key: str = "") -> Answer:
        stored = self._store.get(answer_key(request))
        understood = plan_answer(request, answer, stored)
        if not row_key:
            self._store.apply(understood.changes)
        elif understood.object is not None and has_token(understood.object):
            # The asker's own request is the key; the cloud's answer has it completed with defaults.
            self._store.apply([Put(Row(row_key, res.TOKEN, understood.object))])
        return understood

    async def _kept(self, message: Message, *, replace: bool = False) -> Reply:
        try:
            entry = self._cloud.send_kept(message, replace=replace)
        except StorageError as exc:
            return _internal(exc)
        if entry.replaces is not None:
            self._settle(entry.replaces, Failed(ApiStatus(503, "ServiceUnavailable", "a newer one is kept")))
        if not self._cloud.connected:
            return offline(f"{message.operation} {message.resource} is kept")
        settled: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._settling[entry.sequence] = settled
        try:
            async with asyncio.timeout(self._timeout):
                return await settled
        except TimeoutError:
            return Failed(
                ApiStatus(504, "Timeout", f"no answer yet to {message.operation} {message.resource}")
            )
        finally:
            self._settling.pop(entry.sequence, None)

    def _settle(self, sequence: int, reply: Reply) -> None:
        waiting = self._settling.pop(sequence, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def _on_settled(self, settled: Settled) -> None:
        request = settled.entry.message
        if request.source == cls.TWIN_SOURCE:
            return  # the device twin's: nothing of it is kept here
        before = after = None
        try:
            before = self._store.get(answer_key(request))
            reply = _reply(self._keep(request, settled.answer), request)
            after = self._store.get(answer_key(request))
        except (ProtocolError, StorageError) as exc:
            log.warning("answer to %s %s: %s", request.operation, request.resource, safe_label(str(exc)))
            reply = _internal(exc)
        self._settle(settled.entry.sequence, reply)
        if (change := answered_change(request, before, after)) is not None:
            self._tell_pods(change)


def _text(patch: bytes) -> bytes:
    """Patches travel as a JSON string that holds the patch."""
    return msgspec.json.encode(patch.decode())


def _internal(exc: Exception) -> Failed:
    return Failed(ApiStatus(500, "InternalError", str(exc)))


def _reply(answer: Answer, request: Message) -> Reply:
    if answer.error is not None:
        return Failed(answer.error)
    if request.operation == QUERY and answer.object is None:
        target = find_resource(request.resource)
        return Failed(
            not_found(f"{target.type}s" if target else request.resource, target.name if target else "")
        )
    return Ok(answer.object or b"")
