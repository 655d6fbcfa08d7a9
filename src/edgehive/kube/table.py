"""``kubectl get`` tables (``meta.k8s.io/v1 Table``), rendered on the server."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from edgehive.kube.cells import CELLS
from edgehive.kube.durations import age_text
from edgehive.kube.jsonpath import find_all
from edgehive.kube.resources import Column, ResourceInfo

_NAME = Column("Name", format="name", path=".metadata.name", description="Name of the object.")
_AGE = Column(
    "Age", type="date", path=".metadata.creationTimestamp", description="Time since the object was created."
)
_BUILTIN_AGE = Column("Age", cell="age", description="Time since the object was created.")


def render_table(
    info: ResourceInfo,
    objs: Sequence[dict[str, Any]],
    *,
    now: datetime,
    include_object: str = "Metadata",
    list_meta: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the Table of `objs`; `include_object` is ``None``, ``Metadata`` or ``Object``."""
    columns = table_columns(info)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(list_meta) if list_meta else {},
        "columnDefinitions": [
            {
                "name": column.name,
                "type": column.type,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            }
            for column in columns
        ],
        "rows": [_row(info, columns, obj, now, include_object) for obj in objs],
    }


def table_columns(info: ResourceInfo) -> tuple[Column, ...]:
    """Return the columns of a resource: its own, or name and age."""
    if not info.custom:
        return info.columns or (_NAME, _BUILTIN_AGE)
    return (_NAME, *(info.columns or (_AGE,)))


def _row(
    info: ResourceInfo, columns: Sequence[Column], obj: dict[str, Any], now: datetime, include: str
) -> dict[str, Any]:
    row: dict[str, Any] = {"cells": [_cell(info, column, obj, now) for column in columns]}
    if info.kind == "Pod":
        row["conditions"] = _completed(obj)
        if not row["conditions"]:
            del row["conditions"]
    if include == "Object":
        row["object"] = obj
    elif include != "None":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": obj.get("metadata") or {},
        }
    return row


def _completed(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    phase = (pod.get("status") or {}).get("phase")
    if phase not in ("Succeeded", "Failed"):
        return []
    message = "The pod has completed successfully." if phase == "Succeeded" else "The pod failed."
    return [{"type": "Completed", "status": "True", "reason": phase, "message": message}]


def _cell(info: ResourceInfo, column: Column, obj: dict[str, Any], now: datetime) -> Any:
    if column.cell:
        return CELLS[column.cell](obj, now)
    found = find_all(obj, column.path)
    if not found or found[0] is None:
        return None if info.custom else ""
    value = found[0]
    if column.type == "date":
        return age_text(value, now) if info.custom else value
    if column.type in ("integer", "number", "boolean"):
        return value
    if len(found) > 1:
        return " ".join(_text(item) for item in found)
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
