"""Device objects as the twin sees them: a description, and what is desired of each property."""

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.wire.message import MALFORMED


class _Desired(msgspec.Struct, gc=False):
    value: str = ""


class _Property(msgspec.Struct, gc=False):
    name: str = ""
    desired: _Desired | None = None


class _Spec(msgspec.Struct, gc=False):
    properties: list[_Property] | None = None


class _Meta(msgspec.Struct, gc=False):
    labels: dict[str, str] | None = None


class _Device(msgspec.Struct, gc=False):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    spec: _Spec = msgspec.field(default_factory=_Spec)


class Facts(msgspec.Struct, frozen=True):
    """What a Device object says to the twin; `desired` by property, empty where nothing is."""

    description: str
    desired: dict[str, str]


_decoder = msgspec.json.Decoder(_Device)


def read_device(raw: bytes) -> Facts:
    """Read a Device object.

    Raises:
        ProtocolError: it has not the form of one.
    """
    try:
        device = _decoder.decode(raw)
    except MALFORMED as exc:
        raise ProtocolError(f"not a Device: {exc}") from exc
    return Facts(
        (device.metadata.labels or {}).get("description", ""),
        {p.name: p.desired.value if p.desired else "" for p in device.spec.properties or () if p.name},
    )
