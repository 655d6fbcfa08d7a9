"""TLS contexts of cloudcore's two ports."""

import ssl
import tempfile
from pathlib import Path

from edgehive.aio.pki import KeyPair

_CIPHERS = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305"
"""What the original's hub accepts in TLS 1.2."""


def hub_context(server: KeyPair, ca_pem: bytes) -> ssl.SSLContext:
    """For the edges' link: a client certificate of our CA is required."""
    context = _context(server, ca_pem)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_ciphers(_CIPHERS)
    return context


def https_context(server: KeyPair, ca_pem: bytes) -> ssl.SSLContext:
    """For enrolment: a client certificate is welcome, and verified if there is one."""
    context = _context(server, ca_pem)
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
