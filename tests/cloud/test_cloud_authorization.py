"""`authorization` against the embedded API server: a real process, RBAC impersonation, its node authorizer."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import connect

from bench.hub_lab import Lab
from edgehive.edge.fleet_certificates import FleetCertificates
from edgehive.kube.api import WriteOptions
from edgehive.kube.refs import CONFIGMAPS, EVENTS, GVR, LEASES, NODES, PODS, SECRETS, SERVICEACCOUNTS
from edgehive.kube.status import ApiStatus

pytestmark = pytest.mark.e2e

HERE = WriteOptions(namespace="default")
CLAIMS = GVR("", "v1", "persistentvolumeclaims")
VOLUMES = GVR("", "v1", "persistentvolumes")
ENFORCED = {"enable": True, "debug": False}
DEBUG = {"enable": True, "debug": True}


class Edge:
    """One edge that asks."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    async def say(
        self, operation: str, resource: str, content: Any = None, source: str = "edged", group: str = "meta"
    ) -> str:
        message_id = str(uuid.uuid4())
        route = {"source": source, "group": group, "operation": operation, "resource": resource}
        header = {"msg_id": message_id, "timestamp": 1}
        await self._socket.send(json.dumps({"header": header, "route": route, "content": content}))
        return message_id

    async def ask(self, operation: str, resource: str, content: Any = None) -> Any:
        message_id = await self.say(operation, resource, content)
        async with asyncio.timeout(10):
            async for frame in self._socket:
                message = json.loads(frame)
                await self._acknowledge(message)
                if message["header"].get("parent_msg_id") == message_id:
                    return message["content"]
        raise AssertionError("the link ended")

    async def _acknowledge(self, message: dict[str, Any]) -> None:
        header = {"msg_id": str(uuid.uuid4()), "timestamp": 1, "parent_msg_id": message["header"]["msg_id"]}
        route = {**message["route"], "operation": "response"}
        await self._socket.send(json.dumps({"header": header, "route": route, "content": "OK"}))


def code(answer: Any) -> int:
    """The HTTP code of an answer; 0 for success."""
    if not isinstance(answer, dict):
        return 0
    err = answer.get("ErrStatus") or (answer.get("Err") or {}).get("ErrStatus")
    return err["code"] if err else 0


@asynccontextmanager
async def dialled(cluster: Lab, node: str) -> AsyncIterator[Edge]:
    folder = cluster.root / "certs"
    folder.mkdir(exist_ok=True)
    certificates = FleetCertificates(
        folder=folder, server=f"https://127.0.0.1:{cluster.https}", token=cluster.token
    )
    await certificates.obtain([node])
    async with connect(
        f"wss://127.0.0.1:{cluster.ws}/p/{node}/events",
        ssl=certificates.context(node),
        additional_headers={"Node_id": node, "Project_id": "p", "Connectionuse": "msg"},
        close_timeout=1,
    ) as socket:
        yield Edge(socket)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path / "lab") as made:
        yield made


async def create(cluster: Lab, gvr: GVR, body: dict[str, Any], where: WriteOptions = HERE) -> dict[str, Any]:
    raw = await cluster.api.create(gvr, msgspec.json.encode(body), where)
    return msgspec.json.decode(raw, type=dict[str, Any])


async def populate(cluster: Lab) -> dict[str, Any]:
    """A pod on the node with everything a pod may refer to, and as much that it does not refer to."""
    for name in ("mine", "other"):
        await create(cluster, SECRETS, {"metadata": {"name": name}})
        await create(cluster, SECRETS, {"metadata": {"name": f"stage-{name}"}})
        await create(cluster, CONFIGMAPS, {"metadata": {"name": name}})
        await create(cluster, SERVICEACCOUNTS, {"metadata": {"name": name}})
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
        await create(
            cluster, CLAIMS, {"metadata": {"name": name}, "spec": {**spec, "volumeName": f"pv-{name}"}}
        )
        volume = {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteOnce"],
            "csi": {
                "driver": "d",
                "volumeHandle": name,
                "nodeStageSecretRef": {"namespace": "default", "name": f"stage-{name}"},
            },
            "claimRef": {"namespace": "default", "name": name},
        }
        await create(cluster, VOLUMES, {"metadata": {"name": f"pv-{name}"}, "spec": volume}, WriteOptions())
    made: dict[str, Any] = {}
    for name, node in (("p", "n-1"), ("foreign", "n-2")):
        pod = {
            "metadata": {"name": name},
            "spec": {
                "nodeName": node,
                "serviceAccountName": "mine" if node == "n-1" else "other",
                "automountServiceAccountToken": False,
                "containers": [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "mine"}}]}],
                "volumes": [
                    {"name": "s", "secret": {"secretName": "mine"}},
                    {"name": "v", "persistentVolumeClaim": {"claimName": "mine"}},
                ],
            }
            if node == "n-1"
            else {
                "nodeName": node,
                "serviceAccountName": "other",
                "automountServiceAccountToken": False,
                "containers": [{"name": "c", "image": "i"}],
            },
        }
        made[name] = await create(cluster, PODS, pod)
    return made


async def test_enforced_a_node_can_do_what_the_node_authorizer_lets_it(cluster: Lab) -> None:
    cluster.hub = {"authorization": ENFORCED}
    await cluster.start_cloud()
    async with dialled(cluster, "n-1") as edge:
        labels = {"kubernetes.io/os": "linux", "node-role.kubernetes.io/edge": ""}
        node = {"metadata": {"name": "n-1", "labels": labels}}
        assert (await edge.ask("insert", "null/node/n-1", node))["Err"] is None
        stored = json.loads(await cluster.api.get(NODES, "n-1"))
        assert labels.items() <= stored["metadata"]["labels"].items()
        pods = await populate(cluster)
        lease = {"metadata": {"name": "n-1"}, "spec": {"holderIdentity": "n-1", "leaseDurationSeconds": 40}}
        assert code(await edge.ask("query", "kube-node-lease/lease/n-1")) == 404, "allowed, but not there"
        assert code(await edge.ask("insert", "kube-node-lease/lease/n-1", lease)) == 0
        assert code(await edge.ask("update", "kube-node-lease/lease/n-1", lease)) == 0
        await cluster.api.get(LEASES, "n-1", WriteOptions(namespace="kube-node-lease"))
        ready = json.dumps({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        assert code(await edge.ask("patch", "null/nodepatch/n-1", ready)) == 0
        running = json.dumps(
            {"metadata": {"uid": pods["p"]["metadata"]["uid"]}, "status": {"phase": "Running"}}
        )
        assert code(await edge.ask("patch", "default/podpatch/p", running)) == 0
        assert json.loads(await cluster.api.get(PODS, "p", HERE))["status"]["phase"] == "Running"
        event = {
            "metadata": {"name": "p.1", "namespace": "default"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
            "reason": "Started",
        }
        await edge.say("insert", "default/event/p.1", event)
        await edge.ask("query", "default/configmap/mine")
        await edge.say("patch", "default/event/p.1", {"event": event, "patchData": '{"count":2}'})
        await _until_event(cluster, "p.1", 2)
        bound = {"kind": "Pod", "name": "p", "uid": pods["p"]["metadata"]["uid"], "apiVersion": "v1"}
        token = {"spec": {"audiences": [], "expirationSeconds": 3600, "boundObjectRef": bound}}
        answer = await edge.ask("query", "default/serviceaccounttoken/mine", token)
        assert answer["status"]["token"].count(".") == 2
        for resource in (
            "default/secret/mine",
            "default/secret/stage-mine",
            "default/configmap/mine",
            "default/persistentvolumeclaim/mine",
            "null/persistentvolume/pv-mine",
        ):
            assert (await edge.ask("query", resource))["metadata"]["name"].endswith("mine"), resource
        delete = {"gracePeriodSeconds": 0, "preconditions": {"uid": pods["p"]["metadata"]["uid"]}}
        assert await edge.ask("delete", "default/pod/p", delete) == "OK"


async def test_enforced_a_node_cannot_do_more(cluster: Lab) -> None:
    cluster.hub = {"authorization": ENFORCED}
    await cluster.start_cloud()
    async with dialled(cluster, "n-1") as edge:
        assert code(await edge.ask("insert", "null/node/n-1", {"metadata": {"name": "n-1"}})) == 0
        pods = await populate(cluster)
        for resource in (
            "default/secret/other",
            "default/secret/stage-other",
            "default/configmap/other",
            "default/persistentvolumeclaim/other",
            "null/persistentvolume/pv-other",
            "kube-system/secret/mine",
        ):
            assert code(await edge.ask("query", resource)) == 403, resource
        token = {"spec": {"audiences": [], "expirationSeconds": 3600}}
        assert code(await edge.ask("query", "default/serviceaccounttoken/other", token)) == 403
        assert (
            code(await edge.ask("patch", "default/podpatch/foreign", '{"status":{"phase":"Failed"}}')) == 403
        )
        uid = pods["foreign"]["metadata"]["uid"]
        assert code(await edge.ask("delete", "default/pod/foreign", {"preconditions": {"uid": uid}})) == 403
        mirror = {"metadata": {"name": "m"}, "spec": {"nodeName": "n-1", "containers": [{"name": "c"}]}}
        assert code(await edge.ask("insert", "default/pod/m", mirror)) == 403, "no mirror annotation"
        assert code(await edge.ask("insert", "default/lease/n-1", {"metadata": {"name": "n-1"}})) == 403
        await cluster.api.get(PODS, "foreign", HERE)


async def test_debug_refuses_nothing_and_says_what_it_would_refuse(cluster: Lab) -> None:
    cluster.hub = {"authorization": DEBUG}
    await cluster.start_cloud()
    async with dialled(cluster, "n-1") as edge:
        assert code(await edge.ask("insert", "null/node/n-1", {"metadata": {"name": "n-1"}})) == 0
        await populate(cluster)
        assert code(await edge.ask("query", "default/secret/mine")) == 0
        for _ in range(5):
            assert (await edge.ask("query", "default/secret/other"))["metadata"]["name"] == "other"
        async with asyncio.timeout(10):
            while await cluster.metric("edgehive_authorization_reviewed_total") < 7:
                await asyncio.sleep(0.05)
        assert await cluster.metric("edgehive_authorization_refusable_total") == 5
        assert await cluster.metric("edgehive_authorization_skipped_total") == 0
    text = (cluster.root / "cloudcore.log").read_text()
    assert text.count("node n-1 would not be allowed to get secrets default/other") == 1, "said once"
    assert "secrets default/mine" not in text


async def _until_event(cluster: Lab, name: str, count: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                if json.loads(await cluster.api.get(EVENTS, name, HERE)).get("count") == count:
                    return
            except ApiStatus as exc:
                assert exc.code == 404  # noqa: PT017 - anything else ends the test
            await asyncio.sleep(0.05)
