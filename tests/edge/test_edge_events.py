import json
from typing import Any

from edgehive.edge.events import EventReporter
from edgehive.wire.message import Message


class Sink:
    def __init__(self, **options: Any) -> None:
        self.now = 1_000_000.0
        self.sent: list[Message] = []
        self.room = True
        self.reporter = EventReporter(
            node="edge-1",
            send=self._send,
            stamp=lambda: (f"id-{len(self.sent)}", 1),
            wall=lambda: self.now,
            **options,
        )

    def _send(self, message: Message) -> bool:
        if self.room:
            self.sent.append(message)
        return self.room

    def report(self, text: str = "pulled", *, name: str = "web", reason: str = "Pulled") -> None:
        self.reporter.report(
            {
                "involvedObject": {"kind": "Pod", "namespace": "shop", "name": name, "uid": name},
                "reason": reason,
                "message": text,
                "type": "Normal",
            }
        )


def test_a_first_event_is_inserted_whole() -> None:
    sink = Sink()
    sink.report()
    (message,) = sink.sent
    event = json.loads(message.content)
    assert (message.operation, message.source, message.group) == ("insert", "edged", "meta")
    assert message.resource == f"shop/event/{event['metadata']['name']}"
    assert event["metadata"]["namespace"] == "shop"
    assert event["metadata"]["name"].startswith("web.")
    assert (event["count"], event["message"], event["type"]) == (1, "pulled", "Normal")
    assert event["firstTimestamp"] == event["lastTimestamp"] == "1970-01-12T13:46:40Z"
    assert event["source"] == {"component": "kubelet", "host": "edge-1"}


def test_the_same_again_is_a_patch_of_the_count() -> None:
    sink = Sink()
    sink.report()
    sink.now += 10
    sink.report()
    first, second = sink.sent
    assert (second.operation, second.resource) == ("patch", first.resource)
    content = json.loads(second.content)
    assert content["event"]["count"] == 2
    patch = json.loads(content["patchData"])
    assert patch == {"count": 2, "lastTimestamp": "1970-01-12T13:46:50Z", "message": "pulled"}


def test_names_differ_within_the_same_instant() -> None:
    sink = Sink()
    sink.report("a")
    sink.report("b")
    assert sink.sent[0].resource != sink.sent[1].resource


def test_a_flood_of_similar_events_is_combined() -> None:
    sink = Sink()
    for n in range(15):
        sink.report(f"back-off {n}")
    assert [m.operation for m in sink.sent] == ["insert"] * 11 + ["patch"] * 4
    combined = json.loads(sink.sent[-1].content)["event"]
    assert combined["message"] == "(combined from similar events): back-off 14"
    assert combined["count"] == 5


def test_an_object_uses_up_its_allowance_and_gets_it_back() -> None:
    sink = Sink()
    for _ in range(40):
        sink.report()
    assert len(sink.sent) == 25
    sink.report(name="other")
    assert len(sink.sent) == 26
    sink.now += 301
    sink.report()
    assert len(sink.sent) == 27


def test_all_objects_share_one_rate() -> None:
    sink = Sink(rate=1.0, burst=3.0)
    for n in range(10):
        sink.report(name=f"p{n}")
    assert len(sink.sent) == 3
    sink.now += 2
    for n in range(10):
        sink.report(name=f"q{n}")
    assert len(sink.sent) == 5


def test_an_event_that_found_no_room_is_not_counted_on() -> None:
    sink = Sink()
    sink.room = False
    sink.report()
    assert sink.reporter.dropped == 1
    sink.room = True
    sink.report()
    assert sink.sent[0].operation == "insert"


def test_switched_off_nothing_is_sent() -> None:
    sink = Sink(enabled=False)
    sink.report()
    assert sink.sent == []


def test_memory_is_bounded() -> None:
    sink = Sink(rate=1e9, burst=1e9)
    for n in range(2000):
        sink.report(name=f"p{n}")
    assert len(sink.reporter._sent) == 512
    assert len(sink.reporter._objects) == 512
    assert len(sink.reporter._similar) == 512


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    sink = Sink()
    sink.report("a")
    sink.now -= 86_400
    for _ in range(3):
        sink.report("b")
    assert len(sink.sent) == 4
