"""Signs serving certificates of nodes with the cluster's CA: ``python -m edgehive.apiserver.csr_signer DIR``.

The CSR (PEM) comes on standard input, the certificate (PEM) goes to standard output. Being a child keeps
`cryptography` (10 MB) out of the control plane. What may be signed has been decided by whoever approved the request;
only the form is checked here.
"""

import asyncio
import datetime
import sys
from pathlib import Path

from edgehive.apiserver.pki import PkiDir
from edgehive.kit.errors import EdgehiveError

_DAYS = 365
_PATIENCE = 30.0


class CsrRefused(EdgehiveError):
    """The request cannot be signed."""


async def sign(directory: Path, request: bytes) -> bytes:
    """Return the certificate (PEM) for a request (PEM).

    Raises:
        CsrRefused: it is no proper request of a node.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "edgehive.apiserver.csr_signer",
        str(directory),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            certificate, errors = await child.communicate(request)
    except TimeoutError:
        raise CsrRefused("signing took too long") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        raise CsrRefused(errors.decode("utf-8", "replace").strip()[-300:] or "the signing child failed")
    return certificate


def issue(directory: PkiDir, request: bytes, now: datetime.datetime) -> bytes:
    """What the child does.

    Raises:
        CertificateError: the request is malformed, or asks for more than a node's names.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from edgehive.aio import pki

    csr = pki.parse_csr(pki.pem_csr_to_der(request))
    if csr.organizations != ("system:nodes",) or not csr.common_name.startswith("system:node:"):
        raise pki.CertificateError("the subject is not that of a node")
    if csr.other_names or not (csr.dns_names or csr.addresses):
        raise pki.CertificateError("the alternative names must be host names and addresses")
    ca = pki.load_pair(directory.cert("ca").read_bytes(), directory.key("ca").read_bytes())
    certificate = pki.sign_public_key(
        ca,
        csr.public_key,
        common_name=csr.common_name,
        organizations=csr.organizations,
        now=now,
        server=True,
        client=False,
        dns_names=csr.dns_names,
        addresses=csr.addresses,
        days=_DAYS,
    )
    return certificate.public_bytes(Encoding.PEM)


def main() -> int:
    """Sign the one request on standard input."""
    from edgehive.aio.pki import CertificateError

    try:
        now = datetime.datetime.now(datetime.UTC)
        sys.stdout.buffer.write(issue(PkiDir(Path(sys.argv[1])), sys.stdin.buffer.read(1 << 16), now))
    except CertificateError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
