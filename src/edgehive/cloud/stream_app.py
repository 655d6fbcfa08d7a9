"""The ports for logs and exec, wired together."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgehive.aio.gate import GateLimits
from edgehive.aio.http import HttpServer
from edgehive.aio.rawhttp import SocketStream
from edgehive.aio.supervise import Service
from edgehive.cloud.config import CloudCoreConfig
from edgehive.cloud.pki import CloudKeys
from edgehive.cloud.startup import persist, port_error
from edgehive.cloud.stream_access import StreamAccess
from edgehive.cloud.stream_server import StreamServer
from edgehive.cloud.stream_siblings import Session, Siblings
from edgehive.cloud.stream_tunnel import TunnelServer
from edgehive.cloud.tls import stream_context, stream_keys, tunnel_context
from edgehive.kube.api import KubeApi

if TYPE_CHECKING:
    from edgehive.cloud.stream_ports import NodePorts


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Which of several workers this is, and the folder that they share."""

    index: int
    folder: Path


@dataclass(frozen=True, slots=True)
class StreamCluster:
    """What is known of the cluster: its API, under which address this cloudcore is known in it, pods and nodes."""

    api: KubeApi
    address: str
    node_of: Callable[[str, str], str | None]
    raw_node: Callable[[str], bytes | None]
    instance_of: Callable[[str], str]
    """The address of the other cloudcore that a node (by name or address) is connected to, or ""."""


@dataclass(frozen=True, slots=True)
class Streams:
    """The two ports that were bound, and what serves them."""

    tunnel_port: int
    stream_port: int
    services: tuple[Service, ...]


async def open_streams(
    config: CloudCoreConfig,
    *,
    keys: CloudKeys,
    kubernetes_ca: str,
    cluster: StreamCluster,
    worker: WorkerPlace | None,
) -> Streams:
    """Bind the tunnel for edges and the stream server for the API server, on the hub's address.

    Raises:
        UserError: a port cannot be had.
    """
    settings, host = config.modules.cloud_stream, config.modules.cloud_hub.websocket.address
    shared = worker is not None
    ports = (
        await _node_ports(cluster, lambda: tunnels.nodes) if config.modules.iptables_manager.enable else None
    )
    tunnels = TunnelServer(
        tls=tunnel_context(keys.server, keys.ca.cert_pem),
        on_open=ports.opened if ports is not None else None,
    )
    try:
        tunnel_port = tunnels.listen(host, settings.tunnel_port, shared=shared)
    except OSError as exc:
        raise port_error("tunnel", host, settings.tunnel_port, exc) from exc
    services = [Service("tunnel", tunnels.run)]
    find: Callable[[str], Awaitable[Session | None]] = tunnels.look_up
    if worker is not None:
        siblings = Siblings(tunnels=tunnels, folder=worker.folder, index=worker.index)
        services.append(Service("tunnels of other workers", siblings.run))
        find = siblings.find

    async def enter(instance: str) -> SocketStream:
        # Another instance is taken to have its stream server at the same port.
        return await SocketStream.connect(instance or _local(host), stream_port)

    server, clients = stream_keys(settings, keys, kubernetes_ca)
    access = StreamAccess(api=cluster.api, now=time.monotonic)
    handler = StreamServer(
        find=find,
        new_id=tunnels.new_id,
        node_of=cluster.node_of,
        access=access,
        enter=enter,
        elsewhere=cluster.instance_of,
    )
    stream = HttpServer(handler.handle, name="stream", tls=stream_context(server, clients), gate=GateLimits())
    try:
        stream_port = await stream.listen(host, settings.stream_port, shared=shared)
    except OSError as exc:
        raise port_error("stream", host, settings.stream_port, exc) from exc
    if ports is not None:
        services.append(Service("kubelet ports", ports.run))
        first = worker is None or worker.index == 0
        if first and config.modules.iptables_manager.mode == "internal":
            from edgehive.cloud.iptables import iptables_services

            services += iptables_services(cluster.api, stream_port)
    return Streams(tunnel_port, stream_port, (*services, Service("stream", stream.run)))


def _local(host: str) -> str:
    """Where what listens at `host` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


async def _node_ports(cluster: StreamCluster, nodes: Callable[[], tuple[str, ...]]) -> "NodePorts":
    """KubeEdge's way for an API server that does not know of the stream server."""
    from edgehive.cloud.stream_ports import NodePorts, PortStore

    port = await persist(lambda: PortStore(api=cluster.api).negotiate(cluster.address))
    return NodePorts(api=cluster.api, port=port, nodes=nodes, lookup=cluster.raw_node)
