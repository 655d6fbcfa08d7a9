"""What every controller runs on: shared informers, a work queue with workers, counters."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from edgehive.aio.informer import Informer
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.text import safe_label
from edgehive.kube.api import KubeApi
from edgehive.kube.reflector import CachedObject
from edgehive.kube.refs import GVR
from edgehive.kube.status import ApiStatus
from edgehive.kube.workqueue import WorkQueue

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
Clock = Callable[[], float]
"""Seconds since the epoch."""


class Informers:
    """The process's informers, one per kind, started when first asked for."""

    def __init__(self, *, api: KubeApi) -> None:
        self._api = api
        self._informers: dict[GVR, Informer] = {}
        self._tasks: dict[Informer, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def full(self, gvr: GVR) -> Informer:
        """Return the informer that keeps whole objects of `gvr`.

        Whoever needs whole objects asks before the first `metadata` for the same kind.
        """
        found = self._informers.get(gvr)
        return self._add(gvr, Informer(api=self._api, gvr=gvr)) if found is None else found

    def metadata(self, gvr: GVR) -> Informer:
        """Return an informer of `gvr` that may keep nothing but metadata."""
        found = self._informers.get(gvr)
        return self._add(gvr, Informer(api=self._api, gvr=gvr, keep=drop_body)) if found is None else found

    def find(self, gvr: GVR) -> Informer | None:
        """Return the informer of `gvr` if there is one."""
        return self._informers.get(gvr)

    def remove(self, gvr: GVR) -> None:
        """Stop mirroring a kind that is no longer served."""
        self._informers.pop(gvr, None)
        self._changed.set()

    async def synced(self) -> None:
        """Wait until every informer known now has its first list."""
        for informer in list(self._informers.values()):
            await informer.synced()

    async def run(self) -> None:
        """Run the informers until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                wanted = {informer: gvr for gvr, informer in self._informers.items()}
                for informer in [i for i in self._tasks if i not in wanted]:
                    self._tasks.pop(informer).cancel()
                for informer, gvr in wanted.items():
                    if informer not in self._tasks:
                        self._tasks[informer] = group.create_task(informer.run(), name=f"informer {gvr}")
                await self._changed.wait()

    def _add(self, gvr: GVR, informer: Informer) -> Informer:
        self._informers[gvr] = informer
        self._changed.set()
        return informer


def drop_body(raw: bytes) -> bytes:
    """Keep no bytes: for kinds of which only the metadata is looked at."""
    return b""


def by_namespace(obj: CachedObject) -> tuple[str, ...]:
    """Index function: the namespace."""
    return (obj.meta.namespace,)


def by_controller(obj: CachedObject) -> tuple[str, ...]:
    """Index function: the uid of the controlling owner."""
    return tuple(o.uid for o in obj.meta.owner_references or () if o.controller)


class Workers(Generic[K]):
    """Calls `reconcile(key)` for queued keys: one call per key at a time, failures retried with back-off.

    `reconcile` may return the number of seconds after which it wants to see the key again.
    """

    def __init__(
        self,
        *,
        name: str,
        reconcile: Callable[[K], Awaitable[float | None]],
        counters: Counter[str],
        count: int = 4,
        maximum: float = 60.0,
    ) -> None:
        self._name = name
        self._reconcile = reconcile
        self._counters = counters
        self._count = count
        self._queue: WorkQueue[K] = WorkQueue(maximum=maximum)
        self._wake = asyncio.Event()

    def add(self, key: K) -> None:
        """Queue `key`."""
        self._queue.add(key)
        self._wake.set()

    def add_after(self, key: K, delay: float) -> None:
        """Queue `key` in `delay` seconds."""
        self._queue.add_at(key, asyncio.get_running_loop().time() + delay)
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._work(), name=f"{self._name} {number}")

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            key = self._queue.take(loop.time())
            if key is None:
                await self._rest(self._queue.deadline())
                continue
            if len(self._queue):
                self._wake.set()
            try:
                await self._handle(key)
            finally:
                self._queue.done(key)
                self._wake.set()

    async def _rest(self, deadline: float | None) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout_at(deadline):
                await self._wake.wait()
        except TimeoutError:
            pass  # the time of a delayed key has come

    async def _handle(self, key: K) -> None:
        loop = asyncio.get_running_loop()
        self._counters[f"{self._name}_reconciles"] += 1
        try:
            again = await self._reconcile(key)
        except EdgehiveError as exc:
            delay = self._queue.failed(key, loop.time())
            conflict = isinstance(exc, ApiStatus) and exc.code in (404, 409)
            level = logging.DEBUG if conflict else logging.WARNING
            log.log(level, "%s %s: %s; again in %.1f s", self._name, safe_label(key), exc, delay)
            self._counters[f"{self._name}_retries"] += 1
        except Exception:  # one object that breaks us must not stop all others
            delay = self._queue.failed(key, loop.time())
            log.exception("%s %s failed; again in %.1f s", self._name, safe_label(key), delay)
            self._counters[f"{self._name}_errors"] += 1
        else:
            self._queue.succeeded(key)
            if again is not None:
                self._queue.add_at(key, loop.time() + again)
