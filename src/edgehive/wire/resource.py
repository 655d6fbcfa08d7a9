"""Resource strings: the one module that splits or joins them.

Three spellings exist. Inside the original cloud a string is prefixed (``node/edge-1/default/pod/nginx``); on the
wire and in the edge's database it is not (``default/pod/nginx``). Cluster scope is the word ``null``.
edgehive keeps the node beside the message, so it works with the wire form only; the prefixed form exists for
peers that hand one in (the CSI socket) and for the rules that are defined on it.
"""

import itertools
import re

import msgspec

from edgehive.kit.errors import ProtocolError

NULL = "null"
KEEPALIVE_RESOURCE = "node"
K8S_CA = "k8s/ca.crt"
MEMBERSHIP = "membership"
MEMBERSHIP_DETAIL = "membership/detail"
TWIN = "twin"
APPLICATION_REPLY = "ignore/Application/ignore"
WATCH_SYNC = "watchapp/sync"

POD = "pod"
PODLIST = "podlist"
PODPATCH = "podpatch"
PODSTATUS = "podstatus"
CONFIGMAP = "configmap"
SECRET = "secret"  # noqa: S105 - a resource type, not a credential
NODE = "node"
NODEPATCH = "nodepatch"
NODESTATUS = "nodestatus"
LEASE = "lease"
EVENT = "event"
TOKEN = "serviceaccounttoken"  # noqa: S105 - a resource type
CSR = "certificatesigningrequest"
PERSISTENT_VOLUME = "persistentvolume"
PERSISTENT_VOLUME_CLAIM = "persistentvolumeclaim"
VOLUME_ATTACHMENT = "volumeattachment"
CSI_DRIVER = "csidriver"
RUNTIME_CLASS = "runtimeclass"
"""These two are asked for by our edges alone."""
DEVICE = "device"
DEVICE_MODEL = "devicemodel"
RULESTATUS = "rulestatus"
SERVICE_ACCOUNT_ACCESS = "serviceaccountaccess"

MAX_RESOURCE = 4096
"""Longest resource string we accept; Kubernetes names allow about 600 characters in the object forms."""

_VOLUME = re.compile(r"\w[-\w.+]*/volume/\w[-\w.+]*", re.ASCII)


class Resource(msgspec.Struct, frozen=True, gc=False):
    """An object on the wire: ``<namespace or null>/<type>/<name>``; `namespace` is ``None`` for cluster scope.

    `name` is empty for the two-part form ``<namespace>/<type>`` (a list of that type).
    """

    namespace: str | None
    type: str
    name: str = ""

    def __str__(self) -> str:
        scope = self.namespace if self.namespace is not None else NULL
        return f"{scope}/{self.type}/{self.name}" if self.name else f"{scope}/{self.type}"


def format_resource(namespace: str | None, kind: str, name: str) -> str:
    """``default/pod/nginx``; an absent namespace becomes ``null``."""
    return f"{namespace or NULL}/{kind}/{name}"


def parse_resource(text: str) -> Resource:
    """Parse the wire form of an object resource.

    Raises:
        ProtocolError: not two or three non-empty parts, or absurdly long.
    """
    parsed = find_resource(text)
    if parsed is None:
        raise ProtocolError(f"not an object resource: {text[:120]!r}")
    return parsed


def find_resource(text: str) -> Resource | None:
    """Parse the wire form of an object resource; ``None`` when it is some other form."""
    if len(text) > MAX_RESOURCE:
        return None
    match text.split("/"):
        case [scope, kind, name] if scope and kind and name:
            return Resource(None if scope == NULL else scope, kind, name)
        case [scope, kind] if scope and kind:
            return Resource(None if scope == NULL else scope, kind)
        case _:
            return None


def add_node(node: str, resource: str) -> str:
    """The prefixed form that the original's cloud modules use among themselves."""
    return f"node/{node}/{resource}"


def trim_node(resource: str) -> str:
    """The wire form of a prefixed string, as the original cuts it.

    It drops the first two parts when the text starts with the letters ``node`` and has at least three parts.
    """
    if not resource.startswith("node"):
        return resource
    parts = resource.split("/", 2)
    return parts[2] if len(parts) == 3 else resource


def target_node(resource: str) -> str | None:
    """The node a prefixed string is meant for: the part after the first ``node`` part that has one."""
    parts = resource.split("/")
    for part, following in itertools.pairwise(parts):
        if part == "node" and following:
            return following
    return None


def is_volume(resource: str) -> bool:
    """Tell whether `resource` names a CSI volume (``default/volume/pvc-1``)."""
    return "/volume/" in resource and len(resource) <= MAX_RESOURCE and _VOLUME.match(resource) is not None
