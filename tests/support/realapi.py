"""The embedded API server's registry over a log in memory, with a record of what is asked of it."""

import asyncio
import json
import random
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from edgehive.aio.storage import Storage
from edgehive.apiserver.admission import Admission
from edgehive.apiserver.bootstrap import bootstrap
from edgehive.apiserver.catalog import Catalog
from edgehive.apiserver.context import Clock
from edgehive.apiserver.local import LocalApi
from edgehive.apiserver.registry import Registry
from edgehive.apiserver.signer import LocalSigner
from edgehive.apiserver.subresources import Subresources
from edgehive.apiserver.tokens import Tokens
from edgehive.kube.api import ANYWHERE, CLUSTER, MERGE_PATCH, ListOptions, ListPage, WatchEvent, WriteOptions
from edgehive.kube.builtin import BUILTIN
from edgehive.kube.refs import GVR
from edgehive.kube.status import ApiStatus
from edgehive.store.log import MemoryLog


class RealApi:
    """Speaks `kube.api.KubeApi`; `asked` are the requests, `fail` may answer one with an error instead."""

    def __init__(self) -> None:
        self.storage = Storage(MemoryLog())
        clock = Clock(new_id=lambda: str(uuid.uuid4()))
        rng = random.Random(1)
        draw = lambda n: "".join(rng.choice("bcdfghjk") for _ in range(n))  # noqa: E731
        self.registry = Registry(
            storage=self.storage,
            catalog=Catalog(BUILTIN),
            admission=Admission(storage=self.storage, clock=clock, token=draw),
            clock=clock,
            token=draw,
            root_ca="CA",
        )
        tokens = Tokens(LocalSigner(_key), clock.new_id)
        self.local = LocalApi(
            self.registry, Subresources(registry=self.registry, tokens=tokens), manager="test"
        )
        self.asked: list[tuple[str, GVR, str, WriteOptions]] = []
        self.fail: Callable[[str, GVR, str], Exception | None] = lambda verb, gvr, name: None
        self._changed = asyncio.Event()

    async def open(self) -> None:
        await self.storage.open()
        await bootstrap(self.registry, address="127.0.0.1", port=6443, service_address="10.96.0.1")

    async def close(self) -> None:
        await self.storage.close()

    # -- for tests, as some administrator would

    async def put(self, gvr: GVR, obj: dict[str, Any]) -> dict[str, Any]:
        """Create, or replace the specification of an object."""
        meta = obj["metadata"]
        where = WriteOptions(namespace=meta.get("namespace"))
        try:
            raw = await self.local.create(gvr, json.dumps(_typed(gvr, obj)).encode(), where)
        except ApiStatus as exc:
            if exc.reason != "AlreadyExists":
                raise
            body = json.dumps({"spec": obj.get("spec")}).encode()
            raw = await self.local.patch(gvr, meta["name"], body, MERGE_PATCH, where)
        self._news()
        return json.loads(raw)

    async def change(self, gvr: GVR, name: str, **fields: Any) -> dict[str, Any]:
        """Merge into an object of the default namespace."""
        where = WriteOptions(namespace="default")
        raw = await self.local.patch(gvr, name, json.dumps(fields).encode(), MERGE_PATCH, where)
        self._news()
        return json.loads(raw)

    async def drop(self, gvr: GVR, namespace: str, name: str) -> None:
        await self.local.delete(gvr, name, WriteOptions(namespace=namespace or None))
        self._news()

    def find(self, gvr: GVR, namespace: str, name: str) -> dict[str, Any] | None:
        record = self.storage.get(str(gvr), f"{namespace}/{name}" if namespace else name)
        if record is None:
            return None
        found = json.loads(record.value)
        found["metadata"]["resourceVersion"] = str(record.revision)
        return found

    def count(self, verb: str, gvr: GVR) -> int:
        return sum(1 for v, g, _, _ in self.asked if v == verb and g == gvr)

    async def until(self, condition: Callable[[], bool], timeout: float = 5.0) -> None:
        """Wait until something is true of the objects."""
        async with asyncio.timeout(timeout):
            while not condition():
                await self._changed.wait()

    def _news(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # -- KubeApi

    def _ask(self, verb: str, gvr: GVR, name: str, options: WriteOptions = CLUSTER) -> None:
        self.asked.append((verb, gvr, name, options))
        problem = self.fail(verb, gvr, name)
        if problem is not None:
            raise problem

    async def get(self, gvr: GVR, name: str, options: WriteOptions = CLUSTER) -> bytes:
        self._ask("get", gvr, name, options)
        return await self.local.get(gvr, name, options)

    async def list(self, gvr: GVR, options: ListOptions = ANYWHERE) -> ListPage:
        self._ask("list", gvr, "")
        return await self.local.list(gvr, options)

    async def watch(
        self, gvr: GVR, options: ListOptions, timeout: float = 300.0
    ) -> AsyncIterator[WatchEvent]:
        self._ask("watch", gvr, "")
        stream = self.local.watch(gvr, options, timeout)
        try:
            async for event in stream:
                yield event
                self._news()
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    async def create(self, gvr: GVR, body: bytes, options: WriteOptions = CLUSTER, name: str = "") -> bytes:
        obj = json.loads(body)
        if gvr.resource == "selfsubjectaccessreviews":  # who asks here is an administrator
            return json.dumps(obj | {"status": {"allowed": True}}).encode()
        self._ask("create", gvr, name or obj["metadata"].get("name", ""), options)
        raw = await self.local.create(gvr, body, options, name)
        self._news()
        return raw

    async def update(self, gvr: GVR, name: str, body: bytes, options: WriteOptions = CLUSTER) -> bytes:
        self._ask("update", gvr, name, options)
        raw = await self.local.update(gvr, name, body, options)
        self._news()
        return raw

    async def patch(
        self, gvr: GVR, name: str, body: bytes, content_type: str, options: WriteOptions = CLUSTER
    ) -> bytes:
        self._ask("patch", gvr, name, options)
        raw = await self.local.patch(gvr, name, body, content_type, options)
        self._news()
        return raw

    async def delete(
        self, gvr: GVR, name: str, options: WriteOptions = CLUSTER, body: bytes | None = None
    ) -> bytes:
        self._ask("delete", gvr, name, options)
        raw = await self.local.delete(gvr, name, options, body)
        self._news()
        return raw


def _typed(gvr: GVR, obj: dict[str, Any]) -> dict[str, Any]:
    kinds = {
        "devices": "Device",
        "devicemodels": "DeviceModel",
        "devicestatuses": "DeviceStatus",
        "nodes": "Node",
    }
    return {"apiVersion": gvr.api_version, "kind": kinds[gvr.resource], **obj}


def _key() -> Any:
    from edgehive.aio.pki import new_key

    return new_key()
