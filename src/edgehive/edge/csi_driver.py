"""A CSI driver's node service, as far as a node calls it."""

import logging
from collections.abc import Mapping
from typing import Any

from edgehive.aio import csi_messages as csi
from edgehive.aio.grpc import NOT_FOUND, UNAVAILABLE, GrpcClient, GrpcError
from edgehive.aio.protobuf import Method
from edgehive.edge.plugin_call import call
from edgehive.edge.runtime import RuntimeFailure
from edgehive.kit.errors import ProtocolError, Unreachable
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)

_TIMEOUT = 120.0
_INFO_TIMEOUT = 10.0


class CsiDriver:
    """One driver that has registered. Methods raise `RuntimeFailure` with the driver's words."""

    def __init__(self, name: str, client: GrpcClient, info: Mapping[str, Any], rpcs: frozenset[int]) -> None:
        self.name = name
        self.node_id = str(info.get("node_id", ""))
        self.max_volumes = int(info.get("max_volumes_per_node", 0))
        self.topology: Mapping[str, str] = (info.get("accessible_topology") or {}).get("segments", {})
        self.rpcs = rpcs
        """What its node service can do: `aio.csi_messages.STAGE_UNSTAGE_VOLUME` and so on."""
        self._client = client

    @classmethod
    async def open(cls, name: str, endpoint: str) -> "CsiDriver":
        """Ask the driver at `endpoint` who it takes this node for, and what it can do.

        Raises:
            EdgehiveError: It does not answer, or has no id for this node.
        """
        client = GrpcClient(endpoint.removeprefix("unix://"))
        try:
            info = await call(client, csi.NodeGetInfo, _INFO_TIMEOUT)
            if not info.get("node_id"):
                raise ProtocolError("NodeGetInfo has no node_id")
            answer = await call(client, csi.NodeGetCapabilities, _INFO_TIMEOUT)
        except BaseException:
            await client.close()
            raise
        found = (one.get("rpc", {}).get("type", 0) for one in answer.get("capabilities", ()))
        return cls(name, client, info, frozenset(found))

    def described(self) -> dict[str, Any]:
        """Its entry in the ``spec.drivers`` of a CSINode."""
        entry: dict[str, Any] = {"name": self.name, "nodeID": self.node_id}
        if self.topology:
            entry["topologyKeys"] = sorted(self.topology)
        if self.max_volumes > 0:
            entry["allocatable"] = {"count": self.max_volumes}
        return entry

    async def stage(self, **request: Any) -> None:
        """``NodeStageVolume``: make the volume ready on this node, once for all pods."""
        await self._do(csi.NodeStageVolume, request)

    async def publish(self, **request: Any) -> None:
        """``NodePublishVolume``: make the volume appear in a pod's directory."""
        await self._do(csi.NodePublishVolume, request)

    async def unpublish(self, **request: Any) -> None:
        """``NodeUnpublishVolume``; a volume that does not exist any more is done."""
        await self._do(csi.NodeUnpublishVolume, request, gone_is_fine=True)

    async def unstage(self, **request: Any) -> None:
        """``NodeUnstageVolume``; likewise."""
        await self._do(csi.NodeUnstageVolume, request, gone_is_fine=True)

    async def _do(self, method: Method, request: dict[str, Any], *, gone_is_fine: bool = False) -> None:
        name = method.path.rpartition("/")[2]
        try:
            await call(self._client, method, _TIMEOUT, **request)
        except GrpcError as exc:
            if gone_is_fine and exc.code == NOT_FOUND:
                return
            if exc.code == UNAVAILABLE:
                raise Unreachable(f"CSI driver {self.name}: {name}: {safe_label(exc.message, 300)}") from exc
            text = f"rpc error: code = {exc.code} desc = {safe_label(exc.message, 500)}"
            raise RuntimeFailure("FailedMount", f"{name}: {text}") from exc

    async def close(self) -> None:
        """Close the connection; calls under way fail."""
        await self._client.close()
