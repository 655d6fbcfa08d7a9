"""Which messages to an edge must be acknowledged.

The original decides with substring tests on the whole resource string, so that a ConfigMap named
``membership-list`` silently loses its delivery guarantee. We decide by the typed fields; the edge does not see
the difference, since it acknowledges by what a message is.
"""

from edgehive.wire import resource as res
from edgehive.wire.message import OK, RESPONSE, UPDATE, Message

RESOURCE_GROUP = "resource"
FUNC_GROUP = "func"
TWIN_GROUP = "twin"
USER_GROUP = "user"
TASK_GROUP = "taskmanager"
META_GROUP = "meta"
HUB_GROUP = "hub"

EDGE_CONTROLLER = "edgecontroller"
DEVICE_CONTROLLER = "devicecontroller"
DYNAMIC_CONTROLLER = "dynamiccontroller"
POLICY_CONTROLLER = "policycontroller"
SYNC_CONTROLLER = "synccontroller"
TASK_MANAGER = "taskmanager"
UPGRADE_CONTROLLER = "nodeupgradejobcontroller"
CLOUD_HUB = "cloudhub"
CLOUD_STREAM = "cloudStream"
ROUTER_EVENTBUS = "router_eventbus"
ROUTER_SERVICEBUS = "router_servicebus"
EDGE_HUB = "websocket"
EDGED = "edged"
META_MANAGER = "metamanager"
META_SERVER = "metaserver"
TWIN_SOURCE = "twin"

VOLUME_OPERATIONS = frozenset(
    {"createvolume", "deletevolume", "controllerpublishvolume", "controllerunpublishvolume"}
)
APPLICATION_RESPONSE = "applicationResponse"
CONTROL_OPERATIONS = frozenset({"config", "ping", "pong"})
"""Answered by the transport itself; never used by applications."""

TASK_OPERATIONS = frozenset({"prepull", "upgrade", "UpdateNodeActionStatus"})

_UNACKED_OPERATIONS = VOLUME_OPERATIONS | {APPLICATION_RESPONSE}
_UNACKED_SOURCES = frozenset({TASK_MANAGER, UPGRADE_CONTROLLER})
_UNACKED_TYPES = frozenset({res.PODLIST, res.TOKEN, res.CSI_DRIVER, res.RUNTIME_CLASS})
_UNACKED_FROM_EDGE_CONTROLLER = frozenset({res.LEASE, res.NODEPATCH, res.PODPATCH, res.PODSTATUS, res.CSR})


def requires_ack(message: Message) -> bool:
    """Tell whether the cloud keeps `message` (resource in wire form) until the edge has acknowledged it."""
    if (
        message.group != RESOURCE_GROUP
        or message.operation in _UNACKED_OPERATIONS
        or message.source in _UNACKED_SOURCES
        or message.resource == res.K8S_CA
    ):
        return False
    response = message.operation == RESPONSE
    if response and message.content == OK:
        return False
    target = res.find_resource(message.resource)
    if target is None or not target.name or target.type in _UNACKED_TYPES:
        return False
    if response and _is_error(message.content):
        return False
    if message.source != EDGE_CONTROLLER:
        return True
    if target.type == res.NODE:
        return message.operation == UPDATE
    if target.type == res.POD and response:
        return False
    return target.type not in _UNACKED_FROM_EDGE_CONTROLLER


def _is_error(content: bytes) -> bool:
    return content.startswith(b'{"ErrStatus"')
