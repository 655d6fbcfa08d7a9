"""A configuration file over its defaults: what is taken, what is reported, what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edgehive.aio.configfile import adopt_config, dump_yaml, read_config, refuse_failed
from edgehive.kit.errors import UserError


class Inner(msgspec.Struct, frozen=True, rename="camel"):
    node_limit: int = 500
    address: str = "0.0.0.0"


class Outer(msgspec.Struct, frozen=True, rename="camel"):
    kind: str = "Test"
    inner: Inner = Inner()


def adopt(text: str) -> tuple[Outer, list[str]]:
    return adopt_config(text, Outer, origin="test.yaml", program="testd")


def test_defaults_stay_where_the_file_is_silent_or_null() -> None:
    assert adopt("") == (Outer(), [])
    assert adopt("inner:\n  nodeLimit: 7\n  address: null\n") == (Outer(inner=Inner(7)), [])


def test_letter_case_does_not_matter_and_a_near_miss_is_named() -> None:
    config, warnings = adopt("INNER:\n  NODELIMIT: 7\n  adress: x\n")
    assert config.inner == Inner(7)
    assert warnings == ["unknown key inner.adress is ignored; did you mean inner.address?"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inner:\n  nodeLimit: many\n", "test.yaml: inner.nodeLimit: expected"),
        ("inner: 5\n", "test.yaml: inner: expected"),
        ("- a\n", "must be a mapping of keys, not a list"),
        ("a: [\n", "is not valid YAML"),
        ("[" * 5000, "is not valid YAML"),
    ],
)
def test_what_is_wrong_is_refused_by_its_key(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        adopt(text)
    assert words in caught.value.message


def test_the_first_failed_check_is_told_with_a_way_on() -> None:
    checks = [(True, "a", "x"), (False, "b", "must be c"), (False, "d", "y")]
    with pytest.raises(UserError, match="f: b: must be c") as caught:
        refuse_failed(checks, origin="f", program="testd")
    assert "testd --defaultconfig" in caught.value.hint


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_config(tmp_path / "no.yaml", program="testd")
    assert "testd --minconfig" in caught.value.hint
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        read_config(binary, program="testd")


def test_what_is_written_is_read_back() -> None:
    config = Outer(inner=Inner(9, "ü"))
    text = dump_yaml(msgspec.to_builtins(config))
    assert text.index("kind") < text.index("inner")
    assert adopt(text) == (config, [])


_APART = """
import json, sys
from edgehive.aio.configfile import adopt_config
from edgehive.kit.errors import UserError
import msgspec

class Any(msgspec.Struct):
    inner: object = None
    date: object = None

for text in json.loads(sys.stdin.read()):
    try:
        found = adopt_config(text, Any, origin="test.yaml", program="testd")[0]
        print(repr((found.inner, found.date)), "yaml" in sys.modules)
    except UserError as exc:
        print(str(exc).splitlines()[0], "yaml" in sys.modules)
"""


def test_a_child_parses_the_file_and_the_parser_is_gone_with_it() -> None:
    texts = [
        "",
        "inner: {a: [1, 2.5, null, yes, 'ü', 010]}\n",
        "inner: " + "x" * 200_000,  # more than a pipe holds
        "date: 2026-01-02\n",  # nothing that a child can hand over
        "inner: [\n",
    ]
    done = subprocess.run(
        [sys.executable, "-c", _APART],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "(None, None) False"
    assert lines[1] == "({'a': [1, 2.5, None, True, 'ü', 8]}, None) False"
    assert lines[2] == f"({'x' * 200_000!r}, None) False"
    assert lines[3] == "(None, datetime.date(2026, 1, 2)) True"
    assert lines[4].startswith("test.yaml is not valid YAML: ")
