"""Signs and verifies with the token key, in this process or in one that comes and goes."""

import asyncio
import base64
import contextlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgehive.apiserver import tokenkey
from edgehive.kit.errors import EdgehiveError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

log = logging.getLogger(__name__)

_PATIENCE = 10.0


class SignerError(EdgehiveError):
    """The token key cannot be used now."""


class Signer(Protocol):
    """What tokens need of a key."""

    async def key_id(self) -> str:
        """A stable name for the key."""
        ...

    async def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of an ES256 signature."""
        ...

    async def verify(self, data: bytes, signature: bytes) -> bool:
        """Check one."""
        ...

    async def close(self) -> None:
        """Release what it holds."""
        ...


class LocalSigner:
    """A key in this process."""

    def __init__(self, make: Callable[[], "EllipticCurvePrivateKey"]) -> None:
        self._key = make()

    async def key_id(self) -> str:
        return tokenkey.key_id(self._key)

    async def sign(self, data: bytes) -> bytes:
        return tokenkey.sign(self._key, data)

    async def verify(self, data: bytes, signature: bytes) -> bool:
        return tokenkey.verify(self._key, data, signature)

    async def close(self) -> None:
        """Nothing to release."""


class ChildSigner:
    """A key in a child process that is started when needed and ends when idle (see `tokenkey`)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._child: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._key_id = ""

    async def key_id(self) -> str:
        if not self._key_id:
            self._key_id = (await self._ask(b"id")).decode()
        return self._key_id

    async def sign(self, data: bytes) -> bytes:
        return base64.b64decode(await self._ask(b"sign " + base64.b64encode(data)))

    async def verify(self, data: bytes, signature: bytes) -> bool:
        if len(signature) != 64:
            return False
        parts = (b"verify", base64.b64encode(data), base64.b64encode(signature))
        return await self._ask(b" ".join(parts)) == b"1"

    async def close(self) -> None:
        """End the child."""
        async with self._turn:
            await self._end()

    async def _ask(self, line: bytes) -> bytes:
        async with self._turn:
            for fresh in (False, True):  # the child may just have gone to sleep: then a new one is asked
                answer = await self._try(line, fresh=fresh)
                if answer:
                    return answer.rstrip(b"\n")
            raise SignerError("the key for service-account tokens cannot be used; see the log")

    async def _try(self, line: bytes, *, fresh: bool) -> bytes:
        try:
            if fresh or self._child is None or self._child.returncode is not None:
                await self._end()
                self._child = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "edgehive.apiserver.tokenkey",
                    str(self._path),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is the server's business; the child ends with its input
                )
            stdin, stdout = self._child.stdin, self._child.stdout
            assert stdin is not None
            assert stdout is not None
            async with asyncio.timeout(_PATIENCE):
                stdin.write(line + b"\n")
                await stdin.drain()
                return await stdout.readline()
        except (OSError, TimeoutError) as exc:
            log.warning("token key process: %s %s", type(exc).__name__, exc)
            return b""
        except asyncio.CancelledError:
            await self._end()  # an answer that nobody took would be taken for the next one
            raise

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None:
            child.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
