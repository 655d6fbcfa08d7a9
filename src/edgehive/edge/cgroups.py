"""Where a pod's cgroup is and what is written into it; pure.

The hierarchy is the kubelet's: ``kubepods`` below the cgroup root, in it a cgroup a pod for guaranteed pods, and
``burstable`` and ``besteffort`` with the others. With the cgroupfs driver names are directories
(``/kubepods/burstable/pod<uid>``), with systemd they are slices
(``kubepods-burstable-pod<uid, - as _>.slice``).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from edgehive.edge.pods_spec import Container, Pod, parse_quantity

CGROUPFS, SYSTEMD = "cgroupfs", "systemd"

_TOP = "kubepods"
_QOS = {"Guaranteed": (), "Burstable": ("burstable",), "BestEffort": ("besteffort",)}
_LEAST_SHARES, _MOST_SHARES = 2, 262144
_LEAST_QUOTA = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cgroup is given; None leaves it as it is. Memory in bytes, times in microseconds."""

    cpu_shares: int | None = None
    cpu_quota: int | None = None
    """For each `cpu_period`; -1 for no limit."""
    cpu_period: int = 100_000
    memory: int | None = None
    pids: int | None = None

    @property
    def cpu_weight(self) -> int | None:
        """`cpu_shares` as cgroup v2 has it, mapped from [2, 262144] to [1, 10000] like runc does."""
        if self.cpu_shares is None:
            return None
        return 1 + (self.cpu_shares - _LEAST_SHARES) * 9999 // (_MOST_SHARES - _LEAST_SHARES)


@dataclass(frozen=True, slots=True)
class CgroupRules:
    """The settings that decide; names follow ``tailoredKubeletConfig``."""

    driver: str = CGROUPFS
    root: str = ""
    cpu_quota: bool = True
    cpu_period: int = 100_000
    pids: int = -1
    cores: float = 0.0
    """What pods may have together, for the topmost cgroup; 0 sets nothing there."""
    memory: int = 0


class PodCgroups(Protocol):
    """What edged does with cgroups; `Cgroups`, or `NoCgroups` where there are none to be had."""

    rules: CgroupRules | None

    async def ensure(self, pod: Pod) -> None:
        """Make the pod's cgroup and set its limits; raises `RuntimeFailure`."""
        ...

    async def remove(self, uid: str) -> None:
        """Remove a pod's cgroup, ending what is still in it."""
        ...

    async def balance(self, pods: Iterable[Pod]) -> None:
        """Give each QoS class its weight."""
        ...


class NoCgroups:
    """Leaves cgroups to the runtime."""

    rules: CgroupRules | None = None

    async def ensure(self, pod: Pod) -> None:
        """Nothing to make."""

    async def remove(self, uid: str) -> None:
        """Nothing was made."""

    async def balance(self, pods: Iterable[Pod]) -> None:
        """Nothing to weigh."""


def cpu_shares(cores: float) -> int:
    """The relative weight of a CPU request."""
    return min(max(int(cores * 1024), _LEAST_SHARES), _MOST_SHARES)


def cpu_quota(cores: float, period: int) -> int:
    """Microseconds for each `period`; -1 for no limit."""
    return max(int(cores * period), _LEAST_QUOTA) if cores else -1


def pod_path(qos: str, uid: str) -> tuple[str, ...]:
    """The components of a pod's cgroup below the cgroup root."""
    return (_TOP, *_QOS[qos], f"pod{uid}")


def cgroup_name(rules: CgroupRules, path: tuple[str, ...]) -> str:
    """A path as ``cgroup_parent`` of the CRI: a directory or a slice."""
    root = [part for part in rules.root.split("/") if part]
    if rules.driver == CGROUPFS:
        return "/" + "/".join((*root, *path))
    parts = [part.removesuffix(".slice") for part in root[-1:]]
    return "-".join([*parts, *(part.replace("-", "_") for part in path)]) + ".slice"


def slice_directory(name: str) -> str:
    """Where systemd keeps a slice: ``a-b.slice`` is in ``a.slice``."""
    parts = name.removesuffix(".slice").split("-")
    return "/".join(f"{'-'.join(parts[:n])}.slice" for n in range(1, len(parts) + 1))


def cgroup_parent(rules: CgroupRules, pod: Pod) -> str:
    """What a pod's sandbox is given as its parent."""
    return cgroup_name(rules, pod_path(pod.qos_class, pod.uid))


def _amounts(one: Container, kind: str, resource: str) -> float:
    found: Mapping[str, object] = one.resources.limits
    if kind == "requests":
        found = one.resources.limits | one.resources.requests
    return parse_quantity(found.get(resource, 0))


def pod_amount(pod: Pod, kind: str, resource: str) -> float:
    """What a pod as a whole requests, or is limited to: the more of what runs at the end and of any step before it."""
    always = sum(_amounts(one, kind, resource) for one in pod.spec.containers)
    beside, most = 0.0, 0.0
    for one in pod.spec.init_containers:
        amount = _amounts(one, kind, resource)
        if one.restart_policy == "Always":
            beside += amount
            most = max(most, beside)
        else:
            most = max(most, beside + amount)
    return max(always + beside, most) + parse_quantity(pod.spec.overhead.get(resource, 0))


def _all_limited(pod: Pod, resource: str) -> bool:
    """Whether every container has a limit: without one the pod can have none."""
    return all(_amounts(one, "limits", resource) for one in (*pod.spec.containers, *pod.spec.init_containers))


def pod_limits(rules: CgroupRules, pod: Pod) -> Limits:
    """What a pod's cgroup is given."""
    qos = pod.qos_class
    pids = rules.pids if rules.pids > 0 else None
    if qos == "BestEffort":
        return Limits(cpu_shares=_LEAST_SHARES, cpu_period=rules.cpu_period, pids=pids)
    quota = None
    if _all_limited(pod, "cpu") and rules.cpu_quota:
        quota = cpu_quota(pod_amount(pod, "limits", "cpu"), rules.cpu_period)
    memory = int(pod_amount(pod, "limits", "memory")) if _all_limited(pod, "memory") else None
    shares = cpu_shares(pod_amount(pod, "requests", "cpu"))
    return Limits(shares, quota, rules.cpu_period, memory, pids)


def shared_limits(rules: CgroupRules, pods: Iterable[Pod]) -> dict[tuple[str, ...], Limits]:
    """What the cgroups above those of pods are given: burstable pods weigh what they request together."""
    burstable = sum(pod_amount(pod, "requests", "cpu") for pod in pods if pod.qos_class == "Burstable")
    return {
        (_TOP,): Limits(
            cpu_shares=cpu_shares(rules.cores) if rules.cores else None, memory=rules.memory or None
        ),
        (_TOP, "burstable"): Limits(cpu_shares=cpu_shares(burstable)),
        (_TOP, "besteffort"): Limits(cpu_shares=_LEAST_SHARES),
    }


def files_v1(limits: Limits) -> list[tuple[str, str, str]]:
    """(controller, file, value) for cgroup v1."""
    found = []
    if limits.cpu_shares is not None:
        found.append(("cpu", "cpu.shares", str(limits.cpu_shares)))
    if limits.cpu_quota is not None:
        found.append(("cpu", "cpu.cfs_period_us", str(limits.cpu_period)))
        found.append(("cpu", "cpu.cfs_quota_us", str(limits.cpu_quota)))
    if limits.memory is not None:
        found.append(("memory", "memory.limit_in_bytes", str(limits.memory or -1)))
    if limits.pids is not None:
        found.append(("pids", "pids.max", str(limits.pids)))
    return found


def files_v2(limits: Limits) -> list[tuple[str, str, str]]:
    """(controller, file, value) for cgroup v2."""
    found = []
    if limits.cpu_weight is not None:
        found.append(("cpu", "cpu.weight", str(limits.cpu_weight)))
    if limits.cpu_quota is not None:
        quota = "max" if limits.cpu_quota < 0 else str(limits.cpu_quota)
        found.append(("cpu", "cpu.max", f"{quota} {limits.cpu_period}"))
    if limits.memory is not None:
        found.append(("memory", "memory.max", str(limits.memory) if limits.memory else "max"))
    if limits.pids is not None:
        found.append(("pids", "pids.max", str(limits.pids)))
    return found


def slice_properties(limits: Limits) -> list[str]:
    """Arguments of ``systemctl set-property`` for a slice."""
    found = []
    if limits.cpu_shares is not None:
        # On cgroup v1 systemd derives the shares from the weight.
        found.append(f"CPUWeight={limits.cpu_weight}")
    if limits.cpu_quota is not None:
        percent = limits.cpu_quota * 100 / limits.cpu_period
        found.append("CPUQuota=" if limits.cpu_quota < 0 else f"CPUQuota={percent:.2f}%")
    if limits.memory is not None:
        found.append(f"MemoryMax={limits.memory or 'infinity'}")
    if limits.pids is not None:
        found.append(f"TasksMax={limits.pids}")
    return found


def parse_counters(text: str) -> dict[str, int]:
    """Read a file of lines ``name number``, as ``memory.stat`` is; other lines are passed over."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found[name] = int(value)
    return found
