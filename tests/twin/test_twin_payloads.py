"""Every worked payload of KubeEdge's ``$hw/events`` topics, byte for byte: captured from the original edgecore."""

import itertools
import json

import pytest

from edgehive.twin.core import TwinCore
from edgehive.twin.effects import Kind, Owe, Publish

DEVICE = "default/sensor1"
TOPIC = f"$hw/events/device/{DEVICE}"


class Clock:
    """Event ids and times in the order given; the last ones repeat."""

    def __init__(self):
        self.ids = (f"uuid-{n}" for n in itertools.count(1))
        self.now = 1000

    def __call__(self):
        return next(self.ids), self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def core(clock):
    core = TwinCore(node="edge-node", stamp=clock)
    core.membership(
        b'{"event_id":"x","timestamp":1,"added_devices":[{"id":"default/sensor1","name":"sensor1","description":"d"}],'
        b'"removed_devices":null}',
        detail=False,
    )
    return core


def published(effects):
    return [(effect.topic, effect.payload.decode()) for effect in effects if isinstance(effect, Publish)]


def send(core, what, payload, device=DEVICE):
    payload = payload if isinstance(payload, bytes) else payload.encode()
    return published(core.mqtt(f"$hw/events/device/{device}/{what}", payload))


def test_11_1_membership_get_without_devices(clock):
    clock.now = 1795492256498
    core = TwinCore(node="edge-node", stamp=clock)
    got = published(core.mqtt("$hw/events/node/edge-node/membership/get", b'{"event_id":"e1","timestamp":1}'))
    assert got == [
        (
            "$hw/events/node/edge-node/membership/get/result",
            '{"event_id":"e1","timestamp":1795492256498,"devices":[]}',
        )
    ]


def test_11_2_membership_get_with_a_device(core, clock):
    clock.now = 1795492258602
    ((_, payload),) = published(
        core.mqtt("$hw/events/node/edge-node/membership/get", b'{"event_id":"e2","timestamp":1}')
    )
    assert payload == (
        '{"event_id":"e2","timestamp":1795492258602,"devices":'
        '[{"id":"default/sensor1","name":"sensor1","description":"d"}]}'
    )


def test_11_3_membership_get_with_bad_json(core, clock):
    clock.now = 1795492259303
    ((topic, payload),) = published(core.mqtt("$hw/events/node/edge-node/membership/get", b"notjson"))
    assert topic == "$hw/events/node/edge-node/membership/get/result"
    assert payload == (
        '{"event_id":"","timestamp":1795492259303,"code":400,"reason":"Unmarshal get membership info notjson failed ,'
        " err: \\u0026json.SyntaxError{msg:\\\"invalid character 'o' in literal null (expecting 'u')\\\", Offset:2}\"}"
    )


def test_11_4_membership_updated(clock):
    core = TwinCore(node="edge-node", stamp=clock)
    clock.now = 1795492257902
    entry = '{"id":"default/sensor1","name":"sensor1","description":"d"}'
    clock.ids = iter(["620a2474-c247-48df-9bd2-0b5df37d5b2c"])
    got = published(
        core.membership(f'{{"event_id":"a","timestamp":1,"added_devices":[{entry}]}}'.encode(), detail=False)
    )
    topic = "$hw/events/node/edge-node/membership/updated"
    assert got == [
        (
            topic,
            '{"event_id":"620a2474-c247-48df-9bd2-0b5df37d5b2c","timestamp":1795492257902,'
            f'"added_devices":[{entry}],"removed_devices":null}}',
        )
    ]
    clock.now, clock.ids = 1795492274722, iter(["9cc497cd-91c1-42f5-b1e6-85d642ede9d0"])
    got = published(core.membership(b'{"removed_devices":[{"id":"default/sensor1"}]}', detail=False))
    assert got == [
        (
            topic,
            '{"event_id":"9cc497cd-91c1-42f5-b1e6-85d642ede9d0","timestamp":1795492274722,'
            '"added_devices":null,"removed_devices":[{"id":"default/sensor1"}]}',
        )
    ]


def test_11_5_state_update(core, clock):
    clock.now, clock.ids = 1795492260706, iter(["1b5d0b8c-0fec-40ff-a2c7-8c3454718700"])
    effects = core.mqtt(f"{TOPIC}/state/update", b'{"event_id":"e4","timestamp":1,"state":"online"}')
    assert published(effects) == [
        (
            f"{TOPIC}/state/update/result",
            '{"event_id":"1b5d0b8c-0fec-40ff-a2c7-8c3454718700","timestamp":1795492260706,'
            '"device":{"name":"sensor1","state":"online","lastOnlineTime":"2026-11-24T03:51:00Z"}}',
        )
    ]
    assert Owe(DEVICE, Kind.STATE) in effects
    clock.now, clock.ids = 1795492261406, iter(["2ed203d4-9f82-4736-bae6-2908b017dae1"])
    assert send(core, "state/update", '{"event_id":"e4","timestamp":1,"state":"Offline"}') == [
        (
            f"{TOPIC}/state/update/result",
            '{"event_id":"2ed203d4-9f82-4736-bae6-2908b017dae1","timestamp":1795492261406,'
            '"device":{"name":"sensor1","state":"Offline"}}',
        )
    ]
    assert send(core, "state/update", '{"event_id":"e4","timestamp":1,"state":"sleeping"}') == []


@pytest.fixture
def first(core, clock):
    """11.6: the first update of a twin."""
    clock.now = 1795492262806
    got = send(
        core,
        "twin/update",
        '{"event_id":"e5","timestamp":1,"twin":{"temp":{"actual":{"value":"21.5"},"metadata":{"type":"float"}}}}',
    )
    return core, got


TEMP_ACTUAL = '{"actual":{"value":"21.5","metadata":{"timestamp":1795492262806}},"optional":true,"metadata":{"type":"float"}}'


def test_11_6_first_twin_update(first):
    assert first[1] == [
        (
            f"{TOPIC}/twin/update/result",
            f'{{"event_id":"e5","timestamp":1795492262806,"twin":{{"temp":{TEMP_ACTUAL}}}}}',
        ),
        (
            f"{TOPIC}/twin/update/document",
            '{"event_id":"e5","timestamp":1795492262806,"twin":{"temp":{"last":null,"current":'
            + TEMP_ACTUAL
            + "}}}",
        ),
    ]


TEMP_BOTH = (
    '{"expected":{"value":"25","metadata":{"timestamp":1795492263506}},'
    '"actual":{"value":"21.5","metadata":{"timestamp":1795492262806}},"optional":true,"metadata":{"type":"float"}}'
)


@pytest.fixture
def second(first, clock):
    """11.7: an expected value."""
    clock.now, clock.ids = 1795492263506, iter(["-", "3f7a2310-967a-497a-8662-b919d851cdfa", *"abcdefgh"])
    core, _ = first
    return core, send(
        core, "twin/update", '{"event_id":"e6","timestamp":1,"twin":{"temp":{"expected":{"value":"25"}}}}'
    )


def test_11_7_expected_value(second):
    base = '{"event_id":"e6","timestamp":1795492263506,'
    assert second[1] == [
        (
            f"{TOPIC}/twin/update/result",
            base + '"twin":{"temp":{"expected":{"value":"25","metadata":{"timestamp":1795492263506}},'
            '"optional":true,"metadata":{"type":"float"}}}}',
        ),
        (
            f"{TOPIC}/twin/update/document",
            base + f'"twin":{{"temp":{{"last":{TEMP_ACTUAL},"current":{TEMP_BOTH}}}}}}}',
        ),
        (
            f"{TOPIC}/twin/update/delta",
            '{"event_id":"3f7a2310-967a-497a-8662-b919d851cdfa","timestamp":1795492263506,'
            f'"twin":{{"temp":{TEMP_BOTH}}},"delta":{{"temp":"25"}}}}',
        ),
    ]


LETTERS = (
    "must only include upper or lowercase letters, number, english, and special letter - _ . , : / @ #"
    " and the length of"
)


@pytest.mark.parametrize(
    ("what", "device", "payload", "where", "event_id", "code", "reason"),
    [
        ("twin/update", DEVICE, '{"event_id":"e7","timestamp":1,"twin":{"temp":{"actual":{"value":"abc"}}}}', DEVICE, "e7", 400, "the value is not float"),
        ("twin/update", DEVICE, '{"event_id":"e8","twin":{"bad key!":{"actual":{"value":"1"}}}}', "", "", 400, f"The key of twin {LETTERS} key should be less than 128 bytes"),
        ("twin/update", DEVICE, '{"event_id":"e9","twin":{"temp":{"actual":{"value":"two words"}}}}', "", "", 400, f"The value of twin {LETTERS} value should be less than 512 bytes"),
        ("twin/update", DEVICE, '{"event_id":"e10","timestamp":1}', "", "", 400, "Update twin error, key:twin does not exist"),
        ("twin/update", DEVICE, "null", "", "", 400, "Update twin error, key:twin does not exist"),
        ("twin/update", DEVICE, "{bad", "", "", 400, "Unmarshal update request body failed, please check the request"),
        ("twin/update", "default/nope", '{"event_id":"e11","twin":{}}', "default/nope", "e11", 404, "update rejected due to the device is not existed"),
        ("twin/get", "default/nope", '{"event_id":"e12"}', "default/nope", "e12", 404, "Device default/nope not found while getting twin"),
    ],
)  # fmt: skip
def test_11_8_errors(second, clock, what, device, payload, where, event_id, code, reason):
    core, _ = second
    clock.now = 5
    before = core.devices[DEVICE].shown()
    got = send(core, what, payload, device)
    expected = {"event_id": event_id, "timestamp": 5, "code": code, "reason": reason}
    assert got == [(f"$hw/events/device/{where}/{what}/result", json.dumps(expected, separators=(",", ":")))]
    assert core.devices[DEVICE].shown() == before


def test_11_9_twin_get(second, clock):
    core, _ = second
    clock.now = 1795492269110
    assert send(core, "twin/get", '{"event_id":"e13","timestamp":1}') == [
        (
            f"{TOPIC}/twin/get/result",
            f'{{"event_id":"e13","timestamp":1795492269110,"twin":{{"temp":{TEMP_BOTH}}}}}',
        )
    ]


@pytest.fixture
def deleted(second, clock):
    """11.10: an actual value, then the twin is deleted."""
    core, _ = second
    clock.now = 1795492269813
    send(core, "twin/update", '{"event_id":"e14","timestamp":1,"twin":{"temp":{"actual":{"value":"25"}}}}')
    clock.now, clock.ids = 1795492270512, iter("abcdefghijkl")
    return core, send(core, "twin/update", '{"event_id":"e15","timestamp":1,"twin":{"temp":null}}')


def test_11_10_delete(deleted):
    base = '{"event_id":"e15","timestamp":1795492270512,"twin":{"temp":'
    assert deleted[1] == [
        (f"{TOPIC}/twin/update/result", base + "null}}"),
        (
            f"{TOPIC}/twin/update/document",
            base + '{"last":{"expected":{"value":"25","metadata":{"timestamp":1795492263506}},'
            '"actual":{"value":"25","metadata":{"timestamp":1795492269813}},"optional":true,'
            '"metadata":{"type":"float"}},"current":null}}}',
        ),
    ]


def test_11_11_cloud_updated(deleted, clock):
    core, _ = deleted
    clock.now, clock.ids = 1795492271916, iter(["-", "u1", "-", "u2"])
    request = (
        '{"event_id":"c1","timestamp":1,"twin":{"temp":{"expected":{"value":"9"},"metadata":{"type":"float"},'
        '"expected_version":{"cloud":3,"edge":9}}}}'
    )
    current = (
        '{"expected":{"value":"9","metadata":{"timestamp":1795492271916}},"actual":{},"optional":true,'
        '"metadata":{"type":"float"}}'
    )
    delta = f'"timestamp":1795492271916,"twin":{{"temp":{current}}},"delta":{{"temp":"9"}}}}'
    assert send(core, "twin/cloud_updated", request) == [
        (
            f"{TOPIC}/twin/update/document",
            f'{{"event_id":"c1","timestamp":1795492271916,"twin":{{"temp":{{"last":null,"current":{current}}}}}}}',
        ),
        (f"{TOPIC}/twin/update/delta", '{"event_id":"u1",' + delta),
    ]
    older = request.replace('"cloud":3,"edge":9', '"cloud":1,"edge":1').replace('"value":"9"', '"value":"8"')
    assert send(core, "twin/cloud_updated", older) == [
        (f"{TOPIC}/twin/update/delta", '{"event_id":"u2",' + delta)
    ]


def test_11_12_attributes_updated(core, clock):
    clock.now = 1795492273320
    again = (
        b'{"added_devices":[{"id":"default/sensor1","name":"sensor1",'
        b'"attributes":{"a1":{"value":"v1","optional":true,"metadata":{"type":"string"}}}}]}'
    )
    assert published(core.membership(again, detail=False)) == [
        (
            f"{TOPIC}/updated",
            '{"event_id":"","timestamp":1795492273320,"attributes":'
            '{"a1":{"value":"v1","optional":true,"metadata":{"type":"string"}}}}',
        )
    ]


def test_11_13_reports_to_the_cloud(first, clock):
    core, _ = first
    clock.now, clock.ids = 1, iter(["u1", "u2", "u3"])
    report = core.report(DEVICE, Kind.TWINS, ["temp"])
    assert (report.operation, report.resource) == ("update", "device/default/sensor1/twin/edge_updated")
    assert report.content.decode() == (
        '{"event_id":"u1","timestamp":1,"twin":{"temp":'
        + TEMP_ACTUAL[:-1]
        + ',"actual_version":{"cloud":0,"edge":1}}}}'
    )
    core.report_state(DEVICE, "online")
    state = core.report(DEVICE, Kind.STATE, ())
    assert state.resource == "device/default/sensor1/state/update"
    assert json.loads(json.loads(state.content)) == {
        "event_id": "u3",
        "timestamp": 1,
        "device": {"name": "sensor1", "state": "online", "lastOnlineTime": "1970-01-01T00:00:00Z"},
    }


def test_11_13_the_question_at_a_new_link(core, clock):
    clock.now, clock.ids = 1795491754000, iter(["u"])
    asked = core.detail_request()
    assert (asked.operation, asked.resource) == ("get", "membership/detail")
    assert json.loads(asked.content) == (
        '{"event_type":"group_membership_event","event_id":"u","group_id":"edge-node","operation":"detail",'
        '"timestamp":1795491754000}'
    )
