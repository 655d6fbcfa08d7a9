"""What an edge does to its pods: report their status, delete them when they are gone, create mirror pods."""

import copy
from collections.abc import Callable
from typing import Any

import msgspec

from edgehive.cloud.edgerequest import Answers, EdgeRequest, as_status
from edgehive.kit.errors import EdgehiveError
from edgehive.kube.api import STRATEGIC_PATCH, KubeApi
from edgehive.kube.refs import PODS
from edgehive.kube.status import ApiStatus, bad_request, forbidden
from edgehive.wire import resource as res
from edgehive.wire.classify import EDGE_CONTROLLER, RESOURCE_GROUP
from edgehive.wire.message import DELETE, MALFORMED, Message

_KEPT_CONDITIONS = ("Ready", "Initialized")


class PodRequests:
    """Handlers for pods."""

    def __init__(
        self,
        *,
        api: KubeApi,
        node_of: Callable[[str, str], str | None],
        now: Callable[[], str],
    ) -> None:
        """Wire up; `node_of` tells from the watch cache which node a pod is on, `now` gives RFC 3339."""
        self._api = api
        self._node_of = node_of
        self._now = now

    def _check_own(self, request: EdgeRequest, name: str) -> None:
        owner = self._node_of(request.namespace, name)
        if owner is not None and owner != request.node:
            raise forbidden(f'pod "{request.namespace}/{name}" is not on node "{request.node}"')

    async def create(self, request: EdgeRequest) -> Answers:
        """Create a mirror pod: an ``ObjectResp``."""
        body = request.body()
        spec = body.get("spec")
        if not isinstance(spec, dict) or spec.get("nodeName") != request.node:
            raise forbidden(f'node "{request.node}" can only create pods with spec.nodeName set to itself')
        body |= {"apiVersion": "v1", "kind": "Pod"}
        options = request.options(request.namespace)
        return request.object_answer(await self._api.create(PODS, msgspec.json.encode(body), options))

    async def delete(self, request: EdgeRequest) -> Answers:
        """Delete a pod that the edge has ended; gone or replaced counts as done."""
        self._check_own(request, request.name)
        try:
            await self._api.delete(
                PODS, request.name, request.options(request.namespace), _delete_options(request)
            )
        except ApiStatus as exc:
            # A UID precondition that fails says that the pod meant is gone and another one has its name.
            if exc.code not in (404, 409):
                raise
        return request.ok()

    async def patch_status(self, request: EdgeRequest) -> Answers:
        """Strategic merge patch of the status: an ``ObjectResp``."""
        self._check_own(request, request.name)
        raw = await self._api.patch(
            PODS,
            request.name,
            request.data(),
            STRATEGIC_PATCH,
            request.options(request.namespace, "status"),
        )
        return request.object_answer(raw)

    async def old_status(self, request: EdgeRequest) -> Answers:
        """``podstatus`` of old edges: one report, or a list of them; an answer for each."""
        try:
            data = msgspec.json.decode(request.data())
        except MALFORMED as exc:
            raise bad_request("the content is not a pod status") from exc
        answers: list[Message] = []
        for entry in data if isinstance(data, list) else [data]:
            try:
                answers += await self._one_status(request, entry if isinstance(entry, dict) else {})
            except EdgehiveError as exc:
                answers.append(request.failure(as_status(exc)))
        return tuple(answers)

    async def _one_status(self, request: EdgeRequest, entry: dict[str, Any]) -> list[Message]:
        name, uid = str(entry.get("Name") or ""), str(entry.get("UID") or "")
        status = entry.get("Status")
        if name == "" or not isinstance(status, dict):
            raise bad_request("a pod status needs Name and Status")
        self._check_own(request, name)
        try:
            pod = msgspec.json.decode(
                await self._api.get(PODS, name, request.options(request.namespace)), type=dict[str, Any]
            )
        except ApiStatus as exc:
            if exc.code != 404:
                raise
            return [request.ok(), self._gone(request, name, uid)]
        if pod["metadata"].get("uid") != uid:
            return [request.ok(), self._gone(request, name, uid)]
        pod["status"] = merge_status(pod, status, self._now())
        await self._api.update(
            PODS, name, msgspec.json.encode(pod), request.options(request.namespace, "status")
        )
        if pod["metadata"].get("deletionTimestamp") and is_finished(pod["status"]):
            options = msgspec.json.encode({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}})
            await self._api.delete(PODS, name, request.options(request.namespace), options)
        return [request.ok()]

    @staticmethod
    def _gone(request: EdgeRequest, name: str, uid: str) -> Message:
        """Tell the edge to forget a pod (the original leaves the UID out, so that such deletes shared one slot)."""
        message_id, timestamp = request.stamp()
        meta = {"name": name, "namespace": request.namespace} | ({"uid": uid} if uid else {})
        return Message(
            id=message_id,
            timestamp=timestamp,
            operation=DELETE,
            resource=res.format_resource(request.namespace, res.POD, name),
            content=msgspec.json.encode({"apiVersion": "v1", "kind": "Pod", "metadata": meta}),
            source=EDGE_CONTROLLER,
            group=RESOURCE_GROUP,
        )


def _delete_options(request: EdgeRequest) -> bytes:
    try:
        content = msgspec.json.decode(request.message.content)
    except MALFORMED as exc:
        raise bad_request("the content is not JSON") from exc
    if isinstance(content, str) and not content.lstrip().startswith("{"):
        # Edges before v1.13 send the UID alone.
        content = {"gracePeriodSeconds": 0} | ({"preconditions": {"uid": content}} if content else {})
        return msgspec.json.encode(content)
    body = request.body()
    body |= {"apiVersion": "v1", "kind": "DeleteOptions"}
    return msgspec.json.encode(body)


def merge_status(pod: dict[str, Any], reported: dict[str, Any], now: str) -> dict[str, Any]:
    """The status to store for what an old edge reported: transition times kept, containers in order."""
    status = copy.deepcopy(reported)
    stored = pod.get("status") or {}
    before = {c.get("type"): c for c in _dicts(stored.get("conditions"))}
    for condition in _dicts(status.get("conditions")):
        if condition.get("type") in _KEPT_CONDITIONS:
            old = before.get(condition["type"])
            same = old is not None and old.get("status") == condition.get("status")
            condition["lastTransitionTime"] = (old or {}).get("lastTransitionTime") if same else now
    status["startTime"] = stored.get("startTime") or status.get("startTime") or now
    if status.get("containerStatuses"):
        found = _dicts(status["containerStatuses"])
        status["containerStatuses"] = sorted(found, key=lambda c: str(c.get("name")))
    if status.get("initContainerStatuses"):
        order = [c.get("name") for c in _dicts((pod.get("spec") or {}).get("initContainers"))]
        found = [c for c in _dicts(status["initContainerStatuses"]) if c.get("name") in order]
        status["initContainerStatuses"] = sorted(found, key=lambda c: order.index(c.get("name")))
    return status


def is_finished(status: dict[str, Any]) -> bool:
    """Whether nothing of the pod runs any more."""
    if status.get("phase") in ("Succeeded", "Failed"):
        return True
    states = [c.get("state") or {} for c in _dicts(status.get("containerStatuses"))]
    return all(state.get("waiting") or state.get("terminated") for state in states)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
