"""What edged and the node agent ask of the metadata manager: typed, local-first, the same online and offline.

`edge.metamanager.MetaManager` is the implementation. An answer is `Ok` or `Failed`; only `Ok` carries an
object, so a "not found" can never be taken for, or stored as, one.
"""

import enum
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from edgehive.kube.status import ApiStatus


class Ok(msgspec.Struct, frozen=True):
    """The request succeeded; `object` is the raw JSON of the object, or empty when the answer has none."""

    object: bytes = b""


class Failed(msgspec.Struct, frozen=True):
    """The request failed. While the cloud is away the status is a retryable 503 (see `offline`)."""

    status: ApiStatus


Reply = Ok | Failed


def offline(what: str) -> Failed:
    """The answer to a request that only the cloud could have answered while it is away."""
    return Failed(ApiStatus(503, "ServiceUnavailable", f"the cloud is not reachable: {what}"))


class Change(enum.Enum):
    """What happened to the desired pods of this node."""

    SET = "set"
    """Everything may have changed: read `MetaClient.pods` again. `namespace` and `name` are empty."""
    UPDATE = "update"
    """The pod is new or changed; `raw` is its whole object."""
    REMOVE = "remove"
    """The pod is gone from the cluster; `raw` is its last object, or at least its metadata.

    Compare the uid: a new pod of the same name may be in the database already.
    """


class PodChange(msgspec.Struct, frozen=True):
    """One change to a pod of this node."""

    kind: Change
    namespace: str = ""
    name: str = ""
    raw: bytes | None = None


PodCallback = Callable[[PodChange], None]
ObjectCallback = Callable[[str, str, str], None]
"""Called with (type, namespace, name): ``("configmap", "default", "settings")``."""


class NodeApi(Protocol):
    """The node agent's share: this node's Node and Lease objects."""

    async def node(self) -> Reply:
        """Return the Node: the local row when there is one, else what the cloud has."""
        ...

    async def create_node(self, raw: bytes) -> Reply:
        """Create the Node in the cluster; `Ok.object` is the created object."""
        ...

    async def patch_node_status(self, patch: bytes) -> Reply:
        """Send a strategic merge patch for the Node; `Ok.object` is the whole Node afterwards."""
        ...

    async def lease(self) -> Reply:
        """Return the node's Lease from the cloud."""
        ...

    async def create_lease(self, raw: bytes) -> Reply:
        """Create the node's Lease."""
        ...

    async def update_lease(self, raw: bytes) -> Reply:
        """Renew the node's Lease."""
        ...


class MetaClient(NodeApi, Protocol):
    """Everything edged may ask."""

    @property
    def connected(self) -> bool:
        """Whether the cloud is reachable at this moment."""
        ...

    def pods(self) -> list[bytes]:
        """Return every pod of this node that the local database holds."""
        ...

    def pod(self, namespace: str, name: str) -> bytes | None:
        """Return one pod of the local database."""
        ...

    def subscribe_pods(self, callback: PodCallback) -> None:
        """Call `callback` in order for every change of a pod, after it is durable.

        The first change is a SET, delivered once `MetaManager` has opened its database.
        """
        ...

    def subscribe_objects(self, callback: ObjectCallback) -> None:
        """Call `callback` when a configmap, secret or volumeattachment was changed or deleted."""
        ...

    def subscribe_connection(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the cloud has become reachable."""
        ...

    async def configmap(self, namespace: str, name: str) -> Reply:
        """Return a ConfigMap: the local row first, else asked of the cloud and kept."""
        ...

    async def secret(self, namespace: str, name: str) -> Reply:
        """Return a Secret: the local row first, else asked of the cloud and kept."""
        ...

    async def persistent_volume_claim(self, namespace: str, name: str) -> Reply:
        """Return a PersistentVolumeClaim: the local row once it is bound, else what the cloud has."""
        ...

    async def persistent_volume(self, name: str) -> Reply:
        """Return a PersistentVolume: the local row first, else asked of the cloud and kept."""
        ...

    async def volume_attachment(self, name: str) -> Reply:
        """Return a VolumeAttachment as the cloud has it, or the local row while the cloud is away."""
        ...

    async def runtime_class(self, name: str) -> Reply:
        """Return a RuntimeClass, likewise."""
        ...

    async def csi_driver(self, name: str) -> Reply:
        """Return a CSIDriver, likewise; an original cloud does not know the question and never answers."""
        ...

    async def token(
        self, namespace: str, service_account: str, request: Mapping[str, Any], pod_uid: str
    ) -> Reply:
        """Return a ``TokenRequest`` with ``status.token``; `request` is its spec-bearing object.

        Kept per request. A token past its refresh time is asked for anew, and stays in use until the new
        one has arrived, so that a pod can be restarted while the cloud is away.
        """
        ...

    async def patch_pod_status(self, namespace: str, name: str, uid: str, status_patch: bytes) -> Reply:
        """Send a strategic merge patch (``{"metadata":{"uid":...},"status":{...}}``) for a pod.

        Kept durably until the cloud answered; a newer patch of the same pod takes the older one's place.
        Returns `Ok` with the patched pod when the cloud answers in time, else a retryable `Failed`: the
        patch is then still on its way and need not be repeated.
        """
        ...

    async def delete_pod(self, namespace: str, name: str, uid: str) -> Reply:
        """Ask for the final delete (grace period 0, guarded by `uid`) once the pod has stopped; durable."""
        ...

    async def create_pod(self, raw: bytes) -> Reply:
        """Create the mirror pod of a static pod."""
        ...

    def forget_tokens(self, pod_uid: str) -> None:
        """Drop the tokens kept for a pod that is gone."""
        ...

    def report_event(self, event: Mapping[str, Any]) -> None:
        """Hand over a ``v1.Event``; bounded, aggregated, lost rather than late."""
        ...
