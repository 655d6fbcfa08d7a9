"""Where one object stands on its way to the nodes that are connected here."""

from collections.abc import Iterable
from typing import Any

from edgehive.cloud.nodes import NodeTable
from edgehive.cloud.world import ClusterView
from edgehive.wire import resource as res


class Tracer:
    """Answers ``/debug/trace``; everything is read from memory."""

    def __init__(self, *, nodes: NodeTable, view: ClusterView) -> None:
        self._nodes = nodes
        self._view = view

    def trace(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """A row for each connected node that has been sent the object or is meant to have it.

        ``wanted`` is the version they should have: a pod's own status reports do not make it newer for its node.
        """
        kind = kind.lower()
        resource = res.format_resource(namespace or None, kind, name)
        meant = frozenset(self._view.meant_for(kind, namespace, name))
        rows = [self._row(node, resource, node in meant) for node in self._candidates(meant)]
        wanted = self._view.wanted_version(kind, namespace, name)
        return {"wanted": wanted, "nodes": [row for row in rows if row is not None]}

    def _candidates(self, meant: frozenset[str]) -> Iterable[str]:
        return sorted({link.node for link in self._nodes.links()} | meant)

    def _row(self, node: str, resource: str, meant: bool) -> dict[str, Any] | None:
        session = self._nodes.session(node)
        if session is None:
            return None
        trace = session.pool.trace(resource)
        if trace is None and not meant:
            return None
        row = trace.as_dict() if trace is not None else {}
        if not row.get("deleted"):
            # What it has acknowledged over an earlier link, or says that it holds, counts as well.
            acknowledged = trace.acknowledged if trace is not None else 0
            row["acknowledged"] = max(acknowledged, self._nodes.known(node, resource))
        return {"node": node, "meant": meant, **row}
