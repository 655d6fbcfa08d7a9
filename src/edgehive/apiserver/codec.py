"""Objects between bytes and dicts: JSON, YAML, versions, and the fields selectors look at."""

from collections.abc import Callable
from typing import Any, Final, cast

import msgspec
import yaml

from edgehive.apiserver.catalog import storage_api_version
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.meta import Meta, decode_partial
from edgehive.kube.resources import ResourceInfo
from edgehive.kube.selectors import FieldSelector, LabelSelector
from edgehive.kube.status import ApiStatus, bad_request

MAX_DEPTH: Final = 256
"""Levels of objects and lists in each other; the deepest schema of a CRD that is in use has some seventy."""

Object = dict[str, Any]
encode: Callable[[Any], bytes] = msgspec.json.encode


def decode(raw: bytes) -> Object:
    """Decode a stored object."""
    return cast("Object", msgspec.json.decode(raw))


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: what looks like a date stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def decode_json(body: bytes) -> Any:
    """Decode a request body.

    Raises:
        ApiStatus: 400.
    """
    try:
        return msgspec.json.decode(body)
    except MALFORMED as exc:
        raise bad_request(f"the object provided is not valid JSON: {exc}") from exc


def decode_yaml(body: bytes) -> Any:
    """Decode a YAML (or JSON) request body.

    Raises:
        ApiStatus: 400.
    """
    if body.lstrip()[:1] in {b"{", b"["}:
        return decode_json(body)
    try:
        if b"&" in body and b"*" in body:  # aliases let a small text grow without bounds
            for token in yaml.scan(body, Loader=_Loader):
                if isinstance(token, yaml.AliasToken):
                    raise bad_request("YAML aliases are not accepted")
        value = yaml.load(body, Loader=_Loader)  # noqa: S506 - a SafeLoader
        return msgspec.json.decode(encode(value))  # keys become text, only what JSON knows is left
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, OverflowError) as exc:
        raise bad_request(f"error converting YAML to JSON: {exc}") from exc


def check_depth(value: Any) -> None:
    """Refuse what is nested so deeply that code which follows it down runs out of stack; how soon a decoder does is
    another matter in each version of Python.

    Raises:
        ApiStatus: 400.
    """
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise bad_request(f"the object provided is nested more than {MAX_DEPTH} levels deep")
        within: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                within += one.values()
            elif isinstance(one, list):
                within += one
        level = [one for one in within if isinstance(one, dict | list)]


def as_object(value: Any) -> Object:
    """Check that a decoded body is an object with string keys, not too deep.

    Raises:
        ApiStatus: 400.
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise bad_request("the object provided is unrecognized: it must be an object")
    check_depth(value)
    return value


def check_kind(info_kind: str, api_version: str, obj: Object) -> None:
    """Fill in or check kind and apiVersion of a body.

    Raises:
        ApiStatus: 400.
    """
    kind, version = obj.setdefault("kind", info_kind), obj.setdefault("apiVersion", api_version)
    if kind != info_kind or version != api_version:
        raise ApiStatus(
            400,
            "BadRequest",
            f"{kind} in version {version!s} cannot be handled as a {info_kind}: "
            f'the API version in the data ({version}, Kind={kind}) does not match the expected ("{api_version}", '
            f"Kind={info_kind})",
        )


def to_served(raw: bytes, info: ResourceInfo) -> bytes:
    """Return a stored object in the version it is asked in (conversion None: only apiVersion differs)."""
    stored = info.storage_version
    current = not stored or stored == info.gvr.version
    if current and (not info.custom or _head_has(raw, info.api_version)):
        return raw
    obj = decode(raw)
    if obj.get("apiVersion") == info.api_version:
        return raw
    obj["apiVersion"] = info.api_version
    return encode(obj)


def _head_has(raw: bytes, api_version: str) -> bool:
    """Look for the apiVersion where `stored` puts it: right at the start."""
    return raw.startswith(b'{"apiVersion":"%b"' % api_version.encode())


def stored(obj: Object, info: ResourceInfo, revision: int) -> bytes:
    """Return the bytes to store: storage version, resourceVersion, apiVersion and kind in front."""
    meta = obj["metadata"]
    meta["resourceVersion"] = str(revision)
    first = {"apiVersion": storage_api_version(info), "kind": info.kind, "metadata": meta}
    rest = {k: v for k, v in obj.items() if k not in first}
    return encode(first | rest)


def meta_of(raw: bytes) -> Meta:
    """The metadata of a stored object."""
    return decode_partial(raw).metadata


Matcher = Callable[[bytes], bool]


def matcher(info: ResourceInfo, labels: LabelSelector, fields: FieldSelector) -> Matcher | None:
    """Return the test for a selection; None when it selects everything."""
    if labels.everything and not fields.terms:
        return None
    simple = all(path in {"metadata.name", "metadata.namespace"} for path, _, _ in fields.terms)

    def by_meta(raw: bytes) -> bool:
        meta = meta_of(raw)
        return labels.matches(meta.labels) and all(
            ((meta.name if path == "metadata.name" else meta.namespace) == value) == equal
            for path, equal, value in fields.terms
        )

    def by_object(raw: bytes) -> bool:
        return by_meta_labels(raw) and fields.matches(decode(raw), info.gvr)

    def by_meta_labels(raw: bytes) -> bool:
        return labels.everything or labels.matches(meta_of(raw).labels)

    return by_meta if simple else by_object
