"""The Container Runtime Interface ``runtime.v1``: the messages and methods edged uses, as tables.

Field numbers are those of the public CRI v1 definition; fields that edged neither sets nor reads are left out.
"""

from edgehive.aio.protobuf import Message, Method, message

_S, _B, _I, _U, _BYTES, _MAP = "string", "bool", "int", "uint", "bytes", "map<string, string>"

EMPTY = message("Empty")
INT64 = message("Int64Value", (1, "value", _I))
UINT64 = message("UInt64Value", (1, "value", _U))

VERSION_REQUEST = message("VersionRequest", (1, "version", _S))
VERSION_RESPONSE = message(
    "VersionResponse",
    (1, "version", _S),
    (2, "runtime_name", _S),
    (3, "runtime_version", _S),
    (4, "runtime_api_version", _S),
)
CONDITION = message(
    "RuntimeCondition", (1, "type", _S), (2, "status", _B), (3, "reason", _S), (4, "message", _S)
)
RUNTIME_STATUS = message("RuntimeStatus", (1, "conditions", CONDITION, "*"))
STATUS_REQUEST = message("StatusRequest", (1, "verbose", _B))
STATUS_RESPONSE = message("StatusResponse", (1, "status", RUNTIME_STATUS), (2, "info", _MAP))

DNS = message("DNSConfig", (1, "servers", _S, "*"), (2, "searches", _S, "*"), (3, "options", _S, "*"))
PORT = message(
    "PortMapping", (1, "protocol", _I), (2, "container_port", _I), (3, "host_port", _I), (4, "host_ip", _S)
)
MOUNT = message(
    "Mount",
    (1, "container_path", _S),
    (2, "host_path", _S),
    (3, "readonly", _B),
    (4, "selinux_relabel", _B),
    (5, "propagation", _I),
)
NAMESPACES = message(
    "NamespaceOption", (1, "network", _I), (2, "pid", _I), (3, "ipc", _I), (4, "target_id", _S)
)
SELINUX = message("SELinuxOption", (1, "user", _S), (2, "role", _S), (3, "type", _S), (4, "level", _S))
PROFILE = message("SecurityProfile", (1, "profile_type", _I), (2, "localhost_ref", _S))
SANDBOX_SECURITY = message(
    "LinuxSandboxSecurityContext",
    (1, "namespace_options", NAMESPACES),
    (2, "selinux_options", SELINUX),
    (3, "run_as_user", INT64),
    (8, "run_as_group", INT64),
    (4, "readonly_rootfs", _B),
    (5, "supplemental_groups", _I, "*"),
    (6, "privileged", _B),
    (9, "seccomp", PROFILE),
    (10, "apparmor", PROFILE),
    (11, "supplemental_groups_policy", _I),
)
HUGE_PAGES = message("HugepageLimit", (1, "page_size", _S), (2, "limit", _U))
RESOURCES = message(
    "LinuxContainerResources",
    (1, "cpu_period", _I),
    (2, "cpu_quota", _I),
    (3, "cpu_shares", _I),
    (4, "memory_limit_in_bytes", _I),
    (5, "oom_score_adj", _I),
    (8, "hugepage_limits", HUGE_PAGES, "*"),
)
LINUX_SANDBOX = message(
    "LinuxPodSandboxConfig",
    (1, "cgroup_parent", _S),
    (2, "security_context", SANDBOX_SECURITY),
    (3, "sysctls", _MAP),
)
SANDBOX_METADATA = message(
    "PodSandboxMetadata", (1, "name", _S), (2, "uid", _S), (3, "namespace", _S), (4, "attempt", _U)
)
SANDBOX_CONFIG = message(
    "PodSandboxConfig",
    (1, "metadata", SANDBOX_METADATA),
    (2, "hostname", _S),
    (3, "log_directory", _S),
    (4, "dns_config", DNS),
    (5, "port_mappings", PORT, "*"),
    (6, "labels", _MAP),
    (7, "annotations", _MAP),
    (8, "linux", LINUX_SANDBOX),
)
RUN_SANDBOX = message("RunPodSandboxRequest", (1, "config", SANDBOX_CONFIG), (2, "runtime_handler", _S))
SANDBOX_ID = message("SandboxId", (1, "pod_sandbox_id", _S))
IP = message("PodIP", (1, "ip", _S))
SANDBOX_NETWORK = message("PodSandboxNetworkStatus", (1, "ip", _S), (2, "additional_ips", IP, "*"))
NAMESPACE = message("Namespace", (2, "options", NAMESPACES))
LINUX_SANDBOX_STATUS = message("LinuxPodSandboxStatus", (1, "namespaces", NAMESPACE))
SANDBOX_STATUS = message(
    "PodSandboxStatus",
    (1, "id", _S),
    (2, "metadata", SANDBOX_METADATA),
    (3, "state", _I),
    (4, "created_at", _I),
    (5, "network", SANDBOX_NETWORK),
    (6, "linux", LINUX_SANDBOX_STATUS),
    (7, "labels", _MAP),
    (8, "annotations", _MAP),
    (9, "runtime_handler", _S),
)
SANDBOX_STATUS_RESPONSE = message("PodSandboxStatusResponse", (1, "status", SANDBOX_STATUS))
STATE_VALUE = message("StateValue", (1, "state", _I))
SANDBOX_FILTER = message(
    "PodSandboxFilter", (1, "id", _S), (2, "state", STATE_VALUE), (3, "label_selector", _MAP)
)
LIST_SANDBOXES = message("ListPodSandboxRequest", (1, "filter", SANDBOX_FILTER))
SANDBOX = message(
    "PodSandbox",
    (1, "id", _S),
    (2, "metadata", SANDBOX_METADATA),
    (3, "state", _I),
    (4, "created_at", _I),
    (5, "labels", _MAP),
    (6, "annotations", _MAP),
    (7, "runtime_handler", _S),
)
SANDBOXES = message("ListPodSandboxResponse", (1, "items", SANDBOX, "*"))

IMAGE_SPEC = message(
    "ImageSpec", (1, "image", _S), (2, "annotations", _MAP), (18, "user_specified_image", _S)
)
KEY_VALUE = message("KeyValue", (1, "key", _S), (2, "value", _S))
CAPABILITIES = message("Capability", (1, "add_capabilities", _S, "*"), (2, "drop_capabilities", _S, "*"))
CONTAINER_SECURITY = message(
    "LinuxContainerSecurityContext",
    (1, "capabilities", CAPABILITIES),
    (2, "privileged", _B),
    (3, "namespace_options", NAMESPACES),
    (4, "selinux_options", SELINUX),
    (5, "run_as_user", INT64),
    (12, "run_as_group", INT64),
    (6, "run_as_username", _S),
    (7, "readonly_rootfs", _B),
    (8, "supplemental_groups", _I, "*"),
    (17, "supplemental_groups_policy", _I),
    (11, "no_new_privs", _B),
    (13, "masked_paths", _S, "*"),
    (14, "readonly_paths", _S, "*"),
    (15, "seccomp", PROFILE),
    (16, "apparmor", PROFILE),
)
LINUX_CONTAINER = message(
    "LinuxContainerConfig", (1, "resources", RESOURCES), (2, "security_context", CONTAINER_SECURITY)
)
CONTAINER_METADATA = message("ContainerMetadata", (1, "name", _S), (2, "attempt", _U))
DEVICE = message("Device", (1, "container_path", _S), (2, "host_path", _S), (3, "permissions", _S))
CDI_DEVICE = message("CDIDevice", (1, "name", _S))
CONTAINER_CONFIG = message(
    "ContainerConfig",
    (1, "metadata", CONTAINER_METADATA),
    (2, "image", IMAGE_SPEC),
    (3, "command", _S, "*"),
    (4, "args", _S, "*"),
    (5, "working_dir", _S),
    (6, "envs", KEY_VALUE, "*"),
    (7, "mounts", MOUNT, "*"),
    (8, "devices", DEVICE, "*"),
    (9, "labels", _MAP),
    (10, "annotations", _MAP),
    (11, "log_path", _S),
    (12, "stdin", _B),
    (13, "stdin_once", _B),
    (14, "tty", _B),
    (15, "linux", LINUX_CONTAINER),
    (17, "cdi_devices", CDI_DEVICE, "*"),
)
CREATE_CONTAINER = message(
    "CreateContainerRequest",
    (1, "pod_sandbox_id", _S),
    (2, "config", CONTAINER_CONFIG),
    (3, "sandbox_config", SANDBOX_CONFIG),
)
CONTAINER_ID = message("ContainerId", (1, "container_id", _S))
STOP_CONTAINER = message("StopContainerRequest", (1, "container_id", _S), (2, "timeout", _I))
CONTAINER_FILTER = message(
    "ContainerFilter",
    (1, "id", _S),
    (2, "state", STATE_VALUE),
    (3, "pod_sandbox_id", _S),
    (4, "label_selector", _MAP),
)
LIST_CONTAINERS = message("ListContainersRequest", (1, "filter", CONTAINER_FILTER))
CONTAINER = message(
    "Container",
    (1, "id", _S),
    (2, "pod_sandbox_id", _S),
    (3, "metadata", CONTAINER_METADATA),
    (4, "image", IMAGE_SPEC),
    (5, "image_ref", _S),
    (6, "state", _I),
    (7, "created_at", _I),
    (8, "labels", _MAP),
    (9, "annotations", _MAP),
    (10, "image_id", _S),
)
CONTAINERS = message("ListContainersResponse", (1, "containers", CONTAINER, "*"))
CONTAINER_STATUS_REQUEST = message("ContainerStatusRequest", (1, "container_id", _S), (2, "verbose", _B))
CONTAINER_STATUS = message(
    "ContainerStatus",
    (1, "id", _S),
    (2, "metadata", CONTAINER_METADATA),
    (3, "state", _I),
    (4, "created_at", _I),
    (5, "started_at", _I),
    (6, "finished_at", _I),
    (7, "exit_code", _I),
    (8, "image", IMAGE_SPEC),
    (9, "image_ref", _S),
    (10, "reason", _S),
    (11, "message", _S),
    (12, "labels", _MAP),
    (13, "annotations", _MAP),
    (14, "mounts", MOUNT, "*"),
    (15, "log_path", _S),
    (17, "image_id", _S),
)
CONTAINER_STATUS_RESPONSE = message("ContainerStatusResponse", (1, "status", CONTAINER_STATUS))
EXEC_SYNC = message("ExecSyncRequest", (1, "container_id", _S), (2, "cmd", _S, "*"), (3, "timeout", _I))
EXEC_SYNC_RESPONSE = message(
    "ExecSyncResponse", (1, "stdout", _BYTES), (2, "stderr", _BYTES), (3, "exit_code", _I)
)
EXEC = message(
    "ExecRequest",
    (1, "container_id", _S),
    (2, "cmd", _S, "*"),
    (3, "tty", _B),
    (4, "stdin", _B),
    (5, "stdout", _B),
    (6, "stderr", _B),
)
ATTACH = message(
    "AttachRequest",
    (1, "container_id", _S),
    (2, "stdin", _B),
    (3, "tty", _B),
    (4, "stdout", _B),
    (5, "stderr", _B),
)
PORT_FORWARD = message("PortForwardRequest", (1, "pod_sandbox_id", _S), (2, "port", _I, "*"))
STREAM_URL = message("StreamUrlResponse", (1, "url", _S))
EVENT = message(
    "ContainerEventResponse",
    (1, "container_id", _S),
    (2, "container_event_type", _I),
    (3, "created_at", _I),
    (4, "pod_sandbox_status", SANDBOX_STATUS),
)

IMAGE_FILTER = message("ImageFilter", (1, "image", IMAGE_SPEC))
LIST_IMAGES = message("ListImagesRequest", (1, "filter", IMAGE_FILTER))
IMAGE = message(
    "Image",
    (1, "id", _S),
    (2, "repo_tags", _S, "*"),
    (3, "repo_digests", _S, "*"),
    (4, "size", _U),
    (5, "uid", INT64),
    (6, "username", _S),
    (7, "spec", IMAGE_SPEC),
    (8, "pinned", _B),
)
IMAGES = message("ListImagesResponse", (1, "images", IMAGE, "*"))
IMAGE_REQUEST = message("ImageRequest", (1, "image", IMAGE_SPEC))
IMAGE_STATUS_RESPONSE = message("ImageStatusResponse", (1, "image", IMAGE))
AUTH = message(
    "AuthConfig",
    (1, "username", _S),
    (2, "password", _S),
    (3, "auth", _S),
    (4, "server_address", _S),
    (5, "identity_token", _S),
    (6, "registry_token", _S),
)
PULL_IMAGE = message(
    "PullImageRequest", (1, "image", IMAGE_SPEC), (2, "auth", AUTH), (3, "sandbox_config", SANDBOX_CONFIG)
)
IMAGE_REF = message("PullImageResponse", (1, "image_ref", _S))
FS_ID = message("FilesystemIdentifier", (1, "mountpoint", _S))
FS_USAGE = message(
    "FilesystemUsage",
    (1, "timestamp", _I),
    (2, "fs_id", FS_ID),
    (3, "used_bytes", UINT64),
    (4, "inodes_used", UINT64),
)
CPU_USAGE = message("CpuUsage", (1, "timestamp", _I), (2, "usage_core_nano_seconds", UINT64))
MEMORY_USAGE = message(
    "MemoryUsage",
    (1, "timestamp", _I),
    (2, "working_set_bytes", UINT64),
    (4, "usage_bytes", UINT64),
    (5, "rss_bytes", UINT64),
    (6, "page_faults", UINT64),
    (7, "major_page_faults", UINT64),
)
STATS_ATTRIBUTES = message(
    "ContainerAttributes", (1, "id", _S), (2, "metadata", CONTAINER_METADATA), (3, "labels", _MAP)
)
CONTAINER_STATS = message(
    "ContainerStats",
    (1, "attributes", STATS_ATTRIBUTES),
    (2, "cpu", CPU_USAGE),
    (3, "memory", MEMORY_USAGE),
    (4, "writable_layer", FS_USAGE),
)
LIST_STATS = message("ListContainerStatsRequest")
LIST_STATS_RESPONSE = message("ListContainerStatsResponse", (1, "stats", CONTAINER_STATS, "*"))
INTERFACE_USAGE = message(
    "NetworkInterfaceUsage",
    (1, "name", _S),
    (2, "rx_bytes", UINT64),
    (3, "rx_errors", UINT64),
    (4, "tx_bytes", UINT64),
    (5, "tx_errors", UINT64),
)
NETWORK_USAGE = message(
    "NetworkUsage",
    (1, "timestamp", _I),
    (2, "default_interface", INTERFACE_USAGE),
    (3, "interfaces", INTERFACE_USAGE, "*"),
)
PROCESS_USAGE = message("ProcessUsage", (1, "timestamp", _I), (2, "process_count", UINT64))
LINUX_SANDBOX_STATS = message(
    "LinuxPodSandboxStats", (3, "network", NETWORK_USAGE), (4, "process", PROCESS_USAGE)
)
SANDBOX_ATTRIBUTES = message(
    "PodSandboxAttributes", (1, "id", _S), (2, "metadata", SANDBOX_METADATA), (3, "labels", _MAP)
)
SANDBOX_STATS = message(
    "PodSandboxStats", (1, "attributes", SANDBOX_ATTRIBUTES), (2, "linux", LINUX_SANDBOX_STATS)
)
LIST_SANDBOX_STATS = message("ListPodSandboxStatsRequest")
LIST_SANDBOX_STATS_RESPONSE = message("ListPodSandboxStatsResponse", (1, "stats", SANDBOX_STATS, "*"))
IMAGE_FS = message("ImageFsInfoResponse", (1, "image_filesystems", FS_USAGE, "*"))


def _runtime(name: str, request: Message, response: Message) -> Method:
    return Method(f"/runtime.v1.RuntimeService/{name}", request, response)


def _images(name: str, request: Message, response: Message) -> Method:
    return Method(f"/runtime.v1.ImageService/{name}", request, response)


Version = _runtime("Version", VERSION_REQUEST, VERSION_RESPONSE)
Status = _runtime("Status", STATUS_REQUEST, STATUS_RESPONSE)
RunPodSandbox = _runtime("RunPodSandbox", RUN_SANDBOX, SANDBOX_ID)
StopPodSandbox = _runtime("StopPodSandbox", SANDBOX_ID, EMPTY)
RemovePodSandbox = _runtime("RemovePodSandbox", SANDBOX_ID, EMPTY)
PodSandboxStatus = _runtime("PodSandboxStatus", SANDBOX_ID, SANDBOX_STATUS_RESPONSE)
ListPodSandbox = _runtime("ListPodSandbox", LIST_SANDBOXES, SANDBOXES)
CreateContainer = _runtime("CreateContainer", CREATE_CONTAINER, CONTAINER_ID)
StartContainer = _runtime("StartContainer", CONTAINER_ID, EMPTY)
StopContainer = _runtime("StopContainer", STOP_CONTAINER, EMPTY)
RemoveContainer = _runtime("RemoveContainer", CONTAINER_ID, EMPTY)
ListContainers = _runtime("ListContainers", LIST_CONTAINERS, CONTAINERS)
ContainerStatus = _runtime("ContainerStatus", CONTAINER_STATUS_REQUEST, CONTAINER_STATUS_RESPONSE)
ExecSync = _runtime("ExecSync", EXEC_SYNC, EXEC_SYNC_RESPONSE)
Exec = _runtime("Exec", EXEC, STREAM_URL)
Attach = _runtime("Attach", ATTACH, STREAM_URL)
PortForward = _runtime("PortForward", PORT_FORWARD, STREAM_URL)
ReopenContainerLog = _runtime("ReopenContainerLog", CONTAINER_ID, EMPTY)
ListContainerStats = _runtime("ListContainerStats", LIST_STATS, LIST_STATS_RESPONSE)
ListPodSandboxStats = _runtime("ListPodSandboxStats", LIST_SANDBOX_STATS, LIST_SANDBOX_STATS_RESPONSE)
GetContainerEvents = _runtime("GetContainerEvents", EMPTY, EVENT)
ListImages = _images("ListImages", LIST_IMAGES, IMAGES)
ImageStatus = _images("ImageStatus", IMAGE_REQUEST, IMAGE_STATUS_RESPONSE)
PullImage = _images("PullImage", PULL_IMAGE, IMAGE_REF)
RemoveImage = _images("RemoveImage", IMAGE_REQUEST, EMPTY)
ImageFsInfo = _images("ImageFsInfo", EMPTY, IMAGE_FS)
