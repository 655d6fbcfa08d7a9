"""cloudcore with nothing but the rights that `edgehive manifests` gives: RBAC of the embedded API server decides."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from bench.hub_lab import Lab
from edgehive.cloud.config_load import parse_config
from edgehive.cloud.startup import needs_of
from edgehive.kube.api import WriteOptions
from edgehive.kube.cloudcore_manifests import Wishes, cloudcore_manifests
from edgehive.kube.cloudcore_rights import ACCOUNT, NAMESPACE
from edgehive.kube.crd_devices import DEVICE_MODELS, DEVICES
from edgehive.kube.refs import CRDS, EVENTS, GVR, NAMESPACES, NODES, PODS, SECRETS, SERVICEACCOUNTS
from edgehive.kube.status import ApiStatus
from tests.cloud.test_cloud_authorization import Edge, code, dialled
from tests.support.deviceslab import device, model, twin
from tests.support.deviceslab import report as send_report

pytestmark = pytest.mark.e2e

HERE = WriteOptions(namespace="default")
RBAC = "rbac.authorization.k8s.io"
KINDS = {
    "Namespace": NAMESPACES,
    "CustomResourceDefinition": CRDS,
    "ServiceAccount": SERVICEACCOUNTS,
    "Secret": SECRETS,
    "ClusterRole": GVR(RBAC, "v1", "clusterroles"),
    "ClusterRoleBinding": GVR(RBAC, "v1", "clusterrolebindings"),
    "Role": GVR(RBAC, "v1", "roles"),
    "RoleBinding": GVR(RBAC, "v1", "rolebindings"),
}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path / "lab") as made:
        yield made


async def install(cluster: Lab, *nodes: str) -> None:
    """What the administrator does: apply the manifests for this configuration, make a kubeconfig of a token."""
    config = parse_config(json.dumps(cluster._config())).config
    for manifest in cloudcore_manifests(Wishes(needs=needs_of(config), nodes=nodes)):
        where = WriteOptions(namespace=manifest["metadata"].get("namespace"))
        try:
            await cluster.api.create(KINDS[manifest["kind"]], msgspec.json.encode(manifest), where)
        except ApiStatus as exc:
            assert exc.reason == "AlreadyExists", manifest  # noqa: PT017 - the namespace is there
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    where = WriteOptions(namespace=NAMESPACE, subresource="token")
    raw = await cluster.api.create(SERVICEACCOUNTS, msgspec.json.encode(request), where, ACCOUNT)
    kubeconfig = yaml.safe_load(cluster.kubeconfig.read_text())
    kubeconfig["users"][0]["user"] = {"token": json.loads(raw)["status"]["token"]}
    cluster.cloud_kubeconfig = cluster.root / "cloudcore.kubeconfig"
    cluster.cloud_kubeconfig.write_text(yaml.safe_dump(kubeconfig))


async def live(edge: Edge, cluster: Lab) -> None:
    """All that an ordinary edge does."""
    node = {"metadata": {"name": "n-1", "labels": {"kubernetes.io/os": "linux"}}}
    assert code(await edge.ask("insert", "null/node/n-1", node)) == 0
    lease = {"metadata": {"name": "n-1"}, "spec": {"holderIdentity": "n-1", "leaseDurationSeconds": 40}}
    assert code(await edge.ask("query", "kube-node-lease/lease/n-1")) == 404
    assert code(await edge.ask("insert", "kube-node-lease/lease/n-1", lease)) == 0
    assert code(await edge.ask("update", "kube-node-lease/lease/n-1", lease)) == 0
    ready = json.dumps({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    assert code(await edge.ask("patch", "null/nodepatch/n-1", ready)) == 0
    await cluster.api.create(SERVICEACCOUNTS, b'{"metadata":{"name":"mine"}}', HERE)
    await cluster.api.create(SECRETS, b'{"metadata":{"name":"mine"}}', HERE)
    spec = {
        "nodeName": "n-1",
        "serviceAccountName": "mine",
        "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "mine"}}]}],
    }
    pod = json.loads(
        await cluster.api.create(PODS, msgspec.json.encode({"metadata": {"name": "p"}, "spec": spec}), HERE)
    )
    uid = pod["metadata"]["uid"]
    bound = {"kind": "Pod", "name": "p", "uid": uid, "apiVersion": "v1"}
    token = {"spec": {"audiences": [], "expirationSeconds": 3600, "boundObjectRef": bound}}
    answer = await edge.ask("query", "default/serviceaccounttoken/mine", token)
    assert answer["status"]["token"].count(".") == 2
    assert (await edge.ask("query", "default/secret/mine"))["metadata"]["name"] == "mine"
    running = json.dumps({"metadata": {"uid": uid}, "status": {"phase": "Running"}})
    assert code(await edge.ask("patch", "default/podpatch/p", running)) == 0
    event = {
        "metadata": {"name": "p.1", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "reason": "Started",
    }
    await edge.say("insert", "default/event/p.1", event)
    await until(lambda: cluster.api.get(EVENTS, "p.1", HERE))
    delete = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
    assert await edge.ask("delete", "default/pod/p", delete) == "OK"


async def report(edge: Edge, cluster: Lab) -> None:
    """A device reports a value, which becomes its DeviceStatus and the Device's summary."""
    await cluster.api.create(DEVICE_MODELS, msgspec.json.encode(model()), HERE)
    await cluster.api.create(DEVICES, msgspec.json.encode(device(node="n-1")), HERE)

    async def stored() -> None:
        await send_report(edge, temperature=twin("27"))
        assert json.loads(await cluster.api.get(DEVICES, "sensor", HERE))["status"]

    await until(stored)


async def until(check: Any) -> Any:
    """Until an API server has what is looked for."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await check()
            except (ApiStatus, KeyError, AssertionError):
                await asyncio.sleep(0.1)


def refused(cluster: Lab) -> list[str]:
    text = (cluster.root / "cloudcore.log").read_text()
    return [line for line in text.splitlines() if "forbidden" in line or "refused" in line]


async def test_the_rights_that_are_printed_are_enough(cluster: Lab) -> None:
    cluster.modules = {"dynamicController": {"enable": True}}
    await install(cluster)
    await cluster.start_cloud()
    async with dialled(cluster, "n-1") as edge:
        await live(edge, cluster)
        await report(edge, cluster)
    assert refused(cluster) == []


async def test_they_are_enough_for_acting_in_the_names_of_nodes(cluster: Lab) -> None:
    cluster.hub = {"authorization": {"enable": True, "debug": False}}
    await install(cluster, "n-1")
    await cluster.start_cloud()
    async with dialled(cluster, "n-1") as edge:
        await live(edge, cluster)
        await report(edge, cluster)
    assert refused(cluster) == []
    async with dialled(cluster, "n-2") as edge:
        answer = await edge.ask("insert", "null/node/n-2", {"metadata": {"name": "n-2"}})
        # It is cloudcore that lacks a right, which it may be given: for the edge that is "not now".
        assert code(answer) == 503, "a node that nobody has named"
        assert "cannot impersonate" in str(answer)


async def test_without_the_right_to_act_for_nodes_cloudcore_says_so(cluster: Lab) -> None:
    await install(cluster)
    cluster.hub = {"authorization": {"enable": True, "debug": False}}
    with pytest.raises(RuntimeError, match="may not act in the names of nodes"):
        await cluster.start_cloud()
    with pytest.raises(ApiStatus):
        await cluster.api.get(NODES, "n-1")
