import json
import re

import pytest

from edgehive.kube.builtin import BUILTIN
from edgehive.kube.crd import infos_from_crd, kubeedge_crds
from edgehive.kube.openapi import openapi_v2, openapi_v2_protobuf, openapi_v3, openapi_v3_index

INFOS = [*BUILTIN, *(info for crd in kubeedge_crds() for info in infos_from_crd(crd))]
GVK = "x-kubernetes-group-version-kind"


def group(prefix):
    return [info for info in INFOS if info.gvr.prefix == prefix]


def references(document, prefix):
    return set(re.findall(prefix + r'([^"]+)', json.dumps(document)))


def test_version_2_is_closed_and_names_every_kind():
    document = openapi_v2(INFOS)
    definitions = document["definitions"]
    assert references(document, "#/definitions/") <= set(definitions)
    kinds = {(k["group"], k["version"], k["kind"]) for d in definitions.values() for k in d.get(GVK, ())}
    for info in INFOS:
        assert (info.gvr.group, info.gvr.version, info.kind) in kinds
    container = definitions["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert container["x-kubernetes-patch-merge-key"] == "name"
    assert container["x-kubernetes-patch-strategy"] == "merge"
    assert container["x-kubernetes-list-map-keys"] == ["name"]
    assert "schema_unknown" not in definitions


@pytest.mark.parametrize("prefix", sorted({info.gvr.prefix for info in INFOS}))
def test_version_3_documents_stand_alone(prefix):
    document = openapi_v3(group(prefix))
    schemas = document["components"]["schemas"]
    assert references(document, "#/components/schemas/") <= set(schemas)
    for info in group(prefix):
        patches = [
            item["patch"]
            for path, item in document["paths"].items()
            if "patch" in item
            and item["patch"][GVK]
            == {"group": info.gvr.group, "version": info.gvr.version, "kind": info.kind}
        ]
        if "patch" in info.verbs:
            assert patches
        for patch in patches:
            assert "fieldValidation" in {p["name"] for p in patch["parameters"]}
            strategic = "application/strategic-merge-patch+json" in patch["requestBody"]["content"]
            assert strategic is not info.custom


def test_references_with_siblings_are_wrapped_in_version_3():
    schemas = openapi_v3(group("/apis/apps/v1"))["components"]["schemas"]
    spec = schemas["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"]
    assert spec["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"}]
    assert spec["description"]
    assert "$ref" not in spec


def test_index_leads_to_every_group_and_changes_with_content():
    index = openapi_v3_index(INFOS)["paths"]
    assert set(index) == {info.gvr.prefix.lstrip("/") for info in INFOS}
    path = "apis/reliablesyncs.kubeedge.io/v1alpha1"
    assert index[path]["serverRelativeURL"].startswith(f"/openapi/v3/{path}?hash=")
    crd = kubeedge_crds()[0]
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["description"] = "Changed."
    changed = openapi_v3_index([*BUILTIN, *infos_from_crd(crd)])["paths"]
    assert changed[path] != index[path]
    assert changed["api/v1"] == index["api/v1"]


def test_custom_kinds_can_be_explained_from_either_version():
    name = "io.kubeedge.reliablesyncs.v1alpha1.ObjectSync"
    for schemas in (
        openapi_v2(INFOS)["definitions"],
        openapi_v3(group("/apis/reliablesyncs.kubeedge.io/v1alpha1"))["components"]["schemas"],
    ):
        schema = schemas[name]
        assert schema["properties"]["spec"]["properties"]["objectName"] == {
            "type": "string",
            "description": "Its name.",
        }
        assert schema[GVK] == [
            {"group": "reliablesyncs.kubeedge.io", "version": "v1alpha1", "kind": "ObjectSync"}
        ]
        assert name + "List" in schemas


def wire(data):
    """Decode a protobuf message without its description: pairs of number and raw value."""
    at, out = 0, []

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            out.append((number, varint()))
        elif kind == 1:
            out.append((number, data[at : at + 8]))
            at += 8
        else:
            assert kind == 2
            size = varint()
            assert at + size <= len(data)
            out.append((number, data[at : at + size]))
            at += size
    return out


def one(message, number):
    (value,) = [v for n, v in message if n == number]
    return value


def test_protobuf_holds_the_same_definitions_and_paths():
    document = openapi_v2(INFOS)
    message = wire(openapi_v2_protobuf(INFOS))
    assert one(message, 1) == b"2.0"
    named = [wire(v) for _, v in wire(one(message, 9))]
    definitions = {one(n, 1).decode(): wire(one(n, 2)) for n in named}
    assert set(definitions) == set(document["definitions"])
    for name, schema in definitions.items():
        source = document["definitions"][name]
        assert one(schema, 4).decode() == source["description"]
        properties = [v for n, v in schema if n == 25]
        keys = {one(wire(v), 1).decode() for p in properties for _, v in wire(p)}
        assert keys == set(source.get("properties", {}))
        assert [v.decode() for n, v in schema if n == 19] == source.get("required", [])
    paths = {one(wire(v), 1).decode() for n, v in wire(one(message, 8)) if n == 2}
    assert paths == set(document["paths"])
    extensions = {
        one(wire(v), 1): one(wire(one(wire(v), 2)), 2)
        for n, v in definitions["io.k8s.api.core.v1.Pod"]
        if n == 31
    }
    assert json.loads(extensions[GVK.encode()]) == [{"group": "", "version": "v1", "kind": "Pod"}]
