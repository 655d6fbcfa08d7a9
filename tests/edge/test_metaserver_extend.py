"""Restart and exec over MetaServer, without any cloud."""

from types import SimpleNamespace

import msgspec
import pytest

from edgehive.aio.http import Request
from edgehive.apiserver.paths import parse_target
from edgehive.edge.metaserver_extend import Extensions
from edgehive.edge.runtime import ExecResult, State
from edgehive.kube.status import ApiStatus

POD = b'{"metadata":{"name":"p","namespace":"x","uid":"u1"}}'


class Runtime:
    def __init__(self) -> None:
        self.stopped = []
        self.ran = []

    async def list_containers(self, pod_uid=""):
        assert pod_uid == "u1"
        return [
            SimpleNamespace(id="c1", name="main", state=State.RUNNING),
            SimpleNamespace(id="c0", name="main", state=State.EXITED),
        ]

    async def stop_container(self, container_id, grace):
        self.stopped.append((container_id, grace))

    async def exec_sync(self, container_id, command, timeout):
        self.ran.append((container_id, list(command)))
        return ExecResult(3, b"one\ntwo\n", b"bad\n")


async def post(runtime, path, query="", body=b""):
    extensions = Extensions(runtime=runtime, pod=lambda ns, name: POD if (ns, name) == ("x", "p") else None)
    request = Request("POST", path, query, content=body)
    answer = await extensions.answer(request, parse_target(path), "create")
    return None if answer is None else msgspec.json.decode(answer.body)


async def test_restart_stops_what_runs_and_says_what_it_could_not():
    runtime = Runtime()
    found = await post(runtime, "/api/v1/namespaces/x/pods/restart", body=b'["p","gone"]')
    assert runtime.stopped == [("c1", 3.0)]
    assert found == {"errMessages": ['x/gone: pods "gone" not found'], "LogMessages": ["x/p"]}
    with pytest.raises(ApiStatus):
        await post(runtime, "/api/v1/namespaces/x/pods/restart", body=b"{}")


async def test_exec_gives_the_output_and_the_exit_code():
    runtime = Runtime()
    found = await post(runtime, "/api/v1/namespaces/x/pods/p/exec", "command=ls&command=-l&container=main")
    assert runtime.ran == [("c1", ["ls", "-l"])]
    assert found["runOutMessages"] == ["one", "two"]
    assert (found["runErrMessages"], found["errMessages"]) == (["bad"], ["exit code 3"])
    for query in ("", "command=ls&tty=true", "command=ls&container=other"):
        with pytest.raises(ApiStatus):
            await post(runtime, "/api/v1/namespaces/x/pods/p/exec", query)


async def test_everything_else_is_kubernetes():
    assert await post(Runtime(), "/api/v1/namespaces/x/pods") is None
    with pytest.raises(ApiStatus, match="no pods"):
        await post(None, "/api/v1/namespaces/x/pods/p/exec", "command=ls")


async def test_keadm_edits_devices_on_the_node_and_others_in_the_cluster():
    given = []

    async def device(namespace, name, raw):
        given.append((namespace, name, raw))
        return name == "d"

    extensions = Extensions(runtime=None, pod=lambda *_: None, device=device)
    path = "/apis/devices.kubeedge.io/v1beta1/namespaces/x/devices/"

    async def put(name, body, agent="keadm/v1.22"):
        request = Request("PUT", path + name, "", {"user-agent": agent}, content=body)
        return await extensions.answer(request, parse_target(path + name), "update")

    body = b'{"metadata":{"name":"d","namespace":"x"}}'
    assert (await put("d", body)).body == b"OK"
    assert given == [("x", "d", body)]
    assert await put("d", body, "kubectl/v1.32") is None
    for name, wrong in (
        ("e", b'{"metadata":{"name":"e"}}'),
        ("d", b'{"metadata":{"name":"e"}}'),
        ("d", b"["),
    ):
        with pytest.raises(ApiStatus):
            await put(name, wrong)
