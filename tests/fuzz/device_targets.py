"""The device controller of the cloud: what an edge reports, and what is in Device and DeviceStatus objects."""

import json
from collections.abc import Callable, Sequence

import msgspec

from edgehive.cloud.devices_index import read_place
from edgehive.cloud.devices_status import DeviceState, parse_status, status_fields, summary
from edgehive.kit.errors import ProtocolError
from edgehive.kube.reflector import decode_cached
from edgehive.kube.validation_devices import desired_errors, model_warnings, validate_device, validate_model
from edgehive.wire.devices import parse_report
from edgehive.wire.message import MALFORMED, Message

_RESOURCES = ("device/default/d/twin/edge_updated", "device/default/d/state/update")


def report_target(data: bytes) -> None:
    """The first byte chooses the kind; what is read can be merged, stored and shown."""
    resource = _RESOURCES[data[0] % 2] if data else ""
    report = parse_report(Message("m", 1, "update", resource, data[1:], source="twin"))
    state = DeviceState()
    state.apply(report, frozenset({"t", "u"}))
    stored = msgspec.json.encode({"status": status_fields(state)})
    again, _, _ = parse_status(stored)
    assert status_fields(again) == status_fields(state)
    assert len(json.dumps(summary(state))) < 4_000


def object_target(data: bytes) -> None:
    """A Device, a DeviceModel or a DeviceStatus, whatever is in it."""
    parse_status(data)
    try:
        cached, decoded = decode_cached(data), msgspec.json.decode(data)
    except MALFORMED:
        return  # no API server sends this
    assert isinstance(read_place(cached).node, str)
    for check in (validate_device, validate_model):
        check(decoded)
    desired_errors(decoded, decoded)
    model_warnings(decoded, decoded)


def targets() -> dict[
    str, tuple[Callable[[bytes], object], tuple[type[BaseException], ...], Sequence[bytes]]
]:
    """Each with what it may raise and examples."""
    twin = (
        b'\0{"event_id":"e","timestamp":1,"twin":{"t":{"expected":{"value":"1","metadata":{"timestamp":1}},'
        b'"actual":{"value":"2"},"optional":true,"metadata":{"type":"int"},"actual_version":{"cloud":0,"edge":2}},'
        b'"u":null}}'
    )
    state = rb'X"{\"timestamp\":1,\"device\":{\"name\":\"d\",\"state\":\"online\",\"lastOnlineTime\":\"2026-01-01T00:00:00Z\"}}"'
    device = (
        b'{"metadata":{"name":"d","namespace":"default","uid":"u","generation":2,"resourceVersion":"7"},"spec":{'
        b'"nodeName":"n","deviceModelRef":{"name":"m"},"properties":[{"name":"t","type":"INT","minimum":"1",'
        b'"maximum":"5","desired":{"value":"3"},"pushMethod":{"mqtt":{"qos":1},"http":{"port":80}}}],"methods":[]},'
        b'"status":{"delivery":{"generation":2,"version":"5"},"twins":[{"propertyName":"t","reported":{"value":"1",'
        b'"metadata":{"timestamp":"1","version":"2"}}}]}}'
    )
    return {
        "device-report": (report_target, (ProtocolError,), [twin, b"\1" + state[1:], b"\1" + twin[1:]]),
        "device-object": (object_target, (ProtocolError,), [device, b"{}"]),
    }
