"""Writes that wait for the cloud: durable, delivered in the order of each object, each told what became of it.

Only for the resources of ``metaServer.offlineWrites``: those whose writes may safely come late (events, leases, the
status of one's own objects). A write is kept while the link is down, or while an earlier one of the same object still
waits. Whoever reads that single object meanwhile sees it as it will be; lists and watches show the cluster's state. What
the cluster refuses in the end is dropped, logged, made an event, and told to the next readers of the object.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edgehive.edge.store import EdgeStore
from edgehive.kit.errors import ProtocolError, StorageError, Unreachable
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label
from edgehive.kube.meta import Partial, decode_partial
from edgehive.kube.refs import GVR
from edgehive.kube.status import ApiStatus
from edgehive.wire import application as apps
from edgehive.wire.application import (
    Application,
    PatchInfo,
    decode_application,
    encode_application,
    parse_key,
)

log = logging.getLogger(__name__)

MAX_WRITES: Final = 1000
MAX_BYTES: Final = 4 << 20
_TOLD: Final = 3600.0
"""Seconds for which readers are told of a refusal."""
_AGAIN = 5.0
_TRIES: Final = 720
"""How often a write is tried that the cluster fails over: an hour. An original cloud answers so also what it refuses."""
_WAIT = 34.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS edgehive_writes (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    application TEXT NOT NULL,
    object TEXT NOT NULL,
    queued REAL NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS edgehive_writes_key ON edgehive_writes (key);
CREATE TABLE IF NOT EXISTS edgehive_refused (
    key TEXT NOT NULL PRIMARY KEY,
    message TEXT NOT NULL,
    refused REAL NOT NULL
);
"""
_SERVER_S_OWN = (
    "resourceVersion",
    "managedFields",
    "generation",
    "uid",
    "creationTimestamp",
    "selfLink",
    "namespace",
)

Ask = Callable[[Application, float], Awaitable[bytes]]
"""Carries a request to the cloud; raises `ApiStatus` or `Unreachable`."""
Delivered = Callable[[GVR, bytes], None]
Report = Callable[[Mapping[str, Any]], None]


@dataclass(slots=True)
class QueueStats:
    """Counters since the start."""

    queued: int = 0
    delivered: int = 0
    refused: int = 0


class WriteQueue:
    """The queue; every method raises `StorageError` when the disk refuses."""

    def __init__(
        self,
        *,
        store: EdgeStore,
        resources: Sequence[str],
        ask: Ask,
        delivered: Delivered,
        report: Report,
        wall: Callable[[], float],
    ) -> None:
        """`resources` are named as in RBAC: ``events``, ``leases.coordination.k8s.io``, ``things.example.com/status``.

        `delivered` takes what the cloud answered, `report` the event about a refusal.
        """
        self._store = store
        self._resources = frozenset(resources)
        self._ask = ask
        self._delivered = delivered
        self._report = report
        self._wall = wall
        self._wake = asyncio.Event()
        self.stats = QueueStats()
        self.problem = ""
        """Why nothing can be delivered, if it is the disk."""
        with store.transaction() as db:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                db.execute(statement)

    def __len__(self) -> int:
        return int(self._store.query("SELECT count(*) FROM edgehive_writes")[0][0])

    def takes(self, gvr: GVR, subresource: str) -> bool:
        """Whether writes of this may wait."""
        name = f"{gvr}/{subresource}" if subresource else str(gvr)
        return name in self._resources

    def waiting(self, key: str) -> bool:
        """Whether a write of this object waits."""
        return bool(self._store.query("SELECT 1 FROM edgehive_writes WHERE key = ? LIMIT 1", (key,)))

    def local(self, key: str) -> bytes | None:
        """The object as it will be, if writes of it wait."""
        sql = "SELECT object FROM edgehive_writes WHERE key = ? ORDER BY sequence DESC LIMIT 1"
        rows = self._store.query(sql, (key,))
        return str(rows[0][0]).encode() if rows else None

    def refusal(self, key: str) -> str:
        """What became of a late write of this object that the cluster refused lately; empty if nothing did."""
        sql = "SELECT message FROM edgehive_refused WHERE key = ? AND refused > ?"
        rows = self._store.query(sql, (key, self._wall() - _TOLD))
        return str(rows[0][0]) if rows else ""

    def add(self, application: Application, obj: bytes) -> None:
        """Keep a write whose result is `obj`; durable on return. A newer whole replaces an older one that waits.

        Raises:
            ApiStatus: 429, the queue is full.
        """
        count, size = self._store.query(
            "SELECT count(*), coalesce(sum(length(application)), 0) FROM edgehive_writes"
        )[0]
        text = encode_application(application).decode()
        if count >= MAX_WRITES or size + len(text) > MAX_BYTES:
            raise ApiStatus(
                429, "TooManyRequests", "too many writes wait for the cloud", {"retryAfterSeconds": 30}
            )
        with self._store.transaction() as db:
            last = db.execute(
                "SELECT sequence, application, sent FROM edgehive_writes WHERE key = ? ORDER BY sequence DESC LIMIT 1",
                (application.key,),
            ).fetchone()
            if (
                last is not None
                and not last[2]
                and _supersedes(application, decode_application(last[1].encode()))
            ):
                db.execute(
                    "UPDATE edgehive_writes SET application = ?, object = ? WHERE sequence = ?",
                    (text, obj.decode(), last[0]),
                )
            else:
                db.execute(
                    "INSERT INTO edgehive_writes (key, application, object, queued) VALUES (?, ?, ?, ?)",
                    (application.key, text, obj.decode(), self._wall()),
                )
        self.stats.queued += 1
        self._wake.set()

    # delivery

    def connected(self) -> None:
        """The cloud is there."""
        self._wake.set()

    async def run(self, is_connected: Callable[[], bool]) -> None:
        """Deliver what waits whenever there is a cloud, until cancelled."""
        while True:
            self._wake.clear()
            if is_connected() and not await self._try_to_deliver():
                await asyncio.sleep(_AGAIN)
                continue
            await self._wake.wait()

    async def _try_to_deliver(self) -> bool:
        try:
            done = await self._deliver()
        except StorageError as exc:
            # What is not noted as delivered is sent again, and is no conflict with itself.
            if self.problem != str(exc):
                log.warning("writes wait on: %s", exc)
            self.problem = str(exc)
            return False
        self.problem = ""
        return done

    async def _deliver(self) -> bool:
        """Deliver in the order of each object; False when the cloud cannot take something now."""
        failing: set[str] = set()
        after = 0
        while True:
            rows = self._store.query(
                "SELECT sequence, key, application, sent FROM edgehive_writes WHERE sequence > ?"
                " ORDER BY sequence LIMIT 1",
                (after,),
            )
            if not rows:
                return not failing
            after, key, text, sent = rows[0]
            if key in failing:
                continue
            application = decode_application(str(text).encode())
            # It may arrive although its answer does not: then it is sent again, and is no conflict with itself.
            with self._store.transaction() as db:
                db.execute("UPDATE edgehive_writes SET sent = sent + 1 WHERE sequence = ?", (after,))
            try:
                raw = await self._ask(application, _WAIT)
            except Unreachable as exc:
                log.info("writes wait on: %s", exc)
                return False
            except ApiStatus as exc:
                if exc.code == 500 and sent < _TRIES:
                    failing.add(
                        key
                    )  # perhaps the cluster's trouble with this very object: others do not wait for it
                    continue
                if exc.retryable and exc.code != 500:
                    return False
                if not (sent and exc.code == 409 and await self._is_done(application)):
                    self._refused(after, application, exc)
                    continue
                raw = b""
            self._drop(after)
            self.stats.delivered += 1
            self._show(application, raw)

    def _show(self, application: Application, raw: bytes) -> None:
        """Let readers see what the cloud made of a write; a watch brings it, too, where one runs."""
        try:
            if raw:
                self._delivered(parse_key(application.key).gvr, raw)
        except (StorageError, *MALFORMED) as exc:
            log.warning(
                "what became of %s is not kept: %s", safe_label(application.key), safe_label(str(exc))
            )

    async def _is_done(self, application: Application) -> bool:
        """Whether the cluster has what a write that is sent again wanted."""
        question = Application(application.key, apps.GET, application.node, b"{}")
        try:
            there = msgspec.json.decode(await self._ask(question, _WAIT))
            wanted = msgspec.json.decode(
                PatchInfo.parse(application.option).data
                if application.verb == apps.PATCH
                else application.body
            )
        except (Unreachable, ApiStatus, ProtocolError, *MALFORMED):
            return False
        return isinstance(wanted, dict) and _contains(there, _own_part(wanted))

    def _drop(self, sequence: int) -> None:
        with self._store.transaction() as db:
            db.execute("DELETE FROM edgehive_writes WHERE sequence = ?", (sequence,))

    def _refused(self, sequence: int, application: Application, error: ApiStatus) -> None:
        self.stats.refused += 1
        message = f"a write that waited for the cloud was refused: {error.message}"
        with self._store.transaction() as db:
            db.execute("DELETE FROM edgehive_writes WHERE sequence = ?", (sequence,))
            db.execute("DELETE FROM edgehive_refused WHERE refused <= ?", (self._wall() - _TOLD,))
            db.execute(
                "INSERT OR REPLACE INTO edgehive_refused (key, message, refused) VALUES (?, ?, ?)",
                (application.key, message, self._wall()),
            )
        log.warning("%s %s: %s", application.verb, safe_label(application.key), safe_label(message, 300))
        target = parse_key(application.key)
        about = _about(application.body)
        self._report(
            {
                "type": "Warning",
                "reason": "OfflineWriteRefused",
                "message": message[:1000],
                "involvedObject": about | {"namespace": target.namespace, "name": target.name},
            }
        )


def _supersedes(new: Application, old: Application) -> bool:
    """Whether `new` makes `old` needless: a whole of the same object, made from the same version."""
    if new.verb != old.verb or new.subresource != old.subresource:
        return False
    if new.verb not in (apps.UPDATE, apps.UPDATE_STATUS):
        return False
    return _partial(new.body).metadata.resource_version == _partial(old.body).metadata.resource_version


def _own_part(obj: Any) -> Any:
    """What a client wrote of an object, without what the server decides."""
    if not isinstance(obj, dict):
        return obj
    meta = {k: v for k, v in (obj.get("metadata") or {}).items() if k not in _SERVER_S_OWN}
    return obj | {"metadata": meta}


def _contains(there: Any, wanted: Any) -> bool:
    """Whether `there` has all of `wanted`; the server may have filled in more."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_contains(there.get(k), v) for k, v in wanted.items())
    if isinstance(wanted, list):
        same = isinstance(there, list) and len(there) == len(wanted)
        return same and all(map(_contains, there, wanted))
    return bool(there == wanted)


def _partial(body: bytes) -> Partial:
    """What a client's object says of itself, as far as it can be read: only the cloud checks it."""
    try:
        return decode_partial(body)
    except MALFORMED:
        return Partial()


def _about(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    partial = _partial(body)
    return {"kind": partial.kind, "apiVersion": partial.api_version, "uid": partial.metadata.uid}
