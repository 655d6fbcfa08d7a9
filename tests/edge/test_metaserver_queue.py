"""Writes that wait for the cloud: kept over a restart, delivered in order, refusals told."""

import asyncio
import json

import pytest

from edgehive.kube.api import MERGE_PATCH
from edgehive.kube.refs import CONFIGMAPS, CRDS, EVENTS, GVR
from edgehive.kube.status import ApiStatus
from tests.support.metaserver_lab import DEFAULT, until, with_lab
from tests.support.metaserver_things import THINGS

THING = GVR("clients.example.com", "v1", "things")
MAPS = "/api/v1/namespaces/default/configmaps"
EVENT_PATH = "/api/v1/namespaces/default/events"
THING_PATH = "/apis/clients.example.com/v1/namespaces/default/things"
MERGE = {"Content-Type": MERGE_PATCH}


def event(**meta) -> dict:
    about = {"kind": "Pod", "name": "p", "namespace": "default"}
    return {"metadata": meta, "involvedObject": about, "reason": "Seen", "message": "m", "type": "Normal"}


async def with_queue(lab, *resources):
    """Begin the edge anew with a queue, and let it know its kinds."""
    lab.offline_writes = list(resources)
    await lab.restart_edge()
    for path in ("/api/v1", "/apis/clients.example.com/v1"):
        await lab.ask(path)


async def empty(lab):
    async def check():
        return len(lab.server.queue) == 0

    await until(check)


@with_lab
async def test_events_are_kept_over_a_restart_and_delivered_in_order_once(lab):
    await with_queue(lab, "events")
    lab.link.switch(False)
    made = []
    for number in range(3):
        code, found, _ = await lab.ask(EVENT_PATH, "POST", event(generateName=f"e{number}."))
        assert code == 201
        made.append(found["metadata"]["name"])
    patch = {"count": 7}
    assert (await lab.ask(f"{EVENT_PATH}/{made[0]}", "PATCH", patch, **MERGE))[1]["count"] == 7
    code, found, headers = await lab.ask(f"{EVENT_PATH}/{made[0]}")
    assert (code, found["count"]) == (200, 7)
    assert "waits for the cloud" in headers["warning"]
    # what is not configured is refused as ever, and so is everything that only tries
    assert (await lab.ask(MAPS, "POST", {"metadata": {"name": "x"}}))[0] == 503
    assert (await lab.ask(f"{EVENT_PATH}?dryRun=All", "POST", event(name="d")))[0] == 503
    assert (await lab.ask(f"{EVENT_PATH}/{made[0]}", "DELETE"))[0] == 503
    assert (await lab.ask(EVENT_PATH, "POST", event()))[0] == 422

    await lab.restart_edge()
    assert len(lab.server.queue) == 4
    lab.link.switch(True)
    await empty(lab)
    there = [json.loads(raw) for raw in (await lab.api.list(EVENTS)).items]
    there = sorted(
        (e for e in there if e.get("reason") == "Seen"), key=lambda e: int(e["metadata"]["resourceVersion"])
    )
    assert [e["metadata"]["name"] for e in there][-3:] == [
        made[1],
        made[2],
        made[0],
    ]  # the first was patched last
    assert there[-1]["count"] == 7
    assert lab.server.queue.stats.delivered == 4
    assert not lab.reported


@with_lab
async def test_a_conflict_is_reported_and_told_to_later_readers(lab):
    await lab.api.create(CRDS, json.dumps(THINGS).encode())
    thing = {
        "apiVersion": "clients.example.com/v1",
        "kind": "Thing",
        "metadata": {"name": "t"},
        "spec": {"v": 1},
    }
    await lab.api.create(THING, json.dumps(thing).encode(), DEFAULT)
    await with_queue(lab, "things.clients.example.com/status")
    _, held, _ = await lab.ask(f"{THING_PATH}/t")
    lab.link.switch(False)
    for number in (1, 2):  # the later whole takes the place of the earlier one
        body = held | {"status": {"n": number}}
        assert (await lab.ask(f"{THING_PATH}/t/status", "PUT", body))[0] == 200
    assert len(lab.server.queue) == 1
    assert (await lab.ask(f"{THING_PATH}/t"))[1]["status"] == {"n": 2}
    assert (await lab.ask(f"{THING_PATH}/t", "PUT", held))[0] == 503  # its spec may not wait
    await lab.api.patch(THING, "t", b'{"spec":{"v":2}}', MERGE_PATCH, DEFAULT)
    lab.link.switch(True)
    await empty(lab)
    (reported,) = lab.reported
    assert reported["reason"] == "OfflineWriteRefused"
    assert reported["involvedObject"]["name"] == "t"
    code, found, headers = await lab.ask(f"{THING_PATH}/t")
    assert (code, found["spec"], found.get("status")) == (200, {"v": 2}, None)
    assert "was refused" in headers["warning"]

    # a patch says nothing of versions, and arrives
    lab.link.switch(False)
    assert (await lab.ask(f"{THING_PATH}/t/status", "PATCH", {"status": {"n": 3}}, **MERGE))[0] == 200
    lab.link.switch(True)
    await empty(lab)
    assert json.loads(await lab.api.get(THING, "t", DEFAULT))["status"] == {"n": 3}


@with_lab
async def test_a_write_whose_answer_was_lost_is_no_conflict_with_itself(lab):
    await with_queue(lab, "configmaps")
    lab.link.switch(False)
    body = {"metadata": {"name": "q"}, "data": {"k": "1"}}
    assert (await lab.ask(MAPS, "POST", body))[0] == 201
    # It reached the cluster, and the edge ended before it heard so.
    with lab.server.queue._store.transaction() as db:
        db.execute("UPDATE edgehive_writes SET sent = 1")
    await lab.api.create(
        CONFIGMAPS, json.dumps(body | {"apiVersion": "v1", "kind": "ConfigMap"}).encode(), DEFAULT
    )
    await lab.restart_edge()
    lab.link.switch(True)
    await empty(lab)
    assert not lab.reported


@with_lab
async def test_a_full_queue_says_so_and_loses_nothing(lab, monkeypatch):
    monkeypatch.setattr("edgehive.edge.metaserver_queue.MAX_WRITES", 2)
    await with_queue(lab, "events")
    lab.link.switch(False)
    codes = [(await lab.ask(EVENT_PATH, "POST", event(name=f"e{n}")))[0] for n in range(3)]
    assert codes == [201, 201, 429]
    lab.link.switch(True)
    await empty(lab)
    assert lab.server.queue.stats.delivered == 2


@with_lab
async def test_neither_a_full_disk_nor_a_body_nobody_can_read_ends_the_delivery(lab):
    await with_queue(lab, "events")
    lab.link.switch(False)
    for name, meta in (("bad", {"labels": {"a": 5}}), ("good", {})):
        assert (await lab.ask(EVENT_PATH, "POST", event(name=name, **meta)))[0] == 201
    with lab.store.transaction() as db:  # as a full disk: reading goes on
        db.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON edgehive_writes BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    delivered = asyncio.Event()
    lab.server.queue._delivered = lambda gvr, raw: delivered.set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgehive.edge.metaserver_queue._AGAIN", 0.01)
        lab.link.switch(True)
        async with asyncio.timeout(5):
            while "full" not in lab.server.queue.problem:
                await asyncio.sleep(0.01)
        assert len(lab.server.queue) == 2
        assert not lab.task.done()
        with lab.store.transaction() as db:
            db.execute("DROP TRIGGER full")
        await empty(lab)
    assert delivered.is_set()
    assert [one["involvedObject"]["name"] for one in lab.reported] == ["bad"]


@with_lab
async def test_a_patch_that_never_arrived_is_not_taken_for_done(lab):
    await lab.put("q", k="0")
    await with_queue(lab, "configmaps")
    _, held, _ = await lab.ask(f"{MAPS}/q")
    lab.link.switch(False)
    version = held["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "data": {"k": "mine"}}
    assert (await lab.ask(f"{MAPS}/q", "PATCH", patch, **MERGE))[0] == 200
    with lab.server.queue._store.transaction() as db:
        db.execute("UPDATE edgehive_writes SET sent = 1")  # it was sent, and lost on the way
    await lab.api.patch(CONFIGMAPS, "q", b'{"data":{"k":"theirs"}}', MERGE_PATCH, DEFAULT)
    lab.link.switch(True)
    await empty(lab)
    (reported,) = lab.reported
    assert reported["involvedObject"]["name"] == "q"


@with_lab
async def test_an_object_the_cluster_fails_over_holds_up_no_other_and_is_given_up_in_the_end(
    lab, monkeypatch
):
    monkeypatch.setattr("edgehive.edge.metaserver_queue._AGAIN", 0.01)
    monkeypatch.setattr("edgehive.edge.metaserver_queue._TRIES", 3)
    await with_queue(lab, "events")
    lab.link.switch(False)
    for name in ("bad", "good"):
        assert (await lab.ask(EVENT_PATH, "POST", event(name=name)))[0] == 201
    assert (await lab.ask(f"{EVENT_PATH}/bad", "PATCH", {"count": 2}, **MERGE))[0] == 200
    ask, asked = lab.server.queue._ask, []

    async def failing(application, wait):
        asked.append((application.verb, application.target.name))
        if application.target.name == "bad":
            raise ApiStatus(500, "InternalError", "a webhook is broken")
        return await ask(application, wait)

    lab.server.queue._ask = failing
    lab.link.switch(True)
    await empty(lab)
    assert asked[:2] == [("create", "bad"), ("create", "good")]
    assert asked[2:] == [("create", "bad")] * 3 + [("patch", "bad")] * 4
    assert [one["involvedObject"]["name"] for one in lab.reported] == ["bad", "bad"]
