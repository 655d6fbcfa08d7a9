"""What a pod asks of the runtime: sandbox and container specifications. Pure."""

from collections.abc import Mapping, Sequence

from edgehive.edge.cgroups import cgroup_parent, cpu_quota, cpu_shares
from edgehive.edge.env import expand
from edgehive.edge.pods_actions import (
    CONTAINER_HASH,
    CONTAINER_NAME,
    NODE_NAME,
    POD_GRACE,
    POD_NAME,
    POD_NAMESPACE,
    POD_UID,
    RESTART_COUNT,
)
from edgehive.edge.pods_admission import apparmor_profile, normal_sysctl
from edgehive.edge.pods_settings import NodeFacts, PodSettings
from edgehive.edge.pods_spec import Container, Pod, parse_quantity
from edgehive.edge.runtime import ContainerSpec, Mount, RuntimeFailure, SandboxSpec

_HUGE_PAGES = "hugepages-"
_NODE_CRITICAL = 2_000_001_000


def sandbox_spec(pod: Pod, attempt: int, settings: PodSettings, node: NodeFacts) -> SandboxSpec:
    """Describe the sandbox of `pod`."""
    meta, spec = pod.metadata, pod.spec
    host_network = spec.host_network or settings.default_pod_network == "host"
    servers, searches, options = _dns(pod, settings, host_network=spec.host_network)
    ports = [
        (port.protocol, port.container_port, port.host_port, port.host_ip)
        for one in (*spec.init_containers, *spec.containers)
        for port in one.ports
        if port.host_port and not host_network
    ]
    sysctls = spec.security_context.get("sysctls") or ()
    return SandboxSpec(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        attempt=attempt,
        hostname=node.name if host_network else (spec.hostname or meta.name)[:63].rstrip("-."),
        log_directory=str(settings.log_directory / log_directory_name(pod)),
        labels=meta.labels | _identity(pod, node),
        annotations=meta.annotations | {POD_GRACE: str(spec.termination_grace_period_seconds)},
        host_network=host_network,
        host_pid=spec.host_pid,
        host_ipc=spec.host_ipc,
        share_pid=spec.share_process_namespace,
        dns_servers=servers,
        dns_searches=searches,
        dns_options=options,
        port_mappings=ports,
        sysctls={normal_sysctl(str(one.get("name"))): str(one.get("value", "")) for one in sysctls},
        cgroup_parent=cgroup_parent(settings.cgroups, pod) if settings.cgroups else settings.cgroup_root,
        security=_with_local_profile(spec.security_context, settings),
        runtime_handler=spec.runtime_class_name,
        privileged=any(
            one.security_context.get("privileged") is True
            for one in (*spec.init_containers, *spec.containers)
        ),
    )


def container_spec(
    pod: Pod,
    container: Container,
    *,
    attempt: int,
    image: str,
    env: Sequence[tuple[str, str]],
    mounts: Sequence[Mount],
    node: NodeFacts,
    settings: PodSettings,
    target_id: str = "",
) -> ContainerSpec:
    """Describe one container of `pod`."""
    limits, requests = container.resources.limits, container.resources.requests
    cpu_limit = parse_quantity(limits.get("cpu", 0))
    cpu_request = parse_quantity(requests.get("cpu", limits.get("cpu", 0)))
    values = dict(env)
    limited = bool(cpu_limit) and settings.cpu_quota
    return ContainerSpec(
        name=container.name,
        attempt=attempt,
        image=image,
        command=[expand(word, values) for word in container.command],
        args=[expand(word, values) for word in container.args],
        working_dir=container.working_dir,
        env=env,
        mounts=mounts,
        log_path=f"{container.name}/{attempt}.log",
        labels=_identity(pod, node) | {CONTAINER_NAME: container.name},
        annotations={
            CONTAINER_HASH: container.hash,
            RESTART_COUNT: str(attempt),
            POD_GRACE: str(pod.spec.termination_grace_period_seconds),
        },
        stdin=container.stdin,
        stdin_once=container.stdin_once,
        tty=container.tty,
        cpu_shares=cpu_shares(cpu_request),
        cpu_quota=cpu_quota(cpu_limit, settings.cpu_period) if limited else 0,
        cpu_period=settings.cpu_period if limited else 0,
        memory_limit=int(parse_quantity(limits.get("memory", 0))),
        huge_pages={
            name.removeprefix(_HUGE_PAGES): int(parse_quantity(amount))
            for name, amount in limits.items()
            if name.startswith(_HUGE_PAGES)
        },
        oom_score_adj=oom_score(pod, container, node),
        security=_merged_security(pod, container, settings),
        target_id=target_id,
    )


def oom_score(pod: Pod, container: Container, node: NodeFacts) -> int:
    """How willingly the kernel kills the container when memory is short, by its QoS class."""
    qos = pod.qos_class
    if qos == "Guaranteed" or pod.spec.priority >= _NODE_CRITICAL:
        return -997
    if qos == "BestEffort" or not node.memory:
        return 1000
    amounts = container.resources.limits | container.resources.requests
    share = 1000 - int(1000 * parse_quantity(amounts.get("memory", 0)) / node.memory)
    return min(max(share, 3), 999)


def log_directory_name(pod: Pod) -> str:
    """``<namespace>_<name>_<uid>``."""
    return f"{pod.metadata.namespace}_{pod.metadata.name}_{pod.uid}"


def _identity(pod: Pod, node: NodeFacts) -> dict[str, str]:
    meta = pod.metadata
    return {NODE_NAME: node.name, POD_NAME: meta.name, POD_NAMESPACE: meta.namespace, POD_UID: meta.uid}


def _merged_security(pod: Pod, container: Container, settings: PodSettings) -> dict[str, object]:
    shared = ("runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile", "seLinuxOptions")
    merged: dict[str, object] = {
        key: value for key, value in pod.spec.security_context.items() if key in shared
    }
    groups = [*(pod.spec.security_context.get("supplementalGroups") or ())]
    if isinstance(group := pod.spec.security_context.get("fsGroup"), int):
        groups.append(group)
    merged |= {"supplementalGroups": groups} | container.security_context
    if (profile := apparmor_profile(pod, container)) is not None:
        merged["appArmorProfile"] = profile
    if "seccompProfile" not in merged and settings.seccomp_default:
        merged["seccompProfile"] = {"type": "RuntimeDefault"}
    return _with_local_profile(merged, settings)


def _with_local_profile(security: Mapping[str, object], settings: PodSettings) -> dict[str, object]:
    """A local seccomp profile by its place on this node: the runtime takes whole paths alone."""
    profile = security.get("seccompProfile")
    if not isinstance(profile, dict) or profile.get("type") != "Localhost":
        return dict(security)
    home = settings.root_directory.absolute() / "seccomp"
    name = str(profile.get("localhostProfile", ""))
    if not name or name.startswith("/") or ".." in name.split("/"):
        raise RuntimeFailure("CreateContainerConfigError", f"not a seccomp profile below {home}: {name!r}")
    return dict(security) | {"seccompProfile": profile | {"localhostProfile": str(home / name)}}


def _dns(pod: Pod, settings: PodSettings, *, host_network: bool) -> tuple[list[str], list[str], list[str]]:
    policy = pod.spec.dns_policy
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    cluster = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not host_network)
    if cluster and settings.cluster_dns:
        domain = settings.cluster_domain
        servers = list(settings.cluster_dns)
        searches = [f"{pod.metadata.namespace}.svc.{domain}", f"svc.{domain}", domain]
        options = ["ndots:5"]
    extra: Mapping[str, Sequence[object]] = pod.spec.dns_config
    servers += [str(one) for one in extra.get("nameservers") or ()]
    searches += [str(one) for one in extra.get("searches") or ()]
    for one in pod.spec.dns_config.get("options") or ():
        name, value = str(one.get("name", "")), one.get("value")
        options = [o for o in options if o.partition(":")[0] != name]
        options.append(name if value is None else f"{name}:{value}")
    return servers, searches, options
