"""The ``$hw/events`` topics of devices and nodes, taken apart by their structure.

KubeEdge cuts a topic at the first place where the namespace's text occurs, so that a namespace such as ``dev`` or
``event`` (both occur in ``$hw/events/device/``) never works there. Here every part has its place.
"""

from dataclasses import dataclass
from enum import Enum

_DEVICE = "$hw/events/device/"
_NODE = "$hw/events/node/"


class Request(Enum):
    """What clients may ask for; the value is what follows the identity in the topic."""

    TWIN_UPDATE = "twin/update"
    TWIN_GET = "twin/get"
    CLOUD_UPDATED = "twin/cloud_updated"
    STATE_UPDATE = "state/update"
    MEMBERSHIP_GET = "membership/get"


_OF_DEVICE = {r.value: r for r in Request if r is not Request.MEMBERSHIP_GET}

TWIN_RESULT = "twin/update/result"
TWIN_DOCUMENT = "twin/update/document"
TWIN_DELTA = "twin/update/delta"
TWIN_GET_RESULT = "twin/get/result"
STATE_RESULT = "state/update/result"
ATTRIBUTES_UPDATED = "updated"
MEMBERSHIP_RESULT = "membership/get/result"
MEMBERSHIP_UPDATED = "membership/updated"


@dataclass(frozen=True, slots=True)
class Topic:
    """A request and whom it is about: a device id (``namespace/name``) or the name of a node."""

    request: Request
    subject: str


def parse_topic(topic: str) -> Topic | None:
    """Take a topic apart; ``None`` when it is not a request."""
    if topic.startswith(_DEVICE):
        namespace, _, rest = topic[len(_DEVICE) :].partition("/")
        name, _, what = rest.partition("/")
        request = _OF_DEVICE.get(what)
        return Topic(request, f"{namespace}/{name}") if request and namespace and name else None
    if topic.startswith(_NODE):
        node, _, what = topic[len(_NODE) :].partition("/")
        return Topic(Request.MEMBERSHIP_GET, node) if node and what == Request.MEMBERSHIP_GET.value else None
    return None


def device_topic(device: str, what: str) -> str:
    """The topic of a message about `device`; KubeEdge answers what it cannot read with an empty id."""
    return f"{_DEVICE}{device}/{what}"


def node_topic(node: str, what: str) -> str:
    """The topic of a message about the node's devices."""
    return f"{_NODE}{node}/{what}"


def report_resource(device: str, what: str) -> str:
    """The wire resource of a report to the cloud."""
    return f"device/{device}/{what}"


EDGE_UPDATED = "twin/edge_updated"
STATE_UPDATE = "state/update"
MEMBERSHIP_DETAIL = "membership/detail"


def reported_device(resource: str) -> tuple[str, str] | None:
    """The device and the kind of a report, from its wire resource; ``None`` when it is something else."""
    match resource.split("/"):
        case ["device", namespace, name, *what] if namespace and name:
            kind = "/".join(what)
            return (f"{namespace}/{name}", kind) if kind in (EDGE_UPDATED, STATE_UPDATE) else None
        case _:
            return None
