"""One registry for every resource: the verbs of the API, and what a change of some objects sets off.

The HTTP face and `local.LocalApi` both speak to it. CustomResourceDefinitions are served as soon as they are
stored; a new namespace has its default service account and the cluster's CA before its creation is answered.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from edgehive.aio.storage import Storage
from edgehive.apiserver.admission import CRD_FINALIZER, ROOT_CA_CONFIGMAP, Admission
from edgehive.apiserver.catalog import Catalog, bucket_of, key_of
from edgehive.apiserver.codec import (
    Object,
    as_object,
    check_depth,
    check_kind,
    decode,
    decode_json,
    decode_yaml,
)
from edgehive.apiserver.context import LOCAL, Call, Clock, Selection, qualified
from edgehive.apiserver.deletes import DeleteOptions, Deleter
from edgehive.apiserver.fields import check_fields
from edgehive.apiserver.reads import ObjectList, Reader
from edgehive.apiserver.watches import Line, Watcher, WatchRequest
from edgehive.apiserver.writes import Writer
from edgehive.kube.api import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH
from edgehive.kube.crd import infos_from_crd
from edgehive.kube.patch import json_patch, merge_patch, strategic_merge_patch
from edgehive.kube.refs import CONFIGMAPS, CRDS, SERVICEACCOUNTS
from edgehive.kube.resources import ResourceInfo
from edgehive.kube.status import ApiStatus, bad_request, invalid

log = logging.getLogger(__name__)

_BUCKET_CRDS = str(CRDS)


class Registry:
    """The verbs of the API over one store."""

    def __init__(
        self,
        *,
        storage: Storage,
        catalog: Catalog,
        admission: Admission,
        clock: Clock,
        token: Callable[[int], str],
        root_ca: str = "",
    ) -> None:
        self.storage = storage
        self.catalog = catalog
        self.clock = clock
        self.reader = Reader(storage)
        self.watcher = Watcher(storage, served=catalog.serves)
        self.writer = Writer(
            storage=storage, reader=self.reader, admission=admission, clock=clock, token=token
        )
        self.deleter = Deleter(storage=storage, reader=self.reader, admission=admission, clock=clock)
        self._root_ca = root_ca
        self._served: dict[str, int] = {}  # CRDs by the revision that is served

    # -- verbs

    def get(self, call: Call, resource_version: str = "") -> bytes:
        """Return one object; raises `ApiStatus`."""
        return self.reader.get(call.info, call.namespace, call.name, resource_version)

    def list(self, call: Call, selection: Selection) -> ObjectList:
        """Return one page; raises `ApiStatus`."""
        return self.reader.list(call.info, selection)

    def watch(self, call: Call, request: WatchRequest) -> AsyncGenerator[Line, None]:
        """Yield changes; see `Watcher.watch`. Raises `ApiStatus` at once for what cannot be watched."""
        self.watcher.check(call.info, request)
        return self.watcher.watch(call.info, request)

    async def create(self, call: Call, body: Object) -> bytes:
        """Store a new object; raises `ApiStatus`."""
        raw = await self.writer.create(call, body)
        await self._changed(call, decode(raw))
        return raw

    async def update(self, call: Call, body: Object) -> bytes:
        """Replace an object or a subresource of it; raises `ApiStatus`."""
        raw = await self.writer.update(call, body)
        await self._changed(call, decode(raw))
        return raw

    async def patch(self, call: Call, body: bytes, content_type: str) -> tuple[bytes, bool]:
        """Patch or apply; returns the object and whether apply created it. Raises `ApiStatus`."""
        if content_type == APPLY_PATCH:
            if not call.manager:
                cause = ("fieldManager", "FieldValueRequired", "Required value: is required for apply patch")
                raise invalid("PatchOptions", "", [cause], "meta.k8s.io")
            raw, created = await self.writer.apply(call, as_object(decode_yaml(body)))
        else:
            if call.force:
                cause = (
                    "force",
                    "FieldValueForbidden",
                    "Forbidden: may not be specified for non-apply patch",
                )
                raise invalid("PatchOptions", "", [cause], "meta.k8s.io")
            change = self.patcher(call, body, content_type)

            def make(old: Object) -> Object:
                new = as_object(change(old))
                check_kind(call.info.kind, call.info.api_version, new)
                check_fields(call, new)
                return new

            raw, created = await self.writer.change(call, make), False
        await self._changed(call, decode(raw))
        return raw, created

    @staticmethod
    def patcher(call: Call, body: bytes, content_type: str) -> Callable[[Object], Any]:
        """Return the function that patches a document.

        Raises:
            ApiStatus: 400, 415.
        """
        patch = decode_json(body)
        if content_type == JSON_PATCH:
            if not isinstance(patch, list):
                raise bad_request("a JSON patch must be an array of operations")
            check_depth(patch)
            return lambda doc: json_patch(doc, patch)
        if content_type == MERGE_PATCH:
            changes = as_object(patch)
            return lambda doc: merge_patch(doc, changes)
        schema = call.info.schema
        if content_type == STRATEGIC_PATCH and not call.info.custom and schema is not None:
            changes = as_object(patch)
            return lambda doc: strategic_merge_patch(doc, changes, schema)
        accepted = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
        if not call.info.custom:
            accepted.insert(2, STRATEGIC_PATCH)
        message = "the body of the request was in an unknown format - accepted media types include: "
        raise ApiStatus(415, "UnsupportedMediaType", message + ", ".join(accepted))

    async def delete(self, call: Call, options: DeleteOptions) -> tuple[bytes, bool]:
        """Delete; returns the answer and whether the object is gone. Raises `ApiStatus`."""
        raw, gone = await self.deleter.delete(call, options)
        if not call.dry_run:
            await self._deleted(call, gone=gone)
        return raw, gone

    async def delete_all(self, call: Call, selection: Selection, options: DeleteOptions) -> ObjectList:
        """Delete a selection; raises `ApiStatus`."""
        found = self.reader.list(call.info, selection)
        for raw in found.items:
            meta = decode(raw)["metadata"]
            namespace, name = str(meta.get("namespace", "")), str(meta["name"])
            one = Call(call.info, call.user, namespace, name, manager=call.manager, dry_run=call.dry_run)
            try:
                await self.delete(one, options)
            except ApiStatus as exc:
                if exc.code != 404:
                    raise
        return found

    # -- what changes set off

    async def _changed(self, call: Call, obj: Object) -> None:
        if call.dry_run:
            return
        match qualified(call.info):
            case "customresourcedefinitions.apiextensions.k8s.io":
                self.serve(obj)
                if obj["metadata"].get("deletionTimestamp"):
                    await self.clean_up_crd(obj["metadata"]["name"])
            case "namespaces":
                if not obj["metadata"].get("deletionTimestamp"):
                    await self.furnish(obj["metadata"]["name"])
            case _:
                pass

    async def _deleted(self, call: Call, *, gone: bool) -> None:
        match qualified(call.info):
            case "customresourcedefinitions.apiextensions.k8s.io":
                await self.clean_up_crd(call.name)
            case "serviceaccounts" | "configmaps" if gone and call.name in {"default", ROOT_CA_CONFIGMAP}:
                await self.furnish(call.namespace)
            case _:
                pass

    async def furnish(self, namespace: str) -> None:
        """Give a namespace what every namespace has: the default service account and the cluster's CA."""
        record = self.storage.get("namespaces", namespace)
        if record is None or decode(record.value)["metadata"].get("deletionTimestamp"):
            return
        wanted: list[tuple[Any, str, Object]] = [(SERVICEACCOUNTS, "default", {})]
        if self._root_ca:
            wanted.append((CONFIGMAPS, ROOT_CA_CONFIGMAP, {"data": {"ca.crt": self._root_ca}}))
        for gvr, name, content in wanted:
            info = self.catalog.find(gvr.group, gvr.version, gvr.resource)
            if info is None or self.storage.get(bucket_of(info), key_of(info, namespace, name)) is not None:
                continue
            call = Call(info, LOCAL, namespace, manager="apiserver")
            try:
                await self.writer.create(call, {"metadata": {"name": name}, **content})
            except ApiStatus as exc:  # someone else was faster, or the namespace is going away
                log.debug("%s/%s not made: %s", namespace, name, exc)

    def sync_crds(self) -> None:
        """Serve what the stored CRDs say.

        A write serves its CRD itself; this is for the start, and for a write whose client went away in between.
        """
        stored = {name: record for name, record in self.storage.scan(_BUCKET_CRDS)}
        for name, record in stored.items():
            if self._served.get(name) != record.revision:
                self.serve(decode(record.value))
        for name in self._served.keys() - stored.keys():
            self._forget(name)

    def serve(self, crd: Object) -> None:
        """Serve a CRD's resources from now on, if its names are accepted."""
        name = str(crd["metadata"]["name"])
        conditions = (crd.get("status") or {}).get("conditions") or ()
        established = any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)
        self._set_custom(name, infos_from_crd(crd) if established else ())
        self._served[name] = int(crd["metadata"]["resourceVersion"])

    def _forget(self, crd: str) -> None:
        self._set_custom(crd, ())
        self._served.pop(crd, None)

    def _set_custom(self, crd: str, infos: Sequence[ResourceInfo]) -> None:
        before = self.catalog.custom(crd)
        self.catalog.set_custom(crd, infos)
        for info in before:
            self.storage.wake(bucket_of(info))  # a watch of what is gone ends

    async def clean_up_crd(self, name: str) -> None:
        """Take one step of a CRD's deletion: delete its objects; when none is left, let it go."""
        record = self.storage.get(_BUCKET_CRDS, name)
        if record is None:
            self._forget(name)
            return
        crd = decode(record.value)
        if not crd["metadata"].get("deletionTimestamp"):
            return
        infos = self.catalog.custom(name)
        if infos:
            await self.delete_all(Call(infos[0], LOCAL), Selection(), DeleteOptions(propagation="Background"))
            if self.storage.count(bucket_of(infos[0])):
                return
        info = self.catalog.find(CRDS.group, CRDS.version, CRDS.resource)
        if info is None:
            return
        await self.writer.change(Call(info, LOCAL, name=name, manager="apiserver"), _without_finalizer)
        if self.storage.get(_BUCKET_CRDS, name) is None:
            self._forget(name)


def _without_finalizer(crd: Object) -> Object:
    meta = crd["metadata"]
    meta["finalizers"] = [f for f in meta.get("finalizers") or () if f != CRD_FINALIZER]
    return crd
