"""The demo's objects are ones our own mapper understands; the node's socket is where its edgecore says."""

import pytest

from edgehive.cli.demo import dmi_socket, reported_values
from edgehive.cli.demo_objects import device_object, model_object
from edgehive.cli.demo_outage import desired_target, same_number
from edgehive.cli.up_layout import Layout
from edgehive.edge.dmi_convert import device_message, model_message
from edgehive.kit.errors import UserError
from edgehive.mapper.model import read_device


def test_the_demo_device_is_understood_by_the_mapper():
    pytest.importorskip("pymodbus", reason="the extra mapper-modbus is not installed")
    from edgehive.mapper.modbus import ModbusDriver, read_register

    model = model_object()
    device = read_device(device_message(device_object("edge-1", 5020), model), model_message(model))
    assert device.protocol == ModbusDriver.protocol
    assert device.config == {"ip": "127.0.0.1", "port": 5020, "slaveID": 1}
    assert {p.name: read_register(p.visitor).offset for p in device.properties.values()} == {
        "temperature": 0,
        "target": 1,
        "heating": 2,
    }
    target = device.properties["target"]
    assert (target.parse_wanted(target.desired), target.writable) == (21.5, True)
    assert not device.properties["temperature"].writable


def test_the_socket_is_where_the_configuration_says(tmp_path):
    layout = Layout(tmp_path)
    with pytest.raises(UserError, match="no node edge-1"):
        dmi_socket(layout, "edge-1")
    path = layout.edge("edge-1") / "edgecore.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("modules: {deviceTwin: {enable: true, dmiSockPath: /run/x/}}")
    assert str(dmi_socket(layout, "edge-1")) == "/run/x/dmi.sock"
    path.write_text("modules: {deviceTwin: {enable: false, dmiSockPath: /run/x/}}")
    with pytest.raises(UserError, match="is off"):
        dmi_socket(layout, "edge-1")
    path.write_text("modules: {}")
    with pytest.raises(UserError, match="dmiSockPath"):
        dmi_socket(layout, "edge-1")


def test_only_values_that_are_there_count():
    text = '{"status": {"twins": [{"propertyName": "a", "reported": {"value": "1"}}, {"propertyName": "b"}]}}'
    assert reported_values(text) == {"a": "1"}
    assert reported_values("{}") == {}
    assert reported_values("not JSON") == {}


@pytest.mark.parametrize("desired", [{}, {"desired": {}}, {"desired": {"value": ""}}])
def test_an_outage_needs_a_target_to_lose(desired):
    device = {"spec": {"properties": [{"name": "t"}, {"name": "target", **desired}]}}
    with pytest.raises(UserError, match="no desired target"):
        desired_target(device)
    device["spec"]["properties"][1]["desired"] = {"value": "1e1"}
    assert desired_target(device) == (1, "1e1")


def test_a_target_is_compared_as_a_number():
    assert same_number("1e1", "10")
    assert not same_number("", "10")
