"""The note on each Node which cloudcore instance it is connected to; KubeEdge's router and node jobs go by it."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from edgehive.aio.informer import Informer
from edgehive.cloud.stream_ports import is_address
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.api import MERGE_PATCH, KubeApi
from edgehive.kube.reflector import CachedObject
from edgehive.kube.refs import NODES
from edgehive.kube.status import ApiStatus

log = logging.getLogger(__name__)

OWNER_ANNOTATION: Final = "cloudcore"
"""The address of the instance a node is connected to."""


class _Address(msgspec.Struct):
    address: str = ""


class _Status(msgspec.Struct):
    addresses: list[_Address] | None = None


class _Node(msgspec.Struct):
    status: _Status | None = None


def instance_of(nodes: Iterable[CachedObject], host: str, own: str) -> str:
    """The address of the other instance that a node, by name or address, is noted to be connected to; "" if none is."""
    for node in nodes:
        found = (node.meta.annotations or {}).get(OWNER_ANNOTATION, "")
        if found in ("", own) or not is_address(found):
            continue
        if node.meta.name == host or host in _addresses(node.raw):
            return found
    return ""


def _addresses(raw: bytes) -> set[str]:
    try:
        status = msgspec.json.decode(raw, type=_Node).status
    except MALFORMED:
        return set()
    return {one.address for one in (status.addresses if status else None) or ()}


_TRIES = 3
_PAUSE = 1.0


class Ownership:
    """Keeps the note of the nodes that connect here."""

    def __init__(
        self, *, api: KubeApi, nodes: Informer, address: str, connected: Callable[[str], bool]
    ) -> None:
        self._api = api
        self._nodes = nodes
        self._address = address
        self._connected = connected

    async def claim(self, node: str) -> None:
        """Note that `node` is connected here; a Node that is not registered yet gets the note when it is."""
        found = self._nodes.get("", node)
        if found is None or (found.meta.annotations or {}).get(OWNER_ANNOTATION) == self._address:
            return
        body = msgspec.json.encode({"metadata": {"annotations": {OWNER_ANNOTATION: self._address}}})
        for attempt in range(1, _TRIES + 1):
            if not self._connected(node):
                return  # it may be connected elsewhere by now, and noted there
            try:
                await self._api.patch(NODES, node, body, MERGE_PATCH)
            except EdgehiveError as exc:
                if isinstance(exc, ApiStatus) and not exc.retryable and exc.code not in (401, 403):
                    log.log(
                        logging.DEBUG if exc.code == 404 else logging.WARNING,
                        "node %s: its cloudcore could not be noted: %s",
                        node,
                        exc,
                    )
                    return
                log.warning(
                    "node %s: its cloudcore could not be noted (%d/%d): %s", node, attempt, _TRIES, exc
                )
            else:
                return
            await asyncio.sleep(_PAUSE)
