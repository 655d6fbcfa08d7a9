"""Every parser of what a peer sends, fuzzed for a moment; and the fuzzer itself, on a planted fault."""

import json
from typing import Any

import pytest

from tests.fuzz.guided import Fuzzer, targets


@pytest.mark.parametrize("name", sorted(targets()))
def test_a_parser_raises_only_what_it_may(name: str) -> None:
    target, allowed, corpus = targets()[name]
    fuzzer = Fuzzer(target, allowed, list(corpus), seed=20)
    assert fuzzer.run(executions=15_000) is None
    assert len(fuzzer.seen) > 3


def stepwise(data: bytes) -> Any:
    """Fails only for what blind chance would hardly make: each step is a line of its own."""
    if data[:1] == b"{":  # noqa: SIM102 - each step has to be a line of its own
        if data[1:2] == b'"':  # noqa: SIM102
            if data[2:3] == b"\xff":  # noqa: SIM102
                if b"uid" in data:
                    raise ZeroDivisionError
    return json.loads(data)


def test_the_fuzzer_finds_a_fault_behind_four_conditions() -> None:
    fuzzer = Fuzzer(stepwise, (ValueError,), [b"x"], within="test_fuzz_parsers")
    found = fuzzer.run(executions=60_000)
    assert found is not None
    assert found.startswith(b'{"\xff')
