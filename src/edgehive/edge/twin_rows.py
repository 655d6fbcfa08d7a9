"""Devices in the edge's database: KubeEdge's tables, so that either edgecore goes on with the other's file.

``device``, ``device_attr`` and ``device_twin`` are as KubeEdge makes and fills them. What it has no column for is in
``edgehive_device``: whether a device came with an object, and what the cloud has not confirmed yet. The last value
taken from the Device object is a key of its own in ``device_twin.metadata``, which KubeEdge writes and never reads.
"""

import sqlite3
import sys
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from edgehive.edge.store import EdgeStore
from edgehive.twin import values
from edgehive.twin.device import Device, Twin
from edgehive.twin.effects import Effect, Forget, Kind, Owe, Save
from edgehive.twin.payloads import Attribute, TypeMeta, Value, ValueMeta, Version
from edgehive.wire.message import MALFORMED

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS device (id TEXT PRIMARY KEY, name TEXT, description TEXT, state TEXT,"
    " last_online TEXT)",
    "CREATE TABLE IF NOT EXISTS device_attr (id INTEGER PRIMARY KEY AUTOINCREMENT, deviceid TEXT, name TEXT,"
    " description TEXT, value TEXT, optional NUMERIC, attr_type TEXT, metadata TEXT)",
    "CREATE TABLE IF NOT EXISTS device_twin (id INTEGER PRIMARY KEY AUTOINCREMENT, deviceid TEXT, name TEXT,"
    " description TEXT, expected TEXT, actual TEXT, expected_meta TEXT, actual_meta TEXT, expected_version TEXT,"
    " actual_version TEXT, optional NUMERIC, attr_type TEXT, metadata TEXT)",
    "CREATE TABLE IF NOT EXISTS edgehive_device (id TEXT PRIMARY KEY, object INTEGER NOT NULL,"
    " owed INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS edgehive_device_attr ON device_attr (deviceid, name)",
    "CREATE INDEX IF NOT EXISTS edgehive_device_twin ON device_twin (deviceid, name)",
)

_BITS: Final = {Kind.TWINS: 1, Kind.STATE: 2}
_ALL: Final = 3
"""What is owed of a device that another edgecore has left behind."""

_TWIN_COLUMNS = "expected, actual, expected_meta, actual_meta, expected_version, actual_version, optional, attr_type, metadata"


class TwinRows:
    """Devices over one `EdgeStore`; every method raises `StorageError` when the disk refuses."""

    def __init__(self, store: EdgeStore) -> None:
        self._store = store
        self._owed: dict[str, int] = {}
        self._types: dict[str, TypeMeta] = {values.STRING: TypeMeta(values.STRING)}
        with store.transaction() as db:
            for statement in _SCHEMA:
                db.execute(statement)

    def load(self) -> list[Device]:
        """Return every device."""
        devices = self._devices("", ())
        self._owed = {
            one: int(owed)
            for one, owed in self._store.query(
                "SELECT d.id, COALESCE(e.owed, ?) FROM device d LEFT JOIN edgehive_device e USING (id)",
                (_ALL,),
            )
        }
        return devices

    def device(self, device_id: str) -> Device | None:
        """Return one device."""
        found = self._devices("= ?", (device_id,))
        return found[0] if found else None

    def owed(self) -> list[tuple[str, Kind]]:
        """What the cloud has perhaps not heard of."""
        return [(one, kind) for one, mask in self._owed.items() for kind, bit in _BITS.items() if mask & bit]

    def apply(self, effects: Iterable[Effect], *, clean: Iterable[str] = ()) -> None:
        """Store effects in one transaction; the cloud has confirmed everything of the devices in `clean`."""
        owed = dict(self._owed)
        with self._store.transaction() as db:
            for one in clean:
                if owed.get(one):
                    owed[one] = 0
                    _mark(db, one, 0)
            for effect in effects:
                if isinstance(effect, Save):
                    self._save(db, effect, owed)
                elif isinstance(effect, Forget):
                    _forget(db, effect.id)
                    owed.pop(effect.id, None)
                elif isinstance(effect, Owe):
                    self._owe(db, effect, owed)
        self._owed = owed

    def _save(self, db: sqlite3.Connection, save: Save, owed: dict[str, int]) -> None:
        device = save.device
        if save.row:
            db.execute(
                "INSERT OR REPLACE INTO device (id, name, description, state, last_online) VALUES (?, ?, ?, ?, ?)",
                (device.id, device.name, device.description, device.state, device.last_online),
            )
            db.execute(
                "INSERT OR REPLACE INTO edgehive_device (id, object, owed) VALUES (?, ?, ?)",
                (device.id, device.has_object, owed.setdefault(device.id, 0)),
            )
        for name, twin in save.twins.items():
            _save_twin(db, device.id, name, twin)
        for name, attribute in save.attributes.items():
            _save_attribute(db, device.id, name, attribute)

    @staticmethod
    def _owe(db: sqlite3.Connection, owe: Owe, owed: dict[str, int]) -> None:
        bit = _BITS[owe.kind]
        if not owed.get(owe.id, 0) & bit:
            owed[owe.id] = owed.get(owe.id, 0) | bit
            _mark(db, owe.id, owed[owe.id])

    def _devices(self, where: str, arguments: tuple[str, ...]) -> list[Device]:
        only, of = (f" WHERE id {where}", f" WHERE deviceid {where}") if where else ("", "")
        found: dict[str, Device] = {}
        # KubeEdge's cloud sends an object for every device: one that another edgecore has left without is gone.
        for one, name, description, state, last_online, has_object in self._store.query(
            "SELECT d.id, d.name, d.description, d.state, d.last_online, COALESCE(e.object, 1)"  # noqa: S608 - constants
            f" FROM device d LEFT JOIN edgehive_device e USING (id){only} ORDER BY id",
            arguments,
        ):
            found[one] = Device(
                one,
                name or "",
                description or "",
                state or "",
                last_online or "",
                has_object=bool(has_object),
            )
        for owner, name, *columns in self._store.iterate(
            f"SELECT deviceid, name, {_TWIN_COLUMNS} FROM device_twin{of} ORDER BY id",  # noqa: S608 - constants
            arguments,
        ):
            if (device := found.get(owner)) is not None:
                device.twins[sys.intern(name)] = self._twin(columns)
        for owner, name, value, optional, kind in self._store.iterate(
            f"SELECT deviceid, name, value, optional, attr_type FROM device_attr{of} ORDER BY id",  # noqa: S608 - constants
            arguments,
        ):
            if (device := found.get(owner)) is not None:
                device.attributes[name] = Attribute(value or "", bool(optional), self._type(kind))
        return list(found.values())

    def _twin(self, columns: list[Any]) -> Twin:
        expected, actual, expected_meta, actual_meta, expected_version, actual_version, *rest = columns
        optional, kind, metadata = rest
        return Twin(
            _value(expected, expected_meta),
            _value(actual, actual_meta),
            bool(optional),
            self._type(kind),
            _version(expected_version),
            _version(actual_version),
            _desired(metadata),
        )

    def _type(self, kind: str | None) -> TypeMeta:
        """One object for each type: there are few of them, and many twins."""
        return self._types.setdefault(kind or "", TypeMeta(kind or ""))


class _Own(msgspec.Struct, omit_defaults=True):
    """``device_twin.metadata``."""

    desired: str | None = None


_stamps = msgspec.json.Decoder(ValueMeta)
_versions = msgspec.json.Decoder(Version)
_own = msgspec.json.Decoder(_Own)
_encode = msgspec.json.Encoder().encode


def _value(text: str | None, stamp: str | None) -> Value | None:
    if not text:
        return None
    try:
        return Value(text, _stamps.decode(stamp) if stamp else None)
    except MALFORMED:
        return Value(text)


def _version(text: str | None) -> Version | None:
    try:
        return _versions.decode(text) if text else None
    except MALFORMED:
        return Version()


def _desired(text: str | None) -> str | None:
    try:
        return _own.decode(text).desired if text else None
    except MALFORMED:
        return None


def _text(value: object | None) -> str:
    return "" if value is None else _encode(value).decode()


def _of(value: Value | None) -> tuple[str | None, str | None]:
    """The columns of a value: empty where there is none, NULL where it was deleted."""
    if value is None:
        return "", ""
    if value.value is None:
        return None, None
    return value.value, _text(value.metadata)


def _mark(db: sqlite3.Connection, device: str, owed: int) -> None:
    db.execute(
        "INSERT INTO edgehive_device (id, object, owed) VALUES (?, 1, ?) ON CONFLICT (id) DO UPDATE SET owed = ?",
        (device, owed, owed),
    )


def _save_twin(db: sqlite3.Connection, device: str, name: str, twin: Twin) -> None:
    expected, expected_meta = _of(twin.expected)
    actual, actual_meta = _of(twin.actual)
    row = (
        expected,
        actual,
        expected_meta,
        actual_meta,
        _text(twin.expected_version),
        _text(twin.actual_version),
        twin.optional,
        twin.metadata.type,
        _text(_Own(twin.desired)),
        device,
        name,
    )
    done = db.execute(
        "UPDATE device_twin SET expected = ?, actual = ?, expected_meta = ?, actual_meta = ?, expected_version = ?,"
        " actual_version = ?, optional = ?, attr_type = ?, metadata = ? WHERE deviceid = ? AND name = ?",
        row,
    )
    if not done.rowcount:
        db.execute(
            f"INSERT INTO device_twin ({_TWIN_COLUMNS}, deviceid, name, description)"  # noqa: S608 - constants
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '')",
            row,
        )


def _save_attribute(db: sqlite3.Connection, device: str, name: str, attribute: Attribute | None) -> None:
    db.execute("DELETE FROM device_attr WHERE deviceid = ? AND name = ?", (device, name))
    if attribute is None:
        return
    kind = attribute.metadata.type if isinstance(attribute.metadata, TypeMeta) else values.STRING
    db.execute(
        "INSERT INTO device_attr (deviceid, name, description, value, optional, attr_type, metadata)"
        " VALUES (?, ?, '', ?, ?, ?, '{}')",
        (device, name, attribute.value, attribute.optional is not False, kind),
    )


def _forget(db: sqlite3.Connection, device: str) -> None:
    db.execute("DELETE FROM device WHERE id = ?", (device,))
    db.execute("DELETE FROM edgehive_device WHERE id = ?", (device,))
    db.execute("DELETE FROM device_attr WHERE deviceid = ?", (device,))
    db.execute("DELETE FROM device_twin WHERE deviceid = ?", (device,))
