"""The device twin in the simulator: `twin.core` as it is, told what `edge.devicetwin` is told."""

from __future__ import annotations

from collections.abc import Callable

from sim_engine import Sim

from edgehive.twin.core import TwinCore
from edgehive.wire.message import DELETE, Message, content_data
from edgehive.wire.resource import DEVICE, find_resource
from edgehive.wire.rows import Row


class Twin:
    """Knows the devices whose objects are in the database, whatever comes when."""

    def __init__(self, sim: Sim, name: str, rows: Callable[[], dict[str, Row]]) -> None:
        self.sim = sim
        self.name = name
        self.rows = rows
        self.core = TwinCore(node=name, stamp=sim.stamp, devices=[])
        self.compare()

    def compare(self) -> None:
        """Begin with what the database has."""
        for device in sorted(self.desired()):
            self.core.device_object(device, "", {})

    def members(self, message: Message) -> None:
        self.core.membership(content_data(message.content), detail=False)
        self.check()

    def object(self, message: Message) -> None:
        target = find_resource(message.resource)
        assert target is not None
        device = f"{target.namespace}/{target.name}"
        if message.operation == DELETE:
            self.core.object_gone(device)
        else:
            self.core.device_object(device, "", {})
        self.check()

    def check(self) -> None:
        for problem in self.problems():
            self.sim.fail(problem)

    def desired(self) -> set[str]:
        return {row.key.replace("/device/", "/") for row in self.rows().values() if row.type == DEVICE}

    def problems(self) -> list[str]:
        """How it differs from the database."""
        known, desired = set(self.core.object_ids()), self.desired()
        return [] if known == desired else [f"{self.name}: the twin knows {known}, there are {desired}"]
