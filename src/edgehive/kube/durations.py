"""Times as people read them: the ages of ``kubectl get``."""

from datetime import datetime
from typing import Any

from edgehive.kube.schema_check import parse_time

NONE = "<none>"
UNKNOWN = "<unknown>"

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 86400 * 365


def human_duration(seconds: float) -> str:
    """Return ``45s``, ``3m20s``, ``5h``, ``2d3h``, ``1y40d``: two units while the first is small."""
    seconds = int(seconds)
    if seconds < 0:
        return "<invalid>" if seconds < -1 else "0s"
    if seconds < 2 * _MINUTE:
        return f"{seconds}s"
    if seconds < 10 * _MINUTE:
        return _two(seconds, _MINUTE, "m", 1, "s")
    if seconds < 3 * _HOUR:
        return f"{seconds // _MINUTE}m"
    if seconds < 8 * _HOUR:
        return _two(seconds, _HOUR, "h", _MINUTE, "m")
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR}h"
    if seconds < 8 * _DAY:
        return _two(seconds, _DAY, "d", _HOUR, "h")
    if seconds < 2 * _YEAR:
        return f"{seconds // _DAY}d"
    if seconds < 8 * _YEAR:
        return _two(seconds, _YEAR, "y", _DAY, "d")
    return f"{seconds // _YEAR}y"


def _two(seconds: int, big: int, big_name: str, small: int, small_name: str) -> str:
    rest = seconds % big // small
    return f"{seconds // big}{big_name}{rest}{small_name}" if rest else f"{seconds // big}{big_name}"


def parse_time_or_none(value: Any) -> datetime | None:
    """Parse an RFC 3339 time; None for anything else."""
    try:
        return parse_time(value) if isinstance(value, str) else None
    except ValueError:
        return None


def age_text(value: Any, now: datetime) -> str:
    """Return how long ago `value` (an RFC 3339 time) was."""
    time = parse_time_or_none(value)
    return UNKNOWN if time is None else human_duration((now - time).total_seconds())
