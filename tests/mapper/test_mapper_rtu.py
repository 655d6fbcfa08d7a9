"""Modbus RTU over a serial line: two pseudo terminals joined by a wire, pymodbus' serial server at the other end."""

import asyncio
import contextlib
import os
import pty
import tty

import pytest

pytest.importorskip("pymodbus", reason="the extra mapper-modbus is not installed")
pytest.importorskip("serial", reason="the extra mapper-modbus is not installed")

from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edgehive.mapper.driver import DeviceError
from edgehive.mapper.modbus import ModbusDriver
from edgehive.mapper.model import Device, Property


@contextlib.contextmanager
def wire():
    """The names of the two ends of a serial line."""
    loop = asyncio.get_running_loop()
    ends = [pty.openpty() for _ in range(2)]
    for _, slave in ends:
        tty.setraw(slave)

    def carry(here, there):
        with contextlib.suppress(OSError):
            os.write(there, os.read(here, 4096))

    (one, _), (other, _) = ends
    loop.add_reader(one, carry, one, other)
    loop.add_reader(other, carry, other, one)
    try:
        yield [os.ttyname(slave) for _, slave in ends]
    finally:
        for master, slave in ends:
            loop.remove_reader(master)
            os.close(master)
            os.close(slave)


def prop(name, kind, offset, **visitor):
    return Property(name, type=kind, visitor={"register": "HoldingRegister", "offset": offset, **visitor})


async def test_registers_are_read_and_written_over_a_serial_line():
    registers = SimData(0, values=[215, 0, 0x3FC0, 0, 0b100, *[0] * 11], datatype=DataType.UINT16)
    with wire() as (here, there):
        server = ModbusSerialServer(SimDevice(7, [registers]), port=there, baudrate=19200)
        task = asyncio.get_running_loop().create_task(server.serve_forever())
        config = {"serialPort": here, "baudRate": 19200, "slaveID": 7, "parity": "none"}
        driver = ModbusDriver(Device("default", "d", config=config))
        await driver.connect()
        try:
            async with asyncio.timeout(20):
                assert await driver.read(prop("t", "FLOAT", 0, scale=0.1)) == 21.5
                assert await driver.read(prop("f", "FLOAT", 2, dataType="float32")) == 1.5
                assert await driver.read(prop("b", "BOOLEAN", 4, bit=2)) is True
                await driver.write(prop("t", "FLOAT", 0, scale=0.1), 19.0)
                assert await driver.read(prop("t", "FLOAT", 0, scale=0.1)) == 19
                await driver.write(prop("n", "INT", 8, dataType="int32"), -70000)
                assert await driver.read(prop("n", "INT", 8, dataType="int32")) == -70000
                with pytest.raises(DeviceError, match="refuses"):
                    await driver.read(prop("far", "INT", 500))
                stranger = ModbusDriver(Device("default", "e", config={**config, "slaveID": 9}))
                await driver.close()
                await stranger.connect()
                with pytest.raises(DeviceError, match="refuses"):  # pymodbus answers for units it has not
                    await stranger.read(prop("t", "INT", 0))
                await stranger.close()
        finally:
            await driver.close()
            await server.shutdown()
            task.cancel()
            await asyncio.wait([task])


async def test_a_line_that_is_not_there_is_said():
    driver = ModbusDriver(Device("default", "d", config={"serialPort": "/dev/does-not-exist"}))
    with pytest.raises(DeviceError, match="no Modbus device at /dev/does-not-exist"):
        await driver.connect()
    await driver.close()
