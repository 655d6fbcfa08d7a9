"""The log that a stranger cannot fill."""

import logging

import pytest

from edgehive.aio.fewlines import FewLines, host_of


def test_the_first_is_written_then_a_number_each_minute_and_all_at_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    now = 0.0
    lines = FewLines(logging.getLogger("edgehive.test"), now=lambda: now)
    for second in range(0, 90, 30):
        now = float(second)
        lines.warning("joins refused", "10.0.0.1", "join of %s refused", f"edge-{second}")
    lines.info("joins", "10.0.0.1", "join of %s", "edge-1")
    said = [(r.levelname, r.getMessage()) for r in caplog.records]
    assert said == [
        ("WARNING", "join of edge-0 refused"),
        ("DEBUG", "join of edge-30 refused"),
        ("WARNING", "joins refused from 10.0.0.1: 1 more in the last minute"),
        ("DEBUG", "join of edge-60 refused"),
        ("INFO", "join of edge-1"),
    ]
    assert {r.funcName for r in caplog.records} == {
        "test_the_first_is_written_then_a_number_each_minute_and_all_at_debug"
    }, "the line is its writer's"


@pytest.mark.parametrize(
    ("remote", "host"), [("10.0.0.1:4711", "10.0.0.1"), ("::1:4711", "::1"), ("unix", "unix"), ("?", "?")]
)
def test_the_address_without_its_port(remote: str, host: str) -> None:
    assert host_of(remote) == host
