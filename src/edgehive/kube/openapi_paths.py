"""The ``paths`` of the OpenAPI documents: one template for every resource."""

from collections.abc import Iterable
from typing import Any

from edgehive.kube.resources import ResourceInfo

_GVK = "x-kubernetes-group-version-kind"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_BODIES = ("application/json", "application/yaml")
_PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_TEXT = {"type": "string"}
_NUMBER = {"type": "integer"}
_FLAG = {"type": "boolean"}

_WRITING: tuple[tuple[str, dict[str, str], str], ...] = (
    ("dryRun", _TEXT, "All: check the request without storing anything."),
    ("fieldManager", _TEXT, "Who makes the change, recorded in managedFields."),
    ("fieldValidation", _TEXT, "What to do about unknown and repeated fields: Ignore, Warn or Strict."),
)
_LISTING: tuple[tuple[str, dict[str, str], str], ...] = (
    ("allowWatchBookmarks", _FLAG, "Send bookmarks during a watch."),
    ("continue", _TEXT, "Token of the next page."),
    ("fieldSelector", _TEXT, "Only objects whose fields match."),
    ("labelSelector", _TEXT, "Only objects whose labels match."),
    ("limit", _NUMBER, "Objects a page."),
    ("resourceVersion", _TEXT, "Version to read, or to watch from."),
    ("resourceVersionMatch", _TEXT, "How resourceVersion is meant: Exact or NotOlderThan."),
    ("sendInitialEvents", _FLAG, "Start a watch with the present objects."),
    ("timeoutSeconds", _NUMBER, "End after this time."),
    ("watch", _FLAG, "Watch for changes."),
)
_FORCE = (("force", _FLAG, "Take fields over from other managers (apply only)."),)
_DELETING: tuple[tuple[str, dict[str, str], str], ...] = (
    ("dryRun", _TEXT, "All: check the request without deleting anything."),
    ("gracePeriodSeconds", _NUMBER, "Time the object gets to end."),
    ("propagationPolicy", _TEXT, "What happens to dependents: Orphan, Background or Foreground."),
)
_CONNECTED = frozenset(("log", "exec", "attach", "portforward", "proxy"))
_POSTED = {
    "binding": "io.k8s.api.core.v1.Binding",
    "eviction": "io.k8s.api.policy.v1.Eviction",
    "token": "io.k8s.api.authentication.v1.TokenRequest",
}
_SCALE = "io.k8s.api.autoscaling.v1.Scale"


def paths(infos: Iterable[ResourceInfo], refs: str, *, version: int) -> dict[str, Any]:
    """Return ``paths`` for `infos` in OpenAPI `version` 2 or 3."""
    out: dict[str, Any] = {}
    for info in infos:
        if info.schema is not None:
            out |= _Writer(info, refs, version).paths()
    return dict(sorted(out.items()))


class _Writer:
    def __init__(self, info: ResourceInfo, refs: str, version: int) -> None:
        self._info = info
        self._refs = refs
        self._v3 = version == 3
        assert info.schema is not None
        self._name = info.schema.ref or info.schema.name
        self._list = f"{self._name.rpartition('.')[0]}.{info.list_kind or info.kind + 'List'}"
        self._where = [("namespace", _TEXT, "Namespace of the object.")] if info.namespaced else []

    def paths(self) -> dict[str, Any]:
        info = self._info
        base = info.gvr.prefix + ("/namespaces/{namespace}" if info.namespaced else "")
        collection = f"{base}/{info.gvr.resource}"
        out = {collection: self._item(self._collection(), self._where)}
        if info.namespaced and "list" in info.verbs:
            out[f"{info.gvr.prefix}/{info.gvr.resource}"] = self._item(
                {"get": self._listing("ForAllNamespaces")}, []
            )
        where = [*self._where, ("name", _TEXT, "Name of the object.")]
        single = self._single()
        if single:
            out[f"{collection}/{{name}}"] = self._item(single, where)
        for sub in sorted(info.subresources - _CONNECTED):
            out[f"{collection}/{{name}}/{sub}"] = self._item(self._subresource(sub), where)
        return out

    def _item(
        self, operations: dict[str, Any], where: list[tuple[str, dict[str, str], str]]
    ) -> dict[str, Any]:
        parameters = [self._parameter(p, "path") for p in where]
        return operations | ({"parameters": parameters} if parameters else {})

    def _collection(self) -> dict[str, Any]:
        verbs = self._info.verbs
        out: dict[str, Any] = {}
        if "list" in verbs:
            out["get"] = self._listing("")
        if "create" in verbs:
            out["post"] = self._operation("create", "post", self._name, _WRITING, body=self._name)
        if "deletecollection" in verbs:
            query = (*_DELETING, *_LISTING[:-1])
            out["delete"] = self._operation("deleteCollection", "deletecollection", _META + "Status", query)
        return out

    def _listing(self, suffix: str) -> dict[str, Any]:
        return self._operation("list", "list", self._list, _LISTING, suffix=suffix)

    def _single(self) -> dict[str, Any]:
        verbs = self._info.verbs
        out: dict[str, Any] = {}
        if "get" in verbs:
            out["get"] = self._operation("read", "get", self._name, ())
        if "update" in verbs:
            out["put"] = self._operation("replace", "put", self._name, _WRITING, body=self._name)
        if "patch" in verbs:
            out["patch"] = self._patch("")
        if "delete" in verbs:
            out["delete"] = self._operation(
                "delete", "delete", _META + "Status", _DELETING, body=_META + "DeleteOptions"
            )
        return out

    def _patch(self, suffix: str, name: str = "") -> dict[str, Any]:
        return self._operation(
            "patch", "patch", name or self._name, (*_WRITING, *_FORCE), body=_META + "Patch", suffix=suffix
        )

    def _subresource(self, sub: str) -> dict[str, Any]:
        suffix = sub.capitalize()
        if sub in _POSTED:
            name = _POSTED[sub]
            return {"post": self._operation("create", "post", name, _WRITING, body=name, suffix=suffix)}
        name = _SCALE if sub == "scale" else self._name
        return {
            "get": self._operation("read", "get", name, (), suffix=suffix),
            "put": self._operation("replace", "put", name, _WRITING, body=name, suffix=suffix),
            "patch": self._patch(suffix, name),
        }

    def _operation(
        self,
        verb: str,
        action: str,
        result: str,
        query: Iterable[tuple[str, dict[str, str], str]],
        *,
        body: str = "",
        suffix: str = "",
    ) -> dict[str, Any]:
        info = self._info
        group, kind = info.gvr.group, info.kind
        if result == _SCALE:
            gvk = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
        else:
            gvk = {"group": group, "version": info.gvr.version, "kind": kind}
        title = "".join(part.capitalize() for part in (group.partition(".")[0] or "core", info.gvr.version))
        scope = "Namespaced" if info.namespaced and suffix != "ForAllNamespaces" else ""
        out: dict[str, Any] = {
            "operationId": f"{verb}{title}{scope}{kind}{suffix}",
            "description": f"{verb} {kind}",
            "x-kubernetes-action": action,
            _GVK: gvk,
            "parameters": [self._parameter(p, "query") for p in query],
            "responses": {"200": self._response(result)},
        }
        if body:
            self._add_body(out, body)
        if not self._v3:
            out["produces"] = list(_BODIES)
        return out

    def _parameter(self, parameter: tuple[str, dict[str, str], str], place: str) -> dict[str, Any]:
        name, kind, text = parameter
        out: dict[str, Any] = {"name": name, "in": place, "description": text}
        if place == "path":
            out["required"] = True
        return out | ({"schema": kind} if self._v3 else kind)

    def _response(self, result: str) -> dict[str, Any]:
        schema = {"$ref": self._refs + result}
        if self._v3:
            return {"description": "OK", "content": {kind: {"schema": schema} for kind in _BODIES}}
        return {"description": "OK", "schema": schema}

    def _add_body(self, out: dict[str, Any], body: str) -> None:
        patch = body.endswith(".Patch")
        schema = {"type": "object"} if patch else {"$ref": self._refs + body}
        kinds = (
            tuple(k for k in _PATCHES if not (self._info.custom and "strategic" in k)) if patch else _BODIES
        )
        if self._v3:
            out["requestBody"] = {"content": {kind: {"schema": schema} for kind in kinds}}
        else:
            out["consumes"] = list(kinds)
            out["parameters"].append({"name": "body", "in": "body", "required": True, "schema": schema})
