"""cloudcore's own keys: the CA of all edges, the server certificate, the join token.

They live in three Secrets of the namespace ``kubeedge`` whose names, keys and DER contents are KubeEdge's, so
that instances share them and either implementation can take over from the other. PEM files named in the
configuration win over the Secrets. Unlike the original, a server certificate that does not cover the advertised
addresses is issued anew, and the token's refresh survives failures of the API server.
"""

import asyncio
import datetime
import ipaddress
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from edgehive.aio.pki import CertificateError, KeyPair, create_ca, issue, load_pair
from edgehive.cloud.config import CloudHub
from edgehive.cloud.secrets import NAMESPACE, SecretStore
from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import EdgehiveError, UserError
from edgehive.kube.status import ApiStatus
from edgehive.wire.token import make_token

log = logging.getLogger(__name__)

CA_SECRET = "casecret"  # noqa: S105 - a name
SERVER_SECRET = "cloudcoresecret"  # noqa: S105 - a name
TOKEN_SECRET = "tokensecret"  # noqa: S105 - a name

_CA_SERIAL = 1024
_MAX_NAMES = 64
_RENEW_BEFORE = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class CloudKeys:
    """The CA and this cloudcore's server certificate."""

    ca: KeyPair
    server: KeyPair


class CloudPki:
    """Finds or makes the keys."""

    def __init__(self, *, secrets: SecretStore, hub: CloudHub, wall: Callable[[], float]) -> None:
        self._secrets = secrets
        self._hub = hub
        self._wall = wall

    async def load(self) -> CloudKeys:
        """Return the keys, made and stored if they do not exist yet.

        Raises:
            UserError: files or Secrets hold something unusable.
            ApiStatus: the API server refuses.
            Unreachable: the API server is not there.
        """
        await self._secrets.ensure_namespace()
        ca = await self._load_ca()
        return CloudKeys(ca, await self._load_server(ca))

    def _now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self._wall(), datetime.UTC)

    async def _load_ca(self) -> KeyPair:
        hub = self._hub
        local = read_pair(hub.tls_ca_file, hub.tls_ca_key_file, "tlsCAFile", "tlsCAKeyFile")
        if local is not None:
            log.info("the CA comes from %s", hub.tls_ca_file)
            await self._secrets.put(CA_SECRET, {"cadata": local.cert_der, "cakeydata": local.key_der})
            return local
        for _ in range(2):
            stored = await self._secrets.read(CA_SECRET)
            if stored is not None:
                return _decode_pair(CA_SECRET, stored.data.get("cadata"), stored.data.get("cakeydata"))
            made = create_ca("KubeEdge", self._now(), serial=_CA_SERIAL)
            if await self._secrets.create(CA_SECRET, {"cadata": made.cert_der, "cakeydata": made.key_der}):
                log.info("made a CA; it is in the Secret %s/%s", NAMESPACE, CA_SECRET)
                return made
        raise ApiStatus(409, "Conflict", f"the Secret {NAMESPACE}/{CA_SECRET} comes and goes")

    async def _load_server(self, ca: KeyPair) -> KeyPair:
        hub = self._hub
        local = read_pair(hub.tls_cert_file, hub.tls_private_key_file, "tlsCertFile", "tlsPrivateKeyFile")
        if local is not None:
            problem = self._problem(local.certificate, ca)
            if problem:
                log.warning("the server certificate %s %s; edges may refuse it", hub.tls_cert_file, problem)
            await self._secrets.put(SERVER_SECRET, _server_data(local))
            return local
        for _ in range(5):
            stored = await self._secrets.read(SERVER_SECRET)
            current = None
            if stored is not None:
                current = self._usable(stored.data.get("cloudcoredata"), stored.data.get("cloudcorekeydata"))
            problem = "cannot be read"
            if current is not None:
                problem = self._problem(current.certificate, ca)
                if not problem:
                    return current
            made = self._issue(ca, current)
            if stored is None:
                done = await self._secrets.create(SERVER_SECRET, _server_data(made))
            else:
                done = await self._secrets.replace(SERVER_SECRET, _server_data(made), stored.resource_version)
            if done:
                why = "there was none" if stored is None else f"the old one {problem}"
                log.info("issued a server certificate, in %s/%s: %s", NAMESPACE, SERVER_SECRET, why)
                return made
        raise ApiStatus(409, "Conflict", f"the Secret {NAMESPACE}/{SERVER_SECRET} keeps changing")

    def _usable(self, cert: bytes | None, key: bytes | None) -> KeyPair | None:
        try:
            return _decode_pair(SERVER_SECRET, cert, key)
        except UserError:
            return None

    def _issue(self, ca: KeyPair, current: KeyPair | None) -> KeyPair:
        # Instances that advertise different addresses share this Secret: names are added, not swapped back
        # and forth.
        names, addresses = _alternative_names(current.certificate) if current else ([], [])
        return issue(
            ca,
            common_name="KubeEdge",
            organizations=("KubeEdge",),
            now=self._now(),
            server=True,
            dns_names=_newest([*names, *(n for n in self._hub.dns_names if n)]),
            addresses=_newest([*addresses, *map(_normal, self._hub.advertise_address)]),
        )

    def _problem(self, certificate: x509.Certificate, ca: KeyPair) -> str:
        """Why `certificate` will not do, empty if it will."""
        try:
            certificate.verify_directly_issued_by(ca.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return "was issued by another CA"
        now = self._now()
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc - _RENEW_BEFORE:
            return "is expired or about to expire"
        names, addresses = _alternative_names(certificate)
        lacking = [n for n in self._hub.dns_names if n and n not in names]
        lacking += [a for a in map(_normal, self._hub.advertise_address) if a not in addresses]
        return f"does not cover {', '.join(lacking)}" if lacking else ""


class TokenKeeper:
    """Keeps a fresh join token in the Secret ``tokensecret``."""

    def __init__(
        self,
        *,
        secrets: SecretStore,
        ca: KeyPair,
        refresh_hours: int,
        wall: Callable[[], float],
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._secrets = secrets
        self._ca = ca
        self._period = refresh_hours * 3600
        self._wall = wall
        self._rng = rng

    async def refresh(self) -> None:
        """Store a new token, good for two refresh periods."""
        token = make_token(
            ca_der=self._ca.cert_der,
            ca_key_der=self._ca.key_der,
            expires=int(self._wall()) + 2 * self._period,
        )
        await self._secrets.put(TOKEN_SECRET, {"tokendata": token.encode()})

    async def run(self) -> None:
        """Refresh at once and then periodically; a failure is retried, never the end of it."""
        backoff = Backoff(1.0, 60.0, jitter=0.2, rng=self._rng)
        while True:
            try:
                await self.refresh()
            except EdgehiveError as exc:
                delay = backoff.next()
                log.warning("the join token could not be stored: %s; again in %.0f s", exc, delay)
            else:
                backoff.reset()
                delay = float(self._period)
            await asyncio.sleep(delay)


def read_pair(cert_path: str, key_path: str, cert_name: str, key_name: str) -> KeyPair | None:
    """Load certificate and key from files; ``None`` when neither is there for us.

    Raises:
        UserError: only one of the two is there, or they cannot be used.
    """
    cert, key = _read(cert_path), _read(key_path)
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        missing = cert_path if cert is None else key_path
        raise UserError(
            f"{cert_name} and {key_name} belong together, but {missing} is missing or may not be read",
            hint="provide both files, or neither to use the keys kept in the cluster",
        )
    try:
        return load_pair(cert, key)
    except CertificateError as exc:
        raise UserError(f"{cert_path}, {key_path}: {exc}") from exc


def _read(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        log.warning("%s cannot be read (%s), going on without it", path, exc.strerror)
        return None


def _decode_pair(secret: str, cert: bytes | None, key: bytes | None) -> KeyPair:
    try:
        return load_pair(cert or b"", key or b"")
    except CertificateError as exc:
        raise UserError(
            f"the Secret {NAMESPACE}/{secret} is unusable: {exc}",
            hint="restore it from a backup; if it is deleted, every edge has to join anew",
        ) from exc


def _server_data(pair: KeyPair) -> dict[str, bytes]:
    return {"cloudcoredata": pair.cert_der, "cloudcorekeydata": pair.key_der}


def _normal(address: str) -> str:
    return str(ipaddress.ip_address(address))


def _newest(names: list[str]) -> list[str]:
    """The names without repetition; the last ones when there are absurdly many."""
    return list(dict.fromkeys(names))[-_MAX_NAMES:]


def _alternative_names(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return [], []
    names = [str(n) for n in found.get_values_for_type(x509.DNSName) if n]
    return names, [str(a) for a in found.get_values_for_type(x509.IPAddress)]
