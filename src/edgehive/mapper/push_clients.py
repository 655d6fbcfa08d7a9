"""One sender for each push method; the libraries of databases are imported when a device asks for one."""

import asyncio
import contextlib
import json
import os
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp

from edgehive.kit.errors import EdgehiveError, Unreachable
from edgehive.mapper.model import PushTarget
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
        case "influxdb2":
            return InfluxSender(target, session)
        case "redis":
            return RedisSender(target)
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


class InfluxSender:
    """InfluxDB 2 by its line protocol; the token is in the environment as TOKEN, as in KubeEdge."""

    def __init__(self, target: PushTarget, session: aiohttp.ClientSession) -> None:
        client = target.options.get("influxdb2ClientConfig", {})
        data = target.options.get("influxdb2DataConfig", {})
        if not client.get("url") or not client.get("bucket"):
            raise Unsupported("pushMethod.dbMethod.influxdb2 needs a url and a bucket")
        self._url = client["url"].rstrip("/") + "/api/v2/write"
        self._query = {"org": client.get("org", ""), "bucket": client["bucket"], "precision": "ms"}
        self._head = _escape(data.get("measurement") or "devices")
        for name, value in sorted(data.get("tag", {}).items()):
            if name and value:
                self._head += f",{_escape(name)}={_escape(value)}"
        self._field = data.get("fieldKey", "")
        self._session = session

    def line(self, reading: Reading) -> str:
        """The value as a line."""
        value = reading.value
        if isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, int):
            text = f"{value}i"
        elif isinstance(value, float):
            text = repr(value)
        else:
            text = '"' + reading.text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{self._head} {_escape(self._field or reading.prop.name)}={text} {int(reading.at * 1000)}"

    async def send(self, reading: Reading) -> None:
        headers = {"Authorization": f"Token {os.environ.get('TOKEN', '')}"}
        try:
            async with (
                asyncio.timeout(10),
                self._session.post(
                    self._url, params=self._query, data=self.line(reading), headers=headers
                ) as answer,
            ):
                text = await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise Unreachable(f"{type(exc).__name__}: {exc}") from exc
        if answer.status >= 500 or answer.status == 429:
            raise Unreachable(f"InfluxDB answers {answer.status}")
        if answer.status >= 400:
            raise EdgehiveError(f"InfluxDB answers {answer.status}: {text[:200]}")

    async def close(self) -> None:
        """Nothing is kept."""


class RedisSender:
    """KubeEdge: a sorted set of the device's name, scored by time; the password is in PASSWORD."""

    def __init__(self, target: PushTarget) -> None:
        try:
            import redis.asyncio
            import redis.exceptions
        except ImportError as exc:
            raise Unsupported(
                "pushMethod.dbMethod.redis needs redis: pip install 'edgehive[mapper-redis]'"
            ) from exc
        config = target.options.get("redisClientConfig", {})
        parts = urlsplit(f"redis://{config.get('addr', '')}")
        if not parts.hostname:
            raise Unsupported("pushMethod.dbMethod.redis has no addr")
        self._errors = redis.exceptions.RedisError
        self._client = redis.asyncio.Redis(
            host=parts.hostname,
            port=parts.port or 6379,
            db=int(config.get("db", 0)),
            password=os.environ.get("PASSWORD") or None,
            socket_timeout=5,
        )

    async def send(self, reading: Reading) -> None:
        try:
            await self._client.zadd(
                reading.device.name, {json.dumps(json_model(reading)): int(reading.at * 1000)}
            )
        except (self._errors, OSError) as exc:
            raise Unreachable(f"Redis: {exc}") from exc

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()


def _escape(text: str) -> str:
    """A measurement, tag or field name of the line protocol."""
    for char in ("\\", ",", "=", " "):
        text = text.replace(char, "\\" + char)
    return text.replace("\n", " ")


def stamp(seconds: float) -> str:
    """``YYYY-MM-DD hh:mm:ss``, as mapper-framework writes times."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def json_model(reading: Reading) -> dict[str, Any]:
    """A value under the names that mapper-framework uses."""
    return {
        "DeviceName": reading.device.name,
        "PropertyName": reading.prop.name,
        "Namespace": reading.device.namespace,
        "Value": reading.text,
        "Type": reading.prop.type.lower(),
        "TimeStamp": int(reading.at * 1000),
    }
