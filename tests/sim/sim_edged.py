"""edged in the simulator: it runs what it was told of, by the rules of `edge.pods_told`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sim_engine import Sim

from edgehive.edge.metaclient import Change, PodChange
from edgehive.edge.pods_told import PodInbox, Told
from edgehive.wire.rows import Row


@lru_cache(maxsize=4096)
def facts(raw: bytes) -> tuple[str, str, Any]:
    """A pod's uid, ``namespace/name`` and specification."""
    pod = json.loads(raw)
    meta = pod["metadata"]
    return meta["uid"], f"{meta['namespace']}/{meta['name']}", pod["spec"]


@dataclass(slots=True)
class Worker:
    """One pod that runs, or that is being ended."""

    key: str
    spec: Any
    gone: bool = False


class Edged:
    """Takes changes a little later than they are told; a pod that has to end takes its time."""

    inbox_class = PodInbox

    def __init__(
        self,
        sim: Sim,
        name: str,
        rows: Callable[[], dict[str, Row]],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        """`later` runs something in this life of the edge only."""
        self.sim = sim
        self.name = name
        self.rows = rows
        self.later = later
        self.inbox = self.inbox_class()
        self.workers: dict[str, Worker] = {}
        self.woken = False
        self.tell(PodChange(Change.SET))

    def tell(self, change: PodChange) -> None:
        self.inbox.put(change)
        if not self.woken:
            self.woken = True
            busy = 0.6 if self.sim.chance(0.1) else 0.05
            self.later(self.sim.rng.uniform(0.0, busy), self.dispatch)

    def dispatch(self) -> None:
        self.woken = False
        if self.inbox.take_set():
            wanted = self.desired()
            for raw in wanted.values():
                self.want(raw)
            for uid in self.workers.keys() - wanted.keys():
                self.end(uid)
        for told in self.inbox.take():
            self.apply(told)
        self.check()

    def apply(self, told: Told) -> None:
        for uid, worker in list(self.workers.items()):
            if told.ends(worker.key, uid):
                self.end(uid)
        if told.change.raw and not told.removed:
            self.want(told.change.raw)

    def want(self, raw: bytes) -> None:
        uid, key, spec = facts(raw)
        self.workers.setdefault(uid, Worker(key, None)).spec = spec

    def end(self, uid: str) -> None:
        worker = self.workers[uid]
        if worker.gone:
            return
        worker.gone = True
        if uid in self.desired():
            self.sim.fail(f"{self.name}: edged ends {uid} of {worker.key}, which is desired")
        self.later(self.sim.rng.uniform(0.02, 3.0), lambda: self.ended(uid))

    def ended(self, uid: str) -> None:
        del self.workers[uid]
        if uid in self.desired():
            self.tell(PodChange(Change.SET))  # it has come back meanwhile

    def desired(self) -> dict[str, bytes]:
        pods = (row.value for row in self.rows().values() if row.type == "pod")
        return {facts(raw)[0]: raw for raw in pods}

    def check(self) -> None:
        """With nothing left to be told, it runs exactly the pods of the database, as they are there."""
        wanted = {uid: facts(raw)[2] for uid, raw in self.desired().items()}
        for uid in wanted.keys() - self.workers.keys():
            self.sim.fail(f"{self.name}: edged was not told of {uid}")
        for uid, worker in self.workers.items():
            if worker.gone:
                continue
            if uid not in wanted:
                self.sim.fail(f"{self.name}: edged was not told that {uid} of {worker.key} is gone")
            if worker.spec != wanted[uid]:
                self.sim.fail(f"{self.name}: edged runs {uid} as {worker.spec}, desired is {wanted[uid]}")

    def problems(self) -> list[str]:
        """How it differs from the database in the end."""
        ending = [uid for uid, worker in self.workers.items() if worker.gone]
        running = self.workers.keys() - set(ending)
        wanted = self.desired().keys()
        if ending:
            return [f"{self.name}: edged still ends {ending}"]
        return (
            [] if running == wanted else [f"{self.name}: edged runs {sorted(running)}, not {sorted(wanted)}"]
        )
