"""The resource definitions of ``devices.kubeedge.io``: Device, DeviceModel, DeviceStatus.

Every field of KubeEdge's v1beta1; v1alpha2 (`kube.crd_devices_v1alpha2`) is served as well and not converted, as
in the original. Ours have columns, and ``Device.status`` carries a summary of the DeviceStatus for them.
"""

from typing import Any, Final

from edgehive.kube.crd_builder import (
    Node,
    boolean,
    column,
    definition,
    fields,
    free,
    integer,
    items,
    mapping,
    text,
    version,
    whole,
)
from edgehive.kube.crd_devices_v1alpha2 import device_v1alpha2, model_v1alpha2, status_v1alpha2
from edgehive.kube.refs import GVR

DEVICE_GROUP: Final = "devices.kubeedge.io"
DEVICES: Final = GVR(DEVICE_GROUP, "v1beta1", "devices")
DEVICE_MODELS: Final = GVR(DEVICE_GROUP, "v1beta1", "devicemodels")
DEVICE_STATUSES: Final = GVR(DEVICE_GROUP, "v1beta1", "devicestatuses")

PROPERTY_TYPES: Final = ("INT", "FLOAT", "DOUBLE", "STRING", "BOOLEAN", "BYTES", "STREAM")
ACCESS_MODES: Final = ("ReadWrite", "ReadOnly")


def device_crds() -> list[dict[str, Any]]:
    """Return the three manifests."""
    return [
        definition(
            DEVICE_GROUP,
            "Device",
            [
                version("v1beta1", _device(), columns=_DEVICE_COLUMNS),
                version("v1alpha2", device_v1alpha2(), storage=False),
            ],
        ),
        definition(
            DEVICE_GROUP,
            "DeviceModel",
            [
                version("v1beta1", _model(), columns=_MODEL_COLUMNS),
                version("v1alpha2", model_v1alpha2(), storage=False),
            ],
        ),
        definition(
            DEVICE_GROUP,
            "DeviceStatus",
            [
                version("v1beta1", _status(), columns=_STATUS_COLUMNS),
                version("v1alpha2", status_v1alpha2(), storage=False),
            ],
            plural="devicestatuses",
        ),
    ]


_AGE: Final = column("Age", ".metadata.creationTimestamp", "Time since it was created.", kind="date")
_DEVICE_COLUMNS: Final = (
    column("Node", ".spec.nodeName", "The edge node the device is attached to."),
    column("Model", ".spec.deviceModelRef.name", "Its DeviceModel."),
    column("State", ".status.state", "What its mapper says of it."),
    column("Reported", ".status.reported", "The values it reported last."),
    column("Desired", ".spec.properties[*].desired.value", "The values it is asked to have.", wide=True),
    column("Protocol", ".spec.protocol.protocolName", "How it is spoken to.", wide=True),
    column("Online", ".status.lastOnlineTime", "When it was last seen online.", wide=True),
    _AGE,
)
_MODEL_COLUMNS: Final = (
    column("Protocol", ".spec.protocol", "How devices of this model are spoken to."),
    column("Properties", ".spec.properties[*].name", "What they have."),
    _AGE,
)
_STATUS_COLUMNS: Final = (
    column("State", ".status.state", "What the mapper says of the device."),
    column("Properties", ".status.twins[*].propertyName", "What was reported."),
    column("Reported", ".status.twins[*].reported.value", "The values, in the same order."),
    column(
        "Desired", ".status.twins[*].observedDesired.value", "What the edge knows to be asked.", wide=True
    ),
    column("Online", ".status.lastOnlineTime", "When the device was last seen online."),
    _AGE,
)


def _twin(description: str) -> Node:
    return fields(
        {
            "value": text("The value, as text."),
            "metadata": mapping(text(), "Further facts: the type, the time in milliseconds."),
        },
        description,
        required=("value",),
    )


def _protocol(description: str, name: str, data: str) -> Node:
    return fields({"protocolName": text(name), "configData": free(data)}, description)


def _cycle(description: str) -> Node:
    return integer(description)


def _device() -> Node:
    spec = {
        "deviceModelRef": fields({"name": text("Its name.")}, "The DeviceModel, in the same namespace."),
        "nodeName": text("The edge node the device is attached to."),
        "properties": items(_property(), "What is read and written. Names are unique."),
        "protocol": _protocol(
            "How the device is reached.",
            "The protocol's name, which a mapper serves.",
            "What the mapper needs to connect.",
        ),
        "methods": items(
            fields(
                {
                    "name": text("Name of the method."),
                    "description": text("What it does."),
                    "propertyNames": items(text(), "The properties it writes."),
                }
            ),
            "Methods a client at the edge may call.",
        ),
        "stateReport": fields(
            {
                "reportToCloud": boolean("Whether the state is reported."),
                "reportCycle": _cycle("Milliseconds between reports."),
            },
            "How the mapper reports whether the device is online.",
        ),
    }
    status = free(
        "A summary that cloudcore writes for ``kubectl get``; the values themselves are in the DeviceStatus.",
        {
            "reportToCloud": boolean("Not used any more; see spec.stateReport."),
            "reportCycle": _cycle("Not used any more; see spec.stateReport."),
        },
    )
    return whole(
        "Device is something at an edge node that is read and written through a mapper.",
        {"spec": fields(spec, "What the device should be."), "status": status},
    )


def _property() -> Node:
    return fields(
        {
            "name": text("A property of the DeviceModel."),
            "desired": _twin("The value the property should have."),
            "visitors": _protocol(
                "How the mapper reads and writes it.",
                "The protocol's name.",
                "An address, a register, and the like.",
            ),
            "collectCycle": _cycle("Milliseconds between two readings of the device."),
            "reportCycle": _cycle("Milliseconds between two reports."),
            "reportToCloud": boolean("Whether values are reported to the cloud."),
            "pushMethod": _push_method(),
        }
    )


def _push_method() -> Node:
    http = {
        "hostName": text("Host."),
        "port": integer("Port."),
        "requestPath": text("Path of the URL."),
        "timeout": integer("Seconds."),
    }
    mqtt = {
        "address": text("The broker's address."),
        "topic": text("The topic."),
        "qos": integer("0, 1 or 2.", size="int32"),
        "retained": boolean("Whether the broker keeps the last value."),
    }
    return fields(
        {
            "http": fields(http, "To an HTTP server."),
            "mqtt": fields(mqtt, "To an MQTT broker."),
            "otel": fields(
                {"endpointURL": text("The collector's address.")}, "To an OpenTelemetry collector."
            ),
            "dbMethod": _databases(),
            "anomalyDetection": free("Settings of a detector in the mapper."),
        },
        "Where the mapper sends the values besides.",
    )


def _databases() -> Node:
    influx_client = {"url": text("Address."), "org": text("Organization."), "bucket": text("Bucket.")}
    influx_data = {
        "measurement": text("Measurement."),
        "tag": mapping(text(), "Tags."),
        "fieldKey": text("Name of the field."),
    }
    redis = {
        "addr": text("Address."),
        "db": integer("Number of the database.", size=""),
        "poolsize": integer("Most connections.", size=""),
        "minIdleConns": integer("Fewest idle connections.", size=""),
    }
    tdengine = {"addr": text("Address."), "dbName": text("Database.")}
    mysql = {"addr": text("Address."), "database": text("Database."), "userName": text("User.")}
    return fields(
        {
            "influxdb2": fields(
                {
                    "influxdb2ClientConfig": fields(influx_client, "The server."),
                    "influxdb2DataConfig": fields(influx_data, "How values are stored."),
                },
                "InfluxDB 2.",
            ),
            "redis": fields({"redisClientConfig": fields(redis)}, "Redis."),
            "TDEngine": fields({"TDEngineClientConfig": fields(tdengine)}, "TDengine."),
            "mysql": fields({"mysqlClientConfig": fields(mysql)}, "MySQL."),
        },
        "To a database.",
    )


def _model() -> Node:
    prop = {
        "name": text("Name of the property."),
        "description": text("What it is."),
        "type": text("Type of its values.", enum=PROPERTY_TYPES),
        "accessMode": text("Whether it can be written.", enum=ACCESS_MODES),
        "minimum": text("Least value, of a number."),
        "maximum": text("Greatest value, of a number."),
        "unit": text("Unit of the values."),
        "visitors": _protocol(
            "How it is read and written, unless a device says so itself.",
            "The protocol's name.",
            "Its address.",
        ),
    }
    spec = {
        "properties": items(fields(prop), "What devices of this model have. Names are unique."),
        "protocol": text("The protocol's name."),
        "protocolConfigData": free("What the mapper needs to connect, unless a device says so itself."),
    }
    return whole(
        "DeviceModel describes devices of one kind: their properties and types.",
        {"spec": fields(spec, "The description.")},
    )


def _status() -> Node:
    twin = {
        "propertyName": text("The property."),
        "reported": _twin("What the device reported last."),
        "observedDesired": _twin("The desired value that the edge knows."),
    }
    status = {
        "twins": items(fields(twin), "The values of the properties."),
        "state": text("online, offline, ok, unknown or unhealthy."),
        "lastOnlineTime": text("When the device was last seen online, RFC 3339."),
        "extensions": free("Facts of others; cloudcore leaves them alone."),
    }
    return whole(
        "DeviceStatus is what the Device of the same name reports.",
        {"spec": fields({}, "Empty."), "status": fields(status, "The report.")},
    )
