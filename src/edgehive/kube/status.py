"""``metav1.Status``, the error that Kubernetes clients and servers speak.

The same class is raised by our client and sent by our server.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgehive.kit.errors import EdgehiveError

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class ApiStatus(EdgehiveError):
    """A Kubernetes API failure: HTTP `code`, `reason`, `message` and optional `details`."""

    def __init__(
        self, code: int, reason: str, message: str, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details) if details else {}

    def __str__(self) -> str:
        return self.message

    def to_dict(self) -> dict[str, Any]:
        """The ``v1.Status`` object as a client expects it."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            body["details"] = self.details
        return body

    @classmethod
    def from_dict(cls, body: Mapping[str, Any], http_code: int = 500) -> "ApiStatus":
        """Build the error from a decoded ``v1.Status``; tolerant of missing fields."""
        code = body.get("code")
        code = code if isinstance(code, int) and code > 0 else http_code
        reason = body.get("reason")
        message = body.get("message")
        details = body.get("details")
        return cls(
            code,
            reason if isinstance(reason, str) and reason else _REASONS.get(code, "Unknown"),
            message if isinstance(message, str) else f"the server answered {code}",
            details if isinstance(details, dict) else None,
        )

    @property
    def namespace_ends(self) -> bool:
        """Whether something was not created because its namespace is being deleted."""
        causes = self.details.get("causes")
        found = causes if self.code == 403 and isinstance(causes, list) else ()
        return any(isinstance(one, Mapping) and one.get("reason") == "NamespaceTerminating" for one in found)

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later without a change."""
        return self.code in (408, 429, 500, 502, 503, 504)


def bad_request(message: str) -> ApiStatus:
    """400."""
    return ApiStatus(400, "BadRequest", message)


def unauthorized(message: str = "Unauthorized") -> ApiStatus:
    """401."""
    return ApiStatus(401, "Unauthorized", message)


def forbidden(message: str) -> ApiStatus:
    """403."""
    return ApiStatus(403, "Forbidden", message)


def not_found(resource: str, name: str, group: str = "") -> ApiStatus:
    """404 for one object; `resource` is the plural."""
    qualified = f"{resource}.{group}" if group else resource
    details = {"name": name, "kind": resource} | ({"group": group} if group else {})
    return ApiStatus(404, "NotFound", f'{qualified} "{name}" not found', details)


def already_exists(resource: str, name: str, group: str = "") -> ApiStatus:
    """409 on create."""
    qualified = f"{resource}.{group}" if group else resource
    details = {"name": name, "kind": resource} | ({"group": group} if group else {})
    return ApiStatus(409, "AlreadyExists", f'{qualified} "{name}" already exists', details)


def conflict(resource: str, name: str, why: str, group: str = "") -> ApiStatus:
    """409 on a stale update."""
    qualified = f"{resource}.{group}" if group else resource
    details = {"name": name, "kind": resource} | ({"group": group} if group else {})
    return ApiStatus(
        409, "Conflict", f'Operation cannot be fulfilled on {qualified} "{name}": {why}', details
    )


def invalid(kind: str, name: str, causes: Sequence[tuple[str, str, str]], group: str = "") -> ApiStatus:
    """422; each cause is (field path, reason such as FieldValueRequired, message)."""
    text = "; ".join(f"{field}: {message}" for field, _, message in causes)
    text = text if len(causes) == 1 else f"[{text}]"
    qualified = f"{kind}.{group}" if group else kind
    details = {
        "name": name,
        "kind": kind,
        "causes": [
            {"reason": reason, "message": message, "field": field} for field, reason, message in causes
        ],
    } | ({"group": group} if group else {})
    return ApiStatus(422, "Invalid", f'{qualified} "{name}" is invalid: {text}', details)


def expired(message: str) -> ApiStatus:
    """410: the resourceVersion or continue token is too old."""
    return ApiStatus(410, "Expired", message)
