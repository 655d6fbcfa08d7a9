import asyncio
import base64
import datetime
import json
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.aio.http import Request
from edgehive.aio.pki import key_pem, new_key
from edgehive.aio.storage import Storage
from edgehive.apiserver.authn import impersonated, parse_token_file
from edgehive.apiserver.authz import Authorizer, static_bindings
from edgehive.apiserver.catalog import version_rank
from edgehive.apiserver.codec import decode_json, decode_yaml
from edgehive.apiserver.context import User
from edgehive.apiserver.kinds import qos_class
from edgehive.apiserver.negotiate import choose
from edgehive.apiserver.nodeauthz import check_mirror
from edgehive.apiserver.paths import Target, parse_target
from edgehive.apiserver.protobuf import ProtobufDecoder
from edgehive.apiserver.signer import ChildSigner, LocalSigner, SignerError
from edgehive.apiserver.tokens import Bound, Tokens
from edgehive.kit.errors import UserError
from edgehive.kube.rules import Attributes
from edgehive.kube.status import ApiStatus
from edgehive.store.log import MemoryLog

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


# -- URLs


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/pods", Target("", "v1", "pods")),
        ("/api/v1/namespaces", Target("", "v1", "namespaces")),
        ("/api/v1/namespaces/n", Target("", "v1", "namespaces", "n", "n")),
        ("/api/v1/namespaces/n/finalize", Target("", "v1", "namespaces", "n", "n", "finalize")),
        ("/api/v1/namespaces/n/status", Target("", "v1", "namespaces", "n", "n", "status")),
        ("/api/v1/namespaces/n/pods/p/log", Target("", "v1", "pods", "n", "p", "log")),
        ("/api/v1/nodes/a/proxy/b/c", Target("", "v1", "nodes", "", "a", "proxy", "b/c")),
        ("/apis/apps/v1/namespaces/n/deployments", Target("apps", "v1", "deployments", "n")),
        ("/apis/apps/v1/watch/deployments", Target("apps", "v1", "deployments", watch=True)),
        ("/api/v1/watch/namespaces/n/pods/p", Target("", "v1", "pods", "n", "p", watch=True)),
        ("/api/v1/namespaces/n/configmaps/a%2Fb", Target("", "v1", "configmaps", "n", "a/b")),
        ("/api/v1", None),
        ("/apis/apps/v1", None),
        ("/healthz", None),
        ("/", None),
        ("/api/v1//pods", None),
    ],
)
def test_paths(path, target):
    assert parse_target(path) == target


@given(st.text(alphabet="/abc%2F0.", max_size=40))
def test_any_path_is_parsed_or_refused(path):
    parse_target("/api/v1/" + path)


def test_versions_are_ranked_as_kubernetes_does():
    names = ["v1alpha1", "v2", "v1", "v1beta2", "v1beta10", "foo"]
    assert sorted(names, key=version_rank) == ["v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]


# -- content negotiation


@pytest.mark.parametrize(
    ("accept", "transform", "media"),
    [
        ("", "", "application/json"),
        ("*/*", "", "application/json"),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "Table", "application/json"),
        ("application/json;as=Nonsense;v=v1;g=meta.k8s.io,application/json", "", "application/json"),
        ("application/vnd.kubernetes.protobuf,application/yaml", "", "application/yaml"),
        ("application/yaml;q=0.5,application/json;q=0.9", "", "application/json"),
        ("application/json;stream=watch", "", "application/json"),
        ("application/json;q=nonsense,*/*", "", "application/json"),
    ],
)
def test_accept_headers(accept, transform, media):
    request = Request("GET", "/", headers={"accept": accept} if accept else {})
    form = choose(request)
    assert (form.transform, form.media) == (transform, media)


def test_nothing_acceptable_is_406():
    with pytest.raises(ApiStatus) as caught:
        choose(Request("GET", "/", headers={"accept": "text/html"}))
    assert caught.value.code == 406


# -- bodies


def test_yaml_is_read_as_json():
    text = b"{1: a, b: 2020-01-01, c: 0x10, d: yes}"
    assert decode_yaml(b"x: " + text) == {"x": {"1": "a", "b": "2020-01-01", "c": 16, "d": True}}
    for bad in (
        b"a: [",
        b"? [a]\n: b",
        b"a: !!python/object:os.system x",
        b"yes: 1",
        b"\xff",
        b"a: &x 1\nb: *x\n",
    ):
        with pytest.raises(ApiStatus) as caught:
            decode_yaml(bad)
        assert caught.value.code == 400


@given(st.binary(max_size=60))
def test_no_bytes_break_the_body_readers(data):
    for read in (decode_yaml, decode_json):
        with suppress(ApiStatus):
            read(data)


# -- tokens


def make_tokens() -> Tokens:
    return Tokens(LocalSigner(new_key), lambda: "id")


async def test_a_token_says_what_it_was_made_for():
    tokens = make_tokens()
    bound = Bound("ns", "sa", "uid", "Pod", "p", "pod-uid", "n1", "node-uid")
    token, seconds = await tokens.issue(bound, tokens.audiences, 600, NOW)
    claims = await tokens.verify(token, NOW)
    assert seconds == 600
    assert claims.bound == bound
    assert claims.user().name == "system:serviceaccount:ns:sa"
    assert claims.user().extra["authentication.kubernetes.io/node-name"] == ["n1"]
    assert await tokens.verify(token, NOW + datetime.timedelta(seconds=601)) is None


async def test_only_our_own_unchanged_tokens_verify():
    tokens, other = make_tokens(), make_tokens()
    token, _ = await tokens.issue(Bound("ns", "sa", "uid"), tokens.audiences, 600, NOW)
    assert await other.verify(token, NOW) is None
    head, payload, signature = token.split(".")
    forged = json.loads(base64.urlsafe_b64decode(payload + "=="))
    forged["kubernetes.io"]["namespace"] = "kube-system"
    changed = base64.urlsafe_b64encode(json.dumps(forged).encode()).rstrip(b"=").decode()
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    for bad in (
        f"{head}.{changed}.{signature}",
        f"{head}.{payload}.",
        f"{none}.{payload}.",
        f"{head}.{payload}.{'A' * 86}",
        f"{head}.{payload}",
        f"{head}.{payload}.é",
    ):
        assert await tokens.verify(bad, NOW) is None


@given(st.text(max_size=60))
def test_no_text_breaks_the_token_reader(text):
    async def run() -> None:
        assert await TOKENS.verify(text, NOW) is None
        assert await TOKENS.verify(f"e30.{text}.e30", NOW) is None

    asyncio.run(run())


TOKENS = make_tokens()


async def test_a_key_in_another_process_signs_as_one_in_this(tmp_path):
    key = new_key()
    path = tmp_path / "sa.key"
    path.write_bytes(key_pem(key))
    here, there = LocalSigner(lambda: key), ChildSigner(path)
    assert await there.key_id() == await here.key_id()
    signature = await there.sign(b"data")
    assert await here.verify(b"data", signature)
    assert await there.verify(b"data", await here.sign(b"data"))
    assert not await there.verify(b"other", signature)
    there._child.kill()  # as when it was idle for too long
    await there._child.wait()
    assert await there.verify(b"data", signature)
    async with asyncio.TaskGroup() as group:
        many = [group.create_task(there.sign(b"%d" % i)) for i in range(10)]
        group.create_task(there.sign(b"nobody waits")).cancel()
    for i, task in enumerate(many):
        assert await here.verify(b"%d" % i, task.result())
    await there.close()


async def test_a_missing_key_is_an_error_not_a_wrong_token(tmp_path):
    signer = ChildSigner(tmp_path / "missing")
    with pytest.raises(SignerError):
        await signer.sign(b"data")
    await signer.close()


def test_token_files():
    users = parse_token_file('# comment\ntok,ann,7,"a,b"\n\ntok2,bob,8\n')
    assert {(u.name, u.uid, u.groups) for u in users.values()} == {
        ("ann", "7", ("a", "b", "system:authenticated")),
        ("bob", "8", ("system:authenticated",)),
    }
    with pytest.raises(UserError, match="line 1"):
        parse_token_file("only-a-token")


# -- authorization


def make_authorizer() -> Authorizer:
    return Authorizer(storage=Storage(MemoryLog()), bindings=static_bindings())


CLOUDCORE = User("system:cloudcore", ("system:cloudcore", "system:authenticated"))
ADMIN = User("root", ("system:masters",))
NODE = User("system:node:n1", ("system:nodes", "system:authenticated"))
NOBODY = User("system:anonymous", ("system:unauthenticated",))
ACCOUNT = User("system:serviceaccount:a:b", ("system:serviceaccounts", "system:authenticated"))


@pytest.mark.parametrize(
    ("user", "action", "allowed"),
    [
        (ADMIN, Attributes("delete", "x", "y"), True),
        (ADMIN, Attributes("get", path="/metrics"), True),
        (CLOUDCORE, Attributes("list", "", "pods"), True),
        (CLOUDCORE, Attributes("patch", "", "nodes", "status"), True),
        (CLOUDCORE, Attributes("create", "", "serviceaccounts", "token"), True),
        (CLOUDCORE, Attributes("create", "reliablesyncs.kubeedge.io", "objectsyncs"), True),
        (CLOUDCORE, Attributes("delete", "", "namespaces"), False),
        (CLOUDCORE, Attributes("impersonate", "", "users", name="system:node:n1"), True),
        (CLOUDCORE, Attributes("impersonate", "", "groups", name="system:nodes"), True),
        (CLOUDCORE, Attributes("impersonate", "", "groups", name="system:masters"), False),
        (CLOUDCORE, Attributes("impersonate", "", "users", name="kubernetes-admin"), False),
        (CLOUDCORE, Attributes("create", "", "pods", "exec"), False),
        (CLOUDCORE, Attributes("get", path="/metrics"), False),
        (ACCOUNT, Attributes("get", path="/api/v1"), True),
        (ACCOUNT, Attributes("get", "", "pods"), False),
        (ACCOUNT, Attributes("post", path="/api"), False),
        (NOBODY, Attributes("get", path="/readyz/ping"), True),
        (NOBODY, Attributes("get", path="/api"), False),
        (NODE, Attributes("patch", "", "nodes", "status", name="n1"), True),
        (NODE, Attributes("patch", "", "nodes", "status", name="n2"), False),
        (NODE, Attributes("create", "", "nodes"), True),
        (NODE, Attributes("list", "", "pods", field_node="n1"), True),
        (NODE, Attributes("list", "", "pods"), False),
        (NODE, Attributes("get", "", "secrets", namespace="a", name="s"), False),
        (NODE, Attributes("list", "", "secrets", namespace="a"), False),
        (NODE, Attributes("update", "coordination.k8s.io", "leases", "", "kube-node-lease", "n1"), True),
        (NODE, Attributes("update", "coordination.k8s.io", "leases", "", "kube-node-lease", "n2"), False),
        (NODE, Attributes("update", "coordination.k8s.io", "leases", "", "default", "n1"), False),
    ],
)
def test_who_may_do_what(user, action, allowed):
    assert make_authorizer().allows(user, action) is allowed


async def test_a_node_sees_what_its_pods_use(cluster, pod):
    spec = {
        "nodeName": "n1",
        "volumes": [
            {"name": "v", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
            {"name": "w", "configMap": {"name": "mounted"}},
        ],
        "imagePullSecrets": [{"name": "pull"}],
    }
    body = pod("p", **spec)
    body["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "env"}}]
    await cluster.create("pods", body)
    authorizer = Authorizer(storage=cluster.storage, bindings=())
    other = User("system:node:n2", ("system:nodes",))

    def may(user: User, resource: str, name: str) -> bool:
        return authorizer.allows(user, Attributes("get", "", resource, "", "default", name))

    for resource, name in [
        ("secrets", "projected"),
        ("configmaps", "mounted"),
        ("secrets", "pull"),
        ("secrets", "env"),
    ]:
        assert may(NODE, resource, name)
        assert not may(other, resource, name)
    assert not may(NODE, "secrets", "another")
    assert may(NODE, "pods", "p")
    assert not may(other, "pods", "p")
    token = Attributes("create", "", "serviceaccounts", "token", "default", "default")
    assert authorizer.allows(NODE, token)
    assert not authorizer.allows(other, token)


async def test_a_mirror_pod_gives_its_node_no_rights(cluster, pod):
    body = pod("static-n1", nodeName="n1", imagePullSecrets=[{"name": "pull"}])
    body["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    await cluster.create("pods", body)
    authorizer = Authorizer(storage=cluster.storage, bindings=())
    # The same node could make it anywhere, and so would be everybody.
    for action in (
        Attributes("create", "", "serviceaccounts", "token", "default", "default"),
        Attributes("get", "", "secrets", "", "default", "pull"),
    ):
        assert not authorizer.allows(NODE, action)
    assert authorizer.allows(NODE, Attributes("get", "", "pods", "", "default", "static-n1"))


def test_a_node_creates_only_its_own_mirror_pods():
    mirror = {"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {"nodeName": "n1"}}
    check_mirror(NODE, mirror)
    check_mirror(ADMIN, {})
    for bad in (
        {"spec": {"nodeName": "n1"}},
        {**mirror, "spec": {"nodeName": "n2"}},
        {**mirror, "spec": {"nodeName": "n1", "volumes": [{"secret": {"secretName": "s"}}]}},
        {**mirror, "spec": {"nodeName": "n1", "volumes": [{"persistentVolumeClaim": {"claimName": "c"}}]}},
        {**mirror, "spec": {"nodeName": "n1", "serviceAccountName": "admin"}},
        {**mirror, "spec": {"nodeName": "n1", "serviceAccount": "admin"}},
    ):
        with pytest.raises(ApiStatus):
            check_mirror(NODE, bad)


def test_impersonation_headers():
    headers = [("impersonate-user", "u"), ("impersonate-group", "a"), ("impersonate-group", "b")]
    headers.append(("impersonate-extra-reason%2fx", "y"))
    request = Request("GET", "/", headers=dict(headers), header_list=headers)
    user = impersonated(request)
    assert user == User("u", ("a", "b", "system:authenticated"), "", {"reason/x": ["y"]})
    assert impersonated(Request("GET", "/")) is None


# -- pods


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}}, "Guaranteed"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
    ],
)
def test_qos(resources, expected):
    assert qos_class({"containers": [{"resources": resources}]}) == expected


# -- protobuf


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def part(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    return (
        b"k8s\x00" + part(1, part(1, api_version) + part(2, kind)) + part(2, raw) + part(3, "") + part(4, "")
    )


def test_protobuf_bodies_say_what_json_would():
    meta = part(1, "d") + part(3, "") + part(7, 0) + part(8, b"") + part(11, part(1, "a") + part(2, "b"))
    probe = part(1, part(2, part(1, "/x") + part(2, part(1, 1) + part(2, 0) + part(3, "http")))) + part(2, 0)
    container = part(1, "c") + part(2, "i") + part(3, "sh") + part(3, "") + part(10, probe)
    container += part(8, part(1, part(1, "cpu") + part(2, part(1, "1"))))
    volume = part(1, "v") + part(2, part(2, b""))
    pod_spec = part(1, volume) + part(2, container) + part(4, 0)
    spec = part(1, 0) + part(3, part(1, b"") + part(2, pod_spec)) + part(5, 0)
    body = envelope("apps/v1", "Deployment", part(1, meta) + part(2, spec) + part(3, b""))
    assert ProtobufDecoder().decode(body) == {
        "kind": "Deployment",
        "apiVersion": "apps/v1",
        "metadata": {"name": "d", "labels": {"a": "b"}},
        "spec": {
            "replicas": 0,
            "template": {
                "spec": {
                    "volumes": [{"name": "v", "emptyDir": {}}],
                    "terminationGracePeriodSeconds": 0,
                    "containers": [
                        {
                            "name": "c",
                            "image": "i",
                            "command": ["sh", ""],
                            "resources": {"limits": {"cpu": "1"}},
                            "livenessProbe": {"httpGet": {"path": "/x", "port": "http"}},
                        }
                    ],
                }
            },
        },
    }


def test_protobuf_scalars():
    decoder = ProtobufDecoder()
    secret = part(2, part(1, "k") + part(2, b"\x00\xff")) + part(3, "Opaque")
    assert decoder.decode(envelope("v1", "Secret", secret))["data"] == {"k": "AP8="}
    micro = part(1, 1767225600) + part(2, 5000)
    lease = part(2, part(1, "me") + part(2, -1) + part(4, micro))
    spec = decoder.decode(envelope("coordination.k8s.io/v1", "Lease", lease))["spec"]
    assert spec == {
        "holderIdentity": "me",
        "leaseDurationSeconds": -1,
        "renewTime": "2026-01-01T00:00:00.000005Z",
    }
    options = part(1, 0) + part(4, "Foreground")
    assert decoder.decode(envelope("v1", "DeleteOptions", options))["gracePeriodSeconds"] == 0


def test_protobuf_that_is_none():
    decoder = ProtobufDecoder()
    with pytest.raises(ApiStatus) as caught:
        decoder.decode(envelope("example.com/v1", "Widget", b""))
    assert caught.value.code == 415
    nested = part(1, "x")
    for _ in range(100):
        nested = part(2, nested)
    for bad in (
        b"{}",
        b"k8s\x00\xff",
        b"k8s\x00" + struct.pack("<I", 7),
        envelope("v1", "Pod", part(2, 7)),
        envelope("v1", "ConfigMap", part(1, b"\xff\xff")),
    ):
        with pytest.raises(ApiStatus) as caught:
            decoder.decode(bad)
        assert caught.value.code in {400, 415}


@given(st.binary(max_size=80))
def test_no_bytes_break_the_protobuf_decoder(data):
    for body in (b"k8s\x00" + data, envelope("v1", "Pod", data)):
        try:
            DECODER.decode(body)
        except ApiStatus as exc:
            assert exc.code in {400, 415}  # noqa: PT017


DECODER = ProtobufDecoder()
