"""What the edge does with a message from the cloud: which row is written, what is told to whom, how it is answered.

The rules are pure; MetaManager runs the plan in one transaction and only then sends the ACK. They are idempotent,
and a version older than the stored one of the same object is acknowledged without being stored.
"""

from enum import Enum
from typing import Any, Final

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.kube.status import ApiStatus
from edgehive.wire import classify as cls
from edgehive.wire import resource as res
from edgehive.wire.message import (
    DELETE,
    ERROR,
    INSERT,
    MALFORMED,
    OK,
    PATCH,
    QUERY,
    RESPONSE,
    UPDATE,
    Message,
    content_data,
)
from edgehive.wire.outbound import parse_version


class Row(msgspec.Struct, frozen=True):
    """A row of the edge's ``meta`` table: key is the wire resource, value the object's JSON."""

    key: str
    type: str
    value: bytes


class Put(msgspec.Struct, frozen=True):
    """Insert or replace a row."""

    row: Row


class Remove(msgspec.Struct, frozen=True):
    """Delete a row if it is there."""

    key: str


class Forward(Enum):
    """Who must hear of it after the ACK is on its way."""

    NOBODY = "nobody"
    EDGED = "edged"
    TWIN = "twin"


class Plan(msgspec.Struct, frozen=True):
    """Write `changes` in one transaction, then acknowledge, then tell `forward`."""

    changes: tuple[Put | Remove, ...] = ()
    forward: Forward = Forward.NOBODY
    ack: Message | None = None
    """What to acknowledge (`EdgeLink.send_ack`): the message, its route rewritten where the original does so."""
    stale: bool = False
    """The stored row is newer or belongs to another incarnation; it was left alone."""
    ignored: str = ""
    """Why the message is not understood; log it, nothing else happens."""


class _Meta(msgspec.Struct, rename="camel", gc=False):
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None


class _Object(msgspec.Struct, gc=False):
    metadata: _Meta = msgspec.field(default_factory=_Meta)


_object: Final = msgspec.json.Decoder(_Object)
_NOTHING: Final = _Meta()

_FETCHED: Final = frozenset(
    {
        res.CONFIGMAP,
        res.SECRET,
        res.PERSISTENT_VOLUME,
        res.PERSISTENT_VOLUME_CLAIM,
        res.VOLUME_ATTACHMENT,
    }
)
"""Types whose query answers the cloud records as delivered."""

_NOT_EDGED: Final = frozenset({res.NODE})
"""Types that the original stores without telling edged about an update."""


def plan_incoming(message: Message, stored: Row | None) -> Plan:
    """Decide about a message nobody asked for (group ``resource`` or ``func``); `stored` is the row of its resource.

    Where the original would not acknowledge (an ``update`` from a source that is not on its list) this does:
    the row is stored either way, and the cloud would repeat the message for ever.

    Raises:
        ProtocolError: the content is not JSON.
    """
    target = res.find_resource(message.resource)
    if message.operation == RESPONSE:
        return _plan_unclaimed(message, stored)
    if message.operation not in (INSERT, UPDATE, DELETE):
        return Plan(ignored=f"unknown operation {message.operation!r}")
    if target is None:
        return Plan(ignored=f"not an object resource: {message.resource!r}")
    if message.operation == DELETE:
        return _plan_delete(message, target, stored)
    value = content_data(message.content)
    if not value.lstrip().startswith(b"{"):
        return Plan(ack=message, ignored="the content is not an object")
    if _older(value, stored, message.resource_version):
        return Plan(ack=_ack_of(message), stale=True)
    row = Row(message.resource, target.type, value)
    return Plan(changes=(Put(row),), forward=_forward(message, target.type), ack=_ack_of(message))


def _plan_delete(message: Message, target: res.Resource, stored: Row | None) -> Plan:
    uid = _meta(content_data(message.content)).uid
    held = _meta(stored.value).uid if stored is not None else ""
    forward = _forward(message, target.type)
    if stored is not None and uid and held and uid != held:
        # The name belongs to a new incarnation. edged still has to hear that the old pod is gone.
        forward = forward if target.type == res.POD else Forward.NOBODY
        return Plan(forward=forward, ack=_ack_of(message), stale=True)
    changes: tuple[Remove, ...] = (Remove(message.resource),)
    if target.type == res.POD and target.name:
        changes = (*changes, Remove(res.format_resource(target.namespace, res.PODPATCH, target.name)))
    return Plan(changes=changes, forward=forward, ack=_ack_of(message))


def _plan_unclaimed(message: Message, stored: Row | None) -> Plan:
    """An answer whose requester is gone.

    The original drops it in silence, and the cloud repeats it until the link ends. It is acknowledged here, and
    since the cloud then takes the object for delivered, it is stored as it would have been.
    """
    target = res.find_resource(message.resource)
    if target is None or target.type not in _FETCHED or message.content.strip() == OK:
        return Plan(ack=message)
    body, error = _unwrap(content_data(message.content))
    if body is None or error is not None:
        return Plan(ack=message)
    if _older(body, stored, message.resource_version):
        return Plan(ack=message, stale=True)
    return Plan(changes=(Put(Row(message.resource, target.type, body)),), forward=Forward.EDGED, ack=message)


def _forward(message: Message, kind: str) -> Forward:
    if message.source == cls.DEVICE_CONTROLLER or kind in (res.DEVICE, res.DEVICE_MODEL):
        # The original tells devicetwin only when the message came from devicecontroller, so that a device
        # repaired by SyncController never reaches a mapper.
        return Forward.TWIN
    if message.source == cls.POLICY_CONTROLLER or (message.operation == UPDATE and kind in _NOT_EDGED):
        return Forward.NOBODY
    return Forward.EDGED


def _ack_of(message: Message) -> Message:
    if message.source == cls.DEVICE_CONTROLLER and message.operation in (INSERT, DELETE):
        return msgspec.structs.replace(message, source="meta", group=cls.TWIN_GROUP)
    return message


def _older(value: bytes, stored: Row | None, version: str) -> bool:
    """Whether `value` is an older version of the object that is stored."""
    if stored is None:
        return False
    new, old = _meta(value), _meta(stored.value)
    theirs = parse_version(version) or parse_version(new.resource_version)
    ours = parse_version(old.resource_version)
    if not theirs or not ours or theirs >= ours:
        return False
    # Versions grow across incarnations too, so an older one with another UID is the previous object.
    return bool(new.uid and old.uid)


class Answer(msgspec.Struct, frozen=True):
    """An answer of the cloud, understood."""

    object: bytes | None
    """The object, ``None`` for a bare OK."""
    error: ApiStatus | None
    changes: tuple[Put | Remove, ...] = ()
    """To be made durable before the requester and the ACK."""
    ack: bool = True
    """Whether the original acknowledges this answer."""


def plan_answer(request: Message, answer: Message, stored: Row | None) -> Answer:
    """Understand an answer and decide what of it is stored; an error is never stored as an object.

    `stored` is the row the answer's object would go to (`answer_key`).

    Raises:
        ProtocolError: the content is not an answer.
    """
    ack = request.operation not in (PATCH, DELETE)
    if answer.content.strip() == OK:
        return Answer(None, None, ack=ack)
    body, error = _unwrap(content_data(answer.content))
    if error is not None:
        return Answer(body, error, ack=ack)
    if body is None:
        return Answer(None, ApiStatus(500, "InternalError", "the cloud answered without an object"), ack=ack)
    return Answer(body, None, _answer_changes(request, answer, body, stored), ack)


def answer_key(request: Message) -> str:
    """The key of the row an answer to `request` may change (a podpatch answer goes to the pod's row)."""
    target = res.find_resource(request.resource)
    if target is None or not target.name:
        return request.resource
    if target.type == res.PODPATCH:
        return res.format_resource(target.namespace, res.POD, target.name)
    if target.type == res.NODEPATCH:
        return res.format_resource(target.namespace, res.NODE, target.name)
    return request.resource


def _answer_changes(
    request: Message, answer: Message, body: bytes, stored: Row | None
) -> tuple[Put | Remove, ...]:
    key = answer_key(request)
    target = res.find_resource(key)
    if target is None or target.type in (res.TOKEN, res.LEASE, res.EVENT):
        return ()  # tokens are kept by whoever asked, under what was asked; a lease is of the moment
    if request.operation == PATCH:
        # A late answer must not bring back a deleted pod, nor write into its successor.
        if stored is None or _meta(stored.value).uid != _meta(body).uid:
            return ()
    elif request.operation not in (QUERY, INSERT, UPDATE):
        return ()
    if _older(body, stored, answer.resource_version):
        return ()
    return (Put(Row(key, target.type, body)),)


class _ObjectResponse(msgspec.Struct, rename={"object": "Object", "error": "Err"}):
    object: msgspec.Raw
    error: msgspec.Raw


class _StatusError(msgspec.Struct, rename={"status": "ErrStatus"}):
    status: dict[str, Any]


def _unwrap(data: bytes) -> tuple[bytes | None, ApiStatus | None]:
    """Take ``{"Object":…,"Err":…}`` and ``{"ErrStatus":…}`` apart; anything else is the object itself."""
    head = data.lstrip()[:1]
    if head != b"{":
        raise ProtocolError("the answer is neither OK nor an object")
    error = _status_error(data)
    if error is not None:
        return None, error
    try:
        wrapped = msgspec.json.decode(data, type=_ObjectResponse)
    except msgspec.ValidationError:
        return data, None
    except MALFORMED as exc:
        raise ProtocolError(f"malformed answer: {exc}") from exc
    inner = bytes(wrapped.object)
    found = None if inner == b"null" else inner
    if bytes(wrapped.error) == b"null":
        return found, None
    return found, _status_error(bytes(wrapped.error)) or ApiStatus(
        500, "InternalError", "the cloud reported an error without saying which"
    )


def _status_error(data: bytes) -> ApiStatus | None:
    try:
        return ApiStatus.from_dict(msgspec.json.decode(data, type=_StatusError).status)
    except MALFORMED:
        return None


def answer_error(content: bytes) -> ApiStatus | None:
    """The error an answer carries, if it carries one."""
    if content.strip() == OK:
        return None
    try:
        return _unwrap(content_data(content))[1]
    except ProtocolError:
        return None


def store_failure(message: Message, text: str, *, new_id: str, timestamp: int) -> Message:
    """The ``error`` message that tells the cloud a write failed (it will send again)."""
    return Message(
        id=new_id,
        timestamp=timestamp,
        operation=ERROR,
        resource=message.resource,
        content=msgspec.json.encode(text),
        parent_id=message.id,
        source=cls.META_MANAGER,
        group=cls.RESOURCE_GROUP,
    )


def _meta(value: bytes) -> _Meta:
    try:
        return _object.decode(value).metadata
    except MALFORMED:
        return _NOTHING
