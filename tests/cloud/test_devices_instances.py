"""Devices with several cloudcores on one cluster, and with instances that die."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgehive.kube.crd_devices import DEVICE_MODELS, DEVICE_STATUSES, DEVICES
from tests.support.deviceslab import answer, device, model, recorded, report, reported, status, twin
from tests.support.realapi import RealApi


@pytest.fixture
async def api() -> AsyncIterator[RealApi]:
    made = RealApi()
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def other(lab: Any, api: Any, new_lab: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """A second instance; it begins after the first, so that both have the same CA."""
    await api.put(DEVICE_MODELS, model())
    await api.put(DEVICES, device())
    await api.put(DEVICES, device("second", node="edge-2"))
    await lab.start(lab.make_config(devices={"statusInterval": 0.05}))
    folder = tmp_path / "other"
    folder.mkdir()
    made = new_lab(api, folder)
    await made.start(made.make_config(devices={"statusInterval": 0.05}))
    try:
        yield made
    finally:
        await made.close()


async def test_each_instance_serves_the_devices_of_its_nodes(lab: Any, other: Any, api: Any) -> None:
    here, there = await lab.edge("edge-1"), await other.edge("edge-2")
    await here.wait(lambda m: m.resource == "default/device/sensor")
    await there.wait(lambda m: m.resource == "default/device/second")
    await answer(here, await report(here, temperature=twin("1")))
    await answer(there, await report(there, "second", temperature=twin("2")))
    assert (reported(api), reported(api, "second")) == ({"temperature": "1"}, {"temperature": "2"})
    assert not [m for m in here.received if "second" in m.resource]


async def test_a_node_that_changes_the_instance_goes_on_where_it_stood(
    lab: Any, other: Any, api: Any
) -> None:
    sensor = api.find(DEVICES, "default", "sensor")
    edge = await lab.edge("edge-1")
    await answer(edge, await report(edge, temperature=twin("1", at=1, edge=1), mode=twin("auto", at=1)))
    await api.until(lambda: recorded(api, sensor) is not None)
    again = await other.edge("edge-1")
    await answer(again, await report(again, temperature=twin("2", at=2, edge=2)))
    await edge.socket.close()
    back = await lab.edge("edge-1")  # what this instance has stored meanwhile is not the newest any more
    await answer(back, await report(back, temperature=twin("1", at=1, edge=1)))
    assert reported(api) == {"temperature": "2", "mode": "auto"}
    await answer(back, await report(back, temperature=twin("3", at=3, edge=3)))
    assert reported(api) == {"temperature": "3", "mode": "auto"}


async def test_a_report_whose_instance_dies_before_it_is_stored_is_stored_by_the_other(
    lab: Any, other: Any, api: Any
) -> None:
    edge = await lab.edge("edge-1")
    await answer(edge, await report(edge, temperature=twin("1")))
    await api.until(lambda: status(api).get("twins"))
    lost = ConnectionResetError("killed")

    def fail(verb: str, gvr: Any, name: str) -> Exception | None:
        return lost if (verb, gvr) == ("patch", DEVICE_STATUSES) else None

    api.fail = fail
    request = await report(edge, temperature=twin("2", at=2, edge=2))
    await edge.ask("query", "kube-node-lease/lease/edge-1")
    await lab.stop()
    assert not [m for m in edge.received if m.parent_id == request.id]
    api.fail = lambda verb, gvr, name: None
    again = await other.edge("edge-1")  # an edge repeats what was not answered
    await answer(again, await report(again, temperature=twin("2", at=2, edge=2)))
    assert reported(api) == {"temperature": "2"}


async def test_a_desired_value_set_while_every_cloudcore_is_down_arrives_and_is_the_last(
    lab: Any, other: Any, api: Any
) -> None:
    edge = await lab.edge("edge-1")
    await edge.wait(lambda m: m.resource == "default/device/sensor")
    await lab.stop()
    await other.stop()
    for wish in ("30", "40", "50"):
        await api.put(DEVICES, device(wish=wish))
    await other.start(other.make_config())
    again = await other.edge("edge-1")
    await again.wait(lambda m: m.resource == "default/device/sensor" and b'"50"' in m.content)
    assert len([m for m in again.received if m.resource == "default/device/sensor"]) == 1
