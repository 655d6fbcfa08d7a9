"""TLS contexts of cloudcore's ports."""

import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgehive.aio.pki import KeyPair
from edgehive.cloud.config import CloudStream
from edgehive.cloud.pki import CloudKeys, read_pair

_CIPHERS = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305"
"""What the original's hub accepts in TLS 1.2."""


_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
"""OpenSSL's ``X509_V_FLAG_NO_CHECK_TIME``, for which Python has no name."""


def hub_context(server: KeyPair, ca_pem: bytes) -> ssl.SSLContext:
    """For the edges' link: a client certificate of our CA is required.

    Whoever uses it checks the certificate's times (`time_problem`): as in the original, an edge whose certificate has
    expired is told so by an HTTP answer and not by a handshake that fails.
    """
    context = tunnel_context(server, ca_pem)
    context.verify_flags |= _NO_CHECK_TIME
    return context


def tunnel_context(server: KeyPair, ca_pem: bytes) -> ssl.SSLContext:
    """For the edges' tunnel: a client certificate of our CA is required, in time."""
    context = _context(server, ca_pem)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_ciphers(_CIPHERS)
    return context


def https_context(server: KeyPair, ca_pem: bytes) -> ssl.SSLContext:
    """For enrolment: a client certificate is welcome, and verified if there is one; its times by the handler."""
    context = _context(server, ca_pem)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= _NO_CHECK_TIME
    return context


def time_problem(certificate: Mapping[str, Any] | None, now: float) -> str:
    """Why a verified certificate (``getpeercert()``) does not count at `now` (seconds since the epoch), or ""."""
    if not certificate:
        return ""
    if now > ssl.cert_time_to_seconds(certificate["notAfter"]):
        return f"the client certificate has expired ({certificate['notAfter']}); join again with a token"
    if now < ssl.cert_time_to_seconds(certificate["notBefore"]):
        return f"the client certificate is not valid before {certificate['notBefore']}; look at the clocks"
    return ""


def stream_keys(config: CloudStream, keys: CloudKeys, kubernetes_ca: str) -> tuple[KeyPair, bytes]:
    """The stream server's own certificate, and the CA of the API server's client certificate.

    Files win, as in KubeEdge; without them it is the hub's certificate and the cluster's CA, so that nothing has
    to be made by hand.
    """
    files = (config.tls_stream_cert_file, config.tls_stream_private_key_file)
    own = read_pair(*files, "tlsStreamCertFile", "tlsStreamPrivateKeyFile")
    try:
        clients = Path(config.tls_stream_ca_file).read_bytes()
    except OSError:
        clients = kubernetes_ca.encode("ascii")
    return own or keys.server, clients


def stream_context(server: KeyPair, clients_pem: bytes) -> ssl.SSLContext:
    """For the API server, by its client certificate, and for metrics servers, by a token.

    Behind this port is a shell on every node: `cloud.stream_server` looks at each request before anything else.
    """
    context = _context(server, clients_pem)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _context(server: KeyPair, ca_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0  # a ticket holds the client's certificate, and no edge resumes a session
    context.load_verify_locations(cadata=ca_pem.decode("ascii"))
    with tempfile.TemporaryDirectory(
        prefix="cloudcore-"
    ) as folder:  # ssl reads key and chain from files only
        path = Path(folder) / "server.pem"
        path.touch(mode=0o600)
        path.write_bytes(server.cert_pem + server.key_pem)
        context.load_cert_chain(path)
    return context
