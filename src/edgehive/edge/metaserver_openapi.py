"""OpenAPI v2 in protobuf, which kubectl up to 1.28 asks for: ``python -m edgehive.edge.metaserver_openapi``.

The document of a whole cluster is some megabytes of JSON, and many times that as Python objects. A child process
turns it into the other form and gives the memory back: JSON on its input, protobuf on its output.
"""

import asyncio
import sys

import msgspec

from edgehive.kit.errors import EdgehiveError
from edgehive.kube.openapi_protobuf import encode_document
from edgehive.kube.status import ApiStatus
from edgehive.wire.message import MALFORMED

_LIMIT = 32 << 20
_PATIENCE = 30.0


async def to_protobuf(document: bytes) -> bytes:
    """Convert `document`.

    Raises:
        ApiStatus: 500, it is not an OpenAPI document or the child failed.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "edgehive.edge.metaserver_openapi",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            found, _ = await child.communicate(document)
    except TimeoutError:
        found = b""
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if not found:
        raise ApiStatus(500, "InternalError", "the OpenAPI document of the cluster cannot be converted")
    return found


def convert(document: bytes) -> bytes:
    """What the child does.

    Raises:
        EdgehiveError: it is not an OpenAPI document.
    """
    try:
        return encode_document(msgspec.json.decode(document))
    except (*MALFORMED, KeyError, TypeError, AttributeError, ValueError) as exc:
        raise EdgehiveError(f"not an OpenAPI document: {exc}") from exc


def main() -> int:
    """Convert standard input."""
    try:
        sys.stdout.buffer.write(convert(sys.stdin.buffer.read(_LIMIT)))
    except EdgehiveError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
