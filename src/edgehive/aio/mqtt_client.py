"""The socket of an MQTT client around `wire.mqtt_client`: TCP or TLS, dialled again whenever it is gone."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from edgehive.aio.oserrors import reason_of
from edgehive.kit.text import safe_label
from edgehive.wire.mqtt_client import Dial, Down, MqttLink, NotSubscribed, Received, Up

log = logging.getLogger(__name__)

Handler = Callable[[Sequence[Received]], bool | None]
"""Takes care of messages before they are acknowledged; False: it could not, and they are not.

``None``: it will have, soon; they are acknowledged with `MqttClient.done`.
"""

_WRITE_HIGH = 64 << 10


class MqttClient:
    """One client. `tls` is called for every dial; ``None`` means plain TCP. Nothing here ever waits for the broker."""

    def __init__(
        self,
        *,
        link: MqttLink,
        host: str,
        port: int,
        handler: Handler,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self.link = link
        self._host = host
        self._port = port
        self._handler = handler
        self._tls = tls
        self._wake = asyncio.Event()
        self._socket: _Socket | None = None
        self._owed: list[Received] = []
        self.last_problem = ""
        """Why there is no connection, for people."""

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish now or when the broker is there."""
        self.link.publish(topic, payload, qos=qos, retain=retain)
        self._wake.set()

    def subscribe_to(self, filters: Iterable[str], qos: int = 1) -> None:
        """Want exactly these filters from now on."""
        self.link.subscribe_to(filters, qos)
        self._wake.set()

    def done(self, succeeded: bool) -> None:
        """Everything that was handed over has been taken care of, or could not be."""
        owed, self._owed = self._owed, []
        if succeeded and owed:
            for message in owed:
                self.link.acknowledge(message)
            self._wake.set()

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    self._wake.clear()
                    now = self.now()
                    self.link.handle_timer(now)
                    self._handle_events(tasks)
                    self._flush()
                    deadline = self.link.deadline()
                    delay = None if deadline is None else max(0.0, deadline - self.now())
                    try:
                        async with asyncio.timeout(delay):
                            await self._wake.wait()
                    except TimeoutError:
                        continue
        finally:
            if self._socket is not None:
                self._socket.write(self.link.goodbye())
                self._socket.end(flush=True)

    def now(self) -> float:
        """The loop's clock."""
        return asyncio.get_running_loop().time()

    def _handle_events(self, tasks: asyncio.TaskGroup) -> None:
        received: list[Received] = []
        for event in self.link.events():
            match event:
                case Received():
                    received.append(event)
                case Dial():
                    tasks.create_task(self._dial(), name="mqtt-dial")
                case Up():
                    log.info("mqtt: connected to %s:%d", self._host, self._port)
                    self.last_problem = ""
                case Down(reason):
                    self._complain(reason)
                    self._owed.clear()  # packet ids of a session that is gone
                    if self._socket is not None:
                        self._socket.end()
                        self._socket = None
                case NotSubscribed(name):
                    log.warning("mqtt: the broker refuses the subscription to %s", safe_label(name))
        if received:
            done = self._handler(received)
            if done is None:
                self._owed += received
            elif done:
                for message in received:
                    self.link.acknowledge(message)

    def _complain(self, reason: str) -> None:
        """Log why there is no broker, once until the reason changes."""
        if reason != self.last_problem:
            log.warning("mqtt: %s:%d: %s", self._host, self._port, safe_label(reason, 300))
            self.last_problem = reason

    def _flush(self) -> None:
        while self._socket is not None and self._socket.writable:
            data = self.link.data_to_send()
            if not data:
                return
            self._socket.write(data)

    async def _dial(self) -> None:
        sock = self._socket = _Socket(self)
        loop = asyncio.get_running_loop()
        try:
            tls = self._tls() if self._tls is not None else None
            async with asyncio.timeout(self.link.options.dial_timeout):
                await loop.create_connection(
                    lambda: sock,
                    self._host,
                    self._port,
                    ssl=tls,
                    server_hostname=self._host if tls is not None else None,
                )
        except TimeoutError:
            self.lost(sock, "it does not answer")
        except ssl.SSLCertVerificationError as exc:
            self.lost(sock, f"its certificate is not acceptable: {exc.verify_message}")
        except ssl.SSLError as exc:
            self.lost(sock, f"TLS: {exc}")
        except OSError as exc:
            self.lost(sock, reason_of(exc))
        except ValueError as exc:  # a name that is none, a file with a NUL in its path
            self.lost(sock, str(exc))

    # for the socket

    def connected(self, sock: "_Socket") -> None:
        """The dial succeeded."""
        if sock is self._socket:
            self.link.receive_connected(self.now())
            self._wake.set()
        else:
            sock.end()

    def received(self, sock: "_Socket", data: bytes) -> None:
        """Bytes came."""
        if sock is self._socket:
            self.link.receive_data(data, self.now())
            self._wake.set()

    def wake(self) -> None:
        """The socket takes data again."""
        self._wake.set()

    def lost(self, sock: "_Socket", reason: str) -> None:
        """The socket is gone."""
        sock.end()
        if sock is self._socket:
            self._socket = None
            self.link.receive_closed(reason, self.now())
            self._wake.set()


class _Socket(asyncio.Protocol):
    def __init__(self, client: MqttClient) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._ended = False
        self.writable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._ended:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self.writable = True
        self._client.connected(self)

    def data_received(self, data: bytes) -> None:
        if not self._ended:
            self._client.received(self, data)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = not self._ended
        self._client.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.lost(self, str(exc) if exc is not None else "the broker closed the connection")

    def write(self, data: bytes) -> None:
        """Write bytes."""
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def end(self, *, flush: bool = False) -> None:
        """Close, once; `flush`: after what was written."""
        if not self._ended:
            self._ended = True
            self.writable = False
            if self._transport is not None and flush:
                self._transport.close()
            elif self._transport is not None:
                self._transport.abort()
