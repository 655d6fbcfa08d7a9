"""The device twin of one node: requests in, effects out.

Every method decides, changes the devices in memory and returns what is to be done about it. If that cannot be saved,
the caller puts the devices back with `restore`. Sources: KubeEdge's topics and JSON (docs/devices.md), the cloud's
membership messages, Device objects, mappers.
"""

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec.structs import replace

from edgehive.twin import payloads, topics, values
from edgehive.twin.device import Device, Outcome, Twin, changes_of, set_attributes, sync, update, want
from edgehive.twin.effects import Effect, Forget, Kind, Owe, Publish, Save, ToCloud
from edgehive.twin.gojson import Malformed, describe_error
from edgehive.twin.payloads import (
    BAD_REQUEST,
    INTERNAL,
    NOT_FOUND,
    Change,
    DeviceEntry,
    Refusal,
    Value,
)
from edgehive.twin.topics import Request, Topic, device_topic, node_topic, parse_topic

Stamp = Callable[[], tuple[str, int]]
"""A new event id, and the time in milliseconds."""

_STATES = frozenset({"online", "offline", "ok", "unknown", "unhealthy"})
_ALIVE = frozenset({"online", "ok"})
_ECHO = 256
"""How much of an unreadable payload its error repeats, in bytes."""


Report = tuple[str, str | None, str | None]
"""One property from a mapper: its name, the reported value, the desired value it has observed."""


class TwinCore:
    """The devices of the node, and what may be asked of them."""

    def __init__(self, *, node: str, stamp: Stamp, devices: Iterable[Device] = ()) -> None:
        self._node = node
        self._stamp = stamp
        self._devices = {device.id: device for device in devices}

    def __len__(self) -> int:
        return len(self._devices)

    @property
    def devices(self) -> Mapping[str, Device]:
        """The devices by id."""
        return self._devices

    def restore(self, device_id: str, device: Device | None) -> None:
        """Put a device back to what is stored, after a save has failed."""
        if device is None:
            self._devices.pop(device_id, None)
        else:
            self._devices[device_id] = device

    def reset(self, devices: Iterable[Device]) -> None:
        """Put everything back to what is stored."""
        self._devices = {device.id: device for device in devices}

    # -- MQTT

    def mqtt(self, topic: str, payload: bytes) -> list[Effect]:
        """A client's message; what is not a request is ignored."""
        parsed = parse_topic(topic)
        if parsed is None:
            return []
        match parsed.request:
            case Request.TWIN_UPDATE | Request.CLOUD_UPDATED:
                return self._twin_request(parsed, payload)
            case Request.TWIN_GET:
                return [self._twin_get(parsed.subject, payload)]
            case Request.STATE_UPDATE:
                return self._state_request(parsed.subject, payload)
            case Request.MEMBERSHIP_GET:
                return [self._membership_get(payload)]

    def not_done(self, topic: str, payload: bytes, reason: str) -> list[Effect]:
        """The answer to a request that cannot be done for a reason of ours: a full disk, too many requests."""
        parsed = parse_topic(topic)
        results = {
            Request.TWIN_UPDATE: topics.TWIN_RESULT,
            Request.CLOUD_UPDATED: topics.TWIN_RESULT,
            Request.TWIN_GET: topics.TWIN_GET_RESULT,
            Request.STATE_UPDATE: topics.STATE_RESULT,
        }
        if parsed is None:
            return []
        try:
            event_id = payloads.read_event_id(payload)
        except Malformed:
            event_id = ""
        if parsed.request is Request.MEMBERSHIP_GET:
            where = node_topic(self._node, topics.MEMBERSHIP_RESULT)
        else:
            where = device_topic(parsed.subject, results[parsed.request])
        return [Publish(where, payloads.error(event_id, self._now(), INTERNAL, reason))]

    def _twin_request(self, topic: Topic, payload: bytes) -> list[Effect]:
        event_id = ""
        try:
            request = payloads.read_twin_request(payload)
            event_id = request.event_id
            device = self._device(topic.subject, "update rejected due to the device is not existed")
            if topic.request is Request.CLOUD_UPDATED:
                return self._synced(device, request.twin, event_id)
            now = self._now()
            return self._updated(device, update(device, request.twin, now), event_id, now)
        except Refusal as exc:
            where = device_topic("" if exc.unread else topic.subject, topics.TWIN_RESULT)
            return [Publish(where, payloads.error(event_id, self._now(), exc.code, exc.reason))]

    def _twin_get(self, device_id: str, payload: bytes) -> Publish:
        where = device_topic(device_id, topics.TWIN_GET_RESULT)
        now = self._now()
        try:
            event_id = payloads.read_event_id(payload)
        except Malformed as exc:
            shown = payload[:_ECHO].decode("utf-8", "replace")
            reason = f"Unmarshal twin info {shown} failed , err: {describe_error(payload, exc)}"
            return Publish(where, payloads.error("", now, BAD_REQUEST, reason))
        device = self._devices.get(device_id)
        if device is None:
            reason = f"Device {device_id} not found while getting twin"
            return Publish(where, payloads.error(event_id, now, NOT_FOUND, reason))
        return Publish(where, payloads.twins(event_id, now, device.shown()))

    def _state_request(self, device_id: str, payload: bytes) -> list[Effect]:
        where = device_topic(device_id, topics.STATE_RESULT)
        try:
            state = payloads.read_state(payload)
            return self._set_state(self._device(device_id, "the device does not exist"), state)
        except Malformed as exc:
            return [Publish(where, payloads.error("", self._now(), BAD_REQUEST, str(exc)))]
        except Refusal as exc:
            return [Publish(where, payloads.error("", self._now(), exc.code, exc.reason))]

    def _membership_get(self, payload: bytes) -> Publish:
        where = node_topic(self._node, topics.MEMBERSHIP_RESULT)
        now = self._now()
        try:
            event_id = payloads.read_event_id(payload)
        except Malformed as exc:
            shown = payload[:_ECHO].decode("utf-8", "replace")
            reason = f"Unmarshal get membership info {shown} failed , err: {describe_error(payload, exc)}"
            return Publish(where, payloads.error("", now, BAD_REQUEST, reason))
        return Publish(
            where, payloads.members(event_id, now, (device.entry() for device in self._devices.values()))
        )

    # -- mappers

    def report_twins(self, device_id: str, reports: Sequence[Report]) -> tuple[list[Effect], str]:
        """What a mapper has read; the second part says what could not be taken, the rest was.

        An observed desired value is news only where the Device object wants nothing: elsewhere the mapper repeats what
        it was told, and perhaps an older one than what is wanted by now.

        Raises:
            Refusal: the device is not here.
        """
        device = self._device(device_id, f"there is no device {device_id} on this node")
        changes: dict[str, Change | None] = {}
        problems: list[str] = []
        for name, reported, observed in reports:
            if problem := _report_problem(name, reported, observed):
                problems.append(problem)
                continue
            change = _reported_change(device.twins.get(name), reported, observed)
            if change.actual is not None or change.expected is not None:
                changes[name] = change
        now = self._now()
        try:
            outcome = update(device, changes, now)
        except Refusal:
            outcome = Outcome()
            for name in changes:  # one that cannot be taken does not keep the others away
                try:
                    _join(outcome, update(device, {name: changes[name]}, now))
                except Refusal as exc:
                    problems.append(f"{name}: {exc.reason}")
        effects = self._updated(device, outcome, "", now) if outcome.saved else []
        return effects, "; ".join(problems[:8])

    def report_state(self, device_id: str, state: str) -> list[Effect]:
        """The state a mapper has found its device in.

        Raises:
            Refusal: the device is not here, or there is no such state.
        """
        device = self._device(device_id, f"there is no device {device_id} on this node")
        if state.lower() not in _STATES:
            raise Refusal(BAD_REQUEST, f"a device is {', '.join(sorted(_STATES))}, not {state[:80]!r}")
        return self._set_state(device, state)

    # -- the cloud

    def membership(self, payload: bytes, *, detail: bool) -> list[Effect]:
        """Which devices belong to the node: what has changed, or (`detail`) all of them.

        Raises:
            Malformed: it does not say so.
        """
        message = payloads.read_membership(payload, detail=detail)
        effects: list[Effect] = []
        for entry in message.added:
            effects += self._member(entry)
        gone = message.removed
        if detail:
            listed = {entry.id for entry in message.added}
            gone = [DeviceEntry(d.id) for d in self._devices.values() if d.id not in listed]
        for entry in gone:
            device = self._devices.get(entry.id)
            # While the object is here its deletion decides, and that says of which device: a cloudcore that is behind
            # says again that the one before is gone, when the next one of its name is here already.
            if device is not None and not device.has_object:
                effects += self._leave(entry)
        return effects

    def cloud_updated(self, device_id: str, payload: bytes) -> list[Effect]:
        """Twins with versions from the cloud (no cloud of today sends them)."""
        return self._twin_request(Topic(Request.CLOUD_UPDATED, device_id), payload)

    def device_object(self, device_id: str, description: str, desired: Mapping[str, str]) -> list[Effect]:
        """The Device object is here: its device belongs to the node, its desired values are expected."""
        device = self._devices.get(device_id)
        entry = DeviceEntry(device_id, device_id.partition("/")[2], description)
        new = device is None
        if device is None:
            device = self._devices[device_id] = Device(device_id, entry.name, description)
        row = new or not device.has_object
        device.has_object = True
        now = self._now()
        usable = {key: value for key, value in desired.items() if key and len(value) <= values.MAX_TEXT}
        outcome = want(device, usable, now)
        effects: list[Effect] = []
        if row or outcome.saved:
            effects.append(Save(device, row, outcome.saved))
        if outcome.document:
            effects += self._changed(device, outcome, "", now)
        if new:
            effects.append(self._membership_updated(added=entry))
        return effects

    def object_gone(self, device_id: str) -> list[Effect]:
        """The Device object was deleted or is another node's: the device leaves, whatever membership was lost."""
        return self._leave(DeviceEntry(device_id))

    def object_ids(self) -> list[str]:
        """The devices whose objects were here."""
        return [device.id for device in self._devices.values() if device.has_object]

    def report(self, device_id: str, kind: Kind, names: Iterable[str]) -> ToCloud | None:
        """The report of how a device is now; `names` are the twins it is about."""
        device = self._devices.get(device_id)
        if device is None:
            return None
        event_id, now = self._stamp()
        if kind is Kind.STATE:
            content = payloads.encode_text(self._state_payload(device, event_id, now))
        else:
            twins = {name: device.twins[name].reported() for name in names if name in device.twins}
            content = payloads.twins(event_id, now, twins)
        return ToCloud("update", topics.report_resource(device_id, kind.value), content)

    def detail_request(self) -> ToCloud:
        """The question which devices the node has, asked at every new link."""
        event_id, now = self._stamp()
        content = payloads.encode_text(payloads.detail_request(event_id, now, self._node))
        return ToCloud("get", topics.MEMBERSHIP_DETAIL, content)

    # -- inside

    def _now(self) -> int:
        return self._stamp()[1]

    def _device(self, device_id: str, reason: str) -> Device:
        device = self._devices.get(device_id)
        if device is None:
            raise Refusal(NOT_FOUND, reason)
        return device

    def _updated(self, device: Device, outcome: Outcome, event_id: str, now: int) -> list[Effect]:
        """The effects of a local change, in the order in which clients hear of them."""
        where = device_topic(device.id, topics.TWIN_RESULT)
        effects: list[Effect] = [Save(device, twins=outcome.saved)] if outcome.saved else []
        effects.append(Publish(where, payloads.twins(event_id, now, outcome.result)))
        return effects + self._changed(device, outcome, event_id, now)

    def _synced(self, device: Device, changes: Mapping[str, Change | None], event_id: str) -> list[Effect]:
        if any(
            part is not None and part.value is None
            for change in changes.values()
            if change is not None and change.type != values.DELETED
            for part in (change.expected, change.actual)
        ):
            raise Refusal(BAD_REQUEST, "the value of the twin is missing")
        now = self._now()
        outcome = sync(device, changes, now)
        effects: list[Effect] = [Save(device, twins=outcome.saved)] if outcome.saved else []
        return effects + self._changed(device, outcome, event_id, now)

    def _changed(self, device: Device, outcome: Outcome, event_id: str, now: int) -> list[Effect]:
        effects: list[Effect] = []
        if outcome.document:
            where = device_topic(device.id, topics.TWIN_DOCUMENT)
            effects.append(Publish(where, payloads.document(event_id, now, outcome.document)))
        twins, wanted = device.delta()
        if wanted:
            fresh, moment = self._stamp()
            where = device_topic(device.id, topics.TWIN_DELTA)
            effects.append(Publish(where, payloads.delta(fresh, moment, twins, wanted)))
        if outcome.report:
            effects.append(Owe(device.id, Kind.TWINS, tuple(outcome.report)))
        return effects

    def _set_state(self, device: Device, state: str) -> list[Effect]:
        folded = state.lower()
        if folded not in _STATES:
            return []  # KubeEdge: without an answer
        event_id, now = self._stamp()
        device.state = state
        device.last_online = _rfc3339(now) if folded in _ALIVE else ""
        return [
            Save(device, row=True),
            Publish(device_topic(device.id, topics.STATE_RESULT), self._state_payload(device, event_id, now)),
            Owe(device.id, Kind.STATE),
        ]

    @staticmethod
    def _state_payload(device: Device, event_id: str, now: int) -> bytes:
        return payloads.state(
            event_id, now, name=device.name, state=device.state, last_online=device.last_online
        )

    def _member(self, entry: DeviceEntry) -> list[Effect]:
        device = self._devices.get(entry.id)
        new = device is None
        if device is None:
            device = Device(entry.id, entry.name, entry.description, entry.state)
            self._devices[entry.id] = device
        effects: list[Effect] = [Save(device, row=True)] if new else []
        if entry.twin is not None:
            effects += self._synced_entry(device, entry.twin)
        if entry.attributes is not None or not new:
            changed = set_attributes(device, entry.attributes or {})
            if changed:
                where = device_topic(device.id, topics.ATTRIBUTES_UPDATED)
                effects.append(Save(device, attributes=changed))
                effects.append(Publish(where, payloads.attributes(self._now(), changed)))
        if new:
            effects.append(self._membership_updated(added=entry))
        return effects

    def _synced_entry(self, device: Device, twins: Mapping[str, payloads.MsgTwin | None]) -> list[Effect]:
        usable = {
            key: change
            for key, change in changes_of(twins).items()
            if change is not None and values.is_key(key)
        }
        now = self._now()
        outcome = sync(device, usable, now)
        effects: list[Effect] = [Save(device, twins=outcome.saved)] if outcome.saved else []
        return effects + self._changed(device, outcome, "", now)

    def _leave(self, entry: DeviceEntry) -> list[Effect]:
        if self._devices.pop(entry.id, None) is None:
            return []
        return [Forget(entry.id), self._membership_updated(removed=entry)]

    def _membership_updated(
        self, *, added: DeviceEntry | None = None, removed: DeviceEntry | None = None
    ) -> Publish:
        event_id, now = self._stamp()
        return Publish(
            node_topic(self._node, topics.MEMBERSHIP_UPDATED),
            payloads.membership(
                event_id,
                now,
                added=None if added is None else [added],
                removed=None if removed is None else [removed],
            ),
        )


def _rfc3339(milliseconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(milliseconds // 1000, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _report_problem(name: str, reported: str | None, observed: str | None) -> str:
    if not name or len(name) > 253:
        return "a property has no usable name"
    if any(text is not None and len(text) > values.MAX_TEXT for text in (reported, observed)):
        return f"{name}: a value is longer than {values.MAX_TEXT} characters"
    return ""


def _reported_change(twin: Twin | None, reported: str | None, observed: str | None) -> Change:
    change = Change(actual=None if reported is None else Value(reported))
    wanted = twin.desired if twin is not None else None
    current = twin.expected.value if twin is not None and twin.expected is not None else None
    if observed and wanted is None and observed != current:
        change = replace(change, expected=Value(observed))
    return change


def _join(outcome: Outcome, other: Outcome) -> None:
    outcome.result.update(other.result)
    outcome.document.update(other.document)
    outcome.saved.update(other.saved)
    outcome.report.extend(other.report)
