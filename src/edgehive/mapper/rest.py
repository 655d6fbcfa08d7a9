"""The REST API of KubeEdge's mapper-framework, and the metrics, on one port."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from edgehive.aio.http import Request, Response
from edgehive.kit.errors import EdgehiveError
from edgehive.mapper.driver import DeviceError
from edgehive.mapper.push import PushHub
from edgehive.mapper.push_clients import json_model
from edgehive.mapper.service import MapperService
from edgehive.mapper.values import ValueProblem
from edgehive.mapper.worker import ONLINE, DeviceWorker

_PREFIX = "/api/v1/"
_HISTORY = 100  # values of each property that a database is asked for
_HISTORY_SECONDS = 15.0


class RestApi:
    """Answers requests about the devices of one mapper; the framework uses GET for everything, also for writing."""

    def __init__(
        self,
        service: MapperService,
        *,
        pushes: PushHub | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._service = service
        self._pushes = pushes
        self._wall = wall

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        if request.method != "GET":
            return self._answer(request, 405, Message="only GET is served")
        if request.path == "/metrics":
            return Response(200, self._metrics().encode(), {"content-type": "text/plain; version=0.0.4"})
        if request.path == "/healthz":
            return self._health()
        parts = request.path.removeprefix(_PREFIX).split("/") if request.path.startswith(_PREFIX) else []
        match parts:
            case ["ping"]:
                return self._answer(request, 200, Message="This is API v1, the server is running normally.")
            case ["device", namespace, name, prop]:
                return self._value(request, namespace, name, prop)
            case ["devicemethod", namespace, name]:
                return self._device_methods(request, namespace, name)
            case ["devicemethod", namespace, name, method, prop, data]:
                return await self._call(request, (namespace, name), method, prop, data)
            case ["meta", "model", namespace, name]:
                return self._model(request, namespace, name)
            case ["database", namespace, name]:
                return await self._history(request, namespace, name)
            case _:
                return self._answer(request, 404, Message="there is no such resource")

    def _answer(self, request: Request, status: int, **fields: Any) -> Response:
        stamp = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {"apiVersion": "v1", "statusCode": status, "timeStamp": stamp, **fields}
        headers = {"content-type": "application/json"}
        if correlation := request.headers.get("x-correlation-id"):
            headers["X-Correlation-ID"] = "".join(c for c in correlation[:128] if c.isprintable())
        return Response(status, json.dumps(body).encode(), headers)

    def _value(self, request: Request, namespace: str, name: str, prop: str) -> Response:
        worker = self._service.worker(namespace, name)
        if worker is None or prop not in worker.device.properties:
            return self._answer(request, 404, Message=f"there is no property {prop} of {namespace}/{name}")
        reading = worker.reading(prop)
        if reading is None or worker.state != ONLINE:
            return self._answer(request, 503, Message=worker.error or "no value has been read yet")
        return self._answer(request, 200, Data=json_model(reading))

    def _device_methods(self, request: Request, namespace: str, name: str) -> Response:
        worker = self._service.worker(namespace, name)
        if worker is None:
            return self._answer(request, 404, Message=f"there is no device {namespace}/{name}")
        base = f"{_PREFIX}devicemethod/{namespace}/{name}"
        methods = [
            {
                "Name": method.name,
                "Path": f"{base}/{method.name}/{{propertyName}}/{{data}}",
                "Parameters": [
                    {"PropertyName": p, "ValueType": worker.device.properties[p].type.lower()}
                    for p in method.properties
                    if p in worker.device.properties
                ],
            }
            for method in worker.device.methods.values()
        ]
        return self._answer(request, 200, Data={"Methods": methods})

    async def _call(
        self, request: Request, device: tuple[str, str], method: str, prop: str, data: str
    ) -> Response:
        worker = self._service.worker(*device)
        if worker is None:
            return self._answer(request, 404, Message=f"there is no device {'/'.join(device)}")
        try:
            await worker.call_method(method, prop, data)
        except ValueProblem as exc:
            return self._answer(request, 400, Message=str(exc))
        except DeviceError as exc:
            return self._answer(request, 500, Message=str(exc))
        return self._answer(request, 200, Message=f"Write data to device {'/'.join(device)} successfully.")

    async def _history(self, request: Request, namespace: str, name: str) -> Response:
        worker = self._service.worker(namespace, name)
        if worker is None:
            return self._answer(request, 404, Message=f"there is no device {namespace}/{name}")
        try:
            async with asyncio.timeout(_HISTORY_SECONDS):
                rows = await self._pushes.history(worker.device, _HISTORY) if self._pushes else None
        except (EdgehiveError, TimeoutError) as exc:
            return self._answer(request, 503, Message=f"the database does not answer: {exc}")
        if rows is None:
            return self._answer(request, 503, Message="there is no database to read from")
        return self._answer(request, 200, Data=rows)

    def _model(self, request: Request, namespace: str, name: str) -> Response:
        worker = self._service.worker(namespace, name)
        model = self._service.model(namespace, worker.device.model if worker else name)
        if model is None:
            return self._answer(request, 404, Message=f"there is no model for {namespace}/{name}")
        rows = [
            {
                "Name": row.get("name", ""),
                "DataType": row.get("type", ""),
                "Description": row.get("description", ""),
                "AccessMode": row.get("accessMode", ""),
                "Minimum": row.get("minimum", ""),
                "Maximum": row.get("maximum", ""),
                "Unit": row.get("unit", ""),
            }
            for row in model.get("spec", {}).get("properties", [])
        ]
        return self._answer(
            request, 200, Name=model.get("name"), Namespace=model.get("namespace"), ModelProperties=rows
        )

    def _health(self) -> Response:
        if not self._service.registered:
            return Response(503, b"not registered with edgecore\n", {"content-type": "text/plain"})
        return Response(200, b"ok\n", {"content-type": "text/plain"})

    def _metrics(self) -> str:
        service = self._service
        workers = service.workers
        single = {
            "mapper_registered": int(service.registered),
            "mapper_registrations_total": service.registrations,
            "mapper_reports_total": service.reports,
            "mapper_report_errors_total": service.report_errors,
            "mapper_devices": len(workers),
            "mapper_devices_online": sum(worker.state == ONLINE for worker in workers),
        }
        lines = [f"{name} {value}" for name, value in single.items()]
        counts = self._pushes.counts() if self._pushes is not None else {}
        for index, result in enumerate(("sent", "failed", "dropped")):
            lines += [
                f'mapper_pushes_total{{method="{kind}",result="{result}"}} {numbers[index]}'
                for kind, numbers in counts.items()
            ]
        for field in ("reads", "read_errors", "writes", "write_errors", "connects"):
            lines += [
                f'mapper_device_{field}_total{{device="{_label(worker)}"}} {getattr(worker.counters, field)}'
                for worker in workers
            ]
        return "\n".join(lines) + "\n"


def _label(worker: DeviceWorker) -> str:
    return worker.device.id.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
