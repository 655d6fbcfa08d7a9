"""Discovery: which groups, versions and resources there are, in the plain and in the aggregated form."""

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

from edgehive.aio.http import Request, Response
from edgehive.apiserver.catalog import Catalog
from edgehive.apiserver.codec import encode
from edgehive.apiserver.negotiate import accepted
from edgehive.kube.resources import ResourceInfo

_DISCOVERY_GROUP = "apidiscovery.k8s.io"
_VERBS: dict[str, tuple[str, ...]] = {
    "status": ("get", "patch", "update"),
    "scale": ("get", "patch", "update"),
    "finalize": ("update",),
    "approval": ("get", "patch", "update"),
    "ephemeralcontainers": ("get", "patch", "update"),
    "binding": ("create",),
    "eviction": ("create",),
    "token": ("create",),
}
_KINDS: dict[str, tuple[str, str, str]] = {
    "scale": ("autoscaling", "v1", "Scale"),
    "binding": ("", "v1", "Binding"),
    "eviction": ("policy", "v1", "Eviction"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
}
REVIEWS: dict[tuple[str, str], dict[str, str]] = {
    ("authorization.k8s.io", "v1"): {
        "selfsubjectaccessreviews": "SelfSubjectAccessReview",
        "selfsubjectrulesreviews": "SelfSubjectRulesReview",
        "subjectaccessreviews": "SubjectAccessReview",
    },
    ("authentication.k8s.io", "v1"): {
        "selfsubjectreviews": "SelfSubjectReview",
        "tokenreviews": "TokenReview",
    },
}
"""Kinds that are questions: they can be created, and are answered, not stored."""


class Discovery:
    """Answers ``/api``, ``/apis`` and what is below them down to the list of resources."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def answer(self, request: Request) -> Response | None:
        """Answer a discovery path; None when it is none (or unknown)."""
        parts = [part for part in request.path.split("/") if part]
        document: dict[str, Any] | None = None
        match parts:
            case ["api"] | ["apis"]:
                aggregated = self._aggregated(request, core=parts == ["api"])
                if aggregated is not None:
                    return aggregated
                document = self._versions() if parts == ["api"] else self._groups()
            case ["api", version]:
                document = self._resources("", version)
            case ["apis", group]:
                document = self._group(group)
            case ["apis", group, version]:
                document = self._resources(group, version)
            case _:
                pass
        return None if document is None else _json(request, document, "application/json")

    def _all_groups(self) -> dict[str, list[str]]:
        groups = self._catalog.groups()
        for group, version in REVIEWS:
            groups.setdefault(group, [version])
        return groups

    @staticmethod
    def _versions() -> dict[str, Any]:
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}

    def _groups(self) -> dict[str, Any]:
        groups = [_group(g, v) for g, v in self._all_groups().items() if g]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def _group(self, name: str) -> dict[str, Any] | None:
        versions = self._all_groups().get(name)
        return (
            None
            if not versions or not name
            else {"kind": "APIGroup", "apiVersion": "v1"} | _group(name, versions)
        )

    def _resources(self, group: str, version: str) -> dict[str, Any] | None:
        rows: list[dict[str, Any]] = []
        for info in self._catalog.in_version(group, version):
            rows += _rows(info)
        for resource, kind in REVIEWS.get((group, version), {}).items():
            rows.append(
                {"name": resource, "singularName": "", "namespaced": False, "kind": kind, "verbs": ["create"]}
            )
        if not rows:
            return None
        name = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": rows}

    # -- aggregated

    def _aggregated(self, request: Request, *, core: bool) -> Response | None:
        for media, values in accepted(request):
            if media != "application/json":
                continue
            kind, group, version = values.get("as", ""), values.get("g", ""), values.get("v", "")
            if not kind:
                return None
            if kind == "APIGroupDiscoveryList" and group == _DISCOVERY_GROUP and version in {"v2", "v2beta1"}:
                document = self._aggregate(version, core=core)
                content = f"application/json;g={group};v={version};as={kind}"
                return _json(request, document, content)
        return None

    def _aggregate(self, version: str, *, core: bool) -> dict[str, Any]:
        groups = {g: v for g, v in self._all_groups().items() if bool(g) != core}
        items = [
            {
                "metadata": {"name": group} if group else {},
                "versions": [
                    {"version": v, "resources": list(self._entries(group, v)), "freshness": "Current"}
                    for v in versions
                ],
            }
            for group, versions in groups.items()
        ]
        api_version = f"{_DISCOVERY_GROUP}/{version}"
        return {"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items}

    def _entries(self, group: str, version: str) -> Iterable[dict[str, Any]]:
        for info in self._catalog.in_version(group, version):
            yield _entry(info)
        for resource, kind in REVIEWS.get((group, version), {}).items():
            yield {
                "resource": resource,
                "responseKind": {"group": group, "version": version, "kind": kind},
                "scope": "Cluster",
                "singularResource": "",
                "verbs": ["create"],
            }


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    found = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions]
    return {"name": name, "versions": found, "preferredVersion": found[0]}


def _subresources(info: ResourceInfo) -> list[str]:
    return sorted(sub for sub in info.subresources if sub in _VERBS)


def _sub_kind(info: ResourceInfo, sub: str) -> tuple[str, str, str]:
    return _KINDS.get(sub, (info.gvr.group, info.gvr.version, info.kind))


def _rows(info: ResourceInfo) -> list[dict[str, Any]]:
    row: dict[str, Any] = {
        "name": info.gvr.resource,
        "singularName": info.singular,
        "namespaced": info.namespaced,
        "kind": info.kind,
        "verbs": sorted(info.verbs),
    }
    if info.short_names:
        row["shortNames"] = list(info.short_names)
    if info.categories:
        row["categories"] = list(info.categories)
    row["storageVersionHash"] = _storage_hash(info)
    rows = [row]
    for sub in _subresources(info):
        group, version, kind = _sub_kind(info, sub)
        own = {"group": group, "version": version} if sub in _KINDS else {}
        name = f"{info.gvr.resource}/{sub}"
        rows.append(
            {"name": name, "singularName": "", "namespaced": info.namespaced, **own, "kind": kind}
            | {"verbs": list(_VERBS[sub])}
        )
    return rows


def _storage_hash(info: ResourceInfo) -> str:
    text = f"{info.gvr.group}/{info.storage_version or info.gvr.version}/{info.kind}"
    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


def _entry(info: ResourceInfo) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "resource": info.gvr.resource,
        "responseKind": {"group": info.gvr.group, "version": info.gvr.version, "kind": info.kind},
        "scope": "Namespaced" if info.namespaced else "Cluster",
        "singularResource": info.singular,
        "verbs": sorted(info.verbs),
    }
    if info.short_names:
        entry["shortNames"] = list(info.short_names)
    if info.categories:
        entry["categories"] = list(info.categories)
    subs = []
    for sub in _subresources(info):
        group, version, kind = _sub_kind(info, sub)
        kinds = {"group": group, "version": version, "kind": kind}
        subs.append({"subresource": sub, "responseKind": kinds, "verbs": list(_VERBS[sub])})
    if subs:
        entry["subresources"] = subs
    return entry


def _json(request: Request, document: dict[str, Any], content: str) -> Response:
    body = encode(document)
    tag = f'"{hashlib.sha256(body).hexdigest().upper()}"'
    headers = {"content-type": content, "etag": tag, "vary": "Accept", "cache-control": "public"}
    if request.headers.get("if-none-match") == tag:
        return Response(304, b"", headers)
    return Response(200, body + b"\n", headers)
