"""Resource quantities: ``100m``, ``1.5Gi``, ``2e3``."""

import re
from decimal import ROUND_CEILING, Context, Decimal

_FORM = re.compile(
    r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:([KMGTPE]i|[numkMGTPE]?)|[eE]([+-]?[0-9]{1,3}))"
)
_SCALE = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_LARGEST = Decimal(2**63 - 1)
_NANO = Decimal("1e-9")
_EXACT = Context(prec=60)


def parse_quantity(text: str | int | float) -> Decimal:
    """Return the amount; capped at 2**63-1 and rounded up to 1e-9, as Kubernetes does.

    Raises:
        ValueError: not a quantity.
    """
    if isinstance(text, bool):
        raise ValueError("quantities must be text or a number")  # noqa: TRY004
    if not isinstance(text, str):
        text = repr(text)
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    number, suffix, exponent = match.groups()
    scale = _EXACT.power(Decimal(10), int(exponent)) if exponent else _SCALE[suffix or ""]
    value = _EXACT.multiply(Decimal(number), scale)
    value = max(-_LARGEST, min(_LARGEST, value))
    return value.quantize(_NANO, rounding=ROUND_CEILING, context=_EXACT).normalize(_EXACT)


def is_quantity(text: object) -> bool:
    """Tell whether `text` is a quantity."""
    if not isinstance(text, str | int | float):
        return False
    try:
        parse_quantity(text)
    except ValueError:
        return False
    return True


def format_quantity(value: Decimal | int, *, binary: bool = False) -> str:
    """Return the canonical text: no fraction, the largest suffix that keeps the value exact."""
    value = Decimal(value)
    if value == 0:
        return "0"
    if binary and value == value.to_integral_value() and abs(value) >= 1024:
        for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
            if value % _SCALE[suffix] == 0:
                return f"{int(value / _SCALE[suffix])}{suffix}"
        return str(int(value))
    for suffix in ("E", "P", "T", "G", "M", "k", "", "m", "u", "n"):
        scaled = _EXACT.divide(value, _SCALE[suffix])
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{suffix}"
    return f"{int((value / _NANO).to_integral_value(rounding=ROUND_CEILING))}n"


def canonical_quantity(text: str | int | float) -> str:
    """Return `text` in canonical form, keeping its family (binary or decimal suffixes, exponent as decimal).

    Raises:
        ValueError: not a quantity.
    """
    value = parse_quantity(text)
    return format_quantity(value, binary=isinstance(text, str) and text.endswith("i"))
