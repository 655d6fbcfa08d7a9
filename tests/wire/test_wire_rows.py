"""What the edge stores, forwards and acknowledges."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_support import answer, content, down, gone, up

from edgehive.kit.errors import ProtocolError
from edgehive.wire.message import Message
from edgehive.wire.rows import (
    Forward,
    Plan,
    Put,
    Remove,
    Row,
    answer_error,
    answer_key,
    plan_answer,
    plan_incoming,
    store_failure,
)


def row(name: str = "nginx", uid: str = "u1", version: int = 5, kind: str = "Pod") -> Row:
    return Row(f"default/{kind.lower()}/{name}", kind.lower(), content(name, uid, version, kind))


def plan(message: object, stored: Row | None = None) -> Plan:
    assert hasattr(message, "message")
    return plan_incoming(message.message, stored)


@pytest.mark.parametrize(
    ("operation", "kind", "source", "forward"),
    [
        ("insert", "Pod", "edgecontroller", Forward.EDGED),
        ("update", "ConfigMap", "dynamiccontroller", Forward.EDGED),
        ("insert", "Node", "edgecontroller", Forward.EDGED),
        ("update", "Node", "edgecontroller", Forward.NOBODY),
        ("insert", "Device", "devicecontroller", Forward.TWIN),
        ("update", "DeviceModel", "devicecontroller", Forward.TWIN),
        ("update", "Device", "edgecontroller", Forward.TWIN),
        ("update", "ServiceAccountAccess", "policycontroller", Forward.NOBODY),
        ("update", "Pod", "somebody-new", Forward.EDGED),
    ],
)
def test_stored_then_acknowledged_then_forwarded(
    operation: str, kind: str, source: str, forward: Forward
) -> None:
    message = down("x", 7, operation=operation, kind=kind, source=source)
    decided = plan(message)
    assert decided.changes == (Put(Row(f"default/{kind.lower()}/x", kind.lower(), message.message.content)),)
    assert decided.forward is forward
    assert decided.ack is not None
    assert not decided.ignored


def test_the_ack_of_a_device_has_its_route_rewritten_but_not_of_an_update() -> None:
    for operation, route in (("insert", ("meta", "twin")), ("update", ("devicecontroller", "resource"))):
        decided = plan(down("d", 3, operation=operation, kind="Device", source="devicecontroller"))
        assert decided.ack is not None
        assert (decided.ack.source, decided.ack.group) == route
    decided = plan(down("d", 3, operation="delete", kind="Device", source="devicecontroller"))
    assert decided.ack is not None
    assert (decided.ack.source, decided.ack.group) == ("meta", "twin")


def test_an_older_version_is_acknowledged_and_not_stored() -> None:
    decided = plan(down(version=4), row(version=5))
    assert (decided.changes, decided.stale) == ((), True)
    assert decided.ack is not None
    assert decided.forward is Forward.NOBODY
    assert plan(down(version=5), row(version=5)).changes  # a resend is stored again: harmless
    assert plan(down(version=6), row(version=5)).changes


def test_an_older_incarnation_is_stale_a_newer_one_is_not() -> None:
    assert plan(down(uid="old", version=4), row(uid="new", version=5)).stale
    assert plan(down(uid="newer", version=6), row(uid="new", version=5)).changes


@pytest.mark.parametrize("version", ["", "abc", "0"])
def test_without_a_usable_version_it_is_stored(version: str) -> None:
    assert plan(down(version=version), row(version=5)).changes


def test_a_pod_is_removed_with_its_patch_row() -> None:
    decided = plan(gone(), row())
    assert decided.changes == (Remove("default/pod/nginx"), Remove("default/podpatch/nginx"))
    assert decided.forward is Forward.EDGED
    assert decided.ack is not None
    assert plan(gone(), None).changes == decided.changes  # idempotent


def test_a_delete_of_the_old_incarnation_keeps_the_new_row() -> None:
    decided = plan(gone(uid="old"), row(uid="new"))
    assert (decided.changes, decided.stale, decided.forward) == ((), True, Forward.EDGED)
    decided = plan(gone("cm", uid="old", kind="ConfigMap"), row("cm", "new", kind="ConfigMap"))
    assert (decided.changes, decided.stale, decided.forward) == ((), True, Forward.NOBODY)


def test_a_delete_without_uid_removes_the_row() -> None:
    assert plan(gone(uid=""), row()).changes


def test_a_string_holding_the_object_is_the_object() -> None:
    message = down(version=6).message
    wrapped = msgspec.structs.replace(message, content=json.dumps(message.content.decode()).encode())
    assert plan_incoming(wrapped, None).changes == plan_incoming(message, None).changes


def test_what_is_not_understood_is_said_and_not_acknowledged() -> None:
    for message in (up("dance", "default/pod/p", {}), up("insert", "k8s", {}), up("insert", "a/b/c/d", {})):
        decided = plan_incoming(message, None)
        assert decided.ignored
        assert decided.ack is None
        assert decided.changes == ()
    decided = plan_incoming(up("insert", "default/pod/p", ["list"]), None)
    assert decided.ignored
    assert decided.ack is not None  # or the cloud would send it for ever


QUERY = up("query", "default/configmap/cm")


def test_a_fetched_object_is_stored() -> None:
    message = answer(version=7).message
    decided = plan_answer(QUERY, message, None)
    assert decided.object == message.content
    assert decided.changes == (Put(Row("default/configmap/cm", "configmap", message.content)),)
    assert decided.ack
    assert plan_answer(QUERY, message, row("cm", "u1", 9, "ConfigMap")).changes == ()


NOT_FOUND = {
    "ErrStatus": {"metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404, "message": "gone"}
}


@pytest.mark.parametrize(
    "body", [NOT_FOUND, {"Object": None, "Err": NOT_FOUND}, {"Object": {"metadata": {}}, "Err": NOT_FOUND}]
)
def test_a_not_found_is_an_error_and_never_an_object(body: object) -> None:
    decided = plan_answer(QUERY, up("response", "default/configmap/cm", body), None)
    assert decided.error is not None
    assert (decided.error.code, decided.error.reason) == (404, "NotFound")
    assert decided.changes == ()
    assert answer_error(json.dumps(body).encode()) is not None


def test_an_error_that_says_nothing_is_an_error_too() -> None:
    """What KubeEdge's cloud makes of a plain error, and its edge of that: success."""
    decided = plan_answer(QUERY, up("response", "x/y/z", {"Object": None, "Err": {}}), None)
    assert decided.error is not None
    assert decided.error.code == 500
    decided = plan_answer(QUERY, up("response", "x/y/z", {"Object": None, "Err": None}), None)
    assert decided.error is not None


def test_a_patch_answer_updates_the_row_it_finds_and_brings_nothing_back() -> None:
    request = up("patch", "default/podpatch/nginx", "{}")
    assert answer_key(request) == "default/pod/nginx"
    body = {"Object": json.loads(content("nginx", "u1", 9)), "Err": None}
    message = up("response", "default/podpatch/nginx", body, parent_id=request.id)
    changed = plan_answer(request, message, row(version=5)).changes
    assert [c.row.key for c in changed if isinstance(c, Put)] == ["default/pod/nginx"]
    assert plan_answer(request, message, None).changes == ()
    assert plan_answer(request, message, row(uid="other", version=5)).changes == ()
    assert not plan_answer(request, message, None).ack


def test_ok_is_no_object() -> None:
    request = up("delete", "default/pod/nginx", {"gracePeriodSeconds": 0})
    decided = plan_answer(request, up("response", "default/pod/nginx", "OK"), row())
    assert (decided.object, decided.error, decided.changes, decided.ack) == (None, None, (), False)
    assert answer_error(b'"OK"') is None


def test_tokens_and_leases_are_not_rows() -> None:
    for resource in ("default/serviceaccounttoken/sa", "kube-node-lease/lease/e"):
        request = up("query", resource)
        assert plan_answer(request, up("response", resource, {"metadata": {"name": "x"}}), None).changes == ()


def test_keys_of_answers() -> None:
    assert answer_key(up("patch", "null/nodepatch/e1")) == "null/node/e1"
    assert answer_key(up("query", "k8s/ca.crt")) == "k8s/ca.crt"
    assert answer_key(QUERY) == "default/configmap/cm"


@pytest.mark.parametrize("body", ["text", 5, None, [1]])
def test_an_answer_that_is_neither_ok_nor_an_object(body: object) -> None:
    with pytest.raises(ProtocolError):
        plan_answer(QUERY, up("response", "default/configmap/cm", body), None)
    assert answer_error(json.dumps(body).encode()) is None


def test_an_unclaimed_answer_is_stored_since_the_cloud_takes_it_for_delivered() -> None:
    message = answer(version=7).message
    decided = plan_incoming(message, None)
    assert decided.ack == message
    assert decided.changes == (Put(Row("default/configmap/cm", "configmap", message.content)),)
    assert plan_incoming(message, row("cm", "u1", 9, "ConfigMap")).stale
    for other in (
        up("response", "default/configmap/cm", NOT_FOUND, parent_id="q"),
        up("response", "default/pod/p", "OK", parent_id="q"),
        up("response", "default/serviceaccounttoken/sa", {"status": {"token": "t"}}, parent_id="q"),
    ):
        assert plan_incoming(other, None) == Plan(ack=other)


def test_a_failed_write_is_reported_as_the_original_does() -> None:
    message = down().message
    report = store_failure(message, "insert or update meta failed, x", new_id="n", timestamp=3)
    assert report == Message(
        id="n",
        timestamp=3,
        operation="error",
        resource="default/pod/nginx",
        content=b'"insert or update meta failed, x"',
        parent_id=message.id,
        source="metamanager",
        group="resource",
    )


contents = st.binary(max_size=40) | st.sampled_from(
    [
        b"{}",
        b"null",
        b'{"metadata":5}',
        b'{"metadata":{"uid":7}}',
        b'"\\ud800"',
        b'"{}"',
        b"[" * 9999,
        b'"' + b"{" * 9999 + b'"',
    ]
)


@given(st.sampled_from(["insert", "update", "delete", "response"]), contents, contents)
def test_hostile_content_raises_protocol_errors_only(operation: str, body: bytes, held: bytes) -> None:
    message = Message(
        "i", 1, operation, "default/configmap/c", body, source="edgecontroller", group="resource"
    )
    for decide in (
        lambda: plan_incoming(message, Row("k", "configmap", held)),
        lambda: plan_answer(QUERY, message, None),
    ):
        try:
            decide()
        except ProtocolError:
            continue
