"""Server-side apply and the field ownership (``metadata.managedFields``) behind it."""

from typing import Any

from edgehive.kube.schema import Schema


def server_side_apply(
    live: dict[str, Any] | None,
    applied: dict[str, Any],
    *,
    manager: str,
    force: bool,
    schema: Schema,
    now: str,
    api_version: str,
    subresource: str = "",
) -> dict[str, Any]:
    """Return the object after `manager` applied `applied`; `now` is an RFC 3339 time.

    Defaults are not filled in; call `schema.apply_defaults` on the result.

    Raises:
        ApiStatus: 409 with one ``FieldManagerConflict`` cause per field another manager owns.
    """
    raise NotImplementedError


def track_update(
    old: dict[str, Any] | None,
    new: dict[str, Any],
    *,
    manager: str,
    operation: str = "Update",
    now: str,
    schema: Schema,
    api_version: str,
    subresource: str = "",
) -> None:
    """Give `manager` the fields that `new` sets or changes, in ``new["metadata"]["managedFields"]``."""
    raise NotImplementedError
