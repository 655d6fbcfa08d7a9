"""The rules of twins: versions, deletion, what is refused, and that one bad request harms nobody else."""

import contextlib
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.twin import device as rules
from edgehive.twin.core import TwinCore
from edgehive.twin.device import MAX_TWINS, Device, Twin
from edgehive.twin.effects import Forget, Kind, Owe, Publish, Save
from edgehive.twin.gojson import MAX_PAYLOAD, Malformed
from edgehive.twin.payloads import Change, Refusal, TypeMeta, Value, ValueMeta, Version


class Clock:
    def __init__(self):
        self.count = itertools.count(1)

    def __call__(self):
        number = next(self.count)
        return f"u{number}", number


def make(*ids, node="n"):
    core = TwinCore(node=node, stamp=Clock())
    for one in ids or ("default/d1",):
        core.membership(
            json.dumps({"added_devices": [{"id": one, "name": one.split("/")[1]}]}).encode(), detail=False
        )
    return core


def send(core, payload, device="default/d1", what="twin/update"):
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    effects = core.mqtt(f"$hw/events/device/{device}/{what}", data)
    return effects, {
        e.topic.rpartition("/")[2]: json.loads(e.payload) for e in effects if isinstance(e, Publish)
    }


def topics_of(effects):
    return [e.topic for e in effects if isinstance(e, Publish)]


# -- what stops the original


@pytest.mark.parametrize("side", ["actual", "expected"])
def test_r1_a_value_that_is_missing_is_refused_and_harms_nobody(side):
    core = make("default/d1", "default/d2")
    send(core, {"event_id": "a", "twin": {"temp": {"actual": {"value": "1"}}}})
    before = core.devices["default/d1"].shown()
    for twin in ("temp", "new"):
        effects, got = send(core, {"event_id": "r1", "twin": {twin: {side: {}}}})
        assert topics_of(effects) == ["$hw/events/device/default/d1/twin/update/result"]
        assert (got["result"]["event_id"], got["result"]["code"]) == ("r1", 400)
        assert "missing" in got["result"]["reason"]
    assert core.devices["default/d1"].shown() == before
    for device in ("default/d1", "default/d2"):
        assert send(core, {"event_id": "b", "twin": {"temp": {"actual": {"value": "2"}}}}, device)[1][
            "result"
        ]["twin"]


def test_r2_a_mapper_may_leave_out_either_side():
    core = make()
    core.report_twins("default/d1", [("temp", "20", None)])
    core.report_twins("default/d1", [("target", None, "25")])
    twins = core.devices["default/d1"].twins
    assert (twins["temp"].actual.value, twins["temp"].expected) == ("20", None)
    assert (twins["target"].actual, twins["target"].expected.value) == (None, "25")
    assert core.report_twins("default/d1", [("temp", None, None)]) == ([], "")


@pytest.mark.parametrize(
    "namespace", ["dev", "device", "hw", "event", "events", "e", "node", "twin", "update"]
)
def test_r3_namespaces_that_occur_in_the_topic_work(namespace):
    core = make(f"{namespace}/d1", node=namespace)
    _, got = send(core, {"event_id": "r3", "twin": {"t": {"actual": {"value": "1"}}}}, f"{namespace}/d1")
    assert got["result"]["twin"]["t"]["actual"]["value"] == "1"
    _, got = send(core, {"event_id": "r3"}, f"{namespace}/d1", "twin/get")
    assert got["result"]["twin"]
    effects, got = send(core, {"event_id": "r3", "state": "ok"}, f"{namespace}/d1", "state/update")
    assert got["result"]["device"]["state"] == "ok"
    (answer,) = core.mqtt(f"$hw/events/node/{namespace}/membership/get", b"{}")
    assert json.loads(answer.payload)["devices"][0]["id"] == f"{namespace}/d1"


def test_r5_cloud_updated_without_metadata_is_done():
    core = make()
    send(core, {"event_id": "a", "twin": {"temp": {"expected": {"value": "1"}, "metadata": {"type": "int"}}}})
    sync = {
        "event_id": "r5",
        "twin": {"temp": {"expected": {"value": "2"}, "expected_version": {"cloud": 1, "edge": 1}}},
    }
    _, got = send(core, sync, what="twin/cloud_updated")
    assert got["document"]["twin"]["temp"]["current"]["expected"]["value"] == "2"
    assert core.devices["default/d1"].twins["temp"].metadata.type == "int"
    sync["twin"]["fresh"] = sync["twin"].pop("temp")
    _, got = send(core, sync, what="twin/cloud_updated")
    assert got["document"]["twin"]["fresh"]["current"]["metadata"] == {"type": "string"}
    effects, got = send(core, {"twin": {"temp": {"expected": {}}}}, what="twin/cloud_updated")
    assert (got["result"]["code"], len(effects)) == (400, 1)


# -- one request


def test_what_could_not_be_stored_is_put_back():
    core = make()
    core.device_object("default/d1", "", {})
    assert core.object_ids() == ["default/d1"]
    before = core.devices["default/d1"]
    core.object_gone("default/d1")
    core.restore("default/d1", before)
    assert (len(core), core.object_gone("default/other")) == (1, [])
    core.restore("default/d1", None)
    assert len(core) == 0


def test_what_is_no_request_is_ignored():
    assert make().mqtt("$hw/events/device/default/d1/twin/update/result", b"{}") == []


def test_keys_match_in_any_letter_case():
    core = make()
    _, got = send(
        core, {"Event_ID": "e", "TWIN": {"T": {"Actual": {"VALUE": "1"}, "MetaData": {"Type": "int"}}}}
    )
    assert got["result"]["event_id"] == "e"
    assert got["result"]["twin"]["T"]["metadata"] == {"type": "int"}
    _, got = send(core, {"event_id": "", "timestamp": 1, "State": "online"}, what="state/update")
    assert got["result"]["device"]["state"] == "online"


def test_html_is_escaped_as_go_does():
    core = make()
    effects = core.mqtt("$hw/events/device/default/d1/twin/get", '{"event_id":"<a>&\u2028"}'.encode())
    assert b'"event_id":"\\u003ca\\u003e\\u0026\\u2028"' in effects[0].payload


def test_an_equal_value_counts_as_a_change():
    core = make()
    update = {"event_id": "e", "twin": {"t": {"actual": {"value": "1"}}}}
    send(core, update)
    effects, _ = send(core, update)
    assert [t.rpartition("/")[2] for t in topics_of(effects)] == ["result", "document"]
    assert Owe("default/d1", Kind.TWINS, ("t",)) in effects
    assert core.devices["default/d1"].twins["t"].actual_version == Version(0, 2)


def test_optional_goes_one_way_and_keeps_a_twin_from_being_deleted():
    core = make()
    send(core, {"twin": {"t": {"actual": {"value": "1"}}}})
    send(core, {"twin": {"t": {"optional": False}}})
    send(core, {"twin": {"t": {"optional": True}}})
    assert core.devices["default/d1"].twins["t"].optional is False
    effects, got = send(core, {"event_id": "e", "twin": {"t": None, "unknown": None}})
    assert (got["result"]["twin"], len(effects)) == ({}, 1)
    assert not core.devices["default/d1"].twins["t"].deleted


def test_a_type_is_kept_until_the_twin_is_deleted():
    core = make()
    send(core, {"twin": {"t": {"actual": {"value": "1"}, "metadata": {"type": "int"}}}})
    send(core, {"twin": {"t": {"actual": {"value": "2"}, "metadata": {"type": "string"}}}})
    assert core.devices["default/d1"].twins["t"].metadata.type == "int"
    send(core, {"twin": {"t": None}})
    _, got = send(core, {"twin": {"t": {"actual": {"value": "x"}}}})
    assert got["result"]["twin"]["t"]["metadata"] == {"type": "string"}
    assert got["document"]["twin"]["t"]["last"] is None


@pytest.mark.parametrize(
    ("twin", "reason"),
    [
        ({"actual": {"value": "1"}, "metadata": {"type": "double"}}, "the value type is not allowed"),
        ({"expected": {"value": "1.5"}, "metadata": {"type": "int"}}, "the value is not int or integer"),
        (
            {"expected": {"value": "yes"}, "metadata": {"type": "boolean"}},
            "the bool value must be true or false",
        ),
    ],
)
def test_a_request_with_one_bad_value_does_nothing(twin, reason):
    core = make()
    _, got = send(core, {"event_id": "e", "twin": {"good": {"actual": {"value": "1"}}, "bad": twin}})
    assert (got["result"]["code"], got["result"]["reason"]) == (400, reason)
    assert not core.devices["default/d1"].twins


def test_a_device_has_a_limit_of_twins():
    core = make()
    for start in range(0, MAX_TWINS, 500):
        send(core, {"twin": {f"t{n}": {"actual": {"value": "1"}} for n in range(start, start + 500)}})
    _, got = send(core, {"event_id": "e", "twin": {"more": {"actual": {"value": "1"}}}})
    assert got["result"]["code"] == 400
    assert "t0" in send(core, {"twin": {"t0": {"actual": {"value": "2"}}}})[1]["result"]["twin"]


def test_unknown_devices_are_told_so():
    core = make()
    _, got = send(core, {"state": "ok"}, "default/nope", "state/update")
    assert (got["result"]["code"], got["result"]["reason"]) == (404, "the device does not exist")
    assert core.report("default/nope", Kind.TWINS, ["t"]) is None
    assert core.cloud_updated("default/nope", b'{"twin":{}}')[0].topic.endswith("twin/update/result")


@pytest.mark.parametrize(
    "payload",
    [
        {"twin": {"t": {"optional": 1}}},
        {"twin": {"t": {"expected": {"value": "1", "metadata": {"timestamp": 1.5}}}}},
        {"twin": {"t": {"expected": {"value": 1}}}},
        {"twin": {"t": {"metadata": {"type": 1}}}},
        {"twin": {"t": {"actual_version": {"cloud": "1"}}}},
        {"twin": {"t": {"actual_version": {"cloud": 0, "edge": 2**62 + 1}}}},
        {"twin": []},
        {"timestamp": "1", "twin": {}},
    ],
)
def test_wrong_types_are_refused_as_a_whole(payload):
    effects, got = send(make(), payload)
    assert topics_of(effects) == ["$hw/events/device//twin/update/result"]
    assert got["result"]["reason"] == "Unmarshal update request body failed, please check the request"


@pytest.mark.parametrize(
    ("topic", "result"),
    [
        ("$hw/events/device/default/d1/twin/update", "$hw/events/device/default/d1/twin/update/result"),
        ("$hw/events/device/default/d1/twin/get", "$hw/events/device/default/d1/twin/get/result"),
        ("$hw/events/device/default/d1/state/update", "$hw/events/device/default/d1/state/update/result"),
        ("$hw/events/node/n/membership/get", "$hw/events/node/n/membership/get/result"),
    ],
)
def test_what_cannot_be_done_now_is_answered_where_the_sender_waits(topic, result):
    core = make()
    (answer,) = core.not_done(topic, b'{"event_id":"e"}', "busy")
    assert answer.topic == result
    assert json.loads(answer.payload) | {"timestamp": 0} == {
        "event_id": "e",
        "timestamp": 0,
        "code": 500,
        "reason": "busy",
    }
    assert json.loads(core.not_done(topic, b"nonsense", "busy")[0].payload)["event_id"] == ""
    assert core.not_done("other", b"{}", "busy") == []


def test_a_refused_request_makes_empty_values_go_as_a_restart_does():
    """The original reads the device anew; clients see the difference between an empty value and none."""
    core = make()
    send(core, {"twin": {"t": {"actual": {"value": "1"}, "metadata": {"type": "int"}}}})
    send(core, {"twin": {"t": None}})
    send(core, {"twin": {"t": {"expected": {"value": "2"}, "metadata": {"type": "int"}}}})
    assert core.devices["default/d1"].twins["t"].actual == Value()
    send(core, {"twin": {"t": {"expected": {"value": "x"}}}})
    assert core.devices["default/d1"].twins["t"].actual is None


# -- mappers


def test_a_mapper_report_is_published_like_a_clients():
    core = make()
    effects, problem = core.report_twins("default/d1", [("temp", "two words, ünïcode", None)])
    assert problem == ""
    result, document = (json.loads(e.payload) for e in effects if isinstance(e, Publish))
    assert (result["event_id"], document["event_id"]) == ("", "")
    assert document["twin"]["temp"]["current"]["metadata"] == {"type": "string"}


def test_one_bad_property_of_a_report_does_not_keep_the_others_away():
    core = make()
    send(core, {"twin": {"n": {"actual": {"value": "1"}, "metadata": {"type": "int"}}}})
    effects, problem = core.report_twins(
        "default/d1", [("n", "many", None), ("ok", "1", None), ("long", "x" * 20_000, None), ("", "1", None)]
    )
    assert "n: the value is not int or integer" in problem
    assert "long: a value is longer" in problem
    assert "no usable name" in problem
    twins = core.devices["default/d1"].twins
    assert (twins["n"].actual.value, twins["ok"].actual.value) == ("1", "1")
    assert next(e for e in effects if isinstance(e, Save)).twins.keys() == {"ok"}


def test_a_mapper_that_repeats_an_older_desired_value_does_not_bring_it_back():
    core = make()
    core.device_object("default/d1", "", {"target": "20"})
    core.device_object("default/d1", "", {"target": "25"})
    core.report_twins("default/d1", [("target", "20", "20")])
    twin = core.devices["default/d1"].twins["target"]
    assert (twin.expected.value, twin.actual.value) == ("25", "20")
    core.report_twins("default/d1", [("target", "25", "25")])
    assert core.devices["default/d1"].delta()[1] == {}


def test_states_of_mappers():
    core = make()
    effects = core.report_state("default/d1", "Online")
    assert Owe("default/d1", Kind.STATE) in effects
    for device, state in (("default/nope", "ok"), ("default/d1", "asleep")):
        with pytest.raises(Refusal):
            core.report_state(device, state)


# -- the Device object


def test_a_desired_value_reaches_clients():
    core = make("default/other")
    effects = core.device_object("default/d1", "a lamp", {"power": "on", "level": ""})
    published = {e.topic: json.loads(e.payload) for e in effects if isinstance(e, Publish)}
    assert published["$hw/events/device/default/d1/twin/update/delta"]["delta"] == {"power": "on"}
    added = published["$hw/events/node/n/membership/updated"]["added_devices"]
    assert added == [{"id": "default/d1", "name": "d1", "description": "a lamp"}]
    assert list(published) == [
        "$hw/events/device/default/d1/twin/update/document",
        "$hw/events/device/default/d1/twin/update/delta",
        "$hw/events/node/n/membership/updated",
    ]


def test_the_same_object_again_changes_nothing_not_even_a_clients_value():
    core = make()
    core.device_object("default/d1", "", {"power": "on"})
    send(core, {"twin": {"power": {"expected": {"value": "off"}}}})
    assert core.device_object("default/d1", "", {"power": "on"}) == []
    assert core.devices["default/d1"].twins["power"].expected.value == "off"
    core.device_object("default/d1", "", {"power": "dim"})
    assert core.devices["default/d1"].twins["power"].expected.value == "dim"


def test_a_value_the_device_has_already_is_not_counted_up():
    core = make()
    send(core, {"twin": {"power": {"expected": {"value": "on"}}}})
    effects = core.device_object("default/d1", "", {"power": "on"})
    assert not [e for e in effects if isinstance(e, Owe)]
    assert core.devices["default/d1"].twins["power"].expected_version == Version(0, 1)
    assert core.devices["default/d1"].twins["power"].desired == "on"


def test_what_is_not_desired_any_more_is_not_expected_any_more():
    core = make()
    core.device_object("default/d1", "", {"power": "on", "level": "3"})
    send(core, {"twin": {"level": {"expected": {"value": "7"}}}})
    core.device_object("default/d1", "", {"power": ""})
    twins = core.devices["default/d1"].twins
    assert (twins["power"].expected.value, twins["power"].expected_version) == ("", Version(0, 2))
    report = json.loads(core.report("default/d1", Kind.TWINS, ["power"]).content)
    assert report["twin"]["power"]["expected"]["value"] == ""
    assert twins["level"].expected.value == "7", "a client has set it since"


def test_the_object_of_a_device_decides_whether_it_is_here():
    """A cloudcore that is behind says again that the device before has left, when the next one of its name is here."""
    core = make()
    core.device_object("default/d1", "", {"power": "on"})
    core.membership(b'{"removed_devices":[{"id":"default/d1"}]}', detail=False)
    core.membership(b'{"added_devices":[{"id":"default/d1"}]}', detail=False)
    core.membership(b'{"devices":[]}', detail=True)
    assert core.devices["default/d1"].twins["power"].expected.value == "on"
    assert core.object_ids() == ["default/d1"]
    core.object_gone("default/d1")
    assert len(core) == 0


@pytest.mark.parametrize("order", ["object first", "membership first"])
def test_a_device_is_announced_once(order):
    core = TwinCore(node="n", stamp=Clock())
    added = b'{"added_devices":[{"id":"default/d1","name":"d1"}]}'
    gone = b'{"removed_devices":[{"id":"default/d1"}]}'
    steps = [lambda: core.membership(added, detail=False), lambda: core.device_object("default/d1", "", {})]
    ends = [lambda: core.membership(gone, detail=False), lambda: core.object_gone("default/d1")]
    if order == "object first":
        steps.reverse()
        ends.reverse()
    for both, key in ((steps, "added_devices"), (ends, "removed_devices")):
        said = [json.loads(e.payload) for step in both for e in step() if isinstance(e, Publish)]
        assert [one[key][0]["id"] for one in said] == ["default/d1"]
    assert len(core) == 0


@pytest.mark.parametrize(
    "payload",
    [b"[]", b'{"added_devices":5}', b'{"removed_devices":{"a":1}}', b'{"added_devices":[5]}', b'{"added_devices":[{}]}',
     b'{"added_devices":[{"id":"a/b/c"}]}', b'{"added_devices":[{"id":"/b"}]}', b'{"added_devices":[{"id":"a/b","twin":5}]}',
     b'{"added_devices":[{"id":"a/b","attributes":5}]}', b'{"added_devices":[{"id":"a/b","name":5}]}'],
)  # fmt: skip
def test_membership_of_the_wrong_form_changes_nothing(payload):
    core = make()
    with pytest.raises(Malformed):
        core.membership(payload, detail=False)
    assert set(core.devices) == {"default/d1"}


def test_a_list_of_all_devices_removes_only_those_without_an_object():
    core = make("default/d1", "default/d2")
    core.device_object("default/d3", "", {})
    effects = core.membership(b'{"devices":[{"id":"default/d1","name":"d1"}]}', detail=True)
    assert [e.id for e in effects if isinstance(e, Forget)] == ["default/d2"]
    assert set(core.devices) == {"default/d1", "default/d3"}


def test_attributes_are_replaced_and_twins_of_a_membership_message_need_versions():
    core = make()
    member = {
        "id": "default/d1",
        "attributes": {
            "a": {"value": "1"},
            "b": {"value": "2", "optional": False, "metadata": {"type": "int"}},
        },
        "twin": {
            "t": {
                "expected": {"value": "1"},
                "metadata": {"type": "int"},
                "expected_version": {"cloud": 1, "edge": 0},
            },
            "no": {"expected": {"value": "1"}},
        },
    }
    core.membership(json.dumps({"added_devices": [member]}).encode(), detail=False)
    device = core.devices["default/d1"]
    assert set(device.twins) == {"t"}
    assert core.membership(
        json.dumps({"added_devices": [{"id": "default/d1", "twin": {"t": None}}]}).encode(), detail=True
    )
    core.membership(json.dumps({"added_devices": [member]}).encode(), detail=False)
    assert device.attributes["a"].optional is True
    member["attributes"] = {"b": {"value": "3", "optional": True}}
    effects = core.membership(json.dumps({"added_devices": [member]}).encode(), detail=False)
    said = next(
        json.loads(e.payload) for e in effects if isinstance(e, Publish) and e.topic.endswith("d1/updated")
    )
    assert said["attributes"] == {
        "a": None,
        "b": {"value": "3", "optional": False, "metadata": {"type": "int"}},
    }


def test_a_new_member_is_announced_last_and_its_twins_without_versions():
    core = TwinCore(node="n", stamp=Clock())
    member = {
        "id": "default/d1",
        "name": "d1",
        "twin": {
            "b": {
                "expected": {"value": "1"},
                "metadata": {"type": "int"},
                "expected_version": {"cloud": 1, "edge": 0},
            },
            "a": {"metadata": {"type": "deleted"}, "expected_version": {"cloud": 1, "edge": 0}},
        },
    }
    effects = core.membership(json.dumps({"added_devices": [member]}).encode(), detail=False)
    assert [t.rpartition("/")[2] for t in topics_of(effects)] == ["document", "delta", "updated"]
    said = json.loads(next(e.payload for e in reversed(effects) if isinstance(e, Publish)))
    assert said["added_devices"][0]["twin"] == {
        "a": None,
        "b": {"expected": {"value": "1"}, "metadata": {"type": "int"}},
    }
    assert core.devices["default/d1"].twins["a"].deleted


# -- properties

TYPES = st.sampled_from([None, "", "string", "int", "deleted"])
VERSIONS = st.none() | st.builds(Version, st.integers(0, 4), st.integers(0, 6))
VALUES = st.none() | st.builds(Value, st.sampled_from(["1", "2", "x", ""]) | st.none())
CHANGES = st.builds(Change, VALUES, VALUES, st.none() | st.booleans(), TYPES, VERSIONS, VERSIONS)
REQUESTS = st.dictionaries(st.sampled_from("abc"), st.none() | CHANGES, max_size=3)
STEPS = st.lists(st.tuples(st.sampled_from(["update", "sync", "want"]), REQUESTS), max_size=12)


def step(device, kind, changes, now):
    if kind == "update":
        try:
            return rules.update(device, changes, now)
        except Refusal:
            return rules.Outcome()
    if kind == "sync":
        return rules.sync(device, changes, now)
    desired = {
        k: c.expected.value or "" for k, c in changes.items() if c is not None and c.expected is not None
    }
    return rules.want(device, desired, now)


def pair(version):
    return (0, 0) if version is None else (version.cloud, version.edge)


def solid(twin):
    """A twin without empty values: clients see them until the next refused request or restart, as in the original."""
    if twin is None:
        return None
    expected, actual = (v if v is not None and v.value else None for v in (twin.expected, twin.actual))
    return (expected, actual, twin.optional, twin.metadata)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_versions_never_go_back_and_documents_tell_everything(steps):
    device, folded = Device("default/d"), {}
    for now, (kind, changes) in enumerate(steps, start=1):
        before = dict(device.twins)
        outcome = step(device, kind, changes, now)
        for key, old in before.items():
            new = device.twins[key]
            for one, other in (
                (old.expected_version, new.expected_version),
                (old.actual_version, new.actual_version),
            ):
                assert pair(one)[0] <= pair(other)[0]
                assert pair(one)[1] <= pair(other)[1]
        for key, twin in device.twins.items():
            if key in outcome.saved:
                assert outcome.saved[key] is twin
            else:  # what is not stored has not changed
                assert solid(twin.shown()) == solid(before[key].shown())
                assert twin.expected_version == before[key].expected_version
                assert twin.actual_version == before[key].actual_version
                assert twin.desired == before[key].desired
        for key, doc in outcome.document.items():
            assert solid(doc.last) == solid(folded.get(key))
            folded.pop(key, None)
            if doc.current is not None:
                folded[key] = doc.current
        assert {k: solid(t) for k, t in folded.items()} == {k: solid(t) for k, t in device.shown().items()}


@settings(max_examples=150, deadline=None)
@given(STEPS, CHANGES)
def test_an_older_synchronisation_never_overwrites(steps, change):
    device = Device("default/d")
    for now, (kind, changes) in enumerate(steps, start=1):
        step(device, kind, changes, now)
    if (before := device.twins.get("a")) is None:
        return
    outcome = rules.sync(device, {"a": change}, 99)
    after = device.twins["a"]
    for ours, theirs, was, is_now in (
        (before.expected_version, change.expected_version, before.expected, after.expected),
        (before.actual_version, change.actual_version, before.actual, after.actual),
    ):
        older = theirs is None or pair(theirs)[0] < pair(ours)[0] or pair(theirs)[1] < pair(ours)[1]
        if older and change.type != "deleted":
            assert is_now == was
    if after is before and change.type != "deleted" and change.expected and change.expected.value == "1":
        assert outcome.report in ([], ["a"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["twin", "Twin", "actual", "expected", "value", "metadata", "type", "event_id", "timestamp",
                         "optional", "expected_version", "cloud", "edge", "state", "devices", "id", "added_devices", "t"]),
        inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
TOPICS = st.sampled_from(
    [
        f"$hw/events/device/default/d1/{what}"
        for what in ("twin/update", "twin/get", "twin/cloud_updated", "state/update")
    ]
    + ["$hw/events/node/n/membership/get", "$hw/events/device//twin/update", "$hw/events/device/a", "x", ""]
)


@settings(max_examples=250, deadline=None)
@given(TOPICS, st.binary(max_size=60) | JSON.map(lambda j: json.dumps(j).encode()))
def test_hostile_payloads_are_answered_and_nothing_is_lost(topic, payload):
    core = make()
    send(core, {"twin": {"t": {"actual": {"value": "1"}}}})
    for effect in core.mqtt(topic, payload):
        if isinstance(effect, Publish):
            json.loads(effect.payload)
    _, got = send(core, {"event_id": "after", "twin": {"other": {"actual": {"value": "2"}}}})
    assert got["result"]["twin"]["other"]["actual"]["value"] == "2"
    with contextlib.suppress(Malformed):
        core.membership(payload, detail=True)


@pytest.mark.parametrize("what", ["twin/update", "twin/get", "twin/cloud_updated", "state/update"])
@pytest.mark.parametrize(
    ("payload", "word"),
    [(b'{"twin":"' + b"x" * MAX_PAYLOAD + b'"}', "at most"), (b"[" * 200_000, ""), (b'{"a":' * 40_000, "")],
)
def test_oversized_and_bottomless_payloads_get_a_clear_answer(what, payload, word):
    core = make()
    effects = core.mqtt(f"$hw/events/device/default/d1/{what}", payload)
    (answer,) = (json.loads(e.payload) for e in effects)
    assert answer["code"] == 400
    assert word in answer["reason"]
    assert len(effects[0].payload) < 1000


def test_a_device_and_a_twin_are_small():
    """What a thousand devices cost is measured in bench; this only catches a dictionary in every twin."""
    import sys

    twin = Twin(
        Value("25", ValueMeta(1)),
        Value("25", ValueMeta(1)),
        True,
        TypeMeta("int"),
        Version(0, 1),
        Version(0, 1),
    )
    assert sys.getsizeof(twin) + 2 * sys.getsizeof(twin.actual) + 2 * sys.getsizeof(twin.actual_version) < 250
    assert not hasattr(twin, "__dict__")
    assert not hasattr(Device("a/b"), "__dict__")
