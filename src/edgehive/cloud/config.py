"""cloudcore's configuration: the keys of KubeEdge's ``cloudcore.yaml`` (``CloudCore``).

A frozen tree, made once by `cloud.config_load` and handed down in parts. Spelling in the file is the camel case
of the attribute, or the ``name=`` given; defaults are KubeEdge's. Keys whose feature edgehive does not have are
still read, so that a file written for KubeEdge starts without an edit. Settings of edgehive alone are under the
key ``edgehive``, which KubeEdge ignores.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

API_VERSION = "cloudcore.config.kubeedge.io/v1alpha1"
KIND = "CloudCore"

CA_FILE = "/etc/kubeedge/ca/rootCA.crt"
CA_KEY_FILE = "/etc/kubeedge/ca/rootCA.key"
CERT_FILE = "/etc/kubeedge/certs/server.crt"
KEY_FILE = "/etc/kubeedge/certs/server.key"

Port = Annotated[int, Meta(ge=1, le=65535)]
AnyPort = Annotated[int, Meta(ge=0, le=65535)]
Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Section(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of every part of the tree."""


class MonitorServer(Section, frozen=True):
    """``commonConfig.monitorServer``: where /metrics, /healthz and /readyz are served."""

    bind_address: str = "127.0.0.1:9091"
    """A literal ``IP:port``."""
    enable_profiling: bool = False
    """Go's pprof endpoints; there is no counterpart, the key is only read."""


class CommonConfig(Section, frozen=True):
    """``commonConfig``."""

    tunnel_port: Natural = 10350
    """Replaced by the negotiated tunnel port in KubeEdge; not used by edgehive."""
    monitor_server: MonitorServer = MonitorServer()


class KubeAPIConfig(Section, frozen=True):
    """``kubeAPIConfig``: how to reach the Kubernetes API."""

    master: str = ""
    """URL of the API server; overrides the one in the kubeconfig."""
    content_type: str = "application/vnd.kubernetes.protobuf"
    """Read but not used, as in KubeEdge: edgehive speaks JSON."""
    qps: Positive = 2500
    """Requests a second to the API server, on average. (KubeEdge overwrites it with 5 times the node limit.)"""
    burst: Positive = 5000
    """Requests that may be made at once above that."""
    kube_config: str = ""
    """Path of a kubeconfig; empty with an empty `master` means in-cluster."""


class Quic(Section, frozen=True):
    """``modules.cloudHub.quic``: the original's gQUIC, which edgehive does not speak."""

    enable: bool = False
    address: str = "0.0.0.0"  # noqa: S104 - KubeEdge's default
    port: Port = 10001
    max_incoming_streams: Natural = 10000


class UnixSocket(Section, frozen=True):
    """``modules.cloudHub.unixsocket``: the CSI driver's way in."""

    enable: bool = True
    address: str = "unix:///var/lib/kubeedge/kubeedge.sock"


class WebSocket(Section, frozen=True):
    """``modules.cloudHub.websocket``: where edges connect."""

    enable: bool = True
    address: str = "0.0.0.0"  # noqa: S104 - KubeEdge's default
    port: AnyPort = 10000
    """0 takes a free port (edgehive only)."""


class Https(Section, frozen=True):
    """``modules.cloudHub.https``: where edges obtain their certificates."""

    enable: bool = True
    address: str = "0.0.0.0"  # noqa: S104 - KubeEdge's default
    port: AnyPort = 10002
    """0 takes a free port (edgehive only)."""


class NodeMode(Section, frozen=True):
    """``modules.cloudHub.authorization.modes[].node``."""

    enable: bool = True


class AuthorizationMode(Section, frozen=True):
    """``modules.cloudHub.authorization.modes[]``."""

    node: NodeMode = NodeMode()


class Authorization(Section, frozen=True):
    """``modules.cloudHub.authorization``: may a node do what its message asks."""

    enable: bool = False
    debug: bool = True
    """Only log what would be refused."""
    modes: tuple[AuthorizationMode, ...] = (AuthorizationMode(),)

    @property
    def enforced(self) -> bool:
        """Refuse, and act in the node's name towards the API server."""
        return self.enable and not self.debug


class CloudHub(Section, frozen=True):
    """``modules.cloudHub``."""

    enable: bool = True
    keepalive_interval: Positive = 30
    """Seconds of silence after which a node's connection is given up."""
    node_limit: Natural = 500
    """Most nodes connected at once; 0 means no limit (edgehive only)."""
    tls_ca_file: str = field(default=CA_FILE, name="tlsCAFile")
    """With `tls_ca_key_file`: used when both exist, else the Secret ``casecret``."""
    tls_ca_key_file: str = field(default=CA_KEY_FILE, name="tlsCAKeyFile")
    tls_cert_file: str = CERT_FILE
    """With `tls_private_key_file`: used when both exist, else the Secret ``cloudcoresecret``."""
    tls_private_key_file: str = KEY_FILE
    write_timeout: Positive = 30
    """Seconds an edge may refuse to read before its connection is given up (KubeEdge reads it, in vain)."""
    quic: Quic = Quic()
    unixsocket: UnixSocket = UnixSocket()
    websocket: WebSocket = WebSocket()
    https: Https = Https()
    advertise_address: tuple[str, ...] = ()
    """Addresses edges reach this cloud by; in the server certificate. Default: that of the default route."""
    dns_names: tuple[str, ...] = ("",)
    """Host names for the server certificate; empty ones are skipped."""
    edge_cert_signing_duration: Positive = 365
    """Days an edge's certificate is valid."""
    token_refresh_duration: Positive = 12
    """Hours between new join tokens; each is good for twice that."""
    authorization: Authorization = Authorization()


class Delivery(Section, frozen=True):
    """``edgehive.delivery``: how objects are brought to a node."""

    window: Annotated[int, Meta(ge=1, le=1024)] = 32
    """Objects in flight at once to one node; 1 behaves like KubeEdge."""
    reconcile_interval: Seconds = 30.0
    """Seconds between safety passes that compare a node's records with the cluster."""
    record_interval: Seconds = 0.5
    """Seconds over which acknowledgements are gathered before they are recorded."""
    record_rate: Annotated[float, Meta(ge=0)] = 20.0
    """Versions a second that are recorded of nodes that say themselves what they hold; 0: all, as of Go edges."""


class Admission(Section, frozen=True):
    """``edgehive.admission``: how a crowd of edges is let in."""

    parallel: Annotated[int, Meta(ge=1, le=4096)] = 64
    """Connections on their way in (TLS handshake, upgrade) at once; the others wait in the kernel's queue."""
    outside: Positive = 4096
    """Connections that are silent or dawdle before they are in; beyond that the oldest is dropped."""


class Enrollment(Section, frozen=True):
    """``edgehive.enrollment``: who may obtain a node's certificate."""

    allow_rejoin: bool = True
    """Whether a join token may be used for a node that exists already (new machine, same name)."""


class Devices(Section, frozen=True):
    """``edgehive.devices``: how often what devices report is written to the API server."""

    status_interval: Seconds = 1.0
    """Least seconds between two writes of one DeviceStatus; reports that come in between are written together."""
    summary: bool = True
    """Write a summary of the DeviceStatus into the Device's status, for ``kubectl get devices``."""
    summary_interval: Seconds = 5.0
    """Least seconds between two writes of one device's summary."""


class Edgehive(Section, frozen=True):
    """``edgehive``: settings that KubeEdge does not have."""

    delivery: Delivery = Delivery()
    admission: Admission = Admission()
    devices: Devices = Devices()
    enrollment: Enrollment = Enrollment()
    install_crds: bool = True
    """Create KubeEdge's definitions (ObjectSync, and those of devices) when they are missing and we may."""


EDGE_WORKERS = 100  # KubeEdge's usual number of workers for one kind of request


class EdgeControllerBuffer(Section, frozen=True):
    """``modules.edgeController.buffer``: channel sizes of the Go program; queues here are bounded per node."""

    update_pod_status: Natural = 1024
    update_node_status: Natural = 1024
    query_config_map: Natural = 1024
    query_secret: Natural = 1024
    process_event: Natural = 1024
    pod_event: Natural = 1
    config_map_event: Natural = 1
    secret_event: Natural = 1
    rules_event: Natural = 1
    rule_endpoints_event: Natural = 1
    query_persistent_volume: Natural = 1024
    query_persistent_volume_claim: Natural = 1024
    query_volume_attachment: Natural = 1024
    create_node: Natural = 1024
    patch_node: Natural = 1024 + 250
    query_node: Natural = 1024 + 500
    update_node: Natural = 1024
    create_pod: Natural = 1024
    patch_pod: Natural = 1024
    delete_pod: Natural = 1024
    create_lease: Natural = 1024 + 500
    query_lease: Natural = 1024
    service_account_token: Natural = 1024
    certificate_signing_request: Natural = 1024


class EdgeControllerLoad(Section, frozen=True):
    """``modules.edgeController.load``: worker counts of the Go program."""

    update_pod_status_workers: Natural = 1
    update_node_status_workers: Natural = 1
    query_config_map_workers: Natural = EDGE_WORKERS
    query_secret_workers: Natural = EDGE_WORKERS
    process_event_workers: Natural = 4
    query_persistent_volume_workers: Natural = 4
    query_persistent_volume_claim_workers: Natural = 4
    query_volume_attachment_workers: Natural = 4
    create_node_workers: Natural = EDGE_WORKERS
    patch_node_workers: Natural = EDGE_WORKERS + 10
    query_node_workers: Natural = 500
    update_node_workers: Natural = 4
    patch_pod_workers: Natural = EDGE_WORKERS
    delete_pod_workers: Natural = EDGE_WORKERS
    create_lease_workers: Natural = 500
    query_lease_workers: Natural = EDGE_WORKERS
    update_rule_status_workers: Natural = field(default=4, name="UpdateRuleStatusWorkers")
    service_account_token_workers: Natural = field(default=EDGE_WORKERS, name="ServiceAccountTokenWorkers")
    create_pod_works: Natural = field(default=4, name="CreatePodWorks")
    certificate_signing_request_workers: Natural = 4


class EdgeController(Section, frozen=True):
    """``modules.edgeController``."""

    enable: bool = True
    node_update_frequency: Positive = 10
    """Seconds after which a condition reported by a (deprecated) node status is stamped anew."""
    buffer: EdgeControllerBuffer = EdgeControllerBuffer()
    load: EdgeControllerLoad = EdgeControllerLoad()


class DeviceControllerBuffer(Section, frozen=True):
    """``modules.deviceController.buffer``."""

    update_device_twins: Natural = 1024
    update_device_status: Natural = 1024
    device_event: Natural = 1
    device_model_event: Natural = 1
    device_status_event: Natural = 0


class DeviceControllerLoad(Section, frozen=True):
    """``modules.deviceController.load``."""

    update_device_status_workers: Natural = 1


class DeviceController(Section, frozen=True):
    """``modules.deviceController``."""

    enable: bool = True
    buffer: DeviceControllerBuffer = DeviceControllerBuffer()
    load: DeviceControllerLoad = DeviceControllerLoad()


class SyncController(Section, frozen=True):
    """``modules.syncController``."""

    enable: bool = True


class DynamicController(Section, frozen=True):
    """``modules.dynamicController``."""

    enable: bool = False


class TaskManagerBuffer(Section, frozen=True):
    """``modules.taskManager.buffer``."""

    task_status: Natural = 1024
    task_event: Natural = 1


class TaskManagerLoad(Section, frozen=True):
    """``modules.taskManager.load``."""

    task_workers: Natural = 1


class TaskManager(Section, frozen=True):
    """``modules.taskManager``."""

    enable: bool = False
    buffer: TaskManagerBuffer = TaskManagerBuffer()
    load: TaskManagerLoad = TaskManagerLoad()


class CloudStream(Section, frozen=True):
    """``modules.cloudStream``."""

    enable: bool = False
    tls_tunnel_ca_file: str = field(default=CA_FILE, name="tlsTunnelCAFile")
    tls_tunnel_cert_file: str = CERT_FILE
    tls_tunnel_private_key_file: str = KEY_FILE
    tunnel_port: Port = 10004
    tls_stream_ca_file: str = field(default="/etc/kubeedge/ca/streamCA.crt", name="tlsStreamCAFile")
    tls_stream_cert_file: str = "/etc/kubeedge/certs/stream.crt"
    tls_stream_private_key_file: str = "/etc/kubeedge/certs/stream.key"
    stream_port: Port = 10003


class Router(Section, frozen=True):
    """``modules.router``."""

    enable: bool = False
    address: str = "0.0.0.0"  # noqa: S104 - KubeEdge's default
    port: Port = 9443
    rest_timeout: Positive = 60
    """Seconds."""


class IptablesManager(Section, frozen=True):
    """``modules.iptablesManager``: leads an API server's connections to edge nodes to the stream server.

    Off unless it is asked for: KubeEdge changes the host's NAT table by default.
    """

    enable: bool = False
    mode: Literal["internal", "external"] = "internal"


class Modules(Section, frozen=True):
    """``modules``."""

    cloud_hub: CloudHub = CloudHub()
    edge_controller: EdgeController = EdgeController()
    device_controller: DeviceController = DeviceController()
    sync_controller: SyncController = SyncController()
    dynamic_controller: DynamicController = DynamicController()
    task_manager: TaskManager = TaskManager()
    cloud_stream: CloudStream = CloudStream()
    router: Router = Router()
    iptables_manager: IptablesManager = IptablesManager()


class CloudCoreConfig(Section, frozen=True):
    """The whole file."""

    api_version: str = API_VERSION
    """Not compared: KubeEdge's own chart writes another version."""
    kind: str = KIND
    common_config: CommonConfig = CommonConfig()
    kube_api_config: KubeAPIConfig = field(default=KubeAPIConfig(), name="kubeAPIConfig")
    modules: Modules = Modules()
    feature_gates: dict[str, bool] = {}
    edgehive: Edgehive = Edgehive()
