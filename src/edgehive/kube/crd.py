"""CustomResourceDefinitions turned into resources, their status, and KubeEdge's own.

`kube.crd_check` says whether one is sound.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from edgehive.kube.builtin import TYPES
from edgehive.kube.crd_builder import definition, fields, text, whole
from edgehive.kube.crd_builder import version as version_of
from edgehive.kube.crd_check import crd_changes
from edgehive.kube.crd_check import validate_crd as _validate
from edgehive.kube.fielderror import FieldError
from edgehive.kube.refs import GVR
from edgehive.kube.resources import Column, ResourceInfo
from edgehive.kube.schema import Schema

Object = Mapping[str, Any]

SELECTABLE = "selectableFields"
"""Key of `ResourceInfo.extra`: the comma-separated paths of ``spec.versions[].selectableFields``, without dot."""


def validate_crd(crd: Object, old: Object | None = None) -> list[FieldError]:
    """Return what is wrong with a CRD; with `old`, also what may not change."""
    return _validate(crd) + (crd_changes(crd, old) if old is not None else [])


def infos_from_crd(crd: Object) -> list[ResourceInfo]:
    """Return one resource for each served version of a sound CRD."""
    spec = crd["spec"]
    stored = next((v["name"] for v in spec["versions"] if v.get("storage")), "")
    return [_info(spec, version, stored) for version in spec["versions"] if version.get("served")]


def _info(spec: Object, version: Object, stored: str) -> ResourceInfo:
    names = spec["names"]
    subresources = version.get("subresources") or {}
    scale = subresources.get("scale") or {}
    schema = root_schema((version.get("schema") or {}).get("openAPIV3Schema") or {})
    schema.name = type_name(spec["group"], version["name"], names["kind"])
    fields = [str(f.get("jsonPath", "")).lstrip(".") for f in version.get("selectableFields") or ()]
    return ResourceInfo(
        gvr=GVR(spec["group"], version["name"], names["plural"]),
        kind=names["kind"],
        namespaced=spec.get("scope") == "Namespaced",
        singular=names.get("singular") or names["kind"].lower(),
        list_kind=names.get("listKind") or names["kind"] + "List",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=frozenset(key for key in ("status", "scale") if subresources.get(key) is not None),
        schema=schema,
        columns=tuple(_column(column) for column in version.get("additionalPrinterColumns") or ()),
        custom=True,
        storage_version=stored,
        description=schema.description,
        scale_paths=(
            str(scale.get("specReplicasPath") or ""),
            str(scale.get("statusReplicasPath") or ""),
            str(scale.get("labelSelectorPath") or ""),
        ),
        extra={SELECTABLE: ",".join(fields)} if fields else {},
    )


def type_name(group: str, version: str, kind: str) -> str:
    """Return the OpenAPI name of a custom kind: ``com.example.v1.Widget``."""
    return ".".join((*reversed(group.split(".")), version, kind))


def root_schema(source: Object) -> Schema:
    """Return the schema of a whole custom object: the CRD's, with Kubernetes' envelope."""
    schema = Schema.from_openapi(source)
    own_meta = schema.properties.get("metadata")
    envelope = {
        "apiVersion": Schema(type="string", description="Group and version of this object."),
        "kind": Schema(type="string", description="What this object is."),
        "metadata": TYPES.reference("ObjectMeta"),
    }
    if own_meta is not None and own_meta.properties:
        schema.all_of = (*schema.all_of, Schema(type="object", properties={"metadata": own_meta}))
    schema.properties = {**envelope, **{k: v for k, v in schema.properties.items() if k not in envelope}}
    return schema


def _column(column: Object) -> Column:
    return Column(
        name=column["name"],
        type=column["type"],
        format=column.get("format") or "",
        description=column.get("description") or "",
        priority=column.get("priority") or 0,
        path=column["jsonPath"],
    )


def crd_warnings(crd: Object) -> list[str]:
    """Return sentences for HTTP ``Warning`` headers: what of this CRD is kept but not enforced."""
    warnings = []
    for version in (crd.get("spec") or {}).get("versions") or ():
        root = (version.get("schema") or {}).get("openAPIV3Schema")
        if not isinstance(root, Mapping):
            continue
        rules = Schema.from_openapi(root).unevaluated_rules()
        if rules:
            places = ", ".join(rules[:5]) + (", ..." if len(rules) > 5 else "")
            warnings.append(
                f"version {version.get('name')}: x-kubernetes-validations are stored but not evaluated by this "
                f"server (at {places})"
            )
    return warnings


def crd_status(crd: Object, others: Iterable[Object], *, now: str) -> dict[str, Any]:
    """Return ``status``: names accepted unless another CRD of the group has them, conditions, stored versions."""
    spec = crd["spec"]
    previous = crd.get("status") or {}
    reason, message = _name_conflict(crd, others)
    accepted = {
        "type": "NamesAccepted",
        "status": "False" if reason else "True",
        "reason": reason or "NoConflicts",
        "message": message or "no conflicts found",
    }
    was_established = any(
        c.get("type") == "Established" and c.get("status") == "True" for c in previous.get("conditions") or ()
    )
    established = {
        "type": "Established",
        "status": "False" if reason and not was_established else "True",
        "reason": "NotAccepted" if reason and not was_established else "InitialNamesAccepted",
        "message": "not all names are accepted"
        if reason and not was_established
        else "the initial names have been accepted",
    }
    stored = list(previous.get("storedVersions") or ())
    stored += [v["name"] for v in spec["versions"] if v.get("storage") and v["name"] not in stored]
    names = previous.get("acceptedNames") if reason else spec["names"]
    return {
        "conditions": [_dated(c, previous.get("conditions"), now) for c in (accepted, established)],
        "acceptedNames": dict(names) if names else {"plural": "", "kind": ""},
        "storedVersions": stored,
    }


def _dated(condition: dict[str, Any], old: Any, now: str) -> dict[str, Any]:
    before = next((c for c in old or () if c.get("type") == condition["type"]), None)
    same = before is not None and before.get("status") == condition["status"]
    return condition | {
        "lastTransitionTime": before["lastTransitionTime"] if before is not None and same else now
    }


def _name_conflict(crd: Object, others: Iterable[Object]) -> tuple[str, str]:
    spec = crd["spec"]
    taken: dict[str, set[str]] = {"resources": set(), "kinds": set()}
    for other in others:
        if other["spec"]["group"] != spec["group"] or other["metadata"]["name"] == crd["metadata"]["name"]:
            continue
        names = (other.get("status") or {}).get("acceptedNames") or {}
        taken["resources"] |= {
            names.get("plural", ""),
            names.get("singular", ""),
            *(names.get("shortNames") or ()),
        }
        taken["kinds"] |= {names.get("kind", ""), names.get("listKind", "")}
    names = spec["names"]
    for key, reason in (("plural", "PluralConflict"), ("singular", "SingularConflict")):
        if names.get(key) and names[key] in taken["resources"]:
            return reason, f'"{names[key]}" is already in use'
    for short in names.get("shortNames") or ():
        if short in taken["resources"]:
            return "ShortNamesConflict", f'"{short}" is already in use'
    for key, reason in (("kind", "KindConflict"), ("listKind", "ListKindConflict")):
        if names.get(key) and names[key] in taken["kinds"]:
            return reason, f'"{names[key]}" is already in use'
    return "", ""


def kubeedge_crds() -> list[dict[str, Any]]:
    """Return the manifests of ObjectSync and ClusterObjectSync (what KubeEdge installs for reliable sync)."""
    return [
        _sync_crd("ObjectSync", "Namespaced", "an object of a namespace"),
        _sync_crd("ClusterObjectSync", "Cluster", "a cluster-scoped object"),
    ]


def _sync_crd(kind: str, scope: str, what: str) -> dict[str, Any]:
    spec = {
        "objectAPIVersion": text("Its apiVersion."),
        "objectKind": text("Its kind."),
        "objectName": text("Its name."),
    }
    status = {"objectResourceVersion": text("The newest resourceVersion the node has acknowledged.")}
    schema = whole(
        f"{kind} records which version of {what} a node has acknowledged.",
        {
            "spec": fields(spec, "The object that is followed."),
            "status": fields(status, "How far the node has come."),
        },
    )
    return definition(
        "reliablesyncs.kubeedge.io", kind, [version_of("v1alpha1", schema, status=True)], scope=scope
    )
