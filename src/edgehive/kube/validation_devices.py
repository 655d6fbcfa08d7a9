"""What Device and DeviceModel must fulfil beyond their schema.

KubeEdge's admission webhook checks that property names are unique; the rest is what its edge or its mappers would
refuse later, and where nobody looks.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from edgehive.kube import fielderror as err
from edgehive.kube.crd_devices import DEVICE_MODELS, DEVICES
from edgehive.kube.fielderror import FieldError
from edgehive.kube.names import name_problem
from edgehive.kube.refs import GVR

Object = Mapping[str, Any]

NAME: Final = re.compile(r"[a-zA-Z0-9\-_.,:/@#]{1,128}")
"""Names of properties that the edge takes."""
_NAME_RULE: Final = "must be 1 to 128 letters, digits, or characters of -_.,:/@#"
_NUMBERS: Final = frozenset({"INT", "FLOAT", "DOUBLE"})
_BOOLEANS: Final = frozenset(
    {"1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"}
)  # what Go's strconv.ParseBool takes, and so every mapper
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,30}")


def validate_device(obj: Object) -> list[FieldError]:
    """Return what is wrong with a Device by itself."""
    spec = _map(obj.get("spec"))
    errors: list[FieldError] = []
    node = spec.get("nodeName")
    if node and (problem := name_problem("subdomain", str(node))):
        errors.append(err.invalid_value("spec.nodeName", node, problem))
    errors += _names(spec.get("properties"), "spec.properties")
    for path, prop in _each(spec.get("properties"), "spec.properties"):
        errors += _cycles(prop, path, ("collectCycle", "reportCycle"))
        errors += _push(_map(prop.get("pushMethod")), f"{path}.pushMethod")
    errors += _cycles(_map(spec.get("stateReport")), "spec.stateReport", ("reportCycle",))
    return errors + _names(spec.get("methods"), "spec.methods")


def validate_model(obj: Object) -> list[FieldError]:
    """Return what is wrong with a DeviceModel."""
    spec = _map(obj.get("spec"))
    errors = _names(spec.get("properties"), "spec.properties")
    for path, prop in _each(spec.get("properties"), "spec.properties"):
        if str(prop.get("type")) in _NUMBERS:
            errors += _bounds(prop, path)
    return errors


CHECKS: Final[Mapping[GVR, Callable[[Object], list[FieldError]]]] = {
    DEVICES: validate_device,
    DEVICE_MODELS: validate_model,
}
"""By kind; applied when the specification is new or has changed."""


def desired_errors(device: Object, model: Object) -> list[FieldError]:
    """Return the desired values of a device that its model excludes."""
    known = _properties(model)
    errors: list[FieldError] = []
    for path, prop in _each(_map(device.get("spec")).get("properties"), "spec.properties"):
        value = _map(prop.get("desired")).get("value")
        described = known.get(str(prop.get("name")))
        if value and described is not None:
            problem = value_problem(str(value), described)
            if problem:
                errors.append(err.invalid_value(f"{path}.desired.value", value, problem))
    return errors


def model_warnings(device: Object, model: Object) -> list[str]:
    """Return sentences about what is allowed and will have no effect."""
    known = _properties(model)
    warnings = []
    for path, prop in _each(_map(device.get("spec")).get("properties"), "spec.properties"):
        described = known.get(str(prop.get("name")))
        if described is None:
            warnings.append(f"{path}.name: the model has no property {err.show(prop.get('name'))}")
        elif described.get("accessMode") == "ReadOnly" and _map(prop.get("desired")).get("value"):
            warnings.append(f"{path}.desired: the property is read-only, so that nothing will be written")
    return warnings


def value_problem(value: str, prop: Object) -> str:
    """Say why a property that a DeviceModel describes as `prop` cannot have this value; "" if it can."""
    kind = str(prop.get("type"))
    if kind == "BOOLEAN":
        return "" if value in _BOOLEANS else "the model says BOOLEAN: true or false"
    if kind not in _NUMBERS:
        return ""
    number = _number(value, kind)
    if number is None:
        return f"the model says {kind}: not such a number"
    low, high = _number(prop.get("minimum"), "DOUBLE"), _number(prop.get("maximum"), "DOUBLE")
    if low is not None and number < low:
        return f"must be greater than or equal to {prop['minimum']}, the model's minimum"
    if high is not None and number > high:
        return f"must be less than or equal to {prop['maximum']}, the model's maximum"
    return ""


def _properties(model: Object) -> dict[str, Object]:
    return {str(p.get("name")): p for _, p in _each(_map(model.get("spec")).get("properties"), "")}


def _names(values: Any, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for at, value in _each(values, path):
        name = value.get("name")
        where = f"{at}.name"
        if not name:
            errors.append(err.required(where))
        elif not isinstance(name, str) or NAME.fullmatch(name) is None:
            errors.append(err.invalid_value(where, name, _NAME_RULE))
        elif name in seen:
            errors.append(err.duplicate(where, name))
        else:
            seen.add(name)
    return errors


def _cycles(value: Object, path: str, keys: tuple[str, ...]) -> Iterator[FieldError]:
    for key in keys:
        cycle = value.get(key)
        if isinstance(cycle, int) and cycle < 0:
            yield err.invalid_value(f"{path}.{key}", cycle, "must be greater than or equal to 0")


def _push(push: Object, path: str) -> Iterator[FieldError]:
    qos, port = _map(push.get("mqtt")).get("qos"), _map(push.get("http")).get("port")
    if isinstance(qos, int) and qos not in (0, 1, 2):
        yield err.not_supported(f"{path}.mqtt.qos", qos, (0, 1, 2))
    if isinstance(port, int) and not 0 <= port <= 65535:
        yield err.invalid_value(f"{path}.http.port", port, "must be between 1 and 65535, inclusive")


def _bounds(prop: Object, path: str) -> Iterator[FieldError]:
    numbers = []
    for key in ("minimum", "maximum"):
        text = prop.get(key)
        number = _number(text, "DOUBLE")
        if text and number is None:
            yield err.invalid_value(f"{path}.{key}", text, f"must be a number, as the type is {prop['type']}")
        numbers.append(number)
    low, high = numbers
    if low is not None and high is not None and low > high:
        yield err.invalid_value(f"{path}.maximum", prop["maximum"], "must not be less than the minimum")


def _number(text: Any, kind: str) -> int | float | None:
    if not isinstance(text, str) or not text or len(text) > 64:
        return None
    if _INTEGER.fullmatch(text):
        number = int(text)
        return number if -(2**63) <= number < 2**63 or kind != "INT" else None
    if kind == "INT" or "_" in text or text != text.strip():
        return None
    try:
        number_ = float(text)
    except ValueError:
        return None
    return None if math.isnan(number_) else number_  # NaN is in no range


def _each(values: Any, path: str) -> Iterator[tuple[str, Object]]:
    if isinstance(values, list):
        for index, value in enumerate(values):
            if isinstance(value, Mapping):
                yield f"{path}[{index}]", value


def _map(value: Any) -> Object:
    return value if isinstance(value, Mapping) else {}
