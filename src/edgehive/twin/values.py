"""Which names and values a twin may have: KubeEdge's rules, and its words for what breaks them."""

import math
import re
from typing import Final

STRING: Final = "string"
DELETED: Final = "deleted"

_ALPHABET = "a-zA-Z0-9-_.,:/@#"
_KEY = re.compile(f"[{_ALPHABET}]{{1,128}}")
_VALUE = re.compile(f"[{_ALPHABET}]{{1,512}}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
_DIGITS = "[0-9]++(?:_[0-9]++)*+"
# One way only to match each text: 16 KiB of digits with a letter behind them must not be tried in all ways there are.
_DECIMAL = re.compile(rf"[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?")
_HEX = re.compile(r"[+-]?0[xX](?:[0-9a-fA-F_]++(?:\.[0-9a-fA-F_]*+)?|\.[0-9a-fA-F_]++)[pP][+-]?[0-9]+")
_WORDS = frozenset({"inf", "infinity", "nan"})

MAX_TEXT: Final = 16 << 10
"""Longest value, in characters, that a mapper may report or a Device object may want.

KubeEdge holds them to the alphabet of MQTT clients, too, and silently drops everything else.
"""

KEY_TEXT: Final = (
    "The key of twin must only include upper or lowercase letters, number, english, and special letter"
    " - _ . , : / @ # and the length of key should be less than 128 bytes"
)
VALUE_TEXT: Final = (
    "The value of twin must only include upper or lowercase letters, number, english, and special letter"
    " - _ . , : / @ # and the length of value should be less than 512 bytes"
)


def is_key(text: str) -> bool:
    """Whether a twin may be called so."""
    return _KEY.fullmatch(text) is not None


def is_value(text: str) -> bool:
    """Whether an MQTT client may set this value."""
    return not text or _VALUE.fullmatch(text) is not None


def type_problem(kind: str, value: str) -> str:
    """Why `value` is not of type `kind`, in KubeEdge's words; empty when it is."""
    match kind:
        case "" | "string" | "deleted":
            return ""
        case "int" | "integer":
            if _INTEGER.fullmatch(value) and -(2**63) <= int(value) < 2**63:
                return ""
            return "the value is not int or integer"
        case "float":
            return "" if _is_float(value) else "the value is not float"
        case "boolean":
            return "" if value in ("true", "false") else "the bool value must be true or false"
        case _:
            return "the value type is not allowed"


def _is_float(text: str) -> bool:
    """What Go's ``ParseFloat`` takes: decimal, hexadecimal with exponent, infinities; not what overflows."""
    if text.lstrip("+-").lower() in _WORDS and text[1:2] not in ("+", "-"):
        return not (text.lower().endswith("nan") and text[0] in "+-")
    try:
        if _DECIMAL.fullmatch(text):
            return not math.isinf(float(text.replace("_", "")))
        if _HEX.fullmatch(text):
            return not math.isinf(float.fromhex(text.replace("_", "")))
    except (ValueError, OverflowError):
        return False
    return False
