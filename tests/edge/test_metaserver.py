"""MetaServer and DynamicController together, over an embedded API server; the link is a pair of calls."""

import asyncio
import json

import aiohttp
import msgspec
import pytest

from edgehive.edge.config import EdgeCoreConfig, MetaManager, Modules
from edgehive.edge.config import MetaServer as MetaServerConfig
from edgehive.edge.metaserver_listen import Listening, check_config
from edgehive.kit.errors import UserError
from edgehive.kube.api import MERGE_PATCH
from edgehive.kube.refs import CONFIGMAPS, GVR
from tests.support.metaserver_lab import DEFAULT, until, with_lab

MAPS = "/api/v1/namespaces/default/configmaps"


def names(found):
    return sorted(item["metadata"]["name"] for item in found["items"])


@with_lab
async def test_reads_are_live_then_local_then_live_again(lab):
    await lab.put("a", x="1")
    status, found, headers = await lab.ask(MAPS)
    assert (status, headers["x-edgehive-freshness"]) == (200, "live")
    assert names(found) == ["a", "kube-root-ca.crt"]
    asked = len(lab.link.requests)
    await lab.ask(MAPS)
    assert len(lab.link.requests) == asked
    lab.link.switch(False)
    await lab.put("b")
    status, found, headers = await lab.ask(MAPS)
    assert (status, names(found)) == (200, ["a", "kube-root-ca.crt"])
    assert headers["x-edgehive-freshness"].startswith("as-of=20")
    assert "not reachable" in headers["warning"]
    status, failure, _ = await lab.ask("/api/v1/namespaces/default/services")
    assert (status, failure["reason"]) == (503, "ServiceUnavailable")
    await lab.api.delete(CONFIGMAPS, "a", DEFAULT)
    lab.link.switch(True)

    async def renewed():
        return names((await lab.ask(MAPS))[1]) == ["b", "kube-root-ca.crt"]

    await until(renewed)


@with_lab
async def test_a_silent_cloud_is_waited_for_once(lab):
    await lab.put("a")
    assert (await lab.ask(f"{MAPS}/a"))[0] == 200
    lab.link.silent = True
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await lab.ask(f"{MAPS}/a"))[2]["x-edgehive-freshness"] == "incomplete"
    assert 1.5 < loop.time() - began < 4
    began = loop.time()
    assert (await lab.ask(f"{MAPS}/a"))[0] == 200
    assert loop.time() - began < 1


@with_lab
async def test_a_watch_lives_through_a_cut_and_misses_nothing(lab):
    _, found, _ = await lab.ask(MAPS)
    state = {i["metadata"]["name"]: i["metadata"]["resourceVersion"] for i in found["items"]}
    url = await lab.url()
    seen = []
    path = f"{url}{MAPS}?watch=true&resourceVersion={found['metadata']['resourceVersion']}"

    async def watch():
        async with aiohttp.ClientSession() as session, session.get(path) as answer:
            async for line in answer.content:
                seen.append(json.loads(line))  # noqa: PERF401

    task = lab.group.create_task(watch())
    await lab.put("a", x="1")
    await until(lambda: _true(len(seen) >= 1))
    lab.link.switch(False)
    await lab.put("b")
    await lab.api.delete(CONFIGMAPS, "a", DEFAULT)
    lab.link.switch(True)

    async def equal():
        folded = dict(state)
        for event in seen:
            meta = event["object"]["metadata"]
            folded[meta["name"]] = meta["resourceVersion"]
            if event["type"] == "DELETED":
                del folded[meta["name"]]
        now = (await lab.ask(MAPS))[1]["items"]
        here = {i["metadata"]["name"]: i["metadata"]["resourceVersion"] for i in now}
        return folded == here and "b" in folded and "a" not in folded

    await until(equal)
    kinds = [(e["type"], e["object"]["metadata"]["name"]) for e in seen]
    assert sorted(kinds) == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]
    task.cancel()


async def _true(value):
    return value


@with_lab
async def test_writes_are_the_cloud_s_and_refused_without_it(lab):
    status, made, _ = await lab.ask(MAPS, "POST", {"metadata": {"name": "w"}, "data": {"k": "1"}})
    assert (status, made["data"]) == (201, {"k": "1"})
    assert (await lab.ask(MAPS, "POST", {"metadata": {"name": "w"}}))[0] == 409
    merge = {"Content-Type": "application/merge-patch+json"}
    assert (await lab.ask(f"{MAPS}/w", "PATCH", {"data": {"k": "2"}}, **merge))[1]["data"] == {"k": "2"}
    stale = made | {"data": {"k": "3"}}
    assert (await lab.ask(f"{MAPS}/w", "PUT", stale))[0] == 409
    assert (await lab.ask(f"{MAPS}/w?dryRun=All", "DELETE"))[0] == 200
    assert json.loads(await lab.api.get(CONFIGMAPS, "w", DEFAULT))["data"] == {"k": "2"}
    lab.link.switch(False)
    status, failure, _ = await lab.ask(f"{MAPS}/w", "DELETE")
    assert (status, failure["reason"]) == (503, "ServiceUnavailable")
    lab.link.switch(True)
    assert (await lab.ask(f"{MAPS}/w", "DELETE"))[0] == 200
    assert (await lab.ask(f"{MAPS}/w"))[0] == 404


@with_lab
async def test_what_names_nothing_is_refused_and_unknown_kinds_are_404(lab):
    for path in ("/api/v1/namespaces/..%2fx/pods", f"{MAPS}/%2e%2e", f"{MAPS}/a%2fb", "/api/v1/nodes/a%25b"):
        url = await lab.url()
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(head.encode())
        assert (await reader.read()).split()[1] == b"400"
        writer.close()
    assert (await lab.ask("/apis/none.example.com/v1/things"))[0] == 404
    assert (await lab.ask("/api/v1/nothings"))[0] == 404
    assert (await lab.ask(MAPS, Origin="http://evil.example"))[0] == 403
    own = (await lab.url()).removeprefix("http://")
    assert (await lab.ask(MAPS, Origin=f"http://{own}", Host=own))[0] == 200, "fabric8's Java client says so"
    assert (await lab.ask(MAPS, Origin="http://127.0.0.1:1", Host=own))[0] == 403
    assert (await lab.ask(MAPS, Origin="null"))[0] == 403
    assert (await lab.ask(MAPS, Host="evil.example:10550"))[0] == 403
    assert (await lab.ask(MAPS, Host="evil.example", Origin="http://evil.example"))[0] == 403
    assert (await lab.ask(MAPS, Host="127.evil.example"))[0] == 403
    assert (await lab.ask("/version", Host="localhost"))[0] == 200
    assert (await lab.ask(MAPS, **{"Impersonate-User": "nobody"}))[0] == 403
    assert (await lab.ask(MAPS, "POST", {"x": "y" * (4 << 20)}))[0] == 413


@with_lab
async def test_after_a_reconnect_nothing_that_is_long_gone_is_seen_again(lab):
    """A cloudcore that has lived on sends what may have been missed: where things stand, not how they came there."""
    url = await lab.url()
    await lab.put("kept", x="1")
    await lab.ask(MAPS)
    seen = []

    async def watch():
        path = f"{url}{MAPS}?watch=true&resourceVersion={version}"
        async with aiohttp.ClientSession() as session, session.get(path) as answer:
            async for line in answer.content:
                event = json.loads(line)
                seen.append((event["type"], event["object"]["metadata"]["name"]))

    await lab.put("gone")
    await lab.api.delete(CONFIGMAPS, "gone", DEFAULT)
    feed = next(iter(lab.watches._feeds.values()))
    names = lambda: [past.change.object.meta.name for past in feed.past]  # noqa: E731
    await until(lambda: _true(names().count("gone") == 2))  # and told
    lab.link.switch(False)
    await lab.put("missed")
    await lab.api.delete(CONFIGMAPS, "missed", DEFAULT)
    await lab.api.patch(CONFIGMAPS, "kept", b'{"data":{"x":"2"}}', MERGE_PATCH, DEFAULT)
    await lab.restart_edge()  # which forgets what was deleted lately
    version = (await lab.ask(MAPS))[1]["metadata"]["resourceVersion"]
    task = lab.group.create_task(watch())
    await until(lab.is_watched)
    await until(lambda: _true(names().count("missed") == 2 and "kept" in names()))
    lab.link.connected = True
    lab.watches.node_connected("edge-1")
    lab.link.switch(True)
    await lab.put("last")
    await until(lambda: _true(("ADDED", "last") in seen))
    assert seen == [("MODIFIED", "kept"), ("ADDED", "last")]
    task.cancel()


@with_lab
async def test_an_object_that_leaves_a_selection_is_deleted_at_the_edge(lab):
    made = await lab.put("s")
    made["metadata"]["labels"] = {"on": "1"}
    await lab.api.update(CONFIGMAPS, "s", msgspec.json.encode(made), DEFAULT)
    path = f"{MAPS}?labelSelector=on%3D1"
    assert names((await lab.ask(path))[1]) == ["s"]
    await lab.api.patch(
        CONFIGMAPS, "s", b'{"metadata":{"labels":null}}', "application/merge-patch+json", DEFAULT
    )

    async def gone():
        return names((await lab.ask(path))[1]) == []

    await until(gone)
    assert lab.server.replica.get.__self__.count()
    assert len(lab.watches) == lab.watches.resources == 1


@with_lab
async def test_discovery_and_tables_are_known_offline_after_a_restart(lab):
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    await lab.ask("/api/v1")
    await lab.ask("/api/v1/namespaces", **table)
    lab.link.switch(False)
    lab.task.cancel()
    lab.close_store()
    lab.edge(lab.stack, lab.group)
    status, found, headers = await lab.ask("/api/v1/namespaces", **table)
    assert (status, found["kind"]) == (200, "Table")
    assert [c["name"] for c in found["columnDefinitions"]] == ["Name", "Status", "Age"]
    assert headers["x-edgehive-freshness"].startswith("as-of=")
    assert (await lab.ask("/api/v1"))[1]["kind"] == "APIResourceList"


@with_lab
async def test_bottomless_bodies_are_refused_like_other_nonsense(lab):
    url = await lab.url()
    async with aiohttp.ClientSession() as session:
        for method, path, kind in (
            ("POST", MAPS, "application/json"),
            ("PUT", f"{MAPS}/a", "application/json"),
            ("DELETE", f"{MAPS}/a", "application/json"),
            ("POST", "/api/v1/namespaces/default/pods/restart", "application/json"),
        ):
            headers = {"Content-Type": kind}
            async with session.request(method, url + path, data=b"[" * 1_000_000, headers=headers) as answer:
                assert answer.status == 400, (method, path, await answer.text())


@with_lab
async def test_what_clients_ask_first_is_kept_before_any_client_comes(lab):
    await lab.server.follower.prefetch()
    lab.link.switch(False)
    assert (await lab.ask("/version"))[0] == 200
    assert (await lab.ask("/api/v1"))[1]["kind"] == "APIResourceList"
    assert (await lab.ask("/apis/apps/v1"))[0] == 503


def config(server="127.0.0.1:10550", **gates):
    meta = MetaManager(meta_server=MetaServerConfig(enable=True, server=server))
    return EdgeCoreConfig(modules=Modules(meta_manager=meta), feature_gates=gates)


def test_only_loopback_is_served_without_the_gate():
    assert check_config(config()) == Listening((("127.0.0.1", 10550),))
    assert check_config(config()).for_pods == ("", "")
    for wrong in ("0.0.0.0:10550", "169.254.30.10:10550", "edge.example.com:10550"):
        with pytest.raises(UserError):
            check_config(config(wrong))


def test_with_the_gate_pods_are_told_the_dummy_address():
    found = check_config(config(requireAuthorization=True))
    assert found.secure
    assert found.addresses == (("127.0.0.1", 10550), ("169.254.30.10", 10550))
    assert found.for_pods == ("169.254.30.10", "10550")
    with pytest.raises(UserError, match="address"):
        check_config(config("edge.example.com:10550", requireAuthorization=True))


@with_lab
async def test_a_kind_nobody_serves_cannot_be_watched(lab):
    from edgehive.kube.status import ApiStatus
    from edgehive.wire.application import WATCH, Application, ResourceKey

    watch = Application(str(ResourceKey(GVR("x.io", "v1", "things"))), WATCH, "edge-1", b"{}").identified()
    with pytest.raises(ApiStatus) as caught:
        await lab.watches.add(watch)
    assert caught.value.code == 404
    failed = await lab.watches.sync("edge-1", {watch.id: watch})
    assert [a.status for a in failed] == ["Rejected"]
