"""Logging of the daemons: readable lines or one JSON object a line."""

import json
import logging
import sys
import time
from typing import Literal

Format = Literal["text", "json"]

_LETTERS = {"DEBUG": "D", "INFO": "I", "WARNING": "W", "ERROR": "E", "CRITICAL": "E"}
_NOT_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """``2026-01-02T03:04:05.678Z I cloud.hub: message  node=edge1``."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{_timestamp(record)} {_LETTERS.get(record.levelname, '?')} {_short(record.name)}: "
        text += record.getMessage()
        text += "".join(f"  {key}={value}" for key, value in _fields(record).items())
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """One object a line: ``ts``, ``level``, ``logger``, ``msg``, extra fields, ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": _short(record.name),
            "msg": record.getMessage(),
        }
        line |= {key: value for key, value in _fields(record).items() if key not in line}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def _timestamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _short(name: str) -> str:
    return name.removeprefix("edgehive.")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in record.__dict__.items() if key not in _NOT_FIELDS}


def level_of(verbosity: int) -> int:
    """Map klog's ``-v``: 0 to 3 say what changes, from 4 on the frames are shown too."""
    return logging.DEBUG if verbosity >= 4 else logging.INFO


def configure_logging(style: Format, verbosity: int) -> None:
    """Send the process's log to standard error."""
    logging.raiseExceptions = False  # a log line that cannot be written must not stop the work
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level_of(verbosity))
    for chatty in ("asyncio", "aiohttp.access", "websockets", "hpack", "h2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Their frames are shown by `wire.message.outline`: without object addresses, and without the end of contents.
    for shown_otherwise in ("edgehive.cloud.hub.websockets", "edgehive.cloud.stream_tunnel.websockets"):
        logging.getLogger(shown_otherwise).setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
