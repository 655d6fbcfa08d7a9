"""What a Kubernetes API can be asked; spoken by every client of ours.

`aio.kubeclient.KubeClient` speaks it over HTTPS to any API server; `apiserver.local.LocalApi` speaks it
in-process to the embedded one. Objects go in and come out as raw JSON bytes.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from edgehive.kube.refs import GVR

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a list: raw items (each with kind and apiVersion set), its version, the next token."""

    items: Sequence[bytes]
    resource_version: str
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One line of a watch. An ERROR line is never yielded: it is raised as `ApiStatus`."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: bytes


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Selection of a list or watch."""

    namespace: str | None = None
    label_selector: str = ""
    field_selector: str = ""
    limit: int = 0
    continue_token: str = ""
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How to write. `as_user`/`as_groups` impersonate (RBAC decides as if that user asked)."""

    namespace: str | None = None
    subresource: str = ""
    field_manager: str = ""
    force: bool = False
    as_user: str = ""
    as_groups: tuple[str, ...] = ()


ANYWHERE = ListOptions()
CLUSTER = WriteOptions()


class KubeApi(Protocol):
    """A Kubernetes API.

    Every method raises `kube.status.ApiStatus` for an API failure and `kit.errors.Unreachable` when the
    server cannot be reached.
    """

    async def get(self, gvr: GVR, name: str, options: WriteOptions = CLUSTER) -> bytes:
        """Return one object."""
        ...

    async def list(self, gvr: GVR, options: ListOptions = ANYWHERE) -> ListPage:
        """Return one page of objects."""
        ...

    def watch(self, gvr: GVR, options: ListOptions, timeout: float = 300.0) -> AsyncIterator[WatchEvent]:
        """Yield events after ``options.resource_version``; bookmarks included; ends after `timeout` s.

        Raises:
            ApiStatus: 410 when the version is too old (list again), and any other ERROR event.
        """
        ...

    async def create(self, gvr: GVR, body: bytes, options: WriteOptions = CLUSTER, name: str = "") -> bytes:
        """Create; `name` only for a subresource (``serviceaccounts/NAME/token``, ``pods/NAME/binding``)."""
        ...

    async def update(self, gvr: GVR, name: str, body: bytes, options: WriteOptions = CLUSTER) -> bytes:
        """Replace."""
        ...

    async def patch(
        self, gvr: GVR, name: str, body: bytes, content_type: str, options: WriteOptions = CLUSTER
    ) -> bytes:
        """Patch with one of the four content types above."""
        ...

    async def delete(
        self, gvr: GVR, name: str, options: WriteOptions = CLUSTER, body: bytes | None = None
    ) -> bytes:
        """Delete; `body` is a ``DeleteOptions``."""
        ...
