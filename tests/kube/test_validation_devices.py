"""Rules for Device and DeviceModel, and their definitions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.kube.crd import crd_warnings, infos_from_crd, validate_crd
from edgehive.kube.crd_devices import device_crds
from edgehive.kube.schema import Schema
from edgehive.kube.validation_devices import (
    desired_errors,
    model_warnings,
    validate_device,
    validate_model,
    value_problem,
)

CRDS = {crd["spec"]["names"]["kind"]: crd for crd in device_crds()}


def spec_schema(kind: str, version: str = "v1beta1") -> Schema:
    info = next(i for i in infos_from_crd(CRDS[kind]) if i.gvr.version == version)
    assert info.schema is not None
    return info.schema


def paths(node: Any, at: str = "") -> set[str]:
    """Every leaf of an OpenAPI schema as ``spec.properties[].name:string``."""
    kind = node.get("type", "")
    if kind == "array":
        return paths(node["items"], at + "[]")
    found = {f"{at}:free"} if node.get("x-kubernetes-preserve-unknown-fields") else set()
    if "properties" in node:
        return found.union(
            *(paths(sub, f"{at}.{key}" if at else key) for key, sub in node["properties"].items())
        )
    if "additionalProperties" in node:
        return {f"{at}:map"}
    return found or {f"{at}:{kind}"}


def leaves(kind: str, version: str = "v1beta1") -> set[str]:
    root = next(v for v in CRDS[kind]["spec"]["versions"] if v["name"] == version)["schema"][
        "openAPIV3Schema"
    ]
    return {p for p in paths(root) if not p.startswith(("apiVersion", "kind", "metadata"))}


@pytest.mark.parametrize("kind", CRDS)
def test_the_definitions_are_sound(kind: str) -> None:
    crd = CRDS[kind]
    assert validate_crd(crd) == []
    assert crd_warnings(crd) == []
    versions = {v["name"]: (v["served"], v["storage"]) for v in crd["spec"]["versions"]}
    assert versions == {"v1beta1": (True, True), "v1alpha2": (True, False)}
    assert crd["spec"]["scope"] == "Namespaced"


def test_a_device_has_every_field_of_the_original() -> None:
    prop = "spec.properties[]."
    push = prop + "pushMethod."
    assert leaves("Device") == {
        "spec.deviceModelRef.name:string",
        "spec.nodeName:string",
        "spec.methods[].name:string",
        "spec.methods[].description:string",
        "spec.methods[].propertyNames[]:string",
        "spec.protocol.protocolName:string",
        "spec.protocol.configData:free",
        "spec.stateReport.reportToCloud:boolean",
        "spec.stateReport.reportCycle:integer",
        prop + "name:string",
        prop + "desired.value:string",
        prop + "desired.metadata:map",
        prop + "visitors.protocolName:string",
        prop + "visitors.configData:free",
        prop + "collectCycle:integer",
        prop + "reportCycle:integer",
        prop + "reportToCloud:boolean",
        *(
            push + f"http.{f}"
            for f in ("hostName:string", "port:integer", "requestPath:string", "timeout:integer")
        ),
        *(push + f"mqtt.{f}" for f in ("address:string", "topic:string", "qos:integer", "retained:boolean")),
        push + "otel.endpointURL:string",
        push + "anomalyDetection:free",
        *(push + f"dbMethod.influxdb2.influxdb2ClientConfig.{f}:string" for f in ("url", "org", "bucket")),
        *(push + f"dbMethod.influxdb2.influxdb2DataConfig.{f}:string" for f in ("measurement", "fieldKey")),
        push + "dbMethod.influxdb2.influxdb2DataConfig.tag:map",
        push + "dbMethod.redis.redisClientConfig.addr:string",
        *(push + f"dbMethod.redis.redisClientConfig.{f}:integer" for f in ("db", "poolsize", "minIdleConns")),
        *(push + f"dbMethod.TDEngine.TDEngineClientConfig.{f}:string" for f in ("addr", "dbName")),
        *(push + f"dbMethod.mysql.mysqlClientConfig.{f}:string" for f in ("addr", "database", "userName")),
        "status:free",
        "status.reportToCloud:boolean",
        "status.reportCycle:integer",
    }


def test_a_model_and_a_status_have_every_field_of_the_original() -> None:
    names = (
        "name",
        "description",
        "type",
        "accessMode",
        "minimum",
        "maximum",
        "unit",
        "visitors.protocolName",
    )
    assert leaves("DeviceModel") == {
        *(f"spec.properties[].{name}:string" for name in names),
        "spec.properties[].visitors.configData:free",
        "spec.protocol:string",
        "spec.protocolConfigData:free",
    }
    sides = ("reported", "observedDesired")
    assert leaves("DeviceStatus") == {
        "spec:object",  # empty there as well
        "status.state:string",
        "status.lastOnlineTime:string",
        "status.extensions:free",
        "status.twins[].propertyName:string",
        *(f"status.twins[].{side}.value:string" for side in sides),
        *(f"status.twins[].{side}.metadata:map" for side in sides),
    }
    assert "spec.propertyVisitors[].modbus.register:string" in leaves("Device", "v1alpha2")
    assert "spec.properties[].type.int.defaultValue:integer" in leaves("DeviceModel", "v1alpha2")
    assert "twins[].desired.value:string" in leaves("DeviceStatus", "v1alpha2")


def errors(kind: Any, spec: Any) -> list[tuple[str, str]]:
    return [(e.field, e.message) for e in kind({"spec": spec})]


def test_property_names_are_unique_and_names() -> None:
    same = {"properties": [{"name": "t"}, {"name": "u"}, {"name": "t"}]}
    for kind in (validate_device, validate_model):
        assert errors(kind, same) == [("spec.properties[2].name", 'Duplicate value: "t"')]
        [(field, message)] = errors(kind, {"properties": [{"name": "a b"}]})
        assert field == "spec.properties[0].name"
        assert "letters, digits" in message
        assert errors(kind, {"properties": [{}]}) == [("spec.properties[0].name", "Required value")]


def test_numbers_of_a_device_are_in_range() -> None:
    spec = {
        "nodeName": "Not A Node",
        "stateReport": {"reportCycle": -1},
        "methods": [{"name": "m"}, {"name": "m"}],
        "properties": [
            {
                "name": "t",
                "collectCycle": -5,
                "pushMethod": {"mqtt": {"qos": 3}, "http": {"port": 70000}},
            }
        ],
    }
    assert [field for field, _ in errors(validate_device, spec)] == [
        "spec.nodeName",
        "spec.properties[0].collectCycle",
        "spec.properties[0].pushMethod.mqtt.qos",
        "spec.properties[0].pushMethod.http.port",
        "spec.stateReport.reportCycle",
        "spec.methods[1].name",
    ]


@pytest.mark.parametrize(
    ("prop", "field"),
    [
        ({"type": "INT", "minimum": "low"}, "minimum"),
        ({"type": "FLOAT", "maximum": "1,5"}, "maximum"),
        ({"type": "DOUBLE", "minimum": "2", "maximum": "1.5"}, "maximum"),
        ({"type": "INT", "minimum": "nan"}, "minimum"),
    ],
)
def test_the_bounds_of_a_model_are_numbers_in_order(prop: dict[str, str], field: str) -> None:
    found = errors(validate_model, {"properties": [{"name": "t", **prop}]})
    assert [where for where, _ in found] == [f"spec.properties[0].{field}"]


def test_bounds_of_what_is_no_number_are_left_alone() -> None:
    assert errors(validate_model, {"properties": [{"name": "t", "type": "STRING", "maximum": "long"}]}) == []
    assert errors(validate_model, {"properties": [{"name": "t", "type": "INT", "minimum": "-1.5e3"}]}) == []


@pytest.mark.parametrize(
    ("value", "prop", "problem"),
    [
        ("20", {"type": "INT", "minimum": "1", "maximum": "30"}, ""),
        ("31", {"type": "INT", "maximum": "30"}, "maximum"),
        ("0", {"type": "INT", "minimum": "1"}, "minimum"),
        ("2.5", {"type": "INT"}, "INT"),
        ("2.5", {"type": "FLOAT"}, ""),
        ("1e3", {"type": "DOUBLE", "maximum": "999"}, "maximum"),
        ("warm", {"type": "DOUBLE"}, "DOUBLE"),
        (str(2**63), {"type": "INT"}, "INT"),
        ("1_0", {"type": "FLOAT"}, "FLOAT"),
        ("true", {"type": "BOOLEAN"}, ""),
        ("yes", {"type": "BOOLEAN"}, "BOOLEAN"),
        ("anything", {"type": "STRING", "maximum": "1"}, ""),
        ("anything", {}, ""),
    ],
)
def test_a_desired_value_fits_its_model(value: str, prop: dict[str, str], problem: str) -> None:
    found = value_problem(value, prop)
    assert (problem in found) if problem else not found


def test_a_device_is_compared_with_its_model() -> None:
    model = {
        "spec": {
            "properties": [
                {"name": "t", "type": "INT", "maximum": "5", "accessMode": "ReadOnly"},
                {"name": "u", "type": "INT"},
            ]
        }
    }
    device = {
        "spec": {
            "properties": [
                {"name": "t", "desired": {"value": "6"}},
                {"name": "u", "desired": {"value": ""}},
                {"name": "v", "desired": {"value": "1"}},
            ]
        }
    }
    assert [e.field for e in desired_errors(device, model)] == ["spec.properties[0].desired.value"]
    warnings = model_warnings(device, model)
    assert len(warnings) == 2
    assert "read-only" in warnings[0]
    assert '"v"' in warnings[1]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_named = st.fixed_dictionaries(
    {},
    optional={
        k: _json for k in ("name", "type", "minimum", "maximum", "desired", "pushMethod", "reportCycle")
    },
)
_spec = st.fixed_dictionaries(
    {},
    optional={
        "properties": st.lists(_named | _json, max_size=3) | _json,
        "methods": st.lists(_named | _json, max_size=3) | _json,
        "nodeName": _json,
        "stateReport": _json,
    },
)


@given(_spec | _json, _spec | _json)
def test_anything_is_judged_without_an_accident(device: Any, model: Any) -> None:
    for check in (validate_device, validate_model):
        for error in check({"spec": device}):
            assert error.field.startswith("spec.")
    desired_errors({"spec": device}, {"spec": model})
    model_warnings({"spec": device}, {"spec": model})
