"""Devices and models on their way to the nodes they belong to, over the embedded API server's own registry."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edgehive.kube.crd_devices import DEVICE_MODELS, DEVICES
from tests.support.deviceslab import device, model, recorded
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
