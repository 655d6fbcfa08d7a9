import asyncio
import base64
import contextlib
import io
import json
import ssl
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgehive.apiserver.app import ApiServer, ApiServerOptions
from edgehive.kit.errors import UserError
from edgehive.kube.api import APPLY_PATCH, JSON_PATCH, MERGE_PATCH
from edgehive.kube.refs import CONFIGMAPS


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """One directory for the module: making certificates takes most of a second."""
    return tmp_path_factory.mktemp("control-plane")


@dataclass
class Client:
    server: ApiServer
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        names = {k.replace("_", "-"): v for k, v in headers.items()}
        data = (
            json.dumps(body) if body is not None and not isinstance(body, str | bytes | io.BytesIO) else body
        )
        if data is not None:
            names.setdefault("content-type", "application/json")
        async with self.session.request(method, self.server.url + path, data=data, headers=names) as answer:
            raw = await answer.read()
            kind = answer.headers.get("content-type", "")
            return answer.status, json.loads(raw) if "json" in kind and raw else raw, answer.headers


def tls(server: ApiServer, client: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=server.pki.ca_pem())
    if client:
        context.load_cert_chain(server.pki.cert(client), server.pki.key(client))
    return context


@contextlib.asynccontextmanager
async def running(home: Path, **options) -> AsyncIterator[ApiServer]:
    server = ApiServer(ApiServerOptions(directory=home, port=0, **options))
    await server.start()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        try:
            yield server
        finally:
            task.cancel()


@contextlib.asynccontextmanager
async def client_of(server: ApiServer, client: str = "admin", token: str = "") -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(ssl=tls(server, client))
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        yield Client(server, session)


@pytest.fixture
async def admin(home) -> AsyncIterator[Client]:
    (home / "state.db").unlink(missing_ok=True)
    (home / "state.db-wal").unlink(missing_ok=True)
    async with running(home) as server, client_of(server) as client:
        yield client


NS = "/api/v1/namespaces/default"


async def test_keys_are_private(admin, home):
    for key in (home / "pki").glob("*"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "state.db").stat().st_mode) == 0o600


async def test_health_and_version_need_no_credentials(admin):
    async with client_of(admin.server, "") as nobody:
        for path in ("/healthz", "/livez", "/readyz"):
            assert (await nobody.ask("GET", path))[:2] == (200, b"ok")
        status, text, _ = await nobody.ask("GET", "/readyz?verbose")
        assert (status, b"[+]store ok" in text) == (200, True)
        assert (await nobody.ask("GET", "/livez/ping"))[1] == b"ok"
        assert (await nobody.ask("GET", "/version"))[1]["major"] == "1"
        status, body, _ = await nobody.ask("GET", "/api/v1/pods")
        assert status == 403
        assert body["message"] == (
            'pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" at the cluster scope'
        )
        status, body, _ = await nobody.ask("GET", "/apis")
        assert (status, body["message"]) == (
            403,
            'forbidden: User "system:anonymous" cannot get path "/apis"',
        )


async def test_bad_tokens_are_401(admin):
    for token in ("nonsense", "a.b.c", "x" * 20000):
        async with client_of(admin.server, "", token) as liar:
            status, body, _ = await liar.ask("GET", "/version")
            assert (status, body["reason"]) == (401, "Unauthorized")


async def test_plain_discovery(admin):
    assert (await admin.ask("GET", "/api"))[1]["versions"] == ["v1"]
    groups = (await admin.ask("GET", "/apis"))[1]
    assert "apps" in [g["name"] for g in groups["groups"]]
    rows = (await admin.ask("GET", "/api/v1"))[1]["resources"]
    pods = next(r for r in rows if r["name"] == "pods")
    assert (pods["shortNames"], pods["kind"], pods["namespaced"]) == (["po"], "Pod", True)
    assert next(r for r in rows if r["name"] == "pods/eviction")["group"] == "policy"
    assert (await admin.ask("GET", "/apis/apps"))[1]["preferredVersion"]["version"] == "v1"
    assert (await admin.ask("GET", "/apis/nonsense/v1"))[0] == 404


async def test_aggregated_discovery_and_its_etag(admin):
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    status, body, headers = await admin.ask("GET", "/apis", accept=accept)
    assert (status, body["kind"]) == (200, "APIGroupDiscoveryList")
    assert "as=APIGroupDiscoveryList" in headers["content-type"]
    apps = next(i for i in body["items"] if i["metadata"]["name"] == "apps")
    deployments = next(r for r in apps["versions"][0]["resources"] if r["resource"] == "deployments")
    assert {s["subresource"] for s in deployments["subresources"]} == {"status", "scale"}
    assert (await admin.ask("GET", "/apis", accept=accept, if_none_match=headers["etag"]))[0] == 304


async def test_a_life_over_http(admin):
    status, made, _ = await admin.ask(
        "POST", f"{NS}/configmaps", {"metadata": {"name": "c"}, "data": {"a": "1"}}
    )
    assert status == 201
    made["data"]["a"] = "2"
    assert (await admin.ask("PUT", f"{NS}/configmaps/c", made))[0] == 200
    assert (await admin.ask("PUT", f"{NS}/configmaps/c", made))[0] == 409
    patch = "data: {b: '3'}\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
    status, body, _ = await admin.ask(
        "PATCH", f"{NS}/configmaps/c?fieldManager=me", patch, content_type="application/apply-patch+yaml"
    )
    assert (status, body["data"]) == (200, {"a": "2", "b": "3"})
    status, listed, _ = await admin.ask("GET", f"{NS}/configmaps?labelSelector=!x&limit=1")
    assert listed["kind"] == "ConfigMapList"
    assert listed["metadata"]["continue"]
    assert (await admin.ask("DELETE", f"{NS}/configmaps/c"))[1]["status"] == "Success"
    status, body, _ = await admin.ask("GET", f"{NS}/configmaps/c")
    assert (status, body["reason"], body["message"]) == (404, "NotFound", 'configmaps "c" not found')


async def test_yaml_and_content_types(admin):
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\ndata: {day: 2020-01-01}\n"
    status, body, _ = await admin.ask("POST", f"{NS}/configmaps", text, content_type="application/yaml")
    assert (status, body["data"]) == (201, {"day": "2020-01-01"})
    status, raw, headers = await admin.ask("GET", f"{NS}/configmaps/y", accept="application/yaml")
    assert headers["content-type"] == "application/yaml"
    assert b"kind: ConfigMap" in raw
    assert (await admin.ask("POST", f"{NS}/configmaps", "x", content_type="text/html"))[0] == 415
    assert (await admin.ask("POST", f"{NS}/configmaps", "{"))[0] == 400
    assert (await admin.ask("POST", f"{NS}/configmaps", "[]"))[0] == 400
    assert (await admin.ask("POST", f"{NS}/configmaps", ""))[0] == 400
    bomb = "a: &a [x]\nb: *a\n"
    assert (await admin.ask("POST", f"{NS}/configmaps", bomb, content_type="application/yaml"))[0] == 400
    assert (await admin.ask("POST", f"{NS}/configmaps", io.BytesIO(b"x" * 4_000_000)))[0] == 413
    for depth in (300, 900, 5_000, 100_000):
        deep = b'{"metadata":' + b'{"a":' * depth + b"1" + b"}" * (depth + 1)
        assert (await admin.ask("POST", f"{NS}/configmaps", deep))[0] == 400, depth


async def test_an_object_is_only_as_deep_as_everything_can_follow_however_it_got_so(admin):
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": free}}
    names = {"plural": "wells", "singular": "well", "kind": "Well", "listKind": "WellList"}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "wells.example.com"},
        "spec": {"group": "example.com", "names": names, "scope": "Namespaced", "versions": [version]},
    }
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert (await admin.ask("POST", definitions, crd))[0] == 201
    wells = "/apis/example.com/v1/namespaces/default/wells"

    def nested(depth):
        found = {}
        for _ in range(depth):
            found = {"a": found}
        return found

    well = {"apiVersion": "example.com/v1", "kind": "Well", "metadata": {"name": "w"}}
    assert (await admin.ask("POST", wells, well | {"spec": nested(240)}))[0] == 201
    body = {"spec": nested(239) | {"b": 1}}
    assert (await admin.ask("PATCH", f"{wells}/w", body, content_type=MERGE_PATCH))[0] == 200
    applied = json.dumps(well | {"spec": nested(239) | {"c": 1}})
    status, answer, _ = await admin.ask(
        "PATCH", f"{wells}/w?fieldManager=m&force=true", applied, content_type=APPLY_PATCH
    )
    assert status == 200, answer
    assert (await admin.ask("POST", wells, well | {"spec": nested(260)}))[0] == 400
    body = {"spec": nested(260)}
    assert (await admin.ask("PATCH", f"{wells}/w", body, content_type=MERGE_PATCH))[0] == 400
    dig = [{"op": "add", "path": "/x0", "value": {}}]
    for step in range(200):
        dig += [{"op": "add", "path": f"/x{step + 1}", "value": {}}]
        dig += [{"op": "move", "from": f"/x{step}", "path": f"/x{step + 1}/a"}]
    assert (await admin.ask("PATCH", f"{wells}/w", dig, content_type=JSON_PATCH))[0] == 200
    dig += [{"op": "add", "path": "/y", "value": nested(200)}]
    dig += [{"op": "move", "from": "/x200", "path": "/y" + "/a" * 200 + "/b"}]
    assert (await admin.ask("PATCH", f"{wells}/w", dig, content_type=JSON_PATCH))[0] == 400


async def test_accept(admin):
    protobuf = "application/vnd.kubernetes.protobuf"
    path = f"{NS}/services/kubernetes"
    assert (await admin.ask("GET", path, accept=f"{protobuf},application/json"))[0] == 200
    assert (await admin.ask("GET", path, accept=protobuf))[0] == 406
    table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    body = (await admin.ask("GET", f"{NS}/services", accept=table))[1]
    assert body["kind"] == "Table"
    assert body["rows"][0]["cells"][0] == "kubernetes"
    assert body["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    body = (await admin.ask("GET", f"{NS}/services", accept=partial))[1]
    assert (body["kind"], "spec" in body["items"][0]) == ("PartialObjectMetadataList", False)


async def test_a_watch_over_http(admin):
    rv = (await admin.ask("GET", f"{NS}/configmaps"))[1]["metadata"]["resourceVersion"]
    url = f"{admin.server.url}{NS}/configmaps?watch=true&resourceVersion={rv}&timeoutSeconds=30"
    async with admin.session.get(url) as stream:
        assert stream.status == 200
        await admin.ask("POST", f"{NS}/configmaps", {"metadata": {"name": "w"}})
        line = json.loads(await stream.content.readline())
        assert (line["type"], line["object"]["metadata"]["name"]) == ("ADDED", "w")
    url = f"{admin.server.url}{NS}/configmaps?watch=true&resourceVersion=999999"
    async with admin.session.get(url) as stream:
        line = json.loads(await stream.content.readline())
        assert (line["type"], line["object"]["code"]) == ("ERROR", 410)


async def test_a_watch_of_tables(admin):
    table = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    url = f"{admin.server.url}{NS}/services?watch=true&timeoutSeconds=1"
    async with admin.session.get(url, headers=table) as stream:
        line = json.loads(await stream.content.readline())
    assert line["object"]["kind"] == "Table"
    assert line["object"]["columnDefinitions"]


async def test_subresources(admin, pod):
    await admin.ask("POST", f"{NS}/pods", pod())
    binding = {"target": {"kind": "Node", "name": "n1"}}
    assert (await admin.ask("POST", f"{NS}/pods/p/binding", binding))[0] == 201
    status, body, _ = await admin.ask("POST", f"{NS}/pods/p/binding", binding)
    assert (status, "already assigned" in body["message"]) == (409, True)
    found = (await admin.ask("GET", f"{NS}/pods/p"))[1]
    assert found["spec"]["nodeName"] == "n1"
    assert found["status"]["conditions"][0]["type"] == "PodScheduled"
    other = pod("q")
    await admin.ask("POST", f"{NS}/pods", other)
    legacy = {"metadata": {"name": "q"}, "target": {"name": "n2"}}
    assert (await admin.ask("POST", f"{NS}/bindings", legacy))[0] == 201
    assert (await admin.ask("POST", f"{NS}/pods/p/eviction", {"metadata": {"name": "p"}}))[0] == 201
    assert (await admin.ask("GET", f"{NS}/pods/p"))[1]["metadata"]["deletionTimestamp"]
    assert (await admin.ask("GET", f"{NS}/pods/p/log"))[0] == 503
    assert (await admin.ask("GET", f"{NS}/pods/p/binding"))[0] == 405
    assert (await admin.ask("PUT", f"{NS}/pods", {}))[0] == 405


async def test_scale(admin, pod):
    template = {"metadata": {"labels": {"app": "a"}}, "spec": pod()["spec"]}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "a"}}, "template": template}
    path = "/apis/apps/v1/namespaces/default/deployments"
    assert (await admin.ask("POST", path, {"metadata": {"name": "d"}, "spec": spec}))[0] == 201
    scale = (await admin.ask("GET", f"{path}/d/scale"))[1]
    assert (scale["kind"], scale["spec"]["replicas"], scale["status"]["selector"]) == ("Scale", 2, "app=a")
    scale["spec"]["replicas"] = 5
    assert (await admin.ask("PUT", f"{path}/d/scale", scale))[1]["spec"]["replicas"] == 5
    assert (await admin.ask("PUT", f"{path}/d/scale", scale))[0] == 409
    merge = "application/merge-patch+json"
    body = (await admin.ask("PATCH", f"{path}/d/scale", {"spec": {"replicas": 7}}, content_type=merge))[1]
    assert body["spec"]["replicas"] == 7
    assert (await admin.ask("PATCH", f"{path}/d/scale", {"spec": {"replicas": -1}}, content_type=merge))[
        0
    ] == 422
    assert (await admin.ask("GET", f"{path}/d"))[1]["spec"]["replicas"] == 7


async def test_service_account_tokens_live_as_long_as_what_they_are_bound_to(admin, pod):
    made = (await admin.ask("POST", f"{NS}/pods", pod(nodeName="n1")))[1]
    uid = made["metadata"]["uid"]
    ref = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}
    asked = {"spec": {"expirationSeconds": 3607, "boundObjectRef": ref}}
    status, answer, _ = await admin.ask("POST", f"{NS}/serviceaccounts/default/token", asked)
    assert status == 201
    token = answer["status"]["token"]
    head, claims = (json.loads(base64.urlsafe_b64decode(p + "==")) for p in token.split(".")[:2])
    assert head["alg"] == "ES256"
    assert claims["sub"] == "system:serviceaccount:default:default"
    assert claims["kubernetes.io"]["pod"] == {"name": "p", "uid": uid}
    assert claims["exp"] - claims["iat"] == 365 * 24 * 3600
    assert claims["kubernetes.io"]["warnafter"] - claims["iat"] == 3607
    async with client_of(admin.server, "", token) as account:
        assert (await account.ask("GET", "/api"))[0] == 200
        review = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        who = (await account.ask("POST", review, {}))[1]["status"]["userInfo"]
        assert who["username"] == "system:serviceaccount:default:default"
        assert who["extra"]["authentication.kubernetes.io/pod-name"] == ["p"]
        assert (await account.ask("GET", f"{NS}/secrets"))[0] == 403
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        reviewed = (await admin.ask("POST", path, {"spec": {"token": token}}))[1]["status"]
        assert reviewed["authenticated"] is True
        await admin.ask("DELETE", f"{NS}/pods/p", {"gracePeriodSeconds": 0})
        assert (await account.ask("GET", "/api"))[0] == 401
    for wrong in ({"expirationSeconds": 10}, {"boundObjectRef": {"kind": "Pod", "name": "gone"}}):
        status, _, _ = await admin.ask("POST", f"{NS}/serviceaccounts/default/token", {"spec": wrong})
        assert status in {404, 422}


async def test_impersonation(admin):
    status, body, _ = await admin.ask(
        "GET", f"{NS}/secrets", impersonate_user="system:node:n1", impersonate_group="system:nodes"
    )
    assert status == 403
    assert 'User "system:node:n1" cannot list resource "secrets"' in body["message"]
    assert (await admin.ask("GET", "/api", impersonate_group="x"))[0] == 400
    async with client_of(admin.server, "cloudcore") as cloudcore:
        assert (await cloudcore.ask("GET", "/api/v1/nodes"))[0] == 200
        assert (await cloudcore.ask("DELETE", "/api/v1/namespaces/kubeedge"))[0] == 403
        headers = {"impersonate_user": "system:node:n1", "impersonate_group": "system:nodes"}
        assert (await cloudcore.ask("GET", "/api/v1/nodes/n1", **headers))[0] == 404


async def test_may_i(admin):
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    spec = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}
    assert (await admin.ask("POST", path, {"spec": spec}))[1]["status"]["allowed"] is True
    headers = {"impersonate_user": "somebody"}
    assert (await admin.ask("POST", path, {"spec": spec}, **headers))[1]["status"]["allowed"] is False


async def test_metrics(admin):
    await admin.ask("GET", f"{NS}/pods")
    text = (await admin.ask("GET", "/metrics"))[1].decode()
    assert 'apiserver_request_total{verb="list",resource="pods",code="200"}' in text
    assert 'apiserver_storage_objects{resource="namespaces"} 5' in text


async def test_warnings_travel_in_headers(admin):
    body = {"metadata": {"name": "c"}, 'odd"\r\nname': 1}
    _, _, headers = await admin.ask("POST", f"{NS}/configmaps", body)
    assert headers["warning"].startswith('299 - "unknown field')
    assert "\n" not in headers["warning"]


async def test_a_restart_finds_everything_and_watches_go_on(home):
    (home / "state.db").unlink(missing_ok=True)
    async with running(home) as server, client_of(server) as client:
        await client.ask("POST", f"{NS}/configmaps", {"metadata": {"name": "c"}})
        before = (await client.ask("GET", f"{NS}/configmaps"))[1]
        await client.ask("POST", f"{NS}/configmaps", {"metadata": {"name": "d"}})
        port = server.port
    async with running(home) as server, client_of(server) as client:
        after = (await client.ask("GET", f"{NS}/configmaps"))[1]
        assert [i for i in after["items"] if i["metadata"]["name"] != "d"] == before["items"]
        rv = before["metadata"]["resourceVersion"]
        url = f"{server.url}{NS}/configmaps?watch=true&resourceVersion={rv}"
        async with client.session.get(url) as stream:
            assert json.loads(await stream.content.readline())["object"]["metadata"]["name"] == "d"
        assert port != 0


async def test_the_local_api_is_the_same_api(admin):
    from edgehive.kube.api import ListOptions, WriteOptions

    api = admin.server.local_api()
    await api.create(CONFIGMAPS, b'{"metadata":{"name":"l"}}', WriteOptions(namespace="default"))
    page = await api.list(CONFIGMAPS, ListOptions(namespace="default"))
    assert len(page.items) == 2
    assert (await admin.ask("GET", f"{NS}/configmaps/l"))[0] == 200


async def test_static_tokens(home, tmp_path):
    path = tmp_path / "tokens"
    path.write_text('secret-token,ops,1,"system:masters"\n')
    path.chmod(0o644)
    server = ApiServer(ApiServerOptions(directory=home, port=0, token_file=path))
    with pytest.raises(UserError, match="read by others"):
        await server.start()
    await server.storage.close()
    path.chmod(0o600)
    async with running(home, token_file=path) as server, client_of(server, "", "secret-token") as ops:
        assert (await ops.ask("GET", "/api/v1/pods"))[0] == 200


async def test_a_taken_port_is_a_clear_error(admin, tmp_path):
    other = ApiServer(ApiServerOptions(directory=tmp_path, port=admin.server.port))
    with pytest.raises(UserError, match="in use"):
        await other.start()
    await other.close()
