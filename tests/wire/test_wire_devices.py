"""Messages about devices: membership down, reports up."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.kit.errors import ProtocolError
from edgehive.wire.devices import (
    MAX_REPORT,
    Member,
    StateReport,
    TwinReport,
    TwinValue,
    membership_detail_message,
    membership_message,
    parse_report,
    report_answer,
    reporting_device,
)
from edgehive.wire.message import Message

TWIN = "device/default/sensor-1/twin/edge_updated"
STATE = "device/default/sensor-1/state/update"


def stamp() -> tuple[str, int]:
    return "id-1", 1786000000123


def message(resource: str, content: Any) -> Message:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Message("m", 1, "update", resource, data, source="twin", group="resource")


def test_membership_is_written_as_the_original_writes_it() -> None:
    made = membership_message(added=[Member("default", "sensor-1")], stamp=stamp)
    assert (made.message.resource, made.message.group, made.message.source) == (
        "membership",
        "twin",
        "devicecontroller",
    )
    assert made.message.content == (
        b'{"event_id":"id-1","timestamp":1786000000123,'
        b'"added_devices":[{"id":"default/sensor-1","name":"sensor-1"}],"removed_devices":null}'
    )
    assert not made.ack
    gone = json.loads(membership_message(removed=[Member("a", "b", "c")], stamp=stamp).message.content)
    assert gone["added_devices"] is None
    assert gone["removed_devices"] == [{"id": "a/b", "name": "b", "description": "c"}]


def test_all_devices_of_a_node_carry_an_empty_twin() -> None:
    made = membership_detail_message([Member("default", "s")], stamp=stamp)
    assert made.message.resource == "membership/detail"
    assert json.loads(made.message.content)["devices"] == [{"id": "default/s", "name": "s", "twin": {}}]
    assert json.loads(membership_detail_message([], stamp=stamp).message.content)["devices"] == []


def test_an_answer_names_the_report() -> None:
    made = report_answer("r-1", b'"OK"', stamp=stamp)
    assert (made.message.parent_id, made.message.resource, made.message.operation) == (
        "r-1",
        "twin",
        "response",
    )
    assert not made.ack


def test_a_twin_report_is_read() -> None:
    content = {
        "event_id": "e1",
        "timestamp": 1786000000123,
        "twin": {
            "temperature": {
                "expected": {"value": "25", "metadata": {"timestamp": 5}},
                "actual": {"value": "24"},
                "optional": True,
                "metadata": {"type": "int"},
                "expected_version": {"cloud": 0, "edge": 1},
                "actual_version": {"cloud": 0, "edge": 2},
            },
            "gone": None,
            "silent": {"actual": {"value": None}},
        },
    }
    for form in (content, json.dumps(content)):  # a text with JSON in it is as good
        report = parse_report(message(TWIN, form))
        assert isinstance(report, TwinReport)
        assert (report.namespace, report.name, report.timestamp) == ("default", "sensor-1", 1786000000123)
        assert report.twins["temperature"].desired == TwinValue("25", 5, 1, "int")
        assert report.twins["temperature"].reported == TwinValue("24", 0, 2, "int")
        for name in ("gone", "silent"):
            assert report.twins[name].reported is report.twins[name].desired is None


@pytest.mark.parametrize("key", ["device", "Device", "DEVICE"])
def test_a_state_report_is_read_in_any_letter_case(key: str) -> None:
    inner = {"name": "sensor-1", "state": "online", "lastOnlineTime": "2026-08-06T00:00:00Z"}
    content = json.dumps({"event_id": "e2", "timestamp": 7, key: inner})
    report = parse_report(message(STATE, content))
    assert report == StateReport("default", "sensor-1", 7, "online", "2026-08-06T00:00:00Z")


def test_the_device_is_found_by_the_whole_path() -> None:
    assert reporting_device("device/state/update/twin/edge_updated") == ("state", "update")
    for other in (
        "device/a/twin/edge_updated",
        "membership/detail",
        "device/a/b/twin/cloud_updated",
        "x/a/b/state/update",
    ):
        assert reporting_device(other) is None


@pytest.mark.parametrize(
    ("resource", "content"),
    [
        (TWIN, {"timestamp": 1}),
        (TWIN, []),
        (TWIN, {"twin": {"a": 1}}),
        (TWIN, {"twin": {}, "timestamp": 2**70}),
        (TWIN, {"twin": {"a": {"actual": {"value": "x" * 16385}}}}),
        (TWIN, b"{" * 200_000),
        (TWIN, b'"\xff"'),
        (TWIN, b"[" + b"0," * MAX_REPORT + b"0]"),
        (STATE, {"timestamp": 1}),
        (STATE, {"device": "online"}),
        (STATE, {"device": {"state": "x" * 200}}),
        (STATE, "plain text"),
        ("pods", {}),
    ],
)
def test_what_is_no_report_is_refused(resource: str, content: Any) -> None:
    with pytest.raises(ProtocolError):
        parse_report(message(resource, content))


@given(st.binary(max_size=200), st.sampled_from([TWIN, STATE]))
def test_any_bytes_are_a_report_or_an_error(data: bytes, resource: str) -> None:
    with contextlib.suppress(ProtocolError):
        parse_report(message(resource, data))
