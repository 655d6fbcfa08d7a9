"""Objects as a hostile or careless client sends them: any answer but a crash."""

import copy
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.kube.apply import server_side_apply, track_update
from edgehive.kube.builtin import BUILTIN
from edgehive.kube.crd import infos_from_crd, validate_crd
from edgehive.kube.patch import strategic_merge_patch
from edgehive.kube.status import ApiStatus
from edgehive.kube.table import render_table
from edgehive.kube.validation import validate

INFOS = {info.kind: info for info in BUILTIN}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _words(schema, depth=0):
    shape = schema.resolve()
    node = shape.items or shape.additional
    if node is not None:
        return _words(node, depth)
    found = set(shape.properties)
    if depth < 4:
        for sub in shape.properties.values():
            found |= _words(sub, depth + 1)
    return found


_SOME = sorted(_words(INFOS["Deployment"].schema) | _words(INFOS["Service"].schema))
_PATCHY = [
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "name",
]
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["", "a", "1", "delete", "replace", "merge"])
)


def _json(keys):
    return st.recursive(
        _scalars,
        lambda c: st.lists(c, max_size=3) | st.dictionaries(st.sampled_from(keys), c, max_size=4),
        max_leaves=15,
    )


def _shaped(schema, depth=0):
    """Objects that mostly follow a schema, with wrong values here and there."""
    shape = schema.resolve()
    wrong = _scalars | st.just([]) | st.just({})
    if depth > 6:
        return wrong
    if shape.items is not None:
        return st.lists(st.deferred(lambda: _shaped(shape.items, depth + 1)), max_size=2) | wrong
    if shape.additional is not None:
        return (
            st.dictionaries(
                st.sampled_from(["a", "b/c", "-"]),
                st.deferred(lambda: _shaped(shape.additional, depth + 1)),
                max_size=2,
            )
            | wrong
        )
    if shape.properties:
        keys = sorted(shape.properties)

        @st.composite
        def objects(draw):
            chosen = draw(st.lists(st.sampled_from(keys), max_size=4, unique=True))
            wanted = [k for k in ("metadata", "spec", "template", "containers", "name") if k in keys]
            return {
                k: draw(_shaped(shape.properties[k], depth + 1))
                for k in {*chosen, *draw(st.sets(st.sampled_from(wanted or keys)))}
            }

        return objects() | wrong if depth else objects()
    return wrong


@pytest.mark.parametrize("kind", sorted(INFOS))
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_kind_survives_any_object(kind, data):
    info = INFOS[kind]
    obj = data.draw(_shaped(info.schema))
    schema = info.schema
    schema.prune(obj)
    if schema.validate(obj):
        return
    schema.apply_defaults(obj)
    assert not [e for e in schema.validate(obj) if e.reason == "FieldValueTypeInvalid"]
    validate(info, obj)
    validate(info, copy.deepcopy(obj), old=obj)
    render_table(info, [obj], now=NOW)
    track_update(None, obj, manager="m", now="t", schema=schema, api_version=info.api_version)


@settings(max_examples=50, deadline=None)
@given(
    _json([*_SOME, *_PATCHY]),
    st.dictionaries(
        st.sampled_from([*_SOME[:40], "spec", "metadata", *_PATCHY]), _json([*_SOME, *_PATCHY]), max_size=4
    ),
)
def test_strategic_patches_are_applied_or_refused(doc, patch):
    try:
        result = strategic_merge_patch(
            doc if isinstance(doc, dict) else {}, patch, INFOS["Deployment"].schema
        )
    except ApiStatus as error:
        result = error.code
    assert result == 400 or isinstance(result, dict)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_applies_are_carried_out_or_refused(data):
    schema = INFOS["Deployment"].schema
    live = None
    for manager in ("a", "b", "a"):
        obj = data.draw(_shaped(schema))
        code = 200
        try:
            live = server_side_apply(
                live,
                obj,
                manager=manager,
                force=manager == "b",
                schema=schema,
                now="t",
                api_version="apps/v1",
            )
        except ApiStatus as error:
            code = error.code
        assert code in (200, 400, 409)


_KEYWORDS = [
    "type",
    "properties",
    "items",
    "additionalProperties",
    "required",
    "enum",
    "default",
    "pattern",
    "anyOf",
    "not",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields",
    "object",
    "a",
]


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(_KEYWORDS),
        _json(_KEYWORDS) | st.sampled_from(["object", "array", "string", "("]),
        max_size=5,
    )
)
def test_any_schema_in_a_crd_is_accepted_or_refused(root):
    crd = {
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", **root}},
                }
            ],
        },
    }
    schema = INFOS["CustomResourceDefinition"].schema
    schema.prune(crd)
    if schema.validate(crd):
        return
    schema.apply_defaults(crd)
    if not validate_crd(crd):
        (info,) = infos_from_crd(crd)
        obj = {"metadata": {"name": "x"}, "a": {"a": [1]}}
        info.schema.prune(obj)
        info.schema.apply_defaults(obj)
        info.schema.validate(obj)
