"""Enrolment over real TLS: who gets which certificate, and KubeEdge's exact answers."""

import asyncio
import datetime
import hashlib
import logging
import ssl
from typing import Any

import pytest
from cryptography import x509

from edgehive.aio import pki
from edgehive.kube.refs import EVENTS, LEASES, NODES, OBJECTSYNCS, PODS


async def request(
    lab: Any, method: str, path: str, *, tls: ssl.SSLContext | None = None, body: bytes = b"", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", lab.ports.https, ssl=tls or lab.client_tls(), server_hostname="127.0.0.1"
    )
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    raw = await reader.read()
    writer.close()
    head, _, content = raw.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    return int(status.split()[1]), {f.split(": ")[0].lower(): f.split(": ", 1)[1] for f in fields}, content


def csr(node: str, organization: str = "system:nodes") -> bytes:
    return pki.create_csr(pki.new_key(), f"system:node:{node}", (organization,))


async def enrol(lab: Any, node: str, body: bytes | None = None, **kwargs: Any) -> tuple[int, Any, bytes]:
    headers = {"Authorization": f"Bearer {lab.token().split('.', 1)[1]}", "NodeName": node} | kwargs.pop(
        "headers", {}
    )
    return await request(
        lab, "GET", "/edge.crt", body=body if body is not None else csr(node), **headers, **kwargs
    )


async def test_join(lab: Any) -> None:
    await lab.start()
    status, headers, der = await request(lab, "GET", "/ca.crt")
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    token = lab.token()
    assert hashlib.sha256(der).hexdigest() == token.split(".")[0]
    assert len(token.split(".")) == 4
    status, headers, der = await enrol(lab, "edge-1")
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    certificate = x509.load_der_x509_certificate(der)
    assert pki.subject_of(certificate) == ("system:node:edge-1", ("system:nodes",))
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    pki.verify_client(certificate, lab.ca().certificate, datetime.datetime.now(datetime.UTC))


@pytest.mark.parametrize(
    ("authorization", "text"),
    [
        ("", "token validation failure, token is empty"),
        ("Bearer", "token validation failure, token cannot be split"),
        ("Bearer a.b.c", "token validation failure, err: token is malformed"),
        (
            "Bearer x",
            "token validation failure, err: token is malformed: token contains an invalid number of segments",
        ),
    ],
)
async def test_a_wrong_token_is_refused_with_the_texts_of_kubeedge(
    lab: Any, authorization: str, text: str
) -> None:
    await lab.start()
    status, headers, body = await enrol(lab, "edge-1", headers={"Authorization": authorization})
    assert (status, body.decode()) == (401, text)
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert lab.core.parts.enrollment.issued == 0


async def test_strangers_do_not_fill_the_log_and_are_counted(lab: Any, caplog: Any) -> None:
    await lab.start()
    caplog.set_level(logging.INFO)
    for n in range(5):
        assert (await enrol(lab, f"edge-{n}", headers={"Authorization": "Bearer x"}))[0] == 401
        path = f"/task/nodeupgrade%0afake/name/t{n}/node/edge-{n}/status"
        assert (await request(lab, "POST", path, body=b"{}"))[0] == 200
    refused, ignored = (
        [r for r in caplog.records if text in r.getMessage()]
        for text in ("refused to 127.0.0.1", "of an old edge")
    )
    assert ["edge-0" in r.getMessage() for r in refused] == [True]
    assert [r.levelname for r in ignored] == ["INFO"]
    assert "\n" not in ignored[0].getMessage()
    enrollment = lab.core.parts.enrollment
    assert (enrollment.refused, enrollment.reports) == (5, 5)


async def test_a_node_obtains_its_own_client_certificate_and_nothing_else(lab: Any) -> None:
    await lab.start()
    assert (await enrol(lab, "edge-1", csr("victim")))[0] == 403
    assert (await enrol(lab, "edge-1", csr("edge-1", "system:masters")))[0] == 403
    assert (await enrol(lab, "edge-1", headers={"ExtKeyUsages": "[1, 2]"}))[0] == 403
    assert (await enrol(lab, "edge-1", b"garbage"))[0] == 400
    assert (await enrol(lab, "edge-1", b""))[0] == 400
    assert (await enrol(lab, "Edge_1"))[0] == 400
    assert (await enrol(lab, "edge-1", b"x" * (2 << 20)))[0] == 413
    assert lab.core.parts.enrollment.issued == 0


async def test_renewal_needs_the_nodes_own_certificate_and_no_token(lab: Any) -> None:
    await lab.start()
    tls = lab.client_tls("system:node:edge-1")
    headers = {"Authorization": "nonsense"}
    assert (await enrol(lab, "edge-1", tls=tls, headers=headers))[0] == 200
    status, _, body = await enrol(lab, "edge-2", tls=tls)
    assert (status, body.decode()) == (
        401,
        "failed to verify the certificate for edgenode: edge-2, err: the certificate belongs to another node",
    )


async def test_a_token_never_takes_over_a_connected_node(lab: Any) -> None:
    await lab.start()
    edge = await lab.edge("edge-1")
    assert (await enrol(lab, "edge-1"))[0] == 409
    await edge.socket.close()
    async with asyncio.timeout(5):
        while lab.core.parts.nodes.connected("edge-1"):
            await asyncio.sleep(0.01)
    assert (await enrol(lab, "edge-1"))[0] == 200


async def test_nor_one_that_is_connected_to_another_instance(lab: Any, api: Any) -> None:
    api.put(NODES, {"metadata": {"name": "edge-1", "annotations": {"cloudcore": "203.0.113.9"}}})
    now = datetime.datetime.now(datetime.UTC)
    lease = {
        "metadata": {"name": "edge-1", "namespace": "kube-node-lease"},
        "spec": {"leaseDurationSeconds": 40},
    }
    lease["spec"]["renewTime"] = now.isoformat()
    api.put(LEASES, lease)
    await lab.start()
    assert (await enrol(lab, "edge-1"))[0] == 409
    lease["spec"]["renewTime"] = (now - datetime.timedelta(minutes=5)).isoformat()
    api.put(LEASES, lease)
    assert (await enrol(lab, "edge-1"))[0] == 200


async def test_joining_again_is_shown_and_brings_everything_anew(lab: Any, api: Any) -> None:
    api.put(NODES, {"metadata": {"name": "edge-1"}})
    made = api.put(PODS, {"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "edge-1"}})
    await lab.start()
    edge = await lab.edge("edge-1")
    name = f"edge-1.{made['metadata']['uid']}"
    await api.until(lambda: (api.find(OBJECTSYNCS, "default", name) or {}).get("status") is not None)
    await edge.socket.close()
    async with asyncio.timeout(5):
        while lab.core.parts.nodes.connected("edge-1"):
            await asyncio.sleep(0.01)
    assert (await enrol(lab, "edge-1"))[0] == 200
    event = api.all(EVENTS)[0]
    assert (event["reason"], event["type"], event["involvedObject"]["name"]) == (
        "NodeRejoined",
        "Warning",
        "edge-1",
    )
    fresh = await lab.edge("edge-1")
    await fresh.wait(lambda m: m.resource == "default/pod/p")


async def test_joining_again_can_be_forbidden(lab: Any, api: Any) -> None:
    api.put(NODES, {"metadata": {"name": "edge-1"}})
    await lab.start(lab.make_config(enrollment={"allowRejoin": False}))
    assert (await enrol(lab, "edge-1"))[0] == 403
    assert (await enrol(lab, "edge-2"))[0] == 200
    assert (await enrol(lab, "edge-1", tls=lab.client_tls("system:node:edge-1")))[0] == 200


async def test_node_check_and_the_other_answers(lab: Any, api: Any) -> None:
    from fakeapi import unreachable

    api.put(NODES, {"metadata": {"name": "edge-1"}})
    await lab.start()
    assert (await request(lab, "GET", "/node/edge-1"))[::2] == (200, b"Node found")
    assert (await request(lab, "GET", "/node/edge-2"))[::2] == (404, b"Node not found")
    assert (await request(lab, "GET", "/node/a%2Fb"))[0] in (400, 404)
    assert (await request(lab, "GET", "/nothing"))[::2] == (404, b"404: Page Not Found")
    status, headers, body = await request(lab, "POST", "/ca.crt")
    assert (status, headers["allow"], body) == (405, "GET", b"405: Method Not Allowed")
    assert (await request(lab, "POST", "/nodeupgrade", body=b'{"NodeName":"edge-1"}'))[::2] == (200, b"ok")
    assert (await request(lab, "POST", "/nodeupgrade", body=b"[]"))[0] == 400
    assert (await request(lab, "POST", "/task/upgrade/name/t/node/edge-1/status", body=b"{}"))[::2] == (
        200,
        b"ok",
    )
    api.fail = lambda verb, gvr, name: unreachable()
    assert (await request(lab, "GET", "/node/edge-1"))[::2] == (500, b"Failed to query node information")
    assert (await enrol(lab, "edge-3"))[0] == 500


async def test_a_certificate_of_another_ca_does_not_get_in(lab: Any) -> None:
    await lab.start()
    stranger = pki.create_ca("KubeEdge", datetime.datetime.now(datetime.UTC))
    with pytest.raises((ssl.SSLError, ConnectionError, IndexError)):
        await enrol(lab, "edge-1", tls=lab.client_tls("system:node:edge-1", ca=stranger))


async def test_who_says_nothing_costs_no_handshake_and_is_dropped_for_others(lab: Any) -> None:
    await lab.start()
    silent = [await asyncio.open_connection("127.0.0.1", lab.ports.https) for _ in range(520)]
    async with asyncio.timeout(5):  # those beyond 512, long before a handshake's time is up
        for reader, _ in silent[:8]:
            assert await reader.read() == b""
    assert (await request(lab, "GET", "/ca.crt"))[0] == 200
    for _, writer in silent:
        writer.close()
