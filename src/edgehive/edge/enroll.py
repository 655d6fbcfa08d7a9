"""The node's identity: join with a token, use what is there, renew it in time.

The work itself is done by a short-lived child (`edge.csr`). This side decides when: a certificate for this
node that still fits its key is used as it is; otherwise the token is needed. Renewal happens at a point drawn
between 70 and 90 % of the lifetime, as in KubeEdge, and is retried until it worked.
"""

import asyncio
import logging
import os
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgehive.edge.config import EdgeHub
from edgehive.edge.enroll_der import CertificateFacts, CertificateUnreadable, read_certificate
from edgehive.edge.enroll_job import Job, Outcome, finish_install
from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import Transient, Unreachable, UserError
from edgehive.kit.malformed import MALFORMED
from edgehive.wire.endpoint import NODE_USER_PREFIX

log = logging.getLogger(__name__)

_CHILD_TIMEOUT = 120.0


class EnrollLater(Transient):
    """The cloud could not sign now."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Paths of the three files and what the certificate says."""

    ca_file: Path
    cert_file: Path
    key_file: Path
    facts: CertificateFacts

    def client_context(self) -> ssl.SSLContext:
        """TLS towards the cloud: chain and host name verified, our certificate shown, no ALPN."""
        return client_context(self.ca_file, self.cert_file, self.key_file)


def client_context(ca_file: Path, cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """TLS towards the cloud: chain and host name verified, our certificate shown, no ALPN."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(ca_file)
    context.load_cert_chain(cert_file, key_file)
    return context


RunJob = Callable[[Job], Awaitable[Outcome]]


async def run_child(job: Job) -> Outcome:
    """Run one job in a child process."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *(["-OO"] if sys.flags.optimize > 1 else []),
        "-m",
        "edgehive.edge.csr",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if k != "PYTHONSTARTUP"},
    )
    try:
        async with asyncio.timeout(_CHILD_TIMEOUT):
            output, _ = await child.communicate(msgspec.json.encode(job))
    except TimeoutError as exc:
        raise EnrollLater("the certificate request took too long") from exc
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    try:
        return msgspec.json.decode(output, type=Outcome)
    except MALFORMED as exc:
        raise EnrollLater(f"the certificate child failed (exit {child.returncode})") from exc


class Enroller:
    """Obtains, checks and renews the certificate of one node."""

    def __init__(
        self,
        *,
        node: str,
        config: EdgeHub,
        now: Callable[[], float],
        rng: Callable[[], float],
        run_job: RunJob = run_child,
    ) -> None:
        self._node = node
        self._server = config.http_server
        self._ca = Path(config.tls_ca_file)
        self._cert = Path(config.tls_cert_file)
        self._key = Path(config.tls_private_key_file)
        self._now = now
        self._rng = rng
        self._run_job = run_job
        self.first_retry = 1.0
        self.longest_sleep = 3600.0
        """A clock that was set is noticed within this time."""

    def current(self) -> Identity | None:
        """The identity on disk if it is this node's and usable, else ``None`` (the log says why)."""
        try:
            finish_install(self._cert, self._key)
            facts = read_certificate(self._cert.read_bytes())
            identity = Identity(self._ca, self._cert, self._key, facts)
            identity.client_context()
        except FileNotFoundError:
            return None
        except (OSError, CertificateUnreadable) as exc:
            log.warning("the certificate %s cannot be used: %s", self._cert, exc)
            return None
        if facts.common_name != NODE_USER_PREFIX + self._node:
            log.warning("the certificate %s belongs to another node", self._cert)
            return None
        return identity

    async def ensure(self, token: str) -> tuple[Identity, bool]:
        """Return an identity, joining with `token` if there is none yet, and whether the token was used.

        While the cloud cannot be reached it keeps trying.

        Raises:
            UserError: no token, or the cloud refused it, or its CA is not the token's.
        """
        identity = self.current()
        if identity is not None and (self._now() < identity.facts.not_after or not token):
            return identity, False
        if not token:
            raise UserError(
                f"this node has no certificate and no token to join with ({self._cert})",
                hint="put a token into modules.edgeHub.token; get one with: edgehive gettoken (KubeEdge: keadm gettoken)",
            )
        backoff = Backoff(self.first_retry, 30.0, jitter=0.2, rng=self._rng)
        while True:
            try:
                return await self._obtain(token), True
            except Transient as exc:
                delay = backoff.next()
                log.warning("joining: %s; again in %.1f s", exc, delay)
                await asyncio.sleep(delay)

    async def renew(self) -> Identity:
        """Get a new certificate with the current one.

        Raises:
            Transient: not now.
            UserError: the cloud refused.
        """
        return await self._obtain("")

    async def run_rotation(self, identity: Identity, installed: Callable[[], None]) -> None:
        """Renew for ever, calling `installed` after each new certificate.

        Nothing here ends edgecore: pods keep running with an expired certificate too.
        """
        backoff = Backoff(2.0, 32.0, jitter=0.1, rng=self._rng)
        due = self._due(identity.facts)
        while True:
            if (left := due - self._now()) > 0:
                await asyncio.sleep(min(left, self.longest_sleep))
                continue
            try:
                identity = await self.renew()
            except (Transient, UserError) as exc:
                delay = backoff.next()
                log.warning("renewing the certificate: %s; again in %.0f s", exc, delay)
                await asyncio.sleep(delay)
            else:
                backoff.reset()
                due = self._due(identity.facts)
                log.info("certificate renewed")
                installed()

    def _due(self, facts: CertificateFacts) -> float:
        share = 0.7 + 0.2 * self._rng()
        return facts.not_before + share * (facts.not_after - facts.not_before)

    async def _obtain(self, token: str) -> Identity:
        job = Job(self._server, self._node, str(self._ca), str(self._cert), str(self._key), token)
        outcome = await self._run_job(job)
        if outcome.error and outcome.retry:
            raise EnrollLater(outcome.error)
        if outcome.error:
            raise UserError(outcome.error, hint=outcome.hint)
        identity = self.current()
        if identity is None:
            raise Unreachable("the new certificate cannot be used")
        return identity
