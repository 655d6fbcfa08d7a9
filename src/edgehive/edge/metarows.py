"""What MetaManager must know of the objects in its rows, and what it tells edged of them; pure."""

import logging
from typing import Any

import msgspec

from edgehive.edge.metaclient import Change, PodChange
from edgehive.edge.store import metadata_of
from edgehive.wire import resource as res
from edgehive.wire.message import DELETE, MALFORMED, Message, content_data
from edgehive.wire.resource import find_resource
from edgehive.wire.rows import Row, answer_key

log = logging.getLogger(__name__)


class _Scheduled(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _PodSpec(msgspec.Struct):
    spec: _Scheduled = msgspec.field(default_factory=_Scheduled)


def is_of_node(raw: bytes, node: str) -> bool:
    """Whether a pod is bound to `node`."""
    try:
        return msgspec.json.decode(raw, type=_PodSpec).spec.node_name == node
    except MALFORMED:
        log.warning("a pod in the database cannot be read")
        return False


def pod_change(message: Message, stored: Row | None, node: str) -> PodChange | None:
    """What edged is told once `message` about a pod is durable; `stored` is the row as it was before."""
    target = find_resource(message.resource)
    if target is None or target.namespace is None:
        return None
    content = content_data(message.content)
    if message.operation == DELETE:
        return PodChange(Change.REMOVE, target.namespace, target.name, _last_object(content, stored))
    if is_of_node(content, node):
        return PodChange(Change.UPDATE, target.namespace, target.name, content)
    return None


def answered_change(request: Message, before: Row | None, after: Row | None) -> PodChange | None:
    """What edged is told of a pod that came as an answer: it may be newer than any update yet.

    Without this the update would come as stale, and edged would not hear of it.
    """
    target = find_resource(answer_key(request))
    if before is None or after is None or target is None or target.type != res.POD:
        return None
    if target.namespace is None or _desired(before.value) == _desired(after.value):
        return None
    return PodChange(Change.UPDATE, target.namespace, target.name, after.value)


def _last_object(content: bytes, stored: Row | None) -> bytes:
    """The pod a delete is about: its stored row, or the message's content when the row is another pod's."""
    if stored is None:
        return content
    uid = metadata_of(content).uid
    return stored.value if uid in ("", metadata_of(stored.value).uid) else content


def is_error(value: bytes) -> bool:
    """Whether a row is an error that an original edgecore stored as an object."""
    return value.lstrip()[:13].startswith(b'{"ErrStatus"')


class _Claim(msgspec.Struct, rename="camel"):
    volume_name: str | None = None


class _ClaimObject(msgspec.Struct):
    spec: _Claim = msgspec.field(default_factory=_Claim)


def is_bound(raw: bytes) -> bool:
    """Whether a claim has its volume."""
    try:
        return bool(msgspec.json.decode(raw, type=_ClaimObject).spec.volume_name)
    except MALFORMED:
        return False


def _desired(raw: bytes) -> Any:
    """A pod without what only reports: status and bookkeeping."""
    pod = msgspec.json.decode(raw)
    if not isinstance(pod, dict):
        return None
    metadata = pod.get("metadata")
    kept = (
        {k: v for k, v in metadata.items() if k not in ("resourceVersion", "managedFields")}
        if metadata
        else {}
    )
    return kept, pod.get("spec")
