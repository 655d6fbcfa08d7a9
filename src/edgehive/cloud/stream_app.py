"""The ports for logs and exec, wired together."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from edgehive.aio.http import HttpServer
from edgehive.aio.supervise import Service
from edgehive.cloud.config import CloudCoreConfig
from edgehive.cloud.pki import CloudKeys
from edgehive.cloud.startup import port_error
from edgehive.cloud.stream_server import StreamServer
from edgehive.cloud.stream_siblings import Session, Siblings
from edgehive.cloud.stream_tunnel import TunnelServer
from edgehive.cloud.tls import stream_context, stream_keys, tunnel_context


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Which of several workers this is, and the folder that they share."""

    index: int
    folder: Path


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
    node_of: Callable[[str, str], str | None],
    worker: WorkerPlace | None,
) -> Streams:
    """Bind the tunnel for edges and the stream server for the API server, on the hub's address.

    Raises:
        UserError: a port cannot be had.
    """
    settings, host = config.modules.cloud_stream, config.modules.cloud_hub.websocket.address
    shared = worker is not None
    tunnels = TunnelServer(tls=tunnel_context(keys.server, keys.ca.cert_pem))
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
    server, clients = stream_keys(settings, keys, kubernetes_ca)
    handler = StreamServer(find=find, new_id=tunnels.new_id, node_of=node_of)
    stream = HttpServer(handler.handle, name="stream", tls=stream_context(server, clients))
    try:
        stream_port = await stream.listen(host, settings.stream_port, shared=shared)
    except OSError as exc:
        raise port_error("stream", host, settings.stream_port, exc) from exc
    return Streams(tunnel_port, stream_port, (*services, Service("stream", stream.run)))
