"""Patterns of custom resource definitions: Go's syntax, in linear time."""

import subprocess
import sys

import pytest

from edgehive.kube.patterns import PatternError, check_pattern, matches
from edgehive.kube.schema import Schema


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^[[:alpha:]]+$", "abc"),
        (r"[$]", "$"),
        (r"^a\z", "a"),
        (r"^\pL+$", "äß"),
        (r"^.$", "é"),
        (r"^(?i:ab)$", "AB"),
        (r"^(?P<name>a)$", "a"),
        (r"^(?s).$", "\n"),
        (r"^[^-]{2}$", "\u2028x"),
        ("b", "abc"),
        ("", ""),
    ],
)
def test_what_go_matches(pattern, text):
    assert matches(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^a$", "a\n"),
        (r"^\d$", "٣"),
        (r"^\w$", "é"),
        (r"^\s$", "\v"),
        ("^a$", "b\na\nb"),
        (".", "\n"),
        ("a", "A"),
    ],
)
def test_what_go_does_not_match(pattern, text):
    assert not matches(pattern, text)


def test_a_lone_surrogate_is_no_text_and_ends_nothing():
    assert not matches("^a$", "\ud800")
    check_pattern("\ud800")


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        "[a",
        "a**",
        r"\1",
        "(?=a)",
        "(?<!a)",
        "a++",
        "a{1001}",
        "(x{1000}){1000}",
        r"\Z",
    ]
    + [r"(\pL{100}){10}", "(((a{30}){30}){30}){30}"],
)
def test_what_go_refuses_or_what_is_too_large_is_refused_with_a_reason(pattern):
    with pytest.raises(PatternError) as caught:
        check_pattern(pattern)
    assert str(caught.value)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(a+)+$",
        r"^(a|a)*$",
        r"^(a|aa)+$",
        r"^(a*)*b$",
        r"^([a-z]+)*\d$",
        r"(x+x+)+y",
        r"^(.*?,){11}P",
        r"(.*)=(.*)=(.*)=(.*)!",
        "(a?){30}a{30}!",
    ],
)
def test_patterns_that_backtracking_never_ends_on_are_linear(pattern):
    """Each would take a backtracking engine longer than anyone waits; here a megabyte is nothing."""
    for text in ("a" * 1_000_000 + "!!", "x" * 1_000_000, "=," * 500_000):
        matches(pattern, text)
    assert not matches("^(a+)+$", "a" * 1_000_000 + "!")


def test_a_schema_tells_a_value_that_does_not_match_from_a_pattern_that_cannot_run():
    schema = Schema.from_openapi(
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "^b$"}}}
    )
    assert not schema.validate({"a": "b"})
    assert "should match '^b$'" in schema.validate({"a": "c"})[0].message
    # Stored by an earlier version, whose engine took it.
    schema = Schema.from_openapi(
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=b)"}}}
    )
    assert "cannot be matched with '(?=b)'" in schema.validate({"a": "b"})[0].message


def test_the_engine_is_loaded_with_the_first_pattern():
    code = "import sys, edgehive.kube.schema_check, edgehive.kube.crd_check; sys.exit('re2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
