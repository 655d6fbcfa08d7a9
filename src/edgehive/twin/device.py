"""One device: its twins and attributes, and the rules by which they change.

Two kinds of change: *local* ones (an MQTT client, a mapper, the Device object) count the edge's version up and are
always accepted; *synchronised* ones carry versions, and an older one never overwrites a newer one. A request is
done as a whole or not at all. Expected and actual value have versions of their own.

KubeEdge's rules with its faults left out: a value that is missing, or metadata that is, is an error of the request
and not the end of the module.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec.structs import replace

from edgehive.twin import values
from edgehive.twin.payloads import (
    BAD_REQUEST,
    Attribute,
    Change,
    DeviceEntry,
    MsgTwin,
    Refusal,
    TwinDoc,
    TypeMeta,
    Value,
    ValueMeta,
    Version,
)

_STRING: Final = TypeMeta(values.STRING)
_DELETED: Final = TypeMeta(values.DELETED)
_ZERO: Final = Version()
_EMPTY: Final = Value()

MAX_TWINS: Final = 1_000
"""Twins a device may have; an MQTT client could otherwise fill the disk."""


class Twin(msgspec.Struct, frozen=True, gc=False):
    """One property. A deleted twin stays, with type ``deleted`` and its versions, until it is set again."""

    expected: Value | None = None
    actual: Value | None = None
    optional: bool = True
    metadata: TypeMeta = _STRING
    expected_version: Version | None = None
    actual_version: Version | None = None
    desired: str | None = None
    """What the Device object wanted when it was last looked at."""

    @property
    def deleted(self) -> bool:
        """Whether clients do not see it."""
        return self.metadata.type == values.DELETED

    @property
    def first(self) -> bool:
        """Whether each of its values is the first one."""
        return all(
            v is None or (v.cloud == 0 and v.edge <= 1) for v in (self.expected_version, self.actual_version)
        )

    def shown(self) -> MsgTwin:
        """As clients see it."""
        return MsgTwin(self.expected, self.actual, self.optional, self.metadata)

    def reported(self) -> MsgTwin:
        """As the cloud sees it: with versions."""
        return MsgTwin(
            self.expected,
            self.actual,
            self.optional,
            self.metadata,
            self.expected_version,
            self.actual_version,
        )


@dataclass(slots=True)
class Device:
    """A device of this node; `id` is ``namespace/name``."""

    id: str
    name: str = ""
    description: str = ""
    state: str = ""
    last_online: str = ""
    attributes: dict[str, Attribute] = field(default_factory=dict)
    twins: dict[str, Twin] = field(default_factory=dict)
    has_object: bool = False
    """Whether the Device object is here: without it, the device leaves."""

    def entry(self) -> DeviceEntry:
        """As ``membership/get/result`` lists it: without twins."""
        attributes = {key: self.attributes[key] for key in sorted(self.attributes)} or None
        return DeviceEntry(
            self.id, self.name, self.description, self.state, self.last_online, attributes=attributes
        )

    def shown(self) -> dict[str, MsgTwin]:
        """The twins clients see."""
        return {key: twin.shown() for key, twin in self.twins.items() if not twin.deleted}

    def delta(self) -> tuple[dict[str, MsgTwin], dict[str, str]]:
        """The twins with an expected value, and the expected values that differ from the actual ones."""
        twins: dict[str, MsgTwin] = {}
        wanted: dict[str, str] = {}
        for key, twin in self.twins.items():
            if twin.deleted or twin.expected is None or not twin.expected.value:
                continue
            twins[key] = twin.shown()
            if twin.expected.value != ((twin.actual and twin.actual.value) or ""):
                wanted[key] = twin.expected.value
        return twins, wanted


@dataclass(slots=True)
class Outcome:
    """What a request has done."""

    result: dict[str, MsgTwin | None] = field(default_factory=dict)
    """The changed parts, for the sender."""
    document: dict[str, TwinDoc] = field(default_factory=dict)
    saved: dict[str, Twin] = field(default_factory=dict)
    """Twins to be stored."""
    report: list[str] = field(default_factory=list)
    """Twins the cloud must hear of: changed locally, or newer here than what it sent."""


def update(device: Device, changes: Mapping[str, Change | None], now: int) -> Outcome:
    """Make local changes; None deletes.

    Raises:
        Refusal: a value is missing or of the wrong type; nothing was changed.
    """
    outcome = Outcome()
    try:
        for key, change in changes.items():
            twin = device.twins.get(key)
            if change is not None:
                _check_type(change)
            if change is None:
                if twin is not None:
                    _delete(outcome, key, twin)
            elif twin is None:
                _add(outcome, key, change, now)
            else:
                _change(outcome, key, twin, change, now)
    except Refusal:
        _drop_empty(device)
        raise
    if len(device.twins) + sum(key not in device.twins for key in outcome.saved) > MAX_TWINS:
        raise Refusal(BAD_REQUEST, f"a device can have at most {MAX_TWINS} twins")
    device.twins.update(outcome.saved)
    return outcome


def _drop_empty(device: Device) -> None:
    """What clients see after KubeEdge has refused a request: it reads the device anew, and empty values are gone."""
    for key, twin in device.twins.items():
        expected = twin.expected if twin.expected and twin.expected.value else None
        actual = twin.actual if twin.actual and twin.actual.value else None
        if expected is not twin.expected or actual is not twin.actual:
            device.twins[key] = replace(twin, expected=expected, actual=actual)


def sync(device: Device, changes: Mapping[str, Change | None], now: int) -> Outcome:
    """Make changes that carry versions; what is older than ours is left out, and reported."""
    outcome = Outcome()
    for key, change in changes.items():
        if change is None:
            continue
        twin = device.twins.get(key)
        if twin is None:
            if len(device.twins) + len(outcome.saved) < MAX_TWINS:
                _sync_new(outcome, key, change, now)
        elif change.type == values.DELETED:
            _sync_delete(outcome, key, twin, change)
        else:
            _sync_change(outcome, key, twin, change, now)
    device.twins.update(outcome.saved)
    return outcome


def want(device: Device, desired: Mapping[str, str], now: int) -> Outcome:
    """Take over what the Device object wants (an empty value: nothing).

    Only what has changed in the object since it was last looked at: a client's own ``expected`` stays in force until
    then, however often the same object comes again. The version is counted up only if the value differs.
    """
    outcome = Outcome()
    for key, value in desired.items():
        twin = device.twins.get(key)
        if twin is None:
            if value and len(device.twins) + len(outcome.saved) < MAX_TWINS:
                _add(outcome, key, Change(expected=Value(value)), now)
                outcome.saved[key] = replace(outcome.saved[key], desired=value)
        elif value and twin.desired != value:
            if twin.deleted or twin.expected is None or twin.expected.value != value:
                _change(outcome, key, twin, Change(expected=Value(value)), now, check=False)
            outcome.saved[key] = replace(outcome.saved.get(key, twin), desired=value)
    for key, twin in device.twins.items():
        if twin.desired is not None and not desired.get(key):
            _unwant(outcome, key, twin, now)
    device.twins.update(outcome.saved)
    return outcome


def _unwant(outcome: Outcome, key: str, twin: Twin, now: int) -> None:
    """The object does not want a value any more (the cloud hears of an empty one); a client's own since then stays."""
    new = replace(twin, desired=None)
    if not twin.deleted and twin.expected is not None and twin.expected.value == twin.desired:
        nothing = Value("", ValueMeta(now))
        new = replace(new, expected=nothing, expected_version=_next(twin.expected_version))
        _note(outcome, key, twin.shown(), new)
        outcome.result[key] = new.shown()
    outcome.saved[key] = new


# -- local changes


def _check_type(change: Change) -> None:
    if change.type == values.DELETED:  # only the cloud deletes so; the original makes a twin that nobody sees
        raise Refusal(BAD_REQUEST, "the value type is not allowed")


def _part(change: Value, kind: str, now: int, *, check: bool = True) -> Value:
    if change.value is None:
        raise Refusal(BAD_REQUEST, "the value of the twin is missing")
    if check and (problem := values.type_problem(kind, change.value)):
        raise Refusal(BAD_REQUEST, problem)
    return Value(change.value, ValueMeta(now))


def _next(version: Version | None) -> Version:
    version = version or _ZERO
    return Version(version.cloud, version.edge + 1)


def _add(outcome: Outcome, key: str, change: Change, now: int) -> None:
    kind = values.STRING if change.type is None else change.type
    expected = None if change.expected is None else _part(change.expected, kind, now)
    actual = None if change.actual is None else _part(change.actual, kind, now)
    twin = Twin(
        # An empty value is none: so it is after a restart.
        expected if expected and expected.value else None,
        actual if actual and actual.value else None,
        True if change.optional is None else change.optional,
        _STRING if kind == values.STRING else TypeMeta(kind),
        None if expected is None else _next(None),
        None if actual is None else _next(None),
    )
    _note(outcome, key, None, twin)
    if not twin.deleted:
        outcome.result[key] = twin.shown()


def _change(outcome: Outcome, key: str, twin: Twin, change: Change, now: int, *, check: bool = True) -> None:
    kind = (change.type or "") if twin.deleted and change.type is not None else twin.metadata.type
    if twin.deleted and change.type is None:
        kind = values.STRING
    new, changed = twin, False
    told = MsgTwin()
    if change.expected is not None:
        value = _part(change.expected, kind, now, check=check)
        new = replace(new, expected=value, expected_version=_next(twin.expected_version))
        told = replace(told, expected=value, optional=twin.optional, metadata=twin.metadata)
    if change.actual is not None:
        value = _part(change.actual, kind, now, check=check)
        new = replace(new, actual=value, actual_version=_next(twin.actual_version))
        told = replace(told, actual=value, optional=twin.optional, metadata=twin.metadata)
    changed = new is not twin
    if change.optional is False and twin.optional:
        new, told, changed = replace(new, optional=False), replace(told, optional=False), True
    if twin.deleted:
        new = replace(new, metadata=TypeMeta(kind))
        told, changed = replace(told, metadata=new.metadata), True
    elif change.type is not None and change.type != twin.metadata.type:
        changed = True  # it is not changed, but counts as if
    if changed:
        _note(outcome, key, None if twin.deleted else twin.shown(), new)
        if not new.deleted:
            outcome.result[key] = told


def _delete(outcome: Outcome, key: str, twin: Twin) -> None:
    never_set = twin.expected_version is None and twin.actual_version is None
    if twin.deleted or not twin.optional or never_set:
        return
    _gone(
        outcome,
        key,
        twin,
        None if twin.expected_version is None else _next(twin.expected_version),
        None if twin.actual_version is None else _next(twin.actual_version),
    )
    outcome.result[key] = None
    outcome.report.append(key)


def _gone(
    outcome: Outcome, key: str, twin: Twin, expected_version: Version | None, actual_version: Version | None
) -> None:
    outcome.saved[key] = Twin(
        twin.expected if expected_version is None else _EMPTY,
        twin.actual if actual_version is None else _EMPTY,
        twin.optional,
        _DELETED,
        expected_version or twin.expected_version,
        actual_version or twin.actual_version,
        twin.desired,
    )
    outcome.document[key] = TwinDoc(twin.shown(), None)


def _note(outcome: Outcome, key: str, last: MsgTwin | None, twin: Twin, *, report: bool = True) -> None:
    outcome.saved[key] = twin
    outcome.document[key] = TwinDoc(last, None if twin.deleted else twin.shown())
    if report:
        outcome.report.append(key)


# -- synchronised changes


def _newer(ours: Version | None, theirs: Version | None) -> bool:
    """Whether a synchronised value may take the place of ours."""
    ours = ours or _ZERO
    return theirs is not None and ours.cloud <= theirs.cloud and ours.edge <= theirs.edge


def _fits(part: Value, kind: str) -> bool:
    return part.value is not None and not values.type_problem(kind, part.value)


def _sync_new(outcome: Outcome, key: str, change: Change, now: int) -> None:
    kind = values.STRING if change.type is None else change.type
    if kind == values.DELETED:
        twin = Twin(
            optional=change.optional is not False,
            metadata=_DELETED,
            expected_version=change.expected_version,
            actual_version=change.actual_version,
        )
        outcome.saved[key] = twin
        return
    for part, version in (
        (change.expected, change.expected_version),
        (change.actual, change.actual_version),
    ):
        if part is not None and (version is None or not _fits(part, kind)):
            return
    stamp = ValueMeta(now)
    twin = Twin(
        Value(change.expected.value, stamp) if change.expected and change.expected.value else None,
        Value(change.actual.value, stamp) if change.actual and change.actual.value else None,
        change.optional is not False,
        TypeMeta(kind),
        change.expected_version if change.expected else None,
        change.actual_version if change.actual else None,
    )
    _note(outcome, key, None, twin, report=False)


def _sync_delete(outcome: Outcome, key: str, twin: Twin, change: Change) -> None:
    if twin.deleted:
        return
    for ours, theirs in (
        (twin.expected_version, change.expected_version),
        (twin.actual_version, change.actual_version),
    ):
        if ours is not None and theirs is not None and not _newer(ours, theirs):
            outcome.report.append(key)
            return
    if twin.expected_version is None and twin.actual_version is None:
        return
    _gone(
        outcome,
        key,
        twin,
        (change.expected_version or twin.expected_version) if twin.expected_version else None,
        (change.actual_version or twin.actual_version) if twin.actual_version else None,
    )


def _sync_change(outcome: Outcome, key: str, twin: Twin, change: Change, now: int) -> None:
    kind = (change.type or values.STRING) if twin.deleted else twin.metadata.type
    stamp = ValueMeta(now)
    new = twin
    if change.expected is not None and _fits(change.expected, kind):
        if not _newer(twin.expected_version, change.expected_version):
            outcome.report.append(key)
            return
        value = Value(change.expected.value, stamp)
        new = replace(new, expected=value, expected_version=change.expected_version)
    refused = False
    if change.actual is not None and _fits(change.actual, kind):
        if _newer(twin.actual_version, change.actual_version):
            value = Value(change.actual.value, stamp)
            new = replace(new, actual=value, actual_version=change.actual_version)
        else:
            refused = True
            outcome.report.append(key)
    changed = new is not twin
    if not refused:
        if change.optional is False and twin.optional:
            new, changed = replace(new, optional=False), True
        if twin.deleted:
            new, changed = replace(new, metadata=TypeMeta(kind)), True
        elif change.type is not None and change.type != twin.metadata.type:
            changed = True
    elif twin.deleted:
        return  # half of it is older than its deletion
    if changed:
        _note(outcome, key, None if twin.deleted else twin.shown(), new, report=False)


# -- attributes


def set_attributes(device: Device, wanted: Mapping[str, Attribute]) -> dict[str, Attribute | None]:
    """Make the attributes what the cloud says; return what has changed, None for what is gone."""
    changed: dict[str, Attribute | None] = {}
    for key, one in wanted.items():
        old = device.attributes.get(key)
        new = _merged(old, one)
        if new != old:
            device.attributes[key] = new
            changed[key] = new
    for key in [key for key in device.attributes if key not in wanted]:
        del device.attributes[key]
        changed[key] = None
    return changed


def _merged(old: Attribute | None, new: Attribute) -> Attribute:
    if old is None:
        optional = True if new.optional is msgspec.UNSET else new.optional
        return Attribute(new.value, optional, _STRING if new.metadata is msgspec.UNSET else new.metadata)
    keeps = new.optional is msgspec.UNSET or old.optional is False
    return Attribute(
        new.value,
        old.optional if keeps else new.optional,
        old.metadata if new.metadata is msgspec.UNSET else new.metadata,
    )


def changes_of(twins: Mapping[str, MsgTwin | None]) -> dict[str, Change | None]:
    """The twins of a membership message as synchronised changes."""
    return {
        key: None
        if one is None
        else Change(
            one.expected,
            one.actual,
            one.optional,
            None if one.metadata is None else one.metadata.type,
            one.expected_version,
            one.actual_version,
        )
        for key, one in twins.items()
    }
