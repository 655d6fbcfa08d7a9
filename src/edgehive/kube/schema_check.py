"""Checking a value against a schema, with the messages of Kubernetes' validator."""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

from edgehive.kube import fielderror
from edgehive.kube.fielderror import FieldError, show
from edgehive.kube.patterns import PatternError, matches
from edgehive.kube.quantity import is_quantity
from edgehive.kube.schema import Schema

_INT_RANGE = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


def check(schema: Schema, value: Any, path: str, errors: list[FieldError]) -> None:
    """Append what is wrong with `value` to `errors`."""
    shape = schema.resolve()
    if value is None:
        if not (shape.nullable or schema.nullable or shape.decoded or shape.type == "any"):
            errors.append(_type_error(shape, value, path))
        return
    if not _has_type(shape, value):
        errors.append(_type_error(shape, value, path))
        return
    if shape.enum is not None and not any(_same(value, choice) for choice in shape.enum):
        errors.append(fielderror.not_supported(path, value, shape.enum))
    if isinstance(value, dict):
        _check_object(shape, value, path, errors)
    elif isinstance(value, list):
        _check_list(shape, value, path, errors)
    elif isinstance(value, str):
        _check_text(shape, value, path, errors)
    elif not isinstance(value, bool):
        _check_number(shape, value, path, errors)
    _check_combinations(shape, value, path, errors)


def _has_type(shape: Schema, value: Any) -> bool:
    if shape.int_or_string:
        return isinstance(value, str) or _is_integer(value)
    match shape.type:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            if shape.format == "quantity":
                return not isinstance(value, bool) and isinstance(value, str | int | float)
            return isinstance(value, str)
        case "integer":
            return _is_integer(value) and not (shape.decoded and isinstance(value, float))
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
    return True


def _is_integer(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def _type_error(shape: Schema, value: Any, path: str) -> FieldError:
    wanted = "integer or string" if shape.int_or_string else shape.type
    given = "null" if value is None else _json_type(value)
    return fielderror.wrong_type(path, given, f'{path} in body must be of type {wanted}: "{given}"')


def _json_type(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _same(left: Any, right: Any) -> bool:
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def _check_object(shape: Schema, value: Mapping[str, Any], path: str, errors: list[FieldError]) -> None:
    if not shape.decoded:
        errors.extend(
            fielderror.required(f"{path}.{key}" if path else key)
            for key in shape.required
            if value.get(key) is None and not (key in value and _nullable(shape, key))
        )
    if shape.max_properties is not None and len(value) > shape.max_properties:
        errors.append(fielderror.too_many(path, len(value), shape.max_properties))
    if shape.min_properties is not None and len(value) < shape.min_properties:
        detail = f"{path} in body should have at least {shape.min_properties} properties"
        errors.append(fielderror.invalid_value(path, len(value), detail))
    if shape.embedded_resource:
        errors.extend(
            fielderror.required(f"{path}.{key}" if path else key, "must not be empty")
            for key in ("apiVersion", "kind")
            if not value.get(key)
        )
    for key, item in value.items():
        sub = shape.properties.get(key) or shape.additional
        if sub is not None:
            check(sub, item, f"{path}.{key}" if path else key, errors)


def _nullable(shape: Schema, key: str) -> bool:
    sub = shape.properties.get(key)
    return sub is not None and sub.nullable


def _check_list(shape: Schema, value: list[Any], path: str, errors: list[FieldError]) -> None:
    if shape.max_items is not None and len(value) > shape.max_items:
        errors.append(fielderror.too_many(path, len(value), shape.max_items))
    if shape.min_items is not None and len(value) < shape.min_items:
        detail = f"{path} in body should have at least {shape.min_items} items"
        errors.append(fielderror.invalid_value(path, len(value), detail))
    if shape.items is not None:
        for index, item in enumerate(value):
            check(shape.items, item, f"{path}[{index}]", errors)
    if not shape.decoded:
        _check_unique(shape, value, path, errors)


def _check_unique(shape: Schema, value: list[Any], path: str, errors: list[FieldError]) -> None:
    if shape.list_type == "map" and shape.items is not None:
        keys: list[Any] = [
            {key: _key_value(shape.items, item, key) for key in shape.map_keys}
            if isinstance(item, dict)
            else item
            for item in value
        ]
    elif shape.list_type == "set" or shape.unique_items:
        keys = value
    else:
        return
    seen: set[str] = set()
    for index, key in enumerate(keys):
        text = show(key)
        if text in seen:
            errors.append(fielderror.duplicate(f"{path}[{index}]", key))
        seen.add(text)


def _key_value(items: Schema, item: Mapping[str, Any], key: str) -> Any:
    if key in item:
        return item[key]
    sub = items.child(key)
    return sub.default if sub is not None and sub.has_default else None


def _check_text(shape: Schema, value: str, path: str, errors: list[FieldError]) -> None:
    if shape.max_length is not None and len(value) > shape.max_length:
        errors.append(fielderror.too_long(path, shape.max_length))
    if shape.min_length is not None and len(value) < shape.min_length:
        detail = f"{path} in body should be at least {shape.min_length} chars long"
        errors.append(fielderror.invalid_value(path, value, detail))
    if shape.pattern:
        _check_pattern(shape.pattern, value, path, errors)
    if shape.format:
        test = FORMATS.get(shape.format)
        if test is not None and not test(value):
            detail = f"{path} in body must be of type {shape.format}: {show(value)}"
            errors.append(_undecodable(shape)(path, value, detail))


def _check_pattern(pattern: str, value: str, path: str, errors: list[FieldError]) -> None:
    try:
        if matches(pattern, value):
            return
        detail = f"{path} in body should match '{pattern}'"
    except PatternError as exc:  # the definition was taken when it could be run
        detail = f"cannot be matched with '{pattern}': {exc}"
    errors.append(fielderror.invalid_value(path, value, detail))


def _undecodable(shape: Schema) -> Callable[[str, Any, str], FieldError]:
    """A Go struct cannot hold such a value at all, so for built-in kinds it counts as a wrong type."""
    return fielderror.wrong_type if shape.decoded else fielderror.invalid_value


def _check_number(shape: Schema, value: float, path: str, errors: list[FieldError]) -> None:
    low, high = _INT_RANGE.get(shape.format, (None, None)) if shape.type == "integer" else (None, None)
    if low is not None and high is not None and not low <= value <= high:
        detail = f"{path} in body must be of type {shape.format}: {show(value)}"
        errors.append(_undecodable(shape)(path, value, detail))
    if shape.minimum is not None:
        bad = value <= shape.minimum if shape.exclusive_minimum else value < shape.minimum
        word = "greater than" if shape.exclusive_minimum else "greater than or equal to"
        if bad:
            detail = f"{path} in body should be {word} {shape.minimum:g}"
            errors.append(fielderror.invalid_value(path, value, detail))
    if shape.maximum is not None:
        bad = value >= shape.maximum if shape.exclusive_maximum else value > shape.maximum
        word = "less than" if shape.exclusive_maximum else "less than or equal to"
        if bad:
            detail = f"{path} in body should be {word} {shape.maximum:g}"
            errors.append(fielderror.invalid_value(path, value, detail))
    if shape.multiple_of:
        times = value / shape.multiple_of
        if abs(times - round(times)) > 1e-9:
            detail = f"{path} in body should be a multiple of {shape.multiple_of:g}"
            errors.append(fielderror.invalid_value(path, value, detail))


def _check_combinations(shape: Schema, value: Any, path: str, errors: list[FieldError]) -> None:
    for sub in shape.all_of:
        check(sub, value, path, errors)
    where = show(path or "<root>")
    if shape.any_of and not any(_fits(sub, value, path) for sub in shape.any_of):
        detail = f"{where} must validate at least one schema (anyOf)"
        errors.append(fielderror.invalid_value(path or "<root>", "", detail))
    if shape.one_of:
        fitting = sum(_fits(sub, value, path) for sub in shape.one_of)
        if fitting != 1:
            found = "Found none valid" if not fitting else f"Found {fitting} valid alternatives"
            detail = f"{where} must validate one and only one schema (oneOf). {found}"
            errors.append(fielderror.invalid_value(path or "<root>", "", detail))
    if shape.not_ is not None and _fits(shape.not_, value, path):
        detail = f"{where} must not validate the schema (not)"
        errors.append(fielderror.invalid_value(path or "<root>", "", detail))


def _fits(schema: Schema, value: Any, path: str) -> bool:
    errors: list[FieldError] = []
    check(schema, value, path, errors)
    return not errors


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def test(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return test


_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_time(text: str) -> datetime:
    """Parse an RFC 3339 time, any number of fractional digits.

    Raises:
        ValueError: not such a time.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    zone = "+00:00" if match[4] in "Zz" else match[4]
    fraction = (match[3] or ".0")[:7]
    return datetime.fromisoformat(f"{match[1]}T{match[2]}{fraction.ljust(7, '0')}{zone}")


def _decode_base64(text: str) -> bytes:
    return base64.b64decode("".join(text.split()), validate=True)


_LABEL = re.compile(r"(?i)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)


def _is_hostname(text: str) -> bool:
    # One expression for all labels would try every way to divide a long one.
    return len(text) <= 255 and all(_LABEL.fullmatch(label) for label in text.removesuffix(".").split("."))


_DURATION = re.compile(r"[+-]?(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+)", re.ASCII)

FORMATS: Mapping[str, Callable[[str], bool]] = {
    "byte": _parses(_decode_base64),
    "date": _parses(date.fromisoformat),
    "date-time": _parses(parse_time),
    "datetime": _parses(parse_time),
    "duration": lambda text: _DURATION.fullmatch(text) is not None,
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": _parses(lambda text: ipaddress.ip_network(text if "/" in text else "", strict=False)),
    "quantity": is_quantity,
    "uuid": lambda text: re.fullmatch(r"(?i)[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", text) is not None,
    "mac": lambda text: re.fullmatch(r"(?i)([0-9a-f]{2}[:-]){5}[0-9a-f]{2}", text) is not None,
    "email": lambda text: re.fullmatch(r"[^@\s]+@[^@\s]+", text) is not None,
    "hostname": _is_hostname,
    "uri": lambda text: re.fullmatch(r"(?i)([a-z][a-z0-9+.-]*:\S+|/\S*)", text) is not None,
}
"""Formats that are checked; others are documentation, as in Kubernetes."""
