"""Devices and models on their way to the nodes they belong to, over the embedded API server's own registry."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from edgehive.cloud.crds import ensure_crds
from edgehive.cloud.trace import Tracer
from edgehive.kit.errors import UserError
from edgehive.kube.crd_devices import DEVICE_MODELS, DEVICE_STATUSES, DEVICES
from edgehive.kube.status import ApiStatus
from tests.support.deviceslab import answer, device, model, recorded, report, twin
from tests.support.fakeapi import FakeApi
from tests.support.realapi import RealApi


@pytest.fixture
async def api() -> AsyncIterator[RealApi]:
    made = RealApi()
    await made.open()
    yield made
    await made.close()


async def test_a_device_arrives_after_its_model_and_is_recorded(lab: Any, api: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    thermo = await api.put(DEVICE_MODELS, model())
    sensor = await api.put(DEVICES, device())
    joined = await edge.wait(lambda m: m.resource == "membership")
    assert (joined.operation, joined.source, joined.group) == ("update", "devicecontroller", "twin")
    content = json.loads(joined.content)
    assert content["added_devices"] == [{"id": "default/sensor", "name": "sensor", "description": "hall"}]
    assert content["removed_devices"] is None
    assert content["event_id"]
    arrived = await edge.wait(lambda m: m.resource == "default/device/sensor")
    first = await edge.wait(lambda m: m.resource == "default/devicemodel/thermo")
    assert edge.received.index(first) < edge.received.index(arrived)
    for message, made in ((first, thermo), (arrived, sensor)):
        assert (message.operation, message.source, message.group) == (
            "insert",
            "devicecontroller",
            "resource",
        )
        assert message.resource_version == made["metadata"]["resourceVersion"]
        assert json.loads(message.content) == made
        await api.until(lambda made=made: recorded(api, made) == made["metadata"]["resourceVersion"])


def about(edge: Any, resource: str, operation: str = "") -> list[Any]:
    return [m for m in edge.received if m.resource == resource and operation in ("", m.operation)]


async def settled(api: Any, *objects: dict[str, Any], node: str = "edge-1") -> None:
    """Wait until the node has acknowledged these objects in these versions."""
    for made in objects:
        version = made["metadata"]["resourceVersion"]
        await api.until(lambda made=made, version=version: recorded(api, made, node) == version)


async def with_a_device(lab: Any, api: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    thermo = await api.put(DEVICE_MODELS, model())
    sensor = await api.put(DEVICES, device())
    await lab.start(lab.make_config(devices={"statusInterval": 0.05, "summaryInterval": 0.05}))
    edge = await lab.edge("edge-1")
    await settled(api, thermo, sensor)
    return edge, thermo, sensor


async def test_a_device_waits_until_its_model_is_acknowledged(lab: Any, api: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    edge.auto_ack = False
    await api.put(DEVICE_MODELS, model())
    await api.put(DEVICES, device())
    plain = device("plain")
    del plain["spec"]["deviceModelRef"]
    await api.put(DEVICES, plain)
    first = await edge.wait(lambda m: m.resource == "default/devicemodel/thermo")
    await edge.wait(lambda m: m.resource == "default/device/plain")  # needs no model, and does not wait
    assert not about(edge, "default/device/sensor")
    await edge.ack(first)
    assert (await edge.wait(lambda m: m.resource == "default/device/sensor")).operation == "insert"


async def test_a_device_waits_for_a_model_that_is_made_later_and_holds_up_nobody(lab: Any, api: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    await api.put(DEVICES, device())
    await api.put(DEVICE_MODELS, model("other"))
    await api.put(DEVICES, device("second", deviceModelRef={"name": "other"}))
    await edge.wait(lambda m: m.resource == "default/device/second")
    assert not about(edge, "default/device/sensor")
    await api.put(DEVICE_MODELS, model())
    await edge.wait(lambda m: m.resource == "default/device/sensor")


async def test_a_desired_value_travels_and_a_status_or_label_does_not(lab: Any, api: Any) -> None:
    edge, _, sensor = await with_a_device(lab, api)
    await api.change(DEVICES, "sensor", status={"note": "x"}, metadata={"labels": {"a": "b"}})
    changed = await api.put(DEVICES, device(wish="25"))
    found = await edge.wait(
        lambda m: m.resource == "default/device/sensor" and m.operation == "update" and b'"25"' in m.content
    )
    assert found.resource_version == changed["metadata"]["resourceVersion"]
    sent = [m.resource_version for m in about(edge, "default/device/sensor")]
    assert sent == [sensor["metadata"]["resourceVersion"], changed["metadata"]["resourceVersion"]]


async def test_a_model_that_changes_alone_is_sent_to_the_nodes_that_use_it(lab: Any, api: Any) -> None:
    edge, _, _ = await with_a_device(lab, api)
    other = await lab.edge("edge-2")
    await api.put(DEVICE_MODELS, model(protocol="opcua"))
    await edge.wait(lambda m: m.resource == "default/devicemodel/thermo" and b"opcua" in m.content)
    assert not about(other, "default/devicemodel/thermo")


async def test_a_deleted_device_leaves_and_its_model_with_the_last_of_them(lab: Any, api: Any) -> None:
    edge, thermo, sensor = await with_a_device(lab, api)
    second = await api.put(DEVICES, device("second"))
    await settled(api, second)
    await api.drop(DEVICES, "default", "sensor")
    await edge.wait(lambda m: m.resource == "default/device/sensor" and m.operation == "delete")
    left = await edge.wait(lambda m: m.resource == "membership" and b'"removed_devices":[' in m.content)
    assert json.loads(left.content)["removed_devices"][0]["id"] == "default/sensor"
    assert not about(edge, "default/devicemodel/thermo", "delete")
    await api.drop(DEVICES, "default", "second")
    await edge.wait(lambda m: m.resource == "default/devicemodel/thermo" and m.operation == "delete")
    await api.until(lambda: recorded(api, sensor) is None and recorded(api, thermo) is None)


async def test_a_device_moves_between_nodes(lab: Any, api: Any) -> None:
    edge, thermo, sensor = await with_a_device(lab, api)
    other = await lab.edge("edge-2")
    moved = await api.put(DEVICES, device(node="edge-2"))
    await edge.wait(lambda m: m.resource == "default/device/sensor" and m.operation == "delete")
    await edge.wait(lambda m: m.resource == "membership" and b'"removed_devices":[' in m.content)
    await other.wait(lambda m: m.resource == "membership" and b'"added_devices":[' in m.content)
    await other.wait(lambda m: m.resource == "default/device/sensor" and m.operation == "insert")
    await settled(api, moved, thermo, node="edge-2")
    await api.until(lambda: recorded(api, sensor) is None and recorded(api, thermo) is None)


async def test_a_device_may_come_back_while_its_departure_is_on_the_way(lab: Any, api: Any) -> None:
    edge, thermo, sensor = await with_a_device(lab, api)
    edge.auto_ack = False
    await api.put(DEVICES, device(node="edge-2"))
    back = await api.put(DEVICES, device())
    for resource in ("default/device/sensor", "default/devicemodel/thermo"):
        await edge.ack(await edge.wait(lambda m, r=resource: m.resource == r and m.operation == "delete"))
    async with asyncio.timeout(5):
        while len(models := about(edge, "default/devicemodel/thermo", "insert")) < 2:
            await asyncio.sleep(0.01)
    assert not about(edge, "default/device/sensor", "insert")[1:]  # its model first
    edge.auto_ack = True
    await edge.ack(models[1])
    await settled(api, back, thermo)
    assert [m.operation for m in about(edge, "default/device/sensor")] == ["insert", "delete", "insert"]
    assert sensor["metadata"]["uid"] == back["metadata"]["uid"]


async def test_a_device_moved_while_every_cloudcore_was_down(lab: Any, api: Any) -> None:
    await with_a_device(lab, api)
    await lab.stop()
    moved = await api.put(DEVICES, device(node="edge-2"))
    await lab.start()
    edge, other = await lab.edge("edge-1"), await lab.edge("edge-2")
    await edge.wait(lambda m: m.resource == "default/device/sensor" and m.operation == "delete")
    left = await edge.wait(lambda m: m.resource == "membership" and b'"removed_devices":[' in m.content)
    assert json.loads(left.content)["removed_devices"] == [{"id": "default/sensor", "name": "sensor"}]
    await other.wait(lambda m: m.resource == "default/device/sensor")
    await settled(api, moved, node="edge-2")
    await edge.wait(lambda m: m.resource == "default/devicemodel/thermo" and m.operation == "delete")
    await api.until(lambda: recorded(api, moved) is None)


async def test_a_device_deleted_while_every_cloudcore_was_down_leaves_the_device_table(
    lab: Any, api: Any
) -> None:
    _, _, sensor = await with_a_device(lab, api)
    await lab.stop()
    await api.drop(DEVICES, "default", "sensor")
    await lab.start()
    edge = await lab.edge("edge-1")
    gone = await edge.wait(lambda m: m.resource == "default/device/sensor")
    assert (gone.operation, gone.source) == ("delete", "devicecontroller")
    left = await edge.wait(lambda m: m.resource == "membership")
    assert json.loads(left.content)["removed_devices"] == [{"id": "default/sensor", "name": "sensor"}]
    await api.until(lambda: recorded(api, sensor) is None)


async def test_what_changed_while_the_node_was_away_is_there_when_it_returns(lab: Any, api: Any) -> None:
    edge, _, _ = await with_a_device(lab, api)
    await edge.socket.close()
    await api.put(DEVICES, device("second"))
    await api.put(DEVICES, device(wish="33"))
    again = await lab.edge("edge-1")
    joined = await again.wait(lambda m: m.resource == "membership")
    assert [d["id"] for d in json.loads(joined.content)["added_devices"]] == [
        "default/second",
        "default/sensor",
    ]
    await again.wait(lambda m: m.resource == "default/device/second" and m.operation == "insert")
    await again.wait(lambda m: m.resource == "default/device/sensor" and b'"33"' in m.content)


async def test_an_edge_that_asks_is_told_all_its_devices(lab: Any, api: Any) -> None:
    edge, _, _ = await with_a_device(lab, api)
    question = {"event_type": "group_membership_event", "event_id": "e", "group_id": "edge-1"}
    request = await edge.say(
        "get", "membership/detail", json.dumps(question), source="twin", group="resource"
    )
    assert (await edge.wait(lambda m: m.parent_id == request.id)).content == b'"OK"'
    detail = await edge.wait(lambda m: m.resource == "membership/detail")
    assert (detail.parent_id, detail.group, detail.operation) == ("", "twin", "update")
    found = {"id": "default/sensor", "name": "sensor", "description": "hall", "twin": {}}
    assert json.loads(detail.content)["devices"] == [found]


async def test_a_new_device_of_the_same_name_takes_the_place_of_the_old(lab: Any, api: Any) -> None:
    edge, _, sensor = await with_a_device(lab, api)
    await api.drop(DEVICES, "default", "sensor")
    fresh = await api.put(DEVICES, device(wish="30"))
    await settled(api, fresh)
    await api.until(lambda: recorded(api, sensor) is None)
    last = about(edge, "default/device/sensor")[-1]
    assert b'"30"' in last.content
    assert last.operation == "insert"
    assert b'"added_devices":[' in about(edge, "membership")[-1].content


async def test_a_restart_does_not_bring_a_device_again_whose_summary_alone_has_changed(
    lab: Any, api: Any
) -> None:
    edge, _, sensor = await with_a_device(lab, api)
    for value in ("27", "28"):
        await answer(edge, await report(edge, temperature=twin(value, at=int(value), edge=int(value))))
        await api.until(
            lambda value=value: (
                f"temperature={value}"
                == (api.find(DEVICES, "default", "sensor").get("status") or {}).get("reported")
            ),
            10,
        )
    assert recorded(api, sensor) == sensor["metadata"]["resourceVersion"]
    await lab.stop()
    await lab.start()
    again = await lab.edge("edge-1")
    await api.put(DEVICE_MODELS, model(protocol="opcua"))
    await again.wait(lambda m: m.resource == "default/devicemodel/thermo" and b"opcua" in m.content)
    assert not about(again, "default/device/sensor")
    await lab.stop()
    await api.put(DEVICES, device(wish="44"))
    await lab.start()
    last = await lab.edge("edge-1")
    await last.wait(lambda m: m.resource == "default/device/sensor" and b'"44"' in m.content)


async def test_with_the_module_switched_off_nothing_about_devices_happens(lab: Any, api: Any) -> None:
    await api.put(DEVICE_MODELS, model())
    await api.put(DEVICES, device())
    config = lab.make_config()
    off = msgspec.structs.replace(config.modules.device_controller, enable=False)
    modules = msgspec.structs.replace(config.modules, device_controller=off)
    await lab.start(msgspec.structs.replace(config, modules=modules))
    edge = await lab.edge("edge-1")
    await report(edge, temperature=twin("27"))
    await edge.ask("query", "kube-node-lease/lease/edge-1")  # answered after the report was looked at
    assert not [m for m in edge.received if "device" in m.source]
    assert not [gvr for _, gvr, _, _ in api.asked if gvr.group == "devices.kubeedge.io"]


async def test_where_a_device_stands_can_be_traced(lab: Any, api: Any) -> None:
    _, _, sensor = await with_a_device(lab, api)
    assert lab.core.parts is not None
    trace = Tracer(nodes=lab.core.parts.nodes, view=lab.core.parts.view).trace("device", "default", "sensor")
    assert trace["wanted"] == sensor["metadata"]["resourceVersion"]
    assert [(row["node"], row["meant"], row["acknowledged"]) for row in trace["nodes"]] == [
        ("edge-1", True, int(sensor["metadata"]["resourceVersion"]))
    ]


async def test_without_the_definitions_cloudcore_makes_them_or_says_how_to_go_on(fake: Any) -> None:
    with pytest.raises(UserError, match="devicemodels.*installCrds is false") as caught:
        await ensure_crds(fake, install=False, devices=True)
    assert "modules.deviceController" in caught.value.hint
    await ensure_crds(fake, install=True, devices=True)
    assert DEVICES in fake.kinds
    await ensure_crds(fake, install=False, devices=True)


async def test_without_the_right_that_the_chart_forgets_devices_are_delivered_all_the_same(
    lab: Any, api: Any, caplog: Any
) -> None:
    refused = ApiStatus(403, "Forbidden", "devicestatuses is forbidden")
    api.fail = lambda verb, gvr, name: refused if gvr == DEVICE_STATUSES else None
    edge, _, _ = await with_a_device(lab, api)
    request = await report(edge, temperature=twin("1"))
    await edge.ask("query", "kube-node-lease/lease/edge-1")
    assert "needs all verbs on devicestatuses.devices.kubeedge.io" in caplog.text
    api.fail = lambda verb, gvr, name: None  # once it is granted, what has waited is stored
    assert (await answer(edge, request)).content == b'"OK"'


@pytest.fixture
async def fake() -> FakeApi:
    api = FakeApi()
    await ensure_crds(api, install=True)  # those of the records
    return api
