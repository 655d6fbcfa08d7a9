"""The table of requests an edge may send, over the real wire: exact answers, and nothing beyond its own node."""

import asyncio
import base64
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from edgehive.aio.pki import new_key
from edgehive.kube.api import CLUSTER, WriteOptions
from edgehive.kube.refs import CONFIGMAPS, EVENTS, GVR, LEASES, NODES, PODS, SECRETS, SERVICEACCOUNTS
from edgehive.kube.status import ApiStatus

CSRS = GVR("certificates.k8s.io", "v1", "certificatesigningrequests")
PVS = GVR("", "v1", "persistentvolumes")


def content(message: Any) -> Any:
    return json.loads(message.content)


def status_of(message: Any) -> dict[str, Any]:
    body = content(message)
    return body["Err"]["ErrStatus"] if "Err" in body else body["ErrStatus"]


async def test_a_node_registers_reports_and_renews_its_lease(lab: Any, api: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    missing = await edge.ask("query", "kube-node-lease/lease/edge-1")
    assert content(missing)["Object"] is None
    assert status_of(missing) == {
        "metadata": {},
        "status": "Failure",
        "message": 'leases.coordination.k8s.io "edge-1" not found',
        "reason": "NotFound",
        "details": {"name": "edge-1", "kind": "leases", "group": "coordination.k8s.io"},
        "code": 404,
    }
    lease = {"metadata": {"name": "edge-1"}, "spec": {"leaseDurationSeconds": 40}}
    made = await edge.ask("insert", "kube-node-lease/lease/edge-1", lease)
    assert content(made)["Err"] is None
    assert content(made)["Object"]["spec"] == {"leaseDurationSeconds": 40}
    body = {"metadata": {"labels": {"kubernetes.io/os": "linux", "node-role.kubernetes.io/edge": ""}}}
    answer = await edge.ask("insert", "null/node/edge-1", body)
    assert (answer.source, answer.group, answer.operation) == ("edgecontroller", "resource", "response")
    assert answer.resource == "null/node/edge-1"
    assert answer.resource_version == ""
    stored = api.find(NODES, "", "edge-1")
    assert stored["metadata"]["labels"] == body["metadata"]["labels"]
    assert stored["metadata"]["annotations"]["cloudcore"]
    assert content(answer) == {"Object": stored, "Err": None}
    pushed = await edge.wait(lambda m: m.operation == "update" and m.resource == "null/node/edge-1")
    assert content(pushed)["metadata"]["name"] == "edge-1"
    patch = json.dumps({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    patched = await edge.ask("patch", "null/nodepatch/edge-1", patch)
    assert content(patched)["Object"]["status"]["conditions"][0]["status"] == "True"
    assert patched.resource_version == content(patched)["Object"]["metadata"]["resourceVersion"]
    renewed = await edge.ask("update", "kube-node-lease/lease/edge-1", lease)
    assert content(renewed)["Err"] is None
    assert api.find(LEASES, "kube-node-lease", "edge-1")["kind"] == "Lease"


async def test_registering_again_says_so_and_brings_the_node_object(lab: Any, api: Any) -> None:
    api.put(NODES, {"metadata": {"name": "edge-1"}})
    await lab.start()
    edge = await lab.edge("edge-1")
    await edge.wait(lambda m: m.resource == "null/node/edge-1")
    await api.until(lambda: bool(api.find(NODES, "", "edge-1")["metadata"].get("annotations")))
    before = len(edge.received)
    answer = await edge.ask("insert", "null/node/edge-1", {"metadata": {}})
    assert status_of(answer)["reason"] == "AlreadyExists"
    assert before <= len(edge.received)


async def test_pod_status_and_deletion(lab: Any, api: Any) -> None:
    made = api.put(PODS, {"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "edge-1"}})
    await lab.start()
    edge = await lab.edge("edge-1")
    await edge.wait(lambda m: m.resource == "default/pod/p")
    uid = made["metadata"]["uid"]
    patch = json.dumps({"metadata": {"uid": uid}, "status": {"phase": "Running"}})
    answer = await edge.ask("patch", "default/podpatch/p", patch)
    assert content(answer)["Object"]["status"] == {"phase": "Running"}
    other = {"gracePeriodSeconds": 0, "preconditions": {"uid": "another"}}
    assert content(await edge.ask("delete", "default/pod/p", other)) == "OK"
    assert api.find(PODS, "default", "p") is not None
    mine = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
    assert content(await edge.ask("delete", "default/pod/p", mine)) == "OK"
    assert api.find(PODS, "default", "p") is None
    assert content(await edge.ask("delete", "default/pod/p", mine)) == "OK", "gone counts as done"
    assert content(await edge.ask("delete", "default/pod/p", "some-uid")) == "OK", "the form of old edges"


async def test_a_refusal_of_cloudcore_itself_is_no_refusal_of_the_edge(lab: Any, api: Any) -> None:
    made = api.put(PODS, {"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "edge-1"}})
    await lab.start()
    edge = await lab.edge("edge-1")
    await edge.wait(lambda m: m.resource == "default/pod/p")
    text = 'pods "p" is forbidden: User "system:serviceaccount:kubeedge:cloudcore" cannot patch resource'
    node = 'pods "p" is forbidden: User "system:node:edge-1" cannot patch resource'
    quota = 'pods "p" is forbidden: exceeded quota: q'
    delete = {"gracePeriodSeconds": 0, "preconditions": {"uid": made["metadata"]["uid"]}}
    for refusal, code in (
        (ApiStatus(403, "Forbidden", text), 503),
        (ApiStatus(401, "Unauthorized", "Unauthorized"), 503),
        (ApiStatus(403, "Forbidden", node), 403),
        (ApiStatus(403, "Forbidden", quota), 403),
    ):
        api.fail = lambda verb, gvr, name, refusal=refusal: (
            refusal if gvr == PODS and verb in ("patch", "delete") else None
        )
        patched = status_of(await edge.ask("patch", "default/podpatch/p", '{"status":{}}'))
        assert (patched["code"], refusal.message in patched["message"]) == (code, True)
        assert status_of(await edge.ask("delete", "default/pod/p", delete))["code"] == code


async def test_pods_of_other_nodes_are_out_of_reach(lab: Any, api: Any) -> None:
    api.put(PODS, {"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "edge-2"}})
    api.put(SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}})
    await lab.start()
    edge = await lab.edge("edge-1")
    assert status_of(await edge.ask("delete", "default/pod/p", {}))["reason"] == "Forbidden"
    assert status_of(await edge.ask("patch", "default/podpatch/p", "{}"))["reason"] == "Forbidden"
    mirror = {"metadata": {"name": "m"}, "spec": {"nodeName": "edge-2"}}
    assert status_of(await edge.ask("insert", "default/pod/m", mirror))["code"] == 403
    token = {"spec": {"boundObjectRef": {"kind": "Pod", "name": "p"}}}
    assert status_of(await edge.ask("query", "default/serviceaccounttoken/default", token))["code"] == 403
    assert api.find(PODS, "default", "p") is not None


async def test_another_nodes_node_and_lease_are_out_of_reach(lab: Any, api: Any) -> None:
    api.put(NODES, {"metadata": {"name": "edge-2"}})
    await lab.start()
    edge = await lab.edge("edge-1")
    await edge.say("patch", "null/nodepatch/edge-2", '{"status":{"phase":"gone"}}')
    await edge.say("insert", "kube-node-lease/lease/edge-2", {"metadata": {"name": "edge-2"}})
    await edge.ask("query", "kube-node-lease/lease/edge-1")
    assert "status" not in api.find(NODES, "", "edge-2")
    assert api.find(LEASES, "kube-node-lease", "edge-2") is None
    assert lab.core.parts.nodes.stats.denied == 2


async def test_queries(lab: Any, api: Any) -> None:
    cm = api.put(CONFIGMAPS, {"metadata": {"name": "cm", "namespace": "default"}, "data": {"a": "1"}})
    pv = api.put(PVS, {"metadata": {"name": "pv"}})
    api.put(SERVICEACCOUNTS, {"metadata": {"name": "sa", "namespace": "default"}})
    await lab.start()
    edge = await lab.edge("edge-1")
    answer = await edge.ask("query", "default/configmap/cm")
    assert content(answer) == cm
    assert answer.resource_version == cm["metadata"]["resourceVersion"]
    missing = await edge.ask("query", "default/secret/none")
    assert content(missing) == {"ErrStatus": status_of(missing)}
    assert status_of(missing)["code"] == 404
    assert content(await edge.ask("query", "null/persistentvolume/pv")) == pv
    answer = await edge.ask("query", "default/serviceaccounttoken/sa", {"spec": {"audiences": ["a"]}})
    assert content(answer)["status"]["token"] == "token-of-sa"
    assert content(answer)["kind"] == "TokenRequest"
    ca = await edge.ask("query", "k8s/ca.crt", source="metamanager", group="resource")
    assert (ca.source, content(ca)) == ("cloudhub", "-----BEGIN CERTIFICATE-----\n")


async def test_an_answer_that_is_acknowledged_is_recorded_and_kept_fresh(lab: Any, api: Any) -> None:
    from edgehive.kube.refs import OBJECTSYNCS

    secret = {"metadata": {"name": "s", "namespace": "default"}, "data": {}}
    made = api.put(SECRETS, secret)
    await lab.start()
    edge = await lab.edge("edge-1")
    await edge.ask("query", "default/secret/s")
    name = f"edge-1.{made['metadata']['uid']}"
    await api.until(
        lambda: (
            (api.find(OBJECTSYNCS, "default", name) or {}).get("status", {}).get("objectResourceVersion")
            == made["metadata"]["resourceVersion"]
        )
    )


def pem_request(common_name: str, *groups: str) -> str:
    """A certificate request as Kubernetes takes it."""
    oid = x509.oid.NameOID
    parts = [(oid.COMMON_NAME, common_name), *((oid.ORGANIZATION_NAME, group) for group in groups)]
    name = x509.Name([x509.NameAttribute(*part) for part in parts])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(new_key(), hashes.SHA256())
    return base64.b64encode(made.public_bytes(Encoding.PEM)).decode()


def broken_request(common_name: str) -> str:
    """One whose extension for names is none."""
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, common_name)])
    junk = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"junk")
    made = x509.CertificateSigningRequestBuilder(name).add_extension(junk, critical=False)
    return base64.b64encode(made.sign(new_key(), hashes.SHA256()).public_bytes(Encoding.PEM)).decode()


async def test_events_and_certificate_requests(lab: Any, api: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    event = {"metadata": {"name": "e.1", "namespace": "default"}, "reason": "Started"}
    await edge.say("insert", "default/event/e.1", event)
    await api.until(lambda: api.find(EVENTS, "default", "e.1") is not None)
    await edge.say("patch", "default/event/e.1", {"event": event, "patchData": '{"count":2}'})
    await api.until(lambda: api.find(EVENTS, "default", "e.1").get("count") == 2)
    hostile = {"metadata": {"name": "../../nodes/x", "namespace": "default"}}
    await edge.say("update", "default/event/x", hostile)
    spec = {
        "signerName": "kubernetes.io/kubelet-serving",
        "request": pem_request("system:node:edge-2", "system:nodes"),
    }
    csr = {"metadata": {"name": "c"}, "spec": spec}
    refused = await edge.ask("insert", "default/certificatesigningrequest/c", csr)
    assert status_of(refused)["code"] == 403, "in another node's name"
    for groups in ((), ("system:masters",), ("system:nodes", "system:masters")):
        spec["request"] = pem_request("system:node:edge-1", *groups)
        refused = await edge.ask("insert", "default/certificatesigningrequest/c", csr)
        assert status_of(refused)["code"] == 403, groups
    spec["request"] = pem_request("system:node:edge-1", "system:nodes")
    elsewhere = csr | {"spec": spec | {"signerName": "kubernetes.io/kube-apiserver-client"}}
    refused = await edge.ask("insert", "default/certificatesigningrequest/c", elsewhere)
    assert status_of(refused)["code"] == 403, "of a signer that makes users"
    answer = await edge.ask("insert", "default/certificatesigningrequest/c", csr)
    assert content(answer)["Object"]["kind"] == "CertificateSigningRequest"
    assert content(await edge.ask("query", "default/certificatesigningrequest/c"))["metadata"]["name"] == "c"
    for nonsense in ("é", "====", "AAAA", 7, broken_request("system:node:edge-1")):
        body = {"metadata": {"name": "n"}, "spec": spec | {"request": nonsense}}
        refused = await edge.ask("insert", "default/certificatesigningrequest/n", body)
        assert status_of(refused)["code"] == 403, nonsense
    # The original's edge leaves the name to the API server, and the last part of the resource empty.
    unnamed = {"metadata": {"name": "given-by-the-server"}, "spec": spec}
    answer = await edge.ask("insert", "default/certificatesigningrequest/", unnamed)
    assert content(answer)["Object"]["kind"] == "CertificateSigningRequest"
    assert not [r for r in api.requests if ".." in r[2]]


async def test_old_status_reports(lab: Any, api: Any) -> None:
    made = api.put(
        PODS,
        {
            "metadata": {"name": "p", "namespace": "default", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "edge-1"},
            "status": {"startTime": "2020-01-01T00:00:00Z"},
        },
    )
    api.put(NODES, {"metadata": {"name": "edge-1"}, "status": {"volumesAttached": [{"name": "v"}]}})
    await lab.start()
    edge = await lab.edge("edge-1")
    await edge.wait(lambda m: m.resource == "default/pod/p")
    entry = {"UID": made["metadata"]["uid"], "Name": "p", "Status": {"phase": "Failed"}}
    gone = {"UID": "u", "Name": "q", "Status": {"phase": "Running"}}
    request = await edge.say("update", "default/podstatus", [entry, gone])
    await edge.wait(lambda m: m.operation == "delete" and m.resource == "default/pod/q")
    await api.until(lambda: api.find(PODS, "default", "p") is None)
    async with asyncio.timeout(5):
        while (answers := [m.content for m in edge.received if m.parent_id == request.id]) != [b'"OK"'] * 2:
            await asyncio.sleep(0.01)
    assert len(answers) == 2
    report = {
        "UID": "x",
        "Status": {"phase": "Running"},
        "ExtendResources": {"nvidia.com/gpu": [{"name": "0"}]},
    }
    answer = await edge.ask("update", "null/nodestatus/edge-1", report)
    assert (answer.resource, content(answer)) == ("null/node/edge-1", "OK")
    stored = api.find(NODES, "", "edge-1")
    assert stored["status"] == {"phase": "Running", "volumesAttached": [{"name": "v"}]}
    assert json.loads(stored["metadata"]["annotations"]["huawei.com/gpu-status"]) == [
        {"ID": "0", "Healthy": True}
    ]


async def test_requests_about_one_object_stay_in_order_and_others_overtake(lab: Any, api: Any) -> None:
    api.put(PODS, {"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "edge-1"}})
    await lab.start()
    edge = await lab.edge("edge-1")
    gate = asyncio.Event()
    patch, seen = api.patch, []

    async def slow(gvr: GVR, name: str, body: bytes, kind: str, options: WriteOptions = CLUSTER) -> bytes:
        if gvr == PODS:
            seen.append(json.loads(body)["status"]["n"])
            await gate.wait()
        return await patch(gvr, name, body, kind, options)

    api.patch = slow
    for n in range(3):
        await edge.say("patch", "default/podpatch/p", json.dumps({"status": {"n": n}}))
    await edge.ask("query", "kube-node-lease/lease/edge-1")
    assert seen == [0]
    gate.set()
    await api.until(lambda: (api.find(PODS, "default", "p").get("status") or {}).get("n") == 2)
    assert seen == [0, 1, 2]


async def test_an_api_server_that_is_away_is_answered_as_unavailable(lab: Any, api: Any) -> None:
    from fakeapi import unreachable

    await lab.start()
    edge = await lab.edge("edge-1")
    api.fail = lambda verb, gvr, name: unreachable() if gvr in (NODES, LEASES) else None
    answer = await edge.ask("insert", "null/node/edge-1", {"metadata": {}})
    assert content(answer)["Object"] is None
    assert status_of(answer)["code"] == 503
    api.fail = lambda verb, gvr, name: ApiStatus(409, "Conflict", "stale") if gvr == LEASES else None
    answer = await edge.ask("update", "kube-node-lease/lease/edge-1", {"metadata": {"name": "edge-1"}})
    assert status_of(answer)["reason"] == "Conflict"


async def test_an_api_server_that_is_away_fills_no_log(lab: Any, api: Any, caplog: Any) -> None:
    from fakeapi import unreachable

    await lab.start()
    edge = await lab.edge("edge-1")
    api.fail = lambda verb, gvr, name: unreachable() if gvr == LEASES else None
    for _ in range(60):
        answer = await edge.ask("update", "kube-node-lease/lease/edge-1", {"metadata": {"name": "edge-1"}})
        assert status_of(answer)["code"] == 503
    said = [r for r in caplog.records if r.name == "edgehive.cloud.upstream" and r.levelname == "WARNING"]
    assert 20 <= len(said) <= 41


async def test_nonsense_is_refused_or_ignored_and_the_session_lives(lab: Any, api: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    for operation, resource, body in [
        ("insert", "null/node/edge-1", [1, 2]),
        ("insert", "null/node/edge-1", {"metadata": 5}),
        ("patch", "default/podpatch/..", "{}"),
        ("query", "default/configmap/UPPER CASE", None),
        ("update", "default/podstatus/p", "not json"),
        ("update", "null/nodestatus/edge-1", {"Status": 5}),
        ("insert", "null/node/edge-1", "[" * 200_000),
        ("update", "default/podstatus/p", '{"a":' * 200_000),
        ("insert", "kube-node-lease/lease/edge-1", "[" * 200_000),
        ("query", "null/configmap/x", None),
    ]:
        assert status_of(await edge.ask(operation, resource, body))["code"] == 400, (operation, resource)
    for operation, resource in [
        ("query", "default/unicorn/x"),
        ("explode", "default/pod/x"),
        ("get", "membership/detail"),
    ]:
        await edge.say(operation, resource)
    assert content(await edge.ask("query", "kube-node-lease/lease/edge-1"))["Object"] is None
    assert lab.core.parts.controller.stats.unknown == 3


@pytest.mark.parametrize(
    ("right", "groups"), [("impersonate", ("system:nodes",)), ("impersonate:arbitrary-node", ())]
)
async def test_with_authorization_the_api_server_decides_in_the_nodes_name(
    lab: Any, api: Any, right: str, groups: tuple[str, ...]
) -> None:
    import msgspec

    from edgehive.cloud.config import Authorization

    api.put(SECRETS, {"metadata": {"name": "s", "namespace": "default"}})
    api.may = lambda attributes: attributes["verb"] == right
    config = lab.make_config()
    hub = msgspec.structs.replace(
        config.modules.cloud_hub, authorization=Authorization(enable=True, debug=False)
    )
    config = msgspec.structs.replace(config, modules=msgspec.structs.replace(config.modules, cloud_hub=hub))
    await lab.start(config)
    edge = await lab.edge("edge-1")
    await edge.ask("query", "default/secret/s")
    used = [o for r, o in zip(api.requests, api.options, strict=True) if r == ("get", SECRETS, "s")]
    assert [(o.as_user, o.as_groups) for o in used] == [("system:node:edge-1", groups)]
    labels = {"kubernetes.io/os": "linux", "mine": "1"}
    await edge.ask("insert", "null/node/edge-1", {"metadata": {"labels": labels}})
    assert api.find(NODES, "", "edge-1")["metadata"]["labels"] == labels
    as_cloudcore = [
        o.as_user for r, o in zip(api.requests, api.options, strict=True) if r == ("patch", NODES, "edge-1")
    ]
    assert "" in as_cloudcore


async def test_a_lease_update_without_a_name_is_ignored(lab: Any, api: Any) -> None:
    """An original edgecore has been seen to send one."""
    await lab.start()
    edge = await lab.edge("edge-1")
    await edge.say("update", "kube-node-lease/lease/", {"metadata": {}})
    assert content(await edge.ask("query", "kube-node-lease/lease/edge-1"))["Object"] is None
    assert lab.core.parts.controller.stats.unknown == 1
    assert api.all(LEASES) == []


async def test_updates_of_node_and_status_that_fail_are_answered(lab: Any, api: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    for resource in ("null/node/edge-1", "null/nodestatus/edge-1"):
        answer = await edge.ask("update", resource, {"metadata": {"labels": {}}, "Status": {}})
        assert status_of(answer)["code"] == 404, resource
