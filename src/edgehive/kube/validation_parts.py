"""Small checks that the validation modules share."""

from collections.abc import Mapping
from typing import Any

from edgehive.kube import fielderror as err
from edgehive.kube.fielderror import FieldError

Object = Mapping[str, Any]


def objects(value: Any) -> list[Object]:
    """Return the objects in a list; anything else is empty (the schema has reported it)."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def choice(obj: Object, key: str, path: str, allowed: tuple[str, ...], errors: list[FieldError]) -> None:
    """Append an error when ``obj[key]`` is set and not one of `allowed`."""
    value = obj.get(key)
    if value is not None and value not in allowed:
        errors.append(err.not_supported(f"{path}.{key}", value, allowed))


def is_port(value: Any) -> bool:
    """Tell whether `value` is a port number."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535


def inner_path_problem(value: Any) -> str:
    """Return why `value` may lead out of the directory it is relative to; empty when it cannot."""
    if not isinstance(value, str):
        return ""
    if value.startswith("/"):
        return "must be a relative path"
    return "must not contain '..'" if ".." in value.split("/") else ""


def spec_of(obj: Object) -> Object:
    """Return ``spec``, empty when it is missing or no object."""
    spec = obj.get("spec")
    return spec if isinstance(spec, Mapping) else {}


def immutable(path: str, value: Any) -> FieldError:
    """An error for a field that may not change."""
    return err.invalid_value(path, value, "field is immutable")
