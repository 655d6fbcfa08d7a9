"""A simulated Modbus TCP thermostat: a room that cools towards the outside, and a heater that holds the target.

Registers (holding and input, 16 bits): 0 temperature in tenths of a degree, 1 target in tenths, 2 heater (0 or 1).
It is pymodbus' own server, so that the mapper meets somebody else's Modbus. ``python -m edgehive.mapper.thermostat``.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edgehive.kit.errors import UserError

_UNIT = 1
_WRITE, _READ = 16, 3  # function codes: of the register space, not of a request
OUTSIDE = 8.0


@dataclass(slots=True)
class Room:
    """A room with a heater; pure."""

    temperature: float = 18.0
    target: float = 20.0
    heating: bool = False

    def step(self, seconds: float) -> None:
        """Let time pass: the heater has a hysteresis of half a degree."""
        if self.temperature < self.target - 0.25:
            self.heating = True
        elif self.temperature > self.target + 0.25:
            self.heating = False
        self.temperature += seconds * ((0.8 if self.heating else 0.0) - 0.02 * (self.temperature - OUTSIDE))


class Thermostat:
    """The room behind a Modbus TCP server."""

    def __init__(self, room: Room, *, host: str, port: int, step: float = 0.2) -> None:
        self.room = room
        self._step = step
        self._address = (host, port)
        registers = [0] * 16
        registers[:3] = self._registers()
        device = SimDevice(_UNIT, [SimData(0, values=registers, datatype=DataType.UINT16)])
        self._server = ModbusTcpServer(device, address=self._address)

    async def listen(self) -> int:
        """Bind; return the port.

        Raises:
            UserError: the address cannot be used.
        """
        if not await self._server.listen():
            raise UserError(
                f"the port {self._address[1]} cannot be used", hint="choose another one with --port"
            )
        transport = self._server.transport
        assert isinstance(transport, asyncio.Server)
        return int(transport.sockets[0].getsockname()[1])

    async def target(self) -> float:
        """The target, as its register has it."""
        (word,) = await self._server.async_getValues(_UNIT, _READ, 1, 1)
        return int(word) / 10

    async def run(self) -> None:
        """Simulate until cancelled."""
        try:
            while True:
                self.room.target = await self.target()
                self.room.step(self._step)
                temperature, _, heating = self._registers()
                await self._server.async_setValues(_UNIT, _WRITE, 0, [temperature])
                await self._server.async_setValues(_UNIT, _WRITE, 2, [heating])
                await asyncio.sleep(self._step)
        finally:
            await self._server.shutdown()  # type: ignore[no-untyped-call]

    def _registers(self) -> list[int]:
        room = self.room
        return [round(room.temperature * 10) & 0xFFFF, round(room.target * 10) & 0xFFFF, int(room.heating)]


async def _simulate(host: str, port: int) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    thermostat = Thermostat(Room(), host=host, port=port)
    bound = await thermostat.listen()
    sys.stderr.write(f"a thermostat listens on {host}:{bound}\n")
    with contextlib.suppress(asyncio.CancelledError):  # the signal
        await thermostat.run()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulator as a program."""
    parser = argparse.ArgumentParser(description="A simulated Modbus TCP thermostat.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5020)
    arguments = parser.parse_args(argv)
    try:
        asyncio.run(_simulate(arguments.host, arguments.port))
    except UserError as exc:
        sys.stderr.write(f"{parser.prog}: error: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
