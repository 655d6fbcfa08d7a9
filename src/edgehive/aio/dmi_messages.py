"""The messages of the device management interface (package v1beta1), as tables.

Field names are those of its JSON form, which is also how a Device object spells them, but for letter case.
A map from a string to a `google.protobuf.Any` is written as the repeated entries it is on the wire; `pack` and
`unpack` turn it into a dict of plain values and back.
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

from edgehive.aio import protobuf
from edgehive.aio.protobuf import message
from edgehive.kit.errors import ProtocolError

MANAGER_SERVICE = "/v1beta1.DeviceManagerService/"
MAPPER_SERVICE = "/v1beta1.DeviceMapperService/"

ANY = message("Any", (1, "typeUrl", "string"), (2, "value", "bytes"))
ANY_ENTRY = message("DataEntry", (1, "key", "string"), (2, "value", ANY))
CUSTOMIZED_VALUE = message("CustomizedValue", (1, "data", ANY_ENTRY, "*"))
TWIN_PROPERTY = message("TwinProperty", (1, "value", "string"), (2, "metadata", "map<string, string>"))
TWIN = message(
    "Twin",
    (1, "propertyName", "string"),
    (2, "observedDesired", TWIN_PROPERTY),
    (3, "reported", TWIN_PROPERTY),
)
DEVICE_STATUS = message(
    "DeviceStatus", (1, "twins", TWIN, "*"), (2, "reportToCloud", "bool"), (3, "reportCycle", "int")
)

PUSH_HTTP = message(
    "PushMethodHTTP",
    (1, "hostname", "string"),
    (2, "port", "int"),
    (3, "requestpath", "string"),
    (4, "timeout", "int"),
)
PUSH_MQTT = message(
    "PushMethodMQTT",
    (1, "address", "string"),
    (2, "topic", "string"),
    (3, "qos", "int"),
    (4, "retained", "bool"),
)
PUSH_OTEL = message("PushMethodOTEL", (1, "endpointURL", "string"))
INFLUX_CLIENT = message(
    "Influxdb2ClientConfig", (1, "url", "string"), (2, "org", "string"), (3, "bucket", "string")
)
INFLUX_DATA = message(
    "Influxdb2DataConfig",
    (1, "measurement", "string"),
    (2, "tag", "map<string, string>"),
    (3, "fieldKey", "string"),
)
INFLUX = message(
    "DBMethodInfluxdb2", (1, "influxdb2ClientConfig", INFLUX_CLIENT), (2, "influxdb2DataConfig", INFLUX_DATA)
)
REDIS_CLIENT = message(
    "RedisClientConfig",
    (1, "addr", "string"),
    (2, "db", "int"),
    (3, "poolsize", "int"),
    (4, "minIdleConns", "int"),
)
TDENGINE_CLIENT = message("TDEngineClientConfig", (1, "addr", "string"), (2, "dbname", "string"))
MYSQL_CLIENT = message(
    "MySQLClientConfig", (1, "addr", "string"), (2, "database", "string"), (3, "userName", "string")
)
DB_METHOD = message(
    "DBMethod",
    (1, "influxdb2", INFLUX),
    (2, "redis", message("DBMethodRedis", (1, "redisClientConfig", REDIS_CLIENT))),
    (3, "tdengine", message("DBMethodTDEngine", (1, "tdEngineClientConfig", TDENGINE_CLIENT))),
    (4, "mysql", message("DBMethodMySQL", (1, "mysqlClientConfig", MYSQL_CLIENT))),
)
PUSH_METHOD = message(
    "PushMethod",
    (1, "http", PUSH_HTTP),
    (2, "mqtt", PUSH_MQTT),
    (3, "dbMethod", DB_METHOD),
    (4, "otel", PUSH_OTEL),
    (5, "anomalyDetection", message("AnomalyDetection", (1, "data", ANY_ENTRY, "*"))),
)

VISITORS = message("VisitorConfig", (1, "protocolName", "string"), (2, "configData", CUSTOMIZED_VALUE))
PROTOCOL = message("ProtocolConfig", (1, "protocolName", "string"), (2, "configData", CUSTOMIZED_VALUE))
DEVICE_PROPERTY = message(
    "DeviceProperty",
    (1, "name", "string"),
    (2, "desired", TWIN_PROPERTY),
    (3, "visitors", VISITORS),
    (4, "reportCycle", "int"),
    (5, "collectCycle", "int"),
    (6, "reportToCloud", "bool"),
    (7, "pushMethod", PUSH_METHOD),
)
DEVICE_METHOD = message(
    "DeviceMethod", (1, "name", "string"), (2, "description", "string"), (3, "propertyNames", "string", "*")
)
DEVICE_SPEC = message(
    "DeviceSpec",
    (1, "deviceModelReference", "string"),
    (2, "protocol", PROTOCOL),
    (3, "properties", DEVICE_PROPERTY, "*"),
    (4, "methods", DEVICE_METHOD, "*"),
)
DEVICE = message(
    "Device",
    (1, "name", "string"),
    (2, "spec", DEVICE_SPEC),
    (3, "status", DEVICE_STATUS),
    (4, "namespace", "string"),
)

MODEL_PROPERTY = message(
    "ModelProperty",
    (1, "name", "string"),
    (2, "description", "string"),
    (3, "type", "string"),
    (4, "accessMode", "string"),
    (5, "minimum", "string"),
    (6, "maximum", "string"),
    (7, "unit", "string"),
)
DEVICE_COMMAND = message(
    "DeviceCommand",
    (1, "name", "string"),
    (2, "url", "string"),
    (3, "method", "string"),
    (4, "status_code", "string", "*"),
    (5, "parameters", "string", "*"),
    (6, "response", "bytes"),
)
DEVICE_MODEL = message(
    "DeviceModel",
    (1, "name", "string"),
    (
        2,
        "spec",
        message(
            "DeviceModelSpec", (1, "properties", MODEL_PROPERTY, "*"), (2, "commands", DEVICE_COMMAND, "*")
        ),
    ),
    (3, "namespace", "string"),
)

MAPPER_INFO = message(
    "MapperInfo",
    (1, "name", "string"),
    (2, "version", "string"),
    (3, "api_version", "string"),
    (4, "protocol", "string"),
    (5, "address", "bytes"),
    (6, "state", "string"),
)
REGISTER_REQUEST = message("MapperRegisterRequest", (1, "withData", "bool"), (2, "mapper", MAPPER_INFO))
REGISTER_RESPONSE = message(
    "MapperRegisterResponse", (1, "modelList", DEVICE_MODEL, "*"), (2, "deviceList", DEVICE, "*")
)
REPORT_STATUS = message(
    "ReportDeviceStatusRequest",
    (1, "deviceName", "string"),
    (2, "reportedDevice", DEVICE_STATUS),
    (3, "deviceNamespace", "string"),
)
REPORT_STATES = message(
    "ReportDeviceStatesRequest",
    (1, "deviceName", "string"),
    (2, "deviceNamespace", "string"),
    (3, "state", "string"),
)
DEVICE_REQUEST = message("RegisterDeviceRequest", (1, "device", DEVICE))
"""Also of UpdateDevice, and the answer of GetDevice."""
DEVICE_NAME = message("RemoveDeviceRequest", (1, "deviceName", "string"), (2, "deviceNamespace", "string"))
"""Also of GetDevice, and the answer of RegisterDevice."""
MODEL_REQUEST = message("CreateDeviceModelRequest", (1, "model", DEVICE_MODEL))
"""Also of UpdateDeviceModel."""
MODEL_NAME = message("RemoveDeviceModelRequest", (1, "modelName", "string"), (2, "modelNamespace", "string"))
MODEL_CREATED = message(
    "CreateDeviceModelResponse", (1, "deviceModelName", "string"), (2, "deviceModelNamespace", "string")
)
EMPTY = message("Empty")

Plain = str | bool | int | float

_PREFIX = "type.googleapis.com/google.protobuf."
_INT = message("Int64Value", (1, "value", "int"))
_UINT = message("UInt64Value", (1, "value", "uint"))
_BOOL = message("BoolValue", (1, "value", "bool"))
_STRING = message("StringValue", (1, "value", "string"))
_BYTES = message("BytesValue", (1, "value", "bytes"))


def pack(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Write plain values as KubeEdge does: StringValue, BoolValue, FloatValue for every number.

    A number that does not survive 32 bits becomes a DoubleValue. Nested maps and lists, for which the original
    gives up the whole device, become their JSON text.
    """
    return [{"key": key, "value": _any(value)} for key, value in values.items() if value is not None]


def _any(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return _typed("BoolValue", protobuf.encode(_BOOL, {"value": value}))
    if isinstance(value, int | float):
        return _number(float(value))
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return _typed("StringValue", protobuf.encode(_STRING, {"value": text}))


def _number(value: float) -> dict[str, Any]:
    try:
        short = struct.pack("<f", value)
    except OverflowError:
        return _typed("DoubleValue", b"\x09" + struct.pack("<d", value))
    # A decimal fraction such as 0.1 is meant to its few digits; an integer is meant exactly.
    (back,) = struct.unpack("<f", short)
    if back != value and value.is_integer():
        return _typed("DoubleValue", b"\x09" + struct.pack("<d", value))
    return _typed("FloatValue", b"\x0d" + short if value else b"")


def _typed(name: str, value: bytes) -> dict[str, Any]:
    return {"typeUrl": _PREFIX + name, "value": value}


def unpack(entries: list[dict[str, Any]]) -> dict[str, Plain | bytes]:
    """Read the entries back into plain values; a whole number comes back as `int`.

    Raises:
        ProtocolError: A value is not one of the well-known wrappers.
    """
    return {entry.get("key", ""): _plain(entry.get("value", {})) for entry in entries}


def _plain(value: Mapping[str, Any]) -> Plain | bytes:
    name = str(value.get("typeUrl", "")).removeprefix(_PREFIX)
    data: bytes = value.get("value", b"")
    match name:
        case "StringValue":
            return str(protobuf.decode(_STRING, data).get("value", ""))
        case "BoolValue":
            return bool(protobuf.decode(_BOOL, data).get("value", False))
        case "BytesValue":
            return bytes(protobuf.decode(_BYTES, data).get("value", b""))
        case "Int32Value" | "Int64Value":
            return int(protobuf.decode(_INT, data).get("value", 0))
        case "UInt32Value" | "UInt64Value":
            return int(protobuf.decode(_UINT, data).get("value", 0))
        case "FloatValue":
            return _whole(float(f"{_fixed(data, 0x0D, '<f'):.7g}"))
        case "DoubleValue":
            return _whole(_fixed(data, 0x09, "<d"))
        case _:
            raise ProtocolError(f"a value of the unknown type {name[:80]!r}")


def _fixed(data: bytes, tag: int, form: str) -> float:
    if not data:
        return 0.0
    if data[0] != tag or len(data) != 1 + struct.calcsize(form):
        raise ProtocolError("a malformed number")
    (value,) = struct.unpack_from(form, data, 1)
    return float(value)


def _whole(value: float) -> int | float:
    return int(value) if math.isfinite(value) and value.is_integer() else value
