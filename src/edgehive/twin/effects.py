"""What the twin's core wants done. Whoever does it saves first, then publishes, then tells the cloud."""

from collections.abc import Mapping, Sequence
from enum import Enum

import msgspec

from edgehive.twin import topics
from edgehive.twin.device import Device, Twin
from edgehive.twin.payloads import Attribute


class Kind(Enum):
    """The reports of a device; the value ends the wire resource."""

    TWINS = topics.EDGE_UPDATED
    STATE = topics.STATE_UPDATE


class Publish(msgspec.Struct, frozen=True):
    """Publish on MQTT."""

    topic: str
    payload: bytes


class Save(msgspec.Struct, frozen=True):
    """Store what has changed of a device."""

    device: Device
    row: bool = False
    """The device itself: it is new, or its state or what it belongs to has changed."""
    twins: Mapping[str, Twin] = msgspec.field(default_factory=dict)
    attributes: Mapping[str, Attribute | None] = msgspec.field(default_factory=dict)


class Forget(msgspec.Struct, frozen=True):
    """Remove all that is stored of a device."""

    id: str


class Owe(msgspec.Struct, frozen=True):
    """The cloud must hear of this, at some time, in its newest form. Durable with the `Save` beside it."""

    id: str
    kind: Kind
    names: Sequence[str] = ()


class ToCloud(msgspec.Struct, frozen=True):
    """A message to the cloud; `content` is raw JSON."""

    operation: str
    resource: str
    content: bytes


Effect = Publish | Save | Forget | Owe
