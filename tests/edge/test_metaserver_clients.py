"""Client libraries of Kubernetes against MetaServer: online, without a cloud, after a restart without it, and again."""

import json

import pytest

from edgehive.kube.api import MERGE_PATCH
from edgehive.kube.refs import CONFIGMAPS, CRDS
from tests.support.kubernetes_clients import CLIENTS, ELSEWHERE, Refused, lacks, running
from tests.support.metaserver_lab import DEFAULT, until, with_lab
from tests.support.metaserver_things import THINGS

pytestmark = pytest.mark.timeout(120)


async def cloud_patch(lab, name, value):
    body = json.dumps({"data": {"v": value}}).encode()
    await lab.api.patch(CONFIGMAPS, name, body, MERGE_PATCH, DEFAULT)


def client(name: str):
    """A parameter that is left out where the library is missing; on CI only those of other languages may be."""
    marks = [pytest.mark.skipif(bool(lacks(name)), reason=lacks(name))]
    return pytest.param(name, marks=marks if name in ELSEWHERE else [*marks, pytest.mark.real])


@pytest.mark.parametrize("library", [client(name) for name in CLIENTS])
@with_lab
async def test_a_client_library_goes_through_it_all(lab, library):
    await lab.api.create(CRDS, json.dumps(THINGS).encode())
    await lab.put("a", v="1")
    await lab.put("b", v="1")
    async with running(library, await lab.url()) as client:
        await client.until(lambda: client.lists)
        await client.until(lambda: len(client.events) >= 3)
        assert sorted(client.events) == [
            ("ADDED", "a", "1"),
            ("ADDED", "b", "1"),
            ("ADDED", "kube-root-ca.crt", None),
        ]
        client.events.clear()

        # online: its own writes and those of others
        await lab.put("c", v="1")
        await client.sees([("ADDED", "c", "1")])
        assert await client.do("create", "d", "1") == {"name": "d", "value": "1"}
        assert await client.do("get", "d") == {"name": "d", "value": "1"}
        assert await client.do("patch", "d", "2") == {"name": "d", "value": "2"}
        assert await client.do("delete", "a") == "a"
        await client.sees([("ADDED", "d", "1"), ("MODIFIED", "d", "2"), ("DELETED", "a", None)])
        assert await client.do("create-thing", "t", "1") == {"v": "1"}
        assert await client.do("list-things") == {"t": "1"}
        with pytest.raises(Refused, match="404 NotFound"):
            await client.do("get", "a")

        # the cloud goes: what was there at the last contact stays
        lab.restart_cloudcore()
        assert await client.do("list") == ["b", "c", "d", "kube-root-ca.crt"]
        with pytest.raises(Refused, match="503"):
            await client.do("create", "x", "1")
        await cloud_patch(lab, "b", "2")
        await lab.api.delete(CONFIGMAPS, "c", DEFAULT)
        await lab.put("e", v="1")

        # edgecore restarts without a cloud
        lists = len(client.lists)
        await lab.restart_edge()
        await until(lab.is_watched)
        assert await client.do("list") == ["b", "c", "d", "kube-root-ca.crt"]
        assert await client.do("get", "b") == {"name": "b", "value": "1"}
        assert await client.do("list-things") == {"t": "1"}
        assert client.events == []
        assert len(client.lists) == lists or library == "client-node"  # its watch went on where it was

        # and comes back: each change once
        lab.link.switch(True)
        await client.until(lambda: len(client.events) >= 3)
        assert sorted(client.events) == [("ADDED", "e", "1"), ("DELETED", "c", None), ("MODIFIED", "b", "2")]
        client.events.clear()
        assert await client.do("patch", "e", "2") == {"name": "e", "value": "2"}
        assert await client.do("list") == ["b", "d", "e", "kube-root-ca.crt"]
        await client.sees([("MODIFIED", "e", "2")])
