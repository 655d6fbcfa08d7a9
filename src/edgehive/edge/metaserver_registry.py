"""The verbs of the API at the edge: reads from the replica, writes through the cloud."""

import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from edgehive.apiserver.codec import as_object, matcher
from edgehive.apiserver.context import Call, Selection
from edgehive.apiserver.deletes import DeleteOptions
from edgehive.apiserver.reads import ObjectList, Reader
from edgehive.apiserver.registry import Registry
from edgehive.apiserver.watches import Line, Watcher, WatchRequest
from edgehive.edge.metaserver_catalog import Catalog
from edgehive.edge.metaserver_store import Replica, View
from edgehive.edge.metaserver_sync import Follower, Freshness, Scope
from edgehive.kit.errors import Unreachable
from edgehive.kube.meta import decode_partial
from edgehive.kube.refs import CRDS
from edgehive.kube.resources import ResourceInfo
from edgehive.kube.selectors import FieldSelector, LabelSelector
from edgehive.kube.status import ApiStatus
from edgehive.wire import application as apps
from edgehive.wire.application import PatchInfo, ResourceKey

if TYPE_CHECKING:
    from edgehive.edge.metaserver_queue import WriteQueue

_WRITE_WAIT = 34.0  # seconds; a patch may take as long in KubeEdge


class EdgeRegistry:
    """`apiserver.resources.Verbs` over the replica. `prepare` comes before a read."""

    def __init__(
        self, *, catalog: Catalog, replica: Replica, follower: Follower, queue: "WriteQueue | None" = None
    ) -> None:
        """Take what it needs; without a `queue` no write waits for the cloud."""
        self._queue = queue
        self.catalog = catalog
        self._replica = replica
        self._follower = follower
        self.watchers = 0

    # reads

    async def prepare(self, call: Call, verb: str, selection: Selection) -> Freshness:
        """Bring what a read needs here, if that is possible in good time.

        Raises:
            ApiStatus: the cloud refused.
            Unreachable: neither the cloud nor the replica has an answer.
        """
        if verb == "get":
            return await self._fetch(call)
        return await self._follower.ensure(scope_of(call, selection))

    async def _fetch(self, call: Call) -> Freshness:
        if self._queue is not None and self._queue.waiting(str(_key(call))):
            return Freshness(False, notice="a write of this object waits for the cloud")
        found = await self._fetch_now(call)
        if self._queue is not None and (refusal := self._queue.refusal(str(_key(call)))):
            return replace(found, notice=refusal)
        return found

    async def _fetch_now(self, call: Call) -> Freshness:
        gvr = call.info.gvr
        scope = Scope(gvr, call.namespace)
        if self._follower.connected and self._follower.live(scope):
            return Freshness(True)
        key = ResourceKey(gvr, call.namespace, call.name)
        held = self._replica.get(key)
        wait = self._follower.hope if held is None else self._follower.patience
        try:
            if not (wait and self._follower.connected):
                raise Unreachable("the cloud is not reachable")
            raw = await self._follower.ask(self._follower.application(key, apps.GET), wait)
        except ApiStatus as exc:
            if exc.code == 404 and held is not None:
                self._replica.remove(key, uid=held.uid)
            if held is None or not exc.retryable:
                raise
        except Unreachable:
            if held is None and not self._follower.freshness(scope).as_of:
                raise
        else:
            self._replica.put(gvr, [raw])
            return Freshness(True)
        return self._follower.freshness(scope)

    def get(self, call: Call, resource_version: str = "") -> bytes:
        """Return one object, as it will be when a write of it waits; raises `ApiStatus`."""
        waiting = self._queue.local(str(_key(call))) if self._queue is not None else None
        if waiting is not None:
            return waiting
        return self._reader(call).get(call.info, call.namespace, call.name, resource_version)

    def list(self, call: Call, selection: Selection) -> ObjectList:
        """Return one page; raises `ApiStatus`."""
        return self._reader(call).list(call.info, selection)

    def watch(self, call: Call, request: WatchRequest) -> AsyncGenerator[Line, None]:
        """Yield changes; raises `ApiStatus` at once for what cannot be watched."""
        watcher = Watcher(View(self._replica, call.info.gvr), served=lambda _: True)
        watcher.check(call.info, request)
        return self._watch(watcher, call, request)

    async def _watch(self, watcher: Watcher, call: Call, request: WatchRequest) -> AsyncGenerator[Line, None]:
        self.watchers += 1
        try:
            async with (
                self._follower.watching(scope_of(call, request.selection)),
                contextlib.aclosing(watcher.watch(call.info, request)) as lines,
            ):
                async for line in lines:
                    yield line
        finally:
            self.watchers -= 1

    def _reader(self, call: Call) -> Reader:
        return Reader(View(self._replica, call.info.gvr))

    # writes

    async def create(self, call: Call, body: dict[str, Any]) -> bytes:
        """Create in the cloud; raises `ApiStatus` or `Unreachable`."""
        return await self._write(call, apps.CREATE, _options(call), body)

    async def update(self, call: Call, body: dict[str, Any]) -> bytes:
        """Replace in the cloud; raises `ApiStatus` or `Unreachable`."""
        verb = apps.UPDATE_STATUS if call.subresource == "status" else apps.UPDATE
        return await self._write(call, verb, _options(call), body)

    async def patch(self, call: Call, body: bytes, content_type: str) -> tuple[bytes, bool]:
        """Patch in the cloud; raises `ApiStatus` or `Unreachable`."""
        options = _options(call) | ({"force": True} if call.force else {})
        parts = (call.subresource,) if call.subresource else ()
        info = PatchInfo(call.name, content_type, body, options, parts)
        application = apps.Application(
            str(_key(call)), apps.PATCH, self._follower.node, info.encode(), subresource=call.subresource
        )
        existed = self._replica.get(_key(call)) is not None
        if self._waits(call):
            return self._put_off(application, self._patched(call, body, content_type)), False
        raw = await self._follower.ask(application, _WRITE_WAIT)
        self._keep(call, raw)
        meta = decode_partial(raw).metadata
        return raw, not existed and meta.generation <= 1 and content_type.startswith("application/apply")

    async def delete(self, call: Call, options: DeleteOptions) -> tuple[bytes, bool]:
        """Delete in the cloud; raises `ApiStatus` or `Unreachable`."""
        dry_run = call.dry_run or options.dry_run
        option = _delete_options(options) | ({"dryRun": ["All"]} if dry_run else {})
        raw = await self._follower.ask(
            self._follower.application(_key(call), apps.DELETE, option), _WRITE_WAIT
        )
        if not dry_run:
            self._written(call)
            await self._after_delete(call)
        if raw and b'"metadata"' in raw:
            return raw, True
        details = {"name": call.name, "kind": call.resource} | ({"group": call.group} if call.group else {})
        done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return msgspec.json.encode(done), True

    async def _after_delete(self, call: Call) -> None:
        """See what has become of an object that no watch follows."""
        if self._replica.get(_key(call)) is None or self._follower.live(Scope(call.info.gvr, call.namespace)):
            return
        with contextlib.suppress(ApiStatus, Unreachable):
            await self._fetch(call)

    async def delete_all(self, call: Call, selection: Selection, options: DeleteOptions) -> ObjectList:
        """Delete a selection, one by one; raises `ApiStatus` or `Unreachable`."""
        await self._follower.ensure(scope_of(call, selection))
        found = self.list(call, selection)
        for raw in found.items:
            meta = decode_partial(raw).metadata
            try:
                await self.delete(replace(call, namespace=meta.namespace, name=meta.name), options)
            except ApiStatus as exc:
                if exc.code != 404:
                    raise
        return found

    async def forward(self, call: Call, verb: str, body: bytes, content_type: str) -> bytes:
        """Carry a request for a subresource of another kind (``scale``, ``eviction``); raises as `create`."""
        key = str(_key(call))
        if verb == "patch":
            option = PatchInfo(call.name, content_type, body, _options(call), (call.subresource,)).encode()
            body = b""
        else:
            option = msgspec.json.encode(_options(call) if verb != "get" else {})
        application = apps.Application(key, verb, self._follower.node, option, body, call.subresource)
        return await self._follower.ask(application, _WRITE_WAIT)

    async def _write(self, call: Call, verb: str, options: dict[str, Any], body: dict[str, Any]) -> bytes:
        if verb == apps.CREATE and not call.name:
            name = str((body.get("metadata") or {}).get("name") or "")
            key = ResourceKey(call.info.gvr, call.namespace, name)
        else:
            key = _key(call)
        if call.info.kind and not body.get("kind"):
            body = {"apiVersion": call.info.api_version, "kind": call.info.kind} | body
        waits = self._waits(call, key)
        if waits and verb == apps.CREATE and not key.name:
            body = _named(body)
            key = replace(key, name=body["metadata"]["name"])
        application = apps.Application(
            str(key),
            verb,
            self._follower.node,
            msgspec.json.encode(options),
            msgspec.json.encode(body),
            call.subresource if verb != apps.UPDATE_STATUS else "",
        )
        if waits:
            return self._put_off(application, body)
        raw = await self._follower.ask(application, _WRITE_WAIT)
        self._keep(call, raw)
        return raw

    # writes that wait

    def _waits(self, call: Call, key: ResourceKey | None = None) -> bool:
        """Whether a write goes into the queue: it may, and the cloud is away or an earlier one still waits."""
        queue = self._queue
        if queue is None or call.dry_run or not queue.takes(call.info.gvr, call.subresource):
            return False
        return not self._follower.connected or queue.waiting(str(key or _key(call)))

    def _put_off(self, application: apps.Application, obj: dict[str, Any]) -> bytes:
        assert self._queue is not None, "asked before"
        raw = msgspec.json.encode(obj)
        self._queue.add(application, raw)
        return raw

    def _patched(self, call: Call, body: bytes, content_type: str) -> dict[str, Any]:
        """What an object is after a patch, as far as that can be told here.

        Raises:
            ApiStatus: the object is not here, or only the cloud can apply such a patch.
        """
        assert self._queue is not None, "asked before"
        base = self._queue.local(str(_key(call)))
        held = self._replica.get(_key(call))
        if base is None and held is None:
            raise ApiStatus(
                503, "ServiceUnavailable", "the object is not here, and the cloud is not reachable"
            )
        schema = self.catalog.schema(call.info.gvr)
        change = Registry.patcher(replace(call, info=replace(call.info, schema=schema)), body, content_type)
        found = change(msgspec.json.decode(base or (held.raw if held is not None else b"{}")))
        return as_object(found)

    def _keep(self, call: Call, raw: bytes) -> None:
        """Show a client its own write in its next read."""
        if not call.dry_run and decode_partial(raw).kind == call.info.kind:
            self._replica.put(call.info.gvr, [raw])
            self._written(call)

    def _written(self, call: Call) -> None:
        if call.info.gvr == CRDS:
            self.catalog.renew()


def scope_of(call: Call, selection: Selection) -> Scope:
    """The scope that a list or watch needs."""
    return Scope(call.info.gvr, call.namespace, str(selection.labels), str(selection.fields))


def selects(
    find: Callable[[str, str, str], ResourceInfo | None],
) -> Callable[[Scope], Callable[[bytes], bool]]:
    """Return what makes the test for a scope; a selection that cannot be tested here selects nothing."""

    def make(scope: Scope) -> Callable[[bytes], bool]:
        gvr = scope.gvr
        info = find(gvr.group, gvr.version, gvr.resource) or ResourceInfo(gvr, "", True)
        test = matcher(info, LabelSelector.parse(scope.labels), FieldSelector.parse(scope.fields))
        return test if test is not None else lambda _: True

    return make


def _named(body: dict[str, Any]) -> dict[str, Any]:
    """Give an object with a ``generateName`` its name here, so that sending it twice makes one object.

    Raises:
        ApiStatus: 422, it has neither.
    """
    meta = dict(body.get("metadata") or {})
    prefix = str(meta.get("generateName") or "")
    if not prefix:
        raise ApiStatus(422, "Invalid", "metadata.name: Required value: name or generateName is required")
    return body | {"metadata": meta | {"name": prefix + os.urandom(5).hex()}}


def _key(call: Call) -> ResourceKey:
    return ResourceKey(call.info.gvr, call.namespace, call.name)


def _options(call: Call) -> dict[str, Any]:
    options: dict[str, Any] = {"fieldValidation": call.field_validation}
    if call.manager and call.manager != "unknown":
        options["fieldManager"] = call.manager
    if call.dry_run:
        options["dryRun"] = ["All"]
    return options


def _delete_options(options: DeleteOptions) -> dict[str, Any]:
    conditions = {"uid": options.uid, "resourceVersion": options.resource_version}
    found: dict[str, Any] = {
        "gracePeriodSeconds": options.grace,
        "propagationPolicy": options.propagation or None,
        "preconditions": {k: v for k, v in conditions.items() if v} or None,
    }
    return {key: value for key, value in found.items() if value is not None}
