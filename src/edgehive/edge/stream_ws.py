"""The client's end of the tunnel's WebSocket without the socket, on wsproto's frame layer.

The tunnel sends bytes that are no UTF-8 as TEXT. wsproto's connections decode TEXT, so this uses what lies beneath
them: its handshake and its frames.
"""

import contextlib
from collections.abc import Mapping

from wsproto import ConnectionType
from wsproto.events import AcceptConnection, RejectConnection, RejectData, Request
from wsproto.frame_protocol import CloseReason, Frame, FrameDecoder, FrameProtocol, Opcode, ParseFailed
from wsproto.handshake import H11Handshake
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from edgehive.edge.link_ws import Alive, Closing, HandshakeRefused, Opened, Received, WsEvent
from edgehive.kit.errors import ProtocolError
from edgehive.kit.names import plain_host
from edgehive.kit.text import safe_label

_MAX_HEAD = 16 << 10
_REFUSAL_LIMIT = 300
_TEXT_HEAD = bytes((0x80 | Opcode.TEXT,))


class BytesWebSocketClient:
    """One connection's protocol state; messages are bytes, whatever their opcode."""

    def __init__(self, *, max_message: int = 2 << 20) -> None:
        self._handshake = H11Handshake(ConnectionType.CLIENT)
        self._frames = FrameDecoder(client=True)
        self._out = FrameProtocol(client=True, extensions=[])
        self._max = max_message
        self._head: bytearray | None = bytearray()
        self._refused = False
        self._status = 0
        self._refusal = bytearray()
        self._message = bytearray()
        self._opcode: Opcode | None = None
        self.answer_headers: dict[str, str] = {}
        """What the server said beside the 101, names in lower case."""

    def request(self, *, host: str, path: str, headers: Mapping[str, str]) -> bytes:
        """The upgrade request."""
        extra = [(name.encode(), value.encode()) for name, value in headers.items()]
        return self._handshake.send(Request(host=plain_host(host), target=path, extra_headers=extra))

    def text(self, data: bytes) -> bytes:
        """One TEXT message of any bytes: a BINARY one whose opcode says TEXT."""
        return _TEXT_HEAD + self._out.send_data(data, fin=True)[1:]

    def ping(self) -> bytes:
        """A ping."""
        return bytes(self._out.ping(b"ping you"))

    def close(self) -> bytes:
        """A close frame: going away."""
        return bytes(self._out.close(CloseReason.GOING_AWAY))

    def receive(self, data: bytes) -> list[WsEvent]:
        """Take bytes from the socket.

        Raises:
            HandshakeRefused: the server does not upgrade.
            ProtocolError: it does not speak WebSocket, or a message is too large.
        """
        events: list[WsEvent] = []
        try:
            if self._head is not None:
                found = self._receive_head(data)
                if found is None:
                    return events
                data = found
                events.append(Opened())
            self._frames.receive_bytes(data)
            while (frame := self._frames.process_buffer()) is not None:
                event = self._handle(frame)
                if event is not None:
                    events.append(event)
        except (ParseFailed, RemoteProtocolError, LocalProtocolError) as exc:
            raise ProtocolError(f"the server does not speak WebSocket: {safe_label(str(exc))}") from exc
        return events

    def _receive_head(self, data: bytes) -> bytes | None:
        """Return what follows the 101, or None while there is none."""
        assert self._head is not None
        if self._refused:
            self._handshake.receive_data(data)
            self._read_refusal()
            return None
        self._head += data
        end = self._head.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(self._head) > _MAX_HEAD:
                raise ProtocolError("the upgrade answer has no end")
            return None
        rest = bytes(self._head[end:])
        self._handshake.receive_data(bytes(self._head[:end]))
        for event in self._handshake.events():
            if isinstance(event, AcceptConnection):
                self._head = None
                pairs = (
                    (bytes(name).decode("latin-1").lower(), bytes(value).decode("latin-1"))
                    for name, value in event.extra_headers
                )
                self.answer_headers = dict(pairs)
                return rest
            if isinstance(event, RejectConnection):
                self._refused, self._status = True, event.status_code
        if rest:
            self._handshake.receive_data(rest)
        self._read_refusal()
        return None

    def _read_refusal(self) -> None:
        """Raise once what the server has to say is here."""
        for event in self._handshake.events():
            if isinstance(event, RejectData):
                self._refusal += event.data
                if event.body_finished or len(self._refusal) >= _REFUSAL_LIMIT:
                    text = self._refusal[:_REFUSAL_LIMIT].decode("utf-8", "replace").strip()
                    raise HandshakeRefused(self._status, safe_label(text, _REFUSAL_LIMIT))

    def _handle(self, frame: Frame) -> WsEvent | None:
        payload = frame.payload
        assert isinstance(payload, bytes)
        if frame.opcode.iscontrol():
            return self._handle_control(frame, payload)
        if self._opcode is None and frame.opcode is Opcode.CONTINUATION:
            raise ProtocolError("a continuation of nothing")
        if self._opcode is not None and frame.opcode is not Opcode.CONTINUATION:
            raise ProtocolError("a new message inside of another one")
        self._opcode = self._opcode or frame.opcode
        if len(self._message) + len(payload) > self._max:
            raise ProtocolError(f"a message of more than {self._max} bytes")
        self._message += payload
        if not (frame.frame_finished and frame.message_finished):
            return None
        message = bytes(self._message)
        self._message.clear()
        self._opcode = None
        return Received(message)

    def _handle_control(self, frame: Frame, payload: bytes) -> WsEvent | None:
        # wsproto hands control frames over whole.
        if frame.opcode is Opcode.PING:
            return Alive(bytes(self._out.pong(payload)))
        if frame.opcode is Opcode.PONG:
            return Alive()
        code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
        text = safe_label(payload[2:].decode("utf-8", "replace"))
        reply = b""
        with contextlib.suppress(ValueError):
            reply = bytes(self._out.close(CloseReason.NORMAL_CLOSURE))
        return Closing(f"closed by the cloud ({code}{' ' + text if text else ''})", reply)
