import contextlib
import datetime
import itertools
import json
import random
from collections.abc import AsyncIterator

import pytest

from edgehive.aio.storage import Storage
from edgehive.apiserver.admission import Admission
from edgehive.apiserver.bootstrap import bootstrap
from edgehive.apiserver.catalog import Catalog
from edgehive.apiserver.context import LOCAL, Call, Clock, Selection, User
from edgehive.apiserver.deletes import DeleteOptions
from edgehive.apiserver.local import LocalApi
from edgehive.apiserver.registry import Registry
from edgehive.apiserver.signer import LocalSigner
from edgehive.apiserver.subresources import Subresources
from edgehive.apiserver.tokens import Tokens
from edgehive.apiserver.watches import WatchRequest
from edgehive.kube.builtin import BUILTIN
from edgehive.kube.selectors import FieldSelector, LabelSelector
from edgehive.store.log import Log, MemoryLog
from edgehive.store.revisions import Limits


class Cluster:
    """A registry over a log in memory, with short verbs."""

    def __init__(self, log: Log | None = None, limits: Limits | None = None) -> None:
        self.time = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        numbers = itertools.count(1)
        self.clock = Clock(lambda: self.time, lambda: f"00000000-0000-0000-0000-{next(numbers):012}")
        self.storage = Storage(log or MemoryLog(), limits=limits or Limits())
        self.catalog = Catalog(BUILTIN)
        rng = random.Random(1)
        draw = lambda n: "".join(rng.choice("bcdfghjk") for _ in range(n))  # noqa: E731
        admission = Admission(storage=self.storage, clock=self.clock, token=draw)
        self.registry = Registry(
            storage=self.storage,
            catalog=self.catalog,
            admission=admission,
            clock=self.clock,
            token=draw,
            root_ca="CA",
        )
        self.tokens = Tokens(LocalSigner(_key), self.clock.new_id)
        self.subresources = Subresources(registry=self.registry, tokens=self.tokens)
        self.api = LocalApi(self.registry, self.subresources)

    def call(self, resource: str, name: str = "", namespace: str = "default", **more) -> Call:
        resource, _, sub = resource.partition("/")
        info = next(i for i in self.catalog.all() if i.gvr.resource == resource or str(i.gvr) == resource)
        more.setdefault("manager", "test")
        user: User = more.pop("user", LOCAL)
        return Call(info, user, namespace if info.namespaced else "", name, sub, **more)

    async def create(self, resource: str, obj: dict, **more) -> dict:
        return json.loads(await self.registry.create(self.call(resource, **more), obj))

    async def update(self, resource: str, obj: dict, **more) -> dict:
        call = self.call(resource, obj["metadata"]["name"], **more)
        return json.loads(await self.registry.update(call, obj))

    async def patch(self, resource: str, name: str, patch, kind: str = "merge", **more) -> dict:
        media = {
            "merge": "application/merge-patch+json",
            "json": "application/json-patch+json",
            "strategic": "application/strategic-merge-patch+json",
            "apply": "application/apply-patch+yaml",
        }[kind]
        raw, _ = await self.registry.patch(
            self.call(resource, name, **more), json.dumps(patch).encode(), media
        )
        return json.loads(raw)

    async def delete(self, resource: str, name: str, options: dict | None = None, **more) -> dict:
        raw, _ = await self.registry.delete(
            self.call(resource, name, **more), DeleteOptions.parse(options or {})
        )
        return json.loads(raw)

    def get(self, resource: str, name: str, **more) -> dict:
        return json.loads(self.registry.get(self.call(resource, name, **more)))

    def page(self, resource: str, namespace: str = "default", **selection):
        return self.registry.list(self.call(resource), self.selection(namespace, **selection))

    def names(self, resource: str, namespace: str = "default", **selection) -> list[str]:
        found = self.page(resource, namespace, **selection)
        return [json.loads(raw)["metadata"]["name"] for raw in found.items]

    @staticmethod
    def selection(namespace: str = "default", labels: str = "", fields: str = "", **more) -> Selection:
        return Selection(namespace, LabelSelector.parse(labels), FieldSelector.parse(fields), **more)

    async def watch(
        self, resource: str, rv: str, timeout: float = 0.0, **more
    ) -> AsyncIterator[tuple[str, dict]]:
        bookmarks, initial = more.pop("bookmarks", False), more.pop("initial", None)
        namespace = more.pop("namespace", "default")
        selection = self.selection(namespace, resource_version=rv, **more)
        request = WatchRequest(selection, timeout, bookmarks, initial)
        async with contextlib.aclosing(self.registry.watch(self.call(resource), request)) as lines:
            async for kind, raw in lines:
                yield kind, json.loads(raw)

    async def watched(self, resource: str, rv: str, **more) -> list[tuple[str, dict]]:
        return [line async for line in self.watch(resource, rv, **more)]


def _key():
    from edgehive.aio.pki import new_key

    return new_key()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    await cluster.storage.open()
    await bootstrap(cluster.registry, address="127.0.0.1", port=6443, service_address="10.96.0.1")
    yield cluster
    await cluster.storage.close()


@pytest.fixture
def new_cluster():
    return Cluster


def pod_of(name: str = "p", **spec) -> dict:
    meta = {"name": name, "labels": spec.pop("labels", {"app": "a"})}
    return {"metadata": meta, "spec": {"containers": [{"name": "c", "image": "busybox"}], **spec}}


@pytest.fixture
def pod():
    return pod_of
