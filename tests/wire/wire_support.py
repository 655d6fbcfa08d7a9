"""Message makers for the protocol tests."""

import itertools
import json

from edgehive.wire.message import DELETE, RESPONSE, UPDATE, Message
from edgehive.wire.outbound import Outbound

_ids = itertools.count(1)


def stamp() -> tuple[str, int]:
    """A fresh id and a fixed wall clock."""
    return f"id-{next(_ids)}", 1_786_000_000_123


def content(name: str, uid: str, version: int | str, kind: str = "Pod", **metadata: object) -> bytes:
    meta = {"name": name, "namespace": "default", "uid": uid, "resourceVersion": str(version), **metadata}
    return json.dumps({"kind": kind, "apiVersion": "v1", "metadata": meta}).encode()


def down(
    name: str = "nginx",
    version: int | str = 1,
    *,
    uid: str = "u1",
    operation: str = UPDATE,
    kind: str = "Pod",
    source: str = "edgecontroller",
    parent: str = "",
    **metadata: object,
) -> Outbound:
    """A message of a controller to an edge."""
    message_id, timestamp = stamp()
    return Outbound(
        Message(
            id=message_id,
            timestamp=timestamp,
            operation=operation,
            resource=f"default/{kind.lower()}/{name}",
            content=content(name, uid, version, kind, **metadata),
            parent_id=parent,
            resource_version=str(version) if version else "",
            source=source,
            group="resource",
        )
    )


def gone(name: str = "nginx", *, uid: str = "u1", kind: str = "Pod") -> Outbound:
    """A bare delete, as the reconcile makes it."""
    message_id, timestamp = stamp()
    body = {"metadata": {"name": name, "namespace": "default", **({"uid": uid} if uid else {})}}
    return Outbound(
        Message(
            id=message_id,
            timestamp=timestamp,
            operation=DELETE,
            resource=f"default/{kind.lower()}/{name}",
            content=json.dumps(body).encode(),
            source="edgecontroller",
            group="resource",
        )
    )


def answer(name: str = "cm", version: int = 1, *, uid: str = "u1", parent: str = "q1") -> Outbound:
    """The answer to a ConfigMap query."""
    return down(name, version, uid=uid, operation=RESPONSE, kind="ConfigMap", parent=parent)


def up(operation: str, resource: str, body: object = None, **fields: str) -> Message:
    """A message of an edge."""
    message_id, timestamp = stamp()
    defaults = {"source": "edged", "group": "meta"}
    return Message(
        id=message_id,
        timestamp=timestamp,
        operation=operation,
        resource=resource,
        content=json.dumps(body).encode(),
        **{**defaults, **fields},
    )
