"""Sessions of the original, and our own, played against both of our ends."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import replay
from replay import Connection, play_cloud, play_edge, read_connections, round_trip, shape

from edgehive.wire.classify import requires_ack
from edgehive.wire.endpoint import Room, Subject, check_upgrade, upgrade_headers, upgrade_path
from edgehive.wire.message import decode_message
from edgehive.wire.outbound import Outbound
from edgehive.wire.session import Denied, EdgeFailure, Keepalive, Upstream

SOURCES = [*replay.WRITTEN, *sorted(replay.RECORDED.glob("ws.jsonl.gz"))]


@pytest.fixture(params=SOURCES, ids=lambda path: path.name.split(".")[0], scope="module")
def connections(request: pytest.FixtureRequest) -> list[Connection]:
    path: Path = request.param
    return read_connections(path)


def test_there_is_something_to_replay(connections: list[Connection]) -> None:
    assert sum(len(c.messages) for c in connections) >= 20


def test_every_message_survives_our_codec(connections: list[Connection]) -> None:
    for connection in connections:
        for _, message in connection.messages:
            assert round_trip(message) == message


def test_the_upgrade_request_is_ours(connections: list[Connection]) -> None:
    for connection in connections:
        headers = dict(connection.request["headers"])
        ours = upgrade_headers(headers["Project_id"], headers["Node_id"])
        assert ours.items() <= headers.items()
        _, path, _ = connection.request["line"].split(" ")
        assert path == upgrade_path(headers["Project_id"], headers["Node_id"])
        subject = dict(part.split("=", 1) for part in connection.client.split(","))
        hello = check_upgrade(
            path=path,
            headers={key.lower(): value for key, value in headers.items()},
            subject=Subject((subject["O"],), (subject["CN"],)),
            room=Room(0, 1),
        )
        assert hello.node == connection.node


def test_our_cloud_sends_every_message_unchanged_and_in_order(connections: list[Connection]) -> None:
    for connection in connections:
        side = play_edge(connection)
        assert by_object(side.sent) == by_object(connection.down())
        assert side.closed is None


def test_our_cloud_understands_everything_the_edge_says(connections: list[Connection]) -> None:
    for connection in connections:
        side = play_edge(connection)
        counted: Counter[str] = Counter()
        for event in side.events:
            assert not isinstance(event, Denied | EdgeFailure)
            if isinstance(event, Upstream):
                counted[f"{event.target} {event.message.operation}"] += 1
            elif isinstance(event, Keepalive):
                counted["keepalive"] += 1
        assert counted == expected_events(connection)


def expected_events(connection: Connection) -> Counter[str]:
    targets = {"metaserver": "dynamiccontroller", "twin": "devicecontroller"}
    counted: Counter[str] = Counter()
    for message in connection.up():
        route = message["route"]
        operation = route.get("operation", "")
        if operation == "keepalive":
            counted["keepalive"] += 1
        elif operation not in ("response", ""):
            counted[f"{targets.get(route['source'], 'edgecontroller')} {operation}"] += 1
    return counted


def test_an_ack_is_taken_for_exactly_what_needs_one(connections: list[Connection]) -> None:
    for connection in connections:
        side = play_edge(connection)
        answered = {m["header"]["parent_msg_id"] for m in connection.up() if operation(m) == "response"}
        kept = {m["header"]["msg_id"] for m in connection.down() if requires_ack(outbound(m).message)}
        assert side.delivered == kept & answered
        unanswered = kept - answered
        assert len(unanswered) <= 1, "the original had at most one message in flight when the link was cut"


def test_kept_messages_have_what_their_record_is_made_of(connections: list[Connection]) -> None:
    seen = 0
    for connection in connections:
        for message in map(outbound, connection.down()):
            if message.ack:
                seen += 1
                assert message.uid
                assert message.resource is not None
                assert message.is_delete or message.version > 0
                if not message.is_delete:
                    assert message.kind
                    assert message.api_version
    assert seen > 5


def test_our_edge_acknowledges_what_the_original_does_in_its_very_form(connections: list[Connection]) -> None:
    theirs = {}
    for connection in connections:
        for message in connection.up():
            if operation(message) == "response":
                theirs[message["header"]["parent_msg_id"]] = shape(message)
    side = play_cloud(connections)
    ours = {parent: shape(ack) for parent, ack in side.acks.items()}
    down = {m["header"]["msg_id"]: m for c in connections for m in c.down()}
    for parent in theirs.keys() | ours.keys():
        if parent in theirs:
            assert ours.get(parent) == theirs[parent], down[parent]
        else:
            assert is_last(connections, parent), f"acknowledged, though the original does not: {down[parent]}"


def is_last(connections: list[Connection], message_id: str) -> bool:
    """Whether the link went down before an acknowledgement could have been recorded."""
    return any(m["header"]["msg_id"] == message_id for c in connections for _, m in c.messages[-6:])


def test_our_edge_asks_with_the_frames_of_the_original(connections: list[Connection]) -> None:
    asked = {
        m["header"]["msg_id"]: m
        for c in connections
        for m in c.up()
        if operation(m) in ("query", "insert", "update", "patch", "delete", "null")
    }
    side = play_cloud(connections)
    sent = {m["header"]["msg_id"]: m for m in side.sent}
    assert {key: sent.get(key) for key in asked} == asked


def test_our_keepalive_is_that_of_the_original(connections: list[Connection]) -> None:
    (theirs,) = {str(shape(m)) for c in connections for m in c.up() if operation(m) == "keepalive"}
    side = play_cloud(connections[:1])
    ours = [str(shape(m)) for m in side.sent if operation(m) == "keepalive"]
    assert ours
    assert set(ours) == {theirs}


def test_no_error_becomes_a_row(connections: list[Connection]) -> None:
    side = play_cloud(connections)
    assert side.rows
    for row in side.rows.values():
        assert b"ErrStatus" not in row.value
        assert b'"metadata"' in row.value
    answers = [m for c in connections for m in c.down() if "ErrStatus" in str(m["content"])]
    assert bool(answers) == bool(side.errors)


def test_deleted_objects_leave_no_row(connections: list[Connection]) -> None:
    last: dict[str, str] = {}
    for connection in connections:
        for message in connection.down():
            if (
                operation(message) in ("insert", "update", "delete")
                and message["route"]["group"] == "resource"
            ):
                last[message["route"]["resource"]] = operation(message)
    side = play_cloud(connections)
    gone = {resource for resource, op in last.items() if op == "delete"}
    assert gone
    assert not gone & side.rows.keys()


def by_object(messages: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for message in messages:
        grouped.setdefault(message["route"]["resource"], []).append(message)
    return grouped


def operation(message: dict[str, Any]) -> str:
    return message["route"].get("operation", "")


def outbound(message: dict[str, Any]) -> Outbound:
    return Outbound(decode_message(replay.frame(message)))
