"""What the twin's core wants done. Whoever does it saves first, then publishes, then tells the cloud."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from edgehive.twin import topics
from edgehive.twin.device import Device, Twin
from edgehive.twin.payloads import Attribute


class Kind(Enum):
    """The reports of a device; the value ends the wire resource."""

    TWINS = topics.EDGE_UPDATED
    STATE = topics.STATE_UPDATE


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish on MQTT."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Save:
    """Store what has changed of a device."""

    device: Device
    row: bool = False
    """The device itself: it is new, or its state or what it belongs to has changed."""
    twins: Mapping[str, Twin] = field(default_factory=dict)
    attributes: Mapping[str, Attribute | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove all that is stored of a device."""

    id: str


@dataclass(frozen=True, slots=True)
class Owe:
    """The cloud must hear of this, at some time, in its newest form. Durable with the `Save` beside it."""

    id: str
    kind: Kind
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ToCloud:
    """A message to the cloud; `content` is raw JSON."""

    operation: str
    resource: str
    content: bytes


Effect = Publish | Save | Forget | Owe
