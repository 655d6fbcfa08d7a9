"""The Modbus mapper, TCP and RTU. Needs the extra ``mapper-modbus`` (pymodbus).

``protocol.configData``: `ip` and `port` (502), or `serialPort` with `baudRate`, `dataBits`, `parity`, `stopBits`;
`slaveID` (1). ``visitors.configData``: `register` (HoldingRegister, InputRegister, CoilRegister,
DiscreteInputRegister), `offset`, `dataType` (int16, uint16, int32, uint32, int64, uint64, float32, float64, string; by
default int16, or what `limit` registers hold), `limit` (registers; for strings), `scale`, `isSwap` (bytes within a
register), `isRegisterSwap` (the low register first), `bit` (of one register).
"""

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgehive.mapper.app import main
from edgehive.mapper.driver import DeviceError, Driver
from edgehive.mapper.model import Config, Device, Property
from edgehive.mapper.values import Value, ValueProblem

if TYPE_CHECKING:
    from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

_FORMS = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "int64": ">q",
    "uint64": ">Q",
    "float32": ">f",
    "float64": ">d",
}
_SPACES = {
    "holdingregister": "holding",
    "inputregister": "input",
    "coilregister": "coil",
    "discreteinputregister": "discrete",
}
_BY_SIZE = {1: "int16", 2: "int32", 4: "int64"}


@dataclass(frozen=True, slots=True)
class Register:
    """Where and how a value is in the device."""

    space: str
    offset: int
    kind: str
    count: int
    scale: float
    swap_bytes: bool
    swap_registers: bool
    bit: int | None

    def decode(self, words: Sequence[int]) -> Value:
        """The value of the registers.

        Raises:
            ValueProblem: there are not enough.
        """
        if len(words) < self.count:
            raise ValueProblem(f"{len(words)} registers are too few for {self.kind}")
        if self.bit is not None:
            return bool(words[0] >> self.bit & 1)
        data = self._ordered(struct.pack(f">{self.count}H", *words[: self.count]))
        if self.kind == "string":
            return data.rstrip(b"\0").decode("utf-8", "replace")
        value: int | float = struct.unpack(_FORMS[self.kind], data)[0]
        return value if self.scale == 1 else round(value * self.scale, 9)

    def encode(self, value: Value) -> list[int]:
        """The registers that hold a value.

        Raises:
            ValueProblem: it does not fit.
        """
        if self.kind == "string":
            data = str(value).encode()
            if len(data) > 2 * self.count:
                raise ValueProblem(f"the text is longer than {2 * self.count} bytes")
            data = data.ljust(2 * self.count, b"\0")
        else:
            if not isinstance(value, bool | int | float):
                raise ValueProblem(f"{value!r} is not a number")
            number = value / self.scale if self.scale != 1 else value
            whole = not self.kind.startswith("float")
            try:
                data = struct.pack(_FORMS[self.kind], round(number) if whole else float(number))
            except (struct.error, OverflowError) as exc:
                raise ValueProblem(f"{value} does not fit {self.kind}") from exc
        return list(struct.unpack(f">{self.count}H", self._ordered(data)))

    def _ordered(self, data: bytes) -> bytes:
        pairs = [data[i : i + 2] for i in range(0, len(data), 2)]
        if self.swap_registers:
            pairs.reverse()
        return b"".join(pair[::-1] if self.swap_bytes else pair for pair in pairs)


def read_register(config: Config) -> Register:
    """Read ``visitors.configData``.

    Raises:
        DeviceError: it does not describe a register.
    """
    space = _SPACES.get(str(config.get("register", "HoldingRegister")).lower())
    if space is None:
        raise DeviceError(f"there is no kind of register {config.get('register')!r}")
    limit = _number(config, "limit", 1)
    kind = str(config.get("dataType", "")).lower() or _BY_SIZE.get(limit, "int16")
    if kind != "string" and kind not in _FORMS:
        raise DeviceError(f"there is no dataType {kind!r}")
    count = limit if kind == "string" else struct.calcsize(_FORMS[kind]) // 2
    if not 1 <= count <= 123:
        raise DeviceError(f"{count} registers cannot be read at once")
    scale = config.get("scale", 1)
    if not isinstance(scale, int | float) or not scale:
        raise DeviceError(f"scale {scale!r} is not a number")
    bit = _number(config, "bit", -1)
    return Register(
        space=space,
        offset=_number(config, "offset", 0),
        kind=kind,
        count=count,
        scale=float(scale) if scale != 1 else 1,
        swap_bytes=bool(config.get("isSwap", False)),
        swap_registers=bool(config.get("isRegisterSwap", False)),
        bit=bit if 0 <= bit <= 15 else None,
    )


def _number(config: Config, name: str, default: int) -> int:
    value = config.get(name, default)
    if isinstance(value, str) and value.strip().lstrip("-").isdigit():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DeviceError(f"{name} {value!r} is not an integer")
    return value


class ModbusDriver(Driver):
    """The mapper of Modbus devices."""

    protocol = "modbus"

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._client: AsyncModbusTcpClient | AsyncModbusSerialClient | None = None
        self._unit = 1

    async def connect(self) -> None:
        """Open the connection or the serial line."""
        try:
            from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
        except ImportError as exc:
            raise DeviceError("pymodbus is not there: pip install 'edgehive[mapper-modbus]'") from exc
        config = self.device.config
        self._unit = _number(config, "slaveID", 1)
        if "serialPort" in config:
            where = str(config["serialPort"])
            self._client = AsyncModbusSerialClient(
                where,
                baudrate=_number(config, "baudRate", 9600),
                bytesize=_number(config, "dataBits", 8),
                parity=str(config.get("parity", "N"))[:1].upper() or "N",
                stopbits=_number(config, "stopBits", 1),
                timeout=2,
                retries=1,
                reconnect_delay=0,
            )
        else:
            host = str(config.get("ip") or config.get("address") or "127.0.0.1")
            port = _number(config, "port", 502)
            where = f"{host}:{port}"
            self._client = AsyncModbusTcpClient(host, port=port, timeout=2, retries=1, reconnect_delay=0)
        if not await self._client.connect():
            raise DeviceError(f"no Modbus device at {where}")

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def read(self, prop: Property) -> Value | None:
        """Read the registers or bits of a property."""
        client, register = self._connected(), read_register(prop.visitor)
        read = {
            "holding": client.read_holding_registers,
            "input": client.read_input_registers,
            "coil": client.read_coils,
            "discrete": client.read_discrete_inputs,
        }[register.space]
        bits = register.space in ("coil", "discrete")
        answer = await read(register.offset, count=1 if bits else register.count, device_id=self._unit)
        if answer.isError():
            raise DeviceError(f"the device refuses to read {prop.name}: {answer}")
        return bool(answer.bits[0]) if bits else register.decode(answer.registers)

    async def write(self, prop: Property, value: Value) -> None:
        """Write a coil or holding registers."""
        client, register = self._connected(), read_register(prop.visitor)
        if register.space == "coil":
            answer = await client.write_coil(register.offset, bool(value), device_id=self._unit)
        elif register.space != "holding":
            raise ValueProblem(f"{prop.name} is in a register that cannot be written")
        elif register.bit is not None:
            mask = 1 << register.bit
            answer = await client.mask_write_register(
                address=register.offset,
                and_mask=0xFFFF ^ mask,
                or_mask=mask if value else 0,
                device_id=self._unit,
            )
        else:
            words = register.encode(value)
            answer = await client.write_registers(register.offset, words, device_id=self._unit)
        if answer.isError():
            raise DeviceError(f"the device refuses to write {prop.name}: {answer}")

    def _connected(self) -> "AsyncModbusTcpClient | AsyncModbusSerialClient":
        if self._client is None or not self._client.connected:
            raise DeviceError("the connection is lost")
        return self._client


if __name__ == "__main__":
    sys.exit(main(ModbusDriver))
