"""The order in which pods are tried: by priority, then age; those that did not fit wait for a change. Pure."""

from dataclasses import dataclass

from edgehive.kube.reflector import Key

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 10.0
_LONGEST_PARK = 300.0  # a parked pod is tried again by then even if no change was noticed


@dataclass(slots=True)
class _Entry:
    key: Key
    priority: int
    created: str
    attempts: int = 0
    not_before: float = 0.0
    parked_at: float | None = None
    relates: bool = False
    claims: bool = False


class PodQueue:
    """Pods waiting for a node."""

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, key: Key, priority: int, created: str, now: float) -> None:
        """Queue a pod, or note that it changed: a parked one is tried again."""
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(key, priority, created)
        else:
            entry.priority = priority
            self._unpark(entry, now)

    def remove(self, key: Key) -> None:
        """Forget a pod."""
        self._entries.pop(key, None)

    def take(self, now: float, limit: int) -> list[Key]:
        """Return the pods to try now, best first; they stay until `remove`d or `park`ed."""
        ready = [e for e in self._entries.values() if self._ready_at(e) <= now]
        ready.sort(key=lambda e: (-e.priority, e.created, e.key))
        return [e.key for e in ready[:limit]]

    def park(self, key: Key, now: float, *, relates: bool, claims: bool = False) -> None:
        """Note that no node fits; `relates` when pods elsewhere matter (affinity, spreading), `claims` when volumes do."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.attempts += 1
            entry.parked_at = now
            entry.relates = relates
            entry.claims = claims

    def retry(self, key: Key, now: float) -> None:
        """Note a failure that says nothing about the nodes (the API refused): try again with back-off."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.attempts += 1
            entry.not_before = now + self._delay(entry)

    def wake(self, now: float, *, relating_only: bool = False) -> None:
        """Note that the cluster changed: parked pods are tried again, each after its back-off."""
        for entry in self._entries.values():
            if entry.parked_at is not None and (entry.relates or not relating_only):
                self._unpark(entry, now)

    def wake_claiming(self, now: float) -> None:
        """Note that claims or volumes changed: parked pods with claims are tried again, each after its back-off."""
        for entry in self._entries.values():
            if entry.parked_at is not None and entry.claims:
                self._unpark(entry, now)

    def deadline(self) -> float | None:
        """Return when `take` will have something; None when nothing waits."""
        return min((self._ready_at(e) for e in self._entries.values()), default=None)

    def _unpark(self, entry: _Entry, now: float) -> None:
        if entry.parked_at is not None:
            entry.not_before = max(now, entry.parked_at + self._delay(entry))
            entry.parked_at = None

    def _delay(self, entry: _Entry) -> float:
        return float(min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(entry.attempts - 1, 10)))

    def _ready_at(self, entry: _Entry) -> float:
        return entry.not_before if entry.parked_at is None else entry.parked_at + _LONGEST_PARK
