"""The edge controller's downward half: turns changes in the cluster into messages for the nodes they concern.

Objects travel as the bytes the API server sent. A message is made once, however many nodes it goes to, and not at
all when none of them is connected here: what an absent node misses is found by comparison when it connects.
"""

import logging
from collections.abc import Iterable
from typing import Final, Protocol

from edgehive.cloud.location import LocationIndex, PodPlace, Reference, pod_node, pod_references, pod_shape
from edgehive.cloud.world import Caches, SyncRecords
from edgehive.kit.errors import ProtocolError
from edgehive.kube.reflector import CachedObject, Change
from edgehive.kube.refs import CONFIGMAPS, SECRETS
from edgehive.wire import resource as res
from edgehive.wire.classify import EDGE_CONTROLLER, RESOURCE_GROUP
from edgehive.wire.message import DELETE, INSERT, UPDATE, Message, Stamp
from edgehive.wire.objectsync import SyncRecord, parse_sync
from edgehive.wire.outbound import Outbound

log = logging.getLogger(__name__)

_OPERATIONS: Final = {"ADDED": INSERT, "MODIFIED": UPDATE, "DELETED": DELETE}


class Recipients(Protocol):
    """The connected nodes."""

    def connected(self, node: str) -> bool:
        """Whether `node` is connected to this instance."""
        ...

    def send(self, node: str, message: Outbound) -> None:
        """Bring `message` to `node`."""
        ...

    def record_changed(self, record: SyncRecord) -> None:
        """A record was added or changed."""
        ...

    def record_gone(self, record: SyncRecord) -> None:
        """A record was deleted."""
        ...

    def node_gone(self, node: str) -> None:
        """The Node object was deleted."""
        ...


class Downstream:
    """Subscribes to the caches and sends."""

    def __init__(
        self,
        *,
        caches: Caches,
        location: LocationIndex,
        records: SyncRecords,
        recipients: Recipients,
        stamp: Stamp,
    ) -> None:
        self._caches = caches
        self._location = location
        self._records = records
        self._to = recipients
        self._stamp = stamp

    def start(self) -> None:
        """Subscribe; what the caches hold already is taken in."""
        self._caches.nodes.subscribe(self._node)
        self._caches.pods.subscribe(self._pod)
        self._caches.configmaps.subscribe(lambda change: self._referenced("configmap", change))
        self._caches.secrets.subscribe(lambda change: self._referenced("secret", change))
        self._caches.syncs.subscribe(self._sync)
        self._caches.cluster_syncs.subscribe(self._sync)

    def send_node(self, node: str) -> None:
        """Bring a node its own Node object, whatever it has."""
        found = self._caches.nodes.get("", node)
        if found is not None:
            self._to.send(node, self._message(found, None, res.NODE, UPDATE))

    def _node(self, change: Change) -> None:
        name = change.object.meta.name
        if change.type == "DELETED":
            self._to.node_gone(name)
        elif self._to.connected(name):
            self._to.send(name, self._message(change.object, None, res.NODE, UPDATE))

    def _pod(self, change: Change) -> None:
        pod = change.object
        if change.type == "DELETED":
            place = self._location.place(pod.key)
            self._location.remove(pod.key)
            node = place.node if place is not None else pod_node(pod.raw)
            if node and self._to.connected(node):
                self._to.send(node, self._message(pod, pod.meta.namespace, res.POD, DELETE))
            return
        node = pod_node(pod.raw)
        if not node:
            return
        place = self._location.place(pod.key)
        shape = pod_shape(pod.raw)
        if place is not None and place.node == node and place.shape == shape and self._same(change):
            return  # only its status changed, and that came from the edge
        references = pod_references(pod.raw, pod.meta.namespace)
        place = PodPlace(node, references, shape, pod.meta.resource_version)
        added = self._location.put(pod.key, place)
        if not self._to.connected(node):
            return
        self._send_references(node, added)
        fresh = change.type == "ADDED" and pod.meta.deletion_timestamp is None
        self._to.send(node, self._message(pod, pod.meta.namespace, res.POD, INSERT if fresh else UPDATE))

    @staticmethod
    def _same(change: Change) -> bool:
        return change.old is None or change.new is None or change.old.meta.uid == change.new.meta.uid

    def _send_references(self, node: str, references: Iterable[Reference]) -> None:
        """Bring what a new pod needs ahead of it, so that the edge has it even if the link fails now."""
        for kind, namespace, name in references:
            found = self._caches.of(CONFIGMAPS if kind == "configmap" else SECRETS).get(namespace, name)
            if found is not None:
                self._to.send(node, self._message(found, namespace, kind, UPDATE))

    def _referenced(self, kind: str, change: Change) -> None:
        found = change.object
        reference: Reference = (
            "configmap" if kind == "configmap" else "secret",
            found.meta.namespace,
            found.meta.name,
        )
        nodes = [node for node in self._location.nodes(reference) if self._to.connected(node)]
        if not nodes:
            return
        operation = _OPERATIONS[change.type]
        if kind == "secret" and operation == INSERT:
            operation = UPDATE  # as the original does
        message = self._message(found, found.meta.namespace, kind, operation)
        for node in nodes:
            self._to.send(node, message)

    def _sync(self, change: Change) -> None:
        try:
            record = parse_sync(change.object.raw)
        except ProtocolError as exc:
            log.debug("ignoring an ObjectSync: %s", exc)
            return
        if change.type == "DELETED":
            self._records.remove(record)
            self._to.record_gone(record)
        else:
            self._records.put(record)
            self._to.record_changed(record)

    def _message(self, found: CachedObject, namespace: str | None, kind: str, operation: str) -> Outbound:
        message_id, timestamp = self._stamp()
        return Outbound(
            Message(
                id=message_id,
                timestamp=timestamp,
                operation=operation,
                resource=res.format_resource(namespace, kind, found.meta.name),
                content=found.raw,
                resource_version=found.meta.resource_version,
                source=EDGE_CONTROLLER,
                group=RESOURCE_GROUP,
            )
        )
