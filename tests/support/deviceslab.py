"""Devices, models and reports, as tests write them."""

from typing import Any

from edgehive.kube.crd_devices import DEVICE_STATUSES
from edgehive.kube.refs import OBJECTSYNCS


def model(name: str = "thermo", **spec: Any) -> dict[str, Any]:
    properties = [
        {"name": "temperature", "type": "INT", "accessMode": "ReadWrite", "minimum": "1", "maximum": "100"},
        {"name": "mode", "type": "STRING", "accessMode": "ReadWrite"},
    ]
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"protocol": "modbus", "properties": properties, **spec},
    }


def device(name: str = "sensor", node: str = "edge-1", wish: str = "20", **spec: Any) -> dict[str, Any]:
    properties = [{"name": "temperature", "desired": {"value": wish}}, {"name": "mode"}]
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"description": "hall"}},
        "spec": {
            "nodeName": node,
            "deviceModelRef": {"name": "thermo"},
            "properties": properties,
            **spec,
        },
    }


def recorded(api: Any, obj: dict[str, Any], node: str = "edge-1") -> str | None:
    """The version of an object that its node has acknowledged."""
    found = api.find(OBJECTSYNCS, "default", f"{node}.{obj['metadata']['uid']}")
    return (found.get("status") or {}).get("objectResourceVersion") if found else None


def twin(
    value: str | None = None, wish: str | None = None, *, at: int = 1000, edge: int = 1, kind: str = "int"
) -> dict[str, Any]:
    """One property in the form of wire.md A12."""
    content: dict[str, Any] = {"optional": True, "metadata": {"type": kind}}
    for key, text in (("actual", value), ("expected", wish)):
        if text is not None:
            content[key] = {"value": text, "metadata": {"timestamp": at}}
            content[f"{key}_version"] = {"cloud": 0, "edge": edge}
    return content


async def report(edge: Any, name: str = "sensor", **twins: Any) -> Any:
    """Report values; returns the message."""
    content = {"event_id": "e1", "timestamp": 1000, "twin": twins}
    return await edge.say(
        "update", f"device/default/{name}/twin/edge_updated", content, source="twin", group="resource"
    )


async def answer(edge: Any, request: Any, timeout: float = 5.0) -> Any:
    """The answer to a report."""
    return await edge.wait(lambda m: m.parent_id == request.id, timeout)


def status(api: Any, name: str = "sensor") -> dict[str, Any]:
    """What is stored of a device's reports."""
    found = api.find(DEVICE_STATUSES, "default", name)
    return (found.get("status") or {}) if found else {}


def reported(api: Any, name: str = "sensor") -> dict[str, str]:
    """The reported values."""
    return {t["propertyName"]: t["reported"]["value"] for t in status(api, name).get("twins", ())}
