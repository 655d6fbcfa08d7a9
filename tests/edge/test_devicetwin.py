"""The device twin over a real database: durable before anybody hears, taken over from KubeEdge, whole after any end."""

import asyncio
import json
import logging
import sqlite3
from contextlib import asynccontextmanager, closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.beehive.hive import Delivery
from edgehive.beehive.inbox import InboxFull
from edgehive.edge import devicetwin
from edgehive.edge.devicetwin import DeviceTwin
from edgehive.edge.dmi import TwinReport
from edgehive.edge.store import EdgeStore
from edgehive.edge.twin_rows import TwinRows
from edgehive.kit.errors import ProtocolError, StorageError
from edgehive.twin.core import TwinCore
from edgehive.wire.message import Message
from edgehive.wire.outbox import Entry, Outbox, OutboxLimits, Settled
from edgehive.wire.rows import Put, Remove, Row
from tests.twin.test_twin_core import Clock

ID = "default/d1"
TOPIC = f"$hw/events/device/{ID}"
MEMBER = b'{"added_devices":[{"id":"default/d1","name":"d1"}],"removed_devices":null}'


def device_object(name="d1", **desired):
    properties = [{"name": k, "desired": {"value": v}} if v else {"name": k} for k, v in desired.items()]
    return json.dumps(
        {"metadata": {"name": name, "namespace": "default"}, "spec": {"properties": properties}}
    ).encode()


class Hub:
    """The link, over a real outbox; `now` is its clock."""

    def __init__(self, store, limits=None):
        self.outbox = Outbox(store=store, limits=limits)
        self.once = []
        self.now = 0.0
        self.connection, self.settled, self.abandoned = [], [], []

    def send_kept(self, message, *, replace=False, durable=True):
        return self.outbox.put(message, replace=replace, durable=durable)

    def forget_kept(self, resource):
        self.outbox.forget(resource)

    def send_once(self, message):
        self.once.append(message)
        return True

    def on_connection(self, callback):
        self.connection.append(callback)

    def on_settled(self, callback):
        self.settled.append(callback)

    def on_given_up(self, callback):
        self.abandoned.append(callback)

    def connect(self, up=True):
        if not up:
            self.outbox.link_lost()
        for callback in self.connection:
            callback(up)

    def take(self):
        return self.outbox.take(self.now, 100)

    def answer(self, message, content=b'"OK"'):
        reply = Message("a", 1, "response", "twin", content, parent_id=message.id)
        if (settled := self.outbox.receive_answer(reply, self.now)) is not None:
            for callback in self.settled:
                callback(settled)

    def wait(self, seconds):
        self.now += seconds
        self.outbox.handle_timer(self.now)
        for entry in self.outbox.given_up():
            for callback in self.abandoned:
                callback(entry)


class Node:
    def __init__(self, path, limits=None):
        self.store = EdgeStore(path)
        self.hub = Hub(self.store, limits)
        self.published = []
        self.twin = DeviceTwin(node="n", store=self.store, cloud=self.hub, stamp=Clock())
        self.twin.publish_to(lambda topic, payload: self.published.append((topic, json.loads(payload))))

    def update(self, event="e", device=ID, **actual):
        twins = {name: {"actual": {"value": value}} for name, value in actual.items()}
        payload = json.dumps({"event_id": event, "twin": twins}).encode()
        self.twin.mqtt(f"$hw/events/device/{device}/twin/update", payload)

    async def message(self, operation, resource, content, **more):
        await self.twin.receive(Delivery(Message("m", 1, operation, resource, content, **more)))

    def said(self, what):
        return [payload for topic, payload in self.published if topic.endswith(what)]

    async def idle(self):
        """Until everything asked so far is done."""
        await self.message("update", "membership", b"{}")
        await asyncio.sleep(0)

    def stored(self, name):
        """What another process would read now: the committed state."""
        with closing(sqlite3.connect(self.path())) as db, db:
            return db.execute("SELECT actual, expected FROM device_twin WHERE name = ?", (name,)).fetchone()

    def path(self):
        return self.store.query("PRAGMA database_list")[0][2]


@asynccontextmanager
async def node(path, **more):
    made = Node(path / "edgecore.db", **more)
    task = asyncio.get_running_loop().create_task(made.twin.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait([task])
        made.store.close()


async def test_what_is_published_is_already_stored(tmp_path):
    async with node(tmp_path) as edge:
        await edge.message("update", "membership", MEMBER)
        seen = []
        edge.twin.publish_to(lambda topic, payload: seen.append((topic.rpartition("/")[2], edge.stored("t"))))
        edge.update(t="1")
        await edge.idle()
        assert seen == [("result", ("1", "")), ("document", ("1", ""))]


async def test_what_is_sent_is_already_stored_and_what_is_read_is_answered_after(tmp_path):
    async with node(tmp_path) as edge:
        await edge.message("insert", "default/device/d1", device_object(target="5"))
        edge.hub.connect()
        kept, stored = edge.hub.send_kept, []
        edge.hub.send_kept = lambda m, **more: (stored.append(edge.stored("t")), kept(m, **more))[1]
        for message in edge.hub.take():
            edge.hub.answer(message)
        await edge.twin.report_twins("default", "d1", [TwinReport("t", "7", None, {})])
        assert edge.stored("t") == ("7", "")
        await edge.idle()
        assert stored == [("7", "")]


async def test_a_device_that_comes_back_does_not_wait_for_an_answer_to_its_former_life(tmp_path):
    async with node(tmp_path) as edge:
        await edge.message("insert", "default/device/d1", device_object(target="5"))
        edge.hub.connect()
        edge.update(t="1")
        await edge.idle()
        assert edge.hub.take()  # in flight; the cloud has deleted the device and says nothing
        await edge.message("delete", "default/device/d1", b"")
        assert len(edge.hub.outbox) == 0
        await edge.message("insert", "default/device/d1", device_object(target="6"))
        edge.update(t="2")
        await edge.idle()
        (report,) = edge.hub.take()
        assert b'"6"' in report.content


async def test_a_kill_between_write_and_publish_loses_no_value_and_no_report(tmp_path):
    class Killed(BaseException):
        pass

    made = Node(tmp_path / "edgecore.db")
    task = asyncio.get_running_loop().create_task(made.twin.run())
    await made.message("update", "membership", MEMBER)
    made.hub.connect()

    def die(topic, payload):
        raise Killed

    made.twin.publish_to(die)
    made.update(t="1")
    await asyncio.wait([task])
    assert isinstance(task.exception(), Killed)
    assert not made.hub.take()
    made.store.close()
    async with node(tmp_path) as edge:
        assert edge.twin.core.devices[ID].twins["t"].actual.value == "1"
        edge.hub.connect()
        (message,) = edge.hub.take()
        assert json.loads(message.content)["twin"]["t"]["actual_version"] == {"cloud": 0, "edge": 1}


async def test_everything_is_as_it_was_after_a_restart(tmp_path):
    async with node(tmp_path) as edge:
        member = {"id": ID, "name": "d1", "description": "d", "attributes": {"a": {"value": "1"}}}
        await edge.message("update", "membership", json.dumps({"added_devices": [member]}).encode())
        put(edge.store, "d1", device_object(target="25", power="on"))
        await edge.message("insert", "default/device/d1", device_object(target="25", power="on"))
        payload = {
            "twin": {"temp": {"actual": {"value": "1.5"}, "metadata": {"type": "float"}, "optional": False}}
        }
        edge.twin.mqtt(f"{TOPIC}/twin/update", json.dumps(payload).encode())
        edge.twin.mqtt(f"{TOPIC}/twin/update", b'{"twin":{"power":null}}')
        edge.twin.mqtt(f"{TOPIC}/state/update", b'{"state":"online"}')
        await edge.idle()
        before = edge.twin.core.devices[ID]
        with closing(sqlite3.connect(edge.path())) as db, db:
            (row,) = db.execute(
                "SELECT expected, expected_meta, expected_version, attr_type FROM device_twin WHERE name = 'power'"
            )
        assert row[0] is None
        assert row[1] is None
        assert (json.loads(row[2]), row[3]) == ({"cloud": 0, "edge": 2}, "deleted")
    async with node(tmp_path) as edge:
        after = edge.twin.core.devices[ID]
        assert (after.shown(), after.entry(), after.has_object) == (before.shown(), before.entry(), True)
        assert after.twins["power"].expected_version == before.twins["power"].expected_version
        edge.published.clear()
        await edge.message("insert", "default/device/d1", device_object(target="25", power="on"))
        assert edge.published == [], "a restart does not make an old wish a new one"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["twin/update", "twin/cloud_updated"]),
        st.dictionaries(
            st.sampled_from("abc"),
            st.none()
            | st.fixed_dictionaries(
                {},
                optional={
                    "expected": st.sampled_from(["1", "2"]).map(lambda v: {"value": v}),
                    "actual": st.sampled_from(["1", "2"]).map(lambda v: {"value": v}),
                    "optional": st.booleans(),
                    "metadata": st.sampled_from(["int", "string", "deleted"]).map(lambda t: {"type": t}),
                    "expected_version": st.integers(0, 9).map(lambda e: {"cloud": 1, "edge": e}),
                    "actual_version": st.integers(0, 9).map(lambda e: {"cloud": 1, "edge": e}),
                },
            ),
        ),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_a_database_holds_everything_of_a_device(tmp_path_factory, steps):
    store = EdgeStore(tmp_path_factory.mktemp("twin") / "db")
    try:
        rows = TwinRows(store)
        core = TwinCore(node="n", stamp=Clock())
        rows.apply(core.membership(MEMBER, detail=False))
        for what, twin in steps:
            rows.apply(core.mqtt(f"{TOPIC}/{what}", json.dumps({"twin": twin}).encode()))
        (again,) = TwinRows(store).load()
        assert again.shown() == shown_without_gone(core.devices[ID])
        assert {k: (t.expected_version, t.actual_version, t.metadata) for k, t in again.twins.items()} == {
            k: (t.expected_version, t.actual_version, t.metadata) for k, t in core.devices[ID].twins.items()
        }
    finally:
        store.close()


def shown_without_gone(device):
    """A value that was deleted (``{}`` to clients until the next start) is not there after a restart."""
    result = {}
    for key, twin in device.shown().items():
        sides = {s: v if v is None or v.value is not None else None for s, v in (("expected", twin.expected), ("actual", twin.actual))}  # fmt: skip
        result[key] = type(twin)(sides["expected"], sides["actual"], twin.optional, twin.metadata)
    return result


GO_SCHEMA = """
CREATE TABLE `device` (`id` text,`name` text,`description` text,`state` text,`last_online` text,PRIMARY KEY (`id`));
CREATE TABLE `device_attr` (`id` integer PRIMARY KEY AUTOINCREMENT,`deviceid` text,`name` text,`description` text,
  `value` text,`optional` numeric,`attr_type` text,`metadata` text);
CREATE TABLE `device_twin` (`id` integer PRIMARY KEY AUTOINCREMENT,`deviceid` text,`name` text,`description` text,
  `expected` text,`actual` text,`expected_meta` text,`actual_meta` text,`expected_version` text,
  `actual_version` text,`optional` numeric,`attr_type` text,`metadata` text);
INSERT INTO device VALUES ('default/d1','d1','','Online','2026-11-24T03:51:00Z'), ('gone/d2','d2','','','');
CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, type TEXT, value TEXT);
INSERT INTO meta VALUES ('default/device/d1', 'device', '{"metadata":{"name":"d1"},"spec":{}}');
INSERT INTO device_attr VALUES (1,'default/d1','a','','v',1,'string','{}');
INSERT INTO device_twin VALUES
 (1,'default/d1','temp','','25','21.5','{"timestamp":2}','{"timestamp":1}','{"cloud":0,"edge":1}','{"cloud":0,"edge":3}',1,'float','{}'),
 (2,'default/d1','old','',NULL,NULL,NULL,NULL,'{"cloud":0,"edge":2}','',1,'deleted','{}'),
 (3,'default/d1','odd','','x','y','nonsense','','{bad','',0,'','');
"""


async def test_the_database_of_an_original_edgecore_is_taken_over(tmp_path):
    path = tmp_path / "edgecore.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(GO_SCHEMA)
    async with node(tmp_path) as edge:
        device = edge.twin.core.devices[ID]
        assert (device.state, device.last_online, device.has_object) == (
            "Online",
            "2026-11-24T03:51:00Z",
            True,
        )
        assert device.attributes["a"].value == "v"
        assert (device.twins["temp"].actual.value, device.twins["temp"].actual_version.edge) == ("21.5", 3)
        assert set(device.shown()) == {"temp", "odd"}
        await edge.idle()
        (left,) = edge.said("membership/updated")
        assert left["removed_devices"] == [{"id": "gone/d2"}], (
            "deleted while no cloudcore ran: the original keeps it"
        )
        edge.hub.connect()
        kinds = sorted(message.resource for message in edge.hub.take())
        assert kinds == [f"device/{ID}/state/update", f"device/{ID}/twin/edge_updated"]
        edge.twin._rows.apply((), clean=[ID])
        again = TwinRows(edge.store)
        assert again.load()
        assert again.owed() == []
        edge.update(temp="22", new="1")
        await edge.idle()
    with closing(sqlite3.connect(path)) as db, db:  # what KubeEdge reads when it comes back
        rows = db.execute(
            "SELECT name, expected, actual, actual_version, optional, attr_type, metadata FROM device_twin"
            " WHERE name IN ('temp', 'new') ORDER BY id"
        ).fetchall()
        assert rows == [
            ("temp", "25", "22", '{"cloud":0,"edge":4}', 1, "float", "{}"),
            ("new", "", "1", '{"cloud":0,"edge":1}', 1, "string", "{}"),
        ]
        assert db.execute("SELECT id FROM device").fetchall() == [(ID,)]


# -- objects


class Objects:
    def __init__(self):
        self.calls = []

    def set_model(self, raw):
        self.calls.append(("model", json.loads(raw)["metadata"]["name"]))

    def set_device(self, raw):
        self.calls.append(("device", json.loads(raw)["metadata"]["name"]))

    def remove_model(self, namespace, name):
        self.calls.append(("no model", f"{namespace}/{name}"))

    def remove_device(self, namespace, name):
        self.calls.append(("no device", f"{namespace}/{name}"))


def put(store, name, raw=None, kind="device"):
    store.apply([Put(Row(f"default/{kind}/{name}", kind, raw or device_object(name)))])


async def test_objects_are_known_before_mappers_are_heard(tmp_path):
    async with node(tmp_path) as edge:
        put(edge.store, "m", kind="devicemodel")
        put(edge.store, "d1")
        objects = Objects()
        edge.twin.attach(objects)
        assert objects.calls == [("model", "m"), ("device", "d1")]
        await edge.message("update", "default/devicemodel/m", device_object("m"))
        await edge.message("delete", "default/device/d1", b"{}")
        await edge.message("delete", "default/devicemodel/m", b"null")
        assert objects.calls[2:] == [("model", "m"), ("no device", ID), ("no model", "default/m")]


async def test_objects_and_devices_agree_after_a_start(tmp_path):
    """Whatever was lost between the database and the twin: an object that came, one that went."""
    async with node(tmp_path) as edge:
        await edge.message("insert", "default/device/d1", device_object("d1"))
        await edge.message("update", "membership", MEMBER.replace(b"d1", b"only-a-member"))
        edge.store.apply([Remove("default/device/d1")])
        put(edge.store, "d2", device_object("d2", power="on"))
    async with node(tmp_path) as edge:
        await edge.idle()
        assert set(edge.twin.core.devices) == {"default/d2", "default/only-a-member"}
        added, removed = edge.said("membership/updated")
        assert added["added_devices"][0]["id"] == "default/d2"
        assert removed["removed_devices"] == [{"id": ID}]
        assert edge.said("delta")[0]["delta"] == {"power": "on"}


async def test_an_object_that_cannot_be_read_is_said_so_and_the_rest_goes_on(tmp_path, caplog):
    async with node(tmp_path) as edge:
        put(edge.store, "bad", b'{"spec": {"properties": 5}}')
        put(edge.store, "d1")
    async with node(tmp_path) as edge:
        await edge.idle()
        assert set(edge.twin.core.devices) == {ID}
        await edge.message("insert", "default/device/worse", b"[" * 100_000)
        await edge.message("insert", "default/device/d2", device_object("d2"))
        assert set(edge.twin.core.devices) == {ID, "default/d2"}
        assert "not a Device" in caplog.text


async def test_membership_and_synchronisation_from_the_cloud(tmp_path):
    async with node(tmp_path) as edge:
        await edge.message("update", "node/n/membership", MEMBER, group="twin", source="devicecontroller")
        await edge.message("update", "membership", b"nonsense")
        sync = {"twin": {"t": {"expected": {"value": "1"}, "expected_version": {"cloud": 1, "edge": 0}}}}
        await edge.message("update", f"device/{ID}/twin/cloud_updated", json.dumps(json.dumps(sync)).encode())
        assert edge.twin.core.devices[ID].twins["t"].expected.value == "1"
        await edge.message("update", "membership/detail", b'{"devices":[]}')
        assert not edge.twin.core.devices
        await edge.message("response", "twin", b'"OK"', parent_id="x")
        await edge.message("connect", "node/connection", b'"cloud_connected"')
        await edge.message("update", "default/pod/x", b"{}")


# -- the disk


async def test_a_disk_that_refuses_is_told_to_the_sender_and_nothing_has_happened(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    async with node(tmp_path) as edge:
        await edge.message("update", "membership", MEMBER)
        edge.update(t="1")
        await edge.idle()
        edge.published.clear()
        edge.store.query("PRAGMA query_only = ON")
        edge.update("full", t="2")
        with pytest.raises(StorageError):
            await edge.twin.report_twins("default", "d1", [TwinReport("t", "3", None, {})])
        (answer,) = edge.said("result")
        assert (answer["event_id"], answer["code"]) == ("full", 500)
        assert len(edge.published) == 1
        assert edge.twin.core.devices[ID].twins["t"].actual.value == "1"
        edge.store.query("PRAGMA query_only = OFF")
        edge.update(t="4")
        await edge.idle()
        assert edge.stored("t") == ("4", "")
        assert edge.twin.core.devices[ID].twins["t"].actual_version.edge == 2
        assert edge.twin.stats.not_stored == 2
    said = [r.levelname for r in caplog.records if "further ones" in r.message or "stored again" in r.message]
    assert said == ["ERROR", "INFO"], "once, however often it happens"


async def test_a_request_that_finds_a_fault_of_ours_harms_nobody_else(tmp_path, caplog):
    async with node(tmp_path) as edge:
        await edge.message("update", "membership", MEMBER)

        def half_done():
            edge.twin.core.mqtt(f"{TOPIC}/twin/update", b'{"twin":{"half":{"actual":{"value":"1"}}}}')
            raise KeyError("a fault")

        edge.update("before", t="1")
        edge.twin._add(
            devicetwin._Job(
                half_done, lambda reason: edge.twin.core.not_done(f"{TOPIC}/twin/update", b"{}", reason)
            )
        )
        edge.update("after", t="2")
        await edge.idle()
        assert [(one["event_id"], one.get("reason")) for one in edge.said("result")] == [
            ("before", None),
            ("", "internal error"),
            ("after", None),
        ]
        assert edge.stored("t") == ("2", "")
        assert set(edge.twin.core.devices[ID].twins) == {"t"}
        assert "a fault" in caplog.text


async def test_an_object_that_could_not_be_applied_is_applied_later(tmp_path, monkeypatch):
    monkeypatch.setattr(devicetwin, "_RETRY_SECONDS", 0.01)
    async with node(tmp_path) as edge:
        await edge.idle()
        put(edge.store, "d1", device_object("d1", power="on"))
        edge.store.query("PRAGMA query_only = ON")
        await edge.message("insert", "default/device/d1", device_object("d1", power="on"))
        assert not edge.twin.core.devices
        edge.store.query("PRAGMA query_only = OFF")
        async with asyncio.timeout(5):
            while not edge.said("delta"):
                await asyncio.sleep(0.01)
        assert edge.said("delta")[0]["delta"] == {"power": "on"}


async def test_too_many_requests_are_refused_with_an_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(devicetwin, "_QUEUE", 3)
    async with node(tmp_path) as edge:
        await edge.message("update", "membership", MEMBER)
        for number in range(5):
            edge.update(f"e{number}", t=str(number))
        assert [(one["event_id"], one["code"]) for one in edge.said("result")] == [("e3", 500), ("e4", 500)]
        with pytest.raises(InboxFull):
            await edge.twin.report_state("default", "d1", "ok")
        await edge.message(
            "insert", "default/device/d2", device_object("d2")
        )  # what the cloud says is never refused
        assert "default/d2" in edge.twin.core.devices
        assert [one["event_id"] for one in edge.said("result")][2:] == ["e0", "e1", "e2"]
        assert edge.twin.stats.refused == 3


async def test_a_mapper_hears_what_was_not_taken(tmp_path):
    async with node(tmp_path) as edge:
        await edge.message("update", "membership", MEMBER)
        with pytest.raises(ProtocolError, match="no device default/nope"):
            await edge.twin.report_twins("default", "nope", [TwinReport("t", "1", None, {})])
        with pytest.raises(ProtocolError, match="longer than"):
            await edge.twin.report_twins(
                "default", "d1", [TwinReport("t", "1", None, {}), TwinReport("u", "x" * 20_000, None, {})]
            )
        assert edge.stored("t") == ("1", "")
        with pytest.raises(ProtocolError, match="not 'asleep'"):
            await edge.twin.report_state("default", "d1", "asleep")


# -- the outbox


async def test_of_what_waits_only_the_newest_is_sent(tmp_path):
    async with node(tmp_path) as edge:
        await edge.message("update", "membership", MEMBER)
        edge.hub.connect()
        assert edge.hub.once[0].resource == "membership/detail"
        edge.update(a="1")
        await edge.idle()
        (first,) = edge.hub.take()
        for number in range(2, 50):
            edge.update(a=str(number), b=str(-number))
        await edge.idle()
        assert len(edge.hub.outbox) == 1
        edge.hub.answer(first)
        await edge.idle()
        (second,) = edge.hub.take()
        twins = json.loads(second.content)["twin"]
        assert {k: v["actual"]["value"] for k, v in twins.items()} == {"a": "49", "b": "-49"}
        edge.hub.answer(second)
        await edge.idle()
        assert len(edge.hub.outbox) == 0


async def test_what_waits_through_an_outage_is_replaced_by_how_it_is_then(tmp_path):
    async with node(tmp_path) as edge:
        await edge.message("update", "membership", MEMBER)
        edge.hub.connect()
        edge.update(a="1", b="1")
        await edge.idle()
        edge.hub.take()
        edge.hub.connect(up=False)
        for number in range(20):
            edge.update(a=str(number))
        await edge.idle()
        assert len(edge.hub.outbox) == 1
        edge.hub.connect()
        (message,) = edge.hub.take()
        twins = json.loads(message.content)["twin"]
        assert {k: v["actual"]["value"] for k, v in twins.items()} == {"a": "19", "b": "1"}


async def test_a_cloud_that_does_not_answer_for_a_device_is_not_asked_for_ever(tmp_path):
    limits = OutboxLimits(answer_timeout=10.0, retry=1.0, unanswered=3)
    async with node(tmp_path, limits=limits) as edge:
        await edge.message("update", "membership", MEMBER)
        edge.hub.connect()
        edge.update(a="1")
        await edge.idle()
        sent = 0
        for _ in range(60):
            sent += len(edge.hub.take())
            edge.hub.wait(5.0)
        assert (sent, len(edge.hub.outbox), edge.twin.stats.given_up) == (3, 0, 1)
        edge.update(a="2")
        await edge.idle()
        assert not edge.hub.take()
        await edge.message("insert", "default/device/d1", device_object())  # now it knows
        await edge.idle()
        (message,) = edge.hub.take()
        assert json.loads(message.content)["twin"]["a"]["actual"]["value"] == "2"


async def test_a_cloud_that_refuses_a_report_is_not_asked_again_until_the_link_is_new(tmp_path):
    async with node(tmp_path) as edge:
        await edge.message("update", "membership", MEMBER)
        edge.hub.connect()
        edge.update(a="1")
        await edge.idle()
        (message,) = edge.hub.take()
        gone = {"status": "Failure", "reason": "NotFound", "code": 404, "message": "no device"}
        edge.hub.answer(message, json.dumps({"ErrStatus": gone}).encode())
        edge.update(a="2")
        await edge.idle()
        assert not edge.hub.take()
        edge.hub.connect(up=False)
        edge.hub.connect()
        assert len(edge.hub.take()) == 1


async def test_what_the_cloud_has_confirmed_is_not_told_again_after_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr(devicetwin, "_RETRY_SECONDS", 0.01)
    async with node(tmp_path) as edge:
        await edge.message("update", "membership", MEMBER)
        edge.hub.connect()
        edge.update(a="1")
        await edge.idle()
        async with asyncio.timeout(5):
            while edge.store.query("SELECT owed FROM edgehive_device") != [(0,)]:
                for message in edge.hub.take():
                    edge.hub.answer(message)
                await asyncio.sleep(0.01)
    async with node(tmp_path) as edge:
        edge.hub.connect()
        assert not edge.hub.take()


async def test_the_first_value_of_a_property_is_told_twice_and_later_ones_once(tmp_path):
    """The original's cloud makes an empty entry of the first report and loses the value (peer-lab 5.3)."""
    async with node(tmp_path) as edge:
        await edge.message("update", "membership", MEMBER)
        edge.hub.connect()
        told = []
        for value in ("1", "2", None):
            if value is not None:
                edge.update(a=value)
            for _ in range(4):
                await edge.idle()
                for message in edge.hub.take():
                    told.append(json.loads(message.content)["twin"]["a"]["actual"]["value"])
                    edge.hub.answer(message)
        assert told == ["1", "1", "2"]


async def test_a_full_outbox_keeps_reports_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(devicetwin, "_RETRY_SECONDS", 0.01)
    async with node(tmp_path, limits=OutboxLimits(entries=1)) as edge:
        other = Message("o", 1, "patch", "default/podpatch/x", b"{}")
        edge.hub.send_kept(other)
        await edge.message("update", "membership", MEMBER)
        edge.hub.connect()
        edge.update(a="1")
        await edge.idle()
        (taken,) = edge.hub.take()
        assert taken is other
        edge.hub.answer(taken)
        async with asyncio.timeout(5):
            while not (messages := edge.hub.take()):
                await asyncio.sleep(0.01)
        assert json.loads(messages[0].content)["twin"]["a"]["actual"]["value"] == "1"


async def test_a_device_that_left_is_not_reported(tmp_path):
    async with node(tmp_path) as edge:
        await edge.message("update", "membership", MEMBER)
        edge.update(a="1")
        await edge.message("update", "membership", b'{"removed_devices":[{"id":"default/d1"}]}')
        edge.hub.connect()
        assert not edge.hub.take()
        assert edge.store.query("SELECT count(*) FROM device_twin") == [(0,)]
        assert edge.store.query("SELECT count(*) FROM edgehive_device") == [(0,)]


def test_answers_to_other_messages_do_not_concern_the_twin(tmp_path):
    made = Node(tmp_path / "db")
    pod = Message("p", 1, "patch", "default/podpatch/x", b"{}", source="edged")
    for callback in made.hub.settled:
        callback(Settled(Entry(1, "s", pod), Message("a", 1, "response", "x", b'"OK"')))
    assert made.twin.stats.given_up == 0
    made.store.close()
