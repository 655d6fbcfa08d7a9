"""How a daemon reads its command line without argparse."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.cli.daemons import Start, daemon_parser, parse_daemon, plain_start

_NAMES = st.sampled_from(
    ["--config", "-v", "--v", "--log-format", "--minconfig", "--version", "--logtostderr", "x"]
)
_VALUES = st.sampled_from(
    ["", "2", "04", "-1", "٣", "text", "json", "xml", "/etc/a.yaml", "a=b", "--config", "-"]
)
_WORDS = st.one_of(
    st.builds(lambda name, value: [f"{name}={value}"], _NAMES, _VALUES),
    st.builds(lambda name, value: [name, value], _NAMES, _VALUES),
    st.builds(lambda name: [name], _NAMES),
)


def parsed(words: list[str]) -> Start:
    parser = daemon_parser("edgecore", "", "/etc/kubeedge/config/edgecore.yaml")
    arguments = parse_daemon(parser, words)
    assert (arguments.minconfig, arguments.defaultconfig, arguments.version) == (False, False, None)
    return Start(arguments.config, arguments.verbosity, arguments.log_format)


@given(st.lists(_WORDS, max_size=4))
def test_what_it_reads_argparse_reads_as_the_same(pairs: list[list[str]]) -> None:
    words = [word for pair in pairs for word in pair]
    start = plain_start(words)
    assert start is None or start == parsed(words)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--config=/a.yaml", "-v=2", "--log-format=json"],
        ["--config", "/a.yaml", "-v", "4"],
    ],
)
def test_the_usual_words_need_no_argparse(words: list[str]) -> None:
    assert plain_start(words) == parsed(words)


@pytest.mark.parametrize(
    "words", [["--version"], ["--minconfig"], ["-h"], ["--config"], ["--logtostderr=true"]]
)
def test_the_others_do(words: list[str]) -> None:
    assert plain_start(words) is None
    assert plain_start([*words, f"--config={Path('/a.yaml')}"]) is None
