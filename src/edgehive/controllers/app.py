"""All controllers of the embedded control plane, put together."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from edgehive.aio.supervise import Service, supervise
from edgehive.controllers.context import Context, Controller
from edgehive.controllers.csr_signing import CsrSigning, Sign
from edgehive.controllers.daemonset import DaemonSetController
from edgehive.controllers.deployment import DeploymentController
from edgehive.controllers.endpoints_controller import EndpointsController
from edgehive.controllers.ephemeral_claims import EphemeralClaims
from edgehive.controllers.garbage import GarbageCollector
from edgehive.controllers.liveness import Grace
from edgehive.controllers.namespace_deletion import NamespaceDeletion
from edgehive.controllers.namespaces import default_service_accounts, root_ca_publisher
from edgehive.controllers.node_lifecycle import NodeLifecycle
from edgehive.controllers.pod_gc import PodGarbage
from edgehive.controllers.recorder import EventSink
from edgehive.controllers.replicaset import ReplicaSetController
from edgehive.controllers.resources import ServedResources
from edgehive.controllers.runtime import Clock, Informers
from edgehive.controllers.scheduler import Scheduler
from edgehive.controllers.taint_eviction import TaintEviction
from edgehive.controllers.volume_binder import VolumeBinder
from edgehive.controllers.volume_protection import VolumeProtection
from edgehive.kube.api import KubeApi
from edgehive.kube.builtin import BUILTIN
from edgehive.kube.refs import CRDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be set; the defaults are Kubernetes'."""

    scheduler_name: str = "default-scheduler"
    node_grace: float = 40.0
    """Seconds without a heartbeat after which a node is Unknown."""
    node_start_grace: float = 60.0
    """The same for a node that has never reported."""
    default_toleration_seconds: int = 300
    """How long pods without a toleration of their own stay on a node that is not ready."""
    edge_autonomy: bool = False
    """Keep the pods of edge nodes that cannot be reached (``edgehive.io/autonomy`` on a node decides for it)."""
    terminated_pods: int = 12500
    """Finished pods that are kept."""


class Controllers:
    """Scheduler and controllers over one Kubernetes API; `run` them as one service."""

    def __init__(
        self,
        *,
        api: KubeApi,
        clock: Clock,
        ca_pem: bytes = b"",
        sign: Sign | None = None,
        options: Options | None = None,
    ) -> None:
        """Wire up; `ca_pem` is published in every namespace, `sign` makes serving certificates of nodes."""
        options = options or Options()
        self._counters: Counter[str] = Counter()
        self._informers = Informers(api=api)
        self._events = EventSink(api=api, clock=clock)
        context = Context(
            api=api, informers=self._informers, events=self._events, clock=clock, counters=self._counters
        )
        resources = ServedResources(builtin=BUILTIN, crds=self._informers.full(CRDS))
        self._controllers: list[Controller] = [
            Scheduler(context, scheduler_name=options.scheduler_name),
            DeploymentController(context),
            ReplicaSetController(context),
            DaemonSetController(context),
            EndpointsController(context),
            default_service_accounts(context),
            NodeLifecycle(
                context,
                grace=Grace(options.node_grace, options.node_start_grace),
                edge_autonomy=options.edge_autonomy,
            ),
            TaintEviction(context, default_seconds=options.default_toleration_seconds),
            PodGarbage(context, threshold=options.terminated_pods),
            NamespaceDeletion(context, resources),
            VolumeBinder(context),
            VolumeProtection(context),
            EphemeralClaims(context),
        ]
        if ca_pem:
            self._controllers.append(root_ca_publisher(context, ca_pem))
        if sign is not None:
            self._controllers.append(CsrSigning(context, sign))
        # Last, because it is content with metadata of kinds that nobody keeps whole.
        self._controllers.append(GarbageCollector(context, resources))

    def find(self, name: str) -> Controller:
        """Return the controller of that name.

        Raises:
            KeyError: there is none.
        """
        return {c.name: c for c in self._controllers}[name]

    @property
    def counters(self) -> Mapping[str, int]:
        """Plain counters by name, for a metrics page."""
        return self._counters

    async def synced(self) -> None:
        """Wait until every informer has its first list."""
        await self._informers.synced()

    async def run(self) -> None:
        """Run everything until cancelled."""
        await supervise(
            Service("informers", self._informers.run),
            Service("events", self._events.run),
            *(Service(c.name, c.run) for c in self._controllers),
        )
