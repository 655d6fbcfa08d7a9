"""What plugs into a node: ``pluginregistration.Registration`` and the device plugin API ``v1beta1``, as tables.

Field numbers are those of the public definitions; fields that edged neither sets nor reads are left out.
"""

from edgehive.aio.protobuf import Message, Method, message

_S, _B, _I, _MAP = "string", "bool", "int", "map<string, string>"

EMPTY = message("Empty")

# --- plugin registration: the plugin serves at a socket in ``plugins_registry``, the node asks

PLUGIN_INFO = message(
    "PluginInfo",
    (1, "type", _S),
    (2, "name", _S),
    (3, "endpoint", _S),
    (4, "supported_versions", _S, "*"),
)
REGISTRATION_STATUS = message("RegistrationStatus", (1, "plugin_registered", _B), (2, "error", _S))

GetInfo = Method("/pluginregistration.Registration/GetInfo", EMPTY, PLUGIN_INFO)
NotifyRegistrationStatus = Method(
    "/pluginregistration.Registration/NotifyRegistrationStatus", REGISTRATION_STATUS, EMPTY
)

# --- device plugins: the node serves `Register`, the plugin everything else

OPTIONS = message(
    "DevicePluginOptions", (1, "pre_start_required", _B), (2, "get_preferred_allocation_available", _B)
)
REGISTER = message(
    "RegisterRequest",
    (1, "version", _S),
    (2, "endpoint", _S),
    (3, "resource_name", _S),
    (4, "options", OPTIONS),
)
DEVICE = message("Device", (1, "id", _S), (2, "health", _S))
DEVICES = message("ListAndWatchResponse", (1, "devices", DEVICE, "*"))
PRE_START = message("PreStartContainerRequest", (1, "devices_ids", _S, "*"))
PREFERRED_ONE = message(
    "ContainerPreferredAllocationRequest",
    (1, "available_device_ids", _S, "*"),
    (2, "must_include_device_ids", _S, "*"),
    (3, "allocation_size", _I),
)
PREFERRED = message("PreferredAllocationRequest", (1, "container_requests", PREFERRED_ONE, "*"))
PREFERRED_ANSWER = message("ContainerPreferredAllocationResponse", (1, "device_ids", _S, "*"))
PREFERRED_ANSWERS = message("PreferredAllocationResponse", (1, "container_responses", PREFERRED_ANSWER, "*"))
ALLOCATE_ONE = message("ContainerAllocateRequest", (1, "devices_ids", _S, "*"))
ALLOCATE = message("AllocateRequest", (1, "container_requests", ALLOCATE_ONE, "*"))
MOUNT = message("Mount", (1, "container_path", _S), (2, "host_path", _S), (3, "read_only", _B))
DEVICE_SPEC = message("DeviceSpec", (1, "container_path", _S), (2, "host_path", _S), (3, "permissions", _S))
CDI_DEVICE = message("CDIDevice", (1, "name", _S))
ALLOCATED = message(
    "ContainerAllocateResponse",
    (1, "envs", _MAP),
    (2, "mounts", MOUNT, "*"),
    (3, "devices", DEVICE_SPEC, "*"),
    (4, "annotations", _MAP),
    (5, "cdi_devices", CDI_DEVICE, "*"),
)
ALLOCATE_ANSWER = message("AllocateResponse", (1, "container_responses", ALLOCATED, "*"))


def _plugin(name: str, request: Message, response: Message) -> Method:
    return Method(f"/v1beta1.DevicePlugin/{name}", request, response)


Register = Method("/v1beta1.Registration/Register", REGISTER, EMPTY)
GetDevicePluginOptions = _plugin("GetDevicePluginOptions", EMPTY, OPTIONS)
ListAndWatch = _plugin("ListAndWatch", EMPTY, DEVICES)
GetPreferredAllocation = _plugin("GetPreferredAllocation", PREFERRED, PREFERRED_ANSWERS)
Allocate = _plugin("Allocate", ALLOCATE, ALLOCATE_ANSWER)
PreStartContainer = _plugin("PreStartContainer", PRE_START, EMPTY)
