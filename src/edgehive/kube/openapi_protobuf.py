"""OpenAPI v2 in the protobuf form that kubectl's Go client asks for (gnostic's ``openapi.v2.Document``).

Only the messages and fields that our documents use are written; the numbers are gnostic's.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

V2_PROTOBUF_ACCEPT = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
"""What Go clients send in ``Accept``."""
V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""What to answer in ``Content-Type``: the name above is no valid media type, and Go clients refuse it there."""


def encode_document(document: Mapping[str, Any]) -> bytes:
    """Encode a version 2 document; references to shared parameters are resolved."""
    info = document["info"]
    shared = {f"#/parameters/{name}": p for name, p in (document.get("parameters") or {}).items()}
    paths = b"".join(
        _field(2, _named(path, _path_item(item, shared))) for path, item in document["paths"].items()
    )
    definitions = b"".join(_field(1, _named(n, _schema(s))) for n, s in document["definitions"].items())
    return b"".join(
        (
            _text(1, document["swagger"]),
            _field(2, _text(1, info["title"]) + _text(2, info["version"])),
            _field(8, paths),
            _field(9, definitions),
        )
    )


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _text(number: int, value: str | None) -> bytes:
    return _field(number, value.encode()) if value else b""


def _texts(number: int, values: Iterable[str] | None) -> bytes:
    return b"".join(_field(number, value.encode()) for value in values or ())


def _flag(number: int, value: Any) -> bytes:
    return _varint(number << 3) + b"\x01" if value else b""


def _integer(number: int, value: int | None) -> bytes:
    return _varint(number << 3) + _varint(value) if value is not None else b""


def _double(number: int, value: float | None) -> bytes:
    if value is None:
        return b""
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _field(2, value)


def _any(value: Any) -> bytes:
    """An arbitrary value travels as YAML, of which JSON is a part."""
    return _text(2, msgspec.json.encode(value).decode() + "\n")


def _extensions(number: int, value: Mapping[str, Any]) -> bytes:
    return b"".join(_field(number, _named(k, _any(v))) for k, v in value.items() if k.startswith("x-"))


_METHODS = (("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("options", 6), ("head", 7), ("patch", 8))


_Shared = Mapping[str, Mapping[str, Any]]


def _path_item(item: Mapping[str, Any], shared: _Shared) -> bytes:
    out = [_field(number, _operation(item[name], shared)) for name, number in _METHODS if name in item]
    return b"".join([*out, *_parameters(9, item, shared)])


def _parameters(number: int, holder: Mapping[str, Any], shared: _Shared) -> list[bytes]:
    found = (shared.get(p.get("$ref", ""), p) for p in holder.get("parameters") or ())
    return [_field(number, _parameter(parameter)) for parameter in found if "in" in parameter]


def _response(response: Mapping[str, Any]) -> bytes:
    schema = response.get("schema")
    body = _field(2, _field(1, _schema(schema))) if schema else b""
    return _field(1, _text(1, response.get("description")) + body)


def _operation(operation: Mapping[str, Any], shared: _Shared) -> bytes:
    responses = b"".join(_field(1, _named(code, _response(r))) for code, r in operation["responses"].items())
    return b"".join(
        (
            _text(3, operation.get("description")),
            _text(5, operation.get("operationId")),
            _texts(6, operation.get("produces")),
            _texts(7, operation.get("consumes")),
            *_parameters(8, operation, shared),
            _field(9, responses),
            _extensions(13, operation),
        )
    )


def _parameter(parameter: Mapping[str, Any]) -> bytes:
    """A ``ParametersItem`` that holds a ``Parameter`` that holds a body or non-body parameter."""
    place = parameter["in"]
    if place == "body":
        body = (
            _text(2, parameter["name"])
            + _text(3, place)
            + _flag(4, parameter.get("required"))
            + _field(5, _schema(parameter["schema"]))
        )
        return _field(1, _field(1, body))
    common = (
        _flag(1, parameter.get("required"))
        + _text(2, place)
        + _text(3, parameter.get("description"))
        + _text(4, parameter["name"])
    )
    if place == "path":
        return _field(1, _field(2, _field(4, common + _text(5, parameter["type"]))))
    return _field(1, _field(2, _field(3, common + _text(6, parameter["type"]))))


def _schema(schema: Mapping[str, Any]) -> bytes:
    out = [
        _text(1, schema.get("$ref")),
        _text(2, schema.get("format")),
        _text(3, schema.get("title")),
        _text(4, schema.get("description")),
        _field(5, _any(schema["default"])) if "default" in schema else b"",
        _double(6, schema.get("multipleOf")),
        _double(7, schema.get("maximum")),
        _flag(8, schema.get("exclusiveMaximum")),
        _double(9, schema.get("minimum")),
        _flag(10, schema.get("exclusiveMinimum")),
        _integer(11, schema.get("maxLength")),
        _integer(12, schema.get("minLength")),
        _text(13, schema.get("pattern")),
        _integer(14, schema.get("maxItems")),
        _integer(15, schema.get("minItems")),
        _flag(16, schema.get("uniqueItems")),
        _integer(17, schema.get("maxProperties")),
        _integer(18, schema.get("minProperties")),
        _texts(19, schema.get("required")),
    ]
    out += [_field(20, _any(value)) for value in schema.get("enum") or ()]
    if isinstance(schema.get("additionalProperties"), Mapping):
        out.append(_field(21, _field(1, _schema(schema["additionalProperties"]))))
    if "type" in schema:
        out.append(_field(22, _texts(1, [schema["type"]])))
    if isinstance(schema.get("items"), Mapping):
        out.append(_field(23, _field(1, _schema(schema["items"]))))
    if schema.get("properties"):
        properties = b"".join(_field(1, _named(k, _schema(v))) for k, v in schema["properties"].items())
        out.append(_field(25, properties))
    out.append(_extensions(31, schema))
    return b"".join(out)
