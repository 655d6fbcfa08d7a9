"""From ``modules.edged`` of the configuration file to what edged is told."""

from pathlib import Path

from edgehive.edge.cgroups import CGROUPFS, CgroupRules
from edgehive.edge.config import Edged
from edgehive.edge.config_kubelet import KubeletConfig
from edgehive.edge.config_load import parse_duration
from edgehive.edge.node_probe import Machine
from edgehive.edge.node_status import sum_reserved
from edgehive.edge.pods_eviction import EvictionSettings
from edgehive.edge.pods_garbage import ImageSettings
from edgehive.edge.pods_settings import PodSettings
from edgehive.edge.pods_spec import parse_quantity


def pod_settings(edged: Edged, cgroups: CgroupRules | None) -> PodSettings:
    """What edged is told of its limits; `cgroups` when pods have cgroups of their own."""
    kubelet = edged.tailored_kubelet_config
    parallel = 1 if kubelet.serialize_image_pulls else kubelet.max_parallel_image_pulls or 3
    return PodSettings(
        root_directory=Path(edged.root_directory),
        log_directory=Path(kubelet.pod_logs_dir),
        cluster_dns=tuple(kubelet.cluster_dns),
        cluster_domain=kubelet.cluster_domain,
        resync_seconds=parse_duration(kubelet.sync_frequency),
        max_parallel_pulls=parallel,
        default_pod_network=edged.default_pod_network,
        cgroup_root=kubelet.cgroup_root,
        cgroups=cgroups,
        cpu_quota=kubelet.cpu_cfs_quota,
        cpu_period=cgroup_period(kubelet),
        seccomp_default=kubelet.seccomp_default or edged.seccomp_default,
        allowed_sysctls=tuple(kubelet.allowed_unsafe_sysctls),
        static_pod_path=Path(kubelet.static_pod_path) if kubelet.static_pod_path else None,
        eviction=EvictionSettings(
            hard=kubelet.eviction_hard,
            soft=kubelet.eviction_soft,
            soft_grace={k: parse_duration(v) for k, v in kubelet.eviction_soft_grace_period.items()},
            minimum_reclaim=kubelet.eviction_minimum_reclaim,
            max_pod_grace=kubelet.eviction_max_pod_grace_period,
        ),
        images=ImageSettings(
            high_percent=kubelet.image_gc_high_threshold_percent,
            low_percent=kubelet.image_gc_low_threshold_percent,
            minimum_age=parse_duration(kubelet.image_minimum_gc_age),
            maximum_age=parse_duration(kubelet.image_maximum_gc_age),
        ),
        log_max_size=int(parse_quantity(kubelet.container_log_max_size)),
        log_max_files=kubelet.container_log_max_files,
        housekeeping_seconds=parse_duration(kubelet.container_log_monitor_interval),
    )


def cgroup_period(kubelet: KubeletConfig) -> int:
    """``cpuCFSQuotaPeriod`` in microseconds."""
    return int(parse_duration(kubelet.cpu_cfs_quota_period) * 1_000_000) or 100_000


def cgroup_rules(kubelet: KubeletConfig, machine: Machine, *, processes: bool) -> CgroupRules:
    """How pods' cgroups are named and limited; what is reserved of the node is kept from all pods together.

    Pods that are `processes` are put into directories of ours, whatever driver a container runtime would want.
    """
    reserved = sum_reserved((kubelet.kube_reserved, kubelet.system_reserved))
    enforced = "pods" in kubelet.enforce_node_allocatable
    memory = int(parse_quantity(reserved.get("memory", 0)))
    cores = machine.cores - parse_quantity(reserved.get("cpu", 0))
    return CgroupRules(
        driver=CGROUPFS if processes else kubelet.cgroup_driver,
        root=kubelet.cgroup_root,
        cpu_quota=kubelet.cpu_cfs_quota,
        cpu_period=cgroup_period(kubelet),
        pids=kubelet.pod_pids_limit,
        cores=cores if enforced else 0.0,
        memory=max(machine.memory - memory, 0) if enforced and memory else 0,
    )
