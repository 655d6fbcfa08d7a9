"""Which pod has to go when the node runs short, as Kubernetes documents it; pure.

A hard threshold acts at once, a soft one after its grace period. Pods that use more than they have asked for go
first, then those of lower priority, then the greatest users. Critical and static pods are never chosen. Nothing here
looks at the cloud: a cut link evicts nobody.
"""

from collections.abc import Mapping, Sequence

import msgspec

from edgehive.edge.pods_spec import parse_quantity

MEMORY, PIDS = "memory.available", "pid.available"
DISKS = frozenset(("nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree"))
CRITICAL_PRIORITY = 2_000_000_000

_RESOURCES = {MEMORY: "memory", PIDS: "pids", "nodefs.inodesFree": "inodes", "imagefs.inodesFree": "inodes"}
_ORDER = (MEMORY, "nodefs.available", "imagefs.available", "nodefs.inodesFree", "imagefs.inodesFree", PIDS)


class EvictionSettings(msgspec.Struct, frozen=True):
    """The ``eviction*`` keys of the kubelet's configuration; amounts are ``100Mi`` or ``10%``."""

    hard: Mapping[str, str] = msgspec.field(default_factory=dict)
    soft: Mapping[str, str] = msgspec.field(default_factory=dict)
    soft_grace: Mapping[str, float] = msgspec.field(default_factory=dict)
    minimum_reclaim: Mapping[str, str] = msgspec.field(default_factory=dict)
    max_pod_grace: int = 0


class Shortage(msgspec.Struct, frozen=True):
    """A threshold that is crossed and must be acted on."""

    signal: str
    threshold: str
    available: int
    grace: int | None
    """Seconds a pod gets at most to end; None for a hard threshold: it ends at once."""

    @property
    def resource(self) -> str:
        """What runs short, as messages call it."""
        return _RESOURCES.get(self.signal, "ephemeral-storage")


class Candidate(msgspec.Struct, frozen=True):
    """A running pod as the ranking sees it; disk and memory in bytes."""

    uid: str
    priority: int
    protected: bool
    memory: int = 0
    memory_request: int = 0
    disk: int = 0
    disk_request: int = 0
    processes: int = 0


class EvictionWatch:
    """Remembers since when thresholds are crossed, and what was being reclaimed."""

    def __init__(self, settings: EvictionSettings) -> None:
        self._settings = settings
        self._soft_since: dict[str, float] = {}
        self._reclaiming: set[str] = set()

    @property
    def watches(self) -> bool:
        return bool(self._settings.hard or self._settings.soft)

    def shortage(self, levels: Mapping[str, tuple[int, int]], now: float) -> Shortage | None:
        """Return what must be acted on now, memory before disks before pids; `levels` are (available, capacity)."""
        found: dict[str, Shortage] = {}
        for signal in _ORDER:
            available, capacity = levels.get(signal, (0, 0))
            if capacity <= 0:
                continue
            hard = self._settings.hard.get(signal)
            if hard is not None and self._below(signal, hard, available, capacity):
                found[signal] = Shortage(signal, hard, available, None)
            soft = self._settings.soft.get(signal)
            if soft is None or not self._below(signal, soft, available, capacity):
                self._soft_since.pop(signal, None)
                continue
            since = self._soft_since.setdefault(signal, now)
            if since > now:  # the clock was set back
                since = self._soft_since[signal] = now
            if now - since >= self._settings.soft_grace.get(signal, 0.0):
                grace = self._settings.max_pod_grace
                found.setdefault(signal, Shortage(signal, soft, available, grace))
        self._reclaiming = set(found)
        return next(iter(found.values()), None)

    def _below(self, signal: str, limit: str, available: int, capacity: int) -> bool:
        """Once a threshold is crossed, it stays so until the minimum to reclaim is back on top of it."""
        wanted = amount(limit, capacity)
        if signal in self._reclaiming:
            wanted += amount(self._settings.minimum_reclaim.get(signal, "0"), capacity)
        return available < wanted


def amount(text: str, capacity: int) -> float:
    """``10%`` of `capacity`, or a quantity."""
    if text.endswith("%"):
        try:
            return capacity * float(text[:-1]) / 100
        except ValueError:
            return 0.0
    return parse_quantity(text)


def choose(shortage: Shortage, pods: Sequence[Candidate]) -> Candidate | None:
    """Return the pod to end for `shortage`; None when there is none that may be."""
    able = [pod for pod in pods if not pod.protected]
    if shortage.signal == MEMORY:
        return min(able, key=_by_memory, default=None)
    if shortage.signal == PIDS:
        return min(able, key=lambda pod: (pod.priority, -pod.processes, pod.uid), default=None)
    return min(able, key=_by_disk, default=None)


def _by_memory(pod: Candidate) -> tuple[bool, int, int, str]:
    over = pod.memory - pod.memory_request
    return over <= 0, pod.priority, -over, pod.uid


def _by_disk(pod: Candidate) -> tuple[bool, int, int, str]:
    over = pod.disk - pod.disk_request
    return over <= 0, pod.priority, -over, pod.uid
