"""Admission of devices: what can only be said by looking at the DeviceModel too.

In KubeEdge's cluster a webhook does such checks; here they are a plugin of the server. A model that does not exist
yet is no error, so that the files of a directory may be applied in any order.
"""

from typing import Any

from edgehive.aio.storage import Storage
from edgehive.apiserver.codec import Object, decode
from edgehive.apiserver.context import Call
from edgehive.kube.crd_devices import DEVICE_MODELS
from edgehive.kube.fielderror import raise_if_any
from edgehive.kube.validation_devices import desired_errors, model_warnings


def admit_device(call: Call, obj: Object, old: Object | None, storage: Storage) -> None:
    """Check a Device against its model; a device whose specification stays as it is passes.

    Raises:
        ApiStatus: 422, a desired value that the model excludes.
    """
    spec = obj.get("spec")
    if call.info.api_version != DEVICE_MODELS.api_version or not isinstance(spec, dict):
        return
    if old is not None and old.get("spec") == spec:
        return
    reference: Any = spec.get("deviceModelRef")
    name = reference.get("name") if isinstance(reference, dict) else None
    if not name or not isinstance(name, str):
        _warn(call, "spec.deviceModelRef: without a model, mappers do not know the types of the properties")
        return
    record = storage.get(str(DEVICE_MODELS), f"{call.namespace}/{name}")
    if record is None:
        _warn(call, f'the DeviceModel "{name}" does not exist; the device reaches its node when it does')
        return
    model = decode(record.value)
    raise_if_any(call.info.kind, str(obj["metadata"].get("name", "")), desired_errors(obj, model), call.group)
    for warning in model_warnings(obj, model):
        _warn(call, warning)


def _warn(call: Call, text: str) -> None:
    if text not in call.warnings:
        call.warnings.append(text)
