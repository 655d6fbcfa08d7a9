import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.kube.builtin import TYPES
from edgehive.kube.schema import Schema
from edgehive.kube.schema_check import FORMATS, parse_time

_leaf = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "minLength": 2, "maxLength": 3},
        {"type": "string", "pattern": "^a+$"},
        {"type": "string", "enum": ["a", "b"]},
        {"type": "integer"},
        {"type": "integer", "minimum": 1, "maximum": 3},
        {"type": "integer", "multipleOf": 2},
        {"type": "number"},
        {"type": "boolean"},
    ]
)


def _containers(children):
    return (
        st.builds(
            lambda items, low: {"type": "array", "items": items, "minItems": low, "maxItems": 2},
            children,
            st.integers(0, 1),
        )
        | st.builds(
            lambda values: {"type": "object", "additionalProperties": values, "maxProperties": 2}, children
        )
        | st.builds(
            lambda properties, required: {
                "type": "object",
                "properties": properties,
                "required": sorted(required),
            },
            st.dictionaries(st.sampled_from("pqr"), children, max_size=3),
            st.sets(st.sampled_from("pqr"), max_size=2),
        )
    )


_schemas = st.recursive(_leaf, _containers, max_leaves=6)
_values = st.recursive(
    st.booleans() | st.integers(-1, 5) | st.sampled_from([1.5, 2.0, "", "a", "aa", "b", "abc", "aaaa"]),
    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.sampled_from("pqrs"), c, max_size=3),
    max_leaves=6,
)
_combined = st.builds(
    lambda base, key, subs: base | {key: subs if key != "not" else subs[0]},
    _schemas,
    st.sampled_from(["allOf", "anyOf", "oneOf", "not"]),
    st.lists(_schemas, min_size=1, max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(_schemas | _combined, _values)
def test_agrees_with_jsonschema(source, value):
    jsonschema = pytest.importorskip("jsonschema")
    expected = jsonschema.Draft202012Validator(source).is_valid(value)
    assert (not Schema.from_openapi(source).validate(value, "x")) == expected


@settings(max_examples=60, deadline=None)
@given(_schemas | _combined)
def test_openapi_survives_the_round_trip(source):
    once = Schema.from_openapi(source).to_openapi()
    assert Schema.from_openapi(once).to_openapi() == once
    for key in ("type", "minimum", "pattern", "enum", "allOf", "oneOf"):
        assert once.get(key) == source.get(key) or key in ("allOf", "oneOf")


@settings(max_examples=60, deadline=None)
@given(_schemas, _values)
def test_pruned_objects_have_nothing_unknown(source, value):
    schema = Schema(type="object", properties={"x": Schema.from_openapi(source)})
    obj = {"x": copy.deepcopy(value), "metadata": {"name": "n"}, "stray": 1}
    dropped = schema.prune(obj)
    assert "stray" in dropped
    assert obj["metadata"] == {"name": "n"}
    assert schema.prune(obj) == []


@pytest.mark.parametrize(
    ("source", "value", "reason", "message"),
    [
        (
            {"type": "integer"},
            "a",
            "FieldValueTypeInvalid",
            'Invalid value: "string": spec.x in body must be of type integer: "string"',
        ),
        (
            {"type": "string"},
            None,
            "FieldValueTypeInvalid",
            'Invalid value: "null": spec.x in body must be of type string: "null"',
        ),
        (
            {"enum": ["a", "b"], "type": "string"},
            "c",
            "FieldValueNotSupported",
            'Unsupported value: "c": supported values: "a", "b"',
        ),
        (
            {"type": "integer", "minimum": 1},
            0,
            "FieldValueInvalid",
            "Invalid value: 0: spec.x in body should be greater than or equal to 1",
        ),
        (
            {"type": "string", "pattern": "^a$"},
            "b",
            "FieldValueInvalid",
            "Invalid value: \"b\": spec.x in body should match '^a$'",
        ),
        (
            {"type": "string", "maxLength": 1},
            "bb",
            "FieldValueTooLong",
            "Too long: may not be more than 1 bytes",
        ),
        (
            {"type": "array", "maxItems": 1, "items": {}},
            [1, 2],
            "FieldValueTooMany",
            "Too many: 2: must have at most 1 items",
        ),
        (
            {"type": "string", "format": "date-time"},
            "x",
            "FieldValueInvalid",
            'Invalid value: "x": spec.x in body must be of type date-time: "x"',
        ),
    ],
)
def test_messages_are_kubernetes(source, value, reason, message):
    (error,) = Schema.from_openapi(source).validate(value, "spec.x")
    assert (error.field, error.reason, error.message) == ("spec.x", reason, message)


def test_required_fields_are_reported_at_their_path():
    schema = Schema.from_openapi(
        {"type": "object", "properties": {"spec": {"type": "object", "required": ["a"]}}}
    )
    assert [(e.field, e.message) for e in schema.validate({"spec": {}})] == [("spec.a", "Required value")]


def test_kubernetes_extensions():
    either = Schema.from_openapi({"x-kubernetes-int-or-string": True})
    assert not either.validate(5)
    assert not either.validate("50%")
    assert either.validate(True, "x")
    assert either.validate([], "x")
    keyed = Schema.from_openapi(
        {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port", "protocol"],
            "items": {
                "type": "object",
                "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}},
            },
        }
    )
    assert not keyed.validate([{"port": 1}, {"port": 1, "protocol": "UDP"}])
    (error,) = keyed.validate([{"port": 1}, {"port": 1, "protocol": "TCP"}], "p")
    assert (error.field, error.reason) == ("p[1]", "FieldValueDuplicate")
    unique = Schema.from_openapi(
        {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}
    )
    assert unique.validate(["a", "a"], "s")[0].message == 'Duplicate value: "a"'
    embedded = Schema.from_openapi(
        {
            "type": "object",
            "x-kubernetes-embedded-resource": True,
            "x-kubernetes-preserve-unknown-fields": True,
        }
    )
    assert {e.field for e in embedded.validate({}, "t")} == {"t.apiVersion", "t.kind"}
    nullable = Schema.from_openapi({"type": "string", "nullable": True})
    assert not nullable.validate(None)


def test_preserved_parts_are_not_pruned_but_their_known_parts_are():
    schema = Schema.from_openapi(
        {
            "type": "object",
            "properties": {
                "free": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}},
                },
                "list": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"a": {"type": "string"}}},
                },
            },
        }
    )
    obj = {"free": {"any": 1, "known": {"a": "x", "b": 2}}, "list": [{"a": "x"}, {"c": 3}]}
    assert schema.prune(obj) == ["free.known.b", "list[1].c"]
    assert obj == {"free": {"any": 1, "known": {"a": "x"}}, "list": [{"a": "x"}, {}]}


def test_defaults_of_custom_objects():
    schema = Schema.from_openapi(
        {
            "type": "object",
            "properties": {
                "a": {"type": "string", "default": "x"},
                "b": {
                    "type": "object",
                    "default": {},
                    "properties": {"c": {"type": "integer", "default": 5}},
                },
                "n": {"type": "string", "nullable": True, "default": "y"},
                "list": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"d": {"type": "boolean", "default": True}}},
                },
                "deep": {"type": "object", "properties": {"e": {"type": "string", "default": "never"}}},
            },
        }
    )
    obj = {"a": None, "n": None, "list": [{}, {"d": False}]}
    schema.apply_defaults(obj)
    assert obj == {"a": "x", "n": None, "list": [{"d": True}, {"d": False}], "b": {"c": 5}}
    other = {}
    schema.apply_defaults(other)
    other["b"]["c"] = 6
    third = {}
    schema.apply_defaults(third)
    assert third["b"] == {"c": 5}


def test_null_in_a_custom_object_means_absent_unless_the_schema_takes_it():
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    kept = {"type": "object", "nullable": True}
    schema = Schema.from_openapi({"type": "object", "properties": {"free": free, "kept": kept}})
    obj = {"free": None, "kept": None}
    schema.apply_defaults(obj)
    assert obj == {"kept": None}
    assert not schema.validate(obj)


def test_null_among_quantities_is_zero_as_in_go():
    schema = TYPES.get("ResourceRequirements")
    obj = {"limits": {"cpu": None, "memory": "1Mi"}}
    schema.apply_defaults(obj)
    assert obj == {"limits": {"cpu": "0", "memory": "1Mi"}}
    assert not schema.validate(obj)


@pytest.mark.parametrize("text", ["a", "a-b", "A.example.com", "a.b.", "1.2.3.4", "a" * 63])
def test_hostnames(text):
    assert FORMATS["hostname"](text)


@pytest.mark.parametrize(
    "text", ["", ".", "a..b", "-a", "a-", "a_b", "a" * 64, "a." * 128, "a" * 60 + "!", "é"]
)
def test_what_is_no_hostname_is_found_out_at_once(text):
    assert not FORMATS["hostname"](text)


@pytest.mark.parametrize(
    "text", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456789+02:00", "2026-01-02t03:04:05z"]
)
def test_times(text):
    assert parse_time(text).tzinfo is not None


@pytest.mark.parametrize("text", ["", "2026-01-02", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z", "now"])
def test_bad_times(text):
    with pytest.raises(ValueError):
        parse_time(text)


def test_cel_rules_are_kept_and_reported():
    source = {
        "type": "object",
        "properties": {
            "a": {
                "type": "array",
                "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self != ''"}]},
            }
        },
    }
    schema = Schema.from_openapi(source)
    assert schema.unevaluated_rules() == ["a[*]"]
    assert schema.to_openapi()["properties"]["a"]["items"]["x-kubernetes-validations"] == [
        {"rule": "self != ''"}
    ]
