r"""The regular expressions of custom resource definitions, in Go's syntax: https://github.com/google/re2/wiki/Syntax.

They are run by RE2, the engine that Go's is made after: in time linear in pattern and text and in bounded memory, so
that whoever may create definitions cannot make the API server think for ever. It is imported with the first pattern.
"""

from typing import Any, Final

from edgehive.kit.errors import EdgehiveError

_MEMORY: Final = 2 << 20
"""Bytes for one compiled pattern; RE2 keeps 128 of them."""


class PatternError(EdgehiveError):
    """Not a pattern, one that is too large, or none can be run here."""


def check_pattern(pattern: str) -> None:
    """See whether `pattern` can be run.

    Raises:
        PatternError: it cannot; the text says why.
    """
    _compile(pattern)


def matches(pattern: str, text: str) -> bool:
    r"""Whether `pattern` is found in `text`: ``$`` and ``\z`` mean its very end, classes are ASCII.

    Raises:
        PatternError: `pattern` cannot be run.
    """
    return _compile(pattern).search(_encode(text)) is not None


def _compile(pattern: str) -> Any:
    try:
        import re2
    except ImportError as exc:
        raise PatternError("patterns are run by RE2: pip install 'edgehive[patterns]'") from exc
    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    try:
        return re2.compile(_encode(pattern), options)
    except re2.error as exc:
        reason = exc.args[0] if exc.args else b""
        raise PatternError(
            reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        ) from exc


def _encode(text: str) -> bytes:
    """UTF-8, with U+FFFD for what has none (half of a surrogate pair), as Go's JSON decoder puts it."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
