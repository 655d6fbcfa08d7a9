"""The real kubectl, as a user would type it."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgehive.apiserver.app import ApiServer, ApiServerOptions
from edgehive.cli.kubectl import carried_kubectl
from edgehive.kit.errors import UserError


def kubectls() -> list[Path]:
    """Every kubectl of this machine, the newest last."""
    found = [Path(path)] if (path := shutil.which("kubectl")) else []
    with contextlib.suppress(UserError):
        found.append(carried_kubectl(os.environ))
    return found


@dataclass
class Kubectl:
    program: Path
    home: Path

    async def __call__(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        environment = {
            "HOME": str(self.home),
            "KUBECONFIG": str(self.home / "kubeconfig"),
            "PATH": os.environ["PATH"],
        }
        child = await asyncio.create_subprocess_exec(
            self.program,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        output, _ = await child.communicate(stdin.encode())
        assert child.returncode == code, f"kubectl {' '.join(arguments)}: {output.decode()}"
        return output.decode()


@pytest.fixture(scope="module")
def pki(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pki")


@pytest.fixture
async def home(tmp_path, pki) -> AsyncIterator[Path]:
    if (pki / "pki").exists():
        shutil.copytree(pki / "pki", tmp_path / "pki")
    server = ApiServer(ApiServerOptions(directory=tmp_path, port=0))
    await server.start()
    if not (pki / "pki").exists():
        shutil.copytree(tmp_path / "pki", pki / "pki")
    (tmp_path / "kubeconfig").write_text(server.kubeconfig())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        try:
            yield tmp_path
        finally:
            task.cancel()


pytestmark = pytest.mark.real


@pytest.fixture(params=kubectls(), ids=lambda path: "PATH" if path.parts[:2] == ("/", "usr") else "carried")
def every_kubectl(request, home) -> Kubectl:
    return Kubectl(request.param, home)


@pytest.fixture
def kubectl(home) -> Kubectl:
    found = kubectls()
    if not found:
        pytest.skip("there is no kubectl")
    return Kubectl(found[-1], home)


DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: nginx, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: conf}
data: {a: "1"}
"""

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [size]
            properties: {size: {type: integer, minimum: 1}, color: {type: string, default: red}}
          status: {type: object, properties: {size: {type: integer}}}
"""

WIDGET = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 3}\n"


async def test_apply_and_what_follows(kubectl):
    assert "deployment.apps/web created" in await kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    assert "deployment.apps/web unchanged" in await kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    more = DEPLOYMENT.replace('a: "1"', 'b: "2"')
    assert "configmap/conf configured" in await kubectl("apply", "-f", "-", stdin=more)
    assert await kubectl("get", "cm", "conf", "-o", "jsonpath={.data}") == '{"b":"2"}'
    assert "0/2" in await kubectl("get", "deploy", "web", "-o", "wide")
    assert "scaled" in await kubectl("scale", "deploy", "web", "--replicas=5")
    assert await kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "5"
    assert "image updated" in await kubectl("set", "image", "deploy/web", "c=nginx:2")
    assert "labeled" in await kubectl("label", "deploy", "web", "x=y")
    assert "annotated" in await kubectl("annotate", "deploy", "web", "x=y")
    assert "Replicas:" in await kubectl("describe", "deploy", "web")
    assert "timed out" in await kubectl("rollout", "status", "deploy/web", "--timeout=10ms", code=1)
    assert "deleted" in await kubectl("delete", "-f", "-", "--wait=true", stdin=DEPLOYMENT)


async def test_imperative_commands_and_their_protobuf(every_kubectl):
    assert "created" in await every_kubectl("create", "deployment", "d", "--image=nginx", "--replicas=3")
    assert await every_kubectl("get", "deploy", "d", "-o", "jsonpath={.spec.replicas}") == "3"
    assert "created" in await every_kubectl("create", "configmap", "c", "--from-literal=a=b")
    assert "created" in await every_kubectl("create", "secret", "generic", "s", "--from-literal=a=b")
    assert "created" in await every_kubectl("create", "namespace", "n")
    assert "created" in await every_kubectl("run", "p", "--image=busybox")
    assert "kube-api-access-" in await every_kubectl("describe", "pod", "p")
    assert "exposed" in await every_kubectl("expose", "deploy", "d", "--port=80")
    assert (await every_kubectl("create", "token", "default")).count(".") == 2
    assert "yes" in await every_kubectl("auth", "can-i", "create", "pods")
    assert "kubernetes-admin" in await every_kubectl("auth", "whoami")
    assert "deleted" in await every_kubectl("delete", "pod", "p", "--now")


async def test_server_side_apply(kubectl):
    apply = ("apply", "--server-side", "-f", "-")
    assert "serverside-applied" in await kubectl(*apply, "--field-manager=one", stdin=DEPLOYMENT)
    changed = DEPLOYMENT.replace("replicas: 2", "replicas: 3")
    refused = await kubectl(*apply, "--field-manager=two", stdin=changed, code=1)
    assert 'conflict with "one": .spec.replicas' in refused
    await kubectl(*apply, "--field-manager=two", "--force-conflicts", stdin=changed)
    assert await kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "3"


async def test_custom_resources(kubectl):
    assert "created" in await kubectl("create", "-f", "-", stdin=CRD)
    await kubectl("wait", "--for", "condition=established", "crd/widgets.example.com", "--timeout=5s")
    assert "created" in await kubectl("apply", "-f", "-", stdin=WIDGET)
    assert (await kubectl("get", "wd")).split()[-2:] == ["w", "3"]
    assert "scaled" in await kubectl("scale", "wd", "w", "--replicas=7")
    merge = ("patch", "wd", "w", "--type=merge", "-p")
    assert "greater than or equal to 1" in await kubectl(*merge, '{"spec":{"size":0}}', code=1)
    await kubectl(*merge, '{"status":{"size":4},"spec":{"size":9}}', "--subresource=status")
    assert await kubectl("get", "wd", "w", "-o", "jsonpath={.spec.size} {.status.size}") == "7 4"
    assert "color" in await kubectl("explain", "widget.spec")
    unknown = WIDGET.replace("size: 3", "size: 3, junk: 1")
    assert 'unknown field "spec.junk"' in await kubectl("apply", "-f", "-", stdin=unknown, code=1)
    assert "deleted" in await kubectl("delete", "crd", "widgets.example.com")
    assert "find the requested resource" in await kubectl("get", "--raw", "/apis/example.com/v1", code=1)


async def test_discovery_and_explain(kubectl):
    assert "deployments" in await kubectl("api-resources")
    assert "apps/v1" in await kubectl("api-versions")
    assert "replicas <integer>" in await kubectl("explain", "deployment.spec.replicas")
    assert "readyz check passed" in await kubectl("get", "--raw", "/readyz?verbose")
    assert "Server Version" in await kubectl("version")
    assert "kube-root-ca.crt" in await kubectl("get", "cm,sa,svc,ns,nodes,events", "-A")


async def test_a_watch_sees_changes(kubectl):
    await kubectl("create", "configmap", "c", "--from-literal=a=b")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(kubectl("wait", "cm/c", "--for=jsonpath={.data.a}=z", "--timeout=20s"))
        await kubectl("patch", "cm", "c", "-p", '{"data":{"a":"z"}}')
        assert "condition met" in await waiting


async def test_errors_read_as_they_do_everywhere(kubectl):
    missing = await kubectl("get", "pod", "nope", code=1)
    assert missing.strip() == 'Error from server (NotFound): pods "nope" not found'
    typo = DEPLOYMENT.replace("replicas: 2", "replicaz: 2")
    assert 'unknown field "spec.replicaz"' in await kubectl("create", "-f", "-", stdin=typo, code=1)
    denied = await kubectl("get", "pods", "--as=somebody", code=1)
    assert 'User "somebody" cannot list resource "pods" in API group "" in the namespace "default"' in denied
