"""Carrying out probe and hook handlers: a command in the container, HTTP, TCP, gRPC health."""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from typing import Any

from edgehive.aio.protobuf import decode, encode, message
from edgehive.edge.pods_spec import Container, JsonObject
from edgehive.edge.runtime import Runtime, RuntimeFailure
from edgehive.kit.errors import EdgehiveError, ProtocolError, Unreachable

_HEALTH_REQUEST = message("HealthCheckRequest", (1, "service", "string"))
_HEALTH_RESPONSE = message("HealthCheckResponse", (1, "status", "int"))
_SERVING = 1
_MAX_TEXT = 10 << 10


class HandlerFailed(EdgehiveError):
    """The handler said no; the text is for an event."""


async def run_handler(
    handler: Mapping[str, JsonObject],
    *,
    runtime: Runtime,
    container: Container,
    container_id: str,
    pod_ip: str,
    timeout: float,
) -> None:
    """Carry out one handler.

    Raises:
        HandlerFailed: It failed, or took too long.
        Unreachable: The runtime is away, so nothing is known.
    """
    try:
        async with asyncio.timeout(timeout):
            if "exec" in handler:
                await _exec(handler["exec"], runtime, container_id, timeout)
            elif "httpGet" in handler:
                await _http(handler["httpGet"], container, pod_ip)
            elif "tcpSocket" in handler:
                settings = handler["tcpSocket"]
                await _tcp(str(settings.get("host") or pod_ip), _port(settings, container))
            elif "grpc" in handler:
                await _grpc(handler["grpc"], pod_ip, timeout)
            elif "sleep" in handler:
                await asyncio.sleep(float(handler["sleep"].get("seconds", 0)))
    except TimeoutError as exc:
        raise HandlerFailed(f"timed out after {timeout:g} s") from exc
    except OSError as exc:
        raise HandlerFailed(str(exc)) from exc


async def _exec(settings: JsonObject, runtime: Runtime, container_id: str, timeout: float) -> None:
    command = [str(word) for word in settings.get("command") or ()]
    try:
        result = await runtime.exec_sync(container_id, command, timeout)
    except RuntimeFailure as exc:
        raise HandlerFailed(exc.message) from exc
    if result.exit_code != 0:
        text = (result.stdout + result.stderr)[:_MAX_TEXT].decode(errors="replace").strip()
        raise HandlerFailed(text or f"exit code {result.exit_code}")


async def _tcp(host: str, port: int) -> None:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _http(settings: JsonObject, container: Container, pod_ip: str) -> None:
    host, port = str(settings.get("host") or pod_ip), _port(settings, container)
    context: ssl.SSLContext | None = None
    if str(settings.get("scheme", "HTTP")).upper() == "HTTPS":
        context = ssl.create_default_context()
        context.check_hostname = False  # a probe asks whether it answers, not who it is; as the kubelet
        context.verify_mode = ssl.CERT_NONE
    headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/edgehive", "Accept": "*/*"}
    for one in settings.get("httpHeaders") or ():
        headers[str(one.get("name", ""))] = str(one.get("value", ""))
    path = str(settings.get("path") or "/")
    lines = [f"GET {path if path.startswith('/') else '/' + path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()] + ["Connection: close"]
    if any("\r" in line or "\n" in line for line in lines):
        raise HandlerFailed("a header or path of the probe has a line break")
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=_MAX_TEXT)
    try:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        status = (await reader.readline()).decode("latin-1").split(" ", 2)
    except ValueError as exc:
        raise HandlerFailed("not an HTTP answer") from exc
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
    code = int(status[1]) if len(status) > 1 and status[1].isdigit() else 0
    if not 200 <= code < 400:
        raise HandlerFailed(f"HTTP probe failed with statuscode: {code}" if code else "not an HTTP answer")


async def _grpc(settings: JsonObject, pod_ip: str, timeout: float) -> None:
    from edgehive.aio.grpc import GrpcClient, GrpcError  # a node of processes has no other use for HTTP/2

    client = GrpcClient(pod_ip, port=int(settings.get("port", 0)), connect_timeout=timeout)
    try:
        request = encode(_HEALTH_REQUEST, {"service": str(settings.get("service") or "")})
        raw = await client.call("/grpc.health.v1.Health/Check", request, timeout=timeout)
        status: Any = decode(_HEALTH_RESPONSE, raw).get("status", 0)
    except (GrpcError, Unreachable, ProtocolError) as exc:
        raise HandlerFailed(str(exc)) from exc
    finally:
        await client.close()
    if status != _SERVING:
        raise HandlerFailed(f"service is not serving (status {status})")


def _port(settings: JsonObject, container: Container) -> int:
    wanted = settings.get("port", 0)
    if isinstance(wanted, int):
        return wanted
    for port in container.ports:
        if port.name == wanted:
            return port.container_port
    if str(wanted).isdigit():
        return int(str(wanted))
    raise HandlerFailed(f"the container has no port named {wanted!r}")
