"""Write a mapper: a class that reads and writes one kind of device. This is the public API.

from edgehive.mapper import Driver, Property, main

class Thermometer(Driver):
    protocol = "thermometer"

    async def read(self, prop: Property) -> float:
        return await ask(self.device.config["address"], prop.visitor["register"])

if __name__ == "__main__":
    main(Thermometer)
"""

from edgehive.mapper.app import main
from edgehive.mapper.driver import DeviceError, Driver
from edgehive.mapper.model import Device, Method, Property, PushTarget
from edgehive.mapper.values import Value, ValueProblem

__all__ = [
    "Device",
    "DeviceError",
    "Driver",
    "Method",
    "Property",
    "PushTarget",
    "Value",
    "ValueProblem",
    "main",
]
