"""Devices for end-to-end tests: an HTTP device in this process, its objects, and a mapper that can be killed."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_API = "devices.kubeedge.io/v1beta1"


@dataclass
class HttpDevice:
    """A counter that others read and a level that others set; it remembers every level it was given."""

    counter: int = 0
    level: int = 0
    written: list[int] = field(default_factory=list)
    port: int = 0

    @contextlib.contextmanager
    def running(self) -> Iterator["HttpDevice"]:
        """Serve it."""
        device = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer({"counter": device.counter, "level": device.level})

            def do_PUT(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                device.level = body["level"]
                device.written.append(device.level)
                self._answer({})

            def _answer(self, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def http_model(name: str) -> dict[str, Any]:
    """The model of an `HttpDevice`."""
    return {
        "apiVersion": _API,
        "kind": "DeviceModel",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "protocol": "http",
            "properties": [
                {
                    "name": "level",
                    "type": "INT",
                    "accessMode": "ReadWrite",
                    "minimum": "0",
                    "maximum": "1000",
                },
                {"name": "counter", "type": "INT", "accessMode": "ReadOnly"},
            ],
        },
    }


def http_object(name: str, node: str, port: int, level: int) -> dict[str, Any]:
    """The Device of an `HttpDevice`; the level is its first property."""

    def prop(of: str, **more: Any) -> dict[str, Any]:
        data = {"path": "state", "pointer": f"/{of}"}
        if of == "level":
            data["writeTemplate"] = '{"level": $value}'
        return {
            "name": of,
            "collectCycle": 100,
            "reportCycle": 100,
            "reportToCloud": True,
            "visitors": {"protocolName": "http", "configData": data},
            **more,
        }

    return {
        "apiVersion": _API,
        "kind": "Device",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "deviceModelRef": {"name": name},
            "nodeName": node,
            "protocol": {"protocolName": "http", "configData": {"url": f"http://127.0.0.1:{port}/"}},
            "properties": [prop("level", desired={"value": str(level)}), prop("counter")],
        },
    }


def mqtt_objects(name: str, node: str, target: int) -> list[dict[str, Any]]:
    """Model and Device of something that speaks MQTT itself and has no mapper: `power` is read, `target` is set."""
    rows = [{"name": of, "type": "INT", "accessMode": "ReadWrite"} for of in ("target", "power")]
    properties: list[dict[str, Any]] = [{"name": of, "reportToCloud": True} for of in ("target", "power")]
    properties[0]["desired"] = {"value": str(target)}
    head = {"apiVersion": _API, "metadata": {"name": name, "namespace": "default"}}
    spec = {"deviceModelRef": {"name": name}, "nodeName": node, "properties": properties}
    return [
        {**head, "kind": "DeviceModel", "spec": {"protocol": "native", "properties": rows}},
        {**head, "kind": "Device", "spec": {**spec, "protocol": {"protocolName": "native"}}},
    ]


@dataclass
class MapperProcess:
    """A mapper that ships, as a process of its own."""

    kind: str
    sockets: Path
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "edgehive", "mapper", "run", self.kind, "--http-port", "0"]
        command += ["--socket", str(self.sockets / f"{self.kind}.sock")]
        command += ["--edgecore-sock", str(self.sockets / "dmi.sock")]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        """Kill it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def twins_of(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Reported and desired value of each property in a DeviceStatus."""
    return {
        twin["propertyName"]: (
            twin.get("reported", {}).get("value", ""),
            twin.get("observedDesired", {}).get("value", ""),
        )
        for twin in status.get("status", {}).get("twins", [])
    }
