"""The client's end of one WebSocket (RFC 6455) without the socket: bytes in, events out.

As small as the link to the cloud needs it: no extensions, no subprotocol, no compression. A general library
costs edgecore 4 MB of memory; this costs a tenth of one. Like the original it takes a message whatever its
opcode is and sends TEXT.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgehive.kit.errors import ProtocolError, Unreachable
from edgehive.kit.text import safe_label

MAX_MESSAGE = 32 << 20

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_HEAD = 16 << 10
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_FIN = 0x80
_CONTROL = 0x08


class HandshakeRefused(Unreachable):
    """The server answered the upgrade request with something else than 101."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the cloud refused the connection: {status} {text}".rstrip())
        self.status = status


@dataclass(frozen=True, slots=True)
class Opened:
    """The upgrade was accepted."""


@dataclass(frozen=True, slots=True)
class Received:
    """One whole message."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Alive:
    """A ping or pong came; `reply` is what to write back, if anything."""

    reply: bytes = b""


@dataclass(frozen=True, slots=True)
class Closing:
    """The peer sent a close frame; `reply` is the closing answer."""

    reason: str
    reply: bytes


WsEvent = Opened | Received | Alive | Closing


class WebSocketClient:
    """One connection's protocol state."""

    def __init__(self, *, rand: Callable[[int], bytes], max_message: int = MAX_MESSAGE) -> None:
        self._rand = rand
        self._max = max_message
        self._key = base64.b64encode(rand(16))
        self._buffer = bytearray()
        self._message = bytearray()
        self._fragmented = False
        self._open = False

    def request(self, *, host: str, path: str, headers: Mapping[str, str]) -> bytes:
        """The upgrade request."""
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {self._key.decode()}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def text(self, data: bytes) -> bytes:
        """One TEXT message."""
        return self._frame(_TEXT, data)

    def ping(self) -> bytes:
        """A ping."""
        return self._frame(_PING, b"")

    def close(self) -> bytes:
        """A close frame: going away."""
        return self._frame(_CLOSE, (1001).to_bytes(2, "big"))

    def receive(self, data: bytes) -> list[WsEvent]:
        """Take bytes from the socket.

        Raises:
            HandshakeRefused: the server does not upgrade.
            ProtocolError: it does not speak WebSocket, or a message is too large.
        """
        self._buffer += data
        events: list[WsEvent] = []
        if not self._open:
            if not self._read_head():
                return events
            self._open = True
            events.append(Opened())
        while (frame := self._take_frame()) is not None:
            event = self._handle(*frame)
            if event is not None:
                events.append(event)
        return events

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise ProtocolError("the upgrade answer has no end")
            return False
        status_line, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        parts = status_line.split(" ", 2)
        if not parts[0].startswith("HTTP/1.") or len(parts) < 2 or not parts[1].isdigit():
            raise ProtocolError(f"the server does not speak HTTP: {safe_label(status_line)}")
        if parts[1] != "101":
            body = bytes(self._buffer[:300]).decode("utf-8", "replace").strip()
            raise HandshakeRefused(int(parts[1]), safe_label(body or " ".join(parts[2:]), 300))
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        accept = base64.b64encode(hashlib.sha1(self._key + _GUID, usedforsecurity=False).digest()).decode()
        if headers.get("upgrade", "").lower() != "websocket" or headers.get("sec-websocket-accept") != accept:
            raise ProtocolError("the server's upgrade answer is wrong")
        if "sec-websocket-extensions" in headers or "sec-websocket-protocol" in headers:
            raise ProtocolError("the server chose an extension that was not offered")
        return True

    def _take_frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, length, at = buffer[0], buffer[1], 2
        if first & 0x70 or length & 0x80:
            raise ProtocolError("reserved bits or a mask in a server's frame")
        if length >= 126:
            at = 4 if length == 126 else 10
            if len(buffer) < at:
                return None
            length = int.from_bytes(buffer[2:at], "big")
        if length + len(self._message) > self._max:
            raise ProtocolError(f"a message of more than {self._max} bytes")
        if len(buffer) < at + length:
            return None
        payload = bytes(buffer[at : at + length])
        del buffer[: at + length]
        return first, payload

    def _handle(self, first: int, payload: bytes) -> WsEvent | None:
        final, opcode = first & _FIN, first & 0x0F
        if opcode & _CONTROL:
            if not final or len(payload) > 125:
                raise ProtocolError("a malformed control frame")
            return self._handle_control(opcode, payload)
        if opcode not in (_CONTINUATION, _TEXT, _BINARY) or (opcode == _CONTINUATION) != self._fragmented:
            raise ProtocolError(f"an unexpected frame (opcode {opcode})")
        if not self._fragmented and final:
            return Received(payload)
        self._message += payload
        self._fragmented = not final
        if self._fragmented:
            return None
        message = bytes(self._message)
        self._message.clear()
        return Received(message)

    def _handle_control(self, opcode: int, payload: bytes) -> WsEvent:
        if opcode == _PING:
            return Alive(self._frame(_PONG, payload))
        if opcode == _PONG:
            return Alive()
        if opcode != _CLOSE:
            raise ProtocolError(f"an unknown frame (opcode {opcode})")
        code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
        text = safe_label(payload[2:].decode("utf-8", "replace"))
        return Closing(
            f"closed by the cloud ({code}{' ' + text if text else ''})", self._frame(_CLOSE, payload[:2])
        )

    def _frame(self, opcode: int, payload: bytes) -> bytes:
        size, mask = len(payload), self._rand(4)
        if size < 126:
            head = bytes((_FIN | opcode, 0x80 | size))
        elif size < 1 << 16:
            head = bytes((_FIN | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((_FIN | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
        return head + mask + _masked(payload, mask)


def _masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
