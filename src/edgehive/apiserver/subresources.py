"""The subresources that are objects of another kind: scale, binding, eviction, token."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from edgehive.apiserver.codec import Object, as_object, decode, encode
from edgehive.apiserver.context import LOCAL, Call, format_time, qualified
from edgehive.apiserver.deletes import DeleteOptions
from edgehive.apiserver.registry import Registry
from edgehive.apiserver.tokens import Bound, Tokens
from edgehive.kube.refs import is_dns_subdomain
from edgehive.kube.selectors import LabelSelector
from edgehive.kube.status import ApiStatus, bad_request, conflict, invalid

_MIN_TOKEN, _MAX_TOKEN = 600, 1 << 32
SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


class Subresources:
    """Reads and writes them for any resource that has them."""

    def __init__(self, *, registry: Registry, tokens: Tokens) -> None:
        self._registry = registry
        self._tokens = tokens

    # -- scale

    def get_scale(self, call: Call) -> bytes:
        """Return the ``autoscaling/v1 Scale`` of an object; raises `ApiStatus`."""
        return encode(scale_of(call, decode(self._registry.get(call))))

    async def put_scale(self, call: Call, body: Object) -> bytes:
        """Set the number of replicas; raises `ApiStatus`."""
        return await self._write_scale(call, lambda _: body)

    async def patch_scale(self, call: Call, body: bytes, content_type: str) -> bytes:
        """Patch the Scale object; raises `ApiStatus`."""
        if content_type == "application/strategic-merge-patch+json":
            content_type = "application/merge-patch+json"  # a Scale has no lists
        change = self._registry.patcher(call, body, content_type)
        return await self._write_scale(call, change)

    async def _write_scale(self, call: Call, change: Any) -> bytes:
        spec_path = call.info.scale_paths[0]

        def make(old: Object) -> Object:
            scale = as_object(change(scale_of(call, old)))
            replicas = section(scale, "spec").get("replicas", 0)
            if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
                message = f"Invalid value: {replicas}: must be greater than or equal to 0"
                raise invalid(
                    "Scale", call.name, [("spec.replicas", "FieldValueInvalid", message)], "autoscaling"
                )
            version = section(scale, "metadata").get("resourceVersion")
            if version:
                old["metadata"]["resourceVersion"] = version
            put(old, spec_path, replicas)
            return old

        raw = await self._registry.writer.change(call, make)
        return encode(scale_of(call, decode(raw)))

    # -- pods

    async def bind(self, call: Call, body: Object) -> bytes:
        """Assign a pod to a node; raises `ApiStatus`."""
        target = section(body, "target")
        node = target.get("name")
        if not isinstance(node, str) or not is_dns_subdomain(node):
            cause = ("target.name", "FieldValueRequired", "Required value")
            raise invalid("Binding", call.name, [cause])
        if target.get("kind") not in (None, "", "Node"):
            cause = ("target.kind", "FieldValueNotSupported", 'Unsupported value: supported values: "Node"')
            raise invalid("Binding", call.name, [cause])
        now = self._registry.clock.stamp()
        uid = section(body, "metadata").get("uid")

        def make(pod: Object) -> Object:
            if pod["metadata"].get("deletionTimestamp"):
                raise conflict(
                    "pods/binding",
                    call.name,
                    f"pod {call.name} is being deleted, cannot be assigned to a host",
                )
            if uid and uid != pod["metadata"].get("uid"):
                raise conflict("pods/binding", call.name, "the pod has another uid")
            bound = pod["spec"].get("nodeName")
            if bound:
                why = f'pod {call.name} is already assigned to node "{bound}"'
                raise conflict("pods/binding", call.name, why)
            pod["spec"]["nodeName"] = node
            status = pod.setdefault("status", {})
            conditions = [c for c in status.get("conditions") or () if c.get("type") != "PodScheduled"]
            scheduled = {
                "type": "PodScheduled",
                "status": "True",
                "lastProbeTime": None,
                "lastTransitionTime": now,
            }
            status["conditions"] = [*conditions, scheduled]
            return pod

        inner = Call(
            call.info, call.user, call.namespace, call.name, "binding", call.manager, dry_run=call.dry_run
        )
        await self._registry.writer.change(inner, make)
        return encode(SUCCESS | {"code": 201})

    async def evict(self, call: Call, body: Object) -> bytes:
        """Delete a pod on behalf of an eviction; raises `ApiStatus`."""
        options = DeleteOptions.parse(body.get("deleteOptions") or {})
        inner = Call(
            call.info, call.user, call.namespace, call.name, manager=call.manager, dry_run=call.dry_run
        )
        await self._registry.delete(inner, options)
        return encode(SUCCESS | {"code": 201})

    # -- tokens

    async def issue_token(self, call: Call, body: Object) -> bytes:
        """Answer a ``TokenRequest`` for a service account; raises `ApiStatus`."""
        account = decode(self._registry.get(call))["metadata"]
        if body.get("kind", "TokenRequest") != "TokenRequest":
            raise bad_request("the body must be a TokenRequest")
        spec = section(body, "spec")
        seconds = spec.get("expirationSeconds")
        seconds = 3600 if seconds is None else seconds
        problem = ""
        if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < _MIN_TOKEN:
            problem = f"Invalid value: {seconds}: may not specify a duration less than 10 minutes"
        elif seconds > _MAX_TOKEN:
            problem = f"Invalid value: {seconds}: may not specify a duration larger than 2^32 seconds"
        if problem:
            cause = ("spec.expirationSeconds", "FieldValueInvalid", problem)
            raise invalid("TokenRequest", "", [cause], "authentication.k8s.io")
        audiences = spec.get("audiences") or list(self._tokens.audiences)
        if not isinstance(audiences, list) or not all(isinstance(a, str) for a in audiences):
            raise bad_request("spec.audiences must be a list of strings")
        bound = Bound(
            call.namespace, call.name, account["uid"], *self._bound(call, spec.get("boundObjectRef"))
        )
        now = self._registry.clock.now()
        token, expires = await self._tokens.issue(bound, audiences, seconds, now)
        answer: Object = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": call.name,
                "namespace": call.namespace,
                "creationTimestamp": format_time(now),
            },
            "spec": {
                "audiences": audiences,
                "expirationSeconds": seconds,
                "boundObjectRef": spec.get("boundObjectRef"),
            },
            "status": {"token": token, "expirationTimestamp": format_time(now + timedelta(seconds=expires))},
        }
        return encode(answer)

    def _bound(self, call: Call, ref: Any) -> tuple[str, str, str, str, str]:
        """Return (kind, name, uid, node, node uid) of the object a token is bound to."""
        if not ref:
            return ("", "", "", "", "")
        if not isinstance(ref, dict):
            raise bad_request("boundObjectRef must be an object")
        kind, name, uid = str(ref.get("kind", "")), str(ref.get("name", "")), str(ref.get("uid", ""))
        resource = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}.get(kind)
        info = self._registry.catalog.find("", "v1", resource) if resource else None
        if info is None:
            raise bad_request(f"cannot bind token for serviceaccount to type {ref.get('apiVersion')}/{kind}")
        obj = decode(self._registry.get(Call(info, LOCAL, call.namespace, name)))
        found = str(obj["metadata"].get("uid", ""))
        if uid and uid != found:
            why = f"the UID in the bound object reference ({uid}) does not match the UID in record. "
            why += "The object might have been deleted and then recreated"
            raise conflict(resource or "", name, why)
        if kind != "Pod":
            return (kind, name, found, "", "")
        spec = obj.get("spec") or {}
        if (spec.get("serviceAccountName") or "default") != call.name:
            raise bad_request(
                f'cannot bind token for serviceaccount "{call.name}" to pod running with different serviceaccount name.'
            )
        node = str(spec.get("nodeName") or "")
        record = self._registry.storage.get("nodes", node) if node else None
        node_uid = str(decode(record.value)["metadata"].get("uid", "")) if record is not None else ""
        return (kind, name, found, node, node_uid)


def scale_of(call: Call, obj: Object) -> Object:
    """The ``Scale`` view of an object."""
    spec_path, status_path, selector_path = call.info.scale_paths
    meta = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: dict[str, Any] = {"replicas": take(obj, status_path) or 0}
    selector = take(obj, selector_path)
    if qualified(call.info).endswith(".apps"):
        selector = take(obj, ".spec.selector")
    if isinstance(selector, Mapping):
        status["selector"] = str(LabelSelector.from_object(selector))
    elif selector:
        status["selector"] = str(selector)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in kept if key in meta},
        "spec": {"replicas": take(obj, spec_path) or 0},
        "status": status,
    }


def section(obj: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a part of a body that must be an object, or be absent; raises `ApiStatus` 400."""
    value = obj.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_request(f"{key} must be an object")
    return value


def take(obj: Any, path: str) -> Any:
    """Read a simple JSONPath (``.spec.replicas``)."""
    if not path:
        return None
    for key in path.removeprefix(".").split("."):
        obj = obj.get(key) if isinstance(obj, Mapping) else None
    return obj


def put(obj: Object, path: str, value: Any) -> None:
    """Write at a simple JSONPath, making the maps on the way."""
    *parents, last = path.removeprefix(".").split(".")
    for key in parents:
        inner = obj.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ApiStatus(422, "Invalid", f"{path}: {key} is not an object")
        obj = inner
    obj[last] = value


def missing_subresource() -> ApiStatus:
    """404 for a subresource that is not served."""
    return ApiStatus(404, "NotFound", "the server could not find the requested resource")
