"""Protocol Buffers (proto3) by table: a message is a tuple of fields, a value is a dict.

google.protobuf costs 4 MB of resident memory in a process that must stay under 36; this costs nothing and is fast
enough for what an edge says to its container runtime. Unknown fields are skipped, absent ones stay absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edgehive.kit.errors import ProtocolError

_U64 = (1 << 64) - 1
_MAX_DEPTH = 32


class Kind(Enum):
    """How a field's value is written."""

    STRING = "string"
    BYTES = "bytes"
    BOOL = "bool"
    INT = "int"
    """int32, int64 and enums: two's complement varint."""
    UINT = "uint"
    STRING_MAP = "map<string, string>"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    number: int
    name: str
    kind: Kind
    message: "Message | None" = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A message type: its fields, by name and by number."""

    name: str
    fields: tuple[Field, ...]
    by_number: Mapping[int, Field] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_number", {f.number: f for f in self.fields})


@dataclass(frozen=True, slots=True)
class Method:
    """A gRPC method: its path, what goes in and what comes out."""

    path: str
    request: Message
    response: Message


def message(name: str, *fields: tuple[Any, ...]) -> Message:
    """Describe a message; each field is (number, name, kind or message) and ``"*"`` when it is repeated."""
    rows = []
    for number, label, what, *flags in fields:
        inner = what if isinstance(what, Message) else None
        kind = Kind.MESSAGE if inner else Kind(what)
        rows.append(Field(number, label, kind, inner, "*" in flags))
    return Message(name, tuple(rows))


def encode(kind: Message, value: Mapping[str, Any]) -> bytes:
    """Encode `value`; fields that are missing, None, or equal to the proto3 default are left out.

    A message inside of it may be encoded already.

    Raises:
        KeyError: `value` has a key that `kind` does not.
    """
    out = bytearray()
    left = len(value)
    for item in kind.fields:
        if item.name not in value:
            continue
        left -= 1
        content = value[item.name]
        if content is None:
            continue
        if item.kind is Kind.STRING_MAP:
            for key, text in content.items():
                pair = _delimited(1, key.encode()) + _delimited(2, text.encode())
                out += _delimited(item.number, pair)
        elif item.repeated:
            _encode_repeated(out, item, content)
        elif item.kind is Kind.MESSAGE or content:
            out += _encode_one(item, content)
    if left:
        raise KeyError(f"{kind.name} has no field {set(value) - {f.name for f in kind.fields}}")
    return bytes(out)


def _encode_repeated(out: bytearray, item: Field, content: Any) -> None:
    if item.kind in (Kind.INT, Kind.UINT, Kind.BOOL):
        if content:
            out += _delimited(item.number, b"".join(_varint(int(one) & _U64) for one in content))
        return
    for one in content:
        out += _encode_one(item, one)


def _encode_one(item: Field, content: Any) -> bytes:
    match item.kind:
        case Kind.STRING:
            return _delimited(item.number, content.encode())
        case Kind.BYTES:
            return _delimited(item.number, content)
        case Kind.MESSAGE if isinstance(content, bytes):
            return _delimited(item.number, content)
        case Kind.MESSAGE:
            assert item.message is not None
            return _delimited(item.number, encode(item.message, content))
        case _:
            return _varint(item.number << 3) + _varint(int(content) & _U64)


def _delimited(number: int, content: bytes) -> bytes:
    length = len(content)
    if number < 16 and length < 0x80:
        return _SMALL[number << 3 | 2] + _SMALL[length] + content
    return _varint(number << 3 | 2) + _varint(length) + content


_SMALL = tuple(bytes((value,)) for value in range(0x80))


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _SMALL[value]
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(kind: Message, data: bytes) -> dict[str, Any]:
    """Decode `data`; absent fields are absent from the result.

    Raises:
        ProtocolError: `data` is not this message.
    """
    try:
        return _decode(kind, data, 0)
    except (IndexError, UnicodeDecodeError) as exc:
        raise ProtocolError(f"truncated or malformed {kind.name}") from exc


def split_repeated(data: bytes, number: int) -> list[bytes]:
    """Return the undecoded elements of the repeated message field `number`; other fields are skipped.

    Raises:
        ProtocolError: `data` is not a message.
    """
    parts = []
    at, end = 0, len(data)
    try:
        while at < end:
            tag, at = _read_varint(data, at)
            if tag & 7 == 0:
                _, at = _read_varint(data, at)
                continue
            if tag & 7 != 2:
                raise ProtocolError(f"unexpected wire type {tag & 7}")
            size, at = _read_varint(data, at)
            if tag >> 3 == number:
                parts.append(data[at : at + size])
            at += size
    except IndexError as exc:
        raise ProtocolError("truncated message") from exc
    if at > end:
        raise ProtocolError("truncated message")
    return parts


def _decode(kind: Message, data: bytes, depth: int) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise ProtocolError(f"{kind.name} is nested too deeply")
    result: dict[str, Any] = {}
    at, end = 0, len(data)
    while at < end:
        tag, at = _read_varint(data, at)
        wire = tag & 7
        content: bytes | int
        if wire == 0:
            content, at = _read_varint(data, at)
        elif wire == 2:
            size, at = _read_varint(data, at)
            content = data[at : at + size]
            at += size
            if at > end:
                raise IndexError
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
            if at > end:
                raise IndexError
            continue
        else:
            raise ProtocolError(f"{kind.name} has a field of wire type {wire}")
        if (item := kind.by_number.get(tag >> 3)) is not None:
            _store(result, item, content, depth)
    return result


def _store(result: dict[str, Any], item: Field, content: bytes | int, depth: int) -> None:
    if isinstance(content, int):
        if item.kind in (Kind.INT, Kind.UINT, Kind.BOOL):
            number = _number(item.kind, content)
            if item.repeated:
                result.setdefault(item.name, []).append(number)
            else:
                result[item.name] = number
        return
    value: Any
    match item.kind:
        case Kind.STRING:
            value = content.decode()
        case Kind.BYTES:
            value = content
        case Kind.STRING_MAP:
            pair = _decode(_PAIR, content, depth + 1)
            result.setdefault(item.name, {})[pair.get("key", "")] = pair.get("value", "")
            return
        case Kind.MESSAGE:
            assert item.message is not None
            value = _decode(item.message, content, depth + 1)
            if not item.repeated and item.name in result:
                value = result[item.name] | value
        case _:
            if item.repeated:
                _store_packed(result.setdefault(item.name, []), item.kind, content)
            return
    if item.repeated:
        result.setdefault(item.name, []).append(value)
    else:
        result[item.name] = value


def _store_packed(into: list[Any], kind: Kind, content: bytes) -> None:
    at = 0
    while at < len(content):
        number, at = _read_varint(content, at)
        into.append(_number(kind, number))


def _number(kind: Kind, raw: int) -> int | bool:
    if kind is Kind.BOOL:
        return bool(raw)
    if kind is Kind.INT and raw >> 63:
        return raw - (1 << 64)
    return raw


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    if byte < 0x80:
        return byte, at
    value, shift = byte & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _U64, at
        shift += 7
        if shift > 63:
            raise ProtocolError("a varint is longer than ten bytes")


_PAIR = message("map entry", (1, "key", "string"), (2, "value", "string"))
