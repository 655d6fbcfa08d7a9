"""Certificates that Go and OpenSSL take are taken in every version of Python."""

import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgehive.aio.tls import trusting

NOW = datetime.datetime.now(datetime.UTC)


def issue(name: str, issuer: tuple | None = None) -> tuple:
    """A certificate as older tools make it: without key identifiers."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(issuer[1].subject if issuer else subject, subject, key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(NOW - datetime.timedelta(1)).not_valid_after(
        NOW + datetime.timedelta(1)
    )
    extension = (
        x509.SubjectAlternativeName([x509.DNSName(name)]) if issuer else x509.BasicConstraints(True, None)
    )
    builder = builder.add_extension(extension, critical=issuer is None)
    return key, builder.sign(issuer[0] if issuer else key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(a, b, server_hostname="server.example"),
        server.wrap_bio(b, a, server_side=True),
    ]
    for _ in range(8):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ends[0].version() is not None
    assert ends[0].getpeercert()


def test_a_ca_without_key_identifiers_is_trusted_and_another_is_not(tmp_path):
    authority, other = issue("ca"), issue("ca")
    key, certificate = issue("server.example", authority)
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "server.pem").write_bytes(pem(certificate) + encoded)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.pem")
    shake_hands(trusting(cadata=pem(authority[1]).decode()), server)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(trusting(cadata=pem(other[1]).decode()), server)
