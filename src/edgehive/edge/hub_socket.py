"""One connection to the cloud: TCP, TLS and WebSocket under asyncio. It moves bytes; it decides nothing."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping
from typing import Protocol

from edgehive.aio.oserrors import reason_of
from edgehive.edge.link_ws import Alive, Closing, Opened, Received, WebSocketClient
from edgehive.kit.errors import ProtocolError, Unreachable
from edgehive.kit.names import plain_host
from edgehive.wire.held import HOLDINGS_HEADER

log = logging.getLogger(__name__)

_WRITE_BUFFER = 64 << 10
_UNACKED = 15.0
"""Seconds after which the kernel gives up a connection whose peer does not acknowledge what was sent.

This is what notices a dead network: WebSocket pings see to it that something is always sent. A cloud that is
merely too busy to answer pings, as the original is at times, is not taken for dead by it.
"""


class Listener(Protocol):
    """Who hears what happens on a connection."""

    def connection_opened(self, connection: "CloudConnection") -> None: ...
    def connection_received(self, connection: "CloudConnection", data: bytes) -> None: ...
    def connection_alive(self, connection: "CloudConnection", pong: bytes) -> None: ...
    def connection_writable(self, connection: "CloudConnection") -> None: ...
    def connection_lost(self, connection: "CloudConnection", reason: str) -> None: ...


class CloudConnection(asyncio.Protocol):
    """A connection from its dial to its end; `listener` is told of its end exactly once."""

    def __init__(
        self,
        *,
        listener: Listener,
        authority: str,
        path: str,
        headers: Mapping[str, str],
        write_deadline: float,
    ) -> None:
        self._listener = listener
        self._authority = authority
        self._ws = WebSocketClient()
        self._request = self._ws.request(host=authority, path=path, headers=headers)
        self._write_deadline = write_deadline
        self._transport: asyncio.Transport | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._ended = False
        self.writable = False
        self.local_address = ""
        self.wants_holdings = False
        """The cloud wants to hear what the edge holds."""

    async def dial(self, host: str, port: int, context: ssl.SSLContext, *, timeout: float) -> None:
        """Open TCP and TLS and send the upgrade request; the listener hears of the 101.

        Raises:
            Unreachable: refused, timed out, or not the certificate we trust.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                await loop.create_connection(
                    lambda: self, host, port, ssl=context, server_hostname=plain_host(host)
                )
        except TimeoutError as exc:
            raise Unreachable(f"{self._authority} did not answer within {timeout:g} s") from exc
        except ssl.SSLCertVerificationError as exc:
            raise Unreachable(
                f"the certificate of {self._authority} is not acceptable: {exc.verify_message}"
            ) from exc
        except OSError as exc:
            raise Unreachable(f"{self._authority}: {_reason(exc)}") from exc

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._ended:
            transport.abort()
            return
        self.local_address = str(transport.get_extra_info("sockname")[0])
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_UNACKED * 1000))
        transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            events = self._ws.receive(data)
        except (ProtocolError, Unreachable) as exc:
            self.end(str(exc))
            return
        for event in events:
            if self._ended:
                return
            match event:
                case Received(message):
                    self._listener.connection_received(self, message)
                case Opened(headers):
                    self.writable = True
                    self.wants_holdings = HOLDINGS_HEADER.lower() in headers
                    self._listener.connection_opened(self)
                case Alive(reply, pong):
                    self._write(reply)
                    self._listener.connection_alive(self, pong)
                case Closing(reason, reply):
                    self._write(reply)
                    self.end(reason)

    def pause_writing(self) -> None:
        self.writable = False
        loop = asyncio.get_running_loop()
        self._stuck = loop.call_later(self._write_deadline, self.end, "the cloud takes no more data")

    def resume_writing(self) -> None:
        self._unstick()
        if not self._ended:
            self.writable = True
            self._listener.connection_writable(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(_reason(exc))

    # for the hub

    def send(self, message: bytes) -> None:
        """Write one message; ask `writable` first."""
        self._write(self._ws.text(message))

    def ping(self, payload: bytes) -> None:
        """Write a ping."""
        self._write(self._ws.ping(payload))

    def pause(self, paused: bool) -> None:
        """Stop or go on reading."""
        if self._transport is None or self._transport.is_closing():
            return
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def end(self, reason: str) -> None:
        """Close at once; the first reason counts."""
        if self._ended:
            return
        self._ended = True
        self.writable = False
        self._unstick()
        if self._transport is not None:
            self._transport.abort()
        self._listener.connection_lost(self, reason)

    def say_goodbye(self) -> None:
        """Tell the cloud that we go; it then needs no time-out to notice."""
        self._write(self._ws.close())

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _unstick(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None


def _reason(exc: Exception | None) -> str:
    if exc is None:
        return "the cloud closed the connection"
    if isinstance(exc, ssl.SSLError):
        return f"TLS: {exc.reason or exc}".lower().replace("_", " ").replace("tls:", "TLS:", 1)
    if isinstance(exc, OSError):
        return reason_of(exc)
    return str(exc) or type(exc).__name__
