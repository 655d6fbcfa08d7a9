"""What KubeEdge's MetaServer can do beyond Kubernetes: restart pods, run commands in them, without any cloud."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

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


class Extensions:
    """Answers the requests that are not Kubernetes' own; None for the others."""

    def __init__(self, *, runtime: Runtime | None, pod: Callable[[str, str], bytes | None]) -> None:
        self._runtime = runtime
        self._pod = pod

    async def answer(self, request: Request, target: Target, verb: str) -> Response | None:
        """Answer an extension; raises `ApiStatus`."""
        if verb != "create" or target.group or target.version != "v1":
            return None
        if target.resource == "pods" and target.name == "restart" and not target.subresource:
            return _respond(await self._restart(target.namespace, await request.body()))
        if target.resource == "pods" and target.subresource == "exec":
            return _respond(await self._exec(request, target))
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

    async def _exec(self, request: Request, target: Target) -> dict[str, Any]:
        command = request.query.get("command") or []
        if not command:
            raise bad_request("command is missing")
        if request.flag("tty"):
            raise ApiStatus(406, "NotAcceptable", "a terminal cannot be had here; use exec without --tty")
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


def _lines(text: bytes) -> list[str]:
    return text.decode("utf-8", "replace").splitlines()


def _respond(body: Mapping[str, Any]) -> Response:
    return Response(200, msgspec.json.encode(body), dict(_JSON))
