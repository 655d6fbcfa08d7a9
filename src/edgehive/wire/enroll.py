"""Which certificate requests the hub signs: a node may obtain its own client certificate and nothing else.

The original copies the subject of any request whose sender holds a token, so that one edge can obtain another
node's certificate or ``O=system:masters``. Parsing X.509 is the caller's work; this is the policy over the facts.
"""

from dataclasses import dataclass

import msgspec

from edgehive.kube.refs import is_dns_subdomain
from edgehive.wire.endpoint import NODE_USER_PREFIX, NODES_ORGANIZATION, Subject
from edgehive.wire.message import MALFORMED
from edgehive.wire.refusal import Refused
from edgehive.wire.token import check_authorization

MAX_CSR = 1 << 20
EKU_CLIENT_AUTH = 2
"""The number the original uses for clientAuth in its ``ExtKeyUsages`` header."""

LEGACY_SUBJECT = Subject(("KubeEdge",), ("kubeedge.io",))
"""Certificates of very old edges; still good for renewal."""


@dataclass(frozen=True, slots=True)
class CsrFacts:
    """What a certificate request says."""

    subject: Subject
    signature_valid: bool
    strong_key: bool = True


@dataclass(frozen=True, slots=True)
class Presented:
    """The client certificate the TLS peer presented; `problem` is why it does not verify, else empty."""

    subject: Subject
    problem: str = ""


@dataclass(frozen=True, slots=True)
class EnrollRequest:
    """One ``GET /edge.crt``; header values are the first of their name, empty when absent."""

    node: str
    authorization: str
    ext_key_usages: str
    presented: Presented | None
    csr: CsrFacts


@dataclass(frozen=True, slots=True)
class EnrollState:
    """What the cloud knows about the node that is asking, and what its administrator allows."""

    connected: bool
    """A session of this node is up now, on any cloudcore we know of."""
    exists: bool
    """A Node object of this name exists."""
    allow_rejoin: bool = True
    """Whether a token may be used for a node that exists already (new key, same name)."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Sign: subject exactly O=system:nodes, CN=system:node:`node`; client usage only; no SANs."""

    node: str
    renewal: bool
    """The peer proved itself with its current certificate."""
    rejoin: bool
    """A token was used for a node that exists: log it and record an event."""

    @property
    def organization(self) -> str:
        """The subject's only O."""
        return NODES_ORGANIZATION

    @property
    def common_name(self) -> str:
        """The subject's only CN."""
        return NODE_USER_PREFIX + self.node


def check_enroll(request: EnrollRequest, state: EnrollState, *, ca_key_der: bytes, now: float) -> Grant:
    """Decide on a certificate request.

    Raises:
        Refused: 401 (who are you), 400 (malformed), 403 (not yours), 409 (that node is connected now).
    """
    renewal = request.presented is not None
    if request.presented is not None:
        _check_presented(request.presented, request.node)
    else:
        check_authorization(request.authorization, ca_key_der=ca_key_der, now=now)
    if not is_dns_subdomain(request.node):
        raise Refused(400, "header NodeName is missing or not a node name")
    _check_usages(request.ext_key_usages)
    _check_csr(request.csr, request.node)
    if not renewal and state.connected:
        raise Refused(409, "this node is connected; a join token cannot take it over")
    if not renewal and state.exists and not state.allow_rejoin:
        raise Refused(403, "this node has joined before; re-joining is switched off")
    return Grant(request.node, renewal=renewal, rejoin=not renewal and state.exists)


def _check_presented(presented: Presented, node: str) -> None:
    prefix = f"failed to verify the certificate for edgenode: {node[:253]}, err: "
    if presented.problem:
        raise Refused(401, prefix + presented.problem)
    if presented.subject.node != node and presented.subject != LEGACY_SUBJECT:
        raise Refused(401, prefix + "the certificate belongs to another node")


def _check_usages(header: str) -> None:
    if not header:
        return
    try:
        usages = msgspec.json.decode(header.encode(), type=list[int])
    except (*MALFORMED, UnicodeEncodeError) as exc:
        raise Refused(400, "header ExtKeyUsages is not a JSON list of numbers") from exc
    if any(usage != EKU_CLIENT_AUTH for usage in usages):
        raise Refused(403, "an edge certificate is for client authentication only")


def _check_csr(csr: CsrFacts, node: str) -> None:
    if not csr.signature_valid:
        raise Refused(400, "the certificate request is not signed by its own key")
    if not csr.strong_key:
        raise Refused(400, "the certificate request's key is too weak")
    if csr.subject.node != node:
        raise Refused(403, "the certificate request's subject is not this node's")
