"""What cloud and edge say to each other about devices, besides the objects themselves.

Down: which devices belong to a node (membership). Up: what a device reports (twin values, its state), and the
question which devices there are. None of it has a record: membership is repeated whenever a node connects, a
report is repeated by the edge until it is answered.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.wire import classify as cls
from edgehive.wire.message import MALFORMED, RESPONSE, UPDATE, Message, Stamp, content_data
from edgehive.wire.outbound import Outbound
from edgehive.wire.resource import DEVICE, MEMBERSHIP, MEMBERSHIP_DETAIL, TWIN

MAX_REPORT: Final = 1 << 20
"""Largest report that is looked at, in bytes."""
MAX_VALUE: Final = 16 * 1024
"""Longest value of a property, in characters; an edge takes 512 over MQTT, and as many as this from a mapper."""

# -- down


class Member(msgspec.Struct, frozen=True):
    """A device of a node."""

    namespace: str
    name: str
    description: str = ""
    """The value of the device's label ``description``."""

    @property
    def id(self) -> str:
        """``default/thermostat``."""
        return f"{self.namespace}/{self.name}"


class _Member(msgspec.Struct, omit_defaults=True):
    id: str
    name: str
    description: str = ""
    twin: dict[str, Any] | None = None


def membership_message(
    *, added: Iterable[Member] = (), removed: Iterable[Member] = (), stamp: Stamp
) -> Outbound:
    """Devices that a node has from now on, and those it has no more; each list is ``null`` when empty."""
    message_id, timestamp = stamp()
    content = {
        "event_id": message_id,
        "timestamp": timestamp,
        "added_devices": [_Member(m.id, m.name, m.description) for m in added] or None,
        "removed_devices": [_Member(m.id, m.name, m.description) for m in removed] or None,
    }
    return _to_twin(MEMBERSHIP, message_id, timestamp, content)


def membership_detail_message(members: Iterable[Member], *, stamp: Stamp) -> Outbound:
    """All devices of a node: the edge drops every other one.

    KubeEdge's edge understands it and asks for it, though its cloud no longer answers. ``twin`` is there, and empty,
    because that edge would report a device without it as an error over MQTT.
    """
    message_id, timestamp = stamp()
    content = {
        "event_id": message_id,
        "timestamp": timestamp,
        "devices": [_Member(m.id, m.name, m.description, {}) for m in members],
    }
    return _to_twin(MEMBERSHIP_DETAIL, message_id, timestamp, content)


def report_answer(parent_id: str, content: bytes, *, stamp: Stamp) -> Outbound:
    """The answer to a report: ``"OK"``, or an error for one that can never be stored."""
    message_id, timestamp = stamp()
    return Outbound(
        Message(
            id=message_id,
            timestamp=timestamp,
            operation=RESPONSE,
            resource=TWIN,
            content=content,
            parent_id=parent_id,
            source=cls.DEVICE_CONTROLLER,
            group=cls.TWIN_GROUP,
        )
    )


def _to_twin(resource: str, message_id: str, timestamp: int, content: object) -> Outbound:
    return Outbound(
        Message(
            id=message_id,
            timestamp=timestamp,
            operation=UPDATE,
            resource=resource,
            content=msgspec.json.encode(content),
            source=cls.DEVICE_CONTROLLER,
            group=cls.TWIN_GROUP,
        )
    )


# -- up


class TwinValue(msgspec.Struct, frozen=True):
    """One side of a property, as the edge has it."""

    value: str
    timestamp: int = 0
    """Milliseconds since the epoch, by the edge's clock; 0: not said."""
    version: int = 0
    """How often the edge has changed it; 0: not said."""
    type: str = ""


class TwinChange(msgspec.Struct, frozen=True):
    """What a report says of one property; ``None``: nothing about that side."""

    reported: TwinValue | None = None
    desired: TwinValue | None = None


class TwinReport(msgspec.Struct, frozen=True):
    """Values of a device's properties. One that was removed at the edge says nothing: its last value stays."""

    namespace: str
    name: str
    timestamp: int
    twins: Mapping[str, TwinChange]


class StateReport(msgspec.Struct, frozen=True):
    """The state of a device."""

    namespace: str
    name: str
    timestamp: int
    state: str
    last_online: str
    """RFC 3339, or ""."""


DeviceReport = TwinReport | StateReport

_Number = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Time(msgspec.Struct):
    timestamp: _Number = 0


class _Value(msgspec.Struct):
    value: str | None = None
    metadata: _Time | None = None


class _Type(msgspec.Struct):
    type: str = ""


class _Version(msgspec.Struct):
    edge: _Number = 0


class _Twin(msgspec.Struct):
    expected: _Value | None = None
    actual: _Value | None = None
    metadata: _Type | None = None
    expected_version: _Version | None = None
    actual_version: _Version | None = None


class _TwinUpdate(msgspec.Struct):
    timestamp: _Number = 0
    twin: dict[str, _Twin | None] | None = None


class _State(msgspec.Struct, rename="camel"):
    state: str = ""
    last_online_time: str = ""


def is_detail_request(message: Message) -> bool:
    """Whether the edge asks for all its devices."""
    return message.resource == MEMBERSHIP_DETAIL


def reporting_device(resource: str) -> tuple[str, str] | None:
    """Namespace and name of the device a report is about; ``None`` if it is not one.

    ``device/default/thermostat/twin/edge_updated`` or ``device/default/thermostat/state/update``; the whole path is
    compared, so that a device may have any name.
    """
    match resource.split("/"):
        case [kind, namespace, name, "twin", "edge_updated"] if kind == DEVICE and namespace and name:
            return namespace, name
        case [kind, namespace, name, "state", "update"] if kind == DEVICE and namespace and name:
            return namespace, name
    return None


def parse_report(message: Message) -> DeviceReport:
    """Read a report of a device; its content may be JSON or a text with JSON in it.

    Raises:
        ProtocolError: it is none, or too large.
    """
    device = reporting_device(message.resource)
    if device is None:
        raise ProtocolError(f"not the report of a device: {message.resource[:120]!r}")
    if len(message.content) > MAX_REPORT:
        raise ProtocolError(f"a report of {len(message.content)} bytes; at most {MAX_REPORT} are taken")
    data = content_data(message.content)
    try:
        if message.resource.endswith("/state/update"):
            return _state(device, data)
        return _twins(device, data)
    except MALFORMED as exc:
        raise ProtocolError(f"the report is malformed: {exc}") from exc


def _state(device: tuple[str, str], data: bytes) -> StateReport:
    body = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    inner = next((raw for key, raw in body.items() if key.lower() == "device"), None)  # as Go compares keys
    if inner is None:
        raise ProtocolError("the report names no device")
    state = msgspec.json.decode(inner, type=_State)
    if max(len(state.state), len(state.last_online_time)) > 128:
        raise ProtocolError("the state is too long")
    timestamp = msgspec.json.decode(data, type=_Time).timestamp
    return StateReport(*device, timestamp, state.state, state.last_online_time)


def _twins(device: tuple[str, str], data: bytes) -> TwinReport:
    update = msgspec.json.decode(data, type=_TwinUpdate)
    if update.twin is None:
        raise ProtocolError("the report has no twin")
    return TwinReport(*device, update.timestamp, {name: _change(name, t) for name, t in update.twin.items()})


def _change(name: str, twin: _Twin | None) -> TwinChange:
    if twin is None:
        return TwinChange()
    kind = twin.metadata.type if twin.metadata is not None else ""
    return TwinChange(
        reported=_side(name, twin.actual, twin.actual_version, kind),
        desired=_side(name, twin.expected, twin.expected_version, kind),
    )


def _side(name: str, value: _Value | None, version: _Version | None, kind: str) -> TwinValue | None:
    if value is None or value.value is None:
        return None
    if len(value.value) > MAX_VALUE or len(kind) > 128:
        raise ProtocolError(f"the value of {name[:64]!r} is longer than {MAX_VALUE} characters")
    return TwinValue(
        value.value,
        value.metadata.timestamp if value.metadata is not None else 0,
        version.edge if version is not None else 0,
        kind,
    )
