"""A device that exists in the mapper only, for trying things out.

``visitors.configData`` of a property: `start` (its first value), `step` (added at each read), `wave` (swing of a sine
around `start`, with `period` seconds). A property that was written keeps that value.
"""

import math
import sys
import time

from edgehive.mapper.app import main
from edgehive.mapper.driver import Driver
from edgehive.mapper.model import Device, Property
from edgehive.mapper.values import Value


class VirtualDriver(Driver):
    """The mapper of virtual devices."""

    protocol = "virtual"

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._written: dict[str, Value] = {}
        self._reads: dict[str, int] = {}

    async def read(self, prop: Property) -> Value | None:
        """Compute the value."""
        if prop.name in self._written:
            return self._written[prop.name]
        count = self._reads.get(prop.name, 0)
        self._reads[prop.name] = count + 1
        start = prop.visitor.get("start", "" if prop.type == "STRING" else 0)
        step, wave = prop.visitor.get("step", 0), prop.visitor.get("wave", 0)
        if not isinstance(start, int | float) or not isinstance(step, int | float):
            return start
        value = start + step * count
        if isinstance(wave, int | float) and wave:
            period = prop.visitor.get("period", 60)
            seconds = float(period) if isinstance(period, int | float) and period > 0 else 60.0
            value += wave * math.sin(2 * math.pi * time.time() / seconds)
        return value

    async def write(self, prop: Property, value: Value) -> None:
        """Keep the value."""
        self._written[prop.name] = value


if __name__ == "__main__":
    sys.exit(main(VirtualDriver))
