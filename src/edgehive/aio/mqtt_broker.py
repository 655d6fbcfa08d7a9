"""The sockets of the embedded MQTT broker; what they carry is `wire.mqtt_broker`'s business.

One client cannot starve the others or the process: it is read 16 KiB at a time, and not at all for a while when it
sends more than its rate. A client that does not read has a bounded buffer, then a bounded queue.
"""

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Callable, Sequence
from typing import cast

from edgehive.aio.fewlines import FewLines, host_of
from edgehive.aio.listening import listening_socket
from edgehive.wire.mqtt_broker import Broker, Inbound
from edgehive.wire.mqtt_peer import Peer
from edgehive.wire.mqtt_session import Session

log = logging.getLogger(__name__)

Handler = Callable[[Sequence[Inbound]], bool | None]
"""Takes care of messages before they are acknowledged. False: it could not, and their senders are disconnected.

``None``: it will have, soon; what is owed to their senders waits for `MqttServer.done`.
"""

_READ_BUFFER = 16 << 10
"""The smallest messages fill it with 2,700: some 20 ms of work during which nobody else gets his turn."""
_WRITE_HIGH = 32 << 10
_WRITE_MOST = 2 << 20
"""Bytes that wait for one client's socket: the largest message, and answers; with more it is let go."""
_LINGER = 1.0
_MOMENT = 0.01
_RATE = 10_000.0
_UNIT = 1024


class MqttServer:
    """Listens on one address. `rate` bounds each client: packets, or KiB, a second."""

    def __init__(self, *, broker: Broker, handler: Handler, rate: float = _RATE) -> None:
        self.broker = broker
        self.rate = rate
        self.throttled = 0
        """How often a client was not read for a while because it sent too fast."""
        self.held_up = 0
        """How often a client was not read for a moment because another one was behind."""
        self._handler = handler
        self._lines = FewLines(log)
        self._connections: dict[Peer, _Connection] = {}
        self._owed: dict[Peer, None] = {}
        """Senders whose messages are not taken care of yet; nothing is written to them meanwhile."""
        self._socket: socket.socket | None = None
        self._awake = asyncio.Event()
        self._flushing = False
        self._handing = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def listen(self, host: str, port: int) -> int:
        """Bind; clients may connect at once, `run` answers them. Return the bound port.

        Raises:
            OSError: the address is in use or not ours.
        """
        self._socket = await listening_socket(host, port)
        return int(self._socket.getsockname()[1])

    async def close(self) -> None:
        """Release the socket of a server that was never run."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def run(self) -> None:
        """Serve until cancelled."""
        assert self._socket is not None, "listen first"
        loop = self._loop = asyncio.get_running_loop()
        buffer = memoryview(bytearray(_READ_BUFFER))  # one for all: it is emptied in the same callback
        server = await loop.create_server(lambda: _Connection(self, buffer), sock=self._socket, backlog=512)
        try:
            while True:
                deadline = self.broker.deadline()
                if deadline is None:
                    self._awake.clear()
                    await self._awake.wait()
                    continue
                await asyncio.sleep(max(0.05, deadline - loop.time()))
                self._progress()
                self.broker.handle_timer(loop.time())
                self.settle()
        finally:
            server.close()
            self._socket = None
            self.broker.shut_down(loop.time())
            self._flush()
            for connection in list(self._connections.values()):
                connection.transport.abort()
            self._loop = None
            for _ in range(3):  # let the transports say goodbye before the loop may close
                await asyncio.sleep(0)

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Publish as the broker itself; `topic` is a valid topic. Before `run` only retained messages have effect."""
        loop = self._loop or asyncio.get_running_loop()
        self.broker.publish(topic, payload, qos=qos, retain=retain, now=loop.time())
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)

    # for connections

    def opened(self, connection: "_Connection", name: str) -> Peer:
        """A client has connected."""
        peer = self.broker.opened(name, self.now())
        self._connections[peer] = connection
        self._awake.set()
        return peer

    def closed(self, peer: Peer) -> None:
        """A client's socket is gone."""
        self._connections.pop(peer, None)
        self.broker.closed(peer, self.now())
        self.settle()

    def now(self) -> float:
        """The loop's clock."""
        return (self._loop or asyncio.get_running_loop()).time()

    def settle(self) -> None:
        """Hand over what came, then let the answers go."""
        broker = self.broker
        while broker.inbound:
            inbound, broker.inbound = broker.inbound, []
            self._handing = True  # whatever the handler calls: what it is about is not acknowledged yet
            try:
                done = self._handler(inbound)
            finally:
                self._handing = False
            if not done:
                senders = {m.peer: None for m in inbound if m.qos and m.peer is not None}
                self._owed.update(senders)
            if done is False:
                self.done(False)
        self._flush()

    def done(self, succeeded: bool) -> None:
        """Everything that was handed over has been taken care of, or could not be."""
        owed, self._owed = self._owed, {}
        for peer in owed:
            if succeeded:
                peer.touch()
            else:
                self.broker.fail(peer, "its message could not be stored")
        if not self._handing:
            self.settle()

    def _progress(self) -> None:
        for peer, connection in self._connections.items():
            if peer.pending:
                self.broker.progress(peer, self.now(), connection.transport.get_write_buffer_size())

    def _flush(self) -> None:
        self._flushing = False
        while peers := self.broker.flush():
            for peer in peers:
                connection = self._connections.get(peer)
                if connection is not None and peer not in self._owed:
                    self._write(peer, connection)

    def _write(self, peer: Peer, connection: "_Connection") -> None:
        if peer.out:
            connection.transport.write(peer.take())
        pending = connection.transport.get_write_buffer_size()
        if pending > _WRITE_MOST:
            # Not messages, which wait in a queue, but answers: it sends and sends, and reads none of them.
            text = "mqtt: %s does not read what it is answered"
            self._lines.info("mqtt: clients that do not read", host_of(peer.name), text, peer.name)
            connection.transport.abort()
        elif peer.ended:
            log.debug("mqtt: %s: %s", peer.name, peer.cause)
            connection.finish(explained=peer.explained)
        else:
            self.broker.written(peer, self.now(), pending)


class _Connection(asyncio.BufferedProtocol):
    """One client's socket."""

    def __init__(self, server: MqttServer, buffer: memoryview) -> None:
        self._server = server
        self._buffer = buffer
        self.transport: asyncio.Transport
        self._peer: Peer
        self._credit = server.rate
        self._credit_at = 0.0
        self._resume: asyncio.TimerHandle | None = None
        self._waits_for: list[Session] = []
        self._abort: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_WRITE_HIGH)
        remote = transport.get_extra_info("peername")
        name = f"{remote[0]}:{remote[1]}" if isinstance(remote, tuple) else "local"
        self._credit_at = self._server.now()
        self._peer = self._server.opened(self, name)
        if self._peer.ended:
            self._server.settle()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._resume, self._abort):
            if timer is not None:
                timer.cancel()
        self._server.closed(self._peer)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        peer, now = self._peer, self._server.now()
        before = peer.messages
        self._server.broker.receive(peer, bytes(self._buffer[:nbytes]), now)
        self._server.settle()
        self._charge(max(float(peer.messages - before), nbytes / _UNIT), now)
        crowded = self._server.broker.crowded(peer, now)
        if crowded:
            self._server.held_up += 1
            self._waits_for = crowded
            self._pause(_MOMENT)

    def pause_writing(self) -> None:
        self._peer.stalled = self._server.now()

    def resume_writing(self) -> None:
        pending = self.transport.get_write_buffer_size()
        self._server.broker.writable(self._peer, self._server.now(), pending)
        self._server.settle()

    def finish(self, *, explained: bool) -> None:
        """Close once everything is written, or soon in any case.

        Closing while the client still sends would reset the connection, and with it what `explained` the end.
        """
        if self._abort is not None:
            return
        if explained and not self.transport.is_closing():
            self.transport.write_eof()
        else:
            self.transport.close()
        self._abort = asyncio.get_running_loop().call_later(_LINGER, self.transport.abort)

    def _charge(self, cost: float, now: float) -> None:
        rate = self._server.rate
        if math.isinf(rate):
            return
        self._credit = min(rate, self._credit + (now - self._credit_at) * rate) - cost
        self._credit_at = now
        if self._credit < 0 and self._resume is None:
            self._server.throttled += 1
            self._pause(-self._credit / rate + _MOMENT)

    def _pause(self, seconds: float) -> None:
        """Read nothing for so long."""
        if self._resume is None and not self.transport.is_closing():
            self.transport.pause_reading()
            self._resume = asyncio.get_running_loop().call_later(seconds, self._read_on)

    def _read_on(self) -> None:
        self._resume = None
        now = self._server.now()
        self._waits_for = [session for session in self._waits_for if session.crowded(now)]
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            self.transport.resume_reading()
        if self._waits_for:
            self._pause(_MOMENT)
