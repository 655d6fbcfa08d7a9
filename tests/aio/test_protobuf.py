"""The table codec against google.protobuf, for every message edged uses."""

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message as GoogleMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.aio import cri_messages, csi_messages, plugin_messages
from edgehive.aio.protobuf import Field, Kind, Message, decode, encode, message, split_repeated
from edgehive.kit.errors import ProtocolError

EVERYTHING = message(
    "Everything",
    (1, "text", "string"),
    (2, "raw", "bytes"),
    (3, "flag", "bool"),
    (4, "number", "int"),
    (5, "positive", "uint"),
    (6, "pairs", "map<string, string>"),
    (7, "inner", message("Inner", (1, "value", "int"), (300, "names", "string", "*"))),
    (8, "numbers", "int", "*"),
    (9, "texts", "string", "*"),
    (536870911, "inners", message("Inner2", (1, "value", "uint"), (2, "flags", "bool", "*")), "*"),
)
KINDS = [EVERYTHING] + sorted(
    {
        id(v): v
        for module in (cri_messages, csi_messages, plugin_messages)
        for v in vars(module).values()
        if isinstance(v, Message)
    }.values(),
    key=lambda m: m.name,
)


def google_class(kind: Message) -> type[GoogleMessage]:
    """Build google's class for the same table."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{kind.name}.proto", package="t", syntax="proto3")
    done: dict[int, str] = {}

    def add(one: Message) -> str:
        if id(one) in done:
            return done[id(one)]
        name = f"M{len(done)}"
        done[id(one)] = name
        inner = {f.name: add(f.message) for f in one.fields if f.message is not None}
        descriptor = file.message_type.add(name=name)
        for item in one.fields:
            _add_field(descriptor, name, item, inner.get(item.name, ""))
        return name

    add(kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.M0"))


def _add_field(descriptor: Any, owner: str, item: Field, inner: str) -> None:
    proto = descriptor_pb2.FieldDescriptorProto
    types = {
        Kind.STRING: proto.TYPE_STRING,
        Kind.BYTES: proto.TYPE_BYTES,
        Kind.BOOL: proto.TYPE_BOOL,
        Kind.INT: proto.TYPE_INT64,
        Kind.UINT: proto.TYPE_UINT64,
        Kind.MESSAGE: proto.TYPE_MESSAGE,
        Kind.STRING_MAP: proto.TYPE_MESSAGE,
    }
    field = descriptor.field.add(name=item.name, number=item.number, type=types[item.kind])
    many = item.repeated or item.kind is Kind.STRING_MAP
    field.label = proto.LABEL_REPEATED if many else proto.LABEL_OPTIONAL
    if inner:
        field.type_name = f".t.{inner}"
    if item.kind is Kind.STRING_MAP:
        entry_name = "".join(part.capitalize() for part in item.name.split("_")) + "Entry"
        entry = descriptor.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        for number, name in ((1, "key"), (2, "value")):
            entry.field.add(name=name, number=number, type=proto.TYPE_STRING, label=proto.LABEL_OPTIONAL)
        field.type_name = f".t.{owner}.{entry_name}"


def values(kind: Message) -> st.SearchStrategy[dict[str, Any]]:
    one = {
        Kind.STRING: st.text(max_size=20),
        Kind.BYTES: st.binary(max_size=200),
        Kind.BOOL: st.booleans(),
        Kind.INT: st.integers(-(2**63), 2**63 - 1),
        Kind.UINT: st.integers(0, 2**64 - 1),
        Kind.STRING_MAP: st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    }

    def of(item: Field) -> st.SearchStrategy[Any]:
        single = values(item.message) if item.message is not None else one[item.kind]
        return st.lists(single, max_size=3) if item.repeated else single

    return st.fixed_dictionaries({}, optional={item.name: of(item) for item in kind.fields})


def to_google(kind: Message, value: dict[str, Any], target: Any) -> None:
    for item in kind.fields:
        if item.name not in value:
            continue
        content = value[item.name]
        field = getattr(target, item.name)
        if item.kind is Kind.STRING_MAP:
            field.update(content)
        elif item.message is not None and item.repeated:
            for one in content:
                to_google(item.message, one, field.add())
        elif item.message is not None:
            field.SetInParent()
            to_google(item.message, content, field)
        elif item.repeated:
            field.extend(content)
        else:
            setattr(target, item.name, content)


def without_defaults(kind: Message, value: dict[str, Any]) -> dict[str, Any]:
    result = {}
    for item in kind.fields:
        content = value.get(item.name)
        if item.message is not None and not item.repeated:
            if content is not None:
                result[item.name] = without_defaults(item.message, content)
        elif item.message is not None:
            if content:
                result[item.name] = [without_defaults(item.message, one) for one in content]
        elif content:
            result[item.name] = content
    return result


@pytest.mark.parametrize("kind", KINDS, ids=lambda m: m.name)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_google_reads_what_we_write_and_we_read_what_google_writes(kind: Message, data: Any) -> None:
    value = data.draw(values(kind))
    google = google_class(kind)
    ours = google()
    ours.ParseFromString(encode(kind, value))
    expected = google()
    to_google(kind, value, expected)
    assert ours == expected, json_format.MessageToDict(ours)
    assert decode(kind, expected.SerializeToString()) == without_defaults(kind, value)


@given(st.binary(max_size=300))
def test_garbage_is_refused_or_read_but_nothing_else(data: bytes) -> None:
    for read in (lambda: decode(EVERYTHING, data), lambda: split_repeated(data, 1)):
        try:
            read()
        except ProtocolError:
            continue


def test_unknown_fields_are_skipped_and_unknown_names_are_an_error() -> None:
    wide = message("Wide", (1, "a", "string"), (9, "b", "int"), (10, "c", "bytes"))
    narrow = message("Narrow", (1, "a", "string"))
    assert decode(narrow, encode(wide, {"a": "x", "b": 5, "c": b"yy"})) == {"a": "x"}
    with pytest.raises(KeyError, match="Narrow"):
        encode(narrow, {"a": "x", "z": 1})


def test_split_repeated_gives_the_elements_undecoded() -> None:
    item = message("Item", (1, "a", "string"))
    outer = message("List", (1, "items", item, "*"), (2, "n", "int"))
    raw = encode(outer, {"items": [{"a": "x"}, {"a": "y"}], "n": 7})
    assert [decode(item, part) for part in split_repeated(raw, 1)] == [{"a": "x"}, {"a": "y"}]


def test_deep_nesting_is_refused() -> None:
    inner = message("Leaf", (1, "a", "string"))
    for _ in range(40):
        inner = message("Nest", (1, "n", inner))
    data = b""
    for _ in range(39):
        length = len(data)
        size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
        data = b"\x0a" + size + data
    with pytest.raises(ProtocolError, match="deep"):
        decode(inner, data)
