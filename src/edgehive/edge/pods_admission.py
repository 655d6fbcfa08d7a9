"""Pods that this node does not let in: sysctls that are not safe, AppArmor profiles on a host without it. Pure.

The lists and the words are the kubelet's. It fails such a pod; here the pod stays ``Pending`` with an event, so that
a Deployment does not make one failed pod after the other.
"""

from collections.abc import Sequence

from edgehive.edge.pods_spec import Container, JsonObject, Pod
from edgehive.edge.runtime import RuntimeFailure

SAFE_SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    )
)
_OF_IPC = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
_OF_NETWORK = "net."
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
"""Annotation of a pod, followed by a container's name; older than the field."""


def normal_sysctl(name: str) -> str:
    """``net/ipv4/x.y`` and ``net.ipv4.x`` name things in two ways; the dots are what the runtime wants."""
    first = next((c for c in name if c in "./"), ".")
    if first == ".":
        return name
    return name.translate(str.maketrans("./", "/."))


def check_sysctls(pod: Pod, allowed: Sequence[str], *, node_network: bool) -> None:
    """Refuse sysctls that are neither safe nor allowed here, or that would be the node's.

    Raises:
        RuntimeFailure: ``SysctlForbidden``.
    """
    for one in pod.spec.security_context.get("sysctls") or ():
        name = normal_sysctl(str(one.get("name", "")))
        if name not in SAFE_SYSCTLS and not any(_matches(pattern, name) for pattern in allowed):
            raise RuntimeFailure("SysctlForbidden", f'forbidden sysctl: "{name}" not allowlisted')
        if name.startswith(_OF_NETWORK) and node_network:
            raise RuntimeFailure(
                "SysctlForbidden", f'forbidden sysctl: "{name}" not allowed with host net enabled'
            )
        if name.startswith(_OF_IPC) and pod.spec.host_ipc:
            raise RuntimeFailure(
                "SysctlForbidden", f'forbidden sysctl: "{name}" not allowed with host ipc enabled'
            )


def _matches(pattern: str, name: str) -> bool:
    wanted = normal_sysctl(pattern.strip())
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted


def apparmor_profile(pod: Pod, one: Container) -> JsonObject | None:
    """The profile a container asks for: its own field, the pod's, or the old annotation; None for none."""
    for context in (one.security_context, pod.spec.security_context):
        found = context.get("appArmorProfile")
        if isinstance(found, dict):
            return found
    kind, _, name = pod.metadata.annotations.get(_APPARMOR + one.name, "").partition("/")
    match kind:
        case "runtime":
            return {"type": "RuntimeDefault"}
        case "localhost":
            return {"type": "Localhost", "localhostProfile": name}
        case "unconfined":
            return {"type": "Unconfined"}
    return None


def check_apparmor(pod: Pod, *, enabled: bool) -> None:
    """Refuse profiles where the host cannot enforce any.

    Raises:
        RuntimeFailure: ``AppArmor``.
    """
    for one in pod.spec.all_containers:
        profile = apparmor_profile(pod, one)
        if profile is not None and profile.get("type") != "Unconfined" and not enabled:
            text = "Cannot enforce AppArmor: AppArmor is not enabled on the host"
            raise RuntimeFailure("AppArmor", text)
