"""An informer made with kubernetes_asyncio: `asyncio_client.py SERVER`; see `tests.support.kubernetes_clients`."""

import asyncio
import json
import sys

import aiohttp
from kubernetes_asyncio import client, watch
from kubernetes_asyncio.client.exceptions import ApiException

CUSTOM = ("clients.example.com", "v1", "default", "things")


def say(**line):
    print(json.dumps(line), flush=True)


class Informer:
    def __init__(self, core):
        self.core = core
        self.known = {}

    def tell(self, kind, name, obj):
        say(event=kind, name=name, value=(obj.data or {}).get("v") if obj is not None else None)

    async def relist(self):
        listing = await self.core.list_namespaced_config_map("default")
        found = {item.metadata.name: item for item in listing.items}
        for name in self.known.keys() - found.keys():
            self.tell("DELETED", name, None)
        for name, item in found.items():
            old = self.known.get(name)
            if old is None or old.metadata.resource_version != item.metadata.resource_version:
                self.tell("ADDED" if old is None else "MODIFIED", name, item)
        self.known = found
        return listing.metadata.resource_version

    async def run(self):
        version = None
        while True:
            try:
                if version is None:
                    version = await self.relist()
                    say(listed=version)
                async with watch.Watch().stream(
                    self.core.list_namespaced_config_map, "default", resource_version=version
                ) as events:
                    async for event in events:
                        item, kind = event["object"], event["type"]
                        version = item.metadata.resource_version
                        if kind == "BOOKMARK":
                            continue
                        if kind == "DELETED":
                            self.known.pop(item.metadata.name, None)
                        else:
                            self.known[item.metadata.name] = item
                        self.tell(kind, item.metadata.name, None if kind == "DELETED" else item)
            except ApiException as exc:
                if exc.status == 410:
                    version = None
                await asyncio.sleep(0.1)
            except (aiohttp.ClientError, OSError, TimeoutError):
                await asyncio.sleep(0.1)


def shown(obj):
    return {"name": obj.metadata.name, "value": (obj.data or {}).get("v")}


async def command(core, custom, line):
    do, name, value = line["do"], line.get("name", ""), line.get("value", "")
    match do:
        case "list":
            return sorted(o.metadata.name for o in (await core.list_namespaced_config_map("default")).items)
        case "get":
            return shown(await core.read_namespaced_config_map(name, "default"))
        case "create":
            body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data={"v": value})
            return shown(await core.create_namespaced_config_map("default", body))
        case "patch":
            return shown(await core.patch_namespaced_config_map(name, "default", {"data": {"v": value}}))
        case "delete":
            await core.delete_namespaced_config_map(name, "default")
            return name
        case "create-thing":
            body = {
                "apiVersion": "clients.example.com/v1",
                "kind": "Thing",
                "metadata": {"name": name},
                "spec": {"v": value},
            }
            return (await custom.create_namespaced_custom_object(*CUSTOM, body))["spec"]
        case "list-things":
            found = await custom.list_namespaced_custom_object(*CUSTOM)
            return {o["metadata"]["name"]: o["spec"]["v"] for o in found["items"]}


async def main():
    configuration = client.Configuration(host=sys.argv[1])
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with client.ApiClient(configuration) as api, asyncio.TaskGroup() as group:
        core, custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        informer = group.create_task(Informer(core).run())
        async for text in reader:
            line = json.loads(text)
            try:
                say(id=line["id"], result=await command(core, custom, line))
            except ApiException as exc:
                say(id=line["id"], code=exc.status, reason=json.loads(exc.body).get("reason"))
        informer.cancel()


asyncio.run(main())
