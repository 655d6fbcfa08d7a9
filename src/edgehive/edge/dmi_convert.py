"""Device and DeviceModel objects as the messages mappers understand; pure.

KubeEdge: the object's JSON is read into the message with Go's rules, that is, keys match without letter case and
unknown ones are dropped. What the model gives as defaults fills the keys that the device leaves out.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from edgehive.aio import dmi_messages as dmi
from edgehive.aio.protobuf import Field, Kind, Message
from edgehive.kit.errors import ProtocolError
from edgehive.kit.malformed import MALFORMED

_ANY_MAPS = ("CustomizedValue", "AnomalyDetection")


class Unconvertible(ProtocolError):
    """The object does not have the form mappers are told; the message names the field."""


def load(raw: bytes) -> dict[str, Any]:
    """Decode an object.

    Raises:
        Unconvertible: it is not JSON, or has no name.
    """
    try:
        loaded = msgspec.json.decode(raw, type=dict[str, Any])
    except MALFORMED as exc:
        raise Unconvertible(f"not a JSON object: {exc}") from exc
    metadata = loaded.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise Unconvertible("the object has no name")
    return loaded


def namespace_of(obj: Mapping[str, Any]) -> str:
    """The object's namespace; ``default`` when it has none."""
    return str(obj["metadata"].get("namespace") or "default")


def protocol_of(obj: Mapping[str, Any]) -> str:
    """The protocol a device speaks, or a model is for."""
    protocol = _mapping(obj.get("spec")).get("protocol")
    if isinstance(protocol, str):
        return protocol
    return str(_mapping(protocol).get("protocolName") or "")


def model_name_of(device: Mapping[str, Any]) -> str:
    """The name of a device's model."""
    return str(_mapping(_mapping(device.get("spec")).get("deviceModelRef")).get("name") or "")


def device_message(device: Mapping[str, Any], model: Mapping[str, Any] | None) -> dict[str, Any]:
    """The Device message of `device`, completed from its `model`.

    Raises:
        Unconvertible: a field has another type than the message.
    """
    spec = dict(_mapping(device.get("spec")))
    if model is not None:
        _complete(spec, _mapping(model.get("spec")))
    body = _with_all_parts(_convert(dmi.DEVICE_SPEC, spec, "spec"))
    body["deviceModelReference"] = model_name_of(device)
    report = _mapping(spec.get("stateReport"))
    old = _mapping(device.get("status"))
    status = {key: report.get(key, old.get(key)) for key in ("reportToCloud", "reportCycle")}
    return {
        "name": device["metadata"]["name"],
        "namespace": namespace_of(device),
        "spec": body,
        "status": _convert(
            dmi.DEVICE_STATUS, {k: v for k, v in status.items() if v is not None}, "stateReport"
        ),
    }


def model_message(model: Mapping[str, Any]) -> dict[str, Any]:
    """The DeviceModel message of `model`.

    Raises:
        Unconvertible: a field has another type than the message.
    """
    spec = dmi.DEVICE_MODEL.by_number[2].message
    assert spec is not None
    return {
        "name": model["metadata"]["name"],
        "namespace": namespace_of(model),
        "spec": _convert(spec, _mapping(model.get("spec")), "spec"),
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _complete(spec: dict[str, Any], model: Mapping[str, Any]) -> None:
    """Fill in what the model gives: connection data of the protocol, visitors of the properties."""
    if defaults := _mapping(model.get("protocolConfigData")):
        protocol = dict(_mapping(spec.get("protocol")))
        protocol["configData"] = {**defaults, **_mapping(protocol.get("configData"))}
        spec["protocol"] = protocol
    rows = model.get("properties")
    visitors = {
        row["name"]: row["visitors"]
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict)
        and isinstance(row.get("name"), str)
        and isinstance(row.get("visitors"), dict)
    }
    properties = spec.get("properties")
    if visitors and isinstance(properties, list):
        spec["properties"] = [_with_visitors(p, visitors) for p in properties]


def _with_all_parts(spec: dict[str, Any]) -> dict[str, Any]:
    """Parts that are structures in KubeEdge's own object, and so always in its message: its mappers count on them."""
    spec.setdefault("protocol", {})
    for item in spec.get("properties", ()):
        item.setdefault("desired", {})
        item.setdefault("visitors", {}).setdefault("configData", {"data": {}})
    return spec


def _with_visitors(item: Any, visitors: Mapping[str, Mapping[str, Any]]) -> Any:
    name = item.get("name") if isinstance(item, dict) else None
    if not isinstance(name, str) or (default := visitors.get(name)) is None:
        return item
    own = _mapping(item.get("visitors"))
    data = {**_mapping(default.get("configData")), **_mapping(own.get("configData"))}
    return {**item, "visitors": {**default, **own, "configData": data}}


def _convert(kind: Message, obj: Mapping[str, Any], path: str) -> dict[str, Any]:
    if kind.name in _ANY_MAPS:
        return {"data": dmi.pack(obj)}
    fields = {item.name.lower(): item for item in kind.fields}
    result: dict[str, Any] = {}
    for key, value in obj.items():
        item = fields.get(key.lower())
        if item is None or value is None:
            continue
        where = f"{path}.{key}"
        if item.repeated:
            if not isinstance(value, list):
                raise Unconvertible(f"{where} is not a list")
            result[item.name] = [_value(item, one, f"{where}[{i}]") for i, one in enumerate(value)]
        else:
            result[item.name] = _value(item, value, where)
    return result


def _value(item: Field, value: Any, path: str) -> Any:
    match item.kind:
        case Kind.MESSAGE if isinstance(value, dict):
            assert item.message is not None
            return _convert(item.message, value, path)
        case Kind.STRING if isinstance(value, str):
            return value
        case Kind.BOOL if isinstance(value, bool):
            return value
        case Kind.INT if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
            return value
        case Kind.STRING_MAP if isinstance(value, dict) and all(isinstance(v, str) for v in value.values()):
            return value
        case _:
            raise Unconvertible(f"{path} is not {item.kind.value}")
