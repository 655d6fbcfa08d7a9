"""One sender for each push method; the libraries of databases are imported when a device asks for one."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Protocol

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
