"""Mappers in the edge's database, in the rows KubeEdge keeps them in."""

from collections.abc import Iterable

from edgehive.edge.store import EdgeStore
from edgehive.wire.rows import Put, Row

_TYPE = "devicemapper"
_KEY = "node/nodeID/namespace/devicemapper/"  # KubeEdge: literally so


class StoredMappers:
    """`edge.dmi.MapperRows` over the ``meta`` table."""

    def __init__(self, store: EdgeStore) -> None:
        self._store = store

    def mappers(self) -> Iterable[bytes]:
        """The saved registrations."""
        return [row.value for row in self._store.rows(_TYPE)]

    def save_mapper(self, name: str, value: bytes) -> None:
        """Save one, in the place of the older one of that name."""
        self._store.apply([Put(Row(_KEY + name, _TYPE, value))])
