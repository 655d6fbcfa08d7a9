"""Pod templates compared and named by hash. Pure."""

import json
from collections.abc import Mapping
from typing import Any

POD_TEMPLATE_HASH = "pod-template-hash"
CONTROLLER_REVISION_HASH = "controller-revision-hash"

_SAFE = "bcdfghjklmnpqrstvwxz2456789"  # no vowels and no look-alikes, so that no word comes out


def template_hash(template: Mapping[str, Any], collisions: int = 0) -> str:
    """Return a short name for what `template` says, made of characters safe in names and labels."""
    text = json.dumps(without_hash(template), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    value = _fnv1a(text.encode() + (collisions.to_bytes(8, "little") if collisions else b""))
    return "".join(_SAFE[ord(digit) % len(_SAFE)] for digit in str(value))


def same_template(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two templates ask for the same pods; the hash label does not count."""
    return without_hash(one) == without_hash(other)


def without_hash(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return `template` as it was before a deployment labelled it, empty values left out."""
    meta = {k: v for k, v in (template.get("metadata") or {}).items() if v}
    labels = {k: v for k, v in (meta.get("labels") or {}).items() if k != POD_TEMPLATE_HASH}
    meta.pop("creationTimestamp", None)
    meta.pop("labels", None)
    if labels:
        meta["labels"] = labels
    return {"metadata": meta, "spec": template.get("spec") or {}}


def with_labels(template: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """Return `template` with more labels on its pods."""
    meta = dict(template.get("metadata") or {})
    return {**template, "metadata": {**meta, "labels": {**(meta.get("labels") or {}), **labels}}}


def _fnv1a(data: bytes) -> int:
    value = 2166136261
    for byte in data:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value
