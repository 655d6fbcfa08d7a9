"""Devices and models that come, change, move and go while links are cut and cloudcores die: what the edge has in the end.

The real index, view and downstream of the device controller drive the real core of one node; caches, API server and
edge are tables here. The edge handles messages about different objects in any order, as the original does, which gives
each its own thread.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.cloud.devices import DeviceDownstream, DeviceView
from edgehive.cloud.devices_index import DeviceIndex
from edgehive.kube.reflector import CachedObject as Cached
from edgehive.kube.reflector import Change, decode_cached
from edgehive.wire.cloudnode import CachedObject, CloudNode, Missing, Unknown
from edgehive.wire.message import DELETE, Message, decode_message
from edgehive.wire.objectsync import CreateSync, RecordSync, SyncKey, SyncRecord, SyncWriter
from edgehive.wire.session import NodeSession

NODE = "n"
API = "devices.kubeedge.io/v1beta1"


class Table:
    """What `DeviceCaches` has of an informer."""

    has_synced = True

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Cached] = {}
        self.handlers: list[Callable[[Change], None]] = []

    def get(self, namespace: str, name: str) -> Cached | None:
        return self.objects.get((namespace, name))

    def items(self) -> list[Cached]:
        return list(self.objects.values())

    def subscribe(self, handler: Callable[[Change], None]) -> None:
        for found in self.objects.values():
            handler(Change("ADDED", None, found))
        self.handlers.append(handler)

    def put(self, found: Cached) -> None:
        old = self.objects.get(found.key)
        self.objects[found.key] = found
        self.emit(Change("MODIFIED" if old else "ADDED", old, found))

    def drop(self, name: str) -> None:
        old = self.objects.pop(("default", name), None)
        if old is not None:
            self.emit(Change("DELETED", old, None))

    def emit(self, change: Change) -> None:
        for handler in self.handlers:
            handler(change)


@dataclass
class Caches:
    devices: Table = field(default_factory=Table)
    models: Table = field(default_factory=Table)

    def all(self) -> tuple[Table, Table]:
        return (self.models, self.devices)

    def of(self, gvr: Any) -> Table:
        return self.models if gvr.resource == "devicemodels" else self.devices


class Cloud:
    """One cloudcore: everything in it is lost when it dies."""

    def __init__(self, world: "Universe") -> None:
        for table in world.caches.all():
            table.handlers.clear()
        index = DeviceIndex()
        self.view = DeviceView(api=None, caches=world.caches, index=index)  # type: ignore[arg-type]
        self.writer = SyncWriter(interval=0.5)
        self.world = world
        self.node = CloudNode(
            node=NODE,
            world=self,
            writer=self.writer,
            stamp=world.stamp,
            reconcile_every=5.0,
            order=self.view,
        )
        self.down = DeviceDownstream(
            caches=world.caches,  # type: ignore[arg-type]
            view=self.view,
            index=index,
            recipients=self,
            stamp=world.stamp,
        )
        self.down.start()

    # wire.cloudnode.World

    def find(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        return self.view.find(record)

    def assigned(self, node: str) -> Any:
        return self.view.assigned(node)

    def records(self, node: str) -> Any:
        return self.world.stored.values()

    # cloud.devices.Recipients

    def connected(self, node: str) -> bool:
        return node == NODE and self.node.session is not None

    def send(self, node: str, message: Any) -> None:
        if node == NODE:
            self.node.send(message, self.world.now)

    def answer(self, node: str, message: Any) -> None:
        session = self.node.session
        if node == NODE and session is not None:
            session.send(message, self.world.now)


class Universe:
    def __init__(self) -> None:
        self.now = 0.0
        self.version = 100
        self.ids = 0
        self.caches = Caches()
        self.stored: dict[SyncKey, SyncRecord] = {}
        self.rows: dict[str, tuple[str, str]] = {}
        self.members: set[str] = set()
        self.wire: list[Message] = []
        self.cloud = Cloud(self)
        self.connect()

    def stamp(self) -> tuple[str, int]:
        self.ids += 1
        return f"id-{self.ids}", 0

    # the administrator

    def model(self, name: str, exists: bool) -> None:
        if not exists:
            self.caches.models.drop(name)
            return
        old = self.caches.models.get("default", name)
        self.caches.models.put(self.made("DeviceModel", name, old, {"protocol": str(self.version)}))

    def device(self, name: str, node: str, model: str) -> None:
        if not node:
            self.caches.devices.drop(name)
            return
        old = self.caches.devices.get("default", name)
        spec = {"nodeName": node, "deviceModelRef": {"name": model}, "wish": self.version}
        self.caches.devices.put(self.made("Device", name, old, spec))

    def made(self, kind: str, name: str, old: Cached | None, spec: dict[str, Any]) -> Cached:
        self.version += 1
        meta = {
            "name": name,
            "namespace": "default",
            "uid": old.meta.uid if old else f"u-{self.version}",
            "resourceVersion": str(self.version),
            "generation": old.meta.generation + 1 if old else 1,
        }
        raw = json.dumps({"apiVersion": API, "kind": kind, "metadata": meta, "spec": spec}).encode()
        return decode_cached(raw)

    # the network and the edge

    def connect(self) -> None:
        session = NodeSession(node=NODE, now=self.now, stamp=self.stamp)
        self.wire.clear()
        self.cloud.node.attach(session, self.now)
        self.cloud.down.node_connected(NODE)
        self.cloud.node.handle_timer(self.now)
        self.step()

    def cut(self) -> None:
        if self.cloud.node.session is not None:
            self.cloud.node.detach(self.cloud.node.session, self.now)
        self.wire.clear()

    def crash(self) -> None:
        """It dies, but not within the half second in which an acknowledgement becomes a record.

        An edge of ours says at its next link what it holds, so that nothing is lost by that either. A Go edge may lack
        the model of a device that left and came back in just that time, until the model changes.
        """
        for _ in range(3):
            self.write(self.now + 1.0)
        self.wire.clear()
        self.cloud = Cloud(self)

    def handle(self, which: int, *, ack: bool) -> None:
        """The edge takes one of the messages that are on the wire."""
        if not self.wire:
            return
        message = self.wire[which % len(self.wire)]
        message = next(m for m in self.wire if m.resource == message.resource)
        self.wire.remove(message)
        if message.resource == "membership":
            content = json.loads(message.content)
            self.members |= {d["id"] for d in content["added_devices"] or ()}
            self.members -= {d["id"] for d in content["removed_devices"] or ()}
            return
        kind, name = message.resource.split("/")[1:]
        meta = json.loads(message.content)["metadata"]
        if message.operation == DELETE:
            self.rows.pop(message.resource, None)  # no UID is compared, as in the original
        else:
            if kind == "device" and message.resource not in self.rows:
                self.check_order(name, message)
            self.rows[message.resource] = (meta["uid"], message.resource_version)
        session = self.cloud.node.session
        if ack and session is not None:
            delivered = session.pool.receive_ack(message.id, self.now)
            if delivered is not None:
                self.cloud.node.receive(delivered, self.now)

    def check_order(self, name: str, message: Message) -> None:
        """A device that is new to the edge comes after its model, unless either has changed again on the way."""
        device = self.caches.devices.get("default", name)
        model = self.caches.models.get(
            "default", json.loads(message.content)["spec"]["deviceModelRef"]["name"]
        )
        if device is None or model is None or device.meta.resource_version != message.resource_version:
            return
        if int(model.meta.resource_version) < int(message.resource_version):
            assert f"default/devicemodel/{model.meta.name}" in self.rows, f"{name} came before its model"

    def step(self, seconds: float = 0.6) -> None:
        """Let time pass at the cloud."""
        self.now += seconds
        node = self.cloud.node
        if node.session is not None:
            node.session.receive_frame(
                b'{"header":{"msg_id":"k","timestamp":1},"route":{"operation":"keepalive"}}', self.now
            )
            node.session.events()
            node.session.handle_timer(self.now)
        node.handle_timer(self.now)
        for record in node.checks():
            node.checked(record, self.cloud.view.find(record), self.now)
        self.write(self.now)
        if node.session is not None:
            self.wire += [decode_message(f) for f in node.session.data_to_send(self.now)]

    def write(self, now: float) -> None:
        """The API server takes what is due."""
        node = self.cloud.node
        for write in self.cloud.writer.take(now):
            match write:
                case CreateSync(record):
                    new = self.stored.setdefault(record.key, replace(record, version=""))
                    self.cloud.writer.done(write, now)
                    node.record_created(record, now)
                    node.record_changed(new, now)
                case RecordSync(key, version):
                    old = self.stored.get(key)
                    if old is None:
                        self.cloud.writer.failed(write, 404, now)
                        continue
                    self.stored[key] = SyncRecord(key, old.api_version, old.kind, old.object_name, version)
                    self.cloud.writer.done(write, now)
                    node.record_changed(self.stored[key], now)
                case _:
                    gone = self.stored.pop(write.key, None)
                    self.cloud.writer.done(write, now)
                    if gone is not None:
                        node.record_gone(gone, now)

    def settle(self) -> None:
        if self.cloud.node.session is None:
            self.connect()
        for _ in range(60):
            self.step(1.0)
            while self.wire:
                self.handle(0, ack=True)

    def expected(self) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = {}
        for device in self.caches.devices.items():
            spec = json.loads(device.raw)["spec"]
            if spec["nodeName"] != NODE:
                continue
            model = self.caches.models.get("default", spec["deviceModelRef"]["name"])
            resource = f"default/device/{device.meta.name}"
            if model is not None:
                found[f"default/devicemodel/{model.meta.name}"] = (
                    model.meta.uid,
                    model.meta.resource_version,
                )
            elif resource not in self.rows:
                continue  # it waits
            found[resource] = (device.meta.uid, device.meta.resource_version)
        return found


devices, models = st.sampled_from(["d1", "d2"]), st.sampled_from(["m1", "m2"])
action = st.one_of(
    st.tuples(st.just("device"), devices, st.sampled_from([NODE, NODE, "other", ""]), models),
    st.tuples(st.just("model"), models, st.sampled_from([True, True, False])),
    st.tuples(st.just("handle"), st.integers(0, 5), st.sampled_from([True, True, True, False])),
    st.tuples(st.just("step"), st.sampled_from([0.1, 0.6, 6.0])),
    st.tuples(st.sampled_from(["cut", "crash", "connect"])),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(action, max_size=40))
def test_in_the_end_the_edge_has_what_it_should_have(actions: list[tuple[Any, ...]]) -> None:
    universe = Universe()
    for what, *args in actions:
        match what:
            case "device":
                universe.device(*args)
            case "model":
                universe.model(*args)
            case "handle":
                universe.handle(args[0], ack=args[1])
            case "step":
                universe.step(args[0])
            case "cut":
                universe.cut()
            case "crash":
                universe.crash()
            case "connect":
                universe.cut()
                universe.connect()
    universe.settle()
    assert universe.rows == universe.expected()
    here = {
        f"default/{d.meta.name}"
        for d in universe.caches.devices.items()
        if json.loads(d.raw)["spec"]["nodeName"] == NODE
    }
    assert universe.members >= here
    with_rows = {f"default/{name.split('/')[2]}" for name in universe.rows if "/device/" in name}
    assert universe.members & with_rows == with_rows
    uids = {uid for uid, _ in universe.rows.values()}
    assert {key.uid for key, record in universe.stored.items() if record.version} == uids


def test_a_cloudcore_that_dies_while_a_model_comes_back_leaves_no_gap() -> None:
    universe = Universe()
    universe.model("m1", True)
    universe.device("d1", NODE, "m1")
    universe.settle()
    universe.device("d1", "other", "m1")
    universe.step(0.0)
    universe.device("d1", NODE, "m1")
    for _ in range(len(universe.wire)):
        universe.handle(0, ack=True)
    universe.crash()
    universe.settle()
    assert universe.rows == universe.expected()
