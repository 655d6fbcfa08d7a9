"""What a node and its pods use, in the kubelet's three forms; pure.

``/stats/summary`` (JSON), ``/metrics/resource`` and ``/metrics/cadvisor`` (Prometheus text) are written from one
`Sample`. A metrics server computes rates itself from the counters and their times; the summary's
``usageNanoCores`` needs two samples (`Rates`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgehive.edge.pods_spec import format_time
from edgehive.edge.runtime import Interface, PodUsage, Usage

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ContainerSample:
    """One running container."""

    id: str
    name: str
    image: str
    started_at: float
    usage: Usage
    logs: int = 0
    """Bytes of its log files."""


@dataclass(frozen=True, slots=True)
class PodSample:
    """One pod that runs something."""

    namespace: str
    name: str
    uid: str
    started_at: float
    containers: Sequence[ContainerSample]
    usage: PodUsage | None = None
    volumes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of its volumes in directories of edged, by name."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A file system: bytes and inodes."""

    available: int
    capacity: int
    inodes_free: int
    inodes: int


@dataclass(frozen=True, slots=True)
class NodeSample:
    """The machine. `cpu` is in nanoseconds of one core since boot; sizes in bytes."""

    name: str
    at: float
    booted_at: float
    cpu: int
    cores: int
    memory_capacity: int
    memory_usage: int
    working_set: int
    resident: int
    page_faults: int
    major_page_faults: int
    swap_usage: int
    file_system: FileSystem
    image_file_system: FileSystem
    max_pids: int
    pids: int
    interfaces: Sequence[Interface] = ()
    default_interface: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything at one moment."""

    node: NodeSample
    pods: Sequence[PodSample]


class Rates:
    """CPU rates (billionths of a core) from the last two readings of each counter."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, int] = {}

    def observe(self, readings: Mapping[str, tuple[float, int]]) -> None:
        """Take readings (seconds, nanoseconds used); what is not among them is forgotten."""
        rates = {}
        for key, (at, used) in readings.items():
            before = self._last.get(key)
            if before is not None and at > before[0]:
                rates[key] = int(max(used - before[1], 0) / (at - before[0]))
            elif key in self._rates:
                rates[key] = self._rates[key]
        self._rates = rates
        self._last = dict(readings)

    def get(self, key: str) -> int | None:
        """The rate, None while there was but one reading."""
        return self._rates.get(key)


def readings_of(sample: Sample) -> dict[str, tuple[float, int]]:
    """The CPU counters of a sample, for `Rates`: by container id, and ``""`` for the node."""
    found = {"": (sample.node.at, sample.node.cpu)}
    for pod in sample.pods:
        for one in pod.containers:
            found[one.id] = (one.usage.at, one.usage.cpu)
    return found


# --- /stats/summary -----------------------------------------------------------------------------------------


def summary(sample: Sample, rates: Rates, *, brief: bool = False) -> bytes:
    """``Summary`` of ``stats/v1alpha1``; `brief` leaves out all but CPU and memory."""
    node = sample.node
    body: dict[str, Any] = {
        "nodeName": node.name,
        "startTime": format_time(node.booted_at),
        "cpu": _cpu(node.at, node.cpu, rates.get("")),
        "memory": {
            "time": format_time(node.at),
            "availableBytes": max(node.memory_capacity - node.working_set, 0),
            "usageBytes": node.memory_usage,
            "workingSetBytes": node.working_set,
            "rssBytes": node.resident,
            "pageFaults": node.page_faults,
            "majorPageFaults": node.major_page_faults,
        },
    }
    if not brief:
        body |= {
            "network": _node_network(node),
            "fs": _file_system(node.at, node.file_system),
            "runtime": {"imageFs": _file_system(node.at, node.image_file_system)},
            "rlimit": {"time": format_time(node.at), "maxpid": node.max_pids, "curproc": node.pids},
        }
    pods = [_pod(pod, node, rates, brief=brief) for pod in sample.pods]
    return msgspec.json.encode({"node": body, "pods": pods})


def _cpu(at: float, used: int, rate: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {"time": format_time(at)}
    if rate is not None:
        found["usageNanoCores"] = rate
    return found | {"usageCoreNanoSeconds": used}


def _memory(at: float, usages: Iterable[Usage]) -> dict[str, Any]:
    found: dict[str, Any] = {"time": format_time(at), "usageBytes": 0, "workingSetBytes": 0, "rssBytes": 0}
    found |= {"pageFaults": 0, "majorPageFaults": 0}
    for one in usages:
        found["usageBytes"] += one.total or one.memory
        found["workingSetBytes"] += one.memory
        found["rssBytes"] += one.resident
        found["pageFaults"] += one.page_faults
        found["majorPageFaults"] += one.major_page_faults
    return found


def _pod(pod: PodSample, node: NodeSample, rates: Rates, *, brief: bool) -> dict[str, Any]:
    usages = [one.usage for one in pod.containers]
    at = max((one.at for one in usages), default=node.at)
    known = [rate for one in pod.containers if (rate := rates.get(one.id)) is not None]
    body: dict[str, Any] = {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": format_time(pod.started_at),
        "containers": [_container(one, node, rates, brief=brief) for one in pod.containers],
        "cpu": _cpu(at, sum(one.cpu for one in usages), sum(known) if known else None),
        "memory": _memory(at, usages),
    }
    if brief:
        return body
    if pod.usage is not None and pod.usage.interfaces:
        body["network"] = {"time": format_time(at), **_interfaces(pod.usage.interfaces)}
    space = _space(node.at, node.file_system)
    body["volume"] = [
        {**space, "usedBytes": used, "name": name} for name, used in sorted(pod.volumes.items())
    ]
    own = sum(pod.volumes.values()) + sum(one.usage.disk + one.logs for one in pod.containers)
    body["ephemeral-storage"] = {**space, "usedBytes": own}
    processes = (pod.usage.processes if pod.usage else 0) or sum(one.processes for one in usages)
    if processes:
        body["process_stats"] = {"process_count": processes}
    return body


def _container(one: ContainerSample, node: NodeSample, rates: Rates, *, brief: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": one.name,
        "startTime": format_time(one.started_at),
        "cpu": _cpu(one.usage.at, one.usage.cpu, rates.get(one.id)),
        "memory": _memory(one.usage.at, [one.usage]),
    }
    if not brief:
        rootfs = {"usedBytes": one.usage.disk, "inodesUsed": one.usage.inodes}
        body["rootfs"] = {**_space(node.at, node.image_file_system), **rootfs}
        body["logs"] = {**_space(node.at, node.file_system), "usedBytes": one.logs}
    return body


def _node_network(node: NodeSample) -> dict[str, Any]:
    first = sorted(node.interfaces, key=lambda one: one.name != node.default_interface)
    return {"time": format_time(node.at), **_interfaces(first)}


def _interfaces(interfaces: Sequence[Interface]) -> dict[str, Any]:
    found = [
        {
            "name": one.name,
            "rxBytes": one.received,
            "rxErrors": one.receive_errors,
            "txBytes": one.sent,
            "txErrors": one.send_errors,
        }
        for one in interfaces
    ]
    return {**(found[0] if found else {"name": ""}), "interfaces": found}


def _space(at: float, fs: FileSystem) -> dict[str, Any]:
    return {
        "time": format_time(at),
        "availableBytes": fs.available,
        "capacityBytes": fs.capacity,
        "inodesFree": fs.inodes_free,
        "inodes": fs.inodes,
    }


def _file_system(at: float, fs: FileSystem) -> dict[str, Any]:
    used = {"usedBytes": max(fs.capacity - fs.available, 0), "inodesUsed": max(fs.inodes - fs.inodes_free, 0)}
    return _space(at, fs) | used


# --- Prometheus ---------------------------------------------------------------------------------------------


class _Page:
    """Prometheus' text format, one family after the other."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, text: str, rows: Iterable[tuple[Labels, float, float]]) -> None:
        """Add a family; a row is labels, value, and the time of the reading (0: none)."""
        found = [
            f"{name}{_labels(labels)} {_number(value)}{f' {int(at * 1000)}' if at else ''}"
            for labels, value, at in rows
        ]
        if found:
            self._lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *found]

    def encode(self) -> bytes:
        """The page."""
        return ("\n".join(self._lines) + "\n").encode()


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    escaped = ((k, v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for k, v in labels)
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def resource_metrics(sample: Sample) -> bytes:
    """``/metrics/resource``: what a metrics server scrapes."""
    node, page = sample.node, _Page()
    containers = [(pod, one) for pod in sample.pods for one in pod.containers]
    names = [
        ((("container", one.name), ("namespace", pod.namespace), ("pod", pod.name)), one)
        for pod, one in containers
    ]
    page.family(
        "container_cpu_usage_seconds_total",
        "counter",
        "CPU time the container has used, in seconds of one core",
        [(labels, one.usage.cpu / 1e9, one.usage.at) for labels, one in names],
    )
    page.family(
        "container_memory_working_set_bytes",
        "gauge",
        "Memory the container cannot do without, in bytes",
        [(labels, one.usage.memory, one.usage.at) for labels, one in names],
    )
    page.family(
        "container_start_time_seconds",
        "gauge",
        "When the container was started, in seconds since the epoch",
        [(labels, one.started_at, 0.0) for labels, one in names],
    )
    page.family(
        "node_cpu_usage_seconds_total",
        "counter",
        "CPU time the node has used, in seconds of one core",
        [((), node.cpu / 1e9, node.at)],
    )
    page.family(
        "node_memory_working_set_bytes",
        "gauge",
        "Memory the node cannot do without, in bytes",
        [((), node.working_set, node.at)],
    )
    page.family("node_swap_usage_bytes", "gauge", "Swap in use, in bytes", [((), node.swap_usage, node.at)])
    pods = [
        ((("namespace", pod.namespace), ("pod", pod.name)), [one.usage for one in pod.containers])
        for pod in sample.pods
        if pod.containers
    ]
    page.family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "CPU time the pod's containers have used, in seconds of one core",
        [(labels, sum(u.cpu for u in usages) / 1e9, max(u.at for u in usages)) for labels, usages in pods],
    )
    page.family(
        "pod_memory_working_set_bytes",
        "gauge",
        "Memory the pod's containers cannot do without, in bytes",
        [(labels, sum(u.memory for u in usages), max(u.at for u in usages)) for labels, usages in pods],
    )
    page.family("resource_scrape_error", "gauge", "1 if something could not be read, else 0", [((), 0, 0.0)])
    return page.encode()


def cadvisor_metrics(sample: Sample) -> bytes:
    """``/metrics/cadvisor``: the families that dashboards use, for containers and for the machine."""
    node, page = sample.node, _Page()
    rows = [
        (
            (
                ("container", one.name),
                ("id", one.id),
                ("image", one.image),
                ("name", one.id),
                ("namespace", pod.namespace),
                ("pod", pod.name),
            ),
            one,
        )
        for pod in sample.pods
        for one in pod.containers
    ]
    root: Labels = tuple((key, "") for key in ("container", "image", "name", "namespace", "pod"))
    root = tuple(sorted((*root, ("id", "/"))))

    def gauge(name: str, text: str, of: Any, whole: float | None = None, kind: str = "gauge") -> None:
        found: list[tuple[Labels, float, float]] = [(k, of(one), one.usage.at) for k, one in rows]
        if whole is not None:
            found.insert(0, (root, whole, node.at))
        page.family(name, kind, text, found)

    total = (("cpu", "total"),)
    page.family(
        "container_cpu_usage_seconds_total",
        "counter",
        "CPU time used, in seconds of one core",
        [
            (tuple(sorted((*root, *total))), node.cpu / 1e9, node.at),
            *((tuple(sorted((*k, *total))), one.usage.cpu / 1e9, one.usage.at) for k, one in rows),
        ],
    )
    gauge(
        "container_memory_usage_bytes",
        "Memory used, caches included, in bytes",
        lambda one: one.usage.total or one.usage.memory,
        node.memory_usage,
    )
    gauge(
        "container_memory_working_set_bytes",
        "Memory that cannot be done without, in bytes",
        lambda one: one.usage.memory,
        node.working_set,
    )
    gauge("container_memory_rss", "Resident anonymous memory, in bytes", lambda one: one.usage.resident)
    gauge("container_fs_usage_bytes", "Bytes of the writable layer", lambda one: one.usage.disk)
    gauge("container_start_time_seconds", "When it was started", lambda one: one.started_at, node.booted_at)
    gauge("container_last_seen", "When it was read last", lambda one: int(one.usage.at), int(node.at))
    _network(page, sample)
    page.family("machine_cpu_cores", "gauge", "Logical cores of the machine", [((), node.cores, 0.0)])
    page.family(
        "machine_memory_bytes", "gauge", "Memory of the machine, in bytes", [((), node.memory_capacity, 0.0)]
    )
    return page.encode()


def _network(page: _Page, sample: Sample) -> None:
    owners: list[tuple[Labels, Sequence[Interface], float]] = [
        ((("namespace", ""), ("pod", "")), sample.node.interfaces, sample.node.at)
    ]
    for pod in sample.pods:
        if pod.usage is not None and pod.usage.interfaces:
            owner = (("namespace", pod.namespace), ("pod", pod.name))
            owners.append((owner, pod.usage.interfaces, sample.node.at))
    for name, what in (
        ("receive_bytes", "received"),
        ("receive_errors", "receive_errors"),
        ("transmit_bytes", "sent"),
        ("transmit_errors", "send_errors"),
    ):
        page.family(
            f"container_network_{name}_total",
            "counter",
            f"Network {name.replace('_', ' ')} since the interface is there",
            [
                ((("interface", one.name), *labels), getattr(one, what), at)
                for labels, interfaces, at in owners
                for one in interfaces
            ],
        )
