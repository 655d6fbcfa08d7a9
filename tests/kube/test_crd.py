import copy

import pytest

from edgehive.kube.builtin import BUILTIN
from edgehive.kube.crd import crd_status, crd_warnings, infos_from_crd, kubeedge_crds, validate_crd
from edgehive.kube.validation import validate

INFO = next(info for info in BUILTIN if info.kind == "CustomResourceDefinition")
SCHEMA = {
    "type": "object",
    "description": "A widget.",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1},
                "color": {"type": "string", "default": "red"},
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def crd(schema=SCHEMA, **spec):
    base = {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
                },
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "selectableFields": [{"jsonPath": ".spec.color"}],
            },
            {
                "name": "v0",
                "served": False,
                "storage": False,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            },
        ],
    }
    obj = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": copy.deepcopy(base | spec),
    }
    assert not INFO.schema.prune(obj)
    assert not INFO.schema.validate(obj)
    INFO.schema.apply_defaults(obj)
    return obj


def fields(obj, old=None):
    return {e.field for e in validate_crd(obj, old)}


def test_defaults():
    spec = crd()["spec"]
    assert spec["names"]["singular"] == "widget"
    assert spec["names"]["listKind"] == "WidgetList"
    assert spec["conversion"] == {"strategy": "None"}


def test_a_sound_crd_becomes_a_resource_per_served_version():
    obj = crd()
    assert validate_crd(obj) == []
    assert validate(INFO, obj) == []
    (info,) = infos_from_crd(obj)
    assert (str(info.gvr), info.kind, info.list_kind, info.singular) == (
        "widgets.example.com",
        "Widget",
        "WidgetList",
        "widget",
    )
    assert info.subresources == {"status", "scale"}
    assert info.scale_paths == (".spec.size", ".status.size", "")
    assert info.short_names == ("wd",)
    assert info.storage_version == "v1"
    assert info.custom
    assert info.namespaced
    assert info.columns[0].path == ".spec.size"
    assert info.extra["selectableFields"] == "spec.color"


def test_custom_objects_are_checked_pruned_and_defaulted():
    (info,) = infos_from_crd(crd())
    obj = {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "namespace": "n", "labels": {"a": "b"}, "bogus": 1},
        "spec": {"size": 2, "stray": True},
        "status": {"anything": [1]},
    }
    assert sorted(info.schema.prune(obj)) == ["metadata.bogus", "spec.stray"]
    info.schema.apply_defaults(obj)
    assert obj["spec"] == {"size": 2, "color": "red"}
    assert info.schema.validate(obj) == []
    assert validate(info, obj) == []
    obj["spec"] = {"size": 0}
    assert [e.field for e in info.schema.validate(obj)] == ["spec.size"]
    obj["spec"] = {}
    assert [(e.field, e.message) for e in info.schema.validate(obj)] == [("spec.size", "Required value")]
    obj["metadata"]["labels"] = {"a": 5}
    assert "metadata.labels.a" in {e.field for e in info.schema.validate(obj)}


def test_constraints_on_the_name_hold():
    schema = {
        "type": "object",
        "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}}
        },
    }
    (info,) = infos_from_crd(crd(schema))
    assert not info.schema.validate({"metadata": {"name": "abc"}})
    assert [e.field for e in info.schema.validate({"metadata": {"name": "abcd"}})] == ["metadata.name"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"group": "Example"}, "spec.group"),
        ({"group": "nodots"}, "spec.group"),
        ({"scope": "Galaxy"}, "spec.scope"),
        ({"names": {"plural": "gadgets", "kind": "Widget"}}, "metadata.name"),
        ({"names": {"plural": "widgets"}}, "spec.names.kind"),
        ({"names": {"plural": "widgets", "kind": "Widget", "listKind": "Widget"}}, "spec.names.listKind"),
        ({"versions": []}, "spec.versions"),
        (
            {
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": False,
                        "schema": {"openAPIV3Schema": {"type": "object"}},
                    }
                ]
            },
            "spec.versions",
        ),
        (
            {"versions": [{"name": "v1", "served": True, "storage": True}]},
            "spec.versions[0].schema.openAPIV3Schema",
        ),
        ({"group": "foo.k8s.io"}, "metadata.annotations[api-approved.kubernetes.io]"),
        ({"conversion": {"strategy": "Webhook"}}, "spec.conversion.strategy"),
    ],
)
def test_unsound_crds_are_refused_by_field(change, field):
    assert field in fields(crd(**change))


ROOT = "spec.versions[0].schema.openAPIV3Schema"


def nested(node):
    return {"type": "object", "properties": {"a": node}}


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({"type": "string"}, f"{ROOT}.type"),
        ({}, f"{ROOT}.type"),
        (nested({}), f"{ROOT}.properties[a].type"),
        (nested({"type": "text"}), f"{ROOT}.properties[a].type"),
        (nested({"type": "array"}), f"{ROOT}.properties[a].items"),
        (nested({"$ref": "#/x", "type": "object"}), f"{ROOT}.properties[a].$ref"),
        (nested({"type": "string", "pattern": "("}), f"{ROOT}.properties[a].pattern"),
        (nested({"type": "integer", "default": "x"}), f"{ROOT}.properties[a].default"),
        (nested({"type": "string", "x-kubernetes-list-type": "set"}), f"{ROOT}.properties[a].type"),
        (
            nested({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}),
            f"{ROOT}.properties[a].x-kubernetes-list-map-keys",
        ),
        (
            nested(
                {
                    "type": "array",
                    "items": {"type": "object", "properties": {"k": {"type": "string"}}},
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["k"],
                }
            ),
            f"{ROOT}.properties[a].items.properties[k].default",
        ),
        (
            nested(
                {
                    "type": "object",
                    "properties": {"x": {"type": "string"}},
                    "additionalProperties": {"type": "string"},
                }
            ),
            f"{ROOT}.properties[a].additionalProperties",
        ),
        (nested({"type": "string", "anyOf": [{"type": "string"}]}), f"{ROOT}.properties[a].anyOf[0].type"),
        (
            nested({"type": "object", "oneOf": [{"properties": {"ghost": {}}}]}),
            f"{ROOT}.properties[a].oneOf[0].properties[ghost]",
        ),
    ],
)
def test_schemas_that_are_not_structural_are_refused(schema, field):
    assert field in fields(crd(schema))


def test_int_or_string_may_list_both_types():
    both = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert fields(crd(nested(both))) == set()


def test_what_may_not_change():
    old = crd() | {"status": {"storedVersions": ["v1", "v0"]}}
    assert fields(crd(scope="Cluster"), old) == {"spec.scope"}
    fewer = crd()
    fewer["spec"]["versions"] = fewer["spec"]["versions"][:1]
    assert fields(fewer, old) == {"status.storedVersions[1]"}


def test_status_accepts_free_names_and_refuses_taken_ones():
    obj = crd()
    status = crd_status(obj, [], now="T0")
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "NamesAccepted": "True",
        "Established": "True",
    }
    assert status["storedVersions"] == ["v1"]
    assert status["acceptedNames"]["singular"] == "widget"
    again = crd_status(obj | {"status": status}, [obj | {"status": status}], now="T1")
    assert again == status
    other = crd(names={"plural": "gizmos", "kind": "Gizmo", "shortNames": ["wd"]})
    other["metadata"]["name"] = "gizmos.example.com"
    refused = crd_status(other, [obj | {"status": status}], now="T2")
    assert [(c["type"], c["status"], c["reason"]) for c in refused["conditions"]] == [
        ("NamesAccepted", "False", "ShortNamesConflict"),
        ("Established", "False", "NotAccepted"),
    ]


def test_rules_that_are_not_evaluated_are_warned_of():
    assert crd_warnings(crd()) == []
    schema = copy.deepcopy(SCHEMA)
    schema["properties"]["spec"]["x-kubernetes-validations"] = [{"rule": "self.size > 1"}]
    (warning,) = crd_warnings(crd(schema))
    assert "not evaluated" in warning
    assert "at spec" in warning


def test_kubeedges_own_crds_are_sound():
    crds = kubeedge_crds()
    assert [c["metadata"]["name"] for c in crds] == [
        "objectsyncs.reliablesyncs.kubeedge.io",
        "clusterobjectsyncs.reliablesyncs.kubeedge.io",
    ]
    for obj in crds:
        INFO.schema.apply_defaults(obj)
        assert validate_crd(obj) == []
        (info,) = infos_from_crd(obj)
        assert info.subresources == {"status"}
        sync = {
            "metadata": {"name": "edge.uid"},
            "spec": {"objectAPIVersion": "v1", "objectKind": "pods", "objectName": "p"},
            "status": {"objectResourceVersion": "7"},
        }
        assert info.schema.prune(sync) == []
        assert info.schema.validate(sync) == []
