"""A real control plane and a real cloudcore, in processes of their own, and what the tests do to them."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.hub import Tracker
from bench.hub_lab import Lab
from edgehive.edge.fleet import Fleet, FleetSettings
from edgehive.edge.fleet_certificates import FleetCertificates
from edgehive.kube.api import MERGE_PATCH, WriteOptions
from edgehive.kube.refs import CONFIGMAPS, PODS

HERE = WriteOptions(namespace="default")
RECORD_ALL = {"delivery": {"recordRate": 0}}
"""Every acknowledgement is recorded, though these edges would say themselves what they hold."""
NOW = b'{"apiVersion":"v1","kind":"DeleteOptions","gracePeriodSeconds":0}'


class Cluster:
    """Objects for edges, changed at will; knows what every edge must have in the end."""

    def __init__(self, lab: Lab, nodes: list[str]) -> None:
        self.lab = lab
        self.nodes = nodes
        self.tracker = Tracker()
        self.deleted: set[tuple[str, str]] = set()
        self.got_delete: set[tuple[str, str]] = set()
        self.uids: dict[str, str] = {}
        self.versions: dict[str, int] = {}
        """Newest version by record name."""

    def tell(self, node: str, message: Any) -> None:
        self.tracker.tell(node, message)
        if message.operation == "delete":
            self.got_delete.add((node, message.resource))

    def certificates(self) -> FleetCertificates:
        folder = self.lab.root / "certs"
        folder.mkdir(exist_ok=True)
        return FleetCertificates(
            folder=folder, server=f"https://127.0.0.1:{self.lab.https}", token=self.lab.token
        )

    async def fleet(self, port: int | None = None, **settings: Any) -> Fleet:
        certificates = self.certificates()
        await certificates.obtain(self.nodes)
        options = FleetSettings(
            host="127.0.0.1",
            port=port or self.lab.ws,
            **{"lease": 0.0, "redial": (0.05, 0.3), "dial_timeout": 3.0, **settings},
        )
        return Fleet(settings=options, names=self.nodes, certificates=certificates, tell=self.tell)

    async def populate(self) -> None:
        """One ConfigMap for all, and two pods a node that refer to it."""
        await self._create(CONFIGMAPS, {"metadata": {"name": "shared"}, "data": {"round": "0"}})
        for node in self.nodes:
            for which in ("keep", "drop"):
                pod = {
                    "metadata": {"name": f"{which}-{node}"},
                    "spec": {
                        "nodeName": node,
                        "automountServiceAccountToken": False,
                        "containers": [
                            {
                                "name": "main",
                                "image": "busybox",
                                "envFrom": [{"configMapRef": {"name": "shared"}}],
                            }
                        ],
                    },
                }
                made = await self._create(PODS, pod)
                self._expect(node, "pod", made)
        shared = msgspec.json.decode(await self.lab.api.get(CONFIGMAPS, "shared", HERE))
        for node in self.nodes:
            self._expect(node, "configmap", shared)

    async def change(self, rng: random.Random) -> None:
        """One random change."""
        if rng.random() < 0.3:
            body = {"data": {"round": str(rng.random())}}
            made = await self._patch(CONFIGMAPS, "shared", body)
            for node in self.nodes:
                self._expect(node, "configmap", made)
            return
        node = rng.choice(self.nodes)
        body = {"metadata": {"annotations": {"round": str(rng.random())}}}
        self._expect(node, "pod", await self._patch(PODS, f"keep-{node}", body))

    async def drop(self, node: str) -> None:
        """Delete a pod for good."""
        name = f"drop-{node}"
        resource = f"default/pod/{name}"
        await self.lab.api.delete(PODS, name, HERE, NOW)
        self.deleted.add((node, resource))
        self.tracker.want.pop((node, resource), None)
        self.versions.pop(f"{node}.{self.uids[resource]}", None)

    async def converged(self, seconds: float = 20.0) -> None:
        """Every edge has the newest of everything, every delete has arrived, every record says so."""
        try:
            async with asyncio.timeout(seconds):
                while self.tracker.want or self.deleted - self.got_delete:
                    await asyncio.sleep(0.02)
                while lacking := self.lacking(await self.lab.records()):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            lacking = self.lacking(await self.lab.records())
            raise AssertionError(
                f"not delivered: {dict(list(self.tracker.want.items())[:5])}; deletes not delivered: "
                f"{sorted(self.deleted - self.got_delete)[:5]}; records wrong: {lacking[:5]}"
            ) from None

    def lacking(self, records: dict[str, int]) -> list[str]:
        wrong = [name for name, version in self.versions.items() if records.get(name) != version]
        gone = {f"{node}.{self.uids[resource]}" for node, resource in self.deleted}
        return wrong + sorted(gone & records.keys())

    async def _create(self, gvr: Any, body: dict[str, Any]) -> dict[str, Any]:
        return msgspec.json.decode(await self.lab.api.create(gvr, msgspec.json.encode(body), HERE))

    async def _patch(self, gvr: Any, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return msgspec.json.decode(
            await self.lab.api.patch(gvr, name, msgspec.json.encode(body), MERGE_PATCH, HERE)
        )

    def _expect(self, node: str, kind: str, made: dict[str, Any]) -> None:
        meta = made["metadata"]
        resource, version = f"default/{kind}/{meta['name']}", int(meta["resourceVersion"])
        self.tracker.expect(node, resource, version)
        self.uids[resource] = meta["uid"]
        self.versions[f"{node}.{meta['uid']}"] = version


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path / "lab") as made:
        made.edgehive = RECORD_ALL
        await made.start_cloud()
        yield made


@pytest.fixture
def cluster(lab: Lab) -> Cluster:
    return Cluster(lab, [f"n-{i:02d}" for i in range(12)])
