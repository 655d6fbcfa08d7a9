"""Roles and bindings over HTTP, with the real kubectl as somebody who is no administrator."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgehive.apiserver.app import ApiServer, ApiServerOptions
from tests.apiserver.test_apiserver_kubectl import Kubectl, kubectls

pytestmark = [pytest.mark.real, pytest.mark.skipif(not kubectls(), reason="no kubectl")]

READER = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: default}
rules:
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch]
"""


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Kubectl]:
    server = ApiServer(ApiServerOptions(directory=tmp_path, port=0))
    await server.start()
    (tmp_path / "kubeconfig").write_text(server.kubeconfig())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        try:
            yield Kubectl(kubectls()[-1], tmp_path)
        finally:
            task.cancel()


def somebody(admin: Kubectl, name: str) -> Kubectl:
    """A kubectl that acts as the service account `name` of the namespace default, by its token."""
    return Kubectl(admin.program, admin.home / name)


async def with_token(admin: Kubectl, name: str) -> Kubectl:
    await admin("create", "serviceaccount", name)
    token = (await admin("create", "token", name)).strip()
    other = somebody(admin, name)
    other.home.mkdir()
    shutil.copy(admin.home / "kubeconfig", other.home / "kubeconfig")
    await other("config", "set-credentials", "me", f"--token={token}")
    await other("config", "set-context", "--current", "--user=me")
    return other


async def test_a_service_account_may_do_what_its_roles_say(admin: Kubectl):
    app = await with_token(admin, "app")
    assert "forbidden" in await app("get", "configmaps", code=1)
    await admin("create", "-f", "-", stdin=READER)
    await admin("create", "rolebinding", "app", "--role=reader", "--serviceaccount=default:app")
    assert "kube-root-ca.crt" in await app("get", "configmaps")
    assert "forbidden" in await app("get", "configmaps", "-n", "kube-system", code=1)
    assert "forbidden" in await app("create", "configmap", "mine", code=1)
    assert (await app("auth", "can-i", "list", "configmaps")).strip() == "yes"
    assert (await app("auth", "can-i", "delete", "configmaps", code=1)).strip() == "no"
    assert "configmaps" in await app("auth", "can-i", "--list")
    await admin("delete", "rolebinding", "app")
    assert "forbidden" in await app("get", "configmaps", code=1)


async def test_the_default_roles_are_there_and_aggregate(admin: Kubectl):
    app = await with_token(admin, "viewer")
    await admin(
        "create", "clusterrolebinding", "viewer", "--clusterrole=view", "--serviceaccount=default:viewer"
    )
    assert "kubernetes" in await app("get", "services")
    assert "forbidden" in await app("get", "secrets", code=1)
    more = json.dumps(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {
                "name": "more",
                "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"},
            },
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}],
        }
    )
    await admin("create", "-f", "-", stdin=more)
    await app("get", "secrets")
    assert "cluster-admin" in await admin("get", "clusterroles")
    assert "ClusterRole/view" in await admin("get", "clusterrolebindings", "-o", "wide")


async def test_nobody_grants_more_than_they_have(admin: Kubectl):
    boss = await with_token(admin, "boss")
    await admin("create", "rolebinding", "boss", "--clusterrole=admin", "--serviceaccount=default:boss")
    await boss("create", "-f", "-", stdin=READER)
    await boss("create", "rolebinding", "mate", "--role=reader", "--serviceaccount=default:mate")
    nodes = READER.replace("configmaps", "nodes").replace("reader", "nodes")
    said = await boss("create", "-f", "-", stdin=nodes, code=1)
    assert "attempting to grant RBAC permissions not currently held" in said
    widened = READER.replace("[configmaps]", '["*"]').replace("[get", "[deletecollection, get")
    assert "not currently held" in await boss("replace", "-f", "-", stdin=widened, code=1)
    said = await boss("create", "rolebinding", "up", "--clusterrole=cluster-admin", "--user=x", code=1)
    assert "not currently held" in said
    await boss("create", "rolebinding", "view", "--clusterrole=view", "--user=x")
    # nor what somebody else will have made one day
    assert "not found" in await boss(
        "create", "rolebinding", "early", "--clusterrole=future", "--user=x", code=1
    )
    assert "not found" in await boss("create", "rolebinding", "early", "--role=future", "--user=x", code=1)
    await admin(
        "create", "role", "binder", "--verb=bind", "--resource=clusterroles.rbac.authorization.k8s.io",
        "--resource-name=cluster-admin",
    )  # fmt: skip
    await admin("create", "rolebinding", "binder", "--role=binder", "--serviceaccount=default:boss")
    await boss("create", "rolebinding", "up", "--clusterrole=cluster-admin", "--user=x")


async def test_what_a_binding_grants_is_fixed_and_rules_are_checked(admin: Kubectl):
    await admin("create", "-f", "-", stdin=READER)
    await admin("create", "rolebinding", "b", "--role=reader", "--user=ann")
    patch = '{"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"}}'
    assert "cannot change roleRef" in await admin("patch", "rolebinding", "b", "-p", patch, code=1)
    said = await admin(
        "create", "-f", "-", stdin=READER.replace("verbs: [get, list, watch]", "verbs: []"), code=1
    )
    assert "verbs must contain at least one value" in said
    assert "may not contain" in await admin(
        "create", "-f", "-", stdin=READER.replace("name: reader", 'name: "a%b"'), code=1
    )


async def test_the_objects_about_storage_and_runtimes_are_served(admin: Kubectl):
    await admin(
        "create", "-f", "-",
        stdin="""
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: sandboxed}
handler: runsc
---
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: files.example.com}
spec: {attachRequired: false}
---
apiVersion: storage.k8s.io/v1
kind: CSINode
metadata: {name: n1}
spec: {drivers: [{name: files.example.com, nodeID: one}]}
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttachment
metadata: {name: va}
spec: {attacher: files.example.com, nodeName: n1, source: {persistentVolumeName: pv}}
""",
    )  # fmt: skip
    assert "runsc" in await admin("get", "runtimeclass")
    assert "Persistent" in await admin("get", "csidrivers")
    assert (await admin("get", "csinode", "--no-headers")).split()[:2] == ["n1", "1"]
    assert "false" in await admin("get", "volumeattachments")
    fixed = '{"handler": "other"}'
    assert "immutable" in await admin("patch", "runtimeclass", "sandboxed", "-p", fixed, code=1)
