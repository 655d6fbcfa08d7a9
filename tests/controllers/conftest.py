"""A cluster without processes: the real registry in memory, all controllers, and hands that play the kubelet."""

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgehive.aio.storage import Storage
from edgehive.apiserver.admission import Admission
from edgehive.apiserver.bootstrap import bootstrap
from edgehive.apiserver.catalog import Catalog
from edgehive.apiserver.context import Clock
from edgehive.apiserver.local import LocalApi
from edgehive.apiserver.registry import Registry
from edgehive.apiserver.subresources import Subresources
from edgehive.apiserver.tokens import Tokens
from edgehive.controllers.app import Controllers, Options
from edgehive.kube.api import MERGE_PATCH, ListOptions, WriteOptions
from edgehive.kube.builtin import BUILTIN
from edgehive.kube.refs import DEPLOYMENTS, EVENTS, GVR, NODES, PODS
from edgehive.kube.status import ApiStatus
from edgehive.store.log import MemoryLog

_PATIENCE = 10.0


class World:
    """The API with short verbs, and a kubelet that can be told what to do."""

    def __init__(self) -> None:
        numbers = itertools.count(1)
        rng = random.Random(7)
        clock = Clock(new_id=lambda: f"00000000-0000-0000-0000-{next(numbers):012}")
        self.storage = Storage(MemoryLog())
        draw = lambda n: "".join(rng.choice("bcdfghjk") for _ in range(n))  # noqa: E731
        admission = Admission(storage=self.storage, clock=clock, token=draw)
        self.registry = Registry(
            storage=self.storage, catalog=Catalog(BUILTIN), admission=admission, clock=clock, token=draw
        )
        key = ec.generate_private_key(ec.SECP256R1())
        tokens = Tokens(lambda: key, clock.new_id)
        self.api = LocalApi(self.registry, Subresources(registry=self.registry, tokens=tokens))
        self.controllers: Controllers

    async def create(
        self, gvr: GVR, obj: dict[str, Any], namespace: str | None = "default"
    ) -> dict[str, Any]:
        return json.loads(
            await self.api.create(gvr, json.dumps(obj).encode(), WriteOptions(namespace=namespace))
        )

    async def get(self, gvr: GVR, name: str, namespace: str | None = "default") -> dict[str, Any] | None:
        try:
            return json.loads(await self.api.get(gvr, name, WriteOptions(namespace=namespace)))
        except ApiStatus as exc:
            if exc.code != 404:
                raise
            return None

    async def all(self, gvr: GVR, namespace: str | None = None) -> list[dict[str, Any]]:
        page = await self.api.list(gvr, ListOptions(namespace=namespace))
        return [json.loads(raw) for raw in page.items]

    async def patch(
        self,
        gvr: GVR,
        name: str,
        change: dict[str, Any],
        namespace: str | None = "default",
        subresource: str = "",
    ) -> dict[str, Any]:
        options = WriteOptions(namespace=namespace, subresource=subresource)
        return json.loads(await self.api.patch(gvr, name, json.dumps(change).encode(), MERGE_PATCH, options))

    async def delete(self, gvr: GVR, name: str, namespace: str | None = "default", **options: Any) -> None:
        body = json.dumps({"kind": "DeleteOptions", "apiVersion": "v1", **options}).encode()
        with contextlib.suppress(ApiStatus):
            await self.api.delete(gvr, name, WriteOptions(namespace=namespace), body)

    async def node(self, name: str, *, ready: str = "True", taints: Any = None, **labels: str) -> None:
        meta = {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}
        spec = {"taints": taints} if taints else {}
        await self.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec}, None)
        await self.report(name, ready)

    async def report(self, name: str, ready: str, beat: str = "2026-01-01T00:00:00Z") -> None:
        status = {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "20"},
            "conditions": [
                {"type": "Ready", "status": ready, "reason": "Kubelet", "lastHeartbeatTime": beat}
            ],
        }
        await self.patch(NODES, name, {"status": status}, None, "status")

    async def pod_ready(self, pod: dict[str, Any], *, ready: bool = True) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
        conditions = [c for c in pod["status"].get("conditions", ()) if c["type"] != "Ready"]
        conditions.append({"type": "Ready", "status": str(ready), "lastTransitionTime": stamp})
        status = {"status": {"phase": "Running", "conditions": conditions}}
        with contextlib.suppress(ApiStatus):
            await self.patch(PODS, pod["metadata"]["name"], status, pod["metadata"]["namespace"], "status")

    async def kubelet(self, broken: Callable[[dict[str, Any]], bool] = lambda pod: False) -> None:
        """Run every pod that has a node, and end those that are deleted; `broken` ones never get ready."""
        page = await self.api.list(PODS)
        for raw in page.items:
            await self._run(json.loads(raw), broken)
        options = ListOptions(resource_version=page.resource_version)
        async for event in self.api.watch(PODS, options, 60.0):
            if event.type in ("ADDED", "MODIFIED"):
                await self._run(json.loads(event.object), broken)

    async def _run(self, pod: dict[str, Any], broken: Callable[[dict[str, Any]], bool]) -> None:
        meta = pod["metadata"]
        if meta.get("deletionTimestamp"):
            await self.delete(PODS, meta["name"], meta["namespace"], gracePeriodSeconds=0)
        elif pod["spec"].get("nodeName") and pod["status"].get("phase") != "Running":
            await self.pod_ready(pod, ready=not broken(pod))

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait for an async condition, looking again whenever the store has changed."""
        result = None
        try:
            async with asyncio.timeout(_PATIENCE):
                while True:
                    result = await condition()
                    if result:
                        return result
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"it never came true; last seen {result!r}") from None

    async def events(self, reason: str) -> list[str]:
        return [e["message"] for e in await self.all(EVENTS) if e["reason"] == reason]

    async def deployment(self, name: str = "web", **spec: Any) -> dict[str, Any]:
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]},
        }
        spec = {"replicas": 3, "selector": {"matchLabels": {"app": name}}, "template": template, **spec}
        obj = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        return await self.create(DEPLOYMENTS, obj)

    async def set_image(self, image: str, name: str = "web") -> None:
        containers = [{"name": "c", "image": image}]
        await self.patch(DEPLOYMENTS, name, {"spec": {"template": {"spec": {"containers": containers}}}})

    async def rolled_out(self, replicas: int, name: str = "web") -> dict[str, Any]:
        async def done() -> Any:
            found = await self.get(DEPLOYMENTS, name)
            status = found["status"]
            counts = [status.get(k) for k in ("replicas", "updatedReplicas", "availableReplicas")]
            current = status.get("observedGeneration") == found["metadata"]["generation"]
            return found if current and counts == [replicas] * 3 else None

        return await self.until(done)


@contextlib.asynccontextmanager
async def running(options: Options, *, kubelet: bool = True, **kubelet_options: Any) -> AsyncIterator[World]:
    """A world whose controllers run."""
    world = World()
    await world.storage.open()
    await bootstrap(world.registry, address="127.0.0.1", port=1)
    world.controllers = Controllers(api=world.api, clock=time.time, ca_pem=b"CA", options=options)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(world.controllers.run())]
        await world.controllers.synced()
        if kubelet:
            tasks.append(group.create_task(world.kubelet(**kubelet_options)))
        try:
            yield world
        finally:
            for task in tasks:
                task.cancel()
    await world.storage.close()


@pytest.fixture
def run_world():
    """Return `running`, for tests that set options."""
    return running


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A world with two nodes and a kubelet."""
    async with running(Options()) as found:
        await found.node("n1")
        await found.node("n2")
        yield found
