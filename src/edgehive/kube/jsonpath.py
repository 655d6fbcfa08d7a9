"""The JSONPath of printer columns and selectable fields: ``.spec.ports[0].name``, ``['a.b']``, ``[*]``, filters."""

import re
from collections.abc import Mapping
from typing import Any

from edgehive.kit.errors import EdgehiveError

_STEP = re.compile(
    r"""\.?\[\s*'((?:[^'\\]|\\.)*)'\s*\]     # ['name']
      | \.?\[\s*"((?:[^"\\]|\\.)*)"\s*\]      # ["name"]
      | \.?\[\s*(-?\d+|\*)\s*\]               # [0], [*]
      | \.?\[\s*\?\(\s*@((?:\.[\w-]+)+)\s*==\s*["']([^"']*)["']\s*\)\s*\]   # [?(@.type=="Ready")]
      | \.?\[\s*(-?\d*)\s*:\s*(-?\d*)\s*\]    # [1:3]
      | \.(\*|(?:[^.\[\]\\]|\\.)+)            # .name, .na\.me, .*
    """,
    re.VERBOSE,
)


class BadPath(EdgehiveError):
    """The text is not a JSONPath of the supported kind."""


def check_path(path: str) -> None:
    """Check the form of `path`.

    Raises:
        BadPath: it cannot be used.
    """
    _steps(path)


def _steps(path: str) -> list[re.Match[str]]:
    text = path.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1].strip()
    text = text.removeprefix("$")
    steps, at = [], 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise BadPath(f"not a usable JSON path: {path!r}")
        steps.append(match)
        at = match.end()
    if not steps:
        raise BadPath("the JSON path is empty")
    return steps


def find_all(obj: Any, path: str) -> list[Any]:
    """Return every value at `path`.

    Raises:
        BadPath: `path` cannot be used.
    """
    values = [obj]
    for step in _steps(path):
        values = [found for value in values for found in _take(value, step)]
    return values


def find(obj: Any, path: str) -> Any:
    """Return the first value at `path`, or None."""
    return next(iter(find_all(obj, path)), None)


def _take(value: Any, step: re.Match[str]) -> list[Any]:
    single, double, index, field, wanted, low, high, name = step.groups()
    if field is not None:
        keys = field.strip(".").split(".")
        return [item for item in value if str(_deep(item, keys)) == wanted] if isinstance(value, list) else []
    if index is not None or name == "*":
        return _by_index(value, index or "*")
    if low is not None:
        return (
            value[int(low) if low else None : int(high) if high else None] if isinstance(value, list) else []
        )
    key = re.sub(r"\\(.)", r"\1", next(k for k in (single, double, name) if k is not None))
    return [value[key]] if isinstance(value, Mapping) and key in value else []


def _by_index(value: Any, index: str) -> list[Any]:
    if index == "*":
        if isinstance(value, Mapping):
            return list(value.values())
        return list(value) if isinstance(value, list) else []
    at = int(index)
    return [value[at]] if isinstance(value, list) and -len(value) <= at < len(value) else []


def _deep(value: Any, keys: list[str]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
