"""The Secrets in which cloudcore instances share keys and tokens: raw bytes by data key."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from edgehive.kube.api import KubeApi, WriteOptions
from edgehive.kube.refs import NAMESPACES, SECRETS
from edgehive.kube.status import ApiStatus

NAMESPACE = "kubeedge"
_OPTIONS = WriteOptions(namespace=NAMESPACE, field_manager="cloudcore")


@dataclass(frozen=True, slots=True)
class Stored:
    """A Secret's data, and its version for a guarded write."""

    data: Mapping[str, bytes]
    resource_version: str


class SecretStore:
    """Reads and writes Secrets of the namespace ``kubeedge``."""

    def __init__(self, *, api: KubeApi) -> None:
        self._api = api

    async def ensure_namespace(self) -> None:
        """Create the namespace if it is missing."""
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        try:
            await self._api.get(NAMESPACES, NAMESPACE)
        except ApiStatus as exc:
            if exc.code != 404:
                raise
            try:
                await self._api.create(NAMESPACES, msgspec.json.encode(body))
            except ApiStatus as again:
                if again.reason != "AlreadyExists":
                    raise

    async def read(self, name: str) -> Stored | None:
        """Return a Secret's data; values that are not base64 are left out."""
        try:
            raw = await self._api.get(SECRETS, name, WriteOptions(namespace=NAMESPACE))
        except ApiStatus as exc:
            if exc.code == 404:
                return None
            raise
        body: dict[str, Any] = msgspec.json.decode(raw)
        data: dict[str, bytes] = {}
        for key, value in (body.get("data") or {}).items():
            try:
                data[key] = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                continue
        return Stored(data, str(body.get("metadata", {}).get("resourceVersion", "")))

    async def create(self, name: str, data: Mapping[str, bytes]) -> bool:
        """Create a Secret; false when another instance was faster."""
        try:
            await self._api.create(SECRETS, _encode(name, data), _OPTIONS)
        except ApiStatus as exc:
            if exc.reason == "AlreadyExists":
                return False
            raise
        return True

    async def replace(self, name: str, data: Mapping[str, bytes], resource_version: str) -> bool:
        """Overwrite a Secret in this version; false when it has changed since."""
        try:
            await self._api.update(SECRETS, name, _encode(name, data, resource_version), _OPTIONS)
        except ApiStatus as exc:
            if exc.code in (404, 409):
                return False
            raise
        return True

    async def put(self, name: str, data: Mapping[str, bytes]) -> None:
        """Make the Secret hold `data`, whatever it holds now.

        Raises:
            ApiStatus: also when others keep changing it.
        """
        for _ in range(5):
            stored = await self.read(name)
            if stored is not None and dict(stored.data) == dict(data):
                return
            if stored is None:
                done = await self.create(name, data)
            else:
                done = await self.replace(name, data, stored.resource_version)
            if done:
                return
        raise ApiStatus(409, "Conflict", f"the Secret {NAMESPACE}/{name} keeps changing")


def _encode(name: str, data: Mapping[str, bytes], resource_version: str = "") -> bytes:
    meta = {"name": name, "namespace": NAMESPACE}
    if resource_version:
        meta["resourceVersion"] = resource_version
    return msgspec.json.encode(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": meta,
            "type": "Opaque",
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        }
    )
