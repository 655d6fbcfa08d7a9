"""Objects that must be at a node in order (a device after its model), and those that leave and come back."""

from collections.abc import Iterable
from typing import Any

import pytest
from wire_support import content, down, stamp

from edgehive.wire.cloudnode import CachedObject, CloudNode, Missing, Unknown
from edgehive.wire.message import DELETE, INSERT, UPDATE, Message, decode_message
from edgehive.wire.objectsync import CreateSync, DeleteSync, RecordSync, SyncKey, SyncRecord, SyncWriter
from edgehive.wire.pool import Verdict
from edgehive.wire.resource import DEVICE, DEVICE_MODEL, Resource
from edgehive.wire.session import NodeSession


def cached(kind: str, name: str, uid: str, version: int) -> CachedObject:
    raw = content(name, uid, version, kind)
    return CachedObject("v1", kind, "default", name, uid, str(version), raw, "devicecontroller")


class Site:
    """A node with a device and its model, and a record of each in the API server."""

    def __init__(self) -> None:
        self.model: CachedObject | None = cached("DeviceModel", "m", "um", 5)
        self.device: CachedObject | None = cached("Device", "d", "ud", 6)
        self.stored: dict[SyncKey, SyncRecord] = {}
        self.writer = SyncWriter(interval=0.5)
        self.now = 0.0
        self.node = CloudNode(node="n", world=self, writer=self.writer, stamp=stamp, order=self)

    # wire.cloudnode.World and Order

    def find(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        return {"um": self.model, "ud": self.device}.get(record.key.uid) or Missing()

    def assigned(self, node: str) -> Iterable[CachedObject]:
        return [found for found in (self.model, self.device) if found is not None]

    def records(self, node: str) -> Iterable[SyncRecord]:
        return self.stored.values()

    def before(self, target: Resource) -> CachedObject | Missing | None:
        return (self.model or Missing()) if target.type == DEVICE else None

    def after(self, node: str, target: Resource) -> Iterable[CachedObject]:
        return self.assigned(node) if target.type in (DEVICE, DEVICE_MODEL) else ()

    # the test's verbs

    def connect(self) -> None:
        session = NodeSession(node="n", now=self.now, stamp=stamp)
        self.node.attach(session, self.now)
        self.node.handle_timer(self.now)
        self.work()

    def work(self) -> None:
        """Let a second pass for the records."""
        for _ in range(3):
            for write in self.writer.take(self.now):
                match write:
                    case CreateSync(record):
                        self.stored.setdefault(record.key, record)
                        self.writer.done(write, self.now)
                        self.node.record_created(record, self.now)
                    case RecordSync(key, version):
                        old = self.stored[key]
                        self.stored[key] = SyncRecord(
                            key, old.api_version, old.kind, old.object_name, version
                        )
                        self.writer.done(write, self.now)
                    case DeleteSync(key):
                        self.stored.pop(key, None)
                        self.writer.done(write, self.now)
            self.now += 0.5

    def frames(self) -> list[Message]:
        assert self.node.session is not None
        return [decode_message(f) for f in self.node.session.data_to_send(self.now)]

    def ack(self, message: Message) -> None:
        assert self.node.session is not None
        delivered = self.node.session.pool.receive_ack(message.id, self.now)
        assert delivered is not None
        self.node.receive(delivered, self.now)
        self.work()

    def versions(self) -> dict[str, str]:
        return {record.object_name: record.version for record in self.stored.values()}


def outline(frames: list[Message]) -> list[tuple[str, str]]:
    return [(m.operation, m.resource) for m in frames]


def delivered() -> Site:
    site = Site()
    site.connect()
    for _ in range(2):
        [message] = site.frames()
        site.ack(message)
    assert site.versions() == {"m": "5", "d": "6"}
    return site


def test_a_device_is_not_sent_before_its_model_is_acknowledged() -> None:
    site = Site()
    site.connect()
    [model] = site.frames()
    assert (model.operation, model.resource) == (INSERT, "default/devicemodel/m")
    site.work()
    assert site.frames() == []
    site.ack(model)
    [device] = site.frames()
    assert (device.operation, device.resource) == (INSERT, "default/device/d")


def test_a_device_waits_for_a_model_that_does_not_exist_and_goes_on_without_one_that_is_gone() -> None:
    site = Site()
    model, site.model = site.model, None
    site.connect()
    assert site.frames() == []
    site.model = model
    site.node.send(down("m", 5, uid="um", kind="DeviceModel", operation=INSERT), site.now)
    site.work()
    site.ack(site.frames()[0])
    site.ack(site.frames()[0])
    site.model = None
    site.node.send(down("d", 9, uid="ud", kind="Device"), site.now)
    assert outline(site.frames()) == [(UPDATE, "default/device/d")]


def test_a_new_model_of_the_name_goes_ahead_of_the_device() -> None:
    site = delivered()
    site.model = cached("DeviceModel", "m", "um2", 8)
    site.node.send(down("d", 9, uid="ud", kind="Device"), site.now)
    assert site.frames() == []
    site.device = cached("Device", "d", "ud", 9)
    site.node.send(down("m", 8, uid="um2", kind="DeviceModel", operation=INSERT), site.now)
    site.work()
    [model] = site.frames()
    site.ack(model)
    assert outline(site.frames()) == [(UPDATE, "default/device/d")]


def test_an_edge_that_has_started_gets_the_model_first_again() -> None:
    site = delivered()
    assert site.node.session is not None
    site.node.session.registering = True
    site.node.session.pool._lanes.clear()  # its database is new
    site.node.handle_timer(site.now)
    assert outline(messages := site.frames()) == [(UPDATE, "default/devicemodel/m")]
    site.ack(messages[0])
    assert outline(site.frames()) == [(INSERT, "default/device/d")]


@pytest.mark.parametrize("acknowledged", [True, False])
def test_what_left_the_node_may_come_back_as_it_was(acknowledged: bool) -> None:
    site = delivered()
    model, device = site.model, site.device
    site.model = site.device = None
    site.node.send(down("d", 6, uid="ud", kind="Device", operation=DELETE), site.now)
    site.node.send(down("m", 5, uid="um", kind="DeviceModel", operation=DELETE), site.now)
    deletes = site.frames()
    assert outline(deletes) == [(DELETE, "default/device/d"), (DELETE, "default/devicemodel/m")]
    if acknowledged:
        for message in deletes:
            site.ack(message)
        assert site.versions() == {}
    site.model, site.device = model, device
    for name, version, uid, kind in (("m", 5, "um", "DeviceModel"), ("d", 6, "ud", "Device")):
        site.node.send(down(name, version, uid=uid, kind=kind, operation=INSERT), site.now)
    site.work()
    if not acknowledged:
        assert site.frames() == []
        for message in deletes:
            site.ack(message)
    [first] = site.frames()
    assert (first.operation, first.resource) == (INSERT, "default/devicemodel/m")
    site.ack(first)
    [second] = site.frames()
    assert (second.operation, second.resource) == (INSERT, "default/device/d")
    site.ack(second)
    assert site.versions() == {"m": "5", "d": "6"}


def test_the_delete_of_a_device_found_by_its_record_takes_the_membership_along() -> None:
    site = delivered()
    site.model = site.device = None
    site.node.reconcile(site.now)
    for record in site.node.checks():
        site.node.checked(record, Missing(), site.now)
    frames = site.frames()
    assert sorted(outline(frames)) == [
        (DELETE, "default/device/d"),
        (DELETE, "default/devicemodel/m"),
        (UPDATE, "membership"),
    ]
    assert b'"removed_devices":[{"id":"default/d","name":"d"}]' in next(
        m.content for m in frames if m.resource == "membership"
    )


def test_a_namesake_keeps_its_membership() -> None:
    site = delivered()
    site.device = cached("Device", "d", "other", 9)
    site.node.reconcile(site.now)
    for record in site.node.checks():
        site.node.checked(record, site.device, site.now)
    site.work()
    assert not [m for m in site.frames() if m.resource == "membership"]


def test_nothing_but_devices_and_models_comes_back_from_a_delete(**_: Any) -> None:
    site = delivered()
    assert site.node.session is not None
    pool = site.node.session.pool
    pool.offer(down("p", 1), 0.0)
    pool.offer(down("p", 1, operation=DELETE), 0.0)
    for _ in range(2):
        for message in site.frames():
            pool.receive_ack(message.id, 0.0)
    assert pool.offer(down("p", 2), 0.0) is Verdict.DONE
