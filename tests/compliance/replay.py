"""Recorded sessions between an edge and a cloud, and what our cores make of them.

Two sources, one format (a JSON object a line): the sessions of the Go original, recorded by a proxy, when the
folder with them is there (``$EDGEHIVE_VECTORS``, else ``shared/vectors`` beside the checkout); and the small ones under ``vectors/``, written by hand.
Ids, times and versions differ from run to run; everything else is compared.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgehive.wire import rows
from edgehive.wire.edgelink import Answered, EdgeLink, Incoming, LinkOptions
from edgehive.wire.message import Message, decode_message, encode_message
from edgehive.wire.outbound import Outbound
from edgehive.wire.outbox import Entry, Outbox
from edgehive.wire.rows import Put, Row
from edgehive.wire.session import NodeSession, SessionEvent

HERE = Path(__file__).parent
WRITTEN = sorted((HERE / "vectors").glob("*.jsonl"))
RECORDED = Path(os.environ.get("EDGEHIVE_VECTORS") or HERE.parents[1].parent / "shared" / "vectors")

_ids = itertools.count(1)


def stamp() -> tuple[str, int]:
    return f"ours-{next(_ids)}", 0


@dataclass(slots=True)
class Connection:
    """One WebSocket connection: its upgrade request, who connected, and its messages in order."""

    request: dict[str, Any] = field(default_factory=dict)
    client: str = ""
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """("up" or "down", the message)"""

    @property
    def node(self) -> str:
        return dict(self.request["headers"])["Node_id"]

    def down(self) -> list[dict[str, Any]]:
        return [message for way, message in self.messages if way == "down"]

    def up(self) -> list[dict[str, Any]]:
        return [message for way, message in self.messages if way == "up"]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    for line in text.split("\n"):
        if line.strip():
            yield json.loads(line)


def read_connections(path: Path) -> list[Connection]:
    """The connections of a recording that got as far as the 101."""
    found: dict[int, Connection] = {}
    for line in read_lines(path):
        connection = found.setdefault(line["conn"], Connection())
        match line["kind"]:
            case "open":
                connection.client = line.get("client_cert") or ""
            case "http" if line["dir"] == "edge>cloud":
                connection.request = line
            case "ws":
                connection.messages.append(("up" if line["dir"] == "edge>cloud" else "down", line["json"]))
    return [connection for connection in found.values() if connection.messages]


def frame(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def shape(message: dict[str, Any]) -> dict[str, Any]:
    """A message without what differs from run to run."""
    route = message["route"]
    return {"route": route, "content": message["content"]}


# Our cloud against the recorded edge


@dataclass(slots=True)
class CloudSide:
    """What a NodeSession did with a recorded connection."""

    sent: list[dict[str, Any]] = field(default_factory=list)
    events: list[SessionEvent] = field(default_factory=list)
    delivered: set[str] = field(default_factory=set)
    closed: str | None = None


def play_edge(connection: Connection) -> CloudSide:
    """Play the recorded edge against a NodeSession that has the recorded cloud's messages to send."""
    side, now = CloudSide(), 0.0
    session = NodeSession(node=connection.node, now=now, stamp=stamp)
    for way, message in connection.messages:
        now += 0.01
        if way == "down":
            session.send(Outbound(decode_message(frame(message))), now)
        else:
            session.receive_frame(frame(message), now)
        for event in session.events():
            side.events.append(event)
            if type(event).__name__ == "Delivered":
                side.delivered.add(event.message.message.id)  # type: ignore[union-attr]
        side.sent += [json.loads(data) for data in session.data_to_send(now)]
    side.closed = session.closed
    return side


# Our edge against the recorded cloud


class _Memory:
    def __init__(self) -> None:
        self.rows: dict[int, Entry] = {}

    def load(self) -> list[Entry]:
        return []

    def save(self, entry: Entry, replaces: int | None) -> None:
        self.rows[entry.sequence] = entry

    def drop(self, sequence: int) -> None:
        self.rows.pop(sequence, None)


@dataclass(slots=True)
class EdgeSide:
    """What EdgeLink and the row rules did with a recorded connection."""

    sent: list[dict[str, Any]] = field(default_factory=list)
    acks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """message id -> our acknowledgement"""
    rows: dict[str, Row] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    """request resource -> code"""


def play_cloud(connections: list[Connection]) -> EdgeSide:
    """Play the recorded cloud against our edge, which asks what the recorded edge asked."""
    side = EdgeSide()
    for connection in connections:
        _play_cloud(connection, side)
    return side


def _play_cloud(connection: Connection, side: EdgeSide) -> None:
    link = EdgeLink(
        now=0.0,
        stamp=stamp,
        rng=lambda: 0.5,
        outbox=Outbox(store=_Memory()),
        options=LinkOptions(rate=0.0),
    )
    link.handle_timer(0.0)
    link.receive_connected(0.0)
    asked: dict[str, Message] = {}
    now = 0.0
    for way, recorded in connection.messages:
        now += 0.01
        message = decode_message(frame(recorded))
        if way == "up":
            if message.operation in ("query", "insert", "update", "patch", "delete", "null"):
                asked[message.id] = message
                link.send_request(message, now, timeout=1e6)
        else:
            link.receive_frame(frame(recorded), now)
        for event in link.events():
            if isinstance(event, Answered):
                _answered(side, link, asked[event.request_id], event.message, now)
            elif isinstance(event, Incoming) and event.message.group == "resource":
                plan = rows.plan_incoming(event.message, side.rows.get(event.message.resource))
                _apply(side, plan.changes)
                if plan.ack is not None:
                    link.send_ack(plan.ack, now)
        for data in link.data_to_send(now):
            ours = json.loads(data)
            side.sent.append(ours)
            if ours["route"]["operation"] == "response":
                side.acks[ours["header"]["parent_msg_id"]] = ours


def _answered(side: EdgeSide, link: EdgeLink, request: Message, answer: Message, now: float) -> None:
    if request.group != "meta":
        return  # devicetwin and the MetaServer take their answers themselves and acknowledge none
    decided = rows.plan_answer(request, answer, side.rows.get(rows.answer_key(request)))
    _apply(side, decided.changes)
    if decided.error is not None:
        side.errors[request.resource] = decided.error.code
    if decided.ack:
        link.send_ack(answer, now)


def _apply(side: EdgeSide, changes: tuple[rows.Put | rows.Remove, ...]) -> None:
    for change in changes:
        if isinstance(change, Put):
            side.rows[change.row.key] = change.row
        else:
            side.rows.pop(change.key, None)


def round_trip(message: dict[str, Any]) -> dict[str, Any]:
    return json.loads(encode_message(decode_message(frame(message))))
