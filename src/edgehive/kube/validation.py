"""What the built-in kinds must fulfil beyond their schema, with Kubernetes' field paths and messages."""

from typing import Any

from edgehive.kube.fielderror import FieldError
from edgehive.kube.resources import ResourceInfo


def validate(
    info: ResourceInfo, obj: dict[str, Any], *, old: dict[str, Any] | None = None, subresource: str = ""
) -> list[FieldError]:
    """Return what is wrong with `obj` (defaults filled in); with `old`, also what may not change.

    For custom kinds this checks metadata only; their schema does the rest (`Schema.validate`).
    """
    raise NotImplementedError
