"""Devices as a mapper sees them: typed views of the DMI messages; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgehive.aio import dmi_messages as dmi
from edgehive.kit.errors import ProtocolError
from edgehive.mapper.values import Value, check_range, convert

DEFAULT_CYCLE = 1.0
_SHORTEST_CYCLE = 0.01

Config = Mapping[str, str | bool | int | float | bytes]


@dataclass(frozen=True, slots=True)
class PushTarget:
    """Where the values of a property are also sent: `kind` is http, mqtt, influxdb2, redis, mysql, tdengine, otel."""

    kind: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Property:
    """One property of one device, typed by the device's model."""

    name: str
    type: str = "STRING"
    access: str = "ReadWrite"
    minimum: str = ""
    maximum: str = ""
    unit: str = ""
    description: str = ""
    visitor: Config = field(default_factory=dict)
    """How this device has it: ``visitors.configData``, completed from the model."""
    desired: str | None = None
    collect_cycle: float = DEFAULT_CYCLE
    report_cycle: float = DEFAULT_CYCLE
    report_to_cloud: bool = True
    push: tuple[PushTarget, ...] = ()
    anomaly: Config = field(default_factory=dict)
    """``pushMethod.anomalyDetection``: for the driver; the SDK itself does nothing with it."""

    @property
    def writable(self) -> bool:
        """Whether it may be written."""
        return self.access != "ReadOnly"

    def parse(self, value: object) -> Value:
        """Convert to the property's type.

        Raises:
            ValueProblem: it is of another type.
        """
        return convert(value, self.type)

    def parse_wanted(self, value: object) -> Value:
        """Convert what somebody wants to write, and hold it against minimum and maximum.

        Raises:
            ValueProblem: it is of another type or out of range.
        """
        wanted = convert(value, self.type)
        check_range(wanted, minimum=self.minimum, maximum=self.maximum)
        return wanted


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a device: writing the named properties."""

    name: str
    description: str = ""
    properties: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """One device: how to reach it and what it has."""

    namespace: str
    name: str
    model: str = ""
    protocol: str = ""
    config: Config = field(default_factory=dict)
    """``protocol.configData``, completed from the model."""
    properties: Mapping[str, Property] = field(default_factory=dict)
    methods: Mapping[str, Method] = field(default_factory=dict)
    state_cycle: float = 0.0
    """Seconds between repeated reports of the state; 0: changes only."""

    @property
    def id(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"


def read_device(body: Mapping[str, Any], model: Mapping[str, Any] | None) -> Device:
    """Build a device from its message and its model's.

    Raises:
        ProtocolError: a value in it is of an unknown kind, or the device has no name.
    """
    if not body.get("name"):
        raise ProtocolError("the device has no name")
    spec = body.get("spec", {})
    rows = {row.get("name", ""): row for row in (model or {}).get("spec", {}).get("properties", [])}
    protocol = spec.get("protocol", {})
    status = body.get("status", {})
    properties = (_property(item, rows.get(item.get("name", ""), {})) for item in spec.get("properties", []))
    methods = (
        Method(m.get("name", ""), m.get("description", ""), tuple(m.get("propertyNames", ())))
        for m in spec.get("methods", [])
    )
    return Device(
        namespace=body.get("namespace") or "default",
        name=body["name"],
        model=spec.get("deviceModelReference", ""),
        protocol=protocol.get("protocolName", ""),
        config=_config(protocol),
        properties={item.name: item for item in properties if item.name},
        methods={item.name: item for item in methods if item.name},
        state_cycle=_cycle(status.get("reportCycle", 0), 10.0) if status.get("reportToCloud") else 0.0,
    )


def _property(item: Mapping[str, Any], row: Mapping[str, Any]) -> Property:
    desired = item.get("desired")
    return Property(
        name=item.get("name", ""),
        type=(row.get("type") or "STRING").upper(),
        access=row.get("accessMode") or "ReadWrite",
        minimum=row.get("minimum", ""),
        maximum=row.get("maximum", ""),
        unit=row.get("unit", ""),
        description=row.get("description", ""),
        visitor=_config(item.get("visitors", {})),
        desired=None if desired is None or not desired.get("value") else desired["value"],
        collect_cycle=_cycle(item.get("collectCycle", 0)),
        report_cycle=_cycle(item.get("reportCycle", 0)),
        report_to_cloud=item.get("reportToCloud", False),
        push=_push(item.get("pushMethod", {})),
        anomaly=dmi.unpack(item.get("pushMethod", {}).get("anomalyDetection", {}).get("data", [])),
    )


def _config(body: Mapping[str, Any]) -> Config:
    return dmi.unpack(body.get("configData", {}).get("data", []))


def _cycle(milliseconds: int, default: float = DEFAULT_CYCLE) -> float:
    return default if milliseconds <= 0 else max(milliseconds / 1000, _SHORTEST_CYCLE)


def _push(body: Mapping[str, Any]) -> tuple[PushTarget, ...]:
    targets = [PushTarget(kind, body[kind]) for kind in ("http", "mqtt", "otel") if kind in body]
    targets += [PushTarget(kind, options) for kind, options in body.get("dbMethod", {}).items()]
    return tuple(targets)
