"""What a person who writes a mapper writes."""

from collections.abc import Awaitable
from typing import ClassVar

from edgehive.kit.errors import Transient
from edgehive.mapper.model import Device, Method, Property
from edgehive.mapper.values import Value


class DeviceError(Transient):
    """The device cannot be reached or does not do what it was asked; the SDK connects again."""


class Driver:
    """Talks to one device. Subclass it, give `protocol`, and write `read`; the rest if the device needs it.

    Every method may be ``async`` or a plain function; a plain one runs in the device's own thread and may block. They
    are called one at a time for one device; one that takes longer than `timeout` seconds has failed. Any exception means that the device did not do it: the SDK says so, marks the device
    offline, closes, and connects again with back-off.
    """

    protocol: ClassVar[str] = ""
    timeout: ClassVar[float] = 10.0

    def __init__(self, device: Device) -> None:
        self.device = device

    def connect(self) -> Awaitable[None] | None:
        """Connect to the device."""

    def close(self) -> Awaitable[None] | None:
        """Let go of the device; also called after a `connect` that failed."""

    def read(self, prop: Property) -> Awaitable[Value | None] | Value | None:
        """Return the present value; None when there is none yet."""
        raise DeviceError(f"{type(self).__name__} cannot read {prop.name}")

    def write(self, prop: Property, value: Value) -> Awaitable[None] | None:
        """Set the value, which is of the property's type and within its range."""
        raise DeviceError(f"{type(self).__name__} cannot write {prop.name}")

    def call(self, method: Method, prop: Property, value: Value) -> Awaitable[None] | None:
        """Run a device method; by default that is writing the property."""
        return self.write(prop, value)
