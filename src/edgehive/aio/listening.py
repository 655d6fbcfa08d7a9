"""A listening socket, without the resolver thread that asyncio starts for a literal address."""

import asyncio
import socket
from typing import Any


async def listening_socket(
    host: str, port: int, *, shared: bool = False, backlog: int = 512
) -> socket.socket:
    """Bind and listen; `shared`: other processes listen there too, and the kernel deals the connections out.

    Raises:
        OSError: the address is in use or not ours.
    """
    family, address = await _resolve(host, port)
    return _bound(family, address, shared=shared, backlog=backlog)


def literal_socket(host: str, port: int, *, shared: bool = False, backlog: int = 512) -> socket.socket:
    """The same for a literal IP address.

    Raises:
        OSError: the address is in use or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return _bound(family, (host, port), shared=shared, backlog=backlog)


def _bound(family: int, address: tuple[Any, ...], *, shared: bool, backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


async def _resolve(host: str, port: int) -> tuple[int, tuple[Any, ...]]:
    """Family and address to bind; only a name needs the resolver."""
    kind, passive = socket.SOCK_STREAM, socket.AI_PASSIVE
    try:  # as bytes, which need no IDNA codec
        found = socket.getaddrinfo(
            host.encode("ascii", "replace") or None, port, type=kind, flags=passive | socket.AI_NUMERICHOST
        )
    except socket.gaierror:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=kind, flags=passive)
    family, _, _, _, address = found[0]
    return family, address
