"""One gRPC call to a plugin of this node: encode, ask, decode; errors in the plugin's own words."""

from typing import Any

from edgehive.aio.grpc import GrpcClient
from edgehive.aio.protobuf import Method, decode, encode


async def call(client: GrpcClient, method: Method, /, timeout: float, **request: Any) -> dict[str, Any]:
    """Make a unary call.

    Raises:
        GrpcError: The plugin refused.
        Unreachable: It is not there, or went away meanwhile.
        ProtocolError: Its answer cannot be read.
    """
    raw = await client.call(method.path, encode(method.request, request), timeout=timeout)
    return decode(method.response, raw)
