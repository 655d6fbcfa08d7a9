"""edgecore's configuration: the keys of KubeEdge's ``edgecore.yaml`` (``EdgeCore``, ``v1alpha2``).

A frozen tree, made once by `edge.config_load` and handed down in parts. The spelling in the file is the
one given by ``name=`` or the camel case of the attribute; defaults are KubeEdge's. Keys whose feature
edgehive does not have are still read, so that a file written for KubeEdge starts without an edit.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from edgehive.edge.config_kubelet import KubeletConfig

API_VERSION = "edgecore.config.kubeedge.io/v1alpha2"
KIND = "EdgeCore"

_CA = "/etc/kubeedge/ca/rootCA.crt"
_CERT = "/etc/kubeedge/certs/server.crt"
_KEY = "/etc/kubeedge/certs/server.key"

Port = Annotated[int, Meta(ge=0, le=65535)]
Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]


class Section(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of every part of the tree."""


class Metadata(Section, frozen=True):
    """``metadata`` as some tools write it; not used."""

    name: str = ""
    namespace: str = ""


class Database(Section, frozen=True):
    """``database``."""

    alias_name: str = "default"
    driver_name: str = "sqlite3"
    data_source: str = "/var/lib/kubeedge/edgecore.db"


class WebSocket(Section, frozen=True):
    """``modules.edgeHub.websocket``; `server` is ``host:port``, times are in seconds."""

    enable: bool = True
    server: str = "127.0.0.1:10000"
    handshake_timeout: Positive = 30
    read_deadline: Positive = 15
    write_deadline: Positive = 15


class Quic(Section, frozen=True):
    """``modules.edgeHub.quic``: the original's gQUIC, which edgehive does not speak."""

    enable: bool = False
    server: str = "127.0.0.1:10001"
    handshake_timeout: Positive = 30
    read_deadline: Positive = 15
    write_deadline: Positive = 15


class EdgeHub(Section, frozen=True):
    """``modules.edgeHub``: the link to the cloud and the node's certificate."""

    enable: bool = True
    heartbeat: Positive = 15
    message_qps: Natural = field(default=30, name="messageQPS")
    message_burst: Natural = 60
    project_id: str = field(default="e632aba927ea4ac2b575ec1603d56f10", name="projectID")
    tls_ca_file: str = _CA
    tls_cert_file: str = _CERT
    tls_private_key_file: str = _KEY
    token: str = ""
    http_server: str = "https://127.0.0.1:10002"
    rotate_certificates: bool = True
    websocket: WebSocket = field(default_factory=WebSocket)
    quic: Quic = field(default_factory=Quic)


class EdgeStream(Section, frozen=True):
    """``modules.edgeStream``: logs, exec and metrics through the tunnel."""

    enable: bool = False
    server: str = "127.0.0.1:10004"
    handshake_timeout: Positive = 30
    read_deadline: Positive = 15
    write_deadline: Positive = 15
    tls_tunnel_ca_file: str = field(default=_CA, name="tlsTunnelCAFile")
    tls_tunnel_cert_file: str = _CERT
    tls_tunnel_private_key_file: str = _KEY


class EventBusTls(Section, frozen=True):
    """``modules.eventBus.eventBusTLS``."""

    enable: bool = False
    tls_mqtt_ca_file: str = field(default=_CA, name="tlsMqttCAFile")
    tls_mqtt_cert_file: str = _CERT
    tls_mqtt_private_key_file: str = _KEY


class EventBus(Section, frozen=True):
    """``modules.eventBus``: MQTT. `mqtt_mode` 0 is the internal broker, 1 both, 2 an external one."""

    enable: bool = True
    mqtt_mode: Annotated[int, Meta(ge=0, le=2)] = 2
    mqtt_qos: Annotated[int, Meta(ge=0, le=2)] = field(default=0, name="mqttQOS")
    mqtt_retain: bool = False
    mqtt_session_queue_size: Positive = 100
    mqtt_server_internal: str = "tcp://127.0.0.1:1884"
    mqtt_server_external: str = "tcp://127.0.0.1:1883"
    mqtt_sub_client_id: str = field(default="", name="mqttSubClientID")
    mqtt_pub_client_id: str = field(default="", name="mqttPubClientID")
    mqtt_username: str = ""
    mqtt_password: str = ""
    event_bus_tls: EventBusTls = field(default_factory=EventBusTls, name="eventBusTLS")


class MetaServer(Section, frozen=True):
    """``modules.metaManager.metaServer``: the local Kubernetes API."""

    enable: bool = False
    server: str = "127.0.0.1:10550"
    dummy_server: str = "169.254.30.10:10550"
    tls_ca_file: str = _CA
    tls_cert_file: str = _CERT
    tls_private_key_file: str = _KEY
    service_account_issuers: list[str] = field(
        default_factory=lambda: ["https://kubernetes.default.svc.cluster.local"]
    )
    api_audiences: list[str] = []
    service_account_key_files: list[str] = []
    offline_writes: list[str] = []
    """edgehive's own key: resources whose writes may wait for the cloud (``events``, ``things.example.com/status``)."""
    certificate_directory: str = "/etc/kubeedge/pki/metaserver"
    """edgehive's own key: where the certificate for ``requireAuthorization`` is kept; KubeEdge's place by default."""
    dummy_interface: bool = True
    """edgehive's own key: whether the interface of `dummy_server` may be made, with ``requireAuthorization``."""


class MetaManager(Section, frozen=True):
    """``modules.metaManager``: the local metadata."""

    enable: bool = True
    context_send_group: str = "hub"
    context_send_module: str = "websocket"
    remote_query_timeout: Positive = 60
    meta_server: MetaServer = field(default_factory=MetaServer)


class DeviceTwin(Section, frozen=True):
    """``modules.deviceTwin``."""

    enable: bool = True
    dmi_sock_path: str = "/etc/kubeedge/"


class ServiceBus(Section, frozen=True):
    """``modules.serviceBus``: HTTP rules."""

    enable: bool = False
    server: str = "127.0.0.1"
    port: Port = 9060
    timeout: Positive = 60
    tls_cert_file: str = ""
    tls_private_key_file: str = ""


class TaskManager(Section, frozen=True):
    """``modules.taskManager``: node jobs."""

    enable: bool = False


class DbTest(Section, frozen=True):
    """``modules.dbTest``: the original's test server, which edgehive does not have."""

    enable: bool = False


class Edged(Section, frozen=True):
    """``modules.edged``: the node and its pods."""

    enable: bool = True
    hostname_override: str = ""
    """The node's name; empty means the host name."""
    node_ip: str = field(default="", name="nodeIP")
    custom_interface_name: str = ""
    register_node_namespace: str = "default"
    register_schedulable: bool = True
    node_labels: dict[str, str] = {}
    report_event: bool = False
    root_directory: str = "/var/lib/kubelet"
    pod_sandbox_image: str = "kubeedge/pause:3.6"
    default_pod_network: Literal["cni", "bridge", "host"] = "cni"
    """edgehive's own key. ``bridge``: where the runtime has no CNI configuration, edgecore writes one of a bridge
    of its own; ``host`` puts every pod into the node's network, for nodes without CNI plugins."""
    image_pull_progress_deadline: Natural = 60
    max_container_count: int = -1
    max_per_pod_container_count: int = 1
    minimum_gc_age: str = field(default="0s", name="minimumGCAge")
    runtime_cgroups: str = ""
    seccomp_default: bool = False
    experimental_mounter_path: str = ""
    experimental_node_allocatable_ignore_eviction_threshold: bool = False
    windows_service: bool = False
    windows_priority_class: str = ""
    tailored_kubelet_config: KubeletConfig = field(default_factory=KubeletConfig)


class Modules(Section, frozen=True):
    """``modules``."""

    edged: Edged = field(default_factory=Edged)
    edge_hub: EdgeHub = field(default_factory=EdgeHub)
    event_bus: EventBus = field(default_factory=EventBus)
    meta_manager: MetaManager = field(default_factory=MetaManager)
    service_bus: ServiceBus = field(default_factory=ServiceBus)
    device_twin: DeviceTwin = field(default_factory=DeviceTwin)
    db_test: DbTest = field(default_factory=DbTest)
    edge_stream: EdgeStream = field(default_factory=EdgeStream)
    task_manager: TaskManager = field(default_factory=TaskManager)


class EdgeCoreConfig(Section, frozen=True):
    """The whole file."""

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: Metadata = field(default_factory=Metadata)
    edgecore_version: str = ""
    database: Database = field(default_factory=Database)
    modules: Modules = field(default_factory=Modules)
    feature_gates: dict[str, bool] = {}
