"""MetaServer's serving certificate: asked of the cluster through the cloud, kept, renewed in time.

As a kubelet does it: a CertificateSigningRequest for the signer ``kubernetes.io/kubelet-serving``, with the node's name
as subject and the addresses of the listeners. The directory is laid out as KubeEdge's ``/etc/kubeedge/pki/metaserver``:
``ca.crt`` and ``metaserver-current.pem`` (certificate and key). Loaded only when MetaServer authenticates its clients.
"""

import asyncio
import base64
import binascii
import hashlib
import logging
import ssl
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from edgehive.edge.enroll_der import CertificateUnreadable, read_certificate
from edgehive.edge.enroll_files import write_atomically
from edgehive.edge.metaclient import Failed, Reply
from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import EdgehiveError, Transient
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label
from edgehive.wire import resource as res
from edgehive.wire.endpoint import NODE_USER_PREFIX
from edgehive.wire.message import INSERT, NULL, QUERY, Message, Stamp, content_data

log = logging.getLogger(__name__)

SIGNER = "kubernetes.io/kubelet-serving"
USAGES = ("digital signature", "key encipherment", "server auth")
_NAMESPACE = "default"  # in the resource string; requests have none
_SHARE = 0.75  # of its life, after which a certificate is renewed
_PATIENCE = 240.0  # seconds for somebody to approve and sign, as in KubeEdge
_CHILD_TIMEOUT = 60.0


class Job(msgspec.Struct):
    """What the child does: make a key and a request, or, with a `certificate` (PEM), install it."""

    node: str
    key_file: str
    pair_file: str
    addresses: list[str]
    certificate: str = ""


class Cloud(Protocol):
    """What is used of `edge.metamanager.MetaManager` and `edge.hub.EdgeHub`."""

    @property
    def connected(self) -> bool: ...
    async def ask_object(self, operation: str, resource: str, content: bytes) -> Reply: ...


class Asking(Protocol):
    """The link, for the one request whose answer is no object."""

    async def request(self, message: Message, timeout: float = 60.0) -> Message: ...


class NotYet(Transient):
    """There is no certificate at the moment."""


class ServingCertificate:
    """Keeps one certificate; `context` is what the listener uses."""

    def __init__(
        self,
        *,
        directory: Path,
        node: str,
        addresses: Sequence[str],
        client_ca_files: Sequence[Path],
        cloud: Cloud,
        link: Asking,
        stamp: Stamp,
        wall: Callable[[], float],
        rng: Callable[[], float],
        known_ca: Callable[[], bytes] = lambda: b"",
    ) -> None:
        """Take what it needs.

        `client_ca_files` are further CAs whose clients are taken; `known_ca` is the cluster's CA as pods have it, for
        a cloud that does not know it (the original's, with a kubeconfig that names no file).
        """
        self._known_ca = known_ca
        self._pair = directory / "metaserver-current.pem"
        self._names = directory / "metaserver-current.names"
        self._ca = directory / "ca.crt"
        self._waiting = directory / "metaserver-key.next"
        self._node = node
        self._addresses = sorted(set(addresses))
        self._client_cas = client_ca_files
        self._cloud = cloud
        self._link = link
        self._stamp = stamp
        self._wall = wall
        self._backoff = Backoff(1.0, 60.0, jitter=0.2, rng=rng)
        self.poll = 1.0
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.num_tickets = 0
        self.context.verify_mode = ssl.CERT_OPTIONAL

    async def ensure(self) -> None:
        """Wait until there is a certificate; the one on disk is taken at once, with or without a cloud."""
        while not self._load():
            try:
                await self._obtain()
            except EdgehiveError as exc:
                delay = self._backoff.next()
                log.warning(
                    "MetaServer has no certificate yet: %s; again in %.0f s", safe_label(str(exc)), delay
                )
                await asyncio.sleep(delay)
        self._backoff.reset()

    async def run(self) -> None:
        """Renew for ever; what cannot be renewed goes on being used."""
        while True:
            left = self._due() - self._wall()
            if left > 0:
                await asyncio.sleep(min(left, 3600.0))
                continue
            try:
                await self._obtain()
                self._load()
                self._backoff.reset()
                log.info("MetaServer's certificate is renewed")
            except EdgehiveError as exc:
                delay = self._backoff.next()
                log.warning("MetaServer's certificate is not renewed: %s; again in %.0f s", exc, delay)
                await asyncio.sleep(delay)

    def _due(self) -> float:
        facts = read_certificate(self._pair.read_bytes())
        return facts.not_before + _SHARE * (facts.not_after - facts.not_before)

    def _load(self) -> bool:
        """Take the files into use, if they are there and for us."""
        try:
            facts = read_certificate(self._pair.read_bytes())
            if facts.common_name != NODE_USER_PREFIX + self._node or facts.not_after <= self._wall():
                return False
            if self._names.read_text("ascii").split() != self._addresses:
                return False
            self.context.load_verify_locations(self._ca)
            for path in self._client_cas:
                if path.is_file():
                    self.context.load_verify_locations(path)
            self.context.load_cert_chain(self._pair)
        except FileNotFoundError:
            return False
        except (OSError, CertificateUnreadable) as exc:
            log.warning("MetaServer's certificate cannot be used: %s", exc)
            return False
        return True

    async def _obtain(self) -> None:
        if not self._cloud.connected:
            raise NotYet("the cloud is not reachable")
        await self._fetch_ca()
        request = await self._child("")
        name = f"metaserver-{self._node}-{hashlib.sha256(request).hexdigest()[:10]}"
        csr = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {
                "request": base64.b64encode(request).decode(),
                "signerName": SIGNER,
                "usages": list(USAGES),
            },
        }
        resource = res.format_resource(_NAMESPACE, res.CSR, name)
        self._take(await self._cloud.ask_object(INSERT, resource, msgspec.json.encode(csr)))
        certificate = await self._signed(resource)
        await self._child(certificate)
        write_atomically(self._names, " ".join(self._addresses).encode())

    async def _fetch_ca(self) -> None:
        new_id, timestamp = self._stamp()
        question = Message(
            id=new_id,
            timestamp=timestamp,
            operation=QUERY,
            resource=res.K8S_CA,
            content=NULL,
            source="metamanager",
            group="meta",
        )
        pem = content_data((await self._link.request(question)).content) or self._known_ca()
        try:
            read_certificate(pem)
        except CertificateUnreadable as exc:
            raise NotYet(
                "the cloud does not know the cluster's CA (certificate-authority of its kubeconfig)"
            ) from exc
        write_atomically(self._ca, pem, mode=0o644)

    async def _signed(self, resource: str) -> str:
        """Wait for the certificate of a request."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while True:
                    found = self._take(await self._cloud.ask_object(QUERY, resource, NULL))
                    if found:
                        return found
                    await asyncio.sleep(self.poll)
        except TimeoutError:
            raise NotYet(
                f"{resource} is not approved and signed; cloudcore approves it with featureGates.requireAuthorization"
            ) from None

    @staticmethod
    def _take(reply: Reply) -> str:
        """The certificate in an answer, or nothing so far."""
        if isinstance(reply, Failed):
            raise NotYet(str(reply.status))
        try:
            status: dict[str, Any] = msgspec.json.decode(reply.object or b"{}", type=_Csr).status or {}
            for condition in status.get("conditions") or ():
                if condition.get("type") in ("Denied", "Failed"):
                    raise NotYet(f"the cluster refuses a certificate: {condition.get('message')}")
            return base64.b64decode(status.get("certificate") or "", validate=True).decode("ascii")
        except (*MALFORMED, binascii.Error, ValueError, AttributeError) as exc:
            raise NotYet("the cloud's answer to a certificate request cannot be read") from exc

    async def _child(self, certificate: str) -> bytes:
        job = Job(self._node, str(self._waiting), str(self._pair), self._addresses, certificate)
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "edgehive.edge.metaserver_csr",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_CHILD_TIMEOUT):
                output, errors = await child.communicate(msgspec.json.encode(job))
        except TimeoutError:
            raise NotYet("the certificate child took too long") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode:
            raise NotYet(
                f"the certificate child failed: {safe_label(errors.decode('utf-8', 'replace'), 300)}"
            )
        return output


class _Csr(msgspec.Struct):
    status: dict[str, Any] | None = None
