"""A configuration file over its defaults: what is taken, what is reported, what is refused."""

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
