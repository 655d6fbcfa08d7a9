"""Kubernetes Events about nodes, for what an administrator should see."""

import datetime
import logging
from collections.abc import Callable

import msgspec

from edgehive.kit.errors import EdgehiveError
from edgehive.kube.api import KubeApi, WriteOptions
from edgehive.kube.refs import EVENTS

log = logging.getLogger(__name__)

_NAMESPACE = "default"  # where events about cluster-scoped objects go
_MAX_MESSAGE = 1024


class NodeEvents:
    """Records Events; a failure to do so is logged and nothing else."""

    def __init__(self, *, api: KubeApi, wall: Callable[[], float], new_id: Callable[[], str]) -> None:
        self._api = api
        self._wall = wall
        self._new_id = new_id

    async def record(self, node: str, reason: str, message: str, *, warning: bool = False) -> None:
        """Record one Event about `node`."""
        now = datetime.datetime.fromtimestamp(self._wall(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{node}.{self._new_id()[:13]}", "namespace": _NAMESPACE},
            "involvedObject": {"kind": "Node", "apiVersion": "v1", "name": node, "uid": node},
            "reason": reason,
            "message": message[:_MAX_MESSAGE],
            "source": {"component": "cloudcore"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "type": "Warning" if warning else "Normal",
            "reportingComponent": "cloudcore",
            "reportingInstance": "",
        }
        try:
            await self._api.create(EVENTS, msgspec.json.encode(body), WriteOptions(namespace=_NAMESPACE))
        except EdgehiveError as exc:
            log.warning("event %s about node %s could not be recorded: %s", reason, node, exc)
