"""List, then watch, then list again when history was lost: the state machine behind an informer.

Invariants, for any order of pages, events, ends and failures:

- what is shown is what some consistent state of the server was, plus our own writes noted since;
- no object is ever shown in a version older than one shown before;
- whatever vanished while nobody looked is shown as DELETED once, with the last state known.

The machine is told what happened (`receive_*`, `note_*`), answers with the `Change`s to hand out, and says what
to do next (`action`). It has no clock and does no IO.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import EdgehiveError, ProtocolError
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.api import ListOptions, ListPage, WatchEvent
from edgehive.kube.meta import Meta, decode_partial
from edgehive.kube.status import ApiStatus

Key = tuple[str, str]
"""(namespace, name); the namespace of a cluster-scoped object is empty."""

Keep = Callable[[bytes], bytes]
"""What of an object's bytes is worth keeping; ``lambda raw: b""`` keeps its metadata only."""

IndexFunction = Callable[["CachedObject"], Iterable[str]]

_SHORT_WATCH = 1.0  # a watch that ends sooner, without an event, is treated as a failure
_CALM_AFTER = 120.0  # seconds of undisturbed watching after which back-off starts from the beginning
_PAGED_ATTEMPTS = 2  # after that many expired continue tokens the list is asked for in one piece
_RESET_AFTER = 5  # that many consistent lists in a row from before what was shown mean a new history


@dataclass(frozen=True, slots=True)
class CachedObject:
    """An object as it is kept: its bytes (after `Keep`) and the metadata we route by."""

    raw: bytes
    meta: Meta

    @property
    def key(self) -> Key:
        """(namespace, name)."""
        return (self.meta.namespace, self.meta.name)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one object; `old` is None for ADDED, `new` is None for DELETED."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    old: CachedObject | None
    new: CachedObject | None

    @property
    def object(self) -> CachedObject:
        """The newest state known."""
        found = self.new or self.old
        assert found is not None
        return found


@dataclass(frozen=True, slots=True)
class ListNext:
    """Fetch this page and give it to `Reflector.receive_page`."""

    options: ListOptions


@dataclass(frozen=True, slots=True)
class WatchFrom:
    """Watch, giving every event to `Reflector.receive_event`, then call `Reflector.receive_end`."""

    options: ListOptions
    timeout: float


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Do nothing before `when`."""

    when: float


Action = ListNext | WatchFrom | WaitUntil


def decode_cached(raw: bytes, keep: Keep | None = None) -> CachedObject:
    """Make the cached form of `raw`.

    Raises:
        ProtocolError: `raw` is not an object with readable metadata.
    """
    try:
        meta = decode_partial(raw).metadata
    except MALFORMED as exc:
        raise ProtocolError(f"unreadable object: {exc}") from exc
    if not meta.name:
        raise ProtocolError("an object without a name")
    return CachedObject(keep(raw) if keep else raw, meta)


class ObjectCache:
    """Objects by key, and by the values of named index functions."""

    def __init__(self, indexes: Mapping[str, IndexFunction] | None = None) -> None:
        self._objects: dict[Key, CachedObject] = {}
        self._functions = dict(indexes or {})
        self._indexes: dict[str, dict[str, dict[Key, CachedObject]]] = {name: {} for name in self._functions}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[CachedObject]:
        return iter(self._objects.values())

    def get(self, key: Key) -> CachedObject | None:
        """Return one object."""
        return self._objects.get(key)

    def keys(self) -> list[Key]:
        """Return every key."""
        return list(self._objects)

    def add_index(self, name: str, function: IndexFunction) -> None:
        """Add an index (a no-op when `name` exists)."""
        if name not in self._functions:
            self._functions[name] = function
            self._indexes[name] = {}
            for obj in self._objects.values():
                for value in function(obj):
                    self._indexes[name].setdefault(value, {})[obj.key] = obj

    def by_index(self, name: str, value: str) -> list[CachedObject]:
        """Return the objects whose index function `name` gave `value`."""
        return list(self._indexes[name].get(value, {}).values())

    def put(self, obj: CachedObject) -> CachedObject | None:
        """Store `obj`; return what it replaces."""
        old = self._objects.get(obj.key)
        if old is not None:
            self._unindex(old)
        self._objects[obj.key] = obj
        for name, function in self._functions.items():
            for value in function(obj):
                self._indexes[name].setdefault(value, {})[obj.key] = obj
        return old

    def pop(self, key: Key) -> CachedObject | None:
        """Remove and return."""
        old = self._objects.pop(key, None)
        if old is not None:
            self._unindex(old)
        return old

    def _unindex(self, obj: CachedObject) -> None:
        for name, function in self._functions.items():
            index = self._indexes[name]
            for value in function(obj):
                bucket = index.get(value)
                if bucket is not None:
                    bucket.pop(obj.key, None)
                    if not bucket:
                        del index[value]


class Reflector:
    """Mirrors one selection of objects (see the module's text)."""

    def __init__(
        self,
        *,
        options: ListOptions,
        rng: Callable[[], float],
        keep: Keep | None = None,
        indexes: Mapping[str, IndexFunction] | None = None,
        page_size: int = 500,
        watch_timeout: float = 300.0,
    ) -> None:
        self.cache = ObjectCache(indexes)
        self.synced = False
        self.lists = 0
        self._options = options
        self._keep = keep
        self._page_size = page_size
        self._watch_timeout = watch_timeout
        self._rng = rng
        self._backoff = Backoff(0.8, 30.0, jitter=0.25, rng=rng)
        self._version = ""  # where to watch from; empty means list
        self._shown = 0  # the highest version the watch or a list has brought
        self._staged: dict[Key, CachedObject] = {}
        self._continue = ""
        self._expired_pages = 0
        self._stale_lists = 0
        self._wait_until = 0.0
        self._watch_began: float | None = None
        self._watch_progressed = False
        self._deleting: dict[str, str] = {}  # uid -> time, of objects we deleted and have not seen go

    @property
    def resource_version(self) -> str:
        """The version the cache stands at; empty before the first list."""
        return self._version

    def action(self, now: float) -> Action:
        """Say what to do now."""
        if now < self._wait_until:
            return WaitUntil(self._wait_until)
        base = self._options
        selection = (base.namespace, base.label_selector, base.field_selector)
        if self._version:
            self._watch_began = now
            self._watch_progressed = False
            timeout = self._watch_timeout * (1 + self._rng())
            return WatchFrom(ListOptions(*selection, resource_version=self._version), timeout)
        limit = self._page_size if self._expired_pages < _PAGED_ATTEMPTS else 0
        return ListNext(ListOptions(*selection, limit=limit, continue_token=self._continue))

    def receive_page(self, page: ListPage, now: float) -> list[Change]:
        """Take one page; the last one makes the changes.

        Raises:
            ProtocolError: an unreadable object or a list without a version.
        """
        for raw in page.items:
            obj = decode_cached(raw, self._keep)
            known = self.cache.get(obj.key)
            same = known is not None and known.meta.uid == obj.meta.uid and known.meta.rv == obj.meta.rv > 0
            self._staged[obj.key] = known if same and known is not None else obj
        self._continue = page.continue_token
        if self._continue:
            return []
        if not page.resource_version:
            raise ProtocolError("a list without a resourceVersion")
        staged, self._staged = self._staged, {}
        self._expired_pages = 0
        number = _number(page.resource_version)
        if 0 < number < self._shown:
            self._stale_lists += 1
            if self._stale_lists < _RESET_AFTER:
                self._wait_until = now + self._backoff.next()
                return []
            self._shown = 0  # the server's history began anew (restored or replaced database)
            changes = self._replace(staged, keep_newer_than=0)
        else:
            changes = self._replace(staged, keep_newer_than=number)
        self._stale_lists = 0
        self._version = page.resource_version
        self._shown = max(self._shown, number)
        self.synced = True
        self.lists += 1
        return changes

    def receive_event(self, event: WatchEvent, now: float) -> Change | None:
        """Take one line of the watch.

        Raises:
            ProtocolError: an unreadable object.
        """
        if event.type == "BOOKMARK":
            self._bookmark(event.object)
            return None
        obj = decode_cached(event.object, self._keep)
        number = obj.meta.rv
        known = self.cache.get(obj.key)
        self._watch_progressed = True
        if self._watch_began is not None and now - self._watch_began > _CALM_AFTER:
            self._backoff.reset()
        behind = 0 < number < self._shown
        if not behind and obj.meta.resource_version:
            self._version, self._shown = obj.meta.resource_version, max(self._shown, number)
        if event.type == "DELETED":
            self._deleting.pop(obj.meta.uid, None)
            if known is None or (0 < number < known.meta.rv):
                return None
            self.cache.pop(obj.key)
            return Change("DELETED", obj, None)
        if behind or (known is not None and 0 < number <= known.meta.rv):
            return None
        return self._put(obj)

    def receive_end(self, now: float) -> None:
        """Note that the watch ended in good order."""
        began, self._watch_began = self._watch_began, None
        if began is None:
            return
        if now - began < _SHORT_WATCH and not self._watch_progressed:
            self._wait_until = now + self._backoff.next()
        elif now - began > _CALM_AFTER or self._watch_progressed:
            self._backoff.reset()

    def receive_failure(self, error: EdgehiveError, now: float) -> None:
        """Note that the last action failed; decides between resuming, listing again and waiting."""
        began, self._watch_began = self._watch_began, None
        expired = isinstance(error, ApiStatus) and error.code == 410
        if began is not None:
            if now - began > _CALM_AFTER:
                self._backoff.reset()
            if expired or isinstance(error, ProtocolError):
                self._version = ""
        else:
            if expired and self._continue:
                self._expired_pages += 1
            self._staged, self._continue = {}, ""
        delay = 0.0 if expired and began is not None and self._watch_progressed else self._backoff.next()
        if isinstance(error, ApiStatus):
            delay = max(delay, retry_after(error))
        self._wait_until = now + delay

    def note_written(self, raw: bytes) -> Change | None:
        """Take the answer to a write of ours, so that we read our own writes at once.

        Ignored when the watch has already been past that version, or versions are not numbers.
        """
        obj = decode_cached(raw, self._keep)
        known = self.cache.get(obj.key)
        if (
            not self.synced
            or obj.meta.rv <= self._shown
            or (known is not None and obj.meta.rv <= known.meta.rv)
        ):
            return None
        return self._put(obj)

    def note_deleting(self, key: Key, uid: str, when: str) -> Change | None:
        """Take that we deleted this object: show it as being deleted until the watch says it is gone."""
        known = self.cache.get(key)
        if known is None or known.meta.uid != uid or known.meta.deletion_timestamp:
            return None
        self._deleting[uid] = when
        return self._put(known)

    def _put(self, obj: CachedObject) -> Change:
        when = self._deleting.get(obj.meta.uid)
        if when is not None and obj.meta.deletion_timestamp is None:
            obj = CachedObject(obj.raw, msgspec.structs.replace(obj.meta, deletion_timestamp=when))
        old = self.cache.put(obj)
        return Change("ADDED" if old is None else "MODIFIED", old, obj)

    def _replace(self, staged: dict[Key, CachedObject], keep_newer_than: int) -> list[Change]:
        changes: list[Change] = []
        for key in self.cache.keys():  # noqa: SIM118  (a copy: the cache changes while we go)
            known = self.cache.get(key)
            assert known is not None
            if keep_newer_than and known.meta.rv > keep_newer_than:
                staged.pop(key, None)  # a write of ours that the list is too old to know
                continue
            found = staged.get(key)
            if found is None or found.meta.uid != known.meta.uid:
                self.cache.pop(key)
                self._deleting.pop(known.meta.uid, None)
                changes.append(Change("DELETED", known, None))
        for obj in staged.values():
            known = self.cache.get(obj.key)
            if known is None or _differs(known.meta, obj.meta, ordered=keep_newer_than > 0):
                changes.append(self._put(obj))
        return changes

    def _bookmark(self, raw: bytes) -> None:
        try:
            meta = decode_partial(raw).metadata
        except MALFORMED as exc:
            raise ProtocolError(f"unreadable bookmark: {exc}") from exc
        number = meta.rv
        if meta.resource_version and (number == 0 or number >= self._shown):
            self._version, self._shown = meta.resource_version, max(self._shown, number)
            self._watch_progressed = True


def retry_after(error: ApiStatus) -> float:
    """Return the delay the server asked for in ``details.retryAfterSeconds``, at most a minute."""
    value = error.details.get("retryAfterSeconds")
    return min(float(value), 60.0) if isinstance(value, int | float) and value > 0 else 0.0


def _differs(known: Meta, found: Meta, *, ordered: bool) -> bool:
    if ordered and 0 < found.rv < known.rv:
        return False  # a server that lists an object older than it showed it: wait for the watch
    return known.resource_version != found.resource_version


def _number(version: str) -> int:
    return int(version) if version.isascii() and version.isdigit() else 0
