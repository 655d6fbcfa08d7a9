"""The client's end of one WebSocket without the socket: bytes in, events out; the protocol itself is wsproto's.

No extensions, no subprotocol, no compression. Like the original it takes a message whatever its opcode is and
sends TEXT. wsproto, because `websockets`' own core costs edgecore three more megabytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from edgehive.kit.errors import ProtocolError, Unreachable
from edgehive.kit.names import plain_host
from edgehive.kit.text import safe_label

MAX_MESSAGE = 32 << 20

_REFUSAL_LIMIT = 300
_GOING_AWAY = 1001


class HandshakeRefused(Unreachable):
    """The server answered the upgrade request with something else than 101."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the cloud refused the connection: {status} {text}".rstrip())
        self.status = status


@dataclass(frozen=True, slots=True)
class Opened:
    """The upgrade was accepted; `headers` are the names of the answer's own, in lower case."""

    headers: frozenset[str] = field(default=frozenset(), compare=False)


class Received(msgspec.Struct, frozen=True):
    """One whole message."""

    data: bytes


class Alive(msgspec.Struct, frozen=True):
    """A ping or pong came; `reply` is what to write back, if anything, `pong` the payload of a pong."""

    reply: bytes = b""
    pong: bytes = b""


class Closing(msgspec.Struct, frozen=True):
    """The peer sent a close frame; `reply` is the closing answer."""

    reason: str
    reply: bytes


WsEvent = Opened | Received | Alive | Closing


class WebSocketClient:
    """One connection's protocol state."""

    def __init__(self, *, max_message: int = MAX_MESSAGE) -> None:
        self._wire = WSConnection(ConnectionType.CLIENT)
        self._max = max_message
        self._message = bytearray()
        self._refused: tuple[int, bytearray] | None = None

    def request(self, *, host: str, path: str, headers: Mapping[str, str]) -> bytes:
        """The upgrade request."""
        extra = [(name.encode(), value.encode()) for name, value in headers.items()]
        return self._wire.send(Request(host=plain_host(host), target=path, extra_headers=extra))

    def text(self, data: bytes) -> bytes:
        """One TEXT message; `data` is UTF-8."""
        return self._wire.send(TextMessage(data.decode()))

    def ping(self, payload: bytes = b"") -> bytes:
        """A ping."""
        return self._wire.send(Ping(payload))

    def close(self) -> bytes:
        """A close frame: going away. Nothing where the connection is not open or closing already."""
        try:
            return self._wire.send(CloseConnection(code=_GOING_AWAY))
        except LocalProtocolError:
            return b""

    def receive(self, data: bytes) -> list[WsEvent]:
        """Take bytes from the socket.

        Raises:
            HandshakeRefused: the server does not upgrade.
            ProtocolError: it does not speak WebSocket, or a message is too large.
        """
        events: list[WsEvent] = []
        try:
            self._wire.receive_data(data)
            understood = (self._understand(event) for event in self._wire.events())
            events.extend(event for event in understood if event is not None)
        except (RemoteProtocolError, LocalProtocolError) as exc:
            raise ProtocolError(f"the server does not speak WebSocket: {safe_label(str(exc))}") from exc
        return events

    def _understand(self, event: Event) -> WsEvent | None:
        match event:
            case TextMessage() | BytesMessage():
                return self._collect(event)
            case AcceptConnection(extra_headers=headers):
                return Opened(frozenset(bytes(name).decode("latin-1").lower() for name, _ in headers))
            case RejectConnection() | RejectData():
                self._refuse(event)
                return None
            case Ping():
                return Alive(self._wire.send(event.response()))
            case Pong(payload=payload):
                return Alive(pong=bytes(payload))
            case CloseConnection(reason=reason) if self._wire.state is ConnectionState.OPEN:
                # wsproto's way of saying that a frame breaks the rules: the peer has not closed anything.
                raise ProtocolError(f"the server breaks the WebSocket protocol: {safe_label(str(reason))}")
            case CloseConnection(code=code, reason=reason):
                text = f" {safe_label(reason)}" if reason else ""
                return Closing(f"closed by the cloud ({int(code)}{text})", self._wire.send(event.response()))
            case _:
                return None

    def _collect(self, event: TextMessage | BytesMessage) -> Received | None:
        part = event.data.encode() if isinstance(event, TextMessage) else event.data
        if len(self._message) + len(part) > self._max:
            raise ProtocolError(f"a message of more than {self._max} bytes")
        if event.message_finished and not self._message:
            return Received(bytes(part))
        self._message += part
        if not event.message_finished:
            return None
        message = bytes(self._message)
        self._message.clear()
        return Received(message)

    def _refuse(self, event: RejectConnection | RejectData) -> None:
        """Raise once what the server has to say is here."""
        if isinstance(event, RejectConnection):
            self._refused = (event.status_code, bytearray())
            complete = not event.has_body
        else:
            assert self._refused is not None, "a refusal begins with its head"
            self._refused[1].extend(event.data)
            complete = event.body_finished or len(self._refused[1]) >= _REFUSAL_LIMIT
        if complete:
            status, body = self._refused
            text = bytes(body[:_REFUSAL_LIMIT]).decode("utf-8", "replace").strip()
            raise HandshakeRefused(status, safe_label(text, _REFUSAL_LIMIT))
