"""The child that makes MetaServer's key and installs its certificate: ``python -m edgehive.edge.metaserver_csr``.

It reads one `Job` as JSON on its input. Being a child keeps `cryptography` out of edgecore's memory.
"""

import sys
from pathlib import Path

import msgspec

from edgehive.aio import pki
from edgehive.edge.enroll_der import der_to_pem
from edgehive.edge.enroll_files import write_atomically
from edgehive.edge.metaserver_certificate import Job
from edgehive.wire.endpoint import NODE_USER_PREFIX, NODES_ORGANIZATION


def run_job(job: Job) -> bytes:
    """Do `job`; the answer is the CSR as PEM, or nothing.

    Raises:
        CertificateError: the certificate is none, or not for the key that waits for it.
    """
    waiting = Path(job.key_file)
    if not job.certificate:
        key = pki.new_key()
        write_atomically(waiting, pki.key_pem(key))
        csr = pki.create_csr(key, NODE_USER_PREFIX + job.node, [NODES_ORGANIZATION], job.addresses)
        return der_to_pem(csr, "CERTIFICATE REQUEST")
    pair = pki.load_pair(job.certificate.encode(), waiting.read_bytes())
    write_atomically(Path(job.pair_file), job.certificate.encode() + b"\n" + pair.key_pem)
    waiting.unlink()
    return b""


def main() -> int:
    """Run the one job given on standard input."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        sys.stdout.buffer.write(run_job(job))
    except (pki.CertificateError, OSError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
