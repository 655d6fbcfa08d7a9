"""Values of device properties: conversion by the model's type, ranges, and the text they travel as; pure."""

import base64
import binascii
import math

from edgehive.kit.errors import EdgehiveError

Value = str | bool | int | float | bytes

TYPES = ("INT", "FLOAT", "DOUBLE", "STRING", "BOOLEAN", "BYTES", "STREAM")

_INT64 = 1 << 63


class ValueProblem(EdgehiveError):
    """The value does not fit the property; the message says why."""


def convert(value: object, kind: str) -> Value:
    """Turn what a driver read, or the text somebody wants, into a value of the type `kind`.

    Raises:
        ValueProblem: it is none.
    """
    if value is None:
        raise ValueProblem("there is no value")
    if isinstance(value, bytes) and kind not in ("BYTES", "STREAM"):
        value = _decoded(value)
    match kind.upper():
        case "INT":
            return _integer(value)
        case "FLOAT" | "DOUBLE":
            return _number(value)
        case "BOOLEAN":
            return _boolean(value)
        case "BYTES" | "STREAM":
            return _bytes(value)
        case _:
            return value if isinstance(value, str) else format_value(_scalar(value))


def format_value(value: Value) -> str:
    """The text of a value in twins and reports."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)


def check_range(value: Value, *, minimum: str, maximum: str) -> None:
    """Check a number against the limits of the model; a limit that is no number does not limit.

    Raises:
        ValueProblem: it is outside.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    low, high = _limit(minimum), _limit(maximum)
    if low is not None and value < low:
        raise ValueProblem(f"{format_value(value)} is below the minimum {minimum}")
    if high is not None and value > high:
        raise ValueProblem(f"{format_value(value)} is above the maximum {maximum}")


def same(one: Value, other: Value, kind: str) -> bool:
    """Whether a device that shows `one` has taken `other`; a FLOAT is what 32 bits keep."""
    if (
        isinstance(one, float | int)
        and isinstance(other, float | int)
        and kind.upper() in ("FLOAT", "DOUBLE")
    ):
        return math.isclose(one, other, rel_tol=1e-6 if kind.upper() == "FLOAT" else 1e-12, abs_tol=1e-9)
    return one == other


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise ValueProblem("the bytes are not text") from exc


def _scalar(value: object) -> Value:
    if isinstance(value, bool | int | float | bytes):
        return value
    raise ValueProblem(f"a {type(value).__name__} is no value")


def _integer(value: object) -> int:
    try:
        if isinstance(value, str):
            number = int(value.strip(), 0) if value.strip().lower().startswith("0x") else int(value.strip())
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise ValueProblem(f"{value} is not an integer")
            number = round(value)
        elif isinstance(value, int):
            number = int(value)
        else:
            raise ValueProblem(f"a {type(value).__name__} is not an integer")
    except ValueError as exc:
        raise ValueProblem(f"{str(value)[:40]!r} is not an integer") from exc
    if not -_INT64 <= number < _INT64:
        raise ValueProblem("the integer does not fit 64 bits")
    return number


def _number(value: object) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError) as exc:
        raise ValueProblem(f"{str(value)[:40]!r} is not a number") from exc
    if not math.isfinite(number):
        raise ValueProblem(f"{str(value)[:40]!r} is not a number")
    return number


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        text = value.strip().lower()
        if text in ("true", "1", "t", "on", "yes"):
            return True
        if text in ("false", "0", "f", "off", "no"):
            return False
    raise ValueProblem(f"{str(value)[:40]!r} is neither true nor false")


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise ValueProblem("the text is not base64") from exc
    raise ValueProblem(f"a {type(value).__name__} is not bytes")


def _limit(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
