"""Which nodes are Ready, told to the service manager: `edgehive up` waits for it.

Ready in the database may be left from before a restart; it counts once the node has renewed its lease or
condition since this process began.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from edgehive.aio.informer import Informer
from edgehive.aio.supervise import Service
from edgehive.kube.api import KubeApi, ListOptions
from edgehive.kube.reflector import Change
from edgehive.kube.refs import LEASES, NODES

_LEASE_NAMESPACE = "kube-node-lease"
_CLOCK_SLACK = 1.0  # a node writes its times in whole seconds


class NodeWatch:
    """Calls `tell(node, ready)` for every node at first sight and on every change."""

    def __init__(self, *, api: KubeApi, tell: Callable[[str, bool], None], started: float) -> None:
        self._tell = tell
        self._since = started - _CLOCK_SLACK
        self._ready: dict[str, bool] = {}
        self._fresh: set[str] = set()
        self._told: dict[str, bool] = {}
        leases = ListOptions(namespace=_LEASE_NAMESPACE)
        self._nodes = Informer(api=api, gvr=NODES)
        self._leases = Informer(api=api, gvr=LEASES, options=leases)
        self._nodes.subscribe(self._on_node)
        self._leases.subscribe(self._on_lease)

    def services(self) -> list[Service]:
        """What must run for it."""
        return [
            Service("node-watch", self._nodes.run),
            Service("lease-watch", self._leases.run),
        ]

    def _on_node(self, change: Change) -> None:
        if change.new is None:
            name = change.object.meta.name
            self._ready.pop(name, None)
            self._told.pop(name, None)
            return
        node = msgspec.json.decode(change.new.raw)
        name = change.new.meta.name
        condition: dict[str, Any] = next(
            (c for c in (node.get("status") or {}).get("conditions") or () if c.get("type") == "Ready"), {}
        )
        self._ready[name] = condition.get("status") == "True"
        if self._is_recent(condition, "lastHeartbeatTime"):
            self._fresh.add(name)
        self._consider(name)

    def _on_lease(self, change: Change) -> None:
        if change.new is not None and change.new.meta.name not in self._fresh:
            spec = msgspec.json.decode(change.new.raw).get("spec") or {}
            if self._is_recent(spec, "renewTime"):
                self._fresh.add(change.new.meta.name)
                self._consider(change.new.meta.name)

    def _is_recent(self, holder: Mapping[str, Any], key: str) -> bool:
        try:
            when = datetime.fromisoformat(str(holder.get(key, "")))
        except ValueError:
            return False
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return when.timestamp() >= self._since

    def _consider(self, name: str) -> None:
        if name not in self._ready:
            return
        ready = self._ready[name] and name in self._fresh
        if self._told.get(name) != ready:
            self._told[name] = ready
            self._tell(name, ready)
