"""Typed views of the objects that controllers decide on: only the fields they look at.

Reading goes through these; writing is done with patches, so that fields unknown here survive.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.meta import Meta
from edgehive.kube.reflector import CachedObject


class View(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Base of all views: Kubernetes spelling, unknown fields ignored."""


class Condition(View, frozen=True):
    """One entry of ``status.conditions``."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    last_update_time: str | None = None
    last_heartbeat_time: str | None = None
    last_probe_time: str | None = None
    observed_generation: int | None = None


class Toleration(View, frozen=True):
    """``spec.tolerations[]``."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class Taint(View, frozen=True):
    """``spec.taints[]`` of a node."""

    key: str = ""
    value: str = ""
    effect: str = ""
    time_added: str | None = None


class Port(View, frozen=True):
    """``containers[].ports[]``."""

    name: str = ""
    container_port: int = 0
    host_port: int = 0
    host_ip: str = msgspec.field(default="", name="hostIP")
    protocol: str = "TCP"


class Resources(View, frozen=True):
    """``containers[].resources``."""

    requests: dict[str, str | int | float] | None = None
    limits: dict[str, str | int | float] | None = None


class Container(View, frozen=True):
    """``spec.containers[]``."""

    name: str = ""
    ports: tuple[Port, ...] | None = None
    resources: Resources | None = None
    restart_policy: str = ""


class SchedulingGate(View, frozen=True):
    """``spec.schedulingGates[]``."""

    name: str = ""


class PodSpec(View, frozen=True):
    """``spec`` of a pod."""

    node_name: str = ""
    node_selector: dict[str, str] | None = None
    affinity: dict[str, Any] | None = None
    tolerations: tuple[Toleration, ...] | None = None
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    overhead: dict[str, str | int | float] | None = None
    scheduler_name: str = ""
    priority: int | None = None
    host_network: bool | None = None
    topology_spread_constraints: tuple[dict[str, Any], ...] | None = None
    scheduling_gates: tuple[SchedulingGate, ...] | None = None
    volumes: tuple[dict[str, Any], ...] | None = None


class ContainerStatus(View, frozen=True):
    """``status.containerStatuses[]``."""

    name: str = ""
    restart_count: int = 0


class PodIP(View, frozen=True):
    """``status.podIPs[]``."""

    ip: str = ""


class PodStatus(View, frozen=True):
    """``status`` of a pod."""

    phase: str = ""
    reason: str = ""
    conditions: tuple[Condition, ...] | None = None
    container_statuses: tuple[ContainerStatus, ...] | None = None
    nominated_node_name: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] | None = msgspec.field(default=None, name="podIPs")


class Pod(View, frozen=True):
    """A pod."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class NodeSpec(View, frozen=True):
    """``spec`` of a node."""

    unschedulable: bool | None = None
    taints: tuple[Taint, ...] | None = None


class NodeStatus(View, frozen=True):
    """``status`` of a node."""

    allocatable: dict[str, str | int | float] | None = None
    capacity: dict[str, str | int | float] | None = None
    conditions: tuple[Condition, ...] | None = None


class Node(View, frozen=True):
    """A node."""

    metadata: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class RollingUpdate(View, frozen=True):
    """``rollingUpdate`` of a deployment or daemonset."""

    max_surge: int | str | None = None
    max_unavailable: int | str | None = None


class Strategy(View, frozen=True):
    """``strategy`` (deployment) or ``updateStrategy`` (daemonset)."""

    type: str = "RollingUpdate"
    rolling_update: RollingUpdate | None = None


class DeploymentSpec(View, frozen=True):
    """``spec`` of a deployment."""

    replicas: int | None = None
    selector: dict[str, Any] = {}
    template: dict[str, Any] = {}
    strategy: Strategy = Strategy()
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None
    progress_deadline_seconds: int | None = None
    paused: bool = False


class DeploymentStatus(View, frozen=True):
    """``status`` of a deployment."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    collision_count: int | None = None
    conditions: tuple[Condition, ...] | None = None


class Deployment(View, frozen=True):
    """A deployment."""

    metadata: Meta = Meta()
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


class ReplicaSetSpec(View, frozen=True):
    """``spec`` of a replicaset."""

    replicas: int | None = None
    selector: dict[str, Any] = {}
    template: dict[str, Any] = {}
    min_ready_seconds: int = 0


class ReplicaSetStatus(View, frozen=True):
    """``status`` of a replicaset."""

    observed_generation: int = 0
    replicas: int = 0
    fully_labeled_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    conditions: tuple[Condition, ...] | None = None


class ReplicaSet(View, frozen=True):
    """A replicaset."""

    metadata: Meta = Meta()
    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: ReplicaSetStatus = ReplicaSetStatus()


class DaemonSetSpec(View, frozen=True):
    """``spec`` of a daemonset."""

    selector: dict[str, Any] = {}
    template: dict[str, Any] = {}
    update_strategy: Strategy = Strategy()
    min_ready_seconds: int = 0


class DaemonSetStatus(View, frozen=True):
    """``status`` of a daemonset."""

    observed_generation: int = 0
    current_number_scheduled: int = 0
    number_misscheduled: int = 0
    desired_number_scheduled: int = 0
    number_ready: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0
    number_unavailable: int = 0


class DaemonSet(View, frozen=True):
    """A daemonset."""

    metadata: Meta = Meta()
    spec: DaemonSetSpec = DaemonSetSpec()
    status: DaemonSetStatus = DaemonSetStatus()


class LeaseSpec(View, frozen=True):
    """``spec`` of a lease."""

    renew_time: str | None = None


class Lease(View, frozen=True):
    """A lease."""

    metadata: Meta = Meta()
    spec: LeaseSpec = LeaseSpec()


V = TypeVar("V", bound=msgspec.Struct)


def reader(kind: type[V]) -> Callable[[bytes], V]:
    """Return a function that reads the view `kind` out of an object's bytes.

    It raises `ProtocolError` when a field has a type it cannot have.
    """
    decoder = msgspec.json.Decoder(kind)

    def read(raw: bytes) -> V:
        try:
            return decoder.decode(raw)
        except MALFORMED:
            pass  # rare: an explicit null where a value belongs; to Kubernetes that is an absent field
        try:
            return msgspec.convert(_without_nulls(msgspec.json.decode(raw)), kind)
        except MALFORMED as exc:
            raise ProtocolError(f"unreadable {kind.__name__}: {exc}") from exc

    return read


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_without_nulls(entry) for entry in value]
    return value


decode_pod = reader(Pod)
decode_node = reader(Node)
decode_deployment = reader(Deployment)
decode_replicaset = reader(ReplicaSet)
decode_daemonset = reader(DaemonSet)
decode_lease = reader(Lease)


def by_node(obj: CachedObject) -> tuple[str, ...]:
    """Index function: the node a pod is on."""
    try:
        return (decode_pod(obj.raw).spec.node_name,)
    except ProtocolError:
        return ()


def condition(conditions: tuple[Condition, ...] | None, kind: str) -> Condition | None:
    """Return the condition of that type."""
    return next((c for c in conditions or () if c.type == kind), None)


def pod_ready(pod: Pod) -> bool:
    """Tell whether the pod's Ready condition is True."""
    ready = condition(pod.status.conditions, "Ready")
    return ready is not None and ready.status == "True"


def pod_finished(pod: Pod) -> bool:
    """Tell whether the pod has run to its end."""
    return pod.status.phase in ("Succeeded", "Failed")


def pod_active(pod: Pod) -> bool:
    """Tell whether the pod counts as a replica: neither finished nor being deleted."""
    return not pod_finished(pod) and pod.metadata.deletion_timestamp is None


def pod_claims(pod: Pod) -> dict[str, bool]:
    """Return the names of the claims that the pod's volumes are; True for one made for this pod alone."""
    found: dict[str, bool] = {}
    for volume in pod.spec.volumes or ():
        claim = volume.get("persistentVolumeClaim")
        if isinstance(claim, dict):
            found[str(claim.get("claimName", ""))] = False
        elif volume.get("ephemeral") is not None:
            found[f"{pod.metadata.name}-{volume.get('name', '')}"] = True
    return found


def controller_of(meta: Meta) -> str:
    """Return the uid of the controlling owner, empty without one."""
    return next((o.uid for o in meta.owner_references or () if o.controller), "")
