"""Kubernetes timestamps: whole seconds for objects, microseconds for leases."""

from datetime import UTC, datetime


def format_time(seconds: float) -> str:
    """``2006-01-02T15:04:05Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(seconds: float) -> str:
    """``2006-01-02T15:04:05.000000Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str | None) -> float | None:
    """Return seconds since the epoch; None when absent or unreadable."""
    if not text:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
