"""Reports to the cloud: complete, in order, one at a time; nothing is lost by cuts, restarts or a silent cloud."""

import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgehive.twin.core import TwinCore
from edgehive.twin.effects import Kind, Owe
from edgehive.twin.reports import Reports
from tests.twin.test_twin_core import make

D = "default/d1"


def up():
    reports = Reports(slots=2)
    reports.connection(True)
    return reports


def sent(reports, message_id):
    (due,) = reports.take()
    reports.sent(due, message_id)
    return due


def test_what_changes_on_the_way_is_gathered_for_the_next_report():
    reports = up()
    reports.owe(D, Kind.TWINS, ["a"])
    assert sent(reports, "1").names == {"a"}
    reports.owe(D, Kind.TWINS, ["b"])
    reports.owe(D, Kind.TWINS, ["c"])
    assert reports.take() == []
    reports.settled(D, Kind.TWINS, "1", heard=True)
    assert not reports.clean(D)
    assert sent(reports, "2").names == {"b", "c"}
    reports.settled(D, Kind.TWINS, "2", heard=True)
    assert reports.clean(D)


def test_nothing_is_composed_while_the_cloud_is_away():
    reports = up()
    reports.owe(D, Kind.TWINS, ["a"])
    sent(reports, "1")
    reports.connection(False)
    reports.owe(D, Kind.TWINS, ["b"])
    reports.owe("default/d2", Kind.STATE)
    assert reports.take() == []
    reports.connection(True)
    due = {(one.id, one.kind): one.names for one in reports.take()}
    assert due == {(D, Kind.TWINS): {"a", "b"}, ("default/d2", Kind.STATE): set()}


def test_the_answer_to_a_report_that_was_replaced_settles_nothing():
    reports = up()
    reports.owe(D, Kind.TWINS, ["a"])
    sent(reports, "1")
    reports.connection(False)
    reports.owe(D, Kind.TWINS, ["b"])
    reports.connection(True)
    sent(reports, "2")
    reports.settled(D, Kind.TWINS, "1", heard=True)
    assert not reports.clean(D)
    reports.settled(D, Kind.TWINS, "2", heard=True)
    assert reports.clean(D)


def test_slots_are_for_different_devices_and_freed_by_answers():
    reports = up()
    for n in range(5):
        reports.owe(f"default/d{n}", Kind.TWINS, ["a"])
    first = reports.take()
    assert [due.id for due in first] == ["default/d0", "default/d1"]
    for due in first:
        reports.sent(due, due.id)
    assert reports.take() == []
    reports.settled("default/d0", Kind.TWINS, "default/d0", heard=True)
    assert [due.id for due in reports.take()] == ["default/d2"]
    assert (len(reports), reports.unanswered) == (3, 1)


def test_a_device_the_cloud_does_not_know_waits_until_the_cloud_speaks_of_it_or_is_new():
    reports = up()
    for again in (lambda: reports.known(D), lambda: (reports.connection(False), reports.connection(True))):
        reports.owe(D, Kind.TWINS, ["a"])
        sent(reports, "1")
        reports.settled(D, Kind.TWINS, "1", heard=False)
        assert reports.muted == {D}
        reports.owe(D, Kind.TWINS, ["b"])
        assert reports.take() == []
        again()
        assert sent(reports, "2").names == {"a", "b"}, "what was not heard is told again"
        reports.settled(D, Kind.TWINS, "2", heard=True)


def test_a_report_that_could_not_be_kept_is_tried_again_when_asked_to():
    reports = up()
    reports.owe(D, Kind.STATE)
    (due,) = reports.take()
    reports.failed(due)
    assert (reports.take(), reports.has_failed) == ([], True)
    reports.retry()
    assert reports.take() == [due]


def test_a_device_that_leaves_is_forgotten():
    reports = up()
    reports.owe(D, Kind.TWINS, ["a"])
    sent(reports, "1")
    reports.owe(D, Kind.TWINS, ["a"])
    reports.forget(D)
    assert (reports.take(), reports.clean(D), len(reports), reports.unanswered) == ([], True, 0, 0)


class Link(RuleBasedStateMachine):
    """An outbox and a cloud that merges what it hears; any cut, restart and reordering of answers."""

    def __init__(self):
        super().__init__()
        self.core: TwinCore = make()
        self.reports = Reports()
        self.outbox = []  # (message id, content) in order
        self.flying = False
        self.cloud = {}
        self.number = 0
        self.connected = False
        self.owed = set()  # what the database would say

    def tell(self):
        for due in self.reports.take():
            self.number += 1
            report = self.core.report(due.id, due.kind, due.names)
            if self.outbox and not (self.flying and len(self.outbox) == 1):
                self.outbox.pop()
            self.outbox.append((str(self.number), report.content))
            self.reports.sent(due, str(self.number))

    @rule(
        name=st.sampled_from("abc"),
        value=st.sampled_from(["1", "2", "3"]),
        side=st.sampled_from(["actual", "expected"]),
    )
    def change(self, name, value, side):
        payload = json.dumps({"twin": {name: {side: {"value": value}}}}).encode()
        for effect in self.core.mqtt(f"$hw/events/device/{D}/twin/update", payload):
            if isinstance(effect, Owe):
                self.reports.owe(effect.id, effect.kind, effect.names)
                self.owed.add(effect.id)
        self.tell()

    @rule(up=st.booleans())
    def link(self, up):
        if not up:
            self.flying = False
        self.connected = up
        self.reports.connection(up)
        self.tell()

    @precondition(lambda self: self.connected and self.outbox and not self.flying)
    @rule(answer=st.booleans())
    def deliver(self, answer):
        message_id, content = self.outbox[0]
        self.flying = True
        for name, twin in json.loads(content)["twin"].items():
            old = self.cloud.get(name, {})
            for side in ("expected_version", "actual_version"):
                was, is_now = old.get(side, {"edge": 0})["edge"], twin.get(side, {"edge": 0})["edge"]
                assert was <= is_now, "an older value never overwrites a newer one"
            self.cloud[name] = twin
        if answer:
            self.outbox.pop(0)
            self.flying = False
            self.reports.settled(D, Kind.TWINS, message_id, heard=True)
            if self.reports.clean(D):
                self.owed.discard(D)
            self.tell()

    @rule()
    def restart(self):
        self.reports = Reports()
        self.flying = self.connected = False
        if D in self.owed:
            self.reports.owe(D, Kind.TWINS, self.core.devices[D].twins)

    @invariant()
    def the_outbox_is_bounded(self):
        assert len(self.outbox) <= 2

    def teardown(self):
        self.link(up=False)
        self.link(up=True)
        while self.outbox:
            self.deliver(answer=True)
        twins = self.core.devices[D].twins
        values = {n: (t.expected and t.expected.value, t.actual and t.actual.value) for n, t in twins.items()}
        heard = {
            n: (t.get("expected", {}).get("value"), t.get("actual", {}).get("value"))
            for n, t in self.cloud.items()
        }
        assert heard == values


TestLink = Link.TestCase
TestLink.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
