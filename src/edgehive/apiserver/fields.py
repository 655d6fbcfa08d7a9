"""What a body may contain: unknown fields, types, and the rules of its kind."""

from collections.abc import Iterator
from typing import Any

from edgehive.apiserver.codec import Object
from edgehive.apiserver.context import Call
from edgehive.kube.fielderror import FieldError, raise_if_any, wrong_type
from edgehive.kube.status import ApiStatus
from edgehive.kube.validation import validate

_TYPE = "FieldValueTypeInvalid"


def check_fields(call: Call, obj: Object) -> None:
    """Drop unknown fields, as ``fieldValidation`` wants it, and refuse values of a wrong type.

    Raises:
        ApiStatus: 400.
    """
    schema = call.info.schema
    if schema is None:
        return
    unknown = [f'unknown field "{path}"' for path in schema.prune(obj)]
    if unknown and call.field_validation == "Strict":
        raise _undecodable(call, "strict decoding error: " + ", ".join(unknown))
    if call.field_validation == "Warn":
        call.warnings.extend(text for text in unknown if text not in call.warnings)
    if not call.info.custom:
        wrong = [wrong_type(path, None, "a list may not contain null") for path in drop_nulls(obj)]
        call.checked = schema.validate(obj)
        wrong += [e for e in call.checked if e.reason == _TYPE]
        if wrong:
            raise _undecodable(call, "; ".join(f"{e.field}: {e.message}" for e in wrong))


def check_valid(call: Call, new: Object, old: Object | None = None) -> None:
    """Check a complete object, and the step from `old` to it.

    Raises:
        ApiStatus: 422, or 400 for a built-in object with a value of a wrong type.
    """
    info = call.info
    name = str(new["metadata"].get("name", ""))
    errors: list[FieldError] = list(call.checked or ())
    if call.checked is None and info.schema is not None:
        errors = info.schema.validate(new)
    seen = {(e.field, e.reason) for e in errors}
    more = validate(info, new, old=old, subresource=call.subresource)
    errors += [e for e in more if (e.field, e.reason) not in seen]
    raise_if_any(info.kind, name, errors, info.gvr.group)


def _undecodable(call: Call, why: str) -> ApiStatus:
    kind, version = call.info.kind, call.info.gvr.version
    message = f'{kind} in version "{version}" cannot be handled as a {kind}: {why}'
    return ApiStatus(400, "BadRequest", message)


def drop_nulls(value: Any, path: str = "") -> Iterator[str]:
    """Remove fields that are null, as decoding into a Go struct does; yield the places where a list holds one."""
    if isinstance(value, dict):
        for key in [key for key, inner in value.items() if inner is None]:
            del value[key]
        for key, inner in value.items():
            if isinstance(inner, dict | list):
                yield from drop_nulls(inner, f"{path}.{key}" if path else key)
    else:
        for index, inner in enumerate(value):
            if inner is None:
                yield f"{path}[{index}]"
            elif isinstance(inner, dict | list):
                yield from drop_nulls(inner, f"{path}[{index}]")
