"""Whose certificate requests are signed."""

from dataclasses import replace

import pytest

from edgehive.wire.endpoint import Subject
from edgehive.wire.enroll import LEGACY_SUBJECT, CsrFacts, EnrollRequest, EnrollState, Presented, check_enroll
from edgehive.wire.refusal import Refused
from edgehive.wire.token import make_token, parse_token

KEY = b"key"
JWT = parse_token(make_token(ca_der=b"ca", ca_key_der=KEY, expires=100)).jwt
OWN = Subject(("system:nodes",), ("system:node:edge-1",))
REQUEST = EnrollRequest("edge-1", f"Bearer {JWT}", "", None, CsrFacts(OWN, signature_valid=True))
NEW = EnrollState(connected=False, exists=False)


def refused(request: EnrollRequest, state: EnrollState = NEW, now: float = 1.0) -> Refused:
    with pytest.raises(Refused) as caught:
        check_enroll(request, state, ca_key_der=KEY, now=now)
    return caught.value


def test_a_new_node_with_a_token() -> None:
    grant = check_enroll(REQUEST, NEW, ca_key_der=KEY, now=1.0)
    assert (grant.organization, grant.common_name) == ("system:nodes", "system:node:edge-1")
    assert not grant.renewal
    assert not grant.rejoin


def test_renewal_with_the_current_certificate_needs_no_token() -> None:
    request = replace(REQUEST, authorization="", presented=Presented(OWN))
    grant = check_enroll(request, EnrollState(connected=True, exists=True), ca_key_der=KEY, now=1e9)
    assert grant.renewal
    legacy = replace(request, presented=Presented(LEGACY_SUBJECT))
    assert check_enroll(legacy, NEW, ca_key_der=KEY, now=1.0).renewal


@pytest.mark.parametrize(
    "subject",
    [
        Subject(("system:masters",), ("system:node:edge-1",)),
        Subject(("system:nodes", "system:masters"), ("system:node:edge-1",)),
        Subject((), ("system:node:edge-1",)),
        Subject(("system:nodes",), ("system:node:edge-2",)),
        Subject(("system:nodes",), ("system:node:edge-1", "admin")),
        Subject(("system:nodes",), ("kubernetes-admin",)),
        Subject(("system:nodes",), ("system:node:",)),
        Subject(("system:nodes",), ()),
    ],
)
def test_a_node_obtains_nothing_but_its_own_certificate(subject: Subject) -> None:
    assert refused(replace(REQUEST, csr=CsrFacts(subject, signature_valid=True))).status == 403


def test_somebody_elses_certificate_does_not_renew() -> None:
    other = Presented(Subject(("system:nodes",), ("system:node:edge-2",)))
    refusal = refused(replace(REQUEST, presented=other))
    assert refusal.status == 401
    assert refusal.text.startswith("failed to verify the certificate for edgenode: edge-1, err: ")
    expired = refused(replace(REQUEST, presented=Presented(OWN, "certificate has expired")))
    assert "expired" in expired.text


def test_client_use_only() -> None:
    assert check_enroll(replace(REQUEST, ext_key_usages="[2]"), NEW, ca_key_der=KEY, now=1.0)
    assert check_enroll(replace(REQUEST, ext_key_usages="[]"), NEW, ca_key_der=KEY, now=1.0)
    for header in ("[1]", "[0]", "[2,1]"):
        assert refused(replace(REQUEST, ext_key_usages=header)).status == 403
    for header in ("x", "{}", '["2"]', "[2.5]", "\ud800", "[" * 50_000):
        assert refused(replace(REQUEST, ext_key_usages=header)).status == 400


def test_a_token_does_not_take_over_a_connected_node() -> None:
    assert refused(REQUEST, EnrollState(connected=True, exists=True)).status == 409


def test_joining_again_is_noted_and_can_be_forbidden() -> None:
    assert check_enroll(REQUEST, EnrollState(connected=False, exists=True), ca_key_der=KEY, now=1.0).rejoin
    forbidden = EnrollState(connected=False, exists=True, allow_rejoin=False)
    assert refused(REQUEST, forbidden).status == 403


def test_bad_requests() -> None:
    assert refused(replace(REQUEST, node="")).status == 400
    assert refused(replace(REQUEST, node="Edge/1")).status == 400
    assert refused(replace(REQUEST, csr=CsrFacts(OWN, signature_valid=False))).status == 400
    assert refused(replace(REQUEST, csr=CsrFacts(OWN, signature_valid=True, strong_key=False))).status == 400
    assert refused(replace(REQUEST, authorization="")).status == 401
    assert refused(REQUEST, now=100.0).status == 401
