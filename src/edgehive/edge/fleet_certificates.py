"""Certificates of simulated edges: joined with the token as a real edge does, many at once.

Unlike edgecore this runs on a workstation, in a process that ends with the test, so that the X.509 library may be
loaded and the keys live in a private temporary directory or in one that the caller keeps.
"""

import asyncio
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import aiohttp

from edgehive.aio import pki
from edgehive.aio.oserrors import reason_of
from edgehive.edge.enroll_der import der_to_pem
from edgehive.edge.enroll_files import write_atomically
from edgehive.kit.errors import Unreachable, UserError
from edgehive.kit.text import safe_label
from edgehive.wire.endpoint import NODE_USER_PREFIX, NODES_ORGANIZATION
from edgehive.wire.token import JoinToken, check_ca, parse_token

log = logging.getLogger(__name__)

_CA: Final = "ca.pem"
_OK: Final = 200
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60)


class FleetCertificates:
    """Obtains and keeps one certificate a node in `folder`; those that are there already are used again."""

    def __init__(self, *, folder: Path, server: str, token: str, parallel: int = 16) -> None:
        """Prepare; `server` is the cloud's ``https://host:port``."""
        self._folder = folder
        self._server = server
        self._token = token
        self._parallel = parallel
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.issued = 0
        """Certificates asked of the cloud, not found in the folder."""

    async def obtain(self, names: list[str]) -> None:
        """Make sure that every node has a certificate.

        Raises:
            UserError: the cloud refuses the token, or is not the one it was made for.
            Unreachable: the cloud's HTTPS port does not answer.
        """
        wanted = iter([name for name in names if not self._path(name).exists()])
        ca_file = self._folder / _CA
        if not ca_file.exists() or not all(self._path(name).exists() for name in names):
            await self._join(wanted, ca_file)

    def context(self, name: str) -> ssl.SSLContext:
        """The TLS context of one node."""
        found = self._contexts.get(name)
        if found is None:
            found = self._contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            found.load_verify_locations(cafile=str(self._folder / _CA))
            found.load_cert_chain(self._path(name))
        return found

    async def _join(self, wanted: Iterator[str], ca_file: Path) -> None:
        token = parse_token(self._token)
        try:
            async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
                ca = await self._get(session, "/ca.crt", ssl=False)
            check_ca(token, ca)
            write_atomically(ca_file, der_to_pem(ca), mode=0o644)
            context = ssl.create_default_context(cadata=der_to_pem(ca).decode("ascii"))
            async with (
                aiohttp.ClientSession(
                    timeout=_TIMEOUT, connector=aiohttp.TCPConnector(ssl=context, limit=self._parallel)
                ) as session,
                asyncio.TaskGroup() as group,
            ):
                for _ in range(self._parallel):
                    group.create_task(self._work(session, token, wanted))
        except* (aiohttp.ClientError, OSError, TimeoutError) as group_error:
            first = group_error.exceptions[0]
            why = str(first) or type(first).__name__
            if isinstance(first, OSError) and not isinstance(first, aiohttp.ClientSSLError):
                why = reason_of(first)
            raise Unreachable(f"{self._server} cannot be reached: {why}") from first

    async def _work(self, session: aiohttp.ClientSession, token: JoinToken, wanted: Iterator[str]) -> None:
        for name in wanted:
            key = pki.new_key()
            csr = pki.create_csr(key, NODE_USER_PREFIX + name, [NODES_ORGANIZATION])
            headers = {"Authorization": f"Bearer {token.jwt}", "NodeName": name}
            der = await self._get(session, "/edge.crt", headers=headers, body=csr)
            write_atomically(self._path(name), pki.key_pem(key) + der_to_pem(der), mode=0o600)
            self.issued += 1

    async def _get(
        self,
        session: aiohttp.ClientSession,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        ssl: bool = True,
    ) -> bytes:
        async with session.get(self._server + path, headers=headers, data=body, ssl=ssl) as response:
            data = await response.read()
            if response.status != _OK:
                text = safe_label(data.decode("utf-8", "replace").strip(), 300)
                raise UserError(
                    f"the cloud answered {response.status} to {path}: {text}",
                    hint="a join token is valid for a day; get a new one with: edgehive gettoken",
                )
            return data

    def _path(self, name: str) -> Path:
        return self._folder / f"node-{name}.pem"
