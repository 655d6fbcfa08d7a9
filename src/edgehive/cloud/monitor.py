"""The monitor port: metrics, liveness, readiness."""

import resource
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgehive.aio.http import Request, Response
from edgehive.cloud.access import AccessAudit
from edgehive.cloud.devicecontroller import DeviceController
from edgehive.cloud.https import EnrollmentApi
from edgehive.cloud.hub import CloudHub
from edgehive.cloud.metrics import Histogram, Metric, render, single
from edgehive.cloud.node_stats import LATENCY_BUCKETS
from edgehive.cloud.nodes import NodeTable
from edgehive.cloud.policycontroller import PolicyController
from edgehive.cloud.synccontroller import SyncController
from edgehive.cloud.upstream import EdgeController
from edgehive.cloud.world import SyncRecords
from edgehive.wire.objectsync import SyncWriter

_TEXT = {"content-type": "text/plain; charset=utf-8"}
_JSON = {"content-type": "application/json"}
_PROMETHEUS = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}


class Monitor:
    """Answers requests; serve `handle` with an `aio.http.HttpServer`."""

    def __init__(
        self,
        *,
        collect: Callable[[], Iterable[Metric | Histogram]],
        lacking: Callable[[], Sequence[str]],
        trace: Callable[[str, str, str], dict[str, Any]] = lambda kind, namespace, name: {},
    ) -> None:
        """Wire up; `lacking` names what is not ready yet, `trace` finds an object by kind, namespace and name."""
        self._collect = collect
        self._lacking = lacking
        self._trace = trace

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"method not allowed\n", {**_TEXT, "allow": "GET"})
        match request.path:
            case "/metrics":
                return Response(200, render(self._collect()), dict(_PROMETHEUS))
            case "/healthz" | "/livez":
                return Response(200, b"ok", dict(_TEXT))
            case "/readyz":
                lacking = self._lacking()
                if not lacking:
                    return Response(200, b"ok", dict(_TEXT))
                lines = "".join(f"[-] {what}\n" for what in lacking)
                return Response(503, lines.encode(), dict(_TEXT))
            case "/debug/trace":
                return self._answer_trace(request)
            case _:
                return Response(404, b"not found\n", dict(_TEXT))

    def _answer_trace(self, request: Request) -> Response:
        kind, namespace, name = (request.query.get(key, [""])[0] for key in ("kind", "namespace", "name"))
        if not kind or not name:
            return Response(400, b"kind and name are needed\n", dict(_TEXT))
        return Response(200, msgspec.json.encode(self._trace(kind, namespace, name)), dict(_JSON))


class CloudMetrics:
    """Gathers the numbers of all parts."""

    def __init__(
        self,
        *,
        nodes: NodeTable,
        hub: CloudHub | None,
        enrollment: EnrollmentApi | None,
        controller: EdgeController,
        sync: SyncController,
        writer: SyncWriter,
        records: SyncRecords,
        audit: AccessAudit | None = None,
        devices: DeviceController | None = None,
        policy: PolicyController | None = None,
    ) -> None:
        self._nodes = nodes
        self._hub = hub
        self._enrollment = enrollment
        self._controller = controller
        self._sync = sync
        self._writer = writer
        self._records = records
        self._audit = audit
        self._devices = devices
        self._policy = policy

    def collect(self) -> Iterable[Metric | Histogram]:
        """Every metric."""
        yield single(
            "KubeEdge_CloudHub_connected_nodes",
            "gauge",
            "Number of nodes that connected to the cloudHub instance",
            self._nodes.connected_nodes,
        )
        yield from self._deliveries()
        yield from self._connections()
        yield from self._requests()
        if self._devices is not None:
            yield from self._devices.metrics()
        if self._policy is not None:
            yield from self._policy.metrics()
        yield from _process()

    def _deliveries(self) -> Iterable[Metric | Histogram]:
        depth = in_flight = waiting = resends = dropped = pending = 0
        for link in self._nodes.links():
            pool = link.session.pool
            depth += pool.depth
            in_flight += pool.in_flight
            waiting += pool.waiting
            resends += pool.stats.resent
            dropped += pool.stats.dropped
            pending += len(link.upstream)
        stats = self._nodes.stats
        yield single("edgehive_hub_queue_depth", "gauge", "Objects waiting for or in delivery", depth)
        yield single("edgehive_hub_in_flight", "gauge", "Objects sent and not acknowledged", in_flight)
        yield single("edgehive_hub_unacked_waiting", "gauge", "Fire-once messages not yet written", waiting)
        yield single("edgehive_hub_resends_total", "counter", "Messages sent again", stats.resends + resends)
        yield single(
            "edgehive_hub_dropped_total", "counter", "Fire-once messages dropped", stats.dropped + dropped
        )
        yield single(
            "edgehive_hub_forgotten_total",
            "counter",
            "Absent nodes whose backlog made room for others'",
            stats.forgotten,
        )
        yield single("edgehive_hub_given_up_total", "counter", "Answers nobody took", stats.given_up)
        yield single("edgehive_upstream_pending", "gauge", "Requests of edges being worked on", pending)
        yield Histogram(
            "edgehive_hub_ack_latency_seconds",
            "Time from the first send of a message to its acknowledgement",
            LATENCY_BUCKETS,
            tuple(stats.latency),
            stats.latency_sum,
        )

    def _connections(self) -> Iterable[Metric]:
        stats, link = self._nodes.stats, self._nodes.link_stats
        yield single("edgehive_hub_connects_total", "counter", "Connections of nodes", stats.connects)
        yield single(
            "edgehive_hub_replaced_total", "counter", "Connections replaced by newer ones", stats.replaced
        )
        yield single(
            "edgehive_hub_stalled_total", "counter", "Connections whose edge did not read", link.stalled
        )
        if self._hub is not None:
            hub = self._hub.stats
            yield single("edgehive_hub_refused_total", "counter", "Refused connections", hub.refused)
            gate = self._hub.gate
            yield single("edgehive_hub_entering", "gauge", "Connections on their way in", gate.entering)
            yield single(
                "edgehive_hub_entering_most", "gauge", "Most connections on their way in at once", gate.most
            )
            yield single(
                "edgehive_hub_outside",
                "gauge",
                "Connections that are silent or dawdle before they are in",
                gate.outside,
            )
            yield single(
                "edgehive_hub_outside_dropped_total",
                "counter",
                "Connections of those that made room for others",
                gate.dropped,
            )
            yield single(
                "edgehive_hub_late_total",
                "counter",
                "Connections whose edge had given up before their turn",
                gate.late,
            )
            yield single(
                "edgehive_hub_handshakes_failed_total",
                "counter",
                "Connections that came to nothing on their way in",
                gate.failed,
            )
            yield single(
                "edgehive_hub_malformed_total", "counter", "Frames that were no message", hub.malformed
            )
        yield single("edgehive_hub_denied_total", "counter", "Messages about other nodes", stats.denied)
        yield single(
            "edgehive_hub_edge_failures_total", "counter", "Failures edges reported", stats.edge_failures
        )
        frames = {'direction="in"': float(link.frames_in), 'direction="out"': float(link.frames_out)}
        sizes = {'direction="in"': float(link.bytes_in), 'direction="out"': float(link.bytes_out)}
        yield Metric("edgehive_hub_frames_total", "counter", "Messages on the wire", frames)
        yield Metric("edgehive_hub_bytes_total", "counter", "Bytes of messages on the wire", sizes)

    def _requests(self) -> Iterable[Metric]:
        upstream, writer = self._controller.stats, self._writer.stats
        yield single("edgehive_upstream_requests_total", "counter", "Requests of edges", upstream.requests)
        yield single(
            "edgehive_upstream_failures_total",
            "counter",
            "Requests answered with an error",
            upstream.failures,
        )
        yield single(
            "edgehive_upstream_unknown_total", "counter", "Requests that are not known", upstream.unknown
        )
        yield single(
            "edgehive_sync_records", "gauge", "ObjectSync records in the cluster", len(self._records)
        )
        yield single("edgehive_sync_planned", "gauge", "Records still to be written", self._writer.depth)
        yield single(
            "edgehive_sync_acknowledged_total", "counter", "Acknowledgements to record", writer.acknowledged
        )
        yield single(
            "edgehive_sync_unrecorded_total",
            "counter",
            "Acknowledgements left to the node itself to tell",
            writer.unrecorded,
        )
        yield single(
            "edgehive_sync_requests_total", "counter", "Requests made to record them", self._sync.requests
        )
        yield single("edgehive_sync_failures_total", "counter", "Record writes that failed", writer.failures)
        if self._audit is not None:
            audit = self._audit.stats
            yield single(
                "edgehive_authorization_reviewed_total",
                "counter",
                "Requests of edges reviewed",
                audit.reviewed,
            )
            yield single(
                "edgehive_authorization_refusable_total",
                "counter",
                "Requests that enforced authorization would have refused",
                audit.refusable,
            )
            yield single(
                "edgehive_authorization_skipped_total",
                "counter",
                "Requests that could not be reviewed",
                audit.skipped,
            )
        if self._enrollment is not None:
            yield single(
                "edgehive_certificates_issued_total",
                "counter",
                "Signed certificates",
                self._enrollment.issued,
            )
            yield single(
                "edgehive_certificates_refused_total",
                "counter",
                "Refused certificate requests",
                self._enrollment.refused,
            )
            yield single(
                "edgehive_old_reports_total",
                "counter",
                "Reports that edges before v1.16 sent over HTTPS",
                self._enrollment.reports,
            )


def _process() -> Iterable[Metric]:
    yield single(
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        time.process_time(),
    )
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return
    yield single(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory size in bytes.",
        pages * resource.getpagesize(),
    )
