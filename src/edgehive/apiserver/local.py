"""`kube.api.KubeApi` over the registry in the same process: the same semantics, without HTTP."""

import contextlib
from collections.abc import AsyncIterator
from typing import Literal, cast

from edgehive.apiserver.codec import as_object, decode_yaml
from edgehive.apiserver.context import LOCAL, Call, Selection, User
from edgehive.apiserver.deletes import DeleteOptions
from edgehive.apiserver.face import storage_status
from edgehive.apiserver.registry import Registry
from edgehive.apiserver.subresources import Subresources, missing_subresource
from edgehive.apiserver.watches import WatchRequest
from edgehive.kit.errors import StorageError
from edgehive.kube.api import ANYWHERE, APPLY_PATCH, CLUSTER, ListOptions, ListPage, WatchEvent, WriteOptions
from edgehive.kube.refs import GVR
from edgehive.kube.selectors import FieldSelector, LabelSelector
from edgehive.kube.status import ApiStatus

_EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class LocalApi:
    """Acts as the server itself: no authentication, no authorization."""

    def __init__(self, registry: Registry, subresources: Subresources, *, manager: str = "edgehive") -> None:
        self._registry = registry
        self._subresources = subresources
        self._manager = manager

    def _call(self, gvr: GVR, namespace: str | None, name: str = "", options: WriteOptions = CLUSTER) -> Call:
        info = self._registry.catalog.find(gvr.group, gvr.version, gvr.resource)
        if info is None:
            raise ApiStatus(404, "NotFound", "the server could not find the requested resource")
        user = User(options.as_user, options.as_groups) if options.as_user else LOCAL
        call = Call(
            info,
            user,
            (namespace or "") if info.namespaced else "",
            name,
            options.subresource,
            options.field_manager or self._manager,
            field_validation="Ignore",
            force=options.force,
        )
        if call.subresource and call.subresource not in info.subresources:
            raise missing_subresource()
        return call

    async def get(self, gvr: GVR, name: str, options: WriteOptions = CLUSTER) -> bytes:
        call = self._call(gvr, options.namespace, name, options)
        if call.subresource == "scale":
            return self._subresources.get_scale(call)
        return self._registry.get(call)

    async def list(self, gvr: GVR, options: ListOptions = ANYWHERE) -> ListPage:
        found = self._registry.list(self._call(gvr, options.namespace), _selection(options))
        return ListPage(found.items, found.resource_version, found.continue_token)

    async def watch(
        self, gvr: GVR, options: ListOptions, timeout: float = 300.0
    ) -> AsyncIterator[WatchEvent]:
        request = WatchRequest(_selection(options), timeout, bookmarks=True)
        lines = self._registry.watch(self._call(gvr, options.namespace), request)
        async with contextlib.aclosing(lines):
            async for kind, raw in lines:
                yield WatchEvent(cast("_EventType", kind), raw)

    async def create(self, gvr: GVR, body: bytes, options: WriteOptions = CLUSTER, name: str = "") -> bytes:
        call = self._call(gvr, options.namespace, name, options)
        obj = as_object(decode_yaml(body))
        try:
            match call.subresource:
                case "":
                    call.name = ""
                    return await self._registry.create(call, obj)
                case "binding":
                    return await self._subresources.bind(call, obj)
                case "eviction":
                    return await self._subresources.evict(call, obj)
                case "token":
                    return await self._subresources.issue_token(call, obj)
                case _:
                    raise missing_subresource()
        except StorageError as exc:
            raise storage_status(exc) from exc

    async def update(self, gvr: GVR, name: str, body: bytes, options: WriteOptions = CLUSTER) -> bytes:
        call = self._call(gvr, options.namespace, name, options)
        obj = as_object(decode_yaml(body))
        try:
            if call.subresource == "scale":
                return await self._subresources.put_scale(call, obj)
            return await self._registry.update(call, obj)
        except StorageError as exc:
            raise storage_status(exc) from exc

    async def patch(
        self, gvr: GVR, name: str, body: bytes, content_type: str, options: WriteOptions = CLUSTER
    ) -> bytes:
        call = self._call(gvr, options.namespace, name, options)
        if content_type != APPLY_PATCH:
            call.force = False
        try:
            if call.subresource == "scale":
                return await self._subresources.patch_scale(call, body, content_type)
            raw, _ = await self._registry.patch(call, body, content_type)
        except StorageError as exc:
            raise storage_status(exc) from exc
        return raw

    async def delete(
        self, gvr: GVR, name: str, options: WriteOptions = CLUSTER, body: bytes | None = None
    ) -> bytes:
        call = self._call(gvr, options.namespace, name, options)
        try:
            parsed = DeleteOptions.parse(decode_yaml(body)) if body else DeleteOptions()
            raw, _ = await self._registry.delete(call, parsed)
        except StorageError as exc:
            raise storage_status(exc) from exc
        return raw


def _selection(options: ListOptions) -> Selection:
    return Selection(
        options.namespace or "",
        LabelSelector.parse(options.label_selector),
        FieldSelector.parse(options.field_selector),
        options.limit,
        options.continue_token,
        options.resource_version,
    )
