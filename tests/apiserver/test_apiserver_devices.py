"""Devices in the embedded control plane, with the real kubectl."""

import json
from pathlib import Path

import pytest

from edgehive.apiserver.authz import Authorizer
from edgehive.apiserver.context import User
from edgehive.kube.rules import Attributes
from tests.apiserver.test_apiserver_kubectl import Kubectl, home, kubectls, pki  # noqa: F401

MODEL = """
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: thermo, namespace: default}
spec:
  protocol: modbus
  properties:
  - {name: temperature, type: INT, accessMode: ReadWrite, minimum: "1", maximum: "100", unit: C}
  - {name: humidity, type: FLOAT, accessMode: ReadOnly}
"""
DEVICE = """
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: sensor, namespace: default}
spec:
  nodeName: edge-1
  deviceModelRef: {name: thermo}
  protocol: {protocolName: modbus, configData: {slaveID: 1, any: {depth: [1, 2]}}}
  properties:
  - name: temperature
    desired: {value: "20"}
    visitors: {protocolName: modbus, configData: {register: HoldingRegister, offset: 2}}
  - name: humidity
"""


pytestmark = pytest.mark.real


@pytest.fixture(params=kubectls() or [None], ids=lambda path: path.parent.name if path else "none")
def kubectl(request, home: Path) -> Kubectl:  # noqa: F811
    if request.param is None:
        pytest.skip("no kubectl on this machine")
    return Kubectl(request.param, home)


def cells(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()]


async def test_columns_show_what_a_device_is_and_reports(kubectl: Kubectl) -> None:
    assert 'the DeviceModel "thermo" does not exist' in await kubectl("apply", "-f", "-", stdin=DEVICE)
    assert "devicemodel.devices.kubeedge.io/thermo created" in await kubectl("apply", "-f", "-", stdin=MODEL)
    summary = {
        "status": {"state": "online", "reported": "temperature=21", "lastOnlineTime": "2026-01-01T00:00:00Z"}
    }
    await kubectl("patch", "device", "sensor", "--type=merge", "-p", json.dumps(summary))
    head, row = cells(await kubectl("get", "devices"))
    assert head == ["NAME", "NODE", "MODEL", "STATE", "REPORTED", "AGE"]
    assert row[:5] == ["sensor", "edge-1", "thermo", "online", "temperature=21"]
    head, row = cells(await kubectl("get", "device", "sensor", "-o", "wide"))
    assert head[5:8] == ["DESIRED", "PROTOCOL", "ONLINE"]
    assert row[5:8] == ["20", "modbus", "2026-01-01T00:00:00Z"]
    head, row = cells(await kubectl("get", "devicemodels"))
    assert (head, row[:4]) == (
        ["NAME", "PROTOCOL", "PROPERTIES", "AGE"],
        ["thermo", "modbus", "temperature", "humidity"],
    )
    status = {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "DeviceStatus",
        "metadata": {"name": "sensor"},
        "status": {
            "state": "online",
            "twins": [
                {"propertyName": "temperature", "reported": {"value": "21", "metadata": {"timestamp": "1"}}}
            ],
        },
    }
    await kubectl("create", "-f", "-", stdin=json.dumps(status))
    head, row = cells(await kubectl("get", "devicestatuses"))
    assert head == ["NAME", "STATE", "PROPERTIES", "REPORTED", "ONLINE", "AGE"]
    assert row[:4] == ["sensor", "online", "temperature", "21"]
    old = await kubectl("get", "devices.v1alpha2.devices.kubeedge.io", "sensor", "-o", "json")
    assert json.loads(old)["apiVersion"] == "devices.kubeedge.io/v1alpha2"
    assert "How the device is reached" in await kubectl("explain", "device.spec.protocol")


async def test_what_cannot_work_is_refused_with_the_name_of_the_field(kubectl: Kubectl) -> None:
    twice = MODEL.replace("humidity", "temperature")
    text = await kubectl("apply", "-f", "-", stdin=twice, code=1)
    assert 'The DeviceModel "thermo" is invalid' in text
    assert 'spec.properties[1].name: Duplicate value: "temperature"' in text
    await kubectl("apply", "-f", "-", stdin=MODEL)
    text = await kubectl("apply", "-f", "-", stdin=DEVICE.replace("humidity", "temperature"), code=1)
    assert 'spec.properties[1].name: Duplicate value: "temperature"' in text
    text = await kubectl("apply", "-f", "-", stdin=DEVICE.replace('value: "20"', 'value: "200"'), code=1)
    assert 'spec.properties[0].desired.value: Invalid value: "200"' in text
    assert "the model's maximum" in text
    text = await kubectl("apply", "-f", "-", stdin=MODEL.replace("INT", "INTEGER"), code=1)
    assert "Unsupported value" in text
    assert "unknown field" in await kubectl(
        "apply", "-f", "-", stdin=DEVICE.replace("nodeName", "node"), code=1
    )
    await kubectl("apply", "-f", "-", stdin=DEVICE)
    patch = '[{"op": "replace", "path": "/spec/properties/0/desired/value", "value": "warm"}]'
    text = await kubectl("patch", "device", "sensor", "--type=json", "-p", patch, code=1)
    assert "the model says INT" in text


async def test_a_device_that_has_become_wrong_can_still_be_reported_on_and_mended(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MODEL)
    await kubectl("apply", "-f", "-", stdin=DEVICE)
    await kubectl("apply", "-f", "-", stdin=MODEL.replace('"100"', '"10"'))
    await kubectl("patch", "device", "sensor", "--type=merge", "-p", '{"status": {"state": "online"}}')
    await kubectl("label", "device", "sensor", "a=b")
    await kubectl("apply", "-f", "-", stdin=DEVICE.replace('value: "20"', 'value: "9"'))


async def test_a_node_reports_on_its_own_devices_alone(cluster) -> None:
    spec = {"nodeName": "n1", "properties": [{"name": "t"}]}
    await cluster.create("devices", {"metadata": {"name": "mine"}, "spec": spec})
    await cluster.create("devices", {"metadata": {"name": "other"}, "spec": {**spec, "nodeName": "n2"}})
    authorizer = Authorizer(storage=cluster.storage, bindings=())
    node = User("system:node:n1", ("system:nodes",))

    def may(verb: str, resource: str, name: str) -> bool:
        action = Attributes(verb, "devices.kubeedge.io", resource, "", "default", name)
        return authorizer.allows(node, action)

    assert may("patch", "devicestatuses", "mine")
    assert may("get", "devices", "mine")
    for verb, resource, name in (
        ("patch", "devicestatuses", "other"),
        ("patch", "devicestatuses", "none"),
        ("patch", "devicestatuses", ""),
        ("get", "devices", "other"),
        ("list", "devices", ""),
        ("patch", "devices", "mine"),
        ("create", "devicestatuses", "mine"),
        ("get", "devicemodels", "mine"),
    ):
        assert not may(verb, resource, name), (verb, resource, name)
