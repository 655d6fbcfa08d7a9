"""An informer made with lightkube: `lightkube_client.py SERVER`; see `tests.support.kubernetes_clients`."""

import asyncio
import json
import sys

from lightkube import AsyncClient
from lightkube.config.client_adapter import httpx
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap
from lightkube.types import PatchType

Thing = create_namespaced_resource("clients.example.com", "v1", "Thing", "things")


def say(**line):
    print(json.dumps(line), flush=True)


class Informer:
    def __init__(self, client):
        self.client = client
        self.known = {}

    def tell(self, kind, name, obj):
        data = (obj.data or {}).get("v") if obj is not None else None
        say(event=kind, name=name, value=data)

    async def relist(self):
        found = {}
        listing = self.client.list(ConfigMap, namespace="default")
        async for item in listing:
            found[item.metadata.name] = item
        for name in self.known.keys() - found.keys():
            self.tell("DELETED", name, None)
        for name, item in found.items():
            old = self.known.get(name)
            if old is None or old.metadata.resourceVersion != item.metadata.resourceVersion:
                self.tell("ADDED" if old is None else "MODIFIED", name, item)
        self.known = found
        return listing.resourceVersion

    async def run(self):
        version = None
        while True:
            try:
                if version is None:
                    version = await self.relist()
                    say(listed=version)
                async for kind, item in self.client.watch(
                    ConfigMap, namespace="default", resource_version=version
                ):
                    version = item.metadata.resourceVersion
                    if kind == "DELETED":
                        self.known.pop(item.metadata.name, None)
                    else:
                        self.known[item.metadata.name] = item
                    self.tell(kind, item.metadata.name, None if kind == "DELETED" else item)
            except ApiError as exc:
                if exc.status.code == 410:
                    version = None
                await asyncio.sleep(0.1)
            except httpx.HTTPError:
                await asyncio.sleep(0.1)


def shown(obj):
    return {"name": obj.metadata.name, "value": (getattr(obj, "data", None) or {}).get("v")}


async def command(client, line):
    do, name, value = line["do"], line.get("name", ""), line.get("value", "")
    meta = ObjectMeta(name=name, namespace="default")
    match do:
        case "list":
            return sorted([shown(o)["name"] async for o in client.list(ConfigMap, namespace="default")])
        case "get":
            return shown(await client.get(ConfigMap, name, namespace="default"))
        case "create":
            return shown(await client.create(ConfigMap(metadata=meta, data={"v": value})))
        case "patch":
            patch = {"data": {"v": value}}
            return shown(
                await client.patch(ConfigMap, name, patch, namespace="default", patch_type=PatchType.MERGE)
            )
        case "delete":
            await client.delete(ConfigMap, name, namespace="default")
            return name
        case "create-thing":
            return (await client.create(Thing(metadata=meta, spec={"v": value}))).spec
        case "list-things":
            return {o.metadata.name: o.spec["v"] async for o in client.list(Thing, namespace="default")}


async def main():
    config = KubeConfig.from_dict(
        {
            "clusters": [{"name": "edge", "cluster": {"server": sys.argv[1]}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "edge", "context": {"cluster": "edge", "user": "nobody"}}],
            "current-context": "edge",
        }
    )
    client = AsyncClient(config, namespace="default", trust_env=False)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with asyncio.TaskGroup() as group:
        informer = group.create_task(Informer(client).run())
        async for text in reader:
            line = json.loads(text)
            try:
                say(id=line["id"], result=await command(client, line))
            except ApiError as exc:
                say(id=line["id"], code=exc.status.code, reason=exc.status.reason)
        informer.cancel()


asyncio.run(main())
