"""The whole edgecore against the fake cloud: join, register, run, be restarted."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgehive.edge.app import EdgeCore
from edgehive.edge.config import EdgeCoreConfig
from edgehive.kit.errors import UserError


@asynccontextmanager
async def edgecore(config: EdgeCoreConfig, **more: Any) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(EdgeCore(config, **more).run())
        try:
            yield
        finally:
            task.cancel()


async def test_it_joins_registers_and_reports(https_cloud: Any, tmp_path: Path) -> None:
    cloud = https_cloud
    ready: list[str] = []
    config = cloud.config(token=cloud.token())
    async with edgecore(config, on_ready=ready.append):
        node = json.loads((await cloud.message("insert", "null/node/edge-1")).content)
        assert node["metadata"]["labels"]["node-role.kubernetes.io/edge"] == ""
        assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "edge-1"
        assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("process://")
        assert node["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.32.10-kubeedge-v")
        lease = json.loads((await cloud.message("insert", "kube-node-lease/lease/edge-1")).content)
        assert lease["spec"]["leaseDurationSeconds"] == 40
        uid = cloud.objects["null/node/edge-1"]["metadata"]["uid"]
        assert lease["metadata"]["ownerReferences"][0]["uid"] == uid
    assert ready
    assert cloud.issued == 1
    # again: the certificate is used, the node is known
    cloud.received.clear()
    async with edgecore(cloud.config()):
        await cloud.message("insert", "null/node/edge-1")
        await cloud.message("update", "kube-node-lease/lease/edge-1")
        patch = json.loads(json.loads((await cloud.message("patch", "null/nodepatch/edge-1")).content))
        conditions = {c["type"]: c for c in patch["status"]["conditions"]}
        assert conditions["Ready"]["reason"] == "EdgeReady"
    assert cloud.issued == 1


async def test_a_wrong_token_ends_it_with_a_sentence(https_cloud: Any) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await EdgeCore(https_cloud.config(token="not-a-token")).run()
    leaf: BaseException = caught.value
    while isinstance(leaf, ExceptionGroup):
        leaf = leaf.exceptions[0]
    assert isinstance(leaf, UserError)
    assert "token" in str(leaf)


async def test_a_pod_runs_and_its_status_comes_back(cloud: Any) -> None:
    config = cloud.config()
    cloud.install(config)
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "hello", "namespace": "default", "uid": "u-hello", "resourceVersion": "7"},
        "spec": {
            "nodeName": "edge-1",
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "none", "command": ["sleep", "1000"]}],
        },
        "status": {"phase": "Pending"},
    }
    cloud.objects["default/pod/hello"] = pod

    def phase() -> Any:
        return cloud.objects.get("default/pod/hello", {}).get("status", {}).get("phase") == "Running"

    async with edgecore(config):
        await cloud.message("insert", "null/node/edge-1")
        await cloud.ack_of(await cloud.push("insert", "default/pod/hello", pod, version=7))
        await cloud.until(phase, timeout=15)
        gone = pod | {
            "metadata": pod["metadata"]
            | {
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "deletionGracePeriodSeconds": 1,
                "resourceVersion": "900",
            }
        }
        cloud.version = 1000
        cloud.objects["default/pod/hello"]["metadata"] = dict(gone["metadata"])
        await cloud.push("update", "default/pod/hello", gone, version=900)
        final = await cloud.message("delete", "default/pod/hello")
        assert json.loads(final.content)["preconditions"]["uid"] == "u-hello"
        await cloud.ack_of(await cloud.push("delete", "default/pod/hello", gone, version=901))
