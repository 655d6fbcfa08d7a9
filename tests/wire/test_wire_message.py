"""Frames: exact on the way out, as tolerant as the original on the way in, and never anything but ProtocolError."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.kit.errors import ProtocolError
from edgehive.wire.message import (
    Message,
    content_data,
    decode_content,
    decode_message,
    encode_message,
    outline,
)

KEEPALIVE = (
    b'{"header":{"msg_id":"11111111-1111-4111-8111-111111111111","timestamp":1786000000123},'
    b'"route":{"source":"websocket","group":"resource","operation":"keepalive","resource":"node"},'
    b'"content":"ping"}'
)


def test_a_keepalive_is_the_bytes_that_go_writes() -> None:
    message = decode_message(KEEPALIVE + b"\n")
    assert message.content == b'"ping"'
    assert encode_message(message) == KEEPALIVE


def test_absent_fields_are_left_out_and_content_is_always_there() -> None:
    frame = json.loads(encode_message(Message(id="a", timestamp=0, operation="", resource="")))
    assert frame == {"header": {"msg_id": "a", "timestamp": 0}, "route": {}, "content": None}


@pytest.mark.parametrize(
    "frame",
    [
        b'{"Header":{"MSG_ID":"a","TimeStamp":7},"ROUTE":{"Operation":"x","resource":"r"},"Content":{"b":1}}',
        b'{"header":{"msg_id":"a","timestamp":7,"new":1},"route":{"operation":"x","resource":"r"},"content":{"b":1},"z":0}',
        b' {"header":{"msg_id":"a","timestamp":7},"route":{"operation":"x","resource":"r"},"content":{"b":1}} trailing',
        b'{"header":{"msg_id":"a","timestamp":7,"sync":null},"route":{"operation":"x","resource":"r"},"content":{"b":1}}',
    ],
)
def test_what_the_original_reads_is_read(frame: bytes) -> None:
    message = decode_message(frame)
    assert (message.id, message.timestamp, message.operation, message.resource) == ("a", 7, "x", "r")
    assert json.loads(message.content) == {"b": 1}


def test_header_and_route_may_be_missing_or_null() -> None:
    assert decode_message(b"{}").id == ""
    assert decode_message(b'{"header":null,"route":null}').content == b"null"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b'{"header":{"msg_id":"a","timestamp":1.5}}',
        b'{"header":{"msg_id":7,"timestamp":1}}',
        b'{"header":{"msg_id":"a","timestamp":1,"resourceversion":5}}',
        b'{"header":{"msg_id":"a","timestamp":99999999999999999999}}',
        b'{"header":{"msg_id":"a","timestamp":1},"content":NaN}',
        b'{"Header":{"msg_id":"a","timestamp":1},"content":NaN}',
        b'{"Header":[],"content":1}',
        b'{"header":{"msg_id":"a","timestamp":1},"content":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"Header":{"msg_id":"a","timestamp":1},"content":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_the_original_drops_the_link_for_is_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_message(frame)


def test_invalid_utf8_becomes_the_replacement_character() -> None:
    message = decode_message(b'{"header":{"msg_id":"a","timestamp":1},"content":"\xff"}')
    assert content_data(message.content) == "\ufffd".encode()


def test_half_a_surrogate_pair_can_be_encoded_again() -> None:
    message = decode_message(b'{"Header":{"msg_id":"\\ud800x","timestamp":1},"content":null}')
    assert message.id == "\ufffdx"
    encode_message(message)


def test_a_json_string_and_the_object_in_it_are_the_same_payload() -> None:
    assert content_data(b'"{\\"a\\":1}"') == content_data(b'{"a":1}') == b'{"a":1}'
    assert decode_content(b'"{\\"a\\":1}"') == {"a": 1}
    for broken in (b'"\\x"', b'"{', b"{", b'"' + b"[" * 50_000 + b'"'):
        with pytest.raises(ProtocolError):
            decode_content(broken)


def test_a_reply_keeps_source_group_and_resource_of_the_request() -> None:
    request = Message("a", 1, "query", "default/pod/x", source="edged", group="meta", resource_version="5")
    reply = request.reply(new_id="b", timestamp=2)
    assert reply == Message(
        "b", 2, "response", "default/pod/x", b'"OK"', parent_id="a", source="edged", group="meta"
    )


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(
    st.builds(
        Message,
        id=texts,
        timestamp=st.integers(-(2**63), 2**63 - 1),
        operation=texts,
        resource=texts,
        content=st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
            max_leaves=10,
        ).map(lambda value: json.dumps(value, ensure_ascii=False).encode()),
        parent_id=texts,
        resource_version=texts,
        source=texts,
        group=texts,
        destination=texts,
    )
)
def test_decoding_undoes_encoding(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


@given(
    st.binary(max_size=200)
    | st.builds(lambda a, b: KEEPALIVE[:a] + b + KEEPALIVE[a:], st.integers(0, 200), st.binary(max_size=4))
)
def test_any_bytes_give_a_message_or_a_protocol_error(data: bytes) -> None:
    try:
        message = decode_message(data)
    except ProtocolError:
        return
    encode_message(message)
    with contextlib.suppress(ProtocolError):
        decode_content(message.content)


def test_a_log_shows_all_of_a_frame_but_its_content():
    frame = encode_message(
        Message(
            "i1",
            1,
            "update",
            "default/secret/s",
            b'{"data":"c2VjcmV0"}',
            parent_id="p",
            source="edgecontroller",
        )
    )
    assert (
        outline(frame) == f"update default/secret/s from=edgecontroller id=i1 parent=p ({len(frame)} bytes)"
    )
    assert outline(b"\xff nonsense") == "10 bytes that are no message"
    forged = encode_message(Message("i", 1, "x\ny", "r" * 9_999))
    assert "\n" not in outline(forged)
    assert len(outline(forged)) < 1_000
