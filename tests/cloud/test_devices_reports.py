"""What devices report, on its way into their DeviceStatus."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edgehive.kube.crd_devices import DEVICE_MODELS, DEVICE_STATUSES, DEVICES
from tests.support.deviceslab import answer, device, model, report, reported, status, twin
from tests.support.realapi import RealApi


@pytest.fixture
async def api() -> AsyncIterator[RealApi]:
    made = RealApi()
    await made.open()
    yield made
    await made.close()


async def setup(lab: Any, api: Any) -> Any:
    await api.put(DEVICE_MODELS, model())
    await api.put(DEVICES, device())
    await lab.start()
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
