"""CSINode objects of edge nodes, from what their annotations say."""

import json
from typing import Any

import pytest

from edgehive.cloud.csinodes import CSI_NODES, DRIVERS, NODE_IDS, CsiNodes, drivers_of
from edgehive.kube.status import ApiStatus
from tests.support.fakeapi import KINDS, FakeApi


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    monkeypatch.setitem(KINDS, CSI_NODES, "CSINode")
    return FakeApi()


def node(**annotations: str) -> bytes:
    return json.dumps({"metadata": {"name": "edge1", "uid": "u1", "annotations": annotations}}).encode()


async def drivers(api: FakeApi) -> Any:
    found = json.loads(await api.get(CSI_NODES, "edge1"))
    assert found["metadata"]["ownerReferences"][0] == {
        "apiVersion": "v1", "kind": "Node", "name": "edge1", "uid": "u1",
    }  # fmt: skip
    return found["spec"]["drivers"]


async def test_it_is_made_changed_and_emptied(api: FakeApi) -> None:
    nodes = CsiNodes(api=api)
    await nodes.follow(b'{"status":{}}', node(**{NODE_IDS: '{"d":"n"}'}))
    with pytest.raises(ApiStatus):
        await api.get(CSI_NODES, "edge1")
    patch = json.dumps({"metadata": {"annotations": {NODE_IDS: "x"}}}).encode()
    await nodes.follow(patch, node(**{NODE_IDS: '{"d":"n"}'}))
    assert await drivers(api) == [{"name": "d", "nodeID": "n"}]
    full = [{"name": "d", "nodeID": "n", "topologyKeys": ["t"], "allocatable": {"count": 3}}]
    await nodes.follow(patch, node(**{NODE_IDS: '{"d":"n"}', DRIVERS: json.dumps(full)}))
    assert await drivers(api) == full
    await nodes.follow(patch, node())
    assert await drivers(api) == []


async def test_a_cluster_that_refuses_does_not_fail_the_node(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(FakeApi):
        async def get(self, *arguments: Any, **more: Any) -> bytes:
            raise ApiStatus(403, "Forbidden", "no csinodes for you")

    nodes = CsiNodes(api=Refusing())
    for _ in range(3):
        await nodes.follow(NODE_IDS.encode(), node(**{NODE_IDS: '{"d":"n"}'}))
    await nodes.follow(NODE_IDS.encode(), b"[")
    assert caplog.text.count("no csinodes for you") == 1


@pytest.mark.parametrize("text", ["", "[", '{"a":1}', "[" * 100000])
def test_nonsense_says_nothing(text: str) -> None:
    assert drivers_of({NODE_IDS: text}) == drivers_of({DRIVERS: text}) == []
