"""edgecore, assembled by hand: every part is made once, here, and given what it needs."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgehive import __version__
from edgehive.aio.supervise import Service, supervise
from edgehive.beehive.hive import Hive, Module
from edgehive.edge.app_pods import hierarchy, kubelet_api, pod_cgroups, set_up_network, uses_process
from edgehive.edge.config import EdgeCoreConfig
from edgehive.edge.config_load import (
    bootstrap_file,
    forget_token,
    parse_duration,
    read_token,
    split_address,
)
from edgehive.edge.enroll import Enroller, Identity, client_context
from edgehive.edge.events import EventReporter
from edgehive.edge.hub import EdgeHub, Endpoint
from edgehive.edge.hub_routes import META, Routes
from edgehive.edge.metamanager import MetaManager
from edgehive.edge.node import NodeAgent, NodeTimers
from edgehive.edge.node_api import LocalHttp
from edgehive.edge.node_probe import NodeProbe, interface_address, local_address, running_kubelet
from edgehive.edge.node_status import NodeSettings, kubelet_version, node_images, sum_reserved
from edgehive.edge.plugins import NodePlugins
from edgehive.edge.pods_config import pod_settings
from edgehive.edge.pods_settings import NodeFacts
from edgehive.edge.runtime import Runtime
from edgehive.edge.store import EdgeStore
from edgehive.kit.errors import UserError
from edgehive.wire.edgelink import EdgeLink, LinkOptions
from edgehive.wire.message import Message
from edgehive.wire.outbox import Outbox

if TYPE_CHECKING:
    from edgehive.edge.kubelet_api import KubeletApi
    from edgehive.edge.metaserver import MetaServer
    from edgehive.edge.stream import EdgeStream

log = logging.getLogger(__name__)

_DEAD_AFTER = 30.0
"""Seconds of silence, pongs included, after which the cloud is given up; the cloud gives an edge as long."""

_PROCESS = "process://"
_CONTAINERD_IMAGES = Path("/var/lib/containerd")


def new_id() -> str:
    """A version 4 UUID (the `uuid` module costs more memory than this function)."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _random() -> float:
    """A float in [0, 1) (the `random` module costs memory, too)."""
    return int.from_bytes(os.urandom(7), "big") / (1 << 56)


def stamp() -> tuple[str, int]:
    """The id and the time (milliseconds) of a new message."""
    return new_id(), time.time_ns() // 1_000_000


class EdgeCore:
    """One edge node. `on_ready` is called once everything local works, connected or not."""

    def __init__(
        self,
        config: EdgeCoreConfig,
        *,
        config_file: Path | None = None,
        on_ready: Callable[[str], None] = lambda status: None,
    ) -> None:
        self._config = config
        self._config_file = config_file
        self._on_ready = on_ready
        self._edged = config.modules.edged
        self._kubelet = config.modules.edged.tailored_kubelet_config
        self._hub_config = config.modules.edge_hub
        self._node = self._edged.hostname_override
        self._identity: Identity | None = None
        self._gauges: dict[str, Callable[[], float]] = {}
        self._api_for_pods = ("", "")
        self._metaserver_part: MetaServer | None = None

    async def run(self) -> None:
        """Run until cancelled.

        Raises:
            UserError: the configuration or the join token is wrong.
            StorageError: the database cannot be opened.
        """
        _shrink_tls_buffers()
        self._name_absent_modules()
        interface = self._edged.custom_interface_name
        if interface and not interface_address(interface):
            raise UserError(f"modules.edged.customInterfaceName: {interface} has no IPv4 address")
        async with contextlib.AsyncExitStack() as stack:
            store = EdgeStore(Path(self._config.database.data_source))
            stack.callback(store.close)
            runtime = self._runtime()
            stack.push_async_callback(runtime.close)
            await supervise(*self._services(store, runtime))

    def _name_absent_modules(self) -> None:
        """Say which enabled parts of KubeEdge's edgecore this one does not have: silence would mislead."""
        modules = self._config.modules
        asked = {
            "serviceBus": modules.service_bus.enable,
            "taskManager": modules.task_manager.enable,
        }
        absent = [name for name, enabled in asked.items() if enabled]
        if absent:
            log.warning("enabled, but not part of this edgecore: %s", ", ".join(absent))

    def _services(self, store: EdgeStore, runtime: Runtime) -> list[Service]:
        hive: Hive[Message] = Hive()
        outbox = Outbox(store=store)
        hub = self._hub(outbox, Routes(hive))
        events = EventReporter(
            node=self._node,
            send=hub.send_once,
            stamp=stamp,
            wall=time.time,
            rate=float(self._kubelet.event_record_qps),
            burst=float(self._kubelet.event_burst),
            enabled=self._edged.report_event,
        )
        meta = MetaManager(
            node=self._node,
            store=store,
            cloud=hub,
            stamp=stamp,
            wall=time.time,
            query_timeout=float(self._config.modules.meta_manager.remote_query_timeout),
            forward_twin=lambda message: _broadcast(hive, "twin", message),
            report_event=events.report,
        )
        hive.add(Module("metamanager", meta.receive, frozenset({META})))
        services = [Service("modules", hive.run)]
        if self._config.modules.meta_manager.meta_server.enable:
            services.append(self._metaserver(store, hub, meta, runtime))
        if self._config.modules.device_twin.enable or self._config.modules.event_bus.enable:
            services += self._device_services(store, hub, hive)
        if self._hub_config.enable:
            services.append(Service("hub", lambda: self._run_hub(hub)))
        if self._edged.enable:
            services += self._edged_services(hub, meta, runtime, outbox)

        async def announce() -> None:
            meta.announce()
            self._on_ready(f"node {self._node} is running")

        # Last, so that everybody has subscribed.
        return [*services, Service("announce", announce, once=True)]

    def _metaserver(self, store: EdgeStore, hub: EdgeHub, meta: MetaManager, runtime: Runtime) -> Service:
        """The local Kubernetes API; not even imported where it is off."""
        from edgehive.edge.app_metaserver import build_metaserver

        self._metaserver_part, self._api_for_pods = build_metaserver(
            self._config,
            store=store,
            hub=hub,
            meta=meta,
            runtime=runtime if self._edged.enable else None,
            stamp=stamp,
            rng=_random,
            gauges=self._gauges,
        )
        return Service("metaserver", self._metaserver_part.run)

    def _device_services(self, store: EdgeStore, hub: EdgeHub, hive: Hive[Message]) -> list[Service]:
        """Device twin, mappers and MQTT; not even imported where all are off."""
        from edgehive.edge.app_devices import Parts, device_services

        parts = Parts(
            config=self._config,
            node=self._node,
            store=store,
            hub=hub,
            hive=hive,
            stamp=stamp,
            rng=_random,
            gauges=self._gauges,
        )
        return device_services(parts)

    # the link

    def _hub(self, outbox: Outbox, routes: Routes) -> EdgeHub:
        config = self._hub_config
        host, port = split_address(config.websocket.server)
        link = EdgeLink(
            now=time.monotonic(),
            stamp=stamp,
            rng=_random,
            outbox=outbox,
            options=LinkOptions(
                heartbeat=float(config.heartbeat),
                dial_timeout=float(config.websocket.handshake_timeout),
                dead_after=max(_DEAD_AFTER, 2.0 * config.heartbeat),
                rate=float(config.message_qps),
                burst=config.message_burst,
            ),
        )
        return EdgeHub(
            endpoint=Endpoint(
                host=host,
                port=port,
                project=config.project_id,
                node=self._node,
                handshake_timeout=float(config.websocket.handshake_timeout),
                write_deadline=float(config.websocket.write_deadline),
            ),
            link=link,
            tls=lambda: self._require_identity().client_context(),
            now=time.monotonic,
            stamp=stamp,
            route=routes,
        )

    def _require_identity(self) -> Identity:
        assert self._identity is not None, "the hub runs only with an identity"
        return self._identity

    async def _run_hub(self, hub: EdgeHub) -> None:
        enroller = Enroller(node=self._node, config=self._hub_config, now=time.time, rng=_random)
        bootstrap = bootstrap_file()
        token = read_token(self._config, bootstrap)
        self._identity, used = await enroller.ensure(token)
        if used:
            log.info("joined as %s", self._node)
            self._forget_token(token, bootstrap)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hub.run(), name="hub-link")
            if self._hub_config.rotate_certificates:
                tasks.create_task(
                    enroller.run_rotation(self._identity, lambda: hub.reconnect("a new certificate")),
                    name="hub-certificate",
                )

    def _forget_token(self, token: str, bootstrap: Path) -> None:
        """A used token is not left lying about; a copy that cannot be removed is said so."""
        if (
            self._config_file is not None
            and self._hub_config.token
            and not forget_token(self._config_file, token)
        ):
            log.warning("the used token is still in %s; remove it", self._config_file)
        with contextlib.suppress(OSError):
            if bootstrap.read_text(encoding="utf-8").strip() == token:
                bootstrap.unlink()

    # edged

    def _edged_services(
        self, hub: EdgeHub, meta: MetaManager, runtime: Runtime, outbox: Outbox
    ) -> list[Service]:
        from edgehive.edge.pods_manager import PodManager

        plugins = NodePlugins(Path(self._edged.root_directory))
        agent = self._agent(hub, meta, runtime, plugins)
        machine = agent.machine
        cgroups = pod_cgroups(self._edged, self._probe(), machine)
        api = self._api_for_pods
        pods = PodManager(
            runtime=runtime,
            meta=meta,
            node=NodeFacts(
                name=self._node,
                ip=self._address(),
                cpu=float(machine.cores),
                memory=machine.memory,
            ),
            settings=replace(
                pod_settings(self._edged, cgroups.rules), service_host=api[0], service_port=api[1]
            ),
            levels=self._probe().levels,
            cgroups=cgroups,
            plugins=plugins,
        )
        services = [Service("node", agent.run), Service("pods", pods.run)]

        def kubelet() -> "KubeletApi":
            return kubelet_api(runtime, pods, self._edged, self._probe())

        if self._metaserver_part is not None:
            from edgehive.edge.app_metaserver import serve_pods

            serve_pods(self._metaserver_part, kubelet, pods)
        if self._edged.default_pod_network == "bridge" and not uses_process(self._edged):
            services.append(Service("pod network", lambda: set_up_network(self._edged, runtime), once=True))
        if self._kubelet.read_only_port:
            http = LocalHttp(
                host=self._kubelet.address,
                port=self._kubelet.read_only_port,
                pods=meta,
                gauges={
                    "edgehive_cloud_connected": lambda: float(hub.connected),
                    "edgehive_node_registered": lambda: float(agent.registered),
                    "edgehive_pods": lambda: float(len(meta.pods())),
                    "edgehive_outbox_messages": lambda: float(len(outbox)),
                    **self._gauges,
                },
                kubelet=kubelet(),
            )
            services.append(Service("http", http.run))
            if self._config.modules.edge_stream.enable:
                services.append(Service("tunnel", self._stream(hub).run))
        return services

    def _stream(self, hub: EdgeHub) -> "EdgeStream":
        """The tunnel for logs and exec; not even imported where it is off."""
        from edgehive.edge.stream import EdgeStream, StreamSettings

        config = self._config.modules.edge_stream
        host, port = split_address(config.server)
        return EdgeStream(
            settings=StreamSettings(
                host=host,
                port=port,
                node=self._node,
                local_port=self._kubelet.read_only_port,
                handshake_timeout=float(config.handshake_timeout),
            ),
            tls=lambda: client_context(
                Path(config.tls_tunnel_ca_file),
                Path(config.tls_tunnel_cert_file),
                Path(config.tls_tunnel_private_key_file),
            ),
            address=lambda: self._address(hub.local_address),
            rng=_random,
        )

    def _agent(self, hub: EdgeHub, meta: MetaManager, runtime: Runtime, plugins: NodePlugins) -> NodeAgent:
        kubelet, edged = self._kubelet, self._edged

        async def runtime_version() -> tuple[str, str]:
            version = await runtime.version()
            problem = "" if edged.default_pod_network == "host" else await runtime.network_problem()
            return f"{version.name}://{version.version}", problem

        async def images() -> list[dict[str, Any]]:
            return node_images(await runtime.list_images(), kubelet.node_status_max_images)

        return NodeAgent(
            settings=NodeSettings(
                name=self._node,
                labels=edged.node_labels,
                taints=tuple(kubelet.register_with_taints),
                schedulable=edged.register_schedulable,
                kubelet_version=kubelet_version(__version__),
                kubelet_port=kubelet.read_only_port,
                max_pods=kubelet.max_pods,
                pods_per_core=kubelet.pods_per_core,
                reserved=sum_reserved((kubelet.kube_reserved, kubelet.system_reserved)),
                eviction_hard=kubelet.eviction_hard,
                pressure_transition=parse_duration(kubelet.eviction_pressure_transition_period),
                register=kubelet.register_node,
            ),
            probe=self._probe(),
            api=meta,
            connection=hub,
            runtime_version=runtime_version,
            address=lambda: self._address(hub.local_address),
            wall=time.time,
            rng=_random,
            plugins=plugins,
            images=images if kubelet.node_status_max_images else None,
            timers=NodeTimers(
                status=parse_duration(kubelet.node_status_update_frequency),
                report=parse_duration(kubelet.node_status_report_frequency),
                lease_duration=kubelet.node_lease_duration_seconds,
            ),
        )

    def _probe(self) -> NodeProbe:
        processes = uses_process(self._edged)
        return NodeProbe(
            storage=Path(self._edged.root_directory),
            images=_CONTAINERD_IMAGES if not processes and _CONTAINERD_IMAGES.is_dir() else None,
            own_limits=processes,
        )

    def _address(self, connected_from: str = "") -> str:
        """The node's InternalIP: the configured one, that of the configured interface, or the one towards the cloud.

        `connected_from` is the address the link really uses; before there is a link it is a guess.
        """
        interface = self._edged.custom_interface_name
        return (
            self._edged.node_ip
            or (interface_address(interface) if interface else "")
            or connected_from
            or local_address(split_address(self._hub_config.websocket.server)[0])
        )

    def _runtime(self) -> Runtime:
        """The runtime named by ``containerRuntimeEndpoint``; the other one is not even imported."""
        endpoint = self._kubelet.container_runtime_endpoint
        if endpoint.startswith(_PROCESS):
            from edgehive.edge.process import ProcessRuntime

            home = endpoint.removeprefix(_PROCESS) or Path(self._edged.root_directory) / "process"
            return ProcessRuntime(
                state_directory=Path(home),
                node_ip=self._address(),
                version=__version__,
                clock=time.time,
                new_id=new_id,
                cgroups=hierarchy(self._edged, self._probe()),
            )
        from edgehive.edge.cri import CriRuntime

        self._refuse_beside_kubelet()
        return CriRuntime(endpoint=endpoint, node_ip=self._address())

    def _refuse_beside_kubelet(self) -> None:
        """Two kubelets on one container runtime remove each other's containers."""
        if os.environ.get("CHECK_EDGECORE_ENVIRONMENT", "").lower() == "false":
            return
        other = running_kubelet()
        if other:
            raise UserError(
                f"a kubelet runs on this machine (process {other}); it would fight over the containers",
                hint="stop it, or set CHECK_EDGECORE_ENVIRONMENT=false if it uses another runtime",
            )


def _shrink_tls_buffers() -> None:
    """Read TLS in pieces of 16 KiB: asyncio sets a quarter of a megabyte aside for every connection."""
    from asyncio import sslproto

    if hasattr(sslproto.SSLProtocol, "max_size"):
        sslproto.SSLProtocol.max_size = 16 << 10


async def _broadcast(hive: Hive[Message], group: str, message: Message) -> None:
    if not await hive.broadcast(group, message, sender="metamanager"):
        log.debug("no module of group %s", group)
