"""X.509 with `cryptography`: CAs, server and client certificates, CSR signing.

The profiles of KubeEdge's own CA, server and edge certificates are wire facts: EC P-256,
SEC1 keys, ecdsa-with-SHA256. Never imported by a running edgecore (10 MB): the edge makes its key and CSR
in a short-lived child process.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgehive.kit.errors import EdgehiveError

_BACKDATE = datetime.timedelta(minutes=5)  # a peer whose clock is a little behind must still accept it


class CertificateError(EdgehiveError):
    """A key, certificate or CSR cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def cert_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def cert_der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.key)

    @property
    def key_der(self) -> bytes:
        """SEC1 DER, as KubeEdge stores it."""
        return self.key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """SEC1 PEM (``EC PRIVATE KEY``)."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def public_key_pem(private: bytes) -> bytes:
    """The public half of a private key in PEM, as PEM."""
    public = serialization.load_pem_private_key(private, None).public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def _name(common_name: str, organizations: Sequence[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_cert_sign=ca,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def create_ca(common_name: str, now: datetime.datetime, *, days: int = 36400, serial: int = 0) -> KeyPair:
    """Make a self-signed CA."""
    key = new_key()
    name = _name(common_name, ())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number() >> 97)
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate, key)


def issue(
    ca: KeyPair,
    *,
    common_name: str,
    now: datetime.datetime,
    organizations: Sequence[str] = (),
    server: bool = False,
    client: bool = False,
    dns_names: Sequence[str] = (),
    addresses: Sequence[str] = (),
    days: int = 36400,
    public_key: ec.EllipticCurvePublicKey | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> KeyPair:
    """Issue a leaf for a new key, or for `key`."""
    key = key or new_key()
    return KeyPair(
        sign_public_key(
            ca,
            public_key or key.public_key(),
            common_name=common_name,
            organizations=organizations,
            now=now,
            server=server,
            client=client,
            dns_names=dns_names,
            addresses=addresses,
            days=days,
        ),
        key,
    )


def sign_public_key(
    ca: KeyPair,
    public_key: ec.EllipticCurvePublicKey,
    *,
    common_name: str,
    organizations: Sequence[str],
    now: datetime.datetime,
    server: bool,
    client: bool,
    dns_names: Sequence[str] = (),
    addresses: Sequence[str] = (),
    days: int = 365,
) -> x509.Certificate:
    """Certify a public key for exactly the given subject and usages."""
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(common_name, organizations))
        .issuer_name(ca.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number() >> 97)
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False
        )
    )
    names: list[x509.GeneralName] = [x509.DNSName(n) for n in dns_names if n]
    names += [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(ca.key, hashes.SHA256())


def create_csr(
    key: ec.EllipticCurvePrivateKey,
    common_name: str,
    organizations: Sequence[str],
    addresses: Sequence[str] = (),
) -> bytes:
    """A CSR as DER; `addresses` become subject alternative names."""
    csr = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name, organizations))
    if addresses:
        names = [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
        csr = csr.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True, slots=True)
class Csr:
    """What a certificate signing request asks for; its self-signature has been verified."""

    public_key: ec.EllipticCurvePublicKey
    common_name: str
    organizations: tuple[str, ...]
    has_extensions: bool
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    other_names: bool = False
    """Whether it also asks for names of other kinds (e-mail, URI)."""


_BAD_EXTENSIONS = (x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


def parse_csr(der: bytes) -> Csr:
    """Read and verify a DER CSR.

    Raises:
        CertificateError: not a CSR, wrong key type, or its self-signature does not verify.
    """
    try:
        csr = x509.load_der_x509_csr(der)
        if not csr.is_signature_valid:
            raise CertificateError("the CSR's own signature is wrong")
        public_key = csr.public_key()
        extensions = csr.extensions
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, *_BAD_EXTENSIONS) as exc:
        raise CertificateError("this is not a certificate signing request (DER)") from exc
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise CertificateError("the CSR's key must be an elliptic-curve key")
    names = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    organizations = csr.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return Csr(
        public_key,
        str(names[0].value) if len(names) == 1 else "",
        tuple(str(o.value) for o in organizations),
        len(extensions) > 0,
        *_alternative_names(extensions),
    )


def pem_csr_to_der(pem: bytes) -> bytes:
    """The DER of a CSR in PEM.

    Raises:
        CertificateError: it is none.
    """
    try:
        csr = x509.load_pem_x509_csr(pem)
    except ValueError as exc:
        raise CertificateError("this is not a certificate signing request (PEM)") from exc
    return csr.public_bytes(serialization.Encoding.DER)


def _alternative_names(extensions: x509.Extensions) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), (), False
    dns = tuple(names.get_values_for_type(x509.DNSName))
    addresses = tuple(map(str, names.get_values_for_type(x509.IPAddress)))
    return dns, addresses, len(list(names)) > len(dns) + len(addresses)


def load_pair(cert: bytes, key: bytes) -> KeyPair:
    """Load certificate and key, each PEM or DER.

    Raises:
        CertificateError: unreadable, not an EC key, or the key does not belong to the certificate.
    """
    try:
        certificate = load_certificate(cert)
        private = (
            serialization.load_pem_private_key(key, None)
            if key.lstrip().startswith(b"-----")
            else serialization.load_der_private_key(key, None)
        )
    except (ValueError, TypeError) as exc:
        raise CertificateError("the private key cannot be read (PEM or DER, not encrypted)") from exc
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise CertificateError("the private key must be an elliptic-curve key")
    if private.public_key() != certificate.public_key():
        raise CertificateError("the private key does not belong to the certificate")
    return KeyPair(certificate, private)


def load_certificate(data: bytes) -> x509.Certificate:
    """Load a PEM or DER certificate.

    Raises:
        CertificateError: it is neither.
    """
    try:
        if data.lstrip().startswith(b"-----"):
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)
    except ValueError as exc:
        raise CertificateError("the certificate cannot be read (PEM or DER)") from exc


def subject_of(certificate: x509.Certificate) -> tuple[str, tuple[str, ...]]:
    """Return (common name, organizations)."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    organizations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return (str(names[0].value) if names else "", tuple(str(o.value) for o in organizations))


def verify_client(certificate: x509.Certificate, ca: x509.Certificate, now: datetime.datetime) -> None:
    """Check that `ca` signed `certificate`, that it is valid now and may be used by a client.

    Raises:
        CertificateError: otherwise; the message says which check failed.
    """
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as exc:
        raise CertificateError("x509: certificate signed by unknown authority") from exc
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise CertificateError("x509: certificate has expired or is not yet valid")
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise CertificateError("x509: certificate specifies an incompatible key usage")
