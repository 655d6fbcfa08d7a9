import io
import json
import logging
import sys

from edgehive.cli.console import Console
from edgehive.cli.logs import JsonFormatter, TextFormatter, configure_logging, level_of


def record(**extra) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "edgehive.cloud.hub", "levelno": 20, "levelname": "INFO"})
    made.msg, made.args, made.created, made.msecs = "%s connected", ("edge-1",), 1767323045.678, 678.0
    made.__dict__.update(extra)
    return made


def test_a_line_says_when_how_bad_where_and_what():
    assert TextFormatter().format(record()) == "2026-01-02T03:04:05.678Z I cloud.hub: edge-1 connected"


def test_extra_fields_follow_the_message():
    assert TextFormatter().format(record(node="edge-1")).endswith("edge-1 connected  node=edge-1")


def test_json_has_one_object_a_line_with_the_traceback_in_a_field():
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        line = JsonFormatter().format(record(node="n", exc_info=sys.exc_info()))
    assert "\n" not in line
    read = json.loads(line)
    assert (read["level"], read["logger"], read["msg"], read["node"]) == (
        "info",
        "cloud.hub",
        "edge-1 connected",
        "n",
    )
    assert "ValueError: bad" in read["error"]


def test_verbosity_is_kubeedges(monkeypatch):
    assert [level_of(v) for v in (0, 2, 3, 4, 9)] == [20, 20, 20, 10, 10]


def test_configuring_twice_does_not_double_the_lines(monkeypatch):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        configure_logging("text", 2)
        configure_logging("text", 2)
        logging.getLogger("edgehive.test").info("once")
        assert stream.getvalue().count("once") == 1
    finally:
        root.handlers[:], root.level = before, level
        logging.captureWarnings(capture=False)


def test_a_console_without_unicode_writes_ascii():
    raw = io.BytesIO()
    console = Console(io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    console.done("fine")
    console.warn("hm")
    console.step("wait")
    assert b"fine" in raw.getvalue()


def test_a_console_whose_reader_left_goes_on():
    stream = io.StringIO()
    console = Console(stream)
    stream.close()
    console.done("nobody hears this")
