"""The API at the edge answers as the API server does: random worlds, random requests, the same answers."""

import asyncio
import contextlib
import json
import random

import aiohttp
import pytest

from edgehive.kube.api import MERGE_PATCH, ListOptions
from edgehive.kube.refs import CONFIGMAPS
from tests.support.metaserver_lab import DEFAULT, until, with_lab

pytestmark = pytest.mark.timeout(120)

MAPS = "/api/v1/namespaces/default/configmaps"
NAMES = [f"m{n}" for n in range(8)]
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"


class Both:
    """The same request to the API server and to MetaServer."""

    def __init__(self, lab, session) -> None:
        self.lab = lab
        self.session = session

    async def edge(self, path: str, accept: str, method: str = "GET") -> tuple[int, dict]:
        url = await self.lab.url()
        async with self.session.request(method, url + path, headers={"Accept": accept}) as answer:
            return answer.status, json.loads(await answer.read())

    async def cluster(self, path: str, accept: str, method: str = "GET") -> tuple[int, dict]:
        session = await self.lab.api._ready_session()
        url = self.lab.api._config.server + path
        async with session.request(method, url, headers={"Accept": accept}) as answer:
            return answer.status, json.loads(await answer.read())


async def change(lab, rng: random.Random) -> None:
    """One random write in the cluster."""
    name, labels = rng.choice(NAMES), {"colour": rng.choice(["red", "blue"]), "n": str(rng.randrange(3))}
    patch = {"metadata": {"labels": labels}, "data": {"v": str(rng.randrange(100))}}
    try:
        if rng.random() < 0.3:
            await lab.api.delete(CONFIGMAPS, name, DEFAULT)
        else:
            await lab.api.patch(CONFIGMAPS, name, json.dumps(patch).encode(), MERGE_PATCH, DEFAULT)
    except Exception:  # it is not there (yet)
        body = {"metadata": {"name": name, "labels": labels}, "data": {"v": "0"}}
        await lab.api.create(CONFIGMAPS, json.dumps(body).encode(), DEFAULT)


def request(rng: random.Random) -> tuple[str, str]:
    """A random read: path and Accept."""
    if rng.random() < 0.25:
        return f"{MAPS}/{rng.choice([*NAMES, 'never'])}", rng.choice(["application/json", TABLE])
    query = []
    if rng.random() < 0.5:
        query.append(
            "labelSelector="
            + rng.choice(
                ["colour%3Dred", "colour%21%3Dred", "n%20in%20(0,1)", "%21colour", "nothing", "a%3D%3D%3Db"]
            )
        )
    if rng.random() < 0.4:
        names = [f"metadata.name%3D{n}" for n in NAMES[:3]]
        query.append(
            "fieldSelector=" + rng.choice([*names, "metadata.namespace%3Ddefault", "spec.x%3Dy", "=,="])
        )
    if rng.random() < 0.4:
        query.append(f"limit={rng.choice([1, 2, 5, 100, 0, -1])}")
    if rng.random() < 0.15:
        query.append("resourceVersionMatch=" + rng.choice(["Exact", "NotOlderThan", "Nonsense"]))
    if rng.random() < 0.1:
        query.append("continue=" + rng.choice(["bm9uc2Vuc2U", "%25"]))
    return f"{MAPS}?{'&'.join(query)}", rng.choice(["application/json", TABLE, PARTIAL, "application/json"])


def versions(items) -> dict[str, str]:
    """Version by name."""
    return {i["metadata"]["name"]: i["metadata"]["resourceVersion"] for i in items}


def plain(answer: tuple[int, dict]) -> tuple[int, dict]:
    """An answer without what differs by design: the version of a list is the resource's own at the edge."""
    code, body = answer
    if code == 400:
        return code, {"reason": body["reason"]}  # of several mistakes another one may be named
    if "items" in body or "rows" in body:
        meta = {k: v for k, v in body["metadata"].items() if k not in ("resourceVersion", "continue")}
        meta["continues"] = "continue" in body["metadata"]
        columns = [column["name"] for column in body.get("columnDefinitions", ())]
        for row in body.get("rows", ()):
            row["cells"] = [cell for name, cell in zip(columns, row["cells"], strict=True) if name != "Age"]
        return code, body | {"metadata": meta}
    return code, body


@pytest.mark.parametrize("seed", range(2))
@with_lab
async def test_random_reads_have_the_same_answers(lab, seed):
    rng = random.Random(seed)
    async with aiohttp.ClientSession() as session:
        both = Both(lab, session)
        for _ in range(12):
            for _ in range(rng.randrange(1, 6)):
                await change(lab, rng)
            wanted = plain(await both.cluster(MAPS, "application/json"))

            async def caught_up(wanted=wanted):
                return plain(await both.edge(MAPS, "application/json")) == wanted

            await until(caught_up)
            for _ in range(12):
                path, accept = request(rng)
                there, here = await both.cluster(path, accept), await both.edge(path, accept)
                assert plain(here) == plain(there), path
                # pages are the same down to the last
                while "continue" in here[1].get("metadata", {}) and there[0] == 200:
                    there = await both.cluster(f"{path}&continue={there[1]['metadata']['continue']}", accept)
                    here = await both.edge(f"{path}&continue={here[1]['metadata']['continue']}", accept)
                    assert plain(here) == plain(there), path


@pytest.mark.parametrize("seed", range(2))
@with_lab
async def test_a_watch_from_any_list_folds_into_every_later_list(lab, seed):
    """Also over cuts of the link and a restart of the edge: nothing is missed, whatever is seen twice is the same."""
    rng = random.Random(seed)
    state: dict[str, str] = {}
    version = ""

    async def fold(session):
        nonlocal version
        while True:
            try:
                url = await lab.url()
                if not version:
                    async with session.get(url + MAPS) as answer:
                        found = await answer.json()
                    version = found["metadata"]["resourceVersion"]
                    state.clear()
                    state.update(versions(found["items"]))
                async with session.get(f"{url}{MAPS}?watch=1&resourceVersion={version}") as answer:
                    async for line in answer.content:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            version = ""
                            break
                        meta = event["object"]["metadata"]
                        version = meta["resourceVersion"]
                        state[meta["name"]] = version
                        if event["type"] == "DELETED":
                            del state[meta["name"]]
            except (aiohttp.ClientError, KeyError):
                await asyncio.sleep(0.01)

    async def equal():
        page = await lab.api.list(CONFIGMAPS, ListOptions(namespace="default"))
        return versions(map(json.loads, page.items)) == state

    for _ in range(4):
        await change(lab, rng)
    async with aiohttp.ClientSession() as session:
        task = lab.group.create_task(fold(session))
        for turn in range(8):
            what = rng.choice(["cut", "cloudcore", "edge", "nothing"])
            if what == "cut":
                lab.link.switch(False)
            elif what == "cloudcore":
                lab.restart_cloudcore()
            for _ in range(rng.randrange(1, 6)):
                await change(lab, rng)
            if what == "edge":
                lab.link.switch(False)
                await lab.restart_edge()
            lab.link.switch(True)
            try:
                await until(equal)
            except TimeoutError:
                raise AssertionError(f"turn {turn} ({what}): {state}") from None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
