"""Request bodies in Kubernetes' Protocol Buffers form, decoded into what JSON would have said.

kubectl's imperative commands (``create deployment``, ``create configmap``, ``auth can-i``) and Go clients send
built-in objects so, and do not fall back. Answers are JSON: such clients accept it. The envelope is four magic
bytes and ``runtime.Unknown``; field numbers stand in ``protobuf_types.txt``, which is read on first use.
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from edgehive.kube.status import ApiStatus, bad_request

MEDIA = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_MAX_DEPTH = 40
_PACKAGES: Mapping[str, str] = MappingProxyType(
    {"": "core", "rbac.authorization.k8s.io": "rbac"}  # else the first label of the group
)
_EMPTY: tuple[Any, ...] = ("", 0, False, None, {}, [], 0.0)


class _Field(NamedTuple):
    name: str
    code: str
    pointer: bool
    repeated: bool
    mapped: bool


class _Malformed(Exception):
    """The bytes are not what they say."""


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _Malformed("truncated")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7


def _parts(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Yield (number, wire type, value): an integer, or a view of a delimited value."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in {1, 5}:
            size = 8 if wire == 1 else 4
        else:
            raise _Malformed(f"wire type {wire}")
        if size > len(data) - at:
            raise _Malformed("truncated")
        yield number, wire, data[at : at + size]
        at += size


def _signed(value: Any) -> int:
    if not isinstance(value, int):
        raise _Malformed("a number was expected")
    return value - (1 << 64) if value >= 1 << 63 else value


def _text(value: Any) -> str:
    if isinstance(value, int):
        raise _Malformed("text was expected")
    return bytes(value).decode()


def _integers(value: Any) -> dict[int, Any]:
    if isinstance(value, int):
        raise _Malformed("a message was expected")
    return {number: part for number, _, part in _parts(value)}


def _time(value: Any, *, micro: bool = False) -> str | None:
    fields = _integers(value)
    if not fields:
        return None
    seconds, nanos = _signed(fields.get(1, 0)), _signed(fields.get(2, 0))
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=nanos // 1000)
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def _int_or_string(value: Any) -> int | str:
    fields = _integers(value)
    return _text(fields[3]) if fields.get(1, 0) == 1 and 3 in fields else _signed(fields.get(2, 0))


def _raw(value: Any) -> Any:
    raw = bytes(_integers(value).get(1, b""))
    return msgspec.json.decode(raw) if raw else None


def _double(value: Any) -> float:
    import struct

    return float(struct.unpack("<d", bytes(value))[0])


def _duration(value: Any) -> str:
    return f"{_signed(_integers(value).get(1, 0)) / 1e9:g}s"


_SCALARS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "s": _text,
        "b": lambda value: bool(_signed(value)),
        "i": _signed,
        "f": _double,
        "y": lambda value: base64.b64encode(bytes(value)).decode(),
        "q": lambda value: _text(_integers(value).get(1, b"")),
        "t": _time,
        "T": lambda value: _time(value, micro=True),
        "x": _int_or_string,
        "r": _raw,
        "F": _raw,
        "D": _duration,
        "L": lambda value: [_text(part) for _, _, part in _parts(value)],
    }
)


class ProtobufDecoder:
    """Decodes request bodies; the table is read on first use."""

    def __init__(self) -> None:
        self._lines: dict[str, str] | None = None
        self._types: dict[str, dict[int, _Field]] = {}

    def decode(self, body: bytes) -> dict[str, Any]:
        """Return the object in `body`, with kind and apiVersion.

        Raises:
            ApiStatus: 400 for what is malformed, 415 for a kind that has no such form here.
        """
        if not body.startswith(_MAGIC):
            raise bad_request("the body is not in Kubernetes' protobuf form")
        try:
            return self._object(memoryview(body)[4:])
        except (_Malformed, UnicodeDecodeError, ValueError, OverflowError, TypeError, RecursionError) as exc:
            raise bad_request(f"the body is not valid protobuf: {exc}") from exc

    def _object(self, data: memoryview) -> dict[str, Any]:
        envelope = _integers(data)
        meta = {number: _text(value) for number, value in _integers(envelope.get(1, b"")).items()}
        api_version, kind = meta.get(1, ""), meta.get(2, "")
        group = api_version.rpartition("/")[0]
        package = "meta" if kind == "DeleteOptions" else _PACKAGES.get(group) or group.partition(".")[0]
        name = f"{package}.{kind}"
        if name not in self._table():
            message = f"{kind} of {api_version} is not accepted as {MEDIA}; send application/json"
            raise ApiStatus(415, "UnsupportedMediaType", message)
        head = {"kind": kind, "apiVersion": api_version}
        return head | self._message(name, envelope.get(2, memoryview(b"")), _MAX_DEPTH)

    def _message(self, name: str, data: Any, depth: int) -> dict[str, Any]:
        if not depth or isinstance(data, int):
            raise _Malformed("nested too deep, or not a message")
        fields = self._fields(name)
        found: dict[str, Any] = {}
        for number, _, part in _parts(data):
            field = fields.get(number)
            if field is None:
                continue
            if field.mapped:
                self._entry(found.setdefault(field.name, {}), field, part, depth)
            elif field.repeated:
                found.setdefault(field.name, []).append(self._value(field.code, part, depth))
            else:
                value = self._value(field.code, part, depth)
                if field.name == "+":
                    found.update(value)
                elif value is not None and (field.pointer or value not in _EMPTY):
                    found[field.name] = value
        return found

    def _entry(self, into: dict[str, Any], field: _Field, part: Any, depth: int) -> None:
        pair = _integers(part)
        value = pair.get(2, 0 if field.code in {"i", "b"} else b"")
        into[_text(pair.get(1, b""))] = self._value(field.code, value, depth)

    def _value(self, code: str, part: Any, depth: int) -> Any:
        scalar = _SCALARS.get(code)
        return scalar(part) if scalar is not None else self._message(code, part, depth - 1)

    def _fields(self, name: str) -> dict[int, _Field]:
        fields = self._types.get(name)
        if fields is None:
            package = name.partition(".")[0]
            fields = self._types[name] = dict(_field(package, text) for text in self._table()[name].split())
        return fields

    def _table(self) -> dict[str, str]:
        if self._lines is None:
            self._lines = {}
            package = ""
            text = Path(__file__).with_name("protobuf_types.txt").read_text("ascii")
            for line in text.splitlines():
                if line.startswith("@"):
                    package = line[1:]
                elif line and not line.startswith("#"):
                    name, _, rest = line.partition(" ")
                    self._lines[f"{package}.{name}"] = rest
        return self._lines


def _field(package: str, text: str) -> tuple[int, _Field]:
    name, number, code = text.split(":")
    bare = code.lstrip("*[]{}")
    if bare not in _SCALARS and "." not in bare:
        bare = f"{package}.{bare}"
    return int(number), _Field(name, bare, code.startswith("*"), "[]" in code, "{}" in code)
