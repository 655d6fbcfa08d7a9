"""What nodes may do, asked of the API server: for watches, and for `authorization.debug`.

With `debug` nothing is refused. Each request of an edge is carried out in cloudcore's name, and beside it the API
server is asked whether it would have let the node do it; what it would have refused is logged and counted, so that
an administrator sees what enforcing would break.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edgehive.kit.errors import EdgehiveError
from edgehive.kit.linebudget import LineBudget
from edgehive.kit.text import safe_label
from edgehive.kube.api import KubeApi
from edgehive.kube.refs import GVR
from edgehive.wire.access import Access, access_of
from edgehive.wire.endpoint import NODE_USER_PREFIX, NODES_ORGANIZATION
from edgehive.wire.message import MALFORMED, Message

log = logging.getLogger(__name__)

REVIEWS: Final = GVR("authorization.k8s.io", "v1", "subjectaccessreviews")

_KEPT: Final = 10_000
_FRESH: Final = 300.0
"""Seconds an answer is believed; with debug on, a change of rules may show this much later."""
_WAITING: Final = 1_024
_PARALLEL: Final = 8


def review_of(node: str, access: Access, version: str = "") -> bytes:
    """A ``SubjectAccessReview`` of a node."""
    attributes = {
        "verb": access.verb,
        "group": access.group,
        "resource": access.resource,
        "subresource": access.subresource,
        "namespace": access.namespace,
        "name": access.name,
    } | ({"version": version} if version else {})
    return msgspec.json.encode(
        {
            "apiVersion": REVIEWS.api_version,
            "kind": "SubjectAccessReview",
            "spec": {
                "user": NODE_USER_PREFIX + node,
                "groups": [NODES_ORGANIZATION],
                "resourceAttributes": attributes,
            },
        }
    )


def refusal_of(answer: bytes) -> str | None:
    """Why a review was answered with no (perhaps ""); ``None`` for yes."""
    review: dict[str, Any] = msgspec.json.decode(answer)
    status = review.get("status") or {}
    if status.get("allowed") is True:
        return None
    return safe_label(str(status.get("reason") or ""), 200)


@dataclass(slots=True)
class AccessStats:
    """Counters."""

    reviewed: int = 0
    refusable: int = 0
    """Requests that enforcing would have refused."""
    skipped: int = 0
    """Requests that were not looked at, because too many waited or the API server was away."""


class AccessAudit:
    """Notes what enforcing would refuse; never holds up or changes a request.

    At most 1,024 requests wait for a review; more than that are counted as skipped (overflow policy: drop the newest).
    """

    def __init__(self, *, api: KubeApi, now: Callable[[], float]) -> None:
        self._api = api
        self._now = now
        self._queue: asyncio.Queue[tuple[str, Access]] = asyncio.Queue(_WAITING)
        self._known: OrderedDict[tuple[str, Access], tuple[float, str | None]] = OrderedDict()
        self._lines = LineBudget()
        self.stats: Final = AccessStats()

    def note(self, node: str, message: Message) -> None:
        """A node asks something."""
        access = access_of(message)
        if access is None:
            return
        known = self._known.get((node, access))
        if known is not None and self._now() < known[0]:
            self._count(known[1])
            return
        try:
            self._queue.put_nowait((node, access))
        except asyncio.QueueFull:
            self.stats.skipped += 1

    async def run(self) -> None:
        """Ask the API server until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_PARALLEL):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            node, access = await self._queue.get()
            known = self._known.get((node, access))
            if known is not None and self._now() < known[0]:
                self._count(known[1])
                continue
            try:
                refusal = refusal_of(await self._api.create(REVIEWS, review_of(node, access)))
            except (EdgehiveError, *MALFORMED) as exc:
                self.stats.skipped += 1
                log.debug("the access of node %s could not be reviewed: %s", node, exc)
                continue
            self._keep(node, access, refusal)
            self._count(refusal)
            if refusal is not None:
                self._say(node, access, refusal)

    def _keep(self, node: str, access: Access, refusal: str | None) -> None:
        self._known.pop((node, access), None)
        self._known[node, access] = (self._now() + _FRESH, refusal)
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)

    def _count(self, refusal: str | None) -> None:
        self.stats.reviewed += 1
        self.stats.refusable += refusal is not None

    def _say(self, node: str, access: Access, refusal: str) -> None:
        if hidden := self._lines.hidden(self._now()):
            log.warning("authorization: %d more requests would have been refused", hidden)
        if not self._lines.admits():
            return
        log.warning(
            "authorization: node %s would not be allowed to %s%s",
            node,
            safe_label(str(access), 300),
            f": {refusal}" if refusal else "",
        )
