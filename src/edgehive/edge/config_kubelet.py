"""``modules.edged.tailoredKubeletConfig``: the kubelet's settings as KubeEdge tailors them.

Durations are Go's text form (``10s``, ``1m30s``); `edge.config_load.parse_duration` reads them.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, field

Duration = Annotated[str, Meta(pattern=r"^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$")]
Percent = Annotated[int, Meta(ge=0, le=100)]

_SOCKET = "unix:///run/containerd/containerd.sock"


class KubeletConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The ``KubeletConfiguration`` minus its server, authentication and authorization fields."""

    # what edgehive acts on
    address: str = "127.0.0.1"
    read_only_port: Annotated[int, Meta(ge=0, le=65535)] = 10350
    container_runtime_endpoint: str = _SOCKET
    """``unix://PATH`` is a CRI socket; ``process://`` or ``process://STATE_DIR`` runs host processes."""
    image_service_endpoint: str = _SOCKET
    cgroup_driver: str = "cgroupfs"
    cgroup_root: str = ""
    cluster_domain: str = "cluster.local"
    cluster_dns: list[str] = field(default_factory=list, name="clusterDNS")
    resolv_conf: str = "/etc/resolv.conf"
    eviction_hard: dict[str, str] = field(
        default_factory=lambda: {
            "imagefs.available": "15%",
            "imagefs.inodesFree": "5%",
            "memory.available": "100Mi",
            "nodefs.available": "10%",
            "nodefs.inodesFree": "5%",
        }
    )
    eviction_pressure_transition_period: Duration = "5m0s"
    kube_reserved: dict[str, str] = {}
    system_reserved: dict[str, str] = {}
    max_pods: Annotated[int, Meta(ge=0)] = 110
    pods_per_core: Annotated[int, Meta(ge=0)] = 0
    pod_pids_limit: int = -1
    node_lease_duration_seconds: Annotated[int, Meta(ge=1)] = 40
    node_status_update_frequency: Duration = "10s"
    node_status_report_frequency: Duration = "5m0s"
    node_status_max_images: int = 0
    register_node: bool = True
    register_with_taints: list[dict[str, Any]] = []
    static_pod_path: str = "/etc/kubeedge/manifests"
    file_check_frequency: Duration = "20s"
    sync_frequency: Duration = "1m0s"
    pod_logs_dir: str = "/var/log/pods"
    container_log_max_size: str = "10Mi"
    container_log_max_files: int = 5
    container_log_max_workers: int = 1
    container_log_monitor_interval: Duration = "10s"
    event_record_qps: int = field(default=50, name="eventRecordQPS")
    event_burst: int = 100
    registry_pull_qps: int = field(default=5, name="registryPullQPS")
    registry_burst: int = 10
    serialize_image_pulls: bool = True
    max_parallel_image_pulls: int | None = None
    image_gc_high_threshold_percent: Percent = field(default=85, name="imageGCHighThresholdPercent")
    image_gc_low_threshold_percent: Percent = field(default=80, name="imageGCLowThresholdPercent")
    image_minimum_gc_age: Duration = field(default="2m0s", name="imageMinimumGCAge")
    image_maximum_gc_age: Duration = field(default="0s", name="imageMaximumGCAge")
    runtime_request_timeout: Duration = "2m0s"
    shutdown_grace_period: Duration = "0s"
    shutdown_grace_period_critical_pods: Duration = "0s"
    oom_score_adj: Annotated[int, Meta(ge=-1000, le=1000)] = -999

    # read for compatibility
    kind: str = ""
    api_version: str = ""
    cgroups_per_qos: bool = field(default=True, name="cgroupsPerQOS")
    kubelet_cgroups: str = ""
    system_cgroups: str = ""
    config_map_and_secret_change_detection_strategy: str = "Get"  # noqa: S105
    content_type: str = "application/json"
    cpu_cfs_quota: bool = field(default=True, name="cpuCFSQuota")
    cpu_cfs_quota_period: Duration = field(default="100ms", name="cpuCFSQuotaPeriod")
    cpu_manager_policy: str = "none"
    cpu_manager_policy_options: dict[str, str] = {}
    cpu_manager_reconcile_period: Duration = "10s"
    memory_manager_policy: str = "None"
    memory_throttling_factor: float = 0.9
    topology_manager_policy: str = "none"
    topology_manager_scope: str = "container"
    topology_manager_policy_options: dict[str, str] = {}
    qos_reserved: dict[str, str] = {}
    enable_controller_attach_detach: bool = True
    enable_debugging_handlers: bool = True
    enable_debug_flags_handler: bool = True
    enable_profiling_handler: bool = True
    enable_system_log_handler: bool = True
    enable_system_log_query: bool = False
    enable_contention_profiling: bool = False
    enforce_node_allocatable: list[str] = field(default_factory=lambda: ["pods"])
    eviction_soft: dict[str, str] = {}
    eviction_soft_grace_period: dict[str, str] = {}
    eviction_max_pod_grace_period: int = 0
    eviction_minimum_reclaim: dict[str, str] = {}
    fail_swap_on: bool = False
    fail_cgroup_v1: bool = field(default=False, name="failCgroupV1")
    hairpin_mode: str = "promiscuous-bridge"
    iptables_drop_bit: int = 15
    iptables_masquerade_bit: int = 14
    make_iptables_util_chains: bool = field(default=True, name="makeIPTablesUtilChains")
    local_storage_capacity_isolation: bool = True
    logging: dict[str, Any] = {}
    max_open_files: int = 1000000
    pod_cidr: str = field(default="", name="podCIDR")
    protect_kernel_defaults: bool = False
    feature_gates: dict[str, bool] = {}
    memory_swap: dict[str, Any] = {}
    seccomp_default: bool = False
    reserved_system_cpus: str = field(default="", name="reservedSystemCPUs")
    show_hidden_metrics_for_version: str = ""
    system_reserved_cgroup: str = ""
    kube_reserved_cgroup: str = ""
    allowed_unsafe_sysctls: list[str] = []
    kernel_memcg_notification: bool = False
    shutdown_grace_period_by_pod_priority: list[dict[str, Any]] = []
    single_process_oom_kill: bool | None = field(default=None, name="singleProcessOOMKill")
    crash_loop_back_off: dict[str, Any] = {}
    reserved_memory: list[dict[str, Any]] = []
    streaming_connection_idle_timeout: Duration = "4h0m0s"
    volume_plugin_dir: str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/"
    volume_stats_agg_period: Duration = "1m0s"
