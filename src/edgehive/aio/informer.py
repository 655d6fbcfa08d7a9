"""Informers: a live mirror of one kind of object, over any Kubernetes API.

`kube.reflector` decides, this runs it. One informer per kind is shared by everyone in a process who looks at
that kind. Handlers are plain functions, called in the order of the changes, in the loop's thread.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Mapping

from edgehive.kit.errors import EdgehiveError
from edgehive.kit.text import safe_label
from edgehive.kube.api import ANYWHERE, KubeApi, ListOptions
from edgehive.kube.reflector import (
    CachedObject,
    Change,
    IndexFunction,
    Keep,
    ListNext,
    Reflector,
    WaitUntil,
    WatchFrom,
)
from edgehive.kube.refs import GVR

log = logging.getLogger(__name__)

Handler = Callable[[Change], None]


class Informer:
    """Keeps the objects of `gvr` selected by `options`; `run` it as a service."""

    def __init__(
        self,
        *,
        api: KubeApi,
        gvr: GVR,
        options: ListOptions = ANYWHERE,
        keep: Keep | None = None,
        indexes: Mapping[str, IndexFunction] | None = None,
        page_size: int = 500,
        watch_timeout: float = 300.0,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.gvr = gvr
        self._api = api
        self._core = Reflector(
            options=options,
            rng=rng,
            keep=keep,
            indexes=indexes,
            page_size=page_size,
            watch_timeout=watch_timeout,
        )
        self._handlers: list[Handler] = []
        self._synced = asyncio.Event()
        self._failing = False

    def __len__(self) -> int:
        return len(self._core.cache)

    def __bool__(self) -> bool:
        return True  # an informer without objects is an informer all the same

    @property
    def has_synced(self) -> bool:
        """Whether the first list is complete."""
        return self._core.synced

    async def synced(self) -> None:
        """Wait until the first list is complete and its changes have been handed out."""
        await self._synced.wait()

    def get(self, namespace: str, name: str) -> CachedObject | None:
        """Return one object; `namespace` is empty for cluster-scoped kinds."""
        return self._core.cache.get((namespace, name))

    def items(self) -> list[CachedObject]:
        """Return all objects."""
        return list(self._core.cache)

    def by_index(self, index: str, value: str) -> list[CachedObject]:
        """Return the objects for which the index function gave `value`."""
        return self._core.cache.by_index(index, value)

    def add_index(self, name: str, function: IndexFunction) -> None:
        """Add an index; existing objects are indexed at once."""
        self._core.cache.add_index(name, function)

    def subscribe(self, handler: Handler, *, replay: bool = True) -> Callable[[], None]:
        """Call `handler` with every change from now on, first with what exists; returns how to stop that."""
        if replay:
            for obj in self._core.cache:
                handler(Change("ADDED", None, obj))
        self._handlers.append(handler)
        return lambda: self._handlers.remove(handler)

    def note_written(self, raw: bytes) -> None:
        """Show the answer to a write of ours without waiting for the watch."""
        self._emit(self._core.note_written(raw))

    def note_deleting(self, obj: CachedObject, when: str) -> None:
        """Show `obj` as being deleted (by us, at the RFC 3339 time `when`) without waiting for the watch."""
        self._emit(self._core.note_deleting(obj.key, obj.meta.uid, when))

    async def run(self) -> None:
        """Mirror until cancelled; failures of the API are waited out."""
        loop = asyncio.get_running_loop()
        while True:
            action = self._core.action(loop.time())
            try:
                match action:
                    case WaitUntil(when):
                        await asyncio.sleep(when - loop.time())
                    case ListNext(options):
                        page = await self._api.list(self.gvr, options)
                        for change in self._core.receive_page(page, loop.time()):
                            self._emit(change)
                        self._after_list()
                    case WatchFrom(options, timeout):
                        await self._watch(options, timeout)
                        self._core.receive_end(loop.time())
            except EdgehiveError as exc:
                self._core.receive_failure(exc, loop.time())
                level = logging.DEBUG if self._failing else logging.WARNING
                log.log(level, "%s: %s; will try again", self.gvr, exc)
                self._failing = True

    async def _watch(self, options: ListOptions, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        stream = self._api.watch(self.gvr, options, timeout)
        try:
            async for event in stream:
                self._failing = False
                self._emit(self._core.receive_event(event, loop.time()))
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()  # ends the connection now, not when the collector comes by

    def _after_list(self) -> None:
        if self._core.synced:
            if self._failing:
                log.info("%s: watching again (%d objects)", self.gvr, len(self))
            self._failing = False
            self._synced.set()

    def _emit(self, change: Change | None) -> None:
        if change is None:
            return
        for handler in tuple(self._handlers):
            try:
                handler(change)
            except Exception:  # an object that breaks one handler must not stop the mirror for all
                log.exception("%s %s: a handler failed", self.gvr, safe_label(change.object.key))
