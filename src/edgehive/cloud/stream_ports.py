"""KubeEdge's way to lead an API server to the right cloudcore: a port for each instance, and nodes that name it.

ConfigMap ``kubeedge/tunnelport`` records which port stands for which instance; a node whose tunnel ends here gets this
instance's port as its kubelet's; `cloud.iptables` leads connections to that port to the stream server.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from edgehive.cloud.secrets import NAMESPACE, SecretStore
from edgehive.kit.errors import EdgehiveError, UserError
from edgehive.kit.text import safe_label
from edgehive.kube.api import MERGE_PATCH, KubeApi, WriteOptions
from edgehive.kube.refs import CONFIGMAPS, NODES
from edgehive.kube.status import ApiStatus
from edgehive.wire.message import MALFORMED

log = logging.getLogger(__name__)

NAME: Final = "tunnelport"
ANNOTATION: Final = "tunnelportrecord.kubeedge.io"
FIRST: Final = 10351
_EVERY: Final = 10.0
_TRIES: Final = 20
_OPTIONS: Final = WriteOptions(namespace=NAMESPACE, field_manager="cloudcore")


@dataclass(frozen=True, slots=True)
class PortRecord:
    """The ports of all instances; `used` also has those of instances that are gone."""

    by_address: Mapping[str, int] = field(default_factory=dict)
    used: frozenset[int] = frozenset()

    def take(self, address: str) -> "tuple[int, PortRecord]":
        """Return the port of `address`, the lowest free one if it has none, and the record with it."""
        if address in self.by_address:
            return self.by_address[address], self
        taken = self.used | set(self.by_address.values())
        port = next(one for one in range(FIRST, 65536) if one not in taken)
        return port, PortRecord({**self.by_address, address: port}, self.used | {port})


class _Record(msgspec.Struct, rename="camel"):
    ip_tunnel_port: dict[str, int] | None = None
    port: dict[int, bool] | None = None


def read_record(text: str) -> PortRecord:
    """Read the annotation; addresses that are none are left out, since they would become part of a command.

    Raises:
        UserError: It is not such a record.
    """
    try:
        found = msgspec.json.decode(text.encode(), type=_Record)
    except MALFORMED as exc:
        raise UserError(
            f"ConfigMap {NAMESPACE}/{NAME}: the annotation {ANNOTATION} is broken: {exc}",
            hint="delete the ConfigMap; it is made again",
        ) from exc
    ports = found.ip_tunnel_port or {}
    return PortRecord(
        {address: port for address, port in ports.items() if is_address(address) and 0 < port < 65536},
        frozenset(port for port in found.port or () if 0 < port < 65536),
    )


def write_record(record: PortRecord) -> str:
    """The annotation as KubeEdge writes it."""
    used = {str(port): True for port in sorted(record.used)}
    return msgspec.json.encode({"ipTunnelPort": dict(record.by_address), "port": used}).decode()


def is_address(text: str) -> bool:
    """Whether `text` is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class PortStore:
    """The record in the cluster."""

    def __init__(self, *, api: KubeApi) -> None:
        self._api = api

    async def read(self) -> PortRecord | None:
        """Return the record; None when nobody has made it yet.

        Raises:
            UserError: It is broken.
            EdgehiveError: The API server refuses or is away.
        """
        return (await self._read())[0]

    async def _read(self) -> tuple[PortRecord | None, dict[str, object]]:
        try:
            raw = await self._api.get(CONFIGMAPS, NAME, _OPTIONS)
        except ApiStatus as exc:
            if exc.code == 404:
                return None, {}
            raise
        body = msgspec.json.decode(raw)
        annotations = body["metadata"].get("annotations") or {}
        return read_record(str(annotations.get(ANNOTATION, "{}"))), body

    async def negotiate(self, address: str) -> int:
        """Return the port that stands for the instance at `address`, recorded now if it was not.

        Raises:
            UserError: The record is broken.
            EdgehiveError: The API server refuses or is away.
        """
        await SecretStore(api=self._api).ensure_namespace()
        for _ in range(_TRIES):
            record, body = await self._read()
            port, fresh = (record or PortRecord()).take(address)
            if record == fresh:
                return port
            try:
                await self._write(body, fresh)
            except ApiStatus as exc:
                if exc.reason not in ("Conflict", "AlreadyExists"):
                    raise
                continue  # another instance was faster
            return port
        raise ApiStatus(409, "Conflict", f"ConfigMap {NAMESPACE}/{NAME} is written by others all the time")

    async def _write(self, body: dict[str, object], record: PortRecord) -> None:
        found = body.get("metadata")
        metadata: dict[str, Any] = (
            found if isinstance(found, dict) else {"name": NAME, "namespace": NAMESPACE}
        )
        annotations = {**(metadata.get("annotations") or {}), ANNOTATION: write_record(record)}
        new = (
            {"apiVersion": "v1", "kind": "ConfigMap"}
            | body
            | {"metadata": metadata | {"annotations": annotations}}
        )
        raw = msgspec.json.encode(new)
        if body:
            await self._api.update(CONFIGMAPS, NAME, raw, _OPTIONS)
        else:
            await self._api.create(CONFIGMAPS, raw, _OPTIONS)


class _Endpoint(msgspec.Struct):
    Port: int = 0


class _Endpoints(msgspec.Struct, rename="camel"):
    kubelet_endpoint: _Endpoint | None = None


class _Status(msgspec.Struct, rename="camel"):
    daemon_endpoints: _Endpoints | None = None


class _Node(msgspec.Struct):
    status: _Status | None = None


def kubelet_port(raw: bytes) -> int:
    """The kubelet's port of a Node; 0 when it does not say."""
    try:
        status = msgspec.json.decode(raw, type=_Node).status
    except MALFORMED:
        return 0
    endpoints = status.daemon_endpoints if status is not None else None
    return endpoints.kubelet_endpoint.Port if endpoints is not None and endpoints.kubelet_endpoint else 0


class NodePorts:
    """Keeps the kubelet port of every node whose tunnel ends here at this instance's."""

    def __init__(
        self,
        *,
        api: KubeApi,
        port: int,
        nodes: Callable[[], Iterable[str]],
        lookup: Callable[[str], bytes | None],
    ) -> None:
        self._api = api
        self._port = port
        self._nodes = nodes
        self._lookup = lookup
        self._opened = asyncio.Event()

    def opened(self, node: str) -> None:
        """A tunnel of `node` was opened."""
        self._opened.set()

    async def run(self) -> None:
        """Look at every new tunnel, and at all from time to time: a node may be made anew."""
        while True:
            for node in list(self._nodes()):
                raw = self._lookup(node)
                if raw is not None and kubelet_port(raw) != self._port:
                    await self._set(node)
            try:
                async with asyncio.timeout(_EVERY):
                    await self._opened.wait()
            except TimeoutError:
                continue
            finally:
                self._opened.clear()

    async def _set(self, node: str) -> None:
        patch = {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}}}}
        options = WriteOptions(subresource="status", field_manager="cloudcore")
        try:
            await self._api.patch(NODES, node, msgspec.json.encode(patch), MERGE_PATCH, options)
        except EdgehiveError as exc:
            log.warning(
                "node %s: its kubelet port cannot be set: %s", safe_label(node), safe_label(str(exc), 200)
            )
        else:
            log.info("node %s: its kubelet is at port %d", safe_label(node), self._port)
