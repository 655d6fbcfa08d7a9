"""The child process that obtains the node's certificate: ``python -m edgehive.edge.csr``.

It reads one `Job` as JSON on its input, talks to the cloud's HTTPS port as KubeEdge's edgecore does (CA
download, hash check, then a certificate request over the now verified TLS), writes the three files and
prints one `Outcome` as JSON. Being a child keeps `cryptography` and `http.client` out of edgecore's memory
and the token out of every command line.
"""

import http.client
import socket
import ssl
import sys
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from edgehive.aio import pki
from edgehive.aio.oserrors import reason_of
from edgehive.aio.tls import trusting
from edgehive.edge.enroll_der import der_to_pem
from edgehive.edge.enroll_files import write_atomically
from edgehive.edge.enroll_job import Job, Outcome, install_pair
from edgehive.kit.errors import EdgehiveError, UserError
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label
from edgehive.wire.endpoint import NODE_USER_PREFIX, NODES_ORGANIZATION
from edgehive.wire.token import check_ca, parse_token

_LIMIT = 1 << 20
_TIMEOUT = 30.0
_LATER = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class _Refusal(EdgehiveError):
    def __init__(self, message: str, *, retry: bool) -> None:
        super().__init__(message)
        self.retry = retry


def run_job(job: Job) -> Outcome:
    """Do `job`; never raises what a person or the network can cause."""
    try:
        _obtain(job)
    except UserError as exc:
        return Outcome(exc.message, exc.hint)
    except _Refusal as exc:
        return Outcome(str(exc), retry=exc.retry)
    except ssl.SSLCertVerificationError as exc:
        return Outcome(
            f"the certificate of {job.server} is not acceptable: {exc.verify_message}",
            "the cloud's certificate must name the address the edge uses (advertiseAddress, dnsNames)",
        )
    except (OSError, http.client.HTTPException) as exc:
        return Outcome(
            f"{job.server} cannot be reached: {reason_of(exc) if isinstance(exc, OSError) else str(exc) or type(exc).__name__}",
            retry=True,
        )
    except EdgehiveError as exc:
        return Outcome(str(exc))
    return Outcome()


def _obtain(job: Job) -> None:
    headers = {"NodeName": job.node}
    if job.token:
        token = parse_token(job.token)
        ca = _download(job.server, "/ca.crt", _unverified())
        check_ca(token, ca)
        ca_pem = der_to_pem(ca)
        headers["Authorization"] = f"Bearer {token.jwt}"
        context = trusting(cadata=ca_pem.decode())
    else:
        ca_pem = b""
        context = trusting(cafile=job.ca_file)
        context.load_cert_chain(job.cert_file, job.key_file)
    key = pki.new_key()
    common_name = NODE_USER_PREFIX + job.node
    csr = pki.create_csr(key, common_name, [NODES_ORGANIZATION])
    der = _download(job.server, "/edge.crt", context, headers=headers, body=csr)
    certificate = pki.load_certificate(der)
    if certificate.public_key() != key.public_key():
        raise _Refusal("the cloud signed another key than the one asked for", retry=False)
    if pki.subject_of(certificate)[0] != common_name:
        raise _Refusal("the cloud signed another name than the one asked for", retry=False)
    if ca_pem:
        write_atomically(Path(job.ca_file), ca_pem, mode=0o644)
    install_pair(Path(job.cert_file), Path(job.key_file), der_to_pem(der), pki.key_pem(key))


def _unverified() -> ssl.SSLContext:
    # The CA cannot be verified before it is known; its hash is checked against the token instead.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _download(
    server: str,
    path: str,
    context: ssl.SSLContext,
    *,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> bytes:
    parts = urlsplit(server)
    if not parts.hostname:
        raise UserError(f"modules.edgeHub.httpServer is not a URL: {safe_label(server)}")
    connection = http.client.HTTPSConnection(
        parts.hostname, parts.port or 443, context=context, timeout=_TIMEOUT
    )
    try:
        connection.request("GET", path, body=body, headers=headers or {})
        response = connection.getresponse()
        data = response.read(_LIMIT + 1)
    except socket.gaierror as exc:
        raise _Refusal(f"{parts.hostname} is not a known host name", retry=True) from exc
    finally:
        connection.close()
    if response.status != http.client.OK:
        text = safe_label(data.decode("utf-8", "replace").strip(), 300)
        _refuse(response.status, path, text)
    if not 0 < len(data) <= _LIMIT:
        raise _Refusal(f"the cloud's answer to {path} has an impossible size", retry=False)
    return data


def _refuse(status: int, path: str, text: str) -> None:
    if status == http.client.UNAUTHORIZED:
        raise UserError(
            f"the cloud refused this node: {text}",
            hint="the join token is wrong or older than a day; get a new one with: edgehive gettoken (KubeEdge: keadm gettoken)",
        )
    raise _Refusal(f"the cloud answered {status} to {path}: {text}", retry=status in _LATER)


def main() -> int:
    """Run the one job given on standard input."""
    try:
        job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    except MALFORMED as exc:
        outcome = Outcome(f"malformed job: {exc}")
    else:
        outcome = run_job(job)
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
    return 0 if not outcome.error else 1


if __name__ == "__main__":
    sys.exit(main())
