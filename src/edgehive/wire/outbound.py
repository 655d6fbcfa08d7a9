"""A message prepared for delivery to edges: classified, keyed and encoded once, however many nodes it goes to."""

from typing import Final

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.wire.classify import requires_ack
from edgehive.wire.message import DELETE, MALFORMED, RESPONSE, Message, content_data, encode_message
from edgehive.wire.resource import Resource, find_resource


class _Meta(msgspec.Struct, rename="camel", gc=False):
    uid: str = ""
    deletion_timestamp: str | None = None


class _Content(msgspec.Struct, rename="camel", gc=False):
    api_version: str = ""
    kind: str = ""
    metadata: _Meta = msgspec.field(default_factory=_Meta)


_decoder: Final = msgspec.json.Decoder(_Content)


def parse_version(text: str) -> int:
    """A resourceVersion as a number; 0 when it is not one (the original panics on those)."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


class Outbound:
    """One message on its way down. Shared between nodes; immutable but for the cached encoding.

    `message.resource` is in wire form (no ``node/<id>/`` prefix).
    """

    __slots__ = (
        "_frame",
        "ack",
        "api_version",
        "deleting",
        "kind",
        "message",
        "resource",
        "uid",
        "version",
    )

    def __init__(self, message: Message) -> None:
        self.message: Final = message
        self.ack: Final = requires_ack(message)
        self.resource: Final[Resource | None] = find_resource(message.resource)
        self.version: Final = parse_version(message.resource_version)
        body = _peek(message.content) if self.ack else _Content()
        self.uid: Final = body.metadata.uid
        self.api_version: Final = body.api_version
        self.kind: Final = body.kind
        self.deleting: Final = message.operation == DELETE or body.metadata.deletion_timestamp is not None
        self._frame: bytes | None = None

    @property
    def frame(self) -> bytes:
        """The encoded frame; every resend is these identical bytes."""
        if self._frame is None:
            self._frame = encode_message(self.message)
        return self._frame

    @property
    def is_delete(self) -> bool:
        """The final delete of the object (not merely a deletionTimestamp)."""
        return self.message.operation == DELETE

    @property
    def is_response(self) -> bool:
        """An answer to a query of the edge."""
        return self.message.operation == RESPONSE

    def __repr__(self) -> str:
        m = self.message
        return f"<{m.operation} {m.resource} uid={self.uid[:8]} rv={m.resource_version} id={m.id[:8]}>"


def _peek(content: bytes) -> _Content:
    try:
        return _decoder.decode(content_data(content))
    except (*MALFORMED, ProtocolError):
        return _Content()
