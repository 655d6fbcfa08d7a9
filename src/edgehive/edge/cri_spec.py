"""Sandbox and container specifications in the words of the CRI; pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgehive.edge.runtime import ContainerSpec, RuntimeFailure, SandboxSpec

_POD, _CONTAINER, _NODE, _TARGET = 0, 1, 2, 3
_PROTOCOLS = {"TCP": 0, "UDP": 1, "SCTP": 2}
_PROPAGATION = {"": 0, "rslave": 1, "rshared": 2}
_PROFILES = {"RuntimeDefault": 0, "Unconfined": 1, "Localhost": 2}

# What a container that is not privileged must not see or write, as the kubelet passes it.
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

Message = dict[str, Any]


def sandbox_config(spec: SandboxSpec) -> Message:
    """``PodSandboxConfig``."""
    security = spec.security
    context: Message = {
        "namespace_options": _namespaces(spec),
        "seccomp": _profile(security.get("seccompProfile"), default="RuntimeDefault"),
        "supplemental_groups": _groups(security),
        "privileged": spec.privileged,
    }
    _copy_user(context, security)
    config: Message = {
        "metadata": {
            "name": spec.name,
            "uid": spec.uid,
            "namespace": spec.namespace,
            "attempt": spec.attempt,
        },
        "log_directory": spec.log_directory,
        "labels": dict(spec.labels),
        "annotations": dict(spec.annotations),
        "port_mappings": [
            {
                "protocol": _PROTOCOLS.get(protocol, 0),
                "container_port": inner,
                "host_port": outer,
                "host_ip": address,
            }
            for protocol, inner, outer, address in spec.port_mappings
        ],
        "linux": {
            "cgroup_parent": spec.cgroup_parent,
            "security_context": context,
            "sysctls": dict(spec.sysctls),
        },
    }
    if not spec.host_network:
        config["hostname"] = spec.hostname
    if spec.dns_servers or spec.dns_searches or spec.dns_options:
        config["dns_config"] = {
            "servers": list(spec.dns_servers),
            "searches": list(spec.dns_searches),
            "options": list(spec.dns_options),
        }
    return config


def container_config(spec: ContainerSpec, sandbox: SandboxSpec) -> Message:
    """``ContainerConfig``."""
    return {
        "metadata": {"name": spec.name, "attempt": spec.attempt},
        "image": {"image": spec.image},
        "command": list(spec.command),
        "args": list(spec.args),
        "working_dir": spec.working_dir,
        "envs": [{"key": key, "value": value} for key, value in spec.env],
        "mounts": [
            {
                "container_path": mount.container_path,
                "host_path": mount.host_path,
                "readonly": mount.readonly,
                "propagation": _PROPAGATION.get(mount.propagation, 0),
            }
            for mount in spec.mounts
        ],
        "labels": dict(spec.labels),
        "annotations": dict(spec.annotations),
        "log_path": spec.log_path,
        "devices": [
            {
                "container_path": device.container_path,
                "host_path": device.host_path,
                "permissions": device.permissions,
            }
            for device in spec.devices
        ],
        "cdi_devices": [{"name": name} for name in spec.cdi_devices],
        "stdin": spec.stdin,
        "stdin_once": spec.stdin_once,
        "tty": spec.tty,
        "linux": {
            "resources": {
                "cpu_period": spec.cpu_period,
                "cpu_quota": spec.cpu_quota,
                "cpu_shares": spec.cpu_shares,
                "memory_limit_in_bytes": spec.memory_limit,
                "oom_score_adj": spec.oom_score_adj,
                "hugepage_limits": [
                    # The CRI wants what the kernel calls the size: 2MB.
                    {"page_size": size.replace("i", "B"), "limit": limit}
                    for size, limit in spec.huge_pages.items()
                ],
            },
            "security_context": _container_security(spec, sandbox),
        },
    }


def _container_security(spec: ContainerSpec, sandbox: SandboxSpec) -> Message:
    security = spec.security
    privileged = bool(security.get("privileged"))
    capabilities = security.get("capabilities")
    capabilities = capabilities if isinstance(capabilities, dict) else {}
    context: Message = {
        "privileged": privileged,
        "namespace_options": _namespaces(sandbox),
        "capabilities": {
            "add_capabilities": [str(one) for one in capabilities.get("add") or ()],
            "drop_capabilities": [str(one) for one in capabilities.get("drop") or ()],
        },
        "readonly_rootfs": bool(security.get("readOnlyRootFilesystem")),
        "no_new_privs": security.get("allowPrivilegeEscalation") is False,
        "supplemental_groups": _groups(security),
        "seccomp": _profile(security.get("seccompProfile"), default="Unconfined"),
    }
    if spec.target_id:
        context["namespace_options"] |= {"pid": _TARGET, "target_id": spec.target_id}
    if not privileged and security.get("procMount") != "Unmasked":
        context |= {"masked_paths": list(MASKED_PATHS), "readonly_paths": list(READONLY_PATHS)}
    if "appArmorProfile" in security:
        context["apparmor"] = _profile(security["appArmorProfile"], default="RuntimeDefault")
    options = security.get("seLinuxOptions")
    if isinstance(options, dict):
        context["selinux_options"] = {
            key: str(options[key]) for key in ("user", "role", "type", "level") if key in options
        }
    _copy_user(context, security)
    return context


def check_non_root(spec: ContainerSpec, image_user: str) -> None:
    """Refuse to run as root what must not.

    Raises:
        RuntimeFailure: ``runAsNonRoot`` is set and the container would run as root, or as who knows.
    """
    if not spec.security.get("runAsNonRoot"):
        return
    user = spec.security.get("runAsUser")
    if isinstance(user, int):
        if user == 0:
            text = "container's runAsUser breaks non-root policy"
            raise RuntimeFailure("CreateContainerConfigError", text)
    elif image_user in ("", "0"):
        text = "container has runAsNonRoot and image will run as root"
        raise RuntimeFailure("CreateContainerConfigError", text)
    elif not image_user.isdigit():
        text = f"container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify"
        raise RuntimeFailure("CreateContainerConfigError", text)


def _namespaces(spec: SandboxSpec) -> Message:
    return {
        "network": _NODE if spec.host_network else _POD,
        "pid": _NODE if spec.host_pid else (_POD if spec.share_pid else _CONTAINER),
        "ipc": _NODE if spec.host_ipc else _POD,
    }


def _copy_user(context: Message, security: Mapping[str, object]) -> None:
    for key, name in (("runAsUser", "run_as_user"), ("runAsGroup", "run_as_group")):
        value = security.get(key)
        # The CRI refuses a group without a user.
        if isinstance(value, int) and (key == "runAsUser" or "run_as_user" in context):
            context[name] = {"value": value}


def _groups(security: Mapping[str, object]) -> list[int]:
    groups = security.get("supplementalGroups")
    wanted = [one for one in groups if isinstance(one, int)] if isinstance(groups, Sequence) else []
    group = security.get("fsGroup")
    return [*wanted, group] if isinstance(group, int) and group not in wanted else wanted


def _profile(profile: object, *, default: str) -> Message:
    given = profile if isinstance(profile, dict) else {}
    kind = str(given.get("type", default))
    reference = str(given.get("localhostProfile", "")) if kind == "Localhost" else ""
    return {"profile_type": _PROFILES.get(kind, 0), "localhost_ref": reference}
