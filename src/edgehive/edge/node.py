"""The node agent: registers the node, keeps its status and its lease fresh.

Registration is tried until it worked and again when the cloud no longer knows the node. Status is computed
every ten seconds and sent when something changed, else every five minutes; the lease is renewed four times
within its duration.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from edgehive.edge.metaclient import Failed, NodeApi, Ok, Reply
from edgehive.edge.node_probe import NodeProbe
from edgehive.edge.node_status import NodeReporter, NodeSettings, Readiness, micro_time, status_patch
from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label
from edgehive.kube.status import ApiStatus

log = logging.getLogger(__name__)

_CONFLICTS = 409
_NOT_FOUND, _CONFLICT = 404, 409


class Connection(Protocol):
    """What the agent must know of the link."""

    connected: bool

    def on_connection(self, callback: Callable[[bool], None]) -> None: ...


class PluginFacts(Protocol):
    """What plugs into the node (`edge.plugins.NodePlugins`)."""

    def on_change(self, callback: Callable[[], None]) -> None: ...
    def node_facts(self, status: dict[str, Any]) -> tuple[Mapping[str, str], Mapping[str, str | None]]:
        """Add to `status`; return labels and annotations, those that must not be there as None."""
        ...


@dataclass(frozen=True, slots=True)
class NodeTimers:
    """Periods in seconds."""

    status: float = 10.0
    not_ready: float = 2.0
    """While the node cannot run pods: it should be Ready soon after the runtime is."""
    report: float = 300.0
    lease_duration: int = 40


class NodeAgent:
    """Keeps this node's Node and Lease in the cluster as they should be.

    `runtime_version` returns ``containerd://1.6.20`` and what is wrong with the pod network, if anything is; it
    raises when the runtime cannot be used. `images`, if the node is to tell them, are as the Node has them.
    """

    def __init__(
        self,
        *,
        settings: NodeSettings,
        probe: NodeProbe,
        api: NodeApi,
        connection: Connection,
        runtime_version: Callable[[], Awaitable[tuple[str, str]]],
        address: Callable[[], str],
        wall: Callable[[], float],
        rng: Callable[[], float],
        timers: NodeTimers = NodeTimers(),
        plugins: PluginFacts | None = None,
        images: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None,
    ) -> None:
        self._settings = settings
        self._probe = probe
        self._api = api
        self._connection = connection
        self._runtime_version = runtime_version
        self._address = address
        self._wall = wall
        self._rng = rng
        self._timers = timers
        self._plugins = plugins
        self._images = images
        self._labels: Mapping[str, str] = {}
        self._annotations: Mapping[str, str | None] = {}
        self.machine = probe.machine()
        self._reporter = NodeReporter(settings=settings, machine=self.machine)
        self._node: dict[str, Any] = {}
        self._lease: dict[str, Any] = {}
        self._reported = 0.0
        self._registered = asyncio.Event()
        self._up = asyncio.Event()
        self._nudge = asyncio.Event()
        self._lease_nudge = asyncio.Event()
        self._last_problem = ""
        self._runtime = ""
        self._ready = False
        connection.on_connection(self._connection_changed)
        if plugins is not None:
            plugins.on_change(self.nudge)
        if connection.connected:
            self._up.set()

    @property
    def registered(self) -> bool:
        """Whether the cluster has this node."""
        return self._registered.is_set()

    def nudge(self) -> None:
        """Compute and send the status now (the runtime came or went)."""
        self._nudge.set()

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_status(), name="node-status")
            tasks.create_task(self._keep_lease(), name="node-lease")

    def _connection_changed(self, up: bool) -> None:
        if up:
            self._reported = 0.0  # the cluster may have given us up: tell it everything
            self._up.set()
            self._nudge.set()
            self._lease_nudge.set()
        else:
            self._up.clear()

    # registration

    async def _register(self) -> None:
        backoff = Backoff(0.2, 30.0, jitter=0.2, rng=self._rng)
        while not await self._try_register():
            await asyncio.sleep(backoff.next())
            await self._up.wait()

    async def _try_register(self) -> bool:
        await self._up.wait()
        status = await self._status()
        if self._settings.register:
            reply = await self._api.create_node(msgspec.json.encode(self._reporter.node(status)))
            if isinstance(reply, Ok):
                self._learn(reply.object)
                self._reported = self._wall()
                log.info("node %s registered", self._settings.name)
                return True
            if reply.status.code != _CONFLICTS:
                self._complain("registering the node", reply.status)
                return False
        reply = await self._api.node()
        if isinstance(reply, Ok):
            self._learn(reply.object)
        elif not self._settings.register or reply.status.retryable:
            self._complain("reading the node", reply.status)
            return False
        self._reporter.adopt(self._node)
        log.info("node %s is registered already", self._settings.name)
        return True

    def _learn(self, raw: bytes) -> None:
        try:
            node = msgspec.json.decode(raw) if raw else None
        except MALFORMED:
            node = None
        if isinstance(node, dict):
            self._node = node

    def _complain(self, what: str, status: ApiStatus) -> None:
        problem = f"{what}: {safe_label(status.message, 300)}"
        if problem != self._last_problem:
            log.warning("%s", problem)
            self._last_problem = problem

    # status

    async def _keep_status(self) -> None:
        while True:
            if not self._registered.is_set():
                await self._register()
                self._registered.set()
                self._lease_nudge.set()
            await self._up.wait()
            await self._report()
            await _sleep_or(self._nudge, self._timers.status if self._ready else self._timers.not_ready)

    async def _report(self) -> None:
        now = self._wall()
        status = await self._status()
        row = await self._api.node()
        if isinstance(row, Ok):
            self._learn(row.object)
        patch = status_patch(
            known=self._node,
            status=status,
            labels={**self._reporter.labels(), **self._labels},
            annotations=self._annotations,
            heartbeat=not 0
            <= now - self._reported
            < self._timers.report,  # also after the clock was set back
        )
        if patch is None:
            return
        reply = await self._api.patch_node_status(patch)
        if isinstance(reply, Ok):
            self._learn(reply.object)
            self._reported = now
            self._last_problem = ""
            return
        self._complain("reporting the node's status", reply.status)
        if reply.status.code == _NOT_FOUND:
            self._node = {}
            self._registered.clear()
            self._nudge.set()

    async def _status(self) -> dict[str, Any]:
        try:
            self._runtime, network = await self._runtime_version()
            problem = f"container runtime network not ready: {safe_label(network, 200)}" if network else ""
            readiness = Readiness(self._runtime, problem)
        except EdgehiveError as exc:
            problem = f"container runtime is down: {safe_label(str(exc), 200)}"
            readiness = Readiness(self._runtime, problem)
        self._ready = not readiness.problem
        status = self._reporter.status(self._probe.levels(), readiness, self._wall(), address=self._address())
        if self._images is not None:
            try:
                status["images"] = await self._images()
            except EdgehiveError as exc:
                log.debug("the images of this node: %s", safe_label(str(exc), 200))
        if self._plugins is not None:
            self._labels, self._annotations = self._plugins.node_facts(status)
        return status

    # lease

    async def _keep_lease(self) -> None:
        period = self._timers.lease_duration * 0.25
        while True:
            await self._registered.wait()
            await self._up.wait()
            renewed = await self._renew()
            jitter = period * 0.04 * self._rng()
            await _sleep_or(self._lease_nudge, period + jitter if renewed else min(2.0, period))

    async def _renew(self) -> bool:
        if not self._lease:
            reply = await self._api.lease()
            if isinstance(reply, Failed) and reply.status.code == _NOT_FOUND:
                return self._leased(await self._api.create_lease(msgspec.json.encode(self._lease_object())))
            if not self._leased(reply):
                return False
        reply = await self._api.update_lease(msgspec.json.encode(self._lease_object()))
        if isinstance(reply, Failed) and not reply.status.retryable:
            self._lease = {}  # changed or deleted by somebody: read it again
            if reply.status.code in (_NOT_FOUND, _CONFLICT):  # as after a renewal whose answer was lost
                log.debug("the lease is read anew: %s", safe_label(reply.status.message, 300))
                return False
        return self._leased(reply)

    def _leased(self, reply: Reply) -> bool:
        if isinstance(reply, Failed):
            self._complain("renewing the lease", reply.status)
            return False
        try:
            lease = msgspec.json.decode(reply.object) if reply.object else None
        except MALFORMED:
            lease = None
        if isinstance(lease, dict):
            self._lease = lease
        return True

    def _lease_object(self) -> dict[str, Any]:
        name = self._settings.name
        old = self._lease.get("metadata")
        metadata: dict[str, Any] = dict(old) if isinstance(old, dict) else {}
        metadata.pop("managedFields", None)
        metadata |= {"name": name, "namespace": "kube-node-lease"}
        node = self._node.get("metadata")
        uid = node.get("uid") if isinstance(node, dict) else None
        if uid:
            metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]
        return {
            "metadata": metadata,
            "spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": self._timers.lease_duration,
                "renewTime": micro_time(self._wall()),
            },
        }


async def _sleep_or(nudge: asyncio.Event, seconds: float) -> None:
    """Sleep, but not past `nudge`."""
    try:
        async with asyncio.timeout(seconds):
            await nudge.wait()
    except TimeoutError:
        pass
    nudge.clear()
