"""Mappers in the edge's database, in the rows KubeEdge keeps them in; what each was told, in a table of our own."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edgehive.edge.store import EdgeStore
from edgehive.wire.rows import Put, Row

if TYPE_CHECKING:
    from edgehive.edge.dmi_link import Key

_TYPE = "devicemapper"
_SCHEMA = """CREATE TABLE IF NOT EXISTS edgehive_mapper_told (
    mapper TEXT, kind TEXT, namespace TEXT, name TEXT, body BLOB,
    PRIMARY KEY (mapper, kind, namespace, name)
) WITHOUT ROWID"""
_FORGET = "DELETE FROM edgehive_mapper_told WHERE mapper = ? AND kind = ? AND namespace = ? AND name = ?"
_KEY = "node/nodeID/namespace/devicemapper/"  # KubeEdge: literally so


class StoredMappers:
    """`edge.dmi.MapperRows` over the edge's database."""

    def __init__(self, store: EdgeStore) -> None:
        self._store = store
        with store.transaction() as db:
            db.execute(_SCHEMA)

    def mappers(self) -> Iterable[bytes]:
        """The saved registrations."""
        return [row.value for row in self._store.rows(_TYPE)]

    def save_mapper(self, name: str, value: bytes) -> None:
        """Save one, in the place of the older one of that name."""
        self._store.apply([Put(Row(_KEY + name, _TYPE, value))])

    def told(self, mapper: str) -> "Mapping[Key, bytes]":
        """What a mapper was told, as far as it is known."""
        from edgehive.edge.dmi_link import Key

        sql = "SELECT kind, namespace, name, body FROM edgehive_mapper_told WHERE mapper = ?"
        return {Key(kind, space, name): body for kind, space, name, body in self._store.query(sql, (mapper,))}

    def note_told(self, mapper: str, told: "Mapping[Key, bytes | None]", *, everything: bool) -> None:
        """Note what a mapper was told (``None``: taken away); `everything`: nothing else counts any more."""
        gone = [(mapper, k.kind, k.namespace, k.name) for k, body in told.items() if body is None]
        kept = [(mapper, k.kind, k.namespace, k.name, body) for k, body in told.items() if body is not None]
        with self._store.transaction() as db:
            if everything:
                db.execute("DELETE FROM edgehive_mapper_told WHERE mapper = ?", (mapper,))
            db.executemany(_FORGET, gone)
            db.executemany("INSERT OR REPLACE INTO edgehive_mapper_told VALUES (?, ?, ?, ?, ?)", kept)
