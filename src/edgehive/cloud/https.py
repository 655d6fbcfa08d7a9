"""The HTTPS port of the hub: the CA, edge certificates, "does this node exist", reports of old edges.

Paths, statuses and texts are those of KubeEdge's 10002; what may be signed is decided in `wire.enroll`.
"""

import datetime
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from edgehive.aio.fewlines import FewLines, host_of
from edgehive.aio.http import Request, Response
from edgehive.aio.pki import CertificateError, Csr, KeyPair, load_certificate, parse_csr, sign_public_key
from edgehive.aio.pki import verify_client as verify_client_certificate
from edgehive.cloud.events import NodeEvents
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label
from edgehive.kube.api import KubeApi
from edgehive.kube.refs import NODES, is_dns_subdomain
from edgehive.kube.status import ApiStatus
from edgehive.wire.endpoint import Subject
from edgehive.wire.enroll import (
    MAX_CSR,
    CsrFacts,
    EnrollRequest,
    EnrollState,
    Grant,
    Presented,
    check_enroll,
)
from edgehive.wire.refusal import Refused

log = logging.getLogger(__name__)

_TEXT = {"content-type": "text/plain; charset=utf-8"}
_DER = {"content-type": "application/octet-stream"}
_REPORT_LIMIT = 3 * 1024 * 1024
_STRONG_BITS = 256


@dataclass(frozen=True, slots=True)
class LegacyReport:
    """What an edge older than v1.16 reports over HTTPS; `task` names type and id when the path has them."""

    node: str
    task_type: str
    task_id: str
    body: bytes
    remote: str
    """Who sent it; nothing proves that it is the node."""


class Sessions(Protocol):
    """Who is connected."""

    async def is_connected(self, node: str) -> bool:
        """Whether `node` has a session now, here or on another instance."""
        ...


class EnrollmentApi:
    """Answers requests; serve `handle` with an `aio.http.HttpServer`."""

    def __init__(
        self,
        *,
        api: KubeApi,
        ca: KeyPair,
        sessions: Sessions,
        events: NodeEvents,
        report: Callable[[LegacyReport], None],
        rejoined: Callable[[str], Awaitable[None]],
        wall: Callable[[], float],
        certificate_days: int,
        allow_rejoin: bool,
    ) -> None:
        """Wire up; `rejoined` is told of a node whose machine may have been replaced, before it can connect."""
        self._api = api
        self._ca = ca
        self._sessions = sessions
        self._events = events
        self._report = report
        self._rejoined = rejoined
        self._wall = wall
        self._days = certificate_days
        self._allow_rejoin = allow_rejoin
        self._lines = FewLines(log)
        self.issued = 0
        """Certificates signed, for the metrics."""
        self.refused = 0
        """Certificate requests refused, for the metrics."""
        self.reports = 0
        """Reports of old edges, for the metrics."""

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        match request.path.split("/"):
            case ["", "ca.crt"]:
                return await _only("GET", request, self._ca_certificate)
            case ["", "edge.crt"]:
                return await _only("GET", request, self._edge_certificate)
            case ["", "node", node]:
                return await _only("GET", request, lambda _: self._check_node(node))
            case ["", "nodeupgrade"]:
                return await _only("POST", request, self._node_upgrade)
            case ["", "task", kind, "name", task, "node", node, "status"]:
                return await _only("POST", request, lambda r: self._task_status(r, kind, task, node))
            case _:
                return _text(404, "404: Page Not Found")

    async def _ca_certificate(self, _request: Request) -> Response:
        return Response(200, self._ca.cert_der, dict(_DER))

    async def _edge_certificate(self, request: Request) -> Response:
        node = request.headers.get("nodename", "")
        try:
            certificate = await self._enroll(request, node)
        except Refused as exc:
            self.refused += 1
            self._lines.warning(
                "certificate requests refused",
                host_of(request.remote),
                "certificate for node %s refused to %s: %s",
                safe_label(node),
                request.remote,
                safe_label(exc.text),
            )
            return _text(exc.status, exc.text)
        return Response(200, certificate, dict(_DER))

    async def _enroll(self, request: Request, node: str) -> bytes:
        try:
            body = await request.body(MAX_CSR)
        except ApiStatus as exc:
            raise Refused(413, "the certificate request is too large") from exc
        csr, facts = _read_csr(body)
        enroll = EnrollRequest(
            node=node,
            authorization=request.headers.get("authorization", ""),
            ext_key_usages=request.headers.get("extkeyusages", ""),
            presented=self._presented(request.peer_cert),
            csr=facts,
        )
        now = self._wall()
        # Who asks is checked before anything is looked up for the asker.
        nobody = EnrollState(connected=False, exists=False, allow_rejoin=True)
        check_enroll(enroll, nobody, ca_key_der=self._ca.key_der, now=now)
        grant = check_enroll(enroll, await self._state(node), ca_key_der=self._ca.key_der, now=now)
        assert csr is not None  # check_enroll refuses a request whose signature is not valid
        certificate = sign_public_key(
            self._ca,
            csr.public_key,
            common_name=grant.common_name,
            organizations=(grant.organization,),
            now=datetime.datetime.fromtimestamp(now, datetime.UTC),
            server=False,
            client=True,
            days=self._days,
        )
        self.issued += 1
        await self._announce(grant, request.remote)
        return certificate.public_bytes(Encoding.DER)

    async def _state(self, node: str) -> EnrollState:
        try:
            exists = await self._exists(node)
            connected = await self._sessions.is_connected(node)
        except EdgehiveError as exc:
            raise Refused(500, "the cluster cannot be asked about this node now") from exc
        return EnrollState(connected=connected, exists=exists, allow_rejoin=self._allow_rejoin)

    async def _announce(self, grant: Grant, remote: str) -> None:
        if grant.rejoin:
            await self._rejoined(grant.node)
            log.warning("node %s joined again with a new key, from %s", grant.node, remote)
            await self._events.record(
                grant.node,
                "NodeRejoined",
                f"A new certificate was issued to {remote} with a join token, although the node exists",
                warning=True,
            )
        else:
            what = "renewed its certificate" if grant.renewal else "joined"
            log.info("node %s %s, from %s", grant.node, what, remote)

    def _presented(self, der: bytes | None) -> Presented | None:
        if der is None:
            return None
        now = datetime.datetime.fromtimestamp(self._wall(), datetime.UTC)
        try:
            certificate = load_certificate(der)
            names = certificate.subject
            subject = Subject(
                tuple(str(a.value) for a in names.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)),
                tuple(str(a.value) for a in names.get_attributes_for_oid(NameOID.COMMON_NAME)),
            )
            verify_client_certificate(certificate, self._ca.certificate, now)
        except CertificateError as exc:
            return Presented(Subject((), ()), str(exc))
        return Presented(subject)

    async def _exists(self, node: str) -> bool:
        try:
            await self._api.get(NODES, node)
        except ApiStatus as exc:
            if exc.code == 404:
                return False
            raise
        return True

    async def _check_node(self, node: str) -> Response:
        if not is_dns_subdomain(node):
            return _text(400, "Invalid node name")
        try:
            found = await self._exists(node)
        except EdgehiveError as exc:
            self._lines.warning(
                "lookups of nodes failed", "", "node %s could not be looked up: %s", node, exc
            )
            return _text(500, "Failed to query node information")
        return _text(200, "Node found") if found else _text(404, "Node not found")

    async def _node_upgrade(self, request: Request) -> Response:
        body = await _json_body(request)
        if body is None:
            return _text(400, "failed to read the report")
        # The original reads these before it has parsed the body and so always finds them empty.
        ids = msgspec.convert(body, _UpgradeIds, strict=False)
        return self._reported(
            LegacyReport(ids.node, "upgrade", ids.task, msgspec.json.encode(body), request.remote)
        )

    async def _task_status(self, request: Request, kind: str, task: str, node: str) -> Response:
        body = await _json_body(request)
        if body is None:
            return _text(400, "failed to read the report")
        return self._reported(LegacyReport(node, kind, task, msgspec.json.encode(body), request.remote))

    def _reported(self, report: LegacyReport) -> Response:
        self.reports += 1
        self._report(report)
        return _text(200, "ok")


class _UpgradeIds(msgspec.Struct):
    task: str = msgspec.field(default="", name="UpgradeID")
    node: str = msgspec.field(default="", name="NodeName")


async def _json_body(request: Request) -> dict[str, object] | None:
    try:
        return msgspec.json.decode(await request.body(_REPORT_LIMIT), type=dict[str, object])
    except (*MALFORMED, ApiStatus):
        return None


async def _only(method: str, request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    if request.method != method:
        return Response(405, b"405: Method Not Allowed", {**_TEXT, "allow": method})
    return await answer(request)


def _text(status: int, text: str) -> Response:
    return Response(status, text.encode(), dict(_TEXT))


def _read_csr(body: bytes) -> tuple[Csr | None, CsrFacts]:
    try:
        csr = parse_csr(body)
    except CertificateError as exc:
        log.debug("unusable certificate request: %s", exc)
        return None, CsrFacts(Subject((), ()), signature_valid=False)
    return csr, CsrFacts(
        Subject(csr.organizations, (csr.common_name,)),
        signature_valid=True,
        strong_key=csr.public_key.key_size >= _STRONG_BITS,
    )
