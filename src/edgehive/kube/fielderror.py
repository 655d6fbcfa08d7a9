"""One problem of one field, and the sentences Kubernetes uses for the usual ones."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from edgehive.kube.status import ApiStatus, invalid


class FieldError(NamedTuple):
    """A field path, a ``metav1.CauseType`` (``FieldValueInvalid``...), a message."""

    field: str
    reason: str
    message: str


def show(value: Any) -> str:
    """Return `value` as messages quote it: JSON, shortened."""
    text = msgspec.json.encode(value).decode(errors="replace")
    return text if len(text) <= 300 else text[:300] + "..."


def required(field: str, detail: str = "") -> FieldError:
    """The field is missing."""
    return FieldError(
        field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value"
    )


def invalid_value(field: str, value: Any, detail: str) -> FieldError:
    """The value is malformed or out of range."""
    return FieldError(field, "FieldValueInvalid", f"Invalid value: {show(value)}: {detail}")


def wrong_type(field: str, value: Any, detail: str) -> FieldError:
    """The value has another JSON type."""
    return FieldError(field, "FieldValueTypeInvalid", f"Invalid value: {show(value)}: {detail}")


def not_supported(field: str, value: Any, allowed: Iterable[Any]) -> FieldError:
    """The value is not one of the allowed ones."""
    choices = ", ".join(show(v) for v in allowed)
    return FieldError(
        field, "FieldValueNotSupported", f"Unsupported value: {show(value)}: supported values: {choices}"
    )


def duplicate(field: str, value: Any) -> FieldError:
    """The value occurs twice where it must be unique."""
    return FieldError(field, "FieldValueDuplicate", f"Duplicate value: {show(value)}")


def not_found(field: str, value: Any) -> FieldError:
    """The value refers to something that does not exist."""
    return FieldError(field, "FieldValueNotFound", f"Not found: {show(value)}")


def forbidden(field: str, detail: str) -> FieldError:
    """The field may not be set or changed here."""
    return FieldError(field, "FieldValueForbidden", f"Forbidden: {detail}")


def too_long(field: str, limit: int) -> FieldError:
    """The text is longer than `limit` bytes."""
    return FieldError(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def too_many(field: str, count: int, limit: int) -> FieldError:
    """The list has more than `limit` items."""
    return FieldError(field, "FieldValueTooMany", f"Too many: {count}: must have at most {limit} items")


def raise_if_any(kind: str, name: str, errors: Sequence[FieldError], group: str = "") -> None:
    """Do nothing when `errors` is empty.

    Raises:
        ApiStatus: 422 with one cause per error.
    """
    if errors:
        raise as_status(kind, name, errors, group)


def as_status(kind: str, name: str, errors: Sequence[FieldError], group: str = "") -> ApiStatus:
    """The 422 answer for `errors`."""
    return invalid(kind, name, errors, group)
