"""The beehive message as it travels between cloud and edge: one JSON object a frame.

`content` stays the raw JSON it came as; whoever needs it decodes the part it needs.
"""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NoReturn

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.kit.malformed import MALFORMED as MALFORMED
from edgehive.kit.text import safe_label

INSERT = "insert"
UPDATE = "update"
DELETE = "delete"
PATCH = "patch"
QUERY = "query"
RESPONSE = "response"
ERROR = "error"
UPLOAD = "upload"
KEEPALIVE = "keepalive"

MAX_FRAME = 32 << 20
"""Largest message we accept, in bytes; the original has no limit on WebSocket and 32 MiB on QUIC."""

Stamp = Callable[[], tuple[str, int]]
"""Makes a new message id and the wall clock in milliseconds."""

OK = b'"OK"'
"""The content of an acknowledgement."""

NULL = b"null"


_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Header(msgspec.Struct, omit_defaults=True, gc=False):
    msg_id: str
    timestamp: _Int64
    parent_msg_id: str = ""
    resourceversion: str = ""
    sync: bool = False
    type: str = ""


class _HeaderOut(msgspec.Struct, omit_defaults=True, gc=False):
    # Field order as Go emits it; msg_id and timestamp are always written.
    msg_id: str
    parent_msg_id: str = ""
    timestamp: int | msgspec.UnsetType = msgspec.UNSET  # a default, for the order; never left out
    resourceversion: str = ""


class _Route(msgspec.Struct, omit_defaults=True, gc=False):
    source: str = ""
    destination: str = ""
    group: str = ""
    operation: str = ""
    resource: str = ""


class _Frame(msgspec.Struct, gc=False):
    header: _Header
    route: _Route = msgspec.field(default_factory=_Route)
    content: msgspec.Raw = msgspec.Raw(NULL)


class _FrameOut(msgspec.Struct, gc=False):
    header: _HeaderOut
    route: _Route
    content: msgspec.Raw


_decoder = msgspec.json.Decoder(_Frame)
_encoder = msgspec.json.Encoder()


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message. `timestamp` is milliseconds since the epoch; `content` is raw JSON."""

    id: str
    timestamp: int
    operation: str
    resource: str
    content: bytes = NULL
    parent_id: str = ""
    resource_version: str = ""
    source: str = ""
    group: str = ""
    destination: str = ""
    sync: bool = False
    type: str = ""

    def reply(self, *, new_id: str, timestamp: int, content: bytes = OK) -> "Message":
        """Answer as the original does: source, group and resource copied, operation ``response``."""
        return Message(
            id=new_id,
            timestamp=timestamp,
            operation=RESPONSE,
            resource=self.resource,
            content=content,
            parent_id=self.id,
            source=self.source,
            group=self.group,
            type=self.type,
        )

    def at(self, resource: str) -> "Message":
        """The same message with another resource string."""
        return msgspec.structs.replace(self, resource=resource)


def decode_message(data: bytes | bytearray | memoryview) -> Message:
    """Decode one frame.

    Takes what the original takes: keys in any case, unknown keys, anything after the first JSON value, absent or
    null header and route. Invalid UTF-8 becomes U+FFFD, as there.

    Raises:
        ProtocolError: not JSON, or a field of the wrong type (the original drops the link on these).
    """
    data = _valid_utf8(data)
    try:
        frame = _decoder.decode(data)
    except MALFORMED as exc:
        frame = _decode_leniently(bytes(data), exc)
    head, route = frame.header, frame.route
    return Message(
        id=head.msg_id,
        timestamp=head.timestamp,
        operation=route.operation,
        resource=route.resource,
        content=bytes(frame.content),
        parent_id=head.parent_msg_id,
        resource_version=head.resourceversion,
        source=route.source,
        group=route.group,
        destination=route.destination,
        sync=head.sync,
        type=head.type,
    )


def _valid_utf8(data: bytes | bytearray | memoryview) -> bytes:
    raw = bytes(data)
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw.decode(errors="replace").encode()
    return raw


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_first_value: Final = json.JSONDecoder(parse_constant=_not_json).raw_decode


def _decode_leniently(data: bytes, cause: BaseException) -> _Frame:
    """The slow path for frames that no KubeEdge writes but its Go decoder would read."""
    try:
        value, _ = _first_value(data.decode().lstrip(" \t\r\n"))
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {type(value).__name__}")
        top = _fold(value)
        head = {"msg_id": "", "timestamp": 0} | _fold(top.get("header", {}))
        known = {"header": head, "route": _fold(top.get("route", {})), "content": top.get("content")}
        text = json.dumps(known, ensure_ascii=False, allow_nan=False)
        # Half of a surrogate pair is U+FFFD to the original, and nothing we could encode again.
        return _decoder.decode(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        # As text: an error in a variable of a frame that it has passed is a cycle, and keeps the whole connection.
        detail = str(cause if isinstance(exc, AttributeError | RecursionError) else exc)
        raise ProtocolError(f"malformed message: {detail}") from exc


def _fold(value: Mapping[str, Any]) -> dict[str, Any]:
    """Keys in lower case; null means absent."""
    return {key.lower(): item for key, item in value.items() if item is not None}


def encode_message(message: Message) -> bytes:
    """Encode one frame; empty fields are left out, ``content`` is always there."""
    return _encoder.encode(
        _FrameOut(
            _HeaderOut(message.id, message.parent_id, message.timestamp, message.resource_version),
            _Route(message.source, message.destination, message.group, message.operation, message.resource),
            msgspec.Raw(message.content),
        )
    )


def outline(frame: bytes) -> str:
    """What a log may show of a frame: all but its content, which may be a Secret's."""
    try:
        message = decode_message(frame)
    except ProtocolError:
        return f"{len(frame)} bytes that are no message"
    parts = [message.operation, message.resource, f"from={message.source}", f"id={message.id}"]
    if message.parent_id:
        parts.append(f"parent={message.parent_id}")
    if message.resource_version:
        parts.append(f"version={message.resource_version}")
    return safe_label(f"{' '.join(parts)} ({len(frame)} bytes)", 400)


def content_data(content: bytes) -> bytes:
    """The payload a receiver works on: a JSON string's own text, anything else as it is.

    A string holding an object and the object itself are thereby interchangeable.

    Raises:
        ProtocolError: `content` is not JSON.
    """
    if content.lstrip()[:1] != b'"':
        return content
    try:
        return msgspec.json.decode(content, type=str).encode()
    except (*MALFORMED, UnicodeEncodeError) as exc:
        raise ProtocolError(f"malformed content: {exc}") from exc


def decode_content(content: bytes) -> Any:
    """Decode the payload as JSON, looking through a string wrapper.

    Raises:
        ProtocolError: the payload is not JSON.
    """
    try:
        return msgspec.json.decode(content_data(content))
    except (*MALFORMED, UnicodeEncodeError) as exc:
        raise ProtocolError(f"malformed content: {exc}") from exc
