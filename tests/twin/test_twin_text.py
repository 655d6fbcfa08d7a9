"""Topics, values and JSON as Go reads and writes them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.twin import gojson, topics, values
from edgehive.twin.gojson import Malformed, describe_error
from edgehive.twin.topics import Request, Topic, parse_topic


@pytest.mark.parametrize(
    ("topic", "parsed"),
    [
        ("$hw/events/device/default/d1/twin/update", Topic(Request.TWIN_UPDATE, "default/d1")),
        ("$hw/events/device/default/d1/twin/get", Topic(Request.TWIN_GET, "default/d1")),
        ("$hw/events/device/default/d1/twin/cloud_updated", Topic(Request.CLOUD_UPDATED, "default/d1")),
        ("$hw/events/device/default/d1/state/update", Topic(Request.STATE_UPDATE, "default/d1")),
        ("$hw/events/node/n/membership/get", Topic(Request.MEMBERSHIP_GET, "n")),
        ("$hw/events/device/default/d1/twin/update/result", None),
        ("$hw/events/device/default/d1/twin/update/document", None),
        ("$hw/events/device/default/d1/membership/get", None),
        ("$hw/events/device/default/twin/update", None),
        ("$hw/events/device//d1/twin/update", None),
        ("$hw/events/device/default//twin/update", None),
        ("$hw/events/node//membership/get", None),
        ("$hw/events/node/n/membership/detail", None),
        ("$hw/events/node/n/membership/updated", None),
        ("$hw/events/upload/x", None),
        ("", None),
    ],
)
def test_topics_are_taken_apart_by_their_structure(topic, parsed):
    assert parse_topic(topic) == parsed


@given(st.text(max_size=80))
def test_any_text_is_a_topic_or_is_none(text):
    parse_topic(text)
    parse_topic("$hw/events/device/" + text)
    topics.reported_device("device/" + text)


def test_reports_are_recognised():
    assert topics.reported_device("device/a/b/twin/edge_updated") == ("a/b", "twin/edge_updated")
    for other in (
        "device/a/b/twin/update",
        "device/a/twin/edge_updated",
        "default/pod/x",
        "device//b/state/update",
    ):
        assert topics.reported_device(other) is None


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            "int",
            ["0", "-5", "+7", "9223372036854775807"],
            ["", "1.0", "1_0", "9223372036854775808", "x", " 1", "١"],
        ),
        ("integer", ["1"], ["a", "9" * 5000]),
        (
            "float",
            ["1", "-1.5", ".5", "5.", "1e9", "1_0.5_0", "inf", "-Infinity", "NaN", "0x1p-2"],
            ["", ".", "1e", "1e999", "_1", "1__0", "0x1", "++inf", "-nan", "1,5", "abc", "0x_p1", "0xp1"],
        ),
        ("boolean", ["true", "false"], ["True", "1", ""]),
        ("string", ["", "anything at all"], []),
        ("", ["x"], []),
        ("deleted", ["x"], []),
        ("double", [], ["1"]),
        ("bytes", [], ["1"]),
    ],
)
def test_values_have_the_types_of_the_original(kind, good, bad):
    assert [v for v in good if values.type_problem(kind, v)] == []
    assert [v for v in bad if not values.type_problem(kind, v)] == []


@pytest.mark.parametrize("text", ["1{}x", "1{}.", "0x{}!", "1_{}_"])
def test_a_long_text_is_no_number_at_once(text):
    """Tried in all ways to part it, each took 20 s."""
    long = text.format("1" * values.MAX_TEXT)
    assert values.type_problem("float", long) == "the value is not float"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("a-Z_.,:/@#9", True, True),
        ("", False, True),
        ("x" * 128, True, True),
        ("x" * 129, False, True),
        ("x" * 513, False, False),
        ("a b", False, False),
        ("ü", False, False),
        ("a\n", False, False),
        ("1+1", False, False),
    ],
)
def test_the_alphabet(text, key, value):
    assert (values.is_key(text), values.is_value(text)) == (key, value)


# What Go's encoding/json says of these texts.
@pytest.mark.parametrize(
    ("text", "message", "offset"),
    [
        ("notjson", "invalid character 'o' in literal null (expecting 'u')", 2),
        ("trux", "invalid character 'x' in literal true (expecting 'e')", 4),
        ("", "unexpected end of JSON input", 0),
        ("{", "unexpected end of JSON input", 1),
        ('{"a":1', "unexpected end of JSON input", 6),
        ("'", "invalid character '\\\\'' looking for beginning of value", 1),
        ("{bad", "invalid character 'b' looking for beginning of object key string", 2),
        ("hello", "invalid character 'h' looking for beginning of value", 1),
        ('{"a" 1}', "invalid character '1' after object key", 6),
        ('{"a":1 "b":2}', "invalid character '\\\"' after object key:value pair", 8),
        ("[1 2]", "invalid character '2' after array element", 4),
        ('{"a":1}x', "invalid character 'x' after top-level value", 8),
        ('"a\nb"', "invalid character '\\\\n' in string literal", 3),
        ('"\\x"', "invalid character 'x' in string escape code", 3),
        ('"\\u12g4"', "invalid character 'g' in \\\\u hexadecimal character escape", 6),
        ("-x", "invalid character 'x' in numeric literal", 2),
        ("1.x", "invalid character 'x' after decimal point in numeric literal", 3),
        ("1ex", "invalid character 'x' in exponent of numeric literal", 3),
        ("01", "invalid character '1' after top-level value", 2),
        ("[1,]", "invalid character ']' looking for beginning of value", 4),
        ('{"a":1,}', "invalid character '}' looking for beginning of object key string", 8),
    ],
)
def test_syntax_errors_have_the_words_of_the_original(text, message, offset):
    with pytest.raises(Malformed) as caught:
        gojson.decode(text.encode())
    assert (
        describe_error(text.encode(), caught.value)
        == f'&json.SyntaxError{{msg:"{message}", Offset:{offset}}}'
    )


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_a_text_is_wrong_to_go_where_it_is_wrong_to_us(data):
    try:
        json.loads(data.decode("utf-8", "replace"), parse_constant=lambda name: 1 / 0)
    except (ValueError, ZeroDivisionError, RecursionError):
        assert describe_error(data, Malformed("?")).startswith("&json.SyntaxError")
    else:
        assert describe_error(data, Malformed("?")) == "?"


def test_depth_is_no_danger():
    assert "exceeded max depth" in describe_error(b"[" * 10_001, Malformed("?"))
    assert describe_error(b"[" * 200_000, Malformed("?")) == "?", "long ones are not walked through"
    with pytest.raises(Malformed, match="deep"):
        gojson.decode(b"[" * 200_000)


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"1",
        b'"x"',
        b'{"event_id":1}',
        b'{"timestamp":1.5}',
        b'{"timestamp":true}',
        b'{"timestamp":9223372036854775808}',
    ],
)
def test_wrong_types_are_refused(payload):
    from edgehive.twin.payloads import read_event_id

    with pytest.raises(Malformed):
        read_event_id(payload)


def test_invalid_utf8_becomes_the_replacement_character():
    assert gojson.decode(b'{"event_id":"a\xffb"}') == {"event_id": "a\ufffdb"}


@given(st.text(max_size=30))
def test_what_is_written_is_the_same_text_and_has_nothing_of_html(text):
    data = gojson.encode({"k": text})
    assert json.loads(data) == {"k": text}
    assert not set(b"<>&") & set(data)
    assert b"\xe2\x80\xa8" not in data
