"""MetaServer behind TLS: its certificate, who gets in, and how it treats those who mean harm."""

import asyncio
import base64
import contextlib
import datetime
import json
import os
import shutil
import ssl
import subprocess
import sys
import time

import msgspec
import pytest

from edgehive.aio.http import HttpServer, Request, Response
from edgehive.aio.pki import create_ca, issue
from edgehive.apiserver.csr_signer import issue as sign_csr
from edgehive.apiserver.pki import PkiDir
from edgehive.edge.metaclient import Failed, Ok
from edgehive.edge.metaserver_certificate import ServingCertificate
from edgehive.edge.metaserver_listen import Listening, reachable
from edgehive.kube.status import ApiStatus
from edgehive.wire.message import INSERT, Message

NOW = datetime.datetime.now(datetime.UTC)


class Cluster:
    """The cloud, as far as certificates go: it hands requests in, somebody approves and signs them."""

    def __init__(self, path) -> None:
        self.pki = PkiDir(path / "cluster")
        self.pki.path.mkdir()
        self.ca = create_ca("cluster", NOW)
        self.pki.cert("ca").write_bytes(self.ca.cert_pem)
        self.pki.key("ca").write_bytes(self.ca.key_pem)
        self.connected = True
        self.tells = self.ca.cert_pem.decode()
        self.denied = False
        self.requests = {}

    async def ask_object(self, operation, resource, content):
        if not self.connected:
            return Failed(ApiStatus(503, "ServiceUnavailable", "away"))
        if operation == INSERT:
            self.requests[resource] = json.loads(content)
            return Ok(content)
        csr = self.requests[resource]
        if self.denied:
            return Ok(
                msgspec.json.encode(csr | {"status": {"conditions": [{"type": "Denied", "message": "no"}]}})
            )
        certificate = sign_csr(self.pki, base64.b64decode(csr["spec"]["request"]), NOW)
        return Ok(
            msgspec.json.encode(csr | {"status": {"certificate": base64.b64encode(certificate).decode()}})
        )

    async def request(self, message: Message, timeout: float = 60.0) -> Message:
        assert message.resource == "k8s/ca.crt"
        return message.reply(new_id="a", timestamp=1, content=msgspec.json.encode(self.tells))

    def certificate(
        self, path, *, addresses=("127.0.0.1",), wall=time.time, known_ca=lambda: b""
    ) -> ServingCertificate:
        return ServingCertificate(
            directory=path / "metaserver",
            node="edge-1",
            addresses=addresses,
            client_ca_files=[],
            cloud=self,
            link=self,
            stamp=lambda: ("m", 1),
            wall=wall,
            rng=lambda: 0.0,
            known_ca=known_ca,
        )


def client(cluster: Cluster) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=cluster.ca.cert_pem.decode())


@contextlib.asynccontextmanager
async def serving(certificate: ServingCertificate, **options):
    async def who(request: Request) -> Response:
        return Response(200, msgspec.json.encode(request.peer_subject))

    server = HttpServer(who, name="test", tls=certificate.context, **options)
    port = await server.listen("127.0.0.1", 0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        yield port
        task.cancel()


async def ask(port: int, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    found = await reader.read()
    writer.close()
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await writer.wait_closed()
    return found.partition(b"\r\n\r\n")[2]


async def test_a_certificate_is_asked_for_once_and_used_offline_afterwards(tmp_path):
    cluster = Cluster(tmp_path)
    first = cluster.certificate(tmp_path)
    await first.ensure()
    (request,) = cluster.requests.values()
    assert request["spec"]["signerName"] == "kubernetes.io/kubelet-serving"
    assert set(request["spec"]["usages"]) == {"digital signature", "key encipherment", "server auth"}
    async with serving(first) as port:
        assert await ask(port, client(cluster)) == b"null"
    cluster.connected = False
    again = cluster.certificate(tmp_path)
    await again.ensure()
    assert len(cluster.requests) == 1
    async with serving(again) as port:
        assert await ask(port, client(cluster)) == b"null"
    for file in (tmp_path / "metaserver").iterdir():
        assert file.name == "ca.crt" or file.stat().st_mode & 0o077 == 0


async def test_other_addresses_or_an_old_certificate_need_a_new_one(tmp_path):
    cluster = Cluster(tmp_path)
    await cluster.certificate(tmp_path).ensure()
    await cluster.certificate(tmp_path, addresses=("127.0.0.1", "169.254.30.10")).ensure()
    assert len(cluster.requests) == 2
    later = cluster.certificate(
        tmp_path, addresses=("127.0.0.1", "169.254.30.10"), wall=lambda: time.time() + 400 * 86400
    )
    assert not later._load()


async def test_a_cloud_that_does_not_know_the_ca_is_helped_by_what_pods_have(tmp_path):
    cluster = Cluster(tmp_path)
    cluster.tells = ""
    await cluster.certificate(tmp_path, known_ca=lambda: cluster.ca.cert_pem).ensure()
    assert (tmp_path / "metaserver" / "ca.crt").read_bytes() == cluster.ca.cert_pem


async def test_a_refusal_is_said_and_tried_again(tmp_path, caplog):
    cluster = Cluster(tmp_path)
    cluster.denied = True
    certificate = cluster.certificate(tmp_path)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(certificate.ensure())
        async with asyncio.timeout(20):
            while "refuses a certificate" not in caplog.text:
                await asyncio.sleep(0.05)
            cluster.denied = False
            await task


async def test_clients_may_show_a_certificate_of_the_cluster(tmp_path):
    cluster = Cluster(tmp_path)
    certificate = cluster.certificate(tmp_path)
    await certificate.ensure()
    own = issue(
        cluster.ca, common_name="system:node:edge-1", organizations=["system:nodes"], now=NOW, client=True
    )
    stranger = issue(create_ca("other", NOW), common_name="system:node:edge-1", now=NOW, client=True)
    async with serving(certificate) as port:
        for pair, answer in ((own, b'["system:node:edge-1",["system:nodes"]]'), (stranger, b"")):
            file = tmp_path / "client.pem"
            file.write_bytes(pair.cert_pem + pair.key_pem)
            context = client(cluster)
            context.load_cert_chain(file)
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                assert await ask(port, context) == answer


async def test_slow_and_plain_clients_are_let_go(tmp_path):
    cluster = Cluster(tmp_path)
    certificate = cluster.certificate(tmp_path)
    await certificate.ensure()
    async with serving(certificate, header_timeout=0.3, tick=0.05) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client(cluster))
        writer.write(b"GET / HTTP/1.1\r\n")  # and nothing more
        assert b"408" in await reader.read() or reader.at_eof()
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")  # no TLS
        with contextlib.suppress(ConnectionError):
            assert b"200" not in await reader.read()
        writer.close()


def test_the_dummy_address_is_left_out_where_it_cannot_be_had():
    both = Listening((("127.0.0.1", 10550), ("203.0.113.7", 10550)), secure=True)
    left = reachable(both, make_interface=False)
    assert left == Listening((("127.0.0.1", 10550),), secure=True)
    assert left.for_pods == ("127.0.0.1", "10550")
    here = Listening((("127.0.0.1", 10550), ("127.30.10.1", 10550)), secure=True)
    assert reachable(here, make_interface=False) == here
    assert here.for_pods == ("127.30.10.1", "10550")


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"),
    reason="needs root, unshare and ip",
)
def test_the_dummy_address_is_made_where_that_is_allowed():
    program = """
import sys
from edgehive.edge.metaserver_listen import Listening, reachable
both = Listening((("127.0.0.1", 1), ("169.254.30.10", 2)), secure=True)
assert len(reachable(both, make_interface=False).addresses) == 1
assert reachable(both, make_interface=True) == both
assert reachable(both, make_interface=False) == both, "it is there now"
"""
    # A network of its own, which goes with the process.
    inside = 'ip link set lo up && exec "$0" -c "$1"'
    command = ["unshare", "-n", "sh", "-c", inside, sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if "unshare failed" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr


def test_only_requests_of_nodes_are_signed(tmp_path):
    from cryptography.hazmat.primitives.serialization import Encoding

    from edgehive.aio import pki

    cluster = Cluster(tmp_path)

    def request(common_name, organizations, addresses=("127.0.0.1",)):
        from cryptography import x509

        der = pki.create_csr(pki.new_key(), common_name, organizations, addresses)
        return x509.load_der_x509_csr(der).public_bytes(Encoding.PEM)

    assert b"BEGIN CERTIFICATE" in sign_csr(cluster.pki, request("system:node:a", ["system:nodes"]), NOW)
    for wrong in (
        request("admin", ["system:masters"]),
        request("system:node:a", ["system:masters"]),
        request("system:node:a", ["system:nodes", "system:masters"]),
        request("system:node:a", ["system:nodes"], ()),
        b"nonsense",
    ):
        with pytest.raises(pki.CertificateError):
            sign_csr(cluster.pki, wrong, NOW)
