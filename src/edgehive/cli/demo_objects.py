"""The Device and DeviceModel of the demo."""

from typing import Any

DEVICE = "thermostat"
_API = "devices.kubeedge.io/v1beta1"


def model_object() -> dict[str, Any]:
    """The model of a thermostat."""
    return {
        "apiVersion": _API,
        "kind": "DeviceModel",
        "metadata": {"name": DEVICE, "namespace": "default"},
        "spec": {
            "protocol": "modbus",
            "properties": [
                {
                    "name": "temperature",
                    "description": "Temperature of the room",
                    "type": "FLOAT",
                    "accessMode": "ReadOnly",
                    "unit": "Celsius",
                },
                {
                    "name": "target",
                    "description": "Temperature to hold",
                    "type": "FLOAT",
                    "accessMode": "ReadWrite",
                    "minimum": "5",
                    "maximum": "30",
                    "unit": "Celsius",
                },
                {
                    "name": "heating",
                    "description": "Whether the heater is on",
                    "type": "BOOLEAN",
                    "accessMode": "ReadOnly",
                },
            ],
        },
    }


def device_object(node: str, port: int) -> dict[str, Any]:
    """The thermostat on `node`."""

    def prop(name: str, offset: int, **more: Any) -> dict[str, Any]:
        scale = {} if name == "heating" else {"scale": 0.1}
        return {
            "name": name,
            "collectCycle": 1000,
            "reportCycle": 1000,
            "reportToCloud": True,
            "visitors": {
                "protocolName": "modbus",
                "configData": {"register": "HoldingRegister", "offset": offset, **scale},
            },
            **more,
        }

    return {
        "apiVersion": _API,
        "kind": "Device",
        "metadata": {"name": DEVICE, "namespace": "default"},
        "spec": {
            "deviceModelRef": {"name": DEVICE},
            "nodeName": node,
            "protocol": {
                "protocolName": "modbus",
                "configData": {"ip": "127.0.0.1", "port": port, "slaveID": 1},
            },
            "properties": [
                prop("temperature", 0),
                prop("target", 1, desired={"value": "21.5"}),
                prop("heating", 2),
            ],
            "methods": [
                {"name": "setTarget", "description": "Set the target", "propertyNames": ["target"]},
            ],
        },
    }
