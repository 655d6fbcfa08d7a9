"""EdgeHub and MetaManager as edgecore wires them, for tests against a real TLS WebSocket server."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edgehive.beehive.hive import Hive, Module
from edgehive.edge.app import stamp
from edgehive.edge.config import EdgeCoreConfig
from edgehive.edge.config_load import split_address
from edgehive.edge.enroll import Enroller
from edgehive.edge.hub import EdgeHub, Endpoint
from edgehive.edge.hub_routes import Routes
from edgehive.edge.metaclient import PodChange
from edgehive.edge.metamanager import MetaManager
from edgehive.edge.store import EdgeStore
from edgehive.wire.edgelink import EdgeLink, LinkOptions
from edgehive.wire.message import Message
from edgehive.wire.outbox import Outbox

NODE = "edge-1"
POD = "default/pod/web"


def pod(version: int, *, uid: str = "u1", node: str = NODE, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web",
            "namespace": "default",
            "uid": uid,
            "resourceVersion": str(version),
            **metadata,
        },
        "spec": {"nodeName": node, "containers": [{"name": "c"}]},
        "status": {},
    }


def limit_pages(store: EdgeStore, pages: int) -> None:
    """Make the disk full for the database: it may not grow beyond `pages`, or not at all."""
    (now,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count={pages or now}")


class Edge:
    def __init__(self, config: EdgeCoreConfig, *, write_deadline: float = 15.0, **options: Any) -> None:
        self.store = EdgeStore(Path(config.database.data_source))
        self.hive: Hive[Message] = Hive()
        self.seen: list[Message] = []
        self.outbox = Outbox(store=self.store)
        host, port = split_address(config.modules.edge_hub.websocket.server)
        enroller = Enroller(node=NODE, config=config.modules.edge_hub, now=time.time, rng=random.random)
        identity = enroller.current()
        assert identity is not None
        self.hub = EdgeHub(
            endpoint=Endpoint(host=host, port=port, project="p", node=NODE, write_deadline=write_deadline),
            link=EdgeLink(
                now=time.monotonic(),
                stamp=stamp,
                rng=random.random,
                outbox=self.outbox,
                options=LinkOptions(reconnect=0.02, **options),
            ),
            tls=identity.client_context,
            now=time.monotonic,
            stamp=stamp,
            route=Routes(self.hive),
        )
        self.meta = MetaManager(
            node=NODE, store=self.store, cloud=self.hub, stamp=stamp, wall=time.time, query_timeout=5
        )
        self.changes: list[PodChange] = []
        self.objects: list[tuple[str, str, str]] = []
        self.meta.subscribe_pods(self.changes.append)
        self.meta.subscribe_objects(lambda *what: self.objects.append(what))
        self.hive.add(Module("metamanager", self.meta.receive, frozenset({"meta"})))
        self.links: asyncio.Queue[bool] = asyncio.Queue()
        self.hub.on_connection(self.links.put_nowait)

    async def linked(self, up: bool = True) -> None:
        async with asyncio.timeout(15):
            while await self.links.get() != up:
                pass


@asynccontextmanager
async def running(config: EdgeCoreConfig, **options: Any) -> AsyncIterator[Edge]:
    edge = Edge(config, **options)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(edge.hive.run()), group.create_task(edge.hub.run())]
            try:
                yield edge
            finally:
                for task in tasks:
                    task.cancel()
    finally:
        edge.store.close()


async def until(met: Callable[[], Any]) -> None:
    async with asyncio.timeout(15):
        while not met():
            await asyncio.sleep(0.005)
