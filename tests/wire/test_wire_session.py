"""The cloud's end of a connection."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_support import down, gone, stamp, up

from edgehive.kit.errors import ProtocolError
from edgehive.wire.message import DELETE, Message, decode_message, encode_message
from edgehive.wire.outbound import Outbound
from edgehive.wire.pool import Delivered, Verdict
from edgehive.wire.session import (
    MAX_FRAME,
    CaRequest,
    Closed,
    Denied,
    EdgeFailure,
    Keepalive,
    NodeSession,
    SessionEvent,
    TaskReport,
    Upload,
    Upstream,
    VolumeReply,
)


def session(keepalive: float = 30.0) -> NodeSession:
    return NodeSession(node="edge-1", now=0.0, stamp=stamp, keepalive=keepalive)


def events_of(message: Message) -> list[SessionEvent]:
    one = session()
    one.receive_frame(encode_message(message), 1.0)
    return one.events()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (up("keepalive", "node", "ping", source="websocket", group="resource"), Keepalive),
        (up("response", "default/volume/pvc-1", {}, source="edged", parent_id="v"), VolumeReply),
        (up("error", "default/pod/p", "disk full", source="metamanager", parent_id="m"), EdgeFailure),
        (up("upload", "$hw/x", "data", source="bus", group="user"), Upload),
        (up("upgrade", "task/t1/node/edge-1", {}, source="websocket"), TaskReport),
        (
            up(
                "UpdateNodeActionStatus",
                "operations.kubeedge.io/v1alpha2/nodeupgradejob/j/node/edge-1",
                {},
                source="websocket",
                group="hub",
            ),
            TaskReport,
        ),
        (up("query", "k8s/ca.crt", source="metamanager"), CaRequest),
        (up("query", "default/configmap/c"), Upstream),
        (up("get", "membership/detail", "{}", source="twin", group="resource"), Upstream),
    ],
)
def test_upstream_table(message: Message, expected: type) -> None:
    (event,) = events_of(message)
    assert isinstance(event, expected)


@pytest.mark.parametrize(
    ("source", "target"),
    [("edged", "edgecontroller"), ("metaserver", "dynamiccontroller"), ("twin", "devicecontroller")],
)
def test_the_source_says_which_controller_is_meant(source: str, target: str) -> None:
    (event,) = events_of(up("null", "null", {}, source=source))
    assert isinstance(event, Upstream)
    assert event.target == target


@pytest.mark.parametrize(
    "source", ["cloudhub", "edgecontroller", "devicecontroller", "synccontroller", "cloudStream"]
)
def test_what_claims_to_come_from_the_cloud_is_ignored(source: str) -> None:
    assert events_of(up("insert", "default/pod/p", {}, source=source)) == []


def test_the_wholly_empty_message_of_a_dying_link_is_ignored() -> None:
    assert events_of(Message("", 0, "", "")) == []


@pytest.mark.parametrize(
    "message",
    [
        up("patch", "null/nodepatch/edge-2", "{}"),
        up("insert", "null/node/edge-2", {}),
        up("update", "null/nodestatus/edge-2", {}),
        up("update", "kube-node-lease/lease/edge-2", {}),
        up("upgrade", "task/t1/node/edge-2", {}, source="websocket"),
    ],
)
def test_an_edge_speaks_for_itself_only(message: Message) -> None:
    (event,) = events_of(message)
    assert isinstance(event, Denied)
    assert "another" in event.reason


def test_its_own_node_and_lease_are_fine() -> None:
    for resource in ("null/nodepatch/edge-1", "kube-node-lease/lease/edge-1", "default/lease/leader"):
        (event,) = events_of(up("update", resource, {}))
        assert isinstance(event, Upstream)


def test_an_ack_counts_whatever_its_content() -> None:
    one = session()
    message = down()
    assert one.send(message, 0.0) is Verdict.QUEUED
    assert one.data_to_send(0.0) == [message.frame]
    ack = message.message.reply(new_id="x", timestamp=1, content=b'{"not":"OK"}')
    one.receive_frame(encode_message(ack), 0.5)
    one.receive_frame(encode_message(ack), 0.6)  # a second copy
    one.receive_frame(encode_message(up("response", "x/y/z", "OK", parent_id="unknown")), 0.7)
    assert one.events() == [Delivered(message, 0.5)]


@pytest.mark.parametrize("operation", ["ping", "pong", "config"])
def test_transport_operations_are_answered_at_once(operation: str) -> None:
    one = session()
    one.receive_frame(
        encode_message(
            up(
                operation,
                "node",
                source="websocket",
                group="resource",
            )
        ),
        1.0,
    )
    (frame,) = one.data_to_send(1.0)
    answer = decode_message(frame)
    assert (answer.operation, answer.content, answer.source) == ("response", b'"ack"', "websocket")
    assert one.events() == []


def test_a_peer_that_asks_without_reading_costs_a_bounded_amount() -> None:
    one = session()
    for _ in range(1000):
        one.receive_frame(encode_message(up("ping", "node")), 1.0)
    assert len(one.data_to_send(1.0)) <= 64


def test_any_valid_message_keeps_the_session_alive() -> None:
    one = session()
    assert one.deadline() == 30.0
    one.receive_frame(encode_message(up("query", "default/configmap/c")), 20.0)
    one.handle_timer(49.9)
    assert one.closed is None
    one.handle_timer(50.0)
    assert one.closed is not None
    assert isinstance(one.events()[-1], Closed)
    assert one.deadline() is None
    assert one.data_to_send(50.0) == []


def test_nonsense_is_a_protocol_error_and_does_not_keep_it_alive() -> None:
    one = session()
    for data in (b"", b"nonsense", b"[1]", b"x" * (MAX_FRAME + 1)):
        with pytest.raises(ProtocolError):
            one.receive_frame(data, 20.0)
    assert one.deadline() == 30.0


def test_the_delete_of_the_node_ends_the_session_unsent() -> None:
    one = session()
    message = Outbound(
        Message("i", 1, DELETE, "null/node/edge-1", b"{}", source="edgecontroller", group="resource")
    )
    one.send(message, 0.0)
    assert one.events() == [Closed("the Node object was deleted")]
    assert one.data_to_send(0.0) == []


def test_close_is_final_and_told_once() -> None:
    one = session()
    one.send(down(), 0.0)
    one.close("first")
    one.close("second")
    one.receive_frame(b"nonsense", 1.0)
    one.handle_timer(100.0)
    assert one.send(down("b"), 1.0) is Verdict.STALE
    assert one.events() == [Closed("first")]
    assert one.closed == "first"


def test_the_kubernetes_ca_is_answered_as_the_original_does() -> None:
    one = session()
    request = up("query", "k8s/ca.crt", source="metamanager", group="meta")
    one.send_answer_ca(request, "-----BEGIN", 0.0)
    (frame,) = one.data_to_send(0.0)
    assert json.loads(frame)["route"] == {
        "source": "cloudhub",
        "group": "resource",
        "operation": "response",
        "resource": "k8s/ca.crt",
    }
    assert decode_message(frame).parent_id == request.id
    assert decode_message(frame).content == b'"-----BEGIN"'


def test_data_is_handed_out_in_bounded_pieces() -> None:
    one = session()
    for i in range(20):
        one.send(down(f"o{i}"), 0.0)
    assert [len(one.data_to_send(0.0, 8)) for _ in range(3)] == [8, 8, 4]


def test_one_message_for_many_nodes_is_encoded_once() -> None:
    message = down()
    sessions = [NodeSession(node=f"e{i}", now=0.0, stamp=stamp) for i in range(3)]
    frames = []
    for one in sessions:
        one.send(message, 0.0)
        frames += one.data_to_send(0.0)
    assert len({id(frame) for frame in frames}) == 1


@given(st.lists(st.binary(max_size=60) | st.sampled_from([down().frame, gone().frame]), max_size=8))
def test_hostile_frames_raise_protocol_errors_only(frames: list[bytes]) -> None:
    one = session()
    for frame in frames:
        try:
            one.receive_frame(frame, 1.0)
        except ProtocolError:
            continue
    one.events()
    one.data_to_send(1.0)
