"""Who may use MetaServer with the gate on: tokens good and bad, rights, and what is counted."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.aio.http import Request
from edgehive.aio.pki import key_pem, new_key, public_key_pem
from edgehive.apiserver import tokenkey
from edgehive.apiserver.context import ANONYMOUS
from edgehive.edge.metaserver_auth import AuthSettings, Gate
from edgehive.edge.metaserver_claims import parse_access, parse_token
from edgehive.edge.metaserver_keys import KeyFiles
from edgehive.edge.store import EdgeStore
from edgehive.kit.errors import UserError
from edgehive.kube.rules import Attributes
from edgehive.kube.status import ApiStatus
from edgehive.wire.rows import Put, Remove, Row

ISSUER = "https://kubernetes.default.svc.cluster.local"
NOW = 1_800_000_000.0
PRIVATE = {
    "namespace": "home",
    "serviceaccount": {"name": "app", "uid": "u-app"},
    "pod": {"name": "web", "uid": "u-web"},
    "node": {"name": "edge-1", "uid": "u-node"},
}
CLAIMS = {
    "iss": ISSUER,
    "exp": NOW + 3600,
    "nbf": NOW - 10,
    "aud": [ISSUER],
    "jti": "j",
    "kubernetes.io": PRIVATE,
}


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def jwt(key=None, algorithm="ES256", **changes) -> str:
    head = b64(json.dumps({"alg": algorithm}).encode())
    signed = head + b"." + b64(json.dumps(CLAIMS | changes).encode())
    signature = tokenkey.sign(key, signed) if key is not None else b"signature"
    return (signed + b"." + b64(signature)).decode()


def private(**changes) -> dict:
    return {"kubernetes.io": PRIVATE | changes}


class Edge:
    def __init__(self, path) -> None:
        self.store = EdgeStore(path / "edge.db")
        self.gate = self.made()
        self.put("home/serviceaccountaccess/app", "serviceaccountaccess", access())
        self.put("home/pod/web", "pod", {"metadata": {"name": "web", "namespace": "home", "uid": "u-web"}})

    def made(self, verify=None, **settings) -> Gate:
        given_ = AuthSettings("edge-1", (ISSUER,), **settings)
        return Gate(settings=given_, store=self.store, verify=verify, wall=lambda: NOW)

    def put(self, key, kind, value) -> None:
        self.store.apply([Put(Row(key, kind, json.dumps(value).encode()))])

    def give(self, token: str, key="k") -> str:
        """As the cloud gives a token to a pod of this node."""
        self.put(key, "serviceaccounttoken", {"status": {"token": token}})
        return token

    async def code(self, token: str, gate=None) -> int:
        try:
            await (gate or self.gate).user(request(f"Bearer {token}"))
        except ApiStatus as exc:
            return exc.code
        return 200


def access(**meta) -> dict:
    rules = [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"]}]
    named = [{"verbs": ["update"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"]}]
    paths = [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]
    return {
        "metadata": {"name": "app", "namespace": "home"},
        "spec": {
            "serviceAccount": {"metadata": {"name": "app", "namespace": "home"} | meta},
            "serviceAccountUid": "u-app",
            "accessClusterRoleBinding": [{"clusterRoleBinding": {}, "rules": paths + named}],
            "accessRoleBinding": [
                {"roleBinding": {"metadata": {"name": "b", "namespace": "home"}}, "rules": rules + paths}
            ],
        },
    }


def request(authorization="", subject=None) -> Request:
    headers = {"authorization": authorization} if authorization else {}
    return Request("GET", "/api/v1/pods", "", headers=headers, peer_subject=subject)


@pytest.fixture
def edge(tmp_path):
    made = Edge(tmp_path)
    yield made
    made.store.close()


async def test_a_token_that_the_cloud_gave_this_node_is_good_without_any_key(edge):
    token = edge.give(jwt())
    user = await edge.gate.user(request(f"Bearer {token}"))
    assert user.name == "system:serviceaccount:home:app"
    assert "system:serviceaccounts:home" in user.groups
    assert await edge.code(jwt(jti="never given")) == 401
    # Replaced by a newer one, it stays good until the pod has read that: but never past its end.
    edge.give(jwt(jti="newer"))
    assert await edge.code(token) == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - 1},
        {"nbf": NOW + 3600},
        {"iss": "https://elsewhere"},
        {"aud": ["vault"]},
        {"aud": "vault"},
        private(namespace="away"),
        private(serviceaccount={"name": "app", "uid": "u-older"}),
        private(serviceaccount={"name": "other", "uid": "u-app"}),
        private(node={"name": "edge-2", "uid": "u"}),
        private(pod={"name": "web", "uid": "u-older"}),
        private(pod={"name": "elsewhere", "uid": "u-web"}),
        private(pod={"name": "web"}),
        private(secret={"name": "gone", "uid": "u"}),
    ],
    ids=str,
)
async def test_a_token_that_is_not_of_this_node_and_now_is_refused_and_counted(edge, changes):
    assert await edge.code(edge.give(jwt(**changes))) == 401
    assert edge.gate.refused == {"unauthenticated": 1}


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c", "..", "é.b.c", "x" * 20000 + ".b.c", "e30.W10.x"])
async def test_what_is_no_token_is_refused(edge, text):
    assert await edge.code(text) == 401


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: f"e30.{b64(b).decode()}.c2ln"))
def test_no_text_is_more_than_no_token(text):
    parsed = parse_token(text)
    assert parsed is None or parsed.claims.exp >= 0.0 or parsed.claims.exp < 0.0


def test_bottomless_claims_are_no_token():
    deep = b64(b"[" * 6000).decode()
    assert parse_token(f"e30.{deep}.c2ln") is None
    assert parse_access(b"[" * 100_000) is None


async def test_only_bearer_tokens_and_certificates_say_who_one_is(edge):
    with pytest.raises(ApiStatus):
        await edge.gate.user(request("Basic dXNlcjpwYXNz"))
    with pytest.raises(ApiStatus):
        await edge.gate.user(request(subject=("", ())))
    assert (await edge.gate.user(request())).name == "system:anonymous"
    own = await edge.gate.user(request(subject=("system:node:edge-1", ("system:nodes",))))
    other = await edge.gate.user(request(subject=("system:node:edge-2", ("system:nodes",))))
    secret = Attributes("get", resource="secrets", namespace="home", name="s")
    assert edge.gate.allows(own, secret)
    assert not edge.gate.allows(other, secret)
    # The original's cloudcore signs whatever organization a node asks for.
    master = await edge.gate.user(request(subject=("admin", ("system:masters",))))
    assert not edge.gate.allows(master, secret)


async def test_signatures_are_checked_where_there_are_keys(edge, tmp_path):
    key, stranger = new_key(), new_key()
    file = tmp_path / "sa.pub"
    file.write_bytes(public_key_pem(key_pem(stranger)) + public_key_pem(key_pem(key)))
    gate = edge.made(KeyFiles([str(file)]).verify)
    assert await edge.code(jwt(key), gate) == 200
    assert await edge.code(jwt(key, jti="k2"), gate) == 200
    forged = edge.give(jwt(new_key()))
    assert await edge.code(forged, gate) == 401
    assert await edge.code(jwt(key, algorithm="none"), gate) == 401
    assert await edge.code(jwt(key, algorithm="HS256"), gate) == 401
    assert gate.refused == {"unauthenticated": 3}
    with pytest.raises(UserError, match="there is no"):
        KeyFiles([str(tmp_path / "none")])


async def test_a_forged_token_that_is_shown_again_costs_no_second_check(edge):
    checks = []

    async def verify(token):
        checks.append(token)
        return False

    gate = edge.made(verify)
    forged = jwt()
    assert [await edge.code(forged, gate) for _ in range(3)] == [401] * 3
    assert len(checks) == 1


async def test_rights_end_with_the_pod_and_with_the_account(edge):
    token = edge.give(jwt())
    assert await edge.code(token) == 200
    gone = {"name": "web", "namespace": "home", "uid": "u-web", "deletionTimestamp": "2020-01-01T00:00:00Z"}
    edge.put("home/pod/web", "pod", {"metadata": gone})
    assert await edge.code(token) == 401
    edge.put("home/pod/web", "pod", {"metadata": {"name": "web", "namespace": "home", "uid": "u-web"}})
    assert await edge.code(token) == 200
    edge.store.apply([Remove("home/serviceaccountaccess/app")])
    assert await edge.code(token) == 401


async def test_an_access_by_another_name_is_found(edge):
    edge.store.apply([Remove("home/serviceaccountaccess/app")])
    edge.put("home/serviceaccountaccess/by-hand", "serviceaccountaccess", access())
    assert await edge.code(edge.give(jwt())) == 200


async def test_audiences_may_be_named(edge):
    gate = edge.made(audiences=("edge",))
    assert await edge.code(edge.give(jwt()), gate) == 401
    assert await edge.code(edge.give(jwt(aud=["x", "edge"])), gate) == 200


async def test_rights_are_those_of_roles_and_bindings(edge):
    user = await edge.gate.user(request(f"Bearer {edge.give(jwt())}"))

    def may(verb, resource="", namespace="", name="", path="", group="", sub=""):
        return edge.gate.allows(user, Attributes(verb, group, resource, sub, namespace, name, path))

    assert may("list", "configmaps", "home")
    assert not may("list", "configmaps", "away")
    assert not may("list", "configmaps")
    assert not may("delete", "configmaps", "home", "c")
    assert may("update", "secrets", "anywhere", "s")
    assert not may("update", "secrets", "anywhere", "t")
    assert not may("get", "pods", "home", "web", sub="log")
    assert may("get", path="/metrics")
    assert may("get", path="/api/v1")
    assert not may("get", path="/logs")
    assert may("create", "selfsubjectaccessreviews", group="authorization.k8s.io")
    with pytest.raises(ApiStatus, match="forbidden"):
        edge.gate.require(user, Attributes("get", resource="secrets", namespace="home", name="t"))
    assert edge.gate.refused == {"forbidden": 1}


async def test_an_address_and_an_account_have_a_line_each_and_then_a_number(edge, caplog):
    for _ in range(4):
        assert await edge.code("a.b.c") == 401
        with pytest.raises(ApiStatus, match="forbidden"):
            edge.gate.require(ANONYMOUS, Attributes("get", resource="secrets", namespace="home", name="t"))
    assert edge.gate.refused == {"unauthenticated": 4, "forbidden": 4}
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [text.partition(":")[0] for text in said] == ["refused (1 so far)", "refused (2 so far)"]
