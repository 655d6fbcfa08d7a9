"""The device controller: KubeEdge's module of that name, put together.

It runs only when ``modules.deviceController`` is enabled; then the definitions of devices must be served.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from edgehive.aio.supervise import Service
from edgehive.cloud.config import Devices
from edgehive.cloud.devices import DeviceCaches, DeviceDownstream, DeviceView
from edgehive.cloud.devices_index import DeviceIndex, model_types
from edgehive.cloud.devices_status import DeviceState
from edgehive.cloud.devices_summary import DeviceSummaries
from edgehive.cloud.devices_upstream import DeviceReports
from edgehive.cloud.impersonation import Impersonation
from edgehive.cloud.metrics import Metric, single
from edgehive.kube.api import KubeApi
from edgehive.kube.reflector import Key
from edgehive.wire.devices import is_detail_request, report_answer
from edgehive.wire.message import OK, Message, Stamp
from edgehive.wire.outbound import Outbound


class Nodes(Protocol):
    """The connected nodes."""

    def connected(self, node: str) -> bool:
        """Whether `node` is connected to this instance."""
        ...

    def send(self, node: str, message: Outbound) -> None:
        """Bring `message` to `node`."""
        ...

    def answer(self, node: str, message: Outbound) -> None:
        """Send `message` if `node` is connected; otherwise it is not needed."""
        ...


class DeviceController:
    """Both halves. `view` is needed by the nodes, so that it is there before `connect` gives them."""

    def __init__(
        self, *, api: KubeApi, stamp: Stamp, impersonation: Impersonation, settings: Devices
    ) -> None:
        self._api = api
        self._stamp = stamp
        self._impersonation = impersonation
        self._settings = settings
        self._index = DeviceIndex()
        self.caches: Final = DeviceCaches(api=api)
        self.view: Final = DeviceView(api=api, caches=self.caches, index=self._index)
        self._summaries: DeviceSummaries | None = None
        self._nodes: Nodes
        self._down: DeviceDownstream
        self.reports: DeviceReports

    def connect(self, nodes: Nodes) -> None:
        """Take the nodes, and begin."""
        self._nodes = nodes
        if self._settings.summary:
            self._summaries = DeviceSummaries(
                api=self._api,
                devices=self.caches.devices,
                index=self._index,
                interval=self._settings.summary_interval,
            )
        self.reports = DeviceReports(
            api=self._api,
            index=self._index,
            nodes=nodes,
            stamp=self._stamp,
            impersonation=self._impersonation,
            types=lambda model: model_types(self.caches.models.get(*model)),
            interval=self._settings.status_interval,
            written=self._written,
            found=self._found,
        )
        self._down = DeviceDownstream(
            caches=self.caches,
            view=self.view,
            index=self._index,
            recipients=nodes,
            stamp=self._stamp,
            added=self.reports.device_added,
            gone=self._gone,
        )
        self._down.start()

    def services(self) -> list[Service]:
        """What has to run."""
        services = [Service("device reports", lambda: self.reports.run(self._known))]
        if self._summaries is not None:
            services.append(Service("device summaries", self._summaries.run))
        return services

    def receive(self, node: str, message: Message) -> None:
        """Take a message of devicetwin off a connection."""
        if is_detail_request(message):
            self._nodes.answer(node, report_answer(message.id, OK, stamp=self._stamp))
            self._down.send_detail(node)
        else:
            self.reports.receive(node, message)

    def node_connected(self, node: str) -> None:
        """A node has connected."""
        self._down.node_connected(node)

    def metrics(self) -> Iterable[Metric]:
        """Counters and gauges."""
        stats = self.reports.stats
        refused = {
            'reason="malformed"': stats.malformed,
            'reason="unknown_device"': stats.unknown,
            'reason="foreign_device"': stats.foreign,
            'reason="overflow"': stats.overflowed,
            'reason="api_server"': stats.refused,
        }
        yield single("edgehive_devices", "gauge", "Devices in the cluster", len(self._index))
        yield single("edgehive_device_reports_total", "counter", "Reports of devices", stats.reports)
        yield single(
            "edgehive_device_reports_stored_total", "counter", "Reports stored and answered", stats.answered
        )
        yield Metric(
            "edgehive_device_reports_refused_total",
            "counter",
            "Reports that were not taken, by reason",
            {reason: float(count) for reason, count in refused.items()},
        )
        yield single(
            "edgehive_device_foreign_properties_total",
            "counter",
            "Values of properties that the device does not have",
            stats.properties,
        )
        yield single("edgehive_device_status_writes_total", "counter", "Writes of DeviceStatus", stats.writes)
        yield single(
            "edgehive_device_status_failures_total",
            "counter",
            "Writes of DeviceStatus that failed and are repeated",
            stats.failures,
        )
        yield single(
            "edgehive_device_status_pending", "gauge", "Devices with something to write", self.reports.pending
        )
        if self._summaries is not None:
            yield single(
                "edgehive_device_summary_writes_total",
                "counter",
                "Summaries written into Device.status",
                self._summaries.stats.writes,
            )

    async def _known(self) -> Iterable[Key]:
        for informer in self.caches.all():
            await informer.synced()
        return [device.key for device in self.caches.devices.items()]

    def _written(self, key: Key, state: DeviceState) -> None:
        if self._summaries is not None:
            self._summaries.note(key, state)

    def _found(self, key: Key, state: DeviceState) -> None:
        if self._summaries is not None:
            self._summaries.check(key, state)

    def _gone(self, key: Key) -> None:
        self.reports.device_gone(key)
        if self._summaries is not None:
            self._summaries.forget(key)
