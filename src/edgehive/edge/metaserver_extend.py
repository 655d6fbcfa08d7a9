"""What MetaServer does on this node itself, without any cloud: logs, commands, restarts, letting held pods in.

KubeEdge answers logs and commands in JSON of its own, which ``keadm ctl`` reads. Kubernetes' clients are answered as
Kubernetes answers: a log as text to everybody but keadm, a command as a stream to whoever asks for an upgrade.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import urlencode

import msgspec

from edgehive.aio.http import Request, Response
from edgehive.apiserver.paths import Target
from edgehive.edge.runtime import ContainerInfo, Runtime, State
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label
from edgehive.kube.meta import decode_partial
from edgehive.kube.status import ApiStatus, bad_request, not_found

log = logging.getLogger(__name__)

_STOP_GRACE = 3.0  # seconds, as in KubeEdge
_EXEC_TIME = 10.0
_MOST_PODS = 256
_JSON = {"content-type": "application/json"}
_NAME_LIMIT = 1024
_DEVICES = ("devices.kubeedge.io", "devices")
_STREAMS = {"exec": "exec", "attach": "attach", "portforward": "portForward"}
_SHORT = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
_REASONS = {400: "BadRequest", 403: "Forbidden", 404: "NotFound"}


class Kubelet(Protocol):
    """The kubelet's own API (`edge.kubelet_api.KubeletApi`)."""

    async def answer(self, request: Request) -> Response | None: ...


SetDevice = Callable[[str, str, bytes], Awaitable[bool]]
"""Gives the device twin an edited object (namespace, name, JSON); False when there is no such device here."""


@dataclass(frozen=True, slots=True)
class LocalPods:
    """What edged does for MetaServer; `kubelet` is made when it is first asked for."""

    kubelet: Callable[[], Kubelet]
    release: Callable[[str, str], list[str]]
    """Starts the held pod of a namespace and name, or all; returns which."""


class Extensions:
    """Answers what is done on this node; None for what is not."""

    def __init__(
        self,
        *,
        runtime: Runtime | None,
        pod: Callable[[str, str], bytes | None],
        node: str = "",
        local: LocalPods | None = None,
        device: SetDevice | None = None,
    ) -> None:
        self._device = device
        self._runtime = runtime
        self._pod = pod
        self._node = node
        self._local = local
        self._kubelet: Kubelet | None = None

    async def answer(self, request: Request, target: Target, verb: str) -> Response | None:
        """Answer what is done here; raises `ApiStatus`."""
        if (target.group, target.resource) == _DEVICES and verb == "update" and not target.subresource:
            return await self._edit_device(request, target)
        if target.group or target.version != "v1":
            return None
        if target.resource == "pods" and target.name and not target.rest:
            if target.subresource == "log" and verb == "get":
                return await self._log(request, target)
            # Only POST is a command in KubeEdge; Kubernetes' clients with WebSockets use GET.
            if target.subresource in _STREAMS and (verb == "create" or "upgrade" in request.headers):
                return await self._stream(request, target)
        if verb != "create":
            return None
        if target.resource == "pods" and target.name == "restart" and not target.subresource:
            return _respond(await self._restart(target.namespace, await request.body()))
        if target.name == "unhold-upgrade" and not target.subresource:
            return self._unhold(target, await request.body(_NAME_LIMIT))
        if target.name == "confirm-upgrade" or "confirm-upgrade" in (target.resource, target.subresource):
            return Response(
                400, b"there are no valid upgrade tasks to execute\n", {"content-type": "text/plain"}
            )
        return None

    async def _restart(self, namespace: str, body: bytes) -> dict[str, Any]:
        try:
            names = msgspec.json.decode(body, type=list[str])
        except MALFORMED as exc:
            raise bad_request("the body must be an array of names of pods") from exc
        if len(names) > _MOST_PODS:
            raise bad_request(f"at most {_MOST_PODS} pods at once")
        errors, done = [], []
        for name in names:
            try:
                for container in await self._containers(namespace, name):
                    await self._need().stop_container(container.id, _STOP_GRACE)
                done.append(f"{namespace}/{name}")
                log.info("restarting pod %s/%s, as asked", safe_label(namespace), safe_label(name))
            except EdgehiveError as exc:
                errors.append(f"{namespace}/{name}: {exc}")
        return {"errMessages": errors, "LogMessages": done}

    async def _edit_device(self, request: Request, target: Target) -> Response | None:
        """``keadm ctl edit device``: for this node's twin and mappers, at once; other clients write to the cluster."""
        if self._device is None or not request.headers.get("user-agent", "").startswith("keadm"):
            return None
        body = await request.body()
        try:
            meta = decode_partial(body).metadata
        except MALFORMED as exc:
            raise bad_request("the body must be a Device") from exc
        if (meta.namespace or target.namespace, meta.name) != (target.namespace, target.name):
            raise bad_request("the body is another device than the path names")
        if not await self._device(target.namespace, target.name, body):
            raise not_found("devices", target.name, target.group)
        return Response(200, b"OK", dict(_JSON))

    # logs and streams, by the kubelet's own API

    async def _log(self, request: Request, target: Target) -> Response | None:
        if self._pod(target.namespace, target.name) is None:
            return None  # not of this node: the cloud knows
        container = await self._container(request, target, running=False)
        path = f"/containerLogs/{target.namespace}/{target.name}/{container}"
        answer = await self._ask_kubelet(request, path, request.raw_query)
        as_json = request.headers.get("user-agent", "").startswith("keadm") and not request.flag("follow")
        if not as_json or answer.stream is None:
            return answer
        text = b"".join([chunk async for chunk in answer.stream])
        return _respond({"errMessages": [], "logMessages": _lines(text)})

    async def _stream(self, request: Request, target: Target) -> Response | None:
        if self._pod(target.namespace, target.name) is None:
            return None
        if "upgrade" not in request.headers:
            return _respond(await self._exec(request, target)) if target.subresource == "exec" else None
        path = f"/{_STREAMS[target.subresource]}/{target.namespace}/{target.name}"
        if target.subresource != "portforward":
            path += "/" + await self._container(request, target, running=True)
        query = [(short, "1") for name, short in _SHORT.items() if request.flag(name)]
        query += [("command", word) for word in request.query.get("command") or ()]
        query += [("port", port) for port in request.query.get("ports") or ()]
        return await self._ask_kubelet(request, path, urlencode(query))

    async def _container(self, request: Request, target: Target, *, running: bool) -> str:
        """The container that is meant: the one named, or the pod's only or first one."""
        raw = self._pod(target.namespace, target.name)
        spec = msgspec.json.decode(raw or b"{}", type=_Pod).spec
        names = [container.name for container in spec.containers]
        wanted = request.param("container") or (names[0] if names else "")
        known = {*names, *(c.name for c in (*spec.init_containers, *spec.ephemeral_containers))}
        if wanted not in known:
            raise bad_request(
                f"container {safe_label(wanted)} is not valid for pod {safe_label(target.name)}"
            )
        return wanted

    async def _ask_kubelet(self, request: Request, path: str, query: str) -> Response:
        if self._local is None:
            raise ApiStatus(503, "ServiceUnavailable", "this edge runs no pods")
        if self._kubelet is None:
            self._kubelet = self._local.kubelet()
        # Whoever got this far may do it, wherever he asks from.
        inner = replace(request, path=path, raw_path=path, raw_query=query, remote="127.0.0.1:0", _query=None)
        answer = await self._kubelet.answer(inner)
        if answer is None:
            raise ApiStatus(404, "NotFound", "the server could not find the requested resource")
        if answer.status >= 400:
            text = answer.body.decode("utf-8", "replace").strip()
            raise ApiStatus(answer.status, _REASONS.get(answer.status, "InternalError"), text)
        return answer

    def _unhold(self, target: Target, body: bytes) -> Response:
        name = body.decode("utf-8", "replace").strip()
        if self._local is None:
            raise ApiStatus(503, "ServiceUnavailable", "this edge runs no pods")
        if target.resource == "nodes":
            if name != self._node:
                raise bad_request(f"{safe_label(name)} is not this node")
            self._local.release("", "")
        elif target.resource == "pods":
            namespace, slash, pod = name.partition("/")
            if not (namespace and slash and pod):
                raise bad_request("the body must be NAMESPACE/NAME")
            if not self._local.release(namespace, pod):
                raise not_found("pods", pod)
        else:
            raise bad_request("unsupported resource for unhold-upgrade")
        log.info("let in what was held: %s %s", target.resource, safe_label(name))
        return Response(200, b"", {"content-type": "text/plain"})

    async def _exec(self, request: Request, target: Target) -> dict[str, Any]:
        command = request.query.get("command") or []
        if not command:
            raise bad_request("command is missing")
        if request.flag("tty"):
            raise bad_request("a terminal needs a connection that can be upgraded")
        wanted = request.param("container")
        containers = await self._containers(target.namespace, target.name)
        found = [c for c in containers if not wanted or c.name == wanted]
        if not found:
            raise bad_request(f"the pod has no running container {safe_label(wanted)}")
        result = await self._need().exec_sync(found[0].id, command, _EXEC_TIME)
        return {
            "errMessages": [f"exit code {result.exit_code}"] if result.exit_code else [],
            "runOutMessages": _lines(result.stdout),
            "runErrMessages": _lines(result.stderr),
        }

    async def _containers(self, namespace: str, name: str) -> list[ContainerInfo]:
        raw = self._pod(namespace, name)
        if raw is None:
            raise not_found("pods", name)
        uid = decode_partial(raw).metadata.uid
        return [c for c in await self._need().list_containers(uid) if c.state is State.RUNNING]

    def _need(self) -> Runtime:
        if self._runtime is None:
            raise ApiStatus(503, "ServiceUnavailable", "this edge runs no pods")
        return self._runtime


class _Container(msgspec.Struct):
    name: str = ""


class _Spec(msgspec.Struct, rename="camel"):
    containers: list[_Container] = []
    init_containers: list[_Container] = []
    ephemeral_containers: list[_Container] = []


class _Pod(msgspec.Struct):
    spec: _Spec = msgspec.field(default_factory=_Spec)


def _lines(text: bytes) -> list[str]:
    return text.decode("utf-8", "replace").splitlines()


def _respond(body: Mapping[str, Any]) -> Response:
    return Response(200, msgspec.json.encode(body), dict(_JSON))
