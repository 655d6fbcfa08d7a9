"""What a push method is, and the two that need no database; libraries are imported when a device asks for them."""

import asyncio
import contextlib
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp

from edgehive.kit.errors import EdgehiveError, Unreachable
from edgehive.mapper.model import Device, PushTarget
from edgehive.mapper.worker import Reading


class Unsupported(EdgehiveError):
    """The push method cannot be used here; the message says what is missing."""


class Sender(Protocol):
    """Sends values to one destination."""

    async def send(self, reading: Reading) -> None:
        """Send one value.

        Raises:
            Unreachable: later perhaps.
            EdgehiveError: the receiver does not want it.
        """

    async def close(self) -> None:
        """Let go of the destination."""


class Database(Sender, Protocol):
    """A destination that can be asked for what it was sent."""

    async def history(self, device: Device, prop: str, limit: int) -> list[dict[str, Any]]:
        """The newest values of a property, newest first, under mapper-framework's names.

        Raises:
            EdgehiveError: the database does not answer, or not as it should.
        """


def is_database(sender: object) -> bool:
    """Whether `sender` has a `Database.history`."""
    return callable(getattr(sender, "history", None))


def make_sender(target: PushTarget, session: aiohttp.ClientSession) -> Sender:
    """The sender of a push method.

    Raises:
        Unsupported: there is none, or it is not fully described.
    """
    match target.kind:
        case "http":
            return HttpSender(target, session)
        case "mqtt":
            return MqttSender(target)
        case "influxdb2" | "redis" | "mysql" | "tdengine":
            from edgehive.mapper.push_databases import make_database

            return make_database(target)
        case "otel":
            from edgehive.mapper.push_otel import OtelSender

            return OtelSender(target)
        case _:
            raise Unsupported(f"there is no push method {target.kind}")


class HttpSender:
    """KubeEdge: a form with the property's name, and the time."""

    def __init__(self, target: PushTarget, session: aiohttp.ClientSession) -> None:
        host = str(target.options.get("hostname", ""))
        if not host:
            raise Unsupported("pushMethod.http has no hostName")
        base = host if "://" in host else f"http://{host}"
        port = int(target.options.get("port", 0))
        path = "/" + str(target.options.get("requestpath", "")).lstrip("/")
        self._url = (f"{base}:{port}" if port else base) + path
        milliseconds = int(target.options.get("timeout", 0))
        self._timeout = min(max(milliseconds / 1000, 0.1), 60.0) if milliseconds else 10.0
        self._session = session

    async def send(self, reading: Reading) -> None:
        form = {reading.prop.name: reading.text, "time": stamp(reading.at)}
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._session.post(self._url, data=form, allow_redirects=False) as answer,
            ):
                await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise Unreachable(f"{type(exc).__name__}: {exc}") from exc
        except ValueError as exc:
            raise EdgehiveError(f"pushMethod.http: {exc}") from exc
        if answer.status >= 500:
            raise Unreachable(f"the receiver answers {answer.status}")
        if answer.status >= 400:
            raise EdgehiveError(f"the receiver answers {answer.status}")

    async def close(self) -> None:
        """Nothing is kept."""


class MqttSender:
    """KubeEdge: a line of text on the topic, "time is <time> <topic>: <value>"."""

    def __init__(self, target: PushTarget) -> None:
        try:
            import aiomqtt
        except ImportError as exc:
            raise Unsupported("pushMethod.mqtt needs aiomqtt: pip install 'edgehive[mapper-mqtt]'") from exc
        self._errors = aiomqtt.MqttError
        self._make = aiomqtt.Client
        self._topic = str(target.options.get("topic", ""))
        if not self._topic:
            raise Unsupported("pushMethod.mqtt has no topic")
        address = str(target.options.get("address", ""))
        parts = urlsplit(address if "://" in address else f"mqtt://{address}")
        if not parts.hostname:
            raise Unsupported("pushMethod.mqtt has no address")
        self._address = (parts.hostname, parts.port or 1883)
        qos = int(target.options.get("qos", 0))
        self._qos = qos if qos in (0, 1, 2) else 0
        self._retain = bool(target.options.get("retained", False))
        self._stack = AsyncExitStack()
        self._client: aiomqtt.Client | None = None

    async def send(self, reading: Reading) -> None:
        text = f"time is {stamp(reading.at)} {self._topic}: {reading.text}"
        try:
            if self._client is None:
                host, port = self._address
                self._client = await self._stack.enter_async_context(self._make(host, port, timeout=5))
            await self._client.publish(self._topic, text, qos=self._qos, retain=self._retain)
        except self._errors as exc:
            await self.close()
            raise Unreachable(f"the broker: {exc}") from exc

    async def close(self) -> None:
        """Disconnect."""
        self._client = None
        with contextlib.suppress(self._errors):
            await self._stack.aclose()


def stamp(seconds: float) -> str:
    """``YYYY-MM-DD hh:mm:ss``, as mapper-framework writes times."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def json_model(reading: Reading) -> dict[str, Any]:
    """A value under the names that mapper-framework uses."""
    return data_model(
        reading.device, reading.prop.name, reading.text, reading.prop.type.lower(), int(reading.at * 1000)
    )


def data_model(device: Device, prop: str, text: str, kind: str, milliseconds: int) -> dict[str, Any]:
    """mapper-framework's DataModel."""
    return {
        "DeviceName": device.name,
        "PropertyName": prop,
        "Namespace": device.namespace,
        "Value": text,
        "Type": kind,
        "TimeStamp": milliseconds,
    }
