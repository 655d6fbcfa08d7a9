"""What MetaManager must know of the objects in its rows; pure."""

from typing import Any

import msgspec

from edgehive.edge.store import metadata_of
from edgehive.wire.message import MALFORMED
from edgehive.wire.rows import Row


def last_object(content: bytes, stored: Row | None) -> bytes:
    """The pod a delete is about: its stored row, or the message's content when the row is another pod's."""
    if stored is None:
        return content
    uid = metadata_of(content).uid
    return stored.value if uid in ("", metadata_of(stored.value).uid) else content


def is_error(value: bytes) -> bool:
    """Whether a row is an error that an original edgecore stored as an object."""
    return value.lstrip()[:13].startswith(b'{"ErrStatus"')


class _Claim(msgspec.Struct, rename="camel"):
    volume_name: str | None = None


class _ClaimObject(msgspec.Struct):
    spec: _Claim = msgspec.field(default_factory=_Claim)


def is_bound(raw: bytes) -> bool:
    """Whether a claim has its volume."""
    try:
        return bool(msgspec.json.decode(raw, type=_ClaimObject).spec.volume_name)
    except MALFORMED:
        return False


def desired(raw: bytes) -> Any:
    """A pod without what only reports: status and bookkeeping."""
    pod = msgspec.json.decode(raw)
    if not isinstance(pod, dict):
        return None
    metadata = pod.get("metadata")
    kept = (
        {k: v for k, v in metadata.items() if k not in ("resourceVersion", "managedFields")}
        if metadata
        else {}
    )
    return kept, pod.get("spec")
