"""KubeEdge's DMI as google.protobuf and grpcio see it: built from field numbers alone, not from our tables."""

from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

FIELDS = """\
MapperRegisterRequest: withData=1 bool; mapper=2 MapperInfo
MapperRegisterResponse: modelList=1 rep DeviceModel; deviceList=2 rep Device
DeviceModel: name=1 string; spec=2 DeviceModelSpec; namespace=3 string
DeviceModelSpec: properties=1 rep ModelProperty; commands=2 rep DeviceCommand
ModelProperty: name=1 string; description=2 string; type=3 string; accessMode=4 string; minimum=5 string; maximum=6 string; unit=7 string
DeviceCommand: name=1 string; url=2 string; method=3 string; status_code=4 rep string; parameters=5 rep string; response=6 bytes
Device: name=1 string; spec=2 DeviceSpec; status=3 DeviceStatus; namespace=4 string
DeviceSpec: deviceModelReference=1 string; protocol=2 ProtocolConfig; properties=3 rep DeviceProperty; methods=4 rep DeviceMethod
DeviceMethod: name=1 string; description=2 string; propertyNames=3 rep string
DeviceProperty: name=1 string; desired=2 TwinProperty; visitors=3 VisitorConfig; reportCycle=4 int64; collectCycle=5 int64; reportToCloud=6 bool; pushMethod=7 PushMethod
ProtocolConfig: protocolName=1 string; configData=2 CustomizedValue
VisitorConfig: protocolName=1 string; configData=2 CustomizedValue
CustomizedValue: data=1 map<string,Any>
PushMethod: http=1 PushMethodHTTP; mqtt=2 PushMethodMQTT; dbMethod=3 DBMethod; otel=4 PushMethodOTEL; anomalyDetection=5 AnomalyDetection
PushMethodHTTP: hostname=1 string; port=2 int64; requestpath=3 string; timeout=4 int64
PushMethodMQTT: address=1 string; topic=2 string; qos=3 int32; retained=4 bool
PushMethodOTEL: endpointURL=1 string
AnomalyDetection: data=1 map<string,Any>
DBMethod: influxdb2=1 DBMethodInfluxdb2; redis=2 DBMethodRedis; tdengine=3 DBMethodTDEngine; mysql=4 DBMethodMySQL
DBMethodInfluxdb2: influxdb2ClientConfig=1 Influxdb2ClientConfig; influxdb2DataConfig=2 Influxdb2DataConfig
Influxdb2DataConfig: measurement=1 string; tag=2 map<string,string>; fieldKey=3 string
Influxdb2ClientConfig: url=1 string; org=2 string; bucket=3 string
DBMethodRedis: redisClientConfig=1 RedisClientConfig
RedisClientConfig: addr=1 string; db=2 int32; poolsize=3 int32; minIdleConns=4 int32
DBMethodTDEngine: tdEngineClientConfig=1 TDEngineClientConfig
TDEngineClientConfig: addr=1 string; dbname=2 string
DBMethodMySQL: mysqlClientConfig=1 MySQLClientConfig
MySQLClientConfig: addr=1 string; database=2 string; userName=3 string
MapperInfo: name=1 string; version=2 string; api_version=3 string; protocol=4 string; address=5 bytes; state=6 string
ReportDeviceStatusRequest: deviceName=1 string; reportedDevice=2 DeviceStatus; deviceNamespace=3 string
ReportDeviceStatusResponse:
ReportDeviceStatesRequest: deviceName=1 string; deviceNamespace=2 string; state=3 string
ReportDeviceStatesResponse:
DeviceStatus: twins=1 rep Twin; reportToCloud=2 bool; reportCycle=3 int64
Twin: propertyName=1 string; observedDesired=2 TwinProperty; reported=3 TwinProperty
TwinProperty: value=1 string; metadata=2 map<string,string>
RegisterDeviceRequest: device=1 Device
RegisterDeviceResponse: deviceName=1 string; deviceNamespace=2 string
CreateDeviceModelRequest: model=1 DeviceModel
CreateDeviceModelResponse: deviceModelName=1 string; deviceModelNamespace=2 string
RemoveDeviceRequest: deviceName=1 string; deviceNamespace=2 string
RemoveDeviceResponse:
RemoveDeviceModelRequest: modelName=1 string; modelNamespace=2 string
RemoveDeviceModelResponse:
UpdateDeviceRequest: device=1 Device
UpdateDeviceResponse:
UpdateDeviceModelRequest: model=1 DeviceModel
UpdateDeviceModelResponse:
GetDeviceRequest: deviceName=1 string; deviceNamespace=2 string
GetDeviceResponse: device=1 Device
"""

_SCALARS = {"string": 9, "bytes": 12, "bool": 8, "int64": 3, "int32": 5}


def messages(fields: str = FIELDS) -> dict[str, Any]:
    """The message classes by name; `fields` has a message a line, its fields with their numbers."""
    file = descriptor_pb2.FileDescriptorProto(name="api.proto", package="v1beta1", syntax="proto3")
    file.dependency.append("google/protobuf/any.proto")
    for line in fields.strip().splitlines():
        name, _, parts = line.partition(":")
        message = file.message_type.add(name=name)
        for field in filter(None, parts.strip().split("; ")):
            _add(message, *field.split(" ", 1))
    pool = descriptor_pool.DescriptorPool()
    for known in (any_pb2, wrappers_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    names = [m.name for m in file.message_type]
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v1beta1.{name}")) for name in names
    }


def _add(message: Any, label: str, kind: str) -> None:
    name, _, number = label.partition("=")
    field = message.field.add(name=name, number=int(number), label=1)
    if kind.startswith("rep "):
        field.label, kind = 3, kind.removeprefix("rep ")
    if kind.startswith("map<"):
        value = kind.removeprefix("map<string,").rstrip(">")
        entry = message.nested_type.add(name=name[0].upper() + name[1:] + "Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=1, type=9)
        _typed(entry.field.add(name="value", number=2, label=1), value)
        field.label, field.type = 3, 11
        field.type_name = f".v1beta1.{message.name}.{entry.name}"
        return
    _typed(field, kind)


def _typed(field: Any, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = 11
        field.type_name = ".google.protobuf.Any" if kind == "Any" else f".v1beta1.{kind}"
