"""A Kubernetes API server reduced to what the hub needs of it: versions, watches with a history, failures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from sim_engine import Sim

from edgehive.wire.cloudnode import CachedObject
from edgehive.wire.objectsync import CreateSync, DeleteSync, RecordSync, SyncKey, SyncRecord, SyncWrite
from edgehive.wire.outbound import parse_version


@dataclass(frozen=True, slots=True)
class Stored:
    """An object and the nodes it is meant for."""

    cached: CachedObject
    nodes: frozenset[str]
    serial: int


@dataclass(frozen=True, slots=True)
class Event:
    version: int
    kind: str  # set, gone, sync, unsync
    item: Any


Answer = Callable[[int, Any], None]


@dataclass(slots=True)
class Api:
    """The server; durable and never wrong, but not always there."""

    sim: Sim
    down: bool = False
    version: int = 100
    objects: dict[tuple[str, str], Stored] = field(default_factory=dict)
    syncs: dict[SyncKey, SyncRecord] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)  # pod uid -> newest status
    uploads: dict[str, list[int]] = field(default_factory=dict)  # node -> what arrived, without repeats
    log: list[Event] = field(default_factory=list)
    on_recorded: Callable[[SyncKey, str, SyncRecord], None] = lambda *_: None
    requests: int = 0
    _uid: int = 0

    def _next(self) -> int:
        self.version += 1
        return self.version

    def uploaded(self, node: str, number: int) -> None:
        """An upload has arrived; nothing but repeats may come behind a later one."""
        arrived = self.uploads.setdefault(node, [])
        if arrived and number < arrived[-1] and number not in arrived:
            self.sim.fail(f"upload {number} of {node} comes after {arrived[-1]}")
        if number not in arrived:
            arrived.append(number)

    # The user

    def put(self, kind: str, name: str, nodes: frozenset[str]) -> None:
        """Create or update an object."""
        old = self.objects.get((kind, name))
        if old is None:
            self._uid += 1
        uid = old.cached.uid if old else f"u{self._uid}"
        self._store(kind, name, uid, nodes if old is None else old.nodes, (old.serial if old else 0) + 1)

    def _store(self, kind: str, name: str, uid: str, nodes: frozenset[str], serial: int) -> int:
        version = self._next()
        raw = json.dumps(
            {
                "kind": kind,
                "apiVersion": "v1",
                "metadata": {
                    "name": name,
                    "namespace": "default",
                    "uid": uid,
                    "resourceVersion": str(version),
                },
                "spec": {"nodeName": min(nodes, default=""), "serial": serial},
            }
        ).encode()
        cached = CachedObject("v1", kind, "default", name, uid, str(version), raw)
        stored = Stored(cached, nodes, serial)
        self.objects[kind, name] = stored
        self.log.append(Event(version, "set", stored))
        self.sim.note("api", "%s %s uid=%s rv=%d", kind, name, uid, version)
        return version

    def remove(self, kind: str, name: str) -> None:
        """Delete an object."""
        stored = self.objects.pop((kind, name), None)
        if stored is not None:
            version = self._next()
            gone = replace(stored, cached=msgspec.structs.replace(stored.cached, version=str(version)))
            self.log.append(Event(version, "gone", gone))
            self.sim.note("api", "delete %s %s uid=%s", kind, name, stored.cached.uid)

    # Requests over the network

    def call(self, request: Callable[[], tuple[int, Any]], answer: Answer) -> None:
        """Run `request` a little later, then `answer(code, result)`; code 0: no answer came."""
        sim = self.sim

        def arrive() -> None:
            self.requests += 1
            if self.down:
                result: tuple[int, Any] = (0, None)
            elif sim.chance(sim.chaos.api_error):
                result = (sim.rng.choice((500, 429, 503, 409)), None)
            else:
                result = request()
                if sim.chance(sim.chaos.api_lost_answer):
                    result = (0, None)
            sim.at(sim.rng.uniform(0.001, 0.03), lambda: answer(*result))

        sim.at(sim.rng.uniform(0.001, 0.03), arrive)

    def write(self, write: SyncWrite) -> tuple[int, Any]:
        """One write of the sync planner."""
        key = write.key
        if isinstance(write, CreateSync):
            if key in self.syncs:
                return 409, "AlreadyExists"
            self._sync(replace(write.record, version=""))
            return 201, None
        if key not in self.syncs:
            return 404, None
        if isinstance(write, RecordSync):
            record = self.syncs[key]
            self.on_recorded(key, write.version, record)
            self._sync(replace(record, version=write.version))
        else:
            assert isinstance(write, DeleteSync)
            record = self.syncs.pop(key)
            self.sim.note("api", "record %s deleted", key.name)
            self.log.append(Event(self._next(), "unsync", record))
        return 200, None

    def _sync(self, record: SyncRecord) -> None:
        version = self._next()
        record = replace(record, resource_version=str(version))
        self.syncs[record.key] = record
        self.sim.note("api", "record %s at %r", record.key.name, record.version)
        self.log.append(Event(version, "sync", record))

    def get(self, kind: str, name: str) -> tuple[int, Any]:
        """GET one object."""
        stored = self.objects.get((kind, name))
        return (200, stored.cached) if stored else (404, None)

    def patch_status(self, name: str, uid: str, number: int) -> tuple[int, Any]:
        """PATCH the status of a pod, with its UID as precondition."""
        stored = self.objects.get(("Pod", name))
        if stored is None or stored.cached.uid != uid:
            return 404, None
        if number < self.statuses.get(uid, 0):
            self.sim.fail(f"status of pod {name} went from {self.statuses[uid]} back to {number}")
        self.statuses[uid] = number
        self._store("Pod", name, uid, stored.nodes, stored.serial)
        return 200, self.objects["Pod", name].cached

    def newest(self, kind: str, name: str) -> int:
        stored = self.objects.get((kind, name))
        return parse_version(stored.cached.version) if stored else 0
