"""kubectl against MetaServer: every version in EDGEHIVE_KUBECTLS (a directory), or the one that is here."""

import asyncio
import contextlib
import os
import shlex
from pathlib import Path

import pytest

from edgehive.kube.api import MERGE_PATCH
from edgehive.kube.refs import CONFIGMAPS
from tests.support.installation import find_kubectl
from tests.support.metaserver_lab import DEFAULT, with_lab
from tests.support.metaserver_things import THINGS_YAML

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


def kubectls() -> list[str]:
    directory = os.environ.get("EDGEHIVE_KUBECTLS", "")
    return sorted(map(str, Path(directory).iterdir())) if directory else [find_kubectl() or "kubectl"]


class Kubectl:
    def __init__(self, program: str, server: str, home: Path) -> None:
        self.begin = [program, "-s", server, "-n", "default", "--cache-dir", str(home / "cache")]
        self.env = {"KUBECONFIG": "/dev/null", "HOME": str(home), "PATH": os.environ["PATH"]}

    async def run(self, line: str, stdin: str = "") -> tuple[int, str, str]:
        child = await asyncio.create_subprocess_exec(
            *self.begin,
            *shlex.split(line),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.env,
        )
        out, errors = await child.communicate(stdin.encode())
        return child.returncode, out.decode(), errors.decode()

    async def out(self, line: str, stdin: str = "") -> str:
        code, out, errors = await self.run(line, stdin)
        assert code == 0, errors
        return out

    @contextlib.asynccontextmanager
    async def watching(self, line: str):
        child = await asyncio.create_subprocess_exec(
            *self.begin, *shlex.split(line), stdout=asyncio.subprocess.PIPE, env=self.env
        )
        try:
            yield child.stdout
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
            child._transport.close()


async def lines(stream, count: int) -> list[str]:
    async with asyncio.timeout(20):
        return [(await stream.readline()).decode().split()[0] for _ in range(count)]


@pytest.mark.parametrize("program", kubectls(), ids=lambda path: Path(path).name)
@pytest.mark.skipif(not find_kubectl(), reason="there is no kubectl")
@with_lab
async def test_kubectl_goes_through_it_all(lab, program):
    await lab.put("old", x="1")
    kubectl = Kubectl(program, await lab.url(), lab.path)

    # online
    assert "created" in await kubectl.out("apply -f -", THINGS_YAML)
    assert "created" in await kubectl.out("create configmap k --from-literal=a=1")
    assert "patched" in await kubectl.out('patch configmap k --type=merge -p \'{"data":{"a":"2"}}\'')
    assert await kubectl.out("get configmap k -o jsonpath={.data.a}") == "2"
    thing = """\
apiVersion: clients.example.com/v1
kind: Thing
metadata: {name: t}
spec: {v: one}
"""
    assert "created" in await kubectl.out("apply -f -", thing)
    assert "unchanged" in await kubectl.out("apply -f -", thing)
    assert "configured" in await kubectl.out("apply -f -", thing.replace("one", "two"))
    table = (await kubectl.out("get things")).splitlines()
    assert [line.split() for line in table][0] == ["NAME", "V"]
    assert table[1].split() == ["t", "two"]
    assert "deleted" in await kubectl.out("delete configmap k")
    code, _, errors = await kubectl.run("get configmap k")
    assert (code, "NotFound" in errors) == (1, True)
    async with kubectl.watching("get configmaps -o name --watch") as stream:
        assert sorted(await lines(stream, 2)) == ["configmap/kube-root-ca.crt", "configmap/old"]
        await lab.put("seen")
        assert await lines(stream, 1) == ["configmap/seen"]

        # the cloud goes
        lab.restart_cloudcore()
        code, out, errors = await kubectl.run("get configmaps")
        assert code == 0
        assert "seen " in out
        assert "not reachable" in errors
        code, _, errors = await kubectl.run("delete configmap old")
        assert code == 1
        assert "ServiceUnavailable" in errors
        await lab.api.patch(CONFIGMAPS, "old", b'{"data":{"x":"2"}}', MERGE_PATCH, DEFAULT)

        # and is there again: the watch goes on
        lab.link.switch(True)
        assert await lines(stream, 1) == ["configmap/old"]

    # offline, after a restart
    lab.link.switch(False)
    await lab.restart_edge()
    assert await kubectl.out("get configmap old -o jsonpath={.data.x}") == "2"
    assert "two" in await kubectl.out("get things")
    assert "things " in await kubectl.out("api-resources")
    lab.link.switch(True)
    assert "deleted" in await kubectl.out("delete configmap old")
