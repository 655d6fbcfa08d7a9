"""The policy controller against an embedded API server: accounts, rights, nodes, certificate requests."""

import asyncio
import base64
import contextlib
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from edgehive.aio import pki
from edgehive.aio.informer import Informer
from edgehive.apiserver.app import ApiServer, ApiServerOptions
from edgehive.cloud.crds import ensure_crds
from edgehive.cloud.keyedwork import KeyedWork
from edgehive.cloud.policycontroller import CsrApprover, PolicyController
from edgehive.kube.api import MERGE_PATCH, WriteOptions
from edgehive.kube.crd_policy import SERVICE_ACCOUNT_ACCESSES
from edgehive.kube.refs import (
    CLUSTERROLEBINDINGS,
    CLUSTERROLES,
    CSRS,
    GVR,
    NAMESPACES,
    NODES,
    PODS,
    ROLEBINDINGS,
    ROLES,
    SERVICEACCOUNTS,
)
from edgehive.kube.status import ApiStatus, forbidden, not_found
from edgehive.store.log import MemoryLog

DEFAULT = WriteOptions(namespace="default")
RBAC = "rbac.authorization.k8s.io"
REF = {"apiGroup": RBAC, "kind": "Role", "name": "r"}
APP = [{"kind": "ServiceAccount", "name": "app", "namespace": "default"}]
RULES = [{"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]}]


class Nodes:
    """The connected nodes, and what was sent to them."""

    def __init__(self) -> None:
        self.sent = []

    def connected(self, node):
        return True

    def send(self, node, outbound):
        message = outbound.message
        self.sent.append((node, message.operation, message.resource, json.loads(message.content)))


class Lab:
    def __init__(self, api) -> None:
        self.api = api
        self.nodes = Nodes()
        self.pods = Informer(api=api, gvr=PODS)
        self.machines = Informer(api=api, gvr=NODES)
        self.policy = PolicyController(api=api, stamp=lambda: ("m", 1))
        self.policy.connect(self.nodes, pods=self.pods, machines=self.machines)

    async def make(self, gvr, body, options=DEFAULT):
        return json.loads(await self.api.create(gvr, json.dumps(body).encode(), options))

    async def node(self, name, edge=True):
        labels = {"node-role.kubernetes.io/edge": ""} if edge else {}
        await self.make(NODES, {"metadata": {"name": name, "labels": labels}}, WriteOptions())

    async def pod(self, name, node, account="app"):
        spec = {"nodeName": node, "serviceAccountName": account, "containers": [{"name": "c", "image": "i"}]}
        await self.make(PODS, {"metadata": {"name": name}, "spec": spec})

    async def access(self, name="app"):
        try:
            return json.loads(await self.api.get(SERVICE_ACCOUNT_ACCESSES, name, DEFAULT))
        except ApiStatus:
            return None

    async def until(self, condition):
        async with asyncio.timeout(10):
            while True:
                found = condition()
                found = await found if asyncio.iscoroutine(found) else found
                if found:
                    return found
                await asyncio.sleep(0.02)

    async def nodes_are(self, *names):
        async def check():
            found = await self.access()
            return found and (found.get("status") or {}).get("nodeList") == list(names)

        await self.until(check)

    def of(self, node):
        return [sent[1:3] for sent in self.nodes.sent if sent[0] == node]


@contextlib.asynccontextmanager
async def laboratory(tmp_path):
    server = ApiServer(ApiServerOptions(directory=tmp_path / "cp", port=0), log_=MemoryLog())
    await server.start()
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(server.run())]
        api = server.local_api()
        await ensure_crds(api, install=True, policy=True)
        lab = Lab(api)
        informers = (lab.pods, lab.machines, *lab.policy.caches.all())
        running += [group.create_task(informer.run()) for informer in informers]
        running += [group.create_task(service.run()) for service in lab.policy.services()]
        await lab.make(SERVICEACCOUNTS, {"metadata": {"name": "app"}})
        yield lab
        for task in running:
            task.cancel()


KEY = "default/serviceaccountaccess/app"


async def test_an_account_with_pods_on_edges_gets_an_access_and_its_nodes_get_that(tmp_path):
    async with laboratory(tmp_path) as lab:
        await lab.node("edge-1")
        await lab.node("edge-2")
        await lab.node("cloud", edge=False)
        await lab.pod("in-the-cloud", "cloud")
        await lab.pod("one", "edge-1")
        await lab.nodes_are("edge-1")
        account = json.loads(await lab.api.get(SERVICEACCOUNTS, "app", DEFAULT))
        spec = (await lab.access())["spec"]
        assert spec["serviceAccount"]["metadata"]["name"] == "app"
        assert spec["serviceAccountUid"] == account["metadata"]["uid"]
        await lab.until(lambda: lab.of("edge-1"))
        assert not lab.of("cloud")

        # rights that come later are brought, too
        await lab.make(ROLES, {"metadata": {"name": "r"}, "rules": RULES})
        await lab.make(ROLEBINDINGS, {"metadata": {"name": "b"}, "roleRef": REF, "subjects": APP})

        def has_rights():
            last = [sent for sent in lab.nodes.sent if sent[0] == "edge-1"][-1]
            found = last[3]["spec"].get("accessRoleBinding") or []
            return found and found[0]["rules"] == RULES and last

        node, operation, resource, content = await lab.until(has_rights)
        assert (operation, resource) == ("update", KEY)
        assert content["status"] == {}
        assert content["spec"]["accessRoleBinding"][0]["roleBinding"]["subjects"] == APP

        # a second node gets it; the first need not hear of that
        before = len(lab.of("edge-1"))
        await lab.pod("two", "edge-2")
        await lab.nodes_are("edge-1", "edge-2")
        await lab.until(lambda: lab.of("edge-2"))
        assert len(lab.of("edge-1")) == before
        assert [o.name for o in lab.policy.view.assigned("edge-2")] == ["app"]

        # and the last pod takes it away again
        await lab.api.delete(PODS, "two", DEFAULT, json.dumps({"gracePeriodSeconds": 0}).encode())
        await lab.nodes_are("edge-1")
        await lab.until(lambda: lab.of("edge-2")[-1] == ("delete", KEY))
        await lab.api.delete(PODS, "one", DEFAULT, json.dumps({"gracePeriodSeconds": 0}).encode())
        await lab.until(lambda: lab.of("edge-1")[-1] == ("delete", KEY))

        async def gone():
            return await lab.access() is None

        await lab.until(gone)


async def test_the_access_goes_with_its_account_and_comes_back_with_a_new_one(tmp_path):
    async with laboratory(tmp_path) as lab:
        await lab.node("edge-1")
        await lab.pod("one", "edge-1")
        await lab.nodes_are("edge-1")
        first = (await lab.access())["spec"]["serviceAccountUid"]
        await lab.api.delete(SERVICEACCOUNTS, "app", DEFAULT)
        await lab.until(lambda: lab.of("edge-1")[-1:] == [("delete", KEY)])
        await lab.make(SERVICEACCOUNTS, {"metadata": {"name": "app"}})

        async def anew():
            found = await lab.access()
            return (
                found
                and found["spec"]["serviceAccountUid"] != first
                and (found.get("status") or {}).get("nodeList")
            )

        await lab.until(anew)
        await lab.until(lambda: lab.of("edge-1")[-1][0] != "delete")


async def test_cluster_roles_aggregated_and_by_group_are_among_the_rights(tmp_path):
    async with laboratory(tmp_path) as lab:
        await lab.node("edge-1")
        part = {"metadata": {"name": "part", "labels": {"to": "whole"}}, "rules": RULES}
        whole = {
            "metadata": {"name": "whole"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "whole"}}]},
            "rules": [],
        }
        await lab.make(CLUSTERROLES, part, WriteOptions())
        await lab.make(CLUSTERROLES, whole, WriteOptions())
        group = [{"kind": "Group", "apiGroup": RBAC, "name": "system:serviceaccounts:default"}]
        binding = {
            "metadata": {"name": "all"},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "whole"},
            "subjects": group,
        }
        await lab.make(CLUSTERROLEBINDINGS, binding, WriteOptions())
        await lab.pod("one", "edge-1")

        async def has():
            found = await lab.access()
            rights = (found or {}).get("spec", {}).get("accessClusterRoleBinding") or []
            return [r["rules"] for r in rights if r["clusterRoleBinding"]["metadata"]["name"] == "all"] == [
                RULES
            ]

        await lab.until(has)


async def test_one_made_by_hand_for_an_account_without_pods_is_left_alone(tmp_path):
    async with laboratory(tmp_path) as lab:
        await lab.node("edge-1")
        body = {"metadata": {"name": "mine"}, "spec": {"serviceAccount": {"metadata": {"name": "default"}}}}
        await lab.make(SERVICE_ACCOUNT_ACCESSES, body)
        await lab.pod("one", "edge-1")
        await lab.nodes_are("edge-1")
        assert await lab.access("mine")
        assert await lab.access("default") is None


async def test_one_made_by_hand_in_another_namespace_is_kept_right_where_it_is(tmp_path):
    async with laboratory(tmp_path) as lab:
        await lab.node("edge-1")
        await lab.make(NAMESPACES, {"metadata": {"name": "other"}}, WriteOptions())
        account = {"serviceAccount": {"metadata": {"name": "app", "namespace": "default"}}}
        there = WriteOptions(namespace="other")
        await lab.make(SERVICE_ACCOUNT_ACCESSES, {"metadata": {"name": "mine"}, "spec": account}, there)
        await lab.pod("one", "edge-1")

        async def right():
            found = json.loads(await lab.api.get(SERVICE_ACCOUNT_ACCESSES, "mine", there))
            return found.get("status", {}).get("nodeList") == ["edge-1"] and found["spec"].get(
                "serviceAccountUid"
            )

        await lab.until(right)
        assert await lab.access() is None


async def test_an_account_that_is_refused_for_good_costs_no_other_anything():
    seen: list[str] = []
    twice = asyncio.Event()

    async def handle(key: str) -> None:
        seen.append(key)
        if key == "bad":
            if seen.count("bad") == 2:
                twice.set()
            raise forbidden("no")

    work = KeyedWork(handle, describe=str, rng=lambda: 0.5)
    work.ask(["bad", "good", "bad", "better"])
    running = asyncio.get_running_loop().create_task(work.run())
    for _ in range(3):
        await asyncio.sleep(0)
    assert seen == ["bad", "good", "better"], "without any time passing"
    async with asyncio.timeout(10):
        await twice.wait()
    assert seen == ["bad", "good", "better", "bad"], "by itself"
    running.cancel()


def named(node: str, name: str) -> bytes:
    """A request for a DNS name."""
    oid = x509.oid.NameOID
    subject = [(oid.ORGANIZATION_NAME, "system:nodes"), (oid.COMMON_NAME, f"system:node:{node}")]
    asked = x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(*one) for one in subject]))
    asked = asked.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return asked.sign(pki.new_key(), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def request(node: str, *addresses: str, organizations=("system:nodes",), der: bytes = b"") -> dict:
    der = der or pki.create_csr(pki.new_key(), f"system:node:{node}", organizations, addresses)
    pem = (
        b"-----BEGIN CERTIFICATE REQUEST-----\n"
        + base64.encodebytes(der)
        + b"-----END CERTIFICATE REQUEST-----\n"
    )
    return {
        "spec": {
            "request": base64.b64encode(pem).decode(),
            "signerName": "kubernetes.io/kubelet-serving",
            "usages": ["digital signature", "server auth"],
        }
    }


async def test_certificates_for_a_node_s_own_addresses_are_approved_and_no_others(tmp_path):
    async with laboratory(tmp_path) as lab:
        await lab.node("edge-1")
        addresses = [
            {"type": "InternalIP", "address": "192.0.2.7"},
            {"type": "ExternalIP", "address": "192.0.2.8"},
            {"type": "ExternalIP", "address": "192.0.2.9"},
            {"type": "ExternalIP", "address": "10.96.0.1"},
            {"type": "Hostname", "address": "kubernetes.default.svc"},
        ]
        status = {"status": {"addresses": addresses}}
        await lab.api.patch(
            NODES, "edge-1", json.dumps(status).encode(), MERGE_PATCH, WriteOptions(subresource="status")
        )
        other = {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.8"}]}}
        await lab.node("edge-2")
        await lab.api.patch(
            NODES, "edge-2", json.dumps(other).encode(), MERGE_PATCH, WriteOptions(subresource="status")
        )
        server = {"metadata": {"name": "kubernetes"}, "subsets": [{"addresses": [{"ip": "192.0.2.9"}]}]}
        await lab.make(GVR("", "v1", "endpoints"), server, WriteOptions(namespace="default"))
        wrong = {
            "other-node": request("edge-1", "192.0.2.8"),
            "api-server": request("edge-1", "192.0.2.9"),
            "none": request("edge-1"),
            "foreign": request("edge-1", "127.0.0.1", "10.96.0.1"),
            "unknown": request("edge-9", "127.0.0.1"),
            "masters": request("edge-1", "127.0.0.1", organizations=("system:masters",)),
            "client": request("edge-1", "127.0.0.1"),
            "name": request("edge-1", der=named("edge-1", "kubernetes.default.svc")),
        }
        wrong["client"]["spec"]["usages"].append("client auth")
        for name, body in wrong.items():
            await lab.make(CSRS, {"metadata": {"name": name}} | body, WriteOptions())
        await lab.until(
            lambda: lab.machines.get("", "edge-1") and b"192.0.2.7" in lab.machines.get("", "edge-1").raw
        )
        good = request("edge-1", "127.0.0.1", "169.254.30.10", "192.0.2.7")
        await lab.make(CSRS, {"metadata": {"name": "good"}} | good, WriteOptions())

        async def approved():
            found = json.loads(await lab.api.get(CSRS, "good"))
            return [c["type"] for c in (found.get("status") or {}).get("conditions") or ()] == ["Approved"]

        await lab.until(approved)
        for name in wrong:
            found = json.loads(await lab.api.get(CSRS, name))
            assert not (found.get("status") or {}).get("conditions"), name


class Named:
    """An API server to which we are `name`."""

    def __init__(self, api, name: str) -> None:
        self._api, self._name = api, name

    def __getattr__(self, name):
        return getattr(self._api, name)

    async def create(self, gvr, body, options=None):
        if gvr.resource != "selfsubjectreviews":
            return await self._api.create(gvr, body, options)
        if not self._name:
            raise not_found("selfsubjectreviews", "")
        return json.dumps({"status": {"userInfo": {"username": self._name}}}).encode()


@pytest.mark.parametrize(("name", "approved"), [("{asker}", True), ("system:cloudcore", False), ("", True)])
async def test_only_a_node_itself_or_cloudcore_for_it_is_given_a_certificate(tmp_path, name, approved):
    async with laboratory(tmp_path) as lab:
        await lab.node("edge-1")
        made = await lab.make(
            CSRS, {"metadata": {"name": "a"}} | request("edge-1", "127.0.0.1"), WriteOptions()
        )
        asker = made["spec"]["username"]
        assert not asker.startswith("system:node:")
        approver = CsrApprover(
            api=Named(lab.api, name.format(asker=asker)), nodes=lab.machines, rng=lambda: 0.5
        )
        problem = approver._problem(made["spec"], set(), await approver._own_name())
        assert (not problem) is approved, problem


async def test_who_cloudcore_is_is_asked_again_after_a_refusal(tmp_path):
    class Young(Named):
        """An API server that has not read its roles yet."""

        refusals = 1

        async def create(self, gvr, body, options=None):
            if self.refusals:
                self.refusals -= 1
                raise forbidden("no roles yet")
            return await super().create(gvr, body, options)

    async with laboratory(tmp_path) as lab:
        approver = CsrApprover(api=Young(lab.api, "me"), nodes=lab.machines, rng=lambda: 0.5)
        assert [await approver._own_name() for _ in range(2)] == ["", "me"]


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"metadata":null}', b"[" * 100_000])
def test_nonsense_in_place_of_roles_gives_no_rights(raw):
    from edgehive.cloud.policy_rules import Roles

    roles = Roles(roles=[raw], cluster_roles=[raw], bindings=[raw], cluster_bindings=[raw])
    spec = roles.spec(b'{"metadata":{"name":"a","namespace":"n","uid":"u"}}')
    assert spec.keys() == {"serviceAccount", "serviceAccountUid"}


def test_bindings_of_other_namespaces_count_and_their_roles_are_not_mistaken_for_namesakes():
    from edgehive.cloud.policy_rules import Roles

    def raw(namespace, name, **rest):
        return json.dumps({"metadata": {"name": name, "namespace": namespace}, **rest}).encode()

    def role(namespace, verb):
        return raw(namespace, "r", rules=[{"verbs": [verb], "apiGroups": [""], "resources": ["secrets"]}])

    bindings = [raw(n, "b", roleRef=REF, subjects=APP) for n in ("away", "default", "nowhere")]
    cluster_role = raw("", "c", rules=RULES)
    bindings.append(raw("away", "c", roleRef=REF | {"kind": "ClusterRole", "name": "c"}, subjects=APP))
    roles = Roles(
        roles=[role("away", "get"), role("default", "list"), role("other", "*")],
        cluster_roles=[cluster_role],
        bindings=bindings,
        cluster_bindings=[],
    )
    spec = roles.spec(raw("default", "app"))
    found = [
        (
            b["roleBinding"]["metadata"]["namespace"],
            b["roleBinding"]["roleRef"]["name"],
            b["rules"][0]["verbs"],
        )
        for b in spec["accessRoleBinding"]
    ]
    # An original edge takes the first Role of the name that stands in any access of the account's namespace.
    assert found == [("default", "r", ["list"]), ("away", "away:r", ["get"]), ("away", "c", ["get"])]
