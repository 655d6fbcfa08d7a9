"""Who besides the API server may see what nodes use: a bearer token that the cluster knows and lets do so.

A metrics server asks kubelets with its service account's token; a kubelet has the API server say whose it is
(``TokenReview``) and whether that user may ``get`` ``nodes/metrics`` or ``nodes/stats`` of this node
(``SubjectAccessReview``). Tokens open the statistics alone, nothing that has effects.
"""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec

from edgehive.aio.fewlines import FewLines
from edgehive.aio.http import Request
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label
from edgehive.kube.api import KubeApi
from edgehive.kube.refs import GVR

log = logging.getLogger(__name__)

_TOKENS: Final = GVR("authentication.k8s.io", "v1", "tokenreviews")
_REVIEWS: Final = GVR("authorization.k8s.io", "v1", "subjectaccessreviews")
_SUBRESOURCES: Final = {"metrics": "metrics", "stats": "stats"}
_FRESH: Final = 60.0
"""Seconds a verdict is believed, as in the kubelet for what it was not told otherwise."""
_KEPT: Final = 1_000

Verdict = tuple[int, str]
"""Status and text; 200 lets the request through."""


class StreamAccess:
    """Judges requests that do not come from the API server."""

    def __init__(self, *, api: KubeApi, now: Callable[[], float]) -> None:
        self._api = api
        self._now = now
        self._lines = FewLines(log, now=now)
        self._known: OrderedDict[tuple[bytes, str, str], tuple[float, Verdict]] = OrderedDict()

    async def judge(self, request: Request, area: str, node: str) -> Verdict:
        """Whether the request's token opens `area` (``metrics``, ``stats``) of a node."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            return 401, "Unauthorized"
        subresource = _SUBRESOURCES.get(area)
        if subresource is None or request.method not in ("GET", "HEAD"):
            return 403, "a token opens statistics only"
        key = (hashlib.sha256(token.encode()).digest(), subresource, node)
        known = self._known.get(key)
        if known is not None and self._now() < known[0]:
            return known[1]
        try:
            verdict = await self._ask(token.strip(), subresource, node)
        except (EdgehiveError, *MALFORMED) as exc:
            self._lines.warning(
                "tokens that cannot be reviewed",
                "",
                "a token for nodes/%s cannot be reviewed: %s",
                subresource,
                safe_label(str(exc), 200),
            )
            return 503, "the token cannot be reviewed now"
        self._known[key] = (self._now() + _FRESH, verdict)
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return verdict

    async def _ask(self, token: str, subresource: str, node: str) -> Verdict:
        asked = {"apiVersion": _TOKENS.api_version, "kind": "TokenReview", "spec": {"token": token}}
        status = _status(await self._api.create(_TOKENS, msgspec.json.encode(asked)))
        user = status.get("user")
        if status.get("authenticated") is not True or not isinstance(user, dict):
            return 401, "Unauthorized"
        attributes = {
            "verb": "get",
            "version": "v1",
            "resource": "nodes",
            "subresource": subresource,
            "name": node,
        }
        spec: dict[str, Any] = {"user": user.get("username", ""), "resourceAttributes": attributes}
        spec |= {key: user[key] for key in ("groups", "uid", "extra") if user.get(key)}
        review = {"apiVersion": _REVIEWS.api_version, "kind": "SubjectAccessReview", "spec": spec}
        if _status(await self._api.create(_REVIEWS, msgspec.json.encode(review))).get("allowed") is True:
            return 200, ""
        name = safe_label(str(user.get("username", "")), 200)
        return 403, f"Forbidden (user={name}, verb=get, resource=nodes, subresource={subresource})"


def _status(answer: bytes) -> dict[str, Any]:
    review = msgspec.json.decode(answer)
    status = review.get("status") if isinstance(review, dict) else None
    return status if isinstance(status, dict) else {}
