"""The device twin: what an MQTT client, the cloud and a Device object may bring."""

import json
from collections.abc import Callable, Sequence

from edgehive.edge.twin_objects import read_device
from edgehive.kit.errors import ProtocolError
from edgehive.twin.core import TwinCore
from edgehive.twin.effects import Publish

_TOPICS = ("twin/update", "twin/get", "twin/cloud_updated", "state/update", "updated")


def _core() -> TwinCore:
    core = TwinCore(node="n", stamp=lambda: ("id", 1))
    core.membership(b'{"added_devices":[{"id":"default/d","name":"d"}]}', detail=False)
    core.mqtt("$hw/events/device/default/d/twin/update", b'{"twin":{"t":{"actual":{"value":"1"}}}}')
    return core


def mqtt_target(data: bytes) -> None:
    """The first byte chooses the topic; afterwards the device still works."""
    core = _core()
    topics = [f"$hw/events/device/default/d/{what}" for what in _TOPICS]
    topics += ["$hw/events/node/n/membership/get", "$hw/events/device/" + data[1:40].decode("latin-1")]
    for effect in core.mqtt(topics[data[0] % len(topics)] if data else "", data[1:]):
        if isinstance(effect, Publish):
            json.loads(effect.payload)
            assert len(effect.payload) < 20 * len(data) + 2_000
    (answer,) = core.mqtt("$hw/events/device/default/d/twin/get", b'{"event_id":"e"}')
    assert isinstance(answer, Publish)
    assert json.loads(answer.payload)["event_id"] == "e"


def cloud_target(data: bytes) -> None:
    """Membership, changes and whole lists."""
    core = _core()
    core.membership(data, detail=bool(data) and data[0] % 2 == 0)


def targets() -> dict[
    str, tuple[Callable[[bytes], object], tuple[type[BaseException], ...], Sequence[bytes]]
]:
    """Each with what it may raise and examples."""
    twin = (
        b'{"event_id":"e","timestamp":1,"twin":{"t":{"expected":{"value":"1","metadata":{"timestamp":1}},'
        b'"actual":{"value":"2"},"optional":false,"metadata":{"type":"int"},"expected_version":{"cloud":1,"edge":2}}}}'
    )
    member = (
        b'{"added_devices":[{"id":"a/b","name":"b","attributes":{"a":{"value":"1"}},"twin":{"t":null}}],'
        b'"removed_devices":[{"id":"default/d"}],"devices":[{"id":"a/c"}]}'
    )
    device = (
        b'{"metadata":{"name":"d","labels":{"description":"x"}},"spec":{"properties":[{"name":"p",'
        b'"desired":{"value":"1"}}]}}'
    )
    requests = [bytes([n]) + twin for n in range(6)] + [
        b"\3" + b'{"State":"online"}',
        b"\0null",
        b"\0" + b"{bad",
    ]
    return {
        "twin-mqtt": (mqtt_target, (), requests),
        "twin-cloud": (cloud_target, (ProtocolError,), [member, b" " + member]),
        "twin-object": (read_device, (ProtocolError,), [device]),
    }
