"""The MQTT mapper: devices that publish their values and listen for commands. Needs ``mapper-mqtt`` (aiomqtt).

``protocol.configData``: `address` (``host:port`` or ``mqtt://host:port``), `username`, `password`, `clientId`.
``visitors.configData``: `topic`, `pointer` (a JSON pointer into the payload), `setTopic`, `setTemplate`
(``{"target": $value}``), `qos`, `retain`.
"""

import asyncio
import functools
import json
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgehive.kit.errors import ProtocolError
from edgehive.mapper.app import main
from edgehive.mapper.driver import DeviceError, Driver
from edgehive.mapper.http import find
from edgehive.mapper.model import Device, Property
from edgehive.mapper.values import Value, format_value

if TYPE_CHECKING:
    from aiomqtt import Client, Message


_LOOK = 0.005  # seconds given to the client to say that the connection is gone
_LOOK_EVERY = 0.5


def broker(address: str) -> tuple[str, int]:
    """Host and port of ``mqtt://host:port``, ``tcp://host:port`` or ``host:port``.

    Raises:
        DeviceError: it is none of these.
    """
    try:
        parts = urlsplit(address if "://" in address else f"mqtt://{address}")
        if parts.hostname:
            return parts.hostname, parts.port or 1883
    except ValueError as exc:
        raise DeviceError(f"{address[:80]!r} is not the address of a broker") from exc
    raise DeviceError(f"{address[:80]!r} is not the address of a broker")


class _Latest(asyncio.Queue["Message"]):
    """In the place of the client's queue: of each topic the last payload, whenever it is wanted.

    Taking messages out of the client with a time limit loses one that arrives at the very end of it.
    """

    def __init__(self, maxsize: int = 0, *, payloads: dict[str, bytes | None]) -> None:
        super().__init__(maxsize)
        self._payloads = payloads

    def put_nowait(self, item: "Message") -> None:
        """Keep it, if it is of a topic that is read."""
        topic = str(item.topic)
        if topic in self._payloads and isinstance(item.payload, bytes):
            self._payloads[topic] = item.payload


class MqttDriver(Driver):
    """The mapper of MQTT devices: the last message on a topic is the value."""

    protocol = "mqtt"

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._client: Client | None = None
        self._stack = AsyncExitStack()
        self._payloads: dict[str, bytes | None] = {}
        self._looked = 0.0

    async def connect(self) -> None:
        """Connect to the broker and subscribe to the topics of all properties."""
        try:
            import aiomqtt
        except ImportError as exc:
            raise DeviceError("aiomqtt is not there: pip install 'edgehive[mapper-mqtt]'") from exc
        config = self.device.config
        host, port = broker(str(config.get("address", "")))
        topics = {str(p.visitor["topic"]) for p in self.device.properties.values() if "topic" in p.visitor}
        self._payloads = dict.fromkeys(topics)
        queue: Any = functools.partial(_Latest, payloads=self._payloads)
        client = aiomqtt.Client(
            host,
            port,
            username=str(config["username"]) if "username" in config else None,
            password=str(config["password"]) if "password" in config else None,
            identifier=str(config["clientId"]) if "clientId" in config else None,
            timeout=5,
            queue_type=queue,
        )
        try:
            await self._stack.enter_async_context(client)
            for topic in topics:
                await client.subscribe(topic, qos=1)
        except aiomqtt.MqttError as exc:
            raise DeviceError(f"the broker at {host}:{port}: {exc}") from exc
        self._client = client

    async def close(self) -> None:
        """Disconnect."""
        self._client = None
        await self._stack.aclose()

    async def read(self, prop: Property) -> Value | None:
        """The last value published, or None while there is none."""
        await self._look()
        payload = self._payloads.get(str(prop.visitor.get("topic", "")))
        if payload is None:
            return None
        pointer = str(prop.visitor.get("pointer", ""))
        if not pointer:
            return payload if prop.type in ("BYTES", "STREAM") else payload.decode("utf-8", "replace")
        try:
            value = find(json.loads(payload), pointer)
        except (ValueError, ProtocolError) as exc:
            raise DeviceError(f"{prop.name}: {exc}") from exc
        return value if value is None or isinstance(value, str | bool | int | float) else json.dumps(value)

    async def write(self, prop: Property, value: Value) -> None:
        """Publish the command."""
        import aiomqtt

        topic = str(prop.visitor.get("setTopic", ""))
        if self._client is None or not topic:
            raise DeviceError(f"{prop.name} has no setTopic" if self._client else "not connected")
        text = format_value(value)
        if template := str(prop.visitor.get("setTemplate", "")):
            literal = text if isinstance(value, bool | int | float) else json.dumps(text)
            text = template.replace("$value", literal)
        qos = prop.visitor.get("qos")
        try:
            await self._client.publish(
                topic,
                text,
                qos=int(qos) if qos in (0, 1, 2) else 1,
                retain=bool(prop.visitor.get("retain", False)),
            )
        except aiomqtt.MqttError as exc:
            raise DeviceError(f"the broker: {exc}") from exc

    async def _look(self) -> None:
        """Notice a lost connection."""
        import aiomqtt

        if self._client is None:
            raise DeviceError("not connected")
        now = asyncio.get_running_loop().time()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        try:
            async with asyncio.timeout(_LOOK):
                await anext(self._client.messages)
        except TimeoutError:
            return
        except aiomqtt.MqttError as exc:
            self._client = None  # and every read says so, until the SDK connects again
            raise DeviceError(f"the broker: {exc}") from exc


if __name__ == "__main__":
    sys.exit(main(MqttDriver))
