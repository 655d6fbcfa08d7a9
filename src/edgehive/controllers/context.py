"""What every controller is given, and the few writes they share."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from edgehive.controllers.recorder import EventSink
from edgehive.controllers.runtime import Clock, Informers
from edgehive.controllers.times import format_time
from edgehive.kube.api import MERGE_PATCH, KubeApi, WriteOptions
from edgehive.kube.meta import Meta
from edgehive.kube.reflector import CachedObject
from edgehive.kube.refs import GVR, PODS
from edgehive.kube.status import ApiStatus

T = TypeVar("T")


class Controller(Protocol):
    """One controller: watches through its context's informers, works until cancelled."""

    name: str

    async def run(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The shared surroundings of all controllers of a process."""

    api: KubeApi
    informers: Informers
    events: EventSink
    clock: Clock
    counters: Counter[str]

    async def create(self, gvr: GVR, namespace: str | None, body: Mapping[str, Any]) -> bytes:
        """Create an object and show it in its informer at once."""
        raw = await self.api.create(gvr, msgspec.json.encode(body), WriteOptions(namespace=namespace))
        self._show(gvr, raw)
        return raw

    async def patch(
        self, gvr: GVR, meta: Meta, change: Mapping[str, Any], *, subresource: str = "", locked: bool = False
    ) -> bytes:
        """Merge `change` into an object; `locked` only if it still is the version in `meta`."""
        guard: dict[str, Any] = {"uid": meta.uid}
        if locked:
            guard["resourceVersion"] = meta.resource_version
        body = {**change, "metadata": {**change.get("metadata", {}), **guard}}
        options = WriteOptions(namespace=meta.namespace or None, subresource=subresource)
        raw = await self.api.patch(gvr, meta.name, msgspec.json.encode(body), MERGE_PATCH, options)
        self._show(gvr, raw)
        return raw

    async def delete(self, gvr: GVR, obj: CachedObject, **options: Any) -> bool:
        """Delete exactly this object (by uid); False when it was gone already.

        `options` are further fields of ``DeleteOptions``.
        """
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": obj.meta.uid},
            **options,
        }
        try:
            await self.api.delete(
                gvr,
                obj.meta.name,
                WriteOptions(namespace=obj.meta.namespace or None),
                msgspec.json.encode(body),
            )
        except ApiStatus as exc:
            if exc.code == 404 or (exc.code == 409 and "uid" in exc.message.lower()):
                return False
            raise
        informer = self.informers.find(gvr)
        if informer is not None:
            informer.note_deleting(obj, format_time(self.clock()))
        return True

    async def delete_pod(self, obj: CachedObject, **options: Any) -> bool:
        """Delete a pod (see `delete`)."""
        return await self.delete(PODS, obj, **options)

    def _show(self, gvr: GVR, raw: bytes) -> None:
        informer = self.informers.find(gvr)
        if informer is not None:
            informer.note_written(raw)


async def in_batches(items: Sequence[T], act: Callable[[T], Awaitable[None]]) -> None:
    """Do `act` for every item, side by side in batches of 1, 2, 4, ... 16.

    What is refused for one is mostly refused for all: the first batch with a failure is the last one.

    Raises:
        ApiStatus: the first failure.
    """
    failures: list[ApiStatus] = []

    async def guarded(item: T) -> None:
        try:
            await act(item)
        except ApiStatus as exc:
            failures.append(exc)

    start, size = 0, 1
    while start < len(items) and not failures:
        async with asyncio.TaskGroup() as group:
            for item in items[start : start + size]:
                group.create_task(guarded(item))
        start, size = start + size, min(size * 2, 16)
    if failures:
        raise failures[0]
