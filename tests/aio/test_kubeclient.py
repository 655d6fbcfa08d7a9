import asyncio
import contextlib
import json
import os
import stat
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from edgehive.aio.informer import Informer
from edgehive.aio.kubeauth import load_in_cluster, load_kubeconfig
from edgehive.aio.kubeclient import KubeClient, object_path
from edgehive.kit.errors import ProtocolError, Unreachable, UserError
from edgehive.kube.api import APPLY_PATCH, MERGE_PATCH, ListOptions, WriteOptions
from edgehive.kube.kubeconfig import ExecPlugin, KubeConfig, format_kubeconfig
from edgehive.kube.refs import DEPLOYMENTS, NODES, PODS
from edgehive.kube.status import ApiStatus

HERE = WriteOptions(namespace="d")


def status(code: int, reason: str, message: str = "no") -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code)


@contextlib.asynccontextmanager
async def serving(handler) -> AsyncIterator[str]:
    """Serve every path with `handler`; yields the URL."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    app = web.Application(client_max_size=10 << 20)
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Recorder:
    """Answers in turn from a list; remembers what it was asked."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.requests: list[dict] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(
            {
                "method": request.method,
                "path": request.path,
                "raw": request.raw_path,
                "query": dict(request.query),
                "headers": request.headers,
                "body": await request.read(),
            }
        )
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer() if callable(answer) else answer


async def test_every_verb_goes_out_as_kubernetes_spells_it():
    recorder = Recorder(lambda: web.json_response({"ok": True}))
    async with serving(recorder) as url, KubeClient(KubeConfig(server=url)) as client:
        await client.get(PODS, "p", HERE)
        await client.create(PODS, b"{}", WriteOptions(namespace="d", field_manager="me"))
        await client.create(PODS, b"{}", WriteOptions(namespace="d", subresource="binding"), "p")
        await client.update(NODES, "n", b"{}", WriteOptions(subresource="status"))
        await client.patch(DEPLOYMENTS, "x", b"{}", MERGE_PATCH, HERE)
        forced = WriteOptions(namespace="d", field_manager="me", force=True)
        await client.patch(DEPLOYMENTS, "x", b"{}", APPLY_PATCH, forced)
        assert await client.delete(PODS, "p", HERE, b'{"gracePeriodSeconds":0}') == b'{"ok": true}'
    seen = [(r["method"], r["path"], r["query"]) for r in recorder.requests]
    assert seen == [
        ("GET", "/api/v1/namespaces/d/pods/p", {}),
        ("POST", "/api/v1/namespaces/d/pods", {"fieldManager": "me"}),
        ("POST", "/api/v1/namespaces/d/pods/p/binding", {}),
        ("PUT", "/api/v1/nodes/n/status", {}),
        ("PATCH", "/apis/apps/v1/namespaces/d/deployments/x", {}),
        ("PATCH", "/apis/apps/v1/namespaces/d/deployments/x", {"fieldManager": "me", "force": "true"}),
        ("DELETE", "/api/v1/namespaces/d/pods/p", {}),
    ]
    assert recorder.requests[4]["headers"]["Content-Type"] == MERGE_PATCH
    assert recorder.requests[6]["body"] == b'{"gracePeriodSeconds":0}'


def test_hostile_names_cannot_leave_their_place_in_the_path():
    assert object_path(PODS, "a/../b", "x?y#z") == "/api/v1/namespaces/a%2F..%2Fb/pods/x%3Fy%23z"


async def test_a_list_gives_every_item_the_kind_a_real_server_leaves_out():
    body = {
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "7", "continue": "more"},
        "items": [{"metadata": {"name": "a"}}, {"kind": "Pod", "apiVersion": "v1"}, {}],
    }
    recorder = Recorder(lambda: web.json_response(body))
    options = ListOptions(namespace="d", label_selector="a=b", field_selector="c=d", limit=5)
    async with serving(recorder) as url, KubeClient(KubeConfig(server=url)) as client:
        page = await client.list(PODS, options)
    assert (page.resource_version, page.continue_token) == ("7", "more")
    assert [json.loads(i)["kind"] for i in page.items] == ["Pod"] * 3
    assert json.loads(page.items[0]) == {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}}
    assert recorder.requests[0]["query"] == {"labelSelector": "a=b", "fieldSelector": "c=d", "limit": "5"}


def event(kind: str, name: str, version: int, padding: int = 0) -> bytes:
    meta = {
        "name": name,
        "namespace": "d",
        "resourceVersion": str(version),
        "annotations": {"p": "x" * padding},
    }
    return json.dumps({"type": kind, "object": {"kind": "Pod", "metadata": meta}}).encode() + b"\n"


def streaming(*chunks: bytes, hold: asyncio.Event | None = None, cut: bool = False):
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if hold is not None:
            await hold.wait()
        if cut:
            assert request.transport is not None
            request.transport.abort()
        return response

    return handler


async def test_watch_lines_may_be_huge_and_cut_anywhere():
    data = event("ADDED", "a", 1, 3_000_000) + b"\n" + event("MODIFIED", "a", 2) + event("DELETED", "a", 3)
    pieces = [data[i : i + 70_001] for i in range(0, len(data), 70_001)]
    async with serving(streaming(*pieces)) as url, KubeClient(KubeConfig(server=url)) as client:
        seen = [e async for e in client.watch(PODS, ListOptions(resource_version="0"))]
    assert [e.type for e in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert len(seen[0].object) > 3_000_000


async def test_an_error_in_a_watch_is_raised():
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    line = json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n"
    async with serving(streaming(line)) as url, KubeClient(KubeConfig(server=url)) as client:
        with pytest.raises(ApiStatus) as caught:
            _ = [e async for e in client.watch(PODS, ListOptions(resource_version="1"))]
    assert (caught.value.code, caught.value.reason) == (410, "Expired")


@pytest.mark.parametrize("line", [b"garbage\n", b'{"type":"NEW","object":{}}\n', b'{"type":5}\n'])
async def test_garbage_in_a_watch_is_a_protocol_error(line):
    async with serving(streaming(line)) as url, KubeClient(KubeConfig(server=url)) as client:
        with pytest.raises(ProtocolError):
            _ = [e async for e in client.watch(PODS, ListOptions(resource_version="1"))]


async def test_a_watch_cut_in_mid_stream_ends_so_that_the_caller_resumes():
    async with (
        serving(streaming(event("ADDED", "a", 1), cut=True)) as url,
        KubeClient(KubeConfig(server=url)) as client,
    ):
        seen = [e.type async for e in client.watch(PODS, ListOptions(resource_version="0"))]
    assert seen == ["ADDED"]


async def test_failures_come_as_the_status_the_server_sent():
    recorder = Recorder(lambda: status(409, "AlreadyExists", 'pods "p" already exists'))
    async with serving(recorder) as url, KubeClient(KubeConfig(server=url)) as client:
        with pytest.raises(ApiStatus) as caught:
            await client.create(PODS, b"{}", HERE)
    assert (caught.value.code, caught.value.reason) == (409, "AlreadyExists")
    assert len(recorder.requests) == 1


async def test_an_answer_that_is_no_status_still_says_what_happened():
    recorder = Recorder(lambda: web.Response(status=404, text="<html>\x1b[31mnope"))
    async with serving(recorder) as url, KubeClient(KubeConfig(server=url)) as client:
        with pytest.raises(ApiStatus) as caught:
            await client.get(PODS, "p", HERE)
    assert caught.value.code == 404
    assert "nope" in str(caught.value)
    assert "\x1b" not in str(caught.value)


async def test_reads_are_repeated_writes_are_not():
    recorder = Recorder(
        lambda: status(503, "ServiceUnavailable"),
        lambda: status(500, "InternalError"),
        lambda: web.json_response({}),
    )
    async with serving(recorder) as url, KubeClient(KubeConfig(server=url)) as client:
        assert await client.get(PODS, "p", HERE) == b"{}"
        assert len(recorder.requests) == 3
    recorder = Recorder(lambda: status(500, "InternalError"))
    async with serving(recorder) as url, KubeClient(KubeConfig(server=url)) as client:
        with pytest.raises(ApiStatus):
            await client.update(PODS, "p", b"{}", HERE)
        assert len(recorder.requests) == 1


async def test_a_throttled_write_waits_as_told_and_a_long_wait_is_the_callers():
    busy = lambda after: lambda: web.Response(status=429, headers={"Retry-After": after})  # noqa: E731
    recorder = Recorder(busy("0"), lambda: web.json_response({}))
    async with serving(recorder) as url, KubeClient(KubeConfig(server=url)) as client:
        assert await client.create(PODS, b"{}", HERE) == b"{}"
    recorder = Recorder(busy("600"))
    async with serving(recorder) as url, KubeClient(KubeConfig(server=url)) as client:
        with pytest.raises(ApiStatus) as caught:
            await client.get(PODS, "p", HERE)
    assert caught.value.details["retryAfterSeconds"] == 600
    assert len(recorder.requests) == 1


async def test_a_server_that_is_not_there_is_unreachable():
    async with serving(Recorder(None)) as url:
        pass
    async with KubeClient(KubeConfig(server=url)) as client:
        with pytest.raises(Unreachable, match="cannot be reached"):
            await client.create(PODS, b"{}", HERE)
        with pytest.raises(Unreachable):
            _ = [e async for e in client.watch(PODS, ListOptions(resource_version="1"))]


async def test_a_server_that_does_not_answer_is_unreachable():
    hold = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        await hold.wait()
        return web.Response()

    async with serving(handler) as url, KubeClient(KubeConfig(server=url), timeout=0.1) as client:
        with pytest.raises(Unreachable):
            await client.create(PODS, b"{}", HERE)
        hold.set()


async def test_impersonation_of_the_config_and_of_one_request():
    recorder = Recorder(lambda: web.json_response({}))
    async with serving(recorder) as url:
        config = KubeConfig(server=url, as_user="boss", as_groups=("g1", "g2"), as_extra=(("k", ("v",)),))
        async with KubeClient(config) as client:
            await client.get(PODS, "p", HERE)
            as_node = WriteOptions(as_user="system:node:e1", as_groups=("system:nodes",))
            await client.update(NODES, "e1", b"{}", as_node)
    first, second = (r["headers"] for r in recorder.requests)
    assert (first["Impersonate-User"], first.getall("Impersonate-Group")) == ("boss", ["g1", "g2"])
    assert first["Impersonate-Extra-k"] == "v"
    assert (second["Impersonate-User"], second.getall("Impersonate-Group")) == (
        "system:node:e1",
        ["system:nodes"],
    )
    assert "Impersonate-Extra-k" not in second


async def test_a_rotated_token_is_read_again_when_the_old_one_is_refused(tmp_path):
    path = tmp_path / "token"
    path.write_text("one\n")

    async def handler(request: web.Request) -> web.Response:
        if request.headers["Authorization"] != "Bearer " + path.read_text().strip():
            return status(401, "Unauthorized")
        return web.json_response({})

    async with serving(handler) as url, KubeClient(KubeConfig(server=url, token_file=str(path))) as client:
        await client.get(PODS, "p", HERE)
        path.write_text("two")
        await client.get(PODS, "p", HERE)
        path.unlink()
        await client.close()


async def test_a_fixed_token_that_is_refused_is_refused_once():
    recorder = Recorder(lambda: status(401, "Unauthorized"))
    async with serving(recorder) as url, KubeClient(KubeConfig(server=url, token="t")) as client:
        with pytest.raises(ApiStatus) as caught:
            await client.get(PODS, "p", HERE)
    assert (caught.value.code, len(recorder.requests)) == (401, 1)


async def test_an_exec_plugin_is_run_once_and_again_after_a_refusal(tmp_path):
    script = tmp_path / "login"
    script.write_text(
        f"""#!/bin/sh
n=$(($(cat {tmp_path}/n 2>/dev/null || echo 0) + 1)); echo $n > {tmp_path}/n
test -n "$KUBERNETES_EXEC_INFO" || exit 3
echo '{{"status": {{"token": "'$WHO$n'"}}}}'
"""
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    accepted = {"Bearer me1"}

    async def handler(request: web.Request) -> web.Response:
        ok = request.headers["Authorization"] in accepted
        return web.json_response({}) if ok else status(401, "Unauthorized")

    plugin = ExecPlugin(command=str(script), env=(("WHO", "me"),))
    async with serving(handler) as url, KubeClient(KubeConfig(server=url, exec=plugin)) as client:
        await client.get(PODS, "p", HERE)
        await client.get(PODS, "p", HERE)
        assert (tmp_path / "n").read_text() == "1\n"
        accepted.clear()
        accepted.add("Bearer me2")
        await client.get(PODS, "p", HERE)
        assert (tmp_path / "n").read_text() == "2\n"


@pytest.mark.parametrize(
    ("script", "error"),
    [("exit 1", Unreachable), ("echo hello", UserError), ("echo '{\"status\":{}}'", UserError)],
)
async def test_an_exec_plugin_that_fails_says_so(tmp_path, script, error):
    path = tmp_path / "login"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    config = KubeConfig(server="http://127.0.0.1:9", exec=ExecPlugin(command=str(path)))
    async with KubeClient(config) as client:
        with pytest.raises(error):
            await client.get(PODS, "p", HERE)


async def test_an_exec_plugin_that_is_not_there_gives_its_hint():
    plugin = ExecPlugin(command="/nowhere/login", install_hint="apt install login")
    async with KubeClient(KubeConfig(server="http://127.0.0.1:9", exec=plugin)) as client:
        with pytest.raises(UserError) as caught:
            await client.get(PODS, "p", HERE)
    assert caught.value.hint == "apt install login"


def test_a_kubeconfig_is_found_by_path_and_by_environment(tmp_path, monkeypatch):
    (tmp_path / "ca.pem").write_bytes(b"PEM")
    text = format_kubeconfig(KubeConfig(server="https://h:1", ca_file="ca.pem"), name="x")
    (tmp_path / "config").write_text(text)
    assert load_kubeconfig(tmp_path / "config").ca_pem == b"PEM"
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none{os.pathsep}{tmp_path}/config")
    assert load_kubeconfig().server == "https://h:1"
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(UserError, match=r"ca\.pem"):
        load_kubeconfig()


def test_a_pod_finds_its_own_cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(UserError):
        load_in_cluster(tmp_path)
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_bytes(b"CA")
    (tmp_path / "namespace").write_text("kubeedge\n")
    config = load_in_cluster(tmp_path)
    assert (config.server, config.ca_pem, config.namespace) == ("https://[fd00::1]:443", b"CA", "kubeedge")
    assert config.token_file == str(tmp_path / "token")


def test_a_ca_that_is_none_is_refused_at_once():
    with pytest.raises(UserError, match="CA"):
        KubeClient(KubeConfig(server="https://h", ca_pem=b"-----BEGIN CERTIFICATE-----\nx"))


async def test_an_informer_follows_through_a_cut_watch_and_a_lost_history():
    """List, watch, cut, resume, 410, list again: the handler sees each change once and in order."""
    asked: list[str] = []
    hold = asyncio.Event()
    lists = [
        {
            "metadata": {"resourceVersion": "5"},
            "items": [{"metadata": {"namespace": "d", "name": "a", "resourceVersion": "3"}}],
        },
        {
            "metadata": {"resourceVersion": "50"},
            "items": [{"metadata": {"namespace": "d", "name": "c", "resourceVersion": "40"}}],
        },
    ]
    watches = [
        streaming(event("ADDED", "b", 7), cut=True),
        streaming(b'{"type":"ERROR","object":{"code":410,"reason":"Expired"}}\n'),
        streaming(event("MODIFIED", "c", 60), hold=hold),
    ]

    async def handler(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            asked.append(request.query["resourceVersion"])
            return await watches.pop(0)(request)
        asked.append("list")
        return web.json_response({"kind": "PodList", "apiVersion": "v1", **lists.pop(0)})

    seen: list[tuple[str, str]] = []
    done = asyncio.Event()

    def note(change) -> None:
        seen.append((change.type, change.object.meta.name))
        if change.type == "MODIFIED":
            done.set()

    async with serving(handler) as url, KubeClient(KubeConfig(server=url)) as client:
        informer = Informer(api=client, gvr=PODS, rng=lambda: 0.0)
        informer.subscribe(note)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            task = group.create_task(informer.run())
            await informer.synced()
            assert informer.has_synced
            await done.wait()
            task.cancel()
        hold.set()
        late: list[str] = []
        stop = informer.subscribe(lambda change: late.append(change.object.meta.name))
        stop()
    assert asked == ["list", "5", "7", "list", "50"]
    assert seen == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("DELETED", "a"),
        ("DELETED", "b"),
        ("ADDED", "c"),
        ("MODIFIED", "c"),
    ]
    assert late == ["c"]
