"""Pushing values to an OpenTelemetry collector: OTLP over HTTP by OpenTelemetry's own exporter.

A gauge of the property's name, of a resource with the attribute ``device.id``, as in mapper-framework. (There a fault in
the dispatch keeps it from ever being sent.)
"""

import asyncio
import logging
from typing import Any

from edgehive.kit.errors import EdgehiveError, Unreachable
from edgehive.mapper.model import PushTarget
from edgehive.mapper.push_clients import Unsupported
from edgehive.mapper.worker import Reading

_SECONDS = 5.0


class OtelSender:
    """Sends numbers and booleans as gauges."""

    def __init__(self, target: PushTarget) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
            from opentelemetry.sdk.metrics import export
        except ImportError as exc:
            raise Unsupported(
                "pushMethod.otel needs the exporter: pip install 'edgehive[mapper-otel]'"
            ) from exc
        url = str(target.options.get("endpointURL", ""))
        if not url.startswith(("http://", "https://")):
            raise Unsupported("pushMethod.otel.endpointURL is not an http:// or https:// address")
        self._export = export
        # The receiver says once that it cannot send; the exporter would say it with every value.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._exporter = OTLPMetricExporter(endpoint=url, timeout=_SECONDS)

    async def send(self, reading: Reading) -> None:
        if not isinstance(reading.value, bool | int | float):
            raise EdgehiveError(f"{reading.prop.name} is no number, OpenTelemetry has no metric for it")
        result = await asyncio.to_thread(self._exporter.export, self.metrics(reading))
        if result is not self._export.MetricExportResult.SUCCESS:
            raise Unreachable("the collector does not take the value")

    def metrics(self, reading: Reading) -> Any:
        """The value as the exporter wants it."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        export, at = self._export, int(reading.at * 1e9)
        value = int(reading.value) if isinstance(reading.value, bool) else reading.value
        point = export.NumberDataPoint(attributes={}, start_time_unix_nano=at, time_unix_nano=at, value=value)
        metric = export.Metric(
            name=reading.prop.name,
            description=reading.prop.description,
            unit=reading.prop.unit,
            data=export.Gauge(data_points=[point]),
        )
        scope = export.ScopeMetrics(InstrumentationScope("edgehive.mapper"), [metric], "")
        resource = Resource({"device.id": reading.device.id, "service.name": "edgehive-mapper"})
        return export.MetricsData([export.ResourceMetrics(resource, [scope], "")])

    async def close(self) -> None:
        """Let go of the connection."""
        await asyncio.to_thread(self._exporter.shutdown)
