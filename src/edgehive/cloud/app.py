"""cloudcore: everything wired together by hand, and run."""

import asyncio
import datetime
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from edgehive.aio.fewlines import FewLines, host_of
from edgehive.aio.ids import RandomIds
from edgehive.aio.kubeclient import object_path
from edgehive.aio.limits import allow_open_files
from edgehive.aio.supervise import Service, supervise
from edgehive.aio.trim import Trimmer
from edgehive.cloud.access import AccessAudit
from edgehive.cloud.config import CloudCoreConfig
from edgehive.cloud.config_load import local_address, split_address
from edgehive.cloud.crds import ensure_crds
from edgehive.cloud.devicecontroller import DeviceController
from edgehive.cloud.downstream import Downstream
from edgehive.cloud.dynamic import DynamicController, RequestApi, WatchReview
from edgehive.cloud.dynamic_watch import Watches
from edgehive.cloud.events import NodeEvents
from edgehive.cloud.https import EnrollmentApi, LegacyReport
from edgehive.cloud.hub import CloudHub
from edgehive.cloud.impersonation import NOBODY, Impersonation, find_impersonation
from edgehive.cloud.location import LocationIndex
from edgehive.cloud.monitor import CloudMetrics, Monitor
from edgehive.cloud.nodes import NodeSettings, NodeTable, Route
from edgehive.cloud.ownership import Ownership, instance_of
from edgehive.cloud.pki import CloudKeys, CloudPki, TokenKeeper
from edgehive.cloud.policycontroller import PolicyController
from edgehive.cloud.requested import Requested
from edgehive.cloud.secrets import SecretStore
from edgehive.cloud.sessions import SessionDirectory
from edgehive.cloud.startup import AUTHORIZATION, kube_client, kube_config, listen_http, persist, port_error
from edgehive.cloud.stream_app import StreamCluster, WorkerPlace, open_streams
from edgehive.cloud.synccontroller import SyncController
from edgehive.cloud.tls import hub_context
from edgehive.cloud.trace import Tracer
from edgehive.cloud.upstream import EdgeController
from edgehive.cloud.upstream_nodes import NodeRequests
from edgehive.cloud.upstream_objects import ObjectRequests
from edgehive.cloud.upstream_pods import PodRequests
from edgehive.cloud.world import Caches, ClusterView, SyncRecords
from edgehive.kit.text import safe_label
from edgehive.kube.api import KubeApi
from edgehive.wire.application import Application
from edgehive.wire.classify import DEVICE_CONTROLLER, DYNAMIC_CONTROLLER
from edgehive.wire.message import Message
from edgehive.wire.objectsync import SyncWriter
from edgehive.wire.pool import PoolLimits

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_SETTLE = 10.0  # what edges have asked for is waited for at the start, but no longer than this
_OTHER_FILES = 200  # what cloudcore opens besides the connections of edges


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that were bound; 0 where there is none."""

    websocket: int = 0
    https: int = 0
    monitor: int = 0
    tunnel: int = 0
    stream: int = 0


class CloudCore:
    """One cloudcore process."""

    def __init__(
        self,
        config: CloudCoreConfig,
        *,
        on_ready: Callable[[str], None] | None = None,
        api: KubeApi | None = None,
        kubernetes_ca: str = "",
        wall: Callable[[], float] = time.time,
        worker: WorkerPlace | None = None,
        address: str = "",
    ) -> None:
        """Take the configuration; `api`, `kubernetes_ca` and our `address` are found unless they are given.

        A `worker` shares its ports with others of its kind, and has its monitor on a free port of its own.
        """
        self._config: Final = config
        self._on_ready = on_ready
        self._api = api
        self._kubernetes_ca = kubernetes_ca
        self._wall = wall
        self._address = address or local_address()
        self._shared = worker is not None
        self._worker = worker
        self.parts: CloudParts | None = None
        """What this process is made of, once its keys are loaded."""
        self.ports = Ports()
        """Where this process can be reached, once it is ready."""

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            UserError: the configuration does not fit this machine or cluster.
        """
        if self._api is not None:
            await self._run(self._api)
            return
        files, wanted = allow_open_files(), self._config.modules.cloud_hub.node_limit
        if files < wanted + _OTHER_FILES:
            log.warning("%d files may be open: too few for %d nodes (nodeLimit)", files, wanted)
        kube = kube_config(self._config)
        self._kubernetes_ca = kube.ca_pem.decode("ascii", "replace")
        async with kube_client(self._config, kube) as client:
            await self._run(client)

    async def _run(self, api: KubeApi) -> None:
        secrets = SecretStore(api=api)
        pki = CloudPki(secrets=secrets, hub=self._config.modules.cloud_hub, wall=self._wall)
        install, devices = self._config.edgehive.install_crds, self._config.modules.device_controller.enable
        policy = self._config.feature_gates.get(AUTHORIZATION, False)
        await persist(lambda: ensure_crds(api, install=install, devices=devices, policy=policy))
        keys = await persist(pki.load)
        enforced = self._config.modules.cloud_hub.authorization.enforced
        impersonation = await persist(lambda: find_impersonation(api, enforced=enforced))
        self.parts = parts = CloudParts(
            self._config,
            api,
            keys,
            self._kubernetes_ca,
            self._wall,
            address=self._address,
            alone=not self._shared,
            impersonation=impersonation,
        )
        hours = self._config.modules.cloud_hub.token_refresh_duration
        tokens = TokenKeeper(secrets=secrets, ca=keys.ca, refresh_hours=hours, wall=self._wall)
        services = [
            *(Service(f"watch {i.gvr}", i.run) for i in parts.caches.all()),
            Service("nodes", parts.nodes.run),
            Service("records", parts.sync.run),
            Service("requested objects", parts.requested.run),
            Service("join token", tokens.run),
            Service("memory", Trimmer().run),
            *(await self._ports(parts)),
        ]
        if parts.watches is not None:
            services.append(Service("dynamic controller", parts.watches.run))
        if parts.devices is not None:
            services += parts.devices.services()
        if parts.policy is not None:
            services += parts.policy.services()
        if parts.audit is not None:
            services.append(Service("access audit", parts.audit.run))
        if self._config.modules.sync_controller.enable:
            services.append(Service("orphaned records", parts.sync.run_cleanup))
        await supervise(*services)

    async def _ports(self, parts: "CloudParts") -> list[Service]:
        hub = self._config.modules.cloud_hub
        services: list[Service] = []
        https_port = 0
        if hub.enable and hub.https.enable:
            https_port, service = await listen_http(
                "https",
                parts.enrollment.handle,
                (hub.https.address, hub.https.port),
                parts.keys,
                shared=self._shared,
            )
            services.append(service)
        bind = split_address(self._config.common_config.monitor_server.bind_address)
        assert bind is not None, "checked by the configuration"
        if self._shared:
            bind = ("127.0.0.1", 0)
        monitor_port, service = await listen_http("monitor", parts.monitor.handle, bind)
        services.append(service)
        self.ports = replace(self.ports, https=https_port, monitor=monitor_port)
        services.append(Service("hub", lambda: self._hub(parts)))
        if self._config.modules.cloud_stream.enable:
            made = await open_streams(
                self._config,
                keys=parts.keys,
                kubernetes_ca=self._kubernetes_ca,
                cluster=StreamCluster(
                    parts.api,
                    self._address,
                    parts.view.node_of,
                    parts.view.raw_node,
                    lambda host: instance_of(parts.caches.nodes.items(), host, self._address),
                ),
                worker=self._worker,
            )
            self.ports = replace(self.ports, tunnel=made.tunnel_port, stream=made.stream_port)
            services += made.services
        return services

    async def _hub(self, parts: "CloudParts") -> None:
        """Take connections once the caches are complete: a node must not be judged by half a picture."""
        await parts.caches.synced()
        await parts.requested.settled(_SETTLE)
        where = self._config.modules.cloud_hub.websocket
        if parts.hub is None:
            log.info("ready, without a hub")
            self._announce("the hub is switched off")
            await asyncio.get_running_loop().create_future()
            return
        try:
            port = parts.hub.listen(where.address, where.port, shared=self._shared)
        except OSError as exc:
            raise port_error("websocket", where.address, where.port, exc) from exc
        self.ports = replace(self.ports, websocket=port)
        parts.listening = True
        log.info(
            "ready: websocket %s:%d, https port %d, monitor port %d",
            where.address,
            port,
            self.ports.https,
            self.ports.monitor,
        )
        self._announce(f"edges connect to port {port}")
        try:
            await parts.hub.run()
        finally:
            parts.listening = False

    def _announce(self, status: str) -> None:
        if self._on_ready is not None:
            self._on_ready(status)


class CloudParts:
    """The parts of one run, each given what it needs."""

    def __init__(
        self,
        config: CloudCoreConfig,
        api: KubeApi,
        keys: CloudKeys,
        kubernetes_ca: str,
        wall: Callable[[], float],
        *,
        address: str,
        alone: bool = True,
        impersonation: Impersonation = NOBODY,
    ) -> None:
        hub, own = config.modules.cloud_hub, config.edgehive
        self.keys = keys
        self.listening = False
        self.api = api
        self._new_id = RandomIds()
        self._wall = wall
        self._kubernetes_ca = kubernetes_ca
        self._lines = FewLines(log)
        self.devices: DeviceController | None = None
        if config.modules.device_controller.enable:
            self.devices = DeviceController(
                api=api, stamp=self.stamp, impersonation=impersonation, settings=own.devices
            )
        view = self.devices.view if self.devices is not None else None
        gated = config.feature_gates.get(AUTHORIZATION, False)
        self.policy = PolicyController(api=api, stamp=self.stamp) if gated else None
        modules = [module for module in (self.devices, self.policy) if module is not None]
        self.caches = Caches(api=api, more=tuple(i for m in modules for i in m.caches.all()))
        self.requested = Requested(
            api=api,
            connected=lambda node: self.nodes.connected(node),
            send=lambda node, message: self.nodes.send(node, message),
            stamp=self.stamp,
            now=time.monotonic,
            left_out=lambda record: any(module.view.knows(record) for module in modules),
        )
        self.records = SyncRecords(follow=self.requested)
        location = LocationIndex()
        self.view = ClusterView(
            api=api,
            caches=self.caches,
            location=location,
            records=self.records,
            requested=self.requested,
            views=[module.view for module in modules],
        )
        self.writer = SyncWriter(interval=own.delivery.record_interval, rate=own.delivery.record_rate)
        self.sync = SyncController(
            api=api, writer=self.writer, caches=self.caches, records=self.records, nodes=lambda: self.nodes
        )
        self.controller = self._controller(config, api, address, impersonation)
        authorization = hub.authorization
        self.audit: AccessAudit | None = None
        if authorization.enable and authorization.debug:
            self.audit = AccessAudit(api=api, now=time.monotonic)
        self.watches: Watches | None = None
        self.dynamic: DynamicController | None = None
        if config.modules.dynamic_controller.enable:
            self.watches, self.dynamic = self._dynamic(api, impersonation)
        self.nodes = NodeTable(
            world=self.view,
            writer=self.writer,
            stamp=self.stamp,
            handle=self._handle,
            fetch=self.view.fetch,
            order=view,
            routes=self._routes(),
            ca_pem=lambda: self._kubernetes_ca,
            on_plan=self.sync.plan_changed,
            on_connect=self._on_connect(
                Ownership(
                    api=api,
                    nodes=self.caches.nodes,
                    address=address,
                    connected=lambda node: self.nodes.connected(node),
                )
            ),
            settings=NodeSettings(
                keepalive=float(hub.keepalive_interval),
                write_timeout=float(hub.write_timeout),
                reconcile_every=own.delivery.reconcile_interval,
                limits=PoolLimits(window=own.delivery.window),
            ),
        )
        self.downstream = Downstream(
            caches=self.caches,
            location=location,
            records=self.records,
            recipients=self.nodes,
            stamp=self.stamp,
        )
        self.downstream.start()
        if self.devices is not None:
            self.devices.connect(self.nodes)
        if self.policy is not None:
            self.policy.connect(self.nodes, pods=self.caches.pods, machines=self.caches.nodes)
        ca_pem = keys.ca.cert_pem
        self.hub = (
            CloudHub(
                nodes=self.nodes,
                tls=hub_context(keys.server, ca_pem),
                node_limit=hub.node_limit,
                admission=own.admission,
                wall=wall,
            )
            if hub.enable
            else None
        )
        self.enrollment = EnrollmentApi(
            api=api,
            ca=keys.ca,
            sessions=SessionDirectory(
                api=api,
                here=self.nodes.connected,
                nodes=self.caches.nodes,
                address=address if alone else "",
                wall=wall,
            ),
            events=NodeEvents(api=api, wall=wall, new_id=self._new_id),
            report=self._ignore_report,
            rejoined=self.sync.forget_deliveries,
            wall=wall,
            certificate_days=hub.edge_cert_signing_duration,
            allow_rejoin=own.enrollment.allow_rejoin,
        )
        metrics = CloudMetrics(
            nodes=self.nodes,
            hub=self.hub,
            enrollment=self.enrollment,
            controller=self.controller,
            sync=self.sync,
            writer=self.writer,
            records=self.records,
            audit=self.audit,
            devices=self.devices,
            policy=self.policy,
        )
        tracer = Tracer(nodes=self.nodes, view=self.view)
        self.monitor = Monitor(collect=metrics.collect, lacking=self._lacking, trace=tracer.trace)

    def _routes(self) -> dict[str, Route]:
        """The modules that are switched on, by the name of their group."""
        routes: dict[str, Route] = {}
        if self.dynamic is not None:
            routes[DYNAMIC_CONTROLLER] = self.dynamic.receive
        if self.devices is not None:
            routes[DEVICE_CONTROLLER] = self.devices.receive
        return routes

    def _on_connect(self, ownership: Ownership) -> Callable[[str], Coroutine[Any, Any, None]]:
        async def connected(node: str) -> None:
            if self.watches is not None:
                self.watches.node_connected(node)
            if self.devices is not None:
                self.devices.node_connected(node)
            await ownership.claim(node)

        return connected

    def _labels(self, node: str) -> dict[str, str]:
        found = self.caches.nodes.get("", node)
        return (found.meta.labels or {}) if found is not None else {}

    def _dynamic(self, api: KubeApi, impersonation: Impersonation) -> tuple[Watches, DynamicController]:
        assert isinstance(api, RequestApi), "any API server can be asked anything"
        watches = Watches(
            api=api,
            shared=self.caches.by_resource,
            allowed=WatchReview(api=api).require if impersonation.enforced else _anything,
            send=lambda node, message: self.nodes.send(node, message),
            connected=lambda node: self.nodes.connected(node),
            stamp=self.stamp,
            labels=self._labels,
        )
        controller = DynamicController(
            api=api,
            path=object_path,
            watches=watches,
            answer=lambda node, message: self.nodes.answer(node, message),
            stamp=self.stamp,
            impersonation=impersonation,
            start=watches.start,
            groups=watches.groups,
        )
        return watches, controller

    def _controller(
        self, config: CloudCoreConfig, api: KubeApi, address: str, impersonation: Impersonation
    ) -> EdgeController:
        return EdgeController(
            nodes=NodeRequests(
                api=api,
                address=address,
                lookup=lambda name: self.view.raw_node(name),
                exists=lambda node: self.downstream.send_node(node),
                now=self._now,
                stale_after=self._stale(config.modules.edge_controller.node_update_frequency),
            ),
            pods=PodRequests(api=api, node_of=self.view.node_of, now=self._now),
            objects=ObjectRequests(api=api, lookup=self.view.raw, node_of=self.view.node_of),
            stamp=self.stamp,
            impersonation=impersonation,
            now=time.monotonic,
        )

    async def _handle(self, node: str, message: Message) -> tuple[Message, ...]:
        if self.audit is not None:
            self.audit.note(node, message)
        return await self.controller.handle(node, message)

    def _ignore_report(self, report: LegacyReport) -> None:
        text = "a report of an old edge (%s) about %s is ignored: no task manager runs"
        about = safe_label(report.task_type)
        self._lines.info("reports of old edges", host_of(report.remote), text, report.remote, about)

    def stamp(self) -> tuple[str, int]:
        """A new message id and the time in milliseconds."""
        return self._new_id(), int(self._wall() * 1000)

    def _now(self) -> str:
        return datetime.datetime.fromtimestamp(self._wall(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _stale(self, seconds: int) -> Callable[[str], bool]:
        def stale(text: str) -> bool:
            try:
                when = datetime.datetime.fromisoformat(text)
            except ValueError:
                return True
            when = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
            return self._wall() - when.timestamp() > seconds

        return stale

    def _lacking(self) -> list[str]:
        lacking = [f"watching {i.gvr}" for i in self.caches.all() if not i.has_synced]
        return lacking if self.listening or self.hub is None else [*lacking, "listening for edges"]


async def _anything(application: Application) -> None:
    """Without authorization of nodes an edge sees what cloudcore sees, as in KubeEdge."""
