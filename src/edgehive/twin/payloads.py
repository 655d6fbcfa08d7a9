"""The JSON of ``$hw/events``: field order, what is null and what is left out, as KubeEdge's structs have it.

A payload that cannot be understood raises `Refusal`: what to answer, and whether the sender's event id may be echoed.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.twin import gojson, values
from edgehive.twin.gojson import Malformed

BAD_REQUEST: Final = 400
NOT_FOUND: Final = 404
INTERNAL: Final = 500

_MAX_VERSION: Final = 1 << 62
"""Largest version that is taken: counting on from it never leaves the 64 bits that peers read."""


class Refusal(ProtocolError):
    """A request is not done; `code` and `reason` go to its sender.

    `unread`: nothing of the payload is trusted. KubeEdge answers such a twin update without the device's id and the
    sender's event id, and clients may wait for it there.
    """

    def __init__(self, code: int, reason: str, *, unread: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.unread = unread


class ValueMeta(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """When a value was set, in milliseconds."""

    timestamp: int = 0


class Value(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A value; without one (``{}``) it was deleted."""

    value: str | None = None
    metadata: ValueMeta | None = None


class TypeMeta(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The type of a twin or attribute."""

    type: str = ""


class Version(msgspec.Struct, frozen=True, gc=False):
    """How often either side has set a value."""

    cloud: int = 0
    edge: int = 0


class MsgTwin(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A twin in a message."""

    expected: Value | None = None
    actual: Value | None = None
    optional: bool | None = None
    metadata: TypeMeta | None = None
    expected_version: Version | None = None
    actual_version: Version | None = None


class TwinDoc(msgspec.Struct, frozen=True, gc=False):
    """What a twin was and is; null while there is none."""

    last: MsgTwin | None = None
    current: MsgTwin | None = None


class Attribute(msgspec.Struct, frozen=True, gc=False):
    """An attribute of a device."""

    value: str = ""
    optional: bool | msgspec.UnsetType = msgspec.UNSET
    metadata: TypeMeta | msgspec.UnsetType = msgspec.UNSET


class DeviceEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A device in a membership message; `twin` in the order it is written."""

    id: str = ""
    name: str = ""
    description: str = ""
    state: str = ""
    last_online: str = ""
    attributes: dict[str, Attribute] | None = None
    twin: dict[str, MsgTwin | None] | None = None


class Change(msgspec.Struct, frozen=True, gc=False):
    """What a request wants of one twin. A value that is asked for and missing is ``Value(None)``."""

    expected: Value | None = None
    actual: Value | None = None
    optional: bool | None = None
    type: str | None = None
    """None: the request has no metadata."""
    expected_version: Version | None = None
    actual_version: Version | None = None


class TwinRequest(msgspec.Struct, frozen=True):
    """``twin/update`` or ``twin/cloud_updated``; None is a twin to be deleted."""

    event_id: str
    twin: dict[str, Change | None]


class Membership(msgspec.Struct, frozen=True):
    """``membership`` or ``membership/detail`` from the cloud."""

    event_id: str
    added: list[DeviceEntry]
    removed: list[DeviceEntry]


# -- read


def read_event_id(payload: bytes) -> str:
    """The event id of a request that has nothing else.

    Raises:
        Malformed: it is not one.
    """
    members = gojson.decode(payload)
    gojson.integer(members, "timestamp")
    return gojson.text(members, "event_id") or ""


def read_twin_request(payload: bytes) -> TwinRequest:
    """Read ``twin/update``.

    Raises:
        Refusal: it is not one.
    """
    try:
        members = gojson.decode(payload)
        event_id = gojson.text(members, "event_id") or ""
        gojson.integer(members, "timestamp")
        twins = members.get("twin")
        changes = _changes(twins) if twins is not None else None
    except Malformed as exc:
        reason = "Unmarshal update request body failed, please check the request"
        if len(payload) > gojson.MAX_PAYLOAD:
            reason = str(exc)
        raise Refusal(BAD_REQUEST, reason, unread=True) from exc
    if changes is None:
        raise Refusal(BAD_REQUEST, "Update twin error, key:twin does not exist", unread=True)
    for key, change in changes.items():
        if not values.is_key(key):
            raise Refusal(BAD_REQUEST, values.KEY_TEXT, unread=True)
        for part in (change.expected, change.actual) if change is not None else ():
            if part is not None and part.value is not None and not values.is_value(part.value):
                raise Refusal(BAD_REQUEST, values.VALUE_TEXT, unread=True)
    return TwinRequest(event_id, changes)


def read_state(payload: bytes) -> str:
    """The state in ``state/update``; empty when it has none.

    Raises:
        Malformed: it is not one.
    """
    members = gojson.decode(payload)
    gojson.text(members, "event_id")
    gojson.integer(members, "timestamp")
    return gojson.text(members, "state") or ""


def read_membership(payload: bytes, *, detail: bool) -> Membership:
    """Read ``membership`` (changes) or ``membership/detail`` (everything) from the cloud.

    Raises:
        Malformed: it is neither.
    """
    members = gojson.decode(payload)
    added = members.get("devices" if detail else "added_devices") or []
    removed = members.get("removed_devices") or []
    if not isinstance(added, list) or not isinstance(removed, list):
        raise Malformed("the devices are not a list")
    return Membership(
        gojson.text(members, "event_id") or "",
        [_device(one) for one in added],
        [] if detail else [_device(one) for one in removed],
    )


def _changes(twins: Any) -> dict[str, Change | None]:
    if not isinstance(twins, dict):
        raise Malformed("twin is not an object")
    return {key: None if one is None else _change(one) for key, one in twins.items()}


def _change(value: Any) -> Change:
    members = gojson.fold(value, "a twin")
    kind = None
    if (metadata := members.get("metadata")) is not None:
        kind = gojson.text(gojson.fold(metadata, "metadata"), "type") or ""
    return Change(
        expected=_part(members.get("expected")),
        actual=_part(members.get("actual")),
        optional=gojson.boolean(members, "optional"),
        type=kind,
        expected_version=_version(members.get("expected_version")),
        actual_version=_version(members.get("actual_version")),
    )


def _part(value: Any) -> Value | None:
    if value is None:
        return None
    members = gojson.fold(value, "a value")
    if (metadata := members.get("metadata")) is not None:
        gojson.integer(gojson.fold(metadata, "metadata"), "timestamp")
    return Value(gojson.text(members, "value"))


def _version(value: Any) -> Version | None:
    if value is None:
        return None
    members = gojson.fold(value, "a version")
    version = Version(gojson.integer(members, "cloud"), gojson.integer(members, "edge"))
    if max(version.cloud, version.edge) > _MAX_VERSION:
        raise Malformed("a version is too large")
    return version


def _device(value: Any) -> DeviceEntry:
    members = gojson.fold(value, "a device")
    texts = {key: gojson.text(members, key) or "" for key in ("id", "name", "description", "state")}
    if texts["id"].count("/") != 1 or not all(texts["id"].split("/")):
        raise Malformed("a device has no id of the form namespace/name")
    attributes = members.get("attributes")
    twins = members.get("twin")
    return DeviceEntry(
        **texts,
        attributes=None if attributes is None else _attributes(attributes),
        twin=None if twins is None else _entry_twins(_changes(twins)),
    )


def _attributes(value: Any) -> dict[str, Attribute]:
    if not isinstance(value, dict):
        raise Malformed("attributes is not an object")
    return {key: _attribute(value[key]) for key in sorted(value) if value[key] is not None}


def _attribute(value: Any) -> Attribute:
    members = gojson.fold(value, "an attribute")
    optional = gojson.boolean(members, "optional")
    metadata = members.get("metadata")
    kind = None if metadata is None else gojson.text(gojson.fold(metadata, "metadata"), "type") or ""
    return Attribute(
        gojson.text(members, "value") or "",
        msgspec.UNSET if optional is None else optional,
        msgspec.UNSET if kind is None else TypeMeta(kind),
    )


def _entry_twins(changes: Mapping[str, Change | None]) -> dict[str, MsgTwin | None]:
    return {
        key: None
        if change is None
        else MsgTwin(
            change.expected,
            change.actual,
            change.optional,
            None if change.type is None else TypeMeta(change.type),
            change.expected_version,
            change.actual_version,
        )
        for key, change in changes.items()
    }


# -- written


def error(event_id: str, timestamp: int, code: int, reason: str) -> bytes:
    """An answer that says why not."""
    return gojson.encode({"event_id": event_id, "timestamp": timestamp, "code": code, "reason": reason})


def twins(event_id: str, timestamp: int, twin: Mapping[str, MsgTwin | None]) -> bytes:
    """``twin/update/result``, ``twin/get/result`` and ``twin/edge_updated``."""
    return gojson.encode({"event_id": event_id, "timestamp": timestamp, "twin": _sorted(twin)})


def document(event_id: str, timestamp: int, docs: Mapping[str, TwinDoc]) -> bytes:
    """``twin/update/document``."""
    return gojson.encode({"event_id": event_id, "timestamp": timestamp, "twin": _sorted(docs)})


def delta(event_id: str, timestamp: int, twin: Mapping[str, MsgTwin], wanted: Mapping[str, str]) -> bytes:
    """``twin/update/delta``."""
    body = {"event_id": event_id, "timestamp": timestamp, "twin": _sorted(twin), "delta": _sorted(wanted)}
    return gojson.encode(body)


def attributes(timestamp: int, changed: Mapping[str, Attribute | None]) -> bytes:
    """``updated``."""
    return gojson.encode({"event_id": "", "timestamp": timestamp, "attributes": _sorted(changed)})


def membership(
    event_id: str,
    timestamp: int,
    *,
    added: Iterable[DeviceEntry] | None = None,
    removed: Iterable[DeviceEntry] | None = None,
) -> bytes:
    """``membership/updated``; the twins of it without versions, deleted ones as null."""
    body = {
        "event_id": event_id,
        "timestamp": timestamp,
        "added_devices": None if added is None else [_without_versions(one) for one in added],
        "removed_devices": None if removed is None else [_without_versions(one) for one in removed],
    }
    return gojson.encode(body)


def members(event_id: str, timestamp: int, devices: Iterable[DeviceEntry]) -> bytes:
    """``membership/get/result``."""
    return gojson.encode({"event_id": event_id, "timestamp": timestamp, "devices": list(devices)})


def state(event_id: str, timestamp: int, *, name: str, state: str, last_online: str) -> bytes:
    """``state/update/result``, and the report of it."""
    told = {"name": name, "state": state, "lastOnlineTime": last_online}
    body = {"event_id": event_id, "timestamp": timestamp, "device": {k: v for k, v in told.items() if v}}
    return gojson.encode(body)


def detail_request(event_id: str, timestamp: int, node: str) -> bytes:
    """``membership/detail``: what the edge asks for when it has connected."""
    body = {
        "event_type": "group_membership_event",
        "event_id": event_id,
        "group_id": node,
        "operation": "detail",
        "timestamp": timestamp,
    }
    return gojson.encode(body)


def encode_text(data: bytes) -> bytes:
    """A payload as the JSON string that holds it: so KubeEdge sends states and questions."""
    return msgspec.json.encode(data.decode())


def _sorted(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: mapping[key] for key in sorted(mapping)}


def _without_versions(device: DeviceEntry) -> DeviceEntry:
    if device.twin is None:
        return device
    shown = {
        key: None
        if one is None or (one.metadata is not None and one.metadata.type == values.DELETED)
        else msgspec.structs.replace(one, expected_version=None, actual_version=None)
        for key, one in sorted(device.twin.items())
    }
    return msgspec.structs.replace(device, twin=shown)
