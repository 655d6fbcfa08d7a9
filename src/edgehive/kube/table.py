"""``kubectl get`` tables (``meta.k8s.io/v1 Table``), rendered on the server."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from edgehive.kube.resources import ResourceInfo


def render_table(
    info: ResourceInfo,
    objs: Sequence[dict[str, Any]],
    *,
    now: datetime,
    include_object: str = "Metadata",
    list_meta: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the Table of `objs`; `include_object` is ``None``, ``Metadata`` or ``Object``."""
    raise NotImplementedError
