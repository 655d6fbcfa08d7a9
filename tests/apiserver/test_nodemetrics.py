"""``metrics.k8s.io``: whom it asks, what it makes of the answers, and of silence."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from edgehive.apiserver.context import LOCAL, Call, Selection
from edgehive.apiserver.nodemetrics import RESOURCES, NodeMetrics
from edgehive.apiserver.reads import ObjectList
from edgehive.kube.builtin import BUILTIN
from edgehive.kube.status import ApiStatus

NODES, PODS = RESOURCES
CORE = {str(info.gvr): info for info in BUILTIN}


def use(cpu: int, memory: int, **more: Any) -> dict[str, Any]:
    return {"cpu": {"usageNanoCores": cpu}, "memory": {"workingSetBytes": memory}, **more}


class Site:
    """Nodes that answer, or do not; and the objects of a cluster."""

    def __init__(self, patience: float = 10.0) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {}
        self.nodes = [{"metadata": {"name": name, "labels": {"zone": name}}} for name in ("a", "b")]
        self.pods: list[dict[str, Any]] = []
        self.metrics = NodeMetrics(
            pages=self,
            reader=self,
            nodes=CORE["nodes"],
            pods=CORE["pods"],
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            patience=patience,
        )

    def add_pod(self, name: str, node: str, uid: str = "") -> None:
        self.pods.append(
            {
                "metadata": {"name": name, "namespace": "ns", "uid": uid or f"u-{name}"},
                "spec": {"nodeName": node},
            }
        )

    async def page(self, node: str, target: str) -> bytes:
        self.asked.append(node)
        answer = self.answers.get(node, ApiStatus(503, "ServiceUnavailable", "no tunnel"))
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            return b"{}"
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def get(self, call: Call, resource_version: str = "") -> bytes:
        for one in self.list(call, Selection()).items:
            if json.loads(one)["metadata"]["name"] == call.name:
                return one
        raise ApiStatus(404, "NotFound", "no")

    def list(self, call: Call, selection: Selection) -> ObjectList:
        assert selection.limit == 0
        found = self.nodes if call.resource == "nodes" else self.pods
        return ObjectList([json.dumps(one).encode() for one in found], "7")


async def many(site: Site, info: Any) -> dict[str, Any]:
    found = await site.metrics.many(Call(info, LOCAL), Selection(limit=3))
    return {one["metadata"]["name"]: one for one in json.loads(found.encode(info))["items"]}


async def test_nodes_are_asked_once_for_many_and_silent_ones_left_out() -> None:
    site = Site()
    site.answers["a"] = {"node": use(250_000_000, 2 << 20, nodeName="a"), "pods": []}
    found = await many(site, NODES)
    assert found["a"]["usage"] == {"cpu": "250000000n", "memory": "2048Ki"}
    assert found["a"]["metadata"]["labels"] == {"zone": "a"}
    assert set(found) == {"a"}, "b has no tunnel"
    await many(site, NODES)
    assert sorted(site.asked) == ["a", "b"], "also silence is believed for a moment"
    with pytest.raises(ApiStatus, match="not found"):
        await site.metrics.one(Call(NODES, LOCAL, name="b"))


async def test_a_node_speaks_for_its_own_pods_only() -> None:
    site = Site()
    site.add_pod("mine", "a")
    site.add_pod("theirs", "b")
    site.add_pod("waiting", "")
    stolen = {"podRef": {"uid": "u-theirs"}, "containers": [use(9, 9, name="c")]}
    own = {"podRef": {"uid": "u-mine"}, "containers": [use(1, 1024, name="c"), {"name": "new"}]}
    site.answers["a"] = {"node": {}, "pods": [own, stolen, {"podRef": {}, "containers": []}]}
    found = await many(site, PODS)
    assert set(found) == {"mine"}
    assert found["mine"]["containers"] == [{"name": "c", "usage": {"cpu": "1n", "memory": "1Ki"}}]
    assert found["mine"]["metadata"]["namespace"] == "ns"
    await site.metrics.one(Call(PODS, LOCAL, "ns", "mine"))
    assert sorted(site.asked) == ["a", "b"], "only nodes that have pods of the answer"


@pytest.mark.parametrize("nonsense", [b"", b"[]", b"\xff", b'{"pods":7}', b"[" * 100_000])
async def test_nonsense_is_no_answer(nonsense: bytes) -> None:
    site = Site()
    site.answers |= {"a": nonsense, "b": OSError("reset")}
    assert await many(site, NODES) == {}


async def test_a_node_that_never_answers_costs_no_more_than_the_patience() -> None:
    site = Site(patience=0.05)
    site.answers |= {"a": asyncio.Event(), "b": {"node": use(1, 1)}}
    assert set(await many(site, NODES)) == {"b"}
