"""Whether a node is connected, on this instance or another one."""

import datetime
from collections.abc import Callable
from typing import Any

import msgspec

from edgehive.aio.informer import Informer
from edgehive.cloud.ownership import OWNER_ANNOTATION
from edgehive.kube.api import KubeApi, WriteOptions
from edgehive.kube.refs import LEASES
from edgehive.kube.status import ApiStatus

_LEASE_NAMESPACE = "kube-node-lease"
_LEASE_SECONDS = 40


class SessionDirectory:
    """Answers for enrolment: a join token must not take over a node that is connected."""

    def __init__(
        self,
        *,
        api: KubeApi,
        here: Callable[[str], bool],
        nodes: Informer,
        address: str,
        wall: Callable[[], float],
    ) -> None:
        self._api = api
        self._here = here
        self._nodes = nodes
        self._address = address
        self._wall = wall

    async def is_connected(self, node: str) -> bool:
        """Whether `node` has a session here, or renews its lease through another instance.

        Raises:
            ApiStatus: the API server refuses.
            Unreachable: it is not there.
        """
        if self._here(node):
            return True
        found = self._nodes.get("", node)
        owner = (found.meta.annotations or {}).get(OWNER_ANNOTATION) if found is not None else None
        if owner is None or owner == self._address:
            return False
        try:
            raw = await self._api.get(LEASES, node, WriteOptions(namespace=_LEASE_NAMESPACE))
        except ApiStatus as exc:
            if exc.code == 404:
                return False
            raise
        lease: dict[str, Any] = msgspec.json.decode(raw)
        return self._fresh(lease.get("spec") or {})

    def _fresh(self, spec: dict[str, Any]) -> bool:
        seconds = spec.get("leaseDurationSeconds")
        try:
            renewed = datetime.datetime.fromisoformat(str(spec.get("renewTime")))
        except ValueError:
            return False
        if renewed.tzinfo is None:
            renewed = renewed.replace(tzinfo=datetime.UTC)
        age = self._wall() - renewed.timestamp()
        return age < (seconds if isinstance(seconds, int) and seconds > 0 else _LEASE_SECONDS)
