"""One request of an edge to the edge controller, and the exact shapes of its answers.

An answer has source ``edgecontroller``, group ``resource``, operation ``response``, the request's resource and its id
as parent. Failures always have KubeEdge's ``ErrStatus`` shape: a bare ``{}`` would be taken for success by an
original edge.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from edgehive.cloud.impersonation import NOBODY, Impersonation
from edgehive.kit.errors import EdgehiveError, ProtocolError
from edgehive.kube.api import WriteOptions
from edgehive.kube.meta import decode_partial
from edgehive.kube.status import ApiStatus, bad_request
from edgehive.wire.classify import EDGE_CONTROLLER, RESOURCE_GROUP
from edgehive.wire.endpoint import NODE_USER_PREFIX
from edgehive.wire.message import MALFORMED, OK, RESPONSE, Message, Stamp, content_data
from edgehive.wire.resource import Resource


@dataclass(frozen=True, slots=True)
class EdgeRequest:
    """What a node asks; `target` is the parsed resource, with a name unless it is a list form."""

    node: str
    message: Message
    target: Resource
    stamp: Stamp
    impersonation: Impersonation = NOBODY

    @property
    def namespace(self) -> str:
        """The namespace of a namespaced request.

        Raises:
            ApiStatus: 400, there is none.
        """
        if self.target.namespace is None:
            raise bad_request(f"{self.target.type} needs a namespace")
        return self.target.namespace

    @property
    def name(self) -> str:
        """The object's name.

        Raises:
            ApiStatus: 400, there is none.
        """
        if not self.target.name:
            raise bad_request(f"{self.target.type} needs a name")
        return self.target.name

    def options(self, namespace: str | None = None, subresource: str = "") -> WriteOptions:
        """How to write for this node."""
        return self.impersonation.options(self.node, namespace, subresource)

    @property
    def impersonate(self) -> bool:
        """Whether this is done in the node's name."""
        return self.impersonation.enforced

    def data(self) -> bytes:
        """The payload: a JSON string's text, or the JSON itself.

        Raises:
            ApiStatus: 400, the content is not JSON.
        """
        try:
            return content_data(self.message.content)
        except ProtocolError as exc:
            raise bad_request("the content is not JSON") from exc

    def body(self) -> dict[str, Any]:
        """The payload as a JSON object.

        Raises:
            ApiStatus: 400, it is none.
        """
        try:
            return msgspec.json.decode(self.data(), type=dict[str, Any])
        except MALFORMED as exc:
            raise bad_request(f"the content is not a {self.target.type} object") from exc

    def answer(self, content: bytes, *, version: str = "") -> Message:
        """An answer with this content."""
        message_id, timestamp = self.stamp()
        return Message(
            id=message_id,
            timestamp=timestamp,
            operation=RESPONSE,
            resource=self.message.resource,
            content=content,
            parent_id=self.message.id,
            resource_version=version,
            source=EDGE_CONTROLLER,
            group=RESOURCE_GROUP,
        )

    def ok(self, *, version: str = "") -> Message:
        """The answer ``OK``."""
        return self.answer(OK, version=version)

    def object_answer(self, raw: bytes, *, version: bool = True) -> Message:
        """An ``ObjectResp`` with an object; `version` says whether the header carries the object's."""
        content = b'{"Object":' + raw + b',"Err":null}'
        return self.answer(content, version=version_of(raw) if version else "")

    def object_failure(self, error: EdgehiveError) -> Message:
        """An ``ObjectResp`` with an error."""
        return self.answer(b'{"Object":null,"Err":' + encode_error(error) + b"}")

    def query_answer(self, raw: bytes) -> Message:
        """The bare object with its version in the header."""
        return self.answer(raw, version=version_of(raw))

    def failure(self, error: EdgehiveError) -> Message:
        """The bare error."""
        return self.answer(encode_error(error))

    def at(self, resource: str) -> "EdgeRequest":
        """The same request whose answers name another resource."""
        return replace(self, message=self.message.at(resource))


def of_cloudcore(error: EdgehiveError) -> EdgehiveError:
    """A refusal that is about cloudcore's own account as "not now", anything else as it is.

    An API server that has just started refuses with 403 until it has read its roles, and with 401 whom it cannot
    check yet; credentials of ours that ran out are replaced. For an edge a 401 or 403 is final: it would take its
    pod's status for refused, or its final delete.
    """
    if not isinstance(error, ApiStatus):
        return error
    refused = error.code == 403 and _BY_ROLE in error.message
    ours = error.code == 401 or (refused and f"{_BY_ROLE}{NODE_USER_PREFIX}" not in error.message)
    return _not_now(f"cloudcore is refused: {error.message}") if ours else error


_BY_ROLE = 'is forbidden: User "'
"""In every refusal of an authorizer, with who is refused; admission plugins write something else."""


def _not_now(message: str) -> ApiStatus:
    return ApiStatus(503, "ServiceUnavailable", message)


def as_status(error: EdgehiveError) -> ApiStatus:
    """Any failure as a Kubernetes Status; what is not one means "not now"."""
    if isinstance(error, ApiStatus):
        return error
    return _not_now(f"the API server cannot be reached: {error}")


def encode_error(error: EdgehiveError) -> bytes:
    """``{"ErrStatus": …}`` as Go marshals a StatusError."""
    status = as_status(error).to_dict()
    ordered = {
        key: status[key] for key in ("metadata", "status", "message", "reason", "details") if key in status
    }
    return msgspec.json.encode({"ErrStatus": ordered | {"code": status["code"]}})


def version_of(raw: bytes) -> str:
    """The resourceVersion of an object; "" when it has none or one that an original could not parse."""
    try:
        text = decode_partial(raw).metadata.resource_version
    except MALFORMED:
        return ""
    return text if text.isascii() and text.isdigit() else ""


Answers = Message | tuple[Message, ...] | None
"""What a handler gives back: nothing, one answer, or several."""

FailureAnswer = Callable[[EdgeRequest, EdgehiveError], Message | None]


def as_object_failure(request: EdgeRequest, error: EdgehiveError) -> Message:
    """Answer a failure as an ``ObjectResp``."""
    return request.object_failure(error)


def as_failure(request: EdgeRequest, error: EdgehiveError) -> Message:
    """Answer a failure with the bare error."""
    return request.failure(error)


def as_silence(_request: EdgeRequest, _error: EdgehiveError) -> None:
    """Do not answer a failure: nobody at the edge waits."""
