"""The Node object as the edge reports it, and the patches that bring the cloud's copy up to date. Pure.

The shapes are the ones KubeEdge's edged sends: labels and ``EdgeReady`` of its kubelet, strategic merge
patches with ``$setElementOrder/conditions``, ``daemonEndpoints`` only when the node is created.
"""

import datetime
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from edgehive.edge.node_probe import Levels, Machine
from edgehive.edge.runtime import ImageInfo
from edgehive.kube.quantity import format_quantity, parse_quantity

KUBERNETES_VERSION = "v1.32.10"
"""The Kubernetes whose kubelet the edge behaves like."""

EDGE_ROLE = "node-role.kubernetes.io/edge"
AGENT_ROLE = "node-role.kubernetes.io/agent"

_HEARTBEAT = "lastHeartbeatTime"
_MOST_NAMES = 5


def kubelet_version(product: str) -> str:
    """``v1.32.10-kubeedge-v0.1.0``: KubeEdge's tools read the part after ``kubeedge-``."""
    return f"{KUBERNETES_VERSION}-kubeedge-v{product}"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the configuration says about the node."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Mapping[str, Any], ...] = ()
    schedulable: bool = True
    kubelet_version: str = ""
    kubelet_port: int = 10350
    max_pods: int = 110
    pods_per_core: int = 0
    reserved: Mapping[str, str] = field(default_factory=dict)
    """``kubeReserved`` plus ``systemReserved``."""
    eviction_hard: Mapping[str, str] = field(default_factory=dict)
    pressure_transition: float = 300.0
    register: bool = True


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether pods can be run: the runtime's version, or why it cannot be used."""

    runtime: str = ""
    problem: str = ""


def timestamp(now: float) -> str:
    """RFC 3339, seconds."""
    return datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_time(now: float) -> str:
    """RFC 3339, microseconds, as a Lease has it."""
    return datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def threshold(text: str, capacity: int) -> float:
    """An eviction threshold (``10%`` or ``100Mi``) as an amount."""
    if text.endswith("%"):
        return capacity * float(text[:-1]) / 100
    return float(parse_quantity(text))


def sum_reserved(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Add up reservations of several parts."""
    total: dict[str, Decimal] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, Decimal(0)) + parse_quantity(amount)
    return {name: format_quantity(amount) for name, amount in total.items()}


def node_images(images: Iterable[ImageInfo], most: int) -> list[dict[str, Any]]:
    """The ``images`` of a Node, the largest first, as many as the setting ``nodeStatusMaxImages`` says; -1 is all."""
    named = sorted((one for one in images if one.tags or one.digests), key=lambda one: (-one.size, one.id))
    return [
        {"names": [*one.digests, *one.tags][:_MOST_NAMES], "sizeBytes": one.size}
        for one in (named if most < 0 else named[:most])
    ]


class NodeReporter:
    """Makes the Node's status from samples; remembers since when each condition holds."""

    def __init__(self, *, settings: NodeSettings, machine: Machine) -> None:
        self._settings = settings
        self._machine = machine
        self._conditions: dict[str, dict[str, str]] = {}
        self._pressed_at: dict[str, float] = {}

    def labels(self) -> dict[str, str]:
        """The labels this node owns."""
        arch = self._machine.architecture
        return {
            "beta.kubernetes.io/arch": arch,
            "beta.kubernetes.io/os": "linux",
            "kubernetes.io/arch": arch,
            "kubernetes.io/hostname": self._settings.name,
            "kubernetes.io/os": "linux",
            AGENT_ROLE: "",
            EDGE_ROLE: "",
            **self._settings.labels,
        }

    def node(self, status: Mapping[str, Any]) -> dict[str, Any]:
        """The object for registration."""
        spec: dict[str, Any] = {}
        if not self._settings.schedulable:
            spec["unschedulable"] = True
        taints = [dict(taint) for taint in self._settings.taints]
        if not self._settings.schedulable:
            taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
        if taints:
            spec["taints"] = taints
        return {
            "metadata": {
                "name": self._settings.name,
                "creationTimestamp": None,
                "labels": self.labels(),
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": spec,
            "status": {
                **status,
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self._settings.kubelet_port}},
            },
        }

    def status(self, levels: Levels, readiness: Readiness, now: float, *, address: str) -> dict[str, Any]:
        """The status as it is now; `address` is the node's InternalIP."""
        machine, settings = self._machine, self._settings
        capacity, allocatable = self._resources()
        return {
            "capacity": capacity,
            "allocatable": allocatable,
            "conditions": [
                self._memory(levels, now),
                self._disk(levels, now),
                self._pid(levels, now),
                self._ready(readiness, now),
            ],
            "addresses": [
                {"type": "InternalIP", "address": address},
                {"type": "Hostname", "address": settings.name},
            ],
            "nodeInfo": {
                "machineID": machine.machine_id,
                "systemUUID": machine.system_uuid,
                "bootID": machine.boot_id,
                "kernelVersion": machine.kernel,
                "osImage": machine.os_image,
                "containerRuntimeVersion": readiness.runtime,
                "kubeletVersion": settings.kubelet_version,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": machine.architecture,
            },
        }

    def _resources(self) -> tuple[dict[str, str], dict[str, str]]:
        machine, settings = self._machine, self._settings
        pods = settings.max_pods
        if settings.pods_per_core > 0:
            pods = min(pods, settings.pods_per_core * machine.cores)
        amounts = {
            "cpu": Decimal(machine.cores),
            "memory": Decimal(machine.memory),
            "ephemeral-storage": Decimal(machine.storage),
            "pods": Decimal(pods),
            **{f"hugepages-{size}": Decimal(amount) for size, amount in machine.hugepages},
        }
        evicted = {
            "memory": threshold(settings.eviction_hard.get("memory.available", "0"), machine.memory),
            "ephemeral-storage": threshold(
                settings.eviction_hard.get("nodefs.available", "0"), machine.storage
            ),
        }
        allocatable = {}
        for name, amount in amounts.items():
            reserved = parse_quantity(settings.reserved.get(name, "0")) + math.ceil(evicted.get(name, 0.0))
            allocatable[name] = _amount(name, max(Decimal(0), amount - reserved))
        return {name: _amount(name, amount) for name, amount in amounts.items()}, allocatable

    # conditions

    def _memory(self, levels: Levels, now: float) -> dict[str, str]:
        pressed = self._pressed("MemoryPressure", {"memory.available": levels.memory}, now)
        if pressed:
            return self._condition(
                "MemoryPressure", "True", "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available", now,
            )  # fmt: skip
        return self._condition(
            "MemoryPressure", "False", "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available", now,
        )  # fmt: skip

    def _disk(self, levels: Levels, now: float) -> dict[str, str]:
        signals = {
            "nodefs.available": levels.node_bytes,
            "nodefs.inodesFree": levels.node_inodes,
            "imagefs.available": levels.image_bytes,
            "imagefs.inodesFree": levels.image_inodes,
        }
        if self._pressed("DiskPressure", signals, now):
            return self._condition(
                "DiskPressure", "True", "KubeletHasDiskPressure", "kubelet has disk pressure", now
            )
        return self._condition(
            "DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure", now
        )

    def _pid(self, levels: Levels, now: float) -> dict[str, str]:
        if self._pressed("PIDPressure", {"pid.available": levels.pids}, now):
            return self._condition(
                "PIDPressure", "True", "KubeletHasInsufficientPID",
                "kubelet has insufficient PID available", now,
            )  # fmt: skip
        return self._condition(
            "PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available", now
        )

    def _ready(self, readiness: Readiness, now: float) -> dict[str, str]:
        if readiness.problem:
            return self._condition("Ready", "False", "KubeletNotReady", readiness.problem, now)
        return self._condition("Ready", "True", "EdgeReady", "edge is posting ready status", now)

    def _pressed(self, condition: str, signals: Mapping[str, tuple[int, int]], now: float) -> bool:
        """Whether a threshold is crossed, or was so lately that the node must not yet count as recovered."""
        for signal, (available, capacity) in signals.items():
            limit = self._settings.eviction_hard.get(signal)
            if limit is not None and capacity > 0 and available < threshold(limit, capacity):
                self._pressed_at[condition] = now
                return True
        since = self._pressed_at.get(condition)
        return since is not None and 0 <= now - since < self._settings.pressure_transition

    def _condition(self, kind: str, status: str, reason: str, message: str, now: float) -> dict[str, str]:
        before = self._conditions.get(kind)
        changed = before is None or before["status"] != status
        condition = {
            "type": kind,
            "status": status,
            _HEARTBEAT: timestamp(now),
            "lastTransitionTime": timestamp(now)
            if changed or before is None
            else before["lastTransitionTime"],
            "reason": reason,
            "message": message,
        }
        self._conditions[kind] = condition
        return condition

    def adopt(self, node: Mapping[str, Any]) -> None:
        """Take over since when the conditions of an existing node hold (a restart is not a transition)."""
        for condition in _status(node).get("conditions") or []:
            kind = condition.get("type") if isinstance(condition, dict) else None
            if isinstance(kind, str) and "lastTransitionTime" in condition and "status" in condition:
                self._conditions.setdefault(kind, condition)


def _amount(name: str, amount: Decimal) -> str:
    if name == "memory" or (name == "ephemeral-storage" and amount % 1024 == 0):
        return f"{int(amount) // 1024}Ki"
    if name.startswith("hugepages-"):
        return format_quantity(amount, binary=True)
    return str(int(amount)) if name == "ephemeral-storage" else format_quantity(amount)


def _status(node: Mapping[str, Any]) -> Mapping[str, Any]:
    status = node.get("status")
    return status if isinstance(status, dict) else {}


def status_patch(
    *,
    known: Mapping[str, Any],
    status: Mapping[str, Any],
    labels: Mapping[str, str],
    heartbeat: bool,
    annotations: Mapping[str, str | None] = {},
) -> bytes | None:
    """The strategic merge patch from the `known` Node to `status`; ``None`` when there is nothing to say.

    Only times that moved are nothing to say. A `heartbeat` carries the conditions whole: the cluster may have
    set them to Unknown meanwhile without our hearing of it.
    """
    before = _status(known)
    patch: dict[str, Any] = {}
    conditions = _changed_conditions(before.get("conditions") or [], status["conditions"], heartbeat)
    if conditions:
        patch["$setElementOrder/conditions"] = [{"type": c["type"]} for c in status["conditions"]]
        patch["conditions"] = conditions
    for name in ("capacity", "allocatable", "nodeInfo"):
        wanted, had = status[name], before.get(name) or {}
        changes = {k: v for k, v in wanted.items() if had.get(k) != v}
        if changes:
            patch[name] = changes
    if (before.get("addresses") or []) != status["addresses"]:
        patch["addresses"] = [{"$patch": "replace"}, *status["addresses"]]
    for name in ("volumesInUse", "images"):
        if (listed := status.get(name)) is not None and listed != (before.get(name) or []):
            patch[name] = listed
    body: dict[str, Any] = {"status": patch} if patch else {}
    metadata = known.get("metadata")
    both: dict[str, Mapping[str, str] | Mapping[str, str | None]] = {
        "labels": labels,
        "annotations": annotations,
    }
    for name, own in both.items():
        had = (metadata.get(name) or {}) if isinstance(metadata, dict) else {}
        if missing := {k: v for k, v in own.items() if had.get(k) != v}:
            body.setdefault("metadata", {})[name] = missing
    return msgspec.json.encode(body) if body else None


def _changed_conditions(
    before: Iterable[Any], after: Iterable[Mapping[str, str]], heartbeat: bool
) -> list[dict[str, str]]:
    known = {c["type"]: c for c in before if isinstance(c, dict) and "type" in c}
    changed = []
    for condition in after:
        had = known.get(condition["type"], {})
        fields = {k: v for k, v in condition.items() if had.get(k) != v}
        if heartbeat:
            changed.append(dict(condition))
        elif fields.keys() - {_HEARTBEAT}:
            changed.append({**fields, "type": condition["type"]})
    return changed
