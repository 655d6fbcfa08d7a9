"""Messages made of what the caches say."""

import json

import pytest
from wire_support import content, stamp

from edgehive.wire.desired import CachedObject, delete_message, object_message
from edgehive.wire.objectsync import SyncKey, SyncRecord


def record(kind: str, api_version: str = "v1") -> SyncRecord:
    return SyncRecord(SyncKey("edge-1", "default", "u1"), api_version, kind, "x", "5")


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("Pod", "edgecontroller"),
        ("ConfigMap", "edgecontroller"),
        ("Device", "devicecontroller"),
        ("DeviceModel", "devicecontroller"),
        ("ServiceAccountAccess", "policycontroller"),
    ],
)
def test_a_repair_comes_from_a_source_that_an_original_edge_acknowledges(kind: str, source: str) -> None:
    """Of an `update` it takes these, and dynamiccontroller; the original's own repairs carry one of them, too."""
    cached = CachedObject("v1", kind, "default", "x", "u1", "6", content("x", "u1", 6, kind), source=source)
    message = object_message(cached, first=False, stamp=stamp).message
    assert (message.source, message.operation, message.group) == (source, "update", "resource")
    assert delete_message(record(kind), stamp=stamp).message.source == source


def test_a_repair_has_kind_and_api_version() -> None:
    cached = CachedObject("v1", "Pod", "default", "x", "u1", "6", content("x", "u1", 6))
    body = json.loads(object_message(cached, first=False, stamp=stamp).message.content)
    assert (body["kind"], body["apiVersion"]) == ("Pod", "v1")


def test_a_collected_delete_has_kind_and_api_version() -> None:
    body = json.loads(
        delete_message(record("Device", "devices.kubeedge.io/v1beta1"), stamp=stamp).message.content
    )
    meta = {"name": "x", "namespace": "default", "uid": "u1"}
    assert body == {"kind": "Device", "apiVersion": "devices.kubeedge.io/v1beta1", "metadata": meta}


@pytest.mark.parametrize(
    ("kind", "operation"),
    [("Secret", "update"), ("Node", "update"), ("ConfigMap", "insert"), ("Pod", "insert")],
)
def test_the_first_time_is_an_insert_but_for_secrets_and_nodes(kind: str, operation: str) -> None:
    cached = CachedObject("v1", kind, "default", "x", "u1", "6", content("x", "u1", 6, kind))
    assert object_message(cached, first=True, stamp=stamp).message.operation == operation
