"""What edged asks of a container runtime; shaped like the CRI, without its wire.

Two implementations: `edge.cri.CriRuntime` (containerd, CRI-O over gRPC) and `edge.process.ProcessRuntime`
(host processes under a small shim). Both survive a kill of edgecore: what they run keeps running, and
`list_sandboxes`/`list_containers` of the next edgecore find it by the labels given at creation.
"""

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import msgspec

from edgehive.kit.errors import EdgehiveError


class RuntimeFailure(EdgehiveError):
    """The runtime refused or failed; `reason` becomes the reason of an event or waiting state."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class PodRejected(RuntimeFailure):
    """The node cannot take the pod, now or later: it fails for good with this reason."""


class State(enum.StrEnum):
    """State of a container as the runtime sees it."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


class Mount(msgspec.Struct, frozen=True):
    """A host path made visible at `container_path`."""

    host_path: str
    container_path: str
    readonly: bool = False
    propagation: str = ""
    identity: str = ""
    """What has to be found at `host_path` (``DEVICE:INODE``), if somebody might swap it meanwhile."""


class Device(msgspec.Struct, frozen=True):
    """A device file of the host made usable at `container_path`; `permissions` of the letters ``rwm``."""

    host_path: str
    container_path: str
    permissions: str = "mrw"


class SandboxSpec(msgspec.Struct, frozen=True):
    """One pod's shared environment. `labels` identify it after a restart (``io.kubernetes.pod.uid``, ...)."""

    name: str
    namespace: str
    uid: str
    attempt: int
    hostname: str
    log_directory: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_pid: bool = False
    """``shareProcessNamespace``."""
    dns_servers: Sequence[str] = ()
    dns_searches: Sequence[str] = ()
    dns_options: Sequence[str] = ()
    port_mappings: Sequence[tuple[str, int, int, str]] = ()
    """(protocol, containerPort, hostPort, hostIP)"""
    sysctls: Mapping[str, str] = msgspec.field(default_factory=dict)
    cgroup_parent: str = ""
    security: Mapping[str, object] = msgspec.field(default_factory=dict)
    """The pod's ``securityContext`` as it came."""
    runtime_handler: str = ""
    privileged: bool = False
    """A container of the pod is; the CRI refuses it in a sandbox that is not."""


class ContainerSpec(msgspec.Struct, frozen=True):
    """One container of a sandbox. `image` is a resolved reference as returned by `pull_image`."""

    name: str
    attempt: int
    image: str
    command: Sequence[str]
    args: Sequence[str]
    working_dir: str
    env: Sequence[tuple[str, str]]
    mounts: Sequence[Mount]
    log_path: str
    """Relative to the sandbox's `log_directory`."""
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    memory_limit: int = 0
    huge_pages: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Bytes by page size (``2Mi``)."""
    oom_score_adj: int = 0
    security: Mapping[str, object] = msgspec.field(default_factory=dict)
    """Pod and container ``securityContext`` merged, as JSON."""
    target_id: str = ""
    """The container whose processes this one shares."""
    devices: Sequence[Device] = ()
    cdi_devices: Sequence[str] = ()
    """Names of the Container Device Interface, for runtimes that know it."""


class SandboxInfo(msgspec.Struct, frozen=True):
    """A sandbox that exists. Times are seconds since the epoch."""

    id: str
    ready: bool
    created_at: float
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    ip: str = ""
    attempt: int = 0


class ContainerInfo(msgspec.Struct, frozen=True):
    """A container that exists. Times are seconds since the epoch, 0 when not reached yet."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    state: State
    created_at: float
    started_at: float
    finished_at: float
    exit_code: int
    reason: str
    message: str
    image: str
    image_id: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    log_path: str = ""


class ImageInfo(msgspec.Struct, frozen=True):
    """An image on the node."""

    id: str
    tags: Sequence[str]
    digests: Sequence[str]
    size: int
    user: str = ""
    """Who it runs as by itself: a number, a name, or nothing for root."""
    pinned: bool = False
    """The runtime needs it itself."""


class Usage(msgspec.Struct, frozen=True):
    """What a container takes: sizes in bytes, 0 when not known."""

    memory: int = 0
    """The working set."""
    disk: int = 0
    """Its writable layer."""
    processes: int = 0
    at: float = 0.0
    """When it was read, seconds since the epoch."""
    cpu: int = 0
    """Nanoseconds of one core since it was started."""
    total: int = 0
    """Memory with caches."""
    resident: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    inodes: int = 0
    """Of its writable layer."""


class Interface(msgspec.Struct, frozen=True):
    """Counters of a network interface, since it is there."""

    name: str
    received: int = 0
    receive_errors: int = 0
    sent: int = 0
    send_errors: int = 0


class PodUsage(msgspec.Struct, frozen=True):
    """What the containers of a pod share; no interfaces when it is in the node's network."""

    interfaces: Sequence[Interface] = ()
    processes: int = 0


class ExecResult(msgspec.Struct, frozen=True):
    """Outcome of `exec_sync`."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class RuntimeVersion(msgspec.Struct, frozen=True):
    """``containerd``, ``1.6.20``: shown as ``containerd://1.6.20`` in the node's status."""

    name: str
    version: str


class Runtime(Protocol):
    """A container runtime. Every method may raise `RuntimeFailure` or `kit.errors.Unreachable`."""

    @property
    def has_own_files(self) -> bool:
        """Whether containers have a root file system of their own, so that ``/etc/hosts`` can be theirs."""
        ...

    async def version(self) -> RuntimeVersion: ...
    async def run_sandbox(self, spec: SandboxSpec) -> str: ...
    async def stop_sandbox(self, sandbox_id: str) -> None: ...
    async def remove_sandbox(self, sandbox_id: str) -> None: ...
    async def list_sandboxes(self, pod_uid: str = "") -> Sequence[SandboxInfo]:
        """Return the sandboxes of one pod, or all."""
        ...

    async def sandbox_status(self, sandbox_id: str) -> SandboxInfo: ...
    async def create_container(self, sandbox_id: str, spec: ContainerSpec, sandbox: SandboxSpec) -> str: ...
    async def start_container(self, container_id: str) -> None: ...
    async def stop_container(self, container_id: str, grace: float) -> None: ...
    async def remove_container(self, container_id: str) -> None: ...
    async def list_containers(self, pod_uid: str = "") -> Sequence[ContainerInfo]:
        """Return the containers of one pod, or all, in every state."""
        ...

    async def container_status(self, container_id: str) -> ContainerInfo: ...
    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult: ...
    async def image_status(self, image: str) -> ImageInfo | None: ...
    async def pull_image(self, image: str, auth: Mapping[str, str] | None = None) -> str: ...
    async def list_images(self) -> Sequence[ImageInfo]: ...
    async def remove_image(self, image: str) -> None: ...
    async def usage(self) -> Mapping[str, Usage]:
        """Return what each running container takes, by id."""
        ...

    async def pod_usage(self) -> Mapping[str, PodUsage]:
        """Return what each running pod takes as a whole, by uid; empty where this is not known."""
        ...

    async def reopen_log(self, container_id: str) -> bool:
        """Have a container whose log was renamed write a new one; False when this runtime bounds logs itself."""
        ...

    async def network_problem(self) -> str:
        """Say why pods cannot have a network of their own now; empty when they can."""
        ...

    async def check_pod(self, pod: Mapping[str, object]) -> None:
        """Refuse a pod this runtime cannot run.

        Raises:
            RuntimeFailure: with the reason for the event (``CommandRequired``, ...).
        """

    def events(self) -> AsyncIterator[str]:
        """Yield the pod uid (or "" for unknown) whenever something changed; wakes the relist."""
        ...

    async def close(self) -> None: ...
