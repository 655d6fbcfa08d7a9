"""The three patch formats of the API: RFC 6902, RFC 7386, strategic merge."""

from collections.abc import Sequence
from typing import Any

from edgehive.kube.schema import Schema


def json_patch(doc: Any, ops: Sequence[Any]) -> Any:
    """Apply RFC 6902 `ops` to a copy of `doc`.

    Raises:
        ApiStatus: 400 for a malformed patch, 422 when an operation does not fit the document.
    """
    raise NotImplementedError


def merge_patch(doc: Any, patch: Any) -> Any:
    """Apply an RFC 7386 `patch` to a copy of `doc`."""
    raise NotImplementedError


def strategic_merge_patch(doc: dict[str, Any], patch: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Apply a strategic merge `patch` to a copy of `doc`; lists merge by the keys in `schema`.

    Raises:
        ApiStatus: 400 for a malformed patch.
    """
    raise NotImplementedError
