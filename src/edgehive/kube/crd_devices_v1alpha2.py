"""The schemas of ``devices.kubeedge.io/v1alpha2``: served so that old manifests and clients work, not stored."""

from edgehive.kube.crd_builder import (
    Node,
    boolean,
    fields,
    free,
    integer,
    items,
    mapping,
    number,
    text,
    whole,
)

_ACCESS = ("ReadWrite", "ReadOnly")
_BAUD_RATES = (
    115200,
    57600,
    38400,
    19200,
    9600,
    4800,
    2400,
    1800,
    1200,
    600,
    300,
    200,
    150,
    134,
    110,
    75,
    50,
)
_REGISTERS = ("CoilRegister", "DiscreteInputRegister", "InputRegister", "HoldingRegister")


def device_v1alpha2() -> Node:
    """Device."""
    spec = {
        "deviceModelRef": fields({"name": text()}, "The DeviceModel, in the same namespace."),
        "nodeSelector": _node_selector(),
        "protocol": _protocol(),
        "propertyVisitors": items(_visitor(), "How properties are read and written."),
        "data": fields(
            {
                "dataProperties": items(fields({"propertyName": text(), "metadata": mapping(text())})),
                "dataTopic": text("The MQTT topic."),
            },
            "Values that are published and not kept.",
        ),
    }
    return whole(
        "Device, in the older form.",
        {"spec": fields(spec), "status": fields({"twins": items(_twin())})},
    )


def model_v1alpha2() -> Node:
    """DeviceModel."""
    types = {
        "int": _type(integer(), integer(), unit=True),
        "float": _type(number(), number(), unit=True),
        "double": _type(number(), number(), unit=True),
        "string": _type(text()),
        "boolean": _type(boolean()),
        "bytes": _type(),
    }
    prop = {"name": text(), "description": text(), "type": fields(types)}
    return whole(
        "DeviceModel, in the older form.",
        {"spec": fields({"properties": items(fields(prop)), "protocol": text()})},
    )


def status_v1alpha2() -> Node:
    """DeviceStatus."""
    return whole("DeviceStatus, in the older form.", {"twins": items(_twin())})


def _type(default: Node | None = None, bound: Node | None = None, *, unit: bool = False) -> Node:
    node = {"accessMode": text(enum=_ACCESS)}
    if default is not None:
        node["defaultValue"] = default
    if bound is not None:
        node |= {"minimum": bound, "maximum": bound}
    return fields(node | ({"unit": text()} if unit else {}))


def _twin() -> Node:
    value = fields({"value": text(), "metadata": mapping(text())}, required=("value",))
    return fields({"propertyName": text(), "desired": value, "reported": value})


def _node_selector() -> Node:
    requirement = fields(
        {"key": text(), "operator": text(), "values": items(text())}, required=("key", "operator")
    )
    term = fields({"matchExpressions": items(requirement), "matchFields": items(requirement)})
    return fields({"nodeSelectorTerms": items(term)}, required=("nodeSelectorTerms",))


def _custom() -> Node:
    return fields({"protocolName": text(), "configData": free()})


def _protocol() -> Node:
    serial = {
        "serialPort": text(),
        "baudRate": integer(enum=_BAUD_RATES),
        "dataBits": integer(enum=(8, 7, 6, 5)),
        "parity": text(enum=("none", "even", "odd")),
        "stopBits": integer(enum=(1, 2)),
    }
    common = {
        "com": fields(serial),
        "tcp": fields({"ip": text(), "port": integer()}),
        "commType": text(),
        "reconnTimeout": integer(),
        "reconnRetryTimes": integer(),
        "collectTimeout": integer(),
        "collectRetryTimes": integer(),
        "collectType": text(enum=("sync", "async")),
        "customizedValues": free(),
    }
    opcua = {
        "url": text(),
        "userName": text(),
        "password": text(),
        "securityPolicy": text(),
        "securityMode": text(),
        "certificate": text(),
        "privateKey": text(),
        "timeout": integer(),
    }
    return fields(
        {
            "opcua": fields(opcua),
            "modbus": fields({"slaveID": integer()}),
            "bluetooth": fields({"macAddress": text()}),
            "common": fields(common),
            "customizedProtocol": _custom(),
        },
        "How the device is reached.",
    )


def _visitor() -> Node:
    modbus = {
        "register": text(enum=_REGISTERS),
        "offset": integer(),
        "limit": integer(),
        "scale": number(),
        "isSwap": boolean(),
        "isRegisterSwap": boolean(),
    }
    converter = {
        "startIndex": integer(size=""),
        "endIndex": integer(size=""),
        "shiftLeft": integer(size=""),
        "shiftRight": integer(size=""),
        "orderOfOperations": items(fields({"operationType": text(), "operationValue": number()})),
    }
    bluetooth = {
        "characteristicUUID": text(),
        "dataWrite": mapping({"type": "string", "format": "byte"}),
        "dataConverter": fields(converter),
    }
    return fields(
        {
            "propertyName": text(),
            "reportCycle": integer(),
            "collectCycle": integer(),
            "opcua": fields({"nodeID": text(), "browseName": text()}),
            "modbus": fields(modbus),
            "bluetooth": fields(bluetooth),
            "customizedProtocol": _custom(),
            "customizedValues": free(),
        }
    )
