"""ObjectSync and ClusterObjectSync: what each node has acknowledged, recorded in the Kubernetes API.

The records are the one durable state of the downward path and are shared by all cloudcore instances, of the
original too. A record is made before an object first travels to a node, so that a crash in between cannot leave
an object at the edge that nobody would ever delete there. Status writes follow the ACKs, newest version per
object, in bounded batches about a second apart; a record that lags costs a duplicate delivery and nothing else.
"""

from dataclasses import dataclass
from typing import Any

from edgehive.kube.refs import GVR

API_VERSION = "reliablesyncs.kubeedge.io/v1alpha1"
GROUP_VERSION = ("reliablesyncs.kubeedge.io", "v1alpha1")


@dataclass(frozen=True, slots=True)
class SyncKey:
    """Which record: the node, the object's namespace (``None``: a ClusterObjectSync), the object's UID."""

    node: str
    namespace: str | None
    uid: str

    @property
    def name(self) -> str:
        """``<node>.<uid>``."""
        return f"{self.node}.{self.uid}"

    @property
    def gvr(self) -> GVR:
        """``objectsyncs`` or ``clusterobjectsyncs``."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class SyncRecord:
    """One record: the object it stands for and the version the node has acknowledged."""

    key: SyncKey
    api_version: str
    kind: str
    object_name: str
    version: str = ""
    """``status.objectResourceVersion`` as recorded; "" (never written) counts as 0."""
    resource_version: str = ""
    """The record's own resourceVersion."""


def parse_sync_name(name: str) -> tuple[str, str] | None:
    """Split a record's name into node and UID; ``None`` if it is not one of ours."""
    raise NotImplementedError


def parse_sync(raw: bytes) -> SyncRecord:
    """Read an ObjectSync or ClusterObjectSync.

    Raises:
        ProtocolError: it is not one.
    """
    raise NotImplementedError


def sync_object(record: SyncRecord) -> dict[str, Any]:
    """The object to POST for `record` (without its status, which the API server would drop)."""
    raise NotImplementedError


def sync_status_patch(version: str) -> bytes:
    """The merge patch to PATCH on the status subresource."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class CreateSync:
    """POST `sync_object(record)`; 409 AlreadyExists counts as done."""

    record: SyncRecord


@dataclass(frozen=True, slots=True)
class RecordSync:
    """PATCH the status of `key` to `version` (merge patch); on 404 report `NOT_FOUND`."""

    key: SyncKey
    version: str


@dataclass(frozen=True, slots=True)
class DeleteSync:
    """DELETE `key` with grace 0; 404 counts as done."""

    key: SyncKey


SyncWrite = CreateSync | RecordSync | DeleteSync


class SyncWriter:
    """Plans the writes of all nodes of one cloudcore: coalesced, bounded, retried with back-off."""

    def __init__(
        self, *, interval: float = 0.5, batch: int = 200, retry: float = 1.0, retry_max: float = 30.0
    ) -> None:
        raise NotImplementedError

    def create(self, record: SyncRecord, now: float) -> None:
        """The record must exist before its object is sent; creates are due at once."""
        raise NotImplementedError

    def acknowledged(self, record: SyncRecord, version: str, now: float) -> None:
        """The node acknowledged `version`; due within `interval`; never lowers what was recorded."""
        raise NotImplementedError

    def deleted(self, key: SyncKey, now: float) -> None:
        """The node acknowledged the delete; due within `interval`."""
        raise NotImplementedError

    def deadline(self) -> float | None:
        """When `take` has something next."""
        raise NotImplementedError

    def take(self, now: float) -> list[SyncWrite]:
        """The writes that are due, at most a batch; each must be answered with `done` or `failed`."""
        raise NotImplementedError

    def done(self, write: SyncWrite, now: float) -> None:
        """`write` is in the API server."""
        raise NotImplementedError

    def failed(self, write: SyncWrite, code: int, now: float) -> None:
        """`write` was answered with HTTP `code` (0: unreachable); it is planned again if that makes sense."""
        raise NotImplementedError
