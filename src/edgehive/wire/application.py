"""Applications: how an edge asks the cloud for something of the Kubernetes API.

KubeEdge's MetaServer sends one, its DynamicController carries it out and sends it back completed. The fields have Go's
own names, since the original declares no others, and bytes travel as base64.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.kube.meta import decode_partial
from edgehive.kube.refs import GVR
from edgehive.kube.status import ApiStatus
from edgehive.wire import classify as cls
from edgehive.wire.kinds import resource_to_kind
from edgehive.wire.message import MALFORMED, Message, Stamp, content_data
from edgehive.wire.resource import APPLICATION_REPLY, NULL, WATCH_SYNC, format_resource

GET, LIST, WATCH = "get", "list", "watch"
CREATE, UPDATE, UPDATE_STATUS, PATCH, DELETE = "create", "update", "updatestatus", "patch", "delete"
VERBS: Final = frozenset({GET, LIST, WATCH, CREATE, UPDATE, UPDATE_STATUS, PATCH, DELETE})

PRE_APPLYING, IN_APPLYING, IN_PROCESSING = "PreApplying", "InApplying", "InProcessing"
APPROVED, REJECTED, FAILED, COMPLETED = "Approved", "Rejected", "Failed", "Completed"

CORE = "core"
NO_TIME = "0001-01-01T00:00:00Z"
_OPERATION = "null"
_PASS_THROUGH: Final = frozenset(
    {"/api", "/apis", "/version", "/healthz", "/livez", "/readyz", "/openapi/v2", "/openapi/v3"}
)


@dataclass(frozen=True, slots=True)
class ResourceKey:
    """``/<group or core>/<version>/<resource>/<namespace or null>/<name or null>``."""

    gvr: GVR
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        gvr = self.gvr
        namespace = NULL if gvr.resource == "namespaces" and not gvr.group else self.namespace or NULL
        return f"/{gvr.group or CORE}/{gvr.version}/{gvr.resource}/{namespace}/{self.name or NULL}"

    @property
    def row_gvr(self) -> str:
        """The GVR as Go prints it, a column of the edge's ``meta_v2`` table."""
        return format_gvr(self.gvr)


def format_gvr(gvr: GVR) -> str:
    """``/v1, Resource=pods``: Go's way of printing a GroupVersionResource."""
    return f"{gvr.group}/{gvr.version}, Resource={gvr.resource}"


def parse_key(text: str) -> ResourceKey:
    """Read a key as the original does: missing parts are empty, more than five are ignored."""
    parts = [*text.split("/")[1:6], "", "", "", "", ""]
    group, version, resource, namespace, name = parts[:5]
    plain = (part if part != NULL else "" for part in (namespace, name))
    return ResourceKey(GVR("" if group == CORE else group, version, resource), *plain)


def is_pass_through(path: str, verb: str = GET) -> bool:
    """Tell whether the cloud answers `path` with what its API server says, as it is."""
    if verb != GET:
        return False
    path = path.removesuffix("/")
    if path in _PASS_THROUGH:
        return True
    match path.split("/"):
        case ["", "api", version]:
            return bool(version)
        case ["", "apis", group, *rest]:
            return bool(group) and len(rest) <= 1
        case _:
            return False


def is_openapi_part(path: str) -> bool:
    """Tell whether `path` is one group's document of OpenAPI v3; the original does not pass these through."""
    match path.split("/"):
        case ["", "openapi", "v3", "api", version]:
            return bool(version)
        case ["", "openapi", "v3", "apis", group, *rest]:
            return bool(group) and len(rest) <= 1
        case _:
            return False


class _Error(msgspec.Struct, rename={"status": "ErrStatus"}):
    status: dict[str, Any] = msgspec.field(default_factory=dict)


class _Wire(msgspec.Struct, rename="pascal"):
    id: str = msgspec.field(default="", name="ID")
    key: str = ""
    verb: str = ""
    nodename: str = ""
    option: str | None = None
    req_body: str | None = None
    subresource: str = ""
    resp_body: str | None = None
    status: str = ""
    reason: str = ""
    error: _Error | None = None
    timestamp: str = NO_TIME


_decoder: Final = msgspec.json.Decoder(_Wire)
_map_decoder: Final = msgspec.json.Decoder(dict[str, _Wire])


@dataclass(frozen=True, slots=True)
class Application:
    """One request, on its way or answered. `option` and `body` are JSON, or empty."""

    key: str
    verb: str
    node: str
    option: bytes = b""
    body: bytes = b""
    subresource: str = ""
    id: str = ""
    response: bytes = b""
    status: str = IN_APPLYING
    reason: str = ""
    error: ApiStatus | None = None

    def identified(self) -> "Application":
        """The same with its ID filled in: equal requests have equal IDs."""
        digest = hashlib.sha256((self.node + self.key + self.verb).encode())
        for part in (self.option, self.body, self.subresource.encode()):
            digest.update(part)
        return replace(self, id=digest.hexdigest())

    @property
    def target(self) -> ResourceKey:
        """What the key of a resource request names."""
        return parse_key(self.key)

    def options(self) -> dict[str, Any]:
        """`option`, decoded; empty when there is none.

        Raises:
            ProtocolError: it is not a JSON object.
        """
        return _object(self.option, "Option") if self.option.strip() else {}

    def approved(self, response: bytes = b"") -> "Application":
        """The answer that it was done."""
        return replace(self, status=APPROVED, response=response, reason="", error=None)

    def rejected(self, error: ApiStatus) -> "Application":
        """The answer that it was not; the reason goes along for whoever reads only that."""
        return replace(self, status=REJECTED, response=b"", reason=error.message, error=error)

    def failure(self) -> ApiStatus | None:
        """Why it was not done; ``None`` when it was."""
        if self.status in (APPROVED, COMPLETED):
            return None
        if self.error is not None:
            return self.error
        return _from_reason(self.reason or f"the cloud left the request {self.status or 'unanswered'}")


def _from_reason(reason: str) -> ApiStatus:
    """A failure of which only the text is known: the original loses the status of list errors, and its code."""
    if "could not find the requested resource" in reason or reason.endswith("not found"):
        return ApiStatus(404, "NotFound", reason)
    if " is forbidden: " in reason:
        return ApiStatus(403, "Forbidden", reason)
    return ApiStatus(500, "InternalError", reason)


def encode_application(application: Application) -> bytes:
    """The content of a message; every field is there, as Go writes it."""
    return msgspec.json.encode(_to_wire(application))


def decode_application(content: bytes) -> Application:
    """Read the content of a message.

    Raises:
        ProtocolError: it is not an Application.
    """
    try:
        return _from_wire(_decoder.decode(content_data(content)))
    except (*MALFORMED, binascii.Error, ValueError) as exc:
        raise ProtocolError(f"not an Application: {exc}") from exc


def encode_applications(applications: Iterable[Application]) -> bytes:
    """The content of a watch-sync message: a map from ID to Application."""
    return msgspec.json.encode({a.id: _to_wire(a) for a in applications})


def decode_applications(content: bytes) -> dict[str, Application]:
    """Read the content of a watch-sync message; null is an empty map.

    Raises:
        ProtocolError: it is not a map of Applications.
    """
    data = content_data(content)
    if data.strip() == b"null":
        return {}
    try:
        return {name: _from_wire(wire) for name, wire in _map_decoder.decode(data).items()}
    except (*MALFORMED, binascii.Error, ValueError) as exc:
        raise ProtocolError(f"not a map of Applications: {exc}") from exc


def _to_wire(a: Application) -> _Wire:
    status = {"metadata": {}} if a.error is None else a.error.to_dict()
    return _Wire(
        id=a.id,
        key=a.key,
        verb=a.verb,
        nodename=a.node,
        option=_base64(a.option),
        req_body=_base64(a.body),
        subresource=a.subresource,
        resp_body=_base64(a.response),
        status=a.status,
        reason=a.reason,
        error=_Error(status),
    )


def _from_wire(wire: _Wire) -> Application:
    status = wire.error.status if wire.error is not None else {}
    failed = bool(status.get("code") or status.get("reason") or status.get("message"))
    return Application(
        key=wire.key,
        verb=wire.verb,
        node=wire.nodename,
        option=_bytes(wire.option),
        body=_bytes(wire.req_body),
        subresource=wire.subresource,
        id=wire.id,
        response=_bytes(wire.resp_body),
        status=wire.status,
        reason=wire.reason,
        error=ApiStatus.from_dict(status) if failed else None,
    )


def _base64(data: bytes) -> str | None:
    return base64.b64encode(data).decode() if data else None


def _bytes(text: str | None) -> bytes:
    return base64.b64decode(text, validate=True) if text else b""


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except MALFORMED as exc:
        raise ProtocolError(f"failed to parse {what} bytes: {exc}") from exc


# options


@dataclass(frozen=True, slots=True)
class PatchInfo:
    """The option of a patch: Go's own field names, except inside `options`."""

    name: str
    content_type: str
    data: bytes
    options: Mapping[str, Any]
    subresources: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The option as JSON."""
        return msgspec.json.encode(
            {
                "Name": self.name,
                "PatchType": self.content_type,
                "Data": base64.b64encode(self.data).decode(),
                "Options": dict(self.options),
                "Subresources": list(self.subresources),
            }
        )

    @staticmethod
    def parse(option: bytes) -> "PatchInfo":
        """Read the option of a patch.

        Raises:
            ProtocolError: it is none.
        """
        found = _object(option, "Option")
        try:
            data = base64.b64decode(found.get("Data") or "", validate=True)
            return PatchInfo(
                str(found.get("Name") or ""),
                str(found.get("PatchType") or ""),
                data,
                dict(found.get("Options") or {}),
                tuple(map(str, found.get("Subresources") or ())),
            )
        except (binascii.Error, ValueError, TypeError) as exc:
            raise ProtocolError(f"failed to parse Option bytes: {exc}") from exc


# messages


def request_message(application: Application, *, stamp: Stamp) -> Message:
    """An edge's request; the answer has its id as parent."""
    return _up(NULL, encode_application(application), stamp)


def watch_sync_message(applications: Iterable[Application], *, stamp: Stamp) -> Message:
    """What an edge watches, all of it: the cloud drops watches that are not in it, and begins those it lacks."""
    return _up(WATCH_SYNC, encode_applications(applications), stamp)


def _up(resource: str, content: bytes, stamp: Stamp) -> Message:
    message_id, timestamp = stamp()
    return Message(
        id=message_id,
        timestamp=timestamp,
        operation=_OPERATION,
        resource=resource,
        content=content,
        source=cls.META_SERVER,
        group=cls.DYNAMIC_CONTROLLER,
    )


def is_watch_sync(request: Message) -> bool:
    """Tell whether an edge's message says what it watches."""
    return request.resource.endswith(WATCH_SYNC)


def answer_message(request: Message, content: bytes, *, stamp: Stamp) -> Message:
    """The cloud's answer to a request or a watch-sync."""
    message_id, timestamp = stamp()
    return Message(
        id=message_id,
        timestamp=timestamp,
        operation=cls.APPLICATION_RESPONSE,
        resource=request.resource if is_watch_sync(request) else APPLICATION_REPLY,
        content=content,
        parent_id=request.id,
        source=cls.DYNAMIC_CONTROLLER,
        group=cls.RESOURCE_GROUP,
    )


def event_message(operation: str, gvr: GVR, raw: bytes, *, stamp: Stamp) -> Message:
    """One change of a watched object; `operation` is ``insert``, ``update`` or ``delete``.

    It names no watch: the edge keeps the object and serves its own watchers from there.
    """
    meta = decode_partial(raw).metadata
    message_id, timestamp = stamp()
    return Message(
        id=message_id,
        timestamp=timestamp,
        operation=operation,
        resource=format_resource(meta.namespace, resource_to_kind(gvr.resource).lower(), meta.name),
        content=raw,
        resource_version=meta.resource_version,
        source=cls.DYNAMIC_CONTROLLER,
        group=cls.RESOURCE_GROUP,
    )
