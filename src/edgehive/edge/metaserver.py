"""MetaServer: the Kubernetes API on the edge's own loopback address, online and offline.

This module is what edgecore always loads of it: the listener, the replica and what the cloud sends into it. The rest
comes with the first request.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgehive.aio.http import HttpServer, Request, Response
from edgehive.edge.metaserver_listen import Listening
from edgehive.edge.metaserver_store import Replica
from edgehive.edge.metaserver_sync import Follower, Link, Scope
from edgehive.edge.runtime import Runtime
from edgehive.edge.store import EdgeStore
from edgehive.kit.errors import Transient
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.meta import decode_partial
from edgehive.kube.refs import GVR
from edgehive.wire import classify as cls
from edgehive.wire import resource as res
from edgehive.wire.application import ResourceKey
from edgehive.wire.kinds import kind_to_resource
from edgehive.wire.message import DELETE, INSERT, UPDATE, Message, Stamp, content_data

if TYPE_CHECKING:
    from edgehive.edge.metaserver_auth import Gate
    from edgehive.edge.metaserver_certificate import ServingCertificate
    from edgehive.edge.metaserver_extend import LocalPods, SetDevice
    from edgehive.edge.metaserver_face import MetaFace
    from edgehive.edge.metaserver_queue import WriteQueue

log = logging.getLogger(__name__)

_EDGED = frozenset(
    {
        res.POD,
        res.CONFIGMAP,
        res.SECRET,
        res.NODE,
        res.PERSISTENT_VOLUME,
        res.PERSISTENT_VOLUME_CLAIM,
        res.VOLUME_ATTACHMENT,
        res.DEVICE,
        res.DEVICE_MODEL,
        res.SERVICE_ACCOUNT_ACCESS,
    }
)
"""Types that other parts of edgecore read in the table ``meta``."""


class MetaServer:
    """The server; `inject` and `takes` are MetaManager's, `run` is a service."""

    def __init__(
        self,
        *,
        listening: Listening,
        node: str,
        store: EdgeStore,
        link: Link,
        stamp: Stamp,
        runtime: Runtime | None,
        pod: Callable[[str, str], bytes | None],
        gate: "Gate | None" = None,
        certificate: "ServingCertificate | None" = None,
        queue: "Callable[[MetaServer], WriteQueue] | None" = None,
        device: "SetDevice | None" = None,
    ) -> None:
        """Take what it needs; `gate` and `certificate` where `listening` is secure."""
        assert listening.secure == (gate is not None) == (certificate is not None), "all of it or nothing"
        self._listening = listening
        self.gate = gate
        self._device = device
        self._certificate = certificate
        self._runtime = runtime
        self._pod = pod
        self._face: MetaFace | None = None
        self.local_pods: LocalPods | None = None
        """Set before the first request, where pods are run here."""
        self.replica = Replica(store)
        self.follower = Follower(
            node=node,
            link=link,
            replica=self.replica,
            stamp=stamp,
            selects=_everything,
            now=time.monotonic,
            wall=time.time,
        )
        self.port = listening.addresses[0][1]
        self.listening = asyncio.Event()
        """Set once it answers."""
        self.queue = queue(self) if queue is not None else None
        if self.queue is not None:
            link.on_connection(self._connection_changed)

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            Transient: the address cannot be had now.
        """
        certificate = self._certificate
        server = HttpServer(
            self.handle,
            name="metaserver",
            max_connections=512,
            tls=certificate.context if certificate is not None else None,
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.follower.run(), name="metaserver-follower")
                if self.queue is not None:
                    group.create_task(
                        self.queue.run(lambda: self.follower.connected), name="metaserver-queue"
                    )
                if certificate is not None:
                    await certificate.ensure()
                    group.create_task(certificate.run(), name="metaserver-certificate")
                for number, (host, port) in enumerate(self._listening.addresses):
                    bound = await self._listen(server, host, port)
                    self.port = self.port if number else bound
                group.create_task(server.run(), name="metaserver-http")
                self.listening.set()
        finally:
            await server.close()  # if it was not even run

    @staticmethod
    async def _listen(server: HttpServer, host: str, port: int) -> int:
        try:
            bound = await server.listen(host, port)
        except OSError as exc:
            raise Transient(f"MetaServer cannot listen on {host}:{port}: {exc.strerror}") from exc
        log.info("MetaServer listens on %s:%d", host, bound)
        return bound

    async def handle(self, request: Request) -> Response:
        """Answer one request; raises `ApiStatus`."""
        if self._face is None:
            self._face = self._load()
        return await self._face.handle(request)

    def _connection_changed(self, up: bool) -> None:
        if up and self.queue is not None:
            self.queue.connected()

    def _load(self) -> "MetaFace":
        from edgehive.edge.metaserver_extend import Extensions
        from edgehive.edge.metaserver_face import MetaFace

        extensions = Extensions(
            runtime=self._runtime,
            pod=self._pod,
            node=self.follower.node,
            local=self.local_pods,
            device=self._device,
        )
        return MetaFace(
            follower=self.follower,
            replica=self.replica,
            extensions=extensions,
            now=time.monotonic,
            gate=self.gate,
            queue=self.queue,
        )

    # what the cloud sends

    def takes(self, message: Message) -> bool:
        """Whether `message` is for the replica alone."""
        if message.source != cls.DYNAMIC_CONTROLLER:
            return False
        target = res.find_resource(message.resource)
        return target is not None and target.type not in _EDGED

    def inject(self, message: Message) -> None:
        """Keep the object of a message from the cloud; durable on return, idempotent.

        Raises:
            StorageError: the disk refused.
            ProtocolError: the content is not JSON.
        """
        if message.operation not in (INSERT, UPDATE, DELETE):
            return
        raw = content_data(message.content)
        try:
            partial = decode_partial(raw)
        except MALFORMED:
            return
        meta = partial.metadata
        if not (partial.kind and partial.api_version and meta.name):
            return  # bare metadata names no resource
        gvr = self._resource(partial.api_version, partial.kind)
        if message.operation == DELETE:
            self.replica.remove(ResourceKey(gvr, meta.namespace, meta.name), raw, meta.uid)
        else:
            self.replica.put(gvr, [raw], late=True)

    def _resource(self, api_version: str, kind: str) -> GVR:
        group, _, version = api_version.rpartition("/")
        if self._face is not None:
            known = self._face.catalog.of_kind(group, version, kind)
            if known is not None:
                return known
        return GVR(group, version, "leases" if kind == "Lease" else kind_to_resource(kind))


def _everything(_scope: Scope) -> Callable[[bytes], bool]:
    return lambda _: True
