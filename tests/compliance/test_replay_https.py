"""The recorded join (port 10002): what the original's edge sends satisfies our policy, and what it got is ours."""

from dataclasses import dataclass

import pytest
import replay
from cryptography import x509
from cryptography.x509.oid import NameOID

from edgehive.wire.endpoint import Subject
from edgehive.wire.enroll import CsrFacts, EnrollRequest, EnrollState, check_enroll
from edgehive.wire.refusal import Refused
from edgehive.wire.token import ca_hash, check_ca, make_token, parse_token

RECORDING = replay.RECORDED / "https.jsonl.gz"
pytestmark = pytest.mark.skipif(
    not RECORDING.exists(), reason="no recordings of the original beside the checkout"
)


@dataclass
class Exchange:
    line: str
    headers: dict[str, str]
    body: bytes
    status: str
    answer: bytes


@pytest.fixture(scope="module")
def exchanges() -> list[Exchange]:
    found = []
    asked = None
    for line in replay.read_lines(RECORDING):
        if line["kind"] != "http":
            continue
        if line["dir"] == "edge>cloud":
            asked = line
        elif asked is not None:
            found.append(
                Exchange(
                    asked["line"],
                    {key.lower(): value for key, value in asked["headers"]},
                    bytes.fromhex(asked["body"]),
                    line["line"],
                    bytes.fromhex(line["body"]),
                )
            )
    return found


def subject_of(name: x509.Name) -> Subject:
    def values(oid: x509.ObjectIdentifier) -> tuple[str, ...]:
        return tuple(str(attribute.value) for attribute in name.get_attributes_for_oid(oid))

    return Subject(values(NameOID.ORGANIZATION_NAME), values(NameOID.COMMON_NAME))


def test_the_join_of_the_original_is_granted(exchanges: list[Exchange]) -> None:
    (asked,) = [e for e in exchanges if e.line.startswith("GET /edge.crt ")]
    csr = x509.load_der_x509_csr(asked.body)
    facts = CsrFacts(subject_of(csr.subject), signature_valid=csr.is_signature_valid)
    node = asked.headers["nodename"]
    request = EnrollRequest(node, asked.headers["authorization"], "", None, facts)
    with pytest.raises(Refused, match="signature"):  # its key is not ours, so its token is not either
        check_enroll(request, EnrollState(connected=False, exists=False), ca_key_der=b"ours", now=0.0)
    ours = parse_token(make_token(ca_der=b"ca", ca_key_der=b"ours", expires=10)).jwt
    request = EnrollRequest(node, f"Bearer {ours}", "", None, facts)
    grant = check_enroll(request, EnrollState(connected=False, exists=False), ca_key_der=b"ours", now=0.0)
    issued = x509.load_der_x509_certificate(asked.answer)
    assert subject_of(issued.subject) == Subject((grant.organization,), (grant.common_name,))
    assert asked.status == "HTTP/1.1 200 OK"


def test_the_ca_answer_is_a_certificate_and_its_hash_is_the_first_field_of_a_token(
    exchanges: list[Exchange],
) -> None:
    asked = next(e for e in exchanges if e.line.startswith("GET /ca.crt "))
    assert subject_of(x509.load_der_x509_certificate(asked.answer).subject).common_names == ("KubeEdge",)
    token = parse_token(make_token(ca_der=asked.answer, ca_key_der=b"key", expires=1))
    check_ca(token, asked.answer)
    assert token.ca_hash == ca_hash(asked.answer)
