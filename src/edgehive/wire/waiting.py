"""Messages of one node that wait until the record of their object exists."""

from collections.abc import Iterable
from typing import Final

from edgehive.wire.objectsync import SyncKey, SyncRecord, valid_key
from edgehive.wire.outbound import Outbound

ANSWERS: Final = 16
"""Query answers that wait for one record; more than that is a peer asking in a loop."""


def record_for(node: str, message: Outbound) -> SyncRecord | None:
    """The record `message` is accounted under; ``None`` if it cannot have one."""
    resource = message.resource
    if resource is None or not message.uid:
        return None
    key = SyncKey(node, resource.namespace, message.uid)
    if not valid_key(key):
        return None
    return SyncRecord(key, message.api_version, message.kind, resource.name)


class Waiting:
    """By record: answers in order, and the newest version."""

    __slots__ = ("_messages",)

    def __init__(self) -> None:
        self._messages: dict[SyncKey, list[Outbound]] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def __contains__(self, key: SyncKey) -> bool:
        return key in self._messages

    def add(self, key: SyncKey, message: Outbound) -> bool:
        """Let `message` wait; False: the same or a newer version waits already."""
        waiting = self._messages.setdefault(key, [])
        if message.is_response:
            if sum(m.is_response for m in waiting) < ANSWERS:
                waiting.append(message)
            return True
        newest = max((m.version for m in waiting if not m.is_response), default=0)
        if message.version <= newest:
            return False
        waiting[:] = [m for m in waiting if m.is_response]
        waiting.append(message)
        return True

    def take(self, key: SyncKey) -> Iterable[Outbound]:
        """What waited for the record, oldest version first; it waits no longer."""
        return sorted(self._messages.pop(key, ()), key=lambda m: m.version)

    def drop(self, key: SyncKey) -> bool:
        """Forget what waits for the record; tell whether anything did."""
        return self._messages.pop(key, None) is not None

    def clear(self) -> None:
        """Forget everything."""
        self._messages.clear()
