"""The OPC UA mapper. Needs the extra ``mapper-opcua`` (asyncua).

``protocol.configData``: `url` (``opc.tcp://host:4840/path``), `userName`, `password`, `securityString`
(``Basic256Sha256,SignAndEncrypt,certificate.pem,key.pem``). ``visitors.configData``: `nodeID` (``ns=2;i=3``).
"""

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from edgehive.mapper.app import main
from edgehive.mapper.driver import DeviceError, Driver
from edgehive.mapper.model import Device, Property
from edgehive.mapper.values import Value

if TYPE_CHECKING:
    from asyncua import Client


class OpcuaDriver(Driver):
    """The mapper of OPC UA devices."""

    protocol = "opcua"

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._client: Client | None = None

    async def connect(self) -> None:
        """Open a session."""
        try:
            from asyncua import Client
        except ImportError as exc:
            raise DeviceError("asyncua is not there: pip install 'edgehive[mapper-opcua]'") from exc
        config = self.device.config
        url = str(config.get("url", ""))
        if not url.startswith("opc.tcp://"):
            raise DeviceError("protocol.configData.url is not an opc.tcp:// address")
        client = Client(url, timeout=4)
        if "userName" in config:
            client.set_user(str(config["userName"]))
            client.set_password(str(config.get("password", "")))
        if security := config.get("securityString"):
            await client.set_security_string(str(security))
        await client.connect()
        self._client = client

    async def close(self) -> None:
        """End the session."""
        client, self._client = self._client, None
        if client is not None:
            await client.disconnect()

    async def read(self, prop: Property) -> Value | None:
        """Read the node's value."""
        value: Any = await self._node(prop).read_value()
        if isinstance(value, datetime):
            return value.isoformat()
        return value if isinstance(value, str | bool | int | float | bytes) or value is None else str(value)

    async def write(self, prop: Property, value: Value) -> None:
        """Write the node's value, in the node's own type."""
        from asyncua import ua

        node = self._node(prop)
        kind = await node.read_data_type_as_variant_type()
        await node.write_value(ua.DataValue(ua.Variant(value, kind)))

    def _node(self, prop: Property) -> Any:
        if self._client is None:
            raise DeviceError("not connected")
        return self._client.get_node(str(prop.visitor.get("nodeID", "")))


if __name__ == "__main__":
    sys.exit(main(OpcuaDriver))
