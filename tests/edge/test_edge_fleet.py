"""One simulated edge, without a socket."""

import itertools

import msgspec
import pytest

from edgehive.edge.fleet_node import REGISTER, STATUS, FleetNode, FleetStats, Samples
from edgehive.kit.errors import ProtocolError
from edgehive.wire.message import Message, decode_message, encode_message


@pytest.fixture
def stats() -> FleetStats:
    return FleetStats()


@pytest.fixture
def node(stats: FleetStats) -> FleetNode:
    ids = itertools.count()
    return FleetNode(
        name="n-1", stats=stats, stamp=lambda: (f"id-{next(ids)}", 1), wall=lambda: 1_800_000_000.0, tell=None
    )


def said(node: FleetNode) -> list[Message]:
    return [decode_message(frame) for frame in node.take()]


def pod(version: str, operation: str = "update") -> bytes:
    content = {"kind": "Pod", "metadata": {"name": "p", "namespace": "d", "uid": "u1"}}
    return encode_message(
        Message(
            f"m{version}",
            1,
            operation,
            "d/pod/p",
            msgspec.json.encode(content),
            resource_version=version,
            source="edgecontroller",
            group="resource",
        )
    )


def answer(request: Message, content: object) -> bytes:
    return encode_message(request.reply(new_id="x", timestamp=1, content=msgspec.json.encode(content)))


def test_it_shows_life_at_once(node: FleetNode) -> None:
    node.opened()
    (keepalive,) = said(node)
    assert (keepalive.operation, keepalive.resource, keepalive.content) == ("keepalive", "node", b'"ping"')


@pytest.mark.parametrize(("code", "registered"), [(0, True), (409, True), (403, False), (500, False)])
def test_registration_ends_as_the_cloud_says(
    node: FleetNode, stats: FleetStats, code: int, registered: bool
) -> None:
    node.register(10.0)
    (request,) = said(node)
    assert (request.operation, request.resource) == ("insert", "null/node/n-1")
    error = {"ErrStatus": {"code": code}} if code else None
    node.receive(answer(request, {"Object": None if code else {}, "Err": error}), 10.25)
    assert node.registered is registered
    assert stats.failures == (not registered)
    assert stats.latency[REGISTER].quantile(0.5) == 0.25


def test_objects_are_acknowledged_and_repeats_are_noticed(node: FleetNode, stats: FleetStats) -> None:
    node.receive(pod("7"), 1.0)
    node.receive(pod("7"), 1.0)
    first, second = said(node)
    assert (first.operation, first.parent_id, first.content) == ("response", "m7", b'"OK"')
    assert second.parent_id == "m7"
    assert (stats.acknowledged, stats.duplicates) == (2, 1)


def test_pods_are_reported_until_they_are_deleted(node: FleetNode) -> None:
    node.receive(pod("7"), 1.0)
    said(node)
    node.report_pods(2.0)
    (report,) = said(node)
    assert (report.operation, report.resource) == ("patch", "d/podpatch/p")
    patch = msgspec.json.decode(msgspec.json.decode(report.content))
    assert patch["metadata"]["uid"] == "u1"
    node.receive(pod("8", "delete"), 3.0)
    said(node)
    node.report_pods(4.0)
    assert said(node) == []


def test_two_status_reports_are_never_the_same(node: FleetNode) -> None:
    node.report_status(1.0)
    node.report_status(2.0)
    one, two = said(node)
    assert one.content != two.content
    assert node.outstanding == 2
    node.opened()
    assert node.outstanding == 0, "what was asked over the old link is not answered"


def test_a_refused_status_is_a_failure(node: FleetNode, stats: FleetStats) -> None:
    node.report_status(1.0)
    (request,) = said(node)
    node.receive(answer(request, {"Object": None, "Err": {"ErrStatus": {"code": 404}}}), 2.0)
    assert stats.failures == 1
    assert stats.latency[STATUS].count == 1


def test_garbage_is_a_protocol_error(node: FleetNode) -> None:
    with pytest.raises(ProtocolError):
        node.receive(b"\xff", 1.0)


def test_samples_stay_bounded_and_representative() -> None:
    samples = Samples(limit=100)
    for i in range(10_000):
        samples.add(i / 10_000)
    assert samples.count == 10_000
    assert samples.quantile(0.5) == pytest.approx(0.5, abs=0.03)
    assert Samples().quantile(0.99) == 0.0
