"""The HTTP mapper: devices that are asked and set with JSON or plain text over HTTP.

``protocol.configData``: `url` (of the device), `timeout` (seconds, 5), `token` (sent as a bearer token).
``visitors.configData``: `path` (below the url), `pointer` (a JSON pointer to the value, as in ``/sensor/0/value``),
`writePath` and `writeMethod` (PUT) and `writeTemplate` (``{"target": $value}``; by default the value's own text).
"""

import json
import sys
from urllib.parse import urljoin

import aiohttp

from edgehive.kit.errors import ProtocolError
from edgehive.mapper.app import main
from edgehive.mapper.driver import DeviceError, Driver
from edgehive.mapper.model import Device, Property
from edgehive.mapper.values import Value, format_value

_LIMIT = 1 << 20


def find(document: object, pointer: str) -> object:
    """The part of a JSON document that `pointer` names (RFC 6901).

    Raises:
        ProtocolError: there is none.
    """
    if not pointer:
        return document
    if not pointer.startswith("/"):
        raise ProtocolError(f"the pointer {pointer!r} does not begin with /")
    for step in pointer[1:].split("/"):
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and key in document:
            document = document[key]
        elif isinstance(document, list) and key.isdigit() and int(key) < len(document):
            document = document[int(key)]
        else:
            raise ProtocolError(f"the answer has nothing at {pointer}")
    return document


class HttpDriver(Driver):
    """The mapper of HTTP devices."""

    protocol = "http"

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._session: aiohttp.ClientSession | None = None

    async def connect(self) -> None:
        """Prepare the session; HTTP connects when it is asked."""
        config = self.device.config
        if not str(config.get("url", "")).startswith(("http://", "https://")):
            raise DeviceError("protocol.configData.url is not an http:// or https:// address")
        timeout = config.get("timeout", 5)
        seconds = float(timeout) if isinstance(timeout, int | float) and timeout > 0 else 5.0
        token = config.get("token")
        headers = {"Authorization": f"Bearer {token}"} if isinstance(token, str) else {}
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=seconds), headers=headers)

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def read(self, prop: Property) -> Value | None:
        """GET the value."""
        body = await self._ask("GET", str(prop.visitor.get("path", "")), None)
        pointer = str(prop.visitor.get("pointer", ""))
        try:
            document = json.loads(body)
        except ValueError as exc:
            if pointer:
                raise DeviceError(f"{prop.name}: the answer is not JSON") from exc
            return body.decode("utf-8", "replace").strip()
        value = find(document, pointer)
        if value is None or isinstance(value, str | bool | int | float):
            return value
        return json.dumps(value)

    async def write(self, prop: Property, value: Value) -> None:
        """Send the value."""
        text = format_value(value)
        if template := str(prop.visitor.get("writeTemplate", "")):
            literal = text if isinstance(value, bool | int | float) else json.dumps(text)
            text = template.replace("$value", literal)
        path = str(prop.visitor.get("writePath") or prop.visitor.get("path", ""))
        await self._ask(str(prop.visitor.get("writeMethod", "PUT")).upper(), path, text)

    async def _ask(self, method: str, path: str, text: str | None) -> bytes:
        if self._session is None:
            raise DeviceError("not connected")
        base = str(self.device.config["url"])
        url = urljoin(base if base.endswith("/") or not path else base + "/", path.lstrip("/"))
        kind = "application/json" if text is not None and text[:1] in '{["0123456789-tfn' else "text/plain"
        try:
            async with self._session.request(
                method, url, data=text, headers={"Content-Type": kind} if text is not None else {}
            ) as answer:
                body = await answer.content.read(_LIMIT)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise DeviceError(f"{type(exc).__name__}: {exc}") from exc
        if answer.status >= 400:
            raise DeviceError(f"the device answers {answer.status} to {method} {path}")
        return body


if __name__ == "__main__":
    sys.exit(main(HttpDriver))
