from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.kube.quantity import canonical_quantity, format_quantity, is_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"),
        ("100m", "0.1"),
        ("1.5Gi", str(1024**3 * 3 // 2)),
        ("2e3", "2000"),
        ("1E", str(10**18)),
        ("12E-1", "1.2"),
        (".5", "0.5"),
        ("+3k", "3000"),
        ("-1Ki", "-1024"),
        ("129M", "129000000"),
        ("123Mi", str(123 * 1024**2)),
        (3, "3"),
        (0.5, "0.5"),
    ],
)
def test_reads_what_kubernetes_reads(text, value):
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "1x", "1 Gi", "Gi", "1kk", "1.2.3", "--1", "1e", "0x10", "1mi", True])
def test_refuses_what_is_no_quantity(text):
    assert not is_quantity(text)
    with pytest.raises(ValueError):
        parse_quantity(text)


def test_rounds_up_to_nano_and_caps():
    assert parse_quantity("0.0000000001") == Decimal("1e-9")
    assert parse_quantity("99999E") == 2**63 - 1


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("1500M", "1500M"),
        ("2000", "2k"),
        ("500Mi", "500Mi"),
    ],
)
def test_canonical_form(text, canonical):
    assert canonical_quantity(text) == canonical


@settings(max_examples=60, deadline=None)
@given(st.integers(-(2**62), 2**62), st.booleans())
def test_format_and_parse_are_inverse(number, binary):
    assert parse_quantity(format_quantity(number, binary=binary)) == number
    milli = Decimal(number % 10**12) / 1000
    assert parse_quantity(format_quantity(milli)) == milli


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="0123456789.eEinumkKMGTPi+-", max_size=12))
def test_parse_raises_only_value_error(text):
    try:
        value = parse_quantity(text)
    except ValueError:
        return
    assert abs(value) <= 2**63 - 1
