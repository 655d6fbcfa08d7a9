"""What the edge does with a message from the cloud: which row is written, what is told to whom, how it is answered.

The rules are pure; MetaManager runs the plan in one transaction and only then sends the ACK. They are idempotent,
and a version older than the stored one of the same object is acknowledged without being stored.
"""

from dataclasses import dataclass
from enum import Enum

from edgehive.kube.status import ApiStatus
from edgehive.wire.message import Message


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the edge's ``meta`` table: key is the wire resource, value the object's JSON."""

    key: str
    type: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Put:
    """Insert or replace a row."""

    row: Row


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete a row if it is there."""

    key: str


class Forward(Enum):
    """Who must hear of it after the ACK is on its way."""

    NOBODY = "nobody"
    EDGED = "edged"
    TWIN = "twin"


@dataclass(frozen=True, slots=True)
class Plan:
    """Write `changes` in one transaction, then answer, then tell `forward`."""

    changes: tuple[Put | Remove, ...]
    forward: Forward
    ack: Message | None
    """The acknowledgement's source message, route rewritten where the original does; `None`: no ACK."""
    stale: bool = False
    """The stored row is newer (or of another incarnation); nothing was written."""
    ignored: str = ""
    """Why the message is not understood; log it."""


def plan_incoming(message: Message, stored: Row | None) -> Plan:
    """Decide about a message without parent (group ``resource`` or ``func``); `stored` is the row of its resource."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the cloud, understood."""

    object: bytes | None
    """The object, ``None`` for a bare OK."""
    error: ApiStatus | None
    changes: tuple[Put | Remove, ...]


def plan_answer(request: Message, answer: Message, stored: Row | None) -> Answer:
    """Understand an answer and decide what of it is stored; an error is never stored as an object.

    `stored` is the row the answer's object would go to (`answer_key`).

    Raises:
        ProtocolError: the content is not an answer.
    """
    raise NotImplementedError


def answer_key(request: Message) -> str:
    """The key of the row an answer to `request` may change (a podpatch answer goes to the pod's row)."""
    raise NotImplementedError


def store_failure(message: Message, text: str, *, new_id: str, timestamp: int) -> Message:
    """The ``error`` message that tells the cloud a write failed (it will send again)."""
    raise NotImplementedError
