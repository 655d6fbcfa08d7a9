"""watch: the changes of a resource after a revision, as one selection sees them.

A watcher holds no queue: it reads the store's window at its own pace, and one that falls behind the window gets
410 like any other late one. Memory does not grow with slow watchers.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass

from edgehive.apiserver.catalog import bucket_of
from edgehive.apiserver.codec import Matcher, decode, encode, matcher, to_served
from edgehive.apiserver.context import Selection
from edgehive.apiserver.reads import ReadStore, parse_version, selectable
from edgehive.kube.resources import ResourceInfo
from edgehive.kube.status import ApiStatus, expired, invalid
from edgehive.store.revisions import Event, Expired, TooNew

Line = tuple[str, bytes]
"""Type (ADDED, MODIFIED, DELETED, BOOKMARK) and object."""

_BOOKMARK_EVERY = 20.0


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """How to watch; `initial` is ``sendInitialEvents``."""

    selection: Selection
    timeout: float = 1800.0
    bookmarks: bool = False
    initial: bool | None = None


class Watcher:
    """Watches any resource."""

    def __init__(self, storage: ReadStore, *, served: Callable[[ResourceInfo], bool]) -> None:
        self._storage = storage
        self._served = served
        self.active = 0

    def check(self, info: ResourceInfo, request: WatchRequest) -> None:
        """Refuse what cannot be watched, before a stream begins.

        Raises:
            ApiStatus: 400, 422.
        """
        selection = request.selection
        selection.fields.require_supported(info.gvr, selectable(info))
        parse_version(selection.resource_version)
        problem = ""
        if request.initial is not None and selection.match != "NotOlderThan":
            problem = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        elif request.initial is None and selection.match:
            problem = (
                "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            )
        elif request.initial and not request.bookmarks:
            problem = "Forbidden: sendInitialEvents requires setting allowWatchBookmarks"
        if problem:
            cause = ("sendInitialEvents", "FieldValueForbidden", problem)
            raise invalid("ListOptions", "", [cause], "meta.k8s.io")

    async def watch(self, info: ResourceInfo, request: WatchRequest) -> AsyncGenerator[Line, None]:
        """Yield lines until the timeout, or until the resource is no longer served.

        Raises:
            ApiStatus: 410 when the version is too old, also in the middle of a watch that fell behind.
        """
        bucket = bucket_of(info)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.timeout
        view = _View(info, request.selection)
        cursor, first = self._begin(bucket, view, request)
        self.active += 1
        try:
            for found in first:
                yield found
            told = cursor
            if request.initial:
                yield view.bookmark(cursor, initial_end=True)
            due = loop.time() + _BOOKMARK_EVERY if request.bookmarks else math.inf
            while True:
                events = self._events(bucket, cursor)
                for event in events:
                    cursor = event.revision
                    line = view.line(event)
                    if line is not None:
                        told = cursor
                        yield line
                if events:
                    continue
                if not self._served(info):
                    return
                cursor = self._storage.revision
                now = loop.time()
                if request.bookmarks and now >= min(due, deadline):
                    due = now + _BOOKMARK_EVERY
                    if cursor > told:
                        told = cursor
                        yield view.bookmark(cursor)
                        continue
                if now >= deadline:
                    return
                await self._wait(bucket, min(deadline, due))
        finally:
            self.active -= 1

    async def _wait(self, bucket: str, until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                await self._storage.changed(bucket)
        except TimeoutError:
            return

    def _begin(self, bucket: str, view: "_View", request: WatchRequest) -> tuple[int, list[Line]]:
        version = parse_version(request.selection.resource_version)
        initial = version == 0 if request.initial is None else request.initial
        if initial:
            scan = self._storage.scan(bucket, view.prefix)
            return self._storage.revision, [
                ("ADDED", to_served(r.value, view.info)) for _, r in scan if view.wants(r.value)
            ]
        cursor = version or self._storage.revision
        with _told(self._storage, cursor):
            self._storage.check(bucket, cursor)
        return cursor, []

    def _events(self, bucket: str, cursor: int) -> Sequence[Event]:
        with _told(self._storage, cursor):
            return self._storage.since(bucket, cursor)


@contextlib.contextmanager
def _told(storage: ReadStore, cursor: int) -> Iterator[None]:
    """Say to the client which of its versions cannot be gone on from."""
    try:
        yield
    except Expired as exc:
        raise expired(f"too old resource version: {cursor} ({storage.revision})") from exc
    except TooNew as exc:
        # A version we never gave out: the client knew another store. Listing again is what helps it.
        raise expired(f"unknown resource version: {cursor} (current {storage.revision})") from exc


class _View:
    """One selection's sight of a resource: which events it sees, and as what."""

    def __init__(self, info: ResourceInfo, selection: Selection) -> None:
        self.info = info
        self.prefix = f"{selection.namespace}/" if info.namespaced and selection.namespace else ""
        self._test: Matcher | None = matcher(info, selection.labels, selection.fields)
        name = selection.fields.exact("metadata.name")
        self._suffix = None if name is None else (f"/{name}" if info.namespaced else name)

    def wants(self, raw: bytes) -> bool:
        return self._test is None or self._test(raw)

    def line(self, event: Event) -> Line | None:
        if not event.key.startswith(self.prefix):
            return None
        if self._suffix is not None and not event.key.endswith(self._suffix):
            return None
        before = event.before is not None and self.wants(event.before.value)
        after = event.after is not None and self.wants(event.after.value)
        if after:
            return ("MODIFIED" if before else "ADDED", to_served(event.value, self.info))
        if not before or event.before is None:
            return None
        if event.after is None:
            return ("DELETED", to_served(event.value, self.info))
        # It left the selection: it is shown as it was last selected, at the revision where it left.
        obj = decode(event.before.value)
        obj["metadata"]["resourceVersion"] = str(event.revision)
        return ("DELETED", to_served(encode(obj), self.info))

    def bookmark(self, revision: int, *, initial_end: bool = False) -> Line:
        meta: dict[str, object] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        return (
            "BOOKMARK",
            encode({"kind": self.info.kind, "apiVersion": self.info.api_version, "metadata": meta}),
        )


def format_line(line: Line) -> bytes:
    """One line of a watch stream."""
    return b'{"type":"%b","object":%b}\n' % (line[0].encode(), line[1])


def error_line(error: ApiStatus) -> bytes:
    """The last line of a watch that broke."""
    return format_line(("ERROR", encode(error.to_dict())))
