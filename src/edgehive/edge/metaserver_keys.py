"""Checks signatures of service-account tokens: ``python -m edgehive.edge.metaserver_keys KEYFILE...``.

A child process per new token, because `cryptography` would cost edgecore 10 MB for good; what was found good is
remembered by `edge.metaserver_auth`. Key files hold PEM blocks: public keys, certificates or, as Kubernetes allows,
the private key itself.
"""

import asyncio
import base64
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgehive.edge.metaserver_claims import Token
from edgehive.kit.errors import UserError
from edgehive.kube.status import ApiStatus

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

_PATIENCE = 10.0
_WAITING = 16
_HASHES = {"256": "SHA256", "384": "SHA384", "512": "SHA512"}
_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


class KeyFiles:
    """Asks the child; one at a time."""

    def __init__(self, files: Sequence[str]) -> None:
        """Take the files.

        Raises:
            UserError: one cannot be read.
        """
        for file in files:
            if not Path(file).is_file():
                raise UserError(
                    f"modules.metaManager.metaServer.serviceAccountKeyFiles: there is no {file}",
                    hint="it is the key of the API server's --service-account-key-file",
                )
        self._files = tuple(files)
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def verify(self, token: Token) -> bool:
        """Whether one of the keys signed `token`.

        Raises:
            ApiStatus: 429, too many new tokens at once; 503, it could not be found out in time.
        """
        if self._waiting >= _WAITING:
            raise ApiStatus(429, "TooManyRequests", "too many new tokens at once", {"retryAfterSeconds": 1})
        self._waiting += 1
        try:
            async with self._turn:
                return await self._ask(token)
        finally:
            self._waiting -= 1

    async def _ask(self, token: Token) -> bool:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "edgehive.edge.metaserver_keys",
            *self._files,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        parts = (token.algorithm.encode(), *map(base64.b64encode, (token.signed, token.signature)))
        try:
            async with asyncio.timeout(_PATIENCE):
                answer, _ = await child.communicate(b" ".join(parts))
        except TimeoutError:
            # Nothing is known of the token: its owner shall come again, not look for another one.
            raise ApiStatus(503, "ServiceUnavailable", "the token could not be checked in time") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        return answer == b"1"


def public_keys(data: bytes) -> "Iterator[PublicKeyTypes]":
    """Yield the public keys of PEM text."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    for block in _BLOCK.finditer(data):
        label, text = block[1], block[0]
        if label == b"CERTIFICATE":
            yield x509.load_pem_x509_certificate(text).public_key()
        elif label.endswith(b"PRIVATE KEY"):
            yield serialization.load_pem_private_key(text, None).public_key()
        elif label.endswith(b"PUBLIC KEY"):
            yield serialization.load_pem_public_key(text)


def signed_by(key: "PublicKeyTypes", algorithm: str, data: bytes, signature: bytes) -> bool:
    """Whether `key` made a JWS signature (RS and ES families of RFC 7518)."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

    family, size = algorithm[:2], algorithm[2:]
    if size not in _HASHES:
        return False
    digest = getattr(hashes, _HASHES[size])()
    try:
        if family == "RS" and isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), digest)
            return True
        if family == "ES" and isinstance(key, ec.EllipticCurvePublicKey) and len(signature) % 2 == 0:
            half = len(signature) // 2
            r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
            key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(digest))
            return True
    except InvalidSignature:
        return False
    return False


def main(files: Sequence[str]) -> int:
    """Answer the one question on standard input."""
    algorithm, data, signature = sys.stdin.buffer.read().split(b" ")
    asked = (algorithm.decode(), base64.b64decode(data), base64.b64decode(signature))
    found = (key for file in files for key in public_keys(Path(file).read_bytes()))
    sys.stdout.buffer.write(b"1" if any(signed_by(key, *asked) for key in found) else b"0")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
