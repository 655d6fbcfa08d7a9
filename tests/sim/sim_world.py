"""One simulated run: who takes part, what users and fate do to them, what must hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from sim_api import Api, Stored
from sim_cloud import Cloud
from sim_edge import Edge, ids
from sim_engine import CALM, Chaos, Sim, Violation, Wire

from edgehive.wire.objectsync import DeleteSync, SyncKey, SyncRecord, reset_plan
from edgehive.wire.outbound import parse_version
from edgehive.wire.resource import format_resource

SETTLE = 90.0
"""Seconds of calm in which everything must come to agree; a link's back-off is at most 30 s."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What kind of run a seed gives."""

    seed: int
    clouds: int = 2
    edges: int = 2
    go_edge: bool = False
    """One of the edges behaves like the original; then there is one cloudcore, since that edge compares no versions
    and takes whatever an instance with a lagging cache sends."""
    rough: float = 20.0
    """Seconds of chaos before the calm."""
    chaos: Chaos = field(default_factory=Chaos)
    cloud_class: type[Cloud] = Cloud
    edge_class: type[Edge] = Edge


class World:
    """A run."""

    def __init__(self, plan: Plan, *, tracing: bool = False) -> None:
        self.plan = plan
        self.sim = sim = Sim(plan.seed, plan.chaos, tracing=tracing)
        self.api = Api(sim)
        self.api.on_recorded = self.check_recorded
        count = 1 if plan.go_edge else plan.clouds
        self.clouds = [plan.cloud_class(sim, self.api, f"cloud-{i}") for i in range(count)]
        self.edges = [
            plan.edge_class(sim, f"edge-{i}", self.dial, go=plan.go_edge and i == 0)
            for i in range(plan.edges)
        ]

    def run(self) -> None:
        """Chaos, then calm, then the final check.

        Raises:
            Violation: an invariant was broken.
        """
        sim = self.sim
        for number, cloud in enumerate(self.clouds):
            sim.at(0.1 * number, cloud.start)
        for edge in self.edges:
            sim.at(sim.rng.uniform(0.0, 0.5), edge.start)
        sim.at(0.2, self.user)
        sim.at(sim.rng.uniform(1.0, 10.0), self.fate)
        sim.run_until(self.plan.rough)
        sim.note("CALM", "----------------------------------------")
        sim.chaos = CALM
        self.api.down = False
        end = sim.now + SETTLE
        while sim.now < end:
            sim.run_until(sim.now + 2.0)
            if not self.disagreements():
                break
        problems = self.disagreements()
        if problems:
            sim.fail("; ".join(problems[:6]))

    # What happens

    def dial(self, node: str) -> Wire | None:
        """Connect `node` to some cloudcore that lives."""
        living = [cloud for cloud in self.clouds if cloud.alive]
        if not living or self.sim.chance(self.sim.chaos.cut * 10):
            return None
        cloud = self.sim.rng.choice(living)
        wire = Wire(self.sim)
        cloud.later(0.02, partial(self.accept, cloud, wire, node))
        cloud.arriving.append(wire)
        return wire

    def accept(self, cloud: Cloud, wire: Wire, node: str) -> None:
        cloud.arriving.remove(wire)
        if wire.open:
            tells = next(edge.tells for edge in self.edges if edge.name == node)
            cloud.accept(wire, node, tells=tells)

    def user(self) -> None:
        """People change things."""
        if self.sim.chaos is CALM:
            return
        rng = self.sim.rng
        name = rng.choice(("a", "b", "c", "d"))
        edge = rng.choice(self.edges).name
        match rng.randint(0, 11):
            case 0 | 1 | 2 | 3:
                self.api.put("Pod", f"{edge}-{name}", frozenset({edge}))
            case 4 | 5:
                self.api.remove("Pod", f"{edge}-{name}")
            case 6:
                self.api.remove("Pod", f"{edge}-{name}")
                self.api.put("Pod", f"{edge}-{name}", frozenset({edge}))
            case 7:
                self.api.put("ConfigMap", "shared", frozenset(e.name for e in self.edges))
            case 8:
                self.api.put("ConfigMap", "extra", frozenset())
            case 9:
                self.api.put("Device", f"{edge}-device", frozenset({edge}))
            case 10:
                self.api.remove("Device", f"{edge}-device")
                if rng.random() < 0.7:
                    self.api.put("Device", f"{edge}-device", frozenset({edge}))
            case _:
                self.api.remove("ConfigMap", rng.choice(("shared", "extra")))
        self.sim.at(rng.expovariate(1.5), self.user)

    def fate(self) -> None:
        """Things break from the outside."""
        if self.sim.chaos is CALM:
            return
        rng = self.sim.rng
        match rng.randint(0, 8):
            case 8:
                keys = sorted(
                    (key for key in self.api.syncs if self._may_lose(key)), key=lambda key: key.name
                )
                if keys:
                    key = rng.choice(keys)
                    self.sim.note("fate", "somebody deletes record %s", key.name)
                    self.api.write(DeleteSync(key))
            case 7:
                edge = rng.choice(self.edges)
                if edge.alive and edge.tells:
                    edge.die()
                    self.sim.note("fate", "the database of %s is lost, nobody joins again", edge.name)
                    edge.disk.wipe()
                    edge.accepted.clear()
            case 0:
                self.sim.note("fate", "the API server goes away")
                self.api.down = True
                self.sim.at(rng.uniform(0.5, 6.0), self.api_back)
            case 1 | 2:
                victim = rng.choice(self.clouds)
                if victim.alive:
                    victim.die()
            case 3:
                for cloud in self.clouds:
                    if cloud.alive:
                        cloud.die()
            case 4:
                edge = rng.choice(self.edges)
                if edge.alive:
                    edge.die()
                    self.sim.note("fate", "%s is reinstalled", edge.name)
                    edge.disk.wipe()
                    edge.accepted.clear()  # what it owed is lost with its disk
                    self.sim.at(0.15, partial(self.join_again, edge.name))
            case _:
                edge = rng.choice(self.edges)
                if edge.alive:
                    edge.die()
        self.sim.at(rng.expovariate(0.25), self.fate)

    def _may_lose(self, key: SyncKey) -> bool:
        """Whether its node gets right again without this record.

        An original edge does not say what it holds. And what no pod of a node mentions is followed there by its record
        alone: to say that one has it must not subscribe to it (`wire.held`).
        """
        stored = next((s for s in self.api.objects.values() if s.cached.uid == key.uid), None)
        edge = next(edge for edge in self.edges if edge.name == key.node)
        return edge.tells and (stored is None or key.node in stored.nodes)

    def join_again(self, node: str) -> None:
        """The token join of a node that exists: its records go back to 0 before it gets its certificate."""
        records = [record for record in self.api.syncs.values() if record.key.node == node]
        if not all([cloud.writer.forget(record.key) for cloud in self.clouds for record in records]):
            self.sim.at(0.02, partial(self.join_again, node))
            return
        for write in reset_plan(records):
            self.api.write(write)

    def api_back(self) -> None:
        self.sim.note("fate", "the API server is back")
        self.api.down = False

    # What must hold

    def check_recorded(self, key: SyncKey, version: str, record: SyncRecord) -> None:
        """No acknowledged message is lost: what is recorded is durable at the edge, or was."""
        disk = next(edge.disk for edge in self.edges if edge.name == key.node)
        held = disk.stored.get(key.uid, 0)
        row = format_resource(key.namespace, record.kind.lower(), record.object_name)
        if disk.newest.get(row, 0) > parse_version(version):
            return  # a newer incarnation is there already; the late version was rightly acknowledged unstored
        if held < parse_version(version) and key.uid not in disk.removed:
            self.sim.fail(f"{key.name} is recorded at {version}, but {key.node} only ever stored {held}")

    def disagreements(self) -> list[str]:
        """How the edges, the records and the statuses differ from what they should be."""
        problems: list[str] = []
        if not all(process.alive for process in (*self.clouds, *self.edges)):
            return ["somebody is still starting"]
        for edge in self.edges:
            problems += self._edge_problems(edge)
        for record in self.api.syncs.values():
            stored = self.api.objects.get((record.kind, record.object_name))
            if stored is None or stored.cached.uid != record.key.uid:
                problems.append(f"record {record.key.name} of a deleted object is left")
            elif self._is_behind(record, parse_version(stored.cached.version)):
                problems.append(
                    f"record {record.key.name} at {record.version}, object at {stored.cached.version}"
                )
        return problems

    def _is_behind(self, record: SyncRecord, version: int) -> bool:
        """Whether a record says something else than it must: of an edge that tells what it holds, it may lag."""
        edge = next(edge for edge in self.edges if edge.name == record.key.node)
        recorded = parse_version(record.version)
        return recorded > version or not record.version or (recorded < version and not edge.tells)

    def _edge_problems(self, edge: Edge) -> list[str]:
        problems = []
        wanted = {
            self._key(stored): stored for stored in self.api.objects.values() if edge.name in stored.nodes
        }
        for key, stored in wanted.items():
            row = edge.disk.rows.get(key)
            have = ids(row.value) if row else None
            if have != (stored.cached.uid, int(stored.cached.version)):
                problems.append(
                    f"{edge.name} has {key} at {have}, wanted {stored.cached.uid}@{stored.cached.version}"
                )
        for key, row in edge.disk.rows.items():
            if key in wanted:
                continue
            kind = {"configmap": "ConfigMap", "device": "Device"}.get(row.type, "Pod")
            current = self.api.objects.get((kind, key.rsplit("/", 1)[1]))
            uid, version = ids(row.value)
            if current is None or uid != current.cached.uid:
                problems.append(f"{edge.name} still has {key} uid={uid}")
            elif version != int(current.cached.version):
                problems.append(f"{edge.name} has {key} at {version}, newest is {current.cached.version}")
        for uid, number in edge.accepted.items():
            alive = any(s.cached.uid == uid for s in self.api.objects.values())
            if alive and self.api.statuses.get(uid, 0) < number:
                problems.append(f"status {number} of {uid} was accepted by {edge.name} and never arrived")
        missing = edge.disk.uploads.accepted - set(self.api.uploads.get(edge.name, ()))
        if missing:
            problems.append(f"uploads {sorted(missing)} of {edge.name} were accepted and never arrived")
        if edge.disk.uploads.rows:
            problems.append(f"{edge.name} still keeps {len(edge.disk.uploads.rows)} uploads")
        if edge.edged is not None:
            problems += edge.edged.problems()
        if edge.twin is not None:
            problems += edge.twin.problems()
        if edge.disk.outbox:
            problems.append(f"{edge.name} still keeps {len(edge.disk.outbox)} messages")
        return problems

    @staticmethod
    def _key(stored: Stored) -> str:
        return format_resource("default", stored.cached.kind.lower(), stored.cached.name)


def simulate(plan: Plan) -> Violation | None:
    """Run one seed; the violation it ends in, if any."""
    try:
        World(plan).run()
    except Violation as violation:
        return violation
    return None


def explain(plan: Plan, lines: int = 200) -> str:
    """Run a failing seed again with its trace."""
    world = World(plan, tracing=True)
    outcome = "no violation the second time: the run is not deterministic"
    try:
        world.run()
    except Violation as violation:
        outcome = str(violation)
    tail = list(world.sim.trace)[-lines:]
    return "\n".join([f"seed {plan.seed}: {outcome}", *tail])


def plan_of(seed: int, **changes: object) -> Plan:
    """The plan that belongs to a seed: sizes vary with it."""
    make: Callable[..., Plan] = partial(Plan, seed=seed, clouds=1 + seed % 3, edges=1 + seed // 3 % 2)
    return make(**changes)
