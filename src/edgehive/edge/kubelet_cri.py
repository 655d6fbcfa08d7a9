"""exec, attach and port forwarding of containers: the runtime's own streaming server does them, we join the bytes."""

from urllib.parse import urlsplit

from edgehive.aio.http import Request, Response
from edgehive.aio.rawhttp import SocketStream, ask
from edgehive.edge.cri import CriRuntime
from edgehive.edge.kubelet_logs import BadQuery
from edgehive.edge.kubelet_streams import streams_of
from edgehive.edge.runtime import ContainerInfo, SandboxInfo
from edgehive.kit.errors import ProtocolError

_PASSED = ("connection", "upgrade", "x-stream-protocol-version", "origin")


class CriStreams:
    """Asks the CRI where to stream, and goes there."""

    def __init__(self, runtime: CriRuntime) -> None:
        self._runtime = runtime

    async def exec(self, request: Request, container: ContainerInfo) -> Response:
        """Run a command; its words are the ``command`` parameters."""
        command = request.query.get("command", [])
        if not command:
            raise BadQuery("you must specify at least 1 command for the container")
        url = await self._runtime.exec_url(container.id, command, **streams_of(request))
        return await _pass_on(request, url)

    async def attach(self, request: Request, container: ContainerInfo) -> Response:
        """Attach to the container's command."""
        url = await self._runtime.attach_url(container.id, **streams_of(request))
        return await _pass_on(request, url)

    async def port_forward(self, request: Request, sandbox: SandboxInfo) -> Response:
        """Forward to ports inside of the sandbox."""
        ports = [int(p) for p in request.query.get("ports", ()) if p.isdigit() and len(p) < 6]
        return await _pass_on(request, await self._runtime.port_forward_url(sandbox.id, ports))


async def _pass_on(request: Request, url: str) -> Response:
    parts = urlsplit(url)
    if parts.hostname is None:
        raise ProtocolError("the container runtime names no streaming address")
    host = "127.0.0.1" if parts.hostname in ("0.0.0.0", "::") else parts.hostname  # noqa: S104 - a comparison
    stream = await SocketStream.connect(host, parts.port or 80)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    headers = [("host", parts.netloc)]
    headers += [
        (name, value)
        for name, value in request.header_list
        if name in _PASSED or name.startswith("sec-websocket-")
    ]
    return (await ask(stream, request.method, target, headers)).response()
