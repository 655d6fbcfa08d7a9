"""What a DeviceStatus becomes by the reports of its device: merged, newest value per property. Pure."""

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from edgehive.kube.reflector import Key
from edgehive.wire.devices import DeviceReport, StateReport, TwinValue
from edgehive.wire.message import MALFORMED

_STEPPED_BACK: Final = 24 * 3600 * 1000
"""A report that much older than the last one (ms) says that the edge's clock was set back, not that it is late."""
_SUMMARY_VALUES: Final = 8
_SUMMARY_WIDTH: Final = 40


class _Owner(msgspec.Struct, rename="camel", gc=False):
    uid: str = ""


class _Meta(msgspec.Struct, rename="camel", gc=False):
    resource_version: str = ""
    owner_references: list[_Owner] | None = None


class _Side(msgspec.Struct, gc=False):
    value: str = ""
    metadata: dict[str, str] | None = None


class _Twin(msgspec.Struct, rename="camel", gc=False):
    property_name: str = ""
    reported: _Side | None = None
    observed_desired: _Side | None = None


class _Status(msgspec.Struct, rename="camel", gc=False):
    twins: list[_Twin] | None = None
    state: str = ""
    last_online_time: str = ""


class _DeviceStatus(msgspec.Struct, gc=False):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    status: _Status | None = None


_decoder: Final = msgspec.json.Decoder(_DeviceStatus)


@dataclass(slots=True)
class Entry:
    """One property: what it reported, and the desired value the edge knows."""

    reported: TwinValue | None = None
    desired: TwinValue | None = None


@dataclass(slots=True)
class DeviceState:
    """The contents of a DeviceStatus."""

    twins: dict[str, Entry] = field(default_factory=dict)
    state: str = ""
    last_online: str = ""
    stamp: int = 0
    """When the state was reported, in milliseconds by the edge's clock; 0: not known any more."""

    def apply(self, report: DeviceReport, properties: Collection[str]) -> tuple[bool, int]:
        """Take a report in; returns whether anything is new, and how many properties the device does not have.

        A value that is older than the one that is there changes nothing.
        """
        if isinstance(report, StateReport):
            return self._apply_state(report), 0
        changed, foreign = False, 0
        for name, twin in report.twins.items():
            if name not in properties:
                foreign += 1
                continue
            entry = self.twins.get(name)
            if entry is None:
                entry = self.twins[name] = Entry()
                changed = True
            if twin.reported is not None and supersedes(twin.reported, entry.reported):
                changed, entry.reported = True, twin.reported
            if twin.desired is not None and supersedes(twin.desired, entry.desired):
                changed, entry.desired = True, twin.desired
        return changed, foreign

    def keep_only(self, properties: Collection[str]) -> bool:
        """Drop what the device does not have any more; returns whether there was something."""
        gone = [name for name in self.twins if name not in properties]
        for name in gone:
            del self.twins[name]
        return bool(gone)

    def _apply_state(self, report: StateReport) -> bool:
        if self._is_late(report):
            return False
        self.stamp = report.timestamp or self.stamp
        state, online = report.state or self.state, report.last_online or self.last_online
        changed = (state, online) != (self.state, self.last_online)
        self.state, self.last_online = state, online
        return changed

    def _is_late(self, report: StateReport) -> bool:
        behind = self.stamp - report.timestamp
        if self.stamp and report.timestamp:
            return 0 < behind < _STEPPED_BACK
        before, now = _moment(self.last_online), _moment(report.last_online)
        return before is not None and now is not None and 0 < before - now < _STEPPED_BACK / 1000


def supersedes(new: TwinValue, old: TwinValue | None) -> bool:
    """Whether `new` is to replace `old`: neither the same, nor older by everything that is known.

    The edge counts its changes of a value, and stamps them. A count that went back alone means that its database was
    lost; a time that went back alone, that its clock was set.
    """
    if old is None:
        return True
    if new == old:
        return False
    if new.version and old.version:
        return new.version > old.version or new.timestamp > old.timestamp
    return new.timestamp >= old.timestamp or not new.timestamp


def parse_status(raw: bytes) -> tuple[DeviceState, str, str]:
    """Read a DeviceStatus: its contents, its resourceVersion, the UID of its owner; what is unreadable is empty."""
    try:
        found = _decoder.decode(raw)
    except MALFORMED:
        return DeviceState(), "", ""
    status = found.status or _Status()
    twins = {
        twin.property_name: Entry(_value(twin.reported), _value(twin.observed_desired))
        for twin in status.twins or ()
        if twin.property_name
    }
    owner = next((owner.uid for owner in found.metadata.owner_references or ()), "")
    state = DeviceState(twins, status.state, status.last_online_time)
    return state, found.metadata.resource_version, owner


def _value(side: _Side | None) -> TwinValue | None:
    if side is None or (not side.value and not side.metadata):
        return None
    metadata = side.metadata or {}
    return TwinValue(
        side.value,
        _number(metadata.get("timestamp")),
        _number(metadata.get("version")),
        metadata.get("type", ""),
    )


def _number(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0


def _moment(text: str) -> float | None:
    try:
        return datetime.datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


def status_fields(state: DeviceState, types: Mapping[str, str] | None = None) -> dict[str, Any]:
    """``status`` as the original writes it; what is empty is left out, so that it clears nothing.

    `types` of properties stand where the edge has none of its own: what mappers report is a ``string`` there.
    """
    types = types or {}
    found: dict[str, Any] = {}
    if state.twins:
        found["twins"] = [
            {
                "propertyName": name,
                "reported": _side(entry.reported, types.get(name, "")),
                "observedDesired": _side(entry.desired, types.get(name, "")),
            }
            for name, entry in state.twins.items()
        ]
    if state.state:
        found["state"] = state.state
    if state.last_online:
        found["lastOnlineTime"] = state.last_online
    return found


def _side(value: TwinValue | None, kind: str) -> dict[str, Any]:
    if value is None:
        return {"value": ""}
    metadata = {"timestamp": str(value.timestamp)} if value.timestamp else {}
    shown = kind if kind and value.type in ("", "string") else value.type
    if shown:
        metadata["type"] = shown
    if value.version:
        metadata["version"] = str(value.version)
    return {"value": value.value, **({"metadata": metadata} if metadata else {})}


def owner_reference(key: Key, uid: str) -> dict[str, Any]:
    """The reference that makes the Device of the same name the owner."""
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "name": key[1],
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def new_status(key: Key, uid: str) -> bytes:
    """A DeviceStatus without contents, to be created."""
    return msgspec.json.encode(
        {
            "apiVersion": "devices.kubeedge.io/v1beta1",
            "kind": "DeviceStatus",
            "metadata": {
                "namespace": key[0],
                "name": key[1],
                "ownerReferences": [owner_reference(key, uid)],
            },
            "spec": {},
            "status": {},
        }
    )


def summary(state: DeviceState) -> dict[str, str]:
    """What ``kubectl get devices`` shows: ``temperature=21,mode=auto`` and the like, of bounded length."""
    every = [(name, e.reported.value) for name, e in state.twins.items() if e.reported is not None]
    return {"state": state.state, "reported": _list(every), "lastOnlineTime": state.last_online}


def _list(every: list[tuple[str, str]]) -> str:
    shown = [f"{name}={_short(value)}" for name, value in every[:_SUMMARY_VALUES]]
    return ",".join(shown) + (f",+{len(every) - _SUMMARY_VALUES}" if len(every) > _SUMMARY_VALUES else "")


def _short(value: str) -> str:
    text = "".join(c if c.isprintable() else " " for c in value)
    return text if len(text) <= _SUMMARY_WIDTH else text[: _SUMMARY_WIDTH - 1] + "…"
