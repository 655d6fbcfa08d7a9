"""What devices report, on its way into their DeviceStatus."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from edgehive.kit.errors import Unreachable
from edgehive.kube.crd_devices import DEVICE_MODELS, DEVICE_STATUSES, DEVICES
from edgehive.kube.status import ApiStatus
from tests.support.deviceslab import answer, device, model, report, reported, status, twin
from tests.support.realapi import RealApi


@pytest.fixture
async def api() -> AsyncIterator[RealApi]:
    made = RealApi()
    await made.open()
    yield made
    await made.close()


async def setup(lab: Any, api: Any, interval: float = 0.05) -> Any:
    await api.put(DEVICE_MODELS, model())
    await api.put(DEVICES, device())
    await lab.start(lab.make_config(devices={"statusInterval": interval}))
    return await lab.edge("edge-1")


async def test_the_first_reported_value_is_stored_and_then_answered(lab: Any, api: Any) -> None:
    edge = await setup(lab, api)
    request = await report(edge, temperature=twin("27", "20", at=1234, edge=3))
    reply = await answer(edge, request)
    assert (reply.operation, reply.resource, reply.source, reply.group, reply.content) == (
        "response",
        "twin",
        "devicecontroller",
        "twin",
        b'"OK"',
    )
    metadata = {"timestamp": "1234", "type": "int", "version": "3"}
    assert status(api)["twins"] == [
        {
            "propertyName": "temperature",
            "reported": {"value": "27", "metadata": metadata},
            "observedDesired": {"value": "20", "metadata": metadata},
        }
    ]
    found = api.find(DEVICE_STATUSES, "default", "sensor")
    owner = found["metadata"]["ownerReferences"][0]
    made = api.find(DEVICES, "default", "sensor")
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Device", made["metadata"]["uid"], True)


async def test_the_type_is_that_of_the_model_where_the_edge_has_none(lab: Any, api: Any) -> None:
    """A mapper's report reaches the twin without its type, also at a Go edge."""
    edge = await setup(lab, api)
    await answer(edge, await report(edge, temperature=twin("27", at=1, kind="string"), mode=twin("m", at=1)))
    await answer(edge, await report(edge, mode=twin("n", at=2, kind="float")))
    found = {t["propertyName"]: t["reported"]["metadata"]["type"] for t in status(api)["twins"]}
    assert found == {"temperature": "int", "mode": "float"}, "what a client has said stands"


async def test_a_state_is_stored(lab: Any, api: Any) -> None:
    edge = await setup(lab, api)
    content = {"event_id": "e2", "timestamp": 5, "device": {"name": "sensor", "state": "online"}}
    content["device"]["lastOnlineTime"] = "2026-08-06T00:00:00Z"
    request = await edge.say(
        "update", "device/default/sensor/state/update", json.dumps(content), source="twin", group="resource"
    )
    assert (await answer(edge, request)).content == b'"OK"'
    assert status(api)["state"] == "online"
    assert status(api)["lastOnlineTime"] == "2026-08-06T00:00:00Z"


async def test_a_summary_is_shown_in_the_device_and_not_brought_to_its_edge(lab: Any, api: Any) -> None:
    edge = await setup(lab, api)
    await edge.wait(lambda m: m.resource == "default/device/sensor")
    await answer(edge, await report(edge, temperature=twin("27")))
    await api.until(lambda: api.find(DEVICES, "default", "sensor").get("status", {}).get("reported"))
    found = api.find(DEVICES, "default", "sensor")
    assert found["status"]["reported"] == "temperature=27"
    assert found["status"]["delivery"]["generation"] == found["metadata"]["generation"]
    assert reported(api) == {"temperature": "27"}
    await answer(edge, await report(edge, temperature=twin("28", edge=2)))
    assert len([m for m in edge.received if m.resource == "default/device/sensor"]) == 1


def writes(api: Any) -> int:
    return api.count("patch", DEVICE_STATUSES) + api.count("create", DEVICE_STATUSES)


async def test_a_hundred_reports_a_second_are_one_write_each_second_and_all_are_answered(
    lab: Any, api: Any
) -> None:
    edge = await setup(lab, api, interval=1.0)
    await answer(edge, await report(edge, temperature=twin("0", at=1)))
    before = writes(api)
    requests = [await report(edge, temperature=twin(str(n), at=n + 2, edge=n + 2)) for n in range(1, 101)]
    for request in requests:
        assert (await answer(edge, request)).content == b'"OK"'
    assert reported(api) == {"temperature": "100"}
    assert writes(api) - before <= 2


async def test_nothing_is_answered_before_it_is_stored(lab: Any, api: Any) -> None:
    edge = await setup(lab, api)
    await answer(edge, await report(edge, temperature=twin("1")))
    down = asyncio.Event()

    def fail(verb: str, gvr: Any, name: str) -> Exception | None:
        if gvr == DEVICE_STATUSES and verb == "patch":
            down.set()
            return Unreachable("connection refused")
        return None

    api.fail = fail
    request = await report(edge, temperature=twin("2", at=1001, edge=2))
    async with asyncio.timeout(5):
        await down.wait()
    await edge.ask("query", "kube-node-lease/lease/edge-1")
    assert not [m for m in edge.received if m.parent_id == request.id]
    api.fail = lambda verb, gvr, name: None
    await answer(edge, request)
    assert reported(api) == {"temperature": "2"}


async def test_an_older_report_never_overwrites_a_newer_one(lab: Any, api: Any) -> None:
    edge = await setup(lab, api)
    await answer(edge, await report(edge, temperature=twin("new", at=2000, edge=7)))
    for late in (twin("late", at=1000, edge=6), twin("late", at=2000, edge=6), twin("late", at=1000, edge=7)):
        assert (await answer(edge, await report(edge, temperature=late))).content == b'"OK"'
        assert reported(api) == {"temperature": "new"}
    await lab.stop()
    await lab.start()  # nothing of it is only in memory
    edge = await lab.edge("edge-1")
    await answer(edge, await report(edge, temperature=twin("late", at=1000, edge=6)))
    assert reported(api) == {"temperature": "new"}
    await answer(edge, await report(edge, temperature=twin("wiped", at=3000, edge=1)))
    assert reported(api) == {"temperature": "wiped"}  # the edge lost its database
    await answer(edge, await report(edge, temperature=twin("clock", at=10, edge=2)))
    assert reported(api) == {"temperature": "clock"}  # the edge's clock was set back


async def test_a_report_of_one_side_leaves_the_other_and_the_state(lab: Any, api: Any) -> None:
    edge = await setup(lab, api)
    await answer(edge, await report(edge, temperature=twin("27"), mode=twin("auto")))
    await answer(edge, await state(edge, "online"))
    await answer(edge, await report(edge, temperature=twin(wish="44", edge=2)))
    twins = {t["propertyName"]: t for t in status(api)["twins"]}
    assert twins["temperature"]["reported"]["value"] == "27"
    assert twins["temperature"]["observedDesired"]["value"] == "44"
    assert twins["mode"]["reported"]["value"] == "auto"
    assert status(api)["state"] == "online"


async def state(edge: Any, word: str, at: int = 1000, online: str = "") -> Any:
    body = {"name": "sensor", "state": word} | ({"lastOnlineTime": online} if online else {})
    content = json.dumps({"event_id": "e", "timestamp": at, "Device": body})  # Go takes any letter case
    return await edge.say(
        "update", "device/default/sensor/state/update", content, source="twin", group="resource"
    )


async def test_an_older_state_never_overwrites_a_newer_one(lab: Any, api: Any) -> None:
    edge = await setup(lab, api)
    await answer(edge, await state(edge, "offline", 5000, "2026-08-06T00:00:05Z"))
    await answer(edge, await state(edge, "online", 4000, "2026-08-06T00:00:05Z"))
    assert status(api)["state"] == "offline"
    await lab.stop()
    await lab.start()
    edge = await lab.edge("edge-1")
    await answer(edge, await state(edge, "online", 3000, "2026-08-06T00:00:03Z"))
    assert status(api)["state"] == "offline"


async def test_only_what_the_device_has_is_stored(lab: Any, api: Any) -> None:
    edge = await setup(lab, api)
    reply = await answer(edge, await report(edge, temperature=twin("1"), pressure=twin("2")))
    assert reply.content == b'"OK"'
    assert reported(api) == {"temperature": "1"}
    await api.put(DEVICES, device(properties=[{"name": "mode"}]))
    await edge.wait(lambda m: m.resource == "default/device/sensor" and b"temperature" not in m.content)
    await answer(edge, await report(edge, mode=twin("auto")))
    assert reported(api) == {"mode": "auto"}


async def test_reports_on_foreign_and_unknown_devices_are_neither_stored_nor_answered(
    lab: Any, api: Any
) -> None:
    edge = await setup(lab, api)
    other = await lab.edge("edge-2")
    foreign = await report(other, temperature=twin("66"))
    unknown = await report(edge, "nobody", temperature=twin("66"))
    await answer(edge, await report(edge, temperature=twin("1")))
    await other.ask("query", "kube-node-lease/lease/edge-2")
    for node, request in ((other, foreign), (edge, unknown)):
        assert not [m for m in node.received if m.parent_id == request.id]
    assert reported(api) == {"temperature": "1"}
    assert api.find(DEVICE_STATUSES, "default", "nobody") is None
    stats = lab.core.parts.devices.reports.stats
    assert (stats.foreign, stats.unknown) == (1, 1)
    await api.put(DEVICES, device("nobody"))
    await edge.wait(lambda m: m.resource == "default/device/nobody")
    assert (await answer(edge, await report(edge, "nobody", temperature=twin("5")))).content == b'"OK"'


BAD = [
    pytest.param("not json at all", id="text"),
    pytest.param('{"twin":', id="cut"),
    pytest.param({"timestamp": 1}, id="no-twin"),
    pytest.param({"twin": {"temperature": {"actual": {"value": 5}}}}, id="number"),
    pytest.param({"twin": {"temperature": {"actual": {"value": "x" * 20_000}}}}, id="long-value"),
    pytest.param({"twin": {f"p{n}": {} for n in range(100_000)}}, id="large"),
    pytest.param(
        {"twin": {"temperature": {"actual": {"value": "1"}, "actual_version": {"edge": "x"}}}}, id="version"
    ),
    pytest.param("[" * 100_000, id="deep"),
]


@pytest.mark.parametrize("content", BAD)
async def test_a_report_that_cannot_be_read_is_answered_with_an_error(
    lab: Any, api: Any, content: Any
) -> None:
    edge = await setup(lab, api)
    request = await edge.say(
        "update", "device/default/sensor/twin/edge_updated", content, source="twin", group="resource"
    )
    reply = await answer(edge, request)
    error = json.loads(reply.content)["ErrStatus"]
    assert (reply.resource, reply.group, error["code"], error["reason"]) == (
        "twin",
        "twin",
        400,
        "BadRequest",
    )
    assert reported(api) == {}
    assert (await answer(edge, await report(edge, temperature=twin("1")))).content == b'"OK"'  # others go on


async def test_other_messages_of_devicetwin_change_nothing(lab: Any, api: Any) -> None:
    edge = await setup(lab, api)
    for resource in (
        "device/default/sensor/twin/edge_updated/more",
        "device/sensor/twin/edge_updated",
        "device/../sensor/twin/edge_updated",
        "device//sensor/twin/edge_updated",
        "x/twin/edge_updated",
    ):
        await edge.say("update", resource, {"twin": {}}, source="twin", group="resource")
    await answer(edge, await report(edge, temperature=twin("1")))
    assert reported(api) == {"temperature": "1"}


async def test_a_write_that_is_refused_for_good_is_answered_and_not_repeated(lab: Any, api: Any) -> None:
    edge = await setup(lab, api)
    await answer(edge, await report(edge, temperature=twin("1")))
    refuse = ApiStatus(422, "Invalid", "the value is too ugly")
    api.fail = lambda verb, gvr, name: refuse if (verb, gvr) == ("patch", DEVICE_STATUSES) else None
    reply = await answer(edge, await report(edge, temperature=twin("2", edge=2)))
    assert json.loads(reply.content)["ErrStatus"]["code"] == 422
    asked = api.count("patch", DEVICE_STATUSES)
    api.fail = lambda verb, gvr, name: None
    await answer(edge, await report(edge, temperature=twin("3", edge=3)))
    assert reported(api) == {"temperature": "3"}
    assert api.count("patch", DEVICE_STATUSES) == asked + 1


async def test_a_write_between_ours_is_kept(lab: Any, api: Any) -> None:
    edge = await setup(lab, api)
    await answer(edge, await report(edge, temperature=twin("1")))
    await api.change(DEVICE_STATUSES, "sensor", status={"extensions": {"theirs": 1}})
    await answer(edge, await report(edge, temperature=twin("2", edge=2)))
    assert status(api)["extensions"] == {"theirs": 1}
    assert reported(api) == {"temperature": "2"}
    await api.drop(DEVICE_STATUSES, "default", "sensor")
    await answer(edge, await report(edge, temperature=twin("3", edge=3)))
    assert reported(api) == {"temperature": "3"}


async def test_every_device_has_a_status_object_also_one_that_has_not_reported(lab: Any, api: Any) -> None:
    await setup(lab, api)
    await api.until(lambda: api.find(DEVICE_STATUSES, "default", "sensor") is not None)
    await api.put(DEVICES, device("second", node="edge-9"))
    await api.until(lambda: api.find(DEVICE_STATUSES, "default", "second") is not None)


async def test_the_status_of_a_namesake_that_was_deleted_is_not_taken_over(lab: Any, api: Any) -> None:
    edge = await setup(lab, api)
    await answer(edge, await report(edge, temperature=twin("1", at=9000, edge=9)))
    await api.drop(DEVICES, "default", "sensor")  # and nobody collects its status
    fresh = await api.put(DEVICES, device())
    await edge.wait(
        lambda m: m.resource == "default/device/sensor" and fresh["metadata"]["uid"].encode() in m.content
    )
    await answer(edge, await report(edge, mode=twin("auto", at=10)))
    assert reported(api) == {"mode": "auto"}
    found = api.find(DEVICE_STATUSES, "default", "sensor")
    assert found["metadata"]["ownerReferences"][0]["uid"] == fresh["metadata"]["uid"]


async def test_with_authorization_enforced_the_write_is_made_in_the_nodes_name(lab: Any, api: Any) -> None:
    config = lab.make_config()
    authorization = msgspec.structs.replace(config.modules.cloud_hub.authorization, enable=True, debug=False)
    hub = msgspec.structs.replace(config.modules.cloud_hub, authorization=authorization)
    modules = msgspec.structs.replace(config.modules, cloud_hub=hub)
    await api.put(DEVICE_MODELS, model())
    await api.put(DEVICES, device())
    await lab.start(msgspec.structs.replace(config, modules=modules))
    edge = await lab.edge("edge-1")
    await answer(edge, await report(edge, temperature=twin("1")))
    made = [o.as_user for verb, gvr, _, o in api.asked if (verb, gvr) == ("patch", DEVICE_STATUSES)]
    assert made == ["system:node:edge-1"]


async def test_a_summary_that_was_left_behind_by_a_death_is_made_good_at_the_start(
    lab: Any, api: Any
) -> None:
    edge = await setup(lab, api)
    api.fail = lambda verb, gvr, name: Unreachable("killed") if (verb, gvr) == ("patch", DEVICES) else None
    await answer(edge, await report(edge, temperature=twin("27")))
    await lab.stop()
    api.fail = lambda verb, gvr, name: None
    assert "status" not in api.find(DEVICES, "default", "sensor")
    await lab.start()
    await api.until(
        lambda: (
            (api.find(DEVICES, "default", "sensor").get("status") or {}).get("reported") == "temperature=27"
        )
    )


async def test_the_summary_can_be_switched_off(lab: Any, api: Any) -> None:
    await api.put(DEVICE_MODELS, model())
    await api.put(DEVICES, device())
    await lab.start(lab.make_config(devices={"summary": False}))
    edge = await lab.edge("edge-1")
    await answer(edge, await report(edge, temperature=twin("1")))
    await answer(edge, await report(edge, temperature=twin("2", edge=2)))
    assert "status" not in api.find(DEVICES, "default", "sensor")
    assert not api.count("patch", DEVICES)


async def metrics(lab: Any) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.ports.monitor)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return text


async def test_the_numbers_are_in_the_metrics(lab: Any, api: Any) -> None:
    edge = await setup(lab, api)
    await answer(edge, await report(edge, temperature=twin("1")))
    await report(edge, "nobody", temperature=twin("1"))
    await edge.ask("query", "kube-node-lease/lease/edge-1")
    text = await metrics(lab)
    assert "edgehive_devices 1" in text
    assert "edgehive_device_reports_total 2" in text
    assert "edgehive_device_reports_stored_total 1" in text
    assert 'edgehive_device_reports_refused_total{reason="unknown_device"} 1' in text
