"""An edge that says what it holds: nothing comes twice, nothing is missed, and little of it is recorded."""

import asyncio
from typing import Any

from edgehive.cloud.trace import Tracer
from edgehive.kube.refs import CONFIGMAPS, NODES, OBJECTSYNCS, PODS, SECRETS


def pod(name: str, node: str = "edge-1", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", **metadata}, "spec": {"nodeName": node}}


def holdings(*objects: dict[str, Any]) -> list[tuple[str, str, str]]:
    found = []
    for obj in objects:
        meta = obj["metadata"]
        resource = f"default/{obj['kind'].lower()}/{meta['name']}"
        found.append((resource, meta["uid"], meta["resourceVersion"]))
    return found


def recorded(api: Any, obj: dict[str, Any], node: str = "edge-1") -> str:
    record = api.find(OBJECTSYNCS, "default", f"{node}.{obj['metadata']['uid']}") or {}
    return record.get("status", {}).get("objectResourceVersion", "")


async def deliver(lab: Any, api: Any, *objects: dict[str, Any]) -> None:
    """Have everything acknowledged and recorded, and end cloudcore."""
    await lab.start()
    await lab.edge("edge-1")
    await api.until(lambda: all(recorded(api, o) == o["metadata"]["resourceVersion"] for o in objects))
    await lab.close()


async def test_a_node_whose_database_alone_was_lost_gets_everything_at_once(lab: Any, api: Any) -> None:
    api.put(NODES, {"metadata": {"name": "edge-1"}})
    objects = [api.put(PODS, pod(f"p{i}")) for i in range(3)]
    await deliver(lab, api, *objects)
    await lab.start()
    edge = await lab.edge("edge-1", holds=[])
    for index in range(3):
        # It has not even registered, and its certificate is the old one.
        await edge.wait(lambda m, i=index: m.resource == f"default/pod/p{i}" and m.operation == "update")


async def test_only_what_it_lacks_is_sent_after_a_crash_that_left_the_records_behind(
    lab: Any, api: Any
) -> None:
    kept, changed = api.put(PODS, pod("kept")), api.put(PODS, pod("changed"))
    await deliver(lab, api, kept, changed)
    kept, changed = (
        api.put(PODS, pod("kept", labels={"a": "1"})),
        api.put(PODS, pod("changed", labels={"a": "1"})),
    )
    before = changed["metadata"] | {"resourceVersion": str(int(changed["metadata"]["resourceVersion"]) - 1)}
    await lab.start()
    edge = await lab.edge("edge-1", holds=holdings(kept, changed | {"metadata": before}))
    await edge.wait(lambda m: m.resource == "default/pod/changed")
    new = api.put(PODS, pod("new"))
    await edge.wait(lambda m: m.resource == "default/pod/new")
    assert not [m for m in edge.received if m.resource == "default/pod/kept"], "it said that it has it"
    await api.until(lambda: recorded(api, new) == new["metadata"]["resourceVersion"])


async def test_a_trace_shows_what_a_node_holds_however_far_its_record_lags(lab: Any, api: Any) -> None:
    made = api.put(PODS, pod("p"))
    await deliver(lab, api, made)
    made = api.put(PODS, pod("p", labels={"a": "1"}))
    await lab.start(lab.make_config(delivery={"recordInterval": 60.0}))
    await lab.edge("edge-1", holds=holdings(made))
    version = int(made["metadata"]["resourceVersion"])
    tracer = Tracer(nodes=lab.core.parts.nodes, view=lab.core.parts.view)

    def acknowledged() -> int:
        return sum(row.get("acknowledged", 0) for row in tracer.trace("pod", "default", "p")["nodes"])

    async with asyncio.timeout(5):
        while acknowledged() != version:
            await asyncio.sleep(0.01)


async def test_a_delete_is_found_by_its_record_whatever_the_edge_says(lab: Any, api: Any) -> None:
    made = api.put(PODS, pod("p"))
    await deliver(lab, api, made)
    api.drop(PODS, "default", "p")
    await lab.start()
    edge = await lab.edge("edge-1", holds=holdings(made))
    await edge.wait(lambda m: m.operation == "delete" and m.resource == "default/pod/p")
    await api.until(lambda: not api.all(OBJECTSYNCS))


async def test_beyond_the_rate_records_lag_and_catch_up_when_the_node_is_gone(lab: Any, api: Any) -> None:
    delivery = {"recordInterval": 0.05, "recordRate": 1}
    await lab.start(lab.make_config(delivery=delivery))
    edge = await lab.edge("edge-1", holds=[])
    names = [f"p{i}" for i in range(8)]
    for name in names:
        api.put(PODS, pod(name))
    await api.until(lambda: sum(bool(recorded(api, o)) for o in api.all(PODS)) == 8)  # the first is always
    writes = api.count("patch", OBJECTSYNCS)
    changed = [api.put(PODS, pod(name, labels={"a": "1"})) for name in names]
    for made in changed:
        version = made["metadata"]["resourceVersion"]
        await edge.wait(lambda m, v=version: m.resource_version == v)
    pool = lab.core.parts.nodes.session("edge-1").pool
    while pool.depth:
        await edge.wait(lambda m: True)
        await edge.ask("query", "kube-node-lease/lease/edge-1")
    assert lab.core.parts.writer.stats.unrecorded >= 5
    await edge.socket.close()
    await api.until(
        lambda: sum(recorded(api, o) == o["metadata"]["resourceVersion"] for o in changed) >= 4, timeout=8
    )
    assert api.count("patch", OBJECTSYNCS) - writes <= 8


async def test_an_edge_that_does_not_tell_after_all_is_served_by_its_records(lab: Any, api: Any) -> None:
    from edgehive.wire.held import HOLDINGS_HEADER

    made = api.put(CONFIGMAPS, {"metadata": {"name": "c", "namespace": "default"}})
    api.put(PODS, pod("p"))
    await lab.start()
    edge = await lab.edge("edge-1", **{HOLDINGS_HEADER: "1"})
    await edge.wait(lambda m: m.resource == "default/pod/p")
    assert made["metadata"]["uid"]


async def test_an_edge_that_knows_its_uid_is_not_sent_a_secret_of_others(lab: Any, api: Any) -> None:
    secret = {"metadata": {"name": "s", "namespace": "default"}, "data": {"a": "MQ=="}}
    uid = api.put(SECRETS, secret)["metadata"]["uid"]
    await lab.start()
    edge = await lab.edge("edge-1", holds=[("default/secret/s", uid, "1")])
    api.put(SECRETS, secret | {"data": {"a": "Mg=="}})
    api.put(PODS, pod("p"))
    await edge.wait(lambda m: m.resource == "default/pod/p")
    assert not [m for m in edge.received if m.resource == "default/secret/s"]
    assert not api.find(OBJECTSYNCS, "default", f"edge-1.{uid}")
