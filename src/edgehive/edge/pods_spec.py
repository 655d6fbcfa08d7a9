"""A pod as edged reads it: the fields it acts on, out of the raw object.

Objects come defaulted by the API server; what is missing here gets the same defaults, for static pods and for
servers that default less. ``null`` counts as absent everywhere, as in Go.
"""

import hashlib
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.kit.text import safe_label

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
HOLD_ANNOTATION = "edge.kubeedge.io/hold-upgrade"
"""KubeEdge: a new pod with it waits on the node until somebody there lets it start."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_QUANTITY = re.compile(r"([+-]?[0-9.]+)(?:([eE][+-]?[0-9]+)|(m|k|[KMGTPE]i?|n|u)?)")
_SCALE = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "": 1,
    "k": 1e3,
    "K": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
    "Ei": 2**60,
}
_LARGEST = float(2**63 - 1024)
"""The largest float below 2**63; Kubernetes takes ``1e30``, too, and means the most that there is."""

JsonObject = dict[str, Any]


class Metadata(msgspec.Struct, rename="camel"):
    """``metadata``."""

    name: str = ""
    namespace: str = "default"
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    deletion_grace_period_seconds: int | None = None


class Resources(msgspec.Struct, rename="camel"):
    """``resources``: quantities as written."""

    limits: dict[str, str | int | float] = {}
    requests: dict[str, str | int | float] = {}


class VolumeMount(msgspec.Struct, rename="camel"):
    """``volumeMounts[]``."""

    name: str
    mount_path: str
    read_only: bool = False
    sub_path: str = ""
    sub_path_expr: str = ""
    mount_propagation: str = ""


class Port(msgspec.Struct, rename="camel"):
    """``ports[]``."""

    name: str = ""
    container_port: int = 0
    host_port: int = 0
    protocol: str = "TCP"
    host_ip: str = msgspec.field(default="", name="hostIP")


class Container(msgspec.Struct, rename="camel"):
    """A container or an init container."""

    name: str
    image: str = ""
    command: list[str] = []
    args: list[str] = []
    working_dir: str = ""
    env: list[JsonObject] = []
    env_from: list[JsonObject] = []
    resources: Resources = msgspec.field(default_factory=Resources)
    volume_mounts: list[VolumeMount] = []
    ports: list[Port] = []
    image_pull_policy: str = ""
    restart_policy: str = ""
    security_context: JsonObject = {}
    startup_probe: JsonObject = {}
    liveness_probe: JsonObject = {}
    readiness_probe: JsonObject = {}
    lifecycle: dict[str, JsonObject] = {}
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    target_container_name: str = ""
    """Whose processes an ephemeral container sees."""

    @property
    def pull_policy(self) -> str:
        """The pull policy, defaulted as the API server does."""
        if self.image_pull_policy:
            return self.image_pull_policy
        name = self.image.rpartition("/")[2]
        return "Always" if "@" not in name and name.partition(":")[2] in ("", "latest") else "IfNotPresent"

    @property
    def hash(self) -> str:
        """Identify what runs: a change of it in a live pod restarts the container."""
        text = msgspec.json.encode([self.name, self.image, self.command, self.args])
        return hashlib.sha256(text).hexdigest()[:16]


class Spec(msgspec.Struct, rename="camel"):
    """``spec``."""

    containers: list[Container] = []
    init_containers: list[Container] = []
    ephemeral_containers: list[Container] = []
    volumes: list[JsonObject] = []
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    active_deadline_seconds: int | None = None
    node_name: str = ""
    service_account_name: str = ""
    service_account: str = ""
    host_network: bool = False
    host_pid: bool = msgspec.field(default=False, name="hostPID")
    host_ipc: bool = msgspec.field(default=False, name="hostIPC")
    share_process_namespace: bool = False
    hostname: str = ""
    subdomain: str = ""
    host_aliases: list[JsonObject] = []
    dns_policy: str = "ClusterFirst"
    dns_config: JsonObject = {}
    security_context: JsonObject = {}
    image_pull_secrets: list[dict[str, str]] = []
    readiness_gates: list[dict[str, str]] = []
    runtime_class_name: str = ""
    enable_service_links: bool = True
    overhead: dict[str, str | int | float] = {}
    priority: int = 0

    @property
    def all_containers(self) -> list[Container]:
        """Containers of every kind."""
        return [*self.init_containers, *self.containers, *self.ephemeral_containers]


class Pod(msgspec.Struct, rename="camel"):
    """A desired pod. `status` is the last status the cluster is known to have."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: Spec = msgspec.field(default_factory=Spec)
    status: JsonObject = {}

    @property
    def uid(self) -> str:
        return self.metadata.uid

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def deleting(self) -> bool:
        return bool(self.metadata.deletion_timestamp)

    @property
    def grace(self) -> int:
        """Seconds the containers get to end."""
        asked = self.metadata.deletion_grace_period_seconds
        if self.deleting and asked is not None:
            return max(asked, 0)
        return max(self.spec.termination_grace_period_seconds, 0)

    @property
    def service_account(self) -> str:
        return self.spec.service_account_name or self.spec.service_account or "default"

    def container(self, name: str) -> Container | None:
        """Find a container of any kind by name."""
        for one in self.spec.all_containers:
            if one.name == name:
                return one
        return None

    @property
    def qos_class(self) -> str:
        """``Guaranteed``, ``Burstable`` or ``BestEffort`` by the documented rules."""
        containers = [*self.spec.containers, *self.spec.init_containers]
        anything, guaranteed = False, True
        for one in containers:
            limits = {k: parse_quantity(v) for k, v in one.resources.limits.items() if k in ("cpu", "memory")}
            requests = limits | {
                k: parse_quantity(v) for k, v in one.resources.requests.items() if k in ("cpu", "memory")
            }
            anything = anything or any(requests.values())
            guaranteed = guaranteed and set(limits) == {"cpu", "memory"} and requests == limits
        if not anything:
            return "BestEffort"
        return "Guaranteed" if guaranteed else "Burstable"


def parse_pod(raw: bytes) -> Pod:
    """Read a pod.

    Raises:
        ProtocolError: `raw` is not a pod, or one of the fields read has the wrong type.
    """
    try:
        pod = msgspec.convert(_without_nulls(msgspec.json.decode(raw)), Pod)
    except msgspec.MsgspecError as exc:
        raise ProtocolError(f"not a pod: {exc}") from exc
    meta, spec = pod.metadata, pod.spec
    if not (meta.name and meta.uid):
        raise ProtocolError("a pod without a name or without a uid")
    volumes = (str(volume.get("name", "")) for volume in spec.volumes)
    containers = (one.name for one in spec.all_containers)
    for name in (meta.name, meta.namespace, meta.uid, *volumes, *containers):
        # These become names of files; the API server allows no others.
        if _NAME.fullmatch(name) is None:
            raise ProtocolError(f"not a name: {safe_label(name)}")
    return pod


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(v) for v in value]
    return value


def parse_quantity(text: object) -> float:
    """Return a quantity in its base unit (cores, bytes), at most what 64 bits hold; 0 for what is not one."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        return 0.0
    try:
        number = float(match[1] + (match[2] or ""))
    except ValueError:
        return 0.0
    return max(-_LARGEST, min(_LARGEST, number * _SCALE[match[3] or ""]))


def format_time(seconds: float) -> str:
    """RFC 3339 with seconds, as Kubernetes writes ``metav1.Time``."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: object) -> float:
    """Seconds since the epoch; 0 for what is not a time."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
