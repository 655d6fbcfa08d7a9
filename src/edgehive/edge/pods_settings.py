"""What edged is told about its node and its limits; built by `edge.app` from the configuration file.

`PodManager(runtime=..., meta=..., node=NodeFacts(...), settings=PodSettings(...)).run()` is the whole of edged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgehive.edge.cgroups import CgroupRules
from edgehive.edge.pods_eviction import EvictionSettings
from edgehive.edge.pods_garbage import ImageSettings


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """The node as its pods see it."""

    name: str
    ip: str
    """The node's InternalIP: ``status.hostIP``, and the pod IP of host-network pods."""
    cpu: float = 1.0
    """Allocatable cores, for ``resourceFieldRef: limits.cpu`` of a container without a limit."""
    memory: int = 0
    """Allocatable bytes, likewise."""


@dataclass(frozen=True, slots=True)
class PodSettings:
    """Edged's settings; the names follow ``modules.edged`` of KubeEdge's edgecore configuration."""

    root_directory: Path
    """``tailoredKubeletConfig`` root: volumes live in ``pods/<uid>/volumes/kubernetes.io~<plugin>/<name>``."""
    log_directory: Path
    """Container logs: ``<namespace>_<pod>_<uid>/<container>/<attempt>.log``."""
    cluster_dns: Sequence[str] = ()
    cluster_domain: str = "cluster.local"
    default_pod_network: str = "cni"
    """``host`` runs pods that ask for a pod network in the host's, for nodes without any CNI plugin."""
    service_host: str = ""
    """``KUBERNETES_SERVICE_HOST`` of every container; empty where pods have no API endpoint on this node."""
    service_port: str = ""
    relist_seconds: float = 1.0
    resync_seconds: float = 60.0
    max_parallel_pulls: int = 3
    cgroup_root: str = ""
    """Parent of the containers' cgroups where pods have none of their own; empty leaves it to the runtime."""
    cgroups: CgroupRules | None = None
    """Pods have cgroups of their own, by these rules."""
    cpu_quota: bool = True
    """Whether CPU limits are enforced (``cpuCFSQuota``)."""
    cpu_period: int = 100_000
    """Microseconds (``cpuCFSQuotaPeriod``)."""
    seccomp_default: bool = False
    """Containers that name no seccomp profile get the runtime's."""
    allowed_sysctls: Sequence[str] = ()
    """Sysctls that are let in although they are not safe; ``*`` at the end stands for anything."""
    static_pod_path: Path | None = None
    """Manifests of pods that run whatever the cloud says."""
    static_check_seconds: float = 1.0
    eviction: EvictionSettings = field(default_factory=EvictionSettings)
    images: ImageSettings = field(default_factory=ImageSettings)
    log_max_size: int = 10 << 20
    log_max_files: int = 5
    housekeeping_seconds: float = 10.0

    @property
    def service_env(self) -> Sequence[tuple[str, str]]:
        """What tells client libraries in pods where their API is; nothing rather than empty values.

        Some take an empty value for an address. Without the variables all of them know that they are in no cluster.
        """
        if not self.service_host or not self.service_port:
            return ()
        return (
            ("KUBERNETES_SERVICE_HOST", self.service_host),
            ("KUBERNETES_SERVICE_PORT", self.service_port),
        )
